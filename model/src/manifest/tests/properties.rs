use super::clean;
use crate::Labels;
use crate::manifest::{Parsed, block_allocations, block_with, parse, to_manifest};
use crate::object::{HostPort, IpamBlock, NamedPort, Node, Object, Protocol, WorkloadEndpoint};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9]([-a-z0-9]{0,10}[a-z0-9])?"
}

fn labels() -> impl Strategy<Value = Labels> {
    btree_map("[a-z./]{1,12}", any::<String>(), 0..4).prop_map(Labels::from)
}

fn port() -> impl Strategy<Value = NamedPort> {
    let protocol = select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    ("[a-z]{1,8}", protocol, 1..=u16::MAX).prop_map(|(name, protocol, port)| NamedPort {
        name,
        protocol,
        port,
    })
}

fn host_port() -> impl Strategy<Value = HostPort> {
    let numbers = (1..=u16::MAX, 1..=u16::MAX, option::of(any::<IpAddr>()));
    (port(), numbers).prop_map(|(named, (host_port, port, host_ip))| HostPort {
        host_ip,
        host_port,
        protocol: named.protocol,
        port,
    })
}

fn endpoint() -> impl Strategy<Value = Object> {
    let names = (name(), name(), name(), name());
    let runtime = (
        option::of(any::<String>()),
        any::<String>(),
        any::<[u8; 6]>(),
    );
    let addresses = vec(any::<IpAddr>().prop_map(IpNet::from), 0..3);
    let all_ports = (vec(port(), 0..3), vec(host_port(), 0..3));
    (names, runtime, addresses, labels(), all_ports).prop_map(
        |(
            (namespace, name, node, pod),
            (pod_uid, container_id, mac),
            ip_networks,
            labels,
            (ports, host_ports),
        )| {
            Object::WorkloadEndpoint(Box::new(WorkloadEndpoint {
                namespace: namespace.into(),
                name: name.into(),
                node: node.into(),
                pod: pod.into(),
                pod_uid: pod_uid.map(Into::into),
                container_id: container_id.into(),
                endpoint: "eth0".into(),
                interface_name: "oci0".into(),
                mac,
                ip_networks,
                labels,
                ports: ports.into(),
                host_ports,
            }))
        },
    )
}

fn node() -> impl Strategy<Value = Object> {
    let v4 = (1_u32..0xe000_0000, 0_u8..=32)
        .prop_map(|(bits, length)| Ipv4Net::new(Ipv4Addr::from(bits), length).expect("in range"));
    let v6 = (1_u128..1 << 126, 0_u8..=128)
        .prop_map(|(bits, length)| Ipv6Net::new(Ipv6Addr::from(bits), length).expect("in range"));
    let numbers = (option::of(1..=u32::MAX), option::of(any::<Ipv4Addr>()));
    let listed = btree_set(
        (1_u32..0xe000_0000).prop_map(|bits| Ipv4Addr::from(bits).into()),
        0..3,
    );
    let addresses = (option::of(v4), option::of(v6), listed);
    (name(), labels(), addresses, numbers).prop_map(
        |(
            name,
            labels,
            (ipv4_address, ipv6_address, addresses),
            (as_number, route_reflector_cluster_id),
        )| {
            Object::Node(Node {
                name,
                labels,
                ipv4_address,
                ipv6_address,
                addresses,
                as_number,
                route_reflector_cluster_id,
            })
        },
    )
}

/// Blocks of the sizes that pools have, in prefixes that pools can be in.
fn block() -> impl Strategy<Value = Object> {
    let v4 = (any::<Ipv4Addr>(), 20_u8..=32)
        .prop_map(|(a, length)| IpNet::V4(Ipv4Net::new(a, length).expect("in range").trunc()));
    let v6 = (1_u128 << 125..1 << 127, 116_u8..=128).prop_map(|(bits, length)| {
        IpNet::V6(
            Ipv6Net::new(Ipv6Addr::from(bits), length)
                .expect("in range")
                .trunc(),
        )
    });
    (prop_oneof![v4, v6], name())
        .prop_map(|(cidr, node)| Object::IpamBlock(IpamBlock { cidr, node }))
}

