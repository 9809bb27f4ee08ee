//! Small generated clusters: alphabets are small, so that selectors, ports and addresses meet.

use ipnet::IpNet;
use model::{
    Labels, NamedPort, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule, PortMatch, Protocol,
    Selector,
};
use policy::program::{Connection, Interface, Outcome, Packet, run};
use policy::ruleset::stages;
use policy::{
    ApplyError, Compiler, Endpoint, EndpointId, Evaluator, Flow, NetworkSets, Options, Party,
    Policy, PolicyKey, PolicyKind, Ruleset,
};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseError;
use std::collections::BTreeMap;
use std::net::IpAddr;

const NAMESPACES: [&str; 3] = ["alpha", "beta", "gamma"];
const OUTSIDE: [&str; 4] = ["192.0.2.1", "10.0.200.1", "2001:db8::1", "fd00::200"];
const CIDRS: [&str; 10] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
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
const PORTS: [u16; 6] = [53, 80, 81, 443, 1500, 65535];

#[derive(Debug, Clone)]
pub(crate) enum Event {
    Namespace(&'static str, Option<Labels>),
    Policy(String, Box<Option<NetworkPolicy>>, &'static str),
    Endpoint(EndpointId, Option<Endpoint>),
    Network(NetworkSets),
}

/// What the events so far amount to.
#[derive(Debug, Default)]
pub(crate) struct State {
    namespaces: BTreeMap<&'static str, Labels>,
    policies: BTreeMap<(&'static str, String), NetworkPolicy>,
    endpoints: BTreeMap<EndpointId, Endpoint>,
    network: NetworkSets,
}

/// A compiler, and the table as its operations have made it.
pub(crate) struct History {
    pub(crate) compiler: Compiler,
    pub(crate) mirror: Ruleset,
    pub(crate) state: State,
}

impl Default for History {
    fn default() -> Self {
        let compiler = Compiler::new(Options::default());
        Self {
            compiler,
            mirror: Ruleset::default(),
            state: State::default(),
        }
    }
}

impl History {
    pub(crate) fn tell(&mut self, event: &Event) {
        self.state.tell_event(event);
        match event.clone() {
            Event::Namespace(name, labels) => self.compiler.set_namespace(name, labels),
            Event::Policy(name, policy, namespace) => self
                .compiler
                .set_policy(&key(namespace, &name), policy.map(Policy::from)),
            Event::Endpoint(id, endpoint) => self.compiler.set_endpoint(&id, endpoint),
            Event::Network(network) => self.compiler.set_network(network),
        }
    }

    pub(crate) fn resolve(&mut self) -> Result<(), ApplyError> {
        let ops = self.compiler.resolve();
        assert_eq!(stages(&ops), None, "a verdict is replaced");
        self.mirror.apply(&ops)
    }
}

impl State {
    pub(crate) fn after(events: &[Event]) -> Self {
        let mut state = Self::default();
        events.iter().for_each(|event| state.tell_event(event));
        state
    }

    fn tell_event(&mut self, event: &Event) {
        match event.clone() {
            Event::Namespace(name, labels) => put(&mut self.namespaces, name, labels),
            Event::Policy(name, policy, namespace) => {
                put(&mut self.policies, (namespace, name), *policy)
            }
            Event::Endpoint(id, endpoint) => put(&mut self.endpoints, id, endpoint),
            Event::Network(network) => self.network = network,
        }
    }

    /// Tells everything, in an order of its own.
    pub(crate) fn tell(&self, compiler: &mut Compiler) {
        for (id, endpoint) in self.endpoints.iter().rev() {
            compiler.set_endpoint(id, Some(endpoint.clone()));
        }
        for ((namespace, name), policy) in &self.policies {
            compiler.set_policy(&key(namespace, name), Some(Policy::from(policy.clone())));
        }
        for (name, labels) in self.namespaces.iter().rev() {
            compiler.set_namespace(name, Some(labels.clone()));
        }
        compiler.set_network(self.network.clone());
    }

    fn evaluator(&self) -> Evaluator {
        let mut evaluator = Evaluator::default();
        for (id, endpoint) in &self.endpoints {
            evaluator.set_endpoint(id, Some(endpoint.clone()));
        }
        for ((namespace, name), policy) in &self.policies {
            let policy = Policy::from(policy.clone());
            evaluator.set_policy(&key(namespace, name), Some(policy));
        }
        for (name, labels) in &self.namespaces {
            evaluator.set_namespace(name, Some(labels.clone()));
        }
        evaluator
    }

    /// Every new connection that this node could see.
    pub(crate) fn compare_verdicts(&self, ruleset: &Ruleset) -> Result<(), TestCaseError> {
        let evaluator = self.evaluator();
        let ends = self.ends();
        for (source, destination) in ends.iter().flat_map(|a| ends.iter().map(move |b| (a, b))) {
            let one_family = source.address.is_ipv4() == destination.address.is_ipv4();
            let forwarded = source.interface.is_some() || destination.interface.is_some();
            if !one_family || !forwarded || destination.is_forging(source) {
                continue;
            }
            for (protocol, destination_port) in services() {
                let (source, destination) = (source.clone(), destination.clone());
                let packet = packet(&source, &destination, protocol, destination_port);
                let (from, to) = (source.party, destination.party);
                let flow = Flow::new(from, to, protocol, destination_port);
                let decision = evaluator.verdict(&flow);
                let expected = (source.interface.is_none() || decision.egress.allows())
                    && (destination.interface.is_none() || decision.ingress.allows());
                let outcome = run(ruleset, &packet).unwrap();
                let accepted = matches!(outcome, Outcome::Accepted { .. });
                prop_assert_eq!(
                    accepted,
                    expected,
                    "{:?} {:?} {:?}",
                    flow,
                    decision,
                    outcome
                );
            }
        }
        Ok(())
    }

    fn ends(&self) -> Vec<End> {
        let mut ends = vec![];
        for (id, endpoint) in &self.endpoints {
            for address in endpoint.ips.iter().copied() {
                let party = match endpoint.local {
                    Some(_) => Party::Pod(id.clone(), address),
                    None => Party::Address(address),
                };
                ends.push(End {
                    party,
                    address,
                    interface: endpoint.local,
                    ips: endpoint.ips.clone(),
                });
            }
        }
        for address in OUTSIDE.map(|address| address.parse().unwrap()) {
            let party = Party::Address(address);
            ends.push(End {
                party,
                address,
                interface: None,
                ips: vec![address],
            });
        }
        ends
    }
}

fn key(namespace: &str, name: &str) -> PolicyKey {
    PolicyKey {
        name: name.to_owned(),
        namespace: Some(namespace.to_owned()),
        kind: PolicyKind::Kubernetes,
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

#[derive(Debug, Clone)]
struct End {
    party: Party,
    address: IpAddr,
    interface: Option<u32>,
    ips: Vec<IpAddr>,
}

impl End {
    /// From another node, with an address of this pod.
    fn is_forging(&self, source: &End) -> bool {
        source.interface.is_none() && self.ips.contains(&source.address)
    }
}

fn services() -> impl Iterator<Item = (u8, Option<u16>)> {
    let with_ports = [6, 17, 132]
        .into_iter()
        .flat_map(|p| PORTS.map(|port| (p, Some(port))));
    with_ports.chain([(1, None), (47, None)])
}

fn packet(source: &End, destination: &End, protocol: u8, port: Option<u16>) -> Packet {
    let interface = |end: &End| match end.interface {
        Some(index) => Interface {
            index,
            name: format!("oci{index}"),
        },
        None => Interface {
            index: 2,
            name: "eth0".to_owned(),
        },
    };
    Packet {
        iif: Some(interface(source)),
        oif: Some(interface(destination)),
        source: source.address,
        destination: destination.address,
        original_destination: None,
        protocol,
        ports: port.map(|port| (40_000, port)),
        icmp: None,
        connection: Connection::New,
        mark: 0,
    }
}

pub(crate) fn events() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(event(), 1..40)
}

fn event() -> impl Strategy<Value = Event> {
    let policy_name = select(vec!["p0", "p1", "p2"]).prop_map(str::to_owned);
    let policy = (policy_name, select(&NAMESPACES[..2]), mostly(policy())).prop_map(
        |(name, namespace, policy)| {
            let policy = policy.map(|policy| NetworkPolicy {
                namespace: namespace.to_owned(),
                name: name.clone(),
                ..policy
            });
            Event::Policy(name, Box::new(policy), namespace)
        },
    );
    let endpoint = (0_u32..8, mostly(endpoint())).prop_map(|(number, endpoint)| {
        let endpoint = endpoint.map(|e| Endpoint {
            local: (number < 4).then_some(100 + number),
            ..e
        });
        Event::Endpoint(EndpointId(format!("pod-{number}").into()), endpoint)
    });
    let namespace = (select(&NAMESPACES[..]), mostly(labels()));
    prop_oneof![
        2 => namespace.prop_map(|(name, labels)| Event::Namespace(name, labels)),
        4 => policy,
        6 => endpoint,
        1 => network().prop_map(Event::Network),
    ]
}

fn mostly<S: Strategy>(strategy: S) -> impl Strategy<Value = Option<S::Value>>
where
    S::Value: Clone,
{
    prop::option::weighted(0.85, strategy)
}

fn labels() -> impl Strategy<Value = Labels> {
    let label = (select(vec!["app", "tier"]), select(vec!["a", "b"]));
    prop::collection::vec(label, 0..3).prop_map(|all| {
        all.into_iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    })
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let port = (select(vec!["web", "dns"]), protocol(), select(&PORTS[..]));
    let port = port.prop_map(|(name, protocol, port)| NamedPort {
        name: name.to_owned(),
        protocol,
        port,
    });
    let addresses = (prop::option::of(1_u8..7), prop::option::of(1_u16..7));
    let ips = addresses.prop_map(|(v4, v6)| {
        let v4 = v4.map(|n| IpAddr::from([10, 0, 0, n]));
        let v6 = v6.map(|n| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n]));
        v4.into_iter().chain(v6).collect::<Vec<_>>()
    });
    let ports = prop::collection::vec(port, 0..3);
    (
        select(&NAMESPACES[..]),
        labels(),
        ports,
        ips,
        prop::bool::weighted(0.9),
    )
        .prop_map(|(namespace, labels, ports, ips, labels_known)| Endpoint {
            namespace: namespace.to_owned().into(),
            pod: "pod".to_owned().into(),
            labels,
            ports: ports.into(),
            ips,
            local: None,
            labels_known,
            service_account: None,
            profiles: vec![].into(),
        })
}

fn selector() -> impl Strategy<Value = Selector> {
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
        .prop_map(|n| Selector::Eq("kubernetes.io/metadata.name".to_owned(), n.to_owned()));
    prop_oneof![
        3 => Just(Selector::All),
        5 => term.clone(),
        1 => named,
        1 => prop::collection::vec(term, 0..3).prop_map(Selector::And),
    ]
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp])
}

