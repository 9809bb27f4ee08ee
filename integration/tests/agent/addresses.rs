//! Which address a pod gets, and what becomes of addresses that nobody takes back.

use crate::node::{LIMIT, Node, POOL_V4, cni_error, spec};
use anyhow::{Context, Result};
use integration::lab::{Pod, wait};
use serde_json::{Value, json};
use std::net::IpAddr;

/// Looks follow each other quickly.
pub(crate) const QUICK: &[&str] = &["--ipam-interval", "0.4", "--node-grace", "2"];

/// A node whose agent looks often.
pub(crate) fn quick() -> Result<Node> {
    let mut node = Node::prepared()?;
    node.agent.set_flags(QUICK);
    node.start()?;
    Ok(node)
}

/// Blocks of the datastore by name, with their text.
pub(crate) fn block_files(node: &Node) -> Vec<(String, String)> {
    let folder = node.store.path().join("state/ipamblocks");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<(String, String)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let text = std::fs::read_to_string(entry.path()).ok()?;
            (!name.starts_with('.')).then_some((name, text))
        })
        .collect();
    files.sort();
    files
}

/// What `ocicat ipam check` finds, in sentences.
pub(crate) fn problems(node: &Node) -> Result<Vec<String>> {
    let report = node.ctl(&["ipam", "check"])?;
    let problems = report["problems"].as_array().context("problems")?.clone();
    let sentence = |problem: &Value| problem["problem"].as_str().map(str::to_owned);
    Ok(problems.iter().filter_map(sentence).collect())
}

/// Waits until `ocicat ipam check` finds nothing.
pub(crate) fn wait_in_step(node: &Node) -> Result<()> {
    wait::until(LIMIT, "nothing to be wrong", || match problems(node) {
        Ok(found) if found.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    })
}

