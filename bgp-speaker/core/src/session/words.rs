//! NOTIFICATIONs in words (RFC 4271 section 4.5, RFC 4486, RFC 5492, RFC 6608, RFC 8538, RFC 9003).

use crate::wire::Notification;

/// Cease subcodes that we send (RFC 4486, RFC 8538).
pub(crate) mod cease {
    pub(crate) const MAX_PREFIXES: u8 = 1;
    pub(crate) const ADMIN_SHUTDOWN: u8 = 2;
    pub(crate) const PEER_DECONFIGURED: u8 = 3;
    pub(crate) const REJECTED: u8 = 5;
    pub(crate) const CONFIG_CHANGE: u8 = 6;
    pub(crate) const COLLISION: u8 = 7;
    pub(crate) const HARD_RESET: u8 = 9;
}

/// A Cease with a subcode.
pub(crate) fn cease(subcode: u8) -> Notification {
    Notification { code: 6, subcode, data: Vec::new() }
}

/// The notification in words, such as `Cease: administrative shutdown ("maintenance")`.
pub fn describe(notification: &Notification) -> String {
    let Notification { code, subcode, data } = notification;
    let code_words = match code {
        1 => "message header error",
        2 => "OPEN message error",
        3 => "UPDATE message error",
        4 => "hold timer expired",
        5 => "finite state machine error",
        6 => "Cease",
        7 => "ROUTE-REFRESH message error",
        _ => "unknown error",
    };
    let mut text = match subcode_words(*code, *subcode) {
        Some(words) => format!("{code_words}: {words} ({code}/{subcode})"),
        None => format!("{code_words} ({code}/{subcode})"),
    };
    if let Some(message) = shutdown_text(notification) {
        text.push_str(&format!(", saying \"{message}\""));
    } else if (*code, *subcode) == (6, cease::HARD_RESET) && data.len() >= 2 {
        let inner = Notification {
            code: data[0],
            subcode: data[1],
            data: data.get(2..).unwrap_or_default().to_vec(),
        };
        text.push_str(&format!(", because of {}", describe_inner(&inner)));
    }
    text
}

/// A hard reset in a hard reset would otherwise nest as deep as the message is long.
fn describe_inner(inner: &Notification) -> String {
    match (inner.code, inner.subcode) {
        (6, cease::HARD_RESET) => "Cease: hard reset (6/9)".into(),
        _ => describe(inner),
    }
}

fn subcode_words(code: u8, subcode: u8) -> Option<&'static str> {
    Some(match (code, subcode) {
        (1, 1) => "connection not synchronised",
        (1, 2) => "bad message length",
        (1, 3) => "bad message type",
        (2, 1) => "unsupported version",
        (2, 2) => "bad peer AS",
        (2, 3) => "bad BGP identifier",
        (2, 4) => "unsupported optional parameter",
        (2, 6) => "unacceptable hold time",
        (2, 7) => "unsupported capability",
        (2, 11) => "role mismatch",
        (3, 1) => "malformed attribute list",
        (3, 2) => "unrecognised well-known attribute",
        (3, 3) => "missing well-known attribute",
        (3, 4) => "attribute flags error",
        (3, 5) => "attribute length error",
        (3, 6) => "invalid ORIGIN",
        (3, 8) => "invalid NEXT_HOP",
        (3, 9) => "optional attribute error",
        (3, 10) => "invalid network field",
        (3, 11) => "malformed AS_PATH",
        (5, 1) => "unexpected message in OpenSent",
        (5, 2) => "unexpected message in OpenConfirm",
        (5, 3) => "unexpected message in Established",
        (6, cease::MAX_PREFIXES) => "maximum number of prefixes reached",
        (6, cease::ADMIN_SHUTDOWN) => "administrative shutdown",
        (6, cease::PEER_DECONFIGURED) => "peer de-configured",
        (6, 4) => "administrative reset",
        (6, cease::REJECTED) => "connection rejected",
        (6, cease::CONFIG_CHANGE) => "other configuration change",
        (6, cease::COLLISION) => "connection collision resolution",
        (6, 8) => "out of resources",
        (6, cease::HARD_RESET) => "hard reset",
        (6, 10) => "BFD down",
        _ => return None,
    })
}

/// The text of RFC 9003, made safe for a log line.
fn shutdown_text(notification: &Notification) -> Option<String> {
    if notification.code != 6 || !matches!(notification.subcode, 2 | 4) {
        return None;
    }
    let (length, rest) = notification.data.split_first()?;
    let text = rest.get(..usize::from(*length))?;
    let text: String = String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shutdown_text_is_shown_without_control_characters() {
        let notification =
            Notification { code: 6, subcode: 2, data: b"\x06bye\x1b!\n".to_vec() };
        assert_eq!(
            describe(&notification),
            "Cease: administrative shutdown (6/2), saying \"bye!\""
        );
    }

    #[test]
    fn a_hard_reset_names_what_it_carries() {
        let notification = Notification { code: 6, subcode: 9, data: vec![6, 3] };
        assert_eq!(
            describe(&notification),
            "Cease: hard reset (6/9), because of Cease: peer de-configured (6/3)"
        );
    }

    #[test]
    fn a_nested_hard_reset_and_a_short_text_are_harmless() {
        let nested = Notification { code: 6, subcode: 9, data: vec![6, 9, 6, 9] };
        assert!(describe(&nested).ends_with("because of Cease: hard reset (6/9)"));
        let short = Notification { code: 6, subcode: 2, data: vec![200, b'x'] };
        assert_eq!(describe(&short), "Cease: administrative shutdown (6/2)");
    }
}
