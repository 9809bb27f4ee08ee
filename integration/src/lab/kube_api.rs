//! A real API server of Kubernetes with its etcd, in a namespace of the lab.

use super::{Lab, Netns, Process, process, wait};
use crate::kube::cache::Cache;
use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Patience with a server that starts on a busy machine.
const START: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(60);
/// Port of the API, on loopback.
pub const PORT: u16 = 6443;
/// Port of the second server's API, on loopback.
const TWIN_PORT: u16 = 6444;
/// URL of the second server.
pub const TWIN: &str = "https://127.0.0.1:6444";
/// Has `kubectl` ask the second server.
pub const SERVER_TWIN: &str = "--server=https://127.0.0.1:6444";
const ETCD: u16 = 2379;

/// An API server and its etcd. Users are told apart by tokens.
#[derive(Debug)]
pub struct KubeApi {
    netns: Netns,
    dir: PathBuf,
    /// `kube-apiserver` and `kubectl`.
    programs: [PathBuf; 2],
    etcd: Process,
    server: Option<Process>,
    twin: Option<Process>,
    flags: Vec<String>,
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
        let cache = Cache::locate();
        let programs = [cache.binary("kube-apiserver")?, cache.binary("kubectl")?];
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
            .args(["genpkey", "-algorithm", "RSA"])
            .args(["-pkeyopt", "rsa_keygen_bits:2048", "-out"])
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
            programs,
            etcd,
            server: None,
            twin: None,
            flags: Vec::new(),
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
        let mut command = self.server_command(PORT);
        self.server = Some(Process::start(
            &self.netns,
            &self.dir,
            "kube-apiserver",
            &mut command,
        )?);
        self.write_kubeconfigs()?;
        let mut ended = None;
        let ready = wait::until(START, "the API server to be ready", || {
            let running = self.server.as_mut().map(Process::expect_running);
            if let Some(Err(error)) = running {
                ended = Some(error);
                return Ok(String::new());
            }
            let ready = self.kubectl(&["get", "--raw", "/readyz"]);
            ready.map_err(|error| format!("{error:#}"))
        });
        ended.map_or(ready.map(drop), Err)
    }

    fn server_command(&self, port: u16) -> Command {
        let file = |name: &str| self.dir.join(name).display().to_string();
        let certificates = self.dir.join("certificates");
        let mut command = Command::new(&self.programs[0]);
        command
            .args(["--etcd-servers", "http://127.0.0.1:2379"])
            .args([
                "--bind-address",
                "127.0.0.1",
                "--secure-port",
                &port.to_string(),
            ])
            .args(["--advertise-address", "192.0.2.1"])
            .args([
                "--service-cluster-ip-range",
                "10.96.0.0/16,fd00:10:96::/112",
            ])
            .args(["--token-auth-file", &file("tokens.csv")])
            .args(["--authorization-mode", "RBAC"])
            .args(["--disable-admission-plugins", "ServiceAccount"])
            .args(["--service-account-issuer", "https://kubernetes.default.svc"])
            .args(["--service-account-key-file", &file("sa.key")])
            .args(["--service-account-signing-key-file", &file("sa.key")])
            .args(["--cert-dir", &certificates.display().to_string()])
            .args(&self.flags);
        command
    }

    /// Flags of the server's next starts, besides its own.
    pub fn set_flags(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    }

    /// A second server of the same etcd, at [`TWIN`], and waits until it is ready.
    ///
    /// # Errors
    /// It can't be started, or is not ready in time.
    pub fn start_twin(&mut self) -> Result<()> {
        let mut command = self.server_command(TWIN_PORT);
        let twin = Process::start(&self.netns, &self.dir, "twin-apiserver", &mut command)?;
        self.twin = Some(twin);
        wait::until(START, "the second API server to be ready", || {
            let ready = self.kubectl(&[SERVER_TWIN, "get", "--raw", "/readyz"]);
            ready.map_err(|error| format!("{error:#}"))
        })
        .map(drop)
    }

    /// Ends the server as a crash does, and waits for its end: in good order it waits for watches.
    ///
    /// # Errors
    /// It does not run, or does not end.
    pub fn stop_server(&mut self) -> Result<()> {
        let mut server = self.server.take().context("the API server is down")?;
        server.signal(Signal::KILL)?;
        server.wait(STOP)?;
        Ok(())
    }

    /// Makes the server sign for itself anew at its next start: kubeconfigs name the file, whose
    /// content then differs. The server must not run.
    ///
    /// # Errors
    /// The files can't be removed.
    pub fn forget_certificate(&self) -> Result<()> {
        std::fs::remove_dir_all(self.dir.join("certificates")).context("certificates")
    }

    /// Deletes a key of etcd behind the server's back, and makes etcd forget every version but the
    /// one after.
    ///
    /// # Errors
    /// Etcd does not answer.
    pub fn delete_key(&self, key: &str) -> Result<()> {
        let deleted = self.etcd(
            "/v3/kv/deleterange",
            &json!({"key": base64(key.as_bytes())}),
        )?;
        if deleted["deleted"] != "1" {
            bail!("etcd has no key {key}: {deleted}");
        }
        let revision = &deleted["header"]["revision"];
        self.etcd(
            "/v3/kv/compaction",
            &json!({"revision": revision, "physical": true}),
        )?;
        Ok(())
    }

    /// Keeps what etcd holds, for [`KubeApi::restore`]. The server must not run.
    ///
    /// # Errors
    /// A file can't be copied, or etcd does not start again.
    pub fn backup(&mut self) -> Result<()> {
        self.replace_data("etcd", "backup")
    }

    /// Puts the backup in the place of what etcd holds. The server must not run.
    ///
    /// # Errors
    /// There is none, or etcd does not start with it.
    pub fn restore(&mut self) -> Result<()> {
        self.replace_data("backup", "etcd")
    }

    fn replace_data(&mut self, from: &str, to: &str) -> Result<()> {
        self.etcd.signal(Signal::TERM)?;
        self.etcd.wait(STOP)?;
        let (from, to) = (self.dir.join(from), self.dir.join(to));
        if to.exists() {
            std::fs::remove_dir_all(&to)?;
        }
        let copied = Command::new("cp").arg("-a").arg(&from).arg(&to).status()?;
        if !copied.success() {
            bail!("{}: not copied", from.display());
        }
        self.etcd = start_etcd(&self.netns, &self.dir)?;
        Ok(())
    }

    /// A call of etcd's JSON gateway.
    fn etcd(&self, path: &str, body: &Value) -> Result<Value> {
        let body = body.to_string();
        let answer = self.netns.within(|| -> Result<String> {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, ETCD))?;
            stream.set_read_timeout(Some(STOP))?;
            let length = body.len();
            write!(
                stream,
                "POST {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}"
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })??;
        let (head, body) = answer.split_once("\r\n\r\n").context("etcd's answer")?;
        if !head.contains(" 200 ") {
            bail!("etcd: {path}: {answer}");
        }
        Ok(serde_json::from_str(body)?)
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
        let kubectl = self.programs[1].display().to_string();
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
        self.feed(&["apply", "--server-side", "-f", "-"], manifests)
    }

    /// Asks what the server says of new objects, and makes none.
    ///
    /// # Errors
    /// What it refuses.
    pub fn try_create(&self, manifests: &str) -> Result<()> {
        self.feed(&["create", "--dry-run=server", "-f", "-"], manifests)
    }

    fn feed(&self, words: &[&str], manifests: &str) -> Result<()> {
        let mut command = Command::new(&self.programs[1]);
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig("admin"))
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = self.netns.spawn(&mut command)?;
        let mut stdin = child.stdin.take().context("kubectl's input")?;
        stdin.write_all(manifests.as_bytes())?;
        drop(stdin);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("kubectl {}: {said}", words[0]);
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
        let logs = [self.server.as_ref(), self.twin.as_ref(), Some(&self.etcd)];
        let logs = logs.into_iter().flatten().map(Process::log);
        logs.collect::<Vec<_>>().join("\n")
    }
}

