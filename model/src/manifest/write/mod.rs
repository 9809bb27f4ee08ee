//! Objects -> documents that [`parse`](super::parse) reads back as the same object.

mod bgp;
mod policy;
mod pool;

use crate::object::{
    Allocation, BlockAllocations, CalicoNodeStatus, IpamBlock, Node, NodeStatusClass, Object,
    Protocol, WorkloadEndpoint,
};
use serde_json::{Map, Value, json};

/// The document of an object of `projectcalico.org/v3`, a `NetworkPolicy` or a
/// `ClusterNetworkPolicy`; none for what Kubernetes alone writes, and for a policy of which a part
/// failed closed, which no document says.
pub fn to_manifest(object: &Object) -> Option<Value> {
    match object {
        Object::WorkloadEndpoint(endpoint) => Some(workload_endpoint(endpoint)),
        Object::IpamBlock(block) => Some(ipam_block(block)),
        Object::Node(node) => Some(self::node(node)),
        Object::IpPool(pool) => Some(pool::pool(pool)),
        Object::IpReservation(reservation) => Some(pool::reservation(reservation)),
        Object::NetworkPolicy(policy) => policy::network_policy(policy),
        Object::ClusterNetworkPolicy(policy) => policy::cluster_policy(policy),
        Object::CalicoPolicy(policy) => policy::calico_policy(policy),
        Object::StagedKubernetesPolicy(staged) => policy::staged_kubernetes(staged),
        Object::Tier(tier) => Some(policy::tier(tier)),
        Object::NetworkSet(set) => Some(policy::network_set(set)),
        Object::HostEndpoint(endpoint) => Some(policy::host_endpoint(endpoint)),
        Object::Profile(profile) => Some(policy::profile(profile)),
        Object::BgpConfiguration(configuration) => Some(bgp::configuration(configuration)),
        Object::BgpPeer(peer) => Some(bgp::peer(peer)),
        Object::BgpFilter(filter) => Some(bgp::filter(filter)),
        Object::FelixConfiguration(felix) => Some(bgp::felix(felix)),
        Object::CalicoNodeStatus(status) => Some(node_status(status)),
        Object::Namespace(_)
        | Object::Pod(_)
        | Object::ServiceAccount(_)
        | Object::Secret(_)
        | Object::Service(_)
        | Object::EndpointSlice(_) => None,
    }
}

fn node_status(status: &CalicoNodeStatus) -> Value {
    let classes = status.classes.iter().map(|class| match class {
        NodeStatusClass::Agent => "Agent",
        NodeStatusClass::Bgp => "BGP",
        NodeStatusClass::Routes => "Routes",
    });
    calico(
        "CalicoNodeStatus",
        json!({ "name": status.name }),
        json!({
            "node": status.node,
            "classes": classes.collect::<Value>(),
            "updatePeriodSeconds": status.update_period_seconds,
        }),
    )
}

fn calico(kind: &str, metadata: Value, spec: Value) -> Value {
    document("projectcalico.org/v3", kind, metadata, spec)
}

fn document(version: &str, kind: &str, metadata: Value, spec: Value) -> Value {
    json!({
        "apiVersion": version,
        "kind": kind,
        "metadata": without_nulls(metadata),
        "spec": without_nulls(spec),
    })
}

/// Drops absent fields and empty mappings and lists of a mapping.
fn without_nulls(value: Value) -> Value {
    let Value::Object(map) = value else {
        return value;
    };
    let present = |value: &Value| match value {
        Value::Null => false,
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    };
    Value::Object(
        map.into_iter()
            .filter(|(_, value)| present(value))
            .collect::<Map<_, _>>(),
    )
}

