//! Policies that are wrong in every way: each says so with its field, keeps its last good version in
//! force, and nobody else notices.

use crate::node::{LIMIT, NAMESPACE, Node, SHORT, policy};
use anyhow::Result;
use integration::lab::probe::Protocol;
use integration::lab::wait;
use serde_json::{Value, json};

/// A policy whose good version admits `app: client` to `app: web` on TCP 8080, and what is bad.
struct Case {
    /// The name of its status, after `state/status/n1/`.
    status: &'static str,
    good: Value,
    bad: String,
    /// What the status says: the field, and what is wrong with it.
    words: &'static [&'static str],
}

impl Case {
    fn wait_status(&self, node: &Node) -> Result<()> {
        for words in self.words {
            node.wait_status(self.status, words)?;
        }
        Ok(())
    }
}

fn kubernetes(name: &str, ingress: Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": NAMESPACE, "name": name},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": ingress}})
}

fn calico(name: &str, spec: Value) -> Value {
    let mut whole = json!({"selector": "app == 'web'", "types": ["Ingress"]});
    if let (Some(whole), Some(spec)) = (whole.as_object_mut(), spec.as_object()) {
        whole.extend(spec.clone());
    }
    json!({"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
        "metadata": {"namespace": NAMESPACE, "name": name}, "spec": whole})
}

