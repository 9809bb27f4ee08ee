//! The compiled table against the evaluator, for policies of every kind.

use crate::generate::{
    Change, OUTSIDE, Service, changes, cluster, evaluator, host_policy, labels, services,
};
use ipnet::IpNet;
use model::{CalicoPolicy, FailsafePort, HostEndpoint, Labels, Protocol};
use policy::program::{Connection, Interface, Outcome, Packet, Program};
use policy::{
    Compiler, Direction, Endpoint, EndpointId, Evaluator, Failsafe, Flow, HostPath, Options, Party,
    Policy, Ruleset,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseError;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Clusters for each test. The environment variable `PROPTEST_CASES` asks for more.
const CASES: u32 = 300;

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn the_table_decides_about_pods_as_the_evaluator_does(changes in cluster()) {
        let changes = with_own_addresses(changes);
        let mut compiler = Compiler::new(Options::default());
        changes.iter().for_each(|change| change.tell(&mut compiler));
        let mut mirror = Ruleset::default();
        mirror.apply(&compiler.resolve()).unwrap();
        prop_assert_eq!(&mirror, compiler.ruleset());
        compare(&changes, &mirror)?;
    }

    #[test]
    fn deltas_lead_to_the_table_of_a_compiler_that_was_told_the_final_state_only(
        changes in changes(), batch in 1_usize..9,
    ) {
        let mut compiler = Compiler::new(on_node());
        let mut mirror = Ruleset::default();
        for batch in changes.chunks(batch) {
            batch.iter().for_each(|change| change.tell(&mut compiler));
            mirror.apply(&compiler.resolve()).unwrap();
            prop_assert_eq!(&mirror, compiler.ruleset());
        }
        prop_assert!(compiler.resolve().is_empty());
        let mut fresh = Compiler::new(on_node());
        changes.iter().for_each(|change| change.tell(&mut fresh));
        let mut built = Ruleset::default();
        built.apply(&fresh.resolve()).unwrap();
        prop_assert_eq!(&built, &mirror);
    }

    #[test]
    fn the_table_decides_about_hosts_as_the_evaluator_does(
        changes in cluster(),
        policies in vec(host_policy(), 1..5),
        hosts in vec((labels(), select(vec!["eth0", "eth1", "*"]), any::<bool>()), 1..3),
        open in of((vec(failsafe_port(), 0..5), vec(failsafe_port(), 0..5))),
    ) {
        let changes = with_hosts(changes, policies, hosts);
        let mut options = on_node();
        if let Some((inbound, outbound)) = open.clone() {
            options.failsafe = Failsafe { inbound, outbound };
        }
        let mut compiler = Compiler::new(options);
        changes.iter().for_each(|change| change.tell(&mut compiler));
        let mut mirror = Ruleset::default();
        mirror.apply(&compiler.resolve()).unwrap();
        compare_hosts(&changes, open, &mirror)?;
    }
}

fn on_node() -> Options {
    Options {
        node: "n1".to_owned(),
        ..Options::default()
    }
}

/// Host endpoints and policies for them in place of those that there are.
fn with_hosts(
    changes: Vec<Change>,
    policies: Vec<CalicoPolicy>,
    hosts: Vec<(Labels, &str, bool)>,
) -> Vec<Change> {
    let other = |change: &Change| {
        !matches!(
            change,
            Change::HostEndpoint(..) | Change::Policy(..) | Change::Endpoint(..)
        )
    };
    let mut changes: Vec<_> = changes.into_iter().filter(other).collect();
    for (number, (labels, interface, open)) in hosts.into_iter().enumerate() {
        let name = format!("host-{number}");
        let host = HostEndpoint {
            name: name.clone(),
            labels,
            node: "n1".to_owned(),
            interface_name: Some(interface.to_owned()),
            expected_ips: vec![],
            ports: vec![],
            profiles: open
                .then(|| "projectcalico-default-allow".into())
                .into_iter()
                .collect(),
        };
        changes.push(Change::HostEndpoint(name, Some(host)));
    }
    changes.extend(policies.into_iter().map(|policy| {
        let policy = Policy::from(policy);
        Change::Policy(policy.key(), Some(policy))
    }));
    changes
}

