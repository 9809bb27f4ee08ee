//! The guest: what it has, and how its output and status come back.

use anyhow::Result;
use std::process::Command;

#[test]
fn a_guest_has_ipip_and_nf_tables_and_its_status_and_output_come_back() -> Result<()> {
    let script = "ip netns add a && ip -n a link add t0 type ipip external && ip -n a link show t0 && \
        ip netns exec a nft 'add table inet t; add set inet t s { type ipv4_addr; elements = { 192.0.2.7 }; }' && \
        ip netns exec a nft list table inet t; echo to standard error >&2; exit 7";
    let output = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["vm", "--timeout", "180", "--", "sh", "-c", script])
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(7),
        "{said} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    for expected in ["link/ipip", "192.0.2.7", "to standard error"] {
        assert!(said.contains(expected), "{expected} is not in: {said}");
    }
    Ok(())
}

#[test]
fn a_guest_that_takes_too_long_is_ended() -> Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["vm", "--timeout", "3", "--", "sleep", "600"])
        .output()?;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("after 3 s"));
    Ok(())
}
