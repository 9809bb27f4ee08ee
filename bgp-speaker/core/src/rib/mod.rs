//! Routing information bases (RFC 4271 section 3.2).
//!
//! Adj-RIB-In and Loc-RIB are one table: per prefix every path as it was received, before policy,
//! with the [`Verdict`] of the last decision. So a change of policy needs no refresh from peers,
//! and why a path is not in use is there to be read. The Adj-RIB-Outs are in [`adj_out`].

pub(crate) mod adj_out;
pub(crate) mod attributes;
pub(crate) mod decision;
pub(crate) mod export;
mod import;
mod own;

use crate::config::{FibChange, Import, LocalRoute};
use crate::speaker::PeerId;
use crate::wire::{AsPath, Attributes, Family, NextHop};
use attributes::{Interner, PathAttributes};
use decision::{Refusal, Verdict};
use ipnet::IpNet;
use own::OwnPrefixes;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// LOCAL_PREF of a path that has none.
pub(crate) const DEFAULT_LOCAL_PREF: u32 = crate::wire::DEFAULT_LOCAL_PREF;

/// Who a path is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Source {
    Local,
    Peer(PeerId),
}

/// A path to a prefix, as received.
#[derive(Debug, Clone)]
pub(crate) struct Path {
    pub(crate) source: Source,
    pub(crate) attributes: Arc<PathAttributes>,
    /// Kept from a session that has ended (RFC 4724).
    pub(crate) stale: bool,
    pub(crate) verdict: Verdict,
}

/// What the decision needs to know about a peer; of the last session if there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerFacts {
    pub(crate) address: IpAddr,
    pub(crate) router_id: Ipv4Addr,
    pub(crate) local_as: u32,
    pub(crate) ibgp: bool,
    pub(crate) client: bool,
    pub(crate) allow_own_as: u8,
    pub(crate) import: Import,
    /// Our address of the session.
    pub(crate) local_address: Option<IpAddr>,
}

/// Who we are, as far as routes can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) local_as: u32,
    pub(crate) router_id: Ipv4Addr,
    pub(crate) cluster_id: Ipv4Addr,
    pub(crate) addresses: Vec<IpAddr>,
}

/// How many prefixes a peer has announced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) received: usize,
    pub(crate) stale: usize,
}

/// Adj-RIBs-In and Loc-RIB.
#[derive(Debug)]
pub(crate) struct Rib {
    identity: Identity,
    peers: BTreeMap<PeerId, PeerFacts>,
    counts: BTreeMap<PeerId, Count>,
    table: BTreeMap<IpNet, Destination>,
    own: OwnPrefixes,
    dirty: BTreeSet<IpNet>,
    interner: Interner,
}

/// All that is known about a prefix.
#[derive(Debug, Default)]
pub(crate) struct Destination {
    paths: Vec<Path>,
    /// What the forwarding table has been told; empty: nothing.
    installed: Vec<IpAddr>,
}

impl Destination {
    /// All paths, the best one first if there is one.
    pub(crate) fn paths(&self) -> &[Path] {
        &self.paths
    }

    fn best(&self) -> Option<&Path> {
        self.paths
            .first()
            .filter(|path| path.verdict == Verdict::Best)
    }
}

impl Rib {
    pub(crate) fn new() -> Self {
        Self {
            identity: Identity {
                local_as: 0,
                router_id: Ipv4Addr::UNSPECIFIED,
                cluster_id: Ipv4Addr::UNSPECIFIED,
                addresses: Vec::new(),
            },
            peers: BTreeMap::new(),
            counts: BTreeMap::new(),
            table: BTreeMap::new(),
            own: OwnPrefixes::default(),
            dirty: BTreeSet::new(),
            interner: Interner::default(),
        }
    }

    pub(crate) fn set_identity(&mut self, identity: Identity) {
        if self.identity != identity {
            self.identity = identity;
            self.dirty.extend(self.table.keys().copied());
        }
    }

    /// Facts about a peer have to be there before its first path.
    pub(crate) fn set_peer(&mut self, peer: PeerId, facts: PeerFacts) {
        if self.peers.get(&peer) != Some(&facts) {
            self.peers.insert(peer, facts);
            self.dirty_from(Source::Peer(peer));
        }
    }

