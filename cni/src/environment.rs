//! The variables that the runtime sets.

use crate::Error;
use model::cni::Command;

/// Longest interface name (`IFNAMSIZ` less the closing zero).
const MAX_IFNAME: usize = 15;
/// Keys of `CNI_ARGS` that runtimes set without being asked.
const KNOWN_ARGS: [&str; 7] = [
    "IgnoreUnknown",
    "IP",
    "MAC",
    "K8S_POD_NAMESPACE",
    "K8S_POD_NAME",
    "K8S_POD_UID",
    "K8S_POD_INFRA_CONTAINER_ID",
];

/// What `CNI_COMMAND` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Answered without the agent.
    Version,
    /// Passed on to the agent.
    Of(Command),
}

/// The attachment that the variables name. Empty where the command needs none.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) container_id: String,
    pub(crate) ifname: String,
    pub(crate) netns: String,
    pub(crate) pod: PodArgs,
}

/// The pod in `CNI_ARGS`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PodArgs {
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) uid: Option<String>,
}

pub(crate) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

pub(crate) fn asked(variables: Variables<'_>) -> Result<Asked, Error> {
    let text = required(variables, "CNI_COMMAND")?;
    Ok(match text.as_str() {
        "ADD" => Asked::Of(Command::Add),
        "DEL" => Asked::Of(Command::Del),
        "CHECK" => Asked::Of(Command::Check),
        "STATUS" => Asked::Of(Command::Status),
        "GC" => Asked::Of(Command::Gc),
        "VERSION" => Asked::Version,
        _ => return Err(wrong("CNI_COMMAND", format!("{text:?} is not a command"))),
    })
}

impl Attachment {
    pub(crate) fn read(command: Command, variables: Variables<'_>) -> Result<Self, Error> {
        if matches!(command, Command::Status | Command::Gc) {
            return Ok(Self::default());
        }
        let args = variables("CNI_ARGS").unwrap_or_default();
        Ok(Self {
            container_id: container_id(required(variables, "CNI_CONTAINERID")?)?,
            ifname: ifname(required(variables, "CNI_IFNAME")?)?,
            netns: match command {
                Command::Del => variables("CNI_NETNS").unwrap_or_default(),
                _ => required(variables, "CNI_NETNS")?,
            },
            pod: match PodArgs::read(&args) {
                // A pod is taken down even if its arguments are not understood any more.
                Err(_) if command == Command::Del => PodArgs::default(),
                pod => pod?,
            },
        })
    }
}

impl PodArgs {
    fn read(args: &str) -> Result<Self, Error> {
        let mut pod = Self::default();
        let (mut unknown, mut ignore) = (None, false);
        for pair in args.split(';').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(wrong("CNI_ARGS", format!("{pair:?} is not KEY=VALUE")));
            };
            let text = || (!value.is_empty()).then(|| value.to_owned());
            match key {
                "K8S_POD_NAMESPACE" => pod.namespace = text(),
                "K8S_POD_NAME" => pod.name = text(),
                "K8S_POD_UID" => pod.uid = text(),
                "IgnoreUnknown" => ignore = boolean(value)?,
                _ if KNOWN_ARGS.contains(&key) => {}
                _ => unknown = unknown.or(Some(key)),
            }
        }
        match unknown {
            Some(key) if !ignore => Err(wrong(
                "CNI_ARGS",
                format!("{key:?} is not known and IgnoreUnknown is not set"),
            )),
            _ => Ok(pod),
        }
    }
}

fn boolean(value: &str) -> Result<bool, Error> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(wrong(
            "CNI_ARGS",
            format!("IgnoreUnknown: {value:?} is not a boolean"),
        )),
    }
}

fn required(variables: Variables<'_>, name: &'static str) -> Result<String, Error> {
    variables(name)
        .filter(|value| !value.is_empty())
        .ok_or_else(|| {
            let hint = if name == "CNI_COMMAND" {
                "; a container runtime sets it"
            } else {
                ""
            };
            wrong(name, format!("is not set{hint}"))
        })
}

/// Containers and networks: a letter or digit, then those, `_`, `.` and `-`.
pub(crate) fn is_identifier(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(plain)
        && text
            .chars()
            .all(|c| plain(c) || matches!(c, '_' | '.' | '-'))
}

fn container_id(id: String) -> Result<String, Error> {
    if is_identifier(&id) {
        return Ok(id);
    }
    Err(wrong(
        "CNI_CONTAINERID",
        format!("{id:?} is not letters, digits, '_', '.' and '-'"),
    ))
}

