//! What the table does for policies of other kinds than Kubernetes' own.

use crate::table::{A, B, interface, pod, set_policy};
use model::{
    CalicoAction, CalicoPolicy, CalicoPort, CalicoRule, ClusterAction, ClusterNetworkPolicy,
    ClusterPeer, ClusterPods, ClusterRule, ClusterTier, EntityRule, Labels, NetworkSet, Order,
    Selector, StagedAction,
};
use policy::program::{Connection, Outcome, Packet, run, run_and_count};
use policy::ruleset::Op;
use policy::{Compiler, DropLog, NodePeer, Options, Policy};

const TCP: u8 = 6;

pub(crate) fn accepted(compiler: &Compiler, packet: &Packet) -> bool {
    matches!(
        run(compiler.ruleset(), packet).unwrap(),
        Outcome::Accepted { .. }
    )
}

/// From a pod's interface, or from outside, to a pod's interface, or to the outside.
pub(crate) fn packet(
    from: Option<u32>,
    to: Option<u32>,
    source: &str,
    destination: &str,
) -> Packet {
    Packet {
        iif: interface(from.unwrap_or(2)),
        oif: interface(to.unwrap_or(2)),
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        original_destination: None,
        protocol: TCP,
        ports: Some((40_000, 80)),
        icmp: None,
        connection: Connection::New,
        mark: 0,
    }
}

fn labelled(key: &str, value: &str) -> Selector {
    Selector::Eq(key.to_owned(), value.to_owned())
}

pub(crate) fn rule(action: CalicoAction) -> CalicoRule {
    CalicoRule {
        action,
        ip_version: None,
        protocol: None,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: EntityRule::default(),
        destination: EntityRule::default(),
    }
}

/// Lets pods with a label in to one port.
pub(crate) fn to_port(action: CalicoAction, from: Selector, port: u16) -> CalicoRule {
    let mut rule = rule(action);
    rule.protocol = Some(TCP);
    rule.source.selector = Some(from);
    rule.destination.ports = Some(vec![CalicoPort::Range(port, port)]);
    rule
}

pub(crate) fn global(name: &str, ingress: Vec<CalicoRule>) -> CalicoPolicy {
    CalicoPolicy {
        namespace: None,
        name: name.to_owned(),
        staged: None,
        tier: "default".to_owned(),
        order: Order::new(10.0).unwrap(),
        selector: Selector::All,
        namespace_selector: None,
        service_account_selector: None,
        ingress: Some(ingress),
        egress: None,
        do_not_track: false,
        pre_dnat: false,
        apply_on_forward: false,
    }
}

pub(crate) fn tell(compiler: &mut Compiler, policy: Policy) {
    compiler.set_policy(&policy.key(), Some(policy));
}

/// Pods 1 and 2 of this node, and pod 3 of another.
pub(crate) fn compiler(options: Options) -> Compiler {
    let mut compiler = Compiler::new(options);
    for (number, interface) in [(1, Some(A)), (2, Some(B)), (3, None)] {
        let (id, endpoint) = pod(number, interface);
        compiler.set_endpoint(&id, Some(endpoint));
    }
    compiler
}

/// From pod 3 to a port of pod 1.
pub(crate) fn from_3(port: u16) -> Packet {
    Packet {
        ports: Some((40_000, port)),
        ..packet(None, Some(A), "10.0.0.3", "10.0.0.1")
    }
}

fn chain_of_ingress(compiler: &Compiler) -> &policy::ruleset::Chain {
    let ruleset = compiler.ruleset();
    let name = ruleset
        .chains
        .keys()
        .find(|name| name.starts_with('i') && name.len() == 17);
    &ruleset.chains[name.unwrap()]
}

