//! Speakers on loopback addresses, through the interface that an agent uses.

#![allow(clippy::unwrap_used)] // a test may panic

use bgp_speaker::{
    FibChange, FibEvent, FibEvents, Handle, LocalRoute, Options, PeerConfig, PeerKey, PeerStatus,
    SpeakerConfig, Stop, spawn,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const PATIENCE: Duration = Duration::from_secs(30);

/// A speaker at 127.0.0.`number`, of AS 65000 + `number`.
struct Node {
    number: u8,
    port: u16,
    handle: Handle,
    fib: FibEvents,
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn loopback(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, number)
}

impl Node {
    fn new(number: u8) -> Self {
        let (handle, fib) = spawn(Options::default()).unwrap();
        Self {
            number,
            port: free_port(),
            handle,
            fib,
        }
    }

    fn key(&self) -> PeerKey {
        PeerKey::new(IpAddr::V4(loopback(self.number)), self.port)
    }

    fn prefix(&self) -> ipnet::IpNet {
        format!("10.1.{}.0/26", self.number).parse().unwrap()
    }

    fn next_hop(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, self.number)
    }

    fn start(&self, peers: &[&Node], hold_time: u16) {
        let config = |peer: &&Node| PeerConfig {
            source_address: Some(IpAddr::V4(loopback(self.number))),
            hold_time,
            ..PeerConfig::new(
                format!("Node/n{}", peer.number),
                65000 + u32::from(peer.number),
            )
        };
        let peers: Vec<_> = peers
            .iter()
            .map(|peer| (peer.key(), config(peer)))
            .collect();
        self.configure(peers.into_iter().collect());
        self.handle
            .local_routes(BTreeSet::from([LocalRoute::from(self.prefix())]));
    }

    fn configure(&self, peers: BTreeMap<PeerKey, PeerConfig>) {
        self.handle.configure(SpeakerConfig {
            listen_port: self.port,
            next_hop_v4: Some(self.next_hop()),
            peers,
            ..SpeakerConfig::new(
                65000 + u32::from(self.number),
                Ipv4Addr::new(192, 0, 2, self.number),
            )
        });
    }

    async fn peer(&self, other: &Node) -> PeerStatus {
        let status = self.handle.status().await.unwrap();
        status
            .peers
            .into_iter()
            .find(|peer| peer.key == other.key())
            .unwrap()
    }

    async fn wait_for_peer(&self, other: &Node, condition: impl Fn(&PeerStatus) -> bool) {
        let wait = async {
            while !condition(&self.peer(other).await) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("never came about: {:?}", self.peer(other).await);
        }
    }

    async fn next_fib(&mut self) -> FibEvent {
        tokio::time::timeout(PATIENCE, self.fib.recv())
            .await
            .unwrap()
            .unwrap()
    }
}

fn is_up(peer: &PeerStatus) -> bool {
    peer.state == "Established" && peer.received == 1
}

