//! Two nodes with BGP between them, and pools as pods and neighbours see them.

use crate::node::{
    LIMIT, Member, Node, POOL_V4, POOL_V6, SHORT, cni_error, policy, reaches, spec, wait_reaches,
};
use anyhow::{Context, Result, ensure};
use integration::lab::link::End;
use integration::lab::pod::Plugin;
use integration::lab::probe::Protocol;
use integration::lab::{Agent, Pod, Probe, wait};
use serde_json::json;
use std::net::IpAddr;

const SECOND: &str = "apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n2}
spec: {bgp: {ipv4Address: 10.1.0.12/24, ipv6Address: 'fd00:1::12/64'}}
";

/// A second node behind the host's wire, which the host bridges to the first.
pub(crate) fn second(node: &Node) -> Result<Agent> {
    let netns = node.lab.netns("n2")?;
    node.lab.wire(
        &End {
            netns: &netns,
            interface: "eth0",
            addresses: &["10.1.0.12/24", "fd00:1::12/64"],
        },
        &End {
            netns: &node.host,
            interface: "eth1",
            addresses: &[],
        },
    )?;
    node.host.ip([
        "link add lan type bridge",
        "address flush dev eth0",
        "link set eth0 master lan",
        "link set eth1 master lan",
        "link set lan up",
        "address add 10.1.0.1/24 dev lan",
        "address add fd00:1::1/64 dev lan nodad",
    ])?;
    node.store.write("node2.yaml", SECOND)?;
    Agent::new(&node.lab, &netns, "n2", &node.store)
}

#[test]
fn pods_of_two_nodes_reach_each_other_as_policy_by_remote_labels_says() -> Result<()> {
    let mut node = Node::prepared()?;
    let mut second = second(&node)?;
    node.start()?;
    second.start()?;
    second.wait_ready(LIMIT)?;
    let web = node.member("web", "web")?;
    let plugin = Plugin::ocicat(&second)?;
    let remote = |name: &str, app: &str| -> Result<(Pod, Probe)> {
        let pod = Pod::add(&node.lab, &plugin, spec(name, app))?;
        let probe = Probe::start(pod.netns(), name)?;
        Ok((pod, probe))
    };
    let (client, other) = (remote("client", "client")?, remote("other", "other")?);
    for (_, probe) in [&client, &other] {
        wait_reaches(probe, &web)?;
    }
    let rule = "[{from: [{podSelector: {matchLabels: {app: client}}}]}]";
    node.store
        .write("policy.yaml", &policy("web", "web", rule))?;
    crate::node::wait_denied(&other.1, &web)?;
    reaches(&client.1, &web)?;

    // The other node's agent dies: what it announced stays for the restart time.
    second.kill()?;
    let flow = client.1.flow(&web.probe, web.pod.ipv4()?, 500)?;
    second.start()?;
    second.wait_ready(LIMIT)?;
    let report = flow.stop()?;
    assert_eq!(report.lost(), 0, "{report}");
    let (late, probe) = remote("late", "client")?;
    wait_reaches(&probe, &web)?;
    late.check()
}

#[test]
fn with_nat_outgoing_the_world_sees_the_node_and_pods_see_pods() -> Result<()> {
    let node = Node::started()?;
    let pod = node.member("a", "web")?;
    world_sees(&node, &pod, false)?;
    world_sees(&node, &pod, true)
}

