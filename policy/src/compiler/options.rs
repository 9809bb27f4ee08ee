//! What the table is made with, besides what is to be enforced.

use model::{FailsafePort, Protocol, names};

/// How the table is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Names of the host's ends of pod links begin with this.
    pub interface_prefix: String,
    /// This node's name: whose host endpoints are enforced.
    pub node: String,
    /// Bit of the connection mark (`ct mark`) that cuts a connection: its packets are dropped, in
    /// TCP with a reset. None looks at no mark.
    pub revoked_mark: Option<u32>,
    /// TCP connections that are forwarded learn the MTU of their ways from this node, where
    /// "fragmentation needed" does not come back.
    pub clamp_mss: bool,
    /// Bit of the connection mark of what a policy before destination NAT has allowed: other
    /// policies of the host endpoint are skipped.
    pub admitted_mark: u32,
    /// Where denied packets are reported; none reports none.
    pub drop_log: Option<DropLog>,
    /// The nflog group that gets the name queries of pods and their answers, while a policy of a
    /// local pod speaks of names; none watches nothing.
    pub dns_log: Option<u16>,
    /// The queue in which they wait, answers until what they resolve to is in force, instead of
    /// being logged to that group; none where the kernel has no queues.
    pub dns_queue: Option<u16>,
    /// What policies of host endpoints can't forbid.
    pub failsafe: Failsafe,
    /// UDP port of VXLAN: pods must not send to it.
    pub vxlan_port: u16,
}

/// An nflog group that gets the first bytes of denied packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropLog {
    /// The group.
    pub group: u16,
    /// Packets in a second, for each place where packets are denied.
    pub per_second: u32,
    /// How many packets may come at once.
    pub burst: u32,
}

/// Ports through which a host can always be repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failsafe {
    /// Ports of the host.
    pub inbound: Vec<FailsafePort>,
    /// Ports of others.
    pub outbound: Vec<FailsafePort>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            interface_prefix: names::INTERFACE_PREFIX.to_owned(),
            node: String::new(),
            revoked_mark: Some(names::REVOKED_MARK),
            clamp_mss: false,
            admitted_mark: names::ADMITTED_MARK,
            drop_log: None,
            dns_log: None,
            dns_queue: None,
            failsafe: Failsafe::default(),
            vxlan_port: names::VXLAN_PORT,
        }
    }
}

/// Calico's: SSH, DHCP, DNS, BGP, etcd, Typha and the Kubernetes API.
impl Default for Failsafe {
    fn default() -> Self {
        let anywhere = |protocol, port| FailsafePort {
            protocol,
            port,
            net: None,
        };
        let tcp = |port| anywhere(Protocol::Tcp, port);
        let udp = |port| anywhere(Protocol::Udp, port);
        let both = || [179, 2379, 2380, 5473, 6443, 6666, 6667].map(tcp);
        Self {
            inbound: [tcp(22), udp(68)].into_iter().chain(both()).collect(),
            outbound: [udp(53), udp(67)].into_iter().chain(both()).collect(),
        }
    }
}
