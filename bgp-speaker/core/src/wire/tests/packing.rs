//! What the encoders put where, and what they refuse.

use ipnet::{IpNet, Ipv4Net};

use super::*;

/// The `n`th /24 of 10.0.0.0/8 and what follows it.
fn slash24(n: u32) -> Nlri {
    let address = (0x0a00_0000 + (n << 8)).into();
    let prefix = IpNet::V4(Ipv4Net::new(address, 24).unwrap());
    Nlri { prefix, path_id: 0 }
}

fn plain() -> (Attributes, NextHop) {
    let attributes = Attributes {
        as_path: AsPath::from_sequence(vec![65001]),
        ..Attributes::default()
    };
    let next_hop = NextHop {
        address: [192, 0, 2, 1].into(),
        link_local: None,
    };
    (attributes, next_hop)
}

#[test]
fn the_bytes_of_a_plain_announcement_are_those_of_the_rfc() {
    let (attributes, next_hop) = plain();
    let params = external();
    let mut bytes = Vec::new();
    UpdateEncoder::new(&params)
        .announce(
            Family::IPV4,
            &attributes,
            next_hop,
            [slash24(1)],
            &mut bytes,
        )
        .unwrap();
    let expected = "ffffffffffffffffffffffffffffffff 002f 02 0000 0014
        40 01 01 00  40 02 06 02 01 0000fde9  40 03 04 c0000201  18 0a0001";
    assert_eq!(bytes, hex(expected));
}

#[test]
fn the_bytes_of_an_ipv6_announcement_begin_with_mp_reach() {
    let (attributes, _) = plain();
    let params = internal();
    let next_hop = NextHop {
        address: "2001:db8::1".parse().unwrap(),
        link_local: None,
    };
    let prefix = Nlri {
        prefix: "2001:db8::/32".parse().unwrap(),
        path_id: 0,
    };
    let mut bytes = Vec::new();
    UpdateEncoder::new(&params)
        .announce(Family::IPV6, &attributes, next_hop, [prefix], &mut bytes)
        .unwrap();
    let expected = "ffffffffffffffffffffffffffffffff 0049 02 0000 0032
        90 0e 001a 0002 01 10 20010db8000000000000000000000001 00 20 20010db8
        40 01 01 00  40 02 06 02 01 0000fde9  40 05 04 00000064";
    assert_eq!(bytes, hex(expected));
}

#[test]
fn messages_are_filled_to_the_brim() {
    let (attributes, next_hop) = plain();
    let params = external();
    let prefixes: Vec<_> = (0..4000).map(slash24).collect();
    let mut bytes = Vec::new();
    let encoder = UpdateEncoder::new(&params);
    let count = encoder
        .announce(
            Family::IPV4,
            &attributes,
            next_hop,
            prefixes.clone(),
            &mut bytes,
        )
        .unwrap();
    // (4096 - 23 - 20) / 4 of them fit one message.
    assert_eq!(count, 4000_usize.div_ceil(1013));
    let mut bytes = Vec::new();
    let count = encoder
        .withdraw(Family::IPV4, prefixes, &mut bytes)
        .unwrap();
    assert_eq!(count, 4000_usize.div_ceil(1018));
}

#[test]
fn a_message_may_be_4096_octets_long_but_not_more() {
    let (mut attributes, next_hop) = plain();
    attributes.med = Some(1);
    attributes.atomic_aggregate = true;
    attributes.communities = vec![1];
    let params = external();
    // Attributes of 37 octets leave 4036, which is 1009 times 4.
    for (prefixes, lengths) in [(1009, vec![4096]), (1010, vec![4096, 23 + 37 + 4])] {
        let mut bytes = Vec::new();
        UpdateEncoder::new(&params)
            .announce(
                Family::IPV4,
                &attributes,
                next_hop,
                (0..prefixes).map(slash24),
                &mut bytes,
            )
            .unwrap();
        let mut framer = Framer::new();
        framer.push(&bytes);
        let mut found = Vec::new();
        while let Some(frame) = framer.next_frame().unwrap() {
            found.push(frame.bytes().len());
        }
        assert_eq!(found, lengths);
    }
}

#[test]
fn capabilities_may_fill_a_message_but_not_more() {
    for (last, kept, length) in [(75, 40, 4096), (76, 39, 4019)] {
        let filler = |octets| Capability::Unknown {
            code: 200,
            value: vec![0; octets],
        };
        let mut capabilities = vec![Capability::FourOctetAs(65001)];
        capabilities.extend((0..39).map(|_| filler(100)));
        capabilities.push(filler(last));
        let open = Open {
            as_number: 65001,
            hold_time: 90,
            router_id: [192, 0, 2, 5].into(),
            capabilities,
        };
        let bytes = encode_open(&open);
        assert_eq!(bytes.len(), length);
        let Ok(Message::Open(decoded)) = decode_one(&bytes, &SessionParams::default()) else {
            panic!("an OPEN");
        };
        assert_eq!(decoded.capabilities.len(), kept + 1);
    }
}

