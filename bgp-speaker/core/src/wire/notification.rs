//! NOTIFICATION (RFC 4271 section 4.5): codes, words, and the text of RFC 9003.

use std::fmt;

use super::framer::{MAX_LENGTH, MessageType};
use super::reader::Reader;
use super::writer::{begin_message, finish_message};
use super::{Family, Notification};

/// Error code and subcode; 0 is "unspecific".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorCode {
    /// Error code.
    pub code: u8,
    /// Error subcode.
    pub subcode: u8,
}

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal / $subcode:literal, $words:literal;)*) => {
        impl ErrorCode {
            $($(#[$doc])* pub const $name: Self = Self { code: $code, subcode: $subcode };)*

            /// The name of the subcode; `None` for one that nobody has registered.
            pub const fn subcode_name(self) -> Option<&'static str> {
                match (self.code, self.subcode) {
                    $(($code, $subcode) => Some($words),)*
                    _ => None,
                }
            }
        }
    };
}

error_codes! {
    /// RFC 4271 section 6.1.
    CONNECTION_NOT_SYNCHRONIZED = 1/1, "Connection Not Synchronized";
    /// RFC 4271 section 6.1; the data is the length.
    BAD_MESSAGE_LENGTH = 1/2, "Bad Message Length";
    /// RFC 4271 section 6.1; the data is the type.
    BAD_MESSAGE_TYPE = 1/3, "Bad Message Type";
    /// RFC 4271 section 6.2.
    OPEN_UNSPECIFIC = 2/0, "Unspecific";
    /// RFC 4271 section 6.2; the data is the version that we speak.
    UNSUPPORTED_VERSION = 2/1, "Unsupported Version Number";
    /// RFC 4271 section 6.2.
    BAD_PEER_AS = 2/2, "Bad Peer AS";
    /// RFC 4271 section 6.2.
    BAD_BGP_IDENTIFIER = 2/3, "Bad BGP Identifier";
    /// RFC 4271 section 6.2.
    UNSUPPORTED_OPTIONAL_PARAMETER = 2/4, "Unsupported Optional Parameter";
    /// RFC 1771; deprecated by RFC 4271.
    AUTHENTICATION_FAILURE = 2/5, "Authentication Failure";
    /// RFC 4271 section 6.2.
    UNACCEPTABLE_HOLD_TIME = 2/6, "Unacceptable Hold Time";
    /// RFC 5492; the data is the capabilities that the sender misses.
    UNSUPPORTED_CAPABILITY = 2/7, "Unsupported Capability";
    /// RFC 9234.
    ROLE_MISMATCH = 2/11, "Role Mismatch";
    /// RFC 4271 section 6.3.
    UPDATE_UNSPECIFIC = 3/0, "Unspecific";
    /// RFC 4271 section 6.3.
    MALFORMED_ATTRIBUTE_LIST = 3/1, "Malformed Attribute List";
    /// RFC 4271 section 6.3; the data is the attribute.
    UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE = 3/2, "Unrecognized Well-known Attribute";
    /// RFC 4271 section 6.3; the data is the type code.
    MISSING_WELL_KNOWN_ATTRIBUTE = 3/3, "Missing Well-known Attribute";
    /// RFC 4271 section 6.3; the data is the attribute.
    ATTRIBUTE_FLAGS = 3/4, "Attribute Flags Error";
    /// RFC 4271 section 6.3; the data is the attribute.
    ATTRIBUTE_LENGTH = 3/5, "Attribute Length Error";
    /// RFC 4271 section 6.3; the data is the attribute.
    INVALID_ORIGIN = 3/6, "Invalid ORIGIN Attribute";
    /// RFC 1771; deprecated by RFC 4271.
    AS_ROUTING_LOOP = 3/7, "AS Routing Loop";
    /// RFC 4271 section 6.3; the data is the attribute.
    INVALID_NEXT_HOP = 3/8, "Invalid NEXT_HOP Attribute";
    /// RFC 4271 section 6.3; the data is the attribute.
    OPTIONAL_ATTRIBUTE = 3/9, "Optional Attribute Error";
    /// RFC 4271 section 6.3.
    INVALID_NETWORK_FIELD = 3/10, "Invalid Network Field";
    /// RFC 4271 section 6.3.
    MALFORMED_AS_PATH = 3/11, "Malformed AS_PATH";
    /// RFC 4271 section 6.5.
    HOLD_TIMER_EXPIRED = 4/0, "Unspecific";
    /// RFC 4271 section 6.6.
    FSM_UNSPECIFIC = 5/0, "Unspecific";
    /// RFC 6608.
    FSM_OPEN_SENT = 5/1, "Receive Unexpected Message in OpenSent State";
    /// RFC 6608.
    FSM_OPEN_CONFIRM = 5/2, "Receive Unexpected Message in OpenConfirm State";
    /// RFC 6608.
    FSM_ESTABLISHED = 5/3, "Receive Unexpected Message in Established State";
    /// RFC 4486.
    CEASE_UNSPECIFIC = 6/0, "Unspecific";
    /// RFC 4486; the data may be family and limit.
    CEASE_MAX_PREFIXES = 6/1, "Maximum Number of Prefixes Reached";
    /// RFC 4486; the data may be the text of RFC 9003.
    CEASE_ADMIN_SHUTDOWN = 6/2, "Administrative Shutdown";
    /// RFC 4486.
    CEASE_PEER_DECONFIGURED = 6/3, "Peer De-configured";
    /// RFC 4486; the data may be the text of RFC 9003.
    CEASE_ADMIN_RESET = 6/4, "Administrative Reset";
    /// RFC 4486.
    CEASE_CONNECTION_REJECTED = 6/5, "Connection Rejected";
    /// RFC 4486.
    CEASE_CONFIG_CHANGE = 6/6, "Other Configuration Change";
    /// RFC 4486.
    CEASE_COLLISION = 6/7, "Connection Collision Resolution";
    /// RFC 4486.
    CEASE_OUT_OF_RESOURCES = 6/8, "Out of Resources";
    /// RFC 8538; the data is another NOTIFICATION's code, subcode and data.
    CEASE_HARD_RESET = 6/9, "Hard Reset";
    /// RFC 9384.
    CEASE_BFD_DOWN = 6/10, "BFD Down";
    /// RFC 7313.
    ROUTE_REFRESH_UNSPECIFIC = 7/0, "Unspecific";
    /// RFC 7313; the data is the message.
    ROUTE_REFRESH_INVALID_LENGTH = 7/1, "Invalid Message Length";
    /// RFC 9687.
    SEND_HOLD_TIMER_EXPIRED = 8/0, "Unspecific";
}

