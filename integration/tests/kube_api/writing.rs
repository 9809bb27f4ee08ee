//! What agents write: of several that want one thing one gets it, whatever they believe.

use crate::Api;
use anyhow::{Context, Result};
use datastore::kubernetes::{Cluster, ClusterOptions, ClusterWriter, PodAddresses};
use datastore::{Condition, Status, WriteError};
use ipnet::IpNet;
use model::{Allocation, BlockAllocations, IpamBlock, Kind, Lease, ObjectKey};
use serde_json::Value;
use std::future::Future;
use std::sync::mpsc;
use std::time::Duration;

const DURATION: Duration = Duration::from_secs(30);

/// An agent's writer.
#[derive(Clone)]
struct Writer {
    cluster: Cluster,
    writer: ClusterWriter,
}

impl Writer {
    fn new(api: &Api, user: &str) -> Result<Self> {
        let options = ClusterOptions {
            kubeconfig: vec![api.api.kubeconfig(user)],
            servers: Vec::new(),
            namespace: "net".to_owned(),
        };
        let cluster = api.netns.within(|| Cluster::connect(&options))??;
        let writer = ClusterWriter::new(cluster.clone(), "net");
        Ok(Self { cluster, writer })
    }

    /// Runs this where the connections are, in the namespace of the server.
    fn run<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        write: impl FnOnce(ClusterWriter) -> F,
    ) -> T {
        let (sender, receiver) = mpsc::channel();
        let future = write(self.writer.clone());
        self.cluster.runtime().spawn(async move {
            let _ = sender.send(future.await);
        });
        receiver.recv().expect("the future ends")
    }

    fn create(&self, block: &IpamBlock) -> Result<(), WriteError> {
        let block = block.clone();
        self.run(|writer| async move { writer.create_block(&block).await })
    }

    fn delete(&self, block: &IpamBlock) -> Result<(), WriteError> {
        let block = block.clone();
        self.run(|writer| async move { writer.delete_block(&block).await })
    }

    fn swap(&self, from: &IpamBlock, to: &IpamBlock) -> Result<(), WriteError> {
        let (from, to) = (from.clone(), to.clone());
        self.run(|writer| async move { writer.swap_block(&from, &to).await })
    }

    fn put(&self, block: &IpamBlock, allocations: &BlockAllocations) -> Result<(), WriteError> {
        let (block, allocations) = (block.clone(), allocations.clone());
        self.run(|writer| async move { writer.put_allocations(&block, &allocations).await })
    }

    fn take(&self, expected: Option<Lease>, next: Lease) -> Result<(), WriteError> {
        self.run(|writer| async move {
            writer
                .swap_lease("controller", expected.as_ref(), &next, DURATION)
                .await
        })
    }
}

fn block(node: &str) -> IpamBlock {
    IpamBlock {
        cidr: "10.244.0.0/26".parse().expect("a prefix"),
        node: node.to_owned(),
    }
}

fn lease(holder: &str, renewals: u64) -> Lease {
    Lease {
        holder: holder.to_owned(),
        renewals,
    }
}

fn get(api: &Api, arguments: &[&str]) -> Result<Value> {
    let text = api
        .api
        .kubectl(&[&["get", "-o", "json"], arguments].concat())?;
    Ok(serde_json::from_str(&text)?)
}

/// How many of five writers, each on a thread of its own, succeed.
fn winners<T: Sync>(writers: &[T], attempt: impl Fn(usize, &T) -> bool + Sync) -> usize {
    std::thread::scope(|scope| {
        let attempts: Vec<_> = writers
            .iter()
            .enumerate()
            .map(|(at, writer)| {
                let attempt = &attempt;
                scope.spawn(move || attempt(at, writer))
            })
            .collect();
        let ended = attempts
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        ended.filter(|won| *won).count()
    })
}

