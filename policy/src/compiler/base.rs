//! The chains that every node has: they give pods their own addresses only, send the packets of
//! isolated pods to the chains of their policies, and masquerade.

mod loops;
mod nat;

use super::behind::{BEHIND, Behind};
use super::dns;
use super::host::HostChains;
use super::parts::{FAMILIES, accept, daddr, drop_rule, hook, interval_set, lookup, rule, saddr};
use super::sets::Sets;
use super::{NetworkSets, Options};
use crate::hash::content_name;
use crate::intervals;
use crate::ir::{Direction, Place};
use crate::ruleset::{
    Chain, ChainType, CtState, Family, Field, Hook, KeyType, Rule, Set, Statement, Verdict,
};
use ipnet::IpNet;
use model::names;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// `(interface, address)` of every local pod: who may speak, and to whom to forward.
pub(super) const LOCAL: [&str; 2] = ["local4", "local6"];
/// Interface of an isolated local pod -> chain of its egress policies.
pub(super) const EGRESS: &str = "eg";
/// Interface of an isolated local pod -> chain of its ingress policies.
pub(super) const INGRESS: &str = "ing";
/// Interface of a local pod -> chain of its policies for what it sends to this node.
pub(super) const OWN_NODE: &str = "own";
/// Who may send us IP in IP.
pub(super) const IPIP: [&str; 2] = ["ipip", "ipip6"];
/// Who may send us VXLAN.
pub(super) const VXLAN: [&str; 2] = ["vxlan4", "vxlan6"];

/// The chain of connections that policy does not allow any more.
const REVOKED: &str = "revoked";
const SOURCES: &str = "masq";
const POOLS: &str = "pools";
const TUNNEL: &str = "tunnel";
const SERVICES: &str = "services";

/// IPv4 in IPv4 (RFC 2003).
const IPPROTO_IPIP: u8 = 4;
/// IPv6 in IPv6 (RFC 2473).
const IPPROTO_IPV6: u8 = 41;
const IPPROTO_UDP: u8 = 17;
const IPPROTO_TCP: u8 = 6;

/// Family of the outer header, its protocol, and who may send it.
const IP_IN_IP: [(Family, u8, &str); 3] = [
    (Family::Ipv4, IPPROTO_IPIP, IPIP[0]),
    (Family::Ipv6, IPPROTO_IPIP, IPIP[1]),
    (Family::Ipv6, IPPROTO_IPV6, IPIP[1]),
];

/// `filter` at [`Hook::Prerouting`], before connection tracking.
pub(super) const PRIORITY_RAW: i32 = -300;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SRCNAT: i32 = 100;

/// Declares the sets that the chains look up.
pub(super) fn declare(sets: &mut Sets) {
    for (at, family) in FAMILIES.into_iter().enumerate() {
        let address = saddr(family).key_type();
        sets.declare(LOCAL[at], &[KeyType::Ifindex, address], false);
    }
    sets.declare(EGRESS, &[KeyType::Ifindex], true);
    sets.declare(INGRESS, &[KeyType::Ifindex], true);
    sets.declare(OWN_NODE, &[KeyType::Ifindex], true);
    sets.declare(IPIP[0], &[KeyType::Ipv4], false);
    sets.declare(IPIP[1], &[KeyType::Ipv6], false);
    sets.declare(VXLAN[0], &[KeyType::Ipv4], false);
    sets.declare(VXLAN[1], &[KeyType::Ipv6], false);
}

/// True for the base name of a counted set that these chains, or all chains, look up.
pub(super) fn is_base(base: &str) -> bool {
    LOCAL.contains(&base)
        || VXLAN.contains(&base)
        || IPIP.contains(&base)
        || [EGRESS, INGRESS, OWN_NODE].contains(&base)
}

/// True for the name of a set that belongs to these chains and has one content for ever.
pub(super) fn is_own_set(name: &str) -> bool {
    // A hash may begin like any word, but has no underscore so early.
    let named = name.split_once('_').is_some_and(|(word, _)| {
        let word = word.trim_end_matches(['4', '6']);
        [SOURCES, POOLS, TUNNEL, SERVICES, BEHIND].contains(&word)
    });
    named || dns::is_own_set(name)
}

