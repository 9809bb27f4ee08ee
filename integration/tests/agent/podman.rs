//! Two real containers on our network, started by Podman. Without a Podman that knows CNI (before
//! version 5), runc and a static busybox there is nothing to test.

use crate::node::{LIMIT, Node};
use anyhow::{Context, Result, bail};
use integration::lab::probe::Protocol;
use integration::lab::{Probe, wait};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Podman with all its state in the lab's folder.
struct Podman<'a> {
    node: &'a Node,
    dir: PathBuf,
    rootfs: PathBuf,
}

impl<'a> Podman<'a> {
    fn new(node: &'a Node) -> Result<Self> {
        let dir = node.lab.subdir("podman")?;
        let (plugins, lists) = (dir.join("plugins"), dir.join("lists"));
        for folder in [&plugins, &lists] {
            std::fs::create_dir_all(folder)?;
        }
        std::os::unix::fs::symlink(&node.plugin.binary, plugins.join("ocicat"))?;
        let list = json!({
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [{
                "type": "ocicat",
                "socket": node.plugin.config["socket"],
                "capabilities": { "portMappings": true, "ips": true },
            }],
        });
        std::fs::write(lists.join("pods.conflist"), list.to_string())?;
        let config = format!(
            "[network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = [{plugins:?}]\n\
             network_config_dir = {lists:?}\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n\
             runtime = \"runc\"\n[containers]\nlog_driver = \"k8s-file\"\n"
        );
        std::fs::write(dir.join("containers.conf"), config)?;
        let rootfs = dir.join("rootfs");
        for folder in ["bin", "etc", "proc", "sys", "dev", "run", "tmp", "www"] {
            std::fs::create_dir_all(rootfs.join(folder))?;
        }
        std::fs::copy("/bin/busybox", rootfs.join("bin/busybox"))?;
        std::fs::write(rootfs.join("www/index.html"), "served\n")?;
        Ok(Self { node, dir, rootfs })
    }

    fn call(&self, args: &[&str]) -> Result<String> {
        let mut podman = Command::new("podman");
        podman.env("CONTAINERS_CONF", self.dir.join("containers.conf"));
        podman.arg("--root").arg(self.dir.join("root"));
        podman.arg("--runroot").arg(self.dir.join("run"));
        podman.arg("--tmpdir").arg(self.dir.join("tmp"));
        podman.args(["--storage-driver", "vfs"]).args(args);
        let output = self.node.netns.output(&mut podman)?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() {
            bail!(
                "podman {args:?}: {said} {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(said)
    }

    /// Starts a container with an HTTP server; answers its IPv4 address.
    fn serve(&self, name: &str, options: &[&str]) -> Result<String> {
        let rootfs = self.rootfs.to_string_lossy();
        let mut args = vec!["run", "-d", "--name", name, "--network", "pods"];
        // A machine may forbid to raise limits.
        args.extend([
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
        ]);
        args.extend(options);
        args.extend(["--rootfs", &*rootfs]);
        args.extend(["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]);
        self.call(&args)?;
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        self.call(&["inspect", name, "--format", format])
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        // Containers outlive the command that started them; what can't be removed is told by the
        // namespaces that the lab finds at its end.
        let _ = self.call(&["rm", "-a", "-f", "-t", "0"]);
    }
}

fn installed() -> bool {
    let found = Path::new("/bin/busybox").exists()
        && Command::new("podman").arg("--version").output().is_ok();
    if !found {
        eprintln!("no podman or no busybox: nothing tested");
    }
    found
}

#[test]
fn two_containers_of_podman_reach_each_other_and_a_published_port() -> Result<()> {
    if !installed() {
        return Ok(());
    }
    let node = Node::started()?;
    let podman = Podman::new(&node)?;
    let backend = podman.call(&["info", "--format", "{{.Host.NetworkBackend}}"]);
    if !matches!(&backend, Ok(backend) if backend == "cni") {
        eprintln!("this podman has no CNI ({backend:?}): nothing tested");
        return Ok(());
    }
    let first = podman.serve("first", &["-p", "30080:8080"])?;
    let second = podman.serve("second", &[])?;
    assert!(first.starts_with("10.244.") && second.starts_with("10.244."));
    assert_ne!(first, second);
    for (from, to) in [("first", &second), ("second", &first)] {
        let url = format!("http://{to}:8080/");
        let get = [
            "exec",
            from,
            "/bin/busybox",
            "timeout",
            "5",
            "/bin/busybox",
            "wget",
            "-q",
            "-O",
            "-",
            &url,
        ];
        let page = wait::until(LIMIT, "a page", || {
            podman.call(&get).map_err(|error| format!("{error:#}"))
        });
        assert_eq!(page?, "served", "{from} -> {to}");
    }
    let page = node.host.run(&[
        "timeout",
        "5",
        "busybox",
        "wget",
        "-q",
        "-O",
        "-",
        "http://10.1.0.11:30080/",
    ]);
    assert_eq!(page.context("the published port")?.trim(), "served");
    let outside = Probe::start(&node.host, "outside")?;
    podman.call(&["rm", "-f", "-t", "0", "first"])?;
    podman.call(&["rm", "-f", "-t", "0", "second"])?;
    wait::until(LIMIT, "no link", || match node.links() {
        Ok(links) if links.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    let gone = outside.reach(Protocol::Tcp, "10.1.0.11".parse()?, 30080, LIMIT);
    assert!(gone.is_err(), "{gone:?}");
    Ok(())
}
