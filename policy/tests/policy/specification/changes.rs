//! What differs between two clusters, and what is probably not meant in one.

use super::{calico, cluster, cluster_policy, named_network_policy, network_policy};
use policy::{Check, Peer, PortOf, differences};
use serde_json::{Value, json};

/// The differences as lines: from, to, what, before and after.
fn lines(before: &[Value], after: &[Value]) -> Vec<String> {
    let peer = |peer: &Peer| match peer {
        Peer::Pods(pods) => {
            let names: Vec<String> = pods.iter().map(ToString::to_string).collect();
            names.join("+")
        }
        Peer::Address(address) => address.to_string(),
    };
    let found = differences(&cluster(before), &cluster(after));
    let of_ipv4 = found.iter().filter(|difference| difference.ipv4);
    let lines = of_ipv4.map(|difference| {
        let (source, destination) = (peer(&difference.source), peer(&difference.destination));
        let word = if difference.after.allowed {
            "opens"
        } else {
            "closes"
        };
        format!("{source} -> {destination} {} {word}", difference.service)
    });
    lines.collect()
}

fn from_b(ports: Value) -> Value {
    let pod = |name: &str| json!({ "matchLabels": { "pod": name } });
    let rule = json!({ "from": [{ "podSelector": pod("b") }], "ports": ports });
    network_policy(json!({ "podSelector": pod("a"), "ingress": [rule] }))
}

#[test]
fn a_policy_that_is_the_same_changes_nothing() {
    let policies = [from_b(json!([{ "port": 80 }]))];
    assert!(lines(&policies, &policies).is_empty());
}

#[test]
fn a_port_that_is_added_opens_for_whom_the_policy_allows() {
    let before = [from_b(json!([{ "port": 80 }]))];
    let after = [from_b(json!([{ "port": 80 }, { "port": 443 }]))];
    assert_eq!(lines(&before, &after), ["x/b -> x/a tcp/443 opens"]);
}

#[test]
fn an_isolating_policy_closes_everything_that_it_does_not_allow() {
    let closed = lines(&[], &[from_b(json!([{ "port": 80 }]))]);
    assert!(
        closed.contains(&"y/a -> x/a tcp/80 closes".to_owned()),
        "{closed:?}"
    );
    assert!(
        closed.contains(&"x/b -> x/a tcp/(other ports) closes".to_owned()),
        "{closed:?}"
    );
    assert!(
        closed.contains(&"x/b -> x/a icmp closes".to_owned()),
        "{closed:?}"
    );
    assert!(
        closed.contains(&"203.0.113.1 -> x/a udp/(other ports) closes".to_owned()),
        "{closed:?}"
    );
    assert!(
        !closed.contains(&"x/b -> x/a tcp/80 closes".to_owned()),
        "{closed:?}"
    );
    assert!(
        closed.iter().all(|line| line.contains("-> x/a ")),
        "{closed:?}"
    );
}

#[test]
fn pods_that_policies_can_not_tell_apart_are_one_line() {
    let mut before = cluster(&[]);
    let deny = network_policy(json!({ "podSelector": {}, "policyTypes": ["Ingress"] }));
    let mut after = cluster(&[deny]);
    for number in 4..7_u8 {
        let (_, pod) = super::pod(2, 0);
        let id = policy::EndpointId(format!("z/a{number}").into());
        let pod = policy::Endpoint {
            ips: vec![[10, 0, 2, number].into()],
            ..pod
        };
        before.set_endpoint(&id, Some(pod.clone()));
        after.set_endpoint(&id, Some(pod));
    }
    let of_v4 = differences(&before, &after)
        .into_iter()
        .filter(|difference| difference.ipv4);
    let from_z: Vec<_> = of_v4
        .filter(|difference| {
            matches!(&difference.source, Peer::Pods(pods) if pods[0].0 == "z/a")
                && matches!(&difference.destination, Peer::Pods(pods) if pods[0].0 == "x/a")
        })
        .collect();
    assert_eq!(from_z.len(), 4, "three protocols and messages: {from_z:?}");
    assert!(
        from_z
            .iter()
            .all(|one| matches!(&one.source, Peer::Pods(pods) if pods.len() == 1))
    );
    assert!(matches!(from_z[1].service.port, PortOf::Other(_)));
}

fn findings(manifests: &[Value]) -> Vec<(Check, String)> {
    let findings = cluster(manifests).lint().into_iter();
    findings
        .map(|finding| {
            (
                finding.check,
                format!("{}{}", finding.policy.name, finding.field),
            )
        })
        .collect()
}

fn has(manifests: &[Value], check: Check, place: &str) {
    let found = findings(manifests);
    assert!(
        found.contains(&(check, place.to_owned())),
        "{check} {place}: {found:?}"
    );
}

#[test]
fn policies_that_mean_what_they_say_are_not_mentioned() {
    let rule = json!({
        "from": [{ "namespaceSelector": { "matchLabels": { "ns": "y" } } },
                 { "ipBlock": { "cidr": "10.0.0.0/8", "except": ["10.9.0.0/16"] } }],
        "ports": [{ "port": "web" }],
    });
    let dns = json!([{ "ports": [{ "port": 53, "protocol": "UDP" }] }]);
    let policy = network_policy(json!({ "podSelector": {}, "ingress": [rule], "egress": dns }));
    assert_eq!(findings(&[policy]), []);
}