    pub(crate) fn peer(&self, peer: PeerId) -> Option<&PeerFacts> {
        self.peers.get(&peer)
    }

    /// Forgets a peer and all of its paths.
    pub(crate) fn remove_peer(&mut self, peer: PeerId) {
        self.remove_paths(peer, |_, _| true);
        self.peers.remove(&peer);
        self.counts.remove(&peer);
    }

    pub(crate) fn count(&self, peer: PeerId) -> Count {
        self.counts.get(&peer).copied().unwrap_or_default()
    }

    pub(crate) fn table(&self) -> &BTreeMap<IpNet, Destination> {
        &self.table
    }

    /// The one copy of these attributes.
    pub(crate) fn intern(
        &mut self,
        attributes: Attributes,
        next_hop: NextHop,
    ) -> Arc<PathAttributes> {
        self.interner
            .intern(PathAttributes::new(attributes, next_hop))
    }

    /// A peer announces a prefix.
    pub(crate) fn announce(
        &mut self,
        peer: PeerId,
        prefix: IpNet,
        attributes: &Arc<PathAttributes>,
    ) {
        let paths = &mut self.table.entry(prefix).or_default().paths;
        let count = self.counts.entry(peer).or_default();
        match paths
            .iter_mut()
            .find(|path| path.source == Source::Peer(peer))
        {
            Some(path) => {
                count.stale -= usize::from(std::mem::take(&mut path.stale));
                if Arc::ptr_eq(&path.attributes, attributes) {
                    return;
                }
                path.attributes = Arc::clone(attributes);
            }
            None => {
                count.received += 1;
                paths.push(Path::new(Source::Peer(peer), Arc::clone(attributes)));
            }
        }
        self.dirty.insert(prefix);
    }

    /// A peer withdraws a prefix.
    pub(crate) fn withdraw(&mut self, peer: PeerId, prefix: IpNet) {
        let Some(destination) = self.table.get_mut(&prefix) else {
            return;
        };
        let source = Source::Peer(peer);
        if let Some(index) = destination
            .paths
            .iter()
            .position(|path| path.source == source)
        {
            let path = destination.paths.remove(index);
            let count = self.counts.entry(peer).or_default();
            count.received -= 1;
            count.stale -= usize::from(path.stale);
            self.dirty.insert(prefix);
        }
    }

    /// The session has ended and the peer's paths of some families are kept for the time being.
    pub(crate) fn mark_stale(&mut self, peer: PeerId, families: &[Family]) {
        let count = self.counts.entry(peer).or_default();
        for (prefix, destination) in &mut self.table {
            if !families.contains(&Family::of(prefix)) {
                continue;
            }
            let source = Source::Peer(peer);
            for path in destination
                .paths
                .iter_mut()
                .filter(|path| path.source == source)
            {
                count.stale += usize::from(!path.stale);
                path.stale = true;
            }
        }
    }

    /// Forgets the paths of a family that have not been announced again.
    pub(crate) fn sweep(&mut self, peer: PeerId, family: Family) {
        if self.count(peer).stale > 0 {
            self.remove_paths(peer, |prefix, path| {
                path.stale && Family::of(prefix) == family
            });
        }
    }

    /// Forgets the paths of all families but these.
    pub(crate) fn retain_families(&mut self, peer: PeerId, families: &[Family]) {
        self.remove_paths(peer, |prefix, _| !families.contains(&Family::of(prefix)));
    }

    /// Replaces the routes of this node.
    pub(crate) fn set_local(&mut self, routes: &BTreeMap<IpNet, LocalRoute>) {
        let gone: Vec<IpNet> = self
            .table
            .iter()
            .filter(|(prefix, destination)| {
                !routes.contains_key(*prefix)
                    && destination
                        .paths
                        .iter()
                        .any(|path| path.source == Source::Local)
            })
            .map(|(prefix, _)| *prefix)
            .collect();
        for prefix in gone {
            if let Some(destination) = self.table.get_mut(&prefix) {
                destination
                    .paths
                    .retain(|path| path.source != Source::Local);
                self.dirty.insert(prefix);
            }
        }
        for (prefix, route) in routes {
            self.set_local_route(*prefix, route);
        }
        for changed in self.own.replace(routes.keys()) {
            let within = self.table.range(own::range_within(&changed));
            self.dirty.extend(within.map(|(prefix, _)| *prefix));
        }
    }

