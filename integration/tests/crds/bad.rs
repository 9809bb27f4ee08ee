//! For each rule an object that breaks it.

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// An object that must be refused, and what must be said.
pub(crate) struct Case {
    pub(crate) document: Value,
    pub(crate) message: &'static str,
}

/// How a case is made: the kind and name of an example, what is changed in its `spec` (a merge
/// patch, RFC 7396), and what must be said.
type Row = (&'static str, &'static str, Value, &'static str);

/// Every case, each with a name of its own.
pub(crate) fn cases(examples: &[Value]) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (index, (kind, name, patch, message)) in rows().into_iter().enumerate() {
        let example = examples
            .iter()
            .find(|document| document["kind"] == kind && document["metadata"]["name"] == name)
            .with_context(|| format!("{kind} {name}"))?;
        let mut document = example.clone();
        document["metadata"]["name"] = format!("bad-{index}").into();
        merge(&mut document["spec"], &patch);
        cases.push(Case { document, message });
    }
    // The server has these examples: they can't become these.
    for (kind, name, patch, message) in changes() {
        let example = examples
            .iter()
            .find(|document| document["kind"] == kind && document["metadata"]["name"] == name)
            .with_context(|| format!("{kind} {name}"))?;
        let mut document = example.clone();
        merge(&mut document["spec"], &patch);
        cases.push(Case { document, message });
    }
    cases.extend(whole());
    Ok(cases)
}

fn merge(value: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *value = patch.clone();
        return;
    };
    if !value.is_object() {
        *value = json!({});
    }
    for (name, field) in patch {
        if field.is_null() {
            if let Some(map) = value.as_object_mut() {
                map.remove(name);
            }
        } else {
            merge(&mut value[name], field);
        }
    }
}

fn rows() -> Vec<Row> {
    [
        pools(),
        bgp(),
        filters(),
        endpoints(),
        rules(),
        policies(),
        staged_kubernetes(),
    ]
    .concat()
}

fn pools() -> Vec<Row> {
    let pool = |patch, message| ("IPPool", "pods", patch, message);
    vec![
        pool(
            json!({ "cidr": "10.244.0.1/16" }),
            "must be a CIDR without host bits, such as 10.0.0.0/16",
        ),
        pool(
            json!({ "cidr": "10.244" }),
            "must be a CIDR without host bits, such as 10.0.0.0/16",
        ),
        pool(
            json!({ "vxlanMode": "Always" }),
            "a pool has either ipipMode or vxlanMode",
        ),
        pool(
            json!({ "blockSize": 64 }),
            "blockSize is 20 to 32 for IPv4 and 116 to 128 for IPv6",
        ),
        pool(
            json!({ "cidr": "fd00::/64", "blockSize": 64, "ipipMode": "Never" }),
            "blockSize is 20 to 32 for IPv4 and 116 to 128 for IPv6",
        ),
        pool(
            json!({ "cidr": "10.244.0.0/28" }),
            "the pool is smaller than one block: give a larger blockSize",
        ),
        pool(
            json!({ "cidr": "10.244.0.0/28", "blockSize": null }),
            "the pool is smaller than one block: give a larger blockSize",
        ),
        pool(json!({ "blockSize": 19 }), "spec.blockSize"),
        pool(json!({ "ipipMode": "Sometimes" }), "spec.ipipMode"),
        pool(json!({ "cidr": null }), "spec.cidr"),
        (
            "IPReservation",
            "printers",
            json!({ "reservedCIDRs": ["10.0.0"] }),
            "must be an IP address or a CIDR",
        ),
        (
            "IPAMConfiguration",
            "default",
            json!({}),
            "the one IPAMConfiguration is named default",
        ),
        (
            "BlockAffinity",
            "n1-10-244-0-0-30",
            json!({ "state": "maybe" }),
            "spec.state",
        ),
    ]
}

fn changes() -> Vec<Row> {
    let pool = |patch, message| ("IPPool", "pods", patch, message);
    vec![
        pool(
            json!({ "cidr": "10.245.0.0/16" }),
            "cidr can't be changed: make another pool and disable this one",
        ),
        pool(
            json!({ "blockSize": 27 }),
            "blockSize can't be changed: blocks of the old size are in use",
        ),
    ]
}

