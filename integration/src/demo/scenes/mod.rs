//! The scenes, in the order in which they are played.

mod bgp;
mod crash;
mod delete;
mod ipip;
mod matrix;
mod outside;
mod policy;
mod repair;

use super::scene::Scene;

pub(super) const SCENES: &[Scene] = &[
    Scene {
        name: "bgp",
        title: "three agents; sessions among themselves, with FRR and with BIRD",
        needs_ipip: false,
        play: bgp::play,
    },
    Scene {
        name: "matrix",
        title: "two pods a node by CNI ADD; everybody reaches everybody; no bridge",
        needs_ipip: false,
        play: matrix::play,
    },
    Scene {
        name: "ipip",
        title: "protocol 4 between the racks and never within one; mode switched under a flow",
        needs_ipip: true,
        play: ipip::play,
    },
    Scene {
        name: "outside",
        title: "a host behind FRR reaches pods; FRR knows blocks, not pods",
        needs_ipip: false,
        play: outside::play,
    },
    Scene {
        name: "policy",
        title: "default deny and one allow, written into the directory",
        needs_ipip: false,
        play: policy::play,
    },
    Scene {
        name: "crash",
        title: "kill -9 of an agent under a 1 kHz flow",
        needs_ipip: false,
        play: crash::play,
    },
    Scene {
        name: "repair",
        title: "our route, one rule and our whole table are deleted by hand",
        needs_ipip: false,
        play: repair::play,
    },
    Scene {
        name: "delete",
        title: "CNI DEL: the address is back, nothing is left",
        needs_ipip: false,
        play: delete::play,
    },
];
