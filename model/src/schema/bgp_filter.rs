//! `BGPFilter`. Every field of a rule narrows which routes it matches: what is unknown is kept, so
//! that the reader can fail closed.

use super::build::{Schema, integer, list, object, one_of, one_of_or_empty, text};
use super::definition::{Column, Definition};
use super::values::{as_number, community};

const MOST_RULES: usize = 1024;
const MOST_OPERATIONS: usize = 10;
const MOST_PREPENDED: usize = 10;
const MOST_PRIORITY: i64 = (1 << 31) - 2;

pub(super) fn definition() -> Definition {
    let rules = |length, family| list(rule(length, family)).most(MOST_RULES);
    let spec = object([
        ("exportV4", rules(32, 4).about("What IPv4 routes are told.")),
        (
            "importV4",
            rules(32, 4).about("What IPv4 routes are believed."),
        ),
        (
            "exportV6",
            rules(128, 6).about("What IPv6 routes are told."),
        ),
        (
            "importV6",
            rules(128, 6).about("What IPv6 routes are believed."),
        ),
    ]);
    Definition {
        columns: &[Column("Age", "date", ".metadata.creationTimestamp")],
        ..Definition::calico(
            "BGPFilter",
            "bgpfilters",
            "Which routes are told to and believed of a peer; the first rule that matches decides.",
            spec,
        )
    }
}

fn rule(most: i64, family: u8) -> Schema {
    let given = |field: &str| format!("has(self.{field}) && size(self.{field}) > 0");
    let length = object([("min", integer(0..=most)), ("max", integer(0..=most))])
        .keeps_unknown()
        .rule(
            "!has(self.min) || !has(self.max) || self.min <= self.max",
            "max is less than min",
        );
    let (cidr, operator) = (given("cidr"), given("matchOperator"));
    let cidr_rule = format!(
        "self == '' || isCIDR(self) && cidr(self).ip().family() == {family} && cidr(self) == cidr(self).masked()"
    );
    object([
        ("action", one_of(&["Accept", "Reject"])),
        (
            "cidr",
            text().longest(49).rule(
                &cidr_rule,
                &format!("must be an IPv{family} CIDR without host bits"),
            ),
        ),
        (
            "matchOperator",
            one_of_or_empty(&["Equal", "NotEqual", "In", "NotIn"]),
        ),
        (
            "prefixLength",
            length.about("Lengths of prefixes inside cidr."),
        ),
        ("source", one_of_or_empty(&["RemotePeers"])),
        (
            "interface",
            text().longest(15).pattern("^[a-zA-Z0-9_.*-]*$"),
        ),
        ("peerType", one_of_or_empty(&["eBGP", "iBGP"])),
        (
            "communities",
            object([("values", list(community()).not_empty().most(1))])
                .required(&["values"])
                .keeps_unknown(),
        ),
        ("asPathPrefix", list(as_number()).most(255)),
        ("priority", integer(1..=MOST_PRIORITY)),
        ("operations", list(operation()).most(MOST_OPERATIONS)),
    ])
    .required(&["action"])
    .keeps_unknown()
    .rule(
        &format!("({cidr}) == ({operator})"),
        "cidr and matchOperator need each other",
    )
    .rule(
        &format!("!has(self.prefixLength) || {cidr}"),
        "prefixLength needs cidr",
    )
    .rule(
        "self.action == 'Accept' || !has(self.operations) || size(self.operations) == 0",
        "operations may stand only in a rule that accepts",
    )
}

/// What an accepted route gets. Fields that are unknown count, so that none is lost.
fn operation() -> Schema {
    let of = |value: Schema| {
        object([("value", value)])
            .required(&["value"])
            .keeps_unknown()
    };
    let metric = || of(integer(0..=i64::from(u32::MAX)));
    let names = [
        "addCommunity",
        "removeCommunity",
        "prependASPath",
        "setPriority",
        "setLocalPreference",
        "setMED",
    ];
    let stated: Vec<String> = names
        .iter()
        .map(|name| format!("has(self.{name})"))
        .collect();
    object([
        ("addCommunity", of(community())),
        ("removeCommunity", of(community())),
        (
            "prependASPath",
            object([("prefix", list(as_number()).not_empty().most(MOST_PREPENDED))])
                .required(&["prefix"])
                .keeps_unknown(),
        ),
        ("setPriority", of(integer(1..=MOST_PRIORITY))),
        ("setLocalPreference", metric()),
        ("setMED", metric()),
    ])
    .keeps_unknown()
    .rule(
        &format!("[{}].filter(stated, stated).size() == 1", stated.join(", ")),
        &format!("exactly one of {}", names.join(", ")),
    )
}
