//! Attributes that have felled or split implementations, and what RFC 7606 and its relatives make
//! of each. Names are those of the advisories and of our comparison of daemons.

use super::update_cases::*;
use super::*;

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
    let alone = format!("{ORIGIN} {path} {NEXT_HOP} c0 12 08 00010000 c0000202");
    assert_eq!(of(&alone).1.aggregator, None);
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
