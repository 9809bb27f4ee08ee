//! The real binary against an agent of the test's own, over real sockets and namespaces.

mod support;

use ipnet::IpNet;
use model::cni::{Added, Command, Failure, Reply, Request};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use support::{Agent, Netns, Plugin};

fn added() -> Reply {
    Reply::Added(Added {
        host_interface: "oci1".to_owned(),
        host_mac: [0xee; 6],
        pod_mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
        ips: vec![
            IpNet::from(IpAddr::from([10, 1, 0, 7])),
            IpNet::from(IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 7])),
        ],
    })
}

fn failed(code: u32) -> Reply {
    let (msg, details) = ("pool a is full".to_owned(), "add a pool".to_owned());
    Reply::Failed(Failure { code, msg, details })
}

fn code(value: &Value) -> u64 {
    value["code"].as_u64().expect("an error with a code")
}

#[test]
fn add_passes_namespace_and_netlink_socket_and_prints_the_result() {
    let netns = Netns::new("add");
    let agent = Agent::answer(&added());
    let mut plugin = Plugin::new("ADD", &agent.socket).netns(&netns.path());
    plugin.variable(
        "CNI_ARGS",
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=api;K8S_POD_UID=u1;IP=10.1.0.7",
    );
    plugin.config["args"] = json!({ "cni": { "labels": { "app": "api" } } });
    plugin.config["dns"] = json!({ "nameservers": ["10.0.0.10"] });
    let output = plugin.run();
    assert!(output.success, "{}", output.stdout);
    assert_eq!(output.stderr, "");
    let result = output.json();
    assert_eq!(result["cniVersion"], "1.1.0");
    assert_eq!(result["interfaces"][1]["sandbox"], netns.path());
    assert_eq!(
        result["ips"][0],
        json!({ "address": "10.1.0.7/32", "interface": 1 })
    );
    assert_eq!(result["dns"]["nameservers"][0], "10.0.0.10");

    let received = agent.received();
    let request = received.request;
    assert_eq!((request.command, request.version), (Command::Add, 1));
    assert_eq!(
        (request.container_id.as_str(), request.ifname.as_str()),
        ("c1", "eth0")
    );
    assert_eq!(
        (request.namespace.as_str(), request.pod.as_str()),
        ("shop", "api")
    );
    assert_eq!(
        (request.pod_uid.as_deref(), request.labels["app"].as_str()),
        (Some("u1"), "api")
    );
    assert_eq!(request.network, "ocicat");
    assert_eq!(request.ips, [IpAddr::from([10, 1, 0, 7])]);
    assert_eq!(received.namespace_inode, Some(netns.inode()));
    assert_eq!(
        received.links,
        ["lo", "pod0"],
        "the socket sees the pod's links"
    );
}

#[test]
fn add_leaves_ipv6_on_and_duplicate_address_detection_off_in_the_pod() {
    let netns = Netns::new("sys6");
    netns.exec(&["sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"]);
    let agent = Agent::answer(&added());
    assert!(
        Plugin::new("ADD", &agent.socket)
            .netns(&netns.path())
            .run()
            .success
    );
    let read = |key: &str| netns.exec(&["sysctl", "-n", &format!("net.ipv6.conf.default.{key}")]);
    let got = [
        "disable_ipv6",
        "accept_dad",
        "accept_ra",
        "keep_addr_on_down",
    ]
    .map(read);
    assert_eq!(got, ["0\n", "0\n", "0\n", "1\n"]);
}

#[test]
fn add_turns_ipv6_off_on_an_interface_without_ipv6_address() {
    let netns = Netns::new("sys4");
    let reply = match added() {
        Reply::Added(added) => Reply::Added(Added {
            ips: added.ips[..1].to_vec(),
            ..added
        }),
        other => other,
    };
    let agent = Agent::answer(&reply);
    let mut plugin = Plugin::new("ADD", &agent.socket).netns(&netns.path());
    plugin.variable("CNI_IFNAME", "pod0");
    assert!(plugin.run().success);
    assert_eq!(
        netns.exec(&["sysctl", "-n", "net.ipv6.conf.pod0.disable_ipv6"]),
        "1\n"
    );
}

#[test]
fn add_answers_in_the_version_that_was_asked_for() {
    for (version, family) in [
        ("0.3.1", json!("4")),
        ("0.4.0", json!("4")),
        ("1.0.0", Value::Null),
    ] {
        let netns = Netns::new("ver");
        let agent = Agent::answer(&added());
        let mut plugin = Plugin::new("ADD", &agent.socket).netns(&netns.path());
        plugin.config["cniVersion"] = version.into();
        let result = plugin.run().json();
        assert_eq!(
            (&result["cniVersion"], &result["ips"][0]["version"]),
            (&version.into(), &family)
        );
    }
}