fn policy() -> impl Strategy<Value = NetworkPolicy> {
    let rules = || prop::option::weighted(0.6, prop::collection::vec(rule(), 0..4));
    (selector(), rules(), rules()).prop_map(|(pod_selector, ingress, egress)| NetworkPolicy {
        namespace: String::new(),
        name: String::new(),
        pod_selector,
        ingress,
        egress,
    })
}

fn rule() -> impl Strategy<Value = PolicyRule> {
    let peers = prop::option::weighted(0.8, prop::collection::vec(peer(), 0..3));
    let ports = prop::option::weighted(0.7, prop::collection::vec(port(), 0..5));
    (peers, ports).prop_map(|(peers, ports)| PolicyRule { peers, ports })
}

fn peer() -> impl Strategy<Value = PolicyPeer> {
    let pods = (prop::option::of(selector()), selector());
    let cidr = || select(&CIDRS[..]).prop_map(|text| text.parse::<IpNet>().unwrap());
    let block = (cidr(), prop::collection::vec(cidr(), 0..3));
    prop_oneof![
        pods.prop_map(|(namespaces, pods)| PolicyPeer::Pods { namespaces, pods }),
        block.prop_map(|(cidr, except)| PolicyPeer::IpBlock { cidr, except }),
    ]
}

fn port() -> impl Strategy<Value = PolicyPort> {
    let range = select(vec![
        (80, 80),
        (80, 81),
        (53, 443),
        (443, 443),
        (1000, 2000),
        (1, 65535),
        (65535, 65535),
    ]);
    let port = prop_oneof![
        1 => Just(PortMatch::Any),
        3 => range.prop_map(|(first, last)| PortMatch::Range(first, last)),
        2 => select(vec!["web", "dns", "none"]).prop_map(|n| PortMatch::Named(n.to_owned())),
    ];
    (protocol(), port).prop_map(|(protocol, port)| PolicyPort { protocol, port })
}

fn network() -> impl Strategy<Value = NetworkSets> {
    let cidrs = || prop::collection::btree_set(select(&CIDRS[..]), 0..3);
    let peers = prop::collection::btree_set(1_u8..4, 0..3);
    let local = prop::option::of(1_u8..4);
    let all = (cidrs(), cidrs(), peers, local);
    all.prop_map(|(masquerade, pools, peers, local)| NetworkSets {
        masquerade: masquerade
            .into_iter()
            .map(|text| text.parse().unwrap())
            .collect(),
        pools: pools
            .into_iter()
            .map(|text| text.parse().unwrap())
            .collect(),
        ipip_peers: peers.into_iter().map(|n| [192, 0, 2, n].into()).collect(),
        ipip_local: local.map(|n| [192, 0, 2, n].into()),
        ..NetworkSets::default()
    })
}