/// What the chains are made of.
pub(super) struct Base<'a> {
    pub(super) options: &'a Options,
    pub(super) network: &'a NetworkSets,
    /// Networks behind pods, by the pod's interface.
    pub(super) behind: &'a BTreeSet<(u32, IpNet)>,
    pub(super) sets: &'a Sets,
    /// Pods have policies for what they send to this node.
    pub(super) own_node: bool,
    /// Policies of local pods speak of names.
    pub(super) names: bool,
    pub(super) hosts: &'a HostChains,
}

impl Base<'_> {
    /// The chains, and the sets that belong to these chains only.
    pub(super) fn chains(&self) -> (BTreeMap<String, Chain>, BTreeMap<String, Set>) {
        let (rules, mut own_sets) = nat::masquerade(self.network);
        let mut chains = self.hosts.chains(&self.options.interface_prefix);
        let behind = Behind::new(self.behind);
        chains.insert(
            "spoof".to_owned(),
            spoof(&self.options.interface_prefix, self.sets, &behind),
        );
        if self.options.revoked_mark.is_some() {
            chains.insert(REVOKED.to_owned(), revoked());
        }
        chains.insert("forward".to_owned(), self.forward(&behind));
        own_sets.extend(behind.into_sets());
        if let Some((chain, sets)) = loops::unused_services(self.network) {
            chains.insert(SERVICES.to_owned(), chain);
            own_sets.extend(sets);
        }
        chains.insert("input".to_owned(), self.input(&mut own_sets));
        if let Some(output) = self.output() {
            chains.insert("output".to_owned(), output);
        }
        if !rules.is_empty() {
            let hook = hook(Hook::Postrouting, ChainType::Nat, PRIORITY_SRCNAT);
            chains.insert(
                "postrouting".to_owned(),
                Chain {
                    hook: Some(hook),
                    rules,
                },
            );
        }
        if let Some(group) = self.options.dns_log.filter(|_| self.names) {
            let (watch, servers) = {
                let options = self.options;
                dns::chains(&options.interface_prefix, group, options.dns_queue)
            };
            chains.extend(watch);
            own_sets.extend(servers);
        }
        (chains, own_sets)
    }
}

/// Pods speak with their own addresses only, and routers among them for what is behind them. Neighbour discovery also from link-local ones, but
/// neither router advertisements nor redirects: those are for routers to send.
fn spoof(prefix: &str, sets: &Sets, behind: &Behind) -> Chain {
    let of_others = Statement::IifnamePrefix {
        prefix: prefix.to_owned(),
        negate: true,
    };
    let own = |at: usize, family| {
        let own = lookup(&[Field::Iif, saddr(family)], sets.name(LOCAL[at]), false);
        accept([Statement::Family(family), own])
    };
    let discovery = |first, last| {
        accept([
            Statement::Family(Family::Ipv6),
            Statement::Ipv6LinkLocalSource,
            Statement::Icmpv6Type { first, last },
        ])
    };
    let mut rules = vec![accept([of_others])];
    rules.extend(
        FAMILIES
            .into_iter()
            .enumerate()
            .map(|(at, family)| own(at, family)),
    );
    rules.extend(FAMILIES.into_iter().filter_map(|family| {
        let network = behind.lookup([Field::Iif, saddr(family)], family, false)?;
        Some(accept([Statement::Family(family), network]))
    }));
    rules.extend([discovery(133, 133), discovery(135, 136), drop_rule([])]);
    let hook = hook(Hook::Prerouting, ChainType::Filter, PRIORITY_RAW);
    Chain {
        hook: Some(hook),
        rules,
    }
}

/// The end of connections that policy does not allow any more.
fn revoked() -> Chain {
    let reset = rule([
        Statement::L4Proto(IPPROTO_TCP),
        Statement::Counter,
        Statement::RejectTcpReset,
    ]);
    Chain {
        hook: None,
        rules: vec![reset, drop_rule([])],
    }
}

