//! The compiled table against the evaluator, for policies of every kind.

use crate::generate::{Change, OUTSIDE, cluster, evaluator, services};
use policy::program::{Connection, Interface, Outcome, Packet, run};
use policy::{Compiler, Endpoint, EndpointId, Evaluator, Flow, Options, Party, Ruleset};
use proptest::prelude::*;
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
    table: &Ruleset,
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
            protocol,
            ports: port.map(|port| (1500, port)),
            icmp,
            connection: Connection::New,
            mark: 0,
        };
        let outcome = run(table, &packet).unwrap();
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
