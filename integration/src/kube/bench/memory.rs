//! What agents keep of a large cluster.

use super::load::{Load, NAMESPACES, PODS_OF_A_NODE};
use super::time::metrics;
use crate::bench::{Row, Target};
use crate::kube::check::lifecycle::kill_agent;
use crate::kube::check::load::memory;
use crate::kube::check::world::{World, node_names};
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

/// Pods of a small cluster.
const FEW: usize = 1_000;
/// How long an agent may take to know what was written.
const LONG: Duration = Duration::from_secs(1200);

/// Resident memory of the largest agent with so many pods of other nodes, and policies beside them.
pub(super) fn rows(
    world: &mut World,
    (pods, policies): (usize, usize),
    steal: impl Fn() -> f64,
) -> Result<Vec<Row>> {
    world.base()?;
    let row = |what: &str, world: &World| -> Result<Row> {
        let mib = memory(world)? as f64 / 1024.0;
        Ok(Row::alone(what, "MiB", &[mib], steal()))
    };
    let mut rows = vec![row("rss_6_pods", world)?];
    let before = objects(world)?;
    let load = Load::new(world)?;
    load.prepare(pods)?;
    let around = before + NAMESPACES + pods.div_ceil(PODS_OF_A_NODE);
    let few = FEW.min(pods);
    load.pods(0..few)?;
    known(world, around + 2 * few)?;
    rows.push(Row {
        target: Some(Target::Ours(30.0)),
        ..row(&format!("rss_{few}_pods"), world)?
    });
    let start = Instant::now();
    load.pods(few..pods)?;
    load.policies(policies)?;
    let rate = (pods - few + policies) as f64 / start.elapsed().as_secs_f64();
    println!("the API server took {rate:.0} objects a second");
    let all = around + 2 * pods + policies;
    known(world, all)?;
    let name = format!("rss_{pods}_pods_{policies}_policies");
    // 200 MB, as the others are counted.
    let target = Some(Target::Ours(200.0e6 / f64::from(1 << 20)));
    rows.push(Row {
        target,
        ..row(&name, world)?
    });
    for node in node_names() {
        kill_agent(world, node)?;
    }
    known(world, all)?;
    rows.push(Row {
        target,
        ..row(&format!("{name}_started"), world)?
    });
    Ok(rows)
}

/// Waits until every agent has so many objects and has done with them.
fn known(world: &World, count: usize) -> Result<()> {
    for node in node_names() {
        let what = format!("{count} objects on {node}");
        world.cluster.wait_until(&what, LONG, || {
            let metrics = metrics(world, node)?;
            let objects = metric(&metrics, "ocicat_objects")?;
            ensure!(objects >= count as f64, "{objects}");
            ensure!(metric(&metrics, "ocicat_ready")? > 0.0, "not ready");
            Ok(())
        })?;
    }
    Ok(())
}

/// The most objects that an agent has.
fn objects(world: &World) -> Result<usize> {
    let mut most = 0;
    for node in node_names() {
        let count = metric(&metrics(world, node)?, "ocicat_objects")?;
        most = most.max(count as usize);
    }
    Ok(most)
}

fn metric(metrics: &str, name: &str) -> Result<f64> {
    let value = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.with_context(|| format!("an agent has no {name}"))?;
    value.trim().parse().with_context(|| name.to_owned())
}
