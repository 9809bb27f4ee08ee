//! `networking.k8s.io/v1` `NetworkPolicy`.

use super::{Step, one, pod, policy, port, team};
use integration::prober::PORTS;
use serde_json::json;

pub(in super::super) fn kubernetes() -> Vec<Step> {
    let [first, second] = PORTS;
    let all = json!({});
    vec![
        ("no policy isolates nobody", vec![]),
        (
            "deny all ingress of a namespace",
            one(json!({"podSelector": all, "policyTypes": ["Ingress"]})),
        ),
        (
            "deny all egress of a namespace",
            one(json!({"podSelector": all, "policyTypes": ["Egress"]})),
        ),
        (
            "an empty list of rules denies as none does",
            one(
                json!({"podSelector": all, "policyTypes": ["Ingress", "Egress"], "ingress": [], "egress": []}),
            ),
        ),
        (
            "an empty rule allows everything",
            one(json!({"podSelector": all, "ingress": [{}]})),
        ),
        (
            "absent policyTypes is ingress, and egress where there are egress rules",
            one(json!({"podSelector": pod("a"), "egress": [{"ports": [port(first)]}]})),
        ),
        (
            "peers of the policy's own namespace",
            one(
                json!({"podSelector": pod("a"), "ingress": [{"from": [{"podSelector": pod("b")}]}]}),
            ),
        ),
        (
            "every pod of the policy's own namespace",
            one(json!({"podSelector": pod("a"), "ingress": [{"from": [{"podSelector": all}]}]})),
        ),
        (
            "pods of other namespaces",
            one(
                json!({"podSelector": pod("a"), "ingress": [{"from": [{"namespaceSelector": team("y")}]}]}),
            ),
        ),
        (
            "pods of every namespace, and nobody else",
            one(json!({"podSelector": all, "ingress": [{"from": [{"namespaceSelector": all}]}]})),
        ),
        (
            "both selectors of one peer",
            one(json!({"podSelector": pod("a"), "ingress": [{"from": [
                {"namespaceSelector": team("y"), "podSelector": pod("b")}]}]})),
        ),
        (
            "two peers are alternatives",
            one(json!({"podSelector": pod("a"), "ingress": [{"from": [
                {"namespaceSelector": team("y")}, {"podSelector": pod("b")}]}]})),
        ),
        (
            "a namespace by its name",
            one(json!({"podSelector": pod("a"), "ingress": [{"from": [
                {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "z"}}}]}]})),
        ),
        (
            "expressions of selectors",
            one(
                json!({"podSelector": {"matchExpressions": [{"key": "pod", "operator": "NotIn", "values": ["c"]}]},
                "ingress": [{"from": [{"namespaceSelector": {"matchExpressions": [
                    {"key": "team", "operator": "In", "values": ["x", "y"]}]}}]}]}),
            ),
        ),
        (
            "an egress rule by pod",
            one(
                json!({"podSelector": pod("a"), "policyTypes": ["Egress"], "egress": [
                {"to": [{"namespaceSelector": team("z"), "podSelector": pod("c")}]}]}),
            ),
        ),
        (
            "egress of one side and ingress of the other must both allow",
            vec![
                policy(
                    "x",
                    "out",
                    json!({"podSelector": all, "policyTypes": ["Egress"], "egress": [
                {"to": [{"namespaceSelector": team("y")}]}]}),
                ),
                policy(
                    "y",
                    "in",
                    json!({"podSelector": pod("a"), "ingress": [
                {"from": [{"namespaceSelector": team("x"), "podSelector": pod("b")}]}]}),
                ),
            ],
        ),
        (
            "two policies allow the union",
            vec![
                policy(
                    "x",
                    "p",
                    json!({"podSelector": pod("a"), "ingress": [{"from": [{"podSelector": pod("b")}]}]}),
                ),
                policy(
                    "x",
                    "q",
                    json!({"podSelector": all, "ingress": [{"from": [{"namespaceSelector": team("z")}]}]}),
                ),
            ],
        ),
        (
            "a port of any peer",
            one(json!({"podSelector": all, "ingress": [{"ports": [port(second)]}]})),
        ),
        (
            "a port of one peer",
            one(
                json!({"podSelector": all, "ingress": [{"from": [{"namespaceSelector": team("y")}], "ports": [port(first)]}]}),
            ),
        ),
        (
            "a protocol without a port is all of its ports",
            one(json!({"podSelector": all, "ingress": [{"ports": [{"protocol": "UDP"}]}]})),
        ),
        (
            "UDP only leaves TCP denied",
            one(
                json!({"podSelector": all, "ingress": [{"ports": [{"protocol": "UDP", "port": first}]}]}),
            ),
        ),
        (
            "SCTP is not read as TCP",
            one(
                json!({"podSelector": all, "ingress": [{"ports": [{"protocol": "SCTP", "port": first}]}]}),
            ),
        ),
        (
            "endPort is inclusive",
            one(
                json!({"podSelector": all, "ingress": [{"ports": [{"port": first - 80, "endPort": first}]}]}),
            ),
        ),
        (
            "a range of all ports",
            one(
                json!({"podSelector": all, "ingress": [{"ports": [{"port": 1, "endPort": 65535}]}]}),
            ),
        ),
        (
            "a named port of ingress is the pod's own",
            one(json!({"podSelector": all, "ingress": [{"ports": [{"port": "web"}]}]})),
        ),
        (
            "a named port of egress is the peer's",
            one(
                json!({"podSelector": all, "policyTypes": ["Egress"], "egress": [
                {"to": [{"namespaceSelector": all}], "ports": [{"port": "web"}]}]}),
            ),
        ),
        (
            "a named port has a protocol",
            one(
                json!({"podSelector": all, "ingress": [{"ports": [{"port": "web", "protocol": "UDP"}]}]}),
            ),
        ),
        (
            "a named port that nobody has allows nothing",
            one(json!({"podSelector": all, "ingress": [{"ports": [{"port": "nobody"}]}]})),
        ),
        (
            "an ipBlock holds pods too",
            one(
                json!({"podSelector": all, "ingress": [{"from": [{"ipBlock": {"cidr": "10.244.0.0/16"}}]}]}),
            ),
        ),
        (
            "host bits of a cidr do not matter",
            one(
                json!({"podSelector": all, "ingress": [{"from": [{"ipBlock": {"cidr": "10.244.3.7/4"}}]}]}),
            ),
        ),
        (
            "everything but an exception",
            one(json!({"podSelector": all, "ingress": [{"from": [
                {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.244.0.0/16"]}},
                {"ipBlock": {"cidr": "::/0"}}]}]})),
        ),
        (
            "an exception subtracts from its own peer only",
            one(json!({"podSelector": all, "ingress": [{"from": [
                {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.244.0.0/16"]}},
                {"podSelector": pod("b")}]}]})),
        ),
        (
            "families are told apart",
            one(
                json!({"podSelector": all, "ingress": [{"from": [{"ipBlock": {"cidr": "::/0"}}]}]}),
            ),
        ),
        (
            "egress to an ipBlock with a port",
            one(
                json!({"podSelector": all, "policyTypes": ["Egress"], "egress": [
                {"to": [{"ipBlock": {"cidr": "10.244.0.0/16"}}], "ports": [port(second)]}]}),
            ),
        ),
        (
            "a policy of another namespace selects nobody here",
            vec![policy(
                "y",
                "p",
                json!({"podSelector": pod("a"), "policyTypes": ["Ingress", "Egress"]}),
            )],
        ),
        (
            "policies in all namespaces",
            ["x", "y", "z"]
                .map(|namespace| {
                    policy(
                        namespace,
                        "same",
                        json!({"podSelector": {}, "ingress": [
                {"from": [{"podSelector": {}}]}]}),
                    )
                })
                .into(),
        ),
        (
            "an empty list of peers is any peer",
            one(json!({"podSelector": all, "ingress": [{"from": [], "ports": [port(first)]}]})),
        ),
        (
            "an empty list of ports is any port of any protocol",
            one(
                json!({"podSelector": all, "ingress": [{"from": [{"podSelector": all}], "ports": []}]}),
            ),
        ),
        (
            "a port without a protocol is TCP",
            one(json!({"podSelector": all, "ingress": [{"ports": [{"port": first}]}]})),
        ),
        (
            "a port of SCTP",
            one(
                json!({"podSelector": all, "ingress": [{"from": [{"namespaceSelector": team("y")}], "ports": [{"protocol": "SCTP", "port": first}]}]}),
            ),
        ),
        (
            "a named port of SCTP, ingress",
            one(
                json!({"podSelector": all, "ingress": [{"ports": [{"protocol": "SCTP", "port": "diameter"}]}]}),
            ),
        ),
        (
            "a named port of SCTP, egress",
            one(
                json!({"podSelector": all, "policyTypes": ["Egress"], "egress": [
                {"to": [{"namespaceSelector": team("z")}], "ports": [{"protocol": "SCTP", "port": "diameter"}]}]}),
            ),
        ),
        (
            "egress rules without the type isolate no egress",
            one(
                json!({"podSelector": all, "policyTypes": ["Ingress"], "egress": [{"ports": [port(second)]}]}),
            ),
        ),
        (
            "a named port never matches an ipBlock, even of the pod that has it",
            one(
                json!({"podSelector": all, "policyTypes": ["Egress"], "egress": [
                {"to": [{"ipBlock": {"cidr": "10.244.0.0/16"}}], "ports": [{"port": "web"}]}]}),
            ),
        ),
        (
            "exceptions nest",
            one(json!({"podSelector": all, "ingress": [{"from": [
                {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.244.0.0/16", "10.0.0.0/9", "10.1.0.0/24"]}},
                {"ipBlock": {"cidr": "@yb4/32"}}]}]})),
        ),
        (
            "what one rule excepts another allows",
            one(json!({"podSelector": all, "ingress": [
                {"from": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["@ya4/32", "@yb4/32"]}}]},
                {"from": [{"ipBlock": {"cidr": "@ya4/32"}}], "ports": [port(first)]}]})),
        ),
        (
            "what one policy excepts another allows",
            vec![
                policy(
                    "x",
                    "p",
                    json!({"podSelector": all, "policyTypes": ["Egress"], "egress": [
                {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.244.0.0/16"]}}]}]}),
                ),
                policy(
                    "x",
                    "q",
                    json!({"podSelector": pod("a"), "policyTypes": ["Egress"], "egress": [
                {"to": [{"podSelector": {}, "namespaceSelector": team("y")}]}]}),
                ),
            ],
        ),
        (
            "ranges that overlap",
            one(
                json!({"podSelector": all, "ingress": [{"ports": [{"port": first - 5, "endPort": first}, {"port": first, "endPort": second}]},
                {"ports": [{"protocol": "UDP", "port": 1, "endPort": first}]}]}),
            ),
        ),
        (
            "the own node reaches its pods and they reach it, whatever NetworkPolicies say",
            ["x", "y", "z"]
                .map(|namespace| {
                    policy(
                        namespace,
                        "closed",
                        json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
                    )
                })
                .into(),
        ),
        (
            "a remote node is allowed by its address only",
            one(json!({"podSelector": all, "ingress": [
                {"from": [{"ipBlock": {"cidr": "10.1.0.12/32"}}, {"ipBlock": {"cidr": "fd00:1::12/128"}}]}]})),
        ),
        (
            "pods in the host's network are no subject and no peer",
            vec![
                json!({"apiVersion": "v1", "kind": "Pod",
                    "metadata": {"namespace": "y", "name": "proxy", "labels": {"pod": "a"}},
                    "spec": {"nodeName": "n2", "hostNetwork": true, "containers": []},
                    "status": {"podIP": "10.1.0.12", "podIPs": [{"ip": "10.1.0.12"}, {"ip": "fd00:1::12"}]}}),
                policy(
                    "y",
                    "closed",
                    json!({"podSelector": pod("a"), "policyTypes": ["Ingress", "Egress"]}),
                ),
                policy(
                    "x",
                    "p",
                    json!({"podSelector": all, "ingress": [{"from": [{"namespaceSelector": {}}]}]}),
                ),
            ],
        ),
        (
            "addresses outside by ipBlock",
            one(
                json!({"podSelector": all, "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"from": [{"ipBlock": {"cidr": "10.1.0.0/28"}}], "ports": [port(first)]}],
                "egress": [{"to": [{"ipBlock": {"cidr": "10.1.0.1/32"}}, {"ipBlock": {"cidr": "fd00:1::/64", "except": ["fd00:1::12/128"]}}]}]}),
            ),
        ),
        (
            "ICMP passes rules without ports, and none with",
            vec![
                policy(
                    "x",
                    "peers",
                    json!({"podSelector": all, "ingress": [{"from": [{"namespaceSelector": team("y")}]}]}),
                ),
                policy(
                    "y",
                    "ports",
                    json!({"podSelector": all, "ingress": [{"ports": [port(first), {"protocol": "UDP"}, {"protocol": "SCTP"}]}]}),
                ),
            ],
        ),
        ("nothing is left behind", vec![]),
    ]
}