#[test]
fn a_thousand_policies_with_selectors_and_ports_of_their_own_are_the_rules_of_four() {
    let policy = |number: u16| {
        let from = labelled("app", &format!("app-{number}"));
        let rule = to_port(CalicoAction::Allow, from, 1000 + number);
        Policy::from(global(&format!("p{number:04}"), vec![rule]))
    };
    let mut compiler = compiler(Options::default());
    (0..4).for_each(|number| tell(&mut compiler, policy(number)));
    compiler.resolve();
    let few = chain_of_ingress(&compiler).rules.len();
    (4..1000).for_each(|number| tell(&mut compiler, policy(number)));
    compiler.resolve();
    assert_eq!(chain_of_ingress(&compiler).rules.len(), few);
    let (id, mut endpoint) = pod(3, None);
    endpoint.labels = Labels::from([("app".to_owned(), "app-999".to_owned())]);
    compiler.set_endpoint(&id, Some(endpoint));
    let ops = compiler.resolve();
    assert!(
        ops.iter()
            .all(|op| matches!(op, Op::AddElements(_, new) if new.len() == 1)),
        "{ops:?}"
    );
    assert!(accepted(&compiler, &from_3(1999)));
    assert!(!accepted(&compiler, &from_3(1998)));
}

#[test]
fn one_policy_more_among_many_adds_its_elements_and_leaves_the_others() {
    let mut compiler = compiler(Options::default());
    let policy = |number: u16| {
        let from = labelled("app", &format!("app-{number}"));
        let rule = to_port(CalicoAction::Allow, from, 1000 + number);
        Policy::from(global(&format!("p{number:04}"), vec![rule]))
    };
    (0..100).for_each(|number| tell(&mut compiler, policy(number)));
    for number in 0..50_u16 {
        let (id, mut endpoint) = pod(u32::from(number) + 10, None);
        endpoint.labels = Labels::from([("app".to_owned(), format!("app-{number}"))]);
        compiler.set_endpoint(&id, Some(endpoint));
    }
    compiler.resolve();
    let rule = to_port(CalicoAction::Allow, labelled("app", "app-7"), 9);
    tell(&mut compiler, Policy::from(global("zz", vec![rule])));
    let elements = compiler.resolve().into_iter().map(|op| match op {
        Op::AddElements(_, elements) | Op::DeleteElements(_, elements) => elements.len(),
        Op::AddSet(name, _) => panic!("{name} is made anew"),
        _ => 0,
    });
    assert_eq!(elements.sum::<usize>(), 2);
}

#[test]
fn a_staged_policy_counts_what_it_would_do_and_does_nothing() {
    let mut compiler = compiler(Options::default());
    let deny = to_port(CalicoAction::Deny, Selector::All, 80);
    let staged = CalicoPolicy {
        staged: Some(StagedAction::Set),
        ..global("later", vec![deny])
    };
    tell(&mut compiler, Policy::from(staged));
    compiler.resolve();
    let count = |port| {
        let (outcome, counted) = run_and_count(compiler.ruleset(), &from_3(port)).unwrap();
        assert!(matches!(outcome, Outcome::Accepted { .. }));
        let counted = counted
            .iter()
            .map(|name| compiler.explain(name).unwrap().to_string());
        counted.collect::<Vec<_>>()
    };
    let policy = "StagedGlobalNetworkPolicy/later";
    let would_deny = format!("ingress: denied in tier default (staged): {policy}");
    assert_eq!(count(80), [would_deny]);
    let rest = format!("ingress: end of tier default (staged): {policy}");
    assert_eq!(count(81), [rest]);
}

