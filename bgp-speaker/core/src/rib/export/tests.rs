use super::*;
use crate::config::Import;
use crate::rib::attributes::PathAttributes;
use crate::speaker::PeerId;
use std::sync::Arc;

pub(crate) fn policy(ibgp: bool) -> ExportPolicy {
    ExportPolicy {
        local_as: 64512,
        ibgp,
        client: false,
        export: Export::All,
        next_hop_mode: NextHopMode::Auto,
        next_hop_v4: Some(Ipv4Addr::new(10, 0, 0, 1)),
        next_hop_v6: None,
        cluster_id: Ipv4Addr::new(192, 0, 2, 1),
        families: vec![Family::IPV4, Family::IPV6],
        four_octet_as: true,
        filter: Arc::default(),
        link_local: None,
        role: None,
        graceful_shutdown: false,
        long_lived: false,
        extended_message: false,
        extended_next_hop: false,
        add_path: Vec::new(),
        path_limit: 0,
    }
}

fn facts(ibgp: bool, client: bool) -> PeerFacts {
    PeerFacts {
        address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)),
        router_id: Ipv4Addr::new(192, 0, 2, 2),
        local_as: 64512,
        ibgp,
        client,
        allow_own_as: 0,
        import: Import::All,
        local_address: None,
        scope: 0,
        interface: None,
        remote_as: 64512,
        cluster_id: Ipv4Addr::new(192, 0, 2, 1),
        import_filter: Arc::default(),
        role: None,
        long_lived: Vec::new(),
    }
}

struct Held {
    source: Source,
    attributes: Arc<PathAttributes>,
}

fn path(source: Source, attributes: Attributes) -> Held {
    let next_hop = NextHop {
        address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)),
        link_local: None,
    };
    Held {
        source,
        attributes: Arc::new(PathAttributes::new(attributes, next_hop)),
    }
}

fn told(
    policy: &ExportPolicy,
    prefix: &IpNet,
    path: &Held,
    source: Option<&PeerFacts>,
) -> Option<(Attributes, NextHop)> {
    let path = Learned {
        source: path.source,
        attributes: &path.attributes,
        interface: None,
        priority: None,
    };
    let rule = policy.rule(prefix, &path).map(|(_, rule)| rule);
    policy.apply(prefix, &path, source, rule)
}

fn from_peer(attributes: Attributes) -> Held {
    path(Source::Peer(PeerId(2)), attributes)
}

fn prefix() -> IpNet {
    "10.1.0.0/26".parse().unwrap()
}

#[test]
fn an_ebgp_peer_sees_our_as_and_our_next_hop_and_nothing_internal() {
    let attributes = Attributes {
        local_pref: Some(200),
        med: Some(7),
        originator_id: Some(Ipv4Addr::LOCALHOST),
        cluster_list: vec![Ipv4Addr::LOCALHOST],
        ..Attributes::default()
    };
    let (sent, next_hop) = told(
        &policy(false),
        &prefix(),
        &from_peer(attributes),
        Some(&facts(true, false)),
    )
    .expect("announced");
    assert_eq!(next_hop.address, IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
    let own = AsPath(vec![AsSegment::Sequence(vec![64512])]);
    assert_eq!(
        sent,
        Attributes {
            as_path: own,
            ..Attributes::default()
        }
    );
}

#[test]
fn internal_routes_go_to_internal_peers_only_by_reflection() {
    let path = from_peer(Attributes::default());
    let reflected = |target_client: bool, source_client: bool| {
        let policy = ExportPolicy {
            client: target_client,
            ..policy(true)
        };
        told(&policy, &prefix(), &path, Some(&facts(true, source_client)))
    };
    assert_eq!(reflected(false, false), None);
    for (target_client, source_client) in [(true, false), (false, true), (true, true)] {
        let (sent, next_hop) = reflected(target_client, source_client).expect("reflected");
        assert_eq!(sent.originator_id, Some(Ipv4Addr::new(192, 0, 2, 2)));
        assert_eq!(sent.cluster_list, [Ipv4Addr::new(192, 0, 2, 1)]);
        assert_eq!(next_hop.address, IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)));
    }
}

