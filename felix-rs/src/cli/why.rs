//! `ocicat why`: whether policy allows a connection, and what decides at each end.

use super::source::Source;
use super::{ask, formatted, value_of};
use crate::cli::Output;
use crate::ctl::Question;
use felix_core::cluster::Cluster;
use felix_core::why::{Connection, EndVerdict, Verdict, why};
use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

#[derive(Debug, clap::Args)]
pub(super) struct Why {
    /// Who connects: namespace/pod, or an address
    source: String,
    /// To whom: namespace/pod, or an address (a pod's, not a Service's)
    destination: String,
    /// Such as tcp/80, udp/53, icmp
    protocol: String,
    #[command(flatten)]
    from: Source,
}

impl Why {
    pub(super) fn run(&self, run_dir: &Path, output: Output) -> Result<String, String> {
        let connection = Connection {
            source: self.source.clone(),
            destination: self.destination.clone(),
            protocol: self.protocol.clone(),
        };
        let verdicts: Vec<Verdict> = if self.from.is_named() {
            let view = self.from.view(run_dir)?.view;
            let said = why(&Cluster::new(&view), &connection);
            said.map_err(|error| error.to_string())?
        } else {
            value_of(ask(run_dir, &Question::Why(connection))?)?
        };
        let ends = format!("{} -> {} {}", self.source, self.destination, self.protocol);
        formatted(output, &verdicts, || text(&ends, &verdicts))
    }
}

/// The verdicts of a connection, one for each address family, under a line that names its ends.
fn text(ends: &str, verdicts: &[Verdict]) -> String {
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
