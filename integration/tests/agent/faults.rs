//! Every operation on the kernel fails in turn: nothing is left, the error says which it was, and
//! the next attempt succeeds. The failures are strace's, so that the agent is the one that a user
//! installs. Without strace there is nothing to test.

use crate::node::{LIMIT, NAMESPACE, Node, cni_error, nothing, spec};
use anyhow::{Context, Result, bail};
use integration::lab::{Netns, Pod, Process, wait};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;

/// More operations than ADD and DEL have.
pub(crate) const MOST: usize = 60;

/// What is made to fail.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) call: &'static str,
    errno: &'static str,
    /// What the system says about it.
    words: &'static str,
}

/// Requests to the kernel, and the parameters under `/proc/sys`.
pub(crate) const FAULTS: [Fault; 2] = [
    Fault {
        call: "sendto",
        errno: "ENOMEM",
        words: "Cannot allocate memory",
    },
    Fault {
        call: "openat",
        errno: "EROFS",
        words: "Read-only file system",
    },
];

/// A running strace.
pub(crate) struct Injection {
    strace: Process,
    log: PathBuf,
}

impl Injection {
    /// The `nth` call of each thread of the agent fails from now on.
    pub(crate) fn attach(node: &Node, fault: Fault, nth: usize) -> Result<Self> {
        let pid = node.agent.pid()?;
        let log = node.lab.dir().join("strace");
        // A log of before must not be read as this one's.
        std::fs::write(&log, "")?;
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-p", &pid.to_string(), "-o"]);
        command.arg(&log);
        command.args(["-e", &format!("trace={}", fault.call)]);
        let Fault { call, errno, .. } = fault;
        command.args(["-e", &format!("inject={call}:error={errno}:when={nth}")]);
        let strace = Process::start(&node.netns, node.lab.dir(), "strace-says", &mut command)?;
        let injection = Self { strace, log };
        wait::until(LIMIT, "strace to be attached", || {
            let traced = tracers(pid).map_err(|error| format!("{error:#}"))?;
            if !traced.is_empty() && traced.iter().all(|tracer| *tracer != 0) {
                Ok(())
            } else {
                Err(format!("{traced:?} {}", injection.strace.log()))
            }
        })?;
        Ok(injection)
    }

    /// Ends it; answers whether anything failed because of it.
    pub(crate) fn detach(mut self, node: &Node) -> Result<bool> {
        self.strace.signal(Signal::INT)?;
        self.strace.wait(LIMIT)?;
        let pid = node.agent.pid()?;
        wait::until(LIMIT, "strace to be gone", || {
            let traced = tracers(pid).map_err(|error| format!("{error:#}"))?;
            match traced.iter().all(|tracer| *tracer == 0) {
                true => Ok(()),
                false => Err(format!("{traced:?}")),
            }
        })?;
        Ok(std::fs::read_to_string(&self.log)?.contains("(INJECTED)"))
    }
}

/// Who traces each thread of a process; 0 is nobody.
fn tracers(pid: u32) -> Result<Vec<u32>> {
    let mut tracers = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end meanwhile.
        let Ok(status) = std::fs::read_to_string(task?.path().join("status")) else {
            continue;
        };
        let line = status.lines().find_map(|l| l.strip_prefix("TracerPid:"));
        tracers.push(line.context("TracerPid")?.trim().parse()?);
    }
    Ok(tracers)
}

pub(crate) fn has_strace() -> bool {
    let found = Command::new("strace").arg("-V").output().is_ok();
    if !found {
        eprintln!("no strace: nothing tested");
    }
    found
}

/// What a node has because of its pods.
fn left(node: &Node) -> Result<(String, String, Vec<String>, Value, String)> {
    let neighbours = node
        .netns
        .run(&["ip", "neigh", "show", "nud", "permanent"])?;
    let endpoints = node.ctl(&["endpoints"])?;
    // Blocks come as addresses cool down; they are no pod's.
    let routes = node.routes()?;
    let of_pods = routes.lines().filter(|line| !line.contains("blackhole"));
    Ok((
        node.rules(),
        of_pods.collect::<Vec<_>>().join("\n"),
        node.links()?,
        endpoints,
        neighbours,
    ))
}

