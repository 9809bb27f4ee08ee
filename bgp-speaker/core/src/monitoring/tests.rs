//! What is written is read by another implementation, bgpkit-parser.

use super::*;
use crate::wire::{AsPath, AsSegment, Attributes, Family, NextHop, Nlri, SessionParams};
use crate::wire::{UpdateEncoder, encode_keepalive};
use bgpkit_parser::models::{ElemType, MrtMessage, TableDumpV2Message};
use bgpkit_parser::parser::bmp::messages::{BmpMessageBody, PeerDownReason};
use bgpkit_parser::parser::bmp::{messages::BmpMessage, parse_bmp_msg};
use bgpkit_parser::{BgpElem, BgpkitParser};
use std::time::Duration;

const TIME: Duration = Duration::new(1_700_000_000, 123_456_000);

fn peer(remote: &str, four_octet_as: bool) -> Arc<MonitoredPeer> {
    let remote: SocketAddr = remote.parse().unwrap();
    let local = if remote.is_ipv6() {
        "[fd00::1]:179"
    } else {
        "10.0.0.1:179"
    };
    Arc::new(MonitoredPeer {
        remote,
        local: local.parse().unwrap(),
        remote_as: 65001,
        local_as: 64512,
        router_id: Ipv4Addr::new(192, 0, 2, 2),
        four_octet_as,
        add_path: false,
    })
}

fn attributes(path: &[u32]) -> Attributes {
    Attributes {
        as_path: AsPath(vec![AsSegment::Sequence(path.to_vec())]),
        communities: vec![0xfde9_0001],
        med: Some(7),
        ..Attributes::default()
    }
}

fn nlri(prefix: &str) -> Nlri {
    Nlri {
        prefix: prefix.parse().unwrap(),
        path_id: 0,
    }
}

fn next_hop(address: &str) -> NextHop {
    NextHop {
        address: address.parse().unwrap(),
        link_local: None,
    }
}

/// Three prefixes of two families announced, one withdrawn.
fn updates(four_octet_as: bool) -> Vec<u8> {
    let params = SessionParams {
        four_octet_as,
        families: vec![Family::IPV4, Family::IPV6],
        ..SessionParams::default()
    };
    let encoder = UpdateEncoder::new(&params);
    let mut octets = Vec::new();
    let path = attributes(&[65001, 65100]);
    let v4 = ["10.1.0.0/24", "10.2.0.0/16"].map(nlri);
    encoder
        .announce(Family::IPV4, &path, next_hop("10.0.0.2"), v4, &mut octets)
        .unwrap();
    let v6 = [nlri("2001:db8::/32")];
    encoder
        .announce(Family::IPV6, &path, next_hop("fd00::2"), v6, &mut octets)
        .unwrap();
    encoder
        .withdraw(Family::IPV4, [nlri("10.3.0.0/24")], &mut octets)
        .unwrap();
    octets
}

fn bmp(octets: Vec<u8>) -> Vec<BmpMessage> {
    let mut octets = octets.into();
    let mut messages = Vec::new();
    loop {
        messages.push(parse_bmp_msg(&mut octets).unwrap());
        if octets.is_empty() {
            return messages;
        }
    }
}

fn mrt(octets: Vec<u8>) -> Vec<BgpElem> {
    BgpkitParser::from_reader(std::io::Cursor::new(octets))
        .into_iter()
        .collect()
}

fn summary(elems: &[BgpElem]) -> Vec<(ElemType, String, String)> {
    let path = |elem: &BgpElem| {
        elem.as_path
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default()
    };
    let line = |elem: &BgpElem| (elem.elem_type, elem.prefix.to_string(), path(elem));
    elems.iter().map(line).collect()
}

fn expected() -> Vec<(ElemType, String, String)> {
    let announced = |prefix: &str| {
        (
            ElemType::ANNOUNCE,
            prefix.to_owned(),
            "65001 65100".to_owned(),
        )
    };
    vec![
        announced("10.1.0.0/24"),
        announced("10.2.0.0/16"),
        announced("2001:db8::/32"),
        (ElemType::WITHDRAW, "10.3.0.0/24".to_owned(), String::new()),
    ]
}