#[test]
fn selectors_that_find_nothing() {
    let nobody = json!({ "matchLabels": { "pod": "nobody" } });
    let check = Check::SelectorMatchesNothing;
    has(
        &[network_policy(json!({ "podSelector": nobody }))],
        check,
        "pspec.podSelector",
    );
    let rules = json!([{}, { "from": [{ "podSelector": {} }, { "podSelector": nobody }] }]);
    let policy = network_policy(json!({ "podSelector": {}, "ingress": rules }));
    has(&[policy], check, "pspec.ingress[1].from[1]");
    let subject = json!({ "namespaces": { "matchLabels": { "ns": "nowhere" } } });
    let spec = json!({ "tier": "Admin", "priority": 1, "subject": subject, "ingress": [
        { "action": "Deny", "from": [{ "namespaces": {} }] },
    ] });
    has(&[cluster_policy("p", spec)], check, "pspec.subject");
    let rule = json!({ "action": "Allow", "source": { "selector": "pod == 'nobody'" } });
    let policy = calico(
        "GlobalNetworkPolicy",
        "p",
        json!({ "selector": "pod == 'a'", "ingress": [rule] }),
    );
    has(&[policy], check, "pspec.ingress[0].source");
    let policy = calico(
        "GlobalNetworkPolicy",
        "p",
        json!({ "selector": "pod == 'q'" }),
    );
    has(&[policy], check, "pspec.selector");
}

#[test]
fn named_ports_that_nobody_has() {
    let check = Check::NamedPortNobodyHas;
    let rules = json!([{ "ports": [{ "port": "web" }, { "port": "wbe" }] }]);
    let policy = network_policy(json!({ "podSelector": {}, "ingress": rules }));
    has(&[policy], check, "pspec.ingress[0].ports[1].port");
    let rules = json!([{ "ports": [{ "port": "web", "protocol": "UDP" }] }]);
    let policy = network_policy(json!({ "podSelector": {}, "ingress": rules }));
    has(&[policy], check, "pspec.ingress[0].ports[0].port");
    let rule = json!({ "action": "Allow", "protocol": "TCP", "destination": { "ports": ["wbe"] } });
    let policy = calico("NetworkPolicy", "p", json!({ "ingress": [rule] }));
    has(&[policy], check, "pspec.ingress[0].destination.ports");
}

#[test]
fn exceptions_that_take_nothing_away() {
    let check = Check::ExceptCoversNothing;
    let block =
        |cidr: &str, except: Value| json!({ "ipBlock": { "cidr": cidr, "except": except } });
    let policy =
        |peers: Value| network_policy(json!({ "podSelector": {}, "ingress": [{ "from": peers }] }));
    let again = json!([block("10.0.0.0/8", json!(["10.1.0.0/16", "10.1.1.0/24"]))]);
    has(
        &[policy(again)],
        check,
        "pspec.ingress[0].from[0].ipBlock.except[1]",
    );
    let back = json!([
        block("10.0.0.0/8", json!(["10.1.0.0/16"])),
        block("10.1.0.0/16", json!([]))
    ]);
    has(
        &[policy(back)],
        check,
        "pspec.ingress[0].from[0].ipBlock.except[0]",
    );
}

#[test]
fn pods_that_may_not_ask_for_names() {
    let deny = network_policy(json!({ "podSelector": {}, "policyTypes": ["Egress"] }));
    let check = Check::DenyWithoutDns;
    has(std::slice::from_ref(&deny), check, "pspec.egress");
    let dns = json!([{ "ports": [{ "port": 53, "protocol": "UDP" }] }]);
    let names = named_network_policy(
        "names",
        json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": dns }),
    );
    let found = findings(&[deny, names]);
    assert!(found.iter().all(|(found, _)| *found != check), "{found:?}");
}

#[test]
fn policies_that_are_never_reached_and_priorities_that_tie() {
    let subject = json!({ "namespaces": {} });
    let rules =
        json!([{ "action": "Deny", "from": [{ "namespaces": { "matchLabels": { "ns": "y" } } }] }]);
    let tied = |name: &str| {
        let spec = json!({ "tier": "Admin", "priority": 7, "subject": subject, "ingress": rules });
        cluster_policy(name, spec)
    };
    has(
        &[tied("p"), tied("q")],
        Check::PriorityTie,
        "pspec.priority",
    );
    let spec = |order: u32, selector: &str| json!({ "order": order, "selector": selector, "ingress": [{ "action": "Deny" }] });
    let first = calico("GlobalNetworkPolicy", "first", spec(1, "all()"));
    let never = calico("GlobalNetworkPolicy", "never", spec(2, "pod == 'a'"));
    has(&[first.clone(), never], Check::Shadowed, "never");
    let sometimes = calico("GlobalNetworkPolicy", "first", spec(1, "pod == 'b'"));
    let found = findings(&[
        sometimes,
        calico("GlobalNetworkPolicy", "second", spec(2, "all()")),
    ]);
    assert!(
        found.iter().all(|(check, _)| *check != Check::Shadowed),
        "{found:?}"
    );
    let rules = json!([{ "action": "Pass" }, { "action": "Deny" }]);
    let policy = calico("GlobalNetworkPolicy", "p", json!({ "ingress": rules }));
    has(&[policy], Check::Shadowed, "pspec.ingress[1]");
    let lost = calico("GlobalNetworkPolicy", "p", json!({ "tier": "lost" }));
    has(&[lost], Check::UnknownTier, "pspec.tier");
}
