use super::*;
use crate::objects::Objects;
use bgp_core::wire::Family;
use bgp_core::{Export, Import, PeerConfig, PeerKey, PrefixLimit};
use model::BgpPeer;
use model::{Labels, Object, Selector, Update};

/// Of a node without pods.
fn sessions(name: &str, objects: &Objects) -> Sessions {
    super::sessions(name, objects, &[])
}

pub(super) fn node(name: &str, address: &str) -> Node {
    Node {
        name: name.into(),
        labels: Labels::from([("rack".to_owned(), name.to_owned())]),
        ipv4_address: Some(address.parse().unwrap()),
        ipv6_address: None,
        addresses: std::collections::BTreeSet::new(),
        as_number: None,
        route_reflector_cluster_id: None,
    }
}

fn peer(name: &str, peer_ip: &str) -> BgpPeer {
    BgpPeer {
        peer_ip: Some(peer_ip.parse().unwrap()),
        as_number: Some(65001),
        ..BgpPeer::new(name)
    }
}

pub(super) fn objects(all: impl IntoIterator<Item = Object>) -> Objects {
    let mut objects = Objects::default();
    for object in all {
        objects.apply(Update::Apply {
            object,
            warnings: vec![],
        });
    }
    objects
}

fn three_nodes() -> Vec<Object> {
    [
        ("n1", "10.1.0.11/24"),
        ("n2", "10.1.0.12/24"),
        ("n3", "10.2.0.13/24"),
    ]
    .map(|(name, address)| Object::Node(node(name, address)))
    .into()
}

/// (session, waits) of node `name`.
fn peers(name: &str, objects: &Objects) -> Vec<(String, bool)> {
    let config = sessions(name, objects).config.unwrap();
    config
        .peers
        .values()
        .map(|peer| (peer.name.clone(), peer.passive))
        .collect()
}

#[test]
fn the_mesh_has_every_other_node_and_of_two_the_lower_address_waits() {
    let objects = objects(three_nodes());
    assert_eq!(
        peers("n2", &objects),
        [("Node/n1".into(), false), ("Node/n3".into(), true)]
    );
}

#[test]
fn a_route_reflector_leaves_the_mesh() {
    let mut all = three_nodes();
    let mut reflector = node("n3", "10.2.0.13/24");
    reflector.route_reflector_cluster_id = Some([1, 0, 0, 1].into());
    all[2] = Object::Node(reflector);
    let objects = objects(all);
    assert_eq!(peers("n1", &objects), [("Node/n2".into(), true)]);
    assert!(peers("n3", &objects).is_empty());
}

#[test]
fn a_peer_is_for_the_nodes_that_it_selects() {
    let mut selective = peer("rack", "10.1.0.1");
    selective.node_selector = Selector::Eq("rack".into(), "n1".into());
    let objects = objects(
        three_nodes()
            .into_iter()
            .chain([Object::BgpPeer(Box::new(selective))]),
    );
    assert!(peers("n1", &objects).contains(&("BGPPeer/rack".into(), false)));
    assert!(
        !peers("n2", &objects)
            .iter()
            .any(|(name, _)| name == "BGPPeer/rack")
    );
}

#[test]
fn a_peer_selector_makes_sessions_from_both_sides() {
    let mut between = peer("pair", "10.1.0.1");
    between.peer_ip = None;
    between.as_number = None;
    between.node_selector = Selector::Eq("rack".into(), "n1".into());
    between.peer_selector = Some(Selector::Eq("rack".into(), "n3".into()));
    let objects = objects(
        three_nodes()
            .into_iter()
            .chain([Object::BgpPeer(Box::new(between))]),
    );
    for node in ["n1", "n3"] {
        assert!(
            peers(node, &objects).contains(&("BGPPeer/pair".into(), false)),
            "{node}"
        );
    }
    assert!(
        !peers("n2", &objects)
            .iter()
            .any(|(name, _)| name == "BGPPeer/pair")
    );
}

#[test]
fn two_nodes_with_one_address_are_reported_and_the_others_keep_their_sessions() {
    let twin = Object::Node(node("n4", "10.1.0.12/24"));
    let objects = objects(three_nodes().into_iter().chain([twin]));
    let Sessions {
        config, problems, ..
    } = sessions("n1", &objects);
    assert_eq!(config.unwrap().peers.len(), 2);
    assert_eq!(
        problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["Node/n4: spec.bgp.ipv4Address: 10.1.0.12 is the address of Node/n2 already"]
    );
}

