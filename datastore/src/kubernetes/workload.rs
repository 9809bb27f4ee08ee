//! A Pod -> the workload endpoint that follows from it.
//!
//! On Kubernetes a pod's addresses stand on the Pod: in annotations that the agent of its node
//! writes when the pod has a link, and in its status when the kubelet has got round to it.

use model::{Kind, Labels, ObjectKey, Text, WorkloadEndpoint, names};
use serde_json::Value;
use std::net::IpAddr;

/// The one interface that Kubernetes knows of.
const INTERFACE: &str = "eth0";

/// Takes out of the pod what says where it is reached; of a pod of the node `own` it stays, so that
/// its agent sees what it has written.
pub(super) fn take_endpoint(pod: &mut Value, own: &str) -> Option<WorkloadEndpoint> {
    let endpoint = endpoint(pod, own);
    if pod["spec"]["nodeName"] == *own {
        return endpoint;
    }
    let annotations = pod.pointer_mut("/metadata/annotations");
    if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
        for name in ["podIP", "podIPs", "containerID"] {
            annotations.remove(&format!("{}{name}", names::ANNOTATION_PREFIX));
        }
    }
    endpoint
}

/// The endpoint of the pod; none while it has no address, or has one that is not its own. For a
/// pod of the node `own`, only what that node's agent wrote: it knows better than the status, which
/// may be that of the sandbox before.
fn endpoint(pod: &Value, own: &str) -> Option<WorkloadEndpoint> {
    let text = |value: &Value| {
        value
            .as_str()
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let (metadata, spec, status) = (&pod["metadata"], &pod["spec"], &pod["status"]);
    let ended = matches!(status["phase"].as_str(), Some("Succeeded" | "Failed"));
    if ended || spec["hostNetwork"] == Value::Bool(true) {
        return None;
    }
    let node = text(&spec["nodeName"])?;
    let annotation =
        |name: &str| text(&metadata["annotations"][format!("{}{name}", names::ANNOTATION_PREFIX)]);
    let written: Vec<IpAddr> = annotation("podIPs")
        .or_else(|| annotation("podIP"))
        .map(|list| list.split(',').filter_map(address).collect())
        .unwrap_or_default();
    let reported = || {
        let list = status["podIPs"].as_array().into_iter().flatten();
        list.filter_map(|entry| address(entry["ip"].as_str()?))
            .collect()
    };
    let is_own = node == own;
    let ips = match (written.is_empty(), is_own) {
        (false, _) => written,
        (true, true) => return None,
        (true, false) => reported(),
    };
    if ips.is_empty() {
        return None;
    }
    let name = text(&metadata["name"])?;
    Some(WorkloadEndpoint {
        namespace: text(&metadata["namespace"])?.into(),
        name: WorkloadEndpoint::name_of(&node, &name, INTERFACE).into(),
        node: node.into(),
        pod: name.into(),
        pod_uid: text(&metadata["uid"]).map(Into::into),
        // Of another node's pod nobody here asks for the sandbox.
        container_id: annotation("containerID")
            .filter(|_| is_own)
            .unwrap_or_default()
            .into(),
        endpoint: INTERFACE.into(),
        interface_name: Text::default(),
        mac: [0; 6],
        ip_networks: ips.into_iter().map(Into::into).collect(),
        labels: Labels::new(),
        ports: [].into(),
        host_ports: Vec::new(),
    })
}

/// The key of the endpoint of a pod that is named by namespace and name, on this node.
pub(super) fn key(pod: &str, node: &str) -> ObjectKey {
    let (namespace, name) = pod.split_once('/').unwrap_or(("default", pod));
    let name = WorkloadEndpoint::name_of(node, name, INTERFACE);
    ObjectKey::namespaced(Kind::WorkloadEndpoint, namespace, &name)
}

/// An address, alone or with a prefix length.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let text = text.split_once('/').map_or(text, |(address, _)| address);
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Value {
        json!({
            "metadata": {"namespace": "shop", "name": "web-1", "uid": "u1", "annotations": {}},
            "spec": {"nodeName": "n-1"},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.244.0.5"}, {"ip": "fd00::5"}]},
        })
    }

    fn ips(pod: &Value, own: &str) -> Option<Vec<String>> {
        let endpoint = endpoint(pod, own)?;
        Some(
            endpoint
                .ip_networks
                .iter()
                .map(ToString::to_string)
                .collect(),
        )
    }

    #[test]
    fn a_pod_of_another_node_has_the_addresses_of_its_status() {
        let endpoint = endpoint(&pod(), "n2").unwrap();
        assert_eq!(endpoint.name, "n--1-k8s-web--1-eth0");
        assert_eq!(
            key("shop/web-1", "n-1"),
            model::Object::WorkloadEndpoint(Box::new(endpoint)).key()
        );
        assert_eq!(ips(&pod(), "n2").unwrap(), ["10.244.0.5/32", "fd00::5/128"]);
    }

    #[test]
    fn what_the_agent_of_its_node_wrote_comes_first() {
        let mut pod = pod();
        pod["metadata"]["annotations"] = json!({
            "cni.projectcalico.org/podIP": "10.244.0.9/32",
            "cni.projectcalico.org/podIPs": "10.244.0.9/32,fd00::9/128",
            "cni.projectcalico.org/containerID": "c9",
        });
        assert_eq!(ips(&pod, "n-1").unwrap(), ["10.244.0.9/32", "fd00::9/128"]);
        let sandbox = |own| endpoint(&pod, own).unwrap().container_id;
        assert_eq!((sandbox("n-1"), sandbox("n2")), ("c9".into(), "".into()));
    }

    #[test]
    fn a_pod_that_shares_or_has_given_back_its_address_has_no_endpoint() {
        for (pointer, value) in [
            ("/spec", json!({"nodeName": "n1", "hostNetwork": true})),
            ("/status/phase", json!("Succeeded")),
            ("/status/podIPs", json!([])),
            ("/spec", json!({})),
        ] {
            let mut pod = pod();
            *pod.pointer_mut(pointer).unwrap() = value;
            assert_eq!(ips(&pod, "n2"), None, "{pod}");
        }
        assert_eq!(
            ips(&pod(), "n-1"),
            None,
            "of its own node, only by annotation"
        );
    }
}
