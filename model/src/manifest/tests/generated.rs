//! Documents of every kind of policy and of BGP, mostly valid, and the same with one value replaced.

use super::properties::json_value;
use crate::manifest::{Parsed, parse, to_manifest};
use crate::object::Object;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;
use serde_json::{Map, Value, json};

type Json = BoxedStrategy<Value>;

/// One of these values.
fn one<T: Into<Value> + Clone + std::fmt::Debug + 'static>(values: Vec<T>) -> Json {
    select(values).prop_map(Into::into).boxed()
}

fn list(item: Json, most: usize) -> Json {
    vec(item, 0..=most).prop_map(Value::from).boxed()
}

/// A mapping with some of these fields.
fn some(fields: Vec<(&'static str, Json)>) -> Json {
    let fields: Vec<_> = fields
        .into_iter()
        .map(|(name, value)| (Just(name), proptest::option::of(value)))
        .collect();
    fields
        .prop_map(|fields| {
            let stated = fields
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?)));
            Value::Object(stated.collect::<Map<_, _>>())
        })
        .boxed()
}

/// A mapping with all of these fields and some of the others.
fn with(needed: Vec<(&'static str, Json)>, others: Json) -> Json {
    let needed: Vec<_> = needed
        .into_iter()
        .map(|(name, value)| (Just(name), value))
        .collect();
    (needed, others)
        .prop_map(|(needed, mut others)| {
            for (name, value) in needed {
                others[name] = value;
            }
            others
        })
        .boxed()
}

fn nets() -> Json {
    list(
        one(vec!["10.0.0.0/8", "10.1.2.3", "10.0.0.0/24", "0.0.0.0/0"]),
        3,
    )
}

fn selector() -> Json {
    let texts = vec![
        "",
        "all()",
        "a == 'b'",
        "a != 'b' && has(c)",
        "a in {'b', 'c'} || !(b not in {'x'})",
        "a starts with 'b'",
        "!has(c)",
    ];
    one(texts)
}

fn ports() -> Json {
    let port = Union::new([
        one(vec![1, 80, 65535]),
        one(vec!["80", "1:65535", "http", "7:7"]),
    ]);
    list(port.boxed(), 3)
}

fn entity() -> Json {
    let accounts = some(vec![
        ("names", list(one(vec!["till", "db"]), 2)),
        ("selector", selector()),
    ]);
    some(vec![
        ("nets", nets()),
        ("notNets", nets()),
        ("selector", selector()),
        ("notSelector", selector()),
        (
            "namespaceSelector",
            one(vec!["", "global()", "all()", "a == 'b'"]),
        ),
        ("serviceAccounts", accounts),
        ("ports", ports()),
        ("notPorts", ports()),
    ])
}

fn calico_rule() -> Json {
    let tcp = with(
        vec![
            ("action", one(vec!["Allow", "Deny", "Log", "Pass"])),
            ("protocol", one(vec!["TCP", "UDP", "SCTP"])),
        ],
        some(vec![
            ("ipVersion", Just(json!(4)).boxed()),
            ("source", entity()),
            ("destination", entity()),
            ("metadata", Just(json!({ "annotations": {} })).boxed()),
        ]),
    );
    let icmp = || {
        let both = some(vec![
            ("type", one(vec![0, 8, 254])),
            ("code", one(vec![0, 255])),
        ]);
        both.prop_map(|mut icmp| {
            if icmp.get("type").is_none() {
                icmp = json!({});
            }
            icmp
        })
        .boxed()
    };
    let ping = with(
        vec![
            ("action", one(vec!["Allow", "Deny"])),
            ("protocol", Just(json!("ICMP")).boxed()),
        ],
        some(vec![
            ("icmp", icmp()),
            ("notICMP", icmp()),
            ("notProtocol", one(vec!["UDPLite", "ICMP"])),
        ]),
    );
    let any = some(vec![("protocol", one(vec![1, 6, 47, 255]))]);
    Union::new([tcp, ping, with(vec![("action", one(vec!["Allow"]))], any)]).boxed()
}

fn calico_policy() -> Json {
    some(vec![
        ("tier", one(vec!["default", "security", ""])),
        ("order", one(vec![0.0, -1.5, 1e6])),
        ("selector", selector()),
        ("namespaceSelector", selector()),
        ("serviceAccountSelector", selector()),
        (
            "types",
            one(vec![
                json!([]),
                json!(["Ingress"]),
                json!(["Egress", "Ingress"]),
            ]),
        ),
        ("ingress", list(calico_rule(), 3)),
        ("egress", list(calico_rule(), 3)),
        ("stagedAction", one(vec!["Set", "Learn", "Ignore"])),
        (
            "applyOnForward",
            any::<bool>().prop_map(Value::from).boxed(),
        ),
    ])
}

fn label_selector() -> Json {
    let expressions = vec![
        json!({ "key": "a", "operator": "In", "values": ["b", "c"] }),
        json!({ "key": "a", "operator": "NotIn", "values": ["b"] }),
        json!({ "key": "a", "operator": "Exists" }),
        json!({ "key": "a", "operator": "DoesNotExist" }),
    ];
    some(vec![
        (
            "matchLabels",
            one(vec![
                json!({}),
                json!({ "a": "b" }),
                json!({ "a": "b", "c": "" }),
            ]),
        ),
        ("matchExpressions", list(one(expressions), 2)),
    ])
}

fn network_policy() -> Json {
    let block = with(
        vec![("cidr", one(vec!["10.0.0.0/8", "10.0.0.0/9"]))],
        some(vec![(
            "except",
            list(one(vec!["10.1.0.0/16", "10.2.3.0/24"]), 2),
        )]),
    );
    let peer = Union::new([
        block.prop_map(|block| json!({ "ipBlock": block })).boxed(),
        with(
            vec![("podSelector", label_selector())],
            some(vec![("namespaceSelector", label_selector())]),
        ),
    ]);
    let peers = || list(peer.clone().boxed(), 2);
    let port = Union::new([
        some(vec![
            ("protocol", one(vec!["TCP", "SCTP"])),
            ("port", one(vec![1, 80])),
        ]),
        with(
            vec![("port", one(vec![80])), ("endPort", one(vec![80, 90]))],
            some(vec![("protocol", one(vec!["UDP"]))]),
        ),
        some(vec![("port", one(vec!["http"]))]),
    ]);
    let ports = || list(port.clone().boxed(), 2);
    some(vec![
        ("podSelector", label_selector()),
        (
            "policyTypes",
            one(vec![
                json!([]),
                json!(["Egress"]),
                json!(["Ingress", "Egress"]),
            ]),
        ),
        (
            "ingress",
            list(some(vec![("from", peers()), ("ports", ports())]), 2),
        ),
        (
            "egress",
            list(some(vec![("to", peers()), ("ports", ports())]), 2),
        ),
    ])
}

fn cluster_policy() -> Json {
    let pods = || {
        let pods = with(
            vec![("podSelector", label_selector())],
            some(vec![("namespaceSelector", label_selector())]),
        );
        Union::new([
            pods.prop_map(|pods| json!({ "pods": pods })).boxed(),
            label_selector()
                .prop_map(|namespaces| json!({ "namespaces": namespaces }))
                .boxed(),
        ])
        .boxed()
    };
    let port = one(vec![
        json!({ "number": 80 }),
        json!({ "range": { "start": 1, "end": 9 } }),
    ]);
    let protocol = (select(vec!["tcp", "udp", "sctp"]), port)
        .prop_map(|(name, port)| json!({ name: { "destinationPort": port } }));
    let outside = one(vec![
        json!({ "networks": ["10.0.0.0/8", "fd00::/8"] }),
        json!({ "nodes": {} }),
        json!({ "nodes": { "matchLabels": { "a": "b" } } }),
        json!({}),
        json!({ "later": 1 }),
    ]);
    let rule = move |list_name, peers: Json| {
        with(
            vec![
                ("action", one(vec!["Accept", "Deny", "Pass"])),
                (list_name, vec(peers, 1..3).prop_map(Value::from).boxed()),
            ],
            some(vec![
                ("name", one(vec!["", "rule"])),
                (
                    "protocols",
                    vec(protocol.clone(), 1..3).prop_map(Value::from).boxed(),
                ),
            ]),
        )
    };
    let to = Union::new([pods(), pods(), outside]).boxed();
    with(
        vec![
            ("tier", one(vec!["Admin", "Baseline"])),
            ("priority", one(vec![0, 1000])),
            ("subject", pods()),
        ],
        some(vec![
            ("ingress", list(rule("from", pods()), 3)),
            ("egress", list(rule("to", to), 3)),
        ]),
    )
}

fn filter() -> Json {
    let operations = one(vec![
        json!([{ "addCommunity": { "value": "1:2" } }]),
        json!([{ "prependASPath": { "prefix": [1, "1.1"] } }, { "setMED": { "value": 7 } }]),
        json!([{ "removeCommunity": { "value": "1:2:3" } }, { "setPriority": { "value": 1 } }]),
        json!([{ "setLocalPreference": { "value": 0 } }]),
    ]);
    let matches = || {
        vec![
            ("source", Just(json!("RemotePeers")).boxed()),
            ("interface", one(vec!["eth0", "eth*", ""])),
            ("peerType", one(vec!["eBGP", "iBGP"])),
            ("communities", one(vec![json!({ "values": ["1:2"] })])),
            ("asPathPrefix", list(one(vec![1, 65001]), 2)),
            ("priority", one(vec![1, 1024])),
            ("later", one(vec![1])),
        ]
    };
    let prefix = |cidr: &'static str, most: i32| {
        let lengths = some(vec![("min", one(vec![0, 8])), ("max", one(vec![24, most]))]);
        with(
            vec![
                ("action", one(vec!["Accept", "Reject"])),
                ("cidr", Just(json!(cidr)).boxed()),
                (
                    "matchOperator",
                    one(vec!["Equal", "NotEqual", "In", "NotIn"]),
                ),
            ],
            some([matches(), vec![("prefixLength", lengths)]].concat()),
        )
    };
    let accepts = with(
        vec![("action", one(vec!["Accept"]))],
        some([matches(), vec![("operations", operations)]].concat()),
    );
    let rules = |cidr, most| {
        let rule = Union::new([accepts.clone(), prefix(cidr, most)]).boxed();
        list(rule, 3)
    };
    some(vec![
        ("exportV4", rules("10.0.0.0/8", 32)),
        ("importV4", rules("10.0.0.0/8", 32)),
        ("exportV6", rules("fd00::/8", 128)),
        ("importV6", rules("fd00::/8", 128)),
    ])
}