#[test]
fn a_block_has_one_owner_whoever_claims_frees_or_takes_it_over() -> Result<()> {
    let api = Api::installed(&[])?;
    let writers = (0..5)
        .map(|_| Writer::new(&api, "admin"))
        .collect::<Result<Vec<_>>>()?;
    let name = |at: usize| format!("n{at}");
    let won = winners(&writers, |at, writer| {
        match writer.create(&block(&name(at))) {
            Ok(()) => true,
            Err(WriteError::Exists { .. }) => false,
            Err(other) => panic!("{other}"),
        }
    });
    assert_eq!(won, 1);
    let document = get(&api, &["ipamblock", "10-244-0-0-26"])?;
    let affinity = document["spec"]["affinity"].as_str().context("affinity")?;
    let owner = block(affinity.strip_prefix("host:").context("a node")?);
    assert_eq!(
        document["spec"]["unallocated"].as_array().map(Vec::len),
        Some(64)
    );

    let mut held = BlockAllocations::empty(&owner);
    let pod = Allocation {
        handle: "k8s-pod-network.c1".into(),
        attributes: [("pod".to_owned(), "web".to_owned())].into(),
    };
    held.take(3, pod);
    writers[0].put(&owner, &held)?;
    writers[0].put(&block("somebody"), &BlockAllocations::empty(&owner))?;
    let document = get(&api, &["ipamblock", "10-244-0-0-26"])?;
    assert_eq!(
        document["spec"]["allocations"][3], 0,
        "what others say of it is left out"
    );
    assert_eq!(document["spec"]["attributes"][0]["secondary"]["pod"], "web");
    let affinities = get(&api, &["blockaffinities"])?;
    assert_eq!(affinities["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(affinities["items"][0]["spec"]["node"], *owner.node);

    let won = winners(&writers, |at, writer| {
        match writer.swap(&owner, &block(&format!("heir{at}"))) {
            Ok(()) => true,
            Err(WriteError::Changed { .. }) => false,
            Err(other) => panic!("{other}"),
        }
    });
    assert_eq!(won, 1);
    assert!(matches!(
        writers[0].delete(&owner),
        Err(WriteError::Changed { .. })
    ));
    let document = get(&api, &["ipamblock", "10-244-0-0-26"])?;
    assert_eq!(
        document["spec"]["allocations"][3], 0,
        "what is held stays noted"
    );
    let heir = document["spec"]["affinity"]
        .as_str()
        .context("affinity")?
        .to_owned();
    let heir = block(heir.strip_prefix("host:").context("a node")?);
    writers[0].delete(&heir)?;
    writers[0].delete(&heir)?;
    for kind in ["ipamblocks", "blockaffinities"] {
        assert_eq!(
            get(&api, &[kind])?["items"],
            serde_json::json!([]),
            "{kind}"
        );
    }
    Ok(())
}

#[test]
fn a_lease_is_taken_by_one_and_an_absent_api_is_no_answer() -> Result<()> {
    let mut api = Api::installed(&["agent"])?;
    api.api.kubectl(&["create", "namespace", "net"])?;
    let writers = (0..5)
        .map(|_| Writer::new(&api, "admin"))
        .collect::<Result<Vec<_>>>()?;
    let swap = |expected: Option<Lease>, renewals: u64| {
        winners(&writers, |at, writer| {
            match writer.take(expected.clone(), lease(&format!("n{at}"), renewals)) {
                Ok(()) => true,
                Err(WriteError::LeaseChanged { lease, .. }) => {
                    assert_eq!(lease.map(|lease| lease.renewals), Some(renewals));
                    false
                }
                Err(other) => panic!("{other}"),
            }
        })
    };
    assert_eq!(swap(None, 1), 1);
    let read =
        |writer: &Writer| writer.run(|writer| async move { writer.lease("controller").await });
    let first = read(&writers[0])?;
    assert_eq!(swap(first, 2), 1);
    let document = get(&api, &["lease", "-n", "net", "controller"])?;
    assert_eq!(document["spec"]["leaseDurationSeconds"], 30);

    let stranger = Writer::new(&api, "agent")?;
    let Err(refused) = read(&stranger) else {
        panic!("nobody has allowed it");
    };
    assert!(refused.to_string().contains("403"), "{refused}");

    api.api.stop_server()?;
    for error in [
        read(&writers[0]).err(),
        writers[0].create(&block("n1")).err(),
    ] {
        assert!(matches!(error, Some(WriteError::Api(_))), "{error:?}");
    }
    api.api.start_server()?;
    writers[0].create(&block("n1"))?;
    assert_eq!(read(&writers[0])?.map(|lease| lease.renewals), Some(2));
    Ok(())
}

const POD: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec: {nodeName: n1, automountServiceAccountToken: false, containers: [{name: c, image: i}]}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.244.0.0/16}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec: {podSelector: {}}
"#;

#[test]
fn pods_and_statuses_say_what_agents_know_of_them() -> Result<()> {
    let api = Api::installed(&[])?;
    api.api.apply(POD)?;
    let writer = Writer::new(&api, "admin")?;
    let pod = get(&api, &["pod", "-n", "shop", "web"])?;
    let addresses = |uid: &str| PodAddresses {
        namespace: "shop".into(),
        pod: "web".into(),
        uid: Some(uid.to_owned()),
        container_id: uid.to_owned(),
        ips: vec![
            "10.244.0.5/32".parse::<IpNet>().unwrap(),
            "fd00::5/128".parse().unwrap(),
        ],
    };
    let uid = pod["metadata"]["uid"].as_str().context("uid")?.to_owned();
    for uid in [uid.clone(), "another".to_owned()] {
        let told = addresses(&uid);
        writer.run(|writer| async move { writer.annotate_pod(&told).await })?;
    }
    let annotations = get(&api, &["pod", "-n", "shop", "web"])?["metadata"]["annotations"].clone();
    assert_eq!(
        annotations["cni.projectcalico.org/podIPs"],
        "10.244.0.5/32,fd00::5/128"
    );
    assert_eq!(annotations["cni.projectcalico.org/containerID"], *uid);

    let say = |object: ObjectKey, messages: &[&str]| {
        let conditions = messages.iter().map(|message| Condition {
            type_: "Accepted".into(),
            status: false,
            reason: "spec.cidr".into(),
            message: (*message).to_owned(),
        });
        let status = Status {
            node: "n1".into(),
            object: Some(object),
            conditions: conditions.collect(),
        };
        writer.run(|writer| async move { writer.put_status(&status).await })
    };
    let pool = || ObjectKey::global(Kind::IpPool, "pods");
    say(pool(), &["it overlaps another"])?;
    let condition = get(&api, &["ippool", "pods"])?["status"]["conditions"][0].clone();
    assert_eq!(
        (&condition["status"], &condition["message"]),
        (&"False".into(), &"it overlaps another".into())
    );
    say(pool(), &[])?;
    let status = get(&api, &["ippool", "pods"])?["status"].clone();
    assert!(
        status["conditions"].as_array().is_none_or(Vec::is_empty),
        "{status}"
    );
    say(ObjectKey::global(Kind::IpPool, "none"), &["gone"])?;

    let policy = || ObjectKey::namespaced(Kind::NetworkPolicy, "shop", "api");
    for _ in 0..3 {
        say(policy(), &["a rule is not understood"])?;
    }
    let events = get(&api, &["events.events.k8s.io", "-n", "shop"])?;
    let notes: Vec<_> = events["items"]
        .as_array()
        .context("events")?
        .iter()
        .map(|e| &e["note"])
        .collect();
    assert_eq!(notes, ["a rule is not understood"]);
    let told = get(&api, &["events", "-n", "shop"])?;
    assert_eq!(told["items"][0]["involvedObject"]["name"], "api");
    Ok(())
}
