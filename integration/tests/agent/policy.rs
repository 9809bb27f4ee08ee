//! Policy as packets meet it.

use crate::node::{LIMIT, Node, SHORT, nothing, policy, reaches, spec, wait_reaches};
use anyhow::{Context, Result};
use integration::lab::pod::Pod;
use integration::lab::probe::{Flow, Protocol};
use integration::lab::{Netns, Probe, wait};
use integration::prober::{FLOW_PORT, Operation, PORTS};
use serde_json::{Value, json};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};

const RATE: u32 = 2000;

/// Counts flow datagrams that arrive in a namespace, or that one from `source` has sent there.
pub(crate) fn count_flow(netns: &Netns) -> Result<()> {
    let rule = format!(
        "add table inet seen; add chain inet seen in {{ type filter hook input priority -500; }}; \
         add rule inet seen in udp dport {FLOW_PORT} counter"
    );
    netns.run(&["nft", &rule]).map(drop)
}

pub(crate) fn counted(netns: &Netns) -> Result<u64> {
    let text = netns.run(&["nft", "-j", "list", "chain", "inet", "seen", "in"])?;
    let value: Value = serde_json::from_str(&text)?;
    let items = value["nftables"].as_array().context("nftables")?;
    let expressions = items
        .iter()
        .filter_map(|item| item["rule"]["expr"].as_array())
        .flatten();
    let mut packets =
        expressions.filter_map(|expression| expression["counter"]["packets"].as_u64());
    packets.next().context("a counter")
}

/// The last addresses of the node's blocks: nobody else will be given them.
pub(crate) fn last_addresses(node: &Node) -> Result<Vec<IpAddr>> {
    let blocks = wait::until(LIMIT, "blocks of both families", || {
        let status = node
            .ctl(&["status"])
            .map_err(|error| format!("{error:#}"))?;
        match status["blocks"].as_array() {
            Some(blocks) if blocks.len() == 2 => Ok(blocks.clone()),
            other => Err(format!("{other:?}")),
        }
    })?;
    let last = |block: &Value| -> Result<IpAddr> {
        let net: ipnet::IpNet = block.as_str().context("a block")?.parse()?;
        net.hosts().last().context("an address")
    };
    blocks.iter().map(last).collect()
}

/// A pod at these addresses, in a namespace that counts what arrives from its first moment on.
fn pod_at(node: &Node, name: &str, app: &str, ips: &[IpAddr]) -> Result<Netns> {
    let netns = node.lab.netns(name)?;
    count_flow(&netns)?;
    let extra = json!({ "runtimeConfig": { "ips": ips }, "capabilities": { "ips": true } });
    node.plugin.call("ADD", &spec(name, app), &netns, &extra)?;
    Ok(netns)
}

#[test]
fn a_pod_that_a_policy_isolates_gets_not_one_packet_from_the_start_of_its_add_on() -> Result<()> {
    let node = Node::started()?;
    node.store
        .write("policy.yaml", &policy("web", "web", "[]"))?;
    node.wait_snapshot("NetworkPolicy")?;
    let ips = last_addresses(&node)?;
    let host = Probe::start(&node.host, "host")?;
    // Nobody listens to these: what counts is what the pods' kernels see.
    let flows: Vec<Flow<'_>> = ips
        .iter()
        .map(|ip| host.flow(&host, *ip, RATE))
        .collect::<Result<_>>()?;
    let open = pod_at(&node, "open", "other", &ips)?;
    wait::until(
        LIMIT,
        "a pod without policy to see the flows",
        || match counted(&open) {
            Ok(packets) if packets > 100 => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )?;
    node.plugin
        .call("DEL", &spec("open", "other"), &open, &nothing())?;
    // Addresses rest before they are given out again; these are next to them.
    let neighbours: Vec<IpAddr> = ips.iter().copied().map(previous).collect();
    drop(flows);
    let _flows: Vec<Flow<'_>> = neighbours
        .iter()
        .map(|ip| host.flow(&host, *ip, RATE))
        .collect::<Result<_>>()?;
    let closed = pod_at(&node, "closed", "web", &neighbours)?;
    let inside = Probe::start(&closed, "closed")?;
    for ip in &neighbours {
        assert!(host.reach(Protocol::Tcp, *ip, 8080, SHORT).is_err());
    }
    // Its own node may: so the pod is up, and the flows run.
    let near = Probe::start(&node.netns, "node")?;
    for ip in &neighbours {
        assert_eq!(near.reach(Protocol::Tcp, *ip, 8080, LIMIT)?, inside.name());
    }
    assert_eq!(counted(&closed)?, 0);
    Ok(())
}

pub(crate) fn previous(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => IpAddr::V4(u32::from(ip).wrapping_sub(1).into()),
        IpAddr::V6(ip) => IpAddr::V6(u128::from(ip).wrapping_sub(1).into()),
    }
}

