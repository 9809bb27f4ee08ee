//! What bad input gets: an error that names the object and the field, and everything else goes on.

use crate::node::{
    LIMIT, Node, POOL_V4, SHORT, cni_error, nothing, policy, reaches, spec, wait_denied,
};
use anyhow::{Context, Result, bail};
use integration::lab::pod::Pod;
use integration::lab::router::{Neighbor, RouterConfig};
use integration::lab::{Frr, Probe, wait};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Uid;
use serde_json::json;
use std::fs::{File, Permissions};
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

fn frame(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a test's frame is short");
    [&length.to_be_bytes(), body].concat()
}

/// Bytes that repeat from run to run.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    (0..4096).map(|_| next()).collect()
}

/// Says `bytes`, closes its side, and returns what was answered.
fn say(socket: &Path, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).context("connect")?;
    stream.set_read_timeout(Some(LIMIT))?;
    // The agent may hang up in the middle of it.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error.into()),
        _ => Ok(answer),
    }
}

#[test]
fn garbage_on_the_cni_socket_never_disturbs_the_next_add() -> Result<()> {
    let node = Node::started()?;
    let socket = node.agent.run_dir().join("cni.sock");
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("noise", noise(1), ""),
        ("other noise", noise(2), ""),
        (
            "a huge length",
            vec![0x7f, 0xff, 0xff, 0xff, b'{'],
            "\"code\":6",
        ),
        ("half a length", vec![0, 0], ""),
        ("half a frame", frame(b"{\"version\":1}")[..9].to_vec(), ""),
        ("an empty frame", frame(b""), "\"code\":6"),
        ("no request", frame(b"[1,2,3]"), "\"code\":6"),
        (
            "a wrong type",
            frame(br#"{"version":1,"command":"ADD","ips":7}"#),
            "\"code\":6",
        ),
        (
            "a later version",
            frame(br#"{"version":99,"command":"ADD"}"#),
            "protocol version 99",
        ),
        (
            "no descriptors",
            frame(br#"{"version":1,"command":"ADD","container_id":"c","ifname":"eth0"}"#),
            "0 descriptors came with ADD instead of 2",
        ),
        ("nothing at all", Vec::new(), ""),
    ];
    for (number, (what, bytes, answer)) in cases.into_iter().enumerate() {
        let said = say(&socket, &bytes).context(what)?;
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains(answer), "{what}: {said}");
        node.pod(&format!("p{number}"), "web").context(what)?;
    }
    let log = node.agent.log();
    for words in ["protocol version 99", "frame of 2147483647 bytes; at most"] {
        assert!(log.contains(words), "{words} is not in the log");
    }
    Ok(())
}

/// Says `bytes` with two descriptors on them.
fn say_with(socket: &Path, bytes: &[u8], descriptors: [BorrowedFd<'_>; 2]) -> Result<String> {
    let mut stream = UnixStream::connect(socket).context("connect")?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let slices = [IoSlice::new(bytes)];
    sendmsg(&stream, &slices, &mut control, SendFlags::empty())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn descriptors_of_the_wrong_kind_are_an_error_and_leave_nothing() -> Result<()> {
    let node = Node::started()?;
    let socket = node.agent.run_dir().join("cni.sock");
    let netns = node.lab.netns("pod")?;
    let (null, namespace) = (File::open("/dev/null")?, File::open(netns.path())?);
    let (near, _far) = UnixStream::pair()?;
    let before = (node.rules(), node.routes()?);
    let request = br#"{"version":1,"command":"ADD","container_id":"c","ifname":"eth0","pod":"c"}"#;
    let cases = [
        ("no namespace", [null.as_fd(), null.as_fd()]),
        ("no socket", [namespace.as_fd(), null.as_fd()]),
        (
            "a socket that never answers",
            [namespace.as_fd(), near.as_fd()],
        ),
        ("the wrong way round", [near.as_fd(), namespace.as_fd()]),
    ];
    for (what, descriptors) in cases {
        let answer = say_with(&socket, &frame(request), descriptors).context(what)?;
        assert!(answer.contains("\"code\":"), "{what}: {answer}");
        wait::until(LIMIT, what, || {
            let now = (node.rules(), node.routes(), node.links());
            match now {
                (rules, Ok(routes), Ok(links))
                    if (&rules, &routes) == (&before.0, &before.1) && links.is_empty() =>
                {
                    Ok(())
                }
                other => Err(format!("{other:?}")),
            }
        })?;
    }
    let left = netns.run(&["ip", "-br", "link", "show"])?;
    assert!(!left.contains("eth0"), "{left}");
    node.pod("a", "web").map(drop)
}

#[test]
fn callers_that_say_nothing_keep_nobody_else_from_an_add() -> Result<()> {
    let node = Node::started()?;
    let mut silent = Vec::new();
    for _ in 0..100 {
        for name in ["cni.sock", "ctl.sock"] {
            silent.push(UnixStream::connect(node.agent.run_dir().join(name))?);
        }
    }
    node.pod("a", "web")?;
    node.ctl(&["status"])?;
    // They are not kept for ever.
    for mut stream in silent {
        stream.set_read_timeout(Some(LIMIT))?;
        assert_eq!(stream.read(&mut [0])?, 0);
    }
    node.pod("b", "web").map(drop)
}

#[test]
fn garbage_on_the_control_socket_is_answered_or_dropped_and_disturbs_nobody() -> Result<()> {
    let node = Node::started()?;
    let socket = node.agent.run_dir().join("ctl.sock");
    for (bytes, words) in [
        (noise(3), ""),
        (vec![b'x'; 1 << 20], ""),
        (b"\"no-such-question\"\n".to_vec(), "not a question"),
        (b"{}\n".to_vec(), "not a question"),
        (b"\n".to_vec(), "not a question"),
        (Vec::new(), "not a question"),
    ] {
        let said = String::from_utf8_lossy(&say(&socket, &bytes)?).into_owned();
        assert!(said.contains(words), "{said}");
        assert_eq!(node.ctl(&["status"])?["node"], "n1");
    }
    node.pod("a", "web").map(drop)
}

#[test]
fn a_caller_that_is_not_root_reaches_neither_socket() -> Result<()> {
    let node = Node::started()?;
    let nobody = Uid::from_raw(65534);
    for name in ["cni.sock", "ctl.sock"] {
        let socket = node.agent.run_dir().join(name);
        let as_nobody = |bytes: &[u8]| {
            let call = || -> Result<Vec<u8>> {
                rustix::thread::set_thread_res_uid(nobody, nobody, nobody)?;
                say(&socket, bytes)
            };
            std::thread::scope(|scope| scope.spawn(call).join())
        };
        let refused = as_nobody(b"\"status\"\n").expect("the caller's thread");
        assert!(format!("{:#}", refused.unwrap_err()).contains("Permission denied"));
        // Even where somebody has opened the file's rights, the peer's uid decides.
        std::fs::set_permissions(&socket, Permissions::from_mode(0o666))?;
        for bytes in [
            &b"\"status\"\n"[..],
            &frame(br#"{"version":1,"command":"STATUS"}"#),
        ] {
            let answer = as_nobody(bytes).expect("the caller's thread")?;
            assert_eq!(String::from_utf8_lossy(&answer), "", "{name}");
        }
    }
    node.wait_logged("uid 65534 is not root")?;
    node.pod("a", "web").map(drop)
}

#[test]
fn a_cni_configuration_with_a_wrong_type_is_error_7_that_names_the_field() -> Result<()> {
    let node = Node::started()?;
    let cases = [
        (json!({ "mtu": "big" }), "mtu"),
        (
            json!({ "args": { "cni": { "labels": { "app": 5 } } } }),
            "args.cni.labels.app",
        ),
        (
            json!({ "runtimeConfig": { "ips": "10.244.0.1" } }),
            "runtimeConfig.ips",
        ),
        (json!({ "socket": ["a"] }), "socket"),
    ];
    for (extra, field) in cases {
        let result = Pod::add_with(&node.lab, &node.plugin, spec("a", "web"), &extra);
        let (code, message) = cni_error(result)?;
        assert_eq!(code, 7, "{message}");
        assert!(message.contains(field), "{field}: {message}");
    }
    node.pod("a", "web").map(drop)
}

const CLIENTS: &str =
    "[{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 8080}]}]";
const IMPOSSIBLE: &str =
    "[{from: [{podSelector: {}}], ports: [{protocol: TCP, port: 8080, endPort: 80}]}]";

#[test]
fn a_policy_with_an_impossible_port_range_leaves_its_last_good_version_in_force() -> Result<()> {
    let mut node = Node::started()?;
    let web = node.member("web", "web")?;
    let client = node.member("client", "client")?;
    let other = node.member("other", "other")?;
    other.wait_reaches(&web)?;
    node.store
        .write("policy.yaml", &policy("web", "web", CLIENTS))?;
    other.wait_denied(&web)?;
    client.reaches(&web)?;
    let before = node.rules();

    node.store
        .write("policy.yaml", &policy("web", "web", IMPOSSIBLE))?;
    let words = "NetworkPolicy/shop/web: spec.ingress[0].ports[0].endPort";
    node.wait_status("NetworkPolicy_shop_web", words)?;
    node.wait_logged(words)?;
    assert_eq!(node.rules(), before);
    node.wait_snapshot("podSelector").ok();

    node.crash_and_start()?;
    node.wait_status("NetworkPolicy_shop_web", words)?;
    assert_eq!(node.rules(), before);
    other.wait_denied(&web)?;
    client.reaches(&web)?;

    node.store
        .write("policy.yaml", &policy("web", "web", "[{}]"))?;
    other.wait_reaches(&web)?;
    wait::until(LIMIT, "the status to go", || {
        match node
            .store
            .read("state/status/n1/NetworkPolicy_shop_web.yaml")
        {
            Err(_) => Ok(()),
            Ok(text) => Err(text),
        }
    })
}

#[test]
fn a_policy_that_never_was_valid_denies_the_directions_that_it_isolates() -> Result<()> {
    let mut node = Node::started()?;
    let web = node.member("web", "web")?;
    let other = node.member("other", "other")?;
    other.wait_reaches(&web)?;
    node.store
        .write("policy.yaml", &policy("web", "web", IMPOSSIBLE))?;
    other.wait_denied(&web)?;
    web.reaches(&other).context("egress is not isolated")?;
    node.crash_and_start()?;
    other.wait_denied(&web)?;
    web.reaches(&other)
}

#[test]
fn of_two_nodes_with_one_bgp_address_the_second_is_named_and_the_first_works() -> Result<()> {
    let node = Node::started()?;
    node.store.write(
        "twin.yaml",
        "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: n2}\n\
         spec: {bgp: {ipv4Address: 10.1.0.11/24}}\n",
    )?;
    let words = "10.1.0.11 is the address of Node/n1 already";
    node.wait_status("Node_n2", words)?;
    node.wait_status("Node_n2", "spec.bgp.ipv4Address")?;
    node.wait_logged(words)?;
    let (status, body) = node.agent.health("/readyz")?;
    assert_eq!(status, 200, "{body}");
    node.pod("a", "web").map(drop)
}

#[test]
fn a_node_object_that_goes_is_a_reason_not_to_be_ready_and_takes_no_pod_down() -> Result<()> {
    let node = Node::started()?;
    let (a, b) = (node.member("a", "web")?, node.member("b", "web")?);
    let text = node.store.read("node.yaml")?;
    node.store.remove("node.yaml")?;
    node.wait_said("Node/n1: there is no such object")?;
    assert_eq!(node.agent.health("/readyz")?.0, 503);
    a.reaches(&b)?;
    let late = node.member("late", "web")?;
    late.wait_reaches(&a)?;
    node.store.write("node.yaml", &text)?;
    wait::until(LIMIT, "readiness", || match node.agent.health("/readyz") {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
}

#[test]
fn a_bgp_peer_with_the_wrong_as_is_named_with_both_numbers() -> Result<()> {
    let node = Node::started()?;
    let _frr = Frr::start(
        &node.lab,
        &node.host,
        &RouterConfig {
            asn: 65001,
            router_id: [10, 1, 0, 1].into(),
            neighbors: vec![Neighbor {
                name: "n1".to_owned(),
                address: [10, 1, 0, 11].into(),
                asn: model::names::DEFAULT_AS,
                local_address: [10, 1, 0, 1].into(),
                local_ipv6: "fd00:1::1".parse()?,
            }],
        },
    )?;
    node.store.write(
        "peer.yaml",
        "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: rack1}\n\
         spec: {peerIP: 10.1.0.1, asNumber: 65002}\n",
    )?;
    wait::until(LIMIT, "the summary to name both AS numbers", || {
        let said = node
            .ctl(&["bgp", "summary"])
            .map_err(|error| format!("{error:#}"))?;
        let peer = &said["peers"][0];
        let error = peer["last_error"].as_str().unwrap_or_default();
        let named = peer["name"] == "BGPPeer/rack1";
        if named && error.contains("65001") && error.contains("65002") {
            Ok(())
        } else {
            Err(said.to_string())
        }
    })?;
    let line = node.wait_logged("BGPPeer/rack1")?;
    assert!(!line.is_empty());
    let (status, body) = node.agent.health("/readyz")?;
    assert_eq!(status, 200, "readiness does not depend on a peer: {body}");
    node.pod("a", "web").map(drop)
}

#[test]
fn a_directory_that_is_not_there_is_named_and_used_when_it_appears() -> Result<()> {
    let mut node = Node::prepared()?;
    node.hide_store()?;
    node.agent.start()?;
    let path = node.store.path().display().to_string();
    let body = node.wait_said(&path)?;
    assert!(body.contains("nothing is known of the cluster"), "{body}");
    node.wait_logged(&path)?;
    let (code, message) = cni_error(node.pod("a", "web"))?;
    assert_eq!(code, 11, "{message}");
    assert!(message.contains(&path), "{message}");
    node.show_store()?;
    node.agent.wait_ready(LIMIT)?;
    node.pod("a", "web").map(drop)
}

#[test]
fn a_pool_that_overlaps_another_is_named_and_gives_no_addresses() -> Result<()> {
    let node = Node::started()?;
    node.store.write(
        "pool-x.yaml",
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: x}\n\
         spec: {cidr: 10.244.128.0/17}\n",
    )?;
    let words = "IPPool/x: spec.cidr: 10.244.128.0/17 overlaps 10.244.0.0/16 of IPPool/v4";
    node.wait_status("IPPool_x", words)?;
    node.wait_logged(words)?;
    let pod = node.pod("a", "web")?;
    assert_eq!(pod.addresses().len(), 2);
    let extra = json!({ "ipam": { "ipv4_pools": ["x"] } });
    let (code, message) = cni_error(Pod::add_with(
        &node.lab,
        &node.plugin,
        spec("b", "web"),
        &extra,
    ))?;
    assert_eq!(code, 7, "{message}");
    assert!(message.contains("pool x"), "{message}");
    Ok(())
}

#[test]
fn a_full_pool_is_error_100_that_names_the_pool_and_counts_addresses_that_cool() -> Result<()> {
    let mut node = Node::prepared()?;
    node.store.write(
        "pool-v4.yaml",
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: tiny}\n\
         spec: {cidr: 10.244.9.0/30, blockSize: 31, ipipMode: Never}\n",
    )?;
    node.start()?;
    let mut pods = Vec::new();
    for number in 0..4 {
        pods.push(node.pod(&format!("p{number}"), "web")?);
    }
    let mut addresses: Vec<_> = pods.iter().map(Pod::ipv4).collect::<Result<_>>()?;
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 4);
    let (code, message) = cni_error(node.pod("late", "web"))?;
    assert_eq!(code, 100, "{message}");
    assert!(message.contains("tiny"), "{message}");
    node.wait_logged("ADD failed")?;

    pods.pop().context("a pod")?.delete()?;
    let (code, message) = cni_error(node.pod("late", "web"))?;
    assert_eq!(code, 100, "{message}");
    assert!(message.contains("1 cool down"), "{message}");
    let probe = Probe::start(&node.host, "host")?;
    let first = pods.first().context("a pod")?;
    let inside = Probe::start(first.netns(), first.name())?;
    let name = probe.reach(
        integration::lab::probe::Protocol::Tcp,
        first.ipv4()?,
        8080,
        LIMIT,
    )?;
    assert_eq!(name, inside.name());
    Ok(())
}

#[test]
fn a_pool_with_ipip_on_a_kernel_without_it_is_named_and_other_pools_work() -> Result<()> {
    let node = Node::started()?;
    let kernel = node.ctl(&["status"])?["kernel"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    node.store
        .write("pool-v4.yaml", &POOL_V4.replace("Never", "CrossSubnet"))?;
    let has_ipip = kernel
        .lines()
        .any(|line| line.contains("ipip") && line.contains("yes"));
    if has_ipip {
        wait::until(LIMIT, "the tunnel device", || {
            let link = node.netns.run(&["ip", "link", "show", "ipip.ocicat"]);
            link.map_err(|error| format!("{error:#}"))
        })?;
    } else {
        let words = "IPPool/v4: spec.ipipMode: CrossSubnet: this kernel has no ipip";
        node.wait_status("IPPool_v4", words)?;
        node.wait_logged(words)?;
        node.wait_said(words)?;
    }
    let (status, body) = node.agent.health("/readyz")?;
    assert_eq!(status, 200, "{body}");
    let (a, b) = (node.member("a", "web")?, node.member("b", "web")?);
    a.wait_reaches(&b)
}

#[test]
fn a_file_that_is_not_yaml_takes_nothing_else_down() -> Result<()> {
    let node = Node::started()?;
    let web = node.member("web", "web")?;
    let host = Probe::start(&node.host, "host")?;
    node.store
        .write("broken.yaml", "kind: [NetworkPolicy\n\t- {")?;
    node.wait_said("broken.yaml")?;
    node.store
        .write("policy.yaml", &policy("web", "web", "[]"))?;
    wait_denied(&host, &web)?;
    node.store.remove("broken.yaml")?;
    node.store.remove("policy.yaml")?;
    wait::until(LIMIT, "the pod to be reached", || {
        reaches(&host, &web).map_err(|error| format!("{error:#}"))
    })?;
    let (_, body) = node.agent.health("/readyz")?;
    if body.contains("broken.yaml") {
        bail!("{body}");
    }
    Ok(())
}

#[test]
fn damaged_files_in_the_state_area_disturb_neither_addresses_nor_pods() -> Result<()> {
    let mut node = Node::started()?;
    let (a, b) = (node.member("a", "web")?, node.member("b", "web")?);
    for folder in ["ipamblocks", "workloadendpoints"] {
        let folder = node.store.path().join("state").join(folder);
        for (name, text) in [
            (
                "torn.yaml",
                "apiVersion: projectcalico.org/v3\nkind: IPAMBlo".to_owned(),
            ),
            (
                "noise.yaml",
                String::from_utf8_lossy(&noise(4)).into_owned(),
            ),
            (
                "lie.yaml",
                "apiVersion: projectcalico.org/v3\nkind: IPAMBlock\nmetadata: {name: x}\n\
                 spec: {cidr: 10.244.300.0/26, affinity: 'host:n1'}\n"
                    .to_owned(),
            ),
        ] {
            std::fs::write(folder.join(name), text)?;
        }
    }
    node.wait_logged("ipamblocks/noise.yaml")?;
    node.wait_logged("IPAMBlock/x: spec.cidr")?;
    a.wait_reaches(&b)?;
    node.pod("c", "web")?;
    node.crash_and_start()?;
    a.wait_reaches(&b)?;
    a.pod.check()?;
    node.pod("d", "web").map(drop)
}

#[test]
fn an_unknown_command_of_a_runtime_is_an_error_and_nothing_else() -> Result<()> {
    let node = Node::started()?;
    let pod = node.pod("a", "web")?;
    let result = node
        .plugin
        .call("MOVE", pod.spec(), pod.netns(), &nothing());
    let (code, message) = cni_error(result)?;
    assert_eq!(code, 4, "{message}");
    assert!(
        SHORT < LIMIT && message.contains("CNI_COMMAND"),
        "{message}"
    );
    pod.check()
}
