//! Writing to the API of a cluster: the operations of the directory's [`Writer`](crate::Writer),
//! and what only a cluster has.
//!
//! Whoever changes what others change too compares first: the object is read, judged, and written
//! back under its `resourceVersion`, or patched with a test of what was expected.
//!
//! | file | what it holds |
//! |---|---|
//! | `path` | where objects are |
//! | `blocks` | `IPAMBlock`s claimed, freed, taken over; what is held in them; `BlockAffinity`s |
//! | `lease` | elections |
//! | `pod` | the annotations of a pod that has its addresses |
//! | `node` | conditions, taint and annotations of the node itself |
//! | `status` | conditions of other objects, Events |
//! | `defaults` | what an empty cluster needs to begin with |
//! | `services` | addresses of Services |

mod blocks;
mod defaults;
mod lease;
mod node;
mod path;
mod pod;
mod services;
mod status;
mod time;

pub use defaults::{Defaults, Made, PoolDefaults};
pub use node::NodeStatus;
pub use pod::PodAddresses;
pub use services::ServiceBlock;

use super::{ApiError, Cluster};
use crate::WriteError;
use hyper::Method;
use ipnet::IpNet;
use model::manifest::{self, Parsed};
use model::{Object, ObjectKey};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// Who writes, as `metadata.managedFields` and Events name it.
const MANAGER: &str = "ocicat";
/// Attempts at an object that others write at the same time.
const ATTEMPTS: usize = 5;

const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// Writes to a cluster. Clones share the connections.
#[derive(Debug, Clone)]
pub struct ClusterWriter {
    cluster: Cluster,
    /// Where Leases are.
    namespace: String,
    /// Blocks whose `BlockAffinity` was seen to.
    affinities: Arc<Mutex<BTreeSet<IpNet>>>,
    events: Arc<Mutex<status::Budget>>,
}

impl ClusterWriter {
    /// Writes to the cluster; Leases are in `namespace`, the agent's own.
    pub fn new(cluster: Cluster, namespace: &str) -> Self {
        Self {
            cluster,
            namespace: namespace.to_owned(),
            affinities: Arc::default(),
            events: Arc::default(),
        }
    }

    async fn get(&self, path: &str) -> Result<Option<Value>, ApiError> {
        match self.cluster.call(Method::GET, path, None, None).await {
            Ok(document) => Ok(Some(document)),
            Err(error) if error.code() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn post(&self, path: &str, document: &Value) -> Result<Value, ApiError> {
        let call = self.cluster.call(Method::POST, path, None, Some(document));
        call.await
    }

    /// Replaces an object; refused with 409 where its `resourceVersion` is not the document's.
    async fn replace(&self, path: &str, document: &Value) -> Result<Value, ApiError> {
        let call = self.cluster.call(Method::PUT, path, None, Some(document));
        call.await
    }

    async fn patch(&self, path: &str, how: &str, patch: &Value) -> Result<Value, ApiError> {
        let call = self
            .cluster
            .call(Method::PATCH, path, Some(how), Some(patch));
        call.await
    }

    /// Creates an object unless one of its name is there. Answers whether it was created.
    async fn create_document(&self, collection: &str, document: &Value) -> Result<bool, ApiError> {
        match self.post(collection, document).await {
            Ok(_) => Ok(true),
            Err(error) if error.reason() == Some("AlreadyExists") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes an object if it is there and the preconditions hold.
    async fn delete_document(
        &self,
        path: &str,
        preconditions: Option<Value>,
    ) -> Result<(), ApiError> {
        let options = preconditions.map(|preconditions| {
            serde_json::json!({
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "preconditions": preconditions,
            })
        });
        let call = self
            .cluster
            .call(Method::DELETE, path, None, options.as_ref());
        match call.await {
            Err(error) if error.code() != Some(404) => Err(error),
            _ => Ok(()),
        }
    }
}

/// What stands in the place of an object, as a document of the API.
fn read(key: &ObjectKey, path: &str, document: &Value) -> Result<Object, WriteError> {
    let occupied = |reason: String| WriteError::Occupied {
        object: key.clone(),
        path: PathBuf::from(path),
        reason,
    };
    match manifest::parse(document) {
        Ok(Parsed::Valid { object, .. }) if object.key() == *key => Ok(object),
        Ok(Parsed::Valid { object, .. }) => Err(occupied(format!("it is {}", object.key()))),
        Ok(Parsed::Invalid { invalid, .. }) => Err(occupied(invalid.to_string())),
        Ok(Parsed::Ignored { reason, .. }) => Err(occupied(reason)),
        Err(error) => Err(occupied(error.to_string())),
    }
}

/// The `resourceVersion` and `uid` that a deletion has to find.
fn preconditions(document: &Value) -> Value {
    let metadata = &document["metadata"];
    serde_json::json!({ "uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"] })
}

/// The API refused because somebody else was faster.
fn is_conflict(error: &ApiError) -> bool {
    error.code() == Some(409)
}
