//! `ocicat why`: verdicts in words.

use felix_core::why::{EndVerdict, Verdict};
use std::fmt::Write;
use std::net::IpAddr;

/// The verdicts of a connection, one for each address family, under a line that names its ends.
pub(super) fn text(ends: &str, verdicts: &[Verdict]) -> String {
    let mut text = format!("{ends}\n");
    for verdict in verdicts {
        let word = if verdict.allowed { "allowed" } else { "DENIED" };
        let (source, destination) = (shown(verdict.source), shown(verdict.destination));
        let _ = writeln!(text, "{word:<10} {source} -> {destination}");
        end(&mut text, "egress", &verdict.egress);
        end(&mut text, "ingress", &verdict.ingress);
    }
    text
}

fn shown(address: Option<IpAddr>) -> String {
    address.map_or_else(
        || "(no address yet)".to_owned(),
        |address| address.to_string(),
    )
}

/// What was passed on the way, what decided, what staged policies would say.
fn end(text: &mut String, name: &str, end: &EndVerdict) {
    let lines = end.passed.iter().chain([&end.reason]);
    for (place, line) in lines.enumerate() {
        let name = if place == 0 { name } else { "" };
        let _ = writeln!(text, "  {name:<8} {line}");
    }
    if let Some(staged) = &end.staged {
        let _ = writeln!(text, "  {:<8} with staged policies: {}", "", staged.reason);
    }
}
