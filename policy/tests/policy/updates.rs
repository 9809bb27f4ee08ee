//! What changes in the table when something changes in the cluster.

use crate::cluster::{Event, History};
use crate::table::{A, B, pod, policy, set_policy};
use model::{NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule, PortMatch, Protocol, Selector};
use policy::ruleset::{Element, Part, commands};
use policy::{Compiler, Endpoint, NetworkSets, Op, Options, Ruleset};
use std::collections::BTreeSet;
use std::net::IpAddr;

fn from_pods(selector: Selector, ports: Option<Vec<PolicyPort>>) -> PolicyRule {
    let peers = Some(vec![PolicyPeer::Pods {
        namespaces: None,
        pods: selector,
    }]);
    PolicyRule { peers, ports }
}

fn ports(numbers: &[u16]) -> Option<Vec<PolicyPort>> {
    let port = |number: &u16| PolicyPort {
        protocol: Protocol::Tcp,
        port: PortMatch::Range(*number, *number),
    };
    Some(numbers.iter().map(port).collect())
}

/// Local pods 1 and 2; a policy lets all pods of the namespace in to two ports.
fn compiler() -> Compiler {
    let mut compiler = Compiler::new(Options::default());
    for (id, endpoint) in [pod(1, Some(A)), pod(2, Some(B))] {
        compiler.set_endpoint(&id, Some(endpoint));
    }
    let rule = from_pods(Selector::All, ports(&[80, 443]));
    set_policy(&mut compiler, policy("p", vec![rule]));
    compiler
}

#[test]
fn nothing_new_is_no_operation() {
    let mut compiler = compiler();
    assert!(!compiler.resolve().is_empty());
    let (id, endpoint) = pod(1, Some(A));
    compiler.set_endpoint(&id, None);
    compiler.set_endpoint(&id, Some(endpoint));
    compiler.set_network(NetworkSets::default());
    compiler.set_namespace("shop", None);
    assert_eq!(compiler.resolve(), []);
}

#[test]
fn a_pod_that_joins_a_selector_of_many_adds_its_own_elements_only() {
    let mut compiler = compiler();
    for number in 3..10_003 {
        let (id, endpoint) = pod(number, None);
        compiler.set_endpoint(&id, Some(endpoint));
    }
    compiler.resolve();
    let (id, endpoint) = pod(20_000, None);
    let ips = endpoint.ips.clone();
    compiler.set_endpoint(&id, Some(endpoint));
    let added: BTreeSet<_> = compiler
        .resolve()
        .into_iter()
        .flat_map(added_elements)
        .collect();
    let expected = |ip: &IpAddr| {
        [80, 443]
            .map(|port| Element::exact(&[Part::Address(*ip), Part::Proto(6), Part::Port(port)]))
    };
    assert_eq!(
        added,
        ips.iter().flat_map(expected).collect::<BTreeSet<_>>()
    );
}

fn added_elements(op: Op) -> Vec<Element> {
    match op {
        Op::AddElements(_, elements) => elements.into_iter().map(|(key, _)| key).collect(),
        other => panic!("not an addition of elements: {other:?}"),
    }
}

#[test]
fn an_address_stays_until_the_last_pod_that_holds_it_is_gone() {
    let mut compiler = compiler();
    let ((first, endpoint), (second, _)) = (pod(7, None), pod(8, None));
    compiler.set_endpoint(&first, Some(endpoint.clone()));
    compiler.set_endpoint(&second, Some(endpoint));
    compiler.resolve();
    compiler.set_endpoint(&first, None);
    assert_eq!(compiler.resolve(), []);
    compiler.set_endpoint(&second, None);
    let ops = compiler.resolve();
    assert!(ops.iter().all(|op| matches!(op, Op::DeleteElements(..))) && !ops.is_empty());
}

