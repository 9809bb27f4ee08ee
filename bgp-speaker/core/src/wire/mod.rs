//! The wire format.
//!
//! `decode` never panics, never allocates more than the message warrants, and says for each fault
//! what RFC 7606 wants done.

mod types;
pub use types::*;
