//! Typed access to a document's fields. Every value knows its path, so that every message names
//! it, and every mapping knows which of its fields were asked for.

use crate::{Labels, Selector};
use serde_json::{Map, Value};
use std::ops::RangeInclusive;
use std::str::FromStr;

/// What is wrong with which field.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) field: String,
    pub(super) reason: String,
}

/// A value and where it stands.
#[derive(Clone)]
pub(super) struct Item<'a> {
    value: &'a Value,
    path: String,
}

impl<'a> Item<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Self {
            value,
            path: String::new(),
        }
    }

    pub(super) fn problem(&self, reason: impl Into<String>) -> Problem {
        Problem {
            field: self.path.clone(),
            reason: reason.into(),
        }
    }

    pub(super) fn warning(&self, what: &str) -> String {
        format!("{}: {what}", self.path)
    }

    pub(super) fn value(&self) -> &'a Value {
        self.value
    }

    /// `"10.10.1" is not an IP address`
    pub(super) fn is_not(&self, what: &str) -> Problem {
        self.problem(format!("{} is not {what}", shown(self.value)))
    }

    pub(super) fn text(self) -> Result<&'a str, Problem> {
        self.as_text()
    }

    pub(super) fn as_text(&self) -> Result<&'a str, Problem> {
        let quotable = self.value.is_number() || self.value.is_boolean();
        let hint = if quotable {
            "a string; write it in quotes"
        } else {
            "a string"
        };
        self.value.as_str().ok_or_else(|| self.is_not(hint))
    }

    pub(super) fn boolean(self) -> Result<bool, Problem> {
        self.value
            .as_bool()
            .ok_or_else(|| self.is_not("true or false"))
    }

    /// An integer in `range`, which must fit the type that is asked for.
    pub(super) fn integer<T: TryFrom<i64>>(
        &self,
        range: RangeInclusive<i64>,
    ) -> Result<T, Problem> {
        let number = self.value.as_i64().filter(|number| range.contains(number));
        number
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| {
                self.is_not(&format!(
                    "an integer from {} to {}",
                    range.start(),
                    range.end()
                ))
            })
    }

    pub(super) fn list(self) -> Result<Vec<Item<'a>>, Problem> {
        let values = self.value.as_array().ok_or_else(|| self.is_not("a list"))?;
        let item = |(index, value)| Item {
            value,
            path: format!("{}[{index}]", self.path),
        };
        Ok(values.iter().enumerate().map(item).collect())
    }

    /// A list of at most `most` items.
    pub(super) fn short_list(self, most: usize) -> Result<Vec<Item<'a>>, Problem> {
        let length = self.value.as_array().map_or(0, Vec::len);
        if length > most {
            return Err(self.problem(format!("has {length} entries, more than {most}")));
        }
        self.list()
    }

    /// A list of at least one and at most `most` items.
    pub(super) fn some_list(self, most: usize) -> Result<Vec<Item<'a>>, Problem> {
        if self.value.as_array().is_some_and(Vec::is_empty) {
            return Err(self.problem("needs at least one entry"));
        }
        self.short_list(most)
    }

    pub(super) fn fields(self) -> Result<Fields<'a>, Problem> {
        let map = self
            .value
            .as_object()
            .ok_or_else(|| self.is_not("a mapping"))?;
        Ok(Fields {
            map,
            path: self.path,
            asked: Vec::new(),
        })
    }

    /// A string that `T` can be parsed from; `what` names it with its article.
    pub(super) fn parse<T: FromStr>(&self, what: &str) -> Result<T, Problem> {
        self.as_text()?.parse().map_err(|_| self.is_not(what))
    }

    /// A string that passes `rule`, which otherwise says what it should be, with its article.
    pub(super) fn check(
        &self,
        rule: fn(&str) -> Result<(), &'static str>,
    ) -> Result<&'a str, Problem> {
        let text = self.as_text()?;
        rule(text).map_err(|what| self.is_not(what))?;
        Ok(text)
    }

    pub(super) fn one_of<T: Copy>(&self, values: &[(&str, T)]) -> Result<T, Problem> {
        let text = self.as_text()?;
        let found = values.iter().find(|(name, _)| *name == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
            self.is_not(&format!("one of {}", names.join(", ")))
        })
    }

    pub(super) fn labels(self) -> Result<Labels, Problem> {
        let fields = self.fields()?;
        fields
            .all()
            .map(|(key, item)| Ok((key.to_owned(), item.text()?.to_owned())))
            .collect()
    }

    /// A selector in Calico's syntax.
    pub(super) fn selector(&self) -> Result<Selector, Problem> {
        let text = self.as_text()?;
        Selector::parse_calico(text).map_err(|error| {
            self.problem(format!("{} is not a selector: {error}", shown(self.value)))
        })
    }
}

