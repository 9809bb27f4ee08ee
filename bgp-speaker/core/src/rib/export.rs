//! What a peer is told about a path (RFC 4271 section 9.1.3, RFC 1997, RFC 4456, RFC 8326, RFC 8950,
//! RFC 9234, RFC 9494).

use super::{DEFAULT_LOCAL_PREF, Learned, PeerFacts, Source};
use crate::config::{Export, NextHopMode, Role};
use crate::filter::{Action, Community, Filter, PeerType, Route, RouteSource, Rule};
use crate::wire::{AsPath, AsSegment, Attributes, Family, NextHop, SessionParams};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Longest sequence that fits one segment (RFC 4271 section 4.3).
const SEGMENT_LIMIT: usize = 255;
/// Bit of an extended community's type that keeps it within an AS (RFC 4360 section 2).
const NON_TRANSITIVE: u8 = 0x40;

/// Everything that decides what a peer is told and how it is encoded. Peers for which it is equal
/// share an update group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ExportPolicy {
    pub(crate) local_as: u32,
    pub(crate) ibgp: bool,
    pub(crate) client: bool,
    pub(crate) export: Export,
    pub(crate) filter: Arc<Filter>,
    pub(crate) next_hop_mode: NextHopMode,
    pub(crate) next_hop_v4: Option<Ipv4Addr>,
    pub(crate) next_hop_v6: Option<Ipv6Addr>,
    /// Our link-local address, where the peer is on the same link.
    pub(crate) link_local: Option<Ipv6Addr>,
    pub(crate) cluster_id: Ipv4Addr,
    pub(crate) role: Option<Role>,
    pub(crate) graceful_shutdown: bool,
    /// The peer knows long-lived stale routes.
    pub(crate) long_lived: bool,
    pub(crate) families: Vec<Family>,
    pub(crate) four_octet_as: bool,
    pub(crate) extended_message: bool,
    pub(crate) extended_next_hop: bool,
    /// Families of which several paths are told.
    pub(crate) add_path: Vec<Family>,
    /// Paths to a prefix of those families.
    pub(crate) path_limit: u8,
}

impl ExportPolicy {
    /// What encoding depends on.
    pub(crate) fn session_params(&self) -> SessionParams {
        SessionParams {
            four_octet_as: self.four_octet_as,
            ibgp: self.ibgp,
            families: self.families.clone(),
            add_path_send: self.add_path.clone(),
            extended_next_hop: self.extended_next_hop,
            extended_message: self.extended_message,
            ..SessionParams::default()
        }
    }

    /// The filter's rule that decides about a route, and its place.
    pub(crate) fn rule(&self, prefix: &IpNet, path: &Learned<'_>) -> Option<(usize, &Rule)> {
        self.filter.decide(&Route {
            prefix: *prefix,
            attributes: &path.attributes.attributes,
            source: match path.source {
                Source::Local => RouteSource::Local,
                Source::Peer(_) => RouteSource::RemotePeers,
            },
            peer_type: if self.ibgp {
                PeerType::Internal
            } else {
                PeerType::External
            },
            interface: path.interface,
            priority: path.priority,
        })
    }

    /// The attributes to announce `path` with; none if the peer is not told. `rule` is what
    /// [`ExportPolicy::rule`] says.
    pub(crate) fn apply(
        &self,
        prefix: &IpNet,
        path: &Learned<'_>,
        source: Option<&PeerFacts>,
        rule: Option<&Rule>,
    ) -> Option<(Attributes, NextHop)> {
        let told = self.families.contains(&Family::of(prefix))
            && self.wants(path, rule)
            && self.may_tell(path, source);
        if !told {
            return None;
        }
        let next_hop = self.next_hop(prefix, path)?;
        let mut attributes = path.attributes.attributes.clone();
        let transparent = self.is_transparent(path);
        if !(self.ibgp || transparent || path.source == Source::Local) {
            attributes.med = None;
        }
        if let Some(rule) = rule {
            rule.apply(&mut attributes, &mut None);
        }
        if self.graceful_shutdown {
            Community::GRACEFUL_SHUTDOWN.add_to(&mut attributes);
            attributes.local_pref = Some(0);
        }
        if self.ibgp {
            self.prepare_internal(&mut attributes, source);
        } else {
            if !transparent {
                prepend(&mut attributes.as_path, self.local_as);
            }
            self.prepare_external(&mut attributes);
        }
        Some((attributes, next_hop))
    }

