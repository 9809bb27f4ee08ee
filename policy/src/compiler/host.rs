//! Host endpoints of this node: which interface is whose, and the base chains that lead there.

use super::base::PRIORITY_RAW;
use super::options::Options;
use super::parts::{hook, rule};
use super::told::Told;
use crate::ir::{Direction, Place};
use crate::ruleset::{Chain, ChainType, CtState, Hook, Rule, Statement, Verdict};
use model::HostEndpoint;
use std::collections::{BTreeMap, BTreeSet};

/// `mangle` at [`Hook::Prerouting`]: after connection tracking, before destination NAT.
const PRIORITY_MANGLE: i32 = -150;
/// All interfaces of a host, in the manifest of a host endpoint.
const ALL_INTERFACES: &str = "*";
const LOOPBACK: &str = "lo";

/// Directions and places in which a host endpoint may have policies.
pub(super) const PLACES: [(Direction, Place); 7] = [
    (Direction::Ingress, Place::Untracked),
    (Direction::Egress, Place::Untracked),
    (Direction::Ingress, Place::PreDnat),
    (Direction::Ingress, Place::Host),
    (Direction::Egress, Place::Host),
    (Direction::Ingress, Place::HostForward),
    (Direction::Egress, Place::HostForward),
];

/// The chains of host endpoints.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct HostChains {
    /// Of interfaces that have a host endpoint of their own.
    by_interface: BTreeMap<String, Chains>,
    /// Of all other interfaces.
    others: Chains,
}

type Chains = BTreeMap<(Direction, Place), String>;

/// Host endpoints of this node by interface: those of one interface, and the one of all others.
/// Of several, the first by name is in charge.
#[derive(Debug, Default)]
pub(super) struct Owners<'a> {
    by_interface: BTreeMap<&'a str, &'a HostEndpoint>,
    others: Option<&'a HostEndpoint>,
}

impl<'a> Owners<'a> {
    pub(super) fn new(told: &'a Told, options: &Options) -> Self {
        let mut owners = Self::default();
        let endpoints = told.host_endpoints.values.values();
        for endpoint in endpoints.filter(|endpoint| endpoint.node == options.node) {
            match endpoint.interface_name.as_deref() {
                Some(ALL_INTERFACES) => drop(owners.others.get_or_insert(endpoint)),
                Some(name) => drop(owners.by_interface.entry(name).or_insert(endpoint)),
                None => {
                    let holds = |(_, addresses): &(_, &BTreeSet<_>)| {
                        endpoint
                            .expected_ips
                            .iter()
                            .any(|ip| addresses.contains(ip))
                    };
                    for (name, _) in told.host_interfaces.values.iter().filter(holds) {
                        owners.by_interface.entry(name).or_insert(endpoint);
                    }
                }
            }
        }
        owners
    }

    /// Those that are in charge of something.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = &'a HostEndpoint> {
        self.by_interface.values().copied().chain(self.others)
    }

    /// The chains, as `chain` knows those of an endpoint.
    pub(super) fn chains(
        &self,
        chain: impl Fn(&HostEndpoint, Direction, Place) -> Option<String>,
    ) -> HostChains {
        let of = |endpoint: &HostEndpoint| {
            let places = PLACES.into_iter();
            places
                .filter_map(|place| Some((place, chain(endpoint, place.0, place.1)?)))
                .collect::<Chains>()
        };
        let by_interface = self.by_interface.iter();
        HostChains {
            by_interface: by_interface
                .map(|(name, endpoint)| ((*name).to_owned(), of(endpoint)))
                .collect(),
            others: self.others.map(of).unwrap_or_default(),
        }
    }
}

impl HostChains {
    pub(super) fn names_interfaces(&self) -> bool {
        !self.by_interface.is_empty()
    }

    /// The rules of a base chain that lead to host endpoints' chains.
    pub(super) fn dispatch(&self, direction: Direction, place: Place) -> Vec<Rule> {
        let key = (direction, place);
        let mut rules = vec![];
        for (interface, chains) in &self.by_interface {
            if let Some(chain) = chains.get(&key) {
                let jump = Statement::Verdict(Verdict::Jump(chain.clone()));
                rules.push(rule([is(direction, interface), jump]));
            }
        }
        if self.others.contains_key(&key) {
            let jump = Verdict::Jump(others_name(key));
            rules.push(rule([Statement::Verdict(jump)]));
        }
        rules
    }

    /// The chains that only host endpoints need.
    pub(super) fn chains(&self, prefix: &str) -> BTreeMap<String, Chain> {
        let mut chains = BTreeMap::new();
        for (key, chain) in &self.others {
            chains.insert(others_name(*key), self.others_chain(*key, chain, prefix));
        }
        let known = rule([
            Statement::CtState(CtState::EstablishedOrRelated),
            Statement::Verdict(Verdict::Accept),
        ]);
        let (incoming, outgoing) = (Direction::Ingress, Direction::Egress);
        let bases = [
            (
                "host_raw_in",
                Hook::Prerouting,
                PRIORITY_RAW,
                incoming,
                Place::Untracked,
            ),
            (
                "host_raw_out",
                Hook::Output,
                PRIORITY_RAW,
                outgoing,
                Place::Untracked,
            ),
            (
                "host_pre_dnat",
                Hook::Prerouting,
                PRIORITY_MANGLE,
                incoming,
                Place::PreDnat,
            ),
        ];
        for (name, at, priority, direction, place) in bases {
            let dispatch = self.dispatch(direction, place);
            if dispatch.is_empty() {
                continue;
            }
            let tracked = (place == Place::PreDnat).then(|| known.clone());
            let chain = Chain {
                hook: Some(hook(at, ChainType::Filter, priority)),
                rules: tracked.into_iter().chain(dispatch).collect(),
            };
            chains.insert(name.to_owned(), chain);
        }
        chains
    }

    /// Neither pods nor the loopback interface nor those with a host endpoint of their own.
    fn others_chain(&self, key: (Direction, Place), chain: &str, prefix: &str) -> Chain {
        let prefix = prefix.to_owned();
        let negate = false;
        let of_pod = match key.0 {
            Direction::Ingress => Statement::IifnamePrefix { prefix, negate },
            Direction::Egress => Statement::OifnamePrefix { prefix, negate },
        };
        let own = self.by_interface.keys().map(String::as_str);
        let exempt = own.chain([LOOPBACK]).map(|name| is(key.0, name));
        let exempt = exempt.chain([of_pod]);
        let exempt = exempt.map(|one| rule([one, Statement::Verdict(Verdict::Return)]));
        let last = rule([Statement::Verdict(Verdict::Goto(chain.to_owned()))]);
        Chain {
            hook: None,
            rules: exempt.chain([last]).collect(),
        }
    }
}

fn is(direction: Direction, interface: &str) -> Statement {
    match direction {
        Direction::Ingress => Statement::Iifname(interface.to_owned()),
        Direction::Egress => Statement::Oifname(interface.to_owned()),
    }
}

fn others_name((direction, place): (Direction, Place)) -> String {
    let place = match place {
        Place::Untracked => "raw",
        Place::PreDnat => "dnat",
        Place::HostForward => "fwd",
        Place::Pod | Place::OwnNode | Place::Host => "local",
    };
    let direction = match direction {
        Direction::Ingress => "in",
        Direction::Egress => "out",
    };
    format!("host_any_{place}_{direction}")
}
