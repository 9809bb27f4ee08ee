//! UPDATEs whose lengths, prefixes or multiprotocol attributes are wrong, by the names of the
//! advisories and of our comparison of daemons.

use super::update_cases::*;
use super::*;

#[test]
fn attribute_lists_whose_lengths_contradict_each_other() {
    let cases = [
        ("stray-byte", and("40"), Withdraw),
        ("stray-two-bytes", and("c0 08"), Withdraw),
        ("extended-length-cut-short", and("50 08 00"), Withdraw),
        ("attr-len-overrun", and("c0 08 ff fde90001"), Withdraw),
        (
            "attr-len-overrun-first",
            format!("40 01 ff {AS_PATH} {NEXT_HOP}"),
            Withdraw,
        ),
        ("zero-filled-tail", and("00 00 00 00 00 00"), Withdraw),
        (
            "mp-reach-overrun",
            format!("{ORIGIN} 80 0e ff 0002 01 10"),
            Reset(9),
        ),
        ("mp-unreach-overrun", and("80 0f 09 0002 01"), Reset(9)),
    ];
    check(&cases, &external());
    for (name, bytes, subcode) in [
        ("withdrawn-length-overrun", "0005 00 0000", 1),
        ("update-underflow", "ffff 0000", 1),
        ("attributes-length-overrun", "0000 0005 40 01 01 00", 1),
        ("attributes-length-missing", "0003 00 00 00 00", 1),
        ("withdrawn-prefix-33", "0006 21 0a00000000 0000", 10),
        ("withdrawn-prefix-cut-short", "0002 18 0a 0000", 10),
    ] {
        assert_eq!(
            outcome(&hex(bytes), &external()).0,
            Reset(subcode),
            "{name}"
        );
    }
}

#[test]
fn prefixes_that_can_not_be_read_end_the_session() {
    let attributes = and("");
    for (name, nlri, subcode) in [
        ("nlri-length-33", "21 c633640000", 10),
        ("nlri-length-255", "ff c63364", 10),
        ("nlri-cut-short", "18 c633", 10),
        ("nlri-second-cut-short", "18 c63364 10 0a", 10),
    ] {
        let body = body("", &attributes, nlri);
        assert_eq!(outcome(&body, &external()).0, Reset(subcode), "{name}");
    }
    // Even if an attribute would have the routes withdrawn: it is not known which.
    let body = body("", &with_origin("40 01 01 09"), "21 c633640000");
    assert_eq!(outcome(&body, &external()).0, Reset(10));
}

#[test]
fn multiprotocol_attributes() {
    let short = "20010db8000000000000000000000001";
    let cases = [
        ("mp-reach", MP_REACH.to_owned(), Accept),
        (
            "mp-reach-flags-c0",
            MP_REACH.replacen("80", "c0", 1),
            Withdraw,
        ),
        ("mp-reach-short", "80 0e 03 0002 01".to_owned(), Reset(9)),
        ("mp-reach-length-0", "80 0e 00".to_owned(), Reset(9)),
        (
            "mp-reach-short-next-hop",
            "80 0e 06 0001 01 10 2001".to_owned(),
            Reset(9),
        ),
        (
            "mp-reach-no-reserved",
            format!("80 0e 14 0002 01 10 {short}"),
            Reset(9),
        ),
        (
            "mp-reach-next-hop-4",
            "80 0e 0e 0002 01 04 c0000201 00 20 20010db8".to_owned(),
            Reset(9),
        ),
        (
            "mp-reach-next-hop-0",
            "80 0e 0a 0002 01 00 00 20 20010db8".to_owned(),
            Reset(9),
        ),
        (
            "mp-reach-v4-next-hop-16",
            format!("80 0e 19 0001 01 10 {short} 00 18 0a0000"),
            Reset(9),
        ),
        (
            "mp-reach-prefix-129",
            format!("80 0e 16 0002 01 10 {short} 00 81"),
            Reset(9),
        ),
        (
            "mp-reach-prefix-cut-short",
            format!("80 0e 17 0002 01 10 {short} 00 20 20"),
            Reset(9),
        ),
        (
            "mp-reach-next-hop-::",
            MP_REACH.replace(short, &"00".repeat(16)),
            Withdraw,
        ),
        (
            "mp-reach-next-hop-loopback",
            MP_REACH.replace(short, &format!("{}01", "00".repeat(15))),
            Withdraw,
        ),
        (
            "mp-reach-next-hop-multicast",
            MP_REACH.replace(short, &"ff".repeat(16)),
            Withdraw,
        ),
        ("mp-reach-twice", format!("{MP_REACH} {MP_REACH}"), Reset(1)),
        ("mp-unreach-short", "80 0f 02 0002".to_owned(), Reset(9)),
        (
            "mp-unreach-prefix-129",
            "80 0f 04 0002 01 81".to_owned(),
            Reset(9),
        ),
        (
            "mp-unreach-twice",
            "80 0f 03 0002 01 80 0f 03 0002 01".to_owned(),
            Reset(1),
        ),
    ];
    let cases = cases.map(|(name, extra, expected)| (name, and(&extra), expected));
    check(&cases, &external());
}