impl ErrorCode {
    /// The name of the code, without the subcode.
    pub const fn code_name(self) -> Option<&'static str> {
        Some(match self.code {
            1 => "Message Header Error",
            2 => "OPEN Message Error",
            3 => "UPDATE Message Error",
            4 => "Hold Timer Expired",
            5 => "Finite State Machine Error",
            6 => "Cease",
            7 => "ROUTE-REFRESH Message Error",
            8 => "Send Hold Timer Expired",
            _ => return None,
        })
    }
}

/// In words, such as `Cease/Administrative Shutdown`.
impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code_name() {
            Some(name) => f.write_str(name)?,
            None => write!(f, "error {}", self.code)?,
        }
        match (self.subcode, self.subcode_name()) {
            (0, _) => Ok(()),
            (_, Some(name)) => write!(f, "/{name}"),
            (subcode, None) => write!(f, "/subcode {subcode}"),
        }
    }
}

impl Notification {
    /// Without data.
    pub fn new(code: ErrorCode) -> Self {
        Self::with_data(code, &[])
    }

    /// With data.
    pub fn with_data(code: ErrorCode, data: &[u8]) -> Self {
        Self {
            code: code.code,
            subcode: code.subcode,
            data: data.to_vec(),
        }
    }

    /// With the shutdown text of RFC 9003, cut to at most 255 octets at a character's boundary.
    /// For [`ErrorCode::CEASE_ADMIN_SHUTDOWN`] and [`ErrorCode::CEASE_ADMIN_RESET`].
    pub fn with_text(code: ErrorCode, text: &str) -> Self {
        let text = text.get(..text.floor_char_boundary(255)).unwrap_or(text);
        let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
        let mut data = vec![length];
        data.extend_from_slice(text.as_bytes());
        Self::with_data(code, &data)
    }

    /// Too many prefixes of a family (RFC 4486).
    pub fn max_prefixes(family: Family, limit: u32) -> Self {
        let mut data = family.afi.to_be_bytes().to_vec();
        data.push(family.safi);
        data.extend_from_slice(&limit.to_be_bytes());
        Self::with_data(ErrorCode::CEASE_MAX_PREFIXES, &data)
    }

    /// This one as a hard reset, which ends the session although RFC 8538 was agreed on.
    pub fn into_hard_reset(self) -> Self {
        let mut data = vec![self.code, self.subcode];
        data.extend_from_slice(&self.data);
        Self::with_data(ErrorCode::CEASE_HARD_RESET, &data)
    }

    /// Code and subcode.
    pub fn error_code(&self) -> ErrorCode {
        ErrorCode {
            code: self.code,
            subcode: self.subcode,
        }
    }

    /// The shutdown text of RFC 9003; `None` where there is none or it is malformed.
    /// It comes from outside: escape it before it reaches a terminal or a log, as `Display` does.
    pub fn text(&self) -> Option<&str> {
        let carries_text = [
            ErrorCode::CEASE_ADMIN_SHUTDOWN,
            ErrorCode::CEASE_ADMIN_RESET,
        ];
        if !carries_text.contains(&self.error_code()) {
            return None;
        }
        let mut reader = Reader::new(&self.data);
        let text = reader.block8()?;
        if text.is_empty() || !reader.is_empty() {
            return None;
        }
        std::str::from_utf8(text).ok()
    }

