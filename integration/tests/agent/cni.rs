//! What a runtime gets from the plugin and the agent together.

use crate::node::{LIMIT, Node, SHORT, cni_error, entries, nothing, policy, spec};
use anyhow::{Context, Result};
use integration::lab::{Netns, Pod, Watch, wait};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn a_pod_has_its_addresses_as_host_routes_and_both_gateways_without_a_bridge() -> Result<()> {
    let node = Node::started()?;
    let pod = node.pod("a", "web")?;
    let (v4, v6) = (pod.ipv4()?, pod.ipv6()?);
    let inside = |args: &[&str]| pod.netns().run(args);
    let addresses = inside(&["ip", "-br", "address", "show", "eth0"])?;
    assert!(addresses.contains(&format!("{v4}/32")), "{addresses}");
    assert!(addresses.contains(&format!("{v6}/128")), "{addresses}");
    let routes = inside(&["ip", "route"])? + &inside(&["ip", "-6", "route"])?;
    assert!(
        routes.contains("default via 169.254.1.1 dev eth0"),
        "{routes}"
    );
    assert!(routes.contains("default via fe80::1 dev eth0"), "{routes}");
    let neighbours = inside(&["ip", "neigh", "show", "nud", "permanent"])?;
    for gateway in ["169.254.1.1", "fe80::1"] {
        let entry = format!("{gateway} dev eth0 lladdr ee:ee:ee:ee:ee:ee PERMANENT");
        assert!(neighbours.contains(&entry), "{neighbours}");
    }
    let host = node
        .netns
        .run(&["ip", "neigh", "show", "nud", "permanent"])?;
    for ip in pod.addresses() {
        assert!(host.contains(&ip.to_string()), "{host}");
        node.wait_route(ip, true)?;
    }
    assert_eq!(
        node.netns.run(&["ip", "link", "show", "type", "bridge"])?,
        ""
    );
    let link = node
        .netns
        .run(&["ip", "link", "show", &pod.host_interface()?])?;
    assert!(link.contains("alias ocicat:shop/a"), "{link}");
    Ok(())
}

#[test]
fn an_add_is_not_followed_by_repairs_of_what_it_made() -> Result<()> {
    let node = Node::started()?;
    let network = Watch::routes(&node.lab, &node.netns)?;
    let pods: Vec<Pod> = (0..20)
        .map(|number| node.pod(&format!("p{number}"), "web"))
        .collect::<Result<_>>()?;
    network.wait_quiet(SHORT);
    let deleted: Vec<_> = network
        .events()
        .into_iter()
        .filter(|event| event.line.starts_with("Deleted") && event.line.contains("oci"))
        .collect();
    assert!(deleted.is_empty(), "{deleted:#?}");
    let log = node.agent.log();
    assert!(!log.contains("set up again"), "{log}");
    assert!(!log.contains("repairing"), "{log}");
    pods.iter().try_for_each(Pod::check)
}

#[test]
fn an_add_that_is_repeated_has_the_same_result() -> Result<()> {
    let node = Node::started()?;
    let pod = node.pod("a", "web")?;
    let again = node
        .plugin
        .call("ADD", pod.spec(), pod.netns(), &nothing())?;
    assert_eq!(&again, pod.result());
    assert_eq!(node.links()?.len(), 1);
    assert_eq!(node.ctl(&["endpoints"])?.as_array().map(Vec::len), Some(1));
    pod.check()
}

#[test]
fn an_add_after_half_of_it_was_lost_makes_the_pod_whole() -> Result<()> {
    let node = Node::started()?;
    let (a, b) = (node.member("a", "web")?, node.member("b", "web")?);
    a.pod.netns().ip(["link del eth0"])?;
    let again = node
        .plugin
        .call("ADD", a.pod.spec(), a.pod.netns(), &nothing())?;
    let ips: Vec<_> = again["ips"].as_array().context("ips")?.iter().collect();
    assert_eq!(ips.len(), 2);
    assert_eq!(node.links()?.len(), 2);
    for ip in ips {
        let ip = ip["address"].as_str().context("an address")?;
        let ip = ip.split('/').next().context("an address")?.parse()?;
        let limit = std::time::Duration::from_secs(5);
        let name = b
            .probe
            .reach(integration::lab::probe::Protocol::Tcp, ip, 8080, limit)?;
        assert_eq!(name, "a");
    }
    Ok(())
}

