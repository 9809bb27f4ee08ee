//! An agent that ends in whatever way, and what the next one makes of what is left.

use crate::node::{LIMIT, Node, cni_error, nothing, policy, spec};
use anyhow::{Context, Result};
use integration::lab::link::End;
use integration::lab::pod::Plugin;
use integration::lab::router::{Neighbor, RouterConfig};
use integration::lab::{Agent, Frr, Netns, Pod, Watch, agent, wait};
use ipnet::IpNet;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Command;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// Nothing that the agent would do by itself after a start comes later than this.
const SILENCE: Duration = Duration::from_millis(1500);

#[test]
fn sigterm_leaves_everything_in_force_and_the_next_start_rewrites_nothing() -> Result<()> {
    let mut node = Node::started()?;
    node.store
        .write("policy.yaml", &policy("web", "web", "[]"))?;
    let web = node.member("web", "web")?;
    let other = node.member("other", "other")?;
    other.wait_denied(&web)?;
    let before = (node.rules(), node.routes()?, node.links()?);
    let flow = web.probe.flow(&other.probe, other.pod.ipv4()?, 200)?;
    let (nft, routes) = (
        Watch::nft(&node.lab, &node.netns)?,
        Watch::routes(&node.lab, &node.netns)?,
    );
    node.stop()?;
    assert_eq!(before, (node.rules(), node.routes()?, node.links()?));
    other.wait_denied(&web)?;
    node.start()?;
    nft.wait_quiet(SILENCE);
    let routes_written = routes.events().into_iter().map(|event| event.line);
    let mut events: Vec<_> = routes_written
        .filter(|line| !line.contains("proto kernel"))
        .collect();
    // An ownerless table is adopted; its content is not written anew.
    let nft = nft.events().into_iter().map(|event| event.line);
    events.extend(nft.filter(|line| !line.contains("add table") && !line.starts_with('#')));
    assert!(events.is_empty(), "{events:#?}");
    assert_eq!(before, (node.rules(), node.routes()?, node.links()?));
    let report = flow.stop()?;
    assert_eq!(report.lost(), 0, "{report}");
    Ok(())
}

#[test]
fn addresses_survive_sigkill_and_are_given_out_once() -> Result<()> {
    let mut node = Node::started()?;
    let (a, b) = (node.pod("a", "web")?, node.pod("b", "web")?);
    node.crash_and_start()?;
    let again = node
        .plugin
        .call("ADD", a.spec(), a.netns(), &crate::node::nothing())?;
    assert_eq!(again["ips"], a.result()["ips"]);
    let mut seen: BTreeSet<_> = [&a, &b].iter().flat_map(|pod| pod.addresses()).collect();
    for number in 0..5 {
        let pod = node.pod(&format!("p{number}"), "web")?;
        for address in pod.addresses() {
            assert!(seen.insert(address), "{address} was given out twice");
        }
    }
    a.check()?;
    b.check()
}

