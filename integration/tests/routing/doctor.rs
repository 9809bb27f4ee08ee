//! What the command and the agent say of paths, settings and addresses that are not as they should
//! be.

use crate::racks::{LIMIT, Mode, Racks, Stack};
use anyhow::{Context, Result, ensure};
use integration::lab::wait;
use serde_json::Value;
use std::process::Command;

/// Output of `ocicat doctor ...` on n1, and whether it found anything.
fn doctor(racks: &Racks, words: &[&str]) -> Result<(Value, bool)> {
    let run_dir = racks.agents[0].run_dir();
    let mut command = Command::new(integration::lab::agent::binary(
        "OCICAT_NODE_BIN",
        "ocicat-node",
    )?);
    command
        .arg("ctl")
        .arg("--run-dir")
        .arg(run_dir)
        .arg("doctor");
    command.args(words).args(["-o", "json"]);
    let output = racks.nodes[0].output(&mut command)?;
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    let value = serde_json::from_str(&said).with_context(|| format!("{said} {error}"))?;
    Ok((value, output.status.code() == Some(1)))
}

#[test]
fn the_doctor_measures_paths_and_names_what_is_too_short() -> Result<()> {
    let racks = Racks::start(Stack::Dual, Mode::Native)?;
    let (paths, found) = doctor(&racks, &["mtu"])?;
    ensure!(!found, "{paths:#}");
    racks.router.ip(["link set rack2 mtu 1350"])?;
    let (paths, found) = doctor(&racks, &["mtu", "n3"])?;
    let paths = paths.as_array().context("paths")?;
    ensure!(found && paths.len() == 2, "{paths:#?}");
    for path in paths {
        ensure!(path["mtu"] == 1350 && path["expected"] == 1500, "{path}");
    }
    Ok(())
}

#[test]
fn the_doctor_names_settings_and_routes_of_others() -> Result<()> {
    let mut racks = Racks::prepared(Stack::V4, Stack::V4, Mode::Native)?;
    racks.nodes[0].set_sysctl("net.ipv4.conf.all.rp_filter", "1")?;
    racks.start_agents()?;
    let pods = racks.pods()?;
    racks.wait_routed(&pods, Mode::Native)?;
    let (status, said) = racks.agents[0].health("/readyz")?;
    ensure!(
        status == 200 && said.contains("conf.all.rp_filter = 1"),
        "{said}"
    );
    let ours = racks.nodes[0].run(&["ip", "route", "show", "proto", "122"])?;
    let ours = ours
        .lines()
        .find(|line| line.contains(" via "))
        .context("a route")?;
    let dest = ours.split(' ').next().context("a destination")?;
    racks.nodes[0].ip([format!("route add {dest} via 10.1.0.1 metric 5")])?;
    wait::until(LIMIT, "both to be named", || {
        let (findings, found) = doctor(&racks, &[]).map_err(|error| format!("{error:#}"))?;
        let text = findings.to_string();
        let route = format!("{dest}: somebody else's route with metric 5 wins over ours");
        match found && text.contains("conf.all.rp_filter = 1") && text.contains(&route) {
            true => Ok(()),
            false => Err(text),
        }
    })
}

#[test]
fn an_address_that_differs_from_what_is_detected_is_told_and_stays() -> Result<()> {
    let mut racks = Racks::prepared(Stack::V4, Stack::V4, Mode::Native)?;
    racks.nodes[0].ip(["addr add 192.0.2.7/24 dev eth0"])?;
    racks.agents[0].set_flags(&["--ip-autodetection-method", "cidr=192.0.2.0/24"]);
    racks.start_agents()?;
    let words = "10.1.0.11/24 is its address, and 192.0.2.7/24 is what autodetection finds";
    wait::until(LIMIT, words, || match racks.agents[0].health("/readyz") {
        Ok((200, body)) if body.contains(words) => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    let pods = racks.pods()?;
    racks.wait_routed(&pods, Mode::Native)
}

#[test]
fn an_address_said_without_a_length_is_the_one_that_is_detected_with_one() -> Result<()> {
    let stack = Stack::Dual;
    let mut racks = Racks::prepared(stack, stack, Mode::Native)?;
    let node = racks.store.read("n1.yaml")?;
    racks.store.write("n1.yaml", &node.replace("/24", ""))?;
    racks.nodes[0].ip(["addr add fd00:9::7/64 dev eth0 nodad"])?;
    let methods = [
        ("--ip-autodetection-method", "cidr=10.1.0.0/24"),
        ("--ip6-autodetection-method", "cidr=fd00:9::/64"),
    ];
    racks.agents[0].set_flags(&methods.map(|(flag, method)| [flag, method]).concat());
    racks.start_agents()?;
    // Both are looked for at once: where the one is told, the other is known.
    let words = "fd00:1::11/64 is its address, and fd00:9::7/64 is what";
    let said = wait::until(LIMIT, words, || match racks.agents[0].health("/readyz") {
        Ok((200, body)) if body.contains(words) => Ok(body),
        other => Err(format!("{other:?}")),
    })?;
    ensure!(!said.contains("10.1.0.11"), "{said}");
    Ok(())
}
