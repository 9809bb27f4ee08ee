//! `BGPConfiguration`, `BGPPeer` and `CalicoNodeStatus`.

use super::build::{Schema, boolean, integer, list, object, one_of, text};
use super::definition::{Column, Definition};
use super::status;
use super::values::{
    address_or_empty, as_number, community, name, name_or_empty, network, password, prefix,
    seconds, selector,
};

/// Ranges of Services, prefixes to announce, names of communities.
const MOST: usize = 1024;

pub(super) fn definitions() -> Vec<Definition> {
    vec![configuration(), peer(), node_status()]
}

fn configuration() -> Definition {
    Definition {
        short_names: &["bgpconfig", "bgpconfigs"],
        columns: &[
            Column("AS", "string", ".spec.asNumber"),
            Column("Mesh", "boolean", ".spec.nodeToNodeMeshEnabled"),
            Column("Age", "date", ".metadata.creationTimestamp"),
        ],
        rules: &[(
            "!has(self.spec.nodeMeshPassword) || self.metadata.name == 'default'",
            "nodeMeshPassword may stand only in the object named default",
        )],
        ..Definition::calico(
            "BGPConfiguration",
            "bgpconfigurations",
            "BGP of all nodes (default) or of one (node.NAME).",
            configuration_spec(),
        )
    }
}

fn configuration_spec() -> Schema {
    let ranges = |about| {
        list(object([("cidr", network())]).required(&["cidr"]))
            .most(MOST)
            .about(about)
    };
    let interface = text()
        .longest(15)
        .pattern("^[a-zA-Z0-9_.*-]+$")
        .rule("self != '*'", "\"*\" would ignore every interface");
    object([
        ("asNumber", as_number().about("AS number of nodes that have none of their own (64512).")),
        ("nodeToNodeMeshEnabled", boolean().about("Whether every node peers with every other (true).")),
        ("listenPort", integer(1..=65535).about("TCP port (179).")),
        ("nodeMeshPassword", password().about("TCP MD5 password of the mesh.")),
        ("nodeMeshMaxRestartTime", seconds().about("Restart time of the mesh, such as 120s.")),
        ("bindMode", one_of(&["None", "NodeIP"])),
        ("ignoredInterfaces", list(interface).most(MOST)),
        ("logSeverityScreen", text().pattern("^(Debug|Info|Warning|Error|Fatal)$")),
        ("programClusterRoutes", text().longest(64)),
        ("serviceClusterIPs", ranges("Cluster addresses of Services to announce.")),
        ("serviceExternalIPs", ranges("External addresses of Services to announce.")),
        ("serviceLoadBalancerIPs", ranges("Load balancer addresses of Services to announce.")),
        (
            "serviceLoadBalancerAggregation",
            one_of(&["Enabled", "Disabled"])
                .about("Whether ranges are announced as a whole rather than address by address."),
        ),
        (
            "communities",
            list(object([("name", name()), ("value", community())]).required(&["name", "value"]))
                .most(MOST)
                .about("Names for communities."),
        ),
        ("prefixAdvertisements", advertisements()),
        ("localWorkloadPeeringIPV4", address_or_empty()),
        ("localWorkloadPeeringIPV6", address_or_empty()),
        (
            "ocicat",
            object([(
                "ebgpRequiresPolicy",
                boolean().about("Whether external peers without filters are told nothing and believed nothing (RFC 8212)."),
            )])
            .about("What Calico does not have."),
        ),
    ])
    .rule(
        "!has(self.nodeMeshPassword) || !has(self.nodeToNodeMeshEnabled) || self.nodeToNodeMeshEnabled",
        "nodeMeshPassword is for the mesh, which nodeToNodeMeshEnabled switches off",
    )
}

fn advertisements() -> Schema {
    let ocicat = object([(
        "localPreference",
        integer(0..=i64::from(u32::MAX)).about("Local preference of the prefix."),
    )])
    .about("What Calico does not have.");
    let advertisement = object([
        ("cidr", network()),
        (
            "communities",
            list(text().longest(253)).about("Values, or names of spec.communities."),
        ),
        ("ocicat", ocicat),
    ])
    .required(&["cidr"]);
    list(advertisement)
        .most(MOST)
        .about("Communities of prefixes that are announced.")
}

