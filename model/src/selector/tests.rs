use super::{MAX_DEPTH, Selector, SelectorErrorKind};
use crate::Labels;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

fn parse(text: &str) -> Selector {
    Selector::parse_calico(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

#[test]
fn every_operator_selects_what_it_says() {
    let db = labels(&[
        ("role", "db"),
        ("k8s.io/tier", "back-end"),
        ("in", "1"),
        ("empty", ""),
    ]);
    for (text, expected) in [
        ("", true),
        ("all()", true),
        ("all( )", true),
        ("global()", false),
        ("role == 'db'", true),
        ("role==\"db\"", true),
        ("role != 'db'", false),
        ("missing != 'db'", true),
        ("role in {'web', 'db'}", true),
        ("role in{'web','db',}", true),
        ("role in {}", false),
        ("role not in {'web'}", true),
        ("role notin {'db'}", false),
        ("missing not in {'db'}", true),
        ("has(role)", true),
        ("has( empty )", true),
        ("!has(role)", false),
        ("! ! has(role)", true),
        ("k8s.io/tier contains 'k-e'", true),
        ("k8s.io/tier starts with 'back'", true),
        ("k8s.io/tier starts  with 'end'", false),
        ("k8s.io/tier ends with 'end'", true),
        ("in == '1' && in in {'1'}", true),
        ("role == 'db' && missing == 'x' || has(empty)", true),
        ("role == 'db' && (missing == 'x' || has(none))", false),
        ("!(role == 'db' && has(none))", true),
    ] {
        assert_eq!(parse(text).matches(&db), expected, "{text}");
    }
}

#[test]
fn conjunction_binds_tighter_than_disjunction_and_negation_tighter_than_both() {
    let has = |key: &str| Selector::Has(key.to_owned());
    let expected = Selector::Or(vec![
        Selector::And(vec![Selector::Not(Box::new(has("a"))), has("b")]),
        has("c"),
    ]);
    assert_eq!(parse("!has(a) && has(b) || has(c)"), expected);
}

#[test]
fn an_error_names_the_column_and_what_was_expected() {
    for (text, expected) in [
        ("role = 'db'", "column 6: unexpected character '='"),
        (
            "role == db",
            "column 9: expected a string in quotes, found `db`",
        ),
        ("role == 'db", "column 9: the string is not closed"),
        ("ä == 'db'", "column 1: unexpected character 'ä'"),
        ("a == 'ä' &&", "column 12: expected a label name"),
        ("has(role", "column 9: expected `)`, found the end"),
        (
            "had(role)",
            "column 1: expected `has(…)`, `all()` or `global()`, found `had`",
        ),
        (
            "role in {'a' 'b'}",
            "column 14: expected `,` or `}`, found the string 'b'",
        ),
        (
            "role starts 'a'",
            "column 13: expected `with`, found the string 'a'",
        ),
        ("role", "column 5: expected `==`, `!=`, `in`"),
        (
            "has(a) has(b)",
            "column 8: expected `&&`, `||` or the end, found `has`",
        ),
        ("(has(a)", "column 8: expected `)`"),
        (")", "column 1: expected a label name"),
    ] {
        let error = Selector::parse_calico(text).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}

#[test]
fn nesting_is_bounded_without_exhausting_the_stack() {
    for (opening, closing) in [("(", ")"), ("!", ""), ("!(", ")")] {
        let nested = |n| format!("{}has(a){}", opening.repeat(n), closing.repeat(n));
        assert!(Selector::parse_calico(&nested(MAX_DEPTH / 2)).is_ok());
        let error = Selector::parse_calico(&nested(100_000)).unwrap_err();
        assert_eq!(error.kind, SelectorErrorKind::TooDeep);
    }
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9_./-]{1,12}",
        proptest::sample::select(vec![
            "in", "not", "has", "all", "global", "starts", "contains"
        ])
        .prop_map(str::to_owned),
    ]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof!["[^']{0,8}", "[^\"]{0,8}"]
}

/// Trees as the parser builds them.
fn selector() -> impl Strategy<Value = Selector> {
    let leaf = prop_oneof![
        Just(Selector::All),
        Just(Selector::None),
        Just(Selector::Global),
        (key(), value()).prop_map(|(k, v)| Selector::Eq(k, v)),
        (key(), value()).prop_map(|(k, v)| Selector::Ne(k, v)),
        (key(), btree_set(value(), 0..4)).prop_map(|(k, v)| Selector::In(k, v)),
        (key(), btree_set(value(), 0..4)).prop_map(|(k, v)| Selector::NotIn(k, v)),
        key().prop_map(Selector::Has),
        (key(), value()).prop_map(|(k, v)| Selector::StartsWith(k, v)),
        (key(), value()).prop_map(|(k, v)| Selector::EndsWith(k, v)),
        (key(), value()).prop_map(|(k, v)| Selector::Contains(k, v)),
    ];
    leaf.prop_recursive(6, 48, 4, |inner| {
        let negatable = inner
            .clone()
            .prop_filter("parsed as None", |s| *s != Selector::All);
        prop_oneof![
            vec(inner.clone(), 2..4).prop_map(Selector::And),
            vec(inner, 2..4).prop_map(Selector::Or),
            negatable.prop_map(|s| Selector::Not(Box::new(s))),
        ]
    })
}

/// Texts that are nearly selectors, so that the parser is exercised beyond its first token.
fn nearly_a_selector() -> impl Strategy<Value = String> {
    let words = proptest::sample::select(vec![
        "a", "has", "(", ")", "!", "&&", "||", "==", "!=", "in", "not", "{", "}", ",", "'x'", "\"",
        "starts", "with", "all", " ", "é", "",
    ]);
    vec(words, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn what_is_displayed_parses_back_to_an_equal_tree(selector in selector()) {
        let text = selector.to_string();
        prop_assert_eq!(Selector::parse_calico(&text), Ok(selector), "{}", text);
    }

    #[test]
    fn arbitrary_text_is_parsed_or_refused_at_a_column_inside_it(text in any::<String>()) {
        if let Err(error) = Selector::parse_calico(&text) {
            prop_assert!((1..=text.chars().count() + 1).contains(&error.column));
        }
    }

    #[test]
    fn text_that_parses_displays_as_the_same_selector(text in nearly_a_selector()) {
        if let Ok(selector) = Selector::parse_calico(&text) {
            prop_assert_eq!(Selector::parse_calico(&selector.to_string()), Ok(selector));
        }
    }
}