#[test]
fn a_pod_whose_egress_is_denied_sends_not_one_packet_from_the_start_of_its_add_on() -> Result<()> {
    let node = Node::started()?;
    node.store.write(
        "policy.yaml",
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {name: quiet, namespace: shop}\n\
         spec: {podSelector: {matchLabels: {app: quiet}}, policyTypes: [Egress]}\n",
    )?;
    node.wait_snapshot("NetworkPolicy")?;
    count_flow(&node.host)?;
    for (name, app, silent) in [("quiet", "quiet", true), ("loud", "other", false)] {
        let netns = node.lab.netns(name)?;
        let inside = Probe::start(&netns, name)?;
        let _v4 = inside.flow(&inside, "10.1.0.1".parse()?, RATE)?;
        let _v6 = inside.flow(&inside, "fd00:1::1".parse()?, RATE)?;
        node.plugin
            .call("ADD", &spec(name, app), &netns, &nothing())?;
        if silent {
            assert!(
                inside
                    .reach(Protocol::Tcp, "10.1.0.1".parse()?, 8080, SHORT)
                    .is_err()
            );
            assert_eq!(counted(&node.host)?, 0);
        } else {
            wait::until(LIMIT, "the host to see the flows", || {
                match counted(&node.host) {
                    Ok(packets) if packets > 100 => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })?;
        }
    }
    Ok(())
}

#[test]
fn a_pod_does_not_send_from_an_address_that_is_not_its_own() -> Result<()> {
    let node = Node::started()?;
    let (a, b) = (node.member("a", "web")?, node.member("b", "web")?);
    count_flow(&node.host)?;
    a.pod.netns().ip([
        format!("address add {}/32 dev eth0", b.pod.ipv4()?),
        format!("address add {}/128 dev eth0 nodad", b.pod.ipv6()?),
        format!(
            "route replace 10.1.0.1 via 169.254.1.1 dev eth0 onlink src {}",
            b.pod.ipv4()?
        ),
        format!(
            "route replace fd00:1::1 via fe80::1 dev eth0 src {}",
            b.pod.ipv6()?
        ),
    ])?;
    for to in ["10.1.0.1", "fd00:1::1"] {
        let flow = a.probe.flow(&a.probe, to.parse()?, RATE)?;
        assert!(
            a.probe
                .reach(Protocol::Icmp, to.parse()?, 0, SHORT)
                .is_err()
        );
        flow.stop()?;
    }
    assert_eq!(counted(&node.host)?, 0);
    let flow = b.probe.flow(&b.probe, "10.1.0.1".parse()?, RATE)?;
    wait::until(LIMIT, "the owner's packets", || match counted(&node.host) {
        Ok(packets) if packets > 0 => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    flow.stop().map(drop)
}

/// A rule for `app: web`, and who gets through to TCP 8080 and 8081: a pod `app: client` of the
/// namespace `shop`, one of `bank` (`team: money`), and the host 10.1.0.1.
#[test]
fn rules_of_every_kind_let_through_whom_they_say() -> Result<()> {
    let node = Node::started()?;
    node.store.write(
        "bank.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: bank, labels: {team: money}}\n",
    )?;
    let extra = json!({ "args": { "cni": {
        "labels": { "app": "web" },
        "ports": [{ "name": "api", "protocol": "TCP", "port": 8081 }],
    } } });
    let web = Pod::add_with(&node.lab, &node.plugin, spec("web", "web"), &extra)?;
    let _inside = Probe::start(web.netns(), "web")?;
    let client = node.member("client", "client")?;
    let mut banker = spec("banker", "client");
    banker.namespace = "bank".to_owned();
    let banker = Pod::add(&node.lab, &node.plugin, banker)?;
    let banker = Probe::start(banker.netns(), "banker")?;
    let host = Probe::start(&node.host, "host")?;
    let cases: [(&str, [[bool; 2]; 3]); 9] = [
        ("[]", [[false; 2], [false; 2], [false; 2]]),
        ("[{}]", [[true; 2], [true; 2], [true; 2]]),
        (
            "[{from: [{podSelector: {}}]}]",
            [[true; 2], [false; 2], [false; 2]],
        ),
        (
            "[{from: [{namespaceSelector: {matchLabels: {team: money}}}]}]",
            [[false; 2], [true; 2], [false; 2]],
        ),
        (
            "[{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: client}}}]}]",
            [[true; 2], [true; 2], [false; 2]],
        ),
        (
            "[{from: [{ipBlock: {cidr: 10.1.0.0/16}}, {ipBlock: {cidr: 'fd00:1::/64'}}]}]",
            [[false; 2], [false; 2], [true; 2]],
        ),
        (
            "[{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.1.0.0/16]}}, \
               {ipBlock: {cidr: '::/0', except: ['fd00:1::/64']}}]}]",
            [[true; 2], [true; 2], [false; 2]],
        ),
        (
            "[{ports: [{port: api}]}]",
            [[false, true], [false, true], [false, true]],
        ),
        (
            "[{from: [{podSelector: {}}], ports: [{port: 8000, endPort: 8080}]}]",
            [[true, false], [false; 2], [false; 2]],
        ),
    ];
    for (rules, expected) in cases {
        node.store
            .write("policy.yaml", &policy("web", "web", rules))?;
        for ip in web.addresses() {
            wait::until(LIMIT, &format!("{rules} for {ip}"), || {
                let answers = attempts([&client.probe, &banker, &host], ip);
                let answers = answers.map_err(|error| format!("{error:#}"))?;
                if answers == expected {
                    Ok(())
                } else {
                    Err(format!("{answers:?}"))
                }
            })?;
        }
    }
    Ok(())
}

/// Who gets through to TCP 8080 and 8081 of `to`; all try at once.
fn attempts(probes: [&Probe; 3], to: IpAddr) -> Result<[[bool; 2]; 3]> {
    let limit_ms = SHORT.as_millis().try_into()?;
    let ask = |probe: &Probe, port| {
        let to = SocketAddr::new(to, port);
        probe.ask(Operation::Tcp { to, limit_ms })
    };
    let mut asked = Vec::new();
    for (number, probe) in probes.into_iter().enumerate() {
        for (column, port) in PORTS.into_iter().enumerate() {
            asked.push((number, column, ask(probe, port)?));
        }
    }
    let mut answers = [[false; 2]; 3];
    for (number, column, answer) in asked {
        answers[number][column] = answer.recv_timeout(LIMIT)?.is_ok();
    }
    Ok(answers)
}

#[test]
fn the_command_says_which_policy_denies_what_the_kernel_denies() -> Result<()> {
    let node = Node::started()?;
    let (web, front) = (node.member("web", "web")?, node.member("front", "front")?);
    let ask = || node.ctl(&["why", "shop/front", "shop/web", "tcp/8080"]);
    front.wait_reaches(&web)?;
    let open = ask()?;
    assert_eq!(open[0]["allowed"], true, "{open}");
    node.store
        .write("deny.yaml", &policy("deny", "web", "[]"))?;
    front.wait_denied(&web)?;
    let closed = ask()?;
    assert_eq!(
        closed.as_array().map(Vec::len),
        Some(2),
        "both families: {closed}"
    );
    assert_eq!(closed[0]["allowed"], false, "{closed}");
    assert_eq!(
        closed[0]["ingress"]["policies"],
        serde_json::json!(["NetworkPolicy/shop/deny"]),
        "{closed}"
    );
    let unknown = node
        .agent
        .ctl(&["why", "shop/nobody", "shop/web", "tcp/8080"]);
    let error = format!("{:#}", unknown.unwrap_err());
    assert!(
        error.contains("\"shop/nobody\" is no address, and no pod"),
        "{error}"
    );
    Ok(())
}

#[test]
fn labels_of_a_pod_object_take_the_place_of_those_from_cni() -> Result<()> {
    let node = Node::started()?;
    node.store
        .write("policy.yaml", &policy("web", "web", "[]"))?;
    let a = node.member("a", "other")?;
    let host = Probe::start(&node.host, "host")?;
    reaches(&host, &a)?;
    node.store.write(
        "pod.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: shop, labels: {app: web}}\n\
         spec: {nodeName: n1, containers: []}\n",
    )?;
    crate::node::wait_denied(&host, &a)?;
    node.store.remove("pod.yaml")?;
    wait_reaches(&host, &a)
}

#[test]
fn a_half_written_policy_file_leaves_in_force_what_it_said_before() -> Result<()> {
    let node = Node::started()?;
    let web = node.member("web", "web")?;
    let host = Probe::start(&node.host, "host")?;
    let whole = policy("web", "web", "[]");
    node.store.write("policy.yaml", &whole)?;
    crate::node::wait_denied(&host, &web)?;
    let before = node.rules();
    // In place and in pieces, as an editor or a copy over a slow link does it.
    let mut file = std::fs::File::create(node.store.path().join("policy.yaml"))?;
    for piece in whole.as_bytes().chunks(whole.len() / 3) {
        for ip in web.pod.addresses() {
            assert!(host.reach(Protocol::Tcp, ip, 8080, SHORT).is_err());
        }
        assert_eq!(node.rules(), before);
        file.write_all(piece)?;
    }
    drop(file);
    node.store
        .write("policy.yaml", &policy("web", "web", "[{}]"))?;
    wait_reaches(&host, &web)
}
