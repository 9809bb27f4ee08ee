//! Passwords of TCP MD5 signatures (RFC 2385).

use std::fmt;

/// A password for TCP MD5 signatures. It shows itself to nobody but [`Password::expose`]'s caller.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

/// Why a password cannot be one of TCP MD5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a TCP MD5 password has 1 to {} octets, not {octets}",
    Password::MAX_OCTETS
)]
pub struct PasswordError {
    /// Length of what was given.
    pub octets: usize,
}

impl Password {
    /// `TCP_MD5SIG_MAXKEYLEN` of linux/tcp.h.
    pub const MAX_OCTETS: usize = 80;

    /// # Errors
    /// [`PasswordError`] if it is empty or longer than the kernel takes.
    pub fn new(text: impl Into<String>) -> Result<Self, PasswordError> {
        let text = text.into();
        if (1..=Self::MAX_OCTETS).contains(&text.len()) {
            Ok(Self(text))
        } else {
            Err(PasswordError { octets: text.len() })
        }
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PeerConfig;

    #[test]
    fn a_password_has_a_length_that_the_kernel_takes_and_is_not_printed() {
        for (octets, valid) in [(0, false), (1, true), (80, true), (81, false)] {
            let password = Password::new("x".repeat(octets));
            assert_eq!(password.is_ok(), valid, "{octets}");
        }
        let mut peer = PeerConfig::new("tor", 65001);
        peer.password = Password::new("hunter2").ok();
        assert!(!format!("{peer:?}").contains("hunter2"));
    }
}