fn peer() -> Json {
    let bool = || any::<bool>().prop_map(Value::from).boxed();
    let ocicat = some(vec![
        ("passive", bool()),
        ("bindInterface", one(vec!["eth0"])),
        ("holdTime", one(vec!["90s"])),
        (
            "bfd",
            one(vec![
                json!({}),
                json!({ "minInterval": "50ms", "multiplier": 5 }),
            ]),
        ),
        (
            "maxPrefixes",
            one(vec![
                json!({ "limit": 1 }),
                json!({ "limit": 9, "restartAfter": "1m" }),
            ]),
        ),
        (
            "role",
            one(vec![
                "Provider",
                "Customer",
                "Peer",
                "RouteServer",
                "RouteServerClient",
            ]),
        ),
        ("addPath", one(vec!["None", "Receive", "Send", "Both"])),
        ("gracefulShutdown", bool()),
        ("shutdown", one(vec!["", "swap"])),
    ]);
    let common = move || {
        some(vec![
            ("nodeSelector", selector()),
            ("localASNumber", one(vec![1])),
            ("nextHopMode", one(vec!["Auto", "Self", "Keep"])),
            ("filters", list(one(vec!["a", "b"]), 2)),
            (
                "password",
                one(vec![json!({ "secretKeyRef": { "name": "a", "key": "b" } })]),
            ),
            ("sourceAddress", one(vec!["UseNodeIP", "None"])),
            ("maxRestartTime", one(vec!["1m"])),
            (
                "restartMode",
                one(vec!["GracefulRestart", "LongLivedGracefulRestart"]),
            ),
            (
                "failureDetectionMode",
                one(vec!["None", "BFDIfDirectlyConnected"]),
            ),
            ("keepaliveTime", one(vec!["10s"])),
            ("ttlSecurity", one(vec![1, 255])),
            ("reversePeering", one(vec!["Auto", "Manual"])),
            ("numAllowedLocalASNumbers", one(vec![0, 255])),
            ("ocicat", ocicat.clone()),
        ])
    };
    let address = one(vec![
        "10.0.0.1",
        "10.0.0.1:1790",
        "fd00::1",
        "[fd00::1]:1790",
    ]);
    Union::new([
        with(vec![("peerIP", address), ("asNumber", one(vec![1]))], common()),
        with(vec![("peerSelector", one(vec!["has(a)"]))], common()),
        with(
            vec![
                ("localWorkloadSelector", one(vec!["has(a)"])),
                ("asNumber", one(vec!["1.1"])),
            ],
            common(),
        ),
        one(vec![
            json!({ "ocicat": { "peerInterface": "eth0", "remoteAS": "External" } }),
            json!({ "ocicat": { "peerPrefix": "10.0.0.0/24", "remoteAS": "Auto", "peerLimit": 7 } }),
        ]),
    ])
    .boxed()
}