fn ifname(name: String) -> Result<String, Error> {
    let reason = if name.len() > MAX_IFNAME {
        format!(
            "{name:?} is {} bytes long; an interface name has {MAX_IFNAME} at most",
            name.len()
        )
    } else if name == "." || name == ".." {
        format!("{name:?} is not an interface name")
    } else if name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c == '\0') {
        format!("{name:?} has a character that an interface name cannot have")
    } else {
        return Ok(name);
    };
    Err(wrong("CNI_IFNAME", reason))
}

fn wrong(variable: &'static str, reason: String) -> Error {
    Error::Environment { variable, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(command: Command, pairs: &[(&str, &str)]) -> Result<Attachment, String> {
        let variables = |name: &str| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Attachment::read(command, &variables).map_err(|error| {
            assert_eq!(error.code(), 4);
            error.to_string()
        })
    }

    const GOOD: [(&str, &str); 3] = [
        ("CNI_CONTAINERID", "c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", "/run/netns/x"),
    ];

    fn with(key: &'static str, value: &'static str) -> Result<Attachment, String> {
        let mut pairs = vec![(key, value)];
        pairs.extend(GOOD.iter().filter(|(name, _)| *name != key));
        read(Command::Add, &pairs)
    }

    #[test]
    fn each_command_needs_its_variables() {
        assert!(read(Command::Add, &GOOD).is_ok());
        assert!(read(Command::Del, &GOOD[..2]).is_ok());
        assert!(read(Command::Status, &[]).is_ok());
        assert!(read(Command::Gc, &[]).is_ok());
        for command in [Command::Add, Command::Check] {
            assert_eq!(
                read(command, &GOOD[..2]).unwrap_err(),
                "CNI_NETNS: is not set"
            );
        }
        assert_eq!(
            read(Command::Del, &GOOD[1..]).unwrap_err(),
            "CNI_CONTAINERID: is not set"
        );
        assert_eq!(
            with("CNI_IFNAME", "").unwrap_err(),
            "CNI_IFNAME: is not set"
        );
    }

    #[test]
    fn wrong_variables_are_named() {
        let cases = [
            (
                "CNI_IFNAME",
                "sixteen-bytes-xx",
                "\"sixteen-bytes-xx\" is 16 bytes long; an interface name has 15 at most",
            ),
            ("CNI_IFNAME", "..", "\"..\" is not an interface name"),
            (
                "CNI_IFNAME",
                "a/b",
                "\"a/b\" has a character that an interface name cannot have",
            ),
            (
                "CNI_CONTAINERID",
                "../x",
                "\"../x\" is not letters, digits, '_', '.' and '-'",
            ),
            ("CNI_ARGS", "A", "\"A\" is not KEY=VALUE"),
            (
                "CNI_ARGS",
                "A=1;IgnoreUnknown=0",
                "\"A\" is not known and IgnoreUnknown is not set",
            ),
            (
                "CNI_ARGS",
                "IgnoreUnknown=maybe",
                "IgnoreUnknown: \"maybe\" is not a boolean",
            ),
        ];
        for (variable, value, reason) in cases {
            assert_eq!(
                with(variable, value).unwrap_err(),
                format!("{variable}: {reason}")
            );
        }
    }

    #[test]
    fn the_pod_is_read_from_cni_args() {
        let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=api-0;X=y;\
                    K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=";
        let pod = with("CNI_ARGS", args).unwrap().pod;
        assert_eq!(pod.namespace.as_deref(), Some("shop"));
        assert_eq!(pod.name.as_deref(), Some("api-0"));
        assert_eq!(pod.uid, None);
    }

    #[test]
    fn del_does_not_stumble_over_cni_args() {
        let mut pairs = GOOD.to_vec();
        pairs.push(("CNI_ARGS", "nonsense"));
        assert!(read(Command::Del, &pairs).is_ok());
    }

    #[test]
    fn commands_are_told_apart() {
        let ask = |text: &'static str| asked(&move |_| Some(text.to_owned()));
        assert_eq!(ask("ADD").unwrap(), Asked::Of(Command::Add));
        assert_eq!(ask("VERSION").unwrap(), Asked::Version);
        assert_eq!(
            ask("add").unwrap_err().to_string(),
            "CNI_COMMAND: \"add\" is not a command"
        );
        let unset = asked(&|_| None).unwrap_err();
        assert_eq!(
            (unset.code(), unset.to_string().as_str()),
            (4, "CNI_COMMAND: is not set; a container runtime sets it")
        );
    }
}