#[test]
fn without_the_datastore_an_agent_starts_from_its_snapshot_adds_announces_and_removes_nothing()
-> Result<()> {
    let mut node = Node::prepared()?;
    let frr = frr(&node)?;
    node.store.write("peer.yaml", PEER)?;
    node.store
        .write("policy.yaml", &policy("web", "web", "[]"))?;
    node.start()?;
    let web = node.member("web", "web")?;
    let other = node.member("other", "other")?;
    other.wait_denied(&web)?;
    web.wait_reaches(&other)?;
    wait_announced(&frr)?;
    node.wait_snapshot("NetworkPolicy")?;
    node.wait_snapshot("rack1")?;
    let before = (node.rules(), node.routes()?, node.links()?);

    node.agent.kill()?;
    node.hide_store()?;
    node.agent.start()?;
    node.wait_said("working from the last view on disk")?;
    node.agent.wait_ready(LIMIT)?;
    let path = node.store.path().display().to_string();
    assert!(node.agent.health("/readyz")?.1.contains(&path));
    assert_eq!(before, (node.rules(), node.routes()?, node.links()?));
    let late = node.member("late", "web")?;
    other.wait_denied(&late)?;
    late.wait_reaches(&other)?;
    wait_announced(&frr)?;

    node.show_store()?;
    wait::until(LIMIT, "the note to go", || {
        match node.agent.health("/readyz") {
            Ok((200, body)) if !body.contains("last view") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    other.wait_denied(&late)?;
    for member in [&web, &other, &late] {
        member.pod.check()?;
    }
    wait_endpoints_written(&node, 3)
}

#[test]
fn a_datastore_that_goes_away_under_a_running_agent_is_noted_and_stops_nothing() -> Result<()> {
    let node = Node::started()?;
    node.store
        .write("policy.yaml", &policy("web", "web", "[]"))?;
    let web = node.member("web", "web")?;
    let other = node.member("other", "other")?;
    other.wait_denied(&web)?;
    wait_endpoints_written(&node, 2)?;
    let before = (node.rules(), node.routes()?);
    node.hide_store()?;
    node.wait_said("datastore lost")?;
    assert_eq!(node.agent.health("/readyz")?.0, 200);
    assert_eq!(before, (node.rules(), node.routes()?));
    let late = node.member("late", "web")?;
    other.wait_denied(&late)?;
    late.wait_reaches(&other)?;
    web.pod.del()?;
    for ip in web.pod.addresses() {
        node.wait_route(ip, false)?;
    }
    node.show_store()?;
    wait::until(LIMIT, "the note to go", || {
        match node.agent.health("/readyz") {
            Ok((200, body)) if !body.contains("datastore lost") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    wait::until(LIMIT, "what happened meanwhile in the datastore", || {
        let mut written = node.endpoints_written();
        written.sort();
        let named = |name: &str| {
            written
                .iter()
                .any(|file| file.contains(&format!("k8s-{name}-")))
        };
        if named("late") && named("other") && !named("web") {
            Ok(())
        } else {
            Err(format!("{written:?}"))
        }
    })?;
    node.store.remove("policy.yaml")?;
    other.wait_reaches(&late)
}

#[test]
fn after_a_power_cycle_without_the_datastore_blocks_and_policy_are_back_and_dead_pods_are_gone()
-> Result<()> {
    let mut node = Node::started()?;
    node.store
        .write("policy.yaml", &policy("web", "web", "[]"))?;
    let web = node.member("web", "web")?;
    let other = node.member("other", "other")?;
    other.wait_denied(&web)?;
    node.wait_snapshot("NetworkPolicy")?;
    let blackholes = blackholes(&node)?;
    assert!(!blackholes.is_empty());
    let dead: BTreeSet<_> = web
        .pod
        .addresses()
        .into_iter()
        .chain(other.pod.addresses())
        .collect();

    node.power_cycle()?;
    drop((web, other));
    for name in ["web", "other"] {
        integration::lab::process::run(Command::new("ip").args([
            "netns",
            "del",
            &format!("{}{name}", node.lab.prefix()),
        ]))?;
    }
    node.hide_store()?;
    node.agent.start()?;
    node.agent.wait_ready(LIMIT)?;
    wait::until(LIMIT, "the blackholes", || match self::blackholes(&node) {
        Ok(now) if now == blackholes => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    assert_eq!(node.ctl(&["endpoints"])?.as_array().map(Vec::len), Some(0));
    let web = node.member("web2", "web")?;
    let other = node.member("other2", "other")?;
    web.wait_reaches(&other)?;
    other.wait_denied(&web)?;
    for address in web.pod.addresses() {
        assert!(!dead.contains(&address), "{address} has not cooled down");
    }
    Ok(())
}

#[test]
fn a_lost_journal_is_made_up_for_by_the_datastore() -> Result<()> {
    let mut node = Node::started()?;
    let (a, b) = (node.member("a", "web")?, node.member("b", "web")?);
    wait_endpoints_written(&node, 2)?;
    node.agent.kill()?;
    std::fs::remove_file(node.agent.state_dir().join("journal"))?;
    node.start()?;
    taken_back(&node, &[&a.pod, &b.pod])?;
    a.wait_reaches(&b)
}

#[test]
fn a_journal_with_a_flipped_byte_or_a_torn_end_is_used_kept_aside_and_completed() -> Result<()> {
    let mut node = Node::started()?;
    let (a, b) = (node.pod("a", "web")?, node.pod("b", "web")?);
    wait_endpoints_written(&node, 2)?;
    let path = node.agent.state_dir().join("journal");
    for flip in [true, false] {
        node.agent.kill()?;
        let mut bytes = std::fs::read(&path)?;
        if flip {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
        } else {
            bytes.truncate(bytes.len() - 7);
        }
        std::fs::write(&path, &bytes)?;
        node.start()?;
        taken_back(&node, &[&a, &b]).with_context(|| format!("flip: {flip}"))?;
        if flip {
            node.wait_logged("journal damaged")?;
            assert_eq!(std::fs::read(path.with_extension("damaged"))?, bytes);
        }
    }
    Ok(())
}

#[test]
fn a_journal_of_noise_is_survived() -> Result<()> {
    let mut node = Node::started()?;
    let pod = node.pod("a", "web")?;
    wait_endpoints_written(&node, 1)?;
    node.agent.kill()?;
    let noise: Vec<u8> = (0..60_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    std::fs::write(node.agent.state_dir().join("journal"), noise)?;
    node.start()?;
    taken_back(&node, &[&pod])
}

#[test]
fn a_corrupted_snapshot_is_named_and_the_datastore_is_waited_for() -> Result<()> {
    let mut node = Node::started()?;
    let pod = node.pod("a", "web")?;
    node.wait_snapshot("IpPool")?;
    let before = (node.rules(), node.routes()?);
    node.agent.kill()?;
    let path = node.agent.state_dir().join("snapshot.json");
    let bytes = std::fs::read(&path)?;
    std::fs::write(&path, &bytes[..bytes.len() / 2])?;
    node.hide_store()?;
    node.agent.start()?;
    node.wait_logged("not a snapshot")?;
    node.wait_said("nothing is known of the cluster")?;
    let (code, message) = cni_error(node.pod("b", "web"))?;
    assert_eq!(code, 11, "{message}");
    assert_eq!(before, (node.rules(), node.routes()?));
    node.show_store()?;
    node.agent.wait_ready(LIMIT)?;
    pod.check()
}

#[test]
fn a_second_agent_with_the_same_state_or_sockets_refuses_to_start() -> Result<()> {
    let node = Node::started()?;
    let pod = node.pod("a", "web")?;
    let elsewhere = node.lab.subdir("elsewhere")?;
    for (run, state) in [
        (node.agent.run_dir(), node.agent.state_dir()),
        (node.agent.run_dir(), elsewhere.clone()),
        (elsewhere.clone(), node.agent.state_dir()),
    ] {
        let mut second = Command::new(agent::binary("OCICAT_NODE_BIN", "ocicat-node")?);
        second.args(["--node-name", "n1", "--health-port", "9099"]);
        second.arg("--datastore").arg(node.store.path());
        second.arg("--run-dir").arg(run);
        second.arg("--state-dir").arg(state);
        let output = node.netns.output(&mut second)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        assert!(
            said.contains("lock: another agent is running with this directory"),
            "{said}"
        );
        pod.check()?;
    }
    node.pod("b", "web").map(drop)
}

#[test]
fn a_block_that_the_datastore_gives_to_another_node_gives_no_more_addresses() -> Result<()> {
    let mut node = Node::started()?;
    let (a, b) = (node.member("a", "web")?, node.member("b", "web")?);
    wait_endpoints_written(&node, 2)?;
    node.agent.kill()?;
    let folder = node.store.path().join("state/ipamblocks");
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path)?;
        std::fs::write(
            &path,
            text.replace("host:n1", "host:n2").replace("n1", "n2"),
        )?;
    }
    let blocks = |node: &Node| -> Result<Vec<IpNet>> {
        let status = node.ctl(&["status"])?;
        let blocks = status["blocks"].as_array().context("blocks")?.iter();
        let parse = |block: &Value| block.as_str()?.parse().ok();
        blocks
            .map(|block| parse(block).context("a block"))
            .collect()
    };
    node.start()?;
    a.wait_reaches(&b)?;
    a.pod.check()?;
    let late = node.member("late", "web")?;
    let own = blocks(&node)?;
    for ip in late.pod.addresses() {
        assert!(own.iter().any(|block| block.contains(&ip)), "{ip}, {own:?}");
    }
    for ip in a.pod.addresses() {
        assert!(
            !own.iter().any(|block| block.contains(&ip)),
            "{ip}, {own:?}"
        );
    }
    late.wait_reaches(&a)
}

#[test]
fn sigkill_under_a_flow_loses_no_packet_and_withdraws_no_route() -> Result<()> {
    let mut node = Node::prepared()?;
    let frr = frr(&node)?;
    node.store.write("peer.yaml", PEER)?;
    node.start()?;
    let (a, b) = (node.member("a", "web")?, node.member("b", "web")?);
    a.wait_reaches(&b)?;
    wait_announced(&frr)?;
    let routes = Watch::routes(&node.lab, &node.host)?;
    let flow = a.probe.flow(&b.probe, b.pod.ipv4()?, 500)?;
    node.agent.signal(Signal::KILL)?;
    node.crash_and_start()?;
    wait_announced(&frr)?;
    routes.wait_quiet(SILENCE);
    let report = flow.stop()?;
    assert_eq!(report.lost(), 0, "{report}");
    let lost: Vec<_> = routes
        .events()
        .into_iter()
        .filter(|event| event.line.contains("Deleted"))
        .collect();
    assert!(lost.is_empty(), "{lost:?}");
    Ok(())
}

#[test]
fn sigkill_in_the_middle_of_adds_loses_no_pod_and_leaves_no_half_of_one() -> Result<()> {
    const PODS: usize = 24;
    let mut node = Node::started()?;
    let namespaces: Vec<Netns> = (0..PODS)
        .map(|number| node.lab.netns(&format!("p{number}")))
        .collect::<Result<_>>()?;
    let plugin = node.plugin.clone();
    let (done, adds) = std::sync::mpsc::channel();
    let results = std::thread::scope(|scope| {
        let (plugin, namespaces) = (&plugin, &namespaces);
        let runtime = scope.spawn(move || {
            let add = |netns| add_as_a_runtime_does(plugin, netns, &done);
            namespaces.iter().map(add).collect::<Result<Vec<Value>>>()
        });
        // At another moment of an ADD each time, for as long as there are any.
        for (crash, _) in adds
            .iter()
            .enumerate()
            .filter(|(number, _)| number % 2 == 0)
        {
            std::thread::sleep(Duration::from_millis(crash as u64 % 12));
            node.agent.kill()?;
            node.agent.start()?;
        }
        runtime.join().expect("the runtime's thread")
    })?;
    node.agent.wait_ready(LIMIT)?;
    let mut addresses = BTreeSet::new();
    for (netns, result) in namespaces.iter().zip(&results) {
        let extra = json!({ "prevResult": result });
        plugin.call("CHECK", &spec(netns.name(), "web"), netns, &extra)?;
        for ip in result["ips"].as_array().context("ips")? {
            assert!(addresses.insert(ip["address"].to_string()), "{ip} twice");
        }
    }
    wait::until(LIMIT, "only the pods that were answered", || {
        let links = node.links().map_err(|error| format!("{error:#}"))?.len();
        let routes = node.routes().map_err(|error| format!("{error:#}"))?;
        let routes = routes
            .lines()
            .filter(|line| line.contains(" dev oci"))
            .count();
        if links == PODS && routes == addresses.len() {
            Ok(())
        } else {
            Err(format!("{links} links, {routes} routes"))
        }
    })
}

#[test]
fn sigkill_in_the_middle_of_dels_leaves_nothing_of_the_pods() -> Result<()> {
    const PODS: usize = 16;
    let mut node = Node::started()?;
    let before = (node.rules(), node.routes()?);
    let pods: Vec<Pod> = (0..PODS)
        .map(|number| node.pod(&format!("p{number}"), "web"))
        .collect::<Result<_>>()?;
    let (done, dels) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let pods = &pods;
        let runtime = scope.spawn(move || {
            pods.iter().try_for_each(|pod| {
                // Away or not, the agent gets to know: DEL does not fail.
                pod.del()?;
                let _ = done.send(());
                Ok::<_, anyhow::Error>(())
            })
        });
        for (crash, ()) in dels
            .iter()
            .enumerate()
            .filter(|(number, ())| number % 2 == 0)
        {
            std::thread::sleep(Duration::from_millis(crash as u64 % 7));
            node.agent.kill()?;
            node.agent.start()?;
        }
        runtime.join().expect("the runtime's thread")
    })?;
    node.agent.wait_ready(LIMIT)?;
    wait::until(LIMIT, "nothing to be left", || {
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
    wait_endpoints_written(&node, 0)
}

/// ADD until it succeeds, with a DEL after every failure; tells of every success.
fn add_as_a_runtime_does(plugin: &Plugin, netns: &Netns, done: &Sender<()>) -> Result<Value> {
    let spec = spec(netns.name(), "web");
    wait::until(LIMIT, "an ADD", || {
        match plugin.call("ADD", &spec, netns, &nothing()) {
            Ok(result) => {
                // The other end is gone only when the test has failed.
                let _ = done.send(());
                Ok(result)
            }
            Err(error) => {
                let deleted = plugin.call("DEL", &spec, netns, &nothing());
                Err(format!("{error:#}; {deleted:?}"))
            }
        }
    })
}

#[test]
fn the_block_that_another_node_claimed_first_is_left_to_it() -> Result<()> {
    let mut node = Node::started()?;
    node.store.write(
        "node2.yaml",
        "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: n2}\n\
         spec: {bgp: {ipv4Address: 10.1.0.12/24, ipv6Address: 'fd00:1::12/64'}}\n",
    )?;
    node.store.write(
        "pool-v4.yaml",
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: tiny}\n\
         spec: {cidr: 10.244.9.0/29, blockSize: 30, ipipMode: Never}\n",
    )?;
    node.crash_and_start()?;
    let netns = node.lab.netns("n2")?;
    let spare = node.lab.netns("spare")?;
    node.lab.wire(
        &End {
            netns: &netns,
            interface: "eth0",
            addresses: &["10.1.0.12/24", "fd00:1::12/64"],
        },
        &End {
            netns: &spare,
            interface: "eth0",
            addresses: &[],
        },
    )?;
    let mut second = Agent::new(&node.lab, &netns, "n2", &node.store)?;
    second.start()?;
    second.wait_ready(LIMIT)?;
    let plugins = [node.plugin.clone(), Plugin::ocicat(&second)?];
    let mut seen = BTreeSet::new();
    let mut pods = Vec::new();
    for number in 0..4 {
        for (plugin, letter) in plugins.iter().zip(["a", "b"]) {
            let added = Pod::add(&node.lab, plugin, spec(&format!("{letter}{number}"), "web"));
            match added {
                Ok(pod) => {
                    assert!(seen.insert(pod.ipv4()?), "{} twice", pod.ipv4()?);
                    pods.push(pod);
                }
                Err(error) => {
                    let (code, message) = cni_error::<()>(Err(error))?;
                    assert_eq!(code, 100, "{message}");
                }
            }
        }
    }
    assert!(seen.len() >= 4, "{seen:?}");
    second.stop(LIMIT)
}

const PEER: &str = "apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: rack1}
spec: {peerIP: 10.1.0.1, asNumber: 65001}
";

/// A router on the node's wire, without the static routes to the pods.
fn frr(node: &Node) -> Result<Frr> {
    node.host.ip([
        "route del 10.244.0.0/16 via 10.1.0.11",
        "route del fd00:10:244::/56 via fd00:1::11",
    ])?;
    Frr::start(
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
    )
}

/// Waits until the session is up and the router has a block of both families.
fn wait_announced(frr: &Frr) -> Result<()> {
    wait::until(LIMIT, "the blocks in the router's table", || {
        let state = frr
            .session("10.1.0.11")
            .map_err(|error| format!("{error:#}"))?;
        let (v4, v6) = (frr.prefixes("ipv4"), frr.prefixes("ipv6"));
        match (&v4, &v6) {
            (Ok(v4), Ok(v6))
                if state == "Established"
                    && v4.iter().any(|prefix| prefix.starts_with("10.244."))
                    && v6.iter().any(|prefix| prefix.starts_with("fd00:10:244:")) =>
            {
                Ok(())
            }
            _ => Err(format!("{state} {v4:?} {v6:?}")),
        }
    })
}

fn blackholes(node: &Node) -> Result<BTreeSet<String>> {
    let routes = node.routes()?;
    let blackholes = routes.lines().filter(|line| line.starts_with("blackhole"));
    Ok(blackholes.map(str::to_owned).collect())
}

fn wait_endpoints_written(node: &Node, count: usize) -> Result<()> {
    wait::until(LIMIT, "the endpoints in the datastore", || {
        let written = node.endpoints_written();
        if written.len() == count {
            Ok(())
        } else {
            Err(format!("{written:?}"))
        }
    })
}

/// All pods are as they were, and their addresses are not given out again.
fn taken_back(node: &Node, pods: &[&Pod]) -> Result<()> {
    for pod in pods {
        pod.check()?;
    }
    let mut seen: BTreeSet<_> = pods.iter().flat_map(|pod| pod.addresses()).collect();
    for number in 0..3 {
        let pod = node.pod(&format!("new{number}"), "web")?;
        for address in pod.addresses() {
            assert!(seen.insert(address), "{address} was given out twice");
        }
        pod.delete()?;
    }
    Ok(())
}
