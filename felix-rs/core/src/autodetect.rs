//! The node's own address, by the methods that Calico has (`IP_AUTODETECTION_METHOD`).

use crate::underlay::Underlay;
use ipnet::IpNet;
use model::Node;
use model::dataplane::Link;
use regex::Regex;
use std::net::IpAddr;
use std::str::FromStr;

/// Interfaces of container networks and the like, which `first-found` passes over.
const PASSED_OVER: &str = "^(docker|cbr|dummy|virbr|lxcbr|veth|lo$|oci|cali|tunl|ip6tnl|flannel|\
    kube-ipvs|cni|vxlan|ipip\\.ocicat|ip6\\.ocicat|weave|nodelocaldns|br-|podman)";

/// How the address is found.
#[derive(Debug, Clone)]
pub enum Method {
    /// The first address of the first interface that is up and no container network's.
    FirstFound,
    /// The address of the interface by which this one is reached.
    CanReach(IpAddr),
    /// The first address of the first interface whose name matches one of these, in their order.
    Interface(Vec<Regex>),
    /// As `first-found`, without interfaces whose names match one of these.
    SkipInterface(Vec<Regex>),
    /// The first address inside one of these.
    Cidr(Vec<IpNet>),
    /// The `InternalIP` of the Node object, which kubelet writes.
    KubernetesInternalIp,
}

/// A method that there is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MethodError {
    /// The word is not one of Calico's.
    #[error(
        "{text:?} is not one of first-found, can-reach=ADDRESS, interface=REGEX,..., \
         skip-interface=REGEX,..., cidr=CIDR,..., kubernetes-internal-ip"
    )]
    Unknown {
        /// What was given.
        text: String,
    },
    /// Its value is none.
    #[error("{method}: {value:?}: {reason}")]
    Value {
        /// The method.
        method: &'static str,
        /// What was given.
        value: String,
        /// Why it can't be.
        reason: String,
    },
}

impl FromStr for Method {
    type Err = MethodError;

    fn from_str(text: &str) -> Result<Self, MethodError> {
        let unknown = || MethodError::Unknown {
            text: text.to_owned(),
        };
        match text.split_once('=') {
            None if text == "first-found" => Ok(Self::FirstFound),
            None if text == "kubernetes-internal-ip" => Ok(Self::KubernetesInternalIp),
            Some(("can-reach", value)) => one("can-reach", value).map(Self::CanReach),
            Some(("interface", value)) => many("interface", value).map(Self::Interface),
            Some(("skip-interface", value)) => {
                many("skip-interface", value).map(Self::SkipInterface)
            }
            Some(("cidr", value)) => many("cidr", value).map(Self::Cidr),
            _ => Err(unknown()),
        }
    }
}

fn one<T: FromStr<Err: ToString>>(method: &'static str, value: &str) -> Result<T, MethodError> {
    value
        .trim()
        .parse()
        .map_err(|error: T::Err| MethodError::Value {
            method,
            value: value.to_owned(),
            reason: error.to_string(),
        })
}

fn many<T: FromStr<Err: ToString>>(
    method: &'static str,
    values: &str,
) -> Result<Vec<T>, MethodError> {
    values.split(',').map(|value| one(method, value)).collect()
}

/// The address of this family that the method finds, with the length of its subnet.
pub fn detect(
    method: &Method,
    v6: bool,
    underlay: &Underlay,
    node: Option<&Node>,
) -> Option<IpNet> {
    let usable = |net: &IpNet| net.addr().is_ipv6() == v6 && is_usable(net.addr());
    let first_of = |link: &Link| underlay.nets_of(link.ifindex).find(usable);
    let mut links: Vec<&Link> = underlay.links().filter(|link| link.up).collect();
    links.sort_by_key(|link| link.ifindex);
    let passed_over = Regex::new(PASSED_OVER).ok()?;
    let real = |link: &&&Link| !passed_over.is_match(&link.name);
    match method {
        Method::FirstFound => links.iter().filter(real).find_map(|link| first_of(link)),
        Method::SkipInterface(skipped) => {
            let kept = |link: &&&Link| !skipped.iter().any(|skip| skip.is_match(&link.name));
            let mut links = links.iter().filter(real).filter(kept);
            links.find_map(|link| first_of(link))
        }
        Method::Interface(wanted) => wanted.iter().find_map(|wanted| {
            let mut matching = links.iter().filter(|link| wanted.is_match(&link.name));
            matching.find_map(|link| first_of(link))
        }),
        Method::CanReach(to) => {
            let ways = underlay.ways(*to);
            ways.iter()
                .find_map(|ifindex| underlay.nets_of(*ifindex).find(usable))
        }
        Method::Cidr(cidrs) => {
            let inside = |net: &IpNet| cidrs.iter().any(|cidr| cidr.contains(&net.addr()));
            let mut nets = links.iter().flat_map(|link| underlay.nets_of(link.ifindex));
            nets.find(|net| usable(net) && inside(net))
        }
        Method::KubernetesInternalIp => {
            let listed = node?.addresses.iter().filter(|ip| ip.is_ipv6() == v6);
            let mut nets = links.iter().flat_map(|link| underlay.nets_of(link.ifindex));
            let held: Vec<IpNet> = nets.by_ref().collect();
            listed
                .into_iter()
                .find_map(|ip| held.iter().find(|net| net.addr() == *ip).copied())
        }
    }
}

