use super::*;
use crate::fixtures::{self, ethernet};
use crate::workloads::seen;
use model::dataplane::NextHop;
use model::dataplane::{Address, Route};
use model::{EncapMode, IpPool, Labels, Namespace, NetworkPolicy, Node, Pod, Selector};
use proptest::prelude::*;

pub(super) const ALL_TUNNELS: TunnelKinds = TunnelKinds {
    ipip: true,
    ip6: true,
    vxlan: true,
};

pub(super) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(super) fn node(name: &str, address: &str) -> Object {
    Object::Node(Node {
        name: name.into(),
        labels: Labels::new(),
        ipv4_address: Some(address.parse().unwrap()),
        ipv6_address: None,
        addresses: std::collections::BTreeSet::new(),
        as_number: None,
        route_reflector_cluster_id: None,
    })
}

fn pool(mode: EncapMode) -> Object {
    Object::IpPool(Box::new(IpPool {
        nat_outgoing: true,
        ..fixtures::pool(mode)
    }))
}

fn workload(node: &str, pod: &str, ip: &str) -> WorkloadEndpoint {
    WorkloadEndpoint {
        namespace: "shop".into(),
        name: format!("{node}-k8s-{pod}-eth0").into(),
        node: node.into(),
        pod: pod.into(),
        pod_uid: None,
        container_id: format!("container-{pod}").into(),
        endpoint: "eth0".into(),
        interface_name: format!("oci{pod}").into(),
        mac: [2, 0, 0, 0, 0, 1],
        ip_networks: vec![net(ip)],
        labels: Labels::from([("app".to_owned(), pod.to_owned())]),
        ports: vec![].into(),
        host_ports: vec![],
    }
}

pub(super) fn local(pod: &str, ip: &str, ifindex: u32) -> LocalEndpoint {
    let endpoint = workload("n1", pod, ip);
    LocalEndpoint {
        endpoint,
        ifindex,
        mtu: 1480,
        sequence: u64::from(ifindex),
    }
}

fn policy(name: &str) -> Object {
    Object::NetworkPolicy(std::sync::Arc::new(NetworkPolicy {
        namespace: "shop".into(),
        name: name.into(),
        pod_selector: Selector::Has("app".into()),
        ingress: Some(vec![model::PolicyRule {
            peers: Some(vec![model::PolicyPeer::Pods {
                namespaces: None,
                pods: Selector::Eq("app".into(), "far".into()),
            }]),
            ports: None,
        }]),
        egress: None,
    }))
}

/// One fact that can arrive in any order with the others.
#[derive(Debug, Clone)]
enum Fact {
    Object(Object),
    Link(Link),
    Address(Address),
    Local(LocalEndpoint),
    Blocks(BTreeSet<IpNet>),
    Fib(FibChange),
}

fn tell(calc: &mut Calc, fact: Fact) {
    match fact {
        Fact::Object(object) => {
            calc.on_update(Update::Apply {
                object,
                warnings: vec![],
            });
        }
        Fact::Link(link) => calc.on_link(link),
        Fact::Address(address) => calc.on_address(address),
        Fact::Local(endpoint) => calc.set_local(endpoint),
        Fact::Blocks(blocks) => calc.set_own_blocks(blocks),
        Fact::Fib(change) => calc.on_fib(change),
    }
}

fn facts() -> Vec<Fact> {
    let pod = Object::Pod(Pod {
        namespace: "shop".into(),
        name: "web".into(),
        uid: None,
        labels: Labels::from([("app".to_owned(), "far".to_owned())]),
        service_account: None,
        annotations: model::Annotations::new(),
        ports: vec![].into(),
        host_network: false,
        finished: false,
        ready: false,
    });
    let namespace = Namespace {
        name: "shop".into(),
        labels: Labels::new(),
        annotations: model::Annotations::new(),
    };
    vec![
        Fact::Object(node("n1", "10.1.0.11/24")),
        Fact::Object(node("n2", "10.1.0.12/24")),
        Fact::Object(node("n3", "10.2.0.13/24")),
        Fact::Object(pool(EncapMode::CrossSubnet)),
        Fact::Object(Object::Namespace(namespace)),
        Fact::Object(policy("allow-far")),
        Fact::Object(pod),
        Fact::Object(Object::WorkloadEndpoint(Box::new(workload(
            "n3",
            "far",
            "10.244.3.1/32",
        )))),
        Fact::Link(ethernet(2, "eth0")),
        Fact::Link(ethernet(7, "ociweb")),
        Fact::Link(ethernet(9, names::IPIP_DEVICE)),
        Fact::Address(Address {
            ifindex: 2,
            address: net("10.1.0.11/24"),
        }),
        Fact::Local(local("web", "10.244.1.1/32", 7)),
        Fact::Blocks([net("10.244.1.0/26")].into()),
        Fact::Fib(FibChange::Set {
            prefix: net("10.244.2.0/26"),
            next_hops: vec!["10.1.0.12".parse::<IpAddr>().unwrap().into()],
            priority: None,
        }),
        Fact::Fib(FibChange::Set {
            prefix: net("10.244.3.0/26"),
            next_hops: vec!["10.2.0.13".parse::<IpAddr>().unwrap().into()],
            priority: None,
        }),
    ]
}

