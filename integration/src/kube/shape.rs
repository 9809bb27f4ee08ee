//! Names and addresses of the cluster.
//!
//! ```text
//!   cp 10.10.0.10          n1 .11   n2 .12            n3 .13        out 192.0.2.10
//!        |                    |        |                 |               |
//!   10.10.0.0/24           10.10.1.0/24           10.10.2.0/24     192.0.2.0/24
//!        +--------- tor1 -----------+                    +---- tor2 ----+
//!                AS 65001  ------- 10.10.255.0/24 -------   AS 65002
//! ```
//! Each IPv4 network has an IPv6 twin of the same numbers. The routers run FRR and take sessions
//! of AS 64512 from the whole rack.

/// A host behind a router.
#[derive(Debug, Clone, Copy)]
pub struct Host {
    /// Host name, and the end of its namespace's name.
    pub name: &'static str,
    /// The router that it hangs on.
    pub router: &'static str,
    /// Its network's number on that router.
    pub lan: &'static str,
    /// Its address.
    pub ipv4: &'static str,
    /// Its address.
    pub ipv6: &'static str,
    /// The router's address on the network.
    pub gateway4: &'static str,
    /// The router's address on the network.
    pub gateway6: &'static str,
}

/// The machine of etcd, the API server, the controllers and the scheduler.
pub const CONTROL_PLANE: Host = Host {
    name: "cp",
    router: "tor1",
    lan: "lan0",
    ipv4: "10.10.0.10",
    ipv6: "fd00:10:0::10",
    gateway4: "10.10.0.1",
    gateway6: "fd00:10:0::1",
};

/// The nodes; the first two share a rack.
pub const NODES: [Host; 3] = [
    Host {
        name: "n1",
        router: "tor1",
        lan: "lan1",
        ipv4: "10.10.1.11",
        ipv6: "fd00:10:1::11",
        gateway4: "10.10.1.1",
        gateway6: "fd00:10:1::1",
    },
    Host {
        name: "n2",
        router: "tor1",
        lan: "lan1",
        ipv4: "10.10.1.12",
        ipv6: "fd00:10:1::12",
        gateway4: "10.10.1.1",
        gateway6: "fd00:10:1::1",
    },
    Host {
        name: "n3",
        router: "tor2",
        lan: "lan2",
        ipv4: "10.10.2.13",
        ipv6: "fd00:10:2::13",
        gateway4: "10.10.2.1",
        gateway6: "fd00:10:2::1",
    },
];

/// A host that is not of the cluster.
pub const OUTSIDE: Host = Host {
    name: "out",
    router: "tor2",
    lan: "lan9",
    ipv4: "192.0.2.10",
    ipv6: "2001:db8:2::10",
    gateway4: "192.0.2.1",
    gateway6: "2001:db8:2::1",
};

/// A router of a rack.
#[derive(Debug, Clone, Copy)]
pub struct Router {
    /// Host name.
    pub name: &'static str,
    /// Its AS number.
    pub asn: u32,
    /// Its address on the network between the routers.
    pub ipv4: &'static str,
    /// Its address there.
    pub ipv6: &'static str,
    /// From where the rack's nodes open sessions.
    pub rack: &'static str,
}

/// The routers.
pub const ROUTERS: [Router; 2] = [
    Router {
        name: "tor1",
        asn: 65001,
        ipv4: "10.10.255.1",
        ipv6: "fd00:10:ff::1",
        rack: "10.10.1.0/24",
    },
    Router {
        name: "tor2",
        asn: 65002,
        ipv4: "10.10.255.2",
        ipv6: "fd00:10:ff::2",
        rack: "10.10.2.0/24",
    },
];

/// AS number of the nodes: Calico's default.
pub const NODE_ASN: u32 = 64512;
/// Pods, both families.
pub const POD_CIDRS: &str = "10.244.0.0/16,fd00:10:244::/56";
/// Services, both families.
pub const SERVICE_CIDRS: &str = "10.96.0.0/16,fd00:10:96::/112";
/// The API server's Service.
pub const API_SERVICE: &str = "10.96.0.1";

/// All hosts, the control plane first.
pub fn hosts() -> impl Iterator<Item = Host> {
    [CONTROL_PLANE].into_iter().chain(NODES).chain([OUTSIDE])
}
