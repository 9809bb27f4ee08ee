//! The lab itself: real daemons, real packets, and nothing left behind.

use anyhow::{Context, Result};
use integration::lab::link::End;
use integration::lab::probe::{Protocol, Target, matrix};
use integration::lab::router::{Neighbor, RouterConfig};
use integration::lab::{Bird, Capture, Frr, Lab, Netns, Probe, Watch, wait};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

/// Two namespaces on one wire: 10.9.0.1 and 10.9.0.2, fd00:9::1 and fd00:9::2.
fn pair(lab: &Lab) -> Result<(Netns, Netns)> {
    let (a, b) = (lab.netns("a")?, lab.netns("b")?);
    lab.wire(
        &End {
            netns: &a,
            interface: "eth0",
            addresses: &["10.9.0.1/24", "fd00:9::1/64"],
        },
        &End {
            netns: &b,
            interface: "eth0",
            addresses: &["10.9.0.2/24", "fd00:9::2/64"],
        },
    )?;
    Ok((a, b))
}

#[test]
fn frr_and_bird_exchange_routes_of_both_families() -> Result<()> {
    let lab = Lab::new()?;
    let (a, b) = pair(&lab)?;
    b.ip([
        "link add lan0 type veth peer name lan1",
        "link set lan0 up",
        "link set lan1 up",
        "addr add 198.51.100.1/24 dev lan0",
        "addr add fd00:51::1/64 dev lan0 nodad",
    ])?;
    let neighbor = |name: &str, n: u8, asn, own: u8| -> Result<Neighbor> {
        Ok(Neighbor {
            name: name.to_owned(),
            address: [10, 9, 0, n].into(),
            asn,
            local_address: [10, 9, 0, own].into(),
            local_ipv6: format!("fd00:9::{own}").parse()?,
        })
    };
    let frr = Frr::start(
        &lab,
        &a,
        &RouterConfig {
            asn: 65001,
            router_id: [10, 9, 0, 1].into(),
            neighbors: vec![neighbor("bird", 2, 65002, 1)?],
        },
    )?;
    let bird = Bird::start(
        &lab,
        &b,
        &RouterConfig {
            asn: 65002,
            router_id: [10, 9, 0, 2].into(),
            neighbors: vec![neighbor("frr", 1, 65001, 2)?],
        },
    )?;
    wait::until(LIMIT, "both to be Established", || {
        let states = (frr.session("10.9.0.2"), bird.session("frr"));
        match &states {
            (Ok(one), Ok(two)) if one == "Established" && two == "Established" => Ok(()),
            _ => Err(format!("{states:?}\n{}", bird.log())),
        }
    })?;
    for (family, prefix, show) in [
        ("ipv4", "198.51.100.0/24", "-4"),
        ("ipv6", "fd00:51::/64", "-6"),
    ] {
        wait::until(LIMIT, prefix, || {
            let kernel = a.run(&["ip", show, "route", "show", "proto", "bgp"]);
            match (frr.prefixes(family), kernel) {
                (Ok(table), Ok(kernel))
                    if table.iter().any(|p| p == prefix) && kernel.contains(prefix) =>
                {
                    Ok(())
                }
                other => Err(format!("{other:?}")),
            }
        })?;
    }
    Ok(())
}