fn told(facts: impl IntoIterator<Item = Fact>) -> Calc {
    let mut calc = Calc::new("n1", ALL_TUNNELS, policy::Options::default());
    for fact in facts {
        tell(&mut calc, fact);
    }
    calc.on_update(Update::InSync);
    calc.resolve();
    calc
}

fn via(gateway: &str, ifindex: u32, onlink: bool) -> RouteKind {
    let gateway = gateway.parse().unwrap();
    RouteKind::Via(vec![NextHop {
        gateway,
        ifindex: Some(ifindex),
        onlink,
        weight: 1,
    }])
}

#[test]
fn a_node_routes_its_pods_blackholes_its_blocks_and_tunnels_across_subnets() {
    let calc = told(facts());
    let desired = calc.desired();
    assert_eq!(
        desired.route(&net("10.244.1.1/32")),
        Some(&RouteKind::Device { ifindex: 7 })
    );
    assert_eq!(
        desired.route(&net("10.244.1.0/26")),
        Some(&RouteKind::Blackhole)
    );
    assert_eq!(
        desired.route(&net("10.244.2.0/26")),
        Some(&via("10.1.0.12", 2, false))
    );
    assert_eq!(
        desired.route(&net("10.244.3.0/26")),
        Some(&via("10.2.0.13", 9, true))
    );
    let mtu = desired.tunnels.get(names::IPIP_DEVICE).map(Tunnel::mtu);
    assert_eq!(mtu, Some(1480));
    assert_eq!(calc.pod_mtu(), 1480);
    let advertised: Vec<_> = desired
        .advertised
        .iter()
        .map(|route| route.prefix)
        .collect();
    assert_eq!(advertised, [net("10.244.1.0/26")]);
}

#[test]
fn a_pool_that_changes_its_mode_moves_the_routes_and_nothing_else() {
    let mut calc = told(facts());
    calc.take_touched();
    tell(&mut calc, Fact::Object(pool(EncapMode::Always)));
    calc.resolve();
    assert_eq!(calc.take_touched(), [net("10.244.2.0/26")].into());
    assert_eq!(
        calc.desired().route(&net("10.244.2.0/26")),
        Some(&via("10.1.0.12", 9, true))
    );
}

#[test]
fn pods_outside_their_nodes_blocks_have_routes_of_their_own_here_and_there() {
    let mut calc = told(facts());
    calc.set_own_blocks([net("10.244.9.0/26")].into());
    // A pod of another node in a block that this node got; BGP refuses what is part of it.
    let stray = net("10.244.9.7/32");
    calc.set_strays([(stray, vec!["10.1.0.12".parse().unwrap()])].into());
    calc.resolve();
    let desired = calc.desired();
    let advertised: Vec<_> = desired.advertised.iter().map(|r| r.prefix).collect();
    assert_eq!(advertised, [net("10.244.1.1/32"), net("10.244.9.0/26")]);
    assert_eq!(desired.route(&stray), Some(&via("10.1.0.12", 2, false)));
    calc.set_strays(BTreeMap::new());
    calc.resolve();
    assert_eq!(calc.desired().route(&stray), None);
}

#[test]
fn the_tunnel_has_the_nodes_own_address_of_its_block() {
    let mut calc = told(facts());
    let address = Some("10.244.1.5".parse().unwrap());
    calc.set_tunnel_address(address);
    calc.resolve();
    let tunnel = calc.desired().tunnels.get(names::IPIP_DEVICE);
    assert_eq!(tunnel.and_then(Tunnel::address), address);
}

#[test]
fn a_pod_without_its_link_has_no_route_and_a_deleted_one_frees_its_address() {
    let mut calc = told(facts());
    calc.on_link_gone(7);
    calc.resolve();
    assert_eq!(calc.desired().route(&net("10.244.1.1/32")), None);
    let key = EndpointKey {
        container_id: "container-web".into(),
        ifname: "eth0".into(),
    };
    assert!(calc.remove_local(&key).is_some());
    assert_eq!(calc.desired().freed, [net("10.244.1.1/32")].into());
    assert!(calc.remove_local(&key).is_none());
}

