use super::{clean, invalid, valid};
use crate::Labels;
use crate::object::{
    EndpointSlice, ExternalTrafficPolicy, HostEndpoint, IpFamily, NamedPort, NetworkSet, Object,
    Profile, Protocol, Service, ServiceAccount, ServicePort, ServiceType,
};
use serde_json::{Value, json};

fn calico(kind: &str, spec: Value) -> Value {
    json!({ "apiVersion": "projectcalico.org/v3", "kind": kind,
        "metadata": { "name": "x", "labels": { "a": "b" } }, "spec": spec })
}

fn labels() -> Labels {
    Labels::from([("a".to_owned(), "b".to_owned())])
}

#[test]
fn a_network_set_holds_prefixes_and_addresses() {
    let spec = json!({ "nets": ["10.0.0.0/8", "fd00::1"] });
    let nets = vec![
        "10.0.0.0/8".parse().unwrap(),
        "fd00::1/128".parse().unwrap(),
    ];
    for (kind, namespace) in [
        ("GlobalNetworkSet", None),
        ("NetworkSet", Some("default".to_owned())),
    ] {
        let expected = NetworkSet {
            namespace,
            name: "x".into(),
            labels: labels(),
            nets: nets.clone(),
        };
        assert_eq!(expected.kind().as_str(), kind);
        assert_eq!(
            clean(&calico(kind, spec.clone())),
            Object::NetworkSet(expected)
        );
    }
    let (message, _) = invalid(&calico(
        "NetworkSet",
        json!({ "nets": ["10.0.0.0/8", "x"] }),
    ));
    assert_eq!(
        message,
        r#"NetworkSet/default/x: spec.nets[1]: "x" is not a CIDR such as "10.0.0.0/8""#
    );
}

#[test]
fn a_host_endpoint_is_an_interface_or_what_holds_an_address() {
    let spec = json!({ "node": "n1", "interfaceName": "*", "expectedIPs": ["10.1.0.11"],
        "profiles": ["projectcalico-default-allow"],
        "ports": [{ "name": "metrics", "port": 9100, "protocol": "TCP" }] });
    let expected = HostEndpoint {
        name: "x".into(),
        labels: labels(),
        node: "n1".into(),
        interface_name: Some("*".into()),
        expected_ips: vec!["10.1.0.11".parse().unwrap()],
        ports: vec![NamedPort {
            name: "metrics".into(),
            protocol: Protocol::Tcp,
            port: 9100,
        }],
        profiles: vec!["projectcalico-default-allow".into()],
    };
    assert_eq!(
        clean(&calico("HostEndpoint", spec)),
        Object::HostEndpoint(Box::new(expected))
    );
    for (spec, expected) in [
        (json!({ "interfaceName": "eth0" }), "spec.node: is required"),
        (
            json!({ "node": "n1" }),
            "spec.interfaceName: is required, or expectedIPs",
        ),
        (
            json!({ "node": "n1", "interfaceName": "eth0/1" }),
            r#"spec.interfaceName: "eth0/1" is not a name of an interface (at most 15 of a-z, A-Z, 0-9, _, . and -)"#,
        ),
        (
            json!({ "node": "n1", "expectedIPs": ["10.1.0.0/24"] }),
            r#"spec.expectedIPs[0]: "10.1.0.0/24" is not an IP address"#,
        ),
        (
            json!({ "node": "n1", "interfaceName": "e", "ports": [{ "name": "a", "port": 1, "protocol": "ICMP" }] }),
            r#"spec.ports[0].protocol: "ICMP" is not one of TCP, UDP, SCTP"#,
        ),
    ] {
        let (message, _) = invalid(&calico("HostEndpoint", spec));
        assert_eq!(message, format!("HostEndpoint/x: {expected}"));
    }
}

#[test]
fn a_profile_gives_labels_and_its_rules_are_refused_unless_they_allow_everything() {
    let spec = json!({ "labelsToApply": { "a": "b" }, "ingress": [{ "action": "Allow", "source": {} }],
        "egress": [{ "action": "Allow" }] });
    let expected = Profile {
        name: "x".into(),
        labels_to_apply: labels(),
    };
    assert_eq!(clean(&calico("Profile", spec)), Object::Profile(expected));
    for rule in [
        json!({ "action": "Deny" }),
        json!({ "action": "Allow", "protocol": "TCP" }),
        json!({ "action": "Allow", "source": { "nets": ["10.0.0.0/8"] } }),
    ] {
        let (message, _) = invalid(&calico("Profile", json!({ "ingress": [rule] })));
        let expected = "Profile/x: spec.ingress[0]: not supported: write a GlobalNetworkPolicy";
        assert_eq!(message, expected);
    }
}

