//! Settings of the whole host that break what the agent sets up.

use std::fs;
use std::path::Path;

/// A setting that is as it should not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// Its name, its value and what that does.
    pub(crate) said: String,
    /// Packets of pods are lost by it, whatever is configured.
    pub(crate) loses_packets: bool,
}

struct Setting {
    /// Below `/proc/sys/net`.
    path: &'static str,
    bad: &'static str,
    why: &'static str,
    loses_packets: bool,
}

const SETTINGS: [Setting; 7] = [
    // Forwarding is the agent's to set, which says by itself where it can't.
    setting(
        "ipv4/ip_forward",
        "0",
        "nothing is forwarded; somebody turns it off again and again",
    ),
    setting("ipv6/conf/all/forwarding", "0", "no IPv6 is forwarded"),
    setting("ipv6/conf/all/disable_ipv6", "1", "this host has no IPv6"),
    Setting {
        loses_packets: true,
        ..setting(
            "ipv4/conf/all/rp_filter",
            "1",
            "strict: answers that come back by another uplink are dropped; 2 is loose",
        )
    },
    setting(
        "ipv4/fib_multipath_hash_policy",
        "0",
        "all that two nodes wrap in VXLAN takes one path; 1 looks at ports",
    ),
    setting(
        "ipv6/fib_multipath_hash_policy",
        "0",
        "all that two nodes wrap in VXLAN takes one path; 1 looks at ports",
    ),
    setting(
        "ipv4/tcp_mtu_probing",
        "2",
        "every TCP connection starts with short segments",
    ),
];

const fn setting(path: &'static str, bad: &'static str, why: &'static str) -> Setting {
    Setting {
        path,
        bad,
        why,
        loses_packets: false,
    }
}

/// Those below `root`, which is `/proc/sys/net` or a copy.
pub(crate) fn wrong(root: &Path) -> Vec<Wrong> {
    let is_bad = |setting: &&Setting| {
        let value = fs::read_to_string(root.join(setting.path));
        value.is_ok_and(|value| value.trim() == setting.bad)
    };
    let said = |setting: &Setting| Wrong {
        said: format!(
            "net.{} = {}: {}",
            setting.path.replace('/', "."),
            setting.bad,
            setting.why
        ),
        loses_packets: setting.loses_packets,
    };
    SETTINGS.iter().filter(is_bad).map(said).collect()
}
