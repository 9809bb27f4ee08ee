//! [`Selector`] -> Calico's syntax.

use super::Selector;
use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};

/// Calico's syntax, which [`Selector::parse_calico`] reads back as an equal tree. Three trees have
/// no text of their own and are read back as an equivalent: `And` and `Or` of fewer than two
/// parts, and a value that holds both kinds of quotes, which the language can't write.
impl Display for Selector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all()"),
            Self::None => f.write_str("!all()"),
            Self::Global => f.write_str("global()"),
            Self::Eq(key, value) => write!(f, "{key} == {}", Quoted(value)),
            Self::Ne(key, value) => write!(f, "{key} != {}", Quoted(value)),
            Self::In(key, values) => write!(f, "{key} in {}", Set(values)),
            Self::NotIn(key, values) => write!(f, "{key} not in {}", Set(values)),
            Self::Has(key) => write!(f, "has({key})"),
            Self::StartsWith(key, value) => write!(f, "{key} starts with {}", Quoted(value)),
            Self::EndsWith(key, value) => write!(f, "{key} ends with {}", Quoted(value)),
            Self::Contains(key, value) => write!(f, "{key} contains {}", Quoted(value)),
            Self::And(parts) => joined(f, parts, " && ", &Self::All),
            Self::Or(parts) => joined(f, parts, " || ", &Self::None),
            Self::Not(inner) => write!(f, "!{}", Part(inner)),
        }
    }
}

fn joined(
    f: &mut Formatter<'_>,
    parts: &[Selector],
    operator: &str,
    of_nothing: &Selector,
) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        let operator = if index == 0 { "" } else { operator };
        write!(f, "{operator}{}", Part(part))?;
    }
    if parts.is_empty() {
        of_nothing.fmt(f)
    } else {
        Ok(())
    }
}

/// An operand: in parentheses if it is itself a conjunction or a disjunction.
struct Part<'a>(&'a Selector);

impl Display for Part<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Selector::And(_) | Selector::Or(_) => write!(f, "({})", self.0),
            other => other.fmt(f),
        }
    }
}

struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('\'') { '"' } else { '\'' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}

struct Set<'a>(&'a BTreeSet<String>);

impl Display for Set<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, value) in self.0.iter().enumerate() {
            write!(f, "{}{}", if index == 0 { "" } else { ", " }, Quoted(value))?;
        }
        f.write_str("}")
    }
}