fn workload_endpoint(endpoint: &WorkloadEndpoint) -> Value {
    let owner = endpoint.pod_uid.as_ref().map(
        |uid| json!([{ "apiVersion": "v1", "kind": "Pod", "name": endpoint.pod, "uid": uid }]),
    );
    let ports = endpoint.ports.iter().map(
        |port| json!({ "name": port.name, "protocol": protocol(port.protocol), "port": port.port }),
    );
    let host_ports = endpoint.host_ports.iter().map(|port| {
        without_nulls(json!({
            "protocol": protocol(port.protocol),
            "port": port.port,
            "hostPort": port.host_port,
            "hostIP": port.host_ip,
        }))
    });
    let networks = endpoint.ip_networks.iter().map(ToString::to_string);
    let mac: Vec<String> = endpoint
        .mac
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let mut document = calico(
        "WorkloadEndpoint",
        json!({
            "name": endpoint.name,
            "namespace": endpoint.namespace,
            "labels": endpoint.labels,
            "ownerReferences": owner,
        }),
        json!({
            "orchestrator": "k8s",
            "node": endpoint.node,
            "pod": endpoint.pod,
            "containerID": endpoint.container_id,
            "endpoint": endpoint.endpoint,
            "interfaceName": endpoint.interface_name,
            "mac": mac.join(":"),
            "ports": ports.chain(host_ports).collect::<Value>(),
        }),
    );
    // Required even where it is empty.
    document["spec"]["ipNetworks"] = networks.collect();
    document
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

fn ipam_block(block: &IpamBlock) -> Value {
    block_with(block, &BlockAllocations::empty(block))
}

/// An `IPAMBlock` with the addresses that are held in it.
pub fn block_with(block: &IpamBlock, allocations: &BlockAllocations) -> Value {
    let mut document = calico("IPAMBlock", json!({ "name": block.name() }), json!({}));
    let mut spec = allocations_of(block, allocations);
    spec.insert("cidr".into(), block.cidr.to_string().into());
    spec.insert("affinity".into(), block.affinity().into());
    document["spec"] = spec.into();
    document
}

/// The fields of an `IPAMBlock`'s spec that say what is held. None of them is left out: Calico's
/// schema requires some of them.
pub fn allocations_of(block: &IpamBlock, allocations: &BlockAllocations) -> Map<String, Value> {
    let mut holders: Vec<&Allocation> = Vec::new();
    let mut held = vec![Value::Null; block.size() as usize];
    for (ordinal, holder) in &allocations.held {
        let at = holders.iter().position(|known| known == &holder);
        let at = at.unwrap_or_else(|| {
            holders.push(holder);
            holders.len() - 1
        });
        if let Some(place) = held.get_mut(*ordinal as usize) {
            *place = at.into();
        }
    }
    let attributes = holders
        .iter()
        .map(|holder| json!({ "handle_id": holder.handle, "secondary": holder.attributes }));
    let taken_at = allocations.taken_at.iter();
    let fields = [
        ("allocations", held.into()),
        ("unallocated", allocations.free.clone().into()),
        ("attributes", attributes.collect()),
        ("sequenceNumber", allocations.sequence.into()),
        (
            "sequenceNumberForAllocation",
            taken_at
                .map(|(ordinal, at)| (ordinal.to_string(), Value::from(*at)))
                .collect::<Map<_, _>>()
                .into(),
        ),
        ("deleted", false.into()),
        ("strictAffinity", false.into()),
    ];
    fields
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
}

fn node(node: &Node) -> Value {
    let addresses = node
        .addresses
        .iter()
        .map(|address| json!({ "address": address }));
    let bgp = without_nulls(json!({
        "ipv4Address": node.ipv4_address.map(|address| address.to_string()),
        "ipv6Address": node.ipv6_address.map(|address| address.to_string()),
        "asNumber": node.as_number,
        "routeReflectorClusterID": node.route_reflector_cluster_id,
    }));
    calico(
        "Node",
        json!({ "name": node.name, "labels": node.labels }),
        json!({ "bgp": bgp, "addresses": addresses.collect::<Value>() }),
    )
}
