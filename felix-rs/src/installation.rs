//! The plugin and its configuration, where the container runtime looks for them.
//!
//! The plugin comes first; the configuration comes once this node can answer ADD, because the
//! runtime takes the network for ready as soon as it finds one. Both are renamed into place, so
//! that nobody reads half a file and a plugin that runs is not written to. Both stay when the
//! agent ends: pods that start meanwhile wait for it, and `ocicat-node cleanup` removes them.

use crate::options::Options;
use model::names::{CNI_CONFIG, CNI_PLUGIN, CNI_SOCKET};
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often what was put in place is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// What file names of configurations end with (`libcni`).
const CONFIG_EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];
/// The configuration for the default socket.
const CONFIG: &str = include_str!("../../deploy/cni/10-ocicat.conflist");

/// Something could not be put in place.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub(crate) struct InstallError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// What is to be kept in place.
pub(crate) struct Installation {
    /// The plugin, and where it goes.
    plugin: Option<(PathBuf, PathBuf)>,
    /// The configuration, and where it goes.
    config: Option<(String, PathBuf)>,
    plugin_in_place: bool,
    /// The configuration waits until the node serves pods.
    waits: bool,
    looked_at: Option<Instant>,
    reasons: Vec<String>,
}

impl Installation {
    pub(crate) fn new(options: &Options) -> Self {
        let target = |folder: &PathBuf| folder.join(CNI_PLUGIN);
        let folders = options.install_cni_bin.as_ref().map(target);
        let socket = options.socket(CNI_SOCKET);
        Self {
            plugin: folders.map(|target| (options.cni_plugin(), target)),
            config: options
                .install_cni_conf
                .as_ref()
                .map(|folder| (config(&socket), folder.join(CNI_CONFIG))),
            plugin_in_place: false,
            waits: false,
            looked_at: None,
            reasons: Vec::new(),
        }
    }

    /// Puts in place what is missing or differs: the configuration only if the node `serves` pods.
    /// Once it is there it stays, so that a node that has trouble later keeps its place.
    pub(crate) fn keep(&mut self, serves: bool) {
        let early = self.looked_at.is_some_and(|at| at.elapsed() < LOOK_EVERY);
        if early && !(serves && self.waits) {
            return;
        }
        self.looked_at = Some(Instant::now());
        self.waits = false;
        self.reasons = match self.look(serves) {
            Ok(reasons) => reasons,
            Err(error) => vec![format!("the CNI plugin is not installed: {error}")],
        };
    }

    /// Why the container runtime does not use this plugin.
    pub(crate) fn reasons(&self) -> &[String] {
        &self.reasons
    }

    fn look(&mut self, serves: bool) -> Result<Vec<String>, InstallError> {
        if let Some((source, target)) = &self.plugin {
            let kept = self.plugin_in_place && same_length(source, target);
            if !kept {
                copy(source, target)?;
                self.plugin_in_place = true;
            }
        }
        let Some((text, target)) = &self.config else {
            return Ok(Vec::new());
        };
        if serves {
            place(target, text.as_bytes(), 0o644)?;
        }
        if !target.exists() {
            self.waits = true;
            return Ok(vec![format!(
                "{} is written once this node serves pods",
                target.display()
            )]);
        }
        let folder = target.parent().unwrap_or(Path::new("/"));
        let earlier = earlier_config(folder).map_err(|source| InstallError {
            path: folder.to_owned(),
            source,
        })?;
        Ok(Vec::from_iter(earlier.map(|name| {
            format!(
                "{} comes before {CNI_CONFIG}: the container runtime gives pods to that network; remove the file",
                folder.join(name).display()
            )
        })))
    }
}

/// The configuration, with the socket on which this agent listens.
fn config(socket: &Path) -> String {
    let mut config: serde_json::Value = serde_json::from_str(CONFIG)
        .expect("invariant: the configuration in the repository is JSON");
    config["plugins"][0]["socket"] = socket.to_string_lossy().into();
    serde_json::to_string_pretty(&config).unwrap_or_default() + "\n"
}

/// A configuration that the runtime takes before ours: the first by name wins.
fn earlier_config(folder: &Path) -> io::Result<Option<String>> {
    let mut first: Option<String> = None;
    for entry in fs::read_dir(folder)? {
        let Ok(name) = entry?.file_name().into_string() else {
            continue;
        };
        let extension = Path::new(&name).extension().and_then(|e| e.to_str());
        let is_config = extension.is_some_and(|e| CONFIG_EXTENSIONS.contains(&e));
        let earlier = first.as_deref().unwrap_or(CNI_CONFIG);
        if is_config && *name < *earlier {
            first = Some(name);
        }
    }
    Ok(first)
}

fn same_length(source: &Path, target: &Path) -> bool {
    let length = |path: &Path| fs::metadata(path).map(|file| file.len()).ok();
    length(source).is_some_and(|wanted| length(target) == Some(wanted))
}