#[test]
fn a_matrix_names_who_answered_and_a_flow_counts_what_a_rule_drops() -> Result<()> {
    let lab = Lab::new()?;
    let switch = lab.switch("sw")?;
    let mut probes = Vec::new();
    for n in 1..=3 {
        let netns = lab.netns(&format!("p{n}"))?;
        let (v4, v6) = (format!("10.8.0.{n}/24"), format!("fd00:8::{n}/64"));
        lab.plug(
            &switch,
            &End {
                netns: &netns,
                interface: "eth0",
                addresses: &[&v4, &v6],
            },
        )?;
        let addresses = vec![
            format!("10.8.0.{n}").parse()?,
            format!("fd00:8::{n}").parse()?,
        ];
        probes.push((Probe::start(&netns, netns.name())?, addresses, netns));
    }
    let targets: Vec<Target<'_>> = probes
        .iter()
        .map(|(probe, addresses, _)| Target {
            probe,
            addresses: addresses.clone(),
        })
        .collect();
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp];
    let cells = matrix(&targets, &all, Duration::from_secs(30))?;
    assert_eq!(cells.len(), 3 * 3 * 2 * 3);
    let failed: Vec<_> = cells.iter().filter(|cell| cell.outcome.is_err()).collect();
    assert!(failed.is_empty(), "{failed:?}");

    let (from, to) = (&probes[0], &probes[1]);
    let clean = from.0.flow(&to.0, to.1[0], 200)?;
    let capture = Capture::start(&lab, &to.2, "eth0")?;
    wait::until(LIMIT, "the flow to run", || {
        match from.0.reach(Protocol::Tcp, to.1[0], 8080, LIMIT) {
            Ok(name) if name == "p2" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    let report = clean.stop()?;
    assert_eq!(report.lost(), 0, "{report}");
    let recording = capture.stop()?;
    assert!(recording.count("tcp port 8080")? > 0);
    assert_eq!(recording.count("ip proto 4")?, 0);

    to.2.run(&["nft", "add table inet t; add chain inet t in { type filter hook input priority 0; }; \
        add rule inet t in udp dport 9000 numgen inc mod 4 0 drop; add rule inet t in tcp dport 8081 drop"])?;
    let lossy = from.0.flow(&to.0, to.1[1], 200)?;
    assert!(
        from.0
            .reach(Protocol::Tcp, to.1[1], 8081, Duration::from_millis(500))
            .is_err()
    );
    let report = lossy.stop()?;
    assert!(report.lost() > 0, "{report}");
    assert_eq!(
        report
            .received
            .missing
            .iter()
            .map(|(first, last)| last - first + 1)
            .sum::<u64>(),
        report.lost()
    );
    Ok(())
}

#[test]
fn watches_see_changes_of_rules_and_routes_but_not_their_own_markers() -> Result<()> {
    let lab = Lab::new()?;
    let (a, _b) = pair(&lab)?;
    let (nft, routes) = (Watch::nft(&lab, &a)?, Watch::routes(&lab, &a)?);
    assert!(nft.events().is_empty() && routes.events().is_empty());
    a.run(&["nft", "add table inet seen"])?;
    a.ip(["route add 198.51.100.0/24 via 10.9.0.2"])?;
    nft.wait_for(LIMIT, "the table", |line| {
        line.contains("add table inet seen")
    })?;
    routes.wait_for(LIMIT, "the route", |line| line.contains("198.51.100.0/24"))?;
    Ok(())
}

#[test]
fn nothing_is_left_after_the_end_of_a_lab_in_whatever_way_it_ends() -> Result<()> {
    for signal in [
        None,
        Some(Signal::INT),
        Some(Signal::TERM),
        Some(Signal::KILL),
    ] {
        // A shell starts what it puts into the background with SIGINT ignored, which is inherited.
        let mut owner = Command::new("env")
            .args(["--default-signal=INT", env!("CARGO_BIN_EXE_lab"), "hold"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(owner.stdout.take().context("stdout")?).lines();
        let mut next = || {
            lines
                .next()
                .context("the owner says what it holds")?
                .context("line")
        };
        let (prefix, dir, pid) = (next()?, next()?, next()?);
        assert!(
            namespaces()?.iter().any(|name| name.starts_with(&prefix)),
            "{signal:?}"
        );
        let stdin = owner.stdin.take();
        match signal {
            None => drop(stdin),
            Some(signal) => {
                let pid = Pid::from_child(&owner);
                kill_process(pid, signal)?;
            }
        }
        owner.wait()?;
        wait::until(LIMIT, "nothing to be left", || {
            let left: Vec<String> = namespaces()
                .map_err(|e| e.to_string())?
                .into_iter()
                .filter(|n| n.starts_with(&prefix))
                .collect();
            let exists = |path: String| std::path::Path::new(&path).exists();
            if left.is_empty() && !exists(dir.clone()) && !exists(format!("/proc/{pid}")) {
                return Ok(());
            }
            Err(format!("after {signal:?}: {left:?}, {dir}, process {pid}"))
        })?;
    }
    Ok(())
}

fn namespaces() -> Result<Vec<String>> {
    Ok(
        String::from_utf8(Command::new("ip").args(["netns", "list"]).output()?.stdout)?
            .lines()
            .filter_map(|line| line.split(' ').next().map(str::to_owned))
            .collect(),
    )
}
