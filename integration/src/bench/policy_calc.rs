//! What an agent's core makes of a large cluster: 250,000 endpoints and 10,000 policies, of which
//! 200 select pods of this node, and then 1,000 changes of endpoints a second.

use super::policy_world::{cpu_of, resident};
use super::report::{Row, Target};
use super::steal::Steal;
use anyhow::{Result, ensure};
use felix_core::checks::TunnelKinds;
use felix_core::{Calc, LocalEndpoint};
use ipnet::IpNet;
use model::{
    Namespace, NetworkPolicy, Object, PolicyPeer, PolicyPort, PolicyRule, PortMatch, Protocol,
    Selector, Update, WorkloadEndpoint,
};
use std::net::{IpAddr, Ipv4Addr};

const NAMESPACES: u32 = 500;
const ENDPOINTS: u32 = 250_000;
const POLICIES: u32 = 10_000;
const LOCAL: u32 = 200;
const APPS: u32 = POLICIES / NAMESPACES;
const UPDATES_PER_SECOND: u32 = 1000;
const SECONDS: u32 = 10;
const FIRST: u32 = u32::from_be_bytes([10, 0, 0, 0]);
const FIRST_LINK: u32 = 1_048_576;

pub(super) fn run() -> Result<Vec<Row>> {
    let steal = Steal::now();
    let (taken, mut calc) = cpu_of(snapshot);
    let chains = calc.ruleset().chains.len();
    ensure!(
        chains >= LOCAL as usize,
        "{chains} chains for {LOCAL} pods with a policy each"
    );
    let memory = resident()?;
    let mut shares = vec![];
    let mut changed = 0;
    for second in 0..SECONDS {
        let (taken, operations) = cpu_of(|| one_second(&mut calc, second));
        shares.push(taken / 10.0);
        changed += operations;
    }
    ensure!(changed > 0, "no change of an endpoint changed the table");
    let steal = steal.share_since();
    let alone = |what, unit, values: &[f64]| Row::alone(what, unit, values, steal);
    Ok(vec![
        alone("calc_snapshot_s", "s", &[taken / 1e3]),
        alone("calc_mb", "MB", &[memory]),
        Row {
            target: Some(Target::Ours(20.0)),
            ..alone("calc_update_share", "%", &shares)
        },
    ])
}

fn snapshot() -> Calc {
    let kinds = TunnelKinds {
        ip6: false,
        ipip: true,
        vxlan: true,
    };
    let mut calc = Calc::new("n0", kinds, policy::Options::default());
    for number in 0..NAMESPACES {
        let labels = [("team".to_owned(), format!("t{}", number % 50))].into();
        tell(
            &mut calc,
            Object::Namespace(Namespace {
                name: format!("ns{number}"),
                labels,
                annotations: Default::default(),
            }),
        );
    }
    for number in 0..POLICIES {
        tell(
            &mut calc,
            Object::NetworkPolicy(std::sync::Arc::new(policy(number))),
        );
    }
    for number in 0..ENDPOINTS {
        let endpoint = endpoint(number, number);
        if number < LOCAL {
            calc.set_local(LocalEndpoint {
                endpoint,
                ifindex: FIRST_LINK + number,
                mtu: 1500,
                sequence: u64::from(number),
            });
        } else {
            tell(&mut calc, Object::WorkloadEndpoint(Box::new(endpoint)));
        }
    }
    calc.on_update(Update::InSync);
    calc.resolve();
    calc
}

/// Pods of other nodes come back with other addresses, each in a round of its own; answers how
/// many operations on the table that makes.
fn one_second(calc: &mut Calc, second: u32) -> usize {
    let mut operations = 0;
    for number in 0..UPDATES_PER_SECOND {
        let at = second * UPDATES_PER_SECOND + number;
        let pod = LOCAL + at * 17 % (ENDPOINTS - LOCAL);
        let moved = endpoint(pod, ENDPOINTS + at);
        tell(calc, Object::WorkloadEndpoint(Box::new(moved)));
        operations += calc.resolve().len();
    }
    operations
}

fn tell(calc: &mut Calc, object: Object) {
    calc.on_update(Update::Apply {
        object,
        warnings: vec![],
    });
}

fn endpoint(number: u32, address: u32) -> WorkloadEndpoint {
    let address = IpAddr::V4(Ipv4Addr::from(FIRST + address));
    let node = if number < LOCAL { 0 } else { 1 + number / 250 };
    let app = number / NAMESPACES % APPS;
    WorkloadEndpoint {
        namespace: format!("ns{}", number % NAMESPACES).into(),
        name: format!("n{node}-k8s-p{number}-eth0").into(),
        node: format!("n{node}").into(),
        pod: format!("p{number}").into(),
        pod_uid: None,
        container_id: format!("c{number}").into(),
        endpoint: "eth0".to_owned().into(),
        interface_name: format!("oci{number}").into(),
        mac: [2, 0, 0, 0, 0, 1],
        ip_networks: vec![IpNet::from(address)],
        labels: [("app".to_owned(), format!("a{app}"))].into(),
        ports: vec![].into(),
        host_ports: vec![],
    }
}

/// Pods of one app in one namespace admit another app of a team's namespaces on one port.
fn policy(number: u32) -> NetworkPolicy {
    let peer = PolicyPeer::Pods {
        namespaces: Some(Selector::Eq("team".to_owned(), format!("t{}", number % 50))),
        pods: Selector::Eq("app".to_owned(), format!("a{}", number % APPS)),
    };
    let port = 1000 + (number % 5000) as u16;
    NetworkPolicy {
        namespace: format!("ns{}", number % NAMESPACES),
        name: format!("p{number}"),
        pod_selector: Selector::Eq("app".to_owned(), format!("a{}", number / NAMESPACES % APPS)),
        ingress: Some(vec![PolicyRule {
            peers: Some(vec![peer]),
            ports: Some(vec![PolicyPort {
                protocol: Protocol::Tcp,
                port: PortMatch::Range(port, port),
            }]),
        }]),
        egress: None,
    }
}
