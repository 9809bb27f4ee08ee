//! What a runtime gets by the official CNI library, in every version of the specification, and in
//! lists with the reference plugins. Without Go or the reference plugins there is nothing to test.

use crate::node::{LIMIT, Node};
use anyhow::{Context, Result, bail, ensure};
use integration::lab::probe::Protocol;
use integration::lab::{Netns, Probe, wait};
use ipnet::Ipv4Net;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];
const REFERENCE: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// The driver, built once; none where there is no Go.
fn driver() -> Option<&'static Path> {
    static DRIVER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let build = || {
        let path = std::env::current_exe().ok()?.with_file_name("cni-driver");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("cni-driver");
        let mut go = Command::new("go");
        go.args(["build", "-o"]).arg(&path).arg(".");
        let status = match go.current_dir(source).status() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            status => status.expect("go can be started"),
        };
        assert!(status.success(), "the driver is not built");
        Some(path)
    };
    DRIVER.get_or_init(build).as_deref()
}

/// Where the reference plugins are.
fn reference() -> Option<&'static str> {
    let found = REFERENCE
        .into_iter()
        .find(|dir| Path::new(dir).join("portmap").exists());
    if found.is_none() {
        eprintln!("no reference plugins in {REFERENCE:?}: nothing tested");
    }
    found
}

/// A node, and the list of plugins that its runtime has.
struct Runtime<'a> {
    node: &'a Node,
    driver: &'static Path,
    list: PathBuf,
    path: String,
}

impl<'a> Runtime<'a> {
    /// `plugins` stand in the list as they are; `{"type": "ocicat"}` is ours.
    fn new(
        node: &'a Node,
        driver: &'static Path,
        version: &str,
        plugins: &[Value],
    ) -> Result<Self> {
        let dir = node.lab.subdir("cni")?;
        let ours = dir.join("ocicat");
        if !ours.exists() {
            std::os::unix::fs::symlink(&node.plugin.binary, &ours)?;
        }
        let plugins: Vec<Value> = plugins
            .iter()
            .cloned()
            .map(|mut plugin| {
                if plugin["type"] == "ocicat" {
                    plugin["socket"] = node.plugin.config["socket"].clone();
                }
                plugin
            })
            .collect();
        // libcni looks for more of a list in a folder of its name beside it.
        let list = node
            .lab
            .subdir("lists")?
            .join(format!("{version}.conflist"));
        let text = json!({ "cniVersion": version, "name": "ocicat", "plugins": plugins });
        std::fs::write(&list, text.to_string())?;
        let path = format!("{}:{}", dir.display(), REFERENCE.join(":"));
        Ok(Self {
            node,
            driver,
            list,
            path,
        })
    }

    fn call(
        &self,
        command: &str,
        netns: &Netns,
        capabilities: &Value,
        rest: &[&str],
    ) -> Result<Value> {
        let name = netns.name();
        let mut call = Command::new(self.driver);
        call.arg("-conf").arg(&self.list);
        call.args(["-path", &self.path, "-id", &format!("shop-{name}")]);
        call.arg("-cache").arg(self.node.lab.subdir("cache")?);
        call.arg("-netns").arg(netns.path());
        call.args(["-capabilities", &capabilities.to_string()]);
        let pod = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name}");
        call.args(["-args", &pod]).args(rest).arg(command);
        let output = self.node.netns.output(&mut call)?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            bail!(
                "{command} of {name}: {said}{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        match said.trim() {
            "" => Ok(Value::Null),
            said => serde_json::from_str(said).with_context(|| said.to_owned()),
        }
    }

    fn plain(&self, command: &str, netns: &Netns) -> Result<Value> {
        self.call(command, netns, &json!({}), &[])
    }
}

/// The code of the plugin's error.
fn code<T: std::fmt::Debug>(result: Result<T>) -> Result<u64> {
    crate::node::cni_error(result).map(|(code, _)| code)
}

fn ours() -> Value {
    json!({ "type": "ocicat", "capabilities": { "portMappings": true, "ips": true, "mac": true } })
}