#[test]
fn of_two_peers_with_one_address_the_second_is_reported() {
    let twins =
        [peer("a", "10.1.0.1"), peer("b", "10.1.0.1")].map(|peer| Object::BgpPeer(Box::new(peer)));
    let objects = objects(three_nodes().into_iter().chain(twins));
    let Sessions {
        config, problems, ..
    } = sessions("n1", &objects);
    assert!(
        config
            .unwrap()
            .peers
            .values()
            .any(|peer| peer.name == "BGPPeer/a")
    );
    assert_eq!(
        problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["BGPPeer/b: spec.peerIP: 10.1.0.1 is the peer of BGPPeer/a already"]
    );
}

#[test]
fn a_node_without_an_address_has_no_sessions_and_says_so() {
    let mut own = node("n1", "10.1.0.11/24");
    own.ipv4_address = None;
    let objects = objects([Object::Node(own)]);
    let Sessions {
        config, problems, ..
    } = sessions("n1", &objects);
    assert!(config.is_none());
    assert_eq!(
        problems[0].to_string(),
        "Node/n1: spec.bgp.ipv4Address: missing: without an address this node has no BGP sessions"
    );
}

#[test]
fn a_peer_that_asks_for_what_is_not_there_gets_no_session_and_the_others_keep_theirs() {
    let secret = Some(model::SecretKeyRef {
        name: "bgp".into(),
        key: "rack".into(),
        optional: false,
    });
    let guarded = BgpPeer {
        password: secret.clone(),
        ..peer("guarded", "10.1.0.1")
    };
    let filtered = BgpPeer {
        filters: vec!["gone".into()],
        ..peer("filtered", "10.1.0.2")
    };
    let plain = peer("plain", "10.1.0.3");
    let own = Object::Node(node("n1", "10.1.0.11/24"));
    let peers = [guarded, filtered, plain].map(|peer| Object::BgpPeer(Box::new(peer)));
    let objects_with_peers = objects(peers.into_iter().chain([own]));
    let found = sessions("n1", &objects_with_peers);
    let names: Vec<_> = found
        .config
        .unwrap()
        .peers
        .into_values()
        .map(|p| p.name)
        .collect();
    assert_eq!(names, ["BGPPeer/plain"]);
    let fields: Vec<_> = found.problems.iter().map(|p| p.field.as_str()).collect();
    assert_eq!(fields, ["spec.filters", "spec.password.secretKeyRef"]);
    assert_eq!(
        found.problems[1].to_string(),
        "BGPPeer/guarded: spec.password.secretKeyRef: there is no Secret/kube-system/bgp, so there is no session"
    );

    let configuration = model::BgpConfiguration {
        node_mesh_password: secret,
        ..model::BgpConfiguration::default()
    };
    let all = three_nodes()
        .into_iter()
        .chain([Object::BgpConfiguration(Box::new(configuration))]);
    let found = sessions("n1", &objects(all));
    assert!(found.config.unwrap().peers.is_empty());
    assert_eq!(
        found.problems[0].field,
        "spec.nodeMeshPassword.secretKeyRef"
    );
}

#[test]
fn settings_of_a_peer_reach_its_session() {
    let object = BgpPeer {
        passive: true,
        shutdown: Some("swap".into()),
        hold_time: Some(9),
        keepalive_time: Some(3),
        use_node_ip: false,
        ttl_security: Some(1),
        long_lived_stale_time: Some(60),
        bfd: Some(model::BfdProfile {
            multihop: true,
            ..model::BfdProfile::default()
        }),
        max_prefixes: Some(model::MaxPrefixes {
            limit: 7,
            warn_percent: 50,
            restart_after: None,
        }),
        ..peer("rack", "10.1.0.1")
    };
    let all = [
        Object::BgpPeer(Box::new(object)),
        Object::Node(node("n1", "10.1.0.11/24")),
    ];
    let config = sessions("n1", &objects(all)).config.unwrap();
    let found = config.peers.into_values().next().unwrap();
    assert!(found.passive && !found.multihop);
    assert_eq!(found.shutdown.as_deref(), Some("swap"));
    assert_eq!((found.hold_time, found.ttl_security), (9, Some(1)));
    assert_eq!(
        (found.source_address, found.long_lived_stale_time),
        (None, 60)
    );
    assert_eq!(found.bfd, Some(bgp_core::bfd::Profile::default()));
    let limit = PrefixLimit {
        maximum: 7,
        warn_at: 50,
        excess: bgp_core::Excess::Idle,
    };
    assert_eq!(found.prefix_limit, Some(limit));
}

