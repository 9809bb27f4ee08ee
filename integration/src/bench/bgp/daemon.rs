//! The daemons that are measured: each takes everything from everybody and passes it on, and
//! writes nothing into the kernel.

use crate::lab::agent::binary;
use crate::lab::{Lab, Netns, Process};
use anyhow::{Context, Result};
use std::fmt::Write;
use std::fs::Permissions;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// AS number of the daemon.
pub(super) const ASN: u32 = 65000;
/// Address of the daemon.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// What daemons and we propose as hold time unless a measurement is about it: none, so that nobody
/// has to send KEEPALIVEs however slow the machine is (RFC 4271 section 4.2).
pub(super) const HOLD_TIME: u16 = 0;
/// Port of the end that discards.
pub(super) const DISCARD_PORT: u16 = 9;
/// Where Debian keeps FRR's daemons.
const FRR: &str = "/usr/lib/frr";

/// Which daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ours,
    Bird,
    Frr,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ours => "bgp-speaker",
            Self::Bird => "BIRD 2",
            Self::Frr => "FRR",
        }
    }
}

/// A peer as the daemon's configuration has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) address: Ipv4Addr,
    pub(super) asn: u32,
    pub(super) hold_time: u16,
    /// It is told everything, not only what the daemon itself originates.
    pub(super) told_all: bool,
}

/// A running daemon; ends with the value.
#[derive(Debug)]
pub(super) struct Daemon {
    processes: Vec<Process>,
}

impl Daemon {
    /// Starts a daemon with these peers, all of which connect to it.
    pub(super) fn start(kind: Kind, lab: &Lab, netns: &Netns, peers: &[Peer]) -> Result<Self> {
        let dir = lab.subdir(&format!("{kind:?}"))?;
        // FRR drops root for a user of its own.
        std::fs::set_permissions(&dir, Permissions::from_mode(0o777)).context("directory")?;
        let processes = match kind {
            Kind::Ours => vec![ours(netns, &dir, peers)?],
            Kind::Bird => vec![bird(netns, &dir, peers)?],
            Kind::Frr => frr(netns, &dir, peers)?,
        };
        Ok(Self { processes })
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::pid).collect()
    }

    /// Fails with the daemon's log if it has ended.
    pub(super) fn expect_running(&mut self) -> Result<()> {
        self.processes
            .iter_mut()
            .try_for_each(Process::expect_running)
    }
}

fn ours(netns: &Netns, dir: &Path, peers: &[Peer]) -> Result<Process> {
    let mut text =
        format!("localAs: {ASN}\nrouterId: {ADDRESS}\nebgpRequiresPolicy: false\npeers:\n");
    for peer in peers {
        let export = if peer.told_all { "All" } else { "OwnRoutes" };
        let _ = writeln!(
            text,
            "- {{ address: {}, remoteAs: {}, passive: true, holdTime: {}, \
             import: All, export: {export} }}",
            peer.address, peer.asn, peer.hold_time
        );
    }
    let file = dir.join("speaker.yaml");
    std::fs::write(&file, text).context("speaker.yaml")?;
    let mut command = Command::new(binary("OCICAT_BGP_SPEAKER_BIN", "bgp-speaker")?);
    command.arg("--config").arg(&file);
    Process::start(netns, dir, "bgp-speaker", &mut command)
}

fn bird(netns: &Netns, dir: &Path, peers: &[Peer]) -> Result<Process> {
    let mut text = format!("log stderr all;\nrouter id {ADDRESS};\nprotocol device {{}}\n");
    for (number, peer) in peers.iter().enumerate() {
        let _ = writeln!(
            text,
            "protocol bgp p{number} {{\n  local {ADDRESS} as {ASN}; neighbor {} as {};\n  \
             passive yes; hold time {}; error wait time 1, 1;\n  \
             ipv4 {{ import all; export all; }};\n}}",
            peer.address, peer.asn, peer.hold_time
        );
    }
    let file = dir.join("bird.conf");
    std::fs::write(&file, text).context("bird.conf")?;
    let mut command = Command::new("bird");
    command.arg("-f").arg("-c").arg(&file);
    command.arg("-s").arg(dir.join("bird.ctl"));
    command.arg("-P").arg(dir.join("bird.pid"));
    Process::start(netns, dir, "bird", &mut command)
}

/// bgpd, and zebra for the next hops; `-n` keeps the routes out of the kernel.
fn frr(netns: &Netns, dir: &Path, peers: &[Peer]) -> Result<Vec<Process>> {
    let mut text = format!(
        "router bgp {ASN}\n bgp router-id {ADDRESS}\n no bgp ebgp-requires-policy\n \
         no bgp network import-check\n"
    );
    for peer in peers {
        let _ = writeln!(
            text,
            " neighbor {0} remote-as {1}\n neighbor {0} passive\n neighbor {0} timers {2} {3}\n \
             neighbor {0} advertisement-interval 0",
            peer.address,
            peer.asn,
            peer.hold_time / 3,
            peer.hold_time
        );
    }
    let file = dir.join("frr.conf");
    std::fs::write(&file, text).context("frr.conf")?;
    let start = |name: &str, extra: &[&str]| {
        let mut command = Command::new(format!("{FRR}/{name}"));
        command.args(["-A", "127.0.0.1", "-P", "0"]).args(extra);
        command.arg("-f").arg(&file).arg("--vty_socket").arg(dir);
        command.arg("-i").arg(dir.join(format!("{name}.pid")));
        command.arg("-z").arg(dir.join("zserv.api"));
        Process::start(netns, dir, name, &mut command)
    };
    // A socket of the round before must not be taken for this one's.
    let _ = std::fs::remove_file(dir.join("zserv.api"));
    let mut zebra = start("zebra", &[])?;
    crate::lab::wait::until(std::time::Duration::from_secs(20), "zebra", || {
        zebra.expect_running().map_err(|error| error.to_string())?;
        let there = dir.join("zserv.api").exists();
        there.then_some(()).ok_or_else(|| "no socket".to_owned())
    })?;
    Ok(vec![start("bgpd", &["-n"])?, zebra])
}
