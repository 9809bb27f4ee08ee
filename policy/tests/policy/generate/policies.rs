//! Policies of each kind, their rules and selectors.

use super::*;
use model::{
    CalicoAction, CalicoPolicy, CalicoPort, CalicoRule, ClusterAction, ClusterNetworkPolicy,
    ClusterPeer, ClusterPods, ClusterPort, ClusterRule, ClusterTier, EntityRule, IcmpMatch,
    IpVersion, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule, PortMatch, ServiceAccountMatch,
    ServiceMatch, StagedAction, StagedKubernetesPolicy,
};

/// What Kubernetes' label selectors can say.
pub(crate) fn selector() -> BoxedStrategy<Selector> {
    let (key, value) = (select(vec!["app", "tier"]), select(vec!["a", "b"]));
    let term = (key, value, 0..4).prop_map(|(key, value, kind)| {
        let (key, value) = (key.to_owned(), value.to_owned());
        match kind {
            0 => Selector::Eq(key, value),
            1 => Selector::NotIn(key, [value].into()),
            2 => Selector::Has(key),
            _ => Selector::Not(Box::new(Selector::Has(key))),
        }
    });
    let named = select(&NAMESPACES[..])
        .prop_map(|name| Selector::Eq("kubernetes.io/metadata.name".to_owned(), name.to_owned()));
    prop_oneof![
        3 => Just(Selector::All),
        5 => term.clone(),
        1 => named,
        1 => vec(term, 0..3).prop_map(Selector::And),
    ]
    .boxed()
}

/// What Calico's selectors can say besides.
fn calico_selector() -> BoxedStrategy<Selector> {
    let added = prop_oneof![
        select(&NAMESPACES[..]).prop_map(|name| ("projectcalico.org/namespace", name)),
        select(&NAMESPACES[..]).prop_map(|name| ("projectcalico.org/name", name)),
        select(&ACCOUNTS[..]).prop_map(|name| ("projectcalico.org/serviceaccount", name)),
        Just(("projectcalico.org/orchestrator", "k8s")),
    ];
    let added = added.prop_map(|(key, value)| Selector::Eq(key.to_owned(), value.to_owned()));
    let text = (
        select(vec!["app", "tier"]),
        select(vec!["a", "b", ""]),
        0..4,
    )
        .prop_map(|(key, value, kind)| {
            let (key, value) = (key.to_owned(), value.to_owned());
            match kind {
                0 => Selector::StartsWith(key, value),
                1 => Selector::EndsWith(key, value),
                2 => Selector::Contains(key, value),
                _ => Selector::Ne(key, value),
            }
        });
    let one = prop_oneof![4 => selector(), 1 => added, 1 => text];
    prop_oneof![
        6 => one.clone(),
        1 => vec(one.clone(), 0..3).prop_map(Selector::Or),
        1 => one.prop_map(|inner| Selector::Not(Box::new(inner))),
    ]
    .boxed()
}

/// Selectors of namespaces, where `global()` means something.
fn namespace_selector() -> BoxedStrategy<Selector> {
    let global = Just(Selector::Global);
    let or_global = selector().prop_map(|selector| Selector::Or(vec![selector, Selector::Global]));
    prop_oneof![6 => calico_selector(), 1 => global, 1 => or_global].boxed()
}

/// A policy of any kind. Few names, so that histories replace and remove.
pub(crate) fn policy() -> BoxedStrategy<Policy> {
    prop_oneof![
        4 => kubernetes_policy().prop_map(Policy::from),
        3 => cluster_policy().prop_map(Policy::from),
        4 => calico_policy().prop_map(Policy::from),
        1 => (staged_action(), kubernetes_policy()).prop_map(|(action, policy)| {
            Policy::from(StagedKubernetesPolicy { action, policy })
        }),
    ]
    .boxed()
}

fn policy_name() -> impl Strategy<Value = String> {
    select(vec!["p0", "p1", "p2"]).prop_map(str::to_owned)
}

fn staged_action() -> impl Strategy<Value = StagedAction> {
    select(vec![
        StagedAction::Set,
        StagedAction::Set,
        StagedAction::Delete,
    ])
}

pub(crate) fn kubernetes_policy() -> BoxedStrategy<NetworkPolicy> {
    let rules = || weighted(0.6, vec(kubernetes_rule(), 0..4));
    let namespace = select(&NAMESPACES[..2]);
    (policy_name(), namespace, selector(), rules(), rules())
        .prop_map(
            |(name, namespace, pod_selector, ingress, egress)| NetworkPolicy {
                namespace: namespace.to_owned(),
                name,
                pod_selector,
                ingress,
                egress,
            },
        )
        .boxed()
}

pub(crate) fn kubernetes_rule() -> BoxedStrategy<PolicyRule> {
    let peers = weighted(0.8, vec(kubernetes_peer(), 0..3));
    let ports = weighted(0.7, vec(kubernetes_port(), 0..5));
    (peers, ports)
        .prop_map(|(peers, ports)| PolicyRule { peers, ports })
        .boxed()
}

