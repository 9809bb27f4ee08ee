//! `BGPConfiguration`, `BGPPeer`, `BGPFilter` and `FelixConfiguration`.

use super::{calico, protocol, without_nulls};
use crate::object::{
    AddPath, BgpConfiguration, BgpFilter, BgpFilterAction, BgpFilterOperation, BgpFilterRule,
    BgpPeer, BgpPeerType, BgpRoleName, BindMode, EndpointToHostAction, FailsafePort,
    FelixConfiguration, MatchOperator, NatOutgoingExclusions, NextHopMode, PrefixAdvertisement,
    RemoteAs, SecretKeyRef, ServiceLoopPrevention,
};
use crate::{Selector, names};
use ipnet::IpNet;
use serde_json::{Value, json};
use std::fmt::Display;
use std::net::SocketAddr;

fn seconds(seconds: impl Display) -> String {
    format!("{seconds}s")
}

fn password(reference: &Option<SecretKeyRef>) -> Option<Value> {
    let reference = reference.as_ref()?;
    Some(json!({ "secretKeyRef": {
        "name": reference.name,
        "key": reference.key,
        "optional": reference.optional,
    } }))
}

pub(super) fn configuration(configuration: &BgpConfiguration) -> Value {
    let ranges = |nets: &[IpNet]| -> Value {
        let range = |net: &IpNet| json!({ "cidr": net.to_string() });
        nets.iter().map(range).collect()
    };
    let bind_mode = match configuration.bind_mode {
        BindMode::None => "None",
        BindMode::NodeIp => "NodeIP",
    };
    let aggregation = if configuration.service_load_balancer_aggregation {
        "Enabled"
    } else {
        "Disabled"
    };
    let requires_policy = configuration.ebgp_requires_policy;
    calico(
        "BGPConfiguration",
        json!({ "name": configuration.name }),
        json!({
            "asNumber": configuration.as_number,
            "nodeToNodeMeshEnabled": configuration.node_to_node_mesh_enabled,
            "listenPort": configuration.listen_port,
            "nodeMeshMaxRestartTime": seconds(configuration.node_mesh_max_restart_time),
            "nodeMeshPassword": password(&configuration.node_mesh_password),
            "bindMode": bind_mode,
            "ignoredInterfaces": configuration.ignored_interfaces,
            "serviceClusterIPs": ranges(&configuration.service_cluster_ips),
            "serviceExternalIPs": ranges(&configuration.service_external_ips),
            "serviceLoadBalancerIPs": ranges(&configuration.service_load_balancer_ips),
            "serviceLoadBalancerAggregation": aggregation,
            "prefixAdvertisements": configuration
                .prefix_advertisements
                .iter()
                .map(advertisement)
                .collect::<Value>(),
            "localWorkloadPeeringIPV4": configuration.local_workload_peering_ipv4,
            "localWorkloadPeeringIPV6": configuration.local_workload_peering_ipv6,
            "ocicat": requires_policy.then(|| json!({ "ebgpRequiresPolicy": true })),
        }),
    )
}

fn advertisement(advertisement: &PrefixAdvertisement) -> Value {
    let communities = advertisement.communities.iter().map(ToString::to_string);
    let preference = advertisement.local_preference;
    without_nulls(json!({
        "cidr": advertisement.cidr.to_string(),
        "communities": communities.collect::<Value>(),
        "ocicat": preference.map(|value| json!({ "localPreference": value })),
    }))
}

