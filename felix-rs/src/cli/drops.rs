//! `ocicat drops`: what policy denied lately, and which policy.

use super::table::Table;
use crate::agent::DropLine;
use std::time::{SystemTime, UNIX_EPOCH};

/// The lines as a table, the latest last.
pub(super) fn table(lines: &[DropLine]) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let mut table = Table::new(["AGO", "FROM", "TO", "WHAT", "BY"]);
    for line in lines {
        table.row([
            format!("{}s", now.saturating_sub(line.at)),
            end(&line.source, line.source_address.to_string()),
            end(&line.destination, line.destination_address.to_string()),
            line.flow.clone(),
            line.decided_by.clone(),
        ]);
    }
    table.to_string()
}

fn end(name: &str, address: String) -> String {
    if name == address {
        address
    } else {
        format!("{name} ({address})")
    }
}