    fn prepare_internal(&self, attributes: &mut Attributes, source: Option<&PeerFacts>) {
        attributes.local_pref.get_or_insert(DEFAULT_LOCAL_PREF);
        if let Some(source) = source.filter(|source| source.ibgp) {
            attributes.originator_id.get_or_insert(source.router_id);
            let cluster = if source.client {
                source.cluster_id
            } else {
                self.cluster_id
            };
            attributes.cluster_list.insert(0, cluster);
        }
    }

    fn prepare_external(&self, attributes: &mut Attributes) {
        attributes.local_pref = None;
        attributes.originator_id = None;
        attributes.cluster_list = Vec::new();
        attributes
            .extended_communities
            .retain(|community| community[0] & NON_TRANSITIVE == 0);
        // RFC 9234 section 5, on sending.
        if let Some(Role::Provider | Role::RouteServer | Role::Peer) = self.role {
            attributes.otc.get_or_insert(self.local_as);
        }
    }

    /// A route server passes routes on as if it were not there (RFC 7947 section 2.2).
    fn is_transparent(&self, path: &Learned<'_>) -> bool {
        self.role == Some(Role::RouteServer) && path.source != Source::Local
    }

    /// Whether policy wants the peer to know.
    fn wants(&self, path: &Learned<'_>, rule: Option<&Rule>) -> bool {
        match rule.map(|rule| rule.action) {
            Some(Action::Accept) => true,
            Some(Action::Reject) => false,
            None => match self.export {
                Export::All => true,
                Export::OwnRoutes => path.source == Source::Local,
                Export::Unstated => self.ibgp && path.source == Source::Local,
                Export::None => false,
            },
        }
    }

    /// Whether the standards let the peer know.
    fn may_tell(&self, path: &Learned<'_>, source: Option<&PeerFacts>) -> bool {
        let attributes = &path.attributes.attributes;
        let has = |community: Community| community.is_on(attributes);
        let within_as = has(Community::NO_EXPORT) || has(Community::NO_EXPORT_SUBCONFED);
        if has(Community::NO_ADVERTISE) || (!self.ibgp && within_as) {
            return false;
        }
        if has(Community::LLGR_STALE) && !self.long_lived {
            return false;
        }
        let towards_transit = matches!(
            self.role,
            Some(Role::Customer | Role::RouteServerClient | Role::Peer)
        );
        if attributes.otc.is_some() && towards_transit && !self.ibgp {
            return false;
        }
        let reflected = source.is_some_and(|source| source.ibgp) && self.ibgp;
        !reflected || self.client || source.is_some_and(|source| source.client)
    }

    /// An IPv6 address stands in for IPv4 where the peer takes it (RFC 8950).
    fn next_hop(&self, prefix: &IpNet, path: &Learned<'_>) -> Option<NextHop> {
        let received = path.attributes.next_hop_without_link_local();
        let learned = path.source != Source::Local;
        let keep = match self.next_hop_mode {
            NextHopMode::Auto => self.ibgp,
            NextHopMode::Own => false,
            NextHopMode::Keep => true,
        };
        let keep = (learned && keep) || self.is_transparent(path);
        if keep && self.can_say(prefix, received.address) {
            return Some(received);
        }
        let v6 = self.next_hop_v6.or(self.link_local).map(|address| NextHop {
            address: address.into(),
            link_local: self.link_local,
        });
        match prefix {
            IpNet::V6(_) => v6,
            IpNet::V4(_) => self
                .next_hop_v4
                .map(|address| NextHop {
                    address: address.into(),
                    link_local: None,
                })
                .or(v6.filter(|_| self.extended_next_hop)),
        }
    }

    fn can_say(&self, prefix: &IpNet, next_hop: IpAddr) -> bool {
        match (prefix, next_hop) {
            (_, IpAddr::V6(address)) if address.is_unicast_link_local() => false,
            (IpNet::V4(_), IpAddr::V4(_)) | (IpNet::V6(_), IpAddr::V6(_)) => true,
            (IpNet::V4(_), IpAddr::V6(_)) => self.extended_next_hop,
            (IpNet::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

fn prepend(path: &mut AsPath, as_number: u32) {
    match path.0.first_mut() {
        Some(AsSegment::Sequence(numbers)) if numbers.len() < SEGMENT_LIMIT => {
            numbers.insert(0, as_number);
        }
        Some(AsSegment::Sequence(_) | AsSegment::Set(_)) | None => {
            path.0.insert(0, AsSegment::Sequence(vec![as_number]));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
