//! Ports of the node that lead to pods (`hostPort`).
//!
//! A verdict map leads from protocol and port, with or without an address of the node, to a chain
//! that translates the destination: one look-up per new connection, whatever the number of ports.
//! Packets that go back out of the interface they came from (a pod that speaks to itself by its
//! node's address), and those from the node's IPv4 loopback addresses, get an address of the node
//! as source, or their answers would not come back. Nothing of this is in the table while no pod
//! has a port.

use super::base::LOCAL;
use super::parts::{self, FAMILIES, daddr, lookup, rule, saddr};
use super::sets::Sets;
use crate::hash::content_name;
use crate::intervals::{self, Ranges};
use crate::ruleset::changes::Changes;
use crate::ruleset::{
    BaseHook, Chain, ChainType, Element, Family, Field, Hook, KeyType, Part, Ruleset, Statement,
    Verdict,
};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Protocol and port of any address of the node -> chain, of each family.
const ANY: [&str; 2] = ["hp4", "hp6"];
/// Address, protocol and port -> chain, of each family.
const ONE: [&str; 2] = ["hpa4", "hpa6"];

const INCOMING: &str = "hostport_in";
const OUTGOING: &str = "hostport_out";
const RETURN: &str = "hostport_snat";
const GUARD: &str = "hostport_guard";
const BASES: [&str; 4] = [INCOMING, OUTGOING, RETURN, GUARD];
const LOOPBACK: &str = "loopback";

/// `filter` at [`Hook::Prerouting`], before connection tracking.
const PRIORITY_RAW: i32 = -300;
const PRIORITY_DSTNAT: i32 = -100;
const PRIORITY_SRCNAT: i32 = 100;

/// A port of the node that leads to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// The node's address; the unspecified one of a family is any address of the node.
    pub address: IpAddr,
    /// L4 protocol number of a protocol with ports.
    pub protocol: u8,
    /// The port.
    pub port: u16,
}

#[derive(Debug, Default)]
pub(super) struct HostPorts {
    told: BTreeMap<HostPort, SocketAddr>,
    /// As in the table.
    compiled: BTreeMap<HostPort, SocketAddr>,
}

impl HostPorts {
    pub(super) fn set(&mut self, told: BTreeMap<HostPort, SocketAddr>) {
        self.told = told;
    }

    /// Puts what differs into maps and chains. Returns whether there are ports for the first time,
    /// or none any more.
    pub(super) fn settle(&mut self, sets: &mut Sets, changes: &mut Changes) -> bool {
        if self.told == self.compiled {
            return false;
        }
        let (had_none, has_none) = (self.compiled.is_empty(), self.told.is_empty());
        if had_none {
            declare(sets);
        }
        let old = std::mem::replace(&mut self.compiled, self.told.clone());
        for (key, target) in &self.told {
            if old.get(key) != Some(target) {
                assign(
                    sets,
                    key,
                    Some(Verdict::Goto(chain_name(key.protocol, target))),
                );
            }
        }
        for key in old.keys().filter(|key| !self.told.contains_key(key)) {
            assign(sets, key, None);
        }
        if has_none {
            [ANY, ONE]
                .as_flattened()
                .iter()
                .for_each(|name| sets.forget(name));
        }
        let (old, new) = (targets(&old), targets(&self.told));
        for (protocol, target) in new.difference(&old) {
            let chain = translation(*protocol, target);
            changes
                .chains
                .insert(chain_name(*protocol, target), Some(chain));
        }
        for (protocol, target) in old.difference(&new) {
            changes.chains.insert(chain_name(*protocol, target), None);
        }
        had_none != has_none
    }

    /// True where a set of this base name is looked up by [`Self::render`].
    pub(super) fn looks_up(&self, base: &str) -> bool {
        let ours = [ANY, ONE, LOCAL];
        !self.compiled.is_empty() && ours.as_flattened().contains(&base)
    }

    /// The base chains, given the names that the sets have.
    pub(super) fn render(&self, prefix: &str, sets: &Sets, from: &Ruleset, changes: &mut Changes) {
        let loopback = FAMILIES.map(|family| (family, loopback(family)));
        if self.compiled.is_empty() {
            for name in BASES.iter().filter(|name| from.chains.contains_key(**name)) {
                changes.chains.insert((*name).to_owned(), None);
            }
            let there = loopback.into_iter().map(|(_, (name, _))| name);
            changes
                .gone_sets
                .extend(there.filter(|name| from.sets.contains_key(name)));
            return;
        }
        let translate = translate(sets);
        let chains = [
            (
                INCOMING,
                Hook::Prerouting,
                ChainType::Nat,
                PRIORITY_DSTNAT,
                translate.clone(),
            ),
            (
                OUTGOING,
                Hook::Output,
                ChainType::Nat,
                PRIORITY_DSTNAT,
                translate,
            ),
            (
                RETURN,
                Hook::Postrouting,
                ChainType::Nat,
                PRIORITY_SRCNAT,
                back(prefix, sets),
            ),
            (
                GUARD,
                Hook::Prerouting,
                ChainType::Filter,
                PRIORITY_RAW,
                guard(prefix),
            ),
        ];
        for (name, hook, chain_type, priority, rules) in chains {
            let rules = rules.into_iter().map(rule).collect();
            let hook = Some(BaseHook {
                hook,
                chain_type,
                priority,
            });
            let chain = Chain { hook, rules };
            if from.chains.get(name) != Some(&chain) {
                changes.chains.insert(name.to_owned(), Some(chain));
            }
        }
        for (family, (name, ranges)) in loopback {
            if !from.sets.contains_key(&name) {
                let set = parts::interval_set(family, &ranges);
                changes.new_sets.insert(name, set);
            }
        }
    }
}

