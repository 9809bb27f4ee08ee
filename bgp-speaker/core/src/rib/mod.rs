//! Routing information bases (RFC 4271 section 3.2).
//!
//! Adj-RIB-In and Loc-RIB are one table: per prefix every path as it was received, before policy,
//! with the [`Verdict`] of the last decision. So a change of policy needs no refresh from peers,
//! and why a path is not in use is there to be read. The Adj-RIB-Outs are in [`adj_out`].

pub(crate) mod adj_out;
mod adj_out_paths;
pub(crate) mod attributes;
pub(crate) mod decision;
pub(crate) mod export;
mod forwarding;
mod import;
mod own;
pub(crate) mod update_group;

use crate::config::{Decision, FibChange, FibNextHop, Import, LocalRoute, Role};
use crate::filter::Filter;
use crate::speaker::PeerId;
use crate::wire::{AsPath, Attributes, Family, NextHop, Nlri};
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
    /// The peer's path identifier (RFC 7911); 0 without.
    pub(crate) path_id: u32,
    pub(crate) attributes: Arc<PathAttributes>,
    /// Kept from a session that has ended (RFC 4724).
    pub(crate) stale: bool,
    pub(crate) verdict: Verdict,
}

/// What the decision needs to know about a peer; of the last session if there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerFacts {
    pub(crate) address: IpAddr,
    /// Index of the interface that its link-local address is on; 0 otherwise.
    pub(crate) scope: u32,
    /// Name of that interface.
    pub(crate) interface: Option<Arc<str>>,
    pub(crate) router_id: Ipv4Addr,
    pub(crate) local_as: u32,
    pub(crate) remote_as: u32,
    pub(crate) ibgp: bool,
    pub(crate) client: bool,
    /// The client's cluster.
    pub(crate) cluster_id: Ipv4Addr,
    pub(crate) allow_own_as: u8,
    pub(crate) import: Import,
    pub(crate) import_filter: Arc<Filter>,
    pub(crate) role: Option<Role>,
    /// Families whose stale paths are a last resort (RFC 9494).
    pub(crate) long_lived: Vec<Family>,
    /// Our address of the session.
    pub(crate) local_address: Option<IpAddr>,
}

/// Who we are, as far as routes can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) local_as: u32,
    pub(crate) router_id: Ipv4Addr,
    /// Every cluster that we reflect for.
    pub(crate) cluster_ids: BTreeSet<Ipv4Addr>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) decision: Decision,
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
    overlays: BTreeMap<IpNet, Vec<Overlay>>,
    /// Interface and metric of routes of this node that have any.
    local_marks: BTreeMap<IpNet, LocalMark>,
    /// Metrics that the forwarding table has been told.
    priorities: BTreeMap<IpNet, u32>,
}

/// What import policy has made of a path, for the few paths that it changes.
#[derive(Debug)]
struct Overlay {
    source: Source,
    path_id: u32,
    attributes: Arc<PathAttributes>,
    /// Its metric in the kernel.
    priority: Option<u32>,
}

type LocalMark = (Option<String>, Option<u32>);

/// A path after import policy, as export policy sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Learned<'a> {
    pub(crate) source: Source,
    pub(crate) attributes: &'a Arc<PathAttributes>,
    pub(crate) interface: Option<&'a str>,
    pub(crate) priority: Option<u32>,
}

/// All that is known about a prefix.
#[derive(Debug, Default)]
pub(crate) struct Destination {
    paths: Vec<Path>,
    /// What the forwarding table has been told; empty: nothing.
    installed: Vec<FibNextHop>,
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
                cluster_ids: BTreeSet::new(),
                addresses: Vec::new(),
                decision: Decision::default(),
            },
            peers: BTreeMap::new(),
            counts: BTreeMap::new(),
            table: BTreeMap::new(),
            own: OwnPrefixes::default(),
            dirty: BTreeSet::new(),
            interner: Interner::default(),
            overlays: BTreeMap::new(),
            local_marks: BTreeMap::new(),
            priorities: BTreeMap::new(),
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
    pub(crate) fn announce(&mut self, peer: PeerId, nlri: Nlri, attributes: &Arc<PathAttributes>) {
        let Nlri { prefix, path_id } = nlri;
        let paths = &mut self.table.entry(prefix).or_default().paths;
        let count = self.counts.entry(peer).or_default();
        match paths
            .iter_mut()
            .find(|path| path.source == Source::Peer(peer) && path.path_id == path_id)
        {
            Some(path) => {
                let was_stale = std::mem::take(&mut path.stale);
                count.stale -= usize::from(was_stale);
                let unchanged = Arc::ptr_eq(&path.attributes, attributes);
                if unchanged && !(was_stale && self.overlays.contains_key(&prefix)) {
                    return;
                }
                path.attributes = Arc::clone(attributes);
            }
            None => {
                count.received += 1;
                let source = Source::Peer(peer);
                paths.push(Path::new(source, path_id, Arc::clone(attributes)));
            }
        }
        self.dirty.insert(prefix);
    }

    /// A peer withdraws a prefix.
    pub(crate) fn withdraw(&mut self, peer: PeerId, nlri: Nlri) {
        let Nlri { prefix, path_id } = nlri;
        let Some(destination) = self.table.get_mut(&prefix) else {
            return;
        };
        let source = Source::Peer(peer);
        if let Some(index) = destination
            .paths
            .iter()
            .position(|path| path.source == source && path.path_id == path_id)
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
            self.local_marks.remove(&prefix);
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
        let mark = (route.interface.clone(), route.priority);
        let marked = if mark == LocalMark::default() {
            self.local_marks.remove(&prefix).is_some()
        } else {
            self.local_marks.insert(prefix, mark.clone()) != Some(mark)
        };
        let attributes = self.intern(local_attributes(route), unspecified(&prefix));
        let paths = &mut self.table.entry(prefix).or_default().paths;
        match paths.iter_mut().find(|path| path.source == Source::Local) {
            Some(path) if Arc::ptr_eq(&path.attributes, &attributes) && !marked => return,
            Some(path) => path.attributes = attributes,
            None => paths.push(Path::new(Source::Local, 0, attributes)),
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
            changes.extend(self.fib_change(prefix, destination));
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

    /// A path to a prefix as import policy has left it.
    pub(crate) fn learned<'a>(&'a self, prefix: &IpNet, path: &'a Path) -> Learned<'a> {
        let (interface, priority) = match path.source {
            Source::Peer(_) => (None, None),
            Source::Local => match self.local_marks.get(prefix) {
                Some((interface, priority)) => (interface.as_deref(), *priority),
                None => (None, None),
            },
        };
        let mut overlays = self.overlays.get(prefix).into_iter().flatten();
        let overlay =
            overlays.find(|other| (other.source, other.path_id) == (path.source, path.path_id));
        Learned {
            source: path.source,
            attributes: overlay.map_or(&path.attributes, |overlay| &overlay.attributes),
            interface,
            priority: overlay.map_or(priority, |overlay| overlay.priority),
        }
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
    fn new(source: Source, path_id: u32, attributes: Arc<PathAttributes>) -> Self {
        let verdict = Verdict::Refused(Refusal::ImportPolicy);
        Self {
            source,
            path_id,
            attributes,
            stale: false,
            verdict,
        }
    }
}

fn local_attributes(route: &LocalRoute) -> Attributes {
    Attributes {
        as_path: AsPath::default(),
        communities: route.communities.clone(),
        large_communities: route.large_communities.clone(),
        local_pref: route.local_pref,
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