fn peer() -> Definition {
    Definition {
        columns: &[
            Column("Peer", "string", ".spec.peerIP"),
            Column("AS", "string", ".spec.asNumber"),
            Column("Node", "string", ".spec.node"),
            Column("Nodes", "string", ".spec.nodeSelector"),
            Column("Peers", "string", ".spec.peerSelector"),
            Column("Age", "date", ".metadata.creationTimestamp"),
        ],
        ..Definition::calico(
            "BGPPeer",
            "bgppeers",
            "Sessions between some of our nodes and a peer.",
            peer_spec(),
        )
    }
}

fn peer_spec() -> Schema {
    let given = |field: &str| format!("has(self.{field}) && size(self.{field}) > 0");
    let ours = |field: &str| format!("has(self.ocicat) && has(self.ocicat.{field})");
    let ways = [
        given("peerIP"),
        given("peerSelector"),
        given("localWorkloadSelector"),
        ours("peerInterface"),
        ours("peerPrefix"),
    ];
    let exactly_one = format!("[{}].filter(way, way).size() == 1", ways.join(", "));
    let selects = given("peerSelector");
    let states_type = ours("remoteAS");
    object([
        ("node", name_or_empty().about("The node of ours.")),
        ("nodeSelector", selector().about("The nodes of ours; all where neither is given.")),
        ("peerIP", peer_address()),
        ("peerSelector", selector().about("Nodes of the cluster to peer with.")),
        ("localWorkloadSelector", selector().about("Pods of the same node to peer with.")),
        ("asNumber", as_number().about("The peer's AS number.")),
        ("localASNumber", as_number().about("The AS number that we have for this peer.")),
        ("password", password().about("TCP MD5 password.")),
        ("sourceAddress", one_of(&["UseNodeIP", "None"])),
        ("ttlSecurity", integer(0..=255).about("Most hops to the peer (GTSM, RFC 5082); 0 is off.")),
        ("keepaliveTime", seconds().about("Keepalive interval; the hold time is three times this.")),
        ("maxRestartTime", seconds().about("How long a restarting peer's routes are kept.")),
        ("restartMode", one_of(&["GracefulRestart", "LongLivedGracefulRestart"])),
        ("failureDetectionMode", one_of(&["None", "BFDIfDirectlyConnected"])),
        ("birdGatewayMode", text().longest(64)),
        ("nextHopMode", one_of(&["Auto", "Self", "Keep"])),
        ("keepOriginalNextHop", boolean().about("The earlier form of nextHopMode Keep.")),
        ("numAllowedLocalASNumbers", integer(0..=255)),
        ("reachableBy", address_or_empty().about("Gateway to the peer.")),
        ("reversePeering", one_of(&["Auto", "Manual"])),
        ("filters", list(name()).most(MOST).about("BGPFilters, in order.")),
        ("ocicat", extensions()),
    ])
    .rule(
        "!(has(self.node) && size(self.node) > 0) || !(has(self.nodeSelector) && size(self.nodeSelector) > 0)",
        "nodeSelector may not stand beside node",
    )
    .rule(
        &exactly_one,
        "exactly one of peerIP, peerSelector, localWorkloadSelector, ocicat.peerInterface, ocicat.peerPrefix",
    )
    .rule(
        &format!("!({selects}) || !has(self.asNumber)"),
        "asNumber comes from the selected nodes with peerSelector",
    )
    .rule(
        &format!("({selects}) || has(self.asNumber) || {states_type}"),
        "asNumber is required, or ocicat.remoteAS",
    )
    .rule(
        &format!("!({states_type}) || !has(self.asNumber) && !({selects})"),
        "ocicat.remoteAS may not stand beside asNumber or peerSelector",
    )
    .rule(
        "!has(self.reachableBy) || size(self.reachableBy) == 0 || has(self.peerIP) && size(self.peerIP) > 0",
        "reachableBy needs peerIP",
    )
    .rule(
        "!has(self.keepOriginalNextHop) || !self.keepOriginalNextHop || !has(self.nextHopMode) || self.nextHopMode == 'Keep'",
        "nextHopMode contradicts keepOriginalNextHop",
    )
}

