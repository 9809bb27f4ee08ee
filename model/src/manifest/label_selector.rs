//! Kubernetes label selectors.

use super::reader::{Fields, Item, Problem};
use super::syntax;
use crate::Selector;
use std::collections::BTreeSet;

/// A label selector, and the paths of fields in it that are unknown. Those can only have narrowed
/// it, so the caller decides what is safe.
pub(super) fn read(item: Item<'_>) -> Result<(Selector, Vec<String>), Problem> {
    let mut fields = item.fields()?;
    let mut parts = Vec::new();
    let mut unknown = Vec::new();
    if let Some(item) = fields.take("matchLabels") {
        for (key, item) in item.fields()?.all() {
            syntax::label_key(key)
                .map_err(|what| item.problem(format!("the key is not {what}")))?;
            parts.push(Selector::Eq(
                key.to_owned(),
                item.check(syntax::label_value)?.to_owned(),
            ));
        }
    }
    if let Some(item) = fields.take("matchExpressions") {
        for item in item.list()? {
            let mut fields = item.fields()?;
            parts.push(expression(&mut fields)?);
            unknown.extend(fields.unknown());
        }
    }
    unknown.extend(fields.unknown());
    let selector = match parts.len() {
        0 => Selector::All,
        1 => parts.remove(0),
        _ => Selector::And(parts),
    };
    Ok((selector, unknown))
}

fn expression(fields: &mut Fields<'_>) -> Result<Selector, Problem> {
    let key = fields.need("key")?.check(syntax::label_key)?.to_owned();
    let operator = fields.need("operator")?;
    let mut values = BTreeSet::new();
    for item in fields.take("values").map_or(Ok(Vec::new()), Item::list)? {
        values.insert(item.check(syntax::label_value)?.to_owned());
    }
    let operator = operator.text().and_then(|text| match text {
        "In" | "NotIn" if values.is_empty() => {
            Err(fields.problem("values", &format!("{text} needs at least one value")))
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            Err(fields.problem("values", &format!("{text} takes no values")))
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => Ok(text),
        _ => Err(fields.problem(
            "operator",
            &format!("{text:?} is not one of In, NotIn, Exists, DoesNotExist"),
        )),
    })?;
    Ok(match operator {
        "In" => Selector::In(key, values),
        "NotIn" => Selector::NotIn(key, values),
        "Exists" => Selector::Has(key),
        _ => Selector::Not(Box::new(Selector::Has(key))),
    })
}
