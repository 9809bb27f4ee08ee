//! Elections on `coordination.k8s.io/v1` Leases.
//!
//! What counts is the number of renewals, in an annotation, which is compared and swapped under the
//! object's `resourceVersion`. Times in the object are for people: a clock that is wrong by an hour
//! changes nothing.

use super::{ClusterWriter, is_conflict, path, time};
use crate::WriteError;
use model::Lease;
use serde_json::{Value, json};
use std::time::Duration;

const RENEWALS: &str = "node.ocicat.io/renewals";

impl ClusterWriter {
    /// The lease of this name, if anybody ever took it.
    pub async fn lease(&self, name: &str) -> Result<Option<Lease>, WriteError> {
        let found = self.get(&self.lease_path(name)).await?;
        Ok(found.as_ref().map(read))
    }

    /// Replaces the lease by `next` if it is `expected` (none: if there is none). Of several agents
    /// that try, exactly one succeeds; the others learn what it is. `duration` is what is said of
    /// how long it holds without a renewal.
    pub async fn swap_lease(
        &self,
        name: &str,
        expected: Option<&Lease>,
        next: &Lease,
        duration: Duration,
    ) -> Result<(), WriteError> {
        let found = self.get(&self.lease_path(name)).await?;
        let lease = found.as_ref().map(read);
        if lease.as_ref() != expected {
            let name = name.to_owned();
            return Err(WriteError::LeaseChanged { name, lease });
        }
        let document = document(name, found, next, duration);
        let written = if lease.is_some() {
            self.replace(&self.lease_path(name), &document).await
        } else {
            self.post(&self.leases(), &document).await
        };
        match written {
            Ok(_) => Ok(()),
            Err(error) if is_conflict(&error) || error.code() == Some(404) && lease.is_some() => {
                Err(WriteError::LeaseChanged {
                    name: name.to_owned(),
                    lease: self.lease(name).await?,
                })
            }
            Err(error) => Err(WriteError::Api(error)),
        }
    }

    fn leases(&self) -> String {
        path::under("coordination.k8s.io/v1", "leases", Some(&self.namespace))
    }

    fn lease_path(&self, name: &str) -> String {
        format!("{}/{name}", self.leases())
    }
}

fn read(document: &Value) -> Lease {
    let renewals = document["metadata"]["annotations"][RENEWALS].as_str();
    Lease {
        holder: document["spec"]["holderIdentity"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        renewals: renewals.and_then(|number| number.parse().ok()).unwrap_or(0),
    }
}

fn document(name: &str, found: Option<Value>, next: &Lease, duration: Duration) -> Value {
    let mut document = found.unwrap_or_else(|| {
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": { "name": name },
            "spec": { "leaseTransitions": -1 },
        })
    });
    document["metadata"]["annotations"][RENEWALS] = next.renewals.to_string().into();
    let spec = &mut document["spec"];
    if spec["holderIdentity"] != *next.holder {
        spec["acquireTime"] = time::now_micros().into();
        spec["leaseTransitions"] = (spec["leaseTransitions"].as_i64().unwrap_or(-1) + 1).into();
    }
    spec["holderIdentity"] = next.holder.as_str().into();
    spec["renewTime"] = time::now_micros().into();
    spec["leaseDurationSeconds"] = duration.as_secs().max(1).into();
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_counts_its_holders_and_keeps_what_others_wrote() {
        let lease = |holder: &str, renewals| Lease {
            holder: holder.into(),
            renewals,
        };
        let second = Duration::from_secs(30);
        let mut first = document("controller", None, &lease("n1", 1), second);
        assert_eq!(read(&first), lease("n1", 1));
        assert_eq!(first["spec"]["leaseTransitions"], 0);
        assert_eq!(first["spec"]["leaseDurationSeconds"], 30);
        first["metadata"]["resourceVersion"] = "7".into();
        first["metadata"]["annotations"]["note"] = "kept".into();
        let renewed = document("controller", Some(first.clone()), &lease("n1", 2), second);
        assert_eq!(renewed["spec"]["leaseTransitions"], 0);
        assert_eq!(renewed["spec"]["acquireTime"], first["spec"]["acquireTime"]);
        let taken = document("controller", Some(renewed), &lease("n2", 3), second);
        assert_eq!(
            (read(&taken), &taken["spec"]["leaseTransitions"]),
            (lease("n2", 3), &json!(1))
        );
        assert_eq!(taken["metadata"]["resourceVersion"], "7");
        assert_eq!(taken["metadata"]["annotations"]["note"], "kept");
    }

    #[test]
    fn a_lease_without_our_annotation_can_be_read() {
        let foreign = json!({ "spec": { "holderIdentity": "somebody" } });
        assert_eq!(
            read(&foreign),
            Lease {
                holder: "somebody".into(),
                renewals: 0
            }
        );
        assert_eq!(
            read(&json!({})),
            Lease {
                holder: String::new(),
                renewals: 0
            }
        );
    }
}
