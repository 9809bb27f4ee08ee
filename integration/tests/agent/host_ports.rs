//! Ports of the node that lead to pods.

use crate::node::{LIMIT, Member, Node, SHORT, cni_error, policy, spec};
use anyhow::{Context, Result};
use integration::lab::probe::Protocol;
use integration::lab::{Netns, Pod, Probe, wait};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

const NODE_V4: &str = "10.1.0.11";
const NODE_V6: &str = "fd00:1::11";

fn mapping(host: u16, protocol: &str, container: u16) -> Value {
    json!({ "hostPort": host, "containerPort": container, "protocol": protocol })
}

fn mappings(all: &[Value]) -> Value {
    json!({ "runtimeConfig": { "portMappings": all } })
}

/// A pod whose prober is at TCP and UDP 8080, which are 30080 of the node.
fn served(node: &Node, name: &str) -> Result<Member> {
    let extra = mappings(&[
        mapping(30080, "tcp", 8080),
        mapping(30080, "udp", 8081),
        mapping(8080, "tcp", 8080),
    ]);
    let pod = Pod::add_with(&node.lab, &node.plugin, spec(name, "web"), &extra)?;
    let probe = Probe::start(pod.netns(), name)?;
    Ok(Member { pod, probe })
}

fn reach(from: &Probe, protocol: Protocol, to: &str) -> Result<String> {
    from.reach(protocol, to.parse()?, 30080, LIMIT)
        .with_context(|| format!("{} -> {protocol:?} {to}", from.name()))
}

#[test]
fn a_host_port_leads_to_its_pod_from_everywhere_in_both_families() -> Result<()> {
    let mut node = Node::started()?;
    let web = served(&node, "web")?;
    let other = node.member("other", "other")?;
    let outside = Probe::start(&node.host, "outside")?;
    let inside = Probe::start(&node.netns, "n1")?;
    let everywhere = |when: &str| -> Result<()> {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for to in [NODE_V4, NODE_V6] {
                // The pod itself is the hairpin.
                for from in [&outside, &inside, &other.probe, &web.probe] {
                    assert_eq!(reach(from, protocol, to).context(when.to_owned())?, "web");
                }
            }
            assert_eq!(reach(&inside, protocol, "127.0.0.1")?, "web");
        }
        Ok(())
    };
    everywhere("at first")?;
    // The node's own server on the IPv6 loopback address stays reachable.
    assert_eq!(
        inside.reach(Protocol::Tcp, "::1".parse()?, 8080, LIMIT)?,
        "n1"
    );
    node.crash_and_start()?;
    everywhere("after a crash of the agent")?;
    web.pod.check()?;
    web.pod.del()?;
    for to in [NODE_V4, NODE_V6] {
        let refused = outside.reach(Protocol::Tcp, to.parse()?, 30080, SHORT);
        assert!(refused.is_err(), "{refused:?}");
    }
    assert!(!node.rules().contains("hostport"), "{}", node.rules());
    Ok(())
}

#[test]
fn the_address_of_the_client_is_what_policy_sees() -> Result<()> {
    let node = Node::started()?;
    let web = served(&node, "web")?;
    let outside = Probe::start(&node.host, "outside")?;
    assert_eq!(reach(&outside, Protocol::Tcp, NODE_V4)?, "web");
    let only = |cidr: &str| {
        let from = format!("[{{from: [{{ipBlock: {{cidr: {cidr}}}}}]}}]");
        node.store
            .write("policy.yaml", &policy("web", "web", &from))
    };
    only("192.0.2.0/24")?;
    wait::until(LIMIT, "to be denied", || {
        match outside.reach(
            Protocol::Tcp,
            NODE_V4.parse().expect("an address"),
            30080,
            SHORT,
        ) {
            Err(_) => Ok(()),
            Ok(name) => Err(name),
        }
    })?;
    only("10.1.0.1/32")?;
    wait::until(LIMIT, "to be allowed", || {
        reach(&outside, Protocol::Tcp, NODE_V4).map_err(|error| format!("{error:#}"))
    })?;
    web.pod.check()
}

