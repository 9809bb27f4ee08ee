//! Host endpoints as subjects and as peers.

use crate::specification::{calico, cluster, flow, labelled, row};
use model::{FailsafePort, Protocol};
use policy::{Direction, Evaluator, Flow, HostPath, Reason};
use serde_json::{Value, json};

/// `eth0` of node `n2`, labelled `role: host`.
fn host(spec: Value) -> Value {
    let mut whole = json!({ "node": "n2", "interfaceName": "eth0", "expectedIPs": ["192.0.2.12"] });
    whole
        .as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    labelled(
        calico("HostEndpoint", "h", whole),
        json!({ "role": "host" }),
    )
}

/// A policy for hosts, with one rule for what comes in.
fn policy(spec: Value, rule: Value) -> Value {
    let mut whole = json!({
        "selector": "role == 'host'", "types": ["Ingress"], "order": 1, "ingress": [rule],
    });
    whole
        .as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    calico("GlobalNetworkPolicy", "p", whole)
}

fn judged(manifests: &[Value], path: HostPath, flow: &Flow) -> Reason {
    cluster(manifests)
        .host_judgement("h", Direction::Ingress, path, flow)
        .reason
}

const WEB: &str = "192.0.2.99 192.0.2.12 tcp/80";

#[test]
fn a_host_endpoint_lets_in_failsafe_ports_and_what_policies_allow() {
    let failsafe = [
        "192.0.2.99 192.0.2.12 tcp/22",
        "192.0.2.99 192.0.2.12 tcp/179",
    ];
    row(
        "without policies",
        &[host(json!({}))],
        &failsafe,
        &[WEB, "192.0.2.12 192.0.2.99 tcp/80"],
    );
    row(
        "outbound failsafe",
        &[host(json!({}))],
        &["192.0.2.12 192.0.2.99 udp/53"],
        &[],
    );
    let allow = policy(json!({}), json!({ "action": "Allow", "protocol": "TCP" }));
    row(
        "a rule",
        &[host(json!({})), allow],
        &[WEB],
        &["192.0.2.99 192.0.2.12 udp/80"],
    );
    let open = host(json!({ "profiles": ["projectcalico-default-allow"] }));
    row(
        "the profile that allows",
        std::slice::from_ref(&open),
        &[WEB],
        &[],
    );
    let deny = policy(json!({}), json!({ "action": "Deny", "protocol": "UDP" }));
    row(
        "the end of a tier, before the profile",
        &[open, deny],
        &[],
        &[WEB],
    );
    let everywhere = host(json!({ "interfaceName": "*", "expectedIPs": [] }));
    row("all interfaces of a node", &[everywhere], &failsafe, &[WEB]);
}

#[test]
fn policies_for_hosts_are_not_for_pods_and_those_for_pods_not_for_hosts() {
    let global = calico("GlobalNetworkPolicy", "p", json!({ "types": ["Ingress"] }));
    row(
        "a global policy",
        &[host(json!({})), global],
        &[],
        &["y/b x/a tcp/80", WEB],
    );
    let of_namespace = calico(
        "NetworkPolicy",
        "p",
        json!({
            "selector": "role == 'host'", "ingress": [{ "action": "Allow" }],
        }),
    );
    row(
        "a policy of a namespace",
        &[host(json!({})), of_namespace],
        &[],
        &[WEB],
    );
    let untracked = policy(
        json!({ "doNotTrack": true, "applyOnForward": true, "selector": "all()" }),
        json!({ "action": "Deny" }),
    );
    row(
        "an untracked policy",
        &[untracked],
        &["y/b x/a tcp/80"],
        &[],
    );
}

#[test]
fn a_host_endpoint_is_a_peer_by_its_expected_addresses() {
    let from = |source: Value| {
        calico(
            "GlobalNetworkPolicy",
            "q",
            json!({
                "selector": "pod == 'a'", "types": ["Ingress"],
                "ingress": [{ "action": "Allow", "source": source }],
            }),
        )
    };
    let open = host(json!({ "profiles": ["projectcalico-default-allow"] }));
    let remote = "192.0.2.12 x/a tcp/80";
    row(
        "by label",
        &[open.clone(), from(json!({ "selector": "role == 'host'" }))],
        &[remote],
        &["y/b x/a tcp/80"],
    );
    row(
        "global()",
        &[open, from(json!({ "namespaceSelector": "global()" }))],
        &[remote],
        &["y/b x/a tcp/80"],
    );
}

