//! What agents say about objects.

use super::build::{Schema, count, list, object, one_of, text};

/// `status.conditions`, in the form of Kubernetes' own kinds.
pub(super) fn conditions() -> Schema {
    object([("conditions", condition_list())]).about("What the network makes of the object.")
}

fn condition_list() -> Schema {
    let condition = object([
        ("type", text().longest(316)),
        ("status", one_of(&["True", "False", "Unknown"])),
        ("observedGeneration", count()),
        ("lastTransitionTime", text().format("date-time")),
        ("reason", text().longest(1024)),
        (
            "message",
            text()
                .longest(32768)
                .about("What is wrong with which field, in words."),
        ),
    ])
    .required(&["type", "status"]);
    list(condition).keyed_by("type")
}

/// `CalicoNodeStatus`: what the agent of `spec.node` reports.
pub(super) fn node() -> Schema {
    object([
        ("conditions", condition_list()),
        (
            "lastUpdated",
            text()
                .format("date-time")
                .nullable()
                .about("When the agent last wrote this."),
        ),
        (
            "agent",
            object([("birdV4", speaker()), ("birdV6", speaker())])
                .about("The BGP speaker, once for each family, under Calico's names."),
        ),
        ("bgp", sessions()),
        (
            "routes",
            object([("routesV4", list(route())), ("routesV6", list(route()))])
                .about("Routes of the node."),
        ),
    ])
}

fn speaker() -> Schema {
    object([
        ("state", text()),
        ("version", text()),
        ("routerID", text()),
        ("lastBootTime", text()),
        ("lastReconfigurationTime", text()),
    ])
}

fn sessions() -> Schema {
    let peer = || {
        list(object([
            ("peerIP", text()),
            ("type", text()),
            ("state", text()),
            ("since", text()),
        ]))
    };
    object([
        ("numberEstablishedV4", count()),
        ("numberNotEstablishedV4", count()),
        ("peersV4", peer()),
        ("numberEstablishedV6", count()),
        ("numberNotEstablishedV6", count()),
        ("peersV6", peer()),
    ])
    .about("Sessions with peers.")
}

fn route() -> Schema {
    let learned_from = object([("sourceType", text()), ("peerIP", text())]);
    object([
        ("type", text()),
        ("destination", text()),
        ("gateway", text()),
        ("interface", text()),
        ("learnedFrom", learned_from),
    ])
}