#[test]
fn policies_are_counted_by_direction_and_keep_their_counters_while_chains_change() {
    let mut compiler = compiler(Options::default());
    let allow = |port| to_port(CalicoAction::Allow, Selector::All, port);
    tell(&mut compiler, Policy::from(global("a", vec![allow(80)])));
    compiler.resolve();
    let counters =
        |compiler: &Compiler, port| run_and_count(compiler.ruleset(), &from_3(port)).unwrap().1;
    let before = counters(&compiler, 80);
    assert_eq!(
        compiler.explain(&before[0]).unwrap().to_string(),
        "ingress: allowed in tier default: GlobalNetworkPolicy/a"
    );
    tell(&mut compiler, Policy::from(global("b", vec![allow(81)])));
    let ops = compiler.resolve();
    assert!(
        !ops.iter()
            .any(|op| matches!(op, Op::DeleteCounter(name) if *name == before[0]))
    );
    assert_eq!(counters(&compiler, 80), before);
    assert_ne!(counters(&compiler, 81), before);
    for (name, counted) in compiler.counters() {
        assert!(compiler.ruleset().counters.contains(name), "{counted}");
    }
}

#[test]
fn a_denial_is_logged_with_a_prefix_that_tells_who_denies() {
    let mut compiler = compiler(Options {
        drop_log: Some(DropLog {
            group: 7,
            per_second: 10,
            burst: 20,
        }),
        ..Options::default()
    });
    let deny = to_port(CalicoAction::Deny, Selector::All, 80);
    tell(&mut compiler, Policy::from(global("no", vec![deny])));
    compiler.resolve();
    let told: Vec<String> = compiler
        .ruleset()
        .chains
        .values()
        .flat_map(|chain| &chain.rules)
        .flat_map(|rule| &rule.statements)
        .filter_map(|statement| match statement {
            policy::ruleset::Statement::Log { group: 7, prefix } => {
                Some(compiler.explain(prefix)?.to_string())
            }
            _ => None,
        })
        .collect();
    assert!(told.contains(&"ingress: denied in tier default: GlobalNetworkPolicy/no".to_owned()));
    assert!(told.contains(&"ingress: end of tier default: GlobalNetworkPolicy/no".to_owned()));
}

#[test]
fn a_rule_that_logs_leaves_the_verdict_to_the_next_one() {
    let mut compiler = compiler(Options::default());
    let rules = vec![
        to_port(CalicoAction::Log, Selector::All, 80),
        to_port(CalicoAction::Allow, Selector::All, 80),
    ];
    tell(&mut compiler, Policy::from(global("seen", rules)));
    compiler.resolve();
    let (outcome, counted) = run_and_count(compiler.ruleset(), &from_3(80)).unwrap();
    assert!(matches!(outcome, Outcome::Accepted { .. }));
    assert_eq!(counted.len(), 2);
}

#[test]
fn a_prefix_of_a_network_set_matches_and_follows_the_set() {
    let mut compiler = compiler(Options::default());
    let bad = labelled("list", "bad");
    let rules = vec![
        to_port(CalicoAction::Deny, bad, 80),
        rule(CalicoAction::Allow),
    ];
    tell(&mut compiler, Policy::from(global("feed", rules)));
    let set = |nets: &[&str]| NetworkSet {
        namespace: None,
        name: "feed".to_owned(),
        labels: Labels::from([("list".to_owned(), "bad".to_owned())]),
        nets: nets.iter().map(|net| net.parse().unwrap()).collect(),
    };
    let mut verdicts = vec![];
    for nets in [
        &["10.0.0.0/30"][..],
        &["10.0.0.2/32"],
        &["10.0.0.2/32", "10.0.0.0/24"],
    ] {
        compiler.set_network_set(None, "feed", Some(set(nets)));
        let ops = compiler.resolve();
        let rules = ops.iter().any(|op| matches!(op, Op::AddRules(..)));
        verdicts.push((accepted(&compiler, &from_3(80)), rules));
    }
    assert_eq!(verdicts, [(false, true), (true, false), (false, false)]);
}

fn cluster(name: &str, tier: ClusterTier, egress: Vec<ClusterRule>) -> Policy {
    Policy::from(ClusterNetworkPolicy {
        name: name.to_owned(),
        tier,
        priority: 10,
        subject: ClusterPods {
            namespaces: Selector::All,
            pods: Selector::All,
        },
        ingress: vec![],
        egress,
    })
}