/// The host endpoint in charge of an interface.
fn in_charge<'a>(changes: &'a [Change], interface: &str) -> Option<&'a str> {
    let hosts: BTreeMap<_, _> = changes
        .iter()
        .filter_map(|change| match change {
            Change::HostEndpoint(name, Some(host)) => {
                Some((name.as_str(), host.interface_name.as_deref()?))
            }
            _ => None,
        })
        .collect();
    let of = |wanted: &str| {
        hosts
            .iter()
            .find(|(_, name)| **name == wanted)
            .map(|(host, _)| *host)
    };
    of(interface).or_else(|| of("*"))
}

/// Ports that stay open for somebody, among those that are tried.
fn failsafe_port() -> impl Strategy<Value = FailsafePort> {
    let protocol = select(vec![Protocol::Tcp, Protocol::Udp]);
    let nets = [
        "192.0.2.0/24",
        "198.51.100.0/24",
        "0.0.0.0/0",
        "::/0",
        "2001:db8::/32",
    ];
    let nets: Vec<IpNet> = nets.iter().map(|net| net.parse().unwrap()).collect();
    (
        protocol,
        select(vec![22, 53, 68, 80, 1500]),
        of(select(nets)),
    )
        .prop_map(|(protocol, port, net)| FailsafePort {
            protocol,
            port,
            net,
        })
}

type OpenPorts = Option<(Vec<FailsafePort>, Vec<FailsafePort>)>;

fn compare_hosts(
    changes: &[Change],
    open: OpenPorts,
    table: &Ruleset,
) -> Result<(), TestCaseError> {
    let table = &Program::new(table);
    let mut evaluator = evaluator(changes);
    if let Some((inbound, outbound)) = open {
        evaluator.set_failsafe(Some("n1"), Some(inbound), Some(outbound));
    }
    let (eth0, eth1) = (in_charge(changes, "eth0"), in_charge(changes, "eth1"));
    let allowed = |host: Option<&str>, direction, path, flow: &Flow| {
        host.is_none_or(|host| {
            evaluator
                .host_judgement(host, direction, path, flow)
                .allows()
        })
    };
    let untracked = changes.iter().any(
        |change| matches!(change, Change::Policy(_, Some(Policy::Calico(p))) if p.do_not_track),
    );
    let interface = |name: &str, index| {
        Some(Interface {
            index,
            name: name.to_owned(),
        })
    };
    for (source, destination) in OUTSIDE
        .iter()
        .flat_map(|a| OUTSIDE.iter().map(move |b| (a, b)))
    {
        let (from, to): (IpAddr, IpAddr) = (source.parse().unwrap(), destination.parse().unwrap());
        if from.is_ipv4() != to.is_ipv4() {
            continue;
        }
        for ((protocol, port, icmp), source_port) in host_services() {
            let flow = Flow {
                source_port,
                icmp,
                ..Flow::new(Party::Address(from), Party::Address(to), protocol, port)
            };
            let (incoming, outgoing) = (Direction::Ingress, Direction::Egress);
            let arrives = allowed(eth0, incoming, HostPath::Local, &flow);
            let leaves = allowed(eth0, outgoing, HostPath::Local, &flow);
            let passes = allowed(eth0, incoming, HostPath::Forward, &flow)
                && allowed(eth1, outgoing, HostPath::Forward, &flow);
            let cases = [
                (interface("eth0", 2), None, arrives, true),
                (None, interface("eth0", 2), leaves, true),
                // Connections are tracked before a forwarded packet leaves.
                (
                    interface("eth0", 2),
                    interface("eth1", 3),
                    passes,
                    !untracked,
                ),
            ];
            for (iif, oif, expected, compared) in cases {
                let packet = Packet {
                    iif,
                    oif,
                    source: from,
                    destination: to,
                    original_destination: None,
                    protocol,
                    ports: source_port.zip(port),
                    icmp,
                    connection: Connection::New,
                    mark: 0,
                };
                let outcome = table.run(&packet).unwrap();
                let accepted = matches!(outcome, Outcome::Accepted { .. });
                prop_assert!(
                    !compared || accepted == expected,
                    "{flow:?} {packet:?} {outcome:?}"
                );
            }
        }
    }
    Ok(())
}

/// With their source ports; some have failsafe ports at either end.
fn host_services() -> Vec<(Service, Option<u16>)> {
    let with_source = services().into_iter();
    let mut all: Vec<_> = with_source
        .map(|service| (service, service.1.map(|_| 1500)))
        .collect();
    for (protocol, failsafe) in [(6, 22), (6, 6443), (17, 53), (17, 68)] {
        all.push(((protocol, Some(failsafe), None), Some(1500)));
        all.push(((protocol, Some(80), None), Some(failsafe)));
    }
    all
}