#[test]
fn a_selected_node_does_not_peer_back_where_it_is_told_not_to() {
    let one_way = BgpPeer {
        peer_ip: None,
        as_number: None,
        node_selector: Selector::Eq("rack".into(), "n1".into()),
        peer_selector: Some(Selector::Eq("rack".into(), "n2".into())),
        reverse_peering: false,
        ..peer("one-way", "10.1.0.1")
    };
    let no_mesh = model::BgpConfiguration {
        node_to_node_mesh_enabled: false,
        ..model::BgpConfiguration::default()
    };
    let others = [
        Object::BgpPeer(Box::new(one_way)),
        Object::BgpConfiguration(Box::new(no_mesh)),
    ];
    let objects = objects(three_nodes().into_iter().chain(others));
    assert_eq!(peers("n1", &objects).len(), 1);
    assert!(peers("n2", &objects).is_empty());
}

#[test]
fn filters_of_a_peer_follow_each_other_and_an_ebgp_peer_without_one_may_be_told_nothing() {
    let rule = |action| model::BgpFilterRule::every_route(action);
    let filter = |name: &str, action| model::BgpFilter {
        name: name.into(),
        import_v4: vec![rule(action)],
        export_v4: vec![],
        import_v6: vec![],
        export_v6: vec![rule(action)],
    };
    let filtered = BgpPeer {
        filters: vec!["b".into(), "a".into()],
        ..peer("filtered", "10.1.0.1")
    };
    let strict = model::BgpConfiguration {
        ebgp_requires_policy: true,
        ..model::BgpConfiguration::default()
    };
    let all = [
        Object::Node(node("n1", "10.1.0.11/24")),
        Object::BgpConfiguration(Box::new(strict)),
        Object::BgpFilter(Box::new(filter("a", model::BgpFilterAction::Reject))),
        Object::BgpFilter(Box::new(filter("b", model::BgpFilterAction::Accept))),
        Object::BgpPeer(Box::new(filtered)),
        Object::BgpPeer(Box::new(peer("open", "10.1.0.2"))),
    ];
    let config = sessions("n1", &objects(all)).config.unwrap();
    let found = |address: &str| &config.peers[&PeerKey::new(address.parse().unwrap(), 179)];
    let rules = |filter: &bgp_core::filter::Filter| -> Vec<_> {
        let rules = filter.rules.iter();
        rules
            .map(|rule| (rule.matches.family.unwrap(), rule.action))
            .collect()
    };
    use bgp_core::filter::Action::{Accept, Reject};
    let filtered = found("10.1.0.1");
    let expected = [(Family::IPV4, Accept), (Family::IPV4, Reject)];
    assert_eq!(rules(&filtered.import_filter), expected);
    let expected = [(Family::IPV6, Accept), (Family::IPV6, Reject)];
    assert_eq!(rules(&filtered.export_filter), expected);
    assert_eq!(
        (filtered.import, filtered.export),
        (Import::All, Export::OwnRoutes)
    );
    let open = found("10.1.0.2");
    assert_eq!(
        (open.import, open.export),
        (Import::Unstated, Export::Unstated)
    );
}

fn secret(data: &[(&str, &[u8])]) -> Object {
    let value = |bytes: &[u8]| model::SecretValue::new(bytes.to_vec());
    Object::Secret(model::Secret {
        namespace: "kube-system".into(),
        name: "bgp".into(),
        data: data
            .iter()
            .map(|(key, bytes)| ((*key).to_owned(), value(bytes)))
            .collect(),
    })
}

fn password_of(optional: bool) -> Option<model::SecretKeyRef> {
    Some(model::SecretKeyRef {
        name: "bgp".into(),
        key: "rack".into(),
        optional,
    })
}

