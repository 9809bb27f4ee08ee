//! Operations that the kernel would refuse are refused.

use policy::ruleset::{
    Element, Field, KeyType, Op, Part, Rule, SetHeader, SetKind, Statement, Verdict,
};
use policy::{ApplyError, Ruleset};
use std::net::Ipv4Addr;

fn header(kind: SetKind, verdict_map: bool) -> SetHeader {
    SetHeader {
        key: vec![KeyType::Ipv4],
        kind,
        verdict_map,
        size: Some(2),
    }
}

fn part(last: u8) -> Part {
    Part::Address(Ipv4Addr::new(10, 0, 0, last).into())
}

fn exact(last: u8) -> Element {
    Element::exact(&[part(last)])
}

fn rule(statement: Statement) -> Vec<Rule> {
    vec![Rule {
        statements: vec![statement],
        comment: None,
    }]
}

fn lookup(set: &str) -> Vec<Rule> {
    let set = set.to_owned();
    rule(Statement::Lookup {
        fields: vec![Field::Ipv4Saddr],
        set,
        negate: false,
    })
}

/// Chain `a` looks up in set `s` and jumps to `b`; the map `m` leads to `c`.
fn ruleset() -> Ruleset {
    let mut ruleset = Ruleset::default();
    let jump = Statement::Verdict(Verdict::Jump("b".into()));
    let to_c = (exact(1), Some(Verdict::Goto("c".into())));
    let ops = [
        Op::AddSet("s".into(), header(SetKind::Hash, false)),
        Op::AddSet("r".into(), header(SetKind::Interval, false)),
        Op::AddSet("m".into(), header(SetKind::Hash, true)),
        Op::AddChain("a".into(), None),
        Op::AddChain("b".into(), None),
        Op::AddChain("c".into(), None),
        Op::AddRules("a".into(), [lookup("s"), rule(jump)].concat()),
        Op::AddElements("m".into(), vec![to_c]),
        Op::AddElements("r".into(), vec![(Element::range(part(4), part(8)), None)]),
    ];
    ruleset.apply(&ops).unwrap();
    ruleset
}

#[test]
fn what_is_there_already_may_be_added_again() {
    let mut again = ruleset();
    let same = [
        Op::AddSet("s".into(), header(SetKind::Hash, false)),
        Op::AddChain("a".into(), None),
        Op::AddElements(
            "m".into(),
            vec![(exact(1), Some(Verdict::Goto("c".into())))],
        ),
    ];
    again.apply(&same).unwrap();
    assert_eq!(again, ruleset());
}

#[test]
fn what_the_kernel_would_refuse_is_refused() {
    let add = |set: &str, element: Element, verdict: Option<Verdict>| {
        Op::AddElements(set.into(), vec![(element, verdict)])
    };
    let many = (1..4).map(|last| (exact(last), None)).collect();
    let overlap = Element::range(part(8), part(9));
    let cases = [
        (
            Op::AddSet("s".into(), header(SetKind::Interval, false)),
            "set s exists and is another",
        ),
        (add("x", exact(1), None), "there is no set x"),
        (
            add("s", exact(1), Some(Verdict::Drop)),
            "does not fit set s",
        ),
        (
            add("s", Element::exact(&[Part::Port(1)]), None),
            "does not fit set s",
        ),
        (
            add("m", exact(1), Some(Verdict::Drop)),
            "in conflict with one of set m",
        ),
        (
            add("m", exact(2), Some(Verdict::Jump("x".into()))),
            "there is no chain x",
        ),
        (add("r", overlap, None), "in conflict with one of set r"),
        (Op::AddElements("s".into(), many), "set s is full"),
        (
            Op::DeleteElements("s".into(), vec![(exact(1), None)]),
            "set s has no element",
        ),
        (Op::DeleteSet("s".into()), "set s is used by chain a"),
        (Op::DeleteSet("x".into()), "there is no set x"),
        (
            Op::DeleteChain("a".into()),
            "chain a is used by its own rules",
        ),
        (Op::DeleteChain("b".into()), "chain b is used by a"),
        (Op::DeleteChain("c".into()), "chain c is used by m"),
        (Op::FlushChain("x".into()), "there is no chain x"),
        (Op::AddRules("b".into(), lookup("x")), "there is no set x"),
        (
            Op::AddRules("b".into(), lookup("m")),
            "chain b can't look its fields up in set m",
        ),
    ];
    for (op, expected) in cases {
        let error: ApplyError = ruleset().apply(std::slice::from_ref(&op)).unwrap_err();
        assert!(error.to_string().contains(expected), "{op:?}: {error}");
    }
}
