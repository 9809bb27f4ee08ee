//! Faults that end a session.

use super::{ErrorCode, Notification};

/// A message that ends the session: send the NOTIFICATION, then close.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason} ({notification})")]
pub struct WireError {
    /// What to tell the peer, with the code, subcode and data of RFC 4271 section 6.
    pub notification: Notification,
    /// What was wrong, in words, for the log.
    pub reason: &'static str,
}

impl WireError {
    pub(super) fn new(code: ErrorCode, reason: &'static str) -> Self {
        Self {
            notification: Notification::new(code),
            reason,
        }
    }

    pub(super) fn with_data(code: ErrorCode, data: &[u8], reason: &'static str) -> Self {
        Self {
            notification: Notification::with_data(code, data),
            reason,
        }
    }
}
