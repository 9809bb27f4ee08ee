use super::*;
use crate::objects::Objects;
use model::{Labels, Object, Selector, Update};

fn node(name: &str, address: &str) -> Node {
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

fn objects(all: impl IntoIterator<Item = Object>) -> Objects {
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
            .chain([Object::BgpPeer(selective)]),
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
    let objects = objects(three_nodes().into_iter().chain([Object::BgpPeer(between)]));
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
    let Sessions { config, problems } = sessions("n1", &objects);
    assert_eq!(config.unwrap().peers.len(), 2);
    assert_eq!(
        problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["Node/n4: spec.bgp.ipv4Address: 10.1.0.12 is the address of Node/n2 already"]
    );
}

#[test]
fn of_two_peers_with_one_address_the_second_is_reported() {
    let twins = [peer("a", "10.1.0.1"), peer("b", "10.1.0.1")].map(Object::BgpPeer);
    let objects = objects(three_nodes().into_iter().chain(twins));
    let Sessions { config, problems } = sessions("n1", &objects);
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
    let Sessions { config, problems } = sessions("n1", &objects);
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
    let peers = [guarded, filtered, plain].map(Object::BgpPeer);
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
    assert_eq!(fields, ["spec.filters", "spec.password"]);

    let configuration = model::BgpConfiguration {
        node_mesh_password: secret,
        ..model::BgpConfiguration::default()
    };
    let all = three_nodes()
        .into_iter()
        .chain([Object::BgpConfiguration(configuration)]);
    let found = sessions("n1", &objects(all));
    assert!(found.config.unwrap().peers.is_empty());
    assert_eq!(found.problems[0].field, "spec.nodeMeshPassword");
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
        bfd: Some(model::BfdProfile::default()),
        max_prefixes: Some(model::MaxPrefixes {
            limit: 7,
            warn_percent: 50,
            restart_after: None,
        }),
        ..peer("rack", "10.1.0.1")
    };
    let all = [
        Object::BgpPeer(object),
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
    let others = [Object::BgpPeer(one_way), Object::BgpConfiguration(no_mesh)];
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
        Object::BgpConfiguration(strict),
        Object::BgpFilter(filter("a", model::BgpFilterAction::Reject)),
        Object::BgpFilter(filter("b", model::BgpFilterAction::Accept)),
        Object::BgpPeer(filtered),
        Object::BgpPeer(peer("open", "10.1.0.2")),
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
