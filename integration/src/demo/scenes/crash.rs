//! The agent dies; forwarding does not notice, and neither do neighbours.

use crate::demo::cluster::Cluster;
use crate::demo::objects::default_deny;
use crate::demo::sabotage::remove_policies;
use crate::demo::scene::{saw, say};
use crate::lab::probe::Protocol;
use crate::lab::{Watch, wait};
use crate::prober::PORTS;
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

/// Datagrams a second.
const RATE: u32 = 1000;
/// FRR's name for n1.
const N1: &str = "10.10.1.11";

pub(super) fn play(cluster: &mut Cluster) -> Result<String> {
    cluster.ensure_pods()?;
    until_session(cluster, "before", true)?;
    let routes = Watch::routes(&cluster.lab, &cluster.tor1)?;
    let withdrawn_before = withdrawals(cluster);
    let patience = cluster.patience;
    let (reports, down) = {
        let Cluster {
            members,
            agents,
            frr,
            ..
        } = &mut *cluster;
        let find = |name: &str| members.iter().find(|member| member.pod.name() == name);
        let (Some(a1), Some(c1)) = (find("a1"), find("c1")) else {
            anyhow::bail!("no pods")
        };
        let flows = [
            a1.probe.flow(&c1.probe, c1.pod.ipv4()?, RATE)?,
            c1.probe.flow(&a1.probe, a1.pod.ipv4()?, RATE)?,
        ];
        let start = Instant::now();
        agents[0].kill()?;
        say("kill -9 of the agent of n1 under 1 kHz from a1 to c1 and back");
        wait::until(patience, "FRR to notice", || match frr.session(N1) {
            Ok(state) if state != "Established" => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        saw(
            "vtysh -c 'show bgp ipv4 unicast'   (tor1, the agent is down)",
            &frr.vtysh("show bgp ipv4 unicast")?,
        );
        agents[0].start()?;
        agents[0].wait_ready(patience)?;
        let down = start.elapsed();
        wait::until(
            patience,
            "FRR's session with n1 after the restart",
            || match frr.session(N1) {
                Ok(state) if state == "Established" => Ok(()),
                other => Err(format!("{other:?}")),
            },
        )?;
        (flows.map(|flow| flow.stop()), down)
    };
    routes.wait_quiet(Duration::from_millis(300));
    let mut lost = 0;
    for report in reports {
        let report = report?;
        say(&format!("flow: {report}"));
        lost += report.lost();
    }
    let changed: Vec<String> = routes
        .events()
        .into_iter()
        .map(|event| event.line)
        .filter(|line| is_pods(line))
        .collect();
    let withdrawn = withdrawals(cluster) - withdrawn_before;
    saw(
        "ip monitor route   (tor1, pods' prefixes)",
        &changed.join("\n"),
    );
    ensure!(lost == 0, "{lost} packets were lost");
    ensure!(withdrawn == 0, "FRR saw {withdrawn} withdrawals");
    ensure!(
        changed.is_empty(),
        "FRR's kernel routes changed: {changed:?}"
    );
    still_at_work(cluster)?;
    Ok(format!(
        "0 lost, 0 withdrawals; down for {down:.1?}; route and policy work after"
    ))
}

fn until_session(cluster: &Cluster, when: &str, up: bool) -> Result<()> {
    wait::until(
        cluster.patience,
        &format!("FRR's session with n1 {when}"),
        || match cluster.frr.session(N1) {
            Ok(state) if (state == "Established") == up => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )
}

/// Withdrawals of pods' prefixes that FRR has logged so far.
fn withdrawals(cluster: &Cluster) -> usize {
    let log = cluster.frr.log();
    log.lines()
        .filter(|line| line.contains("withdrawn") && is_pods(line))
        .count()
}

fn is_pods(line: &str) -> bool {
    line.contains("10.244.") || line.contains("fd00:10:244:")
}

/// The restarted agent repairs a route and enforces a policy.
fn still_at_work(cluster: &Cluster) -> Result<()> {
    let (a1, b1) = (cluster.member("a1")?, cluster.member("b1")?);
    let address = a1.pod.ipv4()?;
    let n1 = a1.pod.node();
    n1.run(&["ip", "route", "del", &format!("{address}/32")])?;
    let reach = || {
        b1.probe
            .reach(Protocol::Tcp, address, PORTS[0], Duration::from_millis(500))
    };
    wait::until(
        cluster.patience,
        "the restarted agent to repair the route of a1",
        || reach().map(drop).map_err(|error| format!("{error:#}")),
    )?;
    cluster.write("policy-deny.yaml", &default_deny())?;
    wait::until(
        cluster.patience,
        "the restarted agent to enforce default-deny",
        || match reach() {
            Ok(_) => Err("b1 still reaches a1".to_owned()),
            Err(_) => Ok(()),
        },
    )?;
    remove_policies(cluster)?;
    wait::until(
        cluster.patience,
        "the restarted agent to lift default-deny",
        || reach().map(drop).map_err(|error| format!("{error:#}")),
    )
}