#[test]
fn check_names_what_is_missing() -> Result<()> {
    let node = Node::started()?;
    type Damage = fn(&Node, &Pod) -> Result<()>;
    let cases: [(&str, Damage, &str); 8] = [
        (
            "neighbour",
            |node, pod| {
                let (ip, host) = (pod.ipv4()?, pod.host_interface()?);
                node.netns.ip([format!("neigh del {ip} dev {host}")])
            },
            "lacks the neighbour entry of 10.244.",
        ),
        (
            "mtu",
            |node, pod| {
                let host = pod.host_interface()?;
                node.netns.ip([format!("link set {host} mtu 1280")])
            },
            "has MTU 1280",
        ),
        (
            "address",
            |_, pod| {
                pod.netns()
                    .ip([format!("address del {}/32 dev eth0", pod.ipv4()?)])
            },
            "10.244.",
        ),
        (
            "default4",
            |_, pod| pod.netns().ip(["route del default via 169.254.1.1"]),
            "default",
        ),
        (
            "default6",
            |_, pod| {
                pod.netns()
                    .run(&["ip", "-6", "route", "del", "default"])
                    .map(drop)
            },
            "default",
        ),
        (
            "gateway",
            |_, pod| pod.netns().ip(["neigh del 169.254.1.1 dev eth0"]),
            "169.254.1.1",
        ),
        ("down", |_, pod| pod.netns().ip(["link set eth0 down"]), ""),
        (
            "link",
            |node, pod| {
                node.netns
                    .ip([format!("link del {}", pod.host_interface()?)])
            },
            "",
        ),
    ];
    for (name, damage, words) in cases {
        let pod = node.pod(name, "web")?;
        pod.check().with_context(|| format!("{name}: healthy"))?;
        damage(&node, &pod)?;
        let (code, message) = cni_error(pod.check()).context(name)?;
        assert_eq!(code, 103, "{message}");
        assert!(message.contains(&format!("shop/{name}")), "{message}");
        assert!(message.contains(words), "{name}: {message}");
    }
    Ok(())
}

#[test]
fn a_pods_link_has_one_queue_or_as_many_as_asked_for() -> Result<()> {
    let node = Node::started()?;
    let extra = json!({ "num_queues": 3 });
    let three = Pod::add_with(&node.lab, &node.plugin, spec("three", "web"), &extra)?;
    for (pod, queues) in [(&node.pod("one", "web")?, 1), (&three, 3)] {
        let host = pod.host_interface()?;
        for (netns, name) in [(&node.netns, host.as_str()), (pod.netns(), "eth0")] {
            let shown = netns.run(&["ip", "-d", "link", "show", name])?;
            assert!(shown.contains(&format!("numtxqueues {queues} ")), "{shown}");
            assert!(shown.contains(&format!("numrxqueues {queues} ")), "{shown}");
        }
        pod.check()?;
    }
    Ok(())
}

#[test]
fn check_of_a_container_that_was_never_added_is_an_error() -> Result<()> {
    let node = Node::started()?;
    let pod = node.pod("a", "web")?;
    let stranger = node.lab.netns("stranger")?;
    let extra = json!({ "prevResult": pod.result() });
    let result = node
        .plugin
        .call("CHECK", &spec("stranger", "web"), &stranger, &extra);
    let (code, message) = cni_error(result)?;
    assert_eq!(code, 103, "{message}");
    assert!(
        message.contains("shop-stranger is not known here"),
        "{message}"
    );
    Ok(())
}

