//! Tracked connections and logged packets of the real kernel.
#![allow(clippy::unwrap_used)]

mod common;

use common::Namespace;
use kernel::{Connection, Conntrack, packet_log};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

const TRACK: &str = "table inet t {
    chain o { type filter hook output priority 0; ct state new accept; }
    chain i { type filter hook input priority 0; ct mark & 0x40000000 != 0 drop; }
}";

/// A connection over loopback: client, server.
fn connect(namespace: &Namespace, address: SocketAddr) -> (TcpStream, TcpStream) {
    namespace.run(|| {
        let listener = TcpListener::bind(address).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        (client, server)
    })
}

fn conntrack(namespace: &Namespace) -> Conntrack {
    namespace.run(|| Conntrack::open().unwrap())
}

fn of(conntrack: &mut Conntrack, client: &TcpStream) -> Vec<Connection> {
    let port = client.local_addr().unwrap().port();
    let ours = |c: &Connection| c.original.ports.is_some_and(|(source, _)| source == port);
    conntrack.connections(ours).unwrap()
}

#[test]
fn a_marked_connection_keeps_its_other_bits_and_can_be_unmarked() {
    for address in [
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
    ] {
        let namespace = Namespace::new();
        namespace.nft(TRACK).unwrap();
        let mut conntrack = conntrack(&namespace);
        let (mut client, mut server) = connect(&namespace, address);
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();

        let found = of(&mut conntrack, &client);
        assert_eq!(found.len(), 1, "{found:?}");
        let peer = client.peer_addr().unwrap();
        assert_eq!(found[0].original.destination, peer.ip());
        assert_eq!(found[0].reply.source, peer.ip());
        assert_eq!(found[0].reply.ports.unwrap().0, peer.port());
        assert_eq!(found[0].mark, 0);

        assert_eq!(conntrack.mark(&found, 0x5, 0x5), []);
        assert_eq!(conntrack.mark(&found, 0x4000_0000, 0x4000_0000), []);
        assert_eq!(of(&mut conntrack, &client)[0].mark, 0x4000_0005);
        assert_eq!(conntrack.mark(&found, 0, 0x4000_0000), []);
        assert_eq!(of(&mut conntrack, &client)[0].mark, 0x5);
    }
}

#[test]
fn a_deleted_connection_is_gone_and_deleting_it_again_is_no_failure() {
    let namespace = Namespace::new();
    namespace.nft(TRACK).unwrap();
    let mut conntrack = conntrack(&namespace);
    let (client, _server) = connect(&namespace, (Ipv4Addr::LOCALHOST, 0).into());
    let found = of(&mut conntrack, &client);
    assert_eq!(conntrack.delete(&found), []);
    assert_eq!(of(&mut conntrack, &client), []);
    assert_eq!(conntrack.delete(&found), []);
    assert_eq!(conntrack.mark(&found, 1, 1), []);
}

#[test]
fn a_logged_packet_comes_with_its_prefix_and_first_bytes() {
    let namespace = Namespace::new();
    let rule = "table inet t { chain o { type filter hook output priority 0
        udp dport 9 log prefix \"d abc\" group 7\n }\n }\n";
    namespace.nft(rule).unwrap();
    let mut packets = namespace.run(|| packet_log(7, 40).unwrap());
    namespace.run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.send_to(&[1; 100], (Ipv4Addr::LOCALHOST, 9)).unwrap();
    });
    let packet = packets.blocking_recv().unwrap();
    assert_eq!(packet.prefix, "d abc");
    assert_eq!(packet.oif, Some(1));
    assert_eq!(packet.bytes.len(), 40);
    assert_eq!(packet.bytes[9], 17);
    assert_eq!(packet.bytes[22..24], [0, 9]);
}

#[test]
fn a_group_has_one_reader() {
    let namespace = Namespace::new();
    let _first = namespace.run(|| packet_log(8, 40).unwrap());
    let error = namespace.run(|| packet_log(8, 40).map(drop).unwrap_err());
    assert_eq!(error.what, "packet log");
}
