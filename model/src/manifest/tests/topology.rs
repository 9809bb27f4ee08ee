use super::{clean, invalid, valid};
use crate::manifest::{block_allocations, block_with};
use crate::object::{
    Allocation, AllowedUse, Annotations, AssignmentMode, BlockAllocations, CalicoNodeStatus,
    EncapMode, IpPool, IpReservation, IpamBlock, NamedPort, Namespace, Node, NodeStatusClass,
    Object, Pod, Protocol,
};
use crate::{Labels, Selector};
use serde_json::{Value, json};

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn calico(kind: &str, name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

#[test]
fn a_namespace_always_has_its_name_as_a_label() {
    let document = json!({ "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": "shop", "labels": { "team": "a", "kubernetes.io/metadata.name": "other" } } });
    let labels = labels(&[("team", "a"), ("kubernetes.io/metadata.name", "shop")]);
    assert_eq!(
        clean(&document),
        Object::Namespace(Namespace {
            name: "shop".into(),
            labels,
            annotations: Annotations::new(),
        })
    );
}

#[test]
fn a_pod_gives_its_labels_and_the_named_ports_of_its_containers_and_sidecars() {
    let document = json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "web", "uid": "u1", "labels": { "app": "web" } },
        "spec": {
            "containers": [
                { "ports": [{ "name": "http", "containerPort": 8080 }, { "containerPort": 9 }] },
                { "ports": [{ "name": "dns", "containerPort": 53, "protocol": "UDP" }] },
            ],
            "serviceAccountName": "till",
            "initContainers": [
                { "restartPolicy": "Always", "ports": [{ "name": "side", "containerPort": 1 }] },
                { "ports": [{ "name": "early", "containerPort": 2 }] },
            ],
        },
        "status": { "phase": "Succeeded" } });
    let port = |name: &str, protocol, port| NamedPort {
        name: name.into(),
        protocol,
        port,
    };
    let expected = Pod {
        namespace: "default".into(),
        name: "web".into(),
        uid: Some("u1".into()),
        labels: labels(&[("app", "web")]),
        service_account: Some("till".into()),
        annotations: Annotations::new(),
        ports: vec![
            port("http", Protocol::Tcp, 8080),
            port("dns", Protocol::Udp, 53),
            port("side", Protocol::Tcp, 1),
        ]
        .into(),
        host_network: false,
        finished: true,
        ready: false,
    };
    assert_eq!(clean(&document), Object::Pod(expected));
}

#[test]
fn a_pod_is_ready_when_its_condition_says_so() {
    let ready = |conditions: Value| {
        let document = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "web" },
            "status": { "phase": "Running", "conditions": conditions } });
        match clean(&document) {
            Object::Pod(pod) => pod.ready,
            other => panic!("{other:?}"),
        }
    };
    let condition = |name, status| json!({ "type": name, "status": status });
    assert!(ready(json!([
        condition("Initialized", "True"),
        condition("Ready", "True")
    ])));
    assert!(!ready(json!([
        condition("Initialized", "True"),
        condition("Ready", "False")
    ])));
    assert!(!ready(json!([{ "type": "Ready" }])));
    assert!(!ready(json!([])));
}

#[test]
fn a_kubernetes_node_is_read_from_annotations_and_falls_back_to_internal_addresses() {
    let document = |annotations: Value| {
        json!({ "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": "n1", "labels": { "rack": "r1" }, "annotations": annotations },
            "spec": { "podCIDR": "10.244.0.0/24" },
            "status": { "addresses": [
                { "type": "Hostname", "address": "n1" },
                { "type": "InternalIP", "address": "10.1.0.11" },
                { "type": "ExternalIP", "address": "203.0.113.7" },
                { "type": "InternalIP", "address": "10.9.9.9" },
                { "type": "InternalIP", "address": "fd00:1::11" },
            ] } })
    };
    let plain = Node {
        name: "n1".into(),
        labels: labels(&[("rack", "r1")]),
        ipv4_address: Some("10.1.0.11/32".parse().unwrap()),
        ipv6_address: Some("fd00:1::11/128".parse().unwrap()),
        addresses: ["203.0.113.7", "10.1.0.11", "10.9.9.9", "fd00:1::11"]
            .map(|address| address.parse().unwrap())
            .into(),
        as_number: None,
        route_reflector_cluster_id: None,
    };
    assert_eq!(
        clean(&document(json!({ "other": "x" }))),
        Object::Node(plain.clone())
    );
    let annotated = document(json!({
        "projectcalico.org/IPv4Address": "10.1.0.12/24",
        "projectcalico.org/ASNumber": "64520",
        "projectcalico.org/RouteReflectorClusterID": "244.0.0.1",
    }));
    let expected = Node {
        ipv4_address: Some("10.1.0.12/24".parse().unwrap()),
        as_number: Some(64520),
        route_reflector_cluster_id: Some([244, 0, 0, 1].into()),
        ..plain
    };
    assert_eq!(clean(&annotated), Object::Node(expected));
    let (message, _) = invalid(&document(
        json!({ "projectcalico.org/IPv4Address": "fd00::1/64" }),
    ));
    assert_eq!(
        message,
        "Node/n1: metadata.annotations.projectcalico.org/IPv4Address: \"fd00::1/64\" is not an IPv4 address such as \"10.1.0.11/24\""
    );
}

