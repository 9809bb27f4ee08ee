//! A real API server of Kubernetes with its etcd, in a namespace of the lab.

use super::{Lab, Netns, Process, wait};
use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Patience with a server that starts on a busy machine.
const START: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(60);
/// Port of the API, on loopback.
pub const PORT: u16 = 6443;

/// An API server and its etcd. Users are told apart by tokens.
#[derive(Debug)]
pub struct KubeApi {
    netns: Netns,
    dir: PathBuf,
    bin: PathBuf,
    etcd: Process,
    server: Option<Process>,
    tokens: Vec<(String, String)>,
}

impl KubeApi {
    /// Starts both and waits until the server is ready. `users` are the names of users without any
    /// rights of their own; there is also `admin`, who may do everything.
    ///
    /// # Errors
    /// A program is missing, or does not start.
    pub fn start(lab: &Lab, netns: &Netns, users: &[&str]) -> Result<Self> {
        let dir = lab.subdir("kube-api")?;
        let bin = binaries()?;
        let mut tokens = vec![("admin".to_owned(), "token-admin".to_owned())];
        tokens.extend(
            users
                .iter()
                .map(|user| (user.to_string(), format!("token-{user}"))),
        );
        let lines = tokens.iter().map(|(user, token)| match user.as_str() {
            "admin" => format!("{token},{user},{user},system:masters\n"),
            _ => format!("{token},{user},{user}\n"),
        });
        std::fs::write(dir.join("tokens.csv"), lines.collect::<String>())?;
        let key = dir.join("sa.key");
        let made = Command::new("openssl")
            .args(["genpkey", "-algorithm", "EC"])
            .args(["-pkeyopt", "ec_paramgen_curve:P-256", "-out"])
            .arg(&key)
            .output()
            .context("openssl")?;
        if !made.status.success() {
            bail!("openssl: {}", String::from_utf8_lossy(&made.stderr));
        }
        let etcd = start_etcd(netns, &dir)?;
        let mut api = Self {
            netns: netns.clone(),
            dir,
            bin,
            etcd,
            server: None,
            tokens,
        };
        api.start_server()?;
        Ok(api)
    }

    /// Starts the server, which must not run, and waits until it is ready.
    ///
    /// # Errors
    /// It can't be started, or is not ready in time.
    pub fn start_server(&mut self) -> Result<()> {
        let file = |name: &str| self.dir.join(name).display().to_string();
        let certificates = self.dir.join("certificates");
        let mut command = Command::new(self.bin.join("kube-apiserver"));
        command
            .args(["--etcd-servers", "http://127.0.0.1:2379"])
            .args([
                "--bind-address",
                "127.0.0.1",
                "--secure-port",
                &PORT.to_string(),
            ])
            .args(["--advertise-address", "192.0.2.1"])
            .args(["--service-cluster-ip-range", "10.96.0.0/16"])
            .args(["--token-auth-file", &file("tokens.csv")])
            .args(["--authorization-mode", "RBAC"])
            .args(["--disable-admission-plugins", "ServiceAccount"])
            .args(["--service-account-issuer", "https://kubernetes.default.svc"])
            .args(["--service-account-key-file", &file("sa.key")])
            .args(["--service-account-signing-key-file", &file("sa.key")])
            .args(["--cert-dir", &certificates.display().to_string()]);
        self.server = Some(Process::start(
            &self.netns,
            &self.dir,
            "kube-apiserver",
            &mut command,
        )?);
        self.write_kubeconfigs()?;
        wait::until(START, "the API server to be ready", || {
            if let Some(server) = &mut self.server {
                server
                    .expect_running()
                    .map_err(|error| format!("{error:#}"))?;
            }
            let ready = self.kubectl(&["get", "--raw", "/readyz"]);
            ready.map_err(|error| format!("{error:#}"))
        })?;
        Ok(())
    }

    /// Ends the server in good order, and waits for its end.
    ///
    /// # Errors
    /// It does not run, or does not end.
    pub fn stop_server(&mut self) -> Result<()> {
        let mut server = self.server.take().context("the API server is down")?;
        server.signal(Signal::TERM)?;
        server.wait(STOP)?;
        Ok(())
    }

    /// Makes etcd forget every version but the current one, so that no watch can be resumed at an
    /// earlier one by a server that starts afterwards.
    ///
    /// # Errors
    /// What `etcdctl` said.
    pub fn compact(&self) -> Result<()> {
        let status = self.etcdctl(&["endpoint", "status", "--write-out", "json"])?;
        let status: serde_json::Value = serde_json::from_str(&status)?;
        let revision = status[0]["Status"]["header"]["revision"]
            .as_u64()
            .context("etcd's revision")?;
        self.etcdctl(&["compaction", &revision.to_string()])?;
        Ok(())
    }

    /// Keeps what etcd holds, for [`KubeApi::restore`].
    ///
    /// # Errors
    /// What `etcdctl` said.
    pub fn backup(&self) -> Result<()> {
        let file = self.dir.join("backup.db").display().to_string();
        self.etcdctl(&["snapshot", "save", &file])?;
        Ok(())
    }

