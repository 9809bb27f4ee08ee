//! Every name that the outside sees, in one place. `docs/names.md` repeats this table.

/// Directory of the agent's sockets; tmpfs, recreated at start.
pub const RUN_DIR: &str = "/run/ocicat";
/// Socket on which the CNI plugin reaches the agent (mode 0600).
pub const CNI_SOCKET: &str = "/run/ocicat/cni.sock";
/// Socket on which the `ocicat` command reaches the agent (mode 0600).
pub const CTL_SOCKET: &str = "/run/ocicat/ctl.sock";
/// Directory of the journal and the snapshot; survives reboots.
pub const STATE_DIR: &str = "/var/lib/ocicat";
/// File name of the CNI plugin, and its `type` in configurations.
pub const CNI_PLUGIN: &str = "ocicat";
/// File name of the CNI configuration. A runtime takes the first by name.
pub const CNI_CONFIG: &str = "10-ocicat.conflist";
/// Default port of `/healthz` and `/readyz`, on loopback.
pub const HEALTH_PORT: u16 = 9098;
/// BGP's TCP port (RFC 4271 section 3).
pub const BGP_PORT: u16 = 179;
/// Our one nftables table, family `inet`. Nothing in any other table is ours.
pub const NFT_TABLE: &str = "ocicat";
/// A copy of [`NFT_TABLE`] that is there while that one is replaced, and at no other time.
pub const NFT_GUARD: &str = "ocicat-guard";
/// `rtm_protocol` of every route that we write (`/etc/iproute2/rt_protos`); 122 is unassigned there.
pub const RT_PROTOCOL: u8 = 122;
/// Metric of every route that we write, so that a route of somebody else to the same destination
/// is never replaced: connected routes (0 and 256) and an administrator's (0) win over ours.
pub const ROUTE_METRIC: u32 = 1022;
/// Bit of a connection's mark that says that policy does not allow it any more, so that its packets
/// are rejected in both directions. Bits of others are left alone.
pub const REVOKED_MARK: u32 = 0x2000_0000;
/// Bit of the mark of packets on their way into a VXLAN, on nodes with several uplinks.
pub const SPREAD_MARK: u32 = 0x0400_0000;
/// The nflog group of name queries and answers.
pub const DNS_LOG_GROUP: u16 = 1023;
/// The nflog group of packets that policy denied.
pub const DROP_LOG_GROUP: u16 = 1022;
/// Bit of a connection's mark that says that a policy before destination NAT has allowed it.
pub const ADMITTED_MARK: u32 = 0x1000_0000;
/// Prefix of the host end of every pod's veth. An interface with this prefix is ours, and
/// forwards nothing until it has a programmed endpoint.
pub const INTERFACE_PREFIX: &str = "oci";
/// `IFLA_IFALIAS` of our interfaces starts with this, followed by `namespace/pod`.
pub const ALIAS_PREFIX: &str = "ocicat:";
/// The VXLAN device over IPv4.
pub const VXLAN_DEVICE: &str = "vxlan.ocicat";
/// The VXLAN device over IPv6.
pub const VXLAN6_DEVICE: &str = "vxlan6.ocicat";
/// All tunnel devices.
pub const TUNNEL_DEVICES: [&str; 4] = [IPIP_DEVICE, IP6_DEVICE, VXLAN_DEVICE, VXLAN6_DEVICE];
/// VXLAN network identifier, as Calico's.
pub const VXLAN_VNI: u32 = 4096;
/// UDP port of VXLAN (RFC 7348 section 5).
pub const VXLAN_PORT: u16 = 4789;
/// Bytes that VXLAN over IPv4 adds to a packet: IP, UDP, VXLAN, Ethernet.
pub const VXLAN_OVERHEAD: u32 = 50;
/// Likewise over IPv6.
pub const VXLAN6_OVERHEAD: u32 = 70;
/// The IPIP device (protocol 4). Its name does not start with [`INTERFACE_PREFIX`].
pub const IPIP_DEVICE: &str = "ipip.ocicat";
/// The IP in IP device over IPv6 (protocols 4 and 41), for pods of both families.
pub const IP6_DEVICE: &str = "ip6.ocicat";
/// Bytes that IP in IPv6 adds to a packet (RFC 2473).
pub const IP6_OVERHEAD: u32 = 40;
/// First interface index that we ask the kernel for; a private range avoids a look-up per pod.
pub const FIRST_IFINDEX: u32 = 0x0010_0000;
/// IPv4 gateway inside every pod; answered by the permanent neighbour entry.
pub const GATEWAY_V4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(169, 254, 1, 1);
/// IPv6 gateway inside every pod: a link-local address, the same on every host end.
pub const GATEWAY_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// MAC of the host end of every pod's veth (locally administered).
pub const HOST_MAC: [u8; 6] = [0xee, 0xee, 0xee, 0xee, 0xee, 0xee];
/// Annotations of pods and namespaces that say something to address assignment, as in Calico.
pub const ANNOTATION_PREFIX: &str = "cni.projectcalico.org/";
/// Taint of nodes that wait for their agent, which removes it once it is ready.
pub const STARTUP_TAINT: &str = "node.ocicat.io/agent-not-ready";
/// Calico's default AS number.
pub const DEFAULT_AS: u32 = 64512;
/// The namespace of the agent's pods on Kubernetes.
pub const NAMESPACE: &str = "ocicat-system";
/// The namespace of Secrets that BGP objects refer to, in a directory. On Kubernetes they stand in
/// the agent's own, and are taken in as if they stood here.
pub const SECRETS_NAMESPACE: &str = "kube-system";
/// IPIP adds one IPv4 header (RFC 2003).
pub const IPIP_OVERHEAD: u32 = 20;
