//! FRR: zebra and bgpd in a namespace, asked through `vtysh`.

use super::router::RouterConfig;
use super::{Lab, Netns, Process, wait};
use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::Value;
use std::fmt::Write;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where Debian keeps the daemons.
pub(crate) const DAEMONS: &str = "/usr/lib/frr";

/// A running FRR.
#[derive(Debug)]
pub struct Frr {
    netns: Netns,
    dir: PathBuf,
    bgpd: Process,
    others: Vec<Process>,
}

impl Frr {
    /// Starts zebra and bgpd and waits until both answer.
    ///
    /// # Errors
    /// A daemon does not start; its log is in the error.
    pub fn start(lab: &Lab, netns: &Netns, config: &RouterConfig) -> Result<Self> {
        Self::start_with(lab, netns, &["zebra"], &render(netns.name(), config))
    }

    /// Starts these daemons, of which the first is zebra, and bgpd with a configuration in its own
    /// words.
    ///
    /// # Errors
    /// As [`Frr::start`].
    pub fn start_with(lab: &Lab, netns: &Netns, others: &[&str], config: &str) -> Result<Self> {
        let dir = lab.subdir(&format!("frr-{}", netns.name()))?;
        // The daemons drop root for a user of their own.
        std::fs::set_permissions(&dir, Permissions::from_mode(0o777)).context("frr's directory")?;
        let file = dir.join("frr.conf");
        std::fs::write(&file, config).context("frr.conf")?;
        let start = |daemon: &str, socket: &str| {
            let socket = dir.join(socket);
            // An earlier one may have been killed.
            if socket.exists() {
                std::fs::remove_file(&socket).context("an old socket")?;
            }
            let mut command = Command::new(format!("{DAEMONS}/{daemon}"));
            command.args(["-A", "127.0.0.1", "-P", "0"]);
            command
                .args(["--log", "stdout"])
                .arg("-f")
                .arg(&file)
                .arg("--vty_socket")
                .arg(&dir);
            command.arg("-i").arg(dir.join(format!("{daemon}.pid")));
            command.arg("-z").arg(dir.join("zserv.api"));
            if daemon == "bfdd" {
                command.arg("--bfdctl").arg(dir.join("bfdd.sock"));
            }
            let mut process = Process::start(netns, &dir, daemon, &mut command)?;
            wait_for_socket(&socket, &mut process)?;
            Ok(process)
        };
        let others = others
            .iter()
            .map(|daemon| match *daemon {
                "zebra" => start(daemon, "zserv.api"),
                daemon => start(daemon, &format!("{daemon}.vty")),
            })
            .collect::<Result<_>>()?;
        let bgpd = start("bgpd", "bgpd.vty")?;
        Ok(Self {
            netns: netns.clone(),
            dir,
            bgpd,
            others,
        })
    }

    /// Ends all daemons at once (`SIGKILL`).
    ///
    /// # Errors
    /// One has ended before.
    pub fn kill(&self) -> Result<()> {
        let others = self.others.iter();
        others
            .chain([&self.bgpd])
            .try_for_each(|daemon| daemon.signal(Signal::KILL))
    }

    /// Output of one `vtysh` command.
    ///
    /// # Errors
    /// vtysh fails or does not know the command.
    pub fn vtysh(&self, command: &str) -> Result<String> {
        let dir = self.dir.to_string_lossy();
        self.netns
            .run(&["vtysh", "--vty_socket", &dir, "-c", command])
    }

    /// Enters lines of configuration.
    ///
    /// # Errors
    /// vtysh refuses one.
    pub fn configure(&self, lines: &[&str]) -> Result<()> {
        let dir = self.dir.to_string_lossy();
        let mut args = vec!["vtysh", "--vty_socket", &*dir, "-c", "configure terminal"];
        args.extend(lines.iter().flat_map(|line| ["-c", line]));
        self.netns.run(&args).map(drop)
    }

    /// Output of `show ... json`.
    ///
    /// # Errors
    /// As [`Frr::vtysh`], or the output is not JSON.
    pub fn json(&self, command: &str) -> Result<Value> {
        let text = self.vtysh(command)?;
        serde_json::from_str(&text).with_context(|| format!("`{command}` said: {text}"))
    }

    /// State of a session, such as `Established`.
    ///
    /// # Errors
    /// As [`Frr::json`].
    pub fn session(&self, address: &str) -> Result<String> {
        let all = self.json("show bgp neighbors json")?;
        let state = &all[address]["bgpState"];
        Ok(state.as_str().unwrap_or("not configured").to_owned())
    }

    /// Prefixes of the BGP table; `family` is `ipv4` or `ipv6`.
    ///
    /// # Errors
    /// As [`Frr::json`].
    pub fn prefixes(&self, family: &str) -> Result<Vec<String>> {
        let table = self.json(&format!("show bgp {family} unicast json"))?;
        let routes = table["routes"].as_object();
        Ok(routes
            .map(|routes| routes.keys().cloned().collect())
            .unwrap_or_default())
    }

    /// Everything that bgpd has logged.
    pub fn log(&self) -> String {
        self.bgpd.log()
    }

    /// Directory of the vty sockets, for `vtysh --vty_socket`.
    pub fn vty_dir(&self) -> &Path {
        &self.dir
    }
}

fn wait_for_socket(path: &Path, daemon: &mut Process) -> Result<()> {
    let what = format!("{} to appear", path.display());
    let mut ended = None;
    let appeared = wait::until(Duration::from_secs(60), &what, || {
        ended = daemon.expect_running().err();
        if ended.is_some() || path.exists() {
            Ok(())
        } else {
            Err("nothing".to_owned())
        }
    });
    ended.map_or(appeared, Err)
}

/// One file for both daemons. `ebgp-requires-policy` is off because the lab filters nothing, and
/// the timers are short because nobody wants to watch the defaults.
fn render(hostname: &str, config: &RouterConfig) -> String {
    let mut text = format!(
        "hostname {hostname}\nlog timestamp precision 3\ndebug bgp updates in\nrouter bgp {}\n bgp router-id {}\n \
         no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n no bgp network import-check\n",
        config.asn, config.router_id
    );
    for n in &config.neighbors {
        let _ = write!(
            text,
            " neighbor {0} remote-as {1}\n neighbor {0} description {2}\n \
             neighbor {0} timers connect 1\n neighbor {0} advertisement-interval 0\n",
            n.address, n.asn, n.name
        );
    }
    for family in ["ipv4", "ipv6"] {
        let _ = write!(
            text,
            " address-family {family} unicast\n  redistribute connected\n"
        );
        for n in &config.neighbors {
            let _ = writeln!(text, "  neighbor {} activate", n.address);
        }
        text.push_str(" exit-address-family\n");
    }
    text.push_str("exit\n");
    text
}
