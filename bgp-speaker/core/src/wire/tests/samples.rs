//! Valid messages with everything in them, as seeds of mutations.

use ipnet::IpNet;

use super::*;

/// Sessions that read and write differently.
pub(super) fn sessions() -> Vec<SessionParams> {
    let add_path = vec![Family::IPV4, Family::IPV6];
    vec![
        external(),
        internal(),
        SessionParams {
            four_octet_as: false,
            ..external()
        },
        SessionParams {
            four_octet_as: false,
            ..internal()
        },
        SessionParams {
            families: vec![Family::IPV4],
            ..external()
        },
        SessionParams {
            add_path_receive: add_path.clone(),
            add_path_send: add_path,
            extended_next_hop: true,
            extended_message: true,
            ..internal()
        },
    ]
}

/// At least one message of each kind, with every attribute in it.
pub(super) fn valid_messages(params: &SessionParams) -> Vec<Vec<u8>> {
    let notification = Notification::with_text(ErrorCode::CEASE_ADMIN_SHUTDOWN, "for maintenance");
    let refresh = RouteRefresh {
        family: Family::IPV6,
        subtype: 0,
    };
    let mut messages = vec![
        encode_open(&full_open()),
        encode_notification(&notification),
        encode_notification(&notification.into_hard_reset()),
        encode_route_refresh(&refresh),
        encode_keepalive(),
    ];
    let encoder = UpdateEncoder::new(params);
    let mut add = |family: Family, attributes: &Attributes, next_hop: NextHop| {
        let prefixes = prefixes(family);
        let mut bytes = Vec::new();
        let announced =
            encoder.announce(family, attributes, next_hop, prefixes.clone(), &mut bytes);
        announced.unwrap();
        messages.push(bytes);
        let mut bytes = Vec::new();
        encoder.withdraw(family, prefixes, &mut bytes).unwrap();
        messages.push(bytes);
        let mut bytes = Vec::new();
        encoder.end_of_rib(family, &mut bytes);
        messages.push(bytes);
    };
    let v6 = "2001:db8::1".parse().unwrap();
    let v6 = NextHop {
        address: v6,
        link_local: Some("fe80::1".parse().unwrap()),
    };
    let v4 = NextHop {
        address: [192, 0, 2, 1].into(),
        link_local: None,
    };
    for attributes in [&full_attributes(), &plain_attributes()] {
        add(Family::IPV4, attributes, v4);
        add(Family::IPV6, attributes, v6);
        if params.extended_next_hop {
            add(Family::IPV4, attributes, v6);
        }
    }
    messages
}

fn prefixes(family: Family) -> Vec<Nlri> {
    let texts = match family {
        Family::IPV4 => ["0.0.0.0/0", "10.0.0.0/8", "10.1.128.0/17", "192.0.2.1/32"],
        _ => [
            "::/0",
            "2001:db8::/32",
            "2001:db8:8000::/33",
            "2001:db8::1/128",
        ],
    };
    let prefixes = texts.iter().zip(0..);
    let prefixes = prefixes.map(|(text, path_id)| Nlri {
        prefix: text.parse::<IpNet>().unwrap(),
        path_id,
    });
    prefixes.collect()
}

fn plain_attributes() -> Attributes {
    Attributes {
        as_path: AsPath::from_sequence(vec![65001, 65002]),
        ..Attributes::default()
    }
}

fn full_attributes() -> Attributes {
    Attributes {
        origin: Origin::Incomplete,
        as_path: AsPath::from_sequence(vec![65001, 4_200_000_001, 65003]),
        med: Some(10),
        local_pref: Some(200),
        atomic_aggregate: true,
        aggregator: Some((4_200_000_001, [192, 0, 2, 7].into())),
        communities: vec![0xfde9_0001, 0xffff_0000],
        originator_id: Some([192, 0, 2, 8].into()),
        cluster_list: vec![[192, 0, 2, 9].into(), [192, 0, 2, 10].into()],
        extended_communities: vec![[0, 2, 0xfd, 0xe9, 0, 0, 0, 1]],
        large_communities: vec![[65001, 1, 2]],
        otc: Some(65001),
        unknown: vec![UnknownAttribute {
            flags: 0xe0,
            code: 99,
            value: vec![1, 2, 3],
        }],
    }
}

fn full_open() -> Open {
    let families = [Family::IPV4, Family::IPV6];
    let restart = GracefulRestart {
        restarting: true,
        notification: true,
        restart_time: 120,
        families: families.map(|family| (family, true)).to_vec(),
    };
    Open {
        as_number: 4_200_000_001,
        hold_time: 90,
        router_id: [192, 0, 2, 5].into(),
        capabilities: vec![
            Capability::MultiProtocol(Family::IPV4),
            Capability::MultiProtocol(Family::IPV6),
            Capability::RouteRefresh,
            Capability::ExtendedNextHop(vec![(Family::IPV4, 2)]),
            Capability::ExtendedMessage,
            Capability::Role(4),
            Capability::GracefulRestart(restart),
            Capability::FourOctetAs(4_200_000_001),
            Capability::AddPath(families.map(|family| (family, 3)).to_vec()),
            Capability::EnhancedRouteRefresh,
            Capability::LongLivedGracefulRestart(vec![(Family::IPV4, true, 3600)]),
            Capability::Fqdn {
                host: "node".to_owned(),
                domain: "example".to_owned(),
            },
            Capability::Unknown {
                code: 75,
                value: vec![4, b'o', b'c', b'i', b'1'],
            },
        ],
    }
}