/// The password of the one session, or why there is no session.
fn password(data: &[(&str, &[u8])], optional: bool) -> Result<Option<String>, String> {
    let guarded = BgpPeer {
        password: password_of(optional),
        ..peer("guarded", "10.1.0.1")
    };
    let own = Object::Node(node("n1", "10.1.0.11/24"));
    let all = [Object::BgpPeer(Box::new(guarded)), own, secret(data)];
    let Sessions {
        config, problems, ..
    } = sessions("n1", &objects(all));
    match config.unwrap().peers.into_values().next() {
        Some(peer) => {
            assert!(!format!("{peer:?}").contains("hunter2"));
            Ok(peer.password.map(|password| password.expose().to_owned()))
        }
        None => Err(problems[0].to_string()),
    }
}

#[test]
fn a_password_comes_from_a_secret_and_what_is_wrong_with_it_is_said_without_it() {
    let refused = |reason: &str| {
        Err(format!(
            "BGPPeer/guarded: spec.password.secretKeyRef: {reason}, so there is no session"
        ))
    };
    assert_eq!(
        password(&[("rack", b"hunter2")], false),
        Ok(Some("hunter2".into()))
    );
    assert_eq!(password(&[("other", b"hunter2")], true), Ok(None));
    assert_eq!(
        password(&[("other", b"hunter2")], false),
        refused("Secret/kube-system/bgp has no key rack")
    );
    assert_eq!(
        password(&[("rack", b"\xff")], true),
        refused("Secret/kube-system/bgp: the value of key rack is not UTF-8")
    );
    assert_eq!(
        password(&[("rack", &[b'x'; 81])], false),
        refused("Secret/kube-system/bgp: key rack: a TCP MD5 password has 1 to 80 octets, not 81")
    );
}

#[test]
fn the_password_of_the_mesh_is_that_of_its_sessions_only() {
    let configuration = model::BgpConfiguration {
        node_mesh_password: password_of(false),
        ..model::BgpConfiguration::default()
    };
    let others = [
        Object::BgpConfiguration(Box::new(configuration)),
        secret(&[("rack", b"hunter2")]),
        Object::BgpPeer(Box::new(peer("rack", "10.1.0.1"))),
    ];
    let config = sessions("n1", &objects(three_nodes().into_iter().chain(others)));
    let guarded = |peer: &PeerConfig| (peer.name.clone(), peer.password.is_some());
    let found: Vec<_> = config.config.unwrap().peers.values().map(guarded).collect();
    let expected = [
        ("BGPPeer/rack", false),
        ("Node/n2", true),
        ("Node/n3", true),
    ];
    assert_eq!(found, expected.map(|(name, has)| (name.to_owned(), has)));
}

#[test]
fn peers_of_a_range_share_a_session_and_of_two_objects_with_one_range_the_second_is_reported() {
    let range = |name: &str, prefix: &str| BgpPeer {
        peer_ip: None,
        peer_prefix: Some(model::DynamicPeers {
            prefix: prefix.parse().unwrap(),
            limit: 7,
        }),
        ..peer(name, "10.1.0.1")
    };
    let ranges = [
        range("a", "10.9.0.0/16"),
        range("b", "10.9.0.0/16"),
        range("inner", "10.9.1.0/24"),
    ];
    let own = Object::Node(node("n1", "10.1.0.11/24"));
    let all = ranges
        .map(|peer| Object::BgpPeer(Box::new(peer)))
        .into_iter()
        .chain([own]);
    let Sessions {
        config, problems, ..
    } = sessions("n1", &objects(all));
    let found: Vec<_> = config
        .unwrap()
        .dynamic_peers
        .into_iter()
        .map(|(prefix, peers)| (prefix.to_string(), peers.limit, peers.peer.name))
        .collect();
    let expected = [
        ("10.9.0.0/16", "BGPPeer/a"),
        ("10.9.1.0/24", "BGPPeer/inner"),
    ];
    assert_eq!(
        found,
        expected.map(|(prefix, name)| (prefix.to_owned(), 7, name.to_owned()))
    );
    assert_eq!(
        problems[0].to_string(),
        "BGPPeer/b: spec.ocicat.peerPrefix: 10.9.0.0/16 is the range of BGPPeer/a already"
    );
}

