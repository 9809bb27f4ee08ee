//! Addresses of Services, given out by whoever holds the lease: read the blocks, decide, write the
//! blocks, then what Services show.

use datastore::kubernetes::{ClusterWriter, ServiceBlock};
use datastore::{Condition, Status, WriteError};
use ipam::load_balancer::{Demand, Ledger, Outcome, Refused, ServiceKey};
use ipnet::IpNet;
use model::{IpPool, Kind, ObjectKey};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Attempts at blocks that somebody else changes at the same time.
const ATTEMPTS: usize = 3;

/// What is known of the cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ServicePicture {
    /// Pools that give addresses to Services.
    pub(crate) pools: Vec<IpPool>,
    /// Addresses that are given to nobody who did not ask for them.
    pub(crate) reserved: Vec<IpNet>,
    /// Services that demand addresses.
    pub(crate) demands: Vec<Demand>,
    /// Blocks of Services.
    pub(crate) blocks: BTreeSet<IpNet>,
    /// Blocks of nodes.
    pub(crate) others: BTreeSet<IpNet>,
}

/// What was refused to whom, as far as Events were written about it.
pub(super) type Told = BTreeSet<(ServiceKey, String)>;

/// Gives every Service what it demands. Answers what was refused; of that, `told` is known already.
pub(super) async fn serve(
    writer: &ClusterWriter,
    node: &str,
    picture: &ServicePicture,
    told: &Told,
) -> Result<Told, WriteError> {
    let mut picture = picture.clone();
    for _ in 0..ATTEMPTS {
        let read = read_blocks(writer, &picture.blocks).await?;
        let allocations = read
            .iter()
            .map(|(cidr, block)| (*cidr, block.allocations.clone()));
        let mut ledger = Ledger::new(
            picture.pools.iter().cloned(),
            picture.reserved.clone(),
            allocations.collect(),
            picture.others.clone(),
        );
        let freed = forget_strangers(writer, &mut ledger, &picture.demands).await?;
        let outcome = ledger.assign(&picture.demands);
        if !write_blocks(writer, &ledger, &read, &mut picture).await? {
            continue;
        }
        write_statuses(writer, &picture.demands, &outcome, &freed).await?;
        return tell(writer, node, &outcome.refused, told).await;
    }
    let what = "the blocks of Services".to_owned();
    Err(WriteError::Contended { what })
}

async fn read_blocks(
    writer: &ClusterWriter,
    blocks: &BTreeSet<IpNet>,
) -> Result<BTreeMap<IpNet, ServiceBlock>, WriteError> {
    let mut read = BTreeMap::new();
    for cidr in blocks {
        if let Some(block) = writer.service_block(*cidr).await? {
            read.insert(*cidr, block);
        }
    }
    Ok(read)
}

/// Frees what Services hold that are gone, or of no concern to us any more. One that is there was
/// just not seen yet.
async fn forget_strangers(
    writer: &ClusterWriter,
    ledger: &mut Ledger,
    demands: &[Demand],
) -> Result<Vec<ServiceKey>, WriteError> {
    let mut still_shown = Vec::new();
    for stranger in ledger.strangers(demands) {
        let service = writer.service(&stranger.namespace, &stranger.name).await?;
        if service.as_ref().and_then(Demand::of).is_some() {
            continue;
        }
        ledger.forget(&stranger);
        if service.is_some_and(|service| !service.load_balancer_ips.is_empty()) {
            still_shown.push(stranger);
        }
    }
    Ok(still_shown)
}

/// Answers whether all blocks were as they were read.
async fn write_blocks(
    writer: &ClusterWriter,
    ledger: &Ledger,
    read: &BTreeMap<IpNet, ServiceBlock>,
    picture: &mut ServicePicture,
) -> Result<bool, WriteError> {
    for (block, allocations) in ledger.changed() {
        let cidr = block.cidr;
        if !writer
            .put_service_block(cidr, allocations, read.get(&cidr))
            .await?
        {
            // Somebody else's by now, perhaps a node's: that is read next.
            match writer.service_block(cidr).await? {
                Some(_) => picture.blocks.insert(cidr),
                None => picture.others.insert(cidr),
            };
            return Ok(false);
        }
        picture.blocks.insert(cidr);
    }
    Ok(true)
}

async fn write_statuses(
    writer: &ClusterWriter,
    demands: &[Demand],
    outcome: &Outcome,
    freed: &[ServiceKey],
) -> Result<(), WriteError> {
    for ServiceKey { namespace, name } in freed {
        writer.put_service_addresses(namespace, name, &[]).await?;
    }
    for demand in demands {
        let Some(addresses) = outcome.shown.get(&demand.service) else {
            continue;
        };
        let as_set = |ips: &[IpAddr]| ips.iter().copied().collect::<BTreeSet<_>>();
        if as_set(addresses) != as_set(&demand.shown) {
            let ServiceKey { namespace, name } = &demand.service;
            tracing::info!(service = %demand.service, ?addresses, "addresses of a Service");
            writer
                .put_service_addresses(namespace, name, addresses)
                .await?;
        }
    }
    Ok(())
}

/// Writes an Event for what was refused and is not known yet.
async fn tell(
    writer: &ClusterWriter,
    node: &str,
    refused: &[(ServiceKey, Refused)],
    told: &Told,
) -> Result<Told, WriteError> {
    let mut all = Told::new();
    for (service, reason) in refused {
        let said = (service.clone(), reason.to_string());
        if !told.contains(&said) {
            tracing::warn!(%service, %reason, "no address for a Service");
            let status = Status {
                node: node.to_owned(),
                object: Some(ObjectKey::namespaced(
                    Kind::Service,
                    &service.namespace,
                    &service.name,
                )),
                conditions: vec![Condition {
                    type_: "LoadBalancer".into(),
                    status: false,
                    reason: "NoAddress".into(),
                    message: reason.to_string(),
                }],
            };
            writer.put_status(&status).await?;
        }
        all.insert(said);
    }
    Ok(all)
}