    /// Puts the backup in the place of what etcd holds. The server must not run.
    ///
    /// # Errors
    /// There is none, or etcd does not start with it.
    pub fn restore(&mut self) -> Result<()> {
        self.etcd.signal(Signal::TERM)?;
        self.etcd.wait(STOP)?;
        let data = self.dir.join("etcd");
        std::fs::remove_dir_all(&data)?;
        let (file, data) = (self.dir.join("backup.db"), data.display().to_string());
        let file = file.display().to_string();
        self.etcdctl(&["snapshot", "restore", &file, "--data-dir", &data])?;
        self.etcd = start_etcd(&self.netns, &self.dir)?;
        Ok(())
    }

    /// `etcdctl` with these arguments.
    ///
    /// # Errors
    /// What it said.
    pub fn etcdctl(&self, args: &[&str]) -> Result<String> {
        let mut all = vec!["env", "ETCDCTL_API=3", "etcdctl"];
        all.extend(args);
        self.netns.run(&all)
    }

    /// The kubeconfig of a user.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.dir.join(format!("{user}.kubeconfig"))
    }

    /// The file of the user's token, which its kubeconfig names.
    pub fn token_file(&self, user: &str) -> PathBuf {
        self.dir.join(format!("{user}.token"))
    }

    /// `kubectl` as `admin`.
    ///
    /// # Errors
    /// What it said.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let kubectl = self.bin.join("kubectl").display().to_string();
        let config = format!("--kubeconfig={}", self.kubeconfig("admin").display());
        let mut all = vec![kubectl.as_str(), config.as_str()];
        all.extend(args);
        self.netns.run(&all)
    }

    /// `kubectl apply` of these manifests, as `admin`.
    ///
    /// # Errors
    /// What it said.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        let mut command = Command::new(self.bin.join("kubectl"));
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig("admin"))
            .args(["apply", "--server-side", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.netns.spawn(&mut command)?;
        let mut stdin = child.stdin.take().context("kubectl's input")?;
        stdin.write_all(manifests.as_bytes())?;
        drop(stdin);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("kubectl apply: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// The server makes its certificate when it first starts.
    fn write_kubeconfigs(&self) -> Result<()> {
        let authority = self.dir.join("certificates/apiserver.crt");
        wait::until(START, "the server's certificate", || {
            match authority.exists() {
                true => Ok(()),
                false => Err("there is none".to_owned()),
            }
        })?;
        for (user, token) in &self.tokens {
            if self.kubeconfig(user).exists() {
                continue;
            }
            std::fs::write(self.token_file(user), token)?;
            let text = format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: lab\n\
                 clusters: [{{name: lab, cluster: {{server: \"https://127.0.0.1:{PORT}\", \
                 certificate-authority: {}}}}}]\n\
                 users: [{{name: lab, user: {{tokenFile: {}}}}}]\n\
                 contexts: [{{name: lab, context: {{cluster: lab, user: lab}}}}]\n",
                authority.display(),
                self.token_file(user).display(),
            );
            std::fs::write(self.kubeconfig(user), text)?;
        }
        Ok(())
    }

    /// The end of the server's log, for a test that fails.
    pub fn log(&self) -> String {
        let logs = [self.server.as_ref(), Some(&self.etcd)];
        let logs = logs.into_iter().flatten().map(Process::log);
        logs.collect::<Vec<_>>().join("\n")
    }
}

fn start_etcd(netns: &Netns, dir: &Path) -> Result<Process> {
    let mut command = Command::new(etcd());
    command
        .arg("--data-dir")
        .arg(dir.join("etcd"))
        .args(["--listen-client-urls", "http://127.0.0.1:2379"])
        .args(["--advertise-client-urls", "http://127.0.0.1:2379"])
        .args(["--listen-peer-urls", "http://127.0.0.1:2380"])
        .args(["--log-level", "warn", "--unsafe-no-fsync"]);
    Process::start(netns, dir, "etcd", &mut command)
}

/// That of the assets where they have one, or the system's.
fn etcd() -> PathBuf {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let own = assets.map(|folder| folder.join("etcd"));
    own.filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("etcd"))
}

/// The folder of `kube-apiserver` and `kubectl`: `KUBEBUILDER_ASSETS`, or the newest version that
/// `cargo lab kube build` has left in its cache.
fn binaries() -> Result<PathBuf> {
    if let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS") {
        return Ok(PathBuf::from(assets));
    }
    let cache = match std::env::var_os("OCICAT_KUBE_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let home = std::env::var_os("HOME").context("HOME")?;
            PathBuf::from(home).join(".cache/ocicat/kube")
        }
    };
    let found = std::fs::read_dir(&cache).into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = found
        .map(|entry| entry.path())
        .filter(|path| path.join("kube-apiserver").exists())
        .collect();
    versions.sort();
    versions.pop().with_context(|| {
        format!(
            "no kube-apiserver below {}: run `cargo lab kube build`, or set KUBEBUILDER_ASSETS",
            cache.display()
        )
    })
}
