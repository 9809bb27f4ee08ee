//! UPDATEs that have felled or split implementations, and what RFC 7606 and its relatives make of
//! each. Names are those of the advisories and of our comparison of daemons.

use super::*;

/// What is to become of 198.51.100.0/24, or of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Announced, nothing to complain about.
    Accept,
    /// Announced without the attribute.
    Discard,
    /// Treated as withdrawn.
    Withdraw,
    /// The session ends with 3 and this subcode.
    Reset(u8),
}
use Outcome::{Accept, Discard, Reset, Withdraw};

const ORIGIN: &str = "40 01 01 00";
const AS_PATH: &str = "40 02 06 02 01 0000fde9";
const NEXT_HOP: &str = "40 03 04 c0000201";
const NLRI: &str = "18 c63364";
/// MP_REACH_NLRI of 2001:db8::/32 via 2001:db8::1.
const MP_REACH: &str = "80 0e 1a 0002 01 10 20010db8000000000000000000000001 00 20 20010db8";

fn body(withdrawn: &str, attributes: &str, nlri: &str) -> Vec<u8> {
    let (withdrawn, attributes) = (hex(withdrawn), hex(attributes));
    let mut body = Vec::new();
    for field in [&withdrawn, &attributes] {
        body.extend_from_slice(&u16::try_from(field.len()).unwrap().to_be_bytes());
        body.extend_from_slice(field);
    }
    body.extend(hex(nlri));
    body
}

fn outcome(body: &[u8], params: &SessionParams) -> (Outcome, Option<Update>) {
    let update = match decode_one(&message(MessageType::Update, body), params) {
        Ok(Message::Update(update)) => update,
        Ok(other) => panic!("not an UPDATE: {other:?}"),
        Err(error) => {
            assert_eq!(error.notification.code, 3, "{error}");
            return (Reset(error.notification.subcode), None);
        }
    };
    let announced = !update.announced.is_empty();
    let treated_as_withdrawn = update
        .faults
        .iter()
        .any(|fault| fault.disposition == Disposition::TreatAsWithdraw);
    let outcome = match (announced, treated_as_withdrawn, update.faults.is_empty()) {
        (true, false, true) => Accept,
        (true, false, false) => Discard,
        (false, true, _) => {
            assert!(
                !update.withdrawn.is_empty(),
                "withdrawn, but nothing is: {update:?}"
            );
            assert_eq!(update.attributes, Attributes::default());
            Withdraw
        }
        _ => panic!("neither announced nor withdrawn: {update:?}"),
    };
    (outcome, Some(update))
}

fn check(cases: &[(&str, String, Outcome)], params: &SessionParams) {
    for (name, attributes, expected) in cases {
        let (found, update) = outcome(&body("", attributes, NLRI), params);
        assert_eq!(found, *expected, "{name}: {update:?}");
    }
}

/// The three mandatory attributes with one replaced, or with others after them.
fn with_origin(origin: &str) -> String {
    format!("{origin} {AS_PATH} {NEXT_HOP}")
}

fn with_path(path: &str) -> String {
    format!("{ORIGIN} {path} {NEXT_HOP}")
}

fn with_next_hop(next_hop: &str) -> String {
    format!("{ORIGIN} {AS_PATH} {next_hop}")
}

fn and(extra: &str) -> String {
    format!("{ORIGIN} {AS_PATH} {NEXT_HOP} {extra}")
}

/// AS_PATH of `count` numbers, in the extended form.
fn long_path(count: usize) -> String {
    let mut value = Vec::new();
    as_path::encode(&AsPath::from_sequence(vec![65001; count]), true, &mut value);
    let digits: String = value.iter().map(|octet| format!("{octet:02x}")).collect();
    format!("50 02 {:04x} {digits}", value.len())
}

