//! What a peer is told about a path (RFC 4271 section 9.1.3, RFC 1997, RFC 4456).

use super::{DEFAULT_LOCAL_PREF, Learned, PeerFacts, Source};
use crate::config::Export;
use crate::wire::{AsPath, AsSegment, Attributes, Family, NextHop};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// RFC 1997: not to another AS.
const NO_EXPORT: u32 = 0xffff_ff01;
/// RFC 1997: to nobody.
const NO_ADVERTISE: u32 = 0xffff_ff02;
/// RFC 1997: not to another AS, not even within a confederation.
const NO_EXPORT_SUBCONFED: u32 = 0xffff_ff03;
/// Longest sequence that fits one segment (RFC 4271 section 4.3).
const SEGMENT_LIMIT: usize = 255;

/// Everything that decides what a peer is told and how it is encoded. Peers for which it is equal
/// share an update group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ExportPolicy {
    pub(crate) local_as: u32,
    pub(crate) ibgp: bool,
    pub(crate) client: bool,
    pub(crate) export: Export,
    pub(crate) keep_next_hop: bool,
    pub(crate) next_hop_v4: Option<Ipv4Addr>,
    pub(crate) next_hop_v6: Option<Ipv6Addr>,
    pub(crate) cluster_id: Ipv4Addr,
    pub(crate) families: Vec<Family>,
    pub(crate) four_octet_as: bool,
}

impl ExportPolicy {
    /// The attributes to announce `path` with; none if the peer is not told.
    pub(crate) fn apply(
        &self,
        prefix: &IpNet,
        path: &Learned<'_>,
        source: Option<&PeerFacts>,
    ) -> Option<(Attributes, NextHop)> {
        if !self.families.contains(&Family::of(prefix)) || !self.admits(path, source) {
            return None;
        }
        let next_hop = self.next_hop(prefix, path)?;
        let mut attributes = path.attributes.attributes.clone();
        if self.ibgp {
            attributes.local_pref.get_or_insert(DEFAULT_LOCAL_PREF);
            if let Some(source) = source.filter(|source| source.ibgp) {
                attributes.originator_id.get_or_insert(source.router_id);
                attributes.cluster_list.insert(0, self.cluster_id);
            }
        } else {
            prepend(&mut attributes.as_path, self.local_as);
            attributes.local_pref = None;
            attributes.originator_id = None;
            attributes.cluster_list = Vec::new();
            if path.source != Source::Local {
                attributes.med = None;
            }
        }
        Some((attributes, next_hop))
    }

    fn admits(&self, path: &Learned<'_>, source: Option<&PeerFacts>) -> bool {
        if self.export == Export::OwnRoutes && path.source != Source::Local {
            return false;
        }
        let has = |community| path.attributes.attributes.communities.contains(&community);
        if has(NO_ADVERTISE) || (!self.ibgp && (has(NO_EXPORT) || has(NO_EXPORT_SUBCONFED))) {
            return false;
        }
        let reflected = source.is_some_and(|source| source.ibgp) && self.ibgp;
        !reflected || self.client || source.is_some_and(|source| source.client)
    }

    fn next_hop(&self, prefix: &IpNet, path: &Learned<'_>) -> Option<NextHop> {
        let received = path.source != Source::Local && (self.ibgp || self.keep_next_hop);
        if received {
            return Some(path.attributes.next_hop_without_link_local());
        }
        let address = match prefix {
            IpNet::V4(_) => self.next_hop_v4.map(IpAddr::V4),
            IpNet::V6(_) => self.next_hop_v6.map(IpAddr::V6),
        };
        address.map(|address| NextHop {
            address,
            link_local: None,
        })
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
mod tests {
    use super::*;
    use crate::config::Import;
    use crate::rib::attributes::PathAttributes;
    use crate::speaker::PeerId;
    use std::sync::Arc;

    fn policy(ibgp: bool) -> ExportPolicy {
        ExportPolicy {
            local_as: 64512,
            ibgp,
            client: false,
            export: Export::All,
            keep_next_hop: false,
            next_hop_v4: Some(Ipv4Addr::new(10, 0, 0, 1)),
            next_hop_v6: None,
            cluster_id: Ipv4Addr::new(192, 0, 2, 1),
            families: vec![Family::IPV4, Family::IPV6],
            four_octet_as: true,
        }
    }

    fn facts(ibgp: bool, client: bool) -> PeerFacts {
        PeerFacts {
            address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)),
            router_id: Ipv4Addr::new(192, 0, 2, 2),
            local_as: 64512,
            ibgp,
            client,
            allow_own_as: 0,
            import: Import::All,
            local_address: None,
        }
    }

