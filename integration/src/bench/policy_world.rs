//! Pods and policies of the policy benchmarks.

use super::report::quantile;
use anyhow::{Context, Result};
use model::{
    Labels, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule, PortMatch, Protocol, Selector,
};
use policy::{Compiler, Endpoint, EndpointId, Options, Policy};
use rustix::time::{ClockId, clock_gettime};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// The namespace of all pods and policies.
pub(super) const NAMESPACE: &str = "bench";
/// Index of the interface of the first pod of this node.
pub(super) const FIRST_LINK: u32 = 1_048_576;
/// Members of each set.
const MEMBERS: u32 = 100;
/// Sets that one pod is in.
const SETS_OF_A_POD: u32 = 10;
const FIRST_MEMBER: u32 = u32::from_be_bytes([10, 128, 0, 0]);
const FIRST_LOCAL: u32 = u32::from_be_bytes([10, 245, 0, 0]);

/// A node with so many chains, one for each of its pods, that look up so many sets of 100 members.
pub(super) fn world(sets: u32, chains: u32) -> Compiler {
    let mut compiler = Compiler::new(Options::default());
    compiler.set_namespace(NAMESPACE, Some(Labels::default()));
    for number in 0..sets * MEMBERS / SETS_OF_A_POD {
        let far = sets / SETS_OF_A_POD;
        let labels = (0..SETS_OF_A_POD).map(|at| set_label((number + at * far) % sets));
        let address = Ipv4Addr::from(FIRST_MEMBER + number);
        let (id, pod) = pod(&format!("m{number}"), labels, address, None);
        compiler.set_endpoint(&id, Some(pod));
    }
    for number in 0..chains {
        let labels = [
            ("id".to_owned(), number.to_string()),
            ("batch".to_owned(), (number / 100).to_string()),
        ];
        let link = Some(FIRST_LINK + number);
        let (id, pod) = pod(&format!("l{number}"), labels, local_address(number), link);
        compiler.set_endpoint(&id, Some(pod));
        let subject = Selector::Eq("id".to_owned(), number.to_string());
        let policy = admits(
            &format!("p{number}"),
            subject,
            member_of(number % sets),
            &[],
        );
        compiler.set_policy(&policy.key(), Some(policy));
    }
    compiler.resolve();
    compiler
}

/// The address of a pod of this node.
pub(super) fn local_address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(FIRST_LOCAL + number)
}

/// The label that makes a pod a member of a set.
pub(super) fn set_label(set: u32) -> (String, String) {
    (format!("s{set}"), "in".to_owned())
}

/// The members of a set.
pub(super) fn member_of(set: u32) -> Selector {
    let (key, value) = set_label(set);
    Selector::Eq(key, value)
}

/// A pod; with the index of its link, one of this node.
pub(super) fn pod(
    name: &str,
    labels: impl IntoIterator<Item = (String, String)>,
    address: Ipv4Addr,
    local: Option<u32>,
) -> (EndpointId, Endpoint) {
    let endpoint = Endpoint {
        namespace: NAMESPACE.to_owned().into(),
        pod: name.to_owned().into(),
        labels: labels.into_iter().collect(),
        ports: Vec::new().into(),
        ips: vec![IpAddr::V4(address)],
        local,
        labels_known: true,
        service_account: None,
        profiles: vec![].into(),
    };
    (EndpointId(format!("{NAMESPACE}/{name}").into()), endpoint)
}

/// A policy that lets `peers` speak to the subject, on these ports; on all where there are none.
pub(super) fn admits(
    name: &str,
    subject: Selector,
    peers: Selector,
    ports: &[(Protocol, u16)],
) -> Policy {
    let peers = PolicyPeer::Pods {
        namespaces: None,
        pods: peers,
    };
    let ports = ports.iter().map(|(protocol, port)| PolicyPort {
        protocol: *protocol,
        port: PortMatch::Range(*port, *port),
    });
    let ports: Vec<_> = ports.collect();
    Policy::from(NetworkPolicy {
        namespace: NAMESPACE.to_owned(),
        name: name.to_owned(),
        pod_selector: subject,
        ingress: Some(vec![PolicyRule {
            peers: Some(vec![peers]),
            ports: (!ports.is_empty()).then_some(ports),
        }]),
        egress: None,
    })
}

/// Milliseconds of processor time that this thread has used.
pub(super) fn cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// What `work` takes of this thread's processor time, in milliseconds.
pub(super) fn cpu_of<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let before = cpu_ms();
    let result = work();
    (cpu_ms() - before, result)
}

/// Greatest resident memory of this process, in megabytes.
pub(super) fn resident() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line
        .and_then(|line| line.split_whitespace().next())
        .context("VmHWM")?;
    Ok(kib.parse::<f64>()? * 1024.0 / 1e6)
}

/// Repeats `work` for at least `time`, a few at a time; nanoseconds of one where nothing else
/// interfered, which is what a tenth of the times stay below.
pub(super) fn nanoseconds_of_one(
    time: Duration,
    mut work: impl FnMut() -> Result<()>,
) -> Result<f64> {
    const AT_ONCE: u32 = 8;
    let (start, mut times) = (Instant::now(), vec![]);
    while start.elapsed() < time || times.len() < 10 {
        let start = Instant::now();
        for _ in 0..AT_ONCE {
            work()?;
        }
        times.push(start.elapsed().as_nanos() as f64 / f64::from(AT_ONCE));
    }
    Ok(quantile(&times, 0.1))
}
