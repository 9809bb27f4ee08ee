//! A BMP station and MRT files, on loopback addresses.

#![allow(clippy::unwrap_used)] // a test may panic

use bgp_speaker::{
    Handle, LocalRoute, Monitoring, Options, PeerConfig, PeerKey, SpeakerConfig, Stop, spawn,
};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

const PATIENCE: Duration = Duration::from_secs(30);
const ROUTES: u8 = 0;
const DOWN: u8 = 2;
const UP: u8 = 3;
const INITIATION: u8 = 4;
const TERMINATION: u8 = 5;

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A speaker at 127.0.1.`number` with a peer at 127.0.1.`other`.
fn speaker(number: u8, port: u16, other: u8, other_port: u16) -> Handle {
    let (handle, _) = spawn(Options::default()).unwrap();
    let address = |number| Ipv4Addr::new(127, 0, 1, number);
    let mut config = SpeakerConfig::new(65000 + u32::from(number), address(number));
    config.listen_port = port;
    config.next_hop_v4 = Some(Ipv4Addr::new(10, 0, 0, number));
    let mut peer = PeerConfig::new(format!("n{other}"), 65000 + u32::from(other));
    peer.source_address = Some(address(number).into());
    let key = PeerKey::new(address(other).into(), other_port);
    config.peers.insert(key, peer);
    handle.configure(config);
    handle
}

fn routes(third: &[u8]) -> BTreeSet<LocalRoute> {
    let prefix = |third| {
        format!("10.9.{third}.0/24")
            .parse::<ipnet::IpNet>()
            .unwrap()
    };
    third
        .iter()
        .map(|third| LocalRoute::from(prefix(third)))
        .collect()
}

/// The type and the rest of the next BMP message.
async fn next(station: &mut TcpStream) -> (u8, Vec<u8>) {
    let read = async {
        let mut header = [0; 6];
        station.read_exact(&mut header).await.unwrap();
        assert_eq!(header[0], 3, "version");
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let mut body = vec![0; length as usize - 6];
        station.read_exact(&mut body).await.unwrap();
        (header[5], body)
    };
    tokio::time::timeout(PATIENCE, read).await.unwrap()
}

/// Until a message of a type, with octets in it.
async fn until(station: &mut TcpStream, kind: u8, octets: &[u8]) {
    loop {
        let (found, body) = next(station).await;
        if found == kind && (octets.is_empty() || body.windows(octets.len()).any(|w| w == octets)) {
            return;
        }
    }
}

#[tokio::test]
async fn a_station_follows_sessions_and_routes_and_catches_up_after_a_break() {
    let (one, other) = (free_port(), free_port());
    let (a, b) = (speaker(1, one, 2, other), speaker(2, other, 1, one));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let updates_file = directory.path().join("updates.mrt");
    a.monitor(Monitoring {
        name: "node-a".into(),
        stations: vec![listener.local_addr().unwrap()],
        updates_file: Some(updates_file.clone()),
    });
    let (mut station, _) = listener.accept().await.unwrap();
    assert_eq!(next(&mut station).await.0, INITIATION);
    a.local_routes(routes(&[]));
    b.local_routes(routes(&[1]));
    until(&mut station, UP, &[]).await;
    until(&mut station, ROUTES, &[24, 10, 9, 1]).await;
    drop(station);
    b.local_routes(routes(&[2]));

    let (mut station, _) = tokio::time::timeout(PATIENCE, listener.accept())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(next(&mut station).await.0, INITIATION);
    assert_eq!(next(&mut station).await.0, UP);
    until(&mut station, ROUTES, &[24, 10, 9, 2]).await;
    b.shutdown(Stop::Drain).await;
    until(&mut station, DOWN, &[]).await;
    a.shutdown(Stop::Planned).await;
    until(&mut station, TERMINATION, &[]).await;

    let written = std::fs::read(&updates_file).unwrap();
    assert!(written.windows(4).any(|octets| octets == [24, 10, 9, 1]));
}

#[tokio::test]
async fn the_table_is_written_when_asked_for() {
    let (one, other) = (free_port(), free_port());
    let (a, b) = (speaker(3, one, 4, other), speaker(4, other, 3, one));
    a.local_routes(routes(&[3]));
    b.local_routes(routes(&[4]));
    let both = async {
        while a.status().await.unwrap().prefixes < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, both).await.unwrap();
    let table = a.mrt_table().await.unwrap();
    for prefix in [[24, 10, 9, 3], [24, 10, 9, 4]] {
        assert!(table.windows(4).any(|octets| octets == prefix));
    }
}