#[test]
fn routes_through_a_link_that_is_gone_are_withheld() {
    let mut calc = told(facts());
    calc.on_link_gone(2);
    calc.resolve();
    assert_eq!(calc.desired().route(&net("10.244.2.0/26")), None);
    let withheld: Vec<_> = calc.withheld().map(ToString::to_string).collect();
    assert_eq!(withheld, ["10.244.2.0/26: no route to next hop 10.1.0.12"]);
}

#[test]
fn a_link_that_goes_down_and_up_again_takes_its_routes_along() {
    let mut calc = told(facts());
    let up = ethernet(2, "eth0");
    calc.on_link(Link {
        up: false,
        ..up.clone()
    });
    calc.resolve();
    assert_eq!(calc.desired().route(&net("10.244.2.0/26")), None);
    calc.on_link(up);
    calc.resolve();
    assert_eq!(
        calc.desired().route(&net("10.244.2.0/26")),
        Some(&via("10.1.0.12", 2, false))
    );
}

#[test]
fn a_pod_made_again_under_its_name_does_not_get_the_labels_of_the_one_before() {
    let pod = |uid: &str, app: &str| {
        Object::Pod(Pod {
            namespace: "shop".into(),
            name: "db-0".into(),
            uid: Some(uid.into()),
            labels: Labels::from([("app".to_owned(), app.to_owned())]),
            service_account: None,
            annotations: model::Annotations::new(),
            ports: vec![].into(),
            host_network: false,
            finished: false,
            ready: false,
        })
    };
    let mut again = workload("n1", "db-0", "10.244.1.9/32");
    again.pod_uid = Some("second".into());
    again.labels = Labels::new();
    let objects = |object| {
        let mut objects = Objects::default();
        objects.apply(Update::Apply {
            object,
            warnings: vec![],
        });
        objects
    };
    let before = seen(&again, Some(9), &objects(pod("first", "old"))).unwrap();
    assert!(!before.labels_known && before.labels.is_empty());
    let first = WorkloadEndpoint {
        pod: "never-seen".into(),
        ..again.clone()
    };
    let unknown = |endpoint: &WorkloadEndpoint, local| {
        let seen = seen(endpoint, local, &objects(pod("first", "old"))).unwrap();
        !seen.labels_known
    };
    assert!(unknown(&first, Some(9)), "its object is on its way");
    assert!(
        !unknown(&first, None),
        "another node's: it matches no label"
    );
    let without_uid = WorkloadEndpoint {
        pod_uid: None,
        ..first.clone()
    };
    assert!(!unknown(&without_uid, Some(9)), "no object will come");
    let labelled = WorkloadEndpoint {
        labels: Labels::from([("app".to_owned(), "cni".to_owned())]),
        ..first
    };
    assert!(!unknown(&labelled, Some(9)));
    let after = seen(&again, Some(9), &objects(pod("second", "new"))).unwrap();
    assert!(after.labels_known);
    assert_eq!(after.labels["app"], "new");
}

#[test]
fn a_newer_sandbox_of_a_pod_keeps_its_place_when_the_older_one_goes() {
    let mut calc = told(facts());
    let mut newer = local("web", "10.244.1.2/32", 8);
    newer.endpoint.container_id = "container-web-2".into();
    tell(&mut calc, Fact::Link(ethernet(8, "ociweb2")));
    calc.set_local(newer);
    calc.resolve();
    let with_both = calc.ruleset().clone();
    let old = EndpointKey {
        container_id: "container-web".into(),
        ifname: "eth0".into(),
    };
    calc.remove_local(&old);
    calc.resolve();
    assert_eq!(calc.ruleset(), &with_both);
    assert!(calc.desired().route(&net("10.244.1.2/32")).is_some());
}