/// Exceptions mostly lie in the block, and in each other.
fn kubernetes_peer() -> impl Strategy<Value = PolicyPeer> {
    let pods = (of(selector()), selector());
    let block = (cidr(), vec(cidr(), 0..3));
    prop_oneof![
        pods.prop_map(|(namespaces, pods)| PolicyPeer::Pods { namespaces, pods }),
        block.prop_map(|(cidr, except)| PolicyPeer::IpBlock { cidr, except }),
    ]
}

fn kubernetes_port() -> impl Strategy<Value = PolicyPort> {
    let port = prop_oneof![
        1 => Just(PortMatch::Any),
        3 => select(&RANGES[..]).prop_map(|(first, last)| PortMatch::Range(first, last)),
        2 => select(vec!["web", "dns", "none"]).prop_map(|n| PortMatch::Named(n.to_owned())),
    ];
    (protocol(), port).prop_map(|(protocol, port)| PolicyPort { protocol, port })
}

pub(crate) fn cluster_policy() -> BoxedStrategy<ClusterNetworkPolicy> {
    let tier = select(vec![ClusterTier::Admin, ClusterTier::Baseline]);
    let place = (policy_name(), tier, select(vec![0_u16, 10, 10, 1000]));
    let ingress = vec(
        cluster_rule(cluster_pods().prop_map(ClusterPeer::Pods).boxed()),
        0..3,
    );
    let egress = vec(cluster_rule(egress_peer().boxed()), 0..3);
    (place, cluster_pods(), ingress, egress)
        .prop_map(
            |((name, tier, priority), subject, ingress, egress)| ClusterNetworkPolicy {
                name,
                tier,
                priority,
                subject,
                ingress,
                egress,
            },
        )
        .boxed()
}

fn cluster_pods() -> impl Strategy<Value = ClusterPods> {
    (selector(), selector()).prop_map(|(namespaces, pods)| ClusterPods { namespaces, pods })
}

fn egress_peer() -> impl Strategy<Value = ClusterPeer> {
    prop_oneof![
        3 => cluster_pods().prop_map(ClusterPeer::Pods),
        2 => vec(cidr(), 1..3).prop_map(ClusterPeer::Networks),
        1 => selector().prop_map(ClusterPeer::Nodes),
        1 => vec(select(&PATTERNS[..]).prop_map(str::to_owned), 1..3)
            .prop_map(ClusterPeer::DomainNames),
    ]
}

/// Named ports only beside pods, domain names only where something is accepted: others are
/// rejected when they are read.
fn cluster_rule(peer: BoxedStrategy<ClusterPeer>) -> impl Strategy<Value = ClusterRule> {
    let range = (protocol(), select(&RANGES[..])).prop_map(|(protocol, (first, last))| {
        ClusterPort::Range {
            protocol,
            first,
            last,
        }
    });
    let named = select(vec!["web", "dns", "none"]).prop_map(|n| ClusterPort::Named(n.to_owned()));
    let port = prop_oneof![3 => range, 1 => named];
    let action = select(vec![
        ClusterAction::Accept,
        ClusterAction::Deny,
        ClusterAction::Pass,
    ]);
    let name = of(select(vec!["r0", "r1"]).prop_map(str::to_owned));
    let peers = weighted(0.9, vec(peer, 0..3));
    let protocols = weighted(0.6, vec(port, 0..3));
    (name, action, peers, protocols).prop_map(|(name, action, peers, protocols)| {
        let peers = peers.map(|mut peers| {
            if action != ClusterAction::Accept {
                peers.retain(|peer| !matches!(peer, ClusterPeer::DomainNames(_)));
            }
            peers
        });
        let is_pods = |peer: &ClusterPeer| matches!(peer, ClusterPeer::Pods(_));
        let only_pods = peers.iter().flatten().all(is_pods);
        let protocols = protocols.map(|mut all| {
            if !only_pods {
                all.retain(|port| !matches!(port, ClusterPort::Named(_)));
            }
            all
        });
        ClusterRule {
            name,
            action,
            peers,
            protocols,
        }
    })
}

pub(crate) fn tier() -> impl Strategy<Value = (&'static str, Tier)> {
    let named = select(vec![
        ("early", 10.0),
        ("early", 2e6),
        ("late", 2e6),
        ("late", 2e7),
    ]);
    let default_action = select(vec![TierDefault::Deny, TierDefault::Pass]);
    (named, default_action).prop_map(|((name, order), default_action)| {
        let order = Order::new(order).unwrap();
        (
            name,
            Tier {
                name: name.to_owned(),
                order,
                default_action,
            },
        )
    })
}