fn configuration() -> Json {
    let ranges = || {
        list(
            one(vec![
                json!({ "cidr": "10.0.0.0/8" }),
                json!({ "cidr": "fd00::/8" }),
            ]),
            2,
        )
    };
    let advertisement = one(vec![
        json!({ "cidr": "10.0.0.0/8", "communities": ["1:2"] }),
        json!({ "cidr": "fd00::/8", "communities": ["1:2:3"], "ocicat": { "localPreference": 7 } }),
    ]);
    some(vec![
        ("asNumber", one(vec![1])),
        ("nodeToNodeMeshEnabled", one(vec![true, false])),
        ("nodeMeshMaxRestartTime", one(vec!["0s", "4095s"])),
        ("bindMode", one(vec!["None", "NodeIP"])),
        ("ignoredInterfaces", list(one(vec!["eth*"]), 1)),
        ("serviceClusterIPs", ranges()),
        ("serviceExternalIPs", ranges()),
        ("serviceLoadBalancerIPs", ranges()),
        (
            "serviceLoadBalancerAggregation",
            one(vec!["Enabled", "Disabled"]),
        ),
        ("prefixAdvertisements", list(advertisement, 2)),
        (
            "ocicat",
            one(vec![json!({}), json!({ "ebgpRequiresPolicy": true })]),
        ),
    ])
}