pub(super) fn peer(peer: &BgpPeer) -> Value {
    let defaults = BgpPeer::new(&peer.name);
    let next_hop_mode = match peer.next_hop_mode {
        NextHopMode::Auto => "Auto",
        NextHopMode::OwnAddress => "Self",
        NextHopMode::Keep => "Keep",
    };
    let selector = |selector: &Option<Selector>| selector.as_ref().map(ToString::to_string);
    let address = peer.peer_ip.map(|address| match peer.peer_port {
        names::BGP_PORT => address.to_string(),
        port => SocketAddr::new(address, port).to_string(),
    });
    let everywhere = peer.node.is_some() || peer.node_selector == defaults.node_selector;
    let restart = match (peer.long_lived_stale_time, peer.max_restart_time) {
        (Some(time), _) => Some(seconds(time)),
        (None, time) => time.map(seconds),
    };
    let restart_mode = peer
        .long_lived_stale_time
        .map(|_| "LongLivedGracefulRestart");
    calico(
        "BGPPeer",
        json!({ "name": peer.name }),
        json!({
            "node": peer.node,
            "nodeSelector": (!everywhere).then(|| peer.node_selector.to_string()),
            "peerIP": address,
            "peerSelector": selector(&peer.peer_selector),
            "localWorkloadSelector": selector(&peer.local_workload_selector),
            "asNumber": peer.as_number,
            "localASNumber": peer.local_as_number,
            "nextHopMode": next_hop_mode,
            "filters": peer.filters,
            "password": password(&peer.password),
            "sourceAddress": if peer.use_node_ip { "UseNodeIP" } else { "None" },
            "reversePeering": if peer.reverse_peering { "Auto" } else { "Manual" },
            "restartMode": restart_mode,
            "maxRestartTime": restart,
            "keepaliveTime": peer.keepalive_time.map(seconds),
            "numAllowedLocalASNumbers": peer.num_allowed_local_as_numbers,
            "ttlSecurity": peer.ttl_security,
            "reachableBy": peer.reachable_by,
            "ocicat": extensions(peer),
        }),
    )
}

fn extensions(peer: &BgpPeer) -> Value {
    let flag = |stated: bool| stated.then_some(true);
    // Where there is an AS number, or nodes have theirs, nothing is said of the type.
    let open = peer.as_number.is_none() && peer.peer_selector.is_none();
    let remote_as = open.then_some(match peer.remote_as {
        RemoteAs::Auto => "Auto",
        RemoteAs::Type(BgpPeerType::External) => "External",
        RemoteAs::Type(BgpPeerType::Internal) => "Internal",
    });
    let add_path = match peer.add_path {
        AddPath::None => None,
        AddPath::Receive => Some("Receive"),
        AddPath::Send => Some("Send"),
        AddPath::Both => Some("Both"),
    };
    let role = peer.role.map(|role| match role.name {
        BgpRoleName::Provider => "Provider",
        BgpRoleName::RouteServer => "RouteServer",
        BgpRoleName::RouteServerClient => "RouteServerClient",
        BgpRoleName::Customer => "Customer",
        BgpRoleName::Peer => "Peer",
    });
    let bfd = peer.bfd.map(|bfd| {
        json!({
            "minInterval": format!("{}ms", bfd.min_interval_ms),
            "multiplier": bfd.multiplier,
            "passive": bfd.passive,
            "multihop": bfd.multihop,
        })
    });
    let max_prefixes = peer.max_prefixes.map(|most| {
        without_nulls(json!({
            "limit": most.limit,
            "warnPercent": most.warn_percent,
            "restartAfter": most.restart_after.map(seconds),
        }))
    });
    without_nulls(json!({
        "peerInterface": peer.peer_interface,
        "peerPrefix": peer.peer_prefix.map(|peers| peers.prefix.to_string()),
        "peerLimit": peer.peer_prefix.map(|peers| peers.limit),
        "remoteAS": remote_as,
        "bindInterface": peer.bind_interface,
        "passive": flag(peer.passive),
        "holdTime": peer.hold_time.map(seconds),
        "bfd": bfd,
        "maxPrefixes": max_prefixes,
        "role": role,
        "roleStrict": flag(peer.role.is_some_and(|role| role.strict)),
        "addPath": add_path,
        "gracefulShutdown": flag(peer.graceful_shutdown),
        "shutdown": peer.shutdown,
    }))
}

pub(super) fn filter(filter: &BgpFilter) -> Value {
    let rules = |rules: &[BgpFilterRule]| -> Value { rules.iter().map(filter_rule).collect() };
    calico(
        "BGPFilter",
        json!({ "name": filter.name }),
        json!({
            "exportV4": rules(&filter.export_v4),
            "importV4": rules(&filter.import_v4),
            "exportV6": rules(&filter.export_v6),
            "importV6": rules(&filter.import_v6),
        }),
    )
}