#[test]
fn well_known_attributes() {
    let cases = [
        ("plain", with_origin(ORIGIN), Accept),
        ("origin-value-9", with_origin("40 01 01 09"), Withdraw),
        ("origin-flags-c0", with_origin("c0 01 01 00"), Withdraw),
        ("origin-flags-00", with_origin("00 01 01 00"), Withdraw),
        ("origin-length-2", with_origin("40 01 02 0000"), Withdraw),
        ("origin-length-0", with_origin("40 01 00"), Withdraw),
        ("origin-partial-bit", with_origin("60 01 01 00"), Accept),
        (
            "origin-reserved-flag-bits",
            with_origin("4f 01 01 00"),
            Accept,
        ),
        (
            "origin-extended-length",
            with_origin("50 01 0001 00"),
            Accept,
        ),
        ("origin-missing", format!("{AS_PATH} {NEXT_HOP}"), Withdraw),
        (
            "aspath-trailing-byte",
            with_path("40 02 07 02 01 0000fde9 ff"),
            Withdraw,
        ),
        (
            "aspath-overrun",
            with_path("40 02 06 02 02 0000fde9"),
            Withdraw,
        ),
        (
            "aspath-type-9",
            with_path("40 02 06 09 01 0000fde9"),
            Withdraw,
        ),
        ("aspath-set", with_path("40 02 06 01 01 0000fde9"), Withdraw),
        (
            "aspath-confed-sequence",
            with_path("40 02 06 03 01 0000fde9"),
            Withdraw,
        ),
        (
            "aspath-confed-set",
            with_path("40 02 06 04 01 0000fde9"),
            Withdraw,
        ),
        (
            "aspath-empty-segment",
            with_path("40 02 02 02 00"),
            Withdraw,
        ),
        (
            "aspath-as-0",
            with_path("40 02 06 02 01 00000000"),
            Withdraw,
        ),
        ("aspath-empty-ebgp", with_path("40 02 00"), Withdraw),
        (
            "aspath-flags-c0",
            with_path("c0 02 06 02 01 0000fde9"),
            Withdraw,
        ),
        ("aspath-missing", format!("{ORIGIN} {NEXT_HOP}"), Withdraw),
        ("aspath-512-asns", with_path(&long_path(512)), Accept),
        ("aspath-513-asns", with_path(&long_path(513)), Withdraw),
        ("aspath-765-asns", with_path(&long_path(765)), Withdraw),
        (
            "nexthop-length-3",
            with_next_hop("40 03 03 c00002"),
            Withdraw,
        ),
        (
            "nexthop-length-16",
            with_next_hop("40 03 10 20010db8000000000000000000000001"),
            Withdraw,
        ),
        (
            "nexthop-0.0.0.0",
            with_next_hop("40 03 04 00000000"),
            Withdraw,
        ),
        (
            "nexthop-multicast",
            with_next_hop("40 03 04 e0000001"),
            Withdraw,
        ),
        (
            "nexthop-broadcast",
            with_next_hop("40 03 04 ffffffff"),
            Withdraw,
        ),
        (
            "nexthop-loopback",
            with_next_hop("40 03 04 7f000001"),
            Withdraw,
        ),
        ("nexthop-missing", format!("{ORIGIN} {AS_PATH}"), Withdraw),
        ("attrlen0-with-nlri", String::new(), Withdraw),
        ("atomic-aggregate", and("40 06 00"), Accept),
        ("atomic-aggregate-length-1", and("40 06 01 00"), Discard),
        ("atomic-aggregate-flags-c0", and("c0 06 00"), Withdraw),
        ("local-pref-ebgp", and("40 05 04 00000064"), Discard),
        ("local-pref-ebgp-length-3", and("40 05 03 000064"), Discard),
    ];
    check(&cases, &external());
}

