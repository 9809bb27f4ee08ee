//! Peers that nobody has listed.

use super::network::{Network, config, key};
use super::{LONG, peer};
use crate::config::{DynamicPeers, PeerConfig, RemoteAs, SpeakerConfig};
use crate::speaker::{Output, Speaker};
use crate::wire::{ErrorCode, Message, Notification, SessionParams, decode, encode_notification};
use crate::{LocalRoute, PeerKey, Restart};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Node 0 lets anybody from 10.0.0.0/24 connect, two at a time; the others know it.
fn hub(spokes: usize) -> Network {
    let template = peer(9, 0).1;
    let mut hub = config(0, 64512, &[]);
    hub.dynamic_peers.insert(
        "10.0.0.0/24".parse().unwrap(),
        DynamicPeers {
            limit: 2,
            peer: PeerConfig {
                remote_as: RemoteAs::External,
                ..template
            },
        },
    );
    let spokes = (1..=spokes).map(|node| {
        let number = 65000 + u32::try_from(node).unwrap();
        config(node, number, &[peer(0, 64512)])
    });
    Network::new([hub].into_iter().chain(spokes).collect(), 1)
}

fn names(network: &Network) -> Vec<(PeerKey, String)> {
    let status = network.nodes[0].speaker.status(network.now);
    let peers = status.peers.into_iter();
    peers.map(|peer| (peer.key, peer.state)).collect()
}

#[test]
fn whoever_connects_from_a_range_is_a_peer_up_to_the_limit() {
    let mut network = hub(3);
    network.run(LONG);
    let up = |node| network.established(0, node);
    let sessions = (1..=3).filter(|node| up(*node)).count();
    assert_eq!(sessions, 2);
    assert_eq!(names(&network).len(), 2);
    assert!(
        (1..=3).any(|node| network.has_said(node, "Connection Rejected")),
        "the third is told"
    );
}

#[test]
fn a_peer_of_a_range_is_forgotten_once_its_routes_are() {
    let mut network = hub(2);
    network.run(LONG);
    assert_eq!(names(&network).len(), 2);
    network.power_off(1);
    network.run(Duration::from_secs(100));
    assert_eq!(names(&network).len(), 2, "its routes are kept for now");
    network.run(Duration::from_secs(200));
    assert_eq!(names(&network), [(key(2), "Established".to_owned())]);
}

/// Were it otherwise, whoever connects and leaves often enough would keep everybody else out.
#[test]
fn whoever_leaves_before_there_is_a_session_gives_its_place_back() {
    let now = Instant::now();
    let mut speaker = Speaker::new(Restart::default(), 1);
    speaker.set_config(hub(0).nodes[0].config.clone(), now);
    speaker.set_local_routes(BTreeSet::new(), now);
    let local = SocketAddr::new(key(0).address, 179);
    let cease = Notification::new(ErrorCode::CEASE_ADMIN_SHUTDOWN);
    for stranger in 10..30 {
        let remote = SocketAddr::new(Ipv4Addr::new(10, 0, 0, stranger).into(), 40000);
        let (connection, _) = speaker.accept(remote, local, now).expect("a place");
        if stranger % 2 == 0 {
            speaker.lost(connection, "reset by peer", now);
        } else {
            speaker.received(connection, &encode_notification(&cease), now);
        }
        assert!(speaker.status(now).peers.is_empty(), "{stranger}");
    }
}

#[test]
fn a_range_that_is_configured_no_more_takes_its_peers_along() {
    let mut network = hub(2);
    network.run(LONG);
    network.configure(0, |config| config.dynamic_peers.clear());
    network.run(Duration::from_secs(1));
    assert!(names(&network).is_empty());
    assert!(network.nodes[0].fib.is_empty());
}

/// A speaker with a peer on interface `eth0`.
fn unnumbered(now: Instant) -> Speaker {
    let mut speaker = Speaker::new(Restart::default(), 1);
    let mut config = SpeakerConfig::new(64512, Ipv4Addr::new(192, 0, 2, 1));
    let peer = PeerConfig::new("BGPPeer/tor", RemoteAs::External);
    config.interface_peers.insert("eth0".into(), peer);
    speaker.set_config(config, now);
    speaker.set_local_routes(
        BTreeSet::from([LocalRoute::from(
            "10.1.0.0/26".parse::<ipnet::IpNet>().unwrap(),
        )]),
        now,
    );
    speaker
}

fn targets(speaker: &mut Speaker, now: Instant) -> Vec<SocketAddr> {
    speaker.tick(now);
    let outputs = std::iter::from_fn(|| speaker.poll());
    outputs
        .filter_map(|output| match output {
            Output::Connect { target, .. } => Some(target),
            _ => None,
        })
        .collect()
}

#[test]
fn a_router_on_an_interface_is_a_peer_by_its_link_local_address() {
    let now = Instant::now();
    let mut speaker = unnumbered(now);
    assert!(targets(&mut speaker, now).is_empty());
    let router: Ipv6Addr = "fe80::1".parse().unwrap();
    speaker.set_neighbour("eth0", Some((router, 7)), now);
    speaker.set_neighbour("eth1", Some((router, 8)), now);
    assert_eq!(
        targets(&mut speaker, now),
        ["[fe80::1%7]:179".parse().unwrap()]
    );
    // The same address on another interface is somebody else.
    let local: SocketAddr = "[fe80::2]:179".parse().unwrap();
    let stranger = speaker.accept("[fe80::1%8]:4000".parse().unwrap(), local, now);
    assert!(stranger.is_err());
    let known = speaker.accept("[fe80::1%7]:4000".parse().unwrap(), local, now);
    let (connection, _) = known.expect("the peer");
    let open = speaker.transmit(connection, usize::MAX).concat();
    let mut framer = crate::wire::Framer::new();
    framer.push(&open);
    let frame = framer.next_frame().unwrap().expect("an OPEN");
    let Ok(Message::Open(open)) = decode(&frame, &SessionParams::default()) else {
        panic!("not an OPEN");
    };
    let next_hops = crate::wire::Capability::ExtendedNextHop(vec![(crate::wire::Family::IPV4, 2)]);
    assert!(open.capabilities.contains(&next_hops));
}

#[test]
fn a_router_that_has_changed_or_gone_is_no_peer_any_more() {
    let now = Instant::now();
    let mut speaker = unnumbered(now);
    let keys = |speaker: &Speaker| -> Vec<IpAddr> {
        let peers = speaker.status(now).peers.into_iter();
        peers.map(|peer| peer.key.address).collect()
    };
    let first: Ipv6Addr = "fe80::1".parse().unwrap();
    let second: Ipv6Addr = "fe80::2".parse().unwrap();
    speaker.set_neighbour("eth0", Some((first, 7)), now);
    assert_eq!(keys(&speaker), [IpAddr::V6(first)]);
    speaker.set_neighbour("eth0", Some((second, 7)), now);
    assert_eq!(keys(&speaker), [IpAddr::V6(second)]);
    speaker.set_neighbour("eth0", None, now);
    assert!(keys(&speaker).is_empty());
}
