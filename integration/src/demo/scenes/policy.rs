//! NetworkPolicy from the directory to the kernel.

use crate::demo::cluster::Cluster;
use crate::demo::objects::{allow_client_to_web, default_deny};
use crate::demo::sabotage::remove_policies;
use crate::demo::scene::{grid, saw, say};
use crate::lab::probe::{Cell, Protocol};
use crate::lab::{Watch, wait};
use anyhow::Result;
use std::time::{Duration, Instant};

const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];
/// Silence for this long is a denial.
const DENIED: Duration = Duration::from_millis(700);

pub(super) fn play(cluster: &mut Cluster) -> Result<String> {
    cluster.ensure_pods()?;
    let everything = |_: &Cell| true;
    let itself = |cell: &Cell| cell.from == cell.to;
    let client_to_web = |cell: &Cell| {
        itself(cell) || (cell.from == "b1" && cell.to == "a1" && cell.protocol == Protocol::Tcp)
    };
    expect(cluster, "before", everything)?;
    let watch = Watch::nft(&cluster.lab, cluster.agents[0].netns())?;
    let written = cluster.write("policy-deny.yaml", &default_deny())?;
    let deny = first_event(cluster, &watch, written, "default-deny")?;
    expect(cluster, "default-deny", itself)?;
    watch.clear();
    let written = cluster.write("policy-allow.yaml", &allow_client_to_web())?;
    let allow = first_event(cluster, &watch, written, "client-to-web")?;
    expect(
        cluster,
        "default-deny and client-to-web (b1 to TCP port 8080 of a1)",
        client_to_web,
    )?;
    saw(
        "nft list table inet ocicat   (n1, its first lines)",
        &first_lines(cluster)?,
    );
    remove_policies(cluster)?;
    expect(cluster, "after both are removed", everything)?;
    Ok(format!(
        "from write to kernel: default-deny {deny:.1?}, client-to-web {allow:.1?}"
    ))
}

fn first_event(cluster: &Cluster, watch: &Watch, written: Instant, what: &str) -> Result<Duration> {
    let event = watch.wait_for(cluster.patience, what, |line| line.contains("ocicat"))?;
    let took = event.at.saturating_duration_since(written);
    say(&format!(
        "{what}: first nft event on n1 after {took:.1?}: {}",
        event.line.trim()
    ));
    Ok(took)
}

/// Waits until exactly the expected attempts succeed, and prints the matrix.
fn expect(cluster: &Cluster, when: &str, allowed: impl Fn(&Cell) -> bool) -> Result<()> {
    let cells = wait::until(cluster.patience, &format!("the matrix {when}"), || {
        let cells = cluster
            .matrix(&PROTOCOLS, DENIED)
            .map_err(|error| format!("{error:#}"))?;
        match cells
            .iter()
            .find(|cell| cell.outcome.is_ok() != allowed(cell))
        {
            None => Ok(cells),
            Some(Cell {
                from,
                to,
                address,
                protocol,
                outcome,
            }) => Err(format!(
                "{from} to {to} ({address}, {protocol}): {outcome:?}"
            )),
        }
    })?;
    say(&format!("{when}:"));
    saw("lab matrix", &grid(&cells));
    Ok(())
}

fn first_lines(cluster: &Cluster) -> Result<String> {
    let all = cluster.agents[0]
        .netns()
        .run(&["nft", "list", "table", "inet", "ocicat"])?;
    Ok(all.lines().take(40).collect::<Vec<_>>().join("\n"))
}
