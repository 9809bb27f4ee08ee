//! The datastore against a real API server with its etcd.

mod bad_input;
mod connections;
mod duties;
mod faults;
mod migrate;
mod reading;
mod scale;
mod writing;

use anyhow::{Context, Result, bail};
use datastore::kubernetes::{Cluster, ClusterOptions};
use integration::lab::{KubeApi, Lab, Netns};
use model::{Object, ObjectKey, Update};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Patience with a server on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// An API server in a namespace, with the CRDs that the tests use.
struct Api {
    api: KubeApi,
    netns: Netns,
    lab: Lab,
}

impl Api {
    fn start(users: &[&str]) -> Result<Self> {
        let api = Self::without_kinds(users)?;
        api.api.apply(&crd("IPPool", "ippools"))?;
        api.api.apply(&crd("BGPPeer", "bgppeers"))?;
        api.until_established(&["ippools", "bgppeers"])?;
        Ok(api)
    }

    /// With the kinds as users install them.
    fn installed(users: &[&str]) -> Result<Self> {
        let api = Self::without_kinds(users)?;
        let deploy = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/crds.yaml");
        api.api.apply(&std::fs::read_to_string(deploy)?)?;
        api.until_established(&["ippools", "ipamblocks", "blockaffinities", "tiers"])?;
        Ok(api)
    }

    fn until_established(&self, plurals: &[&str]) -> Result<()> {
        for plural in plurals {
            let crd = format!("crd/{plural}.projectcalico.org");
            let wait = ["wait", "--for=condition=Established", "--timeout=60s", &crd];
            self.api.kubectl(&wait)?;
        }
        Ok(())
    }

    fn without_kinds(users: &[&str]) -> Result<Self> {
        let lab = Lab::new()?;
        let netns = lab.netns("api")?;
        let api = KubeApi::start(&lab, &netns, users)?;
        Ok(Self { api, netns, lab })
    }

    /// The stream of a user.
    fn watch(&self, user: &str) -> Result<View> {
        let options = ClusterOptions {
            kubeconfig: vec![self.api.kubeconfig(user)],
            servers: Vec::new(),
            namespace: "net".to_owned(),
        };
        self.watch_with(&options)
    }

    fn watch_with(&self, options: &ClusterOptions) -> Result<View> {
        let cluster = self.netns.within(|| Cluster::connect(options))??;
        Ok(View::new(cluster.watch("n1")))
    }

    /// A user may do this, from now on.
    fn allow(&self, user: &str, verbs: &str, resources: &[(&str, &str)]) -> Result<()> {
        let rule = |(group, plural): &(&str, &str)| {
            format!("- {{apiGroups: [\"{group}\"], resources: [{plural}], verbs: [{verbs}]}}\n")
        };
        let rules: String = resources.iter().map(rule).collect();
        self.api.apply(&format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: {user}}}\nrules:\n{rules}\
             ---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\n\
             metadata: {{name: {user}}}\nroleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {user}}}\n\
             subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {user}}}]\n"
        ))
    }
}

/// Every collection that is read from the start.
const READ: [(&str, &str); 8] = [
    ("", "namespaces"),
    ("", "nodes"),
    ("", "pods"),
    ("networking.k8s.io", "networkpolicies"),
    ("policy.networking.k8s.io", "clusternetworkpolicies"),
    ("projectcalico.org", "\"*\""),
    ("", "services"),
    ("discovery.k8s.io", "endpointslices"),
];

/// A CRD that takes anything.
fn crd(kind: &str, plural: &str) -> String {
    format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n\
         metadata: {{name: {plural}.projectcalico.org, annotations: {{api-approved.kubernetes.io: unapproved}}}}\n\
         spec:\n  group: projectcalico.org\n  scope: Cluster\n  names: {{kind: {kind}, plural: {plural}}}\n  \
         versions:\n  - name: v3\n    served: true\n    storage: true\n    schema:\n      openAPIV3Schema:\n        \
         type: object\n        x-kubernetes-preserve-unknown-fields: true\n"
    )
}

/// What a stream has said so far.
struct View {
    updates: tokio::sync::mpsc::Receiver<Update>,
    objects: BTreeMap<ObjectKey, Object>,
    unreadable: BTreeMap<String, String>,
    deleted: BTreeSet<ObjectKey>,
    in_sync: bool,
    lost: Option<String>,
}

impl View {
    fn new(updates: tokio::sync::mpsc::Receiver<Update>) -> Self {
        Self {
            updates,
            objects: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            deleted: BTreeSet::new(),
            in_sync: false,
            lost: None,
        }
    }

    fn take(&mut self, update: Update) {
        match update {
            Update::Apply { object, .. } => {
                self.objects.insert(object.key(), object);
            }
            Update::Reject { invalid, .. } => {
                self.unreadable
                    .insert(invalid.object.to_string(), invalid.to_string());
            }
            Update::Delete(key) => {
                self.objects.remove(&key);
                self.deleted.insert(key);
            }
            Update::Unreadable { source, reason } => {
                self.unreadable.insert(source, reason);
            }
            Update::Readable { source } => {
                self.unreadable.remove(&source);
            }
            Update::InSync => {
                self.in_sync = true;
                self.lost = None;
            }
            Update::Lost { reason } => self.lost = Some(reason),
        }
    }

    /// Takes in what comes until this holds.
    fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Ok(update) = self.updates.try_recv() {
                self.take(update);
            }
            if holds(self) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "{what}: not within {PATIENCE:?}; in sync {}, lost {:?}, unreadable {:?}, objects {:?}",
                    self.in_sync,
                    self.lost,
                    self.unreadable,
                    self.objects
                        .keys()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                );
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    fn until_in_sync(&mut self) -> Result<()> {
        self.until("in sync", |view| view.in_sync && view.lost.is_none())
    }

    fn names(&self) -> BTreeSet<String> {
        let of_test = |key: &&ObjectKey| {
            let namespace = key.namespace.as_deref().unwrap_or(&key.name);
            !namespace.starts_with("kube-") && namespace != "default"
        };
        self.objects
            .keys()
            .filter(of_test)
            .map(ToString::to_string)
            .collect()
    }

    fn object(&self, key: &str) -> Result<&Object> {
        let mut all = self.objects.iter();
        let found = all.find(|(found, _)| found.to_string() == key);
        found
            .map(|(_, object)| object)
            .with_context(|| format!("{key} was not said"))
    }
}
