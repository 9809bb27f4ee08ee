//! `IPPool`, `IPReservation`, and what stands for blocks of addresses.

use super::build::{Schema, boolean, count, integer, list, map_of, object, one_of, text};
use super::definition::{Column, Definition};
use super::values::{name, network, prefix, selector};

/// Networks of an `IPReservation`.
const MOST_RESERVED: usize = 10_000;

pub(super) fn definitions() -> Vec<Definition> {
    vec![
        pool(),
        reservation(),
        block(),
        affinity(),
        handle(),
        configuration(),
        cluster_information(),
    ]
}

fn pool() -> Definition {
    Definition {
        short_names: &["ipp", "ipps", "pool", "pools"],
        columns: &[
            Column("CIDR", "string", ".spec.cidr"),
            Column("IPIP", "string", ".spec.ipipMode"),
            Column("VXLAN", "string", ".spec.vxlanMode"),
            Column("NAT", "boolean", ".spec.natOutgoing"),
            Column("Disabled", "boolean", ".spec.disabled"),
            Column("Age", "date", ".metadata.creationTimestamp"),
        ],
        ..Definition::calico(
            "IPPool",
            "ippools",
            "Addresses for pods, tunnels or Services.",
            pool_spec(),
        )
    }
}

fn pool_spec() -> Schema {
    let modes = || one_of(&["Never", "Always", "CrossSubnet"]);
    object([
        (
            "cidr",
            prefix().about("The addresses of the pool. Can't be changed."),
        ),
        (
            "blockSize",
            integer(20..=128)
                .about("Length of the blocks that nodes take: 20 to 32 (26) for IPv4, 116 to 128 (122) for IPv6. Can't be changed."),
        ),
        ("ipipMode", modes().about("When packets to the pool go in IPIP.")),
        ("vxlanMode", modes().about("When packets to the pool go in VXLAN.")),
        (
            "natOutgoing",
            boolean().about("Whether what leaves the pools gets the node's address."),
        ),
        (
            "disabled",
            boolean().about("Whether no more addresses are taken from the pool."),
        ),
        (
            "disableBGPExport",
            boolean().about("Whether blocks of the pool are kept from BGP peers."),
        ),
        ("nodeSelector", selector().about("Nodes that take blocks from the pool.")),
        (
            "namespaceSelector",
            selector().about("Namespaces whose pods take addresses from the pool."),
        ),
        (
            "allowedUses",
            list(one_of(&["Workload", "Tunnel", "LoadBalancer"]))
                .most(3)
                .about("What addresses are for; Workload and Tunnel where nothing is said."),
        ),
        (
            "assignmentMode",
            one_of(&["Automatic", "Manual"])
                .about("Whether addresses are taken only where an annotation names the pool."),
        ),
    ])
    .required(&["cidr"])
    .rule("self.cidr == oldSelf.cidr", "cidr can't be changed: make another pool and disable this one")
    .rule(
        "!has(oldSelf.blockSize) || has(self.blockSize) && self.blockSize == oldSelf.blockSize",
        "blockSize can't be changed: blocks of the old size are in use",
    )
    .rule(
        "has(oldSelf.blockSize) || !has(self.blockSize) \
         || self.blockSize == (cidr(self.cidr).ip().family() == 4 ? 26 : 122)",
        "blockSize can't be changed: blocks of the default size are in use",
    )
    .rule(
        "!has(self.ipipMode) || self.ipipMode == 'Never' || !has(self.vxlanMode) || self.vxlanMode == 'Never'",
        "a pool has either ipipMode or vxlanMode",
    )
    .rule(
        "!has(self.blockSize) || (cidr(self.cidr).ip().family() == 4 \
         ? self.blockSize <= 32 : self.blockSize >= 116)",
        "blockSize is 20 to 32 for IPv4 and 116 to 128 for IPv6",
    )
    .rule(
        "cidr(self.cidr).prefixLength() <= (has(self.blockSize) ? self.blockSize \
         : cidr(self.cidr).ip().family() == 4 ? 26 : 122)",
        "the pool is smaller than one block: give a larger blockSize",
    )
}

