//! The cluster: made, asked, broken, removed.

use super::cache::Cache;
use super::machine::{self, Machine};
use super::pki::Pki;
use super::shape::{CONTROL_PLANE, Host, NODES, ROUTERS};
use super::{Proxy, cgroup, fabric, host, services};
use crate::lab::{Netns, process, wait};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a machine may take until its first process runs.
const BOOT: Duration = Duration::from_secs(20);
/// How long the control plane may take to answer on a busy machine.
const START: Duration = Duration::from_secs(180);

/// What a cluster is made as.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the names of its namespaces and cgroups start with.
    pub prefix: String,
    /// Who implements Services.
    pub proxy: Proxy,
}

/// A cluster that is up, or was.
#[derive(Debug, Clone)]
pub struct Cluster {
    prefix: String,
    dir: PathBuf,
    cache: Cache,
}

impl Cluster {
    /// The cluster of this prefix, whatever state it is in.
    pub fn named(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            dir: Cache::locate().dir().join("clusters").join(prefix),
            cache: Cache::locate(),
        }
    }

    /// Makes a cluster whose nodes have registered and have no pod network yet.
    ///
    /// # Errors
    /// A cluster of this prefix is there, something is not built, or a component does not start.
    pub fn up(options: &Options) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "namespaces need root: run it with sudo"
        );
        let cluster = Self::named(&options.prefix);
        ensure!(
            !cluster.dir.join("state").exists(),
            "the cluster {} is up, or was left half way: `cargo lab kube down --prefix {0}`",
            options.prefix
        );
        let made = cluster.make(options.proxy);
        if made.is_err() {
            // The first error says what is wrong; what is left is removed by the next `down`.
            let _ = cluster.halt_all();
        }
        made.map(|()| cluster)
    }

    fn make(&self, proxy: Proxy) -> Result<()> {
        let state = self.state();
        fs::create_dir_all(&state).with_context(|| state.display().to_string())?;
        host::prepare(&self.dir, &state)?;
        let pki = self.pki()?;
        services::certificates(&pki)?;
        fabric::make(self)?;
        for router in &ROUTERS {
            let machine = services::router(router, &self.machine_dir(router.name));
            self.describe(&machine)?;
        }
        let dir = self.machine_dir(CONTROL_PLANE.name);
        self.describe(&services::control_plane(&dir, &self.cache, &pki)?)?;
        for node in &NODES {
            let dir = self.machine_dir(node.name);
            self.describe(&services::node(node, &dir, &self.cache, &pki, proxy)?)?;
        }
        for name in self.machines() {
            self.boot(name)?;
        }
        for node in &NODES {
            // What a distribution's package brings: the runtime itself needs `loopback`.
            let copy =
                "cp -n /usr/lib/cni/* /opt/cni/bin/ 2>/dev/null; test -x /opt/cni/bin/loopback";
            self.exec(node.name, &["sh", "-c", copy])?;
            self.import(node.name, &self.cache.images())?;
        }
        self.wait_until("the API server to be ready", START, || {
            self.kubectl(&["get", "--raw=/readyz"]).map(drop)
        })?;
        for node in &NODES {
            self.wait_until(&format!("{} to register", node.name), START, || {
                let cidr =
                    self.kubectl(&["get", "node", node.name, "-o", "jsonpath={.spec.podCIDR}"])?;
                ensure!(!cidr.is_empty(), "no podCIDR");
                Ok(())
            })?;
        }
        self.wait_until("the default service account", START, || {
            self.kubectl(&["-n", "default", "get", "serviceaccount", "default"])
                .map(drop)
        })
    }

    /// Removes everything, also what an interrupted `up` or `down` left.
    ///
    /// # Errors
    /// Something refuses to go.
    pub fn down(&self) -> Result<()> {
        self.halt_all()?;
        fabric::remove(self)?;
        let all = Path::new(&self.prefix);
        self.wait_until("the cgroups to be empty", BOOT, || cgroup::remove(all))?;
        host::restore(&self.dir, &self.state())?;
        if self.dir.exists() {
            fs::remove_dir_all(&self.dir).with_context(|| self.dir.display().to_string())?;
        }
        Ok(())
    }

    fn halt_all(&self) -> Result<()> {
        for name in self.machines() {
            self.halt(name)?;
        }
        Ok(())
    }

    /// Names of everything with an own process 1.
    fn machines(&self) -> impl Iterator<Item = &'static str> + use<> {
        ROUTERS
            .iter()
            .map(|router| router.name)
            .chain([CONTROL_PLANE.name])
            .chain(NODES.iter().map(|node| node.name))
    }

    fn describe(&self, machine: &Machine) -> Result<()> {
        fs::create_dir_all(&machine.dir).context("a machine's directory")?;
        let text = serde_json::to_string_pretty(machine).context("a machine's description")?;
        fs::write(machine.dir.join("machine.json"), text).context("a machine's description")
    }

    /// Powers a machine on. Its network namespace is there.
    ///
    /// # Errors
    /// Its first process does not start; the end of its log.
    pub fn boot(&self, name: &str) -> Result<()> {
        let dir = self.machine_dir(name);
        let _ = fs::remove_file(dir.join(machine::PID));
        let cgroup = self.cgroup(name);
        // What an earlier life left would not take the first process of this one.
        self.wait_until(&format!("the cgroup of {name} to be empty"), BOOT, || {
            cgroup::remove(&cgroup)
        })?;
        cgroup::make(&cgroup)?;
        let mut joins = String::new();
        for file in cgroup::procs(&cgroup)? {
            joins.push_str(&format!("echo 0 >{} && ", file.display()));
        }
        let script = format!("{joins}exec \"$@\"");
        let log = File::options()
            .append(true)
            .create(true)
            .open(dir.join("machine.log"))
            .context("a machine's log")?;
        let mut waiter = Command::new("sh")
            .args(["-c", &script, "sh", "nsenter"])
            .arg(format!("--net={}", self.netns(name).path().display()))
            .args(["unshare", "--mount", "--uts", "--pid", "--cgroup", "--fork"])
            .args(["--propagation", "private", "--"])
            .arg(crate::lab::probe::lab_binary()?)
            .arg("machine")
            .arg(dir.join("machine.json"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("log")?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .context("unshare")?;
        self.wait_until(&format!("{name} to boot"), BOOT, || {
            if let Ok(Some(status)) = waiter.try_wait() {
                let said = fs::read_to_string(dir.join("machine.log")).unwrap_or_default();
                bail!("{status}: {}", said.lines().last().unwrap_or_default());
            }
            self.pid(name).map(drop)
        })?;
        cgroup::settle(&cgroup, waiter.id())
    }

    /// Cuts a machine's power. What it had on disk stays.
    ///
    /// # Errors
    /// It does not end.
    pub fn halt(&self, name: &str) -> Result<()> {
        let Ok(pid) = self.pid(name) else {
            return Ok(());
        };
        process::send(pid, rustix::process::Signal::KILL)?;
        self.wait_until(&format!("the end of {name}"), BOOT, || {
            ensure!(!is_running(pid), "process {pid} runs");
            Ok(())
        })?;
        let _ = fs::remove_file(self.machine_dir(name).join(machine::PID));
        Ok(())
    }

    /// Powers a halted machine on again, with its network as it was at the first time: whatever
    /// was in its namespace is gone.
    ///
    /// # Errors
    /// As [`Cluster::boot`].
    pub fn reboot(&self, host: &Host) -> Result<()> {
        self.halt(host.name)?;
        fabric::unplug(self, host)?;
        fabric::plug(self, host)?;
        self.boot(host.name)
    }

    /// Imports image archives into a node's runtime.
    ///
    /// # Errors
    /// The runtime does not come up, or refuses an archive.
    pub fn import(&self, node: &str, archives: &[PathBuf]) -> Result<()> {
        self.wait_until(&format!("containerd on {node}"), START, || {
            self.exec(node, &["ctr", "version"]).map(drop)
        })?;
        for archive in archives {
            let path = archive.display().to_string();
            self.exec(node, &["ctr", "-n", "k8s.io", "images", "import", &path])?;
        }
        Ok(())
    }

    /// Ends a service with a signal, and holds it down.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&self, name: &str, service: &str, signal: &str) -> Result<()> {
        let run = self.inside(name, machine::RUN)?;
        let pid = run.join(format!("{service}.pid"));
        fs::write(run.join(format!("{service}.stop")), "").context("stop")?;
        if let Ok(number) = fs::read_to_string(&pid) {
            self.exec(name, &["kill", &format!("-{signal}"), number.trim()])?;
        }
        self.wait_until(&format!("the end of {service} on {name}"), START, || {
            ensure!(!pid.exists(), "it runs");
            Ok(())
        })
    }

    /// Lets a stopped service start again.
    ///
    /// # Errors
    /// The machine is off.
    pub fn start(&self, name: &str, service: &str) -> Result<()> {
        let stop = self
            .inside(name, machine::RUN)?
            .join(format!("{service}.stop"));
        fs::remove_file(&stop).with_context(|| stop.display().to_string())
    }

    /// `kubectl` as the cluster's administrator.
    ///
    /// # Errors
    /// It fails: its words.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.kubectl_command()?;
        command.args(arguments);
        process::run(&mut command)
    }

    /// [`Cluster::kubectl`] `-o json`.
    ///
    /// # Errors
    /// It fails, or says something else.
    pub fn kubectl_json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).context("kubectl -o json")
    }

    /// `kubectl apply -f -`.
    ///
    /// # Errors
    /// The API server refuses: its words.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.kubectl_stdin(&["apply", "-f", "-"], manifest)
    }

    /// `kubectl` with something on its standard input.
    ///
    /// # Errors
    /// It fails: its words.
    pub fn kubectl_stdin(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = self.kubectl_command()?;
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("kubectl")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).context("kubectl")?;
        }
        let output = child.wait_with_output().context("kubectl")?;
        process::check(&command, output)
    }

    /// The administrator's `kubectl`, without arguments, where the API server can be reached.
    ///
    /// # Errors
    /// It is not built.
    pub fn kubectl_command(&self) -> Result<Command> {
        let mut command = Command::new("nsenter");
        command
            .arg(format!(
                "--net={}",
                self.netns(CONTROL_PLANE.name).path().display()
            ))
            .arg(self.cache.binary("kubectl")?)
            .arg(format!("--kubeconfig={}", self.kubeconfig().display()));
        Ok(command)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("pki/admin.kubeconfig")
    }

    /// A command in all namespaces of a machine; of the outside host, which is only a network.
    ///
    /// # Errors
    /// The machine is off.
    pub fn command(&self, name: &str) -> Result<Command> {
        let mut command = Command::new("nsenter");
        if self.machines().any(|machine| machine == name) {
            let pid = self.pid(name)?.to_string();
            command.args(["-t", &pid, "-m", "-u", "-n", "-p", "-C", "--"]);
        } else {
            command.arg(format!("--net={}", self.netns(name).path().display()));
        }
        Ok(command)
    }

    /// Runs a command on a machine to its end.
    ///
    /// # Errors
    /// It fails: its words.
    pub fn exec(&self, name: &str, words: &[&str]) -> Result<String> {
        let mut command = self.command(name)?;
        command.args(words);
        process::run(&mut command).with_context(|| format!("on {name}"))
    }

    /// Output of one `vtysh` command of a router.
    ///
    /// # Errors
    /// The router does not know it.
    pub fn vtysh(&self, router: &str, command: &str) -> Result<String> {
        self.exec(
            router,
            &["vtysh", "--vty_socket", "/run/frr", "-c", command],
        )
    }

    /// A path of a running machine, as the host sees it.
    ///
    /// # Errors
    /// The machine is off.
    pub fn inside(&self, name: &str, path: &str) -> Result<PathBuf> {
        Ok(PathBuf::from(format!(
            "/proc/{}/root{path}",
            self.pid(name)?
        )))
    }

    /// A machine's network namespace.
    pub fn netns(&self, name: &str) -> Netns {
        Netns::named(&format!("{}-", self.prefix), name)
    }

    /// What has been logged by a machine's service.
    pub fn log(&self, name: &str, service: &str) -> String {
        let path = self.machine_dir(name).join(format!("{service}.log"));
        fs::read(path).map_or_else(
            |error| error.to_string(),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// The API server's audit log.
    pub fn audit_log(&self) -> PathBuf {
        self.machine_dir(CONTROL_PLANE.name)
            .join(services::AUDIT_LOG)
    }

    /// What the cluster is made of.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// What names start with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Looks until `look` succeeds; its last error is in ours.
    ///
    /// # Errors
    /// Not within `limit`.
    pub fn wait_until<T>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        wait::until(limit, what, || look().map_err(|error| format!("{error:#}")))
    }

    fn pki(&self) -> Result<Pki> {
        Pki::open(self.dir.join("pki"))
    }

    fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub(super) fn machine_dir(&self, name: &str) -> PathBuf {
        self.state().join(name)
    }

    fn cgroup(&self, name: &str) -> PathBuf {
        Path::new(&self.prefix).join(name)
    }

    fn pid(&self, name: &str) -> Result<u32> {
        let path = self.machine_dir(name).join(machine::PID);
        let text = fs::read_to_string(&path).with_context(|| format!("{name} is off"))?;
        let pid: u32 = text.trim().parse().context("pid file")?;
        ensure!(is_first(pid), "{name} is off");
        Ok(pid)
    }
}

fn is_running(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Whether it is the first process of a namespace: a number that was given to somebody else since
/// is not.
fn is_first(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status"))
        .unwrap_or_default()
        .lines()
        .any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"))
}
