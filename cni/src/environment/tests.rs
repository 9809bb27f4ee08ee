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
fn addresses_and_mac_are_read_from_cni_args() {
    let pod = with("CNI_ARGS", "IP=10.0.0.7/24,fd00::7;MAC=02:00:00:00:00:01")
        .unwrap()
        .pod;
    let ips: Vec<String> = pod.ips.iter().map(ToString::to_string).collect();
    assert_eq!(ips, ["10.0.0.7", "fd00::7"]);
    assert_eq!(pod.mac, Some([2, 0, 0, 0, 0, 1]));
    assert_eq!(
        with("CNI_ARGS", "IP=10.0.0").unwrap_err(),
        "CNI_ARGS: IP: \"10.0.0\" is not an IP address"
    );
    assert_eq!(
        with("CNI_ARGS", "MAC=02").unwrap_err(),
        "CNI_ARGS: MAC: \"02\" is not a MAC address"
    );
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