#[test]
fn a_calico_node_keeps_the_host_bits_of_its_address() {
    let spec = json!({ "bgp": { "ipv4Address": "10.1.0.11/24", "ipv6Address": "fd00:1::11/64",
        "asNumber": 64520, "ipv4IPIPTunnelAddr": "10.244.0.1" }, "orchRefs": [],
        "addresses": [{ "address": "10.1.0.11/24", "type": "CalicoNodeIP" },
            { "address": "192.0.2.4", "type": "ExternalIP" }, { "address": "n1", "type": "Hostname" }] });
    let expected = Node {
        name: "n1".into(),
        labels: Labels::new(),
        ipv4_address: Some("10.1.0.11/24".parse().unwrap()),
        ipv6_address: Some("fd00:1::11/64".parse().unwrap()),
        addresses: ["10.1.0.11", "10.244.0.1", "192.0.2.4"]
            .map(|address| address.parse().unwrap())
            .into(),
        as_number: Some(64520),
        route_reflector_cluster_id: None,
    };
    assert_eq!(clean(&calico("Node", "n1", spec)), Object::Node(expected));
}

#[test]
fn a_pool_is_defaulted_as_in_calico() {
    let pool = |cidr: &str, block_size| IpPool {
        name: "p".into(),
        cidr: cidr.parse().unwrap(),
        block_size,
        ipip_mode: EncapMode::Never,
        vxlan_mode: EncapMode::Never,
        nat_outgoing: false,
        disabled: false,
        disable_bgp_export: false,
        node_selector: Selector::All,
        namespace_selector: None,
        allowed_uses: [AllowedUse::Workload, AllowedUse::Tunnel].into(),
        assignment_mode: AssignmentMode::Automatic,
    };
    for (cidr, block_size) in [("10.244.0.0/16", 26), ("fd00:10::/48", 122)] {
        let document = calico("IPPool", "p", json!({ "cidr": cidr }));
        assert_eq!(
            clean(&document),
            Object::IpPool(Box::new(pool(cidr, block_size)))
        );
    }
    let spec = json!({ "cidr": "10.0.0.0/16", "blockSize": 28, "ipipMode": "CrossSubnet",
        "vxlanMode": "Never", "natOutgoing": true, "disabled": true, "disableBGPExport": true,
        "nodeSelector": "!all()", "namespaceSelector": "has(a)", "allowedUses": ["LoadBalancer"],
        "assignmentMode": "Manual" });
    let expected = IpPool {
        ipip_mode: EncapMode::CrossSubnet,
        nat_outgoing: true,
        disabled: true,
        disable_bgp_export: true,
        node_selector: Selector::None,
        namespace_selector: Some(Selector::Has("a".into())),
        allowed_uses: [AllowedUse::LoadBalancer].into(),
        assignment_mode: AssignmentMode::Manual,
        ..pool("10.0.0.0/16", 28)
    };
    assert_eq!(
        clean(&calico("IPPool", "p", spec)),
        Object::IpPool(Box::new(expected))
    );
}

#[test]
fn a_mistake_in_a_pool_is_named_with_its_field() {
    for (spec, expected) in [
        (json!({}), "spec.cidr: is required"),
        (
            json!({ "cidr": "10.244.0.1/16" }),
            r#"spec.cidr: "10.244.0.1/16" has host bits set; its network is "10.244.0.0/16""#,
        ),
        (
            json!({ "cidr": "10.244.0.0" }),
            r#"spec.cidr: "10.244.0.0" is not a CIDR such as "10.244.0.0/16""#,
        ),
        (
            json!({ "cidr": "10.0.0.0/16", "blockSize": 33 }),
            "spec.blockSize: 33 is not an integer from 20 to 32",
        ),
        (
            json!({ "cidr": "10.0.0.0/28", "blockSize": 26 }),
            "spec.blockSize: a block of /26 is larger than the pool 10.0.0.0/28",
        ),
        (
            json!({ "cidr": "10.0.0.0/28" }),
            "spec.cidr: a block of /26 is larger than the pool 10.0.0.0/28",
        ),
        (
            json!({ "cidr": "10.0.0.0/16", "ipipMode": "always" }),
            r#"spec.ipipMode: "always" is not one of Never, Always, CrossSubnet"#,
        ),
        (
            json!({ "cidr": "10.0.0.0/16", "ipipMode": "Always", "vxlanMode": "Always" }),
            "spec.vxlanMode: a pool has either ipipMode or vxlanMode",
        ),
        (
            json!({ "cidr": "10.0.0.0/16", "natOutgoing": "yes" }),
            r#"spec.natOutgoing: "yes" is not true or false"#,
        ),
    ] {
        let (message, _) = invalid(&calico("IPPool", "p", spec));
        assert_eq!(message, format!("IPPool/p: {expected}"));
    }
}

