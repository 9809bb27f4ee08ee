//! The compiled table against the evaluator, deltas against a fresh compiler, on generated
//! clusters and histories.

use crate::cluster::{Event, History, State, events};
use policy::program::{Connection, Interface, Outcome, Packet, run};
use policy::ruleset::{Op, SetHeader, stages};
use policy::{Compiler, Options, Ruleset};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn after_every_transaction_the_table_decides_as_the_evaluator_does(events in events()) {
        let mut history = History::default();
        for batch in events.chunks(4) {
            batch.iter().for_each(|event| history.tell(event));
            history.resolve().unwrap();
            prop_assert!(history.mirror.sets.keys().all(|name| is_name(name)));
            prop_assert!(history.mirror.chains.keys().all(|name| is_name(name)));
            history.state.compare_verdicts(history.compiler.ruleset())?;
        }
    }

    #[test]
    fn deltas_lead_to_the_ruleset_of_a_compiler_that_was_told_the_final_state_only(
        events in events(), batch in 1_usize..9,
    ) {
        let mut history = History::default();
        for batch in events.chunks(batch) {
            batch.iter().for_each(|event| history.tell(event));
            history.resolve().unwrap();
            prop_assert_eq!(&history.mirror, history.compiler.ruleset());
        }
        let mut fresh = Compiler::new(Options::default());
        history.state.tell(&mut fresh);
        let mut built = Ruleset::default();
        built.apply(&fresh.resolve()).unwrap();
        prop_assert_eq!(&built, &history.mirror);
        prop_assert!(history.compiler.resolve().is_empty());
    }

    #[test]
    fn applying_the_difference_of_two_rulesets_leads_from_one_to_the_other(
        a in events(), b in events(), resized in any::<prop::sample::Index>(),
    ) {
        let ruleset = |events: &[Event]| {
            let mut compiler = Compiler::new(Options::default());
            State::after(events).tell(&mut compiler);
            compiler.resolve();
            compiler.ruleset().clone()
        };
        let (a, b) = (ruleset(&a), ruleset(&b));
        let mut same_name = b.clone();
        let at = resized.index(same_name.sets.len());
        if let Some(set) = same_name.sets.values_mut().nth(at) {
            set.header = SetHeader { size: Some(1 << 20), ..set.header.clone() };
        }
        prop_assert_eq!(same_name.diff(&b), None, "what can't change keeps its name");
        for (from, to) in [(&a, &b), (&Ruleset::default(), &b)] {
            let mut result = from.clone();
            let ops = from.diff(to).expect("names of other sets");
            result.apply(&ops).unwrap();
            prop_assert_eq!(&result, to);
            prop_assert_eq!(to.diff(to), Some(vec![]));
            let mut result = from.clone();
            for (at, stage) in stages(&ops).into_iter().flatten().enumerate() {
                result.apply(&stage).unwrap();
                prop_assert_eq!(stages(&stage).filter(|_| at != 1), None, "{:?}", stage);
            }
            prop_assert!(stages(&ops).is_none() || &result == to);
        }
    }

    #[test]
    fn a_table_that_is_made_in_several_transactions_lets_nobody_through_before_the_last(
        events in events(), most in 1_usize..9,
    ) {
        let mut compiler = Compiler::new(Options::default());
        State::after(&events).tell(&mut compiler);
        compiler.resolve();
        let transactions = compiler.ruleset().opening("oci", most);
        let last = transactions.len() - 1;
        let mut built = Ruleset::default();
        for (at, ops) in transactions.iter().enumerate() {
            built.apply(ops).unwrap();
            for packet in [packet("oci1", "eth0"), packet("eth0", "oci1"), packet("oci1", "oci2")] {
                let outcome = run(&built, &packet).unwrap();
                let dropped = matches!(outcome, Outcome::Dropped { .. });
                prop_assert!(dropped || at == last, "{at} of {last}: {packet:?}");
            }
            let established = Packet {
                connection: Connection::Established,
                ..packet("eth0", "oci1")
            };
            let outcome = run(&built, &established).unwrap();
            prop_assert!(matches!(outcome, Outcome::Accepted { .. }), "{:?}", outcome);
            let elements = ops.iter().map(|op| match op {
                Op::AddElements(_, all) => all.len(),
                _ => 0,
            });
            prop_assert!(elements.sum::<usize>() <= most);
        }
        prop_assert_eq!(&built, compiler.ruleset());
    }
}

/// From nowhere that anybody knows to nowhere.
fn packet(from: &str, to: &str) -> Packet {
    let interface = |name: &str| {
        Some(Interface {
            index: 999,
            name: name.to_owned(),
        })
    };
    Packet {
        iif: interface(from),
        oif: interface(to),
        source: "203.0.113.1".parse().unwrap(),
        destination: "203.0.113.2".parse().unwrap(),
        original_destination: None,
        protocol: 6,
        ports: Some((40_000, 80)),
        icmp: None,
        connection: Connection::New,
        mark: 0,
    }
}

/// A name that nft takes, and that the kernel shows in full.
fn is_name(name: &str) -> bool {
    let rest = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(rest) && name.len() <= 31
}