/// Policies for pods: those that only hosts understand are [`host_policy`].
pub(crate) fn calico_policy() -> BoxedStrategy<CalicoPolicy> {
    let namespace = of(select(&NAMESPACES[..2]).prop_map(str::to_owned));
    let order = of(select(vec![-1.0, 10.0, 1000.0, 2000.0]))
        .prop_map(|order| order.and_then(Order::new).unwrap_or(Order::LAST));
    let staged = weighted(0.15, staged_action());
    let place = (policy_name(), namespace, staged, select(&TIERS[..]), order);
    let subject = (
        calico_selector(),
        weighted(0.2, namespace_selector()),
        weighted(0.1, calico_selector()),
    );
    let rules = || weighted(0.6, vec(calico_rule(), 0..4));
    (place, subject, rules(), rules())
        .prop_map(|(place, subject, ingress, egress)| {
            let (name, namespace, staged, tier, order) = place;
            let (selector, namespace_selector, service_account_selector) = subject;
            CalicoPolicy {
                // A policy of a namespace has no selector of namespaces.
                namespace_selector: namespace_selector.filter(|_| namespace.is_none()),
                namespace,
                name,
                staged,
                tier: tier.to_owned(),
                order,
                selector,
                service_account_selector,
                ingress,
                egress,
                do_not_track: false,
                pre_dnat: false,
                apply_on_forward: false,
            }
        })
        .boxed()
}

/// A global policy that may be for hosts only.
pub(crate) fn host_policy() -> BoxedStrategy<CalicoPolicy> {
    (calico_policy(), 0..4)
        .prop_map(|(mut policy, kind)| {
            policy.namespace = None;
            policy.do_not_track = kind == 1;
            policy.pre_dnat = kind == 2;
            policy.apply_on_forward = kind != 0;
            if policy.pre_dnat {
                policy.egress = None;
            }
            policy
        })
        .boxed()
}

/// What a rule says about protocols fits together: ports where there are ports, messages where it
/// is ICMP.
pub(crate) fn calico_rule() -> BoxedStrategy<CalicoRule> {
    let action = prop_oneof![
        4 => Just(CalicoAction::Allow),
        3 => Just(CalicoAction::Deny),
        2 => Just(CalicoAction::Pass),
        1 => Just(CalicoAction::Log),
    ];
    let protocol = of(select(vec![6_u8, 6, 17, 132, 1, 58, 47]));
    let not_protocol = weighted(0.15, select(vec![6_u8, 17, 1]));
    let messages = (weighted(0.5, icmp()), weighted(0.3, icmp()));
    let version = weighted(0.15, select(vec![IpVersion::V4, IpVersion::V6]));
    let head = (action, protocol, not_protocol, messages, version);
    (head, entity(), entity())
        .prop_map(|(head, mut source, mut destination)| {
            let (action, protocol, not_protocol, (icmp, not_icmp), ip_version) = head;
            let is_icmp = matches!(protocol, Some(1 | 58));
            if !matches!(protocol, Some(6 | 17 | 132)) {
                for entity in [&mut source, &mut destination] {
                    entity.ports = None;
                    entity.not_ports.clear();
                }
            }
            CalicoRule {
                action,
                ip_version,
                protocol,
                not_protocol,
                icmp: icmp.filter(|_| is_icmp),
                not_icmp: not_icmp.filter(|_| is_icmp),
                source,
                destination,
            }
        })
        .boxed()
}

fn icmp() -> impl Strategy<Value = IcmpMatch> {
    (of(select(vec![8_u8, 128, 3])), of(0_u8..2)).prop_map(|(icmp_type, code)| IcmpMatch {
        icmp_type,
        code: code.filter(|_| icmp_type.is_some()),
    })
}

fn entity() -> BoxedStrategy<EntityRule> {
    let nets = (
        weighted(0.2, vec(cidr(), 0..3)),
        prop_oneof![4 => Just(vec![]), 1 => vec(cidr(), 1..3)],
    );
    let selectors = (
        weighted(0.3, calico_selector()),
        weighted(0.15, calico_selector()),
        weighted(0.2, namespace_selector()),
    );
    let accounts = (
        btree_set(select(&ACCOUNTS[..]).prop_map(str::to_owned), 0..2),
        of(selector()),
    )
        .prop_map(|(names, selector)| ServiceAccountMatch { names, selector });
    let services =
        (select(&NAMESPACES[..]), select(&SERVICES[..])).prop_map(|(namespace, name)| {
            ServiceMatch {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            }
        });
    let ports = (
        weighted(0.3, vec(calico_port(), 0..3)),
        prop_oneof![5 => Just(vec![]), 1 => vec(calico_port(), 1..3)],
    );
    let some = (nets, selectors, weighted(0.1, accounts), ports).prop_map(|parts| {
        let ((nets, not_nets), selectors, service_accounts, (ports, not_ports)) = parts;
        let (selector, not_selector, namespace_selector) = selectors;
        EntityRule {
            nets,
            not_nets,
            selector,
            not_selector,
            namespace_selector,
            service_accounts,
            services: None,
            ports,
            not_ports,
        }
    });
    let service = services.prop_map(|services| EntityRule {
        services: Some(services),
        ..EntityRule::default()
    });
    prop_oneof![2 => Just(EntityRule::default()), 6 => some, 1 => service].boxed()
}

fn calico_port() -> impl Strategy<Value = CalicoPort> {
    prop_oneof![
        2 => select(&RANGES[..]).prop_map(|(first, last)| CalicoPort::Range(first, last)),
        1 => select(vec!["web", "dns", "none"]).prop_map(|n| CalicoPort::Named(n.to_owned())),
    ]
}