#[test]
fn one_hop_is_watched_within_a_subnet_of_the_node_and_more_only_where_that_is_asked_for() {
    let watched = |address: &str, multihop: bool| {
        let object = BgpPeer {
            bfd: Some(model::BfdProfile {
                multihop,
                ..model::BfdProfile::default()
            }),
            ..peer("rack", address)
        };
        let own = Object::Node(node("n1", "10.1.0.11/24"));
        let found = sessions("n1", &objects([Object::BgpPeer(Box::new(object)), own]));
        let peer = found.config.unwrap().peers.into_values().next().unwrap();
        (peer.bfd.is_some(), peer.multihop)
    };
    assert_eq!(watched("10.1.0.1", false), (true, false));
    assert_eq!(watched("10.1.0.1", true), (true, true));
    assert_eq!(watched("10.2.0.1", true), (true, true));
    assert_eq!(watched("10.2.0.1", false), (false, true));
}

#[test]
fn the_node_s_own_addresses_are_listened_on_where_that_is_asked_for_and_all_otherwise() {
    let listens = |bind_mode| {
        let configuration = model::BgpConfiguration {
            bind_mode,
            ..model::BgpConfiguration::default()
        };
        let own = Node {
            ipv6_address: Some("fd00::11/64".parse().unwrap()),
            ..node("n1", "10.1.0.11/24")
        };
        let all = [
            Object::BgpConfiguration(Box::new(configuration)),
            Object::Node(own),
        ];
        let Sessions {
            config, problems, ..
        } = sessions("n1", &objects(all));
        assert_eq!(problems, []);
        let addresses = config.unwrap().listen_addresses.into_iter();
        addresses
            .map(|address| address.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(listens(model::BindMode::NodeIp), ["10.1.0.11", "fd00::11"]);
    assert!(listens(model::BindMode::None).is_empty());
}

#[test]
fn a_next_hop_of_our_own_and_a_way_to_the_peer_are_as_the_object_says() {
    let reached = BgpPeer {
        reachable_by: Some("10.1.0.254".parse().unwrap()),
        next_hop_mode: model::NextHopMode::OwnAddress,
        ..peer("rack", "10.3.0.1")
    };
    let elsewhere = BgpPeer {
        reachable_by: Some("10.1.0.253".parse().unwrap()),
        node: Some("n2".into()),
        ..peer("other", "10.3.0.2")
    };
    let all = [
        Object::BgpPeer(Box::new(reached)),
        Object::BgpPeer(Box::new(elsewhere)),
        Object::Node(node("n1", "10.1.0.11/24")),
    ];
    let objects = objects(all);
    let Sessions {
        config, problems, ..
    } = sessions("n1", &objects);
    assert_eq!(problems, []);
    let peer = config.unwrap().peers.into_values().next().unwrap();
    assert_eq!(peer.next_hop, bgp_core::NextHopMode::Own);
    let ways = reachable_by("n1", &objects);
    let expected = [(
        "10.3.0.1/32".parse().unwrap(),
        "10.1.0.254".parse().unwrap(),
    )];
    assert_eq!(ways, expected.into());
}

#[test]
fn the_router_on_a_link_is_a_peer_and_of_two_objects_with_one_link_the_second_is_reported() {
    let on_link = |name: &str| BgpPeer {
        peer_ip: None,
        peer_interface: Some("eth1".into()),
        bfd: Some(model::BfdProfile::default()),
        ..peer(name, "10.1.0.1")
    };
    let own = Object::Node(node("n1", "10.1.0.11/24"));
    let all = [
        Object::BgpPeer(Box::new(on_link("a"))),
        Object::BgpPeer(Box::new(on_link("b"))),
        own,
    ];
    let Sessions {
        config, problems, ..
    } = sessions("n1", &objects(all));
    let found = &config.unwrap().interface_peers["eth1"];
    assert_eq!(found.name, "BGPPeer/a");
    assert_eq!((found.source_address, found.multihop), (None, false));
    assert!(found.bfd.is_some());
    assert_eq!(
        problems[0].to_string(),
        "BGPPeer/b: spec.ocicat.peerInterface: eth1 is the link of BGPPeer/a already"
    );
}
