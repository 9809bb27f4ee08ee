//! What the agents ask of the API server, by its audit log.

use super::world::{AGENT, SYSTEM, World, items, node_names, pod, text};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::time::Duration;

/// How long the cluster is left alone.
const QUIET: Duration = Duration::from_secs(20);

/// One request of an agent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::kube) struct Request {
    pub(in crate::kube) verb: String,
    group: String,
    resource: String,
    name: String,
    namespace: String,
    pub(in crate::kube) code: u64,
    pub(in crate::kube) words: String,
    /// When the API server received it (RFC 3339, with microseconds).
    pub(in crate::kube) at: String,
}

impl Request {
    /// Whether it is about pods or their status.
    pub(in crate::kube) fn is_about_pods(&self) -> bool {
        self.resource == "pods" || self.resource.starts_with("pods/")
    }

    /// Whether it is about this pod or its status.
    pub(in crate::kube) fn is_about_pod(&self, namespace: &str, name: &str) -> bool {
        self.is_about_pods() && self.namespace == namespace && self.name == name
    }

    /// Whether it is about who looks after the cluster.
    pub(in crate::kube) fn is_about_leases(&self) -> bool {
        self.resource == "leases"
    }
}

/// Where the log ends now.
pub(in crate::kube) fn mark(world: &World) -> Result<u64> {
    Ok(std::fs::metadata(world.cluster.audit_log())
        .context("audit log")?
        .len())
}

/// What the agents have asked for since.
pub(in crate::kube) fn since(world: &World, mark: u64) -> Result<Vec<Request>> {
    let mut file = std::fs::File::open(world.cluster.audit_log()).context("audit log")?;
    file.seek(SeekFrom::Start(mark)).context("audit log")?;
    let user = format!("system:serviceaccount:{SYSTEM}:{AGENT}");
    let (mut requests, mut known) = (Vec::new(), BTreeSet::new());
    for line in BufReader::new(file).lines() {
        // The last line may be half written.
        let Ok(event) = serde_json::from_str::<Value>(&line.context("audit log")?) else {
            continue;
        };
        // A watch has two lines: when it begins and when it ends.
        let ours = text(&event, "/user/username") == user;
        if !ours || !known.insert(text(&event, "/auditID").to_owned()) {
            continue;
        }
        let subresource = text(&event, "/objectRef/subresource");
        let resource = text(&event, "/objectRef/resource");
        requests.push(Request {
            verb: text(&event, "/verb").to_owned(),
            group: text(&event, "/objectRef/apiGroup").to_owned(),
            resource: if subresource.is_empty() {
                resource.to_owned()
            } else {
                format!("{resource}/{subresource}")
            },
            name: text(&event, "/objectRef/name").to_owned(),
            namespace: text(&event, "/objectRef/namespace").to_owned(),
            code: event
                .pointer("/responseStatus/code")
                .and_then(Value::as_u64)
                .unwrap_or(0),
            words: text(&event, "/responseStatus/message").to_owned(),
            at: text(&event, "/requestReceivedTimestamp").to_owned(),
        });
    }
    Ok(requests)
}

/// The requests of a time in which nothing happens. The API server ends the watches of a kind some
/// time after its definition was touched, which the tests before have done: once is allowed.
fn idle(world: &World) -> Result<Vec<Request>> {
    let measure = || -> Result<(Vec<Request>, bool)> {
        let start = mark(world)?;
        std::thread::sleep(QUIET);
        let requests = since(world, start)?;
        let listed = requests.iter().any(|request| request.verb == "list");
        Ok((requests, listed))
    };
    let (mut requests, mut listed) = measure()?;
    if listed {
        (requests, listed) = measure()?;
    }
    ensure!(!listed, "lists in {QUIET:?}: {requests:?}");
    Ok(requests)
}

pub(in crate::kube) fn quiet(world: &mut World) -> Result<String> {
    const PODS: usize = 12;
    world.base()?;
    let idle = idle(world)?;
    let start = mark(world)?;
    let manifest: String = (0..PODS)
        .map(|index| {
            pod(
                "base",
                &format!("counted-{index}"),
                node_names()[index % 3],
                "counted",
            )
        })
        .collect();
    world.cluster.apply(&manifest)?;
    world.ready("base", PODS + 6)?;
    let annotated = || -> Result<()> {
        let pods =
            world
                .cluster
                .kubectl_json(&["-n", "base", "get", "pods", "-l", "app=counted"])?;
        let missing = items(&pods)
            .filter(|pod| {
                text(pod, "/metadata/annotations/cni.projectcalico.org~1podIP").is_empty()
            })
            .count();
        ensure!(missing == 0, "{missing} pods without the annotation");
        Ok(())
    };
    world.until("the addresses of the pods as annotations", annotated)?;
    let requests = since(world, start)?;
    world.kubectl(&[
        "-n",
        "base",
        "delete",
        "pods",
        "-l",
        "app=counted",
        "--wait=true",
    ])?;
    let of_pods = requests
        .iter()
        .filter(|request| request.resource.starts_with("pods"))
        .count();
    ensure!(
        of_pods <= PODS,
        "{of_pods} requests about {PODS} pods: {requests:?}"
    );
    let lists = requests
        .iter()
        .filter(|request| request.verb == "list")
        .count();
    ensure!(lists == 0, "{lists} lists while pods start");
    Ok(format!(
        "{} requests of three agents in {} s, 0 lists; {of_pods} about {PODS} pods, {} in all",
        idle.len(),
        QUIET.as_secs(),
        requests.len()
    ))
}

/// Runs last: what all tests have asked for.
pub(super) fn permissions(world: &mut World) -> Result<String> {
    let requests = since(world, 0)?;
    // An API server that has just started refuses some requests before it has read its rules.
    let granted = |request: &Request| {
        requests.iter().any(|other| {
            other.code < 400
                && (&other.verb, &other.group, &other.resource)
                    == (&request.verb, &request.group, &request.resource)
        })
    };
    let forbidden: BTreeSet<&Request> = requests
        .iter()
        .filter(|request| request.code == 403 && !granted(request))
        .collect();
    ensure!(forbidden.is_empty(), "forbidden: {forbidden:?}");
    let roles = [
        world.cluster.kubectl_json(&["get", "clusterrole", AGENT])?,
        world
            .cluster
            .kubectl_json(&["-n", SYSTEM, "get", "role", AGENT])?,
    ];
    let rules = roles
        .iter()
        .flat_map(|role| role["rules"].as_array().into_iter().flatten());
    let (mut count, mut unused) = (0, Vec::new());
    for rule in rules {
        count += 1;
        if !requests.iter().any(|request| permits(rule, request)) {
            unused.push(rule.to_string());
        }
    }
    ensure!(unused.is_empty(), "never used: {}", unused.join(", "));
    Ok(format!("{} requests, {count} rules", requests.len()))
}

/// Whether a rule of a role permits a request.
fn permits(rule: &Value, request: &Request) -> bool {
    let words = |key: &str| {
        rule[key]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
    };
    let mut names = words("resourceNames").peekable();
    words("verbs").any(|word| word == request.verb)
        && words("apiGroups").any(|word| word == request.group)
        && words("resources").any(|word| word == request.resource)
        && (names.peek().is_none() || names.any(|word| word == request.name))
}
