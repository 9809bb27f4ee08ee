use super::*;
use serde_json::json;

fn base(extra: Value) -> Value {
    let mut config = json!({ "cniVersion": "1.1.0", "name": "ocicat", "type": "ocicat" });
    for (key, value) in extra.as_object().expect("an object") {
        config[key] = value.clone();
    }
    config
}

fn read(command: Command, extra: Value) -> Result<Config, (u32, String)> {
    Config::read(command, &base(extra)).map_err(|error| (error.code(), error.to_string()))
}

fn refused(command: Command, extra: Value) -> (u32, String) {
    read(command, extra).expect_err("refused")
}

#[test]
fn a_minimal_configuration_has_defaults() {
    let config = read(Command::Add, json!({})).unwrap();
    assert_eq!(config.socket, Path::new("/run/ocicat/cni.sock"));
    assert_eq!(config.spool_dir, Path::new("/var/lib/ocicat/spool"));
    assert_eq!(config.timeout, Duration::from_secs(30));
    assert_eq!(config.wishes, Wishes::default());
    assert_eq!(config.dns, None);
}

#[test]
fn the_spool_of_another_agent_is_beside_its_socket_unless_said() {
    let config = read(Command::Del, json!({ "socket": "/run/n2/cni.sock" })).unwrap();
    assert_eq!(config.spool_dir, Path::new("/run/n2/spool"));
    let config = read(
        Command::Del,
        json!({ "socket": "/run/n2/cni.sock", "spoolDir": "/x" }),
    )
    .unwrap();
    assert_eq!(config.spool_dir, Path::new("/x"));
}

