use super::*;
use crate::tests::net;
use model::{HostPort, Labels, NamedPort, Protocol};
use proptest::prelude::*;

fn endpoint(container: &str, last: u8) -> WorkloadEndpoint {
    WorkloadEndpoint {
        namespace: "shop".to_owned().into(),
        name: format!("n1-k8s-{container}-eth0").into(),
        node: "n1".to_owned().into(),
        pod: container.to_owned().into(),
        pod_uid: Some("uid \"ä\"".to_owned().into()),
        container_id: container.to_owned().into(),
        endpoint: "eth0".to_owned().into(),
        interface_name: "oci7".to_owned().into(),
        mac: [2, 0, 0, 0, 0, last],
        ip_networks: vec![IpNet::from(IpAddr::from([10, 0, 0, last]))],
        labels: Labels::from([("app".to_owned(), "api".to_owned())]),
        ports: vec![NamedPort {
            name: "http".to_owned(),
            protocol: Protocol::Tcp,
            port: 80,
        }]
        .into(),
        host_ports: vec![HostPort {
            host_ip: None,
            host_port: 8080,
            protocol: Protocol::Tcp,
            port: 80,
        }],
    }
}

fn record() -> impl Strategy<Value = Record> {
    let cidr = |n: u8| IpNet::new(IpAddr::from([10, 0, n, 0]), 26).unwrap();
    let block = move |n| IpamBlock {
        cidr: cidr(n),
        node: "n1".to_owned(),
    };
    prop_oneof![
        (0..4u8).prop_map(move |n| Record::Block(block(n))),
        (0..4u8).prop_map(move |n| Record::BlockGone(cidr(n))),
        (0..6u8, any::<u8>(), any::<u32>(), 0..50u64).prop_map(|(c, last, ifindex, sequence)| {
            let endpoint = endpoint(&format!("c{c}"), last);
            Record::Endpoint {
                endpoint,
                ifindex,
                mtu: 1500,
                sequence,
                network: format!("net{c}"),
            }
        }),
        (0..6u8, 0..50u64, any::<u64>()).prop_map(|(c, sequence, at_ms)| Record::EndpointGone {
            container_id: format!("c{c}"),
            ifname: "eth0".to_owned(),
            sequence,
            at_ms,
        }),
        (any::<u8>(), any::<u64>()).prop_map(|(n, at_ms)| Record::Cooldown {
            ip: IpAddr::from([10, 0, 0, n]),
            at_ms
        }),
        (0..2u8, prop::option::of(any::<u8>()), any::<u64>()).prop_map(|(d, last, at_ms)| {
            Record::Tunnel {
                device: format!("t{d}"),
                ip: last.map(|last| IpAddr::from([10, 0, 0, last])),
                at_ms,
            }
        }),
        any::<u64>().prop_map(Record::NextSequence),
    ]
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    prop::collection::vec(record(), 0..20)
}

fn journal(records: &[Record]) -> Vec<u8> {
    let mut bytes = HEADER.to_vec();
    records
        .iter()
        .for_each(|record| bytes.extend(encode(record)));
    bytes
}

proptest! {
    #[test]
    fn what_was_written_is_read(records in records()) {
        let bytes = journal(&records);
        let expected = Replay { records, valid_len: bytes.len(), corrupt: None };
        prop_assert_eq!(replay(&bytes), expected);
    }

    #[test]
    fn a_torn_tail_yields_what_was_complete_and_is_no_damage(
        records in records(), cut in any::<prop::sample::Index>(),
    ) {
        let bytes = journal(&records);
        let cut = cut.index(bytes.len() + 1);
        let found = replay(&bytes[..cut]);
        prop_assert_eq!(&found.corrupt, &None);
        prop_assert!(found.valid_len <= cut);
        prop_assert!(records.starts_with(&found.records));
        if cut >= HEADER.len() {
            prop_assert_eq!(journal(&found.records).len(), found.valid_len);
        }
        let mut repaired = bytes[..found.valid_len].to_vec();
        if found.valid_len == 0 {
            repaired.extend(HEADER);
        }
        let more = Record::NextSequence(7);
        repaired.extend(encode(&more));
        let again = replay(&repaired);
        prop_assert_eq!(again.records.last(), Some(&more));
        prop_assert_eq!(again.valid_len, repaired.len());
    }

    #[test]
    fn a_flipped_bit_is_reported_and_ends_the_replay_before_it(
        records in records(), place in any::<prop::sample::Index>(), bit in 0..8u8,
    ) {
        let mut bytes = journal(&records);
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        let found = replay(&bytes);
        prop_assert!(records.starts_with(&found.records));
        prop_assert!(found.valid_len <= place);
        prop_assert!(found.corrupt.is_some_and(|c| c.offset == found.valid_len && c.offset <= place));
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut journal = HEADER.to_vec();
        journal.extend(&bytes);
        for bytes in [bytes, journal] {
            let found = replay(&bytes);
            prop_assert!(found.valid_len <= bytes.len());
        }
    }

    #[test]
    fn compaction_keeps_the_state(records in records()) {
        let state = State::from_records(&records);
        let found = replay(&compact(&state));
        prop_assert_eq!(found.corrupt, None);
        prop_assert_eq!(State::from_records(&found.records), state);
    }
}