#[test]
fn optional_attributes() {
    let cases = [
        ("med", and("80 04 04 00000001"), Accept),
        ("med-length-3", and("80 04 03 000001"), Withdraw),
        ("med-length-5", and("80 04 05 0000000001"), Withdraw),
        ("med-length-0", and("80 04 00"), Withdraw),
        ("med-flags-40", and("40 04 04 00000001"), Withdraw),
        ("aggregator", and("c0 07 08 0000fde9 c0000201"), Accept),
        (
            "aggregator-length-6-from-as4-peer",
            and("c0 07 06 fde9 c0000201"),
            Discard,
        ),
        ("aggregator-length-0", and("c0 07 00"), Discard),
        (
            "aggregator-as-0",
            and("c0 07 08 00000000 c0000201"),
            Discard,
        ),
        (
            "aggregator-flags-40",
            and("40 07 08 0000fde9 c0000201"),
            Withdraw,
        ),
        ("communities", and("c0 08 04 fde90001"), Accept),
        ("communities-length-1", and("c0 08 01 01"), Withdraw),
        ("communities-length-5", and("c0 08 05 fde9000100"), Withdraw),
        ("communities-length-0", and("c0 08 00"), Withdraw),
        ("originator-id-ebgp", and("80 09 04 c0000201"), Discard),
        ("cluster-list-ebgp", and("80 0a 04 c0000201"), Discard),
        (
            "cluster-list-ebgp-length-5",
            and("80 0a 05 c000020100"),
            Discard,
        ),
        ("ext-communities", and("c0 10 08 0002fde900000001"), Accept),
        (
            "ext-communities-length-5",
            and("c0 10 05 0006000000"),
            Withdraw,
        ),
        ("ext-communities-length-0", and("c0 10 00"), Withdraw),
        (
            "as4-path-from-as4-peer",
            and("c0 11 06 02 01 00010000"),
            Discard,
        ),
        (
            "as4-aggregator-from-as4-peer",
            and("c0 12 08 00010000 c0000201"),
            Discard,
        ),
        (
            "large-communities",
            and("c0 20 0c 0000fde9 00000001 00000002"),
            Accept,
        ),
        ("large-communities-length-1", and("c0 20 01 01"), Withdraw),
        ("large-communities-length-0", and("c0 20 00"), Withdraw),
        ("otc", and("c0 23 04 0000fde9"), Accept),
        ("otc-length-1", and("c0 23 01 01"), Withdraw),
        (
            "otc-length-1024",
            and(&format!("d0 23 0400 {}", "00".repeat(1024))),
            Withdraw,
        ),
        ("duplicate-origin", and("40 01 01 02"), Discard),
        (
            "duplicate-malformed-med",
            and("80 04 04 00000001 80 04 01 00"),
            Discard,
        ),
    ];
    check(&cases, &external());
}

#[test]
fn unknown_attributes_are_opaque() {
    let cases = [
        ("unknown-well-known-200", and("40 c8 01 00"), Withdraw),
        ("unknown-transitive", and("c0 c8 01 00"), Accept),
        ("unknown-transitive-empty", and("c0 c8 00"), Accept),
        ("unknown-non-transitive", and("80 c8 01 00"), Accept),
        ("tunnel-encap-23-corrupt", and("c0 17 03 000fff"), Accept),
        ("attr-25-corrupt", and("c0 19 05 0102030405"), Accept),
        ("prefix-sid-40-corrupt", and("c0 28 03 01ffff"), Accept),
        (
            "attr-set-128-nested",
            and("c0 80 07 0000fde9 c0 80 ff"),
            Accept,
        ),
        (
            "nhc-39-tlv-underflow",
            and("c0 27 06 0001 01 00 ff ff"),
            Accept,
        ),
        (
            "only-unknown-attr-plus-nlri",
            "c0 c8 01 00".to_owned(),
            Withdraw,
        ),
    ];
    check(&cases, &external());
}

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
}

