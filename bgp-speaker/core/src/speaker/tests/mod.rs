mod convergence;
mod features;
mod leaving;
mod liveness;
mod network;
mod strangers;

use crate::config::{Export, PeerConfig, PrefixLimit, Stop};
use crate::rib::{Path, Source};
use crate::wire::Family;
use crate::wire::{Attributes, NextHop, RouteRefresh, encode_route_refresh};
use network::{Network, address, config, key, prefixes, two_v4_prefixes};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

fn peer(node: usize, remote_as: u32) -> (usize, PeerConfig) {
    let name = format!("Node/n{node}");
    (
        node,
        PeerConfig {
            export: Export::All,
            ..PeerConfig::new(name, remote_as)
        },
    )
}

/// Nodes 0 to 3 are a full mesh of AS 64512, node 4 is a router of AS 65001 that peers with 0 and 1.
fn mesh(seed: u64) -> Network {
    let configs = (0..4).map(|node| {
        let mut peers: Vec<_> = (0..4)
            .filter(|other| *other != node)
            .map(|other| peer(other, 64512))
            .collect();
        if node < 2 {
            peers.push(peer(4, 65001));
        }
        config(node, 64512, &peers)
    });
    let router = config(4, 65001, &[peer(0, 64512), peer(1, 64512)]);
    Network::new(configs.chain([router]).collect(), seed)
}

/// Two nodes of different ASes that tell each other everything.
fn pair(seed: u64) -> Network {
    let configs = vec![
        config(0, 64512, &[peer(1, 65001)]),
        config(1, 65001, &[peer(0, 64512)]),
    ];
    Network::new(configs, seed)
}

type Routes = BTreeMap<ipnet::IpNet, (Attributes, NextHop)>;

/// The Adj-RIB-Out of `from` towards `to`.
fn sent(network: &Network, from: usize, to: usize) -> Routes {
    let speaker = &network.nodes[from].speaker;
    let id = speaker.by_key[&key(to)];
    let (_, group) = speaker.peers[&id].member.as_ref().expect("Established");
    let entries = speaker.groups[group].advertised(id, &speaker.rib);
    let entries = entries.into_iter();
    entries
        .map(|(nlri, path)| (nlri.prefix, (path.attributes, path.next_hop)))
        .collect()
}

/// The Adj-RIB-In of `at` from `from`.
fn received(network: &Network, at: usize, from: usize) -> Routes {
    let speaker = &network.nodes[at].speaker;
    let source = Source::Peer(speaker.by_key[&key(from)]);
    let mut routes = Routes::new();
    for (prefix, destination) in speaker.rib.destinations() {
        let mut paths = destination.paths().iter();
        if let Some(Path { attributes, .. }) = paths.find(|path| path.source == source) {
            routes.insert(prefix, (attributes.attributes.clone(), attributes.next_hop));
        }
    }
    routes
}

fn check_mesh(network: &Network) {
    let pairs = (0..5_usize).flat_map(|a| (0..5_usize).map(move |b| (a, b)));
    for (a, b) in pairs.filter(|(a, b)| a != b) {
        if a.max(b) == 4 && a.min(b) > 1 {
            continue;
        }
        assert!(network.established(a, b), "{a} has no session with {b}");
        assert_eq!(
            sent(network, a, b),
            received(network, b, a),
            "from {a} to {b}"
        );
    }
    for node in 0..5 {
        let others = (0..5).filter(|other| *other != node);
        for prefix in others.flat_map(prefixes) {
            // A router keeps next hops of an external neighbour within its AS, so 2 and 3 know too.
            assert!(
                network.nodes[node].fib.contains_key(&prefix),
                "{node} has no {prefix}"
            );
        }
        for own in prefixes(node) {
            assert!(!network.nodes[node].fib.contains_key(&own));
        }
    }
}

