//! Node agents.

use super::{Lab, Netns, Process, Store, wait};
use anyhow::{Context, Result, bail};
use model::names::HEALTH_PORT;
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long one HTTP request to the agent may take.
const HTTP_LIMIT: Duration = Duration::from_secs(10);

/// An agent and its namespace: the node. It can be stopped and started again with its state.
#[derive(Debug)]
pub struct Agent {
    node: String,
    netns: Netns,
    dir: PathBuf,
    store: PathBuf,
    binary: PathBuf,
    flags: Vec<String>,
    process: Option<Process>,
}

impl Agent {
    /// The agent of `node` in `netns`, not started.
    ///
    /// # Errors
    /// The agent's binary is not built.
    pub fn new(lab: &Lab, netns: &Netns, node: &str, store: &Store) -> Result<Self> {
        Ok(Self {
            node: node.to_owned(),
            netns: netns.clone(),
            dir: lab.subdir(&format!("agent-{node}"))?,
            store: store.path().to_owned(),
            binary: binary("OCICAT_NODE_BIN", "ocicat-node")?,
            flags: Vec::new(),
            process: None,
        })
    }

    /// The agent of `node` in a cluster that its flags name, not started.
    ///
    /// # Errors
    /// The agent's binary is not built.
    pub fn in_cluster(lab: &Lab, netns: &Netns, node: &str) -> Result<Self> {
        Ok(Self {
            node: node.to_owned(),
            netns: netns.clone(),
            dir: lab.subdir(&format!("agent-{node}"))?,
            store: PathBuf::from("kubernetes"),
            binary: binary("OCICAT_NODE_BIN", "ocicat-node")?,
            flags: Vec::new(),
            process: None,
        })
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The node's namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The agent's sockets.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// The agent's journal and snapshot.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Starts the process; does not wait until it is ready.
    ///
    /// # Errors
    /// It already runs, or can't be started.
    pub fn start(&mut self) -> Result<()> {
        if self.process.as_mut().is_some_and(Process::is_running) {
            bail!("agent {} already runs", self.node);
        }
        let mut command = Command::new(&self.binary);
        command.args(["--node-name", &self.node, "--log", "debug"]);
        command.arg("--datastore").arg(&self.store);
        command
            .arg("--run-dir")
            .arg(self.run_dir())
            .arg("--state-dir")
            .arg(self.state_dir());
        command.args(&self.flags);
        self.process = Some(Process::start(
            &self.netns,
            &self.dir,
            "ocicat-node",
            &mut command,
        )?);
        Ok(())
    }

    /// Waits until `/readyz` says 200; fails at once if the process ends.
    ///
    /// # Errors
    /// It ends, or is not ready in time: the reasons that it gives.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        let what = format!("agent {} to be ready", self.node);
        let Some(process) = self.process.as_mut() else {
            bail!("agent {} is down", self.node)
        };
        let netns = &self.netns;
        let mut ended = None;
        let ready = wait::until(limit, &what, || {
            if let Err(error) = process.expect_running() {
                ended = Some(error);
                return Ok(());
            }
            match http(netns, "/readyz") {
                Ok((200, _)) => Ok(()),
                Ok((status, body)) => Err(format!("{status} {}", body.trim())),
                Err(error) => Err(format!("{error:#}")),
            }
        });
        ended.map_or(ready, Err)
    }

    /// Status and body of a page of the health endpoint.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn health(&self, path: &str) -> Result<(u16, String)> {
        http(&self.netns, path)
    }

    /// Flags for starts from now on, besides those that every agent of a lab has.
    pub fn set_flags(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    }

    /// What is started.
    pub fn program(&self) -> &Path {
        &self.binary
    }

    /// What is started instead of the agent from now on.
    pub fn set_binary(&mut self, binary: PathBuf) {
        self.binary = binary;
    }

    /// Sends a signal and does not wait.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process
            .as_ref()
            .context("the agent is down")?
            .signal(signal)
    }

    /// Ends it as a crash does (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.end(Signal::KILL, Duration::from_secs(60))
    }

    /// Ends it as an operator does (SIGTERM).
    ///
    /// # Errors
    /// It does not run, or has not ended after `limit`.
    pub fn stop(&mut self, limit: Duration) -> Result<()> {
        self.end(Signal::TERM, limit)
    }

    fn end(&mut self, signal: Signal, limit: Duration) -> Result<()> {
        let Some(mut process) = self.process.take() else {
            bail!("agent {} is down", self.node)
        };
        process.signal(signal)?;
        process.wait(limit).map(drop)
    }

    /// Everything that it has logged since the lab began.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("ocicat-node.log")).unwrap_or_default()
    }

    /// The lines of its log that have these words.
    pub fn log_of(&self, words: &str) -> String {
        let log = self.log();
        let lines = log.lines().filter(|line| line.contains(words));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Whether its process runs.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// Its process id.
    ///
    /// # Errors
    /// It does not run.
    pub fn pid(&self) -> Result<u32> {
        let process = self.process.as_ref().context("the agent is down")?;
        Ok(process.pid())
    }

    /// Resident memory in KiB.
    ///
    /// # Errors
    /// It does not run.
    pub fn rss_kib(&self) -> Result<u64> {
        let process = self.process.as_ref().context("the agent is down")?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.context("VmRSS")?.parse().context("VmRSS")
    }

    /// Output of the `ocicat` command against this agent.
    ///
    /// # Errors
    /// The command fails.
    pub fn ctl(&self, args: &[&str]) -> Result<String> {
        let (binary, run_dir) = (self.binary.to_string_lossy(), self.run_dir());
        let run_dir = run_dir.to_string_lossy();
        let mut all = vec![&*binary, "ctl", "--run-dir", &*run_dir];
        all.extend(args);
        self.netns.run(&all)
    }
}

/// Path of a binary of ours: from the environment, or where cargo puts it beside this program.
///
/// # Errors
/// It is in none of these places.
pub fn binary(variable: &str, name: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(PathBuf::from(path));
    }
    let exe = std::env::current_exe().context("path of this program")?;
    let near = exe.ancestors().skip(1).take(2).map(Path::to_path_buf);
    let targets = exe.ancestors().skip(2).take(2).flat_map(|target| {
        let musl = format!("{}-unknown-linux-musl/cni", std::env::consts::ARCH);
        [target.join(musl), target.join("cni")]
    });
    let profiles: Vec<PathBuf> = if name == "ocicat-cni" {
        targets.chain(near).collect()
    } else {
        near.collect()
    };
    profiles
        .iter()
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .with_context(|| {
            format!("{name} is not built ({variable} is not set, and it is not in {profiles:?})")
        })
}

fn http(netns: &Netns, path: &str) -> Result<(u16, String)> {
    let reply = netns.within(|| -> Result<String> {
        let address = (Ipv4Addr::LOCALHOST, HEALTH_PORT).into();
        let mut stream = TcpStream::connect_timeout(&address, HTTP_LIMIT)?;
        stream.set_read_timeout(Some(HTTP_LIMIT))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        Ok(reply)
    })??;
    let status = reply
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let body = reply.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((
        status.with_context(|| format!("not HTTP: {reply}"))?,
        body.to_owned(),
    ))
}