#[test]
fn nothing_is_sent_for_no_prefixes() {
    let (attributes, next_hop) = plain();
    let params = external();
    let encoder = UpdateEncoder::new(&params);
    let mut bytes = Vec::new();
    assert_eq!(
        encoder.announce(Family::IPV4, &attributes, next_hop, [], &mut bytes),
        Ok(0)
    );
    assert_eq!(encoder.withdraw(Family::IPV6, [], &mut bytes), Ok(0));
    assert!(bytes.is_empty());
}

#[test]
fn end_of_rib_survives_the_wire() {
    let params = external();
    for family in [Family::IPV4, Family::IPV6] {
        let mut bytes = Vec::new();
        UpdateEncoder::new(&params).end_of_rib(family, &mut bytes);
        let [update] = updates(&bytes, &params).try_into().unwrap();
        let expected = Update {
            end_of_rib: Some(family),
            ..Update::default()
        };
        assert_eq!(update, expected);
    }
}

#[test]
fn attributes_beyond_4096_octets_need_extended_messages() {
    let (mut attributes, next_hop) = plain();
    attributes.communities = (0..2000).collect();
    let mut params = external();
    let mut bytes = vec![1, 2, 3];
    let announce = |params: &SessionParams, bytes: &mut Vec<u8>| {
        let prefixes = [slash24(1), slash24(2)];
        UpdateEncoder::new(params).announce(Family::IPV4, &attributes, next_hop, prefixes, bytes)
    };
    let error = announce(&params, &mut bytes).unwrap_err();
    assert!(
        matches!(error, EncodeError::AttributesTooLong { length: 8024, .. }),
        "{error}"
    );
    assert_eq!(bytes, [1, 2, 3]);
    params.extended_message = true;
    bytes.clear();
    assert_eq!(announce(&params, &mut bytes), Ok(1));
    let Ok(Message::Update(update)) = decode_one(&bytes, &params) else {
        panic!("an UPDATE");
    };
    assert_eq!(update.attributes, attributes);
}

#[test]
fn what_a_session_can_not_carry_is_refused() {
    let (attributes, v4) = plain();
    let v6 = NextHop {
        address: "2001:db8::1".parse().unwrap(),
        link_local: None,
    };
    let params = external();
    let encoder = UpdateEncoder::new(&params);
    let mut bytes = Vec::new();
    let error = encoder.announce(Family::IPV4, &attributes, v6, [slash24(1)], &mut bytes);
    assert!(matches!(error, Err(EncodeError::NextHop { .. })));
    let error = encoder.announce(Family::IPV6, &attributes, v4, [slash24(1)], &mut bytes);
    assert!(matches!(error, Err(EncodeError::NextHop { .. })));
    let error = encoder.announce(Family::IPV6, &attributes, v6, [slash24(1)], &mut bytes);
    assert!(matches!(error, Err(EncodeError::OtherFamily { .. })));
    let flowspec = Family { afi: 1, safi: 133 };
    let error = encoder.withdraw(flowspec, [slash24(1)], &mut bytes);
    assert!(matches!(error, Err(EncodeError::UnknownFamily { .. })));
    assert!(bytes.is_empty());
}

#[test]
fn external_peers_do_not_get_internal_attributes() {
    let (mut attributes, next_hop) = plain();
    let expected = attributes.clone();
    attributes.local_pref = Some(200);
    attributes.originator_id = Some([192, 0, 2, 9].into());
    attributes.cluster_list = vec![[192, 0, 2, 9].into()];
    let params = external();
    let mut bytes = Vec::new();
    UpdateEncoder::new(&params)
        .announce(
            Family::IPV4,
            &attributes,
            next_hop,
            [slash24(1)],
            &mut bytes,
        )
        .unwrap();
    let [update] = updates(&bytes, &params).try_into().unwrap();
    assert_eq!(update.attributes, expected);
}

#[test]
fn unknown_attributes_go_on_with_the_partial_bit() {
    let (mut attributes, next_hop) = plain();
    let value = vec![7; 1024];
    attributes.unknown = vec![UnknownAttribute {
        flags: 0xc0,
        code: 99,
        value: value.clone(),
    }];
    let params = external();
    let mut bytes = Vec::new();
    UpdateEncoder::new(&params)
        .announce(
            Family::IPV4,
            &attributes,
            next_hop,
            [slash24(1)],
            &mut bytes,
        )
        .unwrap();
    let [update] = updates(&bytes, &params).try_into().unwrap();
    let expected = UnknownAttribute {
        flags: 0xe0,
        code: 99,
        value,
    };
    assert_eq!(update.attributes.unknown, [expected]);
}

