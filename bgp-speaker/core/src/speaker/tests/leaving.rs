//! Peers that come in the place of others.

use super::network::{Network, config, key, prefixes};
use super::{LONG, pair, peer};
use crate::config::{PeerConfig, SpeakerConfig};
use crate::speaker::{Rejected, Speaker};
use crate::wire::{Framer, Message, SessionParams, decode};
use crate::{LocalRoute, Restart};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const NODES: usize = 3;
const REFLECTOR: usize = NODES;

fn mesh_of(node: usize) -> SpeakerConfig {
    let others = (0..NODES).filter(|other| *other != node);
    let peers: Vec<_> = others.map(|other| peer(other, 64512)).collect();
    config(node, 64512, &peers)
}

fn reflected(node: usize) -> SpeakerConfig {
    config(node, 64512, &[peer(REFLECTOR, 64512)])
}

/// A mesh, and a route reflector that would have its nodes as clients.
fn network(seed: u64) -> Network {
    let clients: Vec<_> = (0..NODES)
        .map(|node| {
            let (node, config) = peer(node, 64512);
            let route_reflector_client = true;
            (
                node,
                PeerConfig {
                    route_reflector_client,
                    ..config
                },
            )
        })
        .collect();
    let reflector = config(REFLECTOR, 64512, &clients);
    let mut network = Network::new((0..NODES).map(mesh_of).chain([reflector]).collect(), seed);
    network.set_routes(REFLECTOR, &[]);
    network
}

fn nothing_was_missed(network: &Network) {
    for node in 0..NODES {
        assert_eq!(network.nodes[node].removed, [], "node {node}");
        for other in (0..NODES).filter(|other| *other != node) {
            for prefix in prefixes(other) {
                assert!(
                    network.nodes[node].fib.contains_key(&prefix),
                    "{node} {prefix}"
                );
            }
        }
    }
}

#[test]
fn from_a_mesh_to_a_reflector_and_back_no_prefix_is_without_a_path() {
    for (seed, pause) in [(31, 0), (32, 200), (33, 1500)] {
        let mut network = network(seed);
        network.run(LONG);
        nothing_was_missed(&network);
        for node in 0..NODES {
            network.configure(node, |config| *config = reflected(node));
            network.run(Duration::from_millis(pause));
        }
        network.run(LONG);
        nothing_was_missed(&network);
        for node in 0..NODES {
            assert!(network.established(node, REFLECTOR));
            assert!(
                !network.established(node, (node + 1) % NODES),
                "the mesh is gone"
            );
        }
        for node in 0..NODES {
            network.configure(node, |config| *config = mesh_of(node));
            network.run(Duration::from_millis(pause));
        }
        network.run(LONG);
        nothing_was_missed(&network);
        assert!(network.established(0, 1) && !network.established(0, REFLECTOR));
    }
}

#[test]
fn a_peer_goes_in_a_moment_or_after_half_a_minute_where_those_in_its_place_do_not_come() {
    let mut network = network(34);
    network.run(LONG);
    network.kill(REFLECTOR);
    network.configure(0, |config| *config = reflected(0));
    network.run(Duration::from_secs(29));
    assert!(network.established(0, 1) && network.established(0, 2));
    network.run(Duration::from_secs(2));
    assert!(!network.established(0, 1) && !network.established(0, 2));

    let mut network = pair(35);
    network.run(LONG);
    network.configure(0, |config| config.peers.clear());
    network.run(Duration::from_millis(600));
    assert!(!network.established(1, 0));
    assert!(network.has_said(1, "Peer De-configured"));
}

#[test]
fn those_that_come_in_place_of_a_peer_may_come_a_moment_after_it_is_gone() {
    let mut network = network(37);
    network.run(LONG);
    for node in 0..NODES {
        network.configure(node, |config| config.peers.clear());
    }
    network.run(Duration::from_millis(200));
    for node in 0..NODES {
        network.configure(node, |config| *config = reflected(node));
    }
    network.run(LONG);
    nothing_was_missed(&network);
    assert!(network.established(0, REFLECTOR) && !network.established(0, 1));
}

#[test]
fn a_peer_that_is_configured_again_meanwhile_stays() {
    let mut network = network(36);
    network.run(LONG);
    network.kill(REFLECTOR);
    network.configure(0, |config| *config = reflected(0));
    network.run(Duration::from_secs(5));
    network.configure(0, |config| *config = mesh_of(0));
    network.run(Duration::from_secs(60));
    assert!(network.established(0, 1));
    let status = network.nodes[0].speaker.status(network.now);
    let peer = status.peers.iter().find(|peer| peer.key == key(1)).unwrap();
    assert_eq!(peer.established_count, 1);
}

/// What a peer that is shut down hears when it connects.
fn hears(speaker: &mut Speaker, now: Instant) -> Option<String> {
    let remote = SocketAddr::new(key(1).address, 40000);
    let local = SocketAddr::new(key(0).address, 179);
    let Err(Rejected { last, .. }) = speaker.accept(remote, local, now) else {
        panic!("it is shut down")
    };
    let mut framer = Framer::new();
    framer.push(&last);
    let frame = framer.next_frame().unwrap()?;
    match decode(&frame, &SessionParams::default()) {
        Ok(Message::Notification(notification)) => Some(notification.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_peer_that_connects_while_it_is_shut_down_is_told_why_and_then_more_and_more_seldom() {
    let start = Instant::now();
    let mut speaker = Speaker::new(Restart::default(), 1);
    let mut config = config(0, 64512, &[peer(1, 65001)]);
    let peer = config.peers.values_mut().next().unwrap();
    peer.shutdown = Some("moved".into());
    speaker.set_config(config.clone(), start);
    let own = prefixes(0).map(LocalRoute::from);
    speaker.set_local_routes(own.into(), start);
    let at = |seconds| start + Duration::from_secs(seconds);
    let said = hears(&mut speaker, at(0)).unwrap();
    assert!(
        said.contains("Administrative Shutdown") && said.contains("moved"),
        "{said}"
    );
    let told: Vec<u64> = (1..400)
        .filter(|s| hears(&mut speaker, at(*s)).is_some())
        .collect();
    assert_eq!(told, [30, 90, 210]);
    let peer = config.peers.values_mut().next().unwrap();
    peer.shutdown = Some("moved again".into());
    speaker.set_config(config, at(400));
    assert!(
        hears(&mut speaker, at(400))
            .unwrap()
            .contains("moved again")
    );
}
