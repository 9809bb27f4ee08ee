//! Generated policies of every kind, and what they refer to. Alphabets are small, so that
//! selectors, ports and addresses meet: pods share addresses, named ports collide, `except` nests,
//! tiers pass. Strategies are boxed: nested types of theirs exhaust the stack of a test.

use ipnet::IpNet;
use model::{
    CalicoAction, CalicoPolicy, CalicoPort, CalicoRule, ClusterAction, ClusterNetworkPolicy,
    ClusterPeer, ClusterPods, ClusterPort, ClusterRule, ClusterTier, EndpointSlice, EntityRule,
    HostEndpoint, IcmpMatch, IpVersion, Labels, NamedPort, NetworkPolicy, NetworkSet, Order,
    PolicyPeer, PolicyPort, PolicyRule, PortMatch, Profile, Protocol, Selector, ServiceAccount,
    ServiceAccountMatch, ServiceMatch, StagedAction, StagedKubernetesPolicy, Tier, TierDefault,
};
use policy::{Compiler, Endpoint, EndpointId, Evaluator, Flow, NodePeer, Party, Policy, PolicyKey};
use proptest::collection::{btree_set, vec};
use proptest::option::{of, weighted};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::collections::BTreeSet;
use std::net::IpAddr;

pub(crate) const NAMESPACES: [&str; 3] = ["alpha", "beta", "gamma"];
/// Addresses that are no pod's. Those of [`NODES`] are among them.
pub(crate) const OUTSIDE: [&str; 6] = [
    "192.0.2.1",
    "192.0.2.2",
    "10.0.200.1",
    "2001:db8::1",
    "2001:db8::2",
    "fd00::200",
];
const NODES: [&str; 2] = ["n1", "n2"];
const CIDRS: [&str; 11] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/29",
    "10.0.0.0/30",
    "10.0.0.4/30",
    "192.0.2.0/24",
    "128.0.0.0/1",
    "::/0",
    "fd00::/64",
    "fd00::/126",
    "2001:db8::1/128",
];
/// 4789 is not among them: VXLAN from pods is dropped whatever policies say.
pub(crate) const PORTS: [u16; 6] = [53, 80, 81, 443, 1500, 65535];
const RANGES: [(u16, u16); 7] = [
    (80, 80),
    (80, 81),
    (53, 443),
    (443, 443),
    (1000, 2000),
    (1, 65535),
    (65535, 65535),
];
const DOMAINS: [&str; 4] = [
    "example.com",
    "a.example.com",
    "b.a.example.com",
    "example.org",
];
const PATTERNS: [&str; 4] = ["example.com", "*.example.com", "*.a.example.com", "*.com"];
const SERVICES: [&str; 2] = ["s0", "s1"];
const ACCOUNTS: [&str; 2] = ["sa0", "sa1"];
const PROFILES: [&str; 2] = ["pr0", "pr1"];
const TIERS: [&str; 5] = ["early", "kube-admin", "default", "late", "untold"];