fn filter_rule(rule: &BgpFilterRule) -> Value {
    let action = match rule.action {
        BgpFilterAction::Accept => "Accept",
        BgpFilterAction::Reject => "Reject",
    };
    let operator = rule.prefix.map(|prefix| match prefix.operator {
        MatchOperator::Equal => "Equal",
        MatchOperator::NotEqual => "NotEqual",
        MatchOperator::In => "In",
        MatchOperator::NotIn => "NotIn",
    });
    let lengths = rule
        .prefix
        .map(|prefix| json!({ "min": prefix.min_length, "max": prefix.max_length }));
    let peer_type = rule.peer_type.map(|peer_type| match peer_type {
        BgpPeerType::External => "eBGP",
        BgpPeerType::Internal => "iBGP",
    });
    let community = rule.community.map(|community| community.to_string());
    without_nulls(json!({
        "action": action,
        "cidr": rule.prefix.map(|prefix| prefix.cidr.to_string()),
        "matchOperator": operator,
        "prefixLength": lengths,
        "source": rule.from_peers_only.then_some("RemotePeers"),
        "interface": rule.interface,
        "peerType": peer_type,
        "communities": community.map(|community| json!({ "values": [community] })),
        "asPathPrefix": rule.as_path_prefix,
        "priority": rule.priority,
        "operations": rule.operations.iter().map(operation).collect::<Value>(),
    }))
}

fn operation(operation: &BgpFilterOperation) -> Value {
    use BgpFilterOperation as O;
    match operation {
        O::AddCommunity(value) => json!({ "addCommunity": { "value": value.to_string() } }),
        O::RemoveCommunity(value) => json!({ "removeCommunity": { "value": value.to_string() } }),
        O::PrependAsPath(prefix) => json!({ "prependASPath": { "prefix": prefix } }),
        O::SetPriority(value) => json!({ "setPriority": { "value": value } }),
        O::SetLocalPreference(value) => json!({ "setLocalPreference": { "value": value } }),
        O::SetMed(value) => json!({ "setMED": { "value": value } }),
    }
}

pub(super) fn felix(felix: &FelixConfiguration) -> Value {
    let action = felix.default_endpoint_to_host_action.map(|a| match a {
        EndpointToHostAction::Drop => "Drop",
        EndpointToHostAction::Accept => "Accept",
        EndpointToHostAction::Return => "Return",
    });
    let prevention = felix.service_loop_prevention.map(|p| match p {
        ServiceLoopPrevention::Drop => "Drop",
        ServiceLoopPrevention::Reject => "Reject",
        ServiceLoopPrevention::Disabled => "Disabled",
    });
    let exclusions = felix.nat_outgoing_exclusions.map(|e| match e {
        NatOutgoingExclusions::IpPoolsOnly => "IPPoolsOnly",
        NatOutgoingExclusions::IpPoolsAndHostIps => "IPPoolsAndHostIPs",
    });
    let range = felix
        .nat_port_range
        .map(|(first, last)| format!("{first}:{last}"));
    let mut document = calico(
        "FelixConfiguration",
        json!({ "name": felix.name }),
        json!({
            "defaultEndpointToHostAction": action,
            "serviceLoopPrevention": prevention,
            "allowIPIPPacketsFromWorkloads": felix.allow_ipip_packets_from_workloads,
            "allowVXLANPacketsFromWorkloads": felix.allow_vxlan_packets_from_workloads,
            "natPortRange": range,
            "natOutgoingAddress": felix.nat_outgoing_address,
            "natOutgoingExclusions": exclusions,
            "ipipMTU": felix.ipip_mtu,
            "vxlanMTU": felix.vxlan_mtu,
            "vxlanMTUV6": felix.vxlan_mtu_v6,
            "vxlanPort": felix.vxlan_port,
            "vxlanVNI": felix.vxlan_vni,
            "deviceRouteSourceAddress": felix.device_route_source_address,
            "deviceRouteSourceAddressIPv6": felix.device_route_source_address_ipv6,
            "logPrefix": felix.log_prefix,
        }),
    );
    // An empty list means something here: nothing stays open.
    let ports = |ports: &Option<Vec<FailsafePort>>| -> Option<Value> {
        Some(ports.as_ref()?.iter().map(failsafe).collect())
    };
    let nodes = felix.external_nodes.as_ref();
    for (name, list) in [
        (
            "failsafeInboundHostPorts",
            ports(&felix.failsafe_inbound_host_ports),
        ),
        (
            "failsafeOutboundHostPorts",
            ports(&felix.failsafe_outbound_host_ports),
        ),
        (
            "externalNodesList",
            nodes.map(|nets| nets.iter().map(ToString::to_string).collect()),
        ),
    ] {
        if let Some(list) = list {
            document["spec"][name] = list;
        }
    }
    document
}

fn failsafe(port: &FailsafePort) -> Value {
    without_nulls(json!({
        "protocol": protocol(port.protocol),
        "port": port.port,
        "net": port.net.map(|net| net.to_string()),
    }))
}
