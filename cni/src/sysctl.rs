//! Sysctls inside the pod's namespace, where only the plugin is.
//!
//! All of them are best effort: the agent adds addresses without duplicate address detection in
//! any case, and names an address that the kernel refuses.

use std::fs;

/// `/proc/sys/net` shows the namespace of the process that looks.
const CONF: &str = "/proc/sys/net/ipv6/conf";

/// Before the interface exists: what it inherits.
pub(crate) fn prepare() {
    let inherited = [
        ("disable_ipv6", "0"),
        ("accept_dad", "0"),
        ("accept_ra", "0"),
        ("keep_addr_on_down", "1"),
    ];
    for (key, value) in inherited {
        if !set("default", key, value) {
            // A kernel without IPv6.
            return;
        }
    }
}

/// Once the interface exists: IPv6 off where the pod has none, so that it has no link-local
/// address either.
pub(crate) fn finish(ifname: &str, has_ipv6: bool) {
    if has_ipv6 {
        set("all", "disable_ipv6", "0");
    } else {
        set(ifname, "disable_ipv6", "1");
    }
}

/// Writes only what differs, since some writes take the kernel's network lock.
fn set(interface: &str, key: &str, value: &str) -> bool {
    let path = format!("{CONF}/{interface}/{key}");
    match fs::read(&path) {
        Ok(current) if current.trim_ascii() == value.as_bytes() => true,
        Ok(_) => fs::write(&path, value).is_ok(),
        Err(_) => false,
    }
}