    fn set_local_route(&mut self, prefix: IpNet, route: &LocalRoute) {
        let attributes = self.intern(local_attributes(route), unspecified(&prefix));
        let paths = &mut self.table.entry(prefix).or_default().paths;
        match paths.iter_mut().find(|path| path.source == Source::Local) {
            Some(path) if Arc::ptr_eq(&path.attributes, &attributes) => return,
            Some(path) => path.attributes = attributes,
            None => paths.push(Path::new(Source::Local, attributes)),
        }
        self.dirty.insert(prefix);
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Decides about everything that has changed. Returns the forwarding changes that follow, and
    /// the prefixes, whose [`Rib::best`] may be another one.
    pub(crate) fn resolve(&mut self) -> (Vec<FibChange>, BTreeSet<IpNet>) {
        let dirty = std::mem::take(&mut self.dirty);
        let mut table = std::mem::take(&mut self.table);
        let mut changes = Vec::new();
        for prefix in &dirty {
            let Some(destination) = table.get_mut(prefix) else {
                continue;
            };
            self.decide(prefix, destination);
            changes.extend(destination.fib_change(*prefix));
            if destination.paths.is_empty() {
                table.remove(prefix);
            }
        }
        self.table = table;
        (changes, dirty)
    }

    /// The best path to a prefix.
    pub(crate) fn best(&self, prefix: &IpNet) -> Option<&Path> {
        self.table.get(prefix)?.best()
    }

    fn remove_paths(&mut self, peer: PeerId, remove: impl Fn(&IpNet, &Path) -> bool) {
        let count = self.counts.entry(peer).or_default();
        if count.received == 0 {
            return;
        }
        for (prefix, destination) in &mut self.table {
            destination.paths.retain(|path| {
                let gone = path.source == Source::Peer(peer) && remove(prefix, path);
                if gone {
                    count.received -= 1;
                    count.stale -= usize::from(path.stale);
                    self.dirty.insert(*prefix);
                }
                !gone
            });
        }
    }

    fn dirty_from(&mut self, source: Source) {
        let touched = self
            .table
            .iter()
            .filter(|(_, destination)| destination.paths.iter().any(|path| path.source == source));
        self.dirty.extend(touched.map(|(prefix, _)| *prefix));
    }
}

impl Path {
    fn new(source: Source, attributes: Arc<PathAttributes>) -> Self {
        let verdict = Verdict::Refused(Refusal::ImportPolicy);
        Self {
            source,
            attributes,
            stale: false,
            verdict,
        }
    }
}

impl Destination {
    /// The difference to what the forwarding table has been told. Routes of this node are not
    /// forwarded to anybody.
    fn fib_change(&mut self, prefix: IpNet) -> Option<FibChange> {
        let in_use = self.paths.iter().filter(|path| {
            matches!(path.verdict, Verdict::Best | Verdict::Multipath)
                && path.source != Source::Local
        });
        let next_hops: BTreeSet<IpAddr> = in_use
            .map(|path| path.attributes.next_hop.address)
            .collect();
        let next_hops: Vec<IpAddr> = next_hops.into_iter().collect();
        if next_hops == self.installed {
            return None;
        }
        self.installed.clone_from(&next_hops);
        Some(if next_hops.is_empty() {
            FibChange::Remove { prefix }
        } else {
            FibChange::Set { prefix, next_hops }
        })
    }
}

fn local_attributes(route: &LocalRoute) -> Attributes {
    Attributes {
        as_path: AsPath::default(),
        communities: route.communities.clone(),
        ..Attributes::default()
    }
}

fn unspecified(prefix: &IpNet) -> NextHop {
    let address = match prefix {
        IpNet::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpNet::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    };
    NextHop {
        address,
        link_local: None,
    }
}

#[cfg(test)]
mod tests;
