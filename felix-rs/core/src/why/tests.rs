#![allow(clippy::unwrap_used)]
use super::*;
use crate::calc::Calc;
use crate::cluster::View;
use crate::fixtures::ethernet;
use crate::workloads::LocalEndpoint;
use model::dataplane::Address;
use model::{Labels, Object, Update, WorkloadEndpoint, manifest};
use serde_json::{Value, json};

fn object(document: Value) -> Object {
    match manifest::parse(&document).unwrap() {
        manifest::Parsed::Valid { object, .. } => object,
        other => panic!("{other:?}"),
    }
}

fn applied(objects: Vec<Object>) -> Vec<Update> {
    let applied = objects.into_iter().map(|object| Update::Apply {
        object,
        warnings: vec![],
    });
    applied.collect()
}

fn workload(node: &str, pod: &str, address: &str) -> WorkloadEndpoint {
    WorkloadEndpoint {
        namespace: "shop".into(),
        name: format!("{node}-k8s-{pod}-eth0").into(),
        node: node.into(),
        pod: pod.into(),
        pod_uid: None,
        container_id: pod.into(),
        endpoint: "eth0".into(),
        interface_name: format!("oci{pod}").into(),
        mac: [2, 0, 0, 0, 0, 1],
        ip_networks: vec![address.parse().unwrap()],
        labels: Labels::from([("app".to_owned(), pod.to_owned())]),
        ports: vec![].into(),
        host_ports: vec![],
    }
}

/// Pods `web` on this node and `far` on another; only `far` may connect to `web`.
fn view() -> View {
    let node = |name: &str, address: &str| {
        object(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": name },
            "status": { "addresses": [{ "type": "InternalIP", "address": address }] },
        }))
    };
    let policy = object(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": "allow-far", "namespace": "shop" },
        "spec": {
            "podSelector": { "matchLabels": { "app": "web" } },
            "ingress": [
                { "from": [{ "podSelector": { "matchLabels": { "app": "nobody" } } }] },
                { "from": [{ "podSelector": { "matchLabels": { "app": "far" } } }] },
            ],
        },
    }));
    View {
        objects: vec![node("n1", "10.1.0.11"), node("n2", "10.1.0.12"), policy],
        endpoints: vec![
            (workload("n1", "web", "10.244.1.2/32"), Some(7)),
            (workload("n2", "far", "10.244.2.2/32"), None),
        ],
        ..View::default()
    }
}

fn ask(view: &View, source: &str, destination: &str, protocol: &str) -> Result<Verdict, WhyError> {
    let connection = Connection {
        source: source.into(),
        destination: destination.into(),
        protocol: protocol.into(),
    };
    let verdicts = why(&Cluster::new(view), &connection)?;
    assert_eq!(verdicts.len(), 1);
    Ok(verdicts[0].clone())
}

#[test]
fn a_verdict_names_the_rule_that_decided() {
    let allowed = ask(&view(), "shop/far", "shop/web", "tcp/80").unwrap();
    assert!(allowed.allowed);
    assert_eq!(
        allowed.ingress.reason,
        "allowed by rule 1 of NetworkPolicy/shop/allow-far (tier default)"
    );
    assert_eq!(allowed.ingress.tier.as_deref(), Some("default"));
    assert_eq!(allowed.ingress.policies, ["NetworkPolicy/shop/allow-far"]);
    assert_eq!(allowed.ingress.rule, Some(1));
    assert_eq!(allowed.egress.reason, "no policy decides: allowed");
}

#[test]
fn a_verdict_names_the_policies_none_of_whose_rules_matches() {
    let denied = ask(&view(), "192.0.2.1", "shop/web", "tcp/80").unwrap();
    assert!(!denied.allowed && !denied.ingress.allowed);
    assert_eq!(denied.ingress.policies, ["NetworkPolicy/shop/allow-far"]);
    assert_eq!(denied.ingress.rule, None);
    assert_eq!(denied.egress.reason, "neither a pod nor a host endpoint");
}

#[test]
fn a_node_is_the_own_node_of_its_own_pods_only() {
    let own = ask(&view(), "10.1.0.11", "shop/web", "icmp").unwrap();
    assert!(own.allowed, "{own:?}");
    assert_eq!(
        own.ingress.reason,
        "between a pod and its own node: allowed"
    );
    let other = ask(&view(), "10.1.0.12", "shop/web", "icmp").unwrap();
    assert!(!other.allowed, "{other:?}");
    let by_address = ask(&view(), "10.1.0.11", "10.244.1.2", "tcp/80").unwrap();
    assert!(by_address.allowed, "{by_address:?}");
}

#[test]
fn what_a_user_got_wrong_is_named() {
    let error = |source, destination, protocol| {
        ask(&view(), source, destination, protocol)
            .unwrap_err()
            .to_string()
    };
    let unknown = error("shop/nobody", "shop/web", "tcp/80");
    assert!(
        unknown.starts_with("\"shop/nobody\" is no address, and no pod"),
        "{unknown}"
    );
    assert!(error("shop/far", "shop/web", "tcp/x").starts_with("\"tcp/x\" is no protocol"));
    assert_eq!(
        error("shop/far", "shop/web", "udp"),
        "udp needs a port, such as udp/80"
    );
    let families = error("fd00::1", "shop/web", "tcp/80");
    assert_eq!(
        families,
        "fd00::1 and shop/web have no address family in common"
    );
}

