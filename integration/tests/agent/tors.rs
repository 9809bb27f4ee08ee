//! Two routers at the top of a rack with equal paths through both, one of which fails under a
//! flow of datagrams. What is lost is printed; that the other one takes over is asserted.

use crate::node::{LIMIT, NODE, POOL_V4};
use anyhow::{Result, ensure};
use integration::lab::link::End;
use integration::lab::probe::{Flow, Protocol};
use integration::lab::{Agent, Bird, Frr, Lab, Netns, Probe, Store, wait};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

const TARGET: &str = "198.51.100.9";
/// Datagrams a second of each flow.
const RATE: u32 = 250;
/// Enough that each router has some, however they are spread.
const FLOWS: usize = 8;

/// How many packets of BFD, 50 ms apart, may be missing. A router that shares two processors with
/// all other tests may be silent for 150 ms; on a quiet machine `OCICAT_BFD_MULTIPLIER=3` is enough.
fn multiplier() -> String {
    std::env::var("OCICAT_BFD_MULTIPLIER").unwrap_or_else(|_| "8".to_owned())
}

/// BFD with both. The second is outside the subnet of the node's address, so that the path to it
/// counts as one of several hops.
fn peers() -> String {
    let multiplier = multiplier();
    format!(
        "apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {{name: tor1}}
spec: {{peerIP: 10.1.0.1, asNumber: 65001, ocicat: {{bfd: {{minInterval: 50ms, multiplier: {multiplier}}}}}}}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {{name: tor2}}
spec:
  peerIP: 10.2.0.1
  asNumber: 65002
  sourceAddress: None
  ocicat: {{bfd: {{minInterval: 50ms, multiplier: {multiplier}, multihop: true}}}}
"
    )
}

/// What runs on the routers.
#[derive(Debug, Clone, Copy)]
enum Daemon {
    Bird,
    Frr,
}

/// A router's daemon, which announces the target's network; its kernel forwards to it whether or not
/// the daemon runs.
enum Router {
    Bird(Bird),
    Frr(Frr),
}

impl Router {
    fn start(lab: &Lab, netns: &Netns, daemon: Daemon, number: u8) -> Result<Self> {
        let multiplier = multiplier();
        let hops = number == 2;
        match daemon {
            Daemon::Bird => {
                let multihop = if hops { "multihop 2;" } else { "direct;" };
                let config = format!(
                    "log stderr all;\nrouter id 10.{number}.0.1;\nprotocol device {{ scan time 60; }}\n\
                     protocol static {{ ipv4; route 198.51.100.0/24 blackhole; }}\n\
                     protocol bfd {{ interface \"*\" {{ interval 50 ms; multiplier {multiplier}; }}; \
                     multihop {{ interval 50 ms; multiplier {multiplier}; }}; }}\n\
                     protocol bgp node {{\n local 10.{number}.0.1 as 6500{number};\n \
                     neighbor 10.{number}.0.11 as 64512;\n {multihop}\n bfd on;\n connect delay time 1;\n \
                     connect retry time 1;\n error wait time 1, 2;\n \
                     ipv4 {{ import none; export all; next hop self; }};\n}}\n"
                );
                Bird::start_with(lab, netns, &config).map(Self::Bird)
            }
            Daemon::Frr => {
                let node = format!(" neighbor 10.{number}.0.11");
                let multihop = if hops {
                    format!("{node} ebgp-multihop 2\n")
                } else {
                    String::new()
                };
                let config = format!(
                    "router bgp 6500{number}\n bgp router-id 10.{number}.0.1\n \
                     no bgp ebgp-requires-policy\n no bgp network import-check\n{node} remote-as 64512\n\
                     {multihop}{node} timers connect 1\n{node} advertisement-interval 0\n\
                     {node} bfd {multiplier} 50 50\n address-family ipv4 unicast\n  \
                     network 198.51.100.0/24\n exit-address-family\nexit\n"
                );
                Frr::start_with(lab, netns, &["zebra", "bfdd"], &config).map(Self::Frr)
            }
        }
    }

