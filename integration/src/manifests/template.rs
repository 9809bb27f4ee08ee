//! Templates: YAML with `${name}`, and lines between `#if name` and `#end` that are left out where
//! the value is empty.

use super::value::{self, Value};
use anyhow::{Context, Result, bail};

/// For whom a template is rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// `kubectl apply`: values are the defaults.
    Plain,
    /// Helm: values are looked up by the chart.
    Chart,
}

pub(super) fn render(source: &str, target: Target) -> Result<String> {
    let mut text = String::with_capacity(source.len());
    let mut open: Option<&Value> = None;
    for (number, line) in source.lines().enumerate() {
        let mut step = || -> Result<()> {
            let trimmed = line.trim_start();
            if let Some(name) = trimmed.strip_prefix("#if ") {
                if open.is_some() {
                    bail!("#if inside #if");
                }
                let value = value::find(name).with_context(|| format!("no value {name:?}"))?;
                open = Some(value);
                if target == Target::Chart {
                    push(
                        &mut text,
                        &indented(line, &format!("{{{{- if {} }}}}", value.in_chart())),
                    );
                }
            } else if trimmed == "#end" {
                open.take().context("#end without #if")?;
                if target == Target::Chart {
                    push(&mut text, &indented(line, "{{- end }}"));
                }
            } else if target == Target::Chart || open.is_none_or(|value| !value.default.is_empty())
            {
                push(&mut text, &filled(line, target)?);
            }
            Ok(())
        };
        step().with_context(|| format!("line {}: {line}", number + 1))?;
    }
    match open {
        Some(value) => bail!("#if {} without #end", value.name),
        None => Ok(text),
    }
}

fn push(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

/// `text` where `line` begins.
fn indented(line: &str, text: &str) -> String {
    let indent = line.len() - line.trim_start().len();
    format!("{}{text}", &line[..indent])
}

fn filled(line: &str, target: Target) -> Result<String> {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').context("${ without }")?;
        let value = value::find(name).with_context(|| format!("no value {name:?}"))?;
        text.push_str(before);
        match target {
            Target::Plain => text.push_str(value.default),
            Target::Chart => text.push_str(&format!("{{{{ {} | quote }}}}", value.in_chart())),
        }
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}
