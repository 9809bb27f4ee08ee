use super::{clean, invalid, valid};
use crate::object::{
    EndpointToHostAction, FailsafePort, FelixConfiguration, NatOutgoingExclusions, Object,
    Protocol, ServiceLoopPrevention,
};
use serde_json::{Value, json};

fn document(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "projectcalico.org/v3", "kind": "FelixConfiguration",
        "metadata": { "name": name }, "spec": spec })
}

#[test]
fn settings_that_mean_something_are_read_and_the_others_named() {
    let spec = json!({
        "failsafeInboundHostPorts": [{ "port": 22, "net": "10.0.0.0/8" }],
        "failsafeOutboundHostPorts": [{ "protocol": "udp", "port": 53 }],
        "defaultEndpointToHostAction": "Accept", "serviceLoopPrevention": "Reject",
        "allowIPIPPacketsFromWorkloads": true, "allowVXLANPacketsFromWorkloads": false,
        "externalNodesList": ["192.0.2.1"], "natPortRange": "32768:65535",
        "natOutgoingAddress": "192.0.2.9", "natOutgoingExclusions": "IPPoolsAndHostIPs",
        "ipipMTU": 1480, "vxlanMTU": 1450, "vxlanMTUV6": 1430, "vxlanPort": 4790, "vxlanVNI": 7,
        "deviceRouteSourceAddress": "", "deviceRouteSourceAddressIPv6": "fd00::1",
        "logPrefix": "p", "wireguardEnabled": false, "bpfEnabled": false, "ipsecMode": "",
    });
    let port = |protocol, port, net: Option<&str>| FailsafePort {
        protocol,
        port,
        net: net.map(|net| net.parse().unwrap()),
    };
    let expected = FelixConfiguration {
        name: "default".into(),
        failsafe_inbound_host_ports: Some(vec![port(Protocol::Tcp, 22, Some("10.0.0.0/8"))]),
        failsafe_outbound_host_ports: Some(vec![port(Protocol::Udp, 53, None)]),
        default_endpoint_to_host_action: Some(EndpointToHostAction::Accept),
        service_loop_prevention: Some(ServiceLoopPrevention::Reject),
        allow_ipip_packets_from_workloads: Some(true),
        allow_vxlan_packets_from_workloads: Some(false),
        external_nodes: Some(vec!["192.0.2.1/32".parse().unwrap()]),
        nat_port_range: Some((32768, 65535)),
        nat_outgoing_address: Some([192, 0, 2, 9].into()),
        nat_outgoing_exclusions: Some(NatOutgoingExclusions::IpPoolsAndHostIps),
        ipip_mtu: Some(1480),
        vxlan_mtu: Some(1450),
        vxlan_mtu_v6: Some(1430),
        vxlan_port: Some(4790),
        vxlan_vni: Some(7),
        device_route_source_address: None,
        device_route_source_address_ipv6: Some("fd00::1".parse().unwrap()),
        log_prefix: Some("p".into()),
    };
    let (object, warnings) = valid(&document("default", spec));
    assert_eq!(object, Object::FelixConfiguration(Box::new(expected)));
    assert_eq!(warnings, ["spec.bpfEnabled: not used here, ignored"]);
    let nothing = FelixConfiguration {
        name: "node.n1".into(),
        ..FelixConfiguration::default()
    };
    assert_eq!(
        clean(&document("node.n1", json!({}))),
        Object::FelixConfiguration(Box::new(nothing))
    );
}

#[test]
fn encryption_that_is_asked_for_and_not_there_makes_the_object_invalid() {
    for (field, value) in [
        ("wireguardEnabled", json!(true)),
        ("wireguardEnabledV6", json!(true)),
        ("wireguardHostEncryptionEnabled", json!("yes")),
        ("ipsecMode", json!("PSK")),
    ] {
        let mut spec = json!({});
        spec[field] = value;
        let (message, fallback) = invalid(&document("default", spec));
        let expected = "not supported: traffic between nodes is not encrypted";
        assert_eq!(
            message,
            format!("FelixConfiguration/default: spec.{field}: {expected}")
        );
        assert_eq!(fallback, None);
    }
}

#[test]
fn a_mistake_is_named_with_its_field() {
    for (spec, expected) in [
        (
            json!({ "natPortRange": "2:1" }),
            r#"spec.natPortRange: "2:1" is not 0, a port or a range such as "32768:65535""#,
        ),
        (
            json!({ "vxlanVNI": 16_777_216 }),
            "spec.vxlanVNI: 16777216 is not an integer from 1 to 16777215",
        ),
        (
            json!({ "failsafeInboundHostPorts": [{ "port": 22, "from": "x" }] }),
            "spec.failsafeInboundHostPorts[0].from: unknown field",
        ),
        (
            json!({ "defaultEndpointToHostAction": "DROP" }),
            r#"spec.defaultEndpointToHostAction: "DROP" is not one of Drop, Accept, Return"#,
        ),
    ] {
        let (message, _) = invalid(&document("default", spec));
        assert_eq!(message, format!("FelixConfiguration/default: {expected}"));
    }
}

#[test]
fn what_stays_open_without_a_configuration_is_what_calico_leaves_open() {
    let ports = |all: Vec<FailsafePort>, protocol| -> Vec<u16> {
        let of_protocol = all.iter().filter(|port| port.protocol == protocol);
        of_protocol.map(|port| port.port).collect()
    };
    let inbound = FelixConfiguration::default_failsafe_inbound();
    let outbound = FelixConfiguration::default_failsafe_outbound();
    assert_eq!(ports(inbound.clone(), Protocol::Udp), [68]);
    assert_eq!(
        ports(inbound, Protocol::Tcp),
        [22, 179, 2379, 2380, 5473, 6443, 6666, 6667]
    );
    assert_eq!(ports(outbound.clone(), Protocol::Udp), [53, 67]);
    assert_eq!(
        ports(outbound, Protocol::Tcp),
        [179, 2379, 2380, 5473, 6443, 6666, 6667]
    );
}