fn declare(sets: &mut Sets) {
    for (at, family) in FAMILIES.into_iter().enumerate() {
        let address = daddr(family).key_type();
        sets.declare(ANY[at], &[KeyType::Proto, KeyType::Port], true);
        sets.declare(ONE[at], &[address, KeyType::Proto, KeyType::Port], true);
    }
}

fn assign(sets: &mut Sets, key: &HostPort, verdict: Option<Verdict>) {
    let family = usize::from(key.address.is_ipv6());
    let port = [Part::Proto(key.protocol), Part::Port(key.port)];
    if key.address.is_unspecified() {
        sets.assign(ANY[family], Element::exact(&port), verdict);
    } else {
        let [protocol, port] = port;
        let element = Element::exact(&[Part::Address(key.address), protocol, port]);
        sets.assign(ONE[family], element, verdict);
    }
}

fn targets(ports: &BTreeMap<HostPort, SocketAddr>) -> BTreeSet<(u8, SocketAddr)> {
    let target = |(key, target): (&HostPort, &SocketAddr)| (key.protocol, *target);
    ports.iter().map(target).collect()
}

fn chain_name(protocol: u8, target: &SocketAddr) -> String {
    let content = (protocol, target.ip(), target.port());
    format!("hp_{}", content_name(&content))
}

/// Chain that leads to one port of a pod.
fn translation(protocol: u8, target: &SocketAddr) -> Chain {
    let statements = [
        Statement::Family(intervals::family_of(target.ip())),
        Statement::L4Proto(protocol),
        Statement::Dnat {
            address: target.ip(),
            port: target.port(),
        },
    ];
    Chain {
        hook: None,
        rules: vec![rule(statements)],
    }
}

/// What is sent to the node itself goes where its port leads; a port of one address before that of
/// any. The kernel has no way back to the IPv6 loopback address: it keeps its ports.
fn translate(sets: &Sets) -> Vec<Vec<Statement>> {
    let mut rules = vec![];
    for (at, family) in FAMILIES.into_iter().enumerate() {
        let port = [Field::L4Proto, Field::Dport];
        let one = [&[daddr(family)][..], &port].concat();
        for (fields, map) in [(one, ONE[at]), (port.to_vec(), ANY[at])] {
            let mut rule = vec![Statement::Family(family), Statement::LocalDestination];
            if family == Family::Ipv6 {
                rule.push(lookup(&[daddr(family)], loopback(family).0, true));
            }
            let map = sets.name(map);
            rule.push(Statement::VerdictMap { fields, map });
            rules.push(rule);
        }
    }
    rules
}

/// A pod that speaks to itself, and the node's IPv4 loopback addresses.
fn back(prefix: &str, sets: &Sets) -> Vec<Vec<Statement>> {
    let mut rules = vec![];
    for (at, family) in FAMILIES.into_iter().enumerate() {
        let own = lookup(&[Field::Oif, saddr(family)], sets.name(LOCAL[at]), false);
        rules.push(vec![Statement::Family(family), own, Statement::Masquerade]);
    }
    let to_pod = Statement::OifnamePrefix {
        prefix: prefix.to_owned(),
        negate: false,
    };
    let (name, _) = loopback(Family::Ipv4);
    rules.push(vec![
        Statement::Family(Family::Ipv4),
        to_pod,
        lookup(&[Field::Ipv4Saddr], name, false),
        Statement::Masquerade,
    ]);
    rules
}

/// Answers to the node's loopback addresses need `route_localnet` on the pods' links, with which
/// the kernel takes packets to them from there; pods get at these addresses no more than before.
fn guard(prefix: &str) -> Vec<Vec<Statement>> {
    let from_pod = Statement::IifnamePrefix {
        prefix: prefix.to_owned(),
        negate: false,
    };
    let (name, _) = loopback(Family::Ipv4);
    vec![vec![
        from_pod,
        Statement::Family(Family::Ipv4),
        lookup(&[Field::Ipv4Daddr], name, false),
        Statement::Counter,
        Statement::Verdict(Verdict::Drop),
    ]]
}

/// Name and content of the set of a family's loopback addresses.
fn loopback(family: Family) -> (String, Ranges) {
    let (net, digit) = match family {
        Family::Ipv4 => (
            IpNet::new_assert(Ipv4Addr::new(127, 0, 0, 0).into(), 8),
            '4',
        ),
        Family::Ipv6 => (IpNet::from(IpAddr::V6(Ipv6Addr::LOCALHOST)), '6'),
    };
    let ranges = Ranges::union([intervals::prefix_range(&net)]);
    let name = format!("{LOOPBACK}{digit}_{}", content_name(&ranges));
    (name, ranges)
}