fn host_endpoint() -> Json {
    with(
        vec![
            ("node", one(vec!["n1"])),
            ("interfaceName", one(vec!["*", "eth0"])),
        ],
        some(vec![
            ("expectedIPs", list(one(vec!["10.0.0.1", "fd00::1"]), 2)),
            ("profiles", list(one(vec!["p"]), 1)),
            (
                "ports",
                one(vec![json!([{ "name": "a", "port": 1, "protocol": "TCP" }])]),
            ),
        ]),
    )
}

fn felix() -> Json {
    let failsafe = || {
        list(
            one(vec![
                json!({ "port": 22 }),
                json!({ "port": 53, "protocol": "udp", "net": "10.0.0.0/8" }),
            ]),
            2,
        )
    };
    some(vec![
        ("failsafeInboundHostPorts", failsafe()),
        ("failsafeOutboundHostPorts", failsafe()),
        ("natPortRange", one(vec![json!(0), json!("1:9"), json!(7)])),
        ("vxlanVNI", one(vec![1, 4096])),
        ("externalNodesList", nets()),
        (
            "serviceLoopPrevention",
            one(vec!["Drop", "Reject", "Disabled"]),
        ),
    ])
}

fn document() -> impl Strategy<Value = Value> {
    const CALICO: &str = "projectcalico.org/v3";
    let of = |version: &'static str, kind: &'static str, spec: Json| {
        spec.prop_map(move |spec| {
            json!({ "apiVersion": version, "kind": kind, "spec": spec,
                "metadata": { "name": "x", "labels": { "a": "b" } } })
        })
        .boxed()
    };
    Union::new([
        of("networking.k8s.io/v1", "NetworkPolicy", network_policy()),
        of(
            "policy.networking.k8s.io/v1alpha2",
            "ClusterNetworkPolicy",
            cluster_policy(),
        ),
        of(CALICO, "NetworkPolicy", calico_policy()),
        of(CALICO, "GlobalNetworkPolicy", calico_policy()),
        of(CALICO, "StagedNetworkPolicy", calico_policy()),
        of(CALICO, "StagedGlobalNetworkPolicy", calico_policy()),
        of(CALICO, "StagedKubernetesNetworkPolicy", network_policy()),
        of(
            CALICO,
            "Tier",
            some(vec![
                ("order", one(vec![1.5])),
                ("defaultAction", one(vec!["Pass"])),
            ]),
        ),
        of(CALICO, "NetworkSet", some(vec![("nets", nets())])),
        of(CALICO, "GlobalNetworkSet", some(vec![("nets", nets())])),
        of(CALICO, "HostEndpoint", host_endpoint()),
        of(CALICO, "BGPFilter", filter()),
        of(CALICO, "BGPPeer", peer()),
        of(CALICO, "BGPConfiguration", configuration()),
        of(CALICO, "FelixConfiguration", felix()),
    ])
}