    fn attributes(attributes: Attributes) -> Arc<PathAttributes> {
        let next_hop = NextHop {
            address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)),
            link_local: None,
        };
        Arc::new(PathAttributes::new(attributes, next_hop))
    }

    fn own(attributes: &Arc<PathAttributes>) -> Learned<'_> {
        Learned {
            source: Source::Local,
            attributes,
        }
    }

    fn from_peer(attributes: &Arc<PathAttributes>) -> Learned<'_> {
        Learned {
            source: Source::Peer(PeerId(2)),
            attributes,
        }
    }

    fn prefix() -> IpNet {
        "10.1.0.0/26".parse().unwrap()
    }

    #[test]
    fn an_ebgp_peer_sees_our_as_and_our_next_hop_and_nothing_internal() {
        let attributes = attributes(Attributes {
            local_pref: Some(200),
            med: Some(7),
            originator_id: Some(Ipv4Addr::LOCALHOST),
            cluster_list: vec![Ipv4Addr::LOCALHOST],
            ..Attributes::default()
        });
        let (sent, next_hop) = policy(false)
            .apply(
                &prefix(),
                &from_peer(&attributes),
                Some(&facts(true, false)),
            )
            .expect("announced");
        assert_eq!(next_hop.address, IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
        let own = AsPath(vec![AsSegment::Sequence(vec![64512])]);
        assert_eq!(
            sent,
            Attributes {
                as_path: own,
                ..Attributes::default()
            }
        );
    }

    #[test]
    fn internal_routes_go_to_internal_peers_only_by_reflection() {
        let attributes = attributes(Attributes::default());
        let path = from_peer(&attributes);
        let told = |target_client: bool, source_client: bool| {
            let policy = ExportPolicy {
                client: target_client,
                ..policy(true)
            };
            policy.apply(&prefix(), &path, Some(&facts(true, source_client)))
        };
        assert_eq!(told(false, false), None);
        for (target_client, source_client) in [(true, false), (false, true), (true, true)] {
            let (sent, next_hop) = told(target_client, source_client).expect("reflected");
            assert_eq!(sent.originator_id, Some(Ipv4Addr::new(192, 0, 2, 2)));
            assert_eq!(sent.cluster_list, [Ipv4Addr::new(192, 0, 2, 1)]);
            assert_eq!(next_hop.address, IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)));
        }
    }

    #[test]
    fn well_known_communities_limit_who_is_told() {
        for (community, internal, external) in [
            (NO_EXPORT, true, false),
            (NO_EXPORT_SUBCONFED, true, false),
            (NO_ADVERTISE, false, false),
            (64512 << 16, true, true),
        ] {
            let route = Attributes {
                communities: vec![community],
                ..Attributes::default()
            };
            let attributes = attributes(route);
            let path = own(&attributes);
            let told = |ibgp| policy(ibgp).apply(&prefix(), &path, None).is_some();
            assert_eq!(
                (told(true), told(false)),
                (internal, external),
                "{community:#x}"
            );
        }
    }

    #[test]
    fn own_routes_only_means_own_routes_only() {
        let policy = ExportPolicy {
            export: Export::OwnRoutes,
            ..policy(false)
        };
        let attributes = attributes(Attributes::default());
        let received = from_peer(&attributes);
        assert_eq!(
            policy.apply(&prefix(), &received, Some(&facts(false, false))),
            None
        );
        let own = own(&attributes);
        assert!(policy.apply(&prefix(), &own, None).is_some());
    }

    #[test]
    fn next_hops_of_others_are_kept_towards_ebgp_on_request_but_never_for_own_routes() {
        let policy = ExportPolicy {
            keep_next_hop: true,
            ..policy(false)
        };
        let next_hop = |path: &Learned<'_>, source: Option<&PeerFacts>| {
            policy
                .apply(&prefix(), path, source)
                .map(|(_, next_hop)| next_hop.address.to_string())
        };
        let attributes = attributes(Attributes::default());
        let received = from_peer(&attributes);
        assert_eq!(
            next_hop(&received, Some(&facts(false, false))).as_deref(),
            Some("10.0.0.9")
        );
        let own = own(&attributes);
        assert_eq!(next_hop(&own, None).as_deref(), Some("10.0.0.1"));
    }

    #[test]
    fn without_a_next_hop_of_the_family_nothing_is_announced() {
        let attributes = attributes(Attributes::default());
        let own = own(&attributes);
        let prefix: IpNet = "fd00::/64".parse().unwrap();
        assert_eq!(policy(true).apply(&prefix, &own, None), None);
    }

    #[test]
    fn a_full_segment_is_never_grown() {
        let mut path = AsPath(vec![AsSegment::Sequence(vec![1; SEGMENT_LIMIT])]);
        prepend(&mut path, 2);
        assert_eq!(path.0.len(), 2);
        assert_eq!(path.0[0], AsSegment::Sequence(vec![2]));
    }
}
