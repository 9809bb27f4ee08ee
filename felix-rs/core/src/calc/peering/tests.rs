use super::*;
use crate::calc::tests::{ALL_TUNNELS, local, net, node};
use crate::fixtures::ethernet;

use bgp_core::{FibChange, Import, PeerKey};
use model::dataplane::{Address, Link, NextHop};
use model::{BgpConfiguration, BgpPeer, Namespace, Object, Selector, Update};

fn configuration() -> Object {
    Object::BgpConfiguration(Box::new(BgpConfiguration {
        local_workload_peering_ipv4: Some([169, 254, 0, 179].into()),
        ..BgpConfiguration::default()
    }))
}

fn peer(selector: Selector) -> Object {
    Object::BgpPeer(Box::new(BgpPeer {
        local_workload_selector: Some(selector),
        as_number: Some(65010),
        ..BgpPeer::new("inner")
    }))
}

fn router() -> Selector {
    Selector::Eq("app".into(), "router".into())
}

/// Two pods, one of them a router on interface 7.
fn calc(objects: Vec<Object>) -> Calc {
    let own = node("n1", "10.1.0.11/24");
    let mut calc = Calc::new("n1", ALL_TUNNELS, policy::Options::default());
    for object in objects.into_iter().chain([own]) {
        apply(&mut calc, object);
    }
    for (index, pod, ip) in [(7, "router", "10.244.1.7/32"), (8, "web", "10.244.1.8/32")] {
        calc.on_link(ethernet(index, &format!("oci{pod}")));
        calc.set_local(local(pod, ip, index));
    }
    calc.resolve();
    calc
}

fn apply(calc: &mut Calc, object: Object) {
    let warnings = vec![];
    calc.on_update(Update::Apply { object, warnings });
}

/// The Loc-RIB leads to this network by way of this address.
fn learnt(network: IpNet, next_hop: [u8; 4]) -> FibChange {
    FibChange::Set {
        prefix: network,
        next_hops: vec![IpAddr::from(next_hop).into()],
        priority: None,
    }
}

fn problems(calc: &Calc) -> Vec<String> {
    calc.problems().iter().map(ToString::to_string).collect()
}

#[test]
fn a_selected_pod_is_a_passive_peer_of_which_nothing_is_taken_unasked() {
    let calc = calc(vec![configuration(), peer(router())]);
    assert!(problems(&calc).is_empty());
    let sessions = calc.desired().sessions.as_ref().unwrap();
    let key = PeerKey::new([10, 244, 1, 7].into(), 179);
    assert_eq!(sessions.peers.keys().collect::<Vec<_>>(), [&key]);
    let peer = &sessions.peers[&key];
    assert!(peer.passive);
    assert_eq!((peer.source_address, peer.import), (None, Import::None));
    let readdress = Readdress {
        ifindex: 7,
        add: vec![[169, 254, 0, 179].into()],
        remove: vec![],
    };
    assert_eq!(calc.host_ends_to_readdress(), [readdress]);
}

#[test]
fn somebody_elses_link_keeps_its_addresses_whatever_its_name_is() {
    let mut calc = calc(vec![configuration()]);
    calc.on_link(ethernet(9, "ocistranger"));
    calc.on_address(Address {
        ifindex: 9,
        address: net("10.66.0.1/24"),
    });
    calc.resolve();
    assert_eq!(calc.host_ends_to_readdress(), []);
}

#[test]
fn a_pod_goes_by_the_labels_of_its_namespace_too_and_stops_being_a_peer_with_them() {
    let team = |team: &str| {
        Object::Namespace(Namespace {
            name: "shop".into(),
            labels: Labels::from([("team".to_owned(), team.to_owned())]),
            annotations: model::Annotations::new(),
        })
    };
    let selector = Selector::And(vec![
        Selector::Eq("pcns.team".into(), "net".into()),
        Selector::Eq("projectcalico.org/namespace".into(), "shop".into()),
        router(),
    ]);
    let mut calc = calc(vec![configuration(), peer(selector), team("net")]);
    let peers = |calc: &Calc| calc.desired().sessions.as_ref().unwrap().peers.len();
    assert_eq!(peers(&calc), 1);
    let address = Address {
        ifindex: 7,
        address: net("169.254.0.179/32"),
    };
    calc.on_address(address);
    assert_eq!(calc.host_ends_to_readdress(), []);
    apply(&mut calc, team("web"));
    calc.resolve();
    assert_eq!(peers(&calc), 0);
    let readdress = Readdress {
        ifindex: 7,
        add: vec![],
        remove: vec![net("169.254.0.179/32")],
    };
    assert_eq!(calc.host_ends_to_readdress(), [readdress]);
}

#[test]
fn what_a_pod_announces_leads_to_its_link_and_the_pod_may_speak_for_it() {
    let mut calc = calc(vec![configuration(), peer(router())]);
    let network = net("10.123.0.0/24");
    calc.on_fib(learnt(network, [10, 244, 1, 7]));
    calc.resolve();
    let hop = NextHop {
        gateway: [10, 244, 1, 7].into(),
        ifindex: Some(7),
        onlink: true,
        weight: 1,
    };
    let through_pod = RouteKind::Via(vec![hop]);
    let wanted = Some(&through_pod);
    assert_eq!(calc.desired().route(&network), wanted);
    let behind = |calc: &Calc| {
        let sets = calc.ruleset().sets.keys();
        sets.filter(|name| name.starts_with("behind4_")).count()
    };
    assert_eq!(behind(&calc), 1);
    let down = Link {
        carrier: false,
        ..ethernet(7, "ocirouter")
    };
    calc.on_link(down);
    calc.resolve();
    assert_eq!(calc.desired().route(&network), None);
    calc.on_link(ethernet(7, "ocirouter"));
    calc.resolve();
    assert_eq!(calc.desired().route(&network), wanted);
    // A pod that is no peer is no way to anywhere.
    calc.on_fib(learnt(network, [10, 244, 1, 8]));
    calc.resolve();
    assert_eq!(calc.desired().route(&network), None);
    assert_eq!(behind(&calc), 0);
}

#[test]
fn without_an_address_to_connect_to_or_an_as_number_there_is_no_session_and_a_reason() {
    let without_address = calc(vec![peer(router())]);
    assert!(problems(&without_address)[0].starts_with(
        "BGPPeer/inner: spec.localWorkloadSelector: BGPConfiguration/default has no \
         localWorkloadPeeringIPV4"
    ));
    let Object::BgpPeer(mut object) = peer(router()) else {
        unreachable!()
    };
    object.as_number = None;
    let without_number = calc(vec![configuration(), Object::BgpPeer(object)]);
    assert_eq!(
        problems(&without_number),
        [
            "BGPPeer/inner: spec.asNumber: is required beside localWorkloadSelector, so there is no session"
        ]
    );
    for calc in [without_address, without_number] {
        assert!(calc.desired().sessions.as_ref().unwrap().peers.is_empty());
    }
}