/// Replaces the value at the `at`-th place, counted in depth-first order.
fn replace(document: &mut Value, at: &mut usize, with: &Value) {
    if *at == 0 {
        *document = with.clone();
    }
    *at = at.wrapping_sub(1);
    match document {
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, at, with)),
        Value::Object(map) => map.values_mut().for_each(|item| replace(item, at, with)),
        _ => {}
    }
}

/// Whether a rule of the object failed closed, which no document says.
fn failed_closed(object: &Object) -> bool {
    let Object::ClusterNetworkPolicy(policy) = object else {
        return false;
    };
    let rules = policy.ingress.iter().chain(&policy.egress);
    rules
        .into_iter()
        .any(|rule| rule.peers.as_ref().is_none_or(Vec::is_empty))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn what_is_read_is_written_and_read_back_equal(document in document()) {
        let parsed = parse(&document);
        // Nearly all are valid: too many that are not fail the test.
        prop_assume!(matches!(parsed, Ok(Parsed::Valid { .. })));
        let Ok(Parsed::Valid { object, .. }) = parsed else { unreachable!() };
        let snapshot = serde_json::to_value(&object).expect("objects are JSON");
        prop_assert_eq!(&serde_json::from_value::<Object>(snapshot).expect("an object"), &object);
        match to_manifest(&object) {
            Some(written) => match parse(&written) {
                Ok(Parsed::Valid { object: again, .. }) => prop_assert_eq!(again, object),
                other => prop_assert!(false, "{written}: {other:?}"),
            },
            None => prop_assert!(failed_closed(&object), "{document}"),
        }
    }

    #[test]
    fn one_wrong_value_is_named_or_harmless_and_never_panics(
        document in document(),
        at in 0_usize..60,
        with in json_value(),
    ) {
        let mut document = document;
        let mut at = at;
        replace(&mut document, &mut at, &with);
        match parse(&document) {
            Ok(Parsed::Invalid { invalid, fallback }) => {
                prop_assert!(!invalid.field.is_empty() && !invalid.reason.is_empty());
                if let Some(fallback) = fallback {
                    prop_assert_eq!(fallback.key(), invalid.object);
                }
            }
            Ok(Parsed::Valid { .. } | Parsed::Ignored { .. }) | Err(_) => {}
        }
    }
}
