//! What the kernel of this network namespace drops without a word to anybody.

use bgp_core::SocketOptions;
use std::fmt::Write;

/// Counters of `/proc/net/netstat`, section `TcpExt`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Drops {
    /// A signature was expected and not there (`TCPMD5NotFound`).
    unsigned: u64,
    /// A signature was there and not expected (`TCPMD5Unexpected`).
    unexpected: u64,
    /// A signature was wrong (`TCPMD5Failure`).
    wrong: u64,
    /// The TTL was below the least (`TCPMinTTLDrop`).
    distant: u64,
}

impl Drops {
    /// The counters of this thread's network namespace; zero where they can't be read.
    pub(crate) fn read() -> Self {
        // A node without /proc has sessions too; it lacks words for their failures.
        Self::parse(&std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
        let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
            return Self::default();
        };
        let mut drops = Self::default();
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            let counter = match name {
                "TCPMD5NotFound" => &mut drops.unsigned,
                "TCPMD5Unexpected" => &mut drops.unexpected,
                "TCPMD5Failure" => &mut drops.wrong,
                "TCPMinTTLDrop" => &mut drops.distant,
                _ => continue,
            };
            *counter = value.parse().unwrap_or_default();
        }
        drops
    }

    /// What was dropped since, as an addition to `no answer`. The counters are those of the whole
    /// namespace, so this is a hint.
    pub(crate) fn since(self, attempt: &SocketOptions) -> Option<String> {
        self.hint(Self::read(), attempt)
    }

    fn hint(self, after: Self, attempt: &SocketOptions) -> Option<String> {
        let counted = [
            (
                after.wrong.saturating_sub(self.wrong),
                "with a wrong TCP MD5 signature",
            ),
            (
                after.unsigned.saturating_sub(self.unsigned),
                "without the TCP MD5 signature that its password asks for",
            ),
            (
                after.unexpected.saturating_sub(self.unexpected),
                "with a TCP MD5 signature, without a password here",
            ),
            (
                after.distant.saturating_sub(self.distant),
                "with a TTL below what ttlSecurity asks for",
            ),
        ];
        let mut words = String::new();
        for (count, what) in counted.into_iter().filter(|(count, _)| *count > 0) {
            let joint = if words.is_empty() {
                "; meanwhile the kernel dropped"
            } else {
                ","
            };
            let _ = write!(words, "{joint} {count} segments {what}");
        }
        if words.is_empty() && attempt.password.is_some() {
            words.push_str(
                "; a peer with another TCP MD5 password, or none, does not answer either",
            );
        }
        (!words.is_empty()).then_some(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bgp_core::Password;

    const BEFORE: &str = "TcpExt: SyncookiesSent TCPMD5NotFound TCPMD5Unexpected TCPMD5Failure TCPMinTTLDrop\n\
                          TcpExt: 1 2 3 4 5\nIpExt: InNoRoutes\nIpExt: 9\n";

    fn attempt(password: Option<&str>) -> SocketOptions {
        SocketOptions {
            source: None,
            device: None,
            ttl: 1,
            min_ttl: 0,
            password: password.map(|text| Password::new(text).unwrap()),
        }
    }

    #[test]
    fn only_what_was_dropped_meanwhile_is_told() {
        let before = Drops::parse(BEFORE);
        assert_eq!((before.unsigned, before.distant), (2, 5));
        let after = Drops::parse(&BEFORE.replace("1 2 3 4 5", "1 2 3 6 6"));
        assert_eq!(
            before.hint(after, &attempt(None)).unwrap(),
            "; meanwhile the kernel dropped 2 segments with a wrong TCP MD5 signature, \
             1 segments with a TTL below what ttlSecurity asks for"
        );
        assert_eq!(before.hint(before, &attempt(None)), None);
        let hint = before.hint(before, &attempt(Some("secret"))).unwrap();
        assert!(
            hint.contains("password") && !hint.contains("secret"),
            "{hint}"
        );
    }

    #[test]
    fn this_kernel_counts() {
        let text = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
        for name in ["TCPMD5NotFound", "TCPMD5Unexpected", "TCPMD5Failure"] {
            assert!(text.contains(name), "{name}");
        }
    }
}