fn peer_address() -> Schema {
    let port = |text: &str| format!("int({text}) >= 1 && int({text}) <= 65535");
    let four = "self.matches('^[0-9.]+:[0-9]{1,5}$')";
    let six = "self.matches('^[[][0-9a-fA-F:.]+[]]:[0-9]{1,5}$')";
    let rule = format!(
        "self == '' || isIP(self) \
         || {four} && isIP(self.split(':')[0]) && {} \
         || {six} && isIP(self.substring(1, self.indexOf(']'))) && {}",
        port("self.split(':')[1]"),
        port("self.substring(self.indexOf(']') + 2)"),
    );
    text()
        .longest(64)
        .rule(
            &rule,
            "must be an IP address, or one with a port: 10.0.0.1:1790, [fd00::1]:1790",
        )
        .about("The peer's address.")
}

fn extensions() -> Schema {
    let interface = |about| text().longest(15).pattern("^[a-zA-Z0-9_.-]+$").about(about);
    object([
        (
            "peerInterface",
            interface("Link of an unnumbered peer (RFC 8950)."),
        ),
        (
            "bindInterface",
            interface("Link that the session is bound to, such as a VRF."),
        ),
        (
            "peerPrefix",
            prefix().about("Addresses that peers may dial from."),
        ),
        (
            "peerLimit",
            integer(1..=65535).about("Most peers of peerPrefix (100)."),
        ),
        (
            "remoteAS",
            one_of(&["Auto", "External", "Internal"]).about("Which AS numbers are accepted."),
        ),
        ("passive", boolean().about("Whether the peer dials.")),
        (
            "gracefulShutdown",
            boolean().about("Whether routes are announced as about to go (RFC 8326)."),
        ),
        (
            "role",
            one_of(&[
                "Provider",
                "RouteServer",
                "RouteServerClient",
                "Customer",
                "Peer",
            ])
            .about("Our role towards the peer (RFC 9234)."),
        ),
        (
            "roleStrict",
            boolean().about("Whether the peer must state its role."),
        ),
        ("holdTime", seconds().about("Hold time, at least 3s.")),
        (
            "addPath",
            one_of(&["None", "Receive", "Send", "Both"])
                .about("More than one path for a prefix (RFC 7911)."),
        ),
        ("bfd", bfd()),
        ("maxPrefixes", max_prefixes()),
        (
            "shutdown",
            text()
                .longest(255)
                .about("The session stays down, and this is why (RFC 9003)."),
        ),
    ])
    .rule(
        "!has(self.peerLimit) || has(self.peerPrefix)",
        "peerLimit needs peerPrefix",
    )
    .rule(
        "!has(self.roleStrict) || !self.roleStrict || has(self.role)",
        "roleStrict needs role",
    )
    .about("What Calico does not have.")
}

fn bfd() -> Schema {
    object([
        (
            "minInterval",
            text()
                .longest(32)
                .pattern("^([0-9]+ms|([0-9]+[hms])+)$")
                .about("Between packets, 10ms to 60s."),
        ),
        (
            "multiplier",
            integer(1..=255).about("Packets that may be lost (3)."),
        ),
        ("passive", boolean()),
        ("multihop", boolean()),
    ])
    .keeps_unknown()
    .about("Watch the path (RFC 5880).")
}

fn max_prefixes() -> Schema {
    object([
        (
            "limit",
            integer(1..=i64::from(u32::MAX)).about("More end the session."),
        ),
        (
            "warnPercent",
            integer(1..=100).about("When to warn, in percent of the limit (75)."),
        ),
        (
            "restartAfter",
            seconds().about("When to try again; never where absent."),
        ),
    ])
    .required(&["limit"])
    .keeps_unknown()
    .about("Most prefixes that are taken from the peer.")
}

fn node_status() -> Definition {
    let spec = object([
        ("node", name().about("The node that reports.")),
        (
            "classes",
            list(one_of(&["Agent", "BGP", "Routes"]))
                .most(3)
                .about("What it reports."),
        ),
        (
            "updatePeriodSeconds",
            integer(0..=86_400).about("How often; 0 is never."),
        ),
    ])
    .required(&["node"]);
    Definition {
        columns: &[
            Column("Node", "string", ".spec.node"),
            Column("Updated", "date", ".status.lastUpdated"),
            Column("Up v4", "integer", ".status.bgp.numberEstablishedV4"),
            Column("Down v4", "integer", ".status.bgp.numberNotEstablishedV4"),
        ],
        status: Some(status::node()),
        ..Definition::calico(
            "CalicoNodeStatus",
            "caliconodestatuses",
            "Asks a node for its sessions and routes.",
            spec,
        )
    }
}
