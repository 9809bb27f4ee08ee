//! One node with the links of four pods and the world behind `eth0`, where the other pods are too.

use crate::generate::{Change, services};
use anyhow::Result;
use integration::lab::{Lab, Netns, Volley};
use integration::packet::{First, GRE};
use kernel::{Conntrack, Kernel};
use policy::program::{Connection, Interface, Outcome, Packet, Program};
use policy::ruleset::Op;
use policy::{Endpoint, EndpointId, Evaluator, Flow, Party, Ruleset};
use proptest::test_runner::TestCaseError;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Pods here.
pub(crate) const LOCAL: usize = 4;
/// Pods anywhere.
const PODS: usize = 8;
/// Interface index of the first pod's link.
pub(crate) const FIRST_INDEX: u32 = 100;
const ETH0: u32 = 50;
/// Addresses of the node itself, and of the world: all that policies speak of besides pods.
const NODE: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
const OUTSIDE: [&str; 4] = ["192.0.2.1", "10.0.200.1", "2001:db8::1", "fd00::200"];
/// Source ports lie between two of the ports that policies speak of, so that all mean the same.
const FIRST_SOURCE_PORT: u16 = 1001;
const SOURCE_PORTS: u16 = 499;

/// Fields are dropped in this order: the lab goes last.
pub(crate) struct Stage {
    volley: Volley,
    kernel: Kernel,
    conntrack: Conntrack,
    pub(crate) counted: Counted,
    _node: Netns,
    _lab: Lab,
}

/// What has been compared.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counted {
    pub(crate) policy_sets: usize,
    pub(crate) packets: usize,
    pub(crate) arrived: usize,
}

/// One end of a connection.
#[derive(Debug, Clone)]
struct End {
    address: IpAddr,
    party: Party,
    /// Place among the namespaces: pods, the world, the node.
    space: usize,
    at: At,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// A pod here.
    Pod,
    /// Nobody told of what speaks here.
    Unknown,
    World,
    Node,
}

const WORLD: usize = LOCAL;
const OWN_NODE: usize = LOCAL + 1;

pub(crate) fn v4(number: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, number as u8 + 1])
}

pub(crate) fn v6(number: usize) -> IpAddr {
    IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, number as u16 + 1])
}