#[test]
fn a_route_server_leaves_no_trace() {
    let server = ExportPolicy {
        role: Some(Role::RouteServer),
        ..policy(false)
    };
    let received = Attributes {
        as_path: AsPath::from_sequence(vec![65001]),
        med: Some(7),
        ..Attributes::default()
    };
    let path = from_peer(received);
    let (sent, next_hop) =
        told(&server, &prefix(), &path, Some(&facts(false, false))).expect("announced");
    assert_eq!(sent.as_path.to_string(), "65001");
    assert_eq!((sent.med, sent.otc), (Some(7), Some(64512)));
    assert_eq!(next_hop.address, IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)));
}

#[test]
fn well_known_communities_limit_who_is_told() {
    for (community, internal, external) in [
        (0xffff_ff01, true, false),
        (0xffff_ff03, true, false),
        (0xffff_ff02, false, false),
        (64512 << 16, true, true),
    ] {
        let route = Attributes {
            communities: vec![community],
            ..Attributes::default()
        };
        let path = path(Source::Local, route);
        let is_told = |ibgp| told(&policy(ibgp), &prefix(), &path, None).is_some();
        assert_eq!(
            (is_told(true), is_told(false)),
            (internal, external),
            "{community:#x}"
        );
    }
}

#[test]
fn own_routes_only_means_own_routes_only() {
    let policy = ExportPolicy {
        export: Export::OwnRoutes,
        ..policy(false)
    };
    let received = from_peer(Attributes::default());
    assert_eq!(
        told(&policy, &prefix(), &received, Some(&facts(false, false))),
        None
    );
    let own = path(Source::Local, Attributes::default());
    assert!(told(&policy, &prefix(), &own, None).is_some());
}

#[test]
fn next_hops_of_others_are_kept_towards_ebgp_on_request_but_never_for_own_routes() {
    let policy = ExportPolicy {
        next_hop_mode: NextHopMode::Keep,
        ..policy(false)
    };
    let next_hop = |path: &Held, source: Option<&PeerFacts>| {
        told(&policy, &prefix(), path, source).map(|(_, next_hop)| next_hop.address.to_string())
    };
    let received = from_peer(Attributes::default());
    assert_eq!(
        next_hop(&received, Some(&facts(false, false))).as_deref(),
        Some("10.0.0.9")
    );
    let own = path(Source::Local, Attributes::default());
    assert_eq!(next_hop(&own, None).as_deref(), Some("10.0.0.1"));
}

#[test]
fn a_peer_of_the_same_as_is_told_our_own_address_on_request_unless_it_has_a_route_server() {
    let policy = ExportPolicy {
        next_hop_mode: NextHopMode::Own,
        client: true,
        ..policy(true)
    };
    let received = from_peer(Attributes::default());
    for source_is_client in [false, true] {
        let source = facts(true, source_is_client);
        let (_, next_hop) = told(&policy, &prefix(), &received, Some(&source)).expect("told");
        assert_eq!(next_hop.address.to_string(), "10.0.0.1");
    }
    let transparent = ExportPolicy {
        role: Some(Role::RouteServer),
        ..ExportPolicy {
            ibgp: false,
            ..policy
        }
    };
    let told = told(
        &transparent,
        &prefix(),
        &received,
        Some(&facts(false, false)),
    );
    assert_eq!(told.expect("told").1.address.to_string(), "10.0.0.9");
}

#[test]
fn without_a_next_hop_of_the_family_nothing_is_announced() {
    let own = path(Source::Local, Attributes::default());
    let prefix: IpNet = "fd00::/64".parse().unwrap();
    assert_eq!(told(&policy(true), &prefix, &own, None), None);
}

#[test]
fn a_full_segment_is_never_grown() {
    let mut path = AsPath(vec![AsSegment::Sequence(vec![1; SEGMENT_LIMIT])]);
    prepend(&mut path, 2);
    assert_eq!(path.0.len(), 2);
    assert_eq!(path.0[0], AsSegment::Sequence(vec![2]));
}