fn client() -> Value {
    json!([{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": 8080}]}])
}

fn of_kubernetes(
    name: &str,
    status: &'static str,
    ingress: Value,
    words: &'static [&'static str],
) -> Case {
    Case {
        status,
        good: kubernetes(name, client()),
        bad: kubernetes(name, ingress).to_string(),
        words,
    }
}

fn of_calico(
    name: &str,
    status: &'static str,
    spec: Value,
    words: &'static [&'static str],
) -> Case {
    let good = json!({"ingress": [{"action": "Allow", "protocol": "TCP",
        "source": {"selector": "app == 'client'"}, "destination": {"ports": [8080]}}]});
    Case {
        status,
        good: calico(name, good),
        bad: calico(name, spec).to_string(),
        words,
    }
}

fn cases() -> Vec<Case> {
    let block = |cidr: &str, except: Value| json!([{"from": [{"ipBlock": {"cidr": cidr, "except": except}}]}]);
    let ports = |port: Value| json!([{"ports": [port]}]);
    let rule = |rule: Value| json!({ "ingress": [rule] });
    let many: Vec<Value> = (0..1025).map(|_| json!({"action": "Allow"})).collect();
    let blocks: Vec<Value> = (0..100_000_u32)
        .map(|number| json!({"ipBlock": {"cidr": format!("{}/32", std::net::Ipv4Addr::from(number << 8))}}))
        .collect();
    let mut order = of_calico(
        "order",
        "NetworkPolicy.projectcalico.org_shop_order",
        json!({"order": "NOT-A-NUMBER"}),
        &["spec.order:", "nan", "is not a number"],
    );
    order.bad = order.bad.replace("\"NOT-A-NUMBER\"", ".nan");
    vec![
        of_calico(
            "syntax",
            "NetworkPolicy.projectcalico.org_shop_syntax",
            rule(json!({"action": "Allow", "source": {"selector": "role = 'db'"}})),
            &[
                "spec.ingress[0].source.selector:",
                "column 6: unexpected character '='",
            ],
        ),
        of_calico(
            "many",
            "NetworkPolicy.projectcalico.org_shop_many",
            json!({ "ingress": many }),
            &["spec.ingress:", "has 1025 entries, more than 1024"],
        ),
        order,
        of_kubernetes(
            "cidr",
            "NetworkPolicy_shop_cidr",
            block("10.0.0.1/33", json!([])),
            &[
                "spec.ingress[0].from[0].ipBlock.cidr:",
                "10.0.0.1/33",
                "is not a CIDR",
            ],
        ),
        of_kubernetes(
            "except",
            "NetworkPolicy_shop_except",
            block("10.0.0.0/8", json!(["11.0.0.0/16"])),
            &[
                "spec.ingress[0].from[0].ipBlock.except[0]:",
                "11.0.0.0/16 is not a smaller part of 10.0.0.0/8",
            ],
        ),
        of_kubernetes(
            "zero",
            "NetworkPolicy_shop_zero",
            ports(json!({"port": 0})),
            &[
                "spec.ingress[0].ports[0].port:",
                "0 is not an integer from 1 to 65535",
            ],
        ),
        of_kubernetes(
            "beyond",
            "NetworkPolicy_shop_beyond",
            ports(json!({"port": 65_536})),
            &[
                "spec.ingress[0].ports[0].port:",
                "65536 is not an integer from 1 to 65535",
            ],
        ),
        of_kubernetes(
            "end",
            "NetworkPolicy_shop_end",
            ports(json!({"port": 8080, "endPort": 80})),
            &[
                "spec.ingress[0].ports[0].endPort:",
                "80 is less than port 8080",
            ],
        ),
        of_calico(
            "action",
            "NetworkPolicy.projectcalico.org_shop_action",
            rule(json!({"action": "Perhaps"})),
            &[
                "spec.ingress[0].action:",
                "Perhaps",
                "is not one of Allow, Deny, Log, Pass",
            ],
        ),
        of_kubernetes(
            "large",
            "NetworkPolicy_shop_large",
            json!([{"from": blocks}]),
            &["spec: is larger than 2 MiB"],
        ),
    ]
}

#[test]
fn every_bad_policy_says_why_and_its_last_good_version_stays_in_force() -> Result<()> {
    let node = Node::started()?;
    let web = node.member("web", "web")?;
    let (client, other) = (
        node.member("client", "client")?,
        node.member("other", "other")?,
    );
    let cases = cases();
    let file = |case: &Case| format!("{}.yaml", case.status);
    for case in &cases {
        node.store.write(&file(case), &case.good.to_string())?;
        node.wait_snapshot(case.status.rsplit('_').next().unwrap_or_default())?;
    }
    other.wait_denied(&web)?;
    client.reaches(&web)?;
    let before = node.rules();
    for case in &cases {
        node.store.write(&file(case), &case.bad)?;
    }
    for case in &cases {
        case.wait_status(&node)?;
    }
    assert_eq!(node.rules(), before);
    assert_eq!(node.agent.health("/readyz")?.0, 200);
    client.reaches(&web)?;
    // Others are served while these stand there.
    node.store
        .write("late.yaml", &policy("late", "other", "[]"))?;
    client.wait_denied(&other)?;
    let late = node.member("late", "late")?;
    late.wait_reaches(&client)?;
    // A good version takes over, and the status goes.
    for case in &cases {
        node.store.write(&file(case), &case.good.to_string())?;
        let status = format!("state/status/n1/{}.yaml", case.status);
        wait::until(LIMIT, "the status to go", || {
            match node.store.read(&status) {
                Err(_) => Ok(()),
                Ok(text) => Err(text),
            }
        })?;
    }
    client.reaches(&web)
}

#[test]
fn a_bad_policy_that_never_was_good_denies_what_it_isolates_and_nothing_else() -> Result<()> {
    let node = Node::started()?;
    let web = node.member("web", "web")?;
    let (client, other) = (
        node.member("client", "client")?,
        node.member("other", "other")?,
    );
    for case in cases() {
        client.wait_reaches(&web)?;
        let file = format!("{}.yaml", case.status);
        node.store.write(&file, &case.bad)?;
        case.wait_status(&node)?;
        client.wait_denied(&web)?;
        web.reaches(&other)?;
        other.reaches(&client)?;
        node.store.remove(&file)?;
    }
    Ok(())
}

#[test]
fn ten_thousand_policies_for_one_pod_are_in_force_and_others_are_served() -> Result<()> {
    const COUNT: u16 = 10_000;
    let node = Node::started()?;
    let web = node.member("web", "web")?;
    let (client, other) = (
        node.member("client", "client")?,
        node.member("other", "other")?,
    );
    let policies = (1..=COUNT).map(|number| {
        let from = json!([{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}],
            "ports": [{"port": if number == COUNT { 8080 } else { 10_000 + number }}]}]);
        kubernetes(&format!("p{number}"), from).to_string()
    });
    let text = policies.collect::<Vec<_>>().join("\n---\n");
    node.store.write("policies.yaml", &text)?;
    wait::until(4 * LIMIT, "the policies to be in force", || {
        let reached = other.probe.reach(
            Protocol::Tcp,
            web.pod.ipv4().map_err(|e| e.to_string())?,
            8080,
            SHORT,
        );
        reached.map_or(Ok(()), Err)
    })?;
    client.wait_reaches(&web)?;
    node.store
        .write("late.yaml", &policy("late", "other", "[]"))?;
    client.wait_denied(&other)?;
    let late = node.member("late", "late")?;
    late.wait_reaches(&client)?;
    node.store.remove("policies.yaml")?;
    wait::until(4 * LIMIT, "the policies to be gone", || {
        other.reaches(&web).map_err(|error| format!("{error:#}"))
    })
}