fn encoded(
    encode: fn(&Monitored, Duration, &mut Vec<u8>),
    peer: &Arc<MonitoredPeer>,
    event: MonitoredEvent,
) -> Vec<u8> {
    let mut octets = Vec::new();
    let peer = Arc::clone(peer);
    encode(&Monitored { peer, event }, TIME, &mut octets);
    octets
}

#[test]
fn a_station_reads_what_is_monitored() {
    for (remote, four_octet_as) in [("10.0.0.2:40000", true), ("[fd00::2]:40000", false)] {
        let peer = peer(remote, four_octet_as);
        let event = MonitoredEvent::Updates(updates(four_octet_as));
        let messages = bmp(encoded(bmp::encode, &peer, event));
        assert_eq!(messages.len(), 3, "one UPDATE each");
        let mut elems = Vec::new();
        for message in messages {
            let header = message.per_peer_header.unwrap();
            assert_eq!(header.peer_ip, peer.remote.ip());
            assert_eq!(header.peer_asn.to_u32(), 65001);
            assert_eq!(header.peer_bgp_id, peer.router_id);
            assert!((header.timestamp - TIME.as_secs_f64()).abs() < 1e-3);
            let BmpMessageBody::RouteMonitoring(monitoring) = message.message_body else {
                panic!("{:?}", message.message_body);
            };
            let (time, asn) = (header.timestamp, header.peer_asn);
            elems.extend(bgpkit_parser::Elementor::bgp_to_elems(
                monitoring.bgp_message,
                time,
                &header.peer_ip,
                &asn,
            ));
        }
        assert_eq!(summary(&elems), expected());
    }
}

#[test]
fn a_station_reads_who_we_are_and_which_sessions_come_and_go() {
    let messages = bmp([bmp::initiation("node-1", "Ocicat"), bmp::termination()].concat());
    let BmpMessageBody::InitiationMessage(initiation) = &messages[0].message_body else {
        panic!("{messages:?}");
    };
    let words: Vec<_> = initiation
        .tlvs
        .iter()
        .map(|tlv| tlv.info.as_str())
        .collect();
    assert_eq!(words, ["Ocicat", "node-1"]);
    assert!(matches!(
        messages[1].message_body,
        BmpMessageBody::TerminationMessage(_)
    ));

    let peer = peer("10.0.0.2:40000", true);
    let open = crate::wire::Open {
        as_number: 65001,
        hold_time: 90,
        router_id: peer.router_id,
        capabilities: vec![crate::wire::Capability::FourOctetAs(65001)],
    };
    let open: Arc<[u8]> = crate::wire::encode_open(&open).into();
    let up = MonitoredEvent::Up {
        sent_open: Arc::clone(&open),
        received_open: open,
    };
    let messages = bmp(encoded(bmp::encode, &peer, up));
    let BmpMessageBody::PeerUpNotification(up) = &messages[0].message_body else {
        panic!("{messages:?}");
    };
    assert_eq!(
        (up.local_addr, up.local_port, up.remote_port),
        (peer.local.ip(), 179, 40000)
    );
    for (reason, code) in [
        (
            DownReason::Sent(encode_keepalive()),
            PeerDownReason::LocalSystemClosedNotificationPduFollows,
        ),
        (
            DownReason::Received(encode_keepalive()),
            PeerDownReason::RemoteSystemClosedNotificationPduFollows,
        ),
        (
            DownReason::Lost,
            PeerDownReason::LocalSystemClosedFsmEvenFollows,
        ),
        (DownReason::Deconfigured, PeerDownReason::PeerDeConfigured),
    ] {
        let messages = bmp(encoded(bmp::encode, &peer, MonitoredEvent::Down(reason)));
        let BmpMessageBody::PeerDownNotification(down) = &messages[0].message_body else {
            panic!("{messages:?}");
        };
        assert_eq!(down.reason, code);
    }
}