#[test]
fn del_leaves_nothing_and_may_be_repeated() -> Result<()> {
    let node = Node::started()?;
    node.store.write(
        "policy.yaml",
        &policy("web", "web", "[{from: [{podSelector: {}}]}]"),
    )?;
    let other = node.member("other", "other")?;
    node.wait_written(1)?;
    let settled = |node: &Node| -> Result<(String, String, Vec<String>, String)> {
        let neighbours = node
            .netns
            .run(&["ip", "neigh", "show", "nud", "permanent"])?;
        Ok((node.rules(), node.routes()?, node.links()?, neighbours))
    };
    let before = settled(&node)?;
    let pod = node.pod("a", "web")?;
    node.wait_written(2)?;
    assert_ne!(settled(&node)?, before);
    pod.del()?;
    wait::until(LIMIT, "nothing to be left", || match settled(&node) {
        Ok(now) if now == before => Ok(()),
        other => Err(format!("{other:?}\ninstead of {before:?}")),
    })?;
    node.wait_written(1)?;
    pod.del()?;
    pod.del()?;
    // So does the namespace that went first, and a container that was never there.
    let gone = Netns::clone(pod.netns());
    gone.delete()?;
    pod.del()?;
    node.plugin
        .call("DEL", &spec("never", "web"), &gone, &nothing())?;
    assert_eq!(settled(&node)?, before);
    other.pod.check()
}

#[test]
fn an_address_is_not_given_to_another_pod_at_once() -> Result<()> {
    let node = Node::started()?;
    let mut seen = BTreeSet::new();
    for number in 0..6 {
        let pod = node.pod(&format!("p{number}"), "web")?;
        for address in pod.addresses() {
            assert!(seen.insert(address), "{address} again");
        }
        pod.delete()?;
    }
    Ok(())
}

#[test]
fn an_add_into_a_namespace_whose_interface_is_still_being_deleted_waits_for_the_deletion()
-> Result<()> {
    let node = Node::started()?;
    let netns = node.lab.netns("a")?;
    let spec = spec("a", "web");
    for round in 0..20 {
        // Another sandbox each time, as nobody forbids.
        let container = format!("sandbox{round}");
        node.call_as(&container, "ADD", &spec, &netns)
            .with_context(|| format!("round {round}"))?;
        node.call_as(&container, "DEL", &spec, &netns)?;
    }
    let pod = node.call_as("last", "ADD", &spec, &netns)?;
    assert_eq!(pod["ips"].as_array().map(Vec::len), Some(2));
    wait::until(LIMIT, "one link", || match node.links() {
        Ok(links) if links.len() == 1 => Ok(()),
        other => Err(format!("{other:?}")),
    })
}

#[test]
fn gc_frees_what_the_runtime_no_longer_lists() -> Result<()> {
    let node = Node::started()?;
    let (kept, gone) = (node.pod("kept", "web")?, node.pod("gone", "web")?);
    node.wait_written(2)?;
    let extra = json!({
        "cniVersion": "1.1.0",
        "cni.dev/valid-attachments": [{ "containerID": "shop-kept", "ifname": "eth0" }],
    });
    node.plugin.call("GC", kept.spec(), kept.netns(), &extra)?;
    for ip in gone.addresses() {
        node.wait_route(ip, false)?;
    }
    node.wait_written(1)?;
    kept.check()?;
    // Without the list, nothing is freed.
    let without = json!({ "cniVersion": "1.1.0" });
    let (code, message) = cni_error(node.plugin.call("GC", kept.spec(), kept.netns(), &without))?;
    assert_eq!(code, 7, "{message}");
    kept.check()
}

