//! Random values in the form that decoding yields.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;

pub(super) fn params() -> impl Strategy<Value = SessionParams> {
    any::<[bool; 7]>().prop_map(|[four, ibgp, path4, path6, next_hop, long, both]| {
        let mut add_path = Vec::new();
        add_path.extend(path4.then_some(Family::IPV4));
        add_path.extend(path6.then_some(Family::IPV6));
        SessionParams {
            four_octet_as: four,
            ibgp,
            families: if both {
                vec![Family::IPV4, Family::IPV6]
            } else {
                vec![Family::IPV6]
            },
            add_path_receive: add_path.clone(),
            add_path_send: add_path,
            extended_next_hop: next_hop,
            extended_message: long,
        }
    })
}

fn as_number() -> impl Strategy<Value = u32> {
    prop_oneof![1_u32..=65535, 65536..=u32::MAX]
}

fn as_path() -> impl Strategy<Value = AsPath> {
    prop_oneof![4 => vec(as_number(), 1..8), 1 => vec(as_number(), 250..300)]
        .prop_map(AsPath::from_sequence)
}

fn unknown() -> impl Strategy<Value = Vec<UnknownAttribute>> {
    let value = prop_oneof![4 => vec(any::<u8>(), 0..20), 1 => vec(any::<u8>(), 250..300)];
    btree_map(36_u8..=255, value, 0..3).prop_map(|attributes| {
        let attributes = attributes.into_iter();
        attributes
            .map(|(code, value)| UnknownAttribute {
                flags: 0xe0,
                code,
                value,
            })
            .collect()
    })
}

/// Attributes that both kinds of session carry, and few enough for 4096 octets on any of them.
pub(super) fn attributes() -> impl Strategy<Value = Attributes> {
    let origin = prop_oneof![
        Just(Origin::Igp),
        Just(Origin::Egp),
        Just(Origin::Incomplete)
    ];
    let basic = (
        origin,
        as_path(),
        option::of(any::<u32>()),
        any::<bool>(),
        option::of((as_number(), any::<Ipv4Addr>())),
    );
    let communities = (
        vec(any::<u32>(), 0..80),
        vec(any::<[u8; 8]>(), 0..40),
        vec(any::<[u32; 3]>(), 0..30),
        option::of(any::<u32>()),
        unknown(),
    );
    (basic, communities).prop_map(|(basic, communities)| Attributes {
        origin: basic.0,
        as_path: basic.1,
        med: basic.2,
        atomic_aggregate: basic.3,
        aggregator: basic.4,
        communities: communities.0,
        extended_communities: communities.1,
        large_communities: communities.2,
        otc: communities.3,
        unknown: communities.4,
        ..Attributes::default()
    })
}

/// With those for internal peers only.
pub(super) fn internal_attributes() -> impl Strategy<Value = Attributes> {
    let internal = (
        any::<u32>(),
        option::of(any::<Ipv4Addr>()),
        vec(any::<Ipv4Addr>(), 0..5),
    );
    (attributes(), internal).prop_map(|(attributes, internal)| Attributes {
        local_pref: Some(internal.0),
        originator_id: internal.1,
        cluster_list: internal.2,
        ..attributes
    })
}

pub(super) fn next_hop(family: Family, extended: bool) -> BoxedStrategy<NextHop> {
    let v4 = (1_u8..=126, any::<[u8; 3]>()).prop_map(|(first, [b, c, d])| NextHop {
        address: IpAddr::V4(Ipv4Addr::new(first, b, c, d)),
        link_local: None,
    });
    let global = any::<[u8; 14]>().prop_map(|low| {
        let mut octets = [0x20; 16];
        octets[2..].copy_from_slice(&low);
        Ipv6Addr::from(octets)
    });
    let local = any::<u64>().prop_map(|low| Ipv6Addr::from(0xfe80 << 112 | u128::from(low)));
    let v6 = (global, option::of(local)).prop_map(|(address, link_local)| NextHop {
        address: address.into(),
        link_local,
    });
    match (family, extended) {
        (Family::IPV4, false) => v4.boxed(),
        (Family::IPV4, true) => prop_oneof![v4, v6].boxed(),
        _ => v6.boxed(),
    }
}

pub(super) fn nlri(family: Family, add_path: bool) -> impl Strategy<Value = Nlri> {
    let prefix = (any::<u128>(), 0_u8..=128).prop_map(move |(bits, length)| {
        if family == Family::IPV4 {
            let address = Ipv4Addr::from(u32::try_from(bits & 0xffff_ffff).unwrap());
            IpNet::V4(Ipv4Net::new(address, length % 33).unwrap().trunc())
        } else {
            IpNet::V6(Ipv6Net::new(bits.into(), length).unwrap().trunc())
        }
    });
    (prefix, any::<u32>()).prop_map(move |(prefix, path_id)| Nlri {
        prefix,
        path_id: if add_path { path_id } else { 0 },
    })
}

pub(super) fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::IPV4), Just(Family::IPV6)]
}

fn any_family() -> impl Strategy<Value = Family> {
    (any::<u16>(), any::<u8>()).prop_map(|(afi, safi)| Family { afi, safi })
}

fn capability(as_number: u32) -> impl Strategy<Value = Capability> {
    let restart = (
        any::<[bool; 2]>(),
        0_u16..4096,
        vec((any_family(), any::<bool>()), 0..4),
    );
    let restart = restart.prop_map(|([restarting, notification], restart_time, families)| {
        Capability::GracefulRestart(GracefulRestart {
            restarting,
            notification,
            restart_time,
            families,
        })
    });
    prop_oneof![
        any_family().prop_map(Capability::MultiProtocol),
        Just(Capability::RouteRefresh),
        vec((any_family(), any::<u16>()), 0..4).prop_map(Capability::ExtendedNextHop),
        Just(Capability::ExtendedMessage),
        any::<u8>().prop_map(Capability::Role),
        restart,
        Just(Capability::FourOctetAs(as_number)),
        vec((any_family(), 1_u8..=3), 0..4).prop_map(Capability::AddPath),
        Just(Capability::EnhancedRouteRefresh),
        vec((any_family(), any::<bool>(), 0_u32..1 << 24), 0..4)
            .prop_map(Capability::LongLivedGracefulRestart),
        ("[a-zà]{0,20}", "[a-z.]{0,20}")
            .prop_map(|(host, domain)| Capability::Fqdn { host, domain }),
        (128_u8..=255, vec(any::<u8>(), 0..200))
            .prop_map(|(code, value)| Capability::Unknown { code, value }),
    ]
}

pub(super) fn open() -> impl Strategy<Value = Open> {
    let hold_time = prop_oneof![Just(0), 3..=u16::MAX];
    (as_number(), hold_time, 1..=u32::MAX).prop_flat_map(|(as_number, hold_time, id)| {
        vec(capability(as_number), 0..12).prop_map(move |mut capabilities| {
            capabilities.push(Capability::FourOctetAs(as_number));
            Open {
                as_number,
                hold_time,
                router_id: id.into(),
                capabilities,
            }
        })
    })
}

pub(super) fn notification() -> impl Strategy<Value = Notification> {
    (any::<u8>(), any::<u8>(), vec(any::<u8>(), 0..4075)).prop_map(|(code, subcode, data)| {
        Notification {
            code,
            subcode,
            data,
        }
    })
}

pub(super) fn route_refresh() -> impl Strategy<Value = RouteRefresh> {
    (any_family(), any::<u8>()).prop_map(|(family, subtype)| RouteRefresh { family, subtype })
}
