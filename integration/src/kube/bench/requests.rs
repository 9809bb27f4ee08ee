//! What agents ask of the API server, by its audit log.

use crate::bench::{Row, Target};
use crate::kube::check::requests::{Request, mark, since};
use crate::kube::check::world::{World, items, node_names, pod, text};
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

/// How long the cluster is left alone.
const QUIET: Duration = Duration::from_secs(60);
/// Pods that are started.
const PODS: usize = 100;

pub(super) fn rows(world: &mut World, steal: impl Fn() -> f64) -> Result<Vec<Row>> {
    world.base()?;
    let nodes = node_names().len() as f64;
    settle(world)?;
    let start = mark(world)?;
    let begun = Instant::now();
    // What is measured is what agents ask by themselves.
    std::thread::sleep(QUIET);
    let quiet = since(world, start)?;
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    let pods = pods(world)?;
    let lists = |requests: &[Request]| requests.iter().filter(|r| r.verb == "list").count() as f64;
    let about_pods = pods.iter().filter(|request| request.is_about_pods());
    let alone = |what: &str, ours: f64| Row::alone(what, "", &[ours], steal());
    let with = |target: f64, row: Row| Row {
        target: Some(Target::Ours(target)),
        ..row
    };
    Ok(vec![
        alone(
            "requests_a_node_a_minute",
            quiet.len() as f64 / nodes / minutes,
        ),
        with(0.0, alone("lists_quiet", lists(&quiet))),
        with(
            1.0,
            alone("requests_a_pod", about_pods.count() as f64 / PODS as f64),
        ),
        alone("requests_a_pod_all", pods.len() as f64 / PODS as f64),
        with(0.0, alone("lists_pods", lists(&pods))),
    ])
}

/// What came before is told, and the watches that a new definition ends have begun anew.
fn settle(world: &World) -> Result<()> {
    world.until("a while without a request but for leases", || {
        let start = mark(world)?;
        std::thread::sleep(Duration::from_secs(15));
        let asked = since(world, start)?;
        let others: Vec<_> = asked.iter().filter(|r| !r.is_about_leases()).collect();
        ensure!(others.is_empty(), "{others:?}");
        Ok(())
    })
}

/// What is asked for while pods start and until they are annotated.
fn pods(world: &World) -> Result<Vec<Request>> {
    world.namespace("requests")?;
    let start = mark(world)?;
    let manifest: String = (0..PODS)
        .map(|index| {
            let name = format!("requests-{index}");
            pod("requests", &name, node_names()[index % 3], "requests")
        })
        .collect();
    world.cluster.apply(&manifest)?;
    world.ready("requests", PODS)?;
    world.until("the addresses of the pods as annotations", || {
        let pods = world
            .cluster
            .kubectl_json(&["-n", "requests", "get", "pods"])?;
        let told = items(&pods)
            .filter(|pod| {
                !text(pod, "/metadata/annotations/cni.projectcalico.org~1podIP").is_empty()
            })
            .count();
        ensure!(told == PODS, "{told} of {PODS}");
        Ok(())
    })?;
    let requests = since(world, start)?;
    world.remove("requests")?;
    Ok(requests)
}