fn reservation() -> Definition {
    Definition {
        columns: &[Column("CIDRs", "string", ".spec.reservedCIDRs")],
        ..Definition::calico(
            "IPReservation",
            "ipreservations",
            "Addresses of pools that are not given out.",
            object([(
                "reservedCIDRs",
                list(network())
                    .most(MOST_RESERVED)
                    .about("Addresses and prefixes."),
            )]),
        )
    }
}

fn block() -> Definition {
    let attributes = object([("handle_id", text()), ("secondary", map_of(text()))])
        .about("What an address is used for.");
    let spec = object([
        ("cidr", prefix()),
        (
            "affinity",
            text()
                .longest(260)
                .pattern("^(host|virtual):[a-zA-Z0-9._-]+$")
                .about("Whose block it is: host: and a node's name."),
        ),
        ("affinityClaimTime", text().format("date-time").nullable()),
        (
            "allocations",
            list(count().nullable())
                .about("For each address the index of its attributes, or null."),
        ),
        ("attributes", list(attributes)),
        (
            "unallocated",
            list(count()).about("Free addresses, in the order in which they are given out."),
        ),
        (
            "strictAffinity",
            boolean().about("Whether other nodes take no address of the block."),
        ),
        (
            "deleted",
            boolean().about("Whether the block is about to be deleted."),
        ),
        ("sequenceNumber", count()),
        ("sequenceNumberForAllocation", map_of(count())),
    ])
    .required(&["cidr"]);
    Definition {
        columns: &[
            Column("CIDR", "string", ".spec.cidr"),
            Column("Affinity", "string", ".spec.affinity"),
        ],
        status: None,
        ..Definition::calico(
            "IPAMBlock",
            "ipamblocks",
            "A block of addresses. Written by agents.",
            spec,
        )
    }
}

fn affinity() -> Definition {
    let spec = object([
        ("cidr", prefix()),
        ("node", name()),
        ("type", text().longest(32)),
        (
            "state",
            one_of(&["", "pending", "confirmed", "pendingDeletion"]),
        ),
        ("deleted", boolean()),
    ])
    .required(&["cidr", "node", "state"]);
    Definition {
        short_names: &["affinity", "affinities"],
        columns: &[
            Column("CIDR", "string", ".spec.cidr"),
            Column("Node", "string", ".spec.node"),
            Column("State", "string", ".spec.state"),
        ],
        status: None,
        ..Definition::calico(
            "BlockAffinity",
            "blockaffinities",
            "Which node a block belongs to, for programs that ask. Written by agents.",
            spec,
        )
    }
}

fn handle() -> Definition {
    let spec = object([
        ("handleID", text()),
        ("block", map_of(count())),
        ("deleted", boolean()),
    ])
    .required(&["handleID", "block"]);
    Definition {
        columns: &[Column("ID", "string", ".spec.handleID")],
        status: None,
        ..Definition::calico(
            "IPAMHandle",
            "ipamhandles",
            "Addresses that were given out together. Not written here; programs for Calico list them.",
            spec,
        )
    }
}

fn configuration() -> Definition {
    let spec = object([
        (
            "strictAffinity",
            boolean().about("Whether nodes take addresses only from their own blocks, which they always do here."),
        ),
        ("autoAllocateBlocks", boolean()),
        ("maxBlocksPerHost", integer(0..=1_000_000)),
        ("minIPReclaimAgeSeconds", integer(0..=86_400)),
        ("kubeVirtVMAddressPersistence", one_of(&["Enabled", "Disabled"])),
    ]);
    Definition {
        short_names: &["ipamconfig", "ipamconfigs"],
        columns: &[Column("Strict", "boolean", ".spec.strictAffinity")],
        status: None,
        rules: &[(
            "self.metadata.name == 'default'",
            "the one IPAMConfiguration is named default",
        )],
        ..Definition::calico(
            "IPAMConfiguration",
            "ipamconfigurations",
            "How addresses are given out.",
            spec,
        )
    }
}

fn cluster_information() -> Definition {
    let spec = object([
        ("clusterGUID", text()),
        ("clusterType", text()),
        ("calicoVersion", text()),
        ("datastoreReady", boolean()),
        ("variant", text()),
    ]);
    Definition {
        short_names: &["clusterinfo"],
        status: None,
        ..Definition::calico(
            "ClusterInformation",
            "clusterinformations",
            "What programs for Calico ask for before they begin.",
            spec,
        )
    }
}