#[test]
fn every_command_works_in_every_version_of_the_specification() -> Result<()> {
    let Some(driver) = driver() else {
        return Ok(());
    };
    let node = Node::started()?;
    for version in VERSIONS {
        let runtime = Runtime::new(&node, driver, version, &[ours()])?;
        let pod = node.lab.netns(&format!("v{}", version.replace('.', "-")))?;
        runtime.plain("validate", &pod)?;
        let result = runtime.plain("add", &pod).context(version)?;
        assert_eq!(result["cniVersion"], version, "{result}");
        let ips = result["ips"].as_array().context("ips")?;
        assert_eq!(ips.len(), 2, "{result}");
        assert_eq!(
            result["interfaces"][1]["sandbox"],
            json!(pod.path()),
            "{result}"
        );
        let again = runtime.plain("add", &pod)?;
        assert_eq!(again, result);
        // libcni has no CHECK before 0.4.0, and no STATUS and GC before 1.1.0.
        if version != "0.3.1" {
            runtime.plain("check", &pod).context(version)?;
            pod.ip(["route del default"])?;
            assert_eq!(code(runtime.plain("check", &pod))?, 103);
        }
        if version == "1.1.0" {
            runtime.plain("status", &pod)?;
            let other = node.lab.netns("other")?;
            runtime.plain("add", &other)?;
            runtime.call("gc", &pod, &json!({}), &["-keep", "shop-other"])?;
            assert_eq!(node.links()?.len(), 1);
            runtime.plain("check", &other)?;
            runtime.plain("del", &other)?;
        }
        runtime.plain("del", &pod).context(version)?;
        runtime.plain("del", &pod).context(version)?;
        wait::until(LIMIT, "no link", || match node.links() {
            Ok(links) if links.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
    }
    Ok(())
}

#[test]
fn the_installed_list_offers_the_versions_and_the_capabilities_that_there_are() -> Result<()> {
    let Some(driver) = driver() else {
        return Ok(());
    };
    let node = Node::started()?;
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/cni/10-ocicat.conflist");
    let mut list: Value = serde_json::from_str(&std::fs::read_to_string(deploy)?)?;
    assert_eq!(list["cniVersion"], "1.0.0");
    assert_eq!(list["cniVersions"], json!(VERSIONS));
    let mut runtime = Runtime::new(&node, driver, "1.0.0", &[ours()])?;
    list["plugins"][0]["socket"] = node.plugin.config["socket"].clone();
    runtime.list = node.lab.dir().join("installed.conflist");
    std::fs::write(&runtime.list, list.to_string())?;
    let pod = node.lab.netns("web")?;
    let web = Probe::start(&pod, "web")?;
    // An address of a block that is this node's.
    let routes = node.routes()?;
    let block = routes
        .split_whitespace()
        .find(|word| word.starts_with("10.244."));
    let block: Ipv4Net = block.context("a block")?.parse()?;
    let wish = block.hosts().nth(8).context("an address")?;
    let wanted = json!({
        "portMappings": [{ "hostPort": 30080, "containerPort": 8080, "protocol": "tcp" }],
        "ips": [wish],
        "mac": "02:00:00:00:00:09",
    });
    let result = runtime.call("add", &pod, &wanted, &[])?;
    assert_eq!(
        result["ips"][0]["address"],
        format!("{wish}/32"),
        "{result}"
    );
    assert_eq!(
        result["interfaces"][1]["mac"], "02:00:00:00:00:09",
        "{result}"
    );
    let outside = Probe::start(&node.host, "outside")?;
    let name = outside.reach(Protocol::Tcp, "10.1.0.11".parse()?, 30080, LIMIT)?;
    assert_eq!(name, web.name());
    runtime.plain("check", &pod)?;
    runtime.plain("del", &pod).map(drop)
}

#[test]
fn reference_plugins_after_and_before_this_one_work() -> Result<()> {
    let Some(driver) = driver() else {
        return Ok(());
    };
    let Some(reference) = reference() else {
        return Ok(());
    };
    let node = Node::started()?;
    let plain = json!({ "type": "ocicat" });
    let chains = [
        (
            "portmap",
            vec![
                plain.clone(),
                json!({ "type": "portmap", "snat": true, "capabilities": { "portMappings": true } }),
            ],
        ),
        (
            "bandwidth",
            vec![
                plain.clone(),
                json!({ "type": "bandwidth", "capabilities": { "bandwidth": true } }),
            ],
        ),
        (
            "tuning",
            vec![
                plain.clone(),
                json!({ "type": "tuning", "sysctl": { "net.ipv4.conf.eth0.log_martians": "1" } }),
            ],
        ),
        // Its result is the first part of ours.
        ("loopback", vec![json!({ "type": "loopback" }), plain]),
    ];
    let outside = Probe::start(&node.host, "outside")?;
    for (name, plugins) in chains {
        ensure!(
            Path::new(reference).join(name).exists(),
            "{name} is missing in {reference}"
        );
        let runtime = Runtime::new(&node, driver, "1.0.0", &plugins)?;
        let pod = node.lab.netns(name)?;
        let probe = Probe::start(&pod, name)?;
        let capabilities = json!({
            "portMappings": [{ "hostPort": 30080, "containerPort": 8080, "protocol": "tcp" }],
            "bandwidth": {
                "ingressRate": 8_000_000, "ingressBurst": 8_000_000,
                "egressRate": 8_000_000, "egressBurst": 8_000_000,
            },
        });
        let result = runtime
            .call("add", &pod, &capabilities, &[])
            .context(name)?;
        let ip = result["ips"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|ip| ip["address"].as_str())
            .find_map(|ip| ip.strip_suffix("/32"))
            .context("an address")?;
        assert_eq!(
            outside.reach(Protocol::Tcp, ip.parse()?, 8080, LIMIT)?,
            name
        );
        if name == "portmap" {
            let to = "10.1.0.11".parse()?;
            assert_eq!(outside.reach(Protocol::Tcp, to, 30080, LIMIT)?, name);
        }
        if name == "loopback" {
            assert_eq!(result["interfaces"][0]["name"], "lo", "{result}");
        }
        if name == "bandwidth" {
            let limits = node.netns.run(&["tc", "qdisc", "show"])?;
            assert!(limits.contains("tbf"), "{limits}");
        }
        // portmap's own CHECK looks for the rules of IPv4 addresses among those of IPv6.
        if name != "portmap" {
            let checked = runtime.call("check", &pod, &capabilities, &[]);
            checked.context(name)?;
        }
        runtime
            .call("del", &pod, &capabilities, &[])
            .context(name)?;
        wait::until(LIMIT, "no link", || match node.links() {
            Ok(links) if links.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        drop(probe);
    }
    Ok(())
}