#[test]
fn what_is_forwarded_is_asked_of_policies_that_apply_on_forward() {
    let forwarded = flow("192.0.2.99 x/a tcp/80");
    let deny = json!({ "action": "Deny" });
    let ordinary = [host(json!({})), policy(json!({}), deny.clone())];
    assert_eq!(
        judged(&ordinary, HostPath::Forward, &forwarded),
        Reason::NoPolicy
    );
    let applying = [
        host(json!({})),
        policy(json!({ "applyOnForward": true }), deny),
    ];
    assert!(!judged(&applying, HostPath::Forward, &forwarded).allows());
    let other = json!({ "action": "Allow", "protocol": "UDP" });
    let applying = [
        host(json!({})),
        policy(json!({ "applyOnForward": true }), other),
    ];
    let reason = judged(&applying, HostPath::Forward, &forwarded);
    assert!(matches!(reason, Reason::EndOfTier { .. }), "{reason}");
}

#[test]
fn policies_before_translation_see_where_a_connection_was_sent() {
    let sent = Flow {
        original_destination: Some("192.0.2.12:30080".parse().unwrap()),
        ..flow("192.0.2.99 x/a tcp/80")
    };
    let to_port = |action: &str, port: u16| {
        let rule =
            json!({ "action": action, "protocol": "TCP", "destination": { "ports": [port] } });
        let kind = json!({ "preDNAT": true, "applyOnForward": true });
        [host(json!({})), policy(kind, rule)]
    };
    assert!(!judged(&to_port("Deny", 30080), HostPath::Forward, &sent).allows());
    assert!(judged(&to_port("Deny", 80), HostPath::Forward, &sent).allows());
    let local = flow(WEB);
    assert!(judged(&to_port("Allow", 80), HostPath::Local, &local).allows());
    let no_match = judged(&to_port("Allow", 81), HostPath::Local, &local);
    assert_eq!(no_match, Reason::HostEndpoint, "no denial by being there");
    let untracked = json!({ "doNotTrack": true, "applyOnForward": true });
    let rule = json!({ "action": "Allow", "protocol": "TCP" });
    let manifests = [host(json!({})), policy(untracked, rule)];
    assert!(judged(&manifests, HostPath::Local, &local).allows());
}

#[test]
fn failsafe_ports_and_their_answers_pass_policies_that_come_before_the_way_of_a_packet_is_known() {
    let open = || host(json!({ "profiles": ["projectcalico-default-allow"] }));
    let deny = |kind: Value| [open(), policy(kind, json!({ "action": "Deny" }))];
    let untracked = deny(json!({ "doNotTrack": true, "applyOnForward": true }));
    let before_dnat = deny(json!({ "preDNAT": true, "applyOnForward": true }));
    let answer = |port| Flow {
        source_port: Some(port),
        ..flow("192.0.2.53 192.0.2.12 udp/40000")
    };
    let judge = |manifests: &[Value], path, flow: &Flow| judged(manifests, path, flow).allows();
    assert!(judge(&untracked, HostPath::Local, &answer(53)));
    assert!(!judge(&untracked, HostPath::Local, &answer(54)));
    assert!(!judge(&before_dnat, HostPath::Local, &answer(53)));
    let ssh = flow("192.0.2.99 x/a tcp/22");
    for manifests in [untracked, before_dnat] {
        assert!(judge(&manifests, HostPath::Forward, &ssh));
        assert!(!judge(
            &manifests,
            HostPath::Forward,
            &flow("192.0.2.99 x/a tcp/23")
        ));
    }
}

#[test]
fn which_ports_stay_open_is_configured_for_all_nodes_or_for_one_and_for_whom() {
    let open = |port, net: Option<&str>| FailsafePort {
        protocol: Protocol::Tcp,
        port,
        net: net.map(|net| net.parse().unwrap()),
    };
    let mut evaluator = cluster(&[host(json!({}))]);
    let allows = |evaluator: &Evaluator, line| evaluator.verdict(&flow(line)).allowed;
    let (near, far) = (
        "192.0.2.99 192.0.2.12 tcp/22",
        "198.51.100.9 192.0.2.12 tcp/22",
    );
    assert!(allows(&evaluator, near) && allows(&evaluator, far));
    let ssh = vec![open(22, Some("192.0.2.0/24"))];
    evaluator.set_failsafe(None, Some(ssh), None);
    assert!(allows(&evaluator, near) && !allows(&evaluator, far));
    assert!(!allows(&evaluator, "192.0.2.99 192.0.2.12 tcp/179"));
    assert!(allows(&evaluator, "192.0.2.12 192.0.2.99 udp/53"));
    evaluator.set_failsafe(Some("n2"), Some(vec![open(179, None)]), Some(vec![]));
    assert!(!allows(&evaluator, near));
    assert!(allows(&evaluator, "192.0.2.99 192.0.2.12 tcp/179"));
    assert!(!allows(&evaluator, "192.0.2.12 192.0.2.99 udp/53"));
}