proptest! {
    #[test]
    fn any_order_of_the_same_facts_ends_in_the_same_state(
        order in Just(facts()).prop_shuffle(),
        resolve_after in 0_usize..16,
    ) {
        let expected = told(facts());
        let mut calc = Calc::new("n1", ALL_TUNNELS, policy::Options::default());
        for (index, fact) in order.into_iter().enumerate() {
            tell(&mut calc, fact);
            if index % 5 == resolve_after % 5 {
                calc.resolve();
            }
        }
        calc.on_update(Update::InSync);
        calc.resolve();
        prop_assert_eq!(calc.desired(), expected.desired());
        prop_assert_eq!(calc.ruleset(), expected.ruleset());
        prop_assert_eq!(calc.problems(), expected.problems());
    }

    #[test]
    fn what_came_and_went_leaves_no_trace(
        gone in proptest::sample::subsequence((0..16).collect::<Vec<usize>>(), 0..=16),
    ) {
        let mut calc = told(facts());
        for index in &gone {
            match facts().swap_remove(*index) {
                Fact::Object(object) => { calc.on_update(Update::Delete(object.key())); }
                Fact::Link(link) => calc.on_link_gone(link.ifindex),
                Fact::Address(address) => calc.on_address_gone(&address),
                Fact::Local(endpoint) => { calc.remove_local(&EndpointKey::of(&endpoint.endpoint)); }
                Fact::Blocks(_) => calc.set_own_blocks(BTreeSet::new()),
                Fact::Fib(change) => calc.on_fib(FibChange::Remove { prefix: change.prefix() }),
            }
            calc.resolve();
        }
        for fact in facts() {
            tell(&mut calc, fact);
        }
        calc.resolve();
        let expected = told(facts());
        prop_assert_eq!(&calc.desired().local, &expected.desired().local);
        prop_assert_eq!(&calc.desired().learned, &expected.desired().learned);
        prop_assert_eq!(calc.ruleset(), expected.ruleset());
    }
}

#[test]
fn a_way_that_works_is_kept_beside_a_tunnel_that_was_made_a_moment_ago() {
    let mut calc = told(facts());
    let near = net("10.244.2.0/26");
    calc.set_settling([names::IPIP_DEVICE.to_owned()].into());
    tell(&mut calc, Fact::Object(pool(EncapMode::Always)));
    calc.resolve();
    assert_eq!(
        calc.desired().route(&near),
        Some(&via("10.1.0.12", 2, false))
    );
    // A route that is new has no other way.
    let fresh = net("10.244.4.0/26");
    tell(
        &mut calc,
        Fact::Fib(FibChange::Set {
            prefix: fresh,
            next_hops: vec!["10.1.0.12".parse::<IpAddr>().unwrap().into()],
            priority: None,
        }),
    );
    calc.resolve();
    assert_eq!(
        calc.desired().route(&fresh),
        Some(&via("10.1.0.12", 9, true))
    );
    calc.set_settling(BTreeSet::new());
    calc.resolve();
    assert_eq!(
        calc.desired().route(&near),
        Some(&via("10.1.0.12", 9, true))
    );
}

#[test]
fn the_metric_that_a_filter_sets_is_that_of_the_route_unless_somebody_else_has_it() {
    let mut calc = told(facts());
    let near = net("10.244.2.0/26");
    let learnt = |priority| FibChange::Set {
        prefix: near,
        next_hops: vec!["10.1.0.12".parse::<IpAddr>().unwrap().into()],
        priority,
    };
    calc.resolve();
    calc.take_touched();
    let metric = |calc: &mut Calc, priority| {
        calc.on_fib(learnt(priority));
        calc.resolve();
        let touched = calc.take_touched().contains(&near);
        (calc.desired().metric(&near), touched)
    };
    assert_eq!(metric(&mut calc, Some(names::ROUTE_METRIC)), (1022, false));
    assert_eq!(metric(&mut calc, Some(300)), (300, true));
    assert_eq!(metric(&mut calc, Some(300)), (300, false));
    let theirs = Route {
        dest: near,
        kind: via("10.1.0.1", 2, false),
    };
    calc.on_foreign_route(theirs, 300);
    calc.resolve();
    assert_eq!(calc.desired().route(&near), None);
    let why: Vec<_> = calc.withheld().map(ToString::to_string).collect();
    assert_eq!(
        why,
        ["10.244.2.0/26: a BGPFilter sets metric 300, with which there is somebody else's route"]
    );
    calc.on_foreign_route_gone(&near, 300);
    calc.resolve();
    assert_eq!(calc.desired().metric(&near), 300);
    calc.on_fib(FibChange::Remove { prefix: near });
    calc.resolve();
    assert!(calc.desired().metrics.is_empty());
}

