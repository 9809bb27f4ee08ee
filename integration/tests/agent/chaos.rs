//! A runtime's life in random operations, while agent and plugin are killed: after each operation
//! journal, kernel and datastore say the same, and nothing else is there.
//!
//! `OCICAT_CHAOS_OPERATIONS` says how many operations (120 unless set), `OCICAT_CHAOS_SEED` which.

use crate::node::{LIMIT, NAMESPACE, Node, spec};
use anyhow::{Context, Result, ensure};
use integration::lab::{Netns, Process, wait};
use ipam::journal::{State, replay};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const OPERATIONS: usize = 120;
/// Containers that there may be at a time.
const SLOTS: usize = 8;

/// xorshift64*: the same operations for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % limit
    }
}

/// Who is killed while a call is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Nobody,
    Agent,
    Plugin,
}

/// A container: the runtime has the result of its ADD, or is about to take it down.
struct Container {
    netns: Netns,
    result: Value,
}

/// What the runtime believes, which is what has to be.
struct World {
    node: Node,
    containers: BTreeMap<usize, Container>,
    next: usize,
    /// What a node without pods has.
    empty: (String, String),
}

impl World {
    fn new() -> Result<Self> {
        let node = Node::started()?;
        let empty = (node.rules(), ip_rules(&node)?);
        Ok(Self {
            node,
            containers: BTreeMap::new(),
            next: 0,
            empty,
        })
    }

    /// One call of the plugin, whose victim dies some time after its start.
    fn call(
        &mut self,
        command: &str,
        netns: &Netns,
        victim: Victim,
        after: Duration,
    ) -> Result<Value> {
        let config = self.config(command, netns)?;
        let pod = format!(
            "K8S_POD_NAMESPACE={NAMESPACE};K8S_POD_NAME={}",
            netns.name()
        );
        let mut plugin = Command::new(&self.node.plugin.binary);
        plugin
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", netns.name())
            .env("CNI_NETNS", netns.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin")
            .env("CNI_ARGS", pod)
            .stdin(std::fs::File::open(config)?)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = self.node.netns.spawn(&mut plugin)?;
        // A random instant of the call; nothing waits for a condition here.
        std::thread::sleep(after);
        match victim {
            Victim::Nobody => {}
            Victim::Plugin => child.kill()?,
            Victim::Agent => {
                self.node.agent.kill()?;
                self.node.agent.start()?;
            }
        }
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{command}: {said}");
        if said.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&said).context("the plugin's result")
    }

    fn config(&self, command: &str, netns: &Netns) -> Result<std::path::PathBuf> {
        let mut config = self.node.plugin.config.clone();
        config["cniVersion"] = json!("1.1.0");
        config["args"] = json!({ "cni": { "labels": { "app": "web" } } });
        if command == "GC" {
            let valid = |container: &Container| json!({ "containerID": container.netns.name(), "ifname": "eth0" });
            let valid: Vec<Value> = self.containers.values().map(valid).collect();
            config["cni.dev/valid-attachments"] = json!(valid);
        }
        if command == "CHECK" {
            let container = self.containers.values().find(|c| c.netns == *netns);
            config["prevResult"] = container.context("a container")?.result.clone();
        }
        let file = self.node.lab.dir().join("chaos.json");
        std::fs::write(&file, config.to_string())?;
        Ok(file)
    }

    /// As a kubelet does: an ADD that fails is taken down, and tried again under another id.
    fn add(&mut self, slot: usize, victim: Victim, after: Duration) -> Result<()> {
        let netns = self.node.lab.netns(&format!("c{}", self.next))?;
        self.next += 1;
        match self.call("ADD", &netns, victim, after) {
            Ok(result) => {
                let container = Container { netns, result };
                self.containers.insert(slot, container);
                Ok(())
            }
            Err(_) => {
                self.delete_until_done(&netns)?;
                netns.delete()
            }
        }
    }

    fn delete(&mut self, slot: usize, victim: Victim, after: Duration, first: &str) -> Result<()> {
        let Some(Container { netns, .. }) = self.containers.remove(&slot) else {
            return Ok(());
        };
        if first == "namespace" {
            netns.delete()?;
        }
        if self.call("DEL", &netns, victim, after).is_err() {
            self.delete_until_done(&netns)?;
        }
        if first != "namespace" {
            netns.delete()?;
        }
        Ok(())
    }