#[test]
fn wishes_are_read_from_every_convention() {
    let config = read(
        Command::Add,
        json!({
            "mtu": 1400,
            "num_queues": 4,
            "ipam": { "type": "calico-ipam", "ipv4_pools": ["a", "10.0.0.0/16"], "ipv6_pools": ["b"],
                "assign_ipv4": "true", "assign_ipv6": false },
            "args": { "cni": {
                "labels": { "app": "api" },
                "ips": ["10.0.0.9"],
                "ports": [{ "name": "dns", "protocol": "udp", "port": 53 }, { "name": "web", "port": 80 }],
            } },
            "runtimeConfig": {
                "ips": ["10.0.0.7/16", "fd00::7"],
                "mac": "02:00:00:00:00:aB",
                "portMappings": [
                    { "hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "" },
                    { "hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "10.0.0.1" },
                ],
                "bandwidth": { "ingressRate": 0, "ingressBurst": 0, "egressRate": 0, "egressBurst": 0 },
            },
        }),
    );
    let port = |name: &str, protocol, port| NamedPort {
        name: name.to_owned(),
        protocol,
        port,
    };
    assert_eq!(
        config.unwrap().wishes,
        Wishes {
            labels: Labels::from([("app".to_owned(), "api".to_owned())]),
            ports: vec![
                port("dns", Protocol::Udp, 53),
                port("web", Protocol::Tcp, 80)
            ],
            host_ports: vec![
                HostPort {
                    host_ip: None,
                    host_port: 8080,
                    protocol: Protocol::Tcp,
                    port: 80,
                },
                HostPort {
                    host_ip: Some("10.0.0.1".parse().unwrap()),
                    host_port: 53,
                    protocol: Protocol::Udp,
                    port: 5353,
                },
            ],
            ips: vec!["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()],
            pools: ["a", "10.0.0.0/16", "b"].map(str::to_owned).into(),
            assign_ipv4: Some(true),
            assign_ipv6: Some(false),
            mac: Some([2, 0, 0, 0, 0, 0xab]),
            mtu: Some(1400),
            queues: Some(4),
        }
    );
}

#[test]
fn labels_may_be_a_list_and_ips_come_from_args_too() {
    let args = json!({ "args": { "cni": {
        "labels": [{ "key": "app", "value": "api" }],
        "ips": ["10.0.0.9"],
    } } });
    let wishes = read(Command::Add, args).unwrap().wishes;
    assert_eq!(wishes.labels["app"], "api");
    assert_eq!(wishes.ips, ["10.0.0.9".parse::<IpAddr>().unwrap()]);
}

#[test]
fn mtu_0_and_an_empty_mac_leave_the_choice_to_the_agent() {
    let extra = json!({ "mtu": 0, "runtimeConfig": { "mac": "" } });
    assert_eq!(read(Command::Add, extra).unwrap().wishes, Wishes::default());
}

#[test]
fn wrong_fields_are_named_with_code_7() {
    let cni = |value: Value| json!({ "args": { "cni": value } });
    let cases = [
        (json!({ "mtu": "big" }), r#"mtu: "big" is not a number"#),
        (
            json!({ "num_queues": 0 }),
            "num_queues: 0 is not a whole number from 1 to 256",
        ),
        (
            json!({ "mtu": 67 }),
            "mtu: 67 is not an MTU (0, or 68 to 65535)",
        ),
        (
            json!({ "mtu": 65536 }),
            "mtu: 65536 is not a whole number from 0 to 65535",
        ),
        (
            json!({ "runtimeConfig": { "bandwidth": { "ingressRate": 1000, "ingressBurst": 1 } } }),
            "runtimeConfig.bandwidth: is not limited here: give the capability to the plugin \
             \"bandwidth\", after this one in the list",
        ),
        (
            json!({ "runtimeConfig": { "portMappings": [{ "hostPort": 0, "containerPort": 80 }] } }),
            "runtimeConfig.portMappings[0].hostPort: 0 is not a whole number from 1 to 65535",
        ),
        (
            json!({ "runtimeConfig": { "portMappings": [{ "hostPort": 80 }] } }),
            "runtimeConfig.portMappings[0].containerPort: is required",
        ),
        (
            json!({ "runtimeConfig": { "portMappings": [
                { "hostPort": 80, "containerPort": 80, "protocol": "icmp" },
            ] } }),
            "runtimeConfig.portMappings[0].protocol: \"icmp\" is not TCP, UDP or SCTP",
        ),
        (json!({ "name": null }), "name: is required"),
        (
            json!({ "name": "a b" }),
            r#"name: "a b" is not a name of letters, digits, '_', '.' and '-'"#,
        ),
        (
            json!({ "socket": "cni.sock" }),
            r#"socket: "cni.sock" is not an absolute path"#,
        ),
        (
            json!({ "timeout": 0 }),
            "timeout: 0 is not a whole number from 1 to 600",
        ),
        (
            json!({ "ipam": { "type": "host-local" } }),
            r#"ipam.type: "host-local" is not supported: addresses come from the agent's own pools; leave it out, or set it to "ocicat" or "calico-ipam""#,
        ),
        (json!({ "ipam": [] }), "ipam: [] is not an object"),
        (
            json!({ "ipam": { "ipv4_pools": [7] } }),
            "ipam.ipv4_pools[0]: 7 is not a string",
        ),
        (
            json!({ "ipam": { "assign_ipv4": "yes" } }),
            r#"ipam.assign_ipv4: "yes" is not "true" or "false""#,
        ),
        (
            json!({ "ipam": { "assign_ipv4": "false", "assign_ipv6": "false" } }),
            r#"ipam.assign_ipv6: is "false", and so is assign_ipv4"#,
        ),
        (
            json!({ "ipam": { "ipv6_pools": [""] } }),
            r#"ipam.ipv6_pools[0]: "" is not a pool's name or CIDR"#,
        ),
        (
            cni(json!({ "labels": "x" })),
            r#"args.cni.labels: "x" is not an object, nor a list of {key, value}"#,
        ),
        (
            cni(json!({ "labels": { "a": 1 } })),
            "args.cni.labels.a: 1 is not a string",
        ),
        (
            cni(json!({ "labels": [{ "key": "a" }] })),
            "args.cni.labels[0].value: is required",
        ),
        (
            cni(json!({ "ports": [{ "name": "a", "port": 0 }] })),
            "args.cni.ports[0].port: 0 is not a whole number from 1 to 65535",
        ),
        (
            cni(json!({ "ports": [{ "name": "a", "port": 1, "protocol": "icmp" }] })),
            r#"args.cni.ports[0].protocol: "icmp" is not TCP, UDP or SCTP"#,
        ),
        (
            cni(json!({ "ips": ["10.0.0"] })),
            r#"args.cni.ips[0]: "10.0.0" is not an IP address"#,
        ),
        (
            json!({ "runtimeConfig": { "ips": ["10.0.0.1", "10.0.0.1/24"] } }),
            "runtimeConfig.ips[1]: 10.0.0.1 stands there twice",
        ),
        (
            json!({ "runtimeConfig": { "mac": "ff:ff:ff:ff:ff:ff" } }),
            r#"runtimeConfig.mac: "ff:ff:ff:ff:ff:ff" is not a unicast MAC address"#,
        ),
        (
            json!({ "dns": { "nameservers": "10.0.0.10" } }),
            r#"dns.nameservers: "10.0.0.10" is not a list"#,
        ),
    ];
    for (extra, message) in cases {
        assert_eq!(refused(Command::Add, extra), (7, message.to_owned()));
    }
}

#[test]
fn a_pod_is_taken_down_whatever_its_set_up_would_have_said() {
    let extra = json!({ "mtu": "big", "ipam": { "type": "host-local" }, "dns": 7 });
    assert!(read(Command::Del, extra).is_ok());
}

#[test]
fn every_supported_version_is_read_and_others_are_refused_with_code_1() {
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let config = read(Command::Add, json!({ "cniVersion": version })).unwrap();
        assert_eq!(config.version.as_str(), version);
    }
    for version in ["0.2.0", "2.0.0", "1.1", "x"] {
        let expected = (1, format!("cniVersion: {version:?} is not supported"));
        assert_eq!(
            refused(Command::Add, json!({ "cniVersion": version })),
            expected
        );
    }
    assert_eq!(
        refused(Command::Del, json!({ "cniVersion": null })),
        (1, "cniVersion: is not set".to_owned())
    );
}

#[test]
fn commands_are_refused_where_the_version_does_not_have_them() {
    let at = |command, version: &str| {
        read(
            command,
            json!({
                "cniVersion": version, "prevResult": {}, "cni.dev/valid-attachments": [],
            }),
        )
    };
    for (command, last_without, first_with, name) in [
        (Command::Check, "0.3.1", "0.4.0", "CHECK"),
        (Command::Status, "1.0.0", "1.1.0", "STATUS"),
        (Command::Gc, "1.0.0", "1.1.0", "GC"),
    ] {
        assert!(at(command, first_with).is_ok());
        let message = format!("cniVersion: {last_without} does not have {name}, {first_with} does");
        assert_eq!(at(command, last_without).unwrap_err(), (1, message));
    }
}

#[test]
fn check_needs_the_previous_result_and_reads_its_addresses() {
    assert_eq!(
        refused(Command::Check, json!({})),
        (7, "prevResult: is required".to_owned())
    );
    let prev = |address: &str| json!({ "prevResult": { "ips": [{ "address": address }] } });
    let config = read(Command::Check, prev("10.0.0.1/32")).unwrap();
    let address: IpNet = "10.0.0.1/32".parse().unwrap();
    assert_eq!(config.prev_ips, [(address, None)]);
    assert_eq!(
        refused(Command::Check, prev("10.0.0.1")),
        (
            7,
            r#"prevResult.ips[0].address: "10.0.0.1" is not an address with a prefix length"#
                .to_owned()
        )
    );
}

#[test]
fn gc_needs_the_list_of_what_lives() {
    assert_eq!(
        refused(Command::Gc, json!({})),
        (7, "cni.dev/valid-attachments: is required".to_owned())
    );
    let list = json!({ "cni.dev/valid-attachments": [{ "containerID": "c1", "ifname": "eth0" }] });
    let config = read(Command::Gc, list).unwrap();
    assert_eq!(
        config.valid_attachments,
        [("c1".to_owned(), "eth0".to_owned())]
    );
}