/// Field names and values that lead deep into the readers.
pub(super) fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        select(vec![
            "10.0.0.0/8",
            "fd00::/64",
            "10.0.0.1:1",
            "[::1]:1",
            "Ingress",
            "TCP",
            "1.1",
            "host:n",
            "a",
            "In",
            "1h",
            "a == 'b'",
            "Always",
            "",
        ])
        .prop_map(Value::from),
        (0_i64..70000).prop_map(Value::from),
    ];
    let field = select(vec![
        "name",
        "namespace",
        "labels",
        "podSelector",
        "policyTypes",
        "ingress",
        "egress",
        "from",
        "to",
        "ports",
        "port",
        "endPort",
        "protocol",
        "ipBlock",
        "cidr",
        "except",
        "matchLabels",
        "matchExpressions",
        "key",
        "operator",
        "values",
        "namespaceSelector",
        "peerIP",
        "asNumber",
        "nodeSelector",
        "bgp",
        "ipv4Address",
        "containers",
        "annotations",
        "addresses",
        "mac",
        "ipNetworks",
        "affinity",
        "blockSize",
        "spec",
        "status",
        "x",
    ]);
    leaf.prop_recursive(6, 64, 5, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(field.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn kind() -> impl Strategy<Value = (&'static str, &'static str)> {
    select(vec![
        ("v1", "Namespace"),
        ("v1", "Pod"),
        ("v1", "Node"),
        ("v1", "Service"),
        ("v1", "ServiceAccount"),
        ("discovery.k8s.io/v1", "EndpointSlice"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy"),
        ("projectcalico.org/v3", "BGPFilter"),
        ("projectcalico.org/v3", "FelixConfiguration"),
        ("projectcalico.org/v3", "Tier"),
        ("projectcalico.org/v3", "NetworkPolicy"),
        ("projectcalico.org/v3", "GlobalNetworkPolicy"),
        ("projectcalico.org/v3", "StagedNetworkPolicy"),
        ("projectcalico.org/v3", "StagedGlobalNetworkPolicy"),
        ("projectcalico.org/v3", "StagedKubernetesNetworkPolicy"),
        ("projectcalico.org/v3", "NetworkSet"),
        ("projectcalico.org/v3", "GlobalNetworkSet"),
        ("projectcalico.org/v3", "HostEndpoint"),
        ("projectcalico.org/v3", "Profile"),
        ("projectcalico.org/v3", "IPPool"),
        ("projectcalico.org/v3", "BGPConfiguration"),
        ("projectcalico.org/v3", "BGPPeer"),
        ("projectcalico.org/v3", "Node"),
        ("projectcalico.org/v3", "WorkloadEndpoint"),
        ("projectcalico.org/v3", "IPAMBlock"),
        ("projectcalico.org/v3", "IPReservation"),
    ])
}

proptest! {
    #[test]
    fn what_agents_write_is_read_back_equal_and_without_a_warning(
        object in prop_oneof![endpoint(), node(), block()],
    ) {
        let document = to_manifest(&object).expect("a kind that agents write");
        prop_assert_eq!(clean(&document), object);
    }

    #[test]
    fn whatever_a_block_says_is_held_each_address_is_held_or_free_once_and_reads_back(
        lists in prop::collection::vec(prop::collection::vec(0..9_u8, 0..9), 2),
        holders in 0..4_usize,
    ) {
        let block = IpamBlock { cidr: "10.0.0.0/29".parse().unwrap(), node: "n1".into() };
        let places = lists[0].iter().map(|n| if *n > 5 { Value::Null } else { (*n).into() });
        let spec = json!({
            "allocations": places.collect::<Value>(),
            "unallocated": lists[1],
            "attributes": (0..holders).map(|n| json!({ "handle_id": n.to_string() })).collect::<Value>(),
        });
        if let Some(held) = block_allocations(&block, &json!({ "spec": spec })) {
            let mut all: Vec<u32> = held.held.keys().chain(&held.free).copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..8).collect::<Vec<_>>());
            prop_assert_eq!(block_allocations(&block, &block_with(&block, &held)), Some(held));
        }
    }

    #[test]
    fn arbitrary_json_never_panics(document in json_value()) {
        let _ = parse(&document);
    }

    #[test]
    fn an_arbitrary_spec_of_a_known_kind_is_valid_or_names_the_object_and_the_field(
        (version, kind) in kind(),
        spec in json_value(),
        rest in json_value(),
    ) {
        let document = json!({ "apiVersion": version, "kind": kind, "spec": spec, "status": rest,
            "metadata": { "name": "x", "labels": rest, "annotations": rest } });
        match parse(&document) {
            Ok(Parsed::Valid { object, .. }) => prop_assert_eq!(object.key().kind.as_str(), kind),
            Ok(Parsed::Invalid { invalid, fallback }) => {
                prop_assert!(!invalid.field.is_empty());
                prop_assert_eq!(invalid.object.kind.as_str(), kind);
                // Policies of a namespace always fail closed; global ones where they say for whom.
                prop_assert!(fallback.is_some() || kind != "NetworkPolicy");
                let enforced = ["NetworkPolicy", "GlobalNetworkPolicy", "ClusterNetworkPolicy", "BGPFilter"];
                prop_assert!(fallback.is_none() || enforced.contains(&kind));
                prop_assert!(fallback.is_none_or(|object| object.key() == invalid.object));
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
