//! Times as the API writes them. Nothing is decided by them: they are for people.

use k8s_openapi::jiff::Timestamp;

/// `metav1.Time`: RFC 3339, in whole seconds.
pub(super) fn now() -> String {
    format!("{:.0}", Timestamp::now())
}

/// `metav1.MicroTime`: RFC 3339, with six digits of the second.
pub(super) fn now_micros() -> String {
    format!("{:.6}", Timestamp::now())
}
