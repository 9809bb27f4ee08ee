use super::*;
use crate::bgp::tests::{node, objects};
use model::{EndpointSlice, Object, PrefixAdvertisement};
use proptest::prelude::*;

fn configuration() -> BgpConfiguration {
    BgpConfiguration {
        service_cluster_ips: vec!["10.96.0.0/12".parse().unwrap()],
        service_external_ips: vec!["192.0.2.0/24".parse().unwrap()],
        service_load_balancer_ips: vec!["198.51.100.0/24".parse().unwrap()],
        ..BgpConfiguration::default()
    }
}

fn service(name: &str, policy: ExternalTrafficPolicy) -> Service {
    Service {
        namespace: "shop".into(),
        name: name.into(),
        service_type: ServiceType::LoadBalancer,
        cluster_ips: vec!["10.96.0.7".parse().unwrap()],
        external_ips: vec!["192.0.2.7".parse().unwrap(), "203.0.113.7".parse().unwrap()],
        load_balancer_ips: vec!["198.51.100.7".parse().unwrap()],
        requested_load_balancer_ip: None,
        load_balancer_class: None,
        external_traffic_policy: policy,
        ip_families: vec![],
        ports: vec![],
        annotations: std::collections::BTreeMap::new(),
    }
}

fn slice(service: &str, nodes: &[&str]) -> Object {
    Object::EndpointSlice(Box::new(EndpointSlice {
        namespace: "shop".into(),
        name: format!("{service}-1"),
        service: service.into(),
        addresses: BTreeSet::new(),
        ports: vec![],
        ready_nodes: nodes.iter().map(|name| (*name).to_owned()).collect(),
    }))
}

fn announced(name: &str, all: impl IntoIterator<Item = Object>) -> Vec<String> {
    let nodes = [node("n1", "10.1.0.11/24"), node("n2", "10.1.0.12/24")].map(Object::Node);
    let objects = objects(nodes.into_iter().chain(all));
    let routes = local_routes(name, &BTreeSet::new(), &objects);
    routes
        .iter()
        .map(|route| route.prefix.to_string())
        .collect()
}

const RANGES: [&str; 3] = ["10.96.0.0/12", "192.0.2.0/24", "198.51.100.0/24"];

#[test]
fn ranges_are_announced_whole_by_every_node() {
    let cluster = Object::Service(Box::new(service("web", ExternalTrafficPolicy::Cluster)));
    let all = [Object::BgpConfiguration(Box::new(configuration())), cluster];
    assert_eq!(announced("n1", all.clone()), RANGES);
    assert_eq!(announced("n2", all), RANGES);
}

#[test]
fn a_local_service_is_announced_address_by_address_by_nodes_with_a_ready_endpoint() {
    let local = Object::Service(Box::new(service("web", ExternalTrafficPolicy::Local)));
    let all = [
        Object::BgpConfiguration(Box::new(configuration())),
        local,
        slice("web", &["n2"]),
    ];
    assert_eq!(announced("n1", all.clone()), RANGES);
    let expected = [
        "10.96.0.0/12",
        "10.96.0.7/32",
        "192.0.2.0/24",
        "192.0.2.7/32",
        "198.51.100.0/24",
        "198.51.100.7/32",
    ];
    assert_eq!(announced("n2", all), expected);
}

#[test]
fn load_balancer_addresses_may_be_announced_one_by_one() {
    let apart = BgpConfiguration {
        service_cluster_ips: vec![],
        service_external_ips: vec![],
        service_load_balancer_aggregation: false,
        ..configuration()
    };
    let cluster = Object::Service(Box::new(service("web", ExternalTrafficPolicy::Cluster)));
    let all = [Object::BgpConfiguration(Box::new(apart)), cluster];
    assert_eq!(announced("n1", all), ["198.51.100.7/32"]);
}