#[test]
fn a_block_belongs_to_the_node_of_its_affinity_and_is_named_after_its_prefix() {
    let spec = json!({ "cidr": "10.244.0.64/26", "affinity": "host:n1", "allocations": [null] });
    let expected = IpamBlock {
        cidr: "10.244.0.64/26".parse().unwrap(),
        node: "n1".into(),
    };
    let document = calico("IPAMBlock", "10-244-0-64-26", spec.clone());
    assert_eq!(clean(&document), Object::IpamBlock(expected));
    let (message, _) = invalid(&calico("IPAMBlock", "b", spec));
    assert_eq!(
        message,
        "IPAMBlock/b: metadata.name: must be \"10-244-0-64-26\", after spec.cidr"
    );
    let spec = json!({ "cidr": "10.244.0.64/26", "affinity": "virtual:load-balancer",
        "deleted": false });
    match clean(&calico("IPAMBlock", "10-244-0-64-26", spec)) {
        Object::IpamBlock(block) => assert!(block.is_virtual()),
        other => panic!("{other:?}"),
    }
    for (field, value, expected) in [
        (
            "affinity",
            json!("n1"),
            "spec.affinity: must be \"host:\" and a node's name",
        ),
        (
            "affinity",
            json!("virtual:"),
            "spec.affinity: must be \"host:\" and a node's name",
        ),
        (
            "deleted",
            json!(true),
            "spec.deleted: blocks are deleted by deleting the object",
        ),
    ] {
        let mut spec = json!({ "cidr": "10.244.0.64/26", "affinity": "host:n1" });
        spec[field] = value;
        let (message, _) = invalid(&calico("IPAMBlock", "10-244-0-64-26", spec));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn what_is_held_in_a_block_is_written_in_calicos_shape_and_read_back() {
    let block = IpamBlock {
        cidr: "10.244.0.64/30".parse().unwrap(),
        node: "n1".into(),
    };
    let holder = |pod: &str| Allocation {
        handle: format!("k8s-pod-network.{pod}"),
        attributes: [("pod".to_owned(), pod.to_owned())].into(),
    };
    let mut allocations = BlockAllocations::empty(&block);
    allocations.sequence = 7;
    allocations.take(0, holder("a"));
    allocations.take(2, holder("b"));
    assert!(allocations.release(0) && !allocations.release(1));
    let document = block_with(&block, &allocations);
    assert_eq!(clean(&document), Object::IpamBlock(block.clone()));
    let spec = json!({
        "cidr": "10.244.0.64/30",
        "affinity": "host:n1",
        "allocations": [null, null, 0, null],
        "unallocated": [1, 3, 0],
        "attributes": [{ "handle_id": "k8s-pod-network.b", "secondary": { "pod": "b" } }],
        "sequenceNumber": 7,
        "sequenceNumberForAllocation": { "2": 7 },
        "deleted": false,
        "strictAffinity": false,
    });
    assert_eq!(document["spec"], spec);
    assert_eq!(block_allocations(&block, &document), Some(allocations));
    let odd = |allocations: Value, unallocated: Value| {
        let spec =
            json!({ "allocations": allocations, "unallocated": unallocated, "attributes": [{}] });
        block_allocations(&block, &json!({ "spec": spec }))
    };
    assert_eq!(odd(json!([1]), json!([])), None, "no such attribute");
    assert_eq!(
        odd(json!([null, null, null, null, 0]), json!([])),
        None,
        "outside of the block"
    );
    let both = odd(json!([0]), json!([0, 2, 2, 9])).unwrap();
    assert_eq!((both.held.len(), both.free), (1, vec![2, 1, 3]));
}

#[test]
fn a_mistake_in_a_workload_endpoint_is_named_with_its_field() {
    let spec = |field: &str, value: Value| {
        let mut spec = json!({ "node": "n1", "pod": "p", "containerID": "c", "endpoint": "eth0",
            "interfaceName": "oci1", "mac": "0a:00:00:00:00:01", "ipNetworks": ["10.0.0.1"] });
        spec[field] = value;
        calico("WorkloadEndpoint", "w", spec)
    };
    clean(&spec("mac", json!("0A:1b:00:00:00:01")));
    for (field, value, expected) in [
        (
            "mac",
            json!("0a:00"),
            r#"spec.mac: "0a:00" is not a MAC address such as "0a:1b:2c:3d:4e:5f""#,
        ),
        (
            "ipNetworks",
            json!(["10.0.0.0/24"]),
            r#"spec.ipNetworks[0]: "10.0.0.0/24" is not an address, alone or as /32 or /128"#,
        ),
        (
            "ports",
            json!([{ "name": "a", "protocol": "TCP", "port": 0 }]),
            "spec.ports[0].port: 0 is not an integer from 1 to 65535",
        ),
        ("node", json!(null), "spec.node: is required"),
    ] {
        let (message, _) = invalid(&spec(field, value));
        assert_eq!(message, format!("WorkloadEndpoint/default/w: {expected}"));
    }
}

#[test]
fn a_namespace_on_a_kind_that_has_none_is_a_warning() {
    let document = json!({ "apiVersion": "projectcalico.org/v3", "kind": "IPPool",
        "metadata": { "name": "p", "namespace": "a" }, "spec": { "cidr": "10.0.0.0/16" } });
    let (_, warnings) = valid(&document);
    assert_eq!(
        warnings,
        ["metadata.namespace: this kind has no namespace, ignored"]
    );
}

#[test]
fn of_the_annotations_of_pods_and_namespaces_those_for_address_assignment_are_kept() {
    let kept = "cni.projectcalico.org/ipv4pools";
    let annotations = |value: Value| json!({ kept: value, "team": "a", "example.com/x": 7 });
    let document = |kind: &str, value: Value| {
        json!({ "apiVersion": "v1", "kind": kind,
            "metadata": { "name": "a", "annotations": annotations(value) } })
    };
    let expected = Annotations::from([(kept.to_owned(), "[\"p\"]".to_owned())]);
    for kind in ["Pod", "Namespace"] {
        let found = match clean(&document(kind, json!("[\"p\"]"))) {
            Object::Pod(pod) => pod.annotations,
            Object::Namespace(namespace) => namespace.annotations,
            other => panic!("{other:?}"),
        };
        assert_eq!(found, expected);
        let (message, _) = invalid(&document(kind, json!(["p"])));
        assert!(
            message.contains("metadata.annotations.cni.projectcalico.org/ipv4pools"),
            "{message}"
        );
    }
}

#[test]
fn a_reservation_lists_addresses_and_prefixes() {
    let read = |cidrs: Value| calico("IPReservation", "r", json!({ "reservedCIDRs": cidrs }));
    let expected = IpReservation {
        name: "r".into(),
        reserved_cidrs: ["10.0.0.3/32", "10.0.1.0/28", "fd00::/123"]
            .map(|cidr| cidr.parse().unwrap())
            .into(),
    };
    let document = read(json!(["10.0.0.3", "10.0.1.0/28", "fd00::/123"]));
    assert_eq!(clean(&document), Object::IpReservation(expected));
    let (message, _) = invalid(&read(json!(["10.0.0.3", "10.0.0.9/24"])));
    assert_eq!(
        message,
        "IPReservation/r: spec.reservedCIDRs[1]: \"10.0.0.9/24\" has host bits set; its network is \"10.0.0.0/24\""
    );
}

#[test]
fn a_question_about_a_node_names_it_and_what_is_asked() {
    let document = |spec| calico("CalicoNodeStatus", "n1-bgp", spec);
    let spec = json!({ "node": "n1", "classes": ["BGP", "Routes"], "updatePeriodSeconds": 0 });
    let expected = CalicoNodeStatus {
        name: "n1-bgp".into(),
        node: "n1".into(),
        classes: [NodeStatusClass::Bgp, NodeStatusClass::Routes].into(),
        update_period_seconds: 0,
    };
    assert_eq!(clean(&document(spec)), Object::CalicoNodeStatus(expected));
    match clean(&document(json!({ "node": "n1" }))) {
        Object::CalicoNodeStatus(status) => assert_eq!(status.update_period_seconds, 10),
        other => panic!("{other:?}"),
    }
    let (message, _) = invalid(&document(json!({ "node": "n1", "classes": ["CPU"] })));
    assert!(message.contains("spec.classes[0]: \"CPU\""), "{message}");
}
