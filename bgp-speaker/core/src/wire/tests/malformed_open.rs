//! OPENs, NOTIFICATIONs and ROUTE-REFRESHes that have felled implementations.

use super::*;

fn open(fields: &str) -> Result<Open, WireError> {
    let params = SessionParams::default();
    match decode_one(&message(MessageType::Open, &hex(fields)), &params)? {
        Message::Open(open) => Ok(open),
        other => panic!("not an OPEN: {other:?}"),
    }
}

/// Version, AS 65001, 90 s, 192.0.2.5; parameters follow.
const FIXED: &str = "04 fde9 005a c0000205";

#[test]
fn faults_of_open_have_their_codes() {
    for (name, fields, subcode, data) in [
        ("version-3", "03 fde9 005a c0000205 00", 1, &[0, 4][..]),
        ("version-5", "05 fde9 005a c0000205 00", 1, &[0, 4]),
        ("as-0", "04 0000 005a c0000205 00", 2, &[]),
        (
            "as4-0",
            "04 5ba0 005a c0000205 08 02 06 41 04 00000000",
            2,
            &[],
        ),
        (
            "as-0-beside-as4",
            "04 0000 005a c0000205 08 02 06 41 04 00010000",
            2,
            &[],
        ),
        ("identifier-0", "04 fde9 005a 00000000 00", 3, &[]),
        (
            "parameter-1-authentication",
            "04 fde9 005a c0000205 03 01 01 00",
            4,
            &[],
        ),
        ("hold-time-1", "04 fde9 0001 c0000205 00", 6, &[]),
        ("hold-time-2", "04 fde9 0002 c0000205 00", 6, &[]),
        (
            "open-extparam-after-length-0",
            "04 fde9 005a c0000205 00 ff 0005 02 0002 02 00",
            0,
            &[],
        ),
        (
            "open-opt-length-short",
            "04 fde9 005a c0000205 01 02 00",
            0,
            &[],
        ),
        (
            "open-opt-length-long",
            "04 fde9 005a c0000205 09 02 00",
            0,
            &[],
        ),
        (
            "open-parameter-overrun",
            "04 fde9 005a c0000205 02 02 05",
            0,
            &[],
        ),
        (
            "open-parameter-cut-short",
            "04 fde9 005a c0000205 01 02",
            0,
            &[],
        ),
        (
            "open-capability-cut-short",
            "04 fde9 005a c0000205 03 02 01 49",
            0,
            &[],
        ),
        (
            "open-fqdn-without-length",
            "04 fde9 005a c0000205 06 02 04 49 6e 6f 64",
            0,
            &[],
        ),
        (
            "open-as4-cap-len0",
            "04 fde9 005a c0000205 04 02 02 41 00",
            0,
            &[],
        ),
        (
            "open-as4-cap-len5",
            "04 fde9 005a c0000205 09 02 07 41 05 0000fde900",
            0,
            &[],
        ),
        (
            "open-extparam-truncated-at-type",
            "04 fde9 005a c0000205 ff ff",
            0,
            &[],
        ),
        (
            "open-extparam-truncated-at-length",
            "04 fde9 005a c0000205 ff ff 00",
            0,
            &[],
        ),
        (
            "open-extparam-length-overrun",
            "04 fde9 005a c0000205 ff ff 0010 02 0000",
            0,
            &[],
        ),
        (
            "open-extparam-parameter-overrun",
            "04 fde9 005a c0000205 ff ff 0003 02 00ff",
            0,
            &[],
        ),
        (
            "open-extparam-parameter-cut-short",
            "04 fde9 005a c0000205 ff ff 0002 02 00",
            0,
            &[],
        ),
        (
            "open-opt-ends-at-length",
            "04 fde9 005a c0000205 ff",
            0,
            &[],
        ),
    ] {
        let notification = open(fields).expect_err(name).notification;
        assert_eq!(
            (notification.code, notification.subcode),
            (2, subcode),
            "{name}"
        );
        assert_eq!(notification.data, data, "{name}");
    }
}

#[test]
fn capabilities_that_can_not_be_read_are_unknown_ones() {
    for (name, code, value) in [
        ("multiprotocol-length-3", 1, "000100"),
        ("refresh-with-value", 2, "00"),
        ("extended-next-hop-length-5", 5, "0001000100"),
        ("extended-next-hop-safi-257", 5, "000101010002"),
        ("extended-message-with-value", 6, "00"),
        ("role-empty", 9, ""),
        ("graceful-restart-length-1", 64, "00"),
        ("graceful-restart-length-5", 64, "0078000101"),
        ("add-path-length-3", 69, "000101"),
        ("add-path-direction-0", 69, "00010100"),
        ("add-path-direction-4", 69, "00010104"),
        ("long-lived-length-6", 71, "000101000000"),
        ("fqdn-host-overrun", 73, "05 61"),
        ("fqdn-domain-missing", 73, "01 61"),
        ("fqdn-trailing", 73, "01 61 00 00"),
        ("fqdn-not-utf8", 73, "01 ff 00"),
        ("open-softver-cap-badlen", 75, "0a000000000000"),
        ("unassigned", 200, "0102"),
    ] {
        let value = hex(value);
        let length = u8::try_from(value.len()).unwrap();
        let mut body = hex(FIXED);
        body.extend([length + 4, 2, length + 2, code, length]);
        body.extend(&value);
        let bytes = message(MessageType::Open, &body);
        let Ok(Message::Open(open)) = decode_one(&bytes, &SessionParams::default()) else {
            panic!("{name}");
        };
        assert_eq!(
            open.capabilities,
            [Capability::Unknown { code, value }],
            "{name}"
        );
    }
}

#[test]
fn reserved_bits_of_graceful_restart_are_ignored() {
    let open = open(&format!("{FIXED} 0a 02 08 40 06 f0 78 0002 01 ff")).unwrap();
    let expected = GracefulRestart {
        restarting: true,
        notification: true,
        restart_time: 120,
        families: vec![(Family::IPV6, true)],
    };
    assert_eq!(open.capabilities, [Capability::GracefulRestart(expected)]);
}

#[test]
fn an_open_without_capabilities_is_fine() {
    let open = open(&format!("{FIXED} 00")).unwrap();
    assert_eq!((open.as_number, open.hold_time), (65001, 90));
    assert!(open.capabilities.is_empty());
}

#[test]
fn the_extended_format_is_told_by_the_type_not_by_the_length() {
    // RFC 9072 section 2: any length but 0.
    for length in ["ff", "04"] {
        let open = open(&format!("{FIXED} {length} ff 0005 02 0002 02 00")).unwrap();
        assert_eq!(open.capabilities, [Capability::RouteRefresh]);
    }
}

#[test]
fn a_route_refresh_of_another_length_is_sent_back() {
    let bytes = message(MessageType::RouteRefresh, &[0, 1, 0, 1, 0]);
    let error = decode_one(&bytes, &SessionParams::default()).unwrap_err();
    let expected = Notification::with_data(ErrorCode::ROUTE_REFRESH_INVALID_LENGTH, &bytes);
    assert_eq!(error.notification, expected);
}

#[test]
fn a_notification_needs_a_code_only() {
    let bytes = message(MessageType::Notification, &[99, 200]);
    let decoded = decode_one(&bytes, &SessionParams::default()).unwrap();
    let Message::Notification(notification) = decoded else {
        panic!("{decoded:?}");
    };
    assert_eq!(notification.to_string(), "error 99/subcode 200");
}
