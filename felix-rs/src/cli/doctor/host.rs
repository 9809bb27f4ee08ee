//! What others have set up on this host. Nothing is changed.

use super::{Finding, finding};
use crate::host_settings;
use kernel::ConntrackTable;
use std::fs;
use std::path::Path;

/// Names of interfaces that other networks for containers leave behind.
const OF_OTHERS: [(&str, &str); 9] = [
    ("cali", "Calico"),
    ("vxlan.calico", "Calico"),
    ("wireguard.cali", "Calico"),
    ("flannel", "flannel"),
    ("cni0", "a bridge plugin"),
    ("cilium_", "Cilium"),
    ("lxc_health", "Cilium"),
    ("weave", "Weave Net"),
    ("antrea-", "Antrea"),
];
/// Where kubelet's runtime looks for networks; it takes the first by name.
const CNI_DIR: &str = "/etc/cni/net.d";

/// Everything that is found.
pub(super) fn findings() -> Vec<Finding> {
    let mut found = sysctls(Path::new("/proc/sys/net"));
    found.extend(conntrack(Path::new("/proc")));
    found.extend(links(Path::new("/sys/class/net")));
    found.extend(networks(Path::new(CNI_DIR)));
    found.extend(managers(Path::new("/")));
    found
}

/// Settings of the whole host that break what the agent sets up.
fn sysctls(root: &Path) -> Vec<Finding> {
    let wrong = host_settings::wrong(root).into_iter();
    wrong.map(|what| finding("sysctl", what.said)).collect()
}

/// How full connection tracking is, and what that has cost.
fn conntrack(proc: &Path) -> Vec<Finding> {
    let table = ConntrackTable::read(proc);
    let mut found = Vec::new();
    if let (true, Some((entries, limit))) = (table.is_nearly_full(), table.entries.zip(table.limit))
    {
        found.push(format!(
            "{entries} of {limit} connections are tracked: raise net.netfilter.nf_conntrack_max"
        ));
    }
    if table.dropped > 0 {
        found.push(format!(
            "{} packets of new connections were dropped because the table was full",
            table.dropped
        ));
    }
    if table.evicted > 0 {
        found.push(format!(
            "{} connections without an answer made room for others in a full table",
            table.evicted
        ));
    }
    let findings = found.into_iter();
    findings.map(|what| finding("conntrack", what)).collect()
}

/// What other networks left.
fn links(class: &Path) -> Vec<Finding> {
    let entries = fs::read_dir(class).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut found = Vec::new();
    for name in names {
        let of = OF_OTHERS
            .iter()
            .find(|(prefix, _)| name.starts_with(prefix));
        found.extend(of.map(|(_, whose)| {
            finding(
                "links",
                format!("{name} looks as if it were of {whose}: remove it, or that"),
            )
        }));
    }
    found
}

/// Networks that the runtime would take before ours.
fn networks(dir: &Path) -> Vec<Finding> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("conf" | "conflist" | "json"))
    });
    paths.sort();
    let ours = |path: &&std::path::PathBuf| {
        fs::read_to_string(path).is_ok_and(|text| text.contains("\"ocicat\""))
    };
    match paths.first() {
        Some(first) if !ours(&first) => {
            let what = format!(
                "{} comes first by name and is not ours: pods get that",
                first.display()
            );
            vec![finding("cni", what)]
        }
        _ => Vec::new(),
    }
}

/// Network managers that were not told to leave our links alone.
fn managers(root: &Path) -> Vec<Finding> {
    let has = |dirs: &[&str]| {
        let files = dirs
            .iter()
            .flat_map(|dir| fs::read_dir(root.join(dir)).into_iter().flatten());
        let mut files = files
            .flatten()
            .filter_map(|entry| fs::read_to_string(entry.path()).ok());
        files.any(|text| text.contains("ipip.ocicat") || text.contains("oci*"))
    };
    let told = [
        (
            "NetworkManager",
            root.join("run/NetworkManager").exists(),
            has(&["etc/NetworkManager/conf.d", "usr/lib/NetworkManager/conf.d"]),
        ),
        (
            "systemd-networkd",
            root.join("run/systemd/netif/links").exists(),
            has(&["etc/systemd/network", "usr/lib/systemd/network"]),
        ),
    ];
    let untold = told.into_iter().filter(|(_, runs, told)| *runs && !told);
    untold
        .map(|(name, ..)| {
            let what = format!("{name} runs and may take our links: install deploy/host/{name}");
            finding("managers", what)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn said(findings: Vec<Finding>) -> String {
        let lines = findings.into_iter().map(|found| found.what);
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn settings_that_break_forwarding_are_named_and_others_are_not() {
        let dir = root(&[
            ("ipv4/ip_forward", "0\n"),
            ("ipv4/conf/all/rp_filter", "1\n"),
            ("ipv6/conf/all/forwarding", "1\n"),
        ]);
        let said = said(sysctls(dir.path()));
        assert!(said.contains("net.ipv4.ip_forward = 0"), "{said}");
        assert!(said.contains("net.ipv4.conf.all.rp_filter = 1"), "{said}");
        assert_eq!(said.lines().count(), 2, "{said}");
    }

    #[test]
    fn a_table_that_was_full_is_told_by_its_drops() {
        let statistics = "entries  clashres found drop early_drop\n0a 0 0 02 0\n0a 0 0 0f 01\n";
        let dir = root(&[
            ("net/stat/nf_conntrack", statistics),
            ("sys/net/netfilter/nf_conntrack_count", "90"),
            ("sys/net/netfilter/nf_conntrack_max", "100"),
        ]);
        let said = said(conntrack(dir.path()));
        assert!(said.contains("90 of 100 connections"), "{said}");
        assert!(
            said.contains("17 packets of new connections were dropped"),
            "{said}"
        );
        assert!(said.contains("1 connections without an answer"), "{said}");
    }

    #[test]
    fn the_network_that_comes_first_is_ours_or_named() {
        let ours = ("10-ocicat.conflist", r#"{"plugins":[{"type":"ocicat"}]}"#);
        assert_eq!(networks(root(&[ours]).path()), []);
        let other = ("05-flannel.conflist", r#"{"plugins":[{"type":"flannel"}]}"#);
        let said = said(networks(root(&[ours, other]).path()));
        assert!(said.contains("05-flannel.conflist comes first"), "{said}");
    }

    #[test]
    fn a_manager_that_runs_has_to_be_told() {
        let runs = ("run/NetworkManager/state", "");
        let said_without = said(managers(root(&[runs]).path()));
        assert!(
            said_without.contains("NetworkManager runs"),
            "{said_without}"
        );
        let told = (
            "etc/NetworkManager/conf.d/ocicat.conf",
            "unmanaged-devices=interface-name:oci*",
        );
        assert_eq!(managers(root(&[runs, told]).path()), []);
    }
}
