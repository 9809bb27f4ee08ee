use super::{clean, invalid, valid};
use crate::Selector;
use crate::object::{
    AddPath, BfdProfile, BgpConfiguration, BgpFilter, BgpFilterAction, BgpFilterOperation,
    BgpFilterRule, BgpPeer, BgpPeerType, BgpRole, BgpRoleName, BindMode, Community, DynamicPeers,
    MatchOperator, MaxPrefixes, NextHopMode, Object, PrefixAdvertisement, PrefixMatch, RemoteAs,
    SecretKeyRef,
};
use ipnet::IpNet;
use serde_json::{Value, json};

fn peer_document(spec: Value) -> Value {
    json!({ "apiVersion": "projectcalico.org/v3", "kind": "BGPPeer",
        "metadata": { "name": "rack1" }, "spec": spec })
}

fn peer(spec: Value) -> BgpPeer {
    match clean(&peer_document(spec)) {
        Object::BgpPeer(peer) => *peer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_peer_is_defaulted_as_in_calico() {
    let expected = BgpPeer {
        peer_ip: Some([10, 0, 0, 1].into()),
        as_number: Some(64513),
        ..BgpPeer::new("rack1")
    };
    assert_eq!(
        peer(json!({ "peerIP": "10.0.0.1", "asNumber": 64513 })),
        expected
    );
}

#[test]
fn a_peer_address_may_carry_a_port_in_both_families() {
    for (text, address, port) in [
        ("10.0.0.1", "10.0.0.1", 179),
        ("10.0.0.1:1790", "10.0.0.1", 1790),
        ("fd00::1", "fd00::1", 179),
        ("[fd00::1]:1790", "fd00::1", 1790),
    ] {
        let peer = peer(json!({ "peerIP": text, "asNumber": 1 }));
        assert_eq!(
            (peer.peer_ip, peer.peer_port),
            (Some(address.parse().unwrap()), port)
        );
    }
}

#[test]
fn an_as_number_is_a_number_or_a_string_plain_or_dotted() {
    for (value, expected) in [
        (json!(4_294_967_295_u32), u32::MAX),
        (json!("64512"), 64512),
        (json!("1.10"), 65546),
        (json!("65535.65535"), u32::MAX),
    ] {
        let peer = peer(json!({ "peerIP": "10.0.0.1", "asNumber": value }));
        assert_eq!(peer.as_number, Some(expected));
    }
}

#[test]
fn every_field_of_a_peer_is_read() {
    let peer = peer(json!({
        "nodeSelector": "rack == 'r1'", "peerSelector": "has(route-reflector)",
        "localASNumber": 65001, "nextHopMode": "Keep", "maxRestartTime": "1m30s",
        "keepaliveTime": "20s", "numAllowedLocalASNumbers": 2,
    }));
    assert_eq!(peer.node_selector, Selector::Eq("rack".into(), "r1".into()));
    assert_eq!(
        peer.peer_selector,
        Some(Selector::Has("route-reflector".into()))
    );
    assert_eq!(peer.local_as_number, Some(65001));
    assert_eq!(peer.next_hop_mode, NextHopMode::Keep);
    assert_eq!(
        (peer.max_restart_time, peer.keepalive_time),
        (Some(90), Some(20))
    );
    assert_eq!(peer.num_allowed_local_as_numbers, 2);
}

#[test]
fn a_mistake_in_a_peer_is_named_with_its_field() {
    for (spec, expected) in [
        (
            json!({ "peerIP": "10.10.1", "asNumber": 1 }),
            r#"spec.peerIP: "10.10.1" is not an IP address"#,
        ),
        (
            json!({ "peerIP": "10.0.0.1:0", "asNumber": 1 }),
            r#"spec.peerIP: "10.0.0.1:0" is not an IP address with a port from 1 to 65535"#,
        ),
        (
            json!({ "peerIP": "0.0.0.0", "asNumber": 1 }),
            r#"spec.peerIP: "0.0.0.0" is not a unicast address"#,
        ),
        (
            json!({ "peerIP": 5, "asNumber": 1 }),
            "spec.peerIP: 5 is not a string; write it in quotes",
        ),
        (json!({}), "spec.peerIP: is required, or peerSelector"),
        (
            json!({ "peerIP": "10.0.0.1", "asNumber": 1, "ocicat": { "peerInterface": "eth0" } }),
            "spec.ocicat.peerInterface: may not stand beside peerIP",
        ),
        (
            json!({ "ocicat": { "peerInterface": "eth0" } }),
            "spec.asNumber: is required, or ocicat.remoteAS",
        ),
        (
            json!({ "peerIP": "10.0.0.1", "asNumber": 1, "ocicat": { "remoteAS": "External" } }),
            "spec.ocicat.remoteAS: may not stand beside asNumber",
        ),
        (
            json!({ "localWorkloadSelector": "all()" }),
            "spec.asNumber: is required, or ocicat.remoteAS",
        ),
        (
            json!({ "asNumber": 1, "ocicat": { "peerPrefix": "10.0.0.1/24" } }),
            r#"spec.ocicat.peerPrefix: "10.0.0.1/24" has host bits set; its network is "10.0.0.0/24""#,
        ),
        (
            json!({ "peerIP": "10.0.0.1", "asNumber": 1, "ocicat": { "peerLimit": 1 } }),
            "spec.ocicat.peerLimit: needs peerPrefix",
        ),
        (
            json!({ "peerIP": "10.0.0.1", "asNumber": 1, "ocicat": { "holdTime": "2s" } }),
            "spec.ocicat.holdTime: must be at least 3s",
        ),
        (
            json!({ "peerIP": "10.0.0.1", "asNumber": 1, "keepaliveTime": "9s", "ocicat": { "holdTime": "9s" } }),
            "spec.keepaliveTime: must be less than ocicat.holdTime",
        ),
        (
            json!({ "peerIP": "10.0.0.1", "asNumber": 1, "ocicat": { "bfd": { "minInterval": "5ms" } } }),
            r#"spec.ocicat.bfd.minInterval: "5ms" is not a duration such as "50ms", 10ms to 60000ms"#,
        ),
        (
            json!({ "peerIP": "10.0.0.1", "asNumber": 1, "ocicat": { "bfd": { "echo": true } } }),
            "spec.ocicat.bfd.echo: unknown field",
        ),
        (
            json!({ "peerIP": "10.0.0.1", "asNumber": 1, "ocicat": { "roleStrict": true } }),
            "spec.ocicat.roleStrict: needs role",
        ),
        (
            json!({ "peerIP": "10.0.0.1", "asNumber": 1, "reachableBy": "fd00::1" }),
            "spec.reachableBy: is not of the family of peerIP",
        ),
        (
            json!({ "peerIP": "10.0.0.1", "asNumber": 1, "ttlSecurity": 256 }),
            "spec.ttlSecurity: 256 is not an integer from 0 to 255",
        ),
        (
            json!({ "peerIP": "10.0.0.1", "asNumber": 1, "filters": ["A"] }),
            r#"spec.filters[0]: "A" is not an RFC 1123 subdomain (at most 253 of a-z, 0-9, - and .)"#,
        ),
        (
            json!({ "peerIP": "10.0.0.1" }),
            "spec.asNumber: is required with peerIP",
        ),
        (
            json!({ "peerIP": "10.0.0.1", "asNumber": 0 }),
            "spec.asNumber: 0 is not an AS number (1 to 4294967295)",
        ),
        (
            json!({ "peerIP": "10.0.0.1", "asNumber": 1.1 }),
            "spec.asNumber: write an AS number with a dot in quotes",
        ),
        (
            json!({ "peerIP": "10.0.0.1", "asNumber": "+1" }),
            r#"spec.asNumber: "+1" is not an AS number (1 to 4294967295)"#,
        ),
        (
            json!({ "peerIP": "10.0.0.1", "peerSelector": "all()" }),
            "spec.peerSelector: may not stand beside peerIP",
        ),
        (
            json!({ "peerSelector": "all()", "asNumber": 1 }),
            "spec.asNumber: comes from the selected nodes with peerSelector",
        ),
        (
            json!({ "peerSelector": "all()", "node": "n1", "nodeSelector": "all()" }),
            "spec.nodeSelector: may not stand beside node",
        ),
        (
            json!({ "peerSelector": "a ==" }),
            r#"spec.peerSelector: "a ==" is not a selector: column 5: expected a string in quotes, found the end"#,
        ),
        (
            json!({ "peerIP": "10.0.0.1", "asNumber": 1, "password": {} }),
            "spec.password.secretKeyRef: is required",
        ),
        (
            json!({ "peerSelector": "all()", "maxRestartTime": "4096s" }),
            r#"spec.maxRestartTime: "4096s" is not a duration in whole seconds such as "120s", at most 4095s"#,
        ),
        (
            json!({ "peerSelector": "all()", "maxRestartTime": 120 }),
            r#"spec.maxRestartTime: 120 is not a duration in whole seconds such as "120s", at most 4095s"#,
        ),
    ] {
        let (message, fallback) = invalid(&peer_document(spec));
        assert_eq!(message, format!("BGPPeer/rack1: {expected}"));
        assert_eq!(fallback, None);
    }
}

#[test]
fn an_unknown_field_of_a_peer_is_a_warning_that_names_it() {
    let spec = json!({ "peerIP": "10.0.0.1", "asNumber": 1, "asNumer": 2, "birdGatewayMode": "Recursive" });
    let (_, warnings) = valid(&peer_document(spec));
    assert_eq!(
        warnings,
        [
            "spec.birdGatewayMode: not supported yet, ignored",
            "spec.asNumer: unknown field, ignored"
        ]
    );
}

#[test]
fn a_configuration_is_defaulted_as_in_calico_and_read_in_full() {
    let document = |spec: Value| {
        json!({ "apiVersion": "projectcalico.org/v3", "kind": "BGPConfiguration",
            "metadata": { "name": "default" }, "spec": spec })
    };
    let defaults = BgpConfiguration {
        name: "default".into(),
        as_number: 64512,
        node_to_node_mesh_enabled: true,
        listen_port: 179,
        node_mesh_max_restart_time: 120,
        ..BgpConfiguration::default()
    };
    assert_eq!(
        clean(&document(json!({}))),
        Object::BgpConfiguration(Box::new(defaults.clone()))
    );
    let spec = json!({ "asNumber": "1.1", "nodeToNodeMeshEnabled": false, "listenPort": 1179,
        "nodeMeshMaxRestartTime": "2m1s" });
    let expected = BgpConfiguration {
        as_number: 65537,
        node_to_node_mesh_enabled: false,
        listen_port: 1179,
        node_mesh_max_restart_time: 121,
        ..defaults
    };
    assert_eq!(
        clean(&document(spec)),
        Object::BgpConfiguration(Box::new(expected))
    );
    for (spec, expected) in [
        (
            json!({ "nodeMeshPassword": {} }),
            "spec.nodeMeshPassword.secretKeyRef: is required",
        ),
        (
            json!({ "nodeMeshPassword": { "secretKeyRef": { "name": "a", "key": "b", "path": "c" } } }),
            "spec.nodeMeshPassword.secretKeyRef.path: unknown field",
        ),
        (
            json!({ "ignoredInterfaces": ["*"] }),
            r#"spec.ignoredInterfaces[0]: "*" would ignore every interface"#,
        ),
        (
            json!({ "logSeverityScreen": "info" }),
            r#"spec.logSeverityScreen: "info" is not one of Debug, Info, Warning, Error, Fatal"#,
        ),
        (
            json!({ "serviceClusterIPs": [{}] }),
            "spec.serviceClusterIPs[0].cidr: is required",
        ),
        (
            json!({ "prefixAdvertisements": [{ "cidr": "10.0.0.0/8", "communities": ["blue"] }] }),
            r#"spec.prefixAdvertisements[0].communities[0]: "blue" is not a community (aa:nn or aa:nn:mm), nor a name in spec.communities"#,
        ),
        (
            json!({ "communities": [{ "name": "blue", "value": "65536:1" }] }),
            r#"spec.communities[0].value: "65536:1" is not a community (aa:nn of 16 bits each, or aa:nn:mm of 32 bits each)"#,
        ),
        (
            json!({ "localWorkloadPeeringIPV4": "fe80::1" }),
            r#"spec.localWorkloadPeeringIPV4: "fe80::1" is not an address of its family"#,
        ),
    ] {
        let (message, _) = invalid(&document(spec));
        assert_eq!(message, format!("BGPConfiguration/default: {expected}"));
    }
}

#[test]
fn a_configuration_says_what_is_announced_of_services_and_with_which_communities() {
    let document = json!({ "apiVersion": "projectcalico.org/v3", "kind": "BGPConfiguration",
        "metadata": { "name": "default" }, "spec": {
            "nodeMeshPassword": { "secretKeyRef": { "name": "bgp", "key": "mesh" } },
            "bindMode": "NodeIP", "ignoredInterfaces": ["docker*"], "logSeverityScreen": "Info",
            "serviceClusterIPs": [{ "cidr": "10.96.0.0/12" }, { "cidr": "fd00:96::/108" }],
            "serviceExternalIPs": [{ "cidr": "203.0.113.0/24" }],
            "serviceLoadBalancerIPs": [{ "cidr": "198.51.100.7" }],
            "serviceLoadBalancerAggregation": "Disabled",
            "communities": [{ "name": "blue", "value": "64512:1" }],
            "prefixAdvertisements": [{ "cidr": "10.244.0.0/16", "communities": ["blue", "1:2:3"],
                "ocicat": { "localPreference": 200 } }],
            "localWorkloadPeeringIPV4": "169.254.0.179", "localWorkloadPeeringIPV6": "fe80::179",
            "ocicat": { "ebgpRequiresPolicy": true },
        } });
    let nets = |all: &[&str]| {
        all.iter()
            .map(|net| net.parse().unwrap())
            .collect::<Vec<IpNet>>()
    };
    let expected = BgpConfiguration {
        node_mesh_password: Some(SecretKeyRef {
            name: "bgp".into(),
            key: "mesh".into(),
            optional: false,
        }),
        bind_mode: BindMode::NodeIp,
        ignored_interfaces: vec!["docker*".into()],
        service_cluster_ips: nets(&["10.96.0.0/12", "fd00:96::/108"]),
        service_external_ips: nets(&["203.0.113.0/24"]),
        service_load_balancer_ips: nets(&["198.51.100.7/32"]),
        service_load_balancer_aggregation: false,
        prefix_advertisements: vec![PrefixAdvertisement {
            cidr: "10.244.0.0/16".parse().unwrap(),
            communities: vec![Community::Standard(64512, 1), Community::Large(1, 2, 3)],
            local_preference: Some(200),
        }],
        local_workload_peering_ipv4: Some([169, 254, 0, 179].into()),
        local_workload_peering_ipv6: Some("fe80::179".parse().unwrap()),
        ebgp_requires_policy: true,
        ..BgpConfiguration::default()
    };
    assert_eq!(
        clean(&document),
        Object::BgpConfiguration(Box::new(expected))
    );
}

#[test]
fn a_peer_has_everything_that_calico_has_and_more() {
    let found = peer(json!({
        "peerIP": "10.0.0.1", "asNumber": 65001, "filters": ["no-default", "own"],
        "password": { "secretKeyRef": { "name": "bgp", "key": "rack1", "optional": true } },
        "sourceAddress": "None", "ttlSecurity": 1, "reachableBy": "10.0.0.254",
        "failureDetectionMode": "BFDIfDirectlyConnected", "reversePeering": "Manual",
        "restartMode": "LongLivedGracefulRestart", "maxRestartTime": "24h",
        "ocicat": { "bindInterface": "eth1", "passive": true, "holdTime": "9s",
            "maxPrefixes": { "limit": 1000, "restartAfter": "5m" }, "role": "Customer",
            "roleStrict": true, "addPath": "Both", "gracefulShutdown": true, "shutdown": "swap" },
    }));
    let expected = BgpPeer {
        peer_ip: Some([10, 0, 0, 1].into()),
        as_number: Some(65001),
        filters: vec!["no-default".into(), "own".into()],
        password: Some(SecretKeyRef {
            name: "bgp".into(),
            key: "rack1".into(),
            optional: true,
        }),
        use_node_ip: false,
        ttl_security: Some(1),
        reachable_by: Some([10, 0, 0, 254].into()),
        bfd: Some(BfdProfile::default()),
        reverse_peering: false,
        long_lived_stale_time: Some(86_400),
        bind_interface: Some("eth1".into()),
        passive: true,
        hold_time: Some(9),
        max_prefixes: Some(MaxPrefixes {
            limit: 1000,
            warn_percent: 75,
            restart_after: Some(300),
        }),
        role: Some(BgpRole {
            name: BgpRoleName::Customer,
            strict: true,
        }),
        add_path: AddPath::Both,
        graceful_shutdown: true,
        shutdown: Some("swap".into()),
        ..BgpPeer::new("rack1")
    };
    assert_eq!(found, expected);
    let interface = peer(
        json!({ "ocicat": { "peerInterface": "eth0", "remoteAS": "External",
        "bfd": { "minInterval": "50ms", "multiplier": 5, "multihop": true, "passive": true } } }),
    );
    assert_eq!(interface.peer_interface.as_deref(), Some("eth0"));
    assert_eq!(interface.remote_as, RemoteAs::Type(BgpPeerType::External));
    let bfd = BfdProfile {
        min_interval_ms: 50,
        multiplier: 5,
        passive: true,
        multihop: true,
    };
    assert_eq!(interface.bfd, Some(bfd));
    let dynamic = peer(json!({ "asNumber": 65001, "ocicat": { "peerPrefix": "10.0.0.0/24" } }));
    let peers = DynamicPeers {
        prefix: "10.0.0.0/24".parse().unwrap(),
        limit: 100,
    };
    assert_eq!(dynamic.peer_prefix, Some(peers));
}

fn filter_document(spec: Value) -> Value {
    json!({ "apiVersion": "projectcalico.org/v3", "kind": "BGPFilter",
        "metadata": { "name": "own" }, "spec": spec })
}

fn as_filter(object: Object) -> BgpFilter {
    match object {
        Object::BgpFilter(filter) => *filter,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_filter_is_read_in_full() {
    let found = as_filter(clean(&filter_document(json!({
        "exportV4": [{ "action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In",
            "prefixLength": { "min": 16, "max": 24 }, "source": "RemotePeers", "interface": "eth*",
            "peerType": "eBGP", "communities": { "values": ["64512:7"] }, "asPathPrefix": [65001, "1.1"],
            "priority": 1024, "operations": [
                { "addCommunity": { "value": "1:2:3" } }, { "removeCommunity": { "value": "1:2" } },
                { "prependASPath": { "prefix": [65001, 65002] } }, { "setPriority": { "value": 7 } },
                { "setLocalPreference": { "value": 200 } }, { "setMED": { "value": 0 } } ] }],
        "importV6": [{ "action": "Reject", "cidr": "fd00::/8", "matchOperator": "NotEqual" },
            { "action": "Accept" }],
    }))));
    let expected = BgpFilterRule {
        prefix: Some(PrefixMatch {
            cidr: "10.0.0.0/8".parse().unwrap(),
            operator: MatchOperator::In,
            min_length: 16,
            max_length: 24,
        }),
        from_peers_only: true,
        interface: Some("eth*".into()),
        peer_type: Some(BgpPeerType::External),
        community: Some(Community::Standard(64512, 7)),
        as_path_prefix: vec![65001, 65537],
        priority: Some(1024),
        operations: vec![
            BgpFilterOperation::AddCommunity(Community::Large(1, 2, 3)),
            BgpFilterOperation::RemoveCommunity(Community::Standard(1, 2)),
            BgpFilterOperation::PrependAsPath(vec![65001, 65002]),
            BgpFilterOperation::SetPriority(7),
            BgpFilterOperation::SetLocalPreference(200),
            BgpFilterOperation::SetMed(0),
        ],
        ..BgpFilterRule::every_route(BgpFilterAction::Accept)
    };
    assert_eq!(found.export_v4, [expected]);
    let rejects = BgpFilterRule {
        prefix: Some(PrefixMatch {
            cidr: "fd00::/8".parse().unwrap(),
            operator: MatchOperator::NotEqual,
            min_length: 8,
            max_length: 128,
        }),
        ..BgpFilterRule::every_route(BgpFilterAction::Reject)
    };
    let accepts = BgpFilterRule::every_route(BgpFilterAction::Accept);
    assert_eq!(found.import_v6, [rejects, accepts]);
    assert!(found.import_v4.is_empty() && found.export_v6.is_empty());
}

#[test]
fn a_mistake_in_a_filter_is_named_and_the_fallback_lets_nothing_pass() {
    for (rule, expected) in [
        (json!({}), "action: is required"),
        (
            json!({ "action": "Allow" }),
            r#"action: "Allow" is not one of Accept, Reject"#,
        ),
        (
            json!({ "action": "Accept", "cidr": "10.0.0.0/8" }),
            "matchOperator: is required with cidr",
        ),
        (
            json!({ "action": "Accept", "matchOperator": "In" }),
            "cidr: is required with matchOperator",
        ),
        (
            json!({ "action": "Accept", "prefixLength": { "min": 1 } }),
            "cidr: is required with prefixLength",
        ),
        (
            json!({ "action": "Accept", "cidr": "fd00::/8", "matchOperator": "In" }),
            "cidr: fd00::/8 is not of this list's family",
        ),
        (
            json!({ "action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": { "min": 33 } }),
            "prefixLength.min: 33 is not an integer from 0 to 32",
        ),
        (
            json!({ "action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": { "min": 24, "max": 16 } }),
            "prefixLength.max: 16 is less than 24",
        ),
        (
            json!({ "action": "Accept", "peerType": "EBGP" }),
            r#"peerType: "EBGP" is not one of eBGP, iBGP"#,
        ),
        (
            json!({ "action": "Accept", "communities": { "values": ["1:1", "2:2"] } }),
            "communities.values: must have one value",
        ),
        (
            json!({ "action": "Accept", "priority": 0 }),
            "priority: 0 is not an integer from 1 to 2147483646",
        ),
        (
            json!({ "action": "Reject", "operations": [{ "setPriority": { "value": 1 } }] }),
            "operations: may stand only in a rule that accepts",
        ),
        (
            json!({ "action": "Accept", "operations": [{}] }),
            "operations[0]: must have exactly one of addCommunity, removeCommunity, prependASPath, setPriority, setLocalPreference, setMED",
        ),
        (
            json!({ "action": "Accept", "operations": [{ "prependASPath": { "prefix": [0] } }] }),
            "operations[0].prependASPath.prefix[0]: 0 is not an AS number (1 to 4294967295)",
        ),
    ] {
        let (message, fallback) = invalid(&filter_document(json!({ "importV4": [rule] })));
        assert_eq!(
            message,
            format!("BGPFilter/own: spec.importV4[0].{expected}")
        );
        let rejects = [BgpFilterRule::every_route(BgpFilterAction::Reject)];
        let fallback = as_filter(fallback.unwrap());
        assert_eq!(
            (&fallback.import_v4[..], &fallback.export_v6[..]),
            (&rejects[..], &rejects[..])
        );
    }
    let spec =
        json!({ "exportV6": [{ "action": "Accept", "vrf": 1 }, { "action": "Reject", "vrf": 1 }] });
    let (object, warnings) = valid(&filter_document(spec));
    assert_eq!(
        as_filter(object).export_v6,
        [BgpFilterRule::every_route(BgpFilterAction::Reject)]
    );
    assert_eq!(
        warnings,
        [
            "spec.exportV6[0].vrf: unknown field, so this rule is left out",
            "spec.exportV6[1].vrf: unknown field, so this rule rejects whatever the rest of it matches",
        ]
    );
}
