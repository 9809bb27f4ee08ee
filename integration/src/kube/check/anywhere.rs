//! `cargo lab kube check`: what can be seen of any cluster with nothing but `kubectl`.

use super::world::{World, addresses, is_ready, items, text};
use crate::kube::cache::{AGNHOST, Cache};
use crate::lab::{process, wait};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

/// Where the pods are.
const NAMESPACE: &str = "ocicat-check";
/// How long a cluster may take for anything.
const PATIENCE: Duration = Duration::from_secs(180);

/// A cluster, as `kubectl` reaches it.
pub(in crate::kube) struct Anywhere {
    /// Makes a `kubectl` without arguments.
    kubectl: Box<dyn Fn() -> Result<Command>>,
    image: String,
}

struct Pod {
    name: String,
    addresses: Vec<IpAddr>,
}

impl Anywhere {
    /// The cluster of the current context of `KUBECONFIG` or `~/.kube/config`, with the `kubectl`
    /// of the search path or the lab's. `image` is an agnhost that its nodes can get.
    pub(in crate::kube) fn current(image: &str) -> Self {
        let kubectl = || {
            let paths = std::env::var_os("PATH").unwrap_or_default();
            let found = std::env::split_paths(&paths)
                .map(|dir| dir.join("kubectl"))
                .find(|path| path.is_file());
            let found = found.map_or_else(|| Cache::locate().binary("kubectl"), Ok)?;
            Ok(Command::new(found))
        };
        Self {
            kubectl: Box::new(kubectl),
            image: image.to_owned(),
        }
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = (self.kubectl)()?;
        process::run(command.arg("--namespace").arg(NAMESPACE).args(arguments))
    }

    fn apply(&self, manifest: &str) -> Result<()> {
        let file = tempfile::NamedTempFile::new().context("a file")?;
        std::fs::write(file.path(), manifest).context("a file")?;
        let path = file.path().display().to_string();
        self.run(&["apply", "-f", &path]).map(drop)
    }

    /// Makes a pod on each node, looks who reaches whom with and without a policy, and removes
    /// everything. Returns what was seen.
    ///
    /// # Errors
    /// What is not as it should be.
    pub(in crate::kube) fn check(&self) -> Result<String> {
        let outcome = self.look();
        let removed = self.run(&["delete", "namespace", NAMESPACE, "--ignore-not-found"]);
        let seen = outcome?;
        removed.map(|_| seen)
    }

    fn look(&self) -> Result<String> {
        self.apply(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n---\n\
             apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {{name: check, namespace: {NAMESPACE}}}\n\
             spec:\n  selector: {{matchLabels: {{app: check}}}}\n  template:\n    metadata: {{labels: {{app: check}}}}\n    \
             spec:\n      terminationGracePeriodSeconds: 0\n      containers:\n      - name: server\n        \
             image: '{}'\n        imagePullPolicy: IfNotPresent\n        args: [serve-hostname, --http=false, --tcp, --udp]\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {{name: check, namespace: {NAMESPACE}}}\n\
             spec: {{selector: {{app: check}}, ports: [{{port: 80, targetPort: 9376}}]}}\n",
            self.image
        ))?;
        self.run(&["rollout", "status", "daemonset/check", "--timeout=180s"])?;
        let pods = self.pods()?;
        let service = self.run(&[
            "get",
            "service",
            "check",
            "-o",
            "jsonpath={.spec.clusterIP}",
        ])?;
        let mut reached = 0;
        for from in &pods {
            for to in &pods {
                for address in &to.addresses {
                    self.until(&from.name, *address, 9376, true)?;
                    reached += 1;
                }
            }
            self.until(&from.name, service.parse().context("clusterIP")?, 80, true)?;
        }
        let [target, others @ ..] = &pods[..] else {
            bail!("there is no pod");
        };
        self.run(&["label", "pod", &target.name, "closed=true"])?;
        self.apply(&format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: closed, namespace: {NAMESPACE}}}\n\
             spec: {{podSelector: {{matchLabels: {{closed: 'true'}}}}, policyTypes: [Ingress]}}\n"
        ))?;
        for answers in [false, true] {
            for from in others {
                for address in &target.addresses {
                    self.until(&from.name, *address, 9376, answers)?;
                }
            }
            if !answers {
                self.run(&["delete", "networkpolicy", "closed"])?;
            }
        }
        Ok(format!(
            "{} pods, {reached} ways between them, a Service, a policy made and deleted",
            pods.len()
        ))
    }

    fn pods(&self) -> Result<Vec<Pod>> {
        let list = self.run(&["get", "pods", "-l", "app=check", "-o", "json"])?;
        let list: Value = serde_json::from_str(&list).context("kubectl -o json")?;
        items(&list)
            .filter(|pod| is_ready(pod))
            .map(|pod| {
                Ok(Pod {
                    name: text(pod, "/metadata/name").to_owned(),
                    addresses: addresses(pod)?,
                })
            })
            .collect()
    }

    /// Waits until a connection from a pod is answered, or until it is not.
    fn until(&self, from: &str, to: IpAddr, port: u16, answers: bool) -> Result<()> {
        let target = std::net::SocketAddr::new(to, port).to_string();
        let command = [
            "exec",
            from,
            "--",
            "/agnhost",
            "connect",
            &target,
            "--timeout=1s",
        ];
        let what = format!(
            "{target} from {from} {}",
            if answers { "to answer" } else { "to be silent" }
        );
        wait::until(PATIENCE, &what, || {
            let outcome = self.run(&command).map_err(|error| format!("{error:#}"));
            match (outcome, answers) {
                (Ok(_), true) => Ok(()),
                (Err(words), false) if words.contains("TIMEOUT") || words.contains("REFUSED") => {
                    Ok(())
                }
                (Ok(_), false) => Err("it answers".to_owned()),
                (Err(words), _) => Err(words),
            }
        })
    }
}

/// The same on the lab's cluster.
pub(super) fn anywhere(world: &mut World) -> Result<String> {
    let cluster = world.cluster.clone();
    let anywhere = Anywhere {
        kubectl: Box::new(move || cluster.kubectl_command()),
        image: AGNHOST.to_owned(),
    };
    let seen = anywhere.check()?;
    ensure!(
        world.kubectl(&["get", "namespace", NAMESPACE]).is_err(),
        "{NAMESPACE} is left"
    );
    Ok(seen)
}
