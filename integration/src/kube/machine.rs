//! One machine of the cluster: process 1 of its own namespaces, and how others reach it.
//!
//! A machine has a network, mount, PID, UTS and cgroup namespace. `/etc`, `/opt` and `/var` are
//! overlays whose upper layers outlive a power-off, `/run` is memory, `/sys` shows its own
//! devices, and the cgroup trees begin at its own cgroup. Killing process 1 is the power switch.

use super::cgroup;
use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::process::{WaitOptions, wait};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Where a machine keeps what says how its services are.
pub(super) const RUN: &str = "/run/machine";
/// In the machine's directory: its process 1 as the host numbers it, once it is up.
pub(super) const PID: &str = "pid";
/// Pause between two looks at the services.
const PAUSE: Duration = Duration::from_millis(50);
/// A service that ended is started again after this long.
const RESTART: Duration = Duration::from_millis(500);
/// Folders of which each machine has its own version.
const OVERLAYS: [&str; 3] = ["etc", "opt", "var"];

/// What a machine is and runs.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Machine {
    /// Host name.
    pub(super) name: String,
    /// What outlives a power-off, and the logs.
    pub(super) dir: PathBuf,
    /// Below `/var/lib`: plain directories, for those that can't live on an overlay.
    pub(super) plain: Vec<String>,
    /// Files that the machine finds at its first start, by path.
    pub(super) files: BTreeMap<PathBuf, String>,
    /// What it runs.
    pub(super) services: Vec<Service>,
}

/// A daemon that is started again whenever it ends, until somebody stops it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Service {
    /// Its name.
    pub(super) name: String,
    /// Program and arguments.
    pub(super) command: Vec<String>,
    /// A path that must exist before it starts.
    pub(super) after: Option<PathBuf>,
}

impl Service {
    pub(super) fn new(name: &str, command: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            after: None,
        }
    }

    pub(super) fn after(mut self, path: &str) -> Self {
        self.after = Some(PathBuf::from(path));
        self
    }
}

/// Runs as process 1 of the machine that the file describes. Never returns but for an error.
///
/// # Errors
/// A mount that the kernel refuses, or a service that can't be started.
pub fn run(description: &Path) -> Result<()> {
    let text = fs::read_to_string(description)
        .with_context(|| format!("machine {}", description.display()))?;
    let machine: Machine = serde_json::from_str(&text).context("a machine's description")?;
    // `/proc` is still that of the host: the number by which the host knows us.
    let pid = fs::read_link("/proc/self").context("/proc")?;
    prepare(&machine).with_context(|| format!("machine {}", machine.name))?;
    let temporary = machine.dir.join("pid.tmp");
    fs::write(&temporary, pid.to_string_lossy().as_bytes()).context("the pid file")?;
    fs::rename(&temporary, machine.dir.join(PID)).context("the pid file")?;
    supervise(&machine)
}

