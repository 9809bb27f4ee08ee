//! What the kernel answered when it did not do what it was asked.

use std::fmt;

/// An error number of Linux.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(pub i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({}: {self})", self.0)
    }
}

impl From<std::io::Error> for Errno {
    fn from(error: std::io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl From<rustix::io::Errno> for Errno {
    fn from(error: rustix::io::Errno) -> Self {
        Self(error.raw_os_error())
    }
}

/// A netlink request that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused the request.
    #[error("{errno}{}", detail(.text))]
    Refused {
        /// Why.
        errno: Errno,
        /// The kernel's own words (extended acknowledgement), if it had any.
        text: Option<String>,
    },
    /// The socket failed.
    #[error("netlink socket: {0}")]
    Socket(Errno),
    /// The kernel had no room for its answers (`ENOBUFS`): what happened is not known.
    #[error("the kernel's answers were lost, the receive buffer is too small")]
    AnswersLost,
    /// The kernel answered nothing, or half.
    #[error("the kernel did not answer the request")]
    NoAnswer,
    /// What was dumped changed during the dump, several times in a row.
    #[error("the table that was read kept changing meanwhile")]
    Unstable,
}

impl NetlinkError {
    /// The error number, if the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. } | Self::Socket(errno) => Some(errno.0),
            Self::AnswersLost | Self::NoAnswer | Self::Unstable => None,
        }
    }

    pub(crate) fn is(&self, errno: i32) -> bool {
        matches!(self, Self::Refused { errno: Errno(code), .. } if *code == errno)
    }
}

fn detail(text: &Option<String>) -> String {
    text.as_ref()
        .map(|text| format!(": {text}"))
        .unwrap_or_default()
}