#[test]
fn an_open_with_many_capabilities_uses_the_extended_format() {
    let capabilities = (0..40).map(|n| Capability::Unknown {
        code: 200,
        value: vec![n; 100],
    });
    let mut open = Open {
        as_number: 4_200_000_001,
        hold_time: 90,
        router_id: [192, 0, 2, 5].into(),
        capabilities: vec![Capability::FourOctetAs(4_200_000_001)],
    };
    open.capabilities.extend(capabilities);
    let bytes = encode_open(&open);
    // AS_TRANS, and the marks of RFC 9072.
    assert_eq!(bytes[20..22], hex("5ba0"));
    assert_eq!(bytes[28..30], [255, 255]);
    let Ok(Message::Open(decoded)) = decode_one(&bytes, &SessionParams::default()) else {
        panic!("an OPEN");
    };
    assert!(bytes.len() <= MAX_LENGTH);
    assert_eq!(decoded.capabilities[..], open.capabilities[..40]);
}

#[test]
fn a_capability_is_cut_to_what_its_length_can_say() {
    let open = Open {
        as_number: 65001,
        hold_time: 90,
        router_id: [192, 0, 2, 5].into(),
        capabilities: vec![
            Capability::AddPath(vec![(Family::IPV4, 3); 100]),
            Capability::Fqdn {
                host: "h".repeat(300),
                domain: "é".repeat(300),
            },
            Capability::Unknown {
                code: 200,
                value: vec![1; 300],
            },
            Capability::GracefulRestart(GracefulRestart {
                families: vec![(Family::IPV6, true); 100],
                ..GracefulRestart::default()
            }),
        ],
    };
    let Ok(Message::Open(decoded)) = decode_one(&encode_open(&open), &SessionParams::default())
    else {
        panic!("an OPEN");
    };
    let [
        Capability::AddPath(paths),
        Capability::Fqdn { host, domain },
        unknown,
        restart,
    ] = decoded.capabilities.as_slice()
    else {
        panic!("{decoded:?}");
    };
    assert_eq!((paths.len(), host.len(), domain.len()), (63, 126, 126));
    assert_eq!(
        *unknown,
        Capability::Unknown {
            code: 200,
            value: vec![1; 255]
        }
    );
    assert!(
        matches!(restart, Capability::GracefulRestart(restart) if restart.families.len() == 63)
    );
}

#[test]
fn times_beyond_their_fields_are_cut_to_the_longest() {
    let restart = GracefulRestart {
        restart_time: 5000,
        ..GracefulRestart::default()
    };
    let open = Open {
        as_number: 65001,
        hold_time: 90,
        router_id: [192, 0, 2, 5].into(),
        capabilities: vec![
            Capability::GracefulRestart(restart.clone()),
            Capability::LongLivedGracefulRestart(vec![(Family::IPV4, false, 1 << 25)]),
        ],
    };
    let Ok(Message::Open(decoded)) = decode_one(&encode_open(&open), &SessionParams::default())
    else {
        panic!("an OPEN");
    };
    let restart = GracefulRestart {
        restart_time: 4095,
        ..restart
    };
    let longest = vec![(Family::IPV4, false, 0x00ff_ffff)];
    let expected = [
        Capability::GracefulRestart(restart),
        Capability::LongLivedGracefulRestart(longest),
    ];
    assert_eq!(decoded.capabilities, expected);
}

#[test]
fn a_two_octet_peer_gets_as4_attributes_only_where_it_needs_them() {
    let (mut attributes, next_hop) = plain();
    let params = SessionParams {
        four_octet_as: false,
        ..external()
    };
    for (number, expected) in [
        (
            65535,
            "40 02 04 02 01 ffff  40 03 04 c0000201  c0 07 06 ffff c0000207",
        ),
        (
            65536,
            "40 02 04 02 01 5ba0  40 03 04 c0000201  c0 07 06 5ba0 c0000207
             c0 11 06 02 01 00010000  c0 12 08 00010000 c0000207",
        ),
    ] {
        attributes.as_path = AsPath::from_sequence(vec![number]);
        attributes.aggregator = Some((number, [192, 0, 2, 7].into()));
        let mut bytes = Vec::new();
        UpdateEncoder::new(&params)
            .announce(
                Family::IPV4,
                &attributes,
                next_hop,
                [slash24(1)],
                &mut bytes,
            )
            .unwrap();
        let expected = hex(&format!("40 01 01 00 {expected} 18 0a0001"));
        assert_eq!(bytes[HEADER_LENGTH + 4..], expected);
    }
}