#[test]
fn families_that_were_not_negotiated_are_ignored() {
    for (name, extra) in [
        ("flowspec-nlri-length-0", "80 0e 06 0001 85 00 00 00"),
        (
            "flowspec-many-operators",
            "80 0e 0b 0001 85 00 00 05 03 01 06 01 11",
        ),
        (
            "vpnv4-rd",
            "80 0e 12 0001 80 0c 0000000000000000c0000201 00 70",
        ),
        ("evpn-withdraw", "80 0f 05 0019 46 01 00"),
        ("unknown-afi", "80 0e 06 ffff ff 00 00 ff"),
    ] {
        let (found, update) = outcome(&body("", &and(extra), NLRI), &external());
        assert_eq!(found, Discard, "{name}");
        let update = update.unwrap();
        assert_eq!(update.announced.len(), 1, "{name}");
        assert!(update.withdrawn.is_empty(), "{name}");
    }
    let only_v4 = SessionParams {
        families: vec![Family::IPV4],
        ..external()
    };
    let v6_unreach = "80 0f 08 0002 01 20 20010db8";
    for extra in [MP_REACH, v6_unreach] {
        let (found, update) = outcome(&body("", &and(extra), NLRI), &only_v4);
        let update = update.unwrap();
        assert_eq!((found, update.announced.len()), (Discard, 1), "{extra}");
        assert!(update.withdrawn.is_empty());
    }
    let only_v6 = SessionParams {
        families: vec![Family::IPV6],
        ..external()
    };
    let message = message(MessageType::Update, &body("08 0a", &and(MP_REACH), NLRI));
    let Ok(Message::Update(update)) = decode_one(&message, &only_v6) else {
        panic!("an UPDATE");
    };
    assert!(update.withdrawn.is_empty());
    let families: Vec<_> = update
        .announced
        .iter()
        .map(|a| a.nlri[0].prefix.to_string())
        .collect();
    assert_eq!(families, ["2001:db8::/32"]);
}

#[test]
fn a_fault_without_prefixes_ends_the_session() {
    // RFC 7606 section 5.2: which routes were meant is unknown.
    for (name, attributes, subcode) in [
        ("origin", "40 01 01 09".to_owned(), 6),
        ("stray byte", format!("{ORIGIN} {AS_PATH} {NEXT_HOP} 40"), 1),
        ("stray byte alone", "40".to_owned(), 1),
        ("torn after MP_UNREACH", "80 0f 03 0002 01 c0".to_owned(), 1),
        (
            "empty MP_REACH",
            format!("80 0e 15 0002 01 10 {} 00", "00".repeat(16)),
            8,
        ),
        ("unknown well-known", "40 c8 00".to_owned(), 2),
    ] {
        let found = outcome(&body("", &attributes, ""), &external()).0;
        assert_eq!(found, Reset(subcode), "{name}");
    }
    // Not so where there are but withdrawals, and where the attribute is only discarded.
    for attributes in ["c0 0f 07 0002 01 18 20010d", "40 06 01 00", "80 0a 00"] {
        let message = message(MessageType::Update, &body("08 0a", attributes, ""));
        let Ok(Message::Update(update)) = decode_one(&message, &external()) else {
            panic!("{attributes}");
        };
        assert_eq!(update.faults.len(), 1);
        assert!(!update.withdrawn.is_empty());
    }
}

