//! What is broken so that a scene must fail.

use super::cluster::Cluster;
use super::objects::{bgp_peer, rack_as};
use crate::lab::wait;
use anyhow::{Context, Result};
use rustix::process::Signal;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// One broken thing.
pub(super) struct Sabotage {
    /// As in `--sabotage`.
    pub(super) name: &'static str,
    /// The scene that must notice.
    pub(super) scene: &'static str,
    /// What is broken.
    pub(super) what: &'static str,
    pub(super) apply: fn(&mut Cluster) -> Result<()>,
    pub(super) undo: fn(&mut Cluster) -> Result<()>,
}

pub(super) const ALL: [Sabotage; 8] = [
    Sabotage {
        name: "wrong-as",
        scene: "bgp",
        what: "the BGPPeer of rack 1 names an AS number that is not FRR's",
        apply: |c| {
            c.store
                .write("peer-rack1.yaml", &bgp_peer(1, 65009))
                .map(drop)
        },
        undo: |c| {
            c.store
                .write("peer-rack1.yaml", &bgp_peer(1, rack_as(1)))
                .map(drop)
        },
    },
    Sabotage {
        name: "drop-tcp",
        scene: "matrix",
        what: "somebody else's nft table drops TCP on n2",
        apply: |c| {
            let rule = "add table inet foreign; \
                add chain inet foreign forward { type filter hook forward priority 10; }; \
                add rule inet foreign forward meta l4proto tcp drop";
            c.agents[1].netns().run(&["nft", rule]).map(drop)
        },
        undo: |c| {
            c.agents[1]
                .netns()
                .run(&["nft", "delete table inet foreign"])
                .map(drop)
        },
    },
    Sabotage {
        name: "no-ipip",
        scene: "ipip",
        what: "the pool's ipipMode is Never, whatever the scene writes",
        apply: |c| {
            c.set_ipip_mode("Never")?;
            c.withheld.insert("pool-v4.yaml".to_owned());
            Ok(())
        },
        undo: |c| {
            c.withheld.clear();
            c.set_ipip_mode(c.ipip_mode).map(drop)
        },
    },
    Sabotage {
        name: "withdraw",
        scene: "outside",
        what: "FRR's session with n1 is shut down",
        apply: |c| shut_session(c, "neighbor 10.10.1.11 shutdown"),
        undo: |c| {
            shut_session(c, "no neighbor 10.10.1.11 shutdown")?;
            wait::until(c.patience, "FRR's session with n1", || {
                match c.frr.session("10.10.1.11") {
                    Ok(state) if state == "Established" => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
        },
    },
    Sabotage {
        name: "no-allow",
        scene: "policy",
        what: "the policy that allows never reaches the directory",
        apply: |c| {
            c.withheld.insert("policy-allow.yaml".to_owned());
            Ok(())
        },
        undo: |c| {
            c.withheld.clear();
            remove_policies(c)
        },
    },
    Sabotage {
        name: "no-restart",
        scene: "crash",
        what: "what is started in place of the killed agent ends at once",
        apply: |c| {
            c.agents[0].set_binary(PathBuf::from("/bin/false"));
            Ok(())
        },
        undo: |c| {
            c.agents[0].set_binary(crate::lab::agent::binary("OCICAT_NODE_BIN", "ocicat-node")?);
            c.agents[0].start()?;
            c.wait_ready()
        },
    },
    Sabotage {
        name: "frozen-agent",
        scene: "repair",
        what: "the agent of n1 is stopped (SIGSTOP)",
        apply: |c| c.agents[0].signal(Signal::STOP),
        undo: |c| {
            c.agents[0].signal(Signal::CONT)?;
            c.wait_ready()
        },
    },
    Sabotage {
        name: "lazy-del",
        scene: "delete",
        what: "the plugin answers DEL and does nothing",
        apply: |c| {
            let plugin = &mut c.plugins[0];
            let script = c.lab.dir().join("lazy-plugin");
            let text = format!(
                "#!/bin/sh\n[ \"$CNI_COMMAND\" = DEL ] || exec {}\n",
                plugin.binary.display()
            );
            std::fs::write(&script, text).context("lazy-plugin")?;
            std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755))
                .context("lazy-plugin")?;
            plugin.binary = script;
            Ok(())
        },
        undo: |c| {
            c.plugins[0] = crate::lab::pod::Plugin::ocicat(&c.agents[0])?;
            Ok(())
        },
    },
];

/// Removes what an interrupted policy scene leaves.
pub(super) fn remove_policies(cluster: &Cluster) -> Result<()> {
    for name in ["policy-deny.yaml", "policy-allow.yaml"] {
        if cluster.store.path().join(name).exists() {
            cluster.store.remove(name)?;
        }
    }
    Ok(())
}

fn shut_session(cluster: &Cluster, line: &str) -> Result<()> {
    cluster.frr.configure(&["router bgp 65001", line])
}
