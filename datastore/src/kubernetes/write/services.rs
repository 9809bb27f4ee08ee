//! Addresses of Services: the blocks that note them, and the statuses that show them.

use super::{ClusterWriter, MERGE, is_conflict, path, preconditions, read};
use crate::WriteError;
use ipnet::IpNet;
use model::manifest::{block_allocations, block_with};
use model::{BlockAllocations, IpamBlock, Kind, Object, ObjectKey, Service};
use serde_json::{Value, json};
use std::net::IpAddr;

/// A block of Services as it was read.
#[derive(Debug, Clone)]
pub struct ServiceBlock {
    /// Who holds what.
    pub allocations: BlockAllocations,
    /// The object.
    document: Value,
}

impl ClusterWriter {
    /// The block of Services of this prefix. None where there is none, or it is a node's.
    pub async fn service_block(&self, cidr: IpNet) -> Result<Option<ServiceBlock>, WriteError> {
        let block = virtual_block(cidr);
        let key = Object::IpamBlock(block.clone()).key();
        let Some((document, object)) = self.read_block(&key).await? else {
            return Ok(None);
        };
        if object != Object::IpamBlock(block.clone()) {
            return Ok(None);
        }
        let allocations = block_allocations(&block, &document);
        let allocations = allocations.ok_or_else(|| WriteError::Occupied {
            object: key.clone(),
            path: path::object(&key).into(),
            reason: "its lists of allocations contradict each other".to_owned(),
        })?;
        Ok(Some(ServiceBlock {
            allocations,
            document,
        }))
    }

    /// Writes who holds what in a block, if it is as it was read (none: if there is no such block).
    /// A block of which nothing is held is deleted. Answers whether it was as expected.
    pub async fn put_service_block(
        &self,
        cidr: IpNet,
        allocations: &BlockAllocations,
        read: Option<&ServiceBlock>,
    ) -> Result<bool, WriteError> {
        let block = virtual_block(cidr);
        let place = path::object(&Object::IpamBlock(block.clone()).key());
        let mut allocations = allocations.clone();
        allocations.sequence += 1;
        let mut document = block_with(&block, &allocations);
        let written = match read {
            None if allocations.held.is_empty() => return Ok(true),
            None => {
                let collection = path::collection(Kind::IpamBlock, None);
                return Ok(self.create_document(&collection, &document).await?);
            }
            Some(read) if allocations.held.is_empty() => {
                let only_if = Some(preconditions(&read.document));
                self.delete_document(&place, only_if).await
            }
            Some(read) => {
                document["metadata"] = read.document["metadata"].clone();
                self.replace(&place, &document).await.map(drop)
            }
        };
        match written {
            Ok(()) => Ok(true),
            Err(error) if is_conflict(&error) || error.code() == Some(404) => Ok(false),
            Err(error) => Err(WriteError::Api(error)),
        }
    }

    /// The Service as it is, if it is there.
    pub async fn service(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Service>, WriteError> {
        let key = ObjectKey::namespaced(Kind::Service, namespace, name);
        let place = path::object(&key);
        let Some(document) = self.get(&place).await? else {
            return Ok(None);
        };
        match read(&key, &place, &document)? {
            Object::Service(service) => Ok(Some(*service)),
            _ => Ok(None),
        }
    }

    /// Makes the Service show these addresses, if it is there.
    pub async fn put_service_addresses(
        &self,
        namespace: &str,
        name: &str,
        addresses: &[IpAddr],
    ) -> Result<(), WriteError> {
        let key = ObjectKey::namespaced(Kind::Service, namespace, name);
        let place = format!("{}/status", path::object(&key));
        let ingress: Value = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
        let patch = json!({ "status": { "loadBalancer": { "ingress": ingress } } });
        match self.patch(&place, MERGE, &patch).await {
            Err(error) if error.code() != Some(404) => Err(WriteError::Api(error)),
            _ => Ok(()),
        }
    }
}

fn virtual_block(cidr: IpNet) -> IpamBlock {
    IpamBlock {
        cidr,
        node: IpamBlock::LOAD_BALANCER.to_owned(),
    }
}