impl Base<'_> {
    /// Sends packets that match, of connections that policy does not allow any more, where they
    /// end: one look for all the others.
    fn revoked(&self, matching: &[Statement]) -> Option<Rule> {
        let marked = Statement::CtMarkBits(self.options.revoked_mark?);
        let end = Statement::Verdict(Verdict::Goto(REVOKED.to_owned()));
        Some(rule(matching.iter().cloned().chain([marked, end])))
    }

    /// Marks what goes into a VXLAN.
    fn spread(&self) -> Vec<Rule> {
        let devices = [names::VXLAN_DEVICE, names::VXLAN6_DEVICE];
        let mark = |bits| {
            devices.map(|device| {
                rule([
                    Statement::Oifname(device.to_owned()),
                    Statement::SetMarkBits(bits),
                ])
            })
        };
        self.network
            .spread
            .map(mark)
            .into_iter()
            .flatten()
            .collect()
    }

    /// Only packets from or to pods, and through host endpoints, are ever dropped here: what else
    /// this host forwards is none of our business.
    fn forward(&self, behind: &Behind) -> Chain {
        let mut rules = self.spread();
        let clamp = self.options.clamp_mss.then(|| rule([Statement::ClampMss]));
        rules.extend(clamp);
        rules.extend(self.revoked(&[]));
        rules.extend(forward(self.options, self.sets, behind));
        rules.extend(self.hosts.dispatch(Direction::Ingress, Place::HostForward));
        for (field, map) in [(Field::Iif, EGRESS), (Field::Oif, INGRESS)] {
            rules.push(rule([Statement::VerdictMap {
                fields: vec![field],
                map: self.sets.name(map),
            }]));
        }
        rules.extend(self.hosts.dispatch(Direction::Egress, Place::HostForward));
        Chain {
            hook: Some(hook(Hook::Forward, ChainType::Filter, PRIORITY_FILTER)),
            rules,
        }
    }

    /// Packets for our tunnel come from nodes that we know; tunnels of others are none of our
    /// business. What pods send to their own node is subject to cluster-wide policies only, and
    /// neighbour discovery to none.
    fn input(&self, own_sets: &mut BTreeMap<String, Set>) -> Chain {
        let mut rules = self.tunnel_input(own_sets);
        rules.extend(self.vxlan_input());
        let hosts = self.hosts.dispatch(Direction::Ingress, Place::Host);
        if self.own_node || !hosts.is_empty() {
            let prefix = self.options.interface_prefix.clone();
            let negate = false;
            rules.extend(self.revoked(&[Statement::IifnamePrefix { prefix, negate }]));
            rules.push(accept([Statement::CtState(CtState::EstablishedOrRelated)]));
            rules.push(accept([
                Statement::Family(Family::Ipv6),
                Statement::Icmpv6Type {
                    first: 133,
                    last: 137,
                },
            ]));
        }
        if self.own_node {
            rules.push(rule([Statement::VerdictMap {
                fields: vec![Field::Iif],
                map: self.sets.name(OWN_NODE),
            }]));
        }
        if !hosts.is_empty() {
            rules.extend(self.between_nodes(saddr));
            rules.extend(hosts);
        }
        Chain {
            hook: Some(hook(Hook::Input, ChainType::Filter, PRIORITY_FILTER)),
            rules,
        }
    }

    /// Tunnels between nodes are no policy's business: what is in them is.
    fn between_nodes(&self, address: fn(Family) -> Field) -> Vec<Rule> {
        let ipip = IP_IN_IP.into_iter().map(|(family, protocol, peers)| {
            accept([
                Statement::Family(family),
                Statement::L4Proto(protocol),
                lookup(&[address(family)], self.sets.name(peers), false),
            ])
        });
        let port = self.options.vxlan_port;
        let vxlan = FAMILIES.into_iter().zip(VXLAN).map(|(family, peers)| {
            accept([
                Statement::Family(family),
                Statement::L4Proto(IPPROTO_UDP),
                Statement::DportRange(port, port),
                lookup(&[address(family)], self.sets.name(peers), false),
            ])
        });
        ipip.chain(vxlan).collect()
    }

    /// What this host sends, where it is a host endpoint, and its answers in connections of pods
    /// that are cut. Its own pods always hear from it.
    fn output(&self) -> Option<Chain> {
        let hosts = self.hosts.dispatch(Direction::Egress, Place::Host);
        let mut rules = vec![];
        if self.own_node {
            let prefix = self.options.interface_prefix.clone();
            let negate = false;
            // The resets with which rules cut connections pass here too, as related ones.
            rules.extend(self.revoked(&[
                Statement::OifnamePrefix { prefix, negate },
                Statement::CtState(CtState::Established),
            ]));
        }
        if !hosts.is_empty() {
            rules.extend([
                accept([Statement::CtState(CtState::EstablishedOrRelated)]),
                accept([
                    Statement::Family(Family::Ipv6),
                    Statement::Icmpv6Type {
                        first: 133,
                        last: 137,
                    },
                ]),
            ]);
            rules.extend(self.between_nodes(daddr));
            rules.extend(hosts);
        }
        (!rules.is_empty()).then(|| Chain {
            hook: Some(hook(Hook::Output, ChainType::Filter, PRIORITY_FILTER)),
            rules,
        })
    }

    /// The kernel takes VXLAN on every address of the node, not on the device's alone.
    fn vxlan_input(&self) -> Vec<Rule> {
        let local = &self.network.vxlan_local;
        let has = |family: &Family| local.iter().any(|ip| intervals::family_of(*ip) == *family);
        let families = FAMILIES.into_iter().zip(VXLAN).filter(|(f, _)| has(f));
        let port = self.options.vxlan_port;
        let guard = |(family, peers): (Family, &str)| {
            drop_rule([
                Statement::Family(family),
                Statement::L4Proto(IPPROTO_UDP),
                Statement::DportRange(port, port),
                lookup(&[saddr(family)], self.sets.name(peers), true),
            ])
        };
        families.map(guard).collect()
    }

    fn tunnel_input(&self, own_sets: &mut BTreeMap<String, Set>) -> Vec<Rule> {
        let v4 = self.network.ipip_local.map(IpAddr::V4);
        let v6 = self.network.ip6_local.map(IpAddr::V6);
        let mut rules = Vec::new();
        for local in [v4, v6].into_iter().flatten() {
            let family = intervals::family_of(local);
            let local = nat::ranges(&[IpNet::from(local)].into(), family);
            let name = format!("{TUNNEL}_{}", content_name(&local));
            own_sets.insert(name.clone(), interval_set(family, &local));
            let of_family = IP_IN_IP.into_iter().filter(|(of, ..)| *of == family);
            rules.extend(of_family.map(|(_, protocol, peers)| {
                drop_rule([
                    Statement::Family(family),
                    Statement::L4Proto(protocol),
                    lookup(&[daddr(family)], name.clone(), false),
                    lookup(&[saddr(family)], self.sets.name(peers), true),
                ])
            }));
        }
        rules
    }
}

