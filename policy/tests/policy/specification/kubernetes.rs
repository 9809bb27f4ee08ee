//! `networking.k8s.io/v1` `NetworkPolicy`.

use super::{cluster, flow, named_network_policy, network_policy, row};
use serde_json::{Value, json};

const EVERYTHING: [&str; 5] = [
    "y/b x/a tcp/80",
    "y/b x/a udp/53",
    "y/b x/a sctp/3868",
    "y/b x/a icmp/8",
    "192.0.2.99 x/a 47",
];

fn ingress(rules: Value) -> Value {
    let selector = json!({ "matchLabels": { "pod": "a" } });
    network_policy(json!({ "podSelector": selector, "ingress": rules }))
}

fn egress(rules: Value) -> Value {
    let selector = json!({ "matchLabels": { "pod": "a" } });
    let types = json!(["Egress"]);
    network_policy(json!({ "podSelector": selector, "policyTypes": types, "egress": rules }))
}

fn pod(name: &str) -> Value {
    json!({ "matchLabels": { "pod": name } })
}

fn namespace(name: &str) -> Value {
    json!({ "matchLabels": { "ns": name } })
}

#[test]
fn isolation_and_combination() {
    let deny = |name: &str, types: Value| {
        named_network_policy(
            name,
            json!({ "podSelector": pod("a"), "policyTypes": types }),
        )
    };
    row(
        "isolation is per direction",
        &[deny("p", json!(["Ingress"]))],
        &["x/a y/b tcp/80", "y/b x/b tcp/80"],
        &["y/b x/a tcp/80"],
    );
    row(
        "a policy of another namespace does not isolate",
        &[deny("p", json!(["Ingress", "Egress"]))],
        &["x/b y/a tcp/80", "y/a z/a tcp/80"],
        &["x/a y/a tcp/80"],
    );
    let from = |name: &str, peer: &str| {
        let rules = json!([{ "from": [{ "podSelector": pod(peer) }] }]);
        named_network_policy(name, json!({ "podSelector": pod("a"), "ingress": rules }))
    };
    row(
        "policies add up, whatever their order",
        &[
            from("p", "b"),
            from("q", "c"),
            deny("a", json!(["Ingress"])),
        ],
        &["x/b x/a tcp/80", "x/c x/a tcp/80"],
        &["y/b x/a tcp/80"],
    );
    row(
        "a connection needs the egress of its source and the ingress of its destination",
        &[
            from("p", "b"),
            named_network_policy(
                "q",
                json!({ "podSelector": pod("b"), "policyTypes": ["Egress"] }),
            ),
        ],
        &["x/a x/b tcp/80"],
        &["x/b x/a tcp/80", "x/c x/a tcp/80"],
    );
    row(
        "podSelector {} is all pods of the namespace",
        &[network_policy(
            json!({ "podSelector": {}, "policyTypes": ["Ingress"] }),
        )],
        &["x/a y/a tcp/80"],
        &["y/a x/a tcp/80", "y/a x/c tcp/80"],
    );
}

#[test]
fn policy_types_and_their_default() {
    let both = ["x/a y/b tcp/80", "y/b x/a tcp/80"];
    let types = |spec: Value| network_policy(spec);
    row(
        "absent, without egress: ingress only",
        &[types(json!({ "podSelector": pod("a") }))],
        &both[..1],
        &both[1..],
    );
    row(
        "absent, with an empty egress: ingress only",
        &[types(json!({ "podSelector": pod("a"), "egress": [] }))],
        &both[..1],
        &both[1..],
    );
    row(
        "absent, with egress: both",
        &[types(
            json!({ "podSelector": pod("a"), "egress": [{ "ports": [{ "port": 1 }] }] }),
        )],
        &[],
        &both,
    );
    row(
        "Egress only: rules for ingress do nothing",
        &[types(
            json!({ "podSelector": pod("a"), "policyTypes": ["Egress"], "ingress": [] }),
        )],
        &both[1..],
        &both[..1],
    );
}

#[test]
fn rules_without_peers_or_ports() {
    row(
        "ingress: nil denies all",
        &[ingress(Value::Null)],
        &[],
        &EVERYTHING,
    );
    row(
        "ingress: [] denies all",
        &[ingress(json!([]))],
        &[],
        &EVERYTHING,
    );
    row(
        "rule {} allows all, of any protocol",
        &[ingress(json!([{}]))],
        &EVERYTHING,
        &[],
    );
    row(
        "from: [] is anybody",
        &[ingress(json!([{ "from": [] }]))],
        &EVERYTHING,
        &[],
    );
    row(
        "ports: [] is any port of any protocol",
        &[ingress(
            json!([{ "from": [{ "namespaceSelector": {} }], "ports": [] }]),
        )],
        &EVERYTHING[..4],
        &EVERYTHING[4..],
    );
    row(
        "to missing is anybody, nodes and the world too",
        &[egress(json!([{ "ports": [{ "port": 80 }] }]))],
        &[
            "x/a y/b tcp/80",
            "x/a 198.51.100.7 tcp/80",
            "x/a 192.0.2.12 tcp/80",
        ],
        &["x/a y/b tcp/81", "x/a y/b icmp/8"],
    );
}