fn bgp() -> Vec<Row> {
    let configuration = |patch, message| ("BGPConfiguration", "default", patch, message);
    let peer = |patch, message| ("BGPPeer", "by-address", patch, message);
    let selector = |patch, message| ("BGPPeer", "by-selector", patch, message);
    vec![
        configuration(
            json!({}),
            "nodeMeshPassword may stand only in the object named default",
        ),
        configuration(
            json!({ "nodeToNodeMeshEnabled": false }),
            "nodeMeshPassword is for the mesh, which nodeToNodeMeshEnabled switches off",
        ),
        configuration(
            json!({ "ignoredInterfaces": ["*"] }),
            "\"*\" would ignore every interface",
        ),
        configuration(
            json!({ "localWorkloadPeeringIPV4": "here" }),
            "must be an IP address",
        ),
        configuration(json!({ "listenPort": 0 }), "spec.listenPort"),
        configuration(json!({ "asNumber": 0 }), "spec.asNumber"),
        configuration(json!({ "asNumber": "x" }), "spec.asNumber"),
        peer(
            json!({ "nodeSelector": "all()" }),
            "nodeSelector may not stand beside node",
        ),
        peer(
            json!({ "peerSelector": "all()", "asNumber": null }),
            "exactly one of peerIP, peerSelector, localWorkloadSelector, ocicat.peerInterface, ocicat.peerPrefix",
        ),
        peer(
            json!({ "peerIP": "", "reachableBy": null }),
            "exactly one of peerIP, peerSelector, localWorkloadSelector, ocicat.peerInterface, ocicat.peerPrefix",
        ),
        selector(
            json!({ "asNumber": 65001 }),
            "asNumber comes from the selected nodes with peerSelector",
        ),
        peer(
            json!({ "asNumber": null }),
            "asNumber is required, or ocicat.remoteAS",
        ),
        peer(
            json!({ "ocicat": { "remoteAS": "External" } }),
            "ocicat.remoteAS may not stand beside asNumber or peerSelector",
        ),
        (
            "BGPPeer",
            "pods",
            json!({ "reachableBy": "10.0.0.1" }),
            "reachableBy needs peerIP",
        ),
        peer(
            json!({ "nextHopMode": "Self" }),
            "nextHopMode contradicts keepOriginalNextHop",
        ),
        peer(json!({ "peerIP": "10.0.0.1:0" }), PEER_ADDRESS),
        peer(json!({ "peerIP": "10.0.0.1:65536" }), PEER_ADDRESS),
        peer(json!({ "peerIP": "fd00::1]:179" }), PEER_ADDRESS),
        peer(json!({ "peerIP": "router" }), PEER_ADDRESS),
        peer(
            json!({ "ocicat": { "peerLimit": 7 } }),
            "peerLimit needs peerPrefix",
        ),
        peer(
            json!({ "ocicat": { "role": null } }),
            "roleStrict needs role",
        ),
        peer(json!({ "ttlSecurity": 256 }), "spec.ttlSecurity"),
        peer(json!({ "keepaliveTime": "soon" }), "spec.keepaliveTime"),
        peer(
            json!({ "ocicat": { "maxPrefixes": { "limit": 0 } } }),
            "spec.ocicat.maxPrefixes.limit",
        ),
    ]
}

const PEER_ADDRESS: &str =
    "must be an IP address, or one with a port: 10.0.0.1:1790, [fd00::1]:1790";