    fn delete_until_done(&mut self, netns: &Netns) -> Result<()> {
        wait::until(LIMIT, "a DEL", || {
            self.call("DEL", netns, Victim::Nobody, Duration::ZERO)
                .map_err(|error| format!("{error:#}"))
        })
        .map(drop)
    }

    /// Whether the agent was dead.
    fn restart_if_dead(&mut self) -> Result<bool> {
        if self.node.agent.is_running() {
            return Ok(false);
        }
        self.node.agent.start()?;
        Ok(true)
    }

    fn addresses(&self) -> Result<BTreeSet<String>> {
        let mut addresses = BTreeSet::new();
        for container in self.containers.values() {
            let ips = container.result["ips"].as_array().context("ips")?;
            for ip in ips {
                let text = ip["address"].as_str().context("an address")?.to_owned();
                ensure!(addresses.insert(text.clone()), "{text} is given twice");
            }
        }
        Ok(addresses)
    }

    /// Journal, kernel and datastore have the runtime's containers and nothing else.
    fn wait_consistent(&mut self) -> Result<()> {
        self.node.agent.wait_ready(LIMIT)?;
        let addresses = self.addresses()?;
        let count = self.containers.len();
        wait::until(LIMIT, "one truth everywhere", || {
            self.differences(&addresses, count)
                .map_err(|error| format!("{error:#}"))
        })
    }

    fn differences(&self, addresses: &BTreeSet<String>, count: usize) -> Result<()> {
        let links = self.node.links()?;
        ensure!(links.len() == count, "links {links:?}, not {count}");
        let routes = self.node.routes()?;
        let to_pods = routes.lines().filter(|line| line.contains(" dev oci"));
        let to_pods: BTreeSet<&str> = to_pods.filter_map(|l| l.split(' ').next()).collect();
        let bare = |text: &String| text.split('/').next().unwrap_or_default().to_owned();
        let expected: BTreeSet<String> = addresses.iter().map(bare).collect();
        let found: BTreeSet<String> = to_pods.into_iter().map(str::to_owned).collect();
        ensure!(found == expected, "routes {found:?}, not {expected:?}");
        let rules = self.node.rules();
        let in_sets =
            rules.matches(" . 10.244.").count() + rules.matches(" . fd00:10:244:").count();
        ensure!(in_sets == addresses.len(), "{in_sets} elements: {rules}");
        ensure!(ip_rules(&self.node)? == self.empty.1, "ip rules");
        let journal = self.journal()?;
        let in_journal: BTreeSet<String> = journal
            .endpoints
            .values()
            .flat_map(|live| live.endpoint.ip_networks.iter().map(ToString::to_string))
            .collect();
        ensure!(in_journal == *addresses, "journal {in_journal:?}");
        let written = self.node.endpoints_written();
        ensure!(written.len() == count, "datastore {written:?}");
        if count == 0 {
            ensure!(rules == self.empty.0, "{rules}\nis not\n{}", self.empty.0);
        }
        Ok(())
    }

    fn journal(&self) -> Result<State> {
        let bytes = std::fs::read(self.node.agent.state_dir().join("journal"))?;
        let replayed = replay(&bytes);
        ensure!(replayed.corrupt.is_none(), "{:?}", replayed.corrupt);
        Ok(State::from_records(&replayed.records))
    }
}