/// One thing that a compiler and an evaluator are told.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // few exist at a time
pub(crate) enum Change {
    Namespace(&'static str, Option<Labels>),
    Endpoint(EndpointId, Option<Endpoint>),
    Policy(PolicyKey, Option<Policy>),
    Tier(&'static str, Option<Tier>),
    NetworkSet(Option<&'static str>, String, Option<NetworkSet>),
    HostEndpoint(String, Option<HostEndpoint>),
    ServiceAccount(&'static str, &'static str, Option<ServiceAccount>),
    Profile(&'static str, Option<Profile>),
    EndpointSlice(&'static str, String, Option<EndpointSlice>),
    Node(&'static str, Option<NodePeer>),
    Domain(&'static str, BTreeSet<IpAddr>),
}

macro_rules! tell {
    ($($name:ident: $listener:ty;)*) => {
        impl Change {
            $(pub(crate) fn $name(&self, listener: &mut $listener) {
                match self.clone() {
                    Self::Namespace(name, labels) => listener.set_namespace(name, labels),
                    Self::Endpoint(id, endpoint) => listener.set_endpoint(&id, endpoint),
                    Self::Policy(key, policy) => listener.set_policy(&key, policy),
                    Self::Tier(name, tier) => listener.set_tier(name, tier),
                    Self::NetworkSet(namespace, name, set) => {
                        listener.set_network_set(namespace, &name, set);
                    }
                    Self::HostEndpoint(name, host) => listener.set_host_endpoint(&name, host),
                    Self::ServiceAccount(namespace, name, account) => {
                        listener.set_service_account(namespace, name, account);
                    }
                    Self::Profile(name, profile) => listener.set_profile(name, profile),
                    Self::EndpointSlice(namespace, name, slice) => {
                        listener.set_endpoint_slice(namespace, &name, slice);
                    }
                    Self::Node(name, node) => listener.set_node(name, node),
                    Self::Domain(name, addresses) => listener.set_domain(name, addresses),
                }
            })*
        }
    };
}

tell! {
    tell: Compiler;
    tell_evaluator: Evaluator;
}

/// An evaluator that was told all of it, in this order.
pub(crate) fn evaluator<'a>(changes: impl IntoIterator<Item = &'a Change>) -> Evaluator {
    let mut evaluator = Evaluator::default();
    for change in changes {
        change.tell_evaluator(&mut evaluator);
    }
    evaluator
}

/// A history of changes; things come, change and go.
pub(crate) fn changes() -> impl Strategy<Value = Vec<Change>> {
    vec(change(0.85), 1..50)
}

/// A cluster that is told once: next to nothing goes.
pub(crate) fn cluster() -> impl Strategy<Value = Vec<Change>> {
    vec(change(0.99), 1..50)
}

fn change(there: f64) -> BoxedStrategy<Change> {
    let namespace = (select(&NAMESPACES[..]), weighted(there, labels()))
        .prop_map(|(name, labels)| Change::Namespace(name, labels));
    let endpoint = (0_u32..8, weighted(there, endpoint())).prop_map(|(number, endpoint)| {
        let local = (number < 4).then_some(100 + number);
        let endpoint = endpoint.map(|endpoint| Endpoint { local, ..endpoint });
        Change::Endpoint(EndpointId(format!("pod-{number}")), endpoint)
    });
    let policy = (policy(), prop::bool::weighted(there))
        .prop_map(|(policy, there)| Change::Policy(policy.key(), there.then_some(policy)));
    prop_oneof![
        2 => namespace,
        7 => endpoint,
        8 => policy,
        1 => (tier(), prop::bool::weighted(there)).prop_map(|((name, tier), there)| {
            Change::Tier(name, there.then_some(tier))
        }),
        1 => referred(there),
        1 => hosts(there),
    ]
    .boxed()
}

/// What rules refer to by name or by labels.
fn referred(there: f64) -> BoxedStrategy<Change> {
    let set = (
        of(select(&NAMESPACES[..])),
        0..2,
        labels(),
        vec(cidr(), 0..3),
    );
    let set = (set, prop::bool::weighted(there)).prop_map(|(set, there)| {
        let (namespace, number, labels, nets) = set;
        let name = format!("ns{number}");
        let set = there.then(|| NetworkSet {
            namespace: namespace.map(str::to_owned),
            name: name.clone(),
            labels,
            nets,
        });
        Change::NetworkSet(namespace, name, set)
    });
    let account = (
        select(&NAMESPACES[..]),
        select(&ACCOUNTS[..]),
        weighted(there, labels()),
    )
        .prop_map(|(namespace, name, labels)| {
            let account = labels.map(|labels| ServiceAccount {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                labels,
            });
            Change::ServiceAccount(namespace, name, account)
        });
    let profile =
        (select(&PROFILES[..]), weighted(there, labels())).prop_map(|(name, labels_to_apply)| {
            let name_of = name.to_owned();
            let profile = labels_to_apply.map(|labels_to_apply| Profile {
                name: name_of,
                labels_to_apply,
            });
            Change::Profile(name, profile)
        });
    let addresses = btree_set(address(), 0..3);
    let domain = (select(&DOMAINS[..]), addresses)
        .prop_map(|(name, addresses)| Change::Domain(name, addresses));
    prop_oneof![2 => set, 1 => account, 1 => profile, 1 => domain, 1 => slice(there)].boxed()
}

fn slice(there: f64) -> BoxedStrategy<Change> {
    let names = (select(&NAMESPACES[..]), select(&SERVICES[..]), 0..2);
    let parts = (btree_set(address(), 0..3), vec(named_port(), 0..2));
    (names, weighted(there, parts))
        .prop_map(|((namespace, service, number), parts)| {
            let name = format!("{service}-{number}");
            let slice = parts.map(|(addresses, ports)| EndpointSlice {
                namespace: namespace.to_owned(),
                name: name.clone(),
                service: service.to_owned(),
                addresses,
                ports,
                ready_nodes: BTreeSet::new(),
            });
            Change::EndpointSlice(namespace, name, slice)
        })
        .boxed()
}

fn hosts(there: f64) -> BoxedStrategy<Change> {
    let addresses = || btree_set(select(&OUTSIDE[..]).prop_map(parsed::<IpAddr>), 0..3);
    let node =
        (select(&NODES[..]), weighted(there, (labels(), addresses()))).prop_map(|(name, parts)| {
            let node = parts.map(|(labels, addresses)| NodePeer { labels, addresses });
            Change::Node(name, node)
        });
    let interface = of(select(vec!["*", "eth0"]).prop_map(str::to_owned));
    let parts = (
        labels(),
        select(&NODES[..]),
        interface,
        addresses(),
        vec(named_port(), 0..2),
    );
    let host = (0..2, weighted(there, parts)).prop_map(|(number, parts)| {
        let name = format!("host-{number}");
        let host = parts.map(
            |(labels, node, interface_name, addresses, ports)| HostEndpoint {
                name: name.clone(),
                labels,
                node: node.to_owned(),
                interface_name,
                expected_ips: addresses.into_iter().collect(),
                ports,
                profiles: vec![],
            },
        );
        Change::HostEndpoint(name, host)
    });
    prop_oneof![node, host].boxed()
}

fn parsed<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().unwrap()
}

fn pod_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (1_u8..7).prop_map(|n| IpAddr::from([10, 0, 0, n])),
        (1_u16..7).prop_map(|n| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n])),
    ]
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![2 => pod_address(), 1 => select(&OUTSIDE[..]).prop_map(parsed::<IpAddr>)]
}

fn cidr() -> impl Strategy<Value = IpNet> {
    select(&CIDRS[..]).prop_map(parsed::<IpNet>)
}

pub(crate) fn labels() -> impl Strategy<Value = Labels> {
    let label = (select(vec!["app", "tier"]), select(vec!["a", "b"]));
    vec(label, 0..3).prop_map(|all| {
        let owned = all
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        owned.collect()
    })
}

fn named_port() -> impl Strategy<Value = NamedPort> {
    (select(vec!["web", "dns"]), protocol(), select(&PORTS[..])).prop_map(
        |(name, protocol, port)| NamedPort {
            name: name.to_owned(),
            protocol,
            port,
        },
    )
}

pub(crate) fn endpoint() -> BoxedStrategy<Endpoint> {
    let ips = (of(1_u8..7), of(1_u16..7)).prop_map(|(v4, v6)| {
        let v4 = v4.map(|n| IpAddr::from([10, 0, 0, n]));
        let v6 = v6.map(|n| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n]));
        v4.into_iter().chain(v6).collect::<Vec<_>>()
    });
    let belongs = (
        select(&NAMESPACES[..]),
        of(select(&ACCOUNTS[..])),
        vec(select(&PROFILES[..]), 0..2),
    );
    (
        belongs,
        labels(),
        vec(named_port(), 0..3),
        ips,
        prop::bool::weighted(0.9),
    )
        .prop_map(
            |((namespace, account, profiles), labels, ports, ips, labels_known)| Endpoint {
                namespace: namespace.to_owned(),
                pod: "pod".to_owned(),
                labels,
                ports,
                ips,
                local: None,
                labels_known,
                service_account: account.map(str::to_owned),
                profiles: profiles.into_iter().map(str::to_owned).collect(),
            },
        )
        .boxed()
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp])
}

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
        4 => kubernetes_policy().prop_map(Policy::Kubernetes),
        3 => cluster_policy().prop_map(Policy::Cluster),
        4 => calico_policy().prop_map(Policy::Calico),
        1 => (staged_action(), kubernetes_policy()).prop_map(|(action, policy)| {
            Policy::StagedKubernetes(StagedKubernetesPolicy { action, policy })
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

fn tier() -> impl Strategy<Value = (&'static str, Tier)> {
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

/// A connection between pods by their numbers, or addresses; both ends of one family.
pub(crate) fn flow() -> BoxedStrategy<Flow> {
    let v4 = || {
        let outside = select(&OUTSIDE[..3]).prop_map(parsed::<IpAddr>);
        prop_oneof![3 => (1_u8..7).prop_map(|n| IpAddr::from([10, 0, 0, n])), 1 => outside]
    };
    let v6 = || {
        let outside = select(&OUTSIDE[3..]).prop_map(parsed::<IpAddr>);
        let pod = (1_u16..7).prop_map(|n| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n]));
        prop_oneof![3 => pod, 1 => outside]
    };
    let ends = prop_oneof![2 => (v4(), v4()), 1 => (v6(), v6())];
    (ends, any::<Index>(), any::<Index>())
        .prop_map(|((source, destination), service, from)| {
            let services = services();
            let (protocol, destination_port, icmp) = services[service.index(services.len())];
            let source_port = destination_port.map(|_| [80, 443, 40_000][from.index(3)]);
            let (source, destination) = (Party::Address(source), Party::Address(destination));
            let flow = Flow::new(source, destination, protocol, destination_port);
            Flow {
                source_port,
                icmp,
                ..flow
            }
        })
        .boxed()
}

/// Protocol, destination port, ICMP type and code.
pub(crate) fn services() -> Vec<(u8, Option<u16>, Option<(u8, u8)>)> {
    let with_ports = [6, 17, 132].into_iter();
    let with_ports = with_ports.flat_map(|p| PORTS.map(|port| (p, Some(port), None)));
    let without = [
        (1, None, Some((8, 0))),
        (1, None, Some((3, 1))),
        (58, None, Some((128, 0))),
        (47, None, None),
    ];
    with_ports.chain(without).collect()
}
