use super::{clean, invalid, valid};
use crate::Selector;
use crate::object::{BgpConfiguration, BgpPeer, NextHopMode, Object};
use serde_json::{Value, json};

fn peer_document(spec: Value) -> Value {
    json!({ "apiVersion": "projectcalico.org/v3", "kind": "BGPPeer",
        "metadata": { "name": "rack1" }, "spec": spec })
}

fn peer(spec: Value) -> BgpPeer {
    match clean(&peer_document(spec)) {
        Object::BgpPeer(peer) => peer,
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
            "spec.password: not supported yet",
        ),
        (
            json!({ "peerSelector": "all()", "maxRestartTime": "4096s" }),
            r#"spec.maxRestartTime: "4096s" is not a duration in whole seconds such as "120s", at most 4095s"#,
        ),
        (
            json!({ "peerSelector": "all()", "maxRestartTime": 120 }),
            r#"spec.maxRestartTime: 120 is not a duration in whole seconds such as "120s", at most 4095s"#,
        ),
        (
            json!({ "peerIP": "10.0.0.1", "asNumber": 1, "ttlSecurity": 1 }),
            "spec.ttlSecurity: not supported yet: TTLs of received packets are not checked",
        ),
    ] {
        let (message, fallback) = invalid(&peer_document(spec));
        assert_eq!(message, format!("BGPPeer/rack1: {expected}"));
        assert_eq!(fallback, None);
    }
}

#[test]
fn an_unknown_field_of_a_peer_is_a_warning_that_names_it() {
    let spec =
        json!({ "peerIP": "10.0.0.1", "asNumber": 1, "asNumer": 2, "sourceAddress": "None" });
    let (_, warnings) = valid(&peer_document(spec));
    assert_eq!(
        warnings,
        [
            "spec.sourceAddress: not supported yet, ignored",
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
        Object::BgpConfiguration(defaults.clone())
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
    assert_eq!(clean(&document(spec)), Object::BgpConfiguration(expected));
    let (message, _) = invalid(&document(json!({ "nodeMeshPassword": {} })));
    assert_eq!(
        message,
        "BGPConfiguration/default: spec.nodeMeshPassword: not supported yet"
    );
}
