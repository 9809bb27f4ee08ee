//! Host endpoints: `eth0` of the first node.

use super::super::HOST_ENDPOINT;
use super::{Step, calico_object, labelled};
use integration::prober::PORTS;
use serde_json::{Value, json};

fn endpoint(spec: Value) -> Value {
    let mut whole = json!({"node": "n1", "interfaceName": "eth0",
        "expectedIPs": ["10.1.0.11", "fd00:1::11"]});
    if let (Some(whole), Some(spec)) = (whole.as_object_mut(), spec.as_object()) {
        whole.extend(spec.clone());
    }
    let object = calico_object("HostEndpoint", None, HOST_ENDPOINT, whole);
    labelled(object, json!({"role": "host"}))
}

/// For the host endpoint.
fn global(name: &str, spec: Value) -> Value {
    let mut whole = json!({"selector": "role == 'host'", "order": 1});
    if let (Some(whole), Some(spec)) = (whole.as_object_mut(), spec.as_object()) {
        whole.extend(spec.clone());
    }
    calico_object("GlobalNetworkPolicy", None, name, whole)
}

pub(in super::super) fn hosts() -> Vec<Step> {
    let [first, second] = PORTS;
    let open = || endpoint(json!({"profiles": ["projectcalico-default-allow"]}));
    let closed = || endpoint(json!({}));
    let allow_tcp = json!([{"action": "Allow", "protocol": "TCP"}]);
    vec![
        (
            "a host endpoint without policies is closed, for the host only",
            vec![closed()],
        ),
        ("the profile that allows", vec![open()]),
        (
            "what policies allow, both ways",
            vec![
                closed(),
                global(
                    "p",
                    json!({"types": ["Ingress", "Egress"], "ingress": allow_tcp, "egress": [{"action": "Allow"}]}),
                ),
            ],
        ),
        (
            "the end of the tier comes before the profile",
            vec![
                open(),
                global(
                    "p",
                    json!({"types": ["Ingress"], "ingress": [{"action": "Allow", "source": {"nets": ["10.1.0.12/32", "fd00:1::12/128"]}}]}),
                ),
            ],
        ),
        (
            "rules by ports, and ICMP",
            vec![
                open(),
                global(
                    "p",
                    json!({"types": ["Ingress"], "ingress": [
                        {"action": "Allow", "protocol": "TCP", "destination": {"ports": [second]}},
                        {"action": "Deny", "protocol": "TCP", "destination": {"notPorts": [second]}},
                        {"action": "Deny", "protocol": "ICMP", "icmp": {"type": 8}},
                        {"action": "Allow"},
                    ]}),
                ),
            ],
        ),
        (
            "without applyOnForward, what is forwarded passes",
            vec![
                open(),
                global(
                    "p",
                    json!({"types": ["Ingress", "Egress"], "ingress": [{"action": "Deny"}], "egress": [{"action": "Deny"}]}),
                ),
            ],
        ),
        (
            "applyOnForward denies what is forwarded, in",
            vec![
                open(),
                global(
                    "p",
                    json!({"applyOnForward": true, "types": ["Ingress"], "ingress": [
                        {"action": "Deny", "protocol": "UDP"}, {"action": "Deny", "protocol": "SCTP"}, {"action": "Allow"}]}),
                ),
            ],
        ),
        (
            "applyOnForward allows what it says only, out",
            vec![
                open(),
                global(
                    "p",
                    json!({"applyOnForward": true, "types": ["Egress"], "egress": [
                        {"action": "Allow", "protocol": "TCP", "destination": {"ports": [first]}}]}),
                ),
            ],
        ),
        (
            "policies of pods and of hosts must both allow",
            vec![
                open(),
                global(
                    "p",
                    json!({"applyOnForward": true, "types": ["Ingress"], "ingress": [
                        {"action": "Deny", "source": {"selector": "pod == 'a'"}}, {"action": "Allow"}]}),
                ),
                calico_object(
                    "GlobalNetworkPolicy",
                    None,
                    "pods",
                    json!({"namespaceSelector": "all()", "types": ["Ingress"], "ingress": [
                        {"action": "Deny", "source": {"selector": "pod == 'b'"}}, {"action": "Allow"}]}),
                ),
            ],
        ),
        (
            "preDNAT denies before anything else",
            vec![
                open(),
                global(
                    "p",
                    json!({"preDNAT": true, "applyOnForward": true, "types": ["Ingress"], "ingress": [
                        {"action": "Deny", "protocol": "TCP", "destination": {"ports": [first]}}]}),
                ),
            ],
        ),
        (
            "preDNAT allows before anything else",
            vec![
                closed(),
                global(
                    "p",
                    json!({"preDNAT": true, "applyOnForward": true, "types": ["Ingress"], "ingress": [{"action": "Allow", "protocol": "UDP"}]}),
                ),
                global(
                    "q",
                    json!({"order": 2, "applyOnForward": true, "types": ["Ingress"], "ingress": [{"action": "Deny"}]}),
                ),
            ],
        ),
        (
            "doNotTrack denies before connections are tracked",
            vec![
                open(),
                global(
                    "p",
                    json!({"doNotTrack": true, "applyOnForward": true, "types": ["Ingress"], "ingress": [
                        {"action": "Deny", "protocol": "UDP", "source": {"nets": ["10.1.0.0/24", "fd00:1::/64"]}, "destination": {"ports": [first]}}]}),
                ),
            ],
        ),
        (
            "an endpoint of all interfaces",
            vec![endpoint(json!({"interfaceName": "*"}))],
        ),
        (
            "a host endpoint is a peer by its expected addresses",
            vec![
                open(),
                calico_object(
                    "GlobalNetworkPolicy",
                    None,
                    "pods",
                    json!({"namespaceSelector": "all()", "types": ["Ingress"], "ingress": [
                        {"action": "Allow", "source": {"selector": "role == 'host'"}}]}),
                ),
            ],
        ),
        (
            "an endpoint of another node is not enforced here",
            vec![labelled(
                calico_object(
                    "HostEndpoint",
                    None,
                    "elsewhere",
                    json!({"node": "n3", "interfaceName": "eth0", "expectedIPs": ["10.1.0.99"]}),
                ),
                json!({"role": "host"}),
            )],
        ),
        ("nothing is left behind", vec![]),
    ]
}