    fn kill(&self) -> Result<()> {
        match self {
            Self::Bird(bird) => bird.kill(),
            Self::Frr(frr) => frr.kill(),
        }
    }

    /// Ends the session in words, or lets it begin again.
    fn drain(&self, drained: bool) -> Result<()> {
        match self {
            Self::Bird(bird) => {
                let verb = if drained { "disable" } else { "enable" };
                bird.birdc(&format!("{verb} node")).map(drop)
            }
            Self::Frr(frr) => {
                let no = if drained { "" } else { "no " };
                let line = format!("{no}neighbor 10.1.0.11 shutdown");
                frr.configure(&["router bgp 65001", &line])
            }
        }
    }
}

struct Rack {
    agent: Agent,
    node: Netns,
    tors: [Netns; 2],
    daemon: Daemon,
    routers: [Router; 2],
    sender: Arc<Probe>,
    receiver: Arc<Probe>,
    lab: Lab,
}

impl Rack {
    fn start(daemon: Daemon) -> Result<Self> {
        let lab = Lab::new()?;
        let (node, far) = (lab.netns("n1")?, lab.netns("far")?);
        let tors = [lab.netns("tor1")?, lab.netns("tor2")?];
        for (index, tor) in tors.iter().enumerate() {
            let number = index + 1;
            let (uplink, port) = (format!("up{number}"), format!("tor{number}"));
            let addresses = [
                format!("10.{number}.0.11/24"),
                format!("10.{number}.0.1/24"),
                format!("172.16.{number}.1/24"),
                format!("172.16.{number}.2/24"),
            ];
            let addresses = addresses.each_ref().map(|address| [address.as_str()]);
            let end = |netns, interface, address: usize| End {
                netns,
                interface,
                addresses: &addresses[address],
            };
            lab.wire(&end(&node, &uplink, 0), &end(tor, "node", 1))?;
            lab.wire(&end(tor, "far", 2), &end(&far, &port, 3))?;
            tor.set_sysctl("net.ipv4.ip_forward", "1")?;
            tor.ip([format!("route add 198.51.100.0/24 via 172.16.{number}.2")])?;
            far.ip([format!(
                "route add 10.{number}.0.0/24 via 172.16.{number}.1"
            )])?;
            node.set_sysctl(&format!("net.ipv4.conf.{uplink}.rp_filter"), "0")?;
        }
        far.ip([format!("addr add {TARGET}/32 dev lo")])?;
        // Ports count, or all flows would be one.
        node.set_sysctl("net.ipv4.fib_multipath_hash_policy", "1")?;
        let store = Store::new(lab.dir().join("datastore"))?;
        store.write("node.yaml", NODE)?;
        store.write("pool.yaml", POOL_V4)?;
        store.write("peers.yaml", &peers())?;
        let mut agent = Agent::new(&lab, &node, "n1", &store)?;
        let routers = [
            Router::start(&lab, &tors[0], daemon, 1)?,
            Router::start(&lab, &tors[1], daemon, 2)?,
        ];
        agent.start()?;
        agent.wait_ready(LIMIT)?;
        let sender = Arc::new(Probe::start(&node, "n1")?);
        let receiver = Arc::new(Probe::start(&far, "far")?);
        Ok(Self {
            agent,
            node,
            tors,
            daemon,
            routers,
            sender,
            receiver,
            lab,
        })
    }

    /// Waits until the target is reached through these uplinks and no other.
    fn wait_uplinks(&self, expected: &[&str]) -> Result<()> {
        wait::until(2 * LIMIT, &format!("routes by {expected:?}"), || {
            let shown = self.node.run(&["ip", "route", "show", "198.51.100.0/24"]);
            let shown = shown.map_err(|error| format!("{error:#}"))?;
            let used = |link: &&str| shown.contains(&format!("dev {link}"));
            if ["up1", "up2"]
                .iter()
                .filter(|link| used(link))
                .eq(expected.iter())
            {
                Ok(())
            } else {
                Err(shown)
            }
        })
    }