#[test]
fn status_is_50_while_the_cluster_is_unknown_or_the_agent_is_away() -> Result<()> {
    let mut node = Node::prepared()?;
    node.hide_store()?;
    let status = |node: &Node| {
        let extra = json!({ "cniVersion": "1.1.0" });
        node.plugin
            .call("STATUS", &spec("a", "web"), &node.netns, &extra)
    };
    let (code, _) = cni_error(status(&node))?;
    assert_eq!(code, 50, "no agent");
    node.agent.start()?;
    node.wait_said("nothing is known of the cluster")?;
    let (code, message) = cni_error(status(&node))?;
    assert_eq!(code, 50, "{message}");
    assert!(
        message.contains("node n1") && message.contains("datastore"),
        "{message}"
    );
    node.show_store()?;
    node.agent.wait_ready(LIMIT)?;
    status(&node).map(drop)
}

#[test]
fn version_lists_the_versions_of_the_specification() -> Result<()> {
    let node = Node::prepared()?;
    let said = node
        .plugin
        .call("VERSION", &spec("a", "web"), &node.netns, &nothing())?;
    let versions = said["supportedVersions"].as_array().context("versions")?;
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        assert!(versions.contains(&json!(version)), "{said}");
    }
    Ok(())
}

#[test]
fn adds_at_the_same_time_get_different_addresses() -> Result<()> {
    let node = Node::started()?;
    let names = (0..20).map(|number| format!("p{number}"));
    let namespaces: Vec<Netns> = names
        .map(|name| node.lab.netns(&name))
        .collect::<Result<_>>()?;
    let plugin = &node.plugin;
    let results: Vec<Value> = std::thread::scope(|scope| {
        let add = |netns| {
            scope.spawn(move || {
                plugin.call("ADD", &spec(Netns::name(netns), "web"), netns, &nothing())
            })
        };
        let threads: Vec<_> = namespaces.iter().map(add).collect();
        let results = threads
            .into_iter()
            .map(|thread| thread.join().expect("a thread of the test"));
        results.collect::<Result<_>>()
    })?;
    let ips = results
        .iter()
        .filter_map(|result| result["ips"].as_array())
        .flatten();
    let addresses: BTreeSet<String> = ips.map(|ip| ip["address"].to_string()).collect();
    assert_eq!(addresses.len(), 40);
    for (netns, result) in namespaces.iter().zip(&results) {
        let extra = json!({ "prevResult": result });
        plugin.call("CHECK", &spec(netns.name(), "web"), netns, &extra)?;
    }
    Ok(())
}

#[test]
fn the_example_objects_and_configuration_are_understood_without_a_warning() -> Result<()> {
    let mut node = Node::prepared()?;
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    for name in entries(node.store.path())? {
        node.store.remove(&name)?;
    }
    for name in entries(&deploy.join("objects"))? {
        node.store.write(
            &name,
            &std::fs::read_to_string(deploy.join("objects").join(&name))?,
        )?;
    }
    node.netns.ip([
        "address add 10.10.1.11/24 dev eth0",
        "address add fd00:10:1::11/64 dev eth0 nodad",
    ])?;
    node.start()?;
    let status = node.ctl(&["status"])?;
    let problems = status["problems"].as_array().context("problems")?;
    let unexpected: Vec<_> = problems
        .iter()
        .filter(|problem| {
            !problem
                .as_str()
                .is_some_and(|text| text.contains("has no ipip"))
        })
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    assert!(
        !node.agent.log().contains("fields ignored"),
        "{}",
        node.agent.log()
    );
    let conflist: Value = serde_json::from_str(&std::fs::read_to_string(
        deploy.join("cni/10-ocicat.conflist"),
    )?)?;
    let mut plugin = node.plugin.clone();
    plugin.config = conflist["plugins"][0].clone();
    for key in ["cniVersion", "name"] {
        plugin.config[key] = conflist[key].clone();
    }
    plugin.config["socket"] = json!(node.agent.run_dir().join("cni.sock"));
    let pod = Pod::add(&node.lab, &plugin, spec("a", "web"))?;
    assert_eq!(pod.addresses().len(), 2);
    pod.check()
}
