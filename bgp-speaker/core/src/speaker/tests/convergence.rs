//! When the initial exchange ends, and what a restarted speaker does meanwhile.

use super::*;

/// Three nodes of different ASes, of which 0 peers with both others.
fn triple(peers: [(usize, PeerConfig); 2], seed: u64) -> Network {
    let configs = vec![
        config(0, 64512, &peers),
        config(1, 65001, &[peer(0, 64512)]),
        config(2, 65002, &[peer(0, 64512)]),
    ];
    Network::new(configs, seed)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Whether the last OPEN that `at` received from `from` has the R bit.
fn has_heard_of_restart(network: &Network, at: usize, from: usize) -> bool {
    let speaker = &network.nodes[at].speaker;
    let peer = &speaker.peers[&speaker.by_key[&key(from)]];
    let agreement = peer.agreement.as_ref().expect("Established");
    let restart = agreement.graceful_restart.as_ref();
    restart.expect("both restart gracefully").restarting
}

fn stale(network: &Network, at: usize, from: usize) -> usize {
    let status = network.nodes[at].speaker.status(network.now);
    let mut peers = status.peers.iter();
    peers.find(|peer| peer.key == key(from)).unwrap().stale
}

#[test]
fn a_dead_peer_does_not_delay_the_others() {
    let mut network = triple([peer(1, 65001), peer(2, 65002)], 14);
    let start = network.now;
    network.kill(2);
    network.run(seconds(4));
    assert_eq!(network.nodes[0].converged_at, None);
    assert!(
        network.nodes[0].fib.contains_key(&prefixes(1)[0]),
        "the living peer's routes are in"
    );
    network.run(seconds(2));
    assert_eq!(network.nodes[0].converged_at, Some(start + seconds(5)));
}

#[test]
fn a_restarted_speaker_waits_for_a_peer_as_long_as_its_restart_time_in_bounds() {
    for (restart_time, bound) in [(0, 30), (10, 30), (77, 77), (120, 120), (4095, 120)] {
        let dead = PeerConfig {
            restart_time,
            ..peer(2, 65002).1
        };
        let mut network = triple([peer(1, 65001), (2, dead)], 20);
        network.run(LONG);
        network.kill(0);
        network.kill(2);
        network.boot(0, true);
        let start = network.now;
        network.run(seconds(200));
        let converged = network.nodes[0].converged_at;
        assert_eq!(converged, Some(start + seconds(bound)), "{restart_time} s");
    }
}

#[test]
fn a_peer_that_is_back_ends_the_wait_of_a_restarted_speaker() {
    let mut network = triple([peer(1, 65001), peer(2, 65002)], 21);
    network.run(LONG);
    network.kill(0);
    network.kill(2);
    network.boot(0, true);
    network.run(seconds(40));
    assert_eq!(network.nodes[0].converged_at, None);
    network.boot(2, true);
    network.run(seconds(20));
    assert!(network.nodes[0].converged_at.is_some());
    assert!(network.nodes[0].fib.contains_key(&prefixes(2)[0]));
}

#[test]
fn a_dead_peer_does_not_delay_what_a_restarted_speaker_says_of_itself() {
    let own = PeerConfig {
        export: Export::OwnRoutes,
        ..peer(1, 65001).1
    };
    let mut network = triple([(1, own), peer(2, 65002)], 22);
    network.run(LONG);
    let [kept, gone] = prefixes(0);
    let added = "10.9.0.0/24".parse().unwrap();
    network.kill(0);
    network.kill(2);
    network.run(seconds(1));
    network.boot(0, true);
    network.set_routes(0, &[kept, added]);
    network.run(seconds(20));
    assert_eq!(network.nodes[0].converged_at, None);
    assert!(network.nodes[1].fib.contains_key(&kept));
    assert!(network.nodes[1].fib.contains_key(&added));
    assert_eq!(network.nodes[1].removed, [gone], "End-of-RIB came at once");
}

#[test]
fn a_restarted_reflector_holds_end_of_rib_back_for_a_bounded_time() {
    let mut network = triple([peer(1, 65001), peer(2, 65002)], 23);
    network.run(LONG);
    network.kill(0);
    network.kill(2);
    network.boot(0, true);
    network.run(seconds(29));
    assert_eq!(stale(&network, 1, 0), prefixes(2).len());
    assert_eq!(network.nodes[1].removed, []);
    network.run(seconds(2));
    assert_eq!(network.nodes[0].converged_at, None);
    assert_eq!(stale(&network, 1, 0), 0);
    assert_eq!(network.nodes[1].removed, prefixes(2));
}

#[test]
fn peers_hear_of_a_restart_until_the_initial_exchange_is_over() {
    let mut network = triple([peer(1, 65001), peer(2, 65002)], 24);
    network.run(LONG);
    network.kill(0);
    network.boot(0, true);
    network.run(LONG);
    assert!(has_heard_of_restart(&network, 1, 0) && has_heard_of_restart(&network, 2, 0));
    network.kill(2);
    network.boot(2, false);
    network.run(LONG);
    assert!(
        !has_heard_of_restart(&network, 2, 0),
        "not in the second session"
    );

    network.kill(0);
    network.kill(2);
    network.boot(0, true);
    network.run(seconds(200));
    network.boot(2, false);
    network.run(LONG);
    assert!(has_heard_of_restart(&network, 1, 0));
    assert!(
        !has_heard_of_restart(&network, 2, 0),
        "given up on before its first session"
    );
}

#[test]
fn a_peer_configured_long_after_a_restart_does_not_hear_of_it() {
    let mut network = triple([peer(1, 65001), peer(2, 65002)], 25);
    network.run(LONG);
    network.kill(0);
    network.nodes[0].config.peers.remove(&key(2));
    network.boot(0, true);
    network.run(LONG);
    network.configure(0, |config| {
        config.peers.insert(key(2), peer(2, 65002).1);
    });
    network.run(LONG);
    assert!(has_heard_of_restart(&network, 1, 0));
    assert!(!has_heard_of_restart(&network, 2, 0));
}