async fn connect_from(number: u8, to: &Node) -> TcpStream {
    let target = SocketAddr::new(to.key().address, to.port);
    loop {
        // The listener may still be starting.
        let socket = TcpSocket::new_v4().unwrap();
        socket
            .bind(SocketAddr::new(IpAddr::V4(loopback(number)), 0))
            .unwrap();
        if let Ok(stream) = socket.connect(target).await {
            return stream;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    let read = stream.read_to_end(&mut received);
    // A reset after the last octet is fine too.
    let _ = tokio::time::timeout(PATIENCE, read).await.unwrap();
    received
}

#[tokio::test]
async fn two_speakers_learn_each_other_and_say_when_that_is_all() {
    let (mut a, b) = (Node::new(1), Node::new(2));
    a.start(&[&b], 90);
    b.start(&[&a], 90);
    let set = FibChange::Set {
        prefix: b.prefix(),
        next_hops: vec![IpAddr::V4(b.next_hop()).into()],
        priority: None,
    };
    assert_eq!(a.next_fib().await, FibEvent::Changes(vec![set]));
    assert_eq!(a.next_fib().await, FibEvent::Converged);
}

#[tokio::test]
async fn a_planned_stop_leaves_routes_stale_and_a_drain_removes_them() {
    for (stop, received) in [(Stop::Planned, 1), (Stop::Drain, 0)] {
        let (a, b) = (Node::new(3), Node::new(4));
        a.start(&[&b], 90);
        b.start(&[&a], 90);
        b.wait_for_peer(&a, is_up).await;
        a.handle.shutdown(stop).await;
        b.wait_for_peer(&a, |peer| peer.state != "Established")
            .await;
        let peer = b.peer(&a).await;
        assert_eq!(
            (peer.received, peer.stale),
            (received, received),
            "{stop:?}"
        );
        assert!(peer.last_error.is_some());
        assert!(a.handle.status().await.is_err());
    }
}

#[tokio::test]
async fn a_stranger_is_sent_away_and_garbage_hurts_nobody() {
    let (a, b) = (Node::new(5), Node::new(6));
    a.start(&[&b], 90);
    b.start(&[&a], 90);
    a.wait_for_peer(&b, is_up).await;
    let sessions = a.peer(&b).await.established_count;

    let mut stranger = connect_from(99, &a).await;
    let received = read_all(&mut stranger).await;
    assert_eq!(
        &received[16..],
        [0, 21, 3, 6, 5],
        "Cease, connection rejected"
    );

    // From the peer's own address, beside its session.
    let mut garbage = connect_from(6, &a).await;
    garbage.write_all(&[0x47; 3000]).await.unwrap();
    let received = read_all(&mut garbage).await;
    assert_eq!(
        received[received.len() - 3..],
        [3, 1, 1],
        "connection not synchronised"
    );

    let peer = a.peer(&b).await;
    assert!(
        is_up(&peer) && peer.established_count == sessions,
        "{peer:?}"
    );
}

#[tokio::test]
async fn an_owner_that_reads_nothing_costs_no_keepalive_and_finds_changes_merged() {
    let (mut a, b) = (Node::new(7), Node::new(8));
    a.start(&[&b], 3);
    b.start(&[&a], 3);
    a.wait_for_peer(&b, is_up).await;
    let sessions = a.peer(&b).await.established_count;
    for number in 0..20_u8 {
        let prefix: ipnet::IpNet = format!("10.2.{number}.0/24").parse().unwrap();
        b.handle
            .local_routes(BTreeSet::from([LocalRoute::from(prefix)]));
        a.wait_for_peer(&b, is_up).await;
    }
    a.wait_for_peer(&b, |peer| peer.since >= 4).await;
    assert_eq!(a.peer(&b).await.established_count, sessions);
    let mut events = 0;
    while a.next_fib().await != FibEvent::Converged {
        events += 1;
    }
    assert!(events <= 2, "{events} events");
}

#[tokio::test]
async fn a_peer_that_refuses_is_named_as_such_and_can_be_removed() {
    let (a, b) = (Node::new(9), Node::new(10));
    a.start(&[&b], 90);
    a.wait_for_peer(&b, |peer| {
        peer.last_error.as_deref() == Some("connection refused")
    })
    .await;
    a.configure(BTreeMap::new());
    assert_eq!(a.handle.status().await.unwrap().peers, []);
}

#[tokio::test]
async fn nobody_can_connect_before_the_routes_of_the_node_are_known() {
    let a = Node::new(12);
    a.configure(BTreeMap::new());
    assert_eq!(a.handle.status().await.unwrap().peers, []);
    let target = SocketAddr::new(a.key().address, a.port);
    let refused = TcpStream::connect(target).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    a.handle.local_routes(BTreeSet::new());
    let connected = tokio::time::timeout(PATIENCE, connect_from(13, &a)).await;
    assert!(connected.is_ok());
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_and_tried_again() {
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let mut a = Node::new(11);
    a.port = taken.local_addr().unwrap().port();
    a.start(&[], 90);
    let listen_error = async |wanted: bool| {
        while a.handle.status().await.unwrap().listen_error.is_some() != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, listen_error(true))
        .await
        .unwrap();
    drop(taken);
    tokio::time::timeout(PATIENCE, listen_error(false))
        .await
        .unwrap();
}