fn filters() -> Vec<Row> {
    let rule = |list: &str, rule: Value, message| {
        ("BGPFilter", "every-field", json!({ list: [rule] }), message)
    };
    vec![
        rule(
            "importV4",
            json!({ "action": "Accept", "cidr": "fd00::/8", "matchOperator": "In" }),
            "must be an IPv4 CIDR without host bits",
        ),
        rule(
            "exportV6",
            json!({ "action": "Accept", "cidr": "fd00::1/8", "matchOperator": "In" }),
            "must be an IPv6 CIDR without host bits",
        ),
        rule(
            "exportV4",
            json!({ "action": "Accept", "cidr": "10.0.0.0/8" }),
            "cidr and matchOperator need each other",
        ),
        rule(
            "exportV4",
            json!({ "action": "Accept", "prefixLength": { "min": 8 } }),
            "prefixLength needs cidr",
        ),
        rule(
            "exportV4",
            json!({ "action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In",
                "prefixLength": { "min": 24, "max": 16 } }),
            "max is less than min",
        ),
        rule(
            "exportV4",
            json!({ "action": "Reject", "operations": [{ "setMED": { "value": 1 } }] }),
            "operations may stand only in a rule that accepts",
        ),
        rule(
            "exportV4",
            json!({ "action": "Accept", "operations": [{ "setMED": { "value": 1 }, "setPriority": { "value": 1 } }] }),
            "exactly one of addCommunity, removeCommunity, prependASPath, setPriority, setLocalPreference, setMED",
        ),
        rule(
            "exportV4",
            json!({ "action": "Maybe" }),
            "spec.exportV4[0].action",
        ),
        rule(
            "exportV4",
            json!({ "action": "Accept", "communities": { "values": ["1:2", "3:4"] } }),
            "spec.exportV4[0].communities.values",
        ),
    ]
}

fn endpoints() -> Vec<Row> {
    let host = |patch, message| ("HostEndpoint", "n1-eth0", patch, message);
    let felix = |patch, message| ("FelixConfiguration", "node.n1", patch, message);
    vec![
        host(
            json!({ "expectedIPs": ["10.0.0.0/8"] }),
            "must be an IP address",
        ),
        host(
            json!({ "interfaceName": "", "expectedIPs": [] }),
            "interfaceName is required, or expectedIPs",
        ),
        host(json!({ "node": null }), "spec.node"),
        host(
            json!({ "ports": [{ "name": "x", "protocol": "TCP", "port": 70000 }] }),
            "spec.ports[0].port",
        ),
        felix(
            json!({ "failsafeInboundHostPorts": [{ "port": 22, "net": "10.0.0.1/8" }] }),
            "must be a CIDR without host bits",
        ),
        felix(
            json!({ "failsafeInboundHostPorts": [{ "port": 0 }] }),
            "spec.failsafeInboundHostPorts[0].port",
        ),
        felix(json!({ "vxlanVNI": 16_777_216 }), "spec.vxlanVNI"),
        felix(
            json!({ "wireguardEnabled": "yes" }),
            "spec.wireguardEnabled",
        ),
        (
            "NetworkSet",
            "offices",
            json!({ "nets": ["everywhere"] }),
            "must be an IP address or a CIDR",
        ),
    ]
}

fn rules() -> Vec<Row> {
    let ingress = |rule: Value, message| {
        (
            "NetworkPolicy",
            "every-field",
            json!({ "ingress": [rule] }),
            message,
        )
    };
    let egress = |rule: Value, message| {
        (
            "GlobalNetworkPolicy",
            "every-field",
            json!({ "egress": [rule] }),
            message,
        )
    };
    vec![
        ingress(
            json!({ "action": "Allow", "ipVersion": 5 }),
            "must be 4 or 6",
        ),
        ingress(
            json!({ "action": "Allow", "http": { "methods": ["GET"] } }),
            "http is not supported: to match HTTP takes a proxy",
        ),
        ingress(
            json!({ "action": "Allow", "protocol": "ICMP", "icmp": { "code": 1 } }),
            "code needs a type that it is a code of",
        ),
        ingress(
            json!({ "action": "Allow", "source": { "services": { "name": "a", "namespace": "b" }, "nets": ["10.0.0.0/8"] } }),
            "services may stand beside ports only",
        ),
        ingress(
            json!({ "action": "Allow", "destination": { "ports": [80] } }),
            "ports and notPorts need protocol TCP, UDP or SCTP",
        ),
        ingress(
            json!({ "action": "Allow", "protocol": 1, "source": { "notPorts": ["80:90"] } }),
            "ports and notPorts need protocol TCP, UDP or SCTP",
        ),
        ingress(
            json!({ "action": "Allow", "protocol": "TCP", "icmp": { "type": 8 } }),
            "icmp and notICMP need protocol ICMP or ICMPv6",
        ),
        ingress(
            json!({ "action": "Allow", "protocol": "ICMPv6", "ipVersion": 4 }),
            "ICMP is of IPv4, ICMPv6 is of IPv6",
        ),
        ingress(
            json!({ "action": "Allow", "destination": { "services": { "name": "a" } } }),
            "an ingress rule names services in source",
        ),
        egress(
            json!({ "action": "Allow", "source": { "services": { "name": "a", "namespace": "b" } } }),
            "an egress rule names services in destination",
        ),
        egress(
            json!({ "action": "Allow", "protocol": "TCP",
                "destination": { "services": { "name": "a", "namespace": "b" }, "ports": [80] } }),
            "ports and notPorts may not stand beside services: the Service says the ports",
        ),
        ingress(json!({ "protocol": "TCP" }), "spec.ingress[0].action"),
        ingress(
            json!({ "action": "Allow", "protocol": "TCP", "destination": { "ports": [0] } }),
            "spec.ingress[0].destination.ports[0]",
        ),
        ingress(
            json!({ "action": "Allow", "protocol": "TCP", "destination": { "ports": [65536] } }),
            "spec.ingress[0].destination.ports[0]",
        ),
        ingress(
            json!({ "action": "Allow", "protocol": "TCP", "destination": { "ports": ["80-90!"] } }),
            "spec.ingress[0].destination.ports[0]",
        ),
        ingress(
            json!({ "action": "Allow", "protocol": "IPX" }),
            "spec.ingress[0].protocol",
        ),
        ingress(
            json!({ "action": "Allow", "protocol": 256 }),
            "spec.ingress[0].protocol",
        ),
        ingress(
            json!({ "action": "Allow", "source": { "nets": ["office"] } }),
            "spec.ingress[0].source.nets[0]",
        ),
    ]
}

