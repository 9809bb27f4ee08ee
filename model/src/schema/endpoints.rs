//! `NetworkSet`, `GlobalNetworkSet`, `HostEndpoint` and `Profile`.

use super::build::{Schema, list, map_of, object, text};
use super::definition::{Column, Definition, Scope};
use super::rule;
use super::values::{MOST_RULES, name, named_port, network};

const MOST_NETS: usize = 100_000;

pub(super) fn definitions() -> Vec<Definition> {
    let age = &[Column("Age", "date", ".metadata.creationTimestamp")];
    vec![
        Definition {
            short_names: &["netsets"],
            scope: Scope::Namespaced,
            columns: age,
            needs_spec: false,
            ..Definition::calico(
                "NetworkSet",
                "networksets",
                "Networks that policies of its namespace select by label.",
                nets(),
            )
        },
        Definition {
            short_names: &["gns"],
            columns: age,
            needs_spec: false,
            ..Definition::calico(
                "GlobalNetworkSet",
                "globalnetworksets",
                "Networks that policies select by label.",
                nets(),
            )
        },
        host_endpoint(),
        profile(),
    ]
}

fn nets() -> Schema {
    object([(
        "nets",
        list(network())
            .most(MOST_NETS)
            .about("Addresses and prefixes."),
    )])
}

fn host_endpoint() -> Definition {
    let spec = object([
        ("node", name().about("The node.")),
        (
            "interfaceName",
            text()
                .longest(15)
                .pattern("^([*]|[a-zA-Z0-9_.-]*)$")
                .about("An interface, or * for all."),
        ),
        (
            "expectedIPs",
            list(
                text()
                    .longest(49)
                    .rule("isIP(self)", "must be an IP address"),
            )
            .most(256)
            .about("Addresses that say which interface it is."),
        ),
        (
            "ports",
            list(named_port()).most(1024).about("Names for ports."),
        ),
        ("profiles", list(text().longest(253)).most(256)),
    ])
    .required(&["node"])
    .rule(
        "has(self.interfaceName) && size(self.interfaceName) > 0 \
         || has(self.expectedIPs) && size(self.expectedIPs) > 0",
        "interfaceName is required, or expectedIPs",
    );
    Definition {
        short_names: &["hep", "heps"],
        columns: &[
            Column("Node", "string", ".spec.node"),
            Column("Interface", "string", ".spec.interfaceName"),
        ],
        ..Definition::calico(
            "HostEndpoint",
            "hostendpoints",
            "An interface of a node that policy is applied to.",
            spec,
        )
    }
}

/// Rules of a profile are kept whole: one that does more than allow everything is refused in words.
fn profile() -> Definition {
    let rules = || list(rule::profile_rule()).most(MOST_RULES);
    let spec = object([
        ("labelsToApply", map_of(text())),
        ("ingress", rules()),
        ("egress", rules()),
    ]);
    Definition {
        needs_spec: false,
        ..Definition::calico(
            "Profile",
            "profiles",
            "Labels for the endpoints that name it.",
            spec,
        )
    }
}