/// A mapping, and which of its fields were asked for.
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: String,
    asked: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The field, unless it is absent or null, which Kubernetes does not tell apart.
    pub(super) fn take(&mut self, name: &'static str) -> Option<Item<'a>> {
        self.asked.push(name);
        #[cfg(test)]
        asked::note(self.join(name));
        let value = self.map.get(name).filter(|value| !value.is_null())?;
        Some(Item {
            value,
            path: self.join(name),
        })
    }

    pub(super) fn need(&mut self, name: &'static str) -> Result<Item<'a>, Problem> {
        self.take(name)
            .ok_or_else(|| self.problem(name, "is required"))
    }

    /// Where the mapping stands.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// True where the field is there, whatever it holds.
    pub(super) fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|value| !value.is_null())
    }

    /// A problem with the field `name`, or with the whole mapping if that is empty.
    pub(super) fn problem(&self, name: &str, reason: &str) -> Problem {
        let field = if name.is_empty() {
            self.path.clone()
        } else {
            self.join(name)
        };
        Problem {
            field,
            reason: reason.to_owned(),
        }
    }

    /// Fields that are right to be there and that we have no use for.
    pub(super) fn ignore(&mut self, names: &[&'static str]) {
        #[cfg(test)]
        for name in names {
            asked::note(self.join(name));
        }
        self.asked.extend(names);
    }

    /// Fields that mean something that we do not do: harmless, but the user should know.
    pub(super) fn unsupported(&mut self, names: &[&'static str], warnings: &mut Vec<String>) {
        for name in names {
            if let Some(item) = self.take(name) {
                warnings.push(item.warning("not supported yet, ignored"));
            }
        }
    }

    /// The first field that nobody asked for is a mistake, for `reason`.
    pub(super) fn refuse_unknown(&self, reason: &str) -> Result<(), Problem> {
        match self.unknown().into_iter().next() {
            None => Ok(()),
            Some(field) => Err(Problem {
                field,
                reason: reason.to_owned(),
            }),
        }
    }

    /// Paths of the fields that nobody asked for, in order.
    pub(super) fn unknown(&self) -> Vec<String> {
        let unknown = self
            .map
            .keys()
            .filter(|name| !self.asked.contains(&name.as_str()));
        unknown.map(|name| self.join(&shortened(name))).collect()
    }

    /// Adds a warning for each field that nobody asked for.
    pub(super) fn warn_unknown(&self, warnings: &mut Vec<String>) {
        warnings.extend(
            self.unknown()
                .into_iter()
                .map(|path| format!("{path}: unknown field, ignored")),
        );
    }

    /// Every field, for mappings whose keys are the user's.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'a str, Item<'a>)> {
        self.map.iter().map(|(key, value)| {
            (
                key.as_str(),
                Item {
                    value,
                    path: self.join(&shortened(key)),
                },
            )
        })
    }

    fn join(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }
}

/// The value as JSON, shortened: what stands in messages.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
        scalar => shortened(&scalar.to_string()),
    }
}

fn shortened(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Which fields readers ask for, for the test that holds schemas against them.
#[cfg(test)]
pub(crate) mod asked {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    thread_local! {
        static PATHS: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
    }

    pub(super) fn note(path: String) {
        PATHS.with_borrow_mut(|paths| paths.insert(path));
    }

    /// What was asked for by this thread since the last call.
    pub(crate) fn taken() -> BTreeSet<String> {
        PATHS.take()
    }
}