#[test]
fn the_notification_carries_the_offending_attribute() {
    let reach = "80 0e 03 0002 01";
    let bytes = message(MessageType::Update, &body("", &and(reach), NLRI));
    let error = decode_one(&bytes, &external()).unwrap_err();
    assert_eq!(error.notification.data, hex(reach));
    assert_eq!(
        error.to_string(),
        "MP_REACH_NLRI is cut short (UPDATE Message Error/Optional Attribute Error, data 800e03000201)"
    );
    let med = "80 04 03 000001";
    for (attributes, data) in [
        (format!("{med} {ORIGIN}"), hex(med)),
        (format!("{ORIGIN} 40"), vec![]),
    ] {
        let bytes = message(MessageType::Update, &body("", &attributes, ""));
        let error = decode_one(&bytes, &external()).unwrap_err();
        assert_eq!(error.notification.data, data);
    }
}

#[test]
fn ipv6_next_hops_of_every_form_in_the_wild() {
    let global = "20010db8000000000000000000000001";
    let local = "fe800000000000000000000000000001";
    let zero = "00000000000000000000000000000000";
    for (bytes, address, link_local) in [
        (global.to_owned(), "2001:db8::1", None),
        (local.to_owned(), "fe80::1", None),
        (format!("{global}{local}"), "2001:db8::1", Some("fe80::1")),
        (format!("{local}{local}"), "fe80::1", Some("fe80::1")),
        (format!("{zero}{local}"), "fe80::1", Some("fe80::1")),
        (format!("{global}{zero}"), "2001:db8::1", None),
    ] {
        let next_hop = hex(&bytes).len();
        let extra = format!(
            "80 0e {:02x} 0002 01 {next_hop:02x} {bytes} 00 00",
            6 + next_hop
        );
        let attributes = format!("{ORIGIN} {AS_PATH} {extra}");
        let (found, update) = outcome(&body("", &attributes, ""), &external());
        assert_eq!(found, Accept, "{bytes}");
        let expected = NextHop {
            address: address.parse().unwrap(),
            link_local: link_local.map(|address| address.parse().unwrap()),
        };
        assert_eq!(update.unwrap().announced[0].next_hop, expected);
    }
}

#[test]
fn end_of_rib_is_an_update_with_nothing_in_it() {
    let of = |body: &[u8], params: &SessionParams| match decode_one(
        &message(MessageType::Update, body),
        params,
    )
    .unwrap()
    {
        Message::Update(update) => update.end_of_rib,
        other => panic!("{other:?}"),
    };
    let v6 = "80 0f 03 0002 01";
    assert_eq!(of(&body("", "", ""), &external()), Some(Family::IPV4));
    assert_eq!(of(&body("", v6, ""), &external()), Some(Family::IPV6));
    assert_eq!(
        of(&body("", "80 0f 03 0001 01", ""), &external()),
        Some(Family::IPV4)
    );
    assert_eq!(of(&body("", "80 0f 03 0019 46", ""), &external()), None);
    assert_eq!(of(&body("", "80 0f 04 0002 01 00", ""), &external()), None);
    assert_eq!(of(&body("08 0a", v6, ""), &external()), None);
    assert_eq!(
        of(&body("", &format!("{v6} {ORIGIN}"), ""), &external()),
        None
    );
    assert_eq!(of(&body("08 0a", "", ""), &external()), None);
    let only_v6 = SessionParams {
        families: vec![Family::IPV6],
        ..external()
    };
    assert_eq!(of(&body("", "", ""), &only_v6), None);
}
