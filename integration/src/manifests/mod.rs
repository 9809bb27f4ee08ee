//! `cargo lab manifests`: what a cluster is given, written from one source.
//!
//! Schemas come from `model::schema`, everything else from the templates in `deploy/source`: the
//! plain manifest, the base of Kustomize and the Helm chart say the same.

mod template;
#[cfg(test)]
mod tests;
mod value;

use anyhow::{Context, Result};
use model::schema::{Definition, cluster_network_policy, definitions};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use template::Target;

/// Templates of what runs in the cluster, in the order in which they are applied.
const TEMPLATES: [&str; 3] = ["namespace", "rbac", "daemonset"];
const HEADER: &str = "# Written by `cargo lab manifests` from deploy/source and model/src/schema: change it there.\n";
const CRDS: &str = "crds.yaml";

/// The folder `deploy` of this repository.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// Writes the files whose content differs.
///
/// # Errors
/// A template can't be read or rendered, or a file can't be written.
pub fn write(folder: &Path) -> Result<Vec<PathBuf>> {
    let differing = differing(folder)?;
    for (path, text) in &differing {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(differing.into_keys().collect())
}

/// Files that are not what they would be written as, with what they would be.
///
/// # Errors
/// A template can't be read or rendered.
pub fn differing(folder: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut files = files(folder)?;
    files.retain(|path, text| fs::read_to_string(folder.join(path)).ok().as_deref() != Some(text));
    Ok(files)
}

/// Every generated file, by its path below `deploy`.
fn files(folder: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    let mut add = |path: &str, text: String| files.insert(PathBuf::from(path), text);
    let mut all = Vec::new();
    for name in TEMPLATES {
        let path = folder.join("source").join(name).with_extension("yaml");
        let source = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let plain = template::render(&source, Target::Plain)?;
        add(
            &format!("kustomize/base/{name}.yaml"),
            format!("{HEADER}{plain}"),
        );
        all.push(plain);
        // Helm makes the namespace itself.
        if name != "namespace" {
            let chart = template::render(&source, Target::Chart)?;
            add(
                &format!("helm/ocicat/templates/{name}.yaml"),
                format!("{HEADER}{chart}"),
            );
        }
    }
    add("ocicat.yaml", format!("{HEADER}{}", all.join("---\n")));
    add("kustomize/base/kustomization.yaml", kustomization());
    add("helm/ocicat/Chart.yaml", chart());
    add(
        "helm/ocicat/values.yaml",
        format!("{HEADER}{}", value::chart_values()),
    );
    let definitions = definitions();
    add(CRDS, crds(&definitions)?);
    add("helm/ocicat/crds/crds.yaml", crds(&definitions)?);
    add(
        "cluster-network-policy.yaml",
        crds(&[cluster_network_policy()])?,
    );
    Ok(files)
}

fn crds(definitions: &[Definition]) -> Result<String> {
    let documents: Result<Vec<String>> = definitions
        .iter()
        .map(|definition| {
            let text = serde_saphyr::to_string(&definition.to_manifest());
            text.with_context(|| definition.name())
        })
        .collect();
    Ok(format!("{HEADER}{}", documents?.join("---\n")))
}

fn kustomization() -> String {
    let resources: String = TEMPLATES
        .iter()
        .map(|name| format!("- {name}.yaml\n"))
        .collect();
    format!(
        "{HEADER}apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n{resources}"
    )
}

fn chart() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "{HEADER}apiVersion: v2\nname: ocicat\ndescription: A BGP-routed, pure-L3 network for containers\n\
         type: application\nversion: {version}\nappVersion: {version}\nkubeVersion: \">=1.31.0-0\"\n"
    )
}