#[test]
fn a_service_gives_its_addresses_and_what_announcing_them_depends_on() {
    let document = json!({ "apiVersion": "v1", "kind": "Service",
        "metadata": { "namespace": "shop", "name": "web",
            "annotations": { "projectcalico.org/loadBalancerIPs": "[]", "other": "x" } },
        "spec": { "type": "LoadBalancer", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00:96::9"],
            "externalIPs": ["203.0.113.9"], "loadBalancerIP": "", "externalTrafficPolicy": "Local",
            "ipFamilies": ["IPv4", "IPv6"], "selector": { "app": "web" },
            "ports": [{ "port": 80, "targetPort": "http", "nodePort": 30080 }] },
        "status": { "loadBalancer": { "ingress": [{ "ip": "198.51.100.9" }, { "hostname": "x" }] } } });
    let addresses = |all: &[&str]| all.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<_>>();
    let expected = Service {
        namespace: "shop".into(),
        name: "web".into(),
        service_type: ServiceType::LoadBalancer,
        cluster_ips: addresses(&["10.96.0.9", "fd00:96::9"]),
        external_ips: addresses(&["203.0.113.9"]),
        load_balancer_ips: addresses(&["198.51.100.9"]),
        requested_load_balancer_ip: None,
        load_balancer_class: None,
        external_traffic_policy: ExternalTrafficPolicy::Local,
        ip_families: vec![IpFamily::Ipv4, IpFamily::Ipv6],
        ports: vec![ServicePort {
            name: None,
            protocol: Protocol::Tcp,
            port: 80,
            node_port: Some(30080),
        }],
        annotations: [(
            "projectcalico.org/loadBalancerIPs".to_owned(),
            "[]".to_owned(),
        )]
        .into(),
    };
    assert_eq!(clean(&document), Object::Service(Box::new(expected)));
    let headless = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "db" },
        "spec": { "clusterIP": "None" } });
    let Object::Service(headless) = clean(&headless) else {
        panic!("another kind");
    };
    assert!(headless.cluster_ips.is_empty());
}

#[test]
fn an_endpoint_slice_gives_addresses_ports_and_the_nodes_that_are_ready() {
    let document = |ports: Value| {
        json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "namespace": "shop", "name": "web-1",
            "labels": { "kubernetes.io/service-name": "web" } },
        "addressType": "IPv4", "ports": ports,
        "endpoints": [
            { "addresses": ["10.244.0.5"], "nodeName": "n1", "conditions": { "ready": true } },
            { "addresses": ["10.244.1.5"], "nodeName": "n2", "conditions": { "ready": false } },
            { "addresses": ["10.244.2.5"], "nodeName": "n3" },
        ] })
    };
    let expected = EndpointSlice {
        namespace: "shop".into(),
        name: "web-1".into(),
        service: "web".into(),
        addresses: ["10.244.0.5", "10.244.1.5", "10.244.2.5"]
            .map(|ip| ip.parse().unwrap())
            .into(),
        ports: vec![NamedPort {
            name: String::new(),
            protocol: Protocol::Udp,
            port: 53,
        }],
        ready_nodes: ["n1".to_owned(), "n3".to_owned()].into(),
    };
    let ports = json!([{ "name": "", "port": 53, "protocol": "UDP" }]);
    assert_eq!(
        clean(&document(ports)),
        Object::EndpointSlice(Box::new(expected.clone()))
    );
    let any = EndpointSlice {
        ports: vec![],
        ..expected
    };
    assert_eq!(
        clean(&document(json!([{ "port": null }]))),
        Object::EndpointSlice(Box::new(any))
    );
}

#[test]
fn a_service_account_gives_its_labels() {
    let document = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "secrets": [],
        "metadata": { "namespace": "shop", "name": "till", "labels": { "a": "b" } } });
    let expected = ServiceAccount {
        namespace: "shop".into(),
        name: "till".into(),
        labels: labels(),
    };
    let (object, warnings) = valid(&document);
    assert_eq!(
        (object, warnings),
        (Object::ServiceAccount(expected), vec![])
    );
}