#[test]
fn a_cluster_policy_may_forbid_its_own_node_and_itself_and_network_policy_may_not() {
    let deny_nodes = ClusterRule {
        name: None,
        action: ClusterAction::Deny,
        peers: Some(vec![ClusterPeer::Nodes(Selector::All)]),
        protocols: None,
    };
    let deny_itself = ClusterRule {
        peers: Some(vec![ClusterPeer::Networks(vec![
            "10.0.0.1/32".parse().unwrap(),
        ])]),
        ..deny_nodes.clone()
    };
    let mut compiler = compiler(Options::default());
    let to_node = Packet {
        oif: None,
        ..packet(Some(A), None, "10.0.0.1", "192.0.2.1")
    };
    let to_itself = packet(Some(A), Some(A), "10.0.0.1", "10.0.0.1");
    let node = NodePeer {
        labels: Labels::new(),
        addresses: ["192.0.2.1".parse().unwrap()].into(),
    };
    compiler.set_node("n1", Some(node));
    set_policy(&mut compiler, crate::table::policy("deny", vec![]));
    compiler.resolve();
    assert!(accepted(&compiler, &to_node) && accepted(&compiler, &to_itself));
    tell(
        &mut compiler,
        cluster("c", ClusterTier::Admin, vec![deny_nodes, deny_itself]),
    );
    compiler.resolve();
    assert!(!accepted(&compiler, &to_node) && !accepted(&compiler, &to_itself));
    let discovery = Packet {
        source: "fe80::1".parse().unwrap(),
        destination: "fe80::2".parse().unwrap(),
        protocol: 58,
        ports: None,
        icmp: Some((135, 0)),
        ..to_node
    };
    assert!(accepted(&compiler, &discovery));
}

#[test]
fn what_a_name_resolves_to_is_an_element_of_a_set() {
    let mut compiler = compiler(Options::default());
    let names = ClusterRule {
        name: None,
        action: ClusterAction::Accept,
        peers: Some(vec![ClusterPeer::DomainNames(vec![
            "*.example.com".to_owned(),
        ])]),
        protocols: None,
    };
    let rest = ClusterRule {
        action: ClusterAction::Deny,
        peers: None,
        ..names.clone()
    };
    tell(
        &mut compiler,
        cluster("c", ClusterTier::Admin, vec![names, rest]),
    );
    compiler.resolve();
    assert_eq!(
        compiler.domain_names().into_iter().collect::<Vec<_>>(),
        ["*.example.com"]
    );
    let out = packet(Some(A), None, "10.0.0.1", "198.51.100.9");
    assert!(!accepted(&compiler, &out));
    compiler.set_domain("a.b.example.com", ["198.51.100.9".parse().unwrap()].into());
    assert_eq!(compiler.resolve().len(), 1);
    assert!(accepted(&compiler, &out));
    compiler.set_domain("a.b.example.com", [].into());
    compiler.resolve();
    assert!(!accepted(&compiler, &out));
}

#[test]
fn a_revoked_connection_is_reset_and_any_other_is_dropped() {
    let mut compiler = compiler(Options::default());
    compiler.resolve();
    let established = Packet {
        connection: Connection::Established,
        ..from_3(80)
    };
    assert!(accepted(&compiler, &established));
    let marked = Packet {
        mark: model::names::REVOKED_MARK | 1,
        ..established
    };
    let place = |protocol| {
        let packet = Packet {
            protocol,
            ..marked.clone()
        };
        match run(compiler.ruleset(), &packet).unwrap() {
            Outcome::Dropped { chain, rule } => (chain, rule),
            Outcome::Accepted { .. } => panic!("accepted"),
        }
    };
    assert_eq!(place(TCP), ("revoked".to_owned(), 0));
    assert_eq!(place(17), ("revoked".to_owned(), 1));
    compiler.set_options(Options {
        revoked_mark: None,
        ..Options::default()
    });
    compiler.resolve();
    assert!(accepted(&compiler, &marked));
}