/// Whether what was found is another address than the one that is said, or has another subnet:
/// an address said without a length (a kubelet reports them so) has that of its interface.
pub fn differs(said: IpNet, found: IpNet) -> bool {
    let alone = said.prefix_len() == said.max_prefix_len();
    said.addr() != found.addr() || (!alone && said.prefix_len() != found.prefix_len())
}

/// Neither of a link nor of this host alone.
fn is_usable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::ethernet;
    use model::dataplane::{Address, NextHop, Route, RouteKind};
    use std::collections::BTreeSet;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    /// docker0, eth0 with a default route, and eth1.
    fn underlay() -> Underlay {
        let mut underlay = Underlay::default();
        let links = [
            (1, "lo", "127.0.0.1/8"),
            (2, "docker0", "172.17.0.1/16"),
            (3, "eth0", "10.1.0.11/24"),
            (4, "eth1", "192.0.2.11/25"),
        ];
        for (ifindex, name, address) in links {
            underlay.set_link(ethernet(ifindex, name));
            let address = net(address);
            underlay.add_address(Address { ifindex, address });
        }
        for address in ["fe80::1/64", "fd00:1::11/64"].map(net) {
            underlay.add_address(Address {
                ifindex: 3,
                address,
            });
        }
        let kind = RouteKind::Via(vec![NextHop {
            gateway: "192.0.2.1".parse().unwrap(),
            ifindex: Some(4),
            onlink: false,
            weight: 1,
        }]);
        let dest = net("0.0.0.0/0");
        underlay.add_foreign(Route { dest, kind }, 0);
        underlay
    }

    fn found(method: &str, v6: bool) -> Option<String> {
        let mut node = Node {
            name: "n1".into(),
            labels: model::Labels::new(),
            ipv4_address: None,
            ipv6_address: None,
            addresses: BTreeSet::new(),
            as_number: None,
            route_reflector_cluster_id: None,
        };
        node.addresses.insert("192.0.2.11".parse().unwrap());
        let method = method.parse().unwrap();
        detect(&method, v6, &underlay(), Some(&node)).map(|net| net.to_string())
    }

    #[test]
    fn each_method_finds_what_calico_would() {
        for (method, v4, v6) in [
            ("first-found", Some("10.1.0.11/24"), Some("fd00:1::11/64")),
            ("can-reach=198.51.100.7", Some("192.0.2.11/25"), None),
            (
                "can-reach=10.1.0.99",
                Some("10.1.0.11/24"),
                Some("fd00:1::11/64"),
            ),
            (
                "interface=eth1,eth.*",
                Some("192.0.2.11/25"),
                Some("fd00:1::11/64"),
            ),
            ("interface=docker", Some("172.17.0.1/16"), None),
            ("skip-interface=eth0", Some("192.0.2.11/25"), None),
            (
                "cidr=192.0.2.0/24,fd00::/8",
                Some("192.0.2.11/25"),
                Some("fd00:1::11/64"),
            ),
            ("kubernetes-internal-ip", Some("192.0.2.11/25"), None),
        ] {
            assert_eq!(found(method, false).as_deref(), v4, "{method}");
            assert_eq!(found(method, true).as_deref(), v6, "{method}, IPv6");
        }
    }

    #[test]
    fn an_address_said_without_a_length_differs_only_as_an_address() {
        for (said, found, differ) in [
            ("10.0.0.1/32", "10.0.0.1/24", false),
            ("10.0.0.1/24", "10.0.0.1/24", false),
            ("10.0.0.1/16", "10.0.0.1/24", true),
            ("10.0.0.1/24", "10.0.0.1/32", true),
            ("10.0.0.1/32", "10.0.0.2/24", true),
            ("10.0.0.1/24", "10.0.0.2/24", true),
            ("fd00::1/128", "fd00::1/64", false),
            ("fd00::1/128", "fd00::2/64", true),
        ] {
            assert_eq!(differs(net(said), net(found)), differ, "{said}, {found}");
        }
    }

    #[test]
    fn a_method_that_there_is_not_is_refused_with_what_there_is() {
        for (text, words) in [
            ("", "is not one of first-found"),
            ("first", "is not one of first-found"),
            ("can-reach=example.org", "can-reach: \"example.org\""),
            ("cidr=10.0.0.0", "cidr: \"10.0.0.0\""),
            ("interface=eth(", "interface: \"eth(\""),
        ] {
            let error = text.parse::<Method>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
