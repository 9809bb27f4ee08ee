//! Network namespaces by name.

use super::process;
use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// Where `ip netns` keeps its namespaces.
pub const RUN_NETNS: &str = "/run/netns";

/// A named network namespace. The value is only the name: it removes nothing when dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Netns {
    name: String,
    full_name: String,
}

impl Netns {
    pub(crate) fn named(prefix: &str, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            full_name: format!("{prefix}{name}"),
        }
    }

    /// Its name inside the lab.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its name for `ip netns`.
    pub fn full_name(&self) -> &str {
        &self.full_name
    }

    /// Its file, as in `CNI_NETNS`.
    pub fn path(&self) -> PathBuf {
        Path::new(RUN_NETNS).join(&self.full_name)
    }

    /// Runs `f` on a thread inside the namespace. Children that `f` starts are inside too, and so
    /// is the view of `/proc/sys/net`.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn within<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        let file = File::open(self.path()).with_context(|| format!("namespace {}", self.name))?;
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok::<T, rustix::io::Errno>(f())
            });
            match inside.join() {
                Ok(result) => result.with_context(|| format!("entering {}", self.name)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Starts a command inside the namespace.
    ///
    /// # Errors
    /// The program can't be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        self.within(|| command.spawn())?
            .with_context(|| format!("{}: {}", self.name, process::shown(command)))
    }

    /// Runs a command to its end and returns everything it said, whether it succeeded or not.
    ///
    /// # Errors
    /// The program can't be started.
    pub fn output(&self, command: &mut Command) -> Result<Output> {
        command.stdin(Stdio::null());
        self.within(|| command.output())?
            .with_context(|| format!("{}: {}", self.name, process::shown(command)))
    }

    /// Runs a command that must succeed; returns its standard output.
    ///
    /// # Errors
    /// It failed: the command and what it said.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(args[0]);
        command.args(&args[1..]);
        let output = self.output(&mut command)?;
        process::check(&command, output).with_context(|| format!("in {}", self.name))
    }

    /// Runs lines of `ip` commands in one go (`ip -batch`); the first failure is the error.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn ip<S: AsRef<str>>(&self, lines: impl IntoIterator<Item = S>) -> Result<()> {
        let text: String = lines
            .into_iter()
            .map(|line| format!("{}\n", line.as_ref()))
            .collect();
        let mut command = Command::new("ip");
        command
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.spawn(&mut command)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(text.as_bytes()).context("ip -batch")?;
        }
        let output = child.wait_with_output().context("ip -batch")?;
        process::check(&command, output).with_context(|| format!("in {}: {text}", self.name))?;
        Ok(())
    }

    /// Writes a sysctl, named with dots.
    ///
    /// # Errors
    /// It does not exist or refuses the value.
    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        self.within(|| std::fs::write(&path, value))?
            .with_context(|| format!("{}: {name} = {value}", self.name))
    }

    /// Reads a sysctl, named with dots.
    ///
    /// # Errors
    /// It does not exist.
    pub fn sysctl(&self, name: &str) -> Result<String> {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        let value = self.within(|| std::fs::read_to_string(&path))?;
        Ok(value
            .with_context(|| format!("{}: {name}", self.name))?
            .trim()
            .to_owned())
    }

    /// Removes the namespace with everything in it, as the runtime does with a pod's.
    ///
    /// # Errors
    /// The `ip` command's words.
    pub fn delete(&self) -> Result<()> {
        process::run(Command::new("ip").args(["netns", "del", &self.full_name])).map(drop)
    }
}
