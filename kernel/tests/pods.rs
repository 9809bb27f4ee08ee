//! A pod's link from the first message to the last.
#![allow(clippy::unwrap_used)]

mod common;

use common::Namespace;
use kernel::{Kernel, LinkError, netns};
use model::dataplane::{PodLink, Route, RouteKind};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

const IFINDEX: u32 = 0x10_0000;

fn pod_link() -> PodLink {
    PodLink {
        host_name: "ocipod1".into(),
        host_ifindex: IFINDEX,
        alias: "ocicat:default/web".into(),
        pod_name: "eth0".into(),
        pod_mac: [2, 0, 0, 0, 0, 9],
        mtu: 1400,
        queues: 1,
        addresses: vec!["10.65.0.2".parse().unwrap(), "fd00:65::2".parse().unwrap()],
        loopback: false,
    }
}

/// A host with one pod, routes to it and an address that it can reach.
struct Lab {
    host: Namespace,
    pod: Namespace,
    socket: OwnedFd,
    link: PodLink,
    kernel: Kernel,
}

impl Lab {
    fn new() -> Self {
        let (host, pod) = (Namespace::new(), Namespace::new());
        host.sh("ip addr add 10.64.0.1/32 dev lo; ip addr add fd00:64::1/128 dev lo");
        let socket = netns::route_socket(pod.fd()).unwrap();
        let kernel = host.kernel();
        let mut lab = Self {
            host,
            pod,
            socket,
            link: pod_link(),
            kernel,
        };
        let made = lab.create();
        assert_eq!(made.unwrap().ifindex, IFINDEX);
        lab.kernel
            .configure_pod(&lab.link, lab.socket.as_fd())
            .unwrap();
        let kind = RouteKind::Device { ifindex: IFINDEX };
        let route = |address: &IpAddr| Route {
            dest: (*address).into(),
            kind: kind.clone(),
        };
        let routes: Vec<_> = lab.link.addresses.iter().map(route).collect();
        assert_eq!(lab.kernel.replace_routes(&routes), []);
        lab
    }

    /// Sysctls are those of the thread's namespace.
    fn create(&mut self) -> Result<model::dataplane::Link, LinkError> {
        let Self {
            host,
            pod,
            link,
            kernel,
            ..
        } = self;
        host.run(|| kernel.create_pod_link(link, pod.fd()))
    }
}

const PING_HOST: &str = "ping -c1 -W2 10.64.0.1 && ping -c1 -W2 fd00:64::1";
const PING_POD: &str = "ping -c1 -W2 10.65.0.2 && ping -c1 -W2 fd00:65::2";

#[test]
fn host_and_pod_reach_each_other_in_both_families_from_the_first_packet() {
    let lab = Lab::new();
    lab.host.sh(PING_POD);
    lab.pod.sh(PING_HOST);
    let shown = lab.host.sh("ip -d link show ocipod1");
    assert!(shown.contains("ee:ee:ee:ee:ee:ee") && shown.contains("alias ocicat:default/web"));
    assert!(
        shown.contains("numtxqueues 1") && shown.contains("mtu 1400"),
        "{shown}"
    );
}

#[test]
fn a_pod_that_flushes_its_neighbours_resolves_its_gateways_again() {
    let lab = Lab::new();
    lab.pod.sh("ip neigh flush dev eth0 nud permanent");
    assert_eq!(lab.pod.sh("ip neigh show nud permanent"), "");
    lab.pod.sh(PING_HOST);
    lab.pod
        .sh("ping -c1 -W2 169.254.1.1 && ping -c1 -W2 fe80::1%eth0");
}

#[test]
fn the_gateway_address_is_never_the_source_of_the_hosts_packets() {
    let lab = Lab::new();
    let chosen = lab.host.sh("ip route get 10.65.0.2");
    assert!(chosen.contains("src 10.64.0.1"), "{chosen}");
    let chosen = lab.host.sh("ip -6 route get fd00:65::2");
    assert!(chosen.contains("src fd00:64::1"), "{chosen}");
}