fn policies() -> Vec<Row> {
    let global = |patch, message| ("GlobalNetworkPolicy", "every-field", patch, message);
    vec![
        global(json!({ "types": ["Egress", "Egress"] }), "is named twice"),
        global(
            json!({ "preDNAT": true }),
            "preDNAT may not stand beside doNotTrack",
        ),
        global(
            json!({ "applyOnForward": false }),
            "applyOnForward must be true with preDNAT or doNotTrack",
        ),
        global(
            json!({ "doNotTrack": false, "preDNAT": true }),
            "preDNAT is for ingress only",
        ),
        global(json!({ "order": "first" }), "spec.order"),
        global(json!({ "tier": "Not.A.Label" }), "spec.tier"),
        (
            "StagedGlobalNetworkPolicy",
            "goes",
            json!({ "selector": "all()" }),
            "stagedAction Delete stands alone, or beside tier",
        ),
        (
            "Tier",
            "security",
            json!({ "defaultAction": "Allow" }),
            "spec.defaultAction",
        ),
    ]
}

fn staged_kubernetes() -> Vec<Row> {
    let ingress = |rule: Value, message| {
        (
            "StagedKubernetesNetworkPolicy",
            "every-field",
            json!({ "ingress": [rule] }),
            message,
        )
    };
    let block = |block: Value, message| ingress(json!({ "from": [{ "ipBlock": block }] }), message);
    let excepted = "what is excepted must be a smaller part of cidr";
    let end = "endPort needs a port that is a number and not greater";
    vec![
        (
            "StagedKubernetesNetworkPolicy",
            "every-field",
            json!({ "stagedAction": "Delete" }),
            "stagedAction Delete stands alone",
        ),
        ingress(
            json!({ "from": [{ "ipBlock": { "cidr": "10.0.0.0/8" }, "podSelector": {} }] }),
            "ipBlock may not stand beside podSelector or namespaceSelector",
        ),
        block(
            json!({ "cidr": "10.0.0.1" }),
            "cidr must be a CIDR such as 10.0.0.0/8",
        ),
        block(
            json!({ "cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"] }),
            excepted,
        ),
        block(
            json!({ "cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"] }),
            excepted,
        ),
        block(json!({ "cidr": "10.0.0.0/8", "except": ["x"] }), excepted),
        ingress(json!({ "ports": [{ "port": 90, "endPort": 80 }] }), end),
        ingress(json!({ "ports": [{ "port": "http", "endPort": 80 }] }), end),
        ingress(json!({ "ports": [{ "endPort": 80 }] }), end),
        ingress(
            json!({ "ports": [{ "port": 65536 }] }),
            "spec.ingress[0].ports[0].port",
        ),
        ingress(
            json!({ "ports": [{ "protocol": "ICMP" }] }),
            "spec.ingress[0].ports[0].protocol",
        ),
    ]
}