#[test]
fn pods_with_the_same_policies_and_named_ports_share_a_chain() {
    let mut compiler = compiler();
    compiler.resolve();
    let of_groups = |name: &&String| !name.contains("_if");
    let chains = |compiler: &Compiler| compiler.ruleset().chains.keys().filter(of_groups).count();
    let shared = chains(&compiler);
    let (id, endpoint) = pod(3, Some(B + 1));
    compiler.set_endpoint(&id, Some(endpoint.clone()));
    compiler.resolve();
    assert_eq!(chains(&compiler), shared);
    let named = PolicyPort {
        protocol: Protocol::Tcp,
        port: PortMatch::Named("web".to_owned()),
    };
    let rule = from_pods(Selector::All, Some(vec![named]));
    set_policy(&mut compiler, policy("p", vec![rule]));
    compiler.resolve();
    assert_eq!(chains(&compiler), shared);
    let mut other_port = endpoint;
    std::sync::Arc::make_mut(&mut other_port.ports)[0].port = 9090;
    compiler.set_endpoint(&id, Some(other_port));
    compiler.resolve();
    assert_eq!(chains(&compiler), shared + 1);
}

#[test]
fn a_policy_that_adds_no_peers_leaves_the_sets_of_the_others_alone() {
    let mut compiler = compiler();
    compiler.resolve();
    let before = compiler.ruleset().clone();
    let deny = NetworkPolicy {
        ingress: Some(vec![]),
        ..policy("q", vec![])
    };
    set_policy(&mut compiler, deny);
    let ops = compiler.resolve();
    let sets = |ruleset: &Ruleset| ruleset.sets.keys().cloned().collect::<Vec<_>>();
    assert_eq!(sets(&before), sets(compiler.ruleset()));
    let touches_a_set = |op: &Op| match op {
        Op::AddElements(set, _) | Op::DeleteElements(set, _) => {
            !before.sets[set].header.verdict_map
        }
        Op::AddSet(..) | Op::DeleteSet(_) => true,
        _ => false,
    };
    assert!(!ops.is_empty() && !ops.iter().any(touches_a_set), "{ops:?}");
}

#[test]
fn policies_that_select_no_local_pod_compile_to_nothing() {
    let mut empty = Compiler::new(Options::default());
    empty.resolve();
    let mut compiler = compiler();
    for (id, endpoint) in [pod(1, None), pod(2, None)] {
        compiler.set_endpoint(&id, Some(endpoint));
    }
    compiler.resolve();
    assert_eq!(compiler.ruleset(), empty.ruleset());
}

#[test]
fn sets_grow_with_their_members_shrink_late_and_leave_no_other_trace() {
    let mut history = History::default();
    let rule = from_pods(Selector::All, None);
    let policy = Box::new(Some(policy("p", vec![rule])));
    history.tell(&Event::Policy("p".to_owned(), policy, "shop"));
    let joined: Vec<Ruleset> = (0..250)
        .map(|n| step(&mut history, n, Some(pod(n, Some(A + n)).1)))
        .collect();
    assert!(
        joined[249].sets.keys().any(|name| name.ends_with("_10")),
        "{:?}",
        joined[249].sets.keys()
    );
    for number in (1..250).rev() {
        let left = step(&mut history, number, None);
        assert!(
            left.is_same_but_for_sizes(&joined[number as usize - 1]),
            "{number}"
        );
    }
    assert_eq!(history.mirror, joined[0]);
}

fn step(history: &mut History, number: u32, endpoint: Option<Endpoint>) -> Ruleset {
    history.tell(&Event::Endpoint(pod(number, None).0, endpoint));
    history.resolve().unwrap();
    assert_eq!(&history.mirror, history.compiler.ruleset());
    history.mirror.clone()
}

#[test]
fn commands_of_a_transaction_name_the_table_and_the_set() {
    let mut compiler = Compiler::new(Options::default());
    compiler.resolve();
    let before = compiler.ruleset().clone();
    let (id, endpoint) = pod(1, Some(A));
    compiler.set_endpoint(
        &id,
        Some(Endpoint {
            ips: endpoint.ips[..1].to_vec(),
            ..endpoint
        }),
    );
    let text = commands(&compiler.resolve(), &before);
    assert_eq!(
        text,
        "add table inet ocicat\nadd element inet ocicat local4_06 { 100 . 10.0.0.1 }\n"
    );
}
