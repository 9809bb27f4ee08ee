//! What agents ask of the API server, by its audit log.

use crate::bench::{Row, Target};
use crate::kube::check::requests::{Request, mark, since};
use crate::kube::check::world::{World, items, node_names, pod, text};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
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
    let (pods, before_ready) = pods(world)?;
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
        with(0.0, alone("requests_before_ready", before_ready as f64)),
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

/// What is asked for while pods start and until they are annotated, and how much of it was about a
/// pod that was not yet Ready.
fn pods(world: &World) -> Result<(Vec<Request>, usize)> {
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
    let pods = world.until("the addresses of the pods as annotations", || {
        let pods = world
            .cluster
            .kubectl_json(&["-n", "requests", "get", "pods"])?;
        let told = items(&pods)
            .filter(|pod| {
                !text(pod, "/metadata/annotations/cni.projectcalico.org~1podIP").is_empty()
            })
            .count();
        ensure!(told == PODS, "{told} of {PODS}");
        Ok(pods)
    })?;
    let requests = since(world, start)?;
    world.remove("requests")?;
    let mut early = 0;
    for pod in items(&pods) {
        let (namespace, name) = (
            text(pod, "/metadata/namespace"),
            text(pod, "/metadata/name"),
        );
        let since = ready_since(pod).with_context(|| format!("{name} is not Ready"))?;
        early += requests
            .iter()
            .filter(|request| request.is_about_pod(namespace, name))
            .filter(|request| is_before(&request.at, since))
            .count();
    }
    Ok((requests, early))
}

/// The second in which a pod became Ready (RFC 3339).
fn ready_since(pod: &Value) -> Option<&str> {
    let mut conditions = pod.pointer("/status/conditions")?.as_array()?.iter();
    let ready = conditions.find(|condition| text(condition, "/type") == "Ready")?;
    Some(text(ready, "/lastTransitionTime")).filter(|_| text(ready, "/status") == "True")
}

/// Whether a moment is in a second or before it. Conditions have no fraction of a second: what
/// came within the same one may have been earlier, and counts as that.
fn is_before(moment: &str, second: &str) -> bool {
    let whole = moment.split('.').next().unwrap_or_default();
    whole <= second.trim_end_matches('Z')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_came_in_the_second_of_ready_counts_as_before() {
        let ready = "2026-01-02T03:04:05Z";
        let before = |moment| is_before(moment, ready);
        assert!(before("2026-01-02T03:04:04.999999Z"));
        assert!(before("2026-01-02T03:04:05.999999Z"));
        assert!(!before("2026-01-02T03:04:06.000000Z"));
        assert!(!before("2026-01-02T03:05:00Z"));
    }

    #[test]
    fn only_a_pod_that_is_ready_has_a_moment_since() {
        let pod = |status| {
            json!({"status": {"conditions": [
                {"type": "Initialized", "status": "True", "lastTransitionTime": "a"},
                {"type": "Ready", "status": status, "lastTransitionTime": "b"},
            ]}})
        };
        assert_eq!(ready_since(&pod("True")), Some("b"));
        assert_eq!(ready_since(&pod("False")), None);
    }
}
