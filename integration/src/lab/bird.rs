//! BIRD 2 in a namespace, asked through `birdc`.

use super::router::RouterConfig;
use super::{Lab, Netns, Process, wait};
use anyhow::{Context, Result};
use rustix::process::Signal;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// A running BIRD.
#[derive(Debug)]
pub struct Bird {
    netns: Netns,
    socket: PathBuf,
    process: Process,
}

impl Bird {
    /// Starts BIRD and waits until it answers.
    ///
    /// # Errors
    /// It does not start; its log is in the error.
    pub fn start(lab: &Lab, netns: &Netns, config: &RouterConfig) -> Result<Self> {
        Self::start_with(lab, netns, &render(config))
    }

    /// Likewise, with a configuration in BIRD's own words.
    ///
    /// # Errors
    /// As [`Bird::start`].
    pub fn start_with(lab: &Lab, netns: &Netns, config: &str) -> Result<Self> {
        let dir = lab.subdir(&format!("bird-{}", netns.name()))?;
        let file = dir.join("bird.conf");
        std::fs::write(&file, config).context("bird.conf")?;
        let socket = dir.join("bird.ctl");
        let mut command = Command::new("bird");
        command
            .arg("-f")
            .arg("-c")
            .arg(&file)
            .arg("-s")
            .arg(&socket);
        command.arg("-P").arg(dir.join("bird.pid"));
        let process = Process::start(netns, &dir, "bird", &mut command)?;
        let mut bird = Self {
            netns: netns.clone(),
            socket,
            process,
        };
        wait::until(Duration::from_secs(60), "BIRD to answer", || {
            bird.process
                .expect_running()
                .map_err(|error| format!("{error:#}"))?;
            bird.birdc("show status")
                .map_err(|error| format!("{error:#}"))
        })?;
        Ok(bird)
    }

    /// Output of one `birdc` command.
    ///
    /// # Errors
    /// birdc can't reach BIRD.
    pub fn birdc(&self, command: &str) -> Result<String> {
        let mut args = vec!["birdc", "-s"];
        let socket = self.socket.to_string_lossy();
        args.push(&socket);
        args.extend(command.split(' '));
        self.netns.run(&args)
    }

    /// State of a session: the `info` column of `show protocols`, such as `Established`.
    ///
    /// # Errors
    /// As [`Bird::birdc`].
    pub fn session(&self, name: &str) -> Result<String> {
        let all = self.birdc("show protocols")?;
        let line = all
            .lines()
            .find(|line| line.split_whitespace().next() == Some(name));
        let info = line.map_or("not configured", |line| {
            line.split_whitespace().nth(5).unwrap_or(line)
        });
        Ok(info.to_owned())
    }

    /// Ends it at once (`SIGKILL`).
    ///
    /// # Errors
    /// It has ended before.
    pub fn kill(&self) -> Result<()> {
        self.process.signal(Signal::KILL)
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

fn render(config: &RouterConfig) -> String {
    let mut text = format!(
        "log stderr all;\nrouter id {};\ndebug protocols {{ states }};\n\
         protocol device {{ scan time 5; }}\nprotocol direct {{ ipv4; ipv6; }}\n",
        config.router_id
    );
    for family in ["ipv4", "ipv6"] {
        let _ = writeln!(
            text,
            "protocol kernel kernel_{family} {{ {family} {{ import none; export where source = RTS_BGP; }}; }}"
        );
    }
    for n in &config.neighbors {
        let _ = write!(
            text,
            "protocol bgp {name} {{\n  local {local} as {asn};\n  neighbor {address} as {remote};\n  \
             connect delay time 1;\n  connect retry time 2;\n  error wait time 1, 4;\n  \
             ipv4 {{ import all; export all; next hop self; }};\n  \
             ipv6 {{ import all; export all; next hop self; next hop address {local6}; }};\n}}\n",
            name = n.name,
            local = n.local_address,
            asn = config.asn,
            address = n.address,
            remote = n.asn,
            local6 = n.local_ipv6,
        );
    }
    text
}
