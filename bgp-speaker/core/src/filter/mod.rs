//! Import and export filters: the rules of Calico's `BGPFilter`, with prefix lists beside them.
//!
//! A filter is an ordered list of rules. The first rule that matches a route decides: it accepts
//! the route, changed by its operations, or rejects it. A route that no rule matches is left to
//! [`Import`](crate::Import) or [`Export`](crate::Export).

mod community;
mod prefix;

pub use community::{Community, CommunityError};
pub use prefix::{MatchOperator, PrefixLength, PrefixList, PrefixMatch};

use crate::wire::{Attributes, Family};
use ipnet::IpNet;
use std::sync::Arc;

/// Rules, of which the first that matches decides.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Filter {
    /// In order.
    pub rules: Vec<Rule>,
}

/// What to do with routes that match.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Which routes.
    pub matches: Matches,
    /// Whether they pass.
    pub action: Action,
    /// How they are changed, in order, if they pass.
    pub operations: Vec<Operation>,
}

/// Whether a route passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // as in `BGPFilter`
pub enum Action {
    Accept,
    Reject,
}

/// What a rule matches: everything that is said has to hold; an empty one matches every route.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Matches {
    /// Routes of this family only.
    pub family: Option<Family>,
    /// Routes to such prefixes, of this prefix's family only.
    pub prefix: Option<PrefixMatch>,
    /// Routes to prefixes that the list permits.
    pub prefix_list: Option<Arc<PrefixList>>,
    /// Routes from there.
    pub source: Option<RouteSource>,
    /// Routes out of interfaces of such names; `*` stands for any text, `?` for one character.
    pub interface: Option<String>,
    /// Only for peers of this kind.
    pub peer_type: Option<PeerType>,
    /// Routes that carry all of these.
    pub communities: Vec<Community>,
    /// Routes whose AS_PATH begins with these numbers.
    pub as_path_prefix: Vec<u32>,
    /// Routes with this metric in the kernel.
    pub priority: Option<u32>,
}

/// Where a route is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteSource {
    /// Learnt from a BGP peer.
    RemotePeers,
    /// Originated by this node.
    Local,
}

/// Whether a peer is in our AS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerType {
    /// In another AS.
    External,
    /// In our AS.
    Internal,
}

/// A change to a route that passes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Adds a community unless it is there.
    AddCommunity(Community),
    /// Removes a community.
    RemoveCommunity(Community),
    /// Puts AS numbers in front of the AS_PATH, which begins with them in this order.
    PrependAsPath(Vec<u32>),
    /// Sets LOCAL_PREF.
    SetLocalPref(u32),
    /// Sets MULTI_EXIT_DISC.
    SetMed(u32),
    /// Sets the route's metric in the kernel.
    SetPriority(u32),
}

/// A route as a filter sees it.
#[derive(Debug, Clone, Copy)]
pub struct Route<'a> {
    /// Where to.
    pub prefix: IpNet,
    /// Its path attributes.
    pub attributes: &'a Attributes,
    /// Where it is from.
    pub source: RouteSource,
    /// The peer that it comes from, or that is to be told.
    pub peer_type: PeerType,
    /// The interface that packets leave by, where it is known.
    pub interface: Option<&'a str>,
    /// Its metric in the kernel, where it has one.
    pub priority: Option<u32>,
}

impl Filter {
    /// The first rule that matches, and its place from 0 on.
    pub fn decide(&self, route: &Route<'_>) -> Option<(usize, &Rule)> {
        let mut rules = self.rules.iter().enumerate();
        rules.find(|(_, rule)| rule.matches.hold(route))
    }
}

impl Rule {
    /// Changes attributes and metric as the operations say.
    pub fn apply(&self, attributes: &mut Attributes, priority: &mut Option<u32>) {
        for operation in &self.operations {
            match operation {
                Operation::AddCommunity(community) => community.add_to(attributes),
                Operation::RemoveCommunity(community) => community.remove_from(attributes),
                Operation::PrependAsPath(numbers) => {
                    for number in numbers.iter().rev() {
                        attributes.as_path.prepend(*number);
                    }
                }
                Operation::SetLocalPref(value) => attributes.local_pref = Some(*value),
                Operation::SetMed(value) => attributes.med = Some(*value),
                Operation::SetPriority(value) => *priority = Some(*value),
            }
        }
    }
}

impl Matches {
    /// Whether a route is meant.
    pub fn hold(&self, route: &Route<'_>) -> bool {
        let is = |wanted: Option<Family>| wanted.is_none_or(|f| f == Family::of(&route.prefix));
        is(self.family)
            && self.source.is_none_or(|source| source == route.source)
            && self.peer_type.is_none_or(|kind| kind == route.peer_type)
            && self.priority.is_none_or(|p| Some(p) == route.priority)
            && self.interface_holds(route.interface)
            && self.prefix.is_none_or(|wanted| wanted.holds(&route.prefix))
            && self
                .prefix_list
                .as_ref()
                .is_none_or(|list| list.permits(&route.prefix))
            && self
                .communities
                .iter()
                .all(|community| community.is_on(route.attributes))
            && self.as_path_holds(route.attributes)
    }

    fn interface_holds(&self, interface: Option<&str>) -> bool {
        self.interface.as_ref().is_none_or(|pattern| {
            interface.is_some_and(|name| is_like(pattern.as_bytes(), name.as_bytes()))
        })
    }

    fn as_path_holds(&self, attributes: &Attributes) -> bool {
        let mut hops = attributes.as_path.hops();
        self.as_path_prefix
            .iter()
            .all(|wanted| hops.next() == Some(*wanted))
    }
}

/// Shell patterns, in time linear in the product of the lengths: a star is tried again one
/// character further each time that what follows it does not fit.
fn is_like(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while read < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(wanted) if *wanted == b'?' || Some(wanted) == name.get(read) => {
                at += 1;
                read += 1;
            }
            Some(_) | None => match &mut star {
                Some((back, tried)) => {
                    *tried += 1;
                    (at, read) = (*back + 1, *tried);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(at).all(|rest| *rest == b'*')
}

#[cfg(test)]
mod tests;
