//! Bodies of UPDATEs from hexadecimal, and what became of them.

use super::*;

/// What is to become of 198.51.100.0/24, or of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Announced, nothing to complain about.
    Accept,
    /// Announced without the attribute.
    Discard,
    /// Treated as withdrawn.
    Withdraw,
    /// The session ends with 3 and this subcode.
    Reset(u8),
}
pub(super) use Outcome::{Accept, Discard, Reset, Withdraw};

pub(super) const ORIGIN: &str = "40 01 01 00";
pub(super) const AS_PATH: &str = "40 02 06 02 01 0000fde9";
pub(super) const NEXT_HOP: &str = "40 03 04 c0000201";
pub(super) const NLRI: &str = "18 c63364";
/// MP_REACH_NLRI of 2001:db8::/32 via 2001:db8::1.
pub(super) const MP_REACH: &str =
    "80 0e 1a 0002 01 10 20010db8000000000000000000000001 00 20 20010db8";

pub(super) fn body(withdrawn: &str, attributes: &str, nlri: &str) -> Vec<u8> {
    let (withdrawn, attributes) = (hex(withdrawn), hex(attributes));
    let mut body = Vec::new();
    for field in [&withdrawn, &attributes] {
        body.extend_from_slice(&u16::try_from(field.len()).unwrap().to_be_bytes());
        body.extend_from_slice(field);
    }
    body.extend(hex(nlri));
    body
}

pub(super) fn outcome(body: &[u8], params: &SessionParams) -> (Outcome, Option<Update>) {
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

pub(super) fn check(cases: &[(&str, String, Outcome)], params: &SessionParams) {
    for (name, attributes, expected) in cases {
        let (found, update) = outcome(&body("", attributes, NLRI), params);
        assert_eq!(found, *expected, "{name}: {update:?}");
    }
}

/// The three mandatory attributes with one replaced, or with others after them.
pub(super) fn with_origin(origin: &str) -> String {
    format!("{origin} {AS_PATH} {NEXT_HOP}")
}

pub(super) fn with_path(path: &str) -> String {
    format!("{ORIGIN} {path} {NEXT_HOP}")
}

pub(super) fn with_next_hop(next_hop: &str) -> String {
    format!("{ORIGIN} {AS_PATH} {next_hop}")
}

pub(super) fn and(extra: &str) -> String {
    format!("{ORIGIN} {AS_PATH} {NEXT_HOP} {extra}")
}

/// AS_PATH of `count` numbers, in the extended form.
pub(super) fn long_path(count: usize) -> String {
    let mut value = Vec::new();
    as_path::encode(&AsPath::from_sequence(vec![65001; count]), true, &mut value);
    let digits: String = value.iter().map(|octet| format!("{octet:02x}")).collect();
    format!("50 02 {:04x} {digits}", value.len())
}