#[test]
fn ports() {
    let ports = |ports: Value| ingress(json!([{ "ports": ports }]));
    row(
        "protocol nil is TCP",
        &[ports(json!([{ "port": 80 }]))],
        &["y/b x/a tcp/80"],
        &["y/b x/a udp/80", "y/b x/a sctp/80"],
    );
    row(
        "port nil is every port of the protocol; a policy of UDP only isolates from TCP",
        &[ports(json!([{ "protocol": "UDP" }]))],
        &["y/b x/a udp/1", "y/b x/a udp/65535"],
        &["y/b x/a tcp/80", "y/b x/a icmp/8"],
    );
    row(
        "endPort is included",
        &[ports(json!([{ "port": 80, "endPort": 82 }]))],
        &["y/b x/a tcp/80", "y/b x/a tcp/81", "y/b x/a tcp/82"],
        &["y/b x/a tcp/79", "y/b x/a tcp/83", "y/b x/a udp/81"],
    );
    row(
        "SCTP is not TCP",
        &[ports(json!([{ "protocol": "SCTP", "port": 80 }]))],
        &["y/b x/a sctp/80"],
        &["y/b x/a tcp/80"],
    );
    row(
        "a named port has a protocol too",
        &[ports(
            json!([{ "port": "web" }, { "port": "dns", "protocol": "TCP" }]),
        )],
        &["y/b x/a tcp/80"],
        &["y/b x/a udp/53", "y/b x/a tcp/53", "y/b x/a udp/80"],
    );
    row(
        "an unresolvable named port matches nothing and the policy still isolates",
        &[ports(json!([{ "port": "nowhere" }]))],
        &[],
        &EVERYTHING,
    );
    let named = json!([{ "port": "web" }]);
    row(
        "a named port of ingress is the target's own: two pods, two numbers",
        &[network_policy(
            json!({ "podSelector": {}, "ingress": [{ "ports": named }] }),
        )],
        &["y/b x/a tcp/80", "y/b x/c tcp/81"],
        &["y/b x/a tcp/81", "y/b x/c tcp/80"],
    );
    row(
        "a named port of egress is the peer's",
        &[egress(
            json!([{ "to": [{ "namespaceSelector": {} }], "ports": named }]),
        )],
        &["x/a y/b tcp/80", "x/a y/c tcp/81"],
        &[
            "x/a y/b tcp/81",
            "x/a y/c tcp/80",
            "x/a 198.51.100.7 tcp/80",
        ],
    );
    row(
        "a named port never matches an ipBlock",
        &[egress(
            json!([{ "to": [{ "ipBlock": { "cidr": "0.0.0.0/0" } }], "ports": named }]),
        )],
        &[],
        &["x/a y/b tcp/80", "x/a 198.51.100.7 tcp/80"],
    );
}

#[test]
fn peers() {
    let from = |peers: Value| ingress(json!([{ "from": peers }]));
    row(
        "podSelector is of the policy's own namespace",
        &[from(json!([{ "podSelector": {} }]))],
        &["x/b x/a tcp/80", "x/c x/a tcp/80"],
        &["y/b x/a tcp/80", "192.0.2.99 x/a tcp/80"],
    );
    row(
        "namespaceSelector {} is every pod, and nobody else",
        &[from(json!([{ "namespaceSelector": {} }]))],
        &["x/b x/a tcp/80", "z/c x/a tcp/80"],
        &["192.0.2.99 x/a tcp/80", "192.0.2.12 x/a tcp/80"],
    );
    row(
        "both selectors of one peer are AND",
        &[from(
            json!([{ "namespaceSelector": namespace("y"), "podSelector": pod("b") }]),
        )],
        &["y/b x/a tcp/80"],
        &["y/c x/a tcp/80", "x/b x/a tcp/80"],
    );
    row(
        "two peers are OR",
        &[from(
            json!([{ "namespaceSelector": namespace("y") }, { "podSelector": pod("b") }]),
        )],
        &["y/a x/a tcp/80", "y/b x/a tcp/80", "x/b x/a tcp/80"],
        &["x/c x/a tcp/80", "z/b x/a tcp/80"],
    );
    let by_name = json!({ "matchLabels": { "kubernetes.io/metadata.name": "y" } });
    row(
        "namespaces have their name as a label",
        &[from(json!([{ "namespaceSelector": by_name }]))],
        &["y/b x/a tcp/80"],
        &["x/b x/a tcp/80"],
    );
    let expressions = json!({ "matchExpressions": [
        { "key": "pod", "operator": "NotIn", "values": ["b"] },
        { "key": "absent", "operator": "DoesNotExist" },
    ] });
    row(
        "expressions are AND",
        &[from(json!([{ "podSelector": expressions }]))],
        &["x/c x/a tcp/80"],
        &["x/b x/a tcp/80"],
    );
    row(
        "selectors are of both families",
        &[from(json!([{ "podSelector": pod("b") }]))],
        &["x/b x/a tcp/80", "x/b x/a tcp/80 v6"],
        &["x/c x/a tcp/80 v6"],
    );
}