#[test]
fn an_mrt_file_of_updates_is_read() {
    for (remote, four_octet_as) in [("10.0.0.2:40000", true), ("[fd00::2]:40000", false)] {
        let peer = peer(remote, four_octet_as);
        let lost = MonitoredEvent::Down(DownReason::Lost);
        let event = MonitoredEvent::Updates(updates(four_octet_as));
        let octets = [
            encoded(mrt::encode, &peer, event),
            encoded(mrt::encode, &peer, lost),
        ];
        let elems = mrt(octets.concat());
        assert_eq!(summary(&elems), expected());
        assert!(elems.iter().all(|elem| elem.peer_ip == peer.remote.ip()));
        assert!((elems[0].timestamp - TIME.as_secs_f64()).abs() < 1e-3);
        let parser = BgpkitParser::from_reader(std::io::Cursor::new(octets.concat()));
        assert_eq!(parser.into_record_iter().count(), 4);
    }
}

#[test]
fn an_mrt_table_is_read() {
    let table_peer = |address: &str, remote_as| mrt::TablePeer {
        address: address.parse().unwrap(),
        router_id: Ipv4Addr::new(192, 0, 2, 2),
        remote_as,
    };
    let peers = [
        table_peer("0.0.0.0", 64512),
        table_peer("10.0.0.2", 65001),
        table_peer("fd00::2", 4_200_000_001),
    ];
    let mut table = mrt::TableWriter::new(Ipv4Addr::new(192, 0, 2, 1), &peers, TIME);
    let (one, other) = (attributes(&[65001]), attributes(&[4_200_000_001]));
    let path = |peer, path_id, attributes, next_hop| mrt::TablePath {
        peer,
        path_id,
        attributes,
        next_hop,
    };
    let v4 = Some(next_hop("10.0.0.2"));
    let v6 = Some(NextHop {
        address: "fd00::2".parse().unwrap(),
        link_local: Some("fe80::2".parse().unwrap()),
    });
    table.prefix(
        "10.1.0.0/17".parse().unwrap(),
        &[path(1, 0, &one, v4), path(2, 0, &other, v6)],
    );
    table.prefix("2001:db8::/32".parse().unwrap(), &[path(2, 0, &other, v6)]);
    table.prefix("10.2.0.0/16".parse().unwrap(), &[path(1, 5, &one, v4)]);
    table.prefix(
        "10.3.0.0/16".parse().unwrap(),
        &[path(0, 0, &Attributes::default(), None)],
    );
    let octets = table.finish();

    let records = BgpkitParser::from_reader(std::io::Cursor::new(octets.clone()));
    let ribs: Vec<_> = records
        .into_record_iter()
        .filter_map(|record| match record.message {
            MrtMessage::TableDumpV2Message(TableDumpV2Message::RibAfi(rib)) => Some(rib),
            _ => None,
        })
        .collect();
    assert_eq!(ribs.len(), 4);
    assert_eq!(ribs[2].rib_entries[0].path_id, Some(5));
    let numbers: Vec<_> = ribs.iter().map(|rib| rib.sequence_number).collect();
    assert_eq!(numbers, [0, 1, 2, 3]);

    let elems = mrt(octets);
    let lines: Vec<_> = elems
        .iter()
        .map(|elem| {
            let next_hop = elem
                .next_hop
                .map(|address| address.to_string())
                .unwrap_or_default();
            format!("{} {} {next_hop}", elem.prefix.prefix, elem.peer_asn)
        })
        .collect();
    assert_eq!(
        lines[..4],
        [
            "10.1.0.0/17 65001 10.0.0.2",
            "10.1.0.0/17 4200000001 fd00::2",
            "2001:db8::/32 4200000001 fd00::2",
            "10.2.0.0/16 65001 10.0.0.2",
        ]
    );
}
