//! Netlink below the families: one socket type, one encoder, one reader of attributes.
//!
//! The kernel handles a datagram before `send` returns, so nothing here ever waits: when the
//! answers that are queued have been read, there are no more.

mod attributes;
mod encoder;
mod error;
mod socket;

pub(crate) use attributes::{Attributes, be_u16, be_u32, ne_u32};
pub(crate) use encoder::{Encoder, Flags};
pub use error::{Errno, NetlinkError};
pub(crate) use socket::{Dump, Frame, Progress, Protocol, Socket};