fn wait_as_before(
    node: &Node,
    before: &(String, String, Vec<String>, Value, String),
) -> Result<()> {
    wait::until(LIMIT, "nothing to be left", || match left(node) {
        Ok(now) if now == *before => Ok(()),
        other => Err(format!("{other:?}\ninstead of {before:?}")),
    })
}

/// The pod's mappings, so that every part of ADD is walked through.
fn with_port() -> Value {
    let mapping = json!({ "hostPort": 30080, "containerPort": 8080, "protocol": "udp" });
    json!({ "runtimeConfig": { "portMappings": [mapping] } })
}

fn check(node: &Node, netns: &Netns, result: &Value) -> Result<()> {
    let extra = json!({ "prevResult": result });
    node.plugin
        .call("CHECK", &spec(netns.name(), "web"), netns, &extra)
        .map(drop)
}

#[test]
fn every_operation_of_add_that_fails_leaves_nothing_and_is_named() -> Result<()> {
    if !has_strace() {
        return Ok(());
    }
    let node = Node::started()?;
    let before = left(&node)?;
    let netns = node.lab.netns("a")?;
    let add = || {
        node.plugin
            .call("ADD", &spec("a", "web"), &netns, &with_port())
    };
    let del = || {
        node.plugin
            .call("DEL", &spec("a", "web"), &netns, &nothing())
    };
    for fault in FAULTS {
        let mut failures = 0;
        for nth in 1..=MOST {
            let injection = Injection::attach(&node, fault, nth)?;
            let result = add();
            let injected = injection.detach(&node)?;
            let at = || format!("{} number {nth}", fault.call);
            let answered =
                !matches!(&result, Err(error) if error.to_string().contains("\"code\":11,"));
            match result {
                Err(_) if !answered => {
                    // The answer itself was lost: a runtime takes such a pod down.
                }
                // Some failures are repaired, and some are of no consequence.
                Ok(result) => check(&node, &netns, &result).with_context(at)?,
                Err(error) => {
                    failures += 1;
                    let details = format!("{error:#}");
                    let (code, message) = cni_error::<()>(Err(error))?;
                    assert_eq!(code, 102, "{}: {message}", at());
                    let named = message.starts_with(&format!("pod {NAMESPACE}/a: "));
                    assert!(named, "{}: {message}", at());
                    assert!(details.contains(fault.words), "{}: {details}", at());
                    wait_as_before(&node, &before).with_context(at)?;
                    let again = add().with_context(at)?;
                    check(&node, &netns, &again).with_context(at)?;
                }
            }
            del().with_context(at)?;
            wait_as_before(&node, &before).with_context(at)?;
            if !injected {
                assert!(
                    failures > 4,
                    "only {failures} calls of {} failed",
                    fault.call
                );
                break;
            }
            if nth == MOST {
                bail!("{}: more than {MOST} calls", fault.call);
            }
        }
    }
    Ok(())
}

#[test]
fn every_operation_of_del_that_fails_is_made_good() -> Result<()> {
    if !has_strace() {
        return Ok(());
    }
    let node = Node::started()?;
    let before = left(&node)?;
    for fault in FAULTS {
        for nth in 1..=MOST {
            let name = format!("{}{nth}", fault.call);
            let pod = Pod::add_with(&node.lab, &node.plugin, spec(&name, "web"), &with_port())?;
            let injection = Injection::attach(&node, fault, nth)?;
            let result = pod.del();
            let injected = injection.detach(&node)?;
            let at = || format!("{} number {nth}", fault.call);
            result.with_context(at)?;
            // The namespace survives: the link has to be deleted, and not to go with it.
            wait_as_before(&node, &before).with_context(at)?;
            pod.delete()?;
            if !injected {
                break;
            }
            if nth == MOST {
                bail!("{}: more than {MOST} calls", fault.call);
            }
        }
    }
    Ok(())
}