fn prepare(machine: &Machine) -> Result<()> {
    let trees = cgroup::hierarchies()?;
    file_system("proc", "/proc", "")?;
    file_system("sysfs", "/sys", "")?;
    cgroup::mount_own(&trees)?;
    for folder in OVERLAYS {
        let upper = machine.dir.join(folder);
        let work = machine.dir.join(format!("{folder}.work"));
        fs::create_dir_all(&upper).context("upper layer")?;
        fs::create_dir_all(&work).context("work directory")?;
        let options = format!(
            "lowerdir=/{folder},upperdir={},workdir={}",
            upper.display(),
            work.display()
        );
        file_system("overlay", &format!("/{folder}"), &options)?;
    }
    file_system("tmpfs", "/run", "mode=755")?;
    for path in [RUN, "/run/netns", "/run/frr", "/run/lock"] {
        fs::create_dir_all(path).with_context(|| path.to_owned())?;
    }
    // FRR's daemons drop root for a user of their own.
    fs::set_permissions(
        "/run/frr",
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .context("/run/frr")?;
    for name in &machine.plain {
        let (from, to) = (machine.dir.join(name), Path::new("/var/lib").join(name));
        fs::create_dir_all(&from).context("plain directory")?;
        fs::create_dir_all(&to).context("plain directory")?;
        mount_bind(&from, &to).with_context(|| format!("bind of {}", to.display()))?;
    }
    // Volumes with mount propagation need a tree that is shared below this machine.
    mount_change(
        "/",
        MountPropagationFlags::SHARED | MountPropagationFlags::REC,
    )
    .context("a shared tree")?;
    rustix::system::sethostname(machine.name.as_bytes()).context("host name")?;
    let seen = Path::new("/etc/machine-seen");
    if !seen.exists() {
        first_start(machine)?;
        File::create(seen).context("first start")?;
    }
    cgroup::enter_leaf(&trees)
}

fn first_start(machine: &Machine) -> Result<()> {
    let hosts = format!("127.0.0.1 localhost {}\n", machine.name);
    fs::write("/etc/hosts", hosts).context("/etc/hosts")?;
    fs::write("/etc/resolv.conf", "").context("/etc/resolv.conf")?;
    fs::write("/etc/machine-id", "").context("/etc/machine-id")?;
    // Whatever the host has of a container network is not this machine's.
    let _ = fs::remove_dir_all("/etc/cni/net.d");
    fs::create_dir_all("/etc/cni/net.d").context("/etc/cni/net.d")?;
    fs::create_dir_all("/opt/cni/bin").context("/opt/cni/bin")?;
    for (path, text) in &machine.files {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn file_system(kind: &str, target: &str, options: &str) -> Result<()> {
    let options = std::ffi::CString::new(options).context("mount options")?;
    mount(
        kind,
        target,
        kind,
        MountFlags::empty(),
        Some(options.as_c_str()),
    )
    .with_context(|| format!("{kind} on {target}"))
}

/// What is known of a service.
#[derive(Debug, Default)]
struct State {
    pid: Option<i32>,
    ended: Option<Instant>,
}

fn supervise(machine: &Machine) -> Result<()> {
    let mut states: Vec<State> = machine.services.iter().map(|_| State::default()).collect();
    loop {
        for (service, state) in machine.services.iter().zip(&mut states) {
            let rested = state.ended.is_none_or(|at| at.elapsed() >= RESTART);
            let wanted = !run_file(&service.name, "stop").exists();
            let possible = service.after.as_ref().is_none_or(|path| path.exists());
            if state.pid.is_none() && rested && wanted && possible {
                state.pid = Some(start(machine, service)?);
            }
        }
        // Process 1 reaps whatever loses its parent, too.
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get();
            let of_ours = states.iter().position(|state| state.pid == Some(pid));
            if let Some(index) = of_ours {
                let name = &machine.services[index].name;
                let _ = fs::remove_file(run_file(name, "pid"));
                writeln!(log(machine, name)?, "== ended: {status:?}").context("log")?;
                states[index] = State {
                    pid: None,
                    ended: Some(Instant::now()),
                };
            }
        }
        std::thread::sleep(PAUSE);
    }
}

fn start(machine: &Machine, service: &Service) -> Result<i32> {
    let Some((program, arguments)) = service.command.split_first() else {
        bail!("service {} has no command", service.name);
    };
    let out = log(machine, &service.name)?;
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(out.try_clone().context("log")?)
        .stderr(out)
        .spawn()
        .with_context(|| format!("service {}: {program}", service.name))?;
    fs::write(run_file(&service.name, "pid"), child.id().to_string()).context("pid file")?;
    i32::try_from(child.id()).context("process id")
}

fn run_file(service: &str, extension: &str) -> PathBuf {
    Path::new(RUN).join(format!("{service}.{extension}"))
}

fn log(machine: &Machine, service: &str) -> Result<File> {
    let path = machine.dir.join(format!("{service}.log"));
    File::options()
        .append(true)
        .create(true)
        .open(&path)
        .with_context(|| path.display().to_string())
}