#[test]
fn check_finds_nothing_wrong_until_something_is() {
    let mut lab = Lab::new();
    let mut check = |command: &str| {
        lab.pod.sh(command);
        lab.kernel.check_pod(&lab.link, lab.socket.as_fd()).unwrap()
    };
    assert_eq!(check("true"), Vec::<String>::new());
    assert_eq!(
        check("ip addr del 10.65.0.2/32 dev eth0"),
        [
            "eth0 lacks the address 10.65.0.2",
            "eth0 lacks the neighbour entry of its gateway 169.254.1.1",
            "eth0 lacks the route 169.254.1.1/32",
            "eth0 lacks the route 0.0.0.0/0",
        ]
    );
    assert!(
        check("ip neigh del fe80::1 dev eth0")
            .contains(&"eth0 lacks the neighbour entry of its gateway fe80::1".to_owned())
    );
    assert!(check("ip link set eth0 mtu 1300").contains(&"eth0 has MTU 1300, not 1400".to_owned()));
    lab.kernel
        .configure_pod(&lab.link, lab.socket.as_fd())
        .unwrap();
    let left = lab.kernel.check_pod(&lab.link, lab.socket.as_fd()).unwrap();
    assert_eq!(left, ["eth0 has MTU 1300, not 1400"]);
    lab.pod.sh("ip link del eth0");
    let left = lab.kernel.check_pod(&lab.link, lab.socket.as_fd()).unwrap();
    assert_eq!(left, ["the pod has no interface eth0"]);
}

#[test]
fn a_taken_name_a_taken_index_and_a_taken_pod_name_are_told_apart() {
    let mut lab = Lab::new();
    let name = lab.link.host_name.clone();
    assert_eq!(lab.create(), Err(LinkError::NameTaken { name }));
    lab.link.host_name = "ocipod2".into();
    let name = lab.link.host_name.clone();
    assert_eq!(
        lab.create(),
        Err(LinkError::IndexTaken {
            name: name.clone(),
            ifindex: IFINDEX
        })
    );
    lab.link.host_ifindex += 1;
    assert_eq!(
        lab.create(),
        Err(LinkError::PodNameTaken {
            name,
            pod_name: "eth0".into()
        })
    );
    assert_eq!(lab.host.links(&mut lab.kernel), ["ocipod1"]);
}

#[test]
fn a_pod_without_ipv6_addresses_gets_none_on_its_host_end() {
    let (host, pod) = (Namespace::new(), Namespace::new());
    let mut kernel = host.kernel();
    let mut link = pod_link();
    link.addresses.truncate(1);
    host.run(|| kernel.create_pod_link(&link, pod.fd()))
        .unwrap();
    assert_eq!(host.sh("ip -6 addr show dev ocipod1"), "");
    assert_eq!(
        host.sh("cat /proc/sys/net/ipv6/conf/ocipod1/disable_ipv6")
            .trim(),
        "1"
    );
}

#[test]
fn an_ipv6_address_in_a_pod_without_ipv6_is_refused_with_the_parameter_that_forbids_it() {
    let (host, pod) = (Namespace::new(), Namespace::new());
    let mut kernel = host.kernel();
    let link = pod_link();
    let socket = netns::route_socket(pod.fd()).unwrap();
    host.run(|| kernel.create_pod_link(&link, pod.fd()))
        .unwrap();
    pod.sh("echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6");
    let error = kernel.configure_pod(&link, socket.as_fd()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("net.ipv6.conf.eth0.disable_ipv6"),
        "{error}"
    );
}

#[test]
fn deleting_a_link_twice_is_no_failure_and_can_be_done_in_the_background() {
    let mut lab = Lab::new();
    let deletion = lab
        .host
        .run(|| lab.kernel.delete_link_in_background(IFINDEX))
        .unwrap();
    deletion.join().unwrap().unwrap();
    assert_eq!(lab.host.links(&mut lab.kernel), Vec::<String>::new());
    assert_eq!(lab.kernel.delete_link(IFINDEX), Ok(()));
}
