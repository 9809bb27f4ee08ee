//! `StagedKubernetesNetworkPolicy`: the `spec` of Kubernetes' `NetworkPolicy`, and what to do with
//! it.

use super::build::{Schema, integer, integer_or_text, list, object, one_of, text};
use super::values::label_selector;

// Kubernetes has no such limits, but the API server bounds what a CEL rule may cost by them.
const MOST_RULES: usize = 64;
const MOST_PEERS: usize = 96;
const MOST_PORTS: usize = 256;
const MOST_EXCEPTIONS: usize = 12;
const PORT_NAME: &str = "^[a-z0-9-]{1,15}$";

pub(super) fn staged(action: Schema) -> Schema {
    let rules = |peers| {
        let rule = object([
            (peers, list(peer()).most(MOST_PEERS)),
            ("ports", list(port()).most(MOST_PORTS)),
        ])
        .keeps_unknown();
        list(rule).most(MOST_RULES)
    };
    object([
        ("stagedAction", action),
        ("podSelector", label_selector()),
        ("policyTypes", list(one_of(&["Ingress", "Egress"])).most(2)),
        ("ingress", rules("from")),
        ("egress", rules("to")),
    ])
    .keeps_unknown()
    .rule(
        "!has(self.stagedAction) || self.stagedAction != 'Delete' || !has(self.podSelector) \
         && !has(self.policyTypes) && !has(self.ingress) && !has(self.egress)",
        "stagedAction Delete stands alone",
    )
}

fn peer() -> Schema {
    object([
        ("podSelector", label_selector()),
        ("namespaceSelector", label_selector()),
        ("ipBlock", block()),
    ])
    .keeps_unknown()
    .rule(
        "!has(self.ipBlock) || !has(self.podSelector) && !has(self.namespaceSelector)",
        "ipBlock may not stand beside podSelector or namespaceSelector",
    )
}

fn block() -> Schema {
    let prefix = || text().longest(43);
    object([
        ("cidr", prefix()),
        ("except", list(prefix()).most(MOST_EXCEPTIONS)),
    ])
    .required(&["cidr"])
    .keeps_unknown()
    .rule("isCIDR(self.cidr)", "cidr must be a CIDR such as 10.0.0.0/8")
    .rule(
        "!has(self.except) || !isCIDR(self.cidr) || self.except.all(e, isCIDR(e) \
         && cidr(self.cidr).containsCIDR(e) && cidr(e).prefixLength() > cidr(self.cidr).prefixLength())",
        "what is excepted must be a smaller part of cidr",
    )
}

fn port() -> Schema {
    object([
        ("protocol", one_of(&["TCP", "UDP", "SCTP"])),
        ("port", integer_or_text(1..=65535, PORT_NAME)),
        ("endPort", integer(1..=65535)),
    ])
    .keeps_unknown()
    .rule(
        "!has(self.endPort) || has(self.port) && type(self.port) == int && self.endPort >= self.port",
        "endPort needs a port that is a number and not greater",
    )
}
