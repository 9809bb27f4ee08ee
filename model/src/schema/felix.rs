//! `FelixConfiguration`. Of its many fields those stand here that mean something to us; the others
//! are kept, so that the reader names them.

use super::build::{Schema, boolean, integer, integer_or_text, list, object, one_of, text};
use super::definition::{Column, Definition};
use super::values::{address_or_empty, network};

/// Ports that stay open.
const MOST_PORTS: usize = 1024;

pub(super) fn definition() -> Definition {
    Definition {
        short_names: &["felixconfig", "felixconfigs"],
        columns: &[Column("Age", "date", ".metadata.creationTimestamp")],
        ..Definition::calico(
            "FelixConfiguration",
            "felixconfigurations",
            "Settings of all nodes (default) or of one (node.NAME).",
            spec(),
        )
    }
}

fn spec() -> Schema {
    let mtu = |about| integer(0..=65535).about(about);
    object([
        (
            "failsafeInboundHostPorts",
            ports("Ports of nodes that policy of host endpoints never closes."),
        ),
        (
            "failsafeOutboundHostPorts",
            ports("Ports elsewhere that policy of host endpoints never closes to nodes."),
        ),
        (
            "defaultEndpointToHostAction",
            one_of(&["Drop", "Accept", "Return"])
                .about("What becomes of packets of pods to their own node after policy."),
        ),
        (
            "serviceLoopPrevention",
            one_of(&["Drop", "Reject", "Disabled"])
                .about("What becomes of packets to announced addresses that no Service has."),
        ),
        ("allowIPIPPacketsFromWorkloads", boolean()),
        ("allowVXLANPacketsFromWorkloads", boolean()),
        (
            "externalNodesList",
            list(network())
                .most(1024)
                .about("Hosts elsewhere from which IPIP is taken."),
        ),
        (
            "natPortRange",
            integer_or_text(0..=65535, "^[0-9]{1,5}(:[0-9]{1,5})?$")
                .about("Source ports of masqueraded connections, such as 32768:65535."),
        ),
        (
            "natOutgoingAddress",
            address_or_empty().about("Source address of masqueraded connections."),
        ),
        (
            "natOutgoingExclusions",
            one_of(&["IPPoolsOnly", "IPPoolsAndHostIPs"]),
        ),
        ("ipipMTU", mtu("MTU of the IPIP device; 0 is found out.")),
        ("vxlanMTU", mtu("MTU of the VXLAN device; 0 is found out.")),
        (
            "vxlanMTUV6",
            mtu("MTU of the IPv6 VXLAN device; 0 is found out."),
        ),
        ("vxlanPort", integer(1..=65535)),
        ("vxlanVNI", integer(1..=(1 << 24) - 1)),
        ("deviceRouteSourceAddress", address_or_empty()),
        ("deviceRouteSourceAddressIPv6", address_or_empty()),
        (
            "logPrefix",
            text().about("What log lines of Log rules begin with."),
        ),
        (
            "ipsecMode",
            text().about("Refused: a node that it is for is not ready."),
        ),
        ("wireguardEnabled", encryption()),
        ("wireguardEnabledV6", encryption()),
        ("wireguardHostEncryptionEnabled", encryption()),
    ])
    .keeps_unknown()
}

fn encryption() -> Schema {
    boolean().about("Refused where true: a node that it is for is not ready.")
}

fn ports(about: &str) -> Schema {
    let port = object([
        (
            "protocol",
            one_of(&["TCP", "UDP", "SCTP", "tcp", "udp", "sctp"]),
        ),
        ("port", integer(1..=65535)),
        (
            "net",
            text().longest(49).rule(
                "self == '' || isCIDR(self) && cidr(self) == cidr(self).masked()",
                "must be a CIDR without host bits",
            ),
        ),
    ])
    .required(&["port"])
    .keeps_unknown();
    list(port).most(MOST_PORTS).about(about)
}
