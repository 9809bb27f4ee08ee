//! What Ocicat takes: on disk and in memory.

use super::report::{Row, Target};
use crate::demo::cluster::Cluster;
use crate::lab::agent::binary;
use anyhow::Result;
use std::path::Path;
use std::time::Duration;

pub(super) fn run() -> Result<Vec<Row>> {
    let agent = binary("OCICAT_NODE_BIN", "ocicat-node")?;
    let plugin = binary("OCICAT_CNI_BIN", "ocicat-cni")?;
    let mut rows = vec![
        row(
            "agent_binary",
            "MiB",
            bytes(&agent)? / f64::from(1 << 20),
            8.0,
        ),
        row("cni_binary", "KB", bytes(&plugin)? / 1e3, 600.0),
    ];
    let mut cluster = Cluster::start("Never", Duration::from_secs(60))?;
    cluster.ensure_pods()?;
    let mut greatest: f64 = 0.0;
    for agent in &cluster.agents {
        greatest = greatest.max(agent.rss_kib()? as f64 * 1024.0 / 1e6);
    }
    rows.push(row("agent_rss", "MB", greatest, 20.0));
    Ok(rows)
}

fn bytes(path: &Path) -> Result<f64> {
    Ok(std::fs::metadata(path)?.len() as f64)
}

fn row(what: &str, unit: &str, ours: f64, target: f64) -> Row {
    Row {
        target: Some(Target::Ours(target)),
        ..Row::alone(what, unit, &[ours], 0.0)
    }
}