/// The address of the pod at another host, or that of its node where the pool has `natOutgoing`.
fn world_sees(node: &Node, pod: &Member, v6: bool) -> Result<()> {
    let (family, kind, icmp) = match v6 {
        false => ("ip", "ipv4_addr", "icmp"),
        true => ("ip6", "ipv6_addr", "icmpv6"),
    };
    let watch = format!(
        "add table {family} seen; add chain {family} seen in {{ type filter hook input priority 0; }}; \
         add set {family} seen sources {{ type {kind}; flags dynamic; size 64; }}; \
         add rule {family} seen in {icmp} type echo-request add @sources {{ {family} saddr }}"
    );
    node.host.run(&["nft", &watch])?;
    let (host, own, address): (IpAddr, _, _) = match v6 {
        false => ([10, 1, 0, 1].into(), "10.1.0.11", pod.pod.ipv4()?),
        true => ("fd00:1::1".parse()?, "fd00:1::11", pod.pod.ipv6()?),
    };
    let address = address.to_string();
    let seen = || {
        let listed = ["nft", "list", "set", family, "seen", "sources"];
        node.host.run(&listed)
    };
    let ping = || pod.probe.reach(Protocol::Icmp, host, 0, SHORT);
    wait::until(LIMIT, "an echo", || {
        ping().map_err(|error| format!("{error:#}"))
    })?;
    ensure!(seen()?.contains(&address), "{}", seen()?);
    for (outgoing, source) in [("true", own), ("false", address.as_str())] {
        let (file, pool, end) = match v6 {
            false => ("pool-v4.yaml", POOL_V4, "/16"),
            true => ("pool-v6.yaml", POOL_V6, "/56'"),
        };
        let pool = pool.replace(end, &format!("{end}, natOutgoing: {outgoing}"));
        ensure!(pool.contains("natOutgoing"), "{pool}");
        node.store.write(file, &pool)?;
        wait::until(LIMIT, &format!("natOutgoing {outgoing}"), || {
            let look = || -> Result<String> {
                let flush = format!("flush set {family} seen sources");
                node.host.run(&["nft", &flush])?;
                ping()?;
                seen()
            };
            let text = look().map_err(|error| format!("{error:#}"))?;
            match text.contains(&format!("{{ {source} }}")) {
                true => Ok(()),
                false => Err(text),
            }
        })?;
    }
    Ok(())
}

#[test]
fn a_disabled_pool_gives_no_new_addresses_and_keeps_its_pods() -> Result<()> {
    let mut node = Node::started()?;
    let (a, b) = (node.member("a", "web")?, node.member("b", "web")?);
    let pool = POOL_V4.replace("Never", "Never, disabled: true");
    node.store.write("pool-v4.yaml", &pool)?;
    let late = wait::until(LIMIT, "an ADD without IPv4", || {
        let late = node
            .pod("late", "web")
            .map_err(|error| format!("{error:#}"))?;
        if late.ipv4().is_err() {
            return Ok(late);
        }
        let result = late.result().to_string();
        late.delete().map_err(|error| format!("{error:#}"))?;
        Err(result)
    })?;
    assert!(late.ipv6().is_ok());
    let extra = json!({ "ipam": { "ipv4_pools": ["v4"] } });
    let named = Pod::add_with(&node.lab, &node.plugin, spec("named", "web"), &extra);
    let (code, message) = cni_error(named)?;
    assert_eq!(code, 7, "{message}");
    assert!(message.contains("pool v4"), "{message}");
    node.crash_and_start()?;
    a.reaches(&b)?;
    a.pod.check()
}

#[test]
fn a_pool_that_is_deleted_under_its_pods_takes_none_of_them_down() -> Result<()> {
    let mut node = Node::started()?;
    let (a, b) = (node.member("a", "web")?, node.member("b", "web")?);
    node.store.remove("pool-v4.yaml")?;
    wait::until(LIMIT, "the snapshot without the pool", || {
        let path = node.agent.state_dir().join("snapshot.json");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if text.contains("10.244.0.0/16") {
            Err(text)
        } else {
            Ok(())
        }
    })?;
    a.reaches(&b)?;
    node.crash_and_start()?;
    a.reaches(&b)?;
    a.pod.check()
}

#[test]
fn a_pod_has_the_mtu_of_the_uplink() -> Result<()> {
    let mut node = Node::prepared()?;
    node.netns.ip(["link set eth0 mtu 1400"])?;
    node.start()?;
    let pod = node.pod("a", "web")?;
    let link = pod.netns().run(&["ip", "link", "show", "eth0"])?;
    assert!(link.contains("mtu 1400"), "{link}");
    let interface = pod.host_interface()?;
    let link = node.netns.run(&["ip", "link", "show", &interface])?;
    assert!(link.contains("mtu 1400"), "{link}");
    Ok(())
}

