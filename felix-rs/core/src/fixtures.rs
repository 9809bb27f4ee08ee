//! What tests of several modules begin with.

use model::dataplane::Link;
use model::object::{AssignmentMode, EncapMode};
use model::{IpPool, Selector};
use std::collections::BTreeSet;

/// An Ethernet link that is up and has a carrier.
pub(crate) fn ethernet(ifindex: u32, name: &str) -> Link {
    Link {
        ifindex,
        name: name.into(),
        alias: None,
        kind: None,
        up: true,
        carrier: true,
        mtu: 1500,
        mac: None,
    }
}

/// The pool 10.244.0.0/16.
pub(crate) fn pool(ipip_mode: EncapMode) -> IpPool {
    IpPool {
        name: "default".into(),
        cidr: "10.244.0.0/16".parse().expect("a network"),
        block_size: 26,
        ipip_mode,
        vxlan_mode: EncapMode::Never,
        nat_outgoing: false,
        disabled: false,
        disable_bgp_export: false,
        node_selector: Selector::All,
        namespace_selector: None,
        allowed_uses: BTreeSet::new(),
        assignment_mode: AssignmentMode::Automatic,
    }
}
