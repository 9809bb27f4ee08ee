//! `ClusterNetworkPolicy` of `policy.networking.k8s.io/v1alpha2`, for clusters that do not have
//! its own definition. What is unknown is kept: the API asks implementations to fail closed.

use super::build::{Schema, integer, list, object, one_of, text};
use super::definition::{Column, Definition};
use super::values::label_selector;

const MOST: usize = 25;
const PORT_NAME: &str = "^[a-z0-9-]{1,15}$";

pub(super) fn definition() -> Definition {
    let spec = object([
        (
            "tier",
            one_of(&["Admin", "Baseline"])
                .about("Whether it stands before or after NetworkPolicies."),
        ),
        (
            "priority",
            integer(0..=1000).about("Its place in the tier, smallest first."),
        ),
        ("subject", subject().about("Pods that it is for.")),
        ("ingress", list(ingress()).most(MOST)),
        ("egress", list(egress()).most(MOST)),
    ])
    .required(&["tier", "priority", "subject"])
    .keeps_unknown();
    Definition {
        group: "policy.networking.k8s.io",
        version: "v1alpha2",
        columns: &[
            Column("Tier", "string", ".spec.tier"),
            Column("Priority", "integer", ".spec.priority"),
            Column("Age", "date", ".metadata.creationTimestamp"),
        ],
        ..Definition::calico(
            "ClusterNetworkPolicy",
            "clusternetworkpolicies",
            "What pods of the cluster may exchange with others, said by its administrators.",
            spec,
        )
    }
}

fn subject() -> Schema {
    let fields = object([("namespaces", label_selector()), ("pods", pods())]);
    fields.keeps_unknown().rule(
        "!(has(self.namespaces) && has(self.pods))",
        "pods may not stand beside namespaces",
    )
}

fn pods() -> Schema {
    object([
        ("namespaceSelector", label_selector()),
        ("podSelector", label_selector()),
    ])
    .required(&["podSelector"])
    .keeps_unknown()
}

fn rule(peers: &str, peer: Schema) -> Schema {
    object([
        ("name", text().longest(100)),
        ("action", one_of(&["Accept", "Deny", "Pass"])),
        (peers, list(peer).not_empty().most(MOST)),
        ("protocols", list(protocol()).not_empty().most(MOST)),
    ])
    .required(&["action", peers])
    .keeps_unknown()
}

fn ingress() -> Schema {
    let peer = object([("namespaces", label_selector()), ("pods", pods())])
        .keeps_unknown()
        .rule(
            "!(has(self.namespaces) && has(self.pods))",
            "must have one field only",
        );
    rule("from", peer)
}

fn egress() -> Schema {
    let network = text()
        .longest(43)
        .rule("isCIDR(self)", "must be a CIDR such as 10.0.0.0/8");
    let domain = text()
        .longest(253)
        .pattern("^([*][.])?([a-zA-Z0-9_]([-a-zA-Z0-9_]*[a-zA-Z0-9])?[.])+[a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?[.]?$");
    let peer = object([
        ("namespaces", label_selector()),
        ("pods", pods()),
        ("networks", list(network).not_empty().most(MOST)),
        ("nodes", label_selector()),
        ("domainNames", list(domain).not_empty().most(MOST)),
    ])
    .keeps_unknown()
    .rule(
        "[has(self.namespaces), has(self.pods), has(self.networks), has(self.nodes), \
         has(self.domainNames)].filter(stated, stated).size() <= 1",
        "must have one field only",
    );
    rule("to", peer)
        .rule(
            "self.action == 'Accept' || !self.to.exists(peer, has(peer.domainNames))",
            "domainNames may stand only in a rule that accepts",
        )
        .rule(
            "!has(self.protocols) || !self.protocols.exists(p, has(p.destinationNamedPort)) \
             || self.to.all(peer, has(peer.namespaces) || has(peer.pods))",
            "a destinationNamedPort may not stand beside networks, nodes or domainNames",
        )
}

fn protocol() -> Schema {
    let port = || {
        let range = object([("start", integer(1..=65535)), ("end", integer(1..=65535))])
            .required(&["start", "end"])
            .keeps_unknown()
            .rule("self.start < self.end", "end must be greater than start");
        let port = object([("number", integer(1..=65535)), ("range", range)])
            .keeps_unknown()
            .rule(
                "!(has(self.number) && has(self.range))",
                "range may not stand beside number",
            );
        object([("destinationPort", port)]).keeps_unknown()
    };
    object([
        ("tcp", port()),
        ("udp", port()),
        ("sctp", port()),
        ("destinationNamedPort", text().pattern(PORT_NAME)),
    ])
    .keeps_unknown()
    .rule(
        "[has(self.tcp), has(self.udp), has(self.sctp), has(self.destinationNamedPort)]\
         .filter(stated, stated).size() <= 1",
        "must have one field only",
    )
}
