//! What a cluster's excess costs others: nothing.

use model::{
    Labels, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule, PortMatch, Protocol, Selector,
};
use policy::ruleset::Op;
use policy::{Compiler, Endpoint, EndpointId, Options, Policy};
use std::net::IpAddr;

const NAMESPACE: &str = "shop";

fn is(app: &str) -> Selector {
    Selector::Eq("app".to_owned(), app.to_owned())
}

fn allow(name: &str, to: &str, from: &str, port: u16) -> Policy {
    let port = PolicyPort {
        protocol: Protocol::Tcp,
        port: PortMatch::Range(port, port),
    };
    let peer = PolicyPeer::Pods {
        namespaces: None,
        pods: is(from),
    };
    Policy::from(NetworkPolicy {
        namespace: NAMESPACE.to_owned(),
        name: name.to_owned(),
        pod_selector: is(to),
        ingress: Some(vec![PolicyRule {
            peers: Some(vec![peer]),
            ports: Some(vec![port]),
        }]),
        egress: None,
    })
}

fn pod(app: &str, last: u8, local: Option<u32>) -> Endpoint {
    Endpoint {
        namespace: NAMESPACE.to_owned().into(),
        pod: format!("pod{last}").into(),
        labels: Labels::from([("app".to_owned(), app.to_owned())]),
        ports: vec![].into(),
        ips: vec![IpAddr::from([10, 0, 0, last])],
        local,
        labels_known: true,
        service_account: None,
        profiles: vec![].into(),
    }
}

fn set(compiler: &mut Compiler, policy: Policy) {
    compiler.set_policy(&policy.key(), Some(policy));
}

fn size(ops: &[Op]) -> usize {
    let of = |op: &Op| match op {
        Op::AddElements(_, elements) | Op::DeleteElements(_, elements) => elements.len(),
        Op::AddRules(_, rules) => rules.len(),
        _ => 1,
    };
    ops.iter().map(of).sum()
}

#[test]
fn ten_thousand_policies_of_one_pod_are_no_work_for_changes_of_others() {
    let mut compiler = Compiler::new(Options::default());
    compiler.set_endpoint(
        &EndpointId("busy".to_owned().into()),
        Some(pod("busy", 1, Some(7))),
    );
    compiler.set_endpoint(
        &EndpointId("calm".to_owned().into()),
        Some(pod("calm", 2, Some(8))),
    );
    for number in 0..10_000_u16 {
        set(
            &mut compiler,
            allow(&format!("p{number}"), "busy", "client", 1 + number),
        );
    }
    set(&mut compiler, allow("calm", "calm", "front", 80));
    compiler.resolve();
    // One policy of the other pod, one peer of it, and the pod itself.
    set(&mut compiler, allow("calm", "calm", "front", 81));
    assert!(size(&compiler.resolve()) < 50);
    let front = EndpointId("front".to_owned().into());
    compiler.set_endpoint(&front, Some(pod("front", 3, None)));
    assert!(size(&compiler.resolve()) < 5);
    compiler.set_endpoint(
        &EndpointId("calm".to_owned().into()),
        Some(pod("other", 2, Some(8))),
    );
    assert!(size(&compiler.resolve()) < 50);
    // A peer of the ten thousand costs its ports, and they are no more than one set looks up.
    let client = EndpointId("client".to_owned().into());
    compiler.set_endpoint(&client, Some(pod("client", 4, None)));
    assert!(size(&compiler.resolve()) < 50);
}