fn ip_rules(node: &Node) -> Result<String> {
    node.netns.run(&["ip", "rule"])
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn random_operations_and_crashes_leak_nothing_and_double_nothing() -> Result<()> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    let seed = number("OCICAT_CHAOS_SEED").unwrap_or(clock).max(1);
    let operations = number("OCICAT_CHAOS_OPERATIONS").unwrap_or(OPERATIONS as u64);
    println!("OCICAT_CHAOS_SEED={seed} OCICAT_CHAOS_OPERATIONS={operations}");
    let mut random = Random(seed);
    let mut world = World::new()?;
    for turn in 0..operations {
        let slot = random.below(SLOTS as u64) as usize;
        let victim = match random.below(10) {
            0..3 => Victim::Agent,
            3..5 => Victim::Plugin,
            _ => Victim::Nobody,
        };
        let after = Duration::from_micros(random.below(8_000));
        let taken = world.containers.contains_key(&slot);
        let kind = random.below(20);
        let operation = || format!("seed {seed}, operation {turn}: {kind} on {slot}, {victim:?}");
        let done = match (kind, taken) {
            (0, _) => {
                world.node.agent.stop(LIMIT)?;
                world.node.agent.start()
            }
            (1, _) => world.node.crash_and_start(),
            (2, _) => {
                let any = world.node.lab.netns("gc")?;
                // Killed, or without an agent, it is run again another time.
                let _ = world.call("GC", &any, victim, after);
                any.delete()
            }
            (3, true) => {
                let netns = world.containers[&slot].netns.clone();
                world.node.agent.wait_ready(LIMIT)?;
                world
                    .call("CHECK", &netns, Victim::Nobody, Duration::ZERO)
                    .map(drop)
            }
            (4, true) => world.delete(slot, victim, after, "namespace"),
            (_, true) => world.delete(slot, victim, after, "call"),
            (_, false) => world.add(slot, victim, after),
        };
        done.with_context(operation)?;
        world.wait_consistent().with_context(operation)?;
    }
    for slot in 0..SLOTS {
        world.delete(slot, Victim::Nobody, Duration::ZERO, "call")?;
    }
    world
        .wait_consistent()
        .with_context(|| format!("seed {seed}, at the end"))
}

/// strace kills the agent before its `nth` write to the journal from now on.
fn kill_at_write(node: &Node, nth: usize) -> Result<Process> {
    let journal = node.agent.state_dir().join("journal");
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-p", &node.agent.pid()?.to_string(), "-P"]);
    strace.arg(&journal).args(["-e", "trace=write", "-e"]);
    strace.arg(format!("inject=write:signal=KILL:when={nth}"));
    let process = Process::start(&node.netns, node.lab.dir(), "strace", &mut strace)?;
    let status = format!("/proc/{}/status", node.agent.pid()?);
    wait::until(LIMIT, "strace to be attached", || {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        match text.contains("TracerPid:\t0") {
            false => Ok(()),
            true => Err(process.log()),
        }
    })?;
    Ok(process)
}

#[test]
fn a_crash_at_every_write_of_the_journal_leaks_nothing_and_doubles_nothing() -> Result<()> {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("no strace: nothing tested");
        return Ok(());
    }
    let mut world = World::new()?;
    for nth in 1.. {
        let mut strace = kill_at_write(&world.node, nth)?;
        let mut killed = false;
        for (command, slot) in [
            ("add", 0),
            ("add", 1),
            ("del", 0),
            ("add", 2),
            ("del", 1),
            ("del", 2),
        ] {
            match command {
                "add" => world.add(slot, Victim::Nobody, Duration::ZERO)?,
                _ => world.delete(slot, Victim::Nobody, Duration::ZERO, "call")?,
            }
            killed = killed || world.restart_if_dead()?;
            if killed {
                world
                    .wait_consistent()
                    .with_context(|| format!("killed at write {nth}, {command} {slot}"))?;
            }
        }
        if strace.is_running() {
            strace.signal(Signal::INT)?;
        }
        strace.wait(LIMIT)?;
        killed = killed || world.restart_if_dead()?;
        world
            .wait_consistent()
            .with_context(|| format!("killed at write {nth}, at the end"))?;
        if !killed {
            ensure!(nth > 5, "only {nth} writes");
            return Ok(());
        }
    }
    Ok(())
}

#[test]
fn without_the_datastore_pods_come_and_go_and_all_is_written_when_it_is_back() -> Result<()> {
    let mut world = World::new()?;
    world.node.wait_snapshot("IpPool")?;
    world.node.hide_store()?;
    for round in 0..4 {
        for slot in 0..SLOTS {
            world.add(slot, Victim::Nobody, Duration::ZERO)?;
        }
        ensure!(world.containers.len() == SLOTS, "round {round}");
        world.addresses()?;
        for slot in 0..SLOTS {
            if round < 3 || slot % 2 == 0 {
                world.delete(slot, Victim::Nobody, Duration::ZERO, "call")?;
            }
        }
        if round == 1 {
            world.node.crash_and_start()?;
        }
    }
    world.node.show_store()?;
    world.wait_consistent()?;
    let any = world.node.lab.netns("status")?;
    let extra = json!({ "cniVersion": "1.1.0" });
    world
        .node
        .plugin
        .call("STATUS", &spec("status", "web"), &any, &extra)
        .map(drop)
}
