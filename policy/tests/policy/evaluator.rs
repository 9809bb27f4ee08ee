//! Verdicts and their reasons, case by case from the specification.

use model::{
    Labels, NamedPort, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule, PortMatch, Protocol,
    Selector,
};
use policy::{
    Action, Endpoint, EndpointId, Evaluator, Flow, Party, Policy, PolicyKey, PolicyKind, Reason,
    RuleRef,
};
use std::net::IpAddr;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;

/// Pod `namespace/app`, with label `app`, ports `web` = TCP 8080 and `dns` = UDP 53.
fn pod(namespace: &str, app: &str, address: [u8; 4]) -> (EndpointId, Endpoint) {
    let port = |name: &str, protocol, port| NamedPort {
        name: name.to_owned(),
        protocol,
        port,
    };
    let endpoint = Endpoint {
        namespace: namespace.to_owned().into(),
        pod: app.to_owned().into(),
        labels: Labels::from([("app".to_owned(), app.to_owned())]),
        ports: vec![
            port("web", Protocol::Tcp, 8080),
            port("dns", Protocol::Udp, 53),
        ]
        .into(),
        ips: vec![address.into()],
        local: None,
        labels_known: true,
        service_account: None,
        profiles: vec![].into(),
    };
    (EndpointId(format!("{namespace}/{app}").into()), endpoint)
}

/// Namespaces `shop` (pods `api`, `db`) and `web` with label `team=web` (pods `front`, `api`).
fn cluster() -> Evaluator {
    let mut evaluator = Evaluator::default();
    evaluator.set_namespace(
        "web",
        Some(Labels::from([("team".to_owned(), "web".to_owned())])),
    );
    for (id, endpoint) in [
        pod("shop", "api", [10, 0, 0, 1]),
        pod("shop", "db", [10, 0, 0, 2]),
        pod("web", "front", [10, 0, 1, 1]),
        pod("web", "api", [10, 0, 1, 2]),
    ] {
        evaluator.set_endpoint(&id, Some(endpoint));
    }
    evaluator
}

fn app(name: &str) -> Selector {
    Selector::Eq("app".to_owned(), name.to_owned())
}

fn team(name: &str) -> Selector {
    Selector::Eq("team".to_owned(), name.to_owned())
}

fn pods(namespaces: Option<Selector>, pods: Selector) -> PolicyPeer {
    PolicyPeer::Pods { namespaces, pods }
}

fn block(cidr: &str, except: &[&str]) -> PolicyPeer {
    let except = except.iter().map(|cidr| cidr.parse().unwrap()).collect();
    PolicyPeer::IpBlock {
        cidr: cidr.parse().unwrap(),
        except,
    }
}

fn port(protocol: Protocol, port: PortMatch) -> PolicyPort {
    PolicyPort { protocol, port }
}

fn rule(peers: Option<Vec<PolicyPeer>>, ports: Option<Vec<PolicyPort>>) -> PolicyRule {
    PolicyRule { peers, ports }
}

fn policy(ingress: Option<Vec<PolicyRule>>, egress: Option<Vec<PolicyRule>>) -> NetworkPolicy {
    let (namespace, name) = ("shop".to_owned(), "p".to_owned());
    NetworkPolicy {
        namespace,
        name,
        pod_selector: app("api"),
        ingress,
        egress,
    }
}

fn key(name: &str) -> PolicyKey {
    PolicyKey {
        name: name.to_owned(),
        namespace: Some("shop".to_owned()),
        kind: PolicyKind::Kubernetes,
    }
}

fn set(evaluator: &mut Evaluator, name: &str, policy: NetworkPolicy) {
    let name_of = name.to_owned();
    let policy = NetworkPolicy {
        name: name_of,
        ..policy
    };
    evaluator.set_policy(&key(name), Some(Policy::from(policy)));
}

fn flow(source: &str, destination: &str, protocol: u8, port: Option<u16>) -> Flow {
    let party = |address: &str| Party::Address(address.parse().unwrap());
    Flow::new(party(source), party(destination), protocol, port)
}