pub(crate) fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(CASES)
}

/// Calico's rules find the ports of a pod by its address; of two pods with one address the table
/// knows whose interface it is. Here, every pod has addresses of its own.
pub(crate) fn with_own_addresses(changes: Vec<Change>) -> Vec<Change> {
    let own = |change| match change {
        Change::Endpoint(id, Some(endpoint)) => {
            let number: u8 = id.0.trim_start_matches("pod-").parse().unwrap();
            let ips = endpoint.ips.iter().map(|ip| match ip {
                IpAddr::V4(_) => IpAddr::from([10, 0, 0, number + 1]),
                IpAddr::V6(_) => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(number) + 1]),
            });
            let ips = ips.collect();
            Change::Endpoint(id, Some(Endpoint { ips, ..endpoint }))
        }
        other => other,
    };
    changes.into_iter().map(own).collect()
}

fn pods(changes: &[Change]) -> BTreeMap<EndpointId, Endpoint> {
    let mut pods = BTreeMap::new();
    for change in changes {
        match change {
            Change::Endpoint(id, Some(pod)) => drop(pods.insert(id.clone(), pod.clone())),
            Change::Endpoint(id, None) => drop(pods.remove(id)),
            _ => {}
        }
    }
    pods
}

/// One end of a connection.
#[derive(Debug, Clone)]
struct End {
    party: Party,
    interface: Option<u32>,
}

fn ends(changes: &[Change]) -> Vec<End> {
    let outside = OUTSIDE.map(|text| End {
        party: Party::Address(text.parse().unwrap()),
        interface: None,
    });
    let mut ends = Vec::from(outside);
    for (id, pod) in pods(changes) {
        ends.extend(pod.ips.iter().map(|ip| End {
            party: match pod.local {
                Some(_) => Party::Pod(id.clone(), *ip),
                None => Party::Address(*ip),
            },
            interface: pod.local,
        }));
    }
    ends
}

pub(crate) fn compare(changes: &[Change], table: &Ruleset) -> Result<(), TestCaseError> {
    let table = &Program::new(table);
    let evaluator = evaluator(changes);
    let ends = ends(changes);
    let local = |end: &&End| end.interface.is_some();
    for source in &ends {
        for destination in &ends {
            if source.interface.is_some() || destination.interface.is_some() {
                compare_pair(&evaluator, table, source, destination)?;
            }
        }
    }
    for source in ends.iter().filter(local) {
        for node in OUTSIDE {
            let party = Party::OwnNode(node.parse().unwrap());
            let node = End {
                party,
                interface: None,
            };
            compare_pair(&evaluator, table, source, &node)?;
        }
    }
    Ok(())
}

fn compare_pair(
    evaluator: &Evaluator,
    table: &Program<'_>,
    source: &End,
    destination: &End,
) -> Result<(), TestCaseError> {
    let (from, to) = (source.party.address(), destination.party.address());
    if from.is_ipv4() != to.is_ipv4() {
        return Ok(());
    }
    for (protocol, port, icmp) in services() {
        let flow = Flow {
            source: source.party.clone(),
            destination: destination.party.clone(),
            protocol,
            source_port: port.map(|_| 1500),
            destination_port: port,
            icmp,
            original_destination: None,
        };
        let decision = evaluator.verdict(&flow);
        let own_node = matches!(destination.party, Party::OwnNode(_));
        let expected = (source.interface.is_none() || decision.egress.allows())
            && (destination.interface.is_none() || decision.ingress.allows());
        let packet = Packet {
            iif: Some(interface(source)),
            oif: (!own_node).then(|| interface(destination)),
            source: from,
            destination: to,
            original_destination: None,
            protocol,
            ports: port.map(|port| (1500, port)),
            icmp,
            connection: Connection::New,
            mark: 0,
        };
        let outcome = table.run(&packet).unwrap();
        let accepted = matches!(outcome, Outcome::Accepted { .. });
        prop_assert_eq!(
            accepted,
            expected,
            "{:?}\n{:?}\n{:?}",
            flow,
            decision,
            outcome
        );
    }
    Ok(())
}

fn interface(end: &End) -> Interface {
    match end.interface {
        Some(index) => Interface {
            index,
            name: format!("oci{index}"),
        },
        None => Interface {
            index: 2,
            name: "eth0".to_owned(),
        },
    }
}