/// What policies never get to see.
fn forward(options: &Options, sets: &Sets, behind: &Behind) -> Vec<Rule> {
    let prefix = &options.interface_prefix;
    let from_pod = || Statement::IifnamePrefix {
        prefix: prefix.clone(),
        negate: false,
    };
    let to_pod = || Statement::OifnamePrefix {
        prefix: prefix.to_owned(),
        negate: false,
    };
    let invalid = || Statement::CtState(CtState::Invalid);
    let (vxlan, vxlan_port) = (Statement::L4Proto(IPPROTO_UDP), options.vxlan_port);
    let mut rules = vec![
        rule([
            Statement::CtState(CtState::EstablishedOrRelated),
            Statement::Verdict(Verdict::Accept),
        ]),
        drop_rule([from_pod(), invalid()]),
        drop_rule([to_pod(), invalid()]),
        drop_rule([from_pod(), Statement::L4Proto(IPPROTO_IPIP)]),
        drop_rule([from_pod(), Statement::L4Proto(IPPROTO_IPV6)]),
        drop_rule([
            from_pod(),
            vxlan,
            Statement::DportRange(vxlan_port, vxlan_port),
        ]),
    ];
    for (at, family) in FAMILIES.into_iter().enumerate() {
        let unknown = lookup(&[Field::Oif, daddr(family)], sets.name(LOCAL[at]), true);
        let outside = behind.lookup([Field::Oif, daddr(family)], family, true);
        let known = [to_pod(), Statement::Family(family), unknown];
        rules.push(drop_rule(known.into_iter().chain(outside)));
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_that_is_named_by_its_content_is_never_taken_for_one_of_the_base_chains() {
        for own in [
            "masq4_0123456789abcdef",
            "pools6_0123456789abcdef",
            "tunnel_0123456789abcdef",
            "services6_0123456789abcdef",
        ] {
            assert!(is_own_set(own), "{own}");
        }
        for other in [
            "masq4ptnclp8t80q5_06",
            "poolsfedcba987654",
            "pools4edcba987654",
        ] {
            assert!(!is_own_set(other), "{other}");
        }
    }
}
