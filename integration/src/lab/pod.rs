//! Pods: a network namespace and real CNI calls.

use super::{Agent, Lab, Netns, agent};
use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Who a pod is.
#[derive(Debug, Clone)]
pub struct PodSpec {
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its name, which is also the name of its network namespace in the lab.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A CNI plugin as a runtime calls it: in the node's namespace, with environment and standard input.
#[derive(Debug, Clone)]
pub struct Plugin {
    /// The executable.
    pub binary: PathBuf,
    /// The network configuration.
    pub config: Value,
    /// Where the plugin runs.
    pub node: Netns,
}

/// A pod.
#[derive(Debug)]
pub struct Pod {
    spec: PodSpec,
    netns: Netns,
    plugin: Plugin,
    result: Value,
}

impl Plugin {
    /// Our plugin for the agent of a node.
    ///
    /// # Errors
    /// The plugin is not built.
    pub fn ocicat(agent: &Agent) -> Result<Self> {
        Ok(Self {
            binary: agent::binary("OCICAT_CNI_BIN", "ocicat-cni")?,
            config: json!({
                "cniVersion": "1.0.0",
                "name": "ocicat",
                "type": "ocicat",
                "socket": agent.run_dir().join("cni.sock"),
            }),
            node: agent.netns().clone(),
        })
    }

    /// Calls the plugin; the result, or the plugin's error as it stands in its JSON.
    ///
    /// # Errors
    /// The plugin failed: code, message and details.
    pub fn call(
        &self,
        command: &str,
        spec: &PodSpec,
        netns: &Netns,
        extra: &Value,
    ) -> Result<Value> {
        let mut config = self.config.clone();
        config["args"] = json!({ "cni": { "labels": spec.labels } });
        if let (Some(config), Some(extra)) = (config.as_object_mut(), extra.as_object()) {
            config.extend(extra.clone());
        }
        let mut child = self.node.spawn(
            Command::new(&self.binary)
                .env("CNI_COMMAND", command)
                .env("CNI_CONTAINERID", container_id(spec))
                .env("CNI_NETNS", netns.path())
                .env("CNI_IFNAME", "eth0")
                .env("CNI_PATH", "/opt/cni/bin:/usr/lib/cni")
                .env(
                    "CNI_ARGS",
                    format!(
                        "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={}",
                        spec.namespace, spec.name
                    ),
                )
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        )?;
        if let Some(mut stdin) = child.stdin.take() {
            // A plugin that fails early may not read its configuration; its error says more.
            let _ = stdin.write_all(config.to_string().as_bytes());
        }
        let output = child.wait_with_output().context("the plugin's output")?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            bail!(
                "CNI {command} of {}: {} {}",
                spec.name,
                said.trim(),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        if said.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&said).with_context(|| format!("CNI {command} said: {said}"))
    }
}

impl Pod {
    /// Makes the network namespace and calls ADD.
    ///
    /// # Errors
    /// ADD failed; the namespace is removed.
    pub fn add(lab: &Lab, plugin: &Plugin, spec: PodSpec) -> Result<Self> {
        Self::add_with(lab, plugin, spec, &json!({}))
    }

    /// Likewise, with more members of the configuration.
    ///
    /// # Errors
    /// As [`Pod::add`].
    pub fn add_with(lab: &Lab, plugin: &Plugin, spec: PodSpec, extra: &Value) -> Result<Self> {
        let netns = lab.netns(&spec.name)?;
        match plugin.call("ADD", &spec, &netns, extra) {
            Ok(result) => Ok(Self {
                spec,
                netns,
                plugin: plugin.clone(),
                result,
            }),
            Err(error) => {
                netns.delete()?;
                Err(error)
            }
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its labels, names and Kubernetes namespace.
    pub fn spec(&self) -> &PodSpec {
        &self.spec
    }

    /// Its network namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The namespace of its node.
    pub fn node(&self) -> &Netns {
        &self.plugin.node
    }

    /// What ADD answered.
    pub fn result(&self) -> &Value {
        &self.result
    }

    /// Its addresses, from the result of ADD.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let ips = self.result["ips"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let parse = |ip: &Value| ip["address"].as_str()?.parse::<IpNet>().ok();
        ips.iter().filter_map(parse).map(|net| net.addr()).collect()
    }

    /// Its IPv4 address.
    ///
    /// # Errors
    /// It has none.
    pub fn ipv4(&self) -> Result<IpAddr> {
        let found = self.addresses().into_iter().find(IpAddr::is_ipv4);
        found.with_context(|| format!("{} has no IPv4 address: {}", self.name(), self.result))
    }

    /// Its IPv6 address.
    ///
    /// # Errors
    /// It has none.
    pub fn ipv6(&self) -> Result<IpAddr> {
        let found = self.addresses().into_iter().find(IpAddr::is_ipv6);
        found.with_context(|| format!("{} has no IPv6 address: {}", self.name(), self.result))
    }

    /// Name of the host's end of its veth, from the result of ADD.
    ///
    /// # Errors
    /// The result names none.
    pub fn host_interface(&self) -> Result<String> {
        let interfaces = self.result["interfaces"]
            .as_array()
            .context("no interfaces in the result")?;
        let host = interfaces
            .iter()
            .find(|i| i["sandbox"].as_str().is_none_or(str::is_empty));
        let name = host.and_then(|host| host["name"].as_str());
        Ok(name
            .with_context(|| format!("no host interface in {}", self.result))?
            .to_owned())
    }

    /// Calls CHECK with the result of ADD.
    ///
    /// # Errors
    /// What CHECK found wrong.
    pub fn check(&self) -> Result<()> {
        let extra = json!({ "prevResult": self.result });
        self.plugin
            .call("CHECK", &self.spec, &self.netns, &extra)
            .map(drop)
    }

    /// Calls DEL; the namespace stays until [`Pod::delete`].
    ///
    /// # Errors
    /// The plugin's error.
    pub fn del(&self) -> Result<()> {
        let extra = json!({ "prevResult": self.result });
        self.plugin
            .call("DEL", &self.spec, &self.netns, &extra)
            .map(drop)
    }

    /// Calls DEL and removes the network namespace.
    ///
    /// # Errors
    /// The plugin's error; the namespace stays then.
    pub fn delete(self) -> Result<()> {
        self.del()?;
        self.netns.delete()
    }
}

/// The sandbox id that the runtime would choose.
fn container_id(spec: &PodSpec) -> String {
    format!("{}-{}", spec.namespace, spec.name)
}
