//! `IPAMBlock`s and `BlockAffinity`s.

use super::{ATTEMPTS, ClusterWriter, JSON_PATCH, is_conflict, path, preconditions, read};
use crate::WriteError;
use ipnet::IpNet;
use model::manifest::{allocations_of, to_manifest};
use model::{BlockAllocations, IpamBlock, Object, ObjectKey};
use serde_json::{Value, json};
use std::sync::PoisonError;

impl ClusterWriter {
    /// Writes the block unless it exists: of several agents that try, exactly one succeeds.
    pub async fn create_block(&self, block: &IpamBlock) -> Result<(), WriteError> {
        let (key, document) = document(block);
        let collection = path::collection(key.kind, None);
        for _ in 0..ATTEMPTS {
            if self.create_document(&collection, &document).await? {
                return Ok(());
            }
            if let Some((_, object)) = self.read_block(&key).await? {
                return Err(WriteError::Exists {
                    object: Box::new(object),
                });
            }
            // Deleted by somebody since.
        }
        Err(contended(&key))
    }

    /// Deletes the block if it is still `expected`, and first the affinity of its node.
    pub async fn delete_block(&self, expected: &IpamBlock) -> Result<(), WriteError> {
        let (key, _) = document(expected);
        self.forget_affinity(expected.cidr);
        for _ in 0..ATTEMPTS {
            let Some((found, object)) = self.read_block(&key).await? else {
                return self.delete_affinity(expected).await;
            };
            if object != Object::IpamBlock(expected.clone()) {
                return Err(WriteError::Changed {
                    object: Box::new(object),
                });
            }
            self.delete_affinity(expected).await?;
            let only_if = Some(preconditions(&found));
            match self.delete_document(&path::object(&key), only_if).await {
                // Its owner noted what is held.
                Err(error) if is_conflict(&error) => {}
                result => return result.map_err(WriteError::Api),
            }
        }
        Err(contended(&key))
    }

    /// Gives the block to another owner, if it is `expected`.
    pub async fn swap_block(
        &self,
        expected: &IpamBlock,
        next: &IpamBlock,
    ) -> Result<(), WriteError> {
        let (key, _) = document(next);
        for _ in 0..ATTEMPTS {
            let Some((mut found, object)) = self.read_block(&key).await? else {
                return Err(WriteError::Missing { object: key });
            };
            if object != Object::IpamBlock(expected.clone()) {
                return Err(WriteError::Changed {
                    object: Box::new(object),
                });
            }
            found["spec"]["affinity"] = next.affinity().into();
            match self.replace(&path::object(&key), &found).await {
                Err(error) if is_conflict(&error) => {}
                Ok(_) => return self.delete_affinity(expected).await,
                Err(error) => return Err(WriteError::Api(error)),
            }
        }
        Err(contended(&key))
    }

    /// Notes what is held in a block, if it is still its owner's, and sees to its affinity. A block
    /// that is somebody else's by now, or gone, is left alone.
    pub async fn put_allocations(
        &self,
        block: &IpamBlock,
        allocations: &BlockAllocations,
    ) -> Result<(), WriteError> {
        let (key, _) = document(block);
        let test = json!({ "op": "test", "path": "/spec/affinity", "value": block.affinity() });
        let fields = allocations_of(block, allocations).into_iter();
        let set = fields.map(
            |(name, value)| json!({ "op": "add", "path": format!("/spec/{name}"), "value": value }),
        );
        let patch: Value = std::iter::once(test).chain(set).collect();
        let patched = self.patch(&path::object(&key), JSON_PATCH, &patch).await;
        match patched {
            Ok(_) => self.see_to_affinity(block).await,
            // 422: the test failed.
            Err(error) if matches!(error.code(), Some(404 | 422)) => Ok(()),
            Err(error) => Err(WriteError::Api(error)),
        }
    }

    pub(super) async fn read_block(
        &self,
        key: &ObjectKey,
    ) -> Result<Option<(Value, Object)>, WriteError> {
        let path = path::object(key);
        match self.get(&path).await? {
            None => Ok(None),
            Some(document) => {
                let object = read(key, &path, &document)?;
                Ok(Some((document, object)))
            }
        }
    }

    async fn see_to_affinity(&self, block: &IpamBlock) -> Result<(), WriteError> {
        let seen =
            |affinities: &mut std::collections::BTreeSet<IpNet>| affinities.insert(block.cidr);
        let first = seen(
            &mut self
                .affinities
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        if !first || block.is_virtual() {
            return Ok(());
        }
        let document = json!({
            "apiVersion": "projectcalico.org/v3",
            "kind": "BlockAffinity",
            "metadata": { "name": affinity_name(block) },
            "spec": {
                "state": "confirmed",
                "node": block.node,
                "type": "host",
                "cidr": block.cidr.to_string(),
                "deleted": false,
            },
        });
        let created = self.create_document(&affinities(), &document).await;
        if created.is_err() {
            self.forget_affinity(block.cidr);
        }
        // A cluster without the kind has no use for it.
        match created {
            Err(error) if error.code() != Some(404) => Err(WriteError::Api(error)),
            _ => Ok(()),
        }
    }

    async fn delete_affinity(&self, block: &IpamBlock) -> Result<(), WriteError> {
        if block.is_virtual() {
            return Ok(());
        }
        let path = format!("{}/{}", affinities(), affinity_name(block));
        self.delete_document(&path, None)
            .await
            .map_err(WriteError::Api)
    }

    fn forget_affinity(&self, block: IpNet) {
        let mut known = self
            .affinities
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known.remove(&block);
    }
}

fn document(block: &IpamBlock) -> (ObjectKey, Value) {
    let object = Object::IpamBlock(block.clone());
    let document = to_manifest(&object).expect("invariant: blocks have a manifest");
    (object.key(), document)
}

fn contended(key: &ObjectKey) -> WriteError {
    let what = key.to_string();
    WriteError::Contended { what }
}

fn affinities() -> String {
    path::under("projectcalico.org/v3", "blockaffinities", None)
}

/// As Calico names it, unless that is too long for a name.
fn affinity_name(block: &IpamBlock) -> String {
    let name = format!("{}-{}", block.node, block.name());
    if name.len() <= 253 {
        name
    } else {
        block.name()
    }
}
