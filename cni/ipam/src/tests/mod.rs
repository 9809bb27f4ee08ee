//! What the allocator promises.

mod assign;
mod claims;
mod give_back;
mod interleaving;
mod pools;

use crate::journal::Record;
use crate::{AssignError, AssignRequest, Assignment, Ipam, Owner, Pools};
use ipnet::IpNet;
use model::object::{AllowedUse, AssignmentMode, EncapMode};
use model::{IpPool, IpamBlock, Selector, WorkloadEndpoint};
use std::net::IpAddr;

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn pool(name: &str, cidr: &str, block_size: u8) -> IpPool {
    IpPool {
        name: name.to_owned(),
        cidr: net(cidr),
        block_size,
        ipip_mode: EncapMode::Never,
        vxlan_mode: EncapMode::Never,
        nat_outgoing: false,
        disabled: false,
        disable_bgp_export: false,
        node_selector: Selector::All,
        namespace_selector: None,
        allowed_uses: [AllowedUse::Workload, AllowedUse::Tunnel].into(),
        assignment_mode: AssignmentMode::Automatic,
    }
}

pub(crate) fn block(cidr: &str, node: &str) -> IpamBlock {
    IpamBlock {
        cidr: net(cidr),
        node: node.to_owned(),
    }
}

pub(crate) fn owner(container_id: &str) -> Owner {
    Owner {
        container_id: container_id.to_owned(),
        ifname: "eth0".to_owned(),
    }
}

/// An allocator of node `n1` with these pools.
fn ipam(pools: &[IpPool]) -> Ipam {
    let mut ipam = Ipam::new("n1");
    for pool in pools {
        ipam.set_pool(&pool.name, Some(pool.clone()));
    }
    ipam
}

static NO_POOLS: Pools = Pools {
    any: Vec::new(),
    v4: Vec::new(),
    v6: Vec::new(),
};

/// Asks for one IPv4 address.
fn v4(container_id: &str) -> AssignRequest<'static> {
    AssignRequest {
        owner: owner(container_id),
        namespace_labels: None,
        requested: &[],
        pools: &NO_POOLS,
        v4: true,
        v6: false,
    }
}

fn dual(container_id: &str) -> AssignRequest<'static> {
    AssignRequest {
        v6: true,
        ..v4(container_id)
    }
}

/// Assigns, and claims whatever blocks that needs.
fn assign(
    ipam: &mut Ipam,
    request: &AssignRequest<'_>,
    now: u64,
) -> Result<Vec<Assignment>, AssignError> {
    loop {
        match ipam.assign(request, now) {
            Err(AssignError::NeedsBlock { block }) => {
                ipam.claimed(IpamBlock {
                    cidr: block,
                    node: "n1".to_owned(),
                });
            }
            result => return result,
        }
    }
}

fn ips(assignments: &[Assignment]) -> Vec<String> {
    assignments.iter().map(|a| a.ip.to_string()).collect()
}

pub(crate) fn endpoint(node: &str, id: &str, ips: &[IpAddr]) -> WorkloadEndpoint {
    WorkloadEndpoint {
        namespace: "default".to_owned().into(),
        name: format!("{node}-k8s-{id}-eth0").into(),
        node: node.to_owned().into(),
        pod: id.to_owned().into(),
        pod_uid: None,
        container_id: id.to_owned().into(),
        endpoint: "eth0".to_owned().into(),
        interface_name: "oci1".to_owned().into(),
        mac: [2, 0, 0, 0, 0, 1],
        ip_networks: ips.iter().map(|ip| IpNet::from(*ip)).collect(),
        labels: model::Labels::new(),
        ports: Vec::new().into(),
        host_ports: Vec::new(),
    }
}

fn endpoint_record(container_id: &str, address: &str) -> Record {
    let endpoint = endpoint("n1", container_id, &[ip(address)]);
    Record::Endpoint {
        endpoint,
        ifindex: 1,
        mtu: 1500,
        sequence: 0,
        network: String::new(),
    }
}
