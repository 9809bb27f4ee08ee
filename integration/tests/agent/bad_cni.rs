//! What wrong calls of the plugin get: the code of the specification, the field, and nothing left.

use crate::node::{LIMIT, Node, cni_error, nothing, spec};
use anyhow::{Context, Result};
use integration::lab::{Netns, Pod, wait};
use serde_json::{Value, json};

/// What a call of ADD with these members gets.
fn refused(node: &Node, netns: &Netns, extra: &Value) -> Result<(u64, String)> {
    cni_error(
        node.plugin
            .call("ADD", &spec(netns.name(), "web"), netns, extra),
    )
}

fn wait_empty(node: &Node) -> Result<()> {
    wait::until(LIMIT, "nothing to be left", || {
        let links = node.links().map_err(|error| format!("{error:#}"))?;
        let endpoints = node.ctl(&["endpoints"]);
        match endpoints {
            Ok(endpoints) if links.is_empty() && endpoints == json!([]) => Ok(()),
            other => Err(format!("{links:?} {other:?}")),
        }
    })
}

#[test]
fn addresses_that_cannot_be_had_are_named_and_nothing_is_left() -> Result<()> {
    let node = Node::started()?;
    let other = node.pod("other", "web")?;
    let netns = node.lab.netns("a")?;
    let wish = |ip: &str| json!({ "runtimeConfig": { "ips": [ip] } });
    let used = other.ipv4()?.to_string();
    for (ip, code) in [
        ("192.0.2.7", 7),
        (used.as_str(), 101),
        ("10.244.0", 7),
        ("10.244.1.1/40", 7),
    ] {
        let (found, message) = refused(&node, &netns, &wish(ip))?;
        assert_eq!(found, code, "{ip}: {message}");
        assert!(message.contains(ip), "{message}");
    }
    let (code, message) = refused(&node, &netns, &json!({ "ipam": { "type": "host-local" } }))?;
    assert_eq!(code, 7, "{message}");
    assert!(
        message.contains("ipam.type") && message.contains("host-local"),
        "{message}"
    );
    other.del()?;
    wait_empty(&node)
}

#[test]
fn an_interface_name_that_the_pod_has_already_is_refused_by_the_variable() -> Result<()> {
    let node = Node::started()?;
    let netns = node.lab.netns("a")?;
    netns.ip(["link add eth0 type veth peer name eth9"])?;
    let (code, message) = refused(&node, &netns, &nothing())?;
    assert_eq!(code, 4, "{message}");
    assert_eq!(
        message,
        "CNI_IFNAME: pod shop/a already has an interface eth0"
    );
    wait_empty(&node)?;
    let kept = netns.run(&["ip", "link", "show", "eth0"])?;
    assert!(kept.contains("eth0"), "{kept}");
    Ok(())
}

#[test]
fn two_adds_at_once_for_one_container_have_one_result() -> Result<()> {
    let node = Node::started()?;
    let netns = node.lab.netns("a")?;
    let add = || {
        node.plugin
            .call("ADD", &spec("a", "web"), &netns, &nothing())
    };
    for round in 0..10 {
        let results: Vec<Value> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(add)).collect();
            let results = threads
                .into_iter()
                .map(|thread| thread.join().expect("a thread of the test"));
            results.collect::<Result<_>>()
        })
        .with_context(|| format!("round {round}"))?;
        assert!(
            results.iter().all(|result| *result == results[0]),
            "{results:#?}"
        );
        assert_eq!(node.links()?.len(), 1);
        node.plugin
            .call("DEL", &spec("a", "web"), &netns, &nothing())?;
        wait_empty(&node)?;
    }
    Ok(())
}

#[test]
fn a_namespace_that_vanishes_during_add_leaves_nothing_after_its_del() -> Result<()> {
    let node = Node::started()?;
    for round in 0..20_u64 {
        let netns = node.lab.netns(&format!("p{round}"))?;
        let spec = spec(netns.name(), "web");
        let result = std::thread::scope(|scope| {
            let add = scope.spawn(|| node.plugin.call("ADD", &spec, &netns, &nothing()));
            // At another moment of the ADD each time.
            std::thread::sleep(std::time::Duration::from_micros(round * 300));
            let deleted = netns.delete();
            (add.join().expect("a thread of the test"), deleted)
        });
        result.1?;
        if let Err(error) = result.0 {
            // Before it was opened, or while it was worked in.
            let (code, message) = cni_error::<()>(Err(error))?;
            assert!([4, 102].contains(&code), "{code} {message}");
        }
        node.plugin.call("DEL", &spec, &netns, &nothing())?;
    }
    wait_empty(&node)
}

#[test]
fn after_all_kinds_of_bad_calls_a_good_one_works() -> Result<()> {
    let node = Node::started()?;
    let netns = node.lab.netns("a")?;
    let long = "x".repeat(10 << 20);
    for (extra, code, words) in [
        (json!({ "cniVersion": "0.2.0" }), 1, "0.2.0"),
        (json!({ "cniVersion": "9.9.9" }), 1, "9.9.9"),
        (json!({ "name": "" }), 7, "name"),
        (json!({ "padding": long }), 6, "longer than"),
        (json!({ "mtu": -1 }), 7, "mtu"),
        (
            json!({ "runtimeConfig": { "bandwidth": { "egressRate": 1 } } }),
            7,
            "runtimeConfig.bandwidth",
        ),
        (json!({ "prevResult": { "ips": 7 } }), 7, "prevResult.ips"),
    ] {
        let (found, message) = refused(&node, &netns, &extra)?;
        assert_eq!(found, code, "{message}");
        assert!(message.contains(words), "{message}");
    }
    let never = node.lab.netns("never")?;
    node.plugin
        .call("DEL", &spec("never", "web"), &never, &nothing())?;
    wait_empty(&node)?;
    Pod::add(&node.lab, &node.plugin, spec("good", "web"))?.check()
}
