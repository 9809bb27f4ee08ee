//! The variables that the runtime sets.

use crate::{Error, field};
use model::cni::Command;
use std::net::IpAddr;

/// Longest interface name (`IFNAMSIZ` less the closing zero).
const MAX_IFNAME: usize = 15;

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
    /// `IP`: one address or several, separated by commas.
    pub(crate) ips: Vec<IpAddr>,
    /// `MAC`.
    pub(crate) mac: Option<[u8; 6]>,
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
                "K8S_POD_INFRA_CONTAINER_ID" => {}
                "IP" => pod.ips = ips(value)?,
                "MAC" => pod.mac = Some(field::mac(value).map_err(|what| not(key, value, what))?),
                "IgnoreUnknown" => ignore = boolean(value)?,
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
        _ => Err(not("IgnoreUnknown", value, "a boolean")),
    }
}

fn ips(value: &str) -> Result<Vec<IpAddr>, Error> {
    let one = |text: &str| field::address(text).map_err(|what| not("IP", text, what));
    value.split(',').map(one).collect()
}

fn not(key: &str, value: &str, what: &str) -> Error {
    wrong("CNI_ARGS", format!("{key}: {value:?} is not {what}"))
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
mod tests;