/// Objects of which the name matters, and of a kind that has no example with every field.
fn whole() -> Vec<Case> {
    let tier = |name: &str, spec: Value, message| Case {
        document: json!({ "apiVersion": "projectcalico.org/v3", "kind": "Tier",
            "metadata": { "name": name }, "spec": spec }),
        message,
    };
    let order =
        "the order of tiers kube-admin, default and kube-baseline is 1000, 1000000 and 10000000";
    let mut cases = vec![
        tier(
            "a.b",
            json!({}),
            "the name of a tier has at most 63 characters and no dots",
        ),
        tier(
            "kube-admin",
            json!({ "defaultAction": "Deny" }),
            "tiers kube-admin and kube-baseline have defaultAction Pass",
        ),
        tier(
            "default",
            json!({ "defaultAction": "Pass" }),
            "tier default has defaultAction Deny",
        ),
        tier("kube-baseline", json!({ "order": 7 }), order),
        // The example without a blockSize is in the cluster.
        Case {
            document: json!({ "apiVersion": "projectcalico.org/v3", "kind": "IPPool",
                "metadata": { "name": "services" },
                "spec": { "cidr": "192.0.2.0/24", "blockSize": 28 } }),
            message: "blockSize can't be changed: blocks of the default size are in use",
        },
    ];
    cases.extend(cluster_policies());
    cases
}

fn cluster_policies() -> Vec<Case> {
    let policy = |name: &str, spec: Value, message| Case {
        document: json!({ "apiVersion": "policy.networking.k8s.io/v1alpha2",
            "kind": "ClusterNetworkPolicy", "metadata": { "name": name }, "spec": spec }),
        message,
    };
    let with = |direction: &str, rule: Value| json!({ "tier": "Admin", "priority": 1, "subject": { "namespaces": {} }, direction: [rule] });
    let port = |port: Value| {
        with(
            "ingress",
            json!({ "action": "Accept", "from": [{ "namespaces": {} }],
                "protocols": [{ "tcp": { "destinationPort": port } }] }),
        )
    };
    let one = "must have one field only";
    vec![
        policy(
            "bad-subject",
            json!({ "tier": "Admin", "priority": 1,
                "subject": { "namespaces": {}, "pods": { "podSelector": {} } } }),
            "pods may not stand beside namespaces",
        ),
        policy(
            "bad-from",
            with(
                "ingress",
                json!({ "action": "Accept",
                "from": [{ "namespaces": {}, "pods": { "podSelector": {} } }] }),
            ),
            one,
        ),
        policy(
            "bad-to",
            with(
                "egress",
                json!({ "action": "Accept", "to": [{ "namespaces": {}, "networks": ["10.0.0.0/8"] }] }),
            ),
            one,
        ),
        policy(
            "bad-protocol",
            with(
                "egress",
                json!({ "action": "Accept", "to": [{ "namespaces": {} }],
                "protocols": [{ "tcp": {}, "udp": {} }] }),
            ),
            one,
        ),
        policy(
            "bad-network",
            with(
                "egress",
                json!({ "action": "Accept", "to": [{ "networks": ["10.0.0.1"] }] }),
            ),
            "must be a CIDR such as 10.0.0.0/8",
        ),
        policy(
            "bad-domain",
            with(
                "egress",
                json!({ "action": "Deny", "to": [{ "domainNames": ["www.example.org"] }] }),
            ),
            "domainNames may stand only in a rule that accepts",
        ),
        policy(
            "bad-named-port",
            with(
                "egress",
                json!({ "action": "Accept", "to": [{ "networks": ["10.0.0.0/8"] }],
                "protocols": [{ "destinationNamedPort": "http" }] }),
            ),
            "a destinationNamedPort may not stand beside networks, nodes or domainNames",
        ),
        policy(
            "bad-range",
            port(json!({ "range": { "start": 90, "end": 80 } })),
            "end must be greater than start",
        ),
        policy(
            "bad-port",
            port(json!({ "number": 80, "range": { "start": 80, "end": 90 } })),
            "range may not stand beside number",
        ),
    ]
}
