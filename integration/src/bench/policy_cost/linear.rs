//! The layout of a chain for each policy, asked one after the other.

use super::{COUNTS, FIRST_PORT, group, members};
use crate::bench::policy_cost::stage::CLIENT;
use crate::lab::{Lab, Netns};
use anyhow::{Context, Result};
use std::fmt::Write;

pub(super) fn load(lab: &Lab, node: &Netns) -> Result<()> {
    let file = lab.dir().join("linear.nft");
    std::fs::write(&file, text()?)?;
    let path = file.to_str().context("a path")?;
    node.run(&["nft", "-f", path]).map(drop)
}

fn text() -> Result<String, std::fmt::Error> {
    let mut text = String::from("table ip linear {\n");
    let most = COUNTS.into_iter().max().unwrap_or(0);
    for number in 0..most {
        let client = COUNTS.contains(&(number + 1)).then(|| CLIENT.to_string());
        let elements = members(number).map(|address| address.to_string());
        let elements: Vec<_> = elements.chain(client).collect();
        let (name, port) = (group(number).0, u32::from(FIRST_PORT) + number);
        writeln!(
            text,
            "set {name} {{ type ipv4_addr; size 1024; elements = {{ {} }}; }}\n\
             chain p{number} {{\n\
             udp dport {port} ip saddr @{name} accept\n\
             tcp dport {port} ip saddr @{name} accept\n}}",
            elements.join(", ")
        )?;
    }
    for count in COUNTS.into_iter().filter(|count| *count > 0) {
        writeln!(text, "chain pod{count} {{")?;
        for number in 0..count {
            writeln!(text, "jump p{number}")?;
        }
        text.push_str("drop\n}\n");
    }
    text.push_str(
        "chain forward { type filter hook forward priority 0;\nct state established,related accept\n",
    );
    for (at, count) in COUNTS.into_iter().enumerate().skip(1) {
        writeln!(text, "oifname \"oci{at}\" jump pod{count}")?;
    }
    text.push_str("}\n}\n");
    Ok(text)
}