#[test]
fn a_sandbox_that_takes_the_place_of_another_of_the_same_pod_survives_its_del() -> Result<()> {
    let mut node = Node::started()?;
    node.store
        .write("policy.yaml", &policy("web", "web", "[]"))?;
    let host = Probe::start(&node.host, "host")?;
    let near = Probe::start(&node.netns, "node")?;
    let old = node.lab.netns("old")?;
    let new = node.lab.netns("new")?;
    let pod = spec("a", "web");
    node.call_as("sandbox1", "ADD", &pod, &old)?;
    let result = node.call_as("sandbox2", "ADD", &pod, &new)?;
    let first = result["ips"][0]["address"].as_str().context("an address")?;
    let ip = first.split('/').next().context("an address")?.parse()?;
    let _inside = Probe::start(&new, "new")?;
    node.call_as("sandbox1", "DEL", &pod, &old)?;
    for restart in [false, true] {
        if restart {
            node.crash_and_start()?;
        }
        assert_eq!(near.reach(Protocol::Tcp, ip, 8080, LIMIT)?, "new");
        let open = host.reach(Protocol::Tcp, ip, 8080, SHORT);
        assert!(open.is_err(), "restart: {restart}");
        assert_eq!(node.ctl(&["endpoints"])?[0]["container"], "sandbox2");
        wait::until(LIMIT, "the endpoint in the datastore", || {
            let written = node.endpoints_written();
            let text = match written.as_slice() {
                [file] => node.store.read(&format!("state/workloadendpoints/{file}")),
                other => return Err(format!("{other:?}")),
            };
            match text {
                Ok(text) if text.contains("sandbox2") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })?;
    }
    node.store.remove("policy.yaml")?;
    wait::until(LIMIT, "to be reached", || {
        host.reach(Protocol::Tcp, ip, 8080, SHORT)
            .map_err(|error| format!("{error:#}"))
    })?;
    node.call_as("sandbox2", "DEL", &pod, &new)?;
    assert_eq!(node.ctl(&["endpoints"])?, json!([]));
    Ok(())
}

#[test]
fn of_two_nodes_with_one_block_the_datastores_owner_keeps_it_and_the_others_pods_stay_reachable()
-> Result<()> {
    let mut node = Node::prepared()?;
    let mut second = second(&node)?;
    node.start()?;
    second.start()?;
    second.wait_ready(LIMIT)?;
    let web = node.member("web", "web")?;
    let plugin = Plugin::ocicat(&second)?;
    let pod = Pod::add(&node.lab, &plugin, spec("client", "client"))?;
    let client = Probe::start(pod.netns(), "client")?;
    wait_reaches(&client, &web)?;
    node.wait_written(2)?;
    // By hand, or by a datastore that was restored: the first node's blocks are the second's.
    let folder = node.store.path().join("state/ipamblocks");
    let mut lost = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path)?;
        if text.contains("host:n1") {
            let staged = folder.join(".by-hand");
            std::fs::write(&staged, text.replace("host:n1", "host:n2"))?;
            std::fs::rename(&staged, &path)?;
            lost.push(text);
        }
    }
    assert!(!lost.is_empty());
    node.wait_said("is claimed by nodes n1 and n2")?;
    node.wait_status("Node_n1", "is claimed by nodes n1 and n2")?;
    let address = web.pod.ipv4()?;
    // The block is the second node's; the pod has a route of its own.
    wait::until(LIMIT, "a route of the pod's own", || {
        let routes = second.netns().run(&["ip", "route", "show", "proto", "122"]);
        match routes {
            Ok(text)
                if text
                    .lines()
                    .any(|l| l.starts_with(&format!("{address} via"))) =>
            {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    })?;
    wait_reaches(&client, &web)?;
    web.pod.check()?;
    // Nobody gets its address again, neither here nor there.
    for number in 0..3 {
        let here = node.pod(&format!("here{number}"), "web")?;
        let there = Pod::add(&node.lab, &plugin, spec(&format!("there{number}"), "web"))?;
        assert!(![here.ipv4()?, there.ipv4()?].contains(&address));
        assert_ne!(here.ipv4()?, there.ipv4()?);
    }
    let report: serde_json::Value =
        serde_json::from_str(&second.ctl(&["ipam", "check", "-o", "json"])?)?;
    let text = report.to_string();
    let words = format!("{address} of pod shop/web on node n1 is in block");
    assert!(text.contains(&words), "{text}");
    reaches(&client, &web)
}
