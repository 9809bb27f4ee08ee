//! `IPPool` and `IPReservation`.

use super::calico;
use crate::Selector;
use crate::object::{AllowedUse, AssignmentMode, EncapMode, IpPool, IpReservation};
use serde_json::{Value, json};

pub(super) fn pool(pool: &IpPool) -> Value {
    let mode = |mode| match mode {
        EncapMode::Never => "Never",
        EncapMode::Always => "Always",
        EncapMode::CrossSubnet => "CrossSubnet",
    };
    let uses = pool.allowed_uses.iter().map(|allowed| match allowed {
        AllowedUse::Workload => "Workload",
        AllowedUse::Tunnel => "Tunnel",
        AllowedUse::LoadBalancer => "LoadBalancer",
    });
    let assignment = match pool.assignment_mode {
        AssignmentMode::Automatic => "Automatic",
        AssignmentMode::Manual => "Manual",
    };
    calico(
        "IPPool",
        json!({ "name": pool.name }),
        json!({
            "cidr": pool.cidr.to_string(),
            "blockSize": pool.block_size,
            "ipipMode": mode(pool.ipip_mode),
            "vxlanMode": mode(pool.vxlan_mode),
            "natOutgoing": pool.nat_outgoing,
            "disabled": pool.disabled,
            "disableBGPExport": pool.disable_bgp_export,
            "nodeSelector": pool.node_selector.to_string(),
            "namespaceSelector": pool.namespace_selector.as_ref().map(Selector::to_string),
            "allowedUses": uses.collect::<Value>(),
            "assignmentMode": assignment,
        }),
    )
}

pub(super) fn reservation(reservation: &IpReservation) -> Value {
    let cidrs = reservation.reserved_cidrs.iter().map(ToString::to_string);
    calico(
        "IPReservation",
        json!({ "name": reservation.name }),
        json!({ "reservedCIDRs": cidrs.collect::<Value>() }),
    )
}