    /// Waits until BFD watches both paths.
    fn wait_watched(&self) -> Result<()> {
        wait::until(2 * LIMIT, "BFD with both routers", || {
            let said = self.agent.ctl(&["bgp", "bfd", "-o", "json"]);
            let said = said.map_err(|error| format!("{error:#}"))?;
            if said.matches("\"Up\"").count() >= 4 {
                Ok(())
            } else {
                Err(said)
            }
        })
    }

    /// Flows to the target while something fails, until only `left` is used, and then others.
    /// Whatever is lost is lost before the other router has taken over. Answers how much that is.
    fn fails(
        &mut self,
        what: &str,
        left: &str,
        fail: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<u64> {
        self.wait_uplinks(&["up1", "up2"])?;
        self.wait_watched()?;
        let (sender, receiver) = (Arc::clone(&self.sender), Arc::clone(&self.receiver));
        let target: IpAddr = TARGET.parse()?;
        let flows = || -> Result<Vec<Flow<'_>>> {
            (0..FLOWS)
                .map(|_| sender.flow(&receiver, target, RATE))
                .collect()
        };
        let during = flows()?;
        sender.reach(Protocol::Icmp, target, 0, LIMIT)?;
        fail(self)?;
        self.wait_uplinks(&[left])?;
        let after = flows()?;
        sender.reach(Protocol::Icmp, target, 0, LIMIT)?;
        let (mut lost, mut longest) = (0, Duration::ZERO);
        for flow in during {
            let report = flow.stop()?;
            lost += report.lost();
            longest = longest.max(Duration::from_micros(report.received.longest_gap_us));
        }
        println!(
            "{what}: {lost} datagrams of {FLOWS} flows at {RATE}/s lost, longest gap {longest:?}"
        );
        for flow in after {
            let report = flow.stop()?;
            ensure!(
                report.sent.count > 0 && report.lost() == 0,
                "after {what}: {report}"
            );
        }
        Ok(lost)
    }

    /// How long the agent says that it took from a dead path to another one.
    fn print_reaction(&self) {
        for line in self.agent.log().lines() {
            if line.contains("taken out of all groups") {
                println!("{line}");
            }
        }
    }
}

#[test]
fn when_one_of_two_routers_with_bird_fails_the_other_one_takes_over() -> Result<()> {
    takes_over(Daemon::Bird)
}

#[test]
fn when_one_of_two_routers_with_frr_fails_the_other_one_takes_over() -> Result<()> {
    takes_over(Daemon::Frr)
}

fn takes_over(daemon: Daemon) -> Result<()> {
    let mut rack = Rack::start(daemon)?;
    let rack = &mut rack;
    rack.fails("link down", "up2", |rack| {
        rack.tors[0].ip(["link set node down"])
    })?;
    rack.tors[0].ip([
        "link set node up",
        "route replace 198.51.100.0/24 via 172.16.1.2",
    ])?;

    // Nothing is said: only BFD can tell.
    let silence = "add table inet silent; add chain inet silent f { type filter hook prerouting \
                   priority raw; policy drop; }";
    rack.fails("silence", "up2", |rack| {
        rack.tors[0].run(&["nft", silence]).map(drop)
    })?;
    rack.tors[0].run(&["nft", "delete table inet silent"])?;

    rack.fails("daemon killed", "up2", |rack| rack.routers[0].kill())?;
    rack.routers[0] = Router::start(&rack.lab, &rack.tors[0], rack.daemon, 1)?;

    // The session ends in words, and the router forwards on.
    let lost = rack.fails("planned drain", "up2", |rack| rack.routers[0].drain(true))?;
    ensure!(lost == 0, "{lost} datagrams lost by a planned drain");
    rack.routers[0].drain(false)?;

    rack.fails("silence of several hops", "up1", |rack| {
        rack.tors[1].run(&["nft", silence]).map(drop)
    })?;
    rack.print_reaction();
    Ok(())
}
