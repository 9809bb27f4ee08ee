//! What bad input gets: an error that names the object and the field, and everything else goes on.

use crate::node::{LIMIT, Node, POOL_V4, cni_error, policy, spec, wait_denied, wait_reaches};
use crate::sockets::noise;
use anyhow::{Context, Result, bail};
use integration::lab::{Pod, Probe, wait};
use serde_json::json;

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
    node.wait_snapshot("NetworkPolicy")?;

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
fn protection_that_is_asked_for_and_not_there_fails_readiness_by_the_name_of_the_field()
-> Result<()> {
    let node = Node::started()?;
    let (a, b) = (node.member("a", "web")?, node.member("b", "web")?);
    let felix = |name: &str, spec: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {{name: {name}}}\n\
             spec: {{{spec}}}\n"
        )
    };
    for (name, field, value) in [
        ("default", "wireguardEnabled", "true"),
        ("default", "wireguardEnabledV6", "true"),
        ("node.n1", "wireguardHostEncryptionEnabled", "true"),
        ("node.n1", "ipsecMode", "PSK"),
    ] {
        node.store
            .write("felix.yaml", &felix(name, &format!("{field}: {value}")))?;
        node.wait_said(&format!("FelixConfiguration/{name}: spec.{field}"))?;
        assert_eq!(node.agent.health("/readyz")?.0, 503, "{field}");
        a.reaches(&b)?;
        node.store.remove("felix.yaml")?;
        node.wait_unsaid(field)?;
        assert_eq!(node.agent.health("/readyz")?.0, 200, "{field}");
    }
    // What is asked of another node is not this one's, and what only tunes is ignored.
    for spec in [
        felix("node.n2", "wireguardEnabled: true"),
        felix(
            "default",
            "wireguardEnabled: false, wireguardMTU: 1400, bpfEnabled: true",
        ),
    ] {
        node.store.write("felix.yaml", &spec)?;
        node.store.write("marker.yaml", "nonsense: [")?;
        node.wait_said("marker.yaml")?;
        assert_eq!(node.agent.health("/readyz")?.0, 200, "{spec}");
        node.store.remove("marker.yaml")?;
        node.wait_unsaid("marker.yaml")?;
    }
    Ok(())
}

#[test]
fn a_bgp_peer_with_the_wrong_as_is_named_with_both_numbers() -> Result<()> {
    let node = Node::started()?;
    let _frr = node.router()?;
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
    wait_reaches(&host, &web)?;
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