#[test]
fn a_mesh_and_its_router_learn_everything_from_each_other() {
    let mut network = mesh(1);
    network.run(LONG);
    check_mesh(&network);
    let v4 = prefixes(2)[0];
    assert_eq!(network.nodes[0].fib[&v4], [address(2)]);
    assert_eq!(
        network.nodes[4].fib[&v4],
        [address(0), address(1)],
        "two ways into the AS"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn after_any_resets_the_mesh_is_as_if_nothing_had_been(
        seed: u64, resets in prop::collection::vec((any::<u64>(), 0..5000_u64), 0..12),
    ) {
        let mut network = mesh(seed);
        for (choice, pause) in resets {
            network.run(Duration::from_millis(pause));
            network.reset_one(choice);
        }
        network.run(Duration::from_secs(200));
        check_mesh(&network);
        prop_assert!(network.nodes.iter().all(|node| node.converged_at.is_some()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn a_peer_with_graceful_restart_may_be_killed_at_any_time(
        seed: u64, kills in prop::collection::vec((0..4_usize, 0..8000_u64, 0..8000_u64), 1..5),
    ) {
        let mut network = mesh(seed);
        network.run(LONG);
        network.nodes.iter_mut().for_each(|node| node.removed.clear());
        for (node, away, pause) in kills {
            network.kill(node);
            network.run(Duration::from_millis(away));
            network.boot(node, true);
            network.run(Duration::from_secs(20) + Duration::from_millis(pause));
        }
        network.run(LONG);
        check_mesh(&network);
        // The router is never killed, so whatever it forwarded to it goes on forwarding to.
        prop_assert_eq!(&network.nodes[4].removed, &[]);
    }

    #[test]
    fn no_octets_of_a_peer_reach_beyond_its_own_session(
        seed: u64, octets in prop::collection::vec(any::<u8>(), 1..200), framed: bool,
    ) {
        let mut network = mesh(seed);
        network.run(Duration::from_secs(20));
        let mut message = octets;
        if framed {
            let length = u16::try_from(message.len() + 18).unwrap();
            message.splice(0..0, [[0xff; 16].as_slice(), &length.to_be_bytes()].concat());
        }
        network.inject(4, 0, &message);
        network.run(Duration::from_secs(1));
        for other in 1..4 {
            prop_assert!(network.established(0, other));
        }
        network.run(Duration::from_secs(200));
        prop_assert!(network.established(0, 4));
    }
}

#[test]
fn speakers_that_connect_at_the_same_time_end_up_with_one_session() {
    for seed in 0..100 {
        let mut network = pair(seed);
        network.run(LONG);
        for node in [0, 1] {
            let status = network.nodes[node].speaker.status(network.now);
            assert_eq!(status.peers[0].established_count, 1, "seed {seed}");
            assert!(!network.has_said(node, "is down"), "seed {seed}");
        }
    }
}

#[test]
fn a_passive_side_waits_and_two_of_them_wait_for_ever() {
    let passive = |(node, config): (usize, PeerConfig)| {
        let config = PeerConfig {
            passive: true,
            ..config
        };
        (node, config)
    };
    for (both, expected) in [(false, true), (true, false)] {
        let other = if both {
            passive(peer(0, 64512))
        } else {
            peer(0, 64512)
        };
        let configs = vec![
            config(0, 64512, &[passive(peer(1, 65001))]),
            config(1, 65001, &[other]),
        ];
        let mut network = Network::new(configs, 16);
        network.run(LONG);
        assert_eq!(network.established(0, 1), expected);
        assert!(network.nodes[0].converged_at.is_some());
    }
}

/// Node 0 reflects between its clients 1 and 2, and 3, which have no sessions with each other.
fn star(seed: u64) -> Network {
    let client = |(node, config): (usize, PeerConfig)| {
        let config = PeerConfig {
            route_reflector_client: true,
            ..config
        };
        (node, config)
    };
    let reflector = [
        client(peer(1, 64512)),
        client(peer(2, 64512)),
        peer(3, 64512),
    ];
    let mut configs = vec![config(0, 64512, &reflector)];
    configs.extend((1..4).map(|node| config(node, 64512, &[peer(0, 64512)])));
    Network::new(configs, seed)
}

#[test]
fn a_route_reflector_joins_clients_that_have_no_session_with_each_other() {
    let mut network = star(17);
    network.run(LONG);
    for (node, other) in [(1, 2), (2, 1), (1, 3), (3, 1)] {
        let next_hop = &network.nodes[node].fib[&prefixes(other)[0]];
        assert_eq!(
            *next_hop,
            [address(other)],
            "the next hop is the origin, not the reflector"
        );
    }
}

#[test]
fn a_restarted_reflector_sends_end_of_rib_only_when_it_knows_the_routes_again() {
    for seed in 0..20 {
        let mut network = star(seed);
        network.run(LONG);
        network
            .nodes
            .iter_mut()
            .for_each(|node| node.removed.clear());
        network.kill(0);
        network.run(Duration::from_secs(3));
        network.boot(0, true);
        network.run(LONG);
        for node in &network.nodes[1..] {
            assert_eq!(node.removed, [], "seed {seed}");
            assert_eq!(node.speaker.status(network.now).peers[0].stale, 0);
        }
    }
}

#[test]
fn changes_travel_and_withdrawals_too() {
    let mut network = mesh(2);
    network.run(LONG);
    let [kept, gone] = prefixes(4);
    let added = "10.9.0.0/24".parse().unwrap();
    network.set_routes(4, &[kept, added]);
    network.run(Duration::from_secs(1));
    for node in 0..4 {
        let fib = &network.nodes[node].fib;
        assert!(fib.contains_key(&added) && fib.contains_key(&kept) && !fib.contains_key(&gone));
    }
}

#[test]
fn a_killed_speaker_that_comes_back_is_not_noticed_by_forwarding() {
    let mut network = mesh(3);
    network.run(LONG);
    network
        .nodes
        .iter_mut()
        .for_each(|node| node.removed.clear());
    network.kill(0);
    network.run(Duration::from_secs(20));
    assert!(!network.established(4, 0));
    let status = network.nodes[4].speaker.status(network.now);
    assert!(status.peers[0].stale > 0);
    network.boot(0, true);
    network.run(LONG);
    check_mesh(&network);
    for (index, node) in network.nodes.iter().enumerate().skip(1) {
        assert_eq!(node.removed, [], "node {index}");
        let status = node.speaker.status(network.now);
        assert!(status.peers.iter().all(|peer| peer.stale == 0));
    }
}

#[test]
fn a_node_that_is_back_before_anybody_missed_it_takes_over_its_old_sessions() {
    for restarting in [true, false] {
        let mut network = pair(18);
        network.run(LONG);
        network.power_off(0);
        network.run(Duration::from_secs(10));
        assert!(network.established(1, 0), "nobody has noticed");
        network.boot(0, restarting);
        network.run(Duration::from_secs(10));
        assert!(network.established(0, 1) && network.established(1, 0));
        assert!(network.has_said(1, "the peer has restarted its session"));
        assert_eq!(network.nodes[1].removed, []);
        assert_eq!(sent(&network, 0, 1), received(&network, 1, 0));
    }
}

#[test]
fn what_a_restarted_speaker_announces_no_more_is_forgotten_at_end_of_rib() {
    let mut network = pair(4);
    network.run(LONG);
    network.kill(0);
    let [kept, gone] = prefixes(0);
    network.set_routes(0, &[kept]);
    network.run(Duration::from_secs(1));
    network.boot(0, true);
    network.run(LONG);
    assert_eq!(network.nodes[1].removed, [gone]);
}

#[test]
fn a_killed_speaker_that_stays_away_is_forgotten_after_its_restart_time() {
    let mut network = pair(5);
    network.run(LONG);
    network.kill(0);
    network.run(Duration::from_secs(119));
    assert_eq!(network.nodes[1].removed, []);
    network.run(Duration::from_secs(2));
    assert_eq!(network.nodes[1].fib.len(), 0);
}

#[test]
fn a_planned_stop_keeps_routes_and_a_drain_does_not() {
    for (stop, kept) in [(Stop::Planned, 2), (Stop::Drain, 0)] {
        let mut network = pair(6);
        network.run(LONG);
        network.stop(0, stop);
        network.run(Duration::from_secs(5));
        assert_eq!(network.nodes[1].fib.len(), kept, "{stop:?}");
    }
}

#[test]
fn a_silent_peer_is_noticed_by_the_hold_timer() {
    let mut network = pair(7);
    network.run(LONG);
    network.cut.insert((0, 1));
    network.run(Duration::from_secs(91));
    assert!(network.has_said(1, "hold timer expired: nothing heard for 90 s"));
}

#[test]
fn a_wrong_as_number_is_told_in_words() {
    let configs = vec![
        config(0, 65009, &[peer(1, 65001)]),
        config(1, 65001, &[peer(0, 64512)]),
    ];
    let mut network = Network::new(configs, 8);
    network.run(LONG);
    assert!(!network.established(0, 1));
    let status = network.nodes[1].speaker.status(network.now);
    let words = "peer says AS 65009 but Node/n0 expects 64512";
    assert!(
        network.has_said(1, words),
        "{:?}",
        status.peers[0].last_error
    );
}

#[test]
fn garbage_ends_one_session_and_no_other() {
    let mut network = mesh(9);
    network.run(LONG);
    network.inject(4, 0, b"GET / HTTP/1.1\r\n\r\n");
    network.run(Duration::from_millis(1));
    assert!(!network.established(0, 4));
    assert!((1..4).all(|other| network.established(0, other)));
    network.run(LONG);
    check_mesh(&network);
}

#[test]
fn a_refresh_is_answered_with_the_whole_family() {
    let mut network = pair(10);
    network.run(LONG);
    let updates =
        |network: &Network| network.nodes[1].speaker.status(network.now).peers[0].updates_received;
    let before = updates(&network);
    let refresh = RouteRefresh {
        family: Family::IPV6,
        subtype: 0,
    };
    network.inject(1, 0, &encode_route_refresh(&refresh));
    network.run(Duration::from_millis(1));
    assert!(updates(&network) > before);
}

#[test]
fn a_configuration_change_touches_only_the_peer_it_is_about() {
    let mut network = mesh(11);
    network.run(LONG);
    let counts = |network: &Network| -> Vec<u64> {
        let status = network.nodes[0].speaker.status(network.now);
        status
            .peers
            .iter()
            .map(|peer| peer.established_count)
            .collect()
    };
    let before = counts(&network);
    network.configure(0, |config| {
        if let Some(peer) = config.peers.get_mut(&key(1)) {
            peer.hold_time = 30;
        }
    });
    network.run(LONG);
    let changed: Vec<u64> = counts(&network)
        .iter()
        .zip(&before)
        .map(|(after, before)| after - before)
        .collect();
    assert_eq!(changed, [1, 0, 0, 0]);
    check_mesh(&network);
}

#[test]
fn what_a_peer_is_told_changes_without_a_reset() {
    let mut network = pair(12);
    network.run(LONG);
    network.configure(0, |config| {
        config.next_hop_v4 = Some(std::net::Ipv4Addr::new(10, 0, 0, 99))
    });
    network.run(Duration::from_secs(1));
    let v4 = prefixes(0)[0];
    assert_eq!(
        network.nodes[1].fib[&v4],
        ["10.0.0.99".parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(
        network.nodes[1].speaker.status(network.now).peers[0].established_count,
        1
    );
}

#[test]
fn a_removed_peer_takes_its_routes_along() {
    let mut network = pair(13);
    network.run(LONG);
    network.configure(0, |config| config.peers.clear());
    network.run(Duration::from_secs(1));
    assert!(network.nodes.iter().all(|node| node.fib.is_empty()));
}

#[test]
fn too_many_prefixes_end_the_session_for_a_while() {
    let limited = |(node, config): (usize, PeerConfig)| {
        (
            node,
            PeerConfig {
                prefix_limit: Some(PrefixLimit::new(1)),
                ..config
            },
        )
    };
    let configs = vec![
        config(0, 64512, &[peer(1, 65001)]),
        config(1, 65001, &[limited(peer(0, 64512))]),
    ];
    let mut network = Network::new(configs, 15);
    network.run(Duration::from_secs(20));
    assert!(
        network.established(1, 0),
        "one of each family is within the limit"
    );
    network.set_routes(0, &two_v4_prefixes());
    network.run(Duration::from_secs(20));
    assert!(network.has_said(
        1,
        "peer announced 2 IPv4 unicast prefixes, over the limit of 1"
    ));
    assert!(!network.established(1, 0));
    assert_eq!(network.nodes[1].fib.len(), 0);
    network.set_routes(0, &prefixes(0)[..1]);
    network.run(Duration::from_secs(120));
    assert!(network.established(1, 0));
}
