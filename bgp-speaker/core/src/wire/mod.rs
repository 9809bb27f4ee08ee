//! The BGP-4 wire format (RFC 4271 section 4 and its extensions), both ways.
//!
//! ```text
//! bytes -> Framer -> Frame -> decode -> Message        header, marker, lengths: RFC 4271 section 6.1
//!                             open, capability         OPEN: RFC 4271 section 6.2, RFC 5492, RFC 9072
//!                             update, attribute, nlri  UPDATE: RFC 7606, RFC 4760, RFC 7911
//! values -> encode_*, UpdateEncoder -> bytes
//! ```
//!
//! Decoding never panics, takes time and memory linear in the message, and says for each fault
//! what RFC 7606 wants done: a [`WireError`] ends the session with the NOTIFICATION it carries, an
//! [`AttributeFault`] does not. The code here never indexes a slice; `Reader` is the only way in.
//!
//! ```
//! use bgp_core::wire::{Framer, Message, SessionParams, WireError, decode, encode_keepalive};
//!
//! # fn main() -> Result<(), WireError> {
//! let params = SessionParams::default();
//! let mut framer = Framer::new();
//! framer.push(&encode_keepalive());
//! while let Some(frame) = framer.next_frame()? {
//!     assert_eq!(decode(&frame, &params)?, Message::Keepalive);
//! }
//! # Ok(())
//! # }
//! ```
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)
)]

mod as_path;
mod attribute;
mod attribute_encoder;
mod capability;
mod display;
mod error;
mod framer;
mod multiprotocol;
mod nlri;
mod notification;
mod open;
mod reader;
mod refresh;
mod types;
mod update;
mod update_encoder;
mod writer;

#[cfg(test)]
mod tests;

pub(crate) use attribute_encoder::encode as encode_attributes;
pub use error::WireError;
pub use framer::{
    Frame, Framer, HEADER_LENGTH, MAX_EXTENDED_LENGTH, MAX_LENGTH, MessageType, encode_keepalive,
};
pub use notification::{ErrorCode, encode_notification};
pub use open::{AS_TRANS, decode_open, encode_open};
pub use refresh::encode_route_refresh;
pub use types::*;
pub use update::MAX_AS_PATH_LENGTH;
pub(crate) use update_encoder::EncodedAttributes;
pub use update_encoder::{DEFAULT_LOCAL_PREF, EncodeError, UpdateEncoder};

/// Decodes one frame. OPEN, NOTIFICATION, KEEPALIVE and ROUTE-REFRESH do not depend on `params`.
///
/// # Errors
/// The session is to be ended with the error's NOTIFICATION. Faults in an UPDATE that RFC 7606
/// lets a session survive are in [`Update::faults`] instead.
pub fn decode(frame: &Frame<'_>, params: &SessionParams) -> Result<Message, WireError> {
    Ok(match frame.kind() {
        MessageType::Open => Message::Open(decode_open(frame)?),
        MessageType::Update => Message::Update(update::decode(frame.body(), params)?),
        MessageType::Notification => {
            Message::Notification(notification::decode(frame.body()).ok_or_else(|| {
                WireError::new(ErrorCode::BAD_MESSAGE_LENGTH, "NOTIFICATION is too short")
            })?)
        }
        MessageType::Keepalive => Message::Keepalive,
        MessageType::RouteRefresh => Message::RouteRefresh(refresh::decode(frame)?),
    })
}