#[test]
fn the_agents_error_reaches_the_runtime_as_it_is() {
    let netns = Netns::new("err");
    let agent = Agent::answer(&failed(120));
    let output = Plugin::new("ADD", &agent.socket).netns(&netns.path()).run();
    assert!(!output.success);
    let expected = json!({
        "cniVersion": "1.1.0", "code": 120, "msg": "pool a is full", "details": "add a pool",
    });
    assert_eq!(output.json(), expected);
}

#[test]
fn check_passes_descriptors_and_previous_addresses_and_prints_nothing() {
    let netns = Netns::new("chk");
    let agent = Agent::answer(&Reply::Done);
    let mut plugin = Plugin::new("CHECK", &agent.socket).netns(&netns.path());
    plugin.config["prevResult"] = json!({ "ips": [{ "address": "10.1.0.7/32" }] });
    let output = plugin.run();
    assert_eq!((output.success, output.stdout.as_str()), (true, ""));
    let received = agent.received();
    assert_eq!(received.request.prev_ips, ["10.1.0.7/32".parse().unwrap()]);
    assert_eq!(received.namespace_inode, Some(netns.inode()));
}

#[test]
fn del_status_and_gc_print_nothing_and_pass_no_descriptors() {
    for command in ["DEL", "STATUS", "GC"] {
        let agent = Agent::answer(&Reply::Done);
        let mut plugin = Plugin::new(command, &agent.socket);
        plugin.config["cni.dev/valid-attachments"] =
            json!([{ "containerID": "c9", "ifname": "eth0" }]);
        let output = plugin.run();
        assert_eq!(
            (output.success, output.stdout.as_str()),
            (true, ""),
            "{command}"
        );
        let received = agent.received();
        assert_eq!(received.namespace_inode, None);
        let expected: &[_] = if command == "GC" {
            &[("c9".into(), "eth0".into())]
        } else {
            &[]
        };
        assert_eq!(received.request.valid_attachments, expected);
    }
}

#[test]
fn a_deletion_that_the_agent_refuses_is_an_error() {
    let agent = Agent::answer(&failed(11));
    let output = Plugin::new("DEL", &agent.socket).run();
    assert_eq!((output.success, code(&output.json())), (false, 11));
}

#[test]
fn version_needs_no_agent_and_no_configuration() {
    for config in [json!({ "cniVersion": "1.0.0" }), json!({})] {
        let mut plugin = Plugin::new("VERSION", "/nonexistent".as_ref());
        plugin.config = config;
        let result = plugin.run().json();
        assert_eq!(
            result["supportedVersions"],
            json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
        );
    }
}

#[test]
fn without_an_agent_add_asks_to_be_tried_again_and_status_says_not_available() {
    let netns = Netns::new("away");
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("cni.sock");
    let output = Plugin::new("ADD", &socket).netns(&netns.path()).run();
    let error = output.json();
    assert_eq!((output.success, code(&error)), (false, 11));
    let message = error["msg"].as_str().unwrap();
    assert!(message.contains(socket.to_str().unwrap()), "{message}");
    assert!(
        error["details"]
            .as_str()
            .unwrap()
            .contains("start ocicat-node")
    );
    assert_eq!(code(&Plugin::new("STATUS", &socket).run().json()), 50);
}

#[test]
fn without_an_agent_del_succeeds_and_leaves_the_deletion_in_the_spool() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("cni.sock");
    for _ in 0..2 {
        let output = Plugin::new("DEL", &socket).run();
        assert_eq!((output.success, output.stdout.as_str()), (true, ""));
    }
    let spool = directory.path().join("spool");
    let file = spool.join("c1.eth0.json");
    let request: Request = ocicat_cni::spool::read(&file).unwrap();
    assert_eq!(
        (request.command, request.container_id.as_str()),
        (Command::Del, "c1")
    );
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(&spool)), (0o600, 0o700));
    assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 1);
}

#[test]
fn a_deletion_that_cannot_be_kept_is_an_error_that_names_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let blocked = directory.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    let mut plugin = Plugin::new("DEL", &directory.path().join("cni.sock"));
    plugin.config["spoolDir"] = blocked.join("spool").to_str().into();
    let error = plugin.run().json();
    assert_eq!(code(&error), 5);
    assert!(
        error["msg"]
            .as_str()
            .unwrap()
            .contains(blocked.to_str().unwrap()),
        "{error}"
    );
}

