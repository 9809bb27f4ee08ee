//! Generated policies of every kind, and what they refer to. Alphabets are small, so that
//! selectors, ports and addresses meet: pods share addresses, named ports collide, `except` nests,
//! tiers pass. Strategies are boxed: nested types of theirs exhaust the stack of a test.

mod policies;

pub(crate) use policies::*;

use ipnet::IpNet;
use model::{
    EndpointSlice, HostEndpoint, Labels, NamedPort, NetworkSet, Order, Profile, Protocol, Selector,
    ServiceAccount, Tier, TierDefault,
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
        Change::Endpoint(EndpointId(format!("pod-{number}").into()), endpoint)
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
                namespace: namespace.to_owned().into(),
                pod: "pod".to_owned().into(),
                labels,
                ports: ports.into(),
                ips,
                local: None,
                labels_known,
                service_account: account.map(Into::into),
                profiles: profiles.into_iter().map(Into::into).collect(),
            },
        )
        .boxed()
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp])
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
pub(crate) type Service = (u8, Option<u16>, Option<(u8, u8)>);

pub(crate) fn services() -> Vec<Service> {
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