const API: &str = "10.0.0.1";
const DB: &str = "10.0.0.2";
const FRONT: &str = "10.0.1.1";
const OTHER_API: &str = "10.0.1.2";
const WORLD: &str = "192.0.2.1";

/// Whether a flow into `api` is allowed under one ingress rule.
fn allows(rule: PolicyRule, source: &str, protocol: u8, port: Option<u16>) -> bool {
    let mut evaluator = cluster();
    set(&mut evaluator, "p", policy(Some(vec![rule]), None));
    evaluator
        .verdict(&flow(source, API, protocol, port))
        .allowed
}

#[test]
fn peers_match_as_the_specification_says() {
    let cases = [
        ("absent: anybody", None, [true, true, true, true]),
        ("unreadable: nobody", Some(vec![]), [false; 4]),
        (
            "pods of the policy's namespace",
            Some(vec![pods(None, Selector::All)]),
            [true, false, false, false],
        ),
        (
            "all pods",
            Some(vec![pods(Some(Selector::All), Selector::All)]),
            [true, true, true, false],
        ),
        (
            "pods of a team",
            Some(vec![pods(Some(team("web")), Selector::All)]),
            [false, true, true, false],
        ),
        (
            "both selectors in one peer are and",
            Some(vec![pods(Some(team("web")), app("api"))]),
            [false, false, true, false],
        ),
        (
            "two peers are or",
            Some(vec![
                pods(Some(team("web")), app("front")),
                pods(None, app("db")),
            ]),
            [true, true, false, false],
        ),
        (
            "a block matches pods too",
            Some(vec![block("10.0.1.0/24", &[])]),
            [false, true, true, false],
        ),
        (
            "except takes away",
            Some(vec![block("0.0.0.0/0", &["10.0.0.0/16"])]),
            [false, false, false, true],
        ),
        (
            "another peer gives back what except took",
            Some(vec![
                block("0.0.0.0/0", &["10.0.0.0/16"]),
                block("10.0.0.0/24", &[]),
            ]),
            [true, false, false, true],
        ),
        (
            "a block of the other family",
            Some(vec![block("::/0", &[])]),
            [false; 4],
        ),
    ];
    for (name, peers, expected) in cases {
        let verdicts = [DB, FRONT, OTHER_API, WORLD]
            .map(|source| allows(rule(peers.clone(), None), source, TCP, Some(80)));
        assert_eq!(verdicts, expected, "{name}");
    }
}

#[test]
fn ports_match_as_the_specification_says() {
    let range = |first, last| PortMatch::Range(first, last);
    let named = |name: &str| PortMatch::Named(name.to_owned());
    let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
    let cases = [
        ("absent: any port of any protocol", None, [true; 6]),
        ("unreadable: nothing", Some(vec![]), [false; 6]),
        (
            "one port",
            Some(vec![port(tcp, range(80, 80))]),
            [true, false, false, false, false, false],
        ),
        (
            "a range holds its ends",
            Some(vec![port(tcp, range(80, 81))]),
            [true, true, false, false, false, false],
        ),
        (
            "all ports of a protocol",
            Some(vec![port(udp, PortMatch::Any)]),
            [false, false, false, true, true, false],
        ),
        (
            "a named port, its own protocol",
            Some(vec![port(tcp, named("web"))]),
            [false, false, true, false, false, false],
        ),
        (
            "a named port, another protocol",
            Some(vec![port(udp, named("web"))]),
            [false; 6],
        ),
        (
            "a named port that nobody has",
            Some(vec![port(tcp, named("none"))]),
            [false; 6],
        ),
    ];
    let services = [(TCP, 80), (TCP, 81), (TCP, 8080), (UDP, 53), (UDP, 80)];
    for (name, ports, expected) in cases {
        let mut verdicts: Vec<_> = services
            .map(|(protocol, port)| allows(rule(None, ports.clone()), WORLD, protocol, Some(port)))
            .into();
        verdicts.push(allows(rule(None, ports.clone()), WORLD, ICMP, None));
        assert_eq!(verdicts, expected, "{name}");
    }
}