impl Stage {
    pub(crate) fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let node = lab.netns("node")?;
        let mut spaces = vec![];
        for number in 0..LOCAL {
            let pod = lab.netns(&format!("pod{number}"))?;
            let interface = format!("oci{}", FIRST_INDEX + number as u32);
            let addresses = [v4(number), v6(number)];
            link(
                &node,
                &pod,
                &interface,
                number,
                FIRST_INDEX + number as u32,
                &addresses,
            )?;
            spaces.push(pod);
        }
        let world = lab.netns("world")?;
        let mut addresses = vec![];
        for text in OUTSIDE {
            addresses.push(text.parse()?);
        }
        addresses.extend((LOCAL..PODS).flat_map(|number| [v4(number), v6(number)]));
        link(&node, &world, "eth0", WORLD, ETH0, &addresses)?;
        for address in NODE {
            node.ip([format!("address add {address} dev lo")])?;
        }
        for sysctl in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            node.set_sysctl(sysctl, "1")?;
        }
        spaces.push(world);
        spaces.push(node.clone());
        // Answers would make connections of what is asked once.
        for space in &spaces {
            space.run(&["nft", "add table inet mute; \
                add chain inet mute out { type filter hook output priority 0; }; \
                add rule inet mute out tcp flags & rst == rst drop; \
                add rule inet mute out icmp type { echo-reply, timestamp-reply, destination-unreachable } drop; \
                add rule inet mute out icmpv6 type { echo-reply, destination-unreachable } drop"])?;
        }
        let volley = Volley::new(&lab, &spaces.iter().collect::<Vec<_>>())?;
        let kernel = node.within(Kernel::open)??;
        let conntrack = node.within(Conntrack::open)??;
        Ok(Self {
            volley,
            kernel,
            conntrack,
            counted: Counted::default(),
            _node: node,
            _lab: lab,
        })
    }

    /// An empty table.
    pub(crate) fn clear(&mut self) -> Result<(), TestCaseError> {
        self.kernel
            .nft_replace(&Ruleset::default())
            .map_err(failure)
    }

    pub(crate) fn apply(&mut self, ops: &[Op]) -> Result<(), TestCaseError> {
        self.kernel.nft_commit(ops).map_err(failure)
    }

    pub(crate) fn dump(&mut self) -> Result<Ruleset, TestCaseError> {
        let table = self.kernel.nft_read().map_err(failure)?;
        table.ok_or_else(|| TestCaseError::fail("there is no table"))
    }

    /// Every connection between pods here and everybody, by packets and in the interpreter.
    pub(crate) fn compare(
        &mut self,
        changes: &[Change],
        evaluator: &Evaluator,
        table: &Ruleset,
    ) -> Result<(), TestCaseError> {
        let ends = ends(changes);
        let program = Program::new(table);
        let mut shots = vec![];
        let mut expected = vec![];
        for source in &ends {
            for destination in &ends {
                if !is_of_interest(source, destination) {
                    continue;
                }
                for service in services() {
                    // A message about a connection that there is not is invalid to the kernel.
                    let impossible = service.2 == Some((3, 1));
                    // What has no ports is one connection in both directions.
                    let again = service.0 == GRE && source.address > destination.address;
                    let other_family = match service.0 {
                        integration::packet::ICMP => source.address.is_ipv6(),
                        integration::packet::ICMPV6 => source.address.is_ipv4(),
                        _ => false,
                    };
                    if impossible || again || other_family {
                        continue;
                    }
                    let number = shots.len();
                    let (first, flow) = connection(source, destination, service, number);
                    let verdict = expectation(evaluator, source, destination, &flow);
                    let ran = program
                        .run(&packet(source, destination, &flow))
                        .map_err(failure)?;
                    let accepted = matches!(ran, Outcome::Accepted { .. });
                    if accepted != verdict {
                        let decision = evaluator.verdict(&flow);
                        return Err(TestCaseError::fail(format!(
                            "interpreter {ran:?}\nevaluator {decision:?}\n{flow:?}"
                        )));
                    }
                    expected.push((verdict.then_some(destination.space), flow));
                    shots.push((source.space, first));
                }
            }
        }
        self.forget()?;
        let arrived = self.volley.fire(&shots).map_err(failure)?;
        self.counted.policy_sets += 1;
        self.counted.packets += arrived.len();
        self.counted.arrived += arrived.iter().flatten().count();
        for (arrived, (expected, flow)) in arrived.into_iter().zip(&expected) {
            if arrived != *expected {
                let decision = evaluator.verdict(flow);
                return Err(TestCaseError::fail(format!(
                    "arrived at {arrived:?} instead of {expected:?}\nevaluator {decision:?}\n{flow:?}"
                )));
            }
        }
        Ok(())
    }

    /// Every connection is to be a new one.
    fn forget(&mut self) -> Result<(), TestCaseError> {
        let all = self.conntrack.connections(|_| true).map_err(failure)?;
        let refused = self.conntrack.delete(&all);
        match refused.first() {
            None => Ok(()),
            Some(error) => Err(TestCaseError::fail(error.to_string())),
        }
    }
}

fn failure(error: impl std::fmt::Display) -> TestCaseError {
    TestCaseError::fail(format!("{error:#}"))
}

/// A wire with permanent neighbours at both ends: no packet waits for an answer to another.
fn link(
    node: &Netns,
    other: &Netns,
    interface: &str,
    number: usize,
    index: u32,
    addresses: &[IpAddr],
) -> Result<()> {
    let (near, far) = (
        format!("02:00:00:00:01:{number:02x}"),
        format!("02:00:00:00:02:{number:02x}"),
    );
    node.ip([
        format!(
            "link add {interface} index {index} address {near} type veth peer name eth0 address {far} netns {}",
            other.full_name()
        ),
        format!("link set {interface} up"),
    ])?;
    other.ip([
        "link set eth0 up".to_owned(),
        "address add 169.254.1.2/30 dev eth0".to_owned(),
        "address add fe80::2/64 dev eth0 nodad".to_owned(),
        format!("neigh replace 169.254.1.1 lladdr {near} dev eth0 nud permanent"),
        format!("neigh replace fe80::1 lladdr {near} dev eth0 nud permanent"),
        "route add default via 169.254.1.1 dev eth0".to_owned(),
        "route add default via fe80::1 dev eth0".to_owned(),
    ])?;
    for address in addresses {
        other.ip([format!(
            "address add {address} dev lo{}",
            if address.is_ipv6() { " nodad" } else { "" }
        )])?;
        node.ip([
            format!("route replace {address} dev {interface}"),
            format!("neigh replace {address} lladdr {far} dev {interface} nud permanent"),
        ])?;
    }
    Ok(())
}

