//! Network namespaces of a test's own, removed even after a panic.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)] // each test uses a part of it

pub mod ruleset;

use kernel::{Kernel, netns};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

pub struct Namespace {
    pub name: String,
    file: OwnedFd,
    /// Links that come with every namespace, such as `tunl0` where the kernel has ipip.
    born_with: Vec<String>,
}

impl Namespace {
    pub fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("krnl-{}-{number}", std::process::id());
        let file = netns::create(&name).unwrap();
        let mut namespace = Self {
            name,
            file,
            born_with: vec![],
        };
        namespace.sh("ip link set lo up");
        namespace.born_with = namespace.links(&mut namespace.kernel());
        namespace
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Runs something on a thread inside.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        netns::run(self.fd(), inside).unwrap()
    }

    pub fn kernel(&self) -> Kernel {
        self.run(|| Kernel::open().unwrap())
    }

    /// Runs a shell command inside; answers its output, or its complaint.
    pub fn try_sh(&self, command: &str) -> Result<String, String> {
        let args = ["netns", "exec", &self.name, "sh", "-c", command];
        let output = Command::new("ip").args(args).output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    #[track_caller]
    pub fn sh(&self, command: &str) -> String {
        self.try_sh(command)
            .unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// Names of the links that a test made, in order.
    pub fn links(&self, kernel: &mut Kernel) -> Vec<String> {
        let names = kernel.links().unwrap().into_iter().map(|link| link.name);
        let mut names: Vec<_> = names
            .filter(|name| !self.born_with.contains(name))
            .collect();
        names.sort();
        names
    }

    /// Feeds text to `nft -f -` inside.
    pub fn nft(&self, text: &str) -> Result<(), String> {
        self.load("nft -f", text)
    }

    /// Has a command read a text from a file.
    pub fn load(&self, command: &str, text: &str) -> Result<(), String> {
        let file = tempfile(text);
        let loaded = self.try_sh(&format!("{command} {}", file.display()));
        std::fs::remove_file(file).unwrap();
        loaded.map(drop)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = netns::delete(&self.name);
    }
}

fn tempfile(text: &str) -> std::path::PathBuf {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("krnl-{}-{number}.nft", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}
