//! `cargo lab bench kube`: pods that start, requests, events, memory, many nodes.
//!
//! | file | what it measures |
//! |---|---|
//! | `time` | histograms of containerd and the agents, and what processes waited for a processor |
//! | `startup` | pods from scheduled to Ready, and ADD as the runtime sees it, beside the reference plugins |
//! | `requests` | what agents ask of the API server |
//! | `event` | from the bytes of a watch to the rule in the kernel |
//! | `nodes` | the watches of many simulated nodes on one API server |
//! | `memory` | agents in a cluster of many pods and policies |
//! | `load` | the tool that writes them |

mod event;
pub(super) mod load;
mod memory;
mod nodes;
mod requests;
mod startup;
mod time;

use super::check::world::{self, World};
use super::{Cache, Cluster, Options, Proxy, reference};
use crate::bench::{Row, Steal};
use anyhow::{Context, Result};
use startup::Network;
use std::path::PathBuf;

/// What can be measured for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[allow(missing_docs)] // the modules say it
pub(super) enum Part {
    Startup,
    Requests,
    Event,
    Nodes,
    Memory,
}

/// What is asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct BenchOptions {
    /// Only these
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Pods of other nodes, for the memory of agents
    #[arg(long, default_value_t = 100_000)]
    pods: usize,
    /// Policies beside them
    #[arg(long, default_value_t = 10_000)]
    policies: usize,
    /// Simulated nodes
    #[arg(long, default_value_t = 1_000)]
    nodes: usize,
    /// The image's archive; built if not given
    #[arg(long)]
    image: Option<PathBuf>,
    /// Also writes the rows to this file
    #[arg(long)]
    pub(super) json: Option<PathBuf>,
}

impl Default for BenchOptions {
    fn default() -> Self {
        Self {
            only: Vec::new(),
            pods: 100_000,
            policies: 10_000,
            nodes: 1_000,
            image: None,
            json: None,
        }
    }
}

impl BenchOptions {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

/// All of it.
///
/// # Errors
/// As [`measure`].
pub(crate) fn run() -> Result<Vec<Row>> {
    measure(&BenchOptions::default())
}

/// Runs the benchmark on a cluster of its own.
///
/// # Errors
/// The cluster does not come up, or does not do what is measured.
pub(super) fn measure(options: &BenchOptions) -> Result<Vec<Row>> {
    Cache::locate().fill()?;
    let image = match &options.image {
        Some(image) => image
            .canonicalize()
            .with_context(|| image.display().to_string())?,
        None => world::build_image()?,
    };
    let cluster = Cluster::up(&Options {
        prefix: "ockb".to_owned(),
        proxy: Proxy::Nftables,
    })?;
    let rows = parts(options, &mut World::new(&cluster, image));
    let down = cluster.down();
    let rows = rows?;
    down.map(|()| rows)
}

fn parts(options: &BenchOptions, world: &mut World) -> Result<Vec<Row>> {
    let steal = Steal::now();
    let share = || steal.share_since();
    let mut rows = Vec::new();
    let mut theirs = Vec::new();
    if options.wants(Part::Startup) {
        reference::install(&world.cluster)?;
        theirs = startup::rounds(world, Network::Reference)?;
        reference::remove(&world.cluster)?;
    }
    world::install(world)?;
    if options.wants(Part::Startup) {
        let ours = startup::rounds(world, Network::Ours);
        let compared = ours.and_then(|ours| startup::rows(&ours, &theirs, share()));
        rows.extend(taken(Part::Startup, compared));
    }
    // Memory last: what it writes stays.
    let parts = [Part::Requests, Part::Event, Part::Nodes, Part::Memory];
    for part in parts.into_iter().filter(|part| options.wants(*part)) {
        let measured = match part {
            Part::Startup => continue,
            Part::Requests => requests::rows(world, share),
            Part::Event => event::rows(world, share),
            Part::Nodes => nodes::rows(world, options.nodes, share),
            Part::Memory => memory::rows(world, (options.pods, options.policies), share),
        };
        rows.extend(taken(part, measured));
    }
    Ok(rows)
}

/// A part that fails leaves the others, and a row that says so.
fn taken(part: Part, measured: Result<Vec<Row>>) -> Vec<Row> {
    measured.unwrap_or_else(|error| {
        let name = format!("{part:?}").to_lowercase();
        vec![Row::failed(&name, format!("{error:#}"))]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_fails_is_a_row_with_its_name_and_reason() {
        let error = anyhow::anyhow!("refused").context("the pods");
        let rows = taken(Part::Requests, Err(error));
        assert_eq!(rows[0].what, "requests");
        assert_eq!(rows[0].failure.as_deref(), Some("the pods: refused"));
        let good = vec![Row::alone("x", "ms", &[1.0], 0.0)];
        assert!(taken(Part::Event, Ok(good))[0].failure.is_none());
    }
}
