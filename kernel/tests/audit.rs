//! The comparison of our nft table in steps, on the real kernel.
#![allow(clippy::unwrap_used)]

mod common;

use common::Namespace;
use common::ruleset::{ip, representative, rule, set};
use kernel::{Audit, Audited, Kernel};
use policy::ruleset::{Element, KeyType, Op, Part, Ruleset, SetKind, Statement as S, Verdict};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const LARGE: &str = "large";

fn element(number: u32) -> Element {
    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + number);
    Element::exact(&[Part::Address(IpAddr::V4(address))])
}

/// The representative table and a set of many datagrams.
fn table() -> Ruleset {
    let mut table = representative();
    let elements = (0..20_000).map(|number| (element(number), None));
    let mut large = set(&[KeyType::Ipv4], SetKind::Hash, elements.collect());
    large.header.size = Some(65_536);
    table.sets.insert(LARGE.to_owned(), large);
    table
}

/// Compares to the end, with `between` the steps; answers how many there were, too.
fn audit(
    namespace: &Namespace,
    expected: &mut Ruleset,
    mut between: impl FnMut(&mut Ruleset),
) -> (usize, Audited) {
    let mut audit = namespace.run(|| Audit::begin().unwrap());
    for step in 1.. {
        if let Some(audited) = audit.step(expected, Duration::ZERO).unwrap() {
            return (step, audited);
        }
        between(expected);
    }
    unreachable!("invariant: the steps end")
}

/// Where it shows that the kernel has carried out more than is expected.
fn shown(namespace: &Namespace, kernel: &mut Kernel, expected: &mut Ruleset, ops: &[Op]) -> String {
    kernel.nft_replace(expected).unwrap();
    kernel.nft_commit(ops).unwrap();
    match audit(namespace, expected, |_| {}) {
        (_, Audited::Differs(what)) => what,
        (_, Audited::Same) => panic!("{ops:?} was not noticed"),
    }
}

#[test]
fn a_table_as_it_should_be_is_found_the_same_in_many_steps() {
    let namespace = Namespace::new();
    let mut kernel = namespace.kernel();
    let mut table = table();
    kernel.nft_replace(&table).unwrap();
    let (steps, audited) = audit(&namespace, &mut table, |_| {});
    assert_eq!(audited, Audited::Same);
    assert!(
        steps > table.sets.len() + table.chains.len() + 20,
        "{steps}"
    );
}

#[test]
fn one_rule_edited_in_place_is_found_and_so_is_all_else_that_is_wrong() {
    let namespace = Namespace::new();
    let mut kernel = namespace.kernel();
    let mut table = table();
    table.chains.insert("edited".to_owned(), Default::default());
    let rules = &mut table.chains.get_mut("edited").unwrap().rules;
    *rules = vec![
        rule(vec![S::L4Proto(6), S::Verdict(Verdict::Return)], None),
        rule(vec![S::L4Proto(17), S::Verdict(Verdict::Return)], None),
    ];
    let edited = vec![
        rules[0].clone(),
        rule(vec![S::L4Proto(17), S::Verdict(Verdict::Accept)], None),
    ];
    let none = |at| vec![(element(at), None)];
    let chain = || "edited".to_owned();
    let cases = [
        (
            vec![
                Op::FlushChain(chain()),
                Op::AddRules(chain(), edited.clone()),
            ],
            "the rules of chain edited",
        ),
        (
            vec![Op::AddRules(chain(), edited[1..].to_vec())],
            "the rules of chain edited",
        ),
        (vec![Op::FlushChain(chain())], "the rules of chain edited"),
        (
            vec![
                Op::DeleteElements(LARGE.to_owned(), none(77)),
                Op::AddElements(LARGE.to_owned(), none(77_777)),
            ],
            "the elements of set large",
        ),
        (
            vec![Op::DeleteElements(LARGE.to_owned(), none(19_999))],
            "the elements of set large",
        ),
        (vec![Op::AddChain("more".to_owned(), None)], "the chains"),
        (
            vec![Op::FlushChain(chain()), Op::DeleteChain(chain())],
            "the chains",
        ),
        (vec![Op::DeleteSet(LARGE.to_owned())], "the sets"),
        (vec![Op::AddCounter("more".to_owned())], "the counters"),
    ];
    for (ops, what) in cases {
        let shown = shown(&namespace, &mut kernel, &mut table, &ops);
        assert_eq!(shown, what, "{ops:?}");
    }
}

#[test]
fn what_is_written_between_the_steps_is_no_difference() {
    let namespace = Namespace::new();
    let mut kernel = namespace.kernel();
    let mut table = table();
    kernel.nft_replace(&table).unwrap();
    let mut next = 20_000;
    let last = next + 200;
    let (_, audited) = audit(&namespace, &mut table, |table| {
        if next == last {
            return;
        }
        let ops = [
            Op::AddElements(LARGE.to_owned(), vec![(element(next), None)]),
            Op::AddChain(format!("chain{next}"), None),
        ];
        next += 1;
        table.apply(&ops).unwrap();
        kernel.nft_commit(&ops).unwrap();
    });
    assert_eq!(audited, Audited::Same);
    assert_eq!(next, last, "written to in the middle of it");
}

#[test]
fn ranges_are_compared_as_a_whole() {
    let namespace = Namespace::new();
    let mut kernel = namespace.kernel();
    let mut table = Ruleset::default();
    let range = |from, to| (Element::range(ip(from), ip(to)), None);
    let both = vec![
        range("10.0.0.0", "10.0.0.255"),
        range("10.2.0.0", "255.255.255.255"),
    ];
    let ranges = set(&[KeyType::Ipv4], SetKind::Interval, both);
    table.sets.insert("ranges".to_owned(), ranges);
    kernel.nft_replace(&table).unwrap();
    assert_eq!(audit(&namespace, &mut table, |_| {}).1, Audited::Same);
    let name = || "ranges".to_owned();
    let ops = [
        Op::DeleteElements(name(), vec![range("10.0.0.0", "10.0.0.255")]),
        Op::AddElements(name(), vec![range("10.0.0.0", "10.0.0.254")]),
    ];
    let shown = shown(&namespace, &mut kernel, &mut table, &ops);
    assert_eq!(shown, "the elements of set ranges");
}
