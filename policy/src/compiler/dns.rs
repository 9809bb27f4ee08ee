//! Watching the names that pods resolve, while a policy speaks of names: their queries before
//! destination NAT and the answers after it, so that both show the server that the pod asked.
//!
//! Answers to what the pod did not ask from that port are none: they belong to no connection.

use super::parts::{hook, lookup, rule};
use super::sets::size_for;
use crate::ruleset::{
    Chain, ChainType, CtState, Element, Field, Hook, KeyType, Part, Rule, Set, SetHeader, SetKind,
    Statement,
};
use std::collections::BTreeMap;

/// Prefix of log lines of queries.
pub const QUERY: &str = "q";
/// Prefix of log lines of answers.
pub const ANSWER: &str = "a";

const SERVERS: &str = "dns_port";
/// After connection tracking, before destination NAT.
const PRIORITY_MANGLE: i32 = -150;
/// After source NAT, which gives answers the address of the Service.
const PRIORITY_AFTER_NAT: i32 = 150;
const IPPROTO_UDP: u8 = 17;
const PORT: u16 = 53;

pub(super) fn is_own_set(name: &str) -> bool {
    name == SERVERS
}

/// The chains and their set.
pub(super) fn chains(
    prefix: &str,
    group: u16,
    queue: Option<u16>,
) -> (BTreeMap<String, Chain>, BTreeMap<String, Set>) {
    // Queries take the same way as answers, so that none is overtaken by its own.
    let told = |prefix: &str| match queue {
        Some(queue) => Statement::Queue(queue),
        None => Statement::Log {
            group,
            prefix: prefix.to_owned(),
        },
    };
    let query = rule([
        Statement::IifnamePrefix {
            prefix: prefix.to_owned(),
            negate: false,
        },
        lookup(&[Field::L4Proto, Field::Dport], SERVERS.to_owned(), false),
        told(QUERY),
    ]);
    let answer = rule([
        Statement::OifnamePrefix {
            prefix: prefix.to_owned(),
            negate: false,
        },
        lookup(&[Field::L4Proto, Field::Sport], SERVERS.to_owned(), false),
        Statement::CtState(CtState::EstablishedOrRelated),
        told(ANSWER),
    ]);
    let chain = |at: Hook, priority, rule: Rule| Chain {
        hook: Some(hook(at, ChainType::Filter, priority)),
        rules: vec![rule],
    };
    let chains = [
        (
            "dns_queries",
            chain(Hook::Prerouting, PRIORITY_MANGLE, query),
        ),
        (
            "dns_answers",
            chain(Hook::Postrouting, PRIORITY_AFTER_NAT, answer),
        ),
    ];
    let servers = Set {
        header: SetHeader {
            key: vec![KeyType::Proto, KeyType::Port],
            kind: SetKind::Hash,
            verdict_map: false,
            size: Some(size_for(1)),
        },
        elements: [(
            Element::exact(&[Part::Proto(IPPROTO_UDP), Part::Port(PORT)]),
            None,
        )]
        .into(),
    };
    let named = chains
        .into_iter()
        .map(|(name, chain)| (name.to_owned(), chain));
    (named.collect(), [(SERVERS.to_owned(), servers)].into())
}
