//! The annotations of a pod that has its addresses.

use super::{ApiError, ClusterWriter, MERGE, is_conflict};
use crate::WriteError;
use ipnet::IpNet;
use model::names::ANNOTATION_PREFIX;
use model::{Annotations, WorkloadEndpoint};
use serde_json::{Value, json};

/// What a pod's annotations say once it has its addresses, as Calico writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodAddresses {
    /// The pod's namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its UID: another pod of the same name is left alone.
    pub uid: Option<String>,
    /// The runtime's container (sandbox) id.
    pub container_id: String,
    /// Its addresses, each /32 or /128.
    pub ips: Vec<IpNet>,
}

impl PodAddresses {
    /// Of the endpoint of a pod.
    pub fn of(endpoint: &WorkloadEndpoint) -> Self {
        Self {
            namespace: endpoint.namespace.to_string(),
            pod: endpoint.pod.to_string(),
            uid: endpoint.pod_uid.as_ref().map(String::from),
            container_id: endpoint.container_id.to_string(),
            ips: endpoint.ip_networks.clone(),
        }
    }

    /// The annotations.
    pub fn annotations(&self) -> Annotations {
        let ips: Vec<String> = self.ips.iter().map(ToString::to_string).collect();
        let first = ips.first().cloned().unwrap_or_default();
        let all = [
            ("podIP", first),
            ("podIPs", ips.join(",")),
            ("containerID", self.container_id.clone()),
        ];
        all.map(|(key, value)| (format!("{ANNOTATION_PREFIX}{key}"), value))
            .into()
    }
}

impl ClusterWriter {
    /// Annotates the pod, in one request. A pod that is gone, or another one's by now, is left
    /// alone. The status is patched, since that permission is the smaller one.
    pub async fn annotate_pod(&self, pod: &PodAddresses) -> Result<(), WriteError> {
        let PodAddresses {
            namespace,
            pod: name,
            ..
        } = pod;
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/status");
        match self.patch(&path, MERGE, &patch(pod)).await {
            Err(error) if error.code() != Some(404) && !is_another(&error) => {
                Err(WriteError::Api(error))
            }
            _ => Ok(()),
        }
    }
}

/// The pod of this name has another UID.
fn is_another(error: &ApiError) -> bool {
    let ApiError::Refused { code, message, .. } = error else {
        return false;
    };
    is_conflict(error) || *code == 422 && message.contains("metadata.uid")
}

fn patch(pod: &PodAddresses) -> Value {
    let mut patch = json!({ "metadata": { "annotations": pod.annotations() } });
    if let Some(uid) = &pod.uid {
        patch["metadata"]["uid"] = uid.as_str().into();
    }
    patch
}