#[test]
fn address_blocks() {
    let block =
        |cidr: &str, except: Value| json!({ "ipBlock": { "cidr": cidr, "except": except } });
    let from = |peers: Value| ingress(json!([{ "from": peers }]));
    row(
        "a block matches pods by their addresses",
        &[from(json!([block("10.0.1.0/24", json!([]))]))],
        &["y/a x/a tcp/80", "y/b x/a icmp/8"],
        &["x/b x/a tcp/80", "z/a x/a tcp/80"],
    );
    row(
        "host bits are masked",
        &[from(json!([block("10.0.1.2/24", json!([]))]))],
        &["y/a x/a tcp/80"],
        &["z/a x/a tcp/80"],
    );
    row(
        "except takes away",
        &[from(json!([block("10.0.0.0/8", json!(["10.0.1.0/24"]))]))],
        &["z/b x/a tcp/80", "10.9.9.9 x/a tcp/80"],
        &["y/b x/a tcp/80", "192.0.2.99 x/a tcp/80"],
    );
    row(
        "except takes away from its own peer only",
        &[from(json!([
            block("10.0.0.0/8", json!(["10.0.1.0/24"])),
            { "namespaceSelector": namespace("y"), "podSelector": pod("b") },
        ]))],
        &["y/b x/a tcp/80", "z/b x/a tcp/80"],
        &["y/c x/a tcp/80"],
    );
    row(
        "except of one policy does not take from another",
        &[
            from(json!([block("0.0.0.0/0", json!(["10.0.0.0/8"]))])),
            named_network_policy(
                "q",
                json!({ "podSelector": {}, "ingress": [{ "ports": [{ "port": 53, "protocol": "UDP" }] }] }),
            ),
        ],
        &["y/b x/a udp/53", "192.0.2.99 x/a tcp/80"],
        &["y/b x/a tcp/80"],
    );
    row(
        "0.0.0.0/0 is IPv4 only",
        &[from(json!([block("0.0.0.0/0", json!([]))]))],
        &["y/b x/a tcp/80", "192.0.2.99 x/a tcp/80"],
        &["y/b x/a tcp/80 v6", "2001:db8::1 x/a tcp/80 v6"],
    );
    row(
        "::/0 is IPv6 only",
        &[from(json!([block("::/0", json!(["fd00:0:0:1::/64"]))]))],
        &["2001:db8::1 x/a tcp/80 v6", "z/b x/a tcp/80 v6"],
        &["y/b x/a tcp/80 v6", "y/b x/a tcp/80"],
    );
}

#[test]
fn what_can_not_be_read_isolates_and_allows_nothing() {
    let bad_peers = [
        json!({}),
        json!({ "ipBlock": { "cidr": "10.0.0.1/33" } }),
        json!({ "ipBlock": { "cidr": "10.0.0.0/8" }, "podSelector": {} }),
        json!({ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["192.0.2.0/24"] } }),
        json!({ "podSelector": { "matchExpressions": [{ "key": "a", "operator": "Near" }] } }),
    ];
    for peer in bad_peers {
        let name = format!("peer {peer}");
        row(
            &name,
            &[ingress(json!([{ "from": [peer] }]))],
            &[],
            &EVERYTHING,
        );
    }
    let bad_ports = [
        json!({ "port": 0 }),
        json!({ "port": 65536 }),
        json!({ "port": 80, "endPort": 79 }),
        json!({ "port": "web", "endPort": 90 }),
        json!({ "endPort": 90 }),
        json!({ "port": 80, "protocol": "ICMP" }),
    ];
    for port in bad_ports {
        let name = format!("port {port}");
        row(
            &name,
            &[ingress(json!([{ "ports": [port] }]))],
            &[],
            &EVERYTHING,
        );
    }
}

#[test]
fn of_two_pods_with_one_address_a_peer_is_either_and_both_have_to_allow() {
    let policy = ingress(json!([{ "from": [{ "podSelector": pod("b") }] }]));
    let mut evaluator = cluster(&[policy]);
    let (id, again) = super::pod(0, 2);
    let ips = super::pod_address(0, 1).into();
    evaluator.set_endpoint(&id, Some(policy::Endpoint { ips, ..again }));
    assert!(evaluator.verdict(&flow("10.0.0.2 x/a tcp/80")).allowed);
    let (id, again) = super::pod(1, 0);
    let ips = super::pod_address(0, 0).into();
    evaluator.set_endpoint(&id, Some(policy::Endpoint { ips, ..again }));
    assert!(!evaluator.verdict(&flow("z/b 10.0.0.1 tcp/80")).allowed);
}