#[test]
fn an_address_of_a_service_is_no_end_of_a_connection() {
    let service = object(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "web", "namespace": "shop" },
        "spec": { "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "ports": [{ "port": 80 }] },
    }));
    let view = view().with(applied(vec![service]));
    let error = ask(&view, "shop/far", "10.96.0.10", "tcp/80").unwrap_err();
    let words = error.to_string();
    assert!(
        words.starts_with("10.96.0.10 is an address of Service shop/web"),
        "{words}"
    );
}

#[test]
fn pods_without_addresses_are_judged_by_their_labels_and_shown_without_address() {
    let pod = |name: &str, host_network: bool| {
        object(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": "shop", "labels": { "app": name } },
            "spec": { "hostNetwork": host_network },
        }))
    };
    let view = View {
        endpoints: vec![],
        ..view()
    };
    let pods = vec![
        pod("web", false),
        pod("far", false),
        pod("other", false),
        pod("host", true),
    ];
    let view = view.with(applied(pods));
    let far = ask(&view, "shop/far", "shop/web", "tcp/80").unwrap();
    assert!(
        far.allowed && far.source.is_none() && far.destination.is_none(),
        "{far:?}"
    );
    assert!(
        !ask(&view, "shop/other", "shop/web", "tcp/80")
            .unwrap()
            .allowed
    );
    let host = ask(&view, "shop/host", "shop/web", "tcp/80").unwrap_err();
    assert_eq!(host, WhyError::HostNetwork("shop/host".into()));
}

#[test]
fn staged_policies_say_what_they_would_do() {
    let deny = object(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": "allow-far", "namespace": "shop" },
        "spec": { "podSelector": {}, "policyTypes": ["Ingress"] },
    }));
    let Object::NetworkPolicy(policy) = deny else {
        panic!("{deny:?}");
    };
    let action = model::StagedAction::Set;
    let staged =
        Object::StagedKubernetesPolicy(std::sync::Arc::new(model::StagedKubernetesPolicy {
            action,
            policy: (*policy).clone(),
        }));
    let view = view().with(applied(vec![staged]));
    let verdict = ask(&view, "shop/far", "shop/web", "tcp/80").unwrap();
    assert!(verdict.allowed);
    let staged = verdict.ingress.staged.unwrap();
    assert!(!staged.allowed);
    assert_eq!(
        staged.reason,
        "no rule of NetworkPolicy/shop/allow-far matches: denied at the end of tier default"
    );
    assert_eq!(verdict.egress.staged, None);
}

#[test]
fn an_agent_knows_the_addresses_of_its_links() {
    let mut calc = Calc::new(
        "n1",
        crate::checks::TunnelKinds {
            ipip: true,
            ip6: true,
            vxlan: true,
        },
        policy::Options::default(),
    );
    for object in view().objects {
        calc.on_update(Update::Apply {
            object,
            warnings: vec![],
        });
    }
    for (ifindex, name) in [(2, "eth0"), (7, "ociweb")] {
        calc.on_link(ethernet(ifindex, name));
    }
    calc.on_address(Address {
        ifindex: 2,
        address: "10.9.0.11/24".parse().unwrap(),
    });
    calc.set_local(LocalEndpoint {
        endpoint: workload("n1", "web", "10.244.1.2/32"),
        ifindex: 7,
        mtu: 1500,
        sequence: 1,
    });
    let view = View::of(&calc);
    assert!(
        ask(&view, "10.9.0.11", "shop/web", "tcp/80")
            .unwrap()
            .allowed
    );
    assert!(
        !ask(&view, "10.9.0.12", "shop/web", "tcp/80")
            .unwrap()
            .allowed
    );
}

#[test]
fn a_host_is_asked_for_its_failsafe_ports_as_they_are_configured() {
    let host = object(json!({
        "apiVersion": "projectcalico.org/v3", "kind": "HostEndpoint", "metadata": { "name": "n2-eth0" },
        "spec": { "node": "n2", "interfaceName": "eth0", "expectedIPs": ["10.1.0.12"] },
    }));
    let mut view = view();
    view.objects.push(host);
    let allowed = |view: &View, from: &str| ask(view, from, "10.1.0.12", "tcp/22").unwrap().allowed;
    assert!(allowed(&view, "192.0.2.9") && allowed(&view, "198.51.100.9"));
    let felix = object(json!({
        "apiVersion": "projectcalico.org/v3", "kind": "FelixConfiguration",
        "metadata": { "name": "default" },
        "spec": { "failsafeInboundHostPorts": [{ "protocol": "TCP", "port": 22, "net": "192.0.2.0/24" }] },
    }));
    let view = view.with(applied(vec![felix]));
    assert!(allowed(&view, "192.0.2.9") && !allowed(&view, "198.51.100.9"));
}