#[test]
fn a_named_port_of_an_egress_rule_is_the_peers_and_never_an_address_blocks() {
    let named = Some(vec![port(
        Protocol::Tcp,
        PortMatch::Named("web".to_owned()),
    )]);
    let cases = [
        (None, [true, false]),
        (Some(vec![pods(None, Selector::All)]), [true, false]),
        (Some(vec![block("0.0.0.0/0", &[])]), [false, false]),
    ];
    for (peers, expected) in cases {
        let mut evaluator = cluster();
        let rules = vec![rule(peers.clone(), named.clone())];
        set(&mut evaluator, "p", policy(None, Some(rules)));
        let verdicts =
            [DB, WORLD].map(|to| evaluator.verdict(&flow(API, to, TCP, Some(8080))).allowed);
        assert_eq!(verdicts, expected, "{peers:?}");
    }
}

#[test]
fn reasons_name_what_decided() {
    let mut evaluator = cluster();
    let front = rule(Some(vec![pods(Some(team("web")), app("front"))]), None);
    let nobody = rule(Some(vec![]), None);
    set(&mut evaluator, "p", policy(Some(vec![nobody, front]), None));
    let reasons = |source: Party, destination: &str| {
        let destination = Party::Address(destination.parse().unwrap());
        let decision = evaluator.verdict(&Flow::new(source, destination, TCP, Some(80)));
        (
            decision.allowed,
            decision.egress.reason,
            decision.ingress.reason,
        )
    };
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let at = |text: &str| Party::Address(address(text));
    let by_rule = Reason::Rule(RuleRef {
        tier: "default".to_owned(),
        policy: key("p"),
        rule: 1,
        name: None,
        action: Action::Allow,
    });
    let denied = Reason::EndOfTier {
        tier: "default".to_owned(),
        policies: vec![key("p")],
    };
    assert_eq!(reasons(at(FRONT), API), (true, Reason::NoPolicy, by_rule));
    assert_eq!(reasons(at(WORLD), API), (false, Reason::NoEndpoint, denied));
    assert_eq!(
        reasons(at(API), API),
        (true, Reason::NoPolicy, Reason::Itself)
    );
    assert_eq!(
        reasons(at(API), WORLD),
        (true, Reason::NoPolicy, Reason::NoEndpoint)
    );
    let node = Party::OwnNode(address(WORLD));
    assert_eq!(
        reasons(node, API),
        (true, Reason::NoEndpoint, Reason::OwnNode)
    );
}

#[test]
fn a_policy_isolates_the_directions_that_it_names_only() {
    let cases = [
        (Some(vec![]), None, [false, true]),
        (None, Some(vec![]), [true, false]),
        (Some(vec![]), Some(vec![]), [false, false]),
        (None, None, [true, true]),
    ];
    for (ingress, egress, expected) in cases {
        let mut evaluator = cluster();
        set(&mut evaluator, "p", policy(ingress, egress));
        let verdicts = [
            flow(WORLD, API, TCP, Some(80)),
            flow(API, WORLD, TCP, Some(80)),
        ]
        .map(|flow| evaluator.verdict(&flow).allowed);
        assert_eq!(verdicts, expected);
    }
}

#[test]
fn a_policy_of_another_namespace_does_not_isolate() {
    let mut evaluator = cluster();
    set(&mut evaluator, "p", policy(Some(vec![]), None));
    let decision = evaluator.verdict(&flow(WORLD, OTHER_API, TCP, Some(80)));
    assert_eq!(decision.ingress.reason, Reason::NoPolicy);
}

#[test]
fn policies_add_up() {
    let mut evaluator = cluster();
    let from = |peer| policy(Some(vec![rule(Some(vec![peer]), None)]), None);
    set(&mut evaluator, "db", from(pods(None, app("db"))));
    set(
        &mut evaluator,
        "front",
        from(pods(Some(team("web")), app("front"))),
    );
    let verdicts = [DB, FRONT, OTHER_API]
        .map(|source| evaluator.verdict(&flow(source, API, TCP, Some(80))).allowed);
    assert_eq!(verdicts, [true, true, false]);
}
