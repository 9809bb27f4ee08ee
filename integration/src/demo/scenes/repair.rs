//! Somebody's hands.

use crate::demo::cluster::Cluster;
use crate::demo::scene::{saw, say};
use crate::lab::{Netns, Watch, wait};
use anyhow::{Context, Result, ensure};
use model::names::NFT_TABLE;
use serde_json::Value;
use std::time::{Duration, Instant};

/// How a deletion by hand went.
enum Hand {
    /// The kernel refused it: the table has an owner.
    Refused,
    /// The agent put it back after this time.
    Repaired(Duration),
}

pub(super) fn play(cluster: &mut Cluster) -> Result<String> {
    cluster.ensure_pods()?;
    let n1 = cluster.agents[0].netns();
    let route = delete_route(cluster, n1)?;
    say(&format!("the route of a1 was back within {route:.1?}"));
    let rule = delete_rule(cluster, n1)?;
    let table = by_hand(cluster, n1, &["nft", "delete", "table", "inet", NFT_TABLE])?;
    Ok(format!(
        "route within {route:.1?}, rule {rule}, table {table}"
    ))
}

fn delete_route(cluster: &Cluster, n1: &Netns) -> Result<Duration> {
    let address = format!("{}/32", cluster.member("a1")?.pod.ipv4()?);
    let shown = || n1.run(&["ip", "-o", "route", "show", &address]);
    let before = shown()?;
    ensure!(!before.trim().is_empty(), "n1 has no route to {address}");
    let watch = Watch::routes(&cluster.lab, n1)?;
    // Two lines of a monitor may be read at once, so the time counts from before the deletion:
    // it holds the start of `ip` and is an upper bound.
    let start = Instant::now();
    n1.run(&["ip", "route", "del", &address])?;
    let bare = address.trim_end_matches("/32");
    watch.wait_for(cluster.patience, "the deletion", |line| {
        line.starts_with("Deleted") && line.contains(bare)
    })?;
    let back = watch.wait_for(cluster.patience, "the route of a1 to come back", |line| {
        !line.starts_with("Deleted") && line.contains(bare)
    })?;
    saw(&format!("ip route show {address}   (n1)"), &shown()?);
    wait::until(cluster.patience, "the same route", || match shown() {
        Ok(after) if after == before => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    Ok(back.at.saturating_duration_since(start))
}

/// Deletes a rule, whichever comes first.
fn delete_rule(cluster: &Cluster, n1: &Netns) -> Result<Hand> {
    let text = n1.run(&["nft", "-j", "list", "table", "inet", NFT_TABLE])?;
    let listing: Value = serde_json::from_str(&text).context("nft -j")?;
    let all = listing["nftables"].as_array().context("nft -j")?;
    let rule = all
        .iter()
        .find_map(|item| item.get("rule"))
        .context("our table has no rules")?;
    let (chain, handle) = (
        rule["chain"].as_str().context("chain")?,
        rule["handle"].to_string(),
    );
    by_hand(
        cluster,
        n1,
        &[
            "nft", "delete", "rule", "inet", NFT_TABLE, chain, "handle", &handle,
        ],
    )
}

/// Runs a command against our table and waits until the table is what it was.
fn by_hand(cluster: &Cluster, n1: &Netns, command: &[&str]) -> Result<Hand> {
    let before = listing(n1)?;
    let start = Instant::now();
    let hand = match n1.run(command) {
        Err(error) if format!("{error:#}").contains("not permitted") => Hand::Refused,
        Err(error) => return Err(error),
        Ok(_) => {
            wait::until(
                cluster.patience,
                "our table to be what it was",
                || match listing(n1) {
                    Ok(after) if after == before => Ok(()),
                    Ok(after) => Err(format!("{} lines instead of {}", after.len(), before.len())),
                    Err(error) => Err(format!("{error:#}")),
                },
            )?;
            Hand::Repaired(start.elapsed())
        }
    };
    say(&format!("`{}`: {hand}", command.join(" ")));
    Ok(hand)
}

/// The table without counters, in an order that does not depend on when elements were added.
fn listing(n1: &Netns) -> Result<Vec<String>> {
    let text = n1.run(&["nft", "-s", "list", "table", "inet", NFT_TABLE])?;
    let mut words: Vec<String> = text
        .split([',', '\n'])
        .map(|word| word.trim().to_owned())
        .collect();
    words.sort();
    Ok(words)
}

impl std::fmt::Display for Hand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused => f.write_str("refused by the kernel"),
            Self::Repaired(took) => write!(f, "{took:.1?}"),
        }
    }
}