#[test]
fn headless_services_and_aliases_have_no_address_to_announce() {
    let local = || service("web", ExternalTrafficPolicy::Local);
    let headless = Service {
        cluster_ips: vec![],
        ..local()
    };
    let alias = Service {
        service_type: ServiceType::ExternalName,
        ..local()
    };
    for service in [headless, alias] {
        let all = [
            Object::BgpConfiguration(Box::new(configuration())),
            Object::Service(Box::new(service)),
            slice("web", &["n1"]),
        ];
        assert_eq!(announced("n1", all), RANGES);
    }
}

#[test]
fn a_node_that_is_excluded_from_load_balancers_announces_no_service() {
    let mut excluded = node("n1", "10.1.0.11/24");
    excluded.labels.insert(EXCLUDED, "");
    let all = [
        Object::BgpConfiguration(Box::new(configuration())),
        Object::Service(Box::new(service("web", ExternalTrafficPolicy::Local))),
        slice("web", &["n1"]),
        Object::Node(excluded),
    ];
    assert!(announced("n1", all).is_empty());
}

#[test]
fn what_is_attached_to_a_prefix_comes_from_all_entries_that_hold_it() {
    let entry = |cidr: &str, communities: &[&str], local_preference| PrefixAdvertisement {
        cidr: cidr.parse().unwrap(),
        communities: communities.iter().map(|c| c.parse().unwrap()).collect(),
        local_preference,
    };
    let tagged = BgpConfiguration {
        prefix_advertisements: vec![
            entry("10.244.0.0/16", &["64512:2", "64512:1"], Some(200)),
            entry("10.244.1.0/24", &["64512:1", "1:2:3"], None),
            entry("10.245.0.0/16", &["64512:9"], Some(300)),
        ],
        ..BgpConfiguration::default()
    };
    let objects = objects([Object::BgpConfiguration(Box::new(tagged))]);
    let blocks = ["10.244.1.64/26", "10.246.0.0/26"].map(|block| block.parse().unwrap());
    let routes = local_routes("n1", &BTreeSet::from(blocks), &objects);
    let tagged = LocalRoute {
        communities: vec![64512 << 16 | 1, 64512 << 16 | 2],
        large_communities: vec![[1, 2, 3]],
        local_pref: Some(200),
        ..LocalRoute::from(blocks[0])
    };
    assert_eq!(routes, BTreeSet::from([tagged, blocks[1].into()]));
}

proptest! {
    /// Whatever the Services are: nothing outside the ranges is announced, and an excluded node
    /// announces nothing.
    #[test]
    fn only_what_lies_in_the_ranges_is_announced(
        services in proptest::collection::vec((any::<[u8; 4]>(), any::<bool>(), any::<bool>()), 0..8),
        aggregation in any::<bool>(),
        excluded in any::<bool>(),
    ) {
        let configuration = BgpConfiguration {
            service_load_balancer_aggregation: aggregation,
            ..configuration()
        };
        let ranges = service_ranges(&configuration);
        let mut own = node("n1", "10.1.0.11/24");
        if excluded {
            own.labels.insert(EXCLUDED, "true");
        }
        let mut all = vec![Object::BgpConfiguration(Box::new(configuration)), Object::Node(own)];
        for (index, (address, local, ready)) in services.iter().enumerate() {
            let name = format!("s{index}");
            let policy = if *local {
                ExternalTrafficPolicy::Local
            } else {
                ExternalTrafficPolicy::Cluster
            };
            let mut one = service(&name, policy);
            one.external_ips.push(IpAddr::from(*address));
            one.load_balancer_ips.push(IpAddr::from(*address));
            all.push(Object::Service(Box::new(one)));
            if *ready {
                all.push(slice(&name, &["n1"]));
            }
        }
        let objects = objects(all);
        let routes = local_routes("n1", &BTreeSet::new(), &objects);
        for route in &routes {
            prop_assert!(ranges.iter().any(|range| range.contains(&route.prefix)), "{}", route.prefix);
        }
        prop_assert_eq!(routes.is_empty(), excluded);
    }
}
