//! `ocicat ipam`: addresses of this node.

use super::table::Table;
use crate::ctl::{BlockLine, CheckReport, IpamQuestion, IpamSummary};
use clap::Subcommand;
use std::net::IpAddr;

#[derive(Debug, Subcommand)]
pub(super) enum Ipam {
    /// How full the pools are, as this node knows it
    Show,
    /// Every block and its node; of this node's own, how full they are
    Blocks,
    /// Leaks, doubles and addresses in somebody else's block: which pod, which node, since when
    Check,
    /// Free an address that a pod of this node left behind
    Release {
        /// The address
        address: IpAddr,
        /// Only the use of the address that `check` showed under this number
        #[arg(long)]
        sequence: Option<u64>,
        /// Also where the pod's network namespace is still there: its interface goes too
        #[arg(long)]
        force: bool,
    },
}

impl Ipam {
    pub(super) fn question(&self) -> IpamQuestion {
        match self {
            Self::Show => IpamQuestion::Show,
            Self::Blocks => IpamQuestion::Blocks,
            Self::Check => IpamQuestion::Check,
            Self::Release {
                address,
                sequence,
                force,
            } => IpamQuestion::Release {
                address: *address,
                sequence: *sequence,
                force: *force,
            },
        }
    }

    /// The answer for people.
    pub(super) fn table(&self, value: serde_json::Value) -> Result<String, serde_json::Error> {
        match self {
            Self::Show => serde_json::from_value(value).map(|summary| show(&summary)),
            Self::Blocks => serde_json::from_value(value).map(|lines: Vec<_>| blocks(&lines)),
            Self::Check => serde_json::from_value(value).map(|report| check(&report)),
            Self::Release { .. } => Ok(value.to_string()),
        }
    }
}

fn show(summary: &IpamSummary) -> String {
    let mut table = Table::new([
        "POOL",
        "CIDR",
        "BLOCKS",
        "CLAIMED",
        "OWN",
        "ADDRESSES",
        "IN USE",
        "COOLING",
        "RESERVED",
    ]);
    for pool in &summary.pools {
        table.row([
            pool.pool.clone(),
            pool.cidr.to_string(),
            pool.blocks.to_string(),
            pool.claimed.to_string(),
            pool.own.to_string(),
            pool.addresses.to_string(),
            pool.in_use.to_string(),
            pool.cooling.to_string(),
            pool.barred.to_string(),
        ]);
    }
    let mut text = table.to_string();
    for (device, address) in &summary.tunnels {
        text.push_str(&format!("{device} has {address}\n"));
    }
    text
}

fn blocks(lines: &[BlockLine]) -> String {
    let mut table = Table::new(["BLOCK", "NODE", "POOL", "IN USE", "FREE", "STATE"]);
    let count = |count: Option<u32>| count.map_or_else(|| "-".to_owned(), |n| n.to_string());
    for line in lines {
        table.row([
            line.block.to_string(),
            line.node.clone(),
            line.pool.clone(),
            count(line.in_use),
            count(line.free),
            line.state.clone(),
        ]);
    }
    table.to_string()
}

fn check(report: &CheckReport) -> String {
    let mut text = String::new();
    for line in &report.problems {
        text.push_str(&format!(
            "problem   {} (for {} s)\n",
            line.problem, line.seconds
        ));
    }
    for conflict in &report.conflicts {
        text.push_str(&format!("conflict  {conflict}\n"));
    }
    for (node, seconds) in &report.departed {
        text.push_str(&format!(
            "departed  node {node} has blocks and no Node object, and nothing speaks for it (for {seconds} s)\n"
        ));
    }
    if text.is_empty() {
        text = format!(
            "node {}: {} endpoints compared with journal, kernel and datastore: nothing is wrong\n",
            report.node, report.endpoints
        );
    }
    text
}