    /// What a hard reset was sent for.
    pub fn hard_reset_cause(&self) -> Option<Self> {
        if self.error_code() != ErrorCode::CEASE_HARD_RESET {
            return None;
        }
        decode(&self.data)
    }
}

/// In words, with the text of RFC 9003 or else the data in hexadecimal (at most 32 octets of it).
impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 32;
        write!(f, "{}", self.error_code())?;
        if let Some(text) = self.text() {
            return write!(f, ": {text:?}");
        }
        if let Some(cause) = self.hard_reset_cause() {
            // Its data is not looked into again: a hard reset within a hard reset is nonsense,
            // and the depth of recursion is not the peer's to choose.
            write!(f, " because of {}", cause.error_code())?;
            return match cause.text() {
                Some(text) => write!(f, ": {text:?}"),
                None => Ok(()),
            };
        }
        if !self.data.is_empty() {
            f.write_str(", data ")?;
            for octet in self.data.iter().take(SHOWN) {
                write!(f, "{octet:02x}")?;
            }
            if self.data.len() > SHOWN {
                write!(f, "… ({} octets)", self.data.len())?;
            }
        }
        Ok(())
    }
}

/// NOTIFICATION; data beyond a message of 4096 octets is cut off.
pub fn encode_notification(notification: &Notification) -> Vec<u8> {
    let mut out = Vec::with_capacity(21 + notification.data.len());
    let start = begin_message(&mut out, MessageType::Notification);
    out.extend_from_slice(&[notification.code, notification.subcode]);
    out.extend_from_slice(&notification.data);
    out.truncate(MAX_LENGTH);
    finish_message(&mut out, start);
    out
}

pub(super) fn decode(body: &[u8]) -> Option<Notification> {
    let mut reader = Reader::new(body);
    Some(Notification {
        code: reader.u8()?,
        subcode: reader.u8()?,
        data: reader.rest().to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_registered_code_has_words() {
        let subcodes = [
            (1, 3),
            (2, 7),
            (3, 11),
            (4, 0),
            (5, 3),
            (6, 10),
            (7, 1),
            (8, 0),
        ];
        for (code, last) in subcodes {
            for subcode in 0..=last {
                let words = ErrorCode { code, subcode }.to_string();
                assert!(!words.contains("error "), "{words}");
                let unnamed = words.contains("subcode");
                assert!(!unnamed, "{words}");
            }
        }
        let unknown = ErrorCode {
            code: 99,
            subcode: 7,
        };
        assert_eq!(unknown.to_string(), "error 99/subcode 7");
    }

    #[test]
    fn shutdown_text_is_shown_and_control_characters_are_escaped() {
        let note = Notification::with_text(ErrorCode::CEASE_ADMIN_SHUTDOWN, "bye\u{1b}[2J");
        assert_eq!(note.data.first(), Some(&7));
        assert_eq!(note.text(), Some("bye\u{1b}[2J"));
        assert_eq!(
            note.to_string(),
            r#"Cease/Administrative Shutdown: "bye\u{1b}[2J""#
        );
    }

    #[test]
    fn shutdown_text_is_cut_between_characters() {
        let note = Notification::with_text(ErrorCode::CEASE_ADMIN_RESET, &"é".repeat(200));
        assert_eq!(note.text(), Some("é".repeat(127).as_str()));
    }

    #[test]
    fn malformed_shutdown_text_is_shown_as_data() {
        for data in [&[3, b'a'][..], &[1, b'a', b'b'], &[2, 0xff, 0xfe], &[0]] {
            let note = Notification::with_data(ErrorCode::CEASE_ADMIN_SHUTDOWN, data);
            assert_eq!(note.text(), None);
            assert!(note.to_string().contains(", data "), "{note}");
        }
    }

    #[test]
    fn a_hard_reset_names_its_cause() {
        let note = Notification::with_text(ErrorCode::CEASE_ADMIN_SHUTDOWN, "x").into_hard_reset();
        assert_eq!(
            note.to_string(),
            "Cease/Hard Reset because of Cease/Administrative Shutdown: \"x\""
        );
        let cause = note.hard_reset_cause().unwrap();
        assert_eq!(cause.text(), Some("x"));
    }

    #[test]
    fn data_is_cut_to_what_a_message_holds() {
        let note = Notification::with_data(ErrorCode::OPTIONAL_ATTRIBUTE, &[7; 5000]);
        let bytes = encode_notification(&note);
        assert_eq!(bytes.len(), 4096);
        assert_eq!(bytes[16..18], 4096_u16.to_be_bytes());
        assert!(note.to_string().ends_with("… (5000 octets)"));
    }

    #[test]
    fn the_prefix_limit_is_in_the_data() {
        let note = Notification::max_prefixes(Family::IPV6, 1000);
        assert_eq!(note.data, [0, 2, 1, 0, 0, 3, 232]);
    }
}
