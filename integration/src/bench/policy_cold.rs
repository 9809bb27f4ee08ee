//! A cold start: 100,000 pods, 10,000 policies and 110 local pods into an empty kernel.

use super::policy_world::resident;
use super::report::{Row, Target};
use super::steal::Steal;
use crate::lab::Lab;
use anyhow::{Context, Result};
use kernel::Kernel;
use model::{
    Labels, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule, PortMatch, Protocol, Selector,
};
use policy::{Compiler, Endpoint, EndpointId, Options, Policy};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

const NAMESPACES: u32 = 500;
const PODS: u32 = 100_000;
const POLICIES: u32 = 10_000;
const LOCAL: u32 = 110;
const ROUNDS: usize = 3;
const FIRST: u32 = u32::from_be_bytes([10, 128, 0, 0]);

pub(super) fn run() -> Result<Vec<Row>> {
    let lab = Lab::new()?;
    let steal = Steal::now();
    let (mut told, mut compiled, mut applied) = (vec![], vec![], vec![]);
    for round in 0..ROUNDS {
        let netns = lab.netns(&format!("node{round}"))?;
        let mut kernel = netns.within(Kernel::open)?.context("netlink")?;
        let start = Instant::now();
        let mut compiler = cluster();
        told.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        compiler.resolve();
        compiled.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        kernel
            .nft_replace(compiler.ruleset())
            .context("the table")?;
        applied.push(start.elapsed().as_secs_f64());
    }
    let share = steal.share_since();
    let memory = resident()?;
    Ok(vec![
        Row::alone("told_s", "s", &told, share),
        Row::alone("compile_s", "s", &compiled, share),
        Row {
            target: Some(Target::Ours(2.0)),
            ..Row::alone("apply_s", "s", &applied, share)
        },
        Row {
            target: Some(Target::Ours(200.0)),
            ..Row::alone("rss_mb", "MB", &[memory], share)
        },
    ])
}

fn cluster() -> Compiler {
    let mut compiler = Compiler::new(Options::default());
    for namespace in 0..NAMESPACES {
        let labels: Labels = [("team".to_owned(), format!("t{}", namespace % 50))].into();
        compiler.set_namespace(&format!("ns{namespace}"), Some(labels));
    }
    for number in 0..POLICIES {
        let policy = policy(number);
        compiler.set_policy(&policy.key(), Some(policy));
    }
    for pod in 0..PODS {
        let namespace = format!("ns{}", pod % NAMESPACES);
        let endpoint = Endpoint {
            namespace: namespace.clone().into(),
            pod: format!("p{pod}").into(),
            labels: [("app".to_owned(), format!("a{}", pod / NAMESPACES % 20))].into(),
            ports: Vec::new().into(),
            ips: vec![IpAddr::V4(Ipv4Addr::from(FIRST + pod))],
            local: (pod < LOCAL).then_some(1_048_576 + pod),
            labels_known: true,
            service_account: None,
            profiles: vec![].into(),
        };
        compiler.set_endpoint(
            &EndpointId(format!("{namespace}/p{pod}").into()),
            Some(endpoint),
        );
    }
    compiler
}

/// Pods of one app in one namespace admit another app of a team's namespaces on one port.
fn policy(number: u32) -> Policy {
    let peer = PolicyPeer::Pods {
        namespaces: Some(Selector::Eq("team".to_owned(), format!("t{}", number % 50))),
        pods: Selector::Eq("app".to_owned(), format!("a{}", number % 20)),
    };
    let port = 1000 + (number % 5000) as u16;
    Policy::from(NetworkPolicy {
        namespace: format!("ns{}", number % NAMESPACES),
        name: format!("p{number}"),
        pod_selector: Selector::Eq("app".to_owned(), format!("a{}", number / NAMESPACES % 20)),
        ingress: Some(vec![PolicyRule {
            peers: Some(vec![peer]),
            ports: Some(vec![PolicyPort {
                protocol: Protocol::Tcp,
                port: PortMatch::Range(port, port),
            }]),
        }]),
        egress: None,
    })
}