fn up(container: &str, last: u8, sequence: u64) -> Record {
    Record::Endpoint {
        endpoint: endpoint(container, last),
        ifindex: 9,
        mtu: 1480,
        sequence,
        network: "pods".to_owned(),
    }
}

fn down(container: &str, sequence: u64, at_ms: u64) -> Record {
    let (container_id, ifname) = (container.to_owned(), "eth0".to_owned());
    Record::EndpointGone {
        container_id,
        ifname,
        sequence,
        at_ms,
    }
}

#[test]
fn replay_gives_live_endpoints_blocks_cooldowns_and_the_next_sequence_number() {
    let block = |text| {
        Record::Block(IpamBlock {
            cidr: net(text),
            node: "n1".to_owned(),
        })
    };
    let records = [
        block("10.0.0.0/26"),
        block("10.0.0.64/26"),
        up("c1", 1, 5),
        up("c2", 2, 6),
        down("c1", 5, 1_000),
        Record::BlockGone(net("10.0.0.64/26")),
    ];
    let state = State::from_records(&records);
    assert_eq!(
        state.blocks.keys().collect::<Vec<_>>(),
        [&net("10.0.0.0/26")]
    );
    let live: Vec<String> = state.endpoints.keys().map(ToString::to_string).collect();
    assert_eq!(live, ["c2/eth0"]);
    assert_eq!(
        state.cooldowns.into_iter().collect::<Vec<_>>(),
        [(IpAddr::from([10, 0, 0, 1]), 1_000)]
    );
    assert_eq!(state.next_sequence, 7);
}

#[test]
fn a_late_deletion_does_not_touch_the_next_use_of_the_name() {
    let state = State::from_records(&[up("c1", 1, 5), up("c1", 2, 6), down("c1", 5, 1_000)]);
    assert_eq!(state.endpoints.len(), 1);
    assert!(state.cooldowns.is_empty());
}

#[test]
fn cooldowns_end_when_the_address_is_used_or_time_has_passed() {
    let mut state = State::from_records(&[
        up("c1", 1, 0),
        down("c1", 0, 1_000),
        up("c2", 2, 1),
        down("c2", 1, 2_000),
        up("c3", 1, 2),
    ]);
    assert_eq!(state.cooldowns.len(), 1);
    state.expire(31_999, 30_000);
    assert_eq!(state.cooldowns.len(), 1);
    state.expire(32_000, 30_000);
    assert!(state.cooldowns.is_empty());
}

#[test]
fn another_version_and_another_file_are_not_read() {
    for bytes in [&b"OCIJRNL\x02rest"[..], b"{\"records\":[]}"] {
        let found = replay(bytes);
        assert!(found.records.is_empty());
        assert_eq!(
            found.corrupt.map(|c| c.to_string()).as_deref(),
            Some("journal damaged at byte 0: it is not a journal of version 1")
        );
    }
}

#[test]
fn a_record_of_a_later_version_is_reported_not_skipped() {
    let mut bytes = journal(&[Record::NextSequence(1)]);
    let place = bytes.len();
    bytes.extend(frame::wrap(br#"{"Later":{}}"#));
    bytes.extend(encode(&Record::NextSequence(2)));
    let found = replay(&bytes);
    assert_eq!(found.records, [Record::NextSequence(1)]);
    let corrupt = found.corrupt.unwrap();
    assert_eq!(corrupt.offset, place);
    assert!(matches!(corrupt.reason, CorruptionReason::Unknown(text) if text.contains("Later")));
}