fn copy(source: &Path, target: &Path) -> Result<(), InstallError> {
    let bytes = fs::read(source).map_err(|error| InstallError {
        path: source.to_owned(),
        source: error,
    })?;
    place(target, &bytes, 0o755)
}

/// Gives `target` these bytes, unless it has them.
fn place(target: &Path, bytes: &[u8], mode: u32) -> Result<(), InstallError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| InstallError { path, source }
    };
    if fs::read(target).is_ok_and(|found| found == bytes) {
        return Ok(());
    }
    // Hidden, and without an extension that runtimes read.
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let staged = target.with_file_name(format!(".{name}.staged"));
    let write = || {
        let mut file = File::create(&staged)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(failed(&staged))?;
    fs::rename(&staged, target).map_err(failed(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installation(folder: &Path) -> Installation {
        let (plugin, bin, conf) = (
            folder.join("plugin"),
            folder.join("bin"),
            folder.join("conf"),
        );
        for made in [&bin, &conf] {
            fs::create_dir(made).unwrap();
        }
        fs::write(&plugin, "the plugin").unwrap();
        Installation {
            plugin: Some((plugin, bin.join(CNI_PLUGIN))),
            config: Some((config(Path::new("/x/cni.sock")), conf.join(CNI_CONFIG))),
            plugin_in_place: false,
            waits: false,
            looked_at: None,
            reasons: Vec::new(),
        }
    }

    /// As if the time to look again had come.
    fn keep(installation: &mut Installation, serves: bool) -> Vec<String> {
        installation.looked_at = None;
        installation.keep(serves);
        installation.reasons().to_vec()
    }

    #[test]
    fn the_configuration_comes_after_the_plugin_and_once_pods_are_served() {
        let folder = tempfile::tempdir().unwrap();
        let mut installation = installation(folder.path());
        let config = folder.path().join("conf").join(CNI_CONFIG);
        let plugin = folder.path().join("bin").join(CNI_PLUGIN);
        let reasons = keep(&mut installation, false);
        assert!(
            reasons[0].contains("once this node serves pods"),
            "{reasons:?}"
        );
        assert_eq!(fs::read_to_string(&plugin).unwrap(), "the plugin");
        assert_eq!(
            fs::metadata(&plugin).unwrap().permissions().mode() & 0o777,
            0o755
        );
        assert!(!config.exists());
        // At once, not when the time to look again has come.
        installation.keep(true);
        assert_eq!(installation.reasons(), [""; 0]);
        let text = fs::read_to_string(&config).unwrap();
        assert!(text.contains("\"socket\": \"/x/cni.sock\""), "{text}");
        assert_eq!(keep(&mut installation, false), [""; 0]);
        assert!(config.exists());
    }

    #[test]
    fn what_somebody_removed_or_changed_is_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut installation = installation(folder.path());
        keep(&mut installation, true);
        let config = folder.path().join("conf").join(CNI_CONFIG);
        let plugin = folder.path().join("bin").join(CNI_PLUGIN);
        let written = fs::read_to_string(&config).unwrap();
        fs::remove_file(&plugin).unwrap();
        fs::write(&config, "{").unwrap();
        keep(&mut installation, true);
        assert_eq!(fs::read_to_string(&plugin).unwrap(), "the plugin");
        assert_eq!(fs::read_to_string(&config).unwrap(), written);
    }

    #[test]
    fn a_plugin_that_runs_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let mut installation = installation(folder.path());
        let plugin = folder.path().join("bin").join(CNI_PLUGIN);
        fs::copy("/bin/sleep", &plugin).unwrap();
        let mut running = std::process::Command::new(&plugin)
            .arg("60")
            .spawn()
            .unwrap();
        let reasons = keep(&mut installation, true);
        running.kill().unwrap();
        running.wait().unwrap();
        assert_eq!(reasons, [""; 0]);
        assert_eq!(fs::read_to_string(&plugin).unwrap(), "the plugin");
    }

    #[test]
    fn a_configuration_of_somebody_else_that_comes_first_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut installation = installation(folder.path());
        let conf = folder.path().join("conf");
        for name in ["10-calico.conflist", "05-old.conf.bak", "99-loopback.conf"] {
            fs::write(conf.join(name), "{}").unwrap();
        }
        let reasons = keep(&mut installation, true);
        assert_eq!(reasons.len(), 1);
        assert!(
            reasons[0].contains("10-calico.conflist comes before 10-ocicat.conflist"),
            "{reasons:?}"
        );
        fs::remove_file(conf.join("10-calico.conflist")).unwrap();
        assert_eq!(keep(&mut installation, true), [""; 0]);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut installation = installation(folder.path());
        fs::remove_dir(folder.path().join("bin")).unwrap();
        let reasons = keep(&mut installation, true);
        assert!(reasons[0].contains("/bin/"), "{reasons:?}");
        assert!(!folder.path().join("conf").join(CNI_CONFIG).exists());
    }
}
