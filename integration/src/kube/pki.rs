//! The cluster's certificates, made with `openssl`.

use crate::lab::process;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder of keys and certificates. What is there stays.
#[derive(Debug, Clone)]
pub(super) struct Pki {
    dir: PathBuf,
}

impl Pki {
    pub(super) fn open(dir: PathBuf) -> Result<Self> {
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(&dir, private).context("keys")?;
        Ok(Self { dir })
    }

    /// A file of the folder, as a word of a command line.
    pub(super) fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// A certificate authority.
    pub(super) fn authority(&self, name: &str) -> Result<()> {
        if self.has(&format!("{name}.crt")) {
            return Ok(());
        }
        self.key(name)?;
        self.openssl(&format!(
            "req -x509 -new -key {name}.key -subj /CN={name} -days 3650 -sha256 -out {name}.crt"
        ))
    }

    /// A certificate for both ends of a connection, signed by `authority`. `names` is a
    /// `subjectAltName`, or empty.
    pub(super) fn certificate(
        &self,
        name: &str,
        authority: &str,
        subject: &str,
        names: &str,
    ) -> Result<()> {
        if self.has(&format!("{name}.crt")) {
            return Ok(());
        }
        self.key(name)?;
        let mut extensions = String::from(
            "keyUsage=critical,digitalSignature,keyEncipherment\nextendedKeyUsage=serverAuth,clientAuth\n",
        );
        if !names.is_empty() {
            extensions.push_str(&format!("subjectAltName={names}\n"));
        }
        fs::write(self.dir.join("extensions"), extensions).context("extensions")?;
        self.openssl(&format!(
            "req -new -key {name}.key -subj {subject} -out request"
        ))?;
        self.openssl(&format!(
            "x509 -req -in request -CA {authority}.crt -CAkey {authority}.key -CAcreateserial \
             -days 3650 -sha256 -extfile extensions -out {name}.crt"
        ))
    }

    /// The key pair that signs tokens of service accounts.
    pub(super) fn token_key(&self, name: &str) -> Result<()> {
        if self.has(&format!("{name}.pub")) {
            return Ok(());
        }
        self.openssl(&format!("genrsa -out {name}.key 2048"))?;
        self.openssl(&format!("rsa -in {name}.key -pubout -out {name}.pub"))
    }

    /// A certificate and the kubeconfig that presents it to `server`.
    pub(super) fn kubeconfig(&self, name: &str, subject: &str, server: &str) -> Result<PathBuf> {
        self.certificate(name, "ca", subject, "")?;
        let path = self.dir.join(format!("{name}.kubeconfig"));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: lab\n\
             clusters: [{{name: lab, cluster: {{server: '{server}', certificate-authority: {ca}}}}}]\n\
             users: [{{name: me, user: {{client-certificate: {crt}, client-key: {key}}}}}]\n\
             contexts: [{{name: lab, context: {{cluster: lab, user: me}}}}]\n",
            ca = self.path("ca.crt"),
            crt = self.path(&format!("{name}.crt")),
            key = self.path(&format!("{name}.key")),
        );
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    fn has(&self, name: &str) -> bool {
        self.dir.join(name).is_file()
    }

    fn key(&self, name: &str) -> Result<()> {
        self.openssl(&format!(
            "ecparam -name prime256v1 -genkey -noout -out {name}.key"
        ))
    }

    fn openssl(&self, arguments: &str) -> Result<()> {
        let mut command = Command::new("openssl");
        command
            .current_dir(Path::new(&self.dir))
            .args(arguments.split_whitespace());
        process::run(&mut command).map(drop)
    }
}