#[test]
fn a_port_of_one_address_is_no_port_of_the_others_and_pods_never_reach_loopback() -> Result<()> {
    let node = Node::started()?;
    let mut only_loopback = mapping(30080, "tcp", 8080);
    only_loopback["hostIP"] = json!("127.0.0.1");
    let extra = mappings(&[only_loopback]);
    let pod = Pod::add_with(&node.lab, &node.plugin, spec("web", "web"), &extra)?;
    let web = Probe::start(pod.netns(), "web")?;
    let outside = Probe::start(&node.host, "outside")?;
    let inside = Probe::start(&node.netns, "n1")?;
    assert_eq!(reach(&inside, Protocol::Tcp, "127.0.0.1")?, "web");
    for from in [&inside, &outside] {
        let refused = from.reach(Protocol::Tcp, NODE_V4.parse()?, 30080, SHORT);
        assert!(refused.is_err(), "{refused:?}");
    }
    // What a pod sends to the node's loopback addresses by hand does not arrive there.
    pod.netns().ip([
        "route add table 99 127.0.0.0/8 via 169.254.1.1 dev eth0 onlink",
        "rule add pref 1 to 127.0.0.9 lookup 99",
        "rule del pref 0",
    ])?;
    pod.netns()
        .run(&["sysctl", "-qw", "net.ipv4.conf.eth0.route_localnet=1"])?;
    let dropped = |node: &Node| -> Result<u64> {
        let text = node
            .netns
            .run(&["nft", "list", "chain", "inet", "ocicat", "hostport_guard"])?;
        let counted = text.split("packets ").nth(1).context("a counter")?;
        let number = counted.split(' ').next().context("a number")?;
        Ok(number.parse()?)
    };
    let refused = web.reach(Protocol::Tcp, "127.0.0.9".parse()?, 8080, SHORT);
    assert!(refused.is_err(), "{refused:?}");
    assert!(dropped(&node)? > 0);
    Ok(())
}

#[test]
fn a_port_that_another_pod_has_is_refused_by_name_and_free_after_it() -> Result<()> {
    let node = Node::started()?;
    let first = served(&node, "first")?;
    let extra = mappings(&[mapping(30080, "tcp", 80)]);
    let again = Pod::add_with(&node.lab, &node.plugin, spec("second", "web"), &extra);
    let (code, message) = cni_error(again)?;
    assert_eq!(code, 7, "{message}");
    assert_eq!(
        message,
        "pod shop/second: hostPort 30080/TCP is taken by pod shop/first"
    );
    assert_eq!(node.links()?.len(), 1);
    first.pod.del()?;
    Pod::add_with(&node.lab, &node.plugin, spec("third", "web"), &extra).map(drop)
}

#[test]
fn a_udp_flow_from_before_goes_to_the_pod_and_one_to_a_dead_pod_to_its_successor() -> Result<()> {
    let node = Node::started()?;
    let to: SocketAddr = format!("{NODE_V4}:30080").parse()?;
    // One socket all the time: one flow, which is tracked before there is any pod.
    let socket = node.host.within(|| -> Result<UdpSocket> {
        let socket = UdpSocket::bind("10.1.0.1:40000")?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(socket)
    })??;
    let tracked = |node: &Node| tracked_to(&node.netns, 30080);
    wait::until(LIMIT, "the flow to be tracked", || {
        let _ = socket.send(b"who?");
        if tracked(&node) {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    })?;
    let answered = |name: &str| {
        wait::until(LIMIT, &format!("an answer of {name}"), || {
            let mut buffer = [0; 64];
            let answer = socket
                .send(b"who?")
                .and_then(|_| socket.recv(&mut buffer))
                .map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned());
            match answer {
                Ok(text) if text == name => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
    };
    let first = served(&node, "first")?;
    answered("first")?;
    first.pod.del()?;
    let second = served(&node, "second")?;
    answered("second")?;
    second.pod.check()
}

/// Whether a UDP flow to this port is tracked.
fn tracked_to(netns: &Netns, port: u16) -> bool {
    let listed = netns.within(|| {
        let mut conntrack = kernel::Conntrack::open().expect("a socket");
        conntrack.connections(|flow| {
            flow.original.protocol == 17 && flow.original.ports.is_some_and(|(_, to)| to == port)
        })
    });
    listed.is_ok_and(|flows| flows.is_ok_and(|flows| !flows.is_empty()))
}

#[test]
fn host_ports_come_back_from_the_datastore_when_the_journal_is_lost() -> Result<()> {
    let mut node = Node::started()?;
    let web = served(&node, "web")?;
    node.wait_written(1)?;
    node.agent.kill()?;
    std::fs::remove_file(node.agent.state_dir().join("journal"))?;
    node.start()?;
    let outside = Probe::start(&node.host, "outside")?;
    wait::until(LIMIT, "the port to lead to the pod", || {
        reach(&outside, Protocol::Tcp, NODE_V4).map_err(|error| format!("{error:#}"))
    })?;
    let v4: IpAddr = web.pod.ipv4()?;
    assert_eq!(reach(&outside, Protocol::Tcp, NODE_V6)?, "web", "{v4}");
    web.pod.check()
}