fn start_etcd(netns: &Netns, dir: &Path) -> Result<Process> {
    let mut command = Command::new(Cache::locate().binary("etcd")?);
    command
        .arg("--data-dir")
        .arg(dir.join("etcd"))
        .args(["--listen-client-urls", "http://127.0.0.1:2379"])
        .args(["--advertise-client-urls", "http://127.0.0.1:2379"])
        .args(["--listen-peer-urls", "http://127.0.0.1:2380"])
        .args(["--log-level", "warn", "--unsafe-no-fsync"]);
    Process::start(netns, dir, "etcd", &mut command)
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| -> String {
        let octet = |index| u32::from(*chunk.get(index).unwrap_or(&0));
        let bits = octet(0) << 16 | octet(1) << 8 | octet(2);
        let digit = |index: usize| match index > chunk.len() {
            true => '=',
            false => char::from(DIGITS[(bits >> (18 - 6 * index)) as usize & 63]),
        };
        (0..4).map(digit).collect()
    };
    bytes.chunks(3).map(group).collect()
}

/// Whether etcd answers when it is asked how far it is: without that no API server tells the end of
/// a list that it streams. Debian 12's does not, those of clusters do (3.4.31, 3.5.13).
///
/// # Errors
/// There is no etcd, or it does not say its version.
pub fn etcd_tells_progress() -> Result<bool> {
    let said = process::run(Command::new(Cache::locate().binary("etcd")?).arg("--version"))?;
    let version = said
        .lines()
        .find_map(|line| line.strip_prefix("etcd Version: "));
    let parts = version.into_iter().flat_map(|version| version.split('.'));
    let numbers: Vec<u32> = parts.filter_map(|part| part.parse().ok()).collect();
    let [major, minor, patch] = numbers[..] else {
        bail!("etcd's version: {said}");
    };
    Ok((major, minor, patch) >= (3, 5, 13) || ((major, minor) == (3, 4) && patch >= 31))
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let pairs = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ];
        for (text, expected) in pairs {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }
}