#[test]
fn internal_peers_may_send_what_external_ones_may_not() {
    let cases = [
        ("aspath-empty-ibgp", with_path("40 02 00"), Accept),
        ("local-pref-missing", and(""), Accept),
        ("local-pref", and("40 05 04 00000064"), Accept),
        ("local-pref-length-3", and("40 05 03 000064"), Withdraw),
        ("local-pref-flags-80", and("80 05 04 00000064"), Withdraw),
        ("originator-id", and("80 09 04 c0000201"), Accept),
        (
            "originator-id-length-16",
            and(&format!("80 09 10 {}", "01".repeat(16))),
            Withdraw,
        ),
        ("cluster-list", and("80 0a 08 c0000201 c0000202"), Accept),
        ("cluster-list-length-0", and("80 0a 00"), Withdraw),
        (
            "cluster-list-length-5",
            and("80 0a 05 c000020100"),
            Withdraw,
        ),
    ];
    check(&cases, &internal());
}

#[test]
fn two_octet_peers_and_the_as4_attributes() {
    let old = SessionParams {
        four_octet_as: false,
        ..external()
    };
    let path = "40 02 06 02 02 fde9 5ba0";
    let as4 = "c0 11 0a 02 02 0000fde9 00010000";
    let merged = AsPath::from_sequence(vec![65001, 65536]);
    let plain = AsPath::from_sequence(vec![65001, 23456]);
    let of = |attributes: &str| {
        let (found, update) = outcome(&body("", attributes, NLRI), &old);
        (found, update.unwrap().attributes)
    };
    for (name, attributes, expected, as_path) in [
        (
            "as4-path",
            format!("{ORIGIN} {path} {NEXT_HOP} {as4}"),
            Accept,
            &merged,
        ),
        (
            "as4-path-before-as-path",
            format!("{as4} {path} {ORIGIN} {NEXT_HOP}"),
            Accept,
            &merged,
        ),
        (
            "as4-path-malformed",
            format!("{ORIGIN} {path} {NEXT_HOP} c0 11 05 02 02 000000"),
            Discard,
            &plain,
        ),
        (
            "as4-path-flags-40",
            format!("{ORIGIN} {path} {NEXT_HOP} 40 11 00"),
            Discard,
            &plain,
        ),
        (
            "as4-path-longer",
            format!("{ORIGIN} {path} {NEXT_HOP} c0 11 0e 02 03 00000001 00000002 00000003"),
            Accept,
            &plain,
        ),
        (
            "reaggregated-since",
            format!(
                "{ORIGIN} {path} {NEXT_HOP} c0 07 06 fde9 c0000201 {as4} c0 12 08 00010000 c0000202"
            ),
            Accept,
            &plain,
        ),
    ] {
        let (found, attributes) = of(&attributes);
        assert_eq!(found, expected, "{name}");
        assert_eq!(attributes.as_path, *as_path, "{name}");
    }
    let aggregators = format!(
        "{ORIGIN} {path} {NEXT_HOP} c0 07 06 5ba0 c0000201 {as4} c0 12 08 00010000 c0000202"
    );
    let (_, attributes) = of(&aggregators);
    assert_eq!(attributes.aggregator, Some((65536, [192, 0, 2, 2].into())));
    assert_eq!(attributes.as_path, merged);
    let set = format!("{ORIGIN} {path} {NEXT_HOP} c0 11 06 01 01 00010000");
    assert_eq!(of(&set).0, Withdraw);
}

#[test]
fn the_first_of_duplicates_is_kept() {
    let (_, update) = outcome(&body("", &and("40 01 01 02"), NLRI), &external());
    let update = update.unwrap();
    assert_eq!(update.attributes.origin, Origin::Igp);
    assert_eq!(update.faults[0].reason, "the attribute appears twice");
}

#[test]
fn faults_kept_for_the_log_are_bounded() {
    let (found, update) = outcome(
        &body("", &and(&"40 01 01 00".repeat(900)), NLRI),
        &external(),
    );
    assert_eq!((found, update.unwrap().faults.len()), (Discard, 16));
    // A fault that withdraws routes is listed in any case.
    let attributes = and(&format!("{} 80 04 01 00", "40 01 01 00".repeat(100)));
    let (found, update) = outcome(&body("", &attributes, NLRI), &external());
    assert_eq!((found, update.unwrap().faults.len()), (Withdraw, 17));
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