#[test]
fn without_bgp_sessions_the_owners_of_blocks_are_the_next_hops() {
    let mut calc = told(facts());
    let block = net("10.244.8.0/26");
    let owned = Object::IpamBlock(model::IpamBlock {
        cidr: block,
        node: "n3".into(),
    });
    tell(&mut calc, Fact::Object(owned));
    calc.resolve();
    assert_eq!(calc.desired().route(&block), None, "BGP would tell of it");
    let mesh = |enabled| {
        Object::BgpConfiguration(Box::new(model::BgpConfiguration {
            name: "default".into(),
            node_to_node_mesh_enabled: enabled,
            ..model::BgpConfiguration::default()
        }))
    };
    tell(&mut calc, Fact::Object(mesh(false)));
    calc.resolve();
    assert_eq!(
        calc.desired().route(&block),
        Some(&via("10.2.0.13", 9, true))
    );
    tell(&mut calc, Fact::Object(mesh(true)));
    calc.resolve();
    assert_eq!(calc.desired().route(&block), None);
}

#[test]
fn ipv6_pods_of_nodes_without_ipv6_need_vxlan() {
    let mut calc = told(facts());
    let block = net("fd00:10:244::/122");
    let mut pool = |vxlan_mode, ipip_mode| {
        let Object::IpPool(v4) = self::pool(ipip_mode) else {
            panic!("a pool")
        };
        let pool = Object::IpPool(Box::new(IpPool {
            name: "v6".into(),
            cidr: net("fd00:10:244::/56"),
            block_size: 122,
            vxlan_mode,
            ..*v4
        }));
        tell(&mut calc, Fact::Object(pool));
        let owned = model::IpamBlock {
            cidr: block,
            node: "n3".into(),
        };
        tell(&mut calc, Fact::Object(Object::IpamBlock(owned)));
        tell(&mut calc, Fact::Link(ethernet(10, names::VXLAN_DEVICE)));
        calc.resolve();
        let withheld = calc.withheld().map(ToString::to_string).collect::<Vec<_>>();
        (calc.desired().route(&block).is_some(), withheld.join("; "))
    };
    let words =
        "fd00:10:244::/122: next hop 10.2.0.13 is IPv4: only vxlanMode carries IPv6 over it";
    assert_eq!(
        pool(EncapMode::Never, EncapMode::Always),
        (false, words.to_owned())
    );
    assert_eq!(
        pool(EncapMode::Never, EncapMode::Never),
        (false, words.to_owned())
    );
    assert_eq!(
        pool(EncapMode::Always, EncapMode::Never),
        (true, String::new())
    );
}

#[test]
fn the_mtu_is_that_of_the_way_to_the_other_nodes() {
    let mut calc = told(facts());
    let mut narrow = ethernet(2, "eth0");
    narrow.mtu = 1400;
    tell(&mut calc, Fact::Link(narrow));
    calc.resolve();
    assert_eq!((calc.uplink_mtu(), calc.pod_mtu()), (1400, 1380));
    // The address of the node may be on loopback, whose MTU says nothing.
    calc.on_address_gone(&Address {
        ifindex: 2,
        address: net("10.1.0.11/24"),
    });
    let mut lo = ethernet(1, "lo");
    lo.mtu = 65_536;
    tell(&mut calc, Fact::Link(lo));
    for (ifindex, address) in [(1, "10.1.0.11/32"), (2, "192.0.2.11/24")] {
        let address = net(address);
        tell(&mut calc, Fact::Address(Address { ifindex, address }));
    }
    let RouteKind::Via(hops) = via("192.0.2.1", 2, false) else {
        panic!("a gateway")
    };
    let default = Route {
        dest: net("0.0.0.0/0"),
        kind: RouteKind::Via(hops),
    };
    calc.on_foreign_route(default, 0);
    calc.resolve();
    assert_eq!((calc.uplink_mtu(), calc.pod_mtu()), (1400, 1380));
}

#[test]
fn the_mtu_is_the_least_where_the_families_take_two_ways() {
    let mut calc = told(facts());
    let with_v6 = |name: &str, v4: &str, v6: &str| {
        let Object::Node(mut node) = node(name, v4) else {
            panic!("a node")
        };
        node.ipv6_address = Some(v6.parse().unwrap());
        Fact::Object(Object::Node(node))
    };
    let mut vlan = ethernet(3, "eth0.7");
    vlan.mtu = 1400;
    tell(&mut calc, Fact::Link(vlan));
    tell(
        &mut calc,
        Fact::Address(Address {
            ifindex: 3,
            address: net("fd00:1::11/64"),
        }),
    );
    // That a family leads somewhere says nothing, unless both ends have it.
    tell(&mut calc, with_v6("n2", "10.1.0.12/24", "fd00:1::12/64"));
    calc.resolve();
    assert_eq!(calc.uplink_mtu(), 1500);
    tell(&mut calc, with_v6("n1", "10.1.0.11/24", "fd00:1::11/64"));
    calc.resolve();
    assert_eq!(calc.uplink_mtu(), 1400);
}