fn wait_problem(node: &Node, words: &str) -> Result<()> {
    wait::until(LIMIT, words, || match problems(node) {
        Ok(found) if found.iter().any(|problem| problem.contains(words)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("invariant: the test names addresses")
}

#[test]
fn annotations_of_the_pod_win_over_those_of_its_namespace_and_those_over_the_configuration()
-> Result<()> {
    let node = Node::started()?;
    for (name, cidr) in [("second", "10.45.0.0/24"), ("third", "10.46.0.0/24")] {
        let pool = POOL_V4.replace("{name: v4}", &format!("{{name: {name}}}"));
        let pool = pool.replace("10.244.0.0/16", cidr);
        let manual = pool.replace("ipipMode: Never", "assignmentMode: Manual");
        node.store.write(&format!("{name}.yaml"), &manual)?;
    }
    let annotated = |kind: &str, name: &str, annotations: Value| -> Result<()> {
        let mut metadata = json!({ "name": name, "annotations": annotations });
        if kind == "Pod" {
            metadata["namespace"] = json!("shop");
        }
        let object = json!({ "apiVersion": "v1", "kind": kind, "metadata": metadata });
        let file = format!("{kind}-{name}.yaml").to_lowercase();
        node.store.write(&file, &object.to_string())?;
        node.wait_snapshot(&annotations.to_string().replace(['{', '}'], ""))
    };
    let of = |key: &str, value: Value| json!({ format!("cni.projectcalico.org/{key}"): value });
    let configured = json!({ "ipam": { "ipv4_pools": ["v4"] } });
    let add = |name: &str| Pod::add_with(&node.lab, &node.plugin, spec(name, "web"), &configured);
    let inside = |pod: &Pod, start: &str| -> Result<()> {
        let address = pod.ipv4()?;
        assert!(address.to_string().starts_with(start), "{address}");
        pod.check()
    };

    node.store.remove("namespace.yaml")?;
    annotated("Namespace", "shop", of("ipv4pools", json!("[\"second\"]")))?;
    inside(&add("plain")?, "10.45.0.")?;
    annotated(
        "Pod",
        "chosen",
        of("ipv4pools", json!("[\"10.46.0.0/24\"]")),
    )?;
    inside(&add("chosen")?, "10.46.0.")?;
    annotated("Pod", "single", of("ipFamilies", json!("[\"IPv6\"]")))?;
    assert!(add("single")?.addresses().iter().all(IpAddr::is_ipv6));
    annotated("Pod", "exact", of("ipAddrs", json!("[\"10.244.77.7\"]")))?;
    assert_eq!(add("exact")?.addresses(), [ip("10.244.77.7")]);
    annotated("Pod", "mac", of("hwAddr", json!("02:11:22:33:44:55")))?;
    let pod = add("mac")?;
    let link = pod.netns().run(&["ip", "link", "show", "eth0"])?;
    assert!(link.contains("02:11:22:33:44:55"), "{link}");
    for (key, value) in [
        ("ipAddrs", json!("10.244.77.8")),
        ("ipv4pools", json!("[\"nowhere\"]")),
        ("hwAddr", json!("01:00:00:00:00:01")),
        ("floatingIPs", json!("[\"10.0.0.1\"]")),
    ] {
        let name = format!("bad-{}", key.to_lowercase());
        annotated("Pod", &name, of(key, value))?;
        let (code, message) = cni_error(add(&name))?;
        assert_eq!(code, 7, "{message}");
        assert!(
            message.contains(key) || message.contains("nowhere"),
            "{message}"
        );
    }
    wait_in_step(&node)
}

#[test]
fn a_family_that_loses_its_last_pool_is_missed_aloud() -> Result<()> {
    let node = Node::started()?;
    let add = |name: &str, ipam: Value| {
        let extra = json!({ "ipam": ipam });
        Pod::add_with(&node.lab, &node.plugin, spec(name, "web"), &extra)
    };
    let families = |pod: &Pod| {
        let all = pod.addresses();
        (
            all.iter().any(IpAddr::is_ipv4),
            all.iter().any(IpAddr::is_ipv6),
        )
    };
    let both = add("both", json!({}))?;
    assert_eq!(families(&both), (true, true));
    let chosen = json!({ "assign_ipv4": "true", "assign_ipv6": "false" });
    assert_eq!(families(&add("v4", chosen)?), (true, false));

    node.store.remove("pool-v4.yaml")?;
    let said = node.wait_said("no IPPool gives IPv4 addresses on this node any more")?;
    assert!(said.contains("2 pods that run have one"), "{said}");
    assert!(said.contains("pods that start get IPv6 only"), "{said}");
    assert_eq!(families(&add("left", json!({}))?), (false, true));
    for asked in [
        json!({ "assign_ipv4": "true" }),
        json!({ "assign_ipv4": "true", "assign_ipv6": "false" }),
    ] {
        let (code, message) = cni_error(add("strict", asked))?;
        assert_eq!(code, 7, "{message}");
        assert!(message.contains("IPv4"), "{message}");
    }
    both.check()?;

    node.store.write("pool-v4.yaml", POOL_V4)?;
    node.wait_unsaid("no IPPool gives IPv4")?;
    assert_eq!(families(&add("again", json!({}))?), (true, true));
    wait_in_step(&node)
}

#[test]
fn a_reserved_address_is_given_only_to_who_asks_for_it() -> Result<()> {
    let mut node = Node::prepared()?;
    let pool = POOL_V4.replace("10.244.0.0/16", "10.244.9.0/29, blockSize: 29");
    node.store.write("pool-v4.yaml", &pool)?;
    node.store.write(
        "reservation.yaml",
        "apiVersion: projectcalico.org/v3\nkind: IPReservation\nmetadata: {name: r}\n\
         spec: {reservedCIDRs: [10.244.9.0/30, 10.244.9.7]}\n",
    )?;
    node.start()?;
    let mut given = Vec::new();
    for number in 0..3 {
        given.push(node.pod(&format!("p{number}"), "web")?.ipv4()?);
    }
    given.sort_unstable();
    assert_eq!(
        given,
        [ip("10.244.9.4"), ip("10.244.9.5"), ip("10.244.9.6")]
    );
    let (code, message) = cni_error(node.pod("late", "web"))?;
    assert_eq!(code, 100, "{message}");
    assert!(message.contains("5 are reserved"), "{message}");
    let extra = json!({ "args": { "cni": { "ips": ["10.244.9.7"] } } });
    let asked = Pod::add_with(&node.lab, &node.plugin, spec("asked", "web"), &extra)?;
    assert_eq!(asked.addresses(), [ip("10.244.9.7")]);
    Ok(())
}

#[test]
fn a_block_that_is_empty_and_not_needed_is_given_back_and_one_is_kept() -> Result<()> {
    let node = quick()?;
    let blocks = |count: usize| {
        wait::until(LIMIT, &format!("{count} blocks"), || {
            let files = block_files(&node);
            if files.len() == count {
                Ok(())
            } else {
                Err(format!("{files:?}"))
            }
        })
    };
    blocks(2)?;
    let pod = node.pod("a", "web")?;
    // Pools that this node takes nothing from need no block; the one in use stays.
    let pool = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: spare}\n\
                spec: {cidr: 10.45.0.0/24}\n";
    node.store.write("spare.yaml", pool)?;
    blocks(3)?;
    for disabled in ["v4", "spare"] {
        let (file, text) = match disabled {
            "v4" => ("pool-v4.yaml", POOL_V4.to_owned()),
            _ => ("spare.yaml", pool.to_owned()),
        };
        let text = text.replace("spec: {", "spec: {disabled: true, ");
        node.store.write(file, &text)?;
    }
    blocks(2)?;
    let files = block_files(&node);
    assert!(
        files.iter().any(|(name, _)| name.starts_with("10-244-")),
        "{files:?}"
    );
    assert!(
        !node.routes()?.contains("blackhole 10.45."),
        "{}",
        node.routes()?
    );
    pod.check()?;
    let shown = node.agent.ctl(&["ipam", "blocks"])?;
    assert!(
        shown.contains("10.244.") && !shown.contains("10.45."),
        "{shown}"
    );
    node.store.write("spare.yaml", pool)?;
    blocks(3)?;
    wait_in_step(&node)
}

#[test]
fn an_address_whose_pod_vanished_is_named_and_freed_on_the_second_look() -> Result<()> {
    let node = quick()?;
    let (gone, kept) = (node.pod("gone", "web")?, node.pod("kept", "web")?);
    node.wait_written(2)?;
    wait_in_step(&node)?;
    let address = gone.ipv4()?;
    gone.netns().delete()?;
    node.wait_logged(&format!("leaked by pod shop/{}", gone.name()))?;
    node.wait_logged("leaked: address released")?;
    node.wait_route(address, false)?;
    node.wait_written(1)?;
    wait_in_step(&node)?;
    kept.check()?;
    // Its DEL comes late and finds nothing.
    let nothing = crate::node::nothing();
    node.plugin
        .call("DEL", gone.spec(), kept.netns(), &nothing)?;
    kept.check()
}

#[test]
fn doubled_and_foreign_addresses_are_named_and_not_given_out() -> Result<()> {
    let mut node = Node::prepared()?;
    let pool = POOL_V4.replace("10.244.0.0/16", "10.244.9.0/30, blockSize: 30");
    node.store.write("pool-v4.yaml", &pool)?;
    node.start()?;
    let mine = node.pod("mine", "web")?;
    let foreign = ["10.244.9.1", "10.244.9.2"].map(ip);
    assert!(!foreign.contains(&mine.ipv4()?));
    for (name, address) in [("x", mine.ipv4()?), ("y", foreign[0]), ("z", foreign[1])] {
        let text = format!(
            "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\n\
             metadata: {{name: n2-k8s-{name}-eth0, namespace: shop}}\n\
             spec: {{orchestrator: k8s, node: n2, pod: {name}, containerID: c{name}, endpoint: eth0, \
             interfaceName: oci{name}, mac: '02:00:00:00:00:01', ipNetworks: [{address}/32]}}\n"
        );
        node.store.write(&format!("wep-{name}.yaml"), &text)?;
    }
    let address = mine.ipv4()?;
    wait_problem(
        &node,
        &format!("{address} is the address of pod shop/mine on node n1, pod shop/x on node n2"),
    )?;
    wait_problem(
        &node,
        "10.244.9.1 of pod shop/y on node n2 is in block 10.244.9.0/30 of node n1",
    )?;
    wait_problem(&node, "10.244.9.2 of pod shop/z")?;
    let last = node.pod("last", "web")?;
    assert!(!foreign.contains(&last.ipv4()?), "{:?}", last.ipv4()?);
    let (code, message) = cni_error(node.pod("late", "web"))?;
    assert_eq!(code, 100, "{message}");
    let extra = json!({ "args": { "cni": { "ips": ["10.244.9.2"] } } });
    let asked = Pod::add_with(&node.lab, &node.plugin, spec("asked", "web"), &extra);
    let (code, message) = cni_error(asked)?;
    assert_eq!(code, 101, "{message}");
    assert!(message.contains("pod shop/z on node n2"), "{message}");
    Ok(())
}

#[test]
fn an_operator_releases_an_address_by_hand() -> Result<()> {
    let node = Node::started()?;
    let pod = node.pod("a", "web")?;
    let address = pod.ipv4()?.to_string();
    let refused = node.agent.ctl(&["ipam", "release", &address]);
    let refused = format!(
        "{:#}",
        refused.err().context("released under a living pod")?
    );
    assert!(refused.contains("pod shop/a"), "{refused}");
    let other = node
        .agent
        .ctl(&["ipam", "release", &address, "--force", "--sequence", "999"]);
    assert!(other.is_err());
    pod.check()?;
    let said = node.agent.ctl(&["ipam", "release", &address, "--force"])?;
    assert!(said.contains(&format!("{address} released")), "{said}");
    node.wait_route(pod.ipv4()?, false)?;
    let shown = node.agent.ctl(&["ipam", "show"])?;
    assert!(shown.contains("v4") && shown.contains("COOLING"), "{shown}");
    wait_in_step(&node)
}

#[test]
fn an_add_waits_for_its_pod_object_and_not_for_ever() -> Result<()> {
    let node = Node::started()?;
    let object = |name: &str, annotations: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, uid: u-{name}, \
             annotations: {{{annotations}}}}}\n"
        )
    };
    // The datastore has Pod objects, and an earlier pod's of the same name.
    node.store.write("other.yaml", &object("other", ""))?;
    let earlier = "cni.projectcalico.org/ipAddrs: '[\"10.244.77.1\"]'";
    let earlier = object("late", earlier).replace("u-late", "u-earlier");
    node.store.write("late.yaml", &earlier)?;
    node.wait_snapshot("u-earlier")?;
    let add = |name: &str| -> Result<Value> {
        let netns = node.lab.netns(name)?;
        node.call_of_kubelet("ADD", name, &format!("u-{name}"), &netns)
    };
    let annotations = "cni.projectcalico.org/ipAddrs: '[\"10.244.77.9\"]'";
    let (store, late) = (node.store.clone(), object("late", annotations));
    let writing = std::thread::spawn(move || store.write("late.yaml", &late));
    let result = add("late")?;
    writing
        .join()
        .map_err(|_| anyhow::anyhow!("the Pod object"))??;
    assert_eq!(result["ips"][0]["address"], "10.244.77.9/32", "{result}");
    let result = add("never")?;
    assert!(result["ips"][0]["address"].is_string(), "{result}");
    node.wait_logged("its Pod object did not come").map(drop)
}
