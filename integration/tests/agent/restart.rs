//! An agent that ends in whatever way, and what the next one makes of what is left.

use crate::node::ROUTER;
use crate::node::{LIMIT, Node, policy, spec};
use anyhow::Result;
use integration::lab::{Frr, Pod, Watch, agent, wait};
use rustix::process::Signal;
use serde_json::json;
use std::collections::BTreeSet;
use std::process::Command;
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
fn a_crash_with_many_pods_is_followed_by_no_change_of_their_links_neighbours_routes_and_rules()
-> Result<()> {
    const PODS: usize = 30;
    let mut node = Node::started()?;
    node.store
        .write("policy.yaml", &policy("web", "web", "[]"))?;
    let mapping = json!({ "hostPort": 30080, "containerPort": 8080, "protocol": "udp" });
    let extra = json!({ "runtimeConfig": { "portMappings": [mapping] } });
    let with_port = Pod::add_with(&node.lab, &node.plugin, spec("port", "web"), &extra)?;
    let pods: Vec<Pod> = (1..PODS)
        .map(|number| node.pod(&format!("p{number}"), "web"))
        .collect::<Result<_>>()?;
    node.wait_written(PODS)?;
    let nft = Watch::nft(&node.lab, &node.netns)?;
    let network = Watch::network(&node.lab, &node.netns)?;
    node.crash_and_start()?;
    network.wait_quiet(SILENCE);
    let lines = |watch: &Watch| watch.events().into_iter().map(|event| event.line);
    let of_pods = lines(&network).filter(|l| l.contains("oci") || l.contains("proto 122"));
    let mut events: Vec<_> = of_pods.collect();
    events.extend(lines(&nft).filter(|l| !l.contains("add table") && !l.starts_with('#')));
    assert!(events.is_empty(), "{events:#?}");
    with_port.check()?;
    pods.iter().try_for_each(Pod::check)
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
    let frr = node.router()?;
    node.store.write("peer.yaml", ROUTER)?;
    node.store
        .write("policy.yaml", &policy("web", "web", "[]"))?;
    node.start()?;
    let web = node.member("web", "web")?;
    let other = node.member("other", "other")?;
    other.wait_denied(&web)?;
    web.wait_reaches(&other)?;
    wait_announced(&frr)?;
    wait_learnt(&node)?;
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
    node.wait_written(3)
}

#[test]
fn a_datastore_that_goes_away_under_a_running_agent_is_noted_and_stops_nothing() -> Result<()> {
    let node = Node::started()?;
    node.store
        .write("policy.yaml", &policy("web", "web", "[]"))?;
    let web = node.member("web", "web")?;
    let other = node.member("other", "other")?;
    other.wait_denied(&web)?;
    node.wait_written(2)?;
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
    wait::until(LIMIT, "the dead pods to be gone", || {
        match node.ctl(&["endpoints"]) {
            Ok(endpoints) if endpoints == serde_json::json!([]) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
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
fn sigkill_under_a_flow_loses_no_packet_and_withdraws_no_route() -> Result<()> {
    let mut node = Node::prepared()?;
    let frr = node.router()?;
    node.store.write("peer.yaml", ROUTER)?;
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

/// Waits until the node has the router's networks of both families.
fn wait_learnt(node: &Node) -> Result<()> {
    wait::until(LIMIT, "the router's networks", || {
        let routes = node.routes().map_err(|error| format!("{error:#}"))?;
        let learnt = [
            "10.1.0.0/24",
            "198.51.100.0/24",
            "fd00:1::/64",
            "fd00:51::/64",
        ];
        let via = |dest| {
            routes
                .lines()
                .any(|line| line.starts_with(&format!("{dest} via ")))
        };
        if learnt.into_iter().all(via) {
            Ok(())
        } else {
            Err(routes)
        }
    })
}