/// Everybody, given what was told.
fn ends(changes: &[Change]) -> Vec<End> {
    let mut pods: BTreeMap<IpAddr, (&EndpointId, &Endpoint)> = BTreeMap::new();
    for change in changes {
        if let Change::Endpoint(id, told) = change {
            pods.retain(|_, (other, _)| *other != id);
            for address in told.iter().flat_map(|endpoint| &endpoint.ips) {
                pods.insert(*address, (id, told.as_ref().unwrap()));
            }
        }
    }
    let mut ends = vec![];
    for number in 0..PODS {
        for address in [v4(number), v6(number)] {
            let (space, at, party) = match (number < LOCAL, pods.get(&address)) {
                (true, Some((id, _))) => (number, At::Pod, Party::Pod((*id).clone(), address)),
                (true, None) => (number, At::Unknown, Party::Address(address)),
                (false, _) => (WORLD, At::World, Party::Address(address)),
            };
            ends.push(End {
                address,
                party,
                space,
                at,
            });
        }
    }
    for (text, space, at) in OUTSIDE
        .map(|text| (text, WORLD, At::World))
        .into_iter()
        .chain(NODE.map(|text| (text, OWN_NODE, At::Node)))
    {
        let address: IpAddr = text.parse().unwrap();
        let party = match at {
            At::Node => Party::OwnNode(address),
            _ => Party::Address(address),
        };
        ends.push(End {
            address,
            party,
            space,
            at,
        });
    }
    ends
}

fn is_of_interest(source: &End, destination: &End) -> bool {
    let here = |end: &End| matches!(end.at, At::Pod | At::Unknown);
    source.address.is_ipv4() == destination.address.is_ipv4()
        && source.space != destination.space
        && (here(source) || here(destination))
        // What a node sends to whom it does not know is nobody's business.
        && (source.at, destination.at) != (At::Node, At::Unknown)
}

fn connection(
    source: &End,
    destination: &End,
    (protocol, port, icmp): crate::generate::Service,
    number: usize,
) -> (First, Flow) {
    let source_port = FIRST_SOURCE_PORT + number as u16 % SOURCE_PORTS;
    let first = First {
        source: source.address,
        destination: destination.address,
        protocol,
        ports: (source_port, port.unwrap_or_default()),
        icmp: icmp.unwrap_or_default(),
        number: 1,
    };
    let (from, to) = (source.party.clone(), destination.party.clone());
    let flow = Flow {
        source_port: port.map(|_| source_port),
        icmp,
        ..Flow::new(from, to, protocol, port)
    };
    (first, flow)
}

/// An interface of ours without an endpoint forwards nothing; policies of host endpoints are not
/// in force on this node, which has no name.
fn expectation(evaluator: &Evaluator, source: &End, destination: &End, flow: &Flow) -> bool {
    if source.at == At::Unknown || destination.at == At::Unknown {
        return false;
    }
    let decision = evaluator.verdict(flow);
    (source.at != At::Pod || decision.egress.allows())
        && (destination.at != At::Pod || decision.ingress.allows())
}

fn packet(source: &End, destination: &End, flow: &Flow) -> Packet {
    let interface = |end: &End| match end.at {
        At::Node => None,
        At::World => Some(Interface {
            index: ETH0,
            name: "eth0".to_owned(),
        }),
        At::Pod | At::Unknown => {
            let index = FIRST_INDEX + end.space as u32;
            let name = format!("oci{index}");
            Some(Interface { index, name })
        }
    };
    Packet {
        iif: interface(source),
        oif: interface(destination),
        source: source.address,
        destination: destination.address,
        original_destination: None,
        protocol: flow.protocol,
        ports: flow.source_port.zip(flow.destination_port),
        icmp: flow.icmp,
        connection: Connection::New,
        mark: 0,
    }
}