#[test]
fn replies_that_make_no_sense_are_named_and_deletions_spooled() {
    let netns = Netns::new("junk");
    let truncated = [&200u32.to_be_bytes()[..], b"{\"Added\":"].concat();
    let cases: [(&[u8], u64, &str); 5] = [
        (
            b"HTTP/1.1 400 Bad Request\r\n",
            100,
            "1213486160 bytes are more than 1048576",
        ),
        (&truncated, 100, "closed after 13 of 204 bytes"),
        (b"\0\0\0\x02no", 100, "expected"),
        (b"\0\0\0\x06\"Done\"", 100, "ADD without a result"),
        (b"", 11, "does not answer"),
    ];
    for (bytes, expected, text) in cases {
        let agent = Agent::raw(bytes);
        let error = Plugin::new("ADD", &agent.socket)
            .netns(&netns.path())
            .run()
            .json();
        assert_eq!(code(&error), expected, "{error}");
        assert!(error["msg"].as_str().unwrap().contains(text), "{error}");
    }
    let agent = Agent::raw(b"HTTP/1.1 400 Bad Request\r\n");
    assert!(Plugin::new("DEL", &agent.socket).run().success);
    assert!(
        agent
            .socket
            .with_file_name("spool")
            .join("c1.eth0.json")
            .exists()
    );
}

#[test]
fn a_silent_agent_is_not_waited_for_longer_than_the_timeout() {
    let netns = Netns::new("mute");
    let agent = Agent::silent();
    let mut plugin = Plugin::new("ADD", &agent.socket).netns(&netns.path());
    plugin.config["timeout"] = 1.into();
    let error = plugin.run().json();
    assert_eq!(code(&error), 11);
    assert!(
        error["msg"]
            .as_str()
            .unwrap()
            .contains("did not reply within 1 s"),
        "{error}"
    );
}

#[test]
fn a_socket_that_is_not_roots_is_not_trusted() {
    let netns = Netns::new("peer");
    let agent = Agent::of_uid(65_534);
    let error = Plugin::new("ADD", &agent.socket)
        .netns(&netns.path())
        .run()
        .json();
    assert_eq!(code(&error), 101);
    assert!(
        error["msg"].as_str().unwrap().contains("uid 65534"),
        "{error}"
    );
}

#[test]
fn a_namespace_that_is_none_is_refused_with_the_path_and_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("plain");
    std::fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    let gone = format!("{file}.gone");
    let cases = [
        (file, "is not a network namespace"),
        (gone.as_str(), "No such file or directory"),
        ("/proc/self/ns/uts", "is a namespace, but not a network's"),
        ("/proc/self/ns/net", "is the node's own network namespace"),
    ];
    for (path, reason) in cases {
        let agent = Agent::answer(&added());
        let error = Plugin::new("ADD", &agent.socket).netns(path).run().json();
        assert_eq!(code(&error), 4);
        let expected = format!("CNI_NETNS: {path}: {reason}");
        assert!(
            error["msg"].as_str().unwrap().starts_with(&expected),
            "{error}"
        );
    }
}

#[test]
fn bad_input_is_refused_before_anything_is_touched() {
    let socket = std::path::Path::new("/nonexistent/cni.sock");
    let plugin = || Plugin::new("ADD", socket).netns("/run/netns/none");
    let mut long = plugin();
    long.variable("CNI_IFNAME", "sixteen-bytes-xx");
    assert_eq!(code(&long.run().json()), 4);
    let mut unknown = plugin();
    unknown.config["cniVersion"] = "9.9.9".into();
    let error = unknown.run().json();
    assert_eq!((code(&error), &error["cniVersion"]), (1, &json!("9.9.9")));
    let mut mtu = plugin();
    mtu.config["mtu"] = "big".into();
    assert_eq!(mtu.run().json()["msg"], r#"mtu: "big" is not a number"#);
    let mut ipam = plugin();
    ipam.config["ipam"] = json!({ "type": "host-local" });
    assert_eq!(code(&ipam.run().json()), 7);
    for (stdin, text) in [
        (b"{\"cniVersion\": ".to_vec(), "not JSON"),
        (b"[]".to_vec(), "not a JSON object"),
        (vec![b' '; 10 << 20], "longer than 1048576 bytes"),
    ] {
        let error = plugin().run_with(&stdin).json();
        assert_eq!(code(&error), 6);
        assert!(error["msg"].as_str().unwrap().contains(text), "{error}");
    }
    let mut unset = plugin();
    unset.variable("CNI_COMMAND", "");
    assert_eq!(code(&unset.run().json()), 4);
}
