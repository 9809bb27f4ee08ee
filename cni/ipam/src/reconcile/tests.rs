use super::*;
use crate::journal::{Live, Record};
use crate::tests::{block, endpoint, ip, pool};
use proptest::prelude::*;

/// A node with these endpoints (container, address, sequence), each with its link, all in step.
struct World {
    state: State,
    ipam: Ipam,
    links: Vec<HostEnd>,
    listed: BTreeMap<String, Listed>,
    pods: Vec<Pod>,
    written: Vec<WorkloadEndpoint>,
    blocks: Vec<IpamBlock>,
}

impl World {
    fn new(endpoints: &[(&str, &str)]) -> Self {
        let mut state = State::default();
        let mut links = Vec::new();
        let mut written = Vec::new();
        state.apply(&Record::Block(block("10.0.0.0/26", "n1")));
        for (index, (container, address)) in endpoints.iter().enumerate() {
            let mut endpoint = endpoint("n1", container, &[ip(address)]);
            endpoint.interface_name = format!("oci{index}").into();
            endpoint.pod_uid = Some("u1".to_owned().into());
            let ifindex = 100 + index as u32;
            links.push(HostEnd {
                ifindex,
                name: endpoint.interface_name.to_string(),
            });
            written.push(endpoint.clone());
            state.apply(&Record::Endpoint {
                endpoint,
                ifindex,
                mtu: 1500,
                sequence: index as u64,
                network: "net".to_owned(),
            });
        }
        let mut ipam = Ipam::new("n1");
        ipam.set_pool("a", Some(pool("a", "10.0.0.0/16", 26)));
        ipam.restore(&state);
        Self {
            state,
            ipam,
            links,
            listed: BTreeMap::new(),
            pods: Vec::new(),
            written,
            blocks: vec![block("10.0.0.0/26", "n1")],
        }
    }

    fn look(&self) -> Vec<Finding> {
        examine(&Picture {
            node: "n1",
            journal: &self.state,
            ipam: &self.ipam,
            links: self.links.clone(),
            listed: &self.listed,
            pods: self
                .pods
                .iter()
                .map(|pod| ((pod.namespace.as_str(), pod.name.as_str()), pod))
                .collect(),
            endpoints: Some(self.written.iter().collect()),
            blocks: Some(self.blocks.iter().collect()),
        })
    }

    fn list(&mut self, valid: &[&str], horizon: u64) {
        let owner = |container: &&str| crate::tests::owner(container);
        let valid = valid.iter().map(owner).collect();
        self.listed
            .insert("net".to_owned(), Listed { valid, horizon });
    }

    fn object(&mut self, name: &str, uid: &str, finished: bool) {
        self.pods.push(Pod {
            namespace: "default".to_owned().into(),
            name: name.to_owned().into(),
            uid: Some(uid.to_owned().into()),
            labels: model::Labels::new(),
            annotations: model::Annotations::new(),
            ports: Vec::new().into(),
            service_account: None,
            host_network: false,
            finished,
            ready: false,
        });
    }
}

/// Containers that are taken for gone, and why.
fn gone(findings: &[Finding]) -> Vec<(String, Gone)> {
    let leaked = findings.iter().filter_map(|finding| match finding {
        Finding::Leaked { holder, why, .. } => Some((holder.container.clone(), *why)),
        _ => None,
    });
    leaked.collect()
}

fn names(pairs: &[(&str, Gone)]) -> Vec<(String, Gone)> {
    pairs
        .iter()
        .map(|(n, why)| ((*n).to_owned(), *why))
        .collect()
}

#[test]
fn a_node_in_step_has_no_findings() {
    assert_eq!(
        World::new(&[("a", "10.0.0.0"), ("b", "10.0.0.1")]).look(),
        []
    );
}

#[test]
fn an_endpoint_whose_namespace_is_gone_leaks_unless_the_runtime_or_its_pod_says_that_it_lives() {
    let mut world = World::new(&[("a", "10.0.0.0"), ("b", "10.0.0.1")]);
    world.links.remove(0);
    assert_eq!(gone(&world.look()), names(&[("a", Gone::NamespaceGone)]));
    world.object("a", "u1", false);
    assert_eq!(gone(&world.look()), []);
    world.pods[0].uid = Some("u2".into());
    assert_eq!(gone(&world.look()), names(&[("a", Gone::NamespaceGone)]));
    world.list(&["a", "b"], 2);
    assert_eq!(gone(&world.look()), []);
}

#[test]
fn what_the_runtime_does_not_list_leaks_unless_it_is_younger_than_the_list() {
    let mut world = World::new(&[("a", "10.0.0.0"), ("b", "10.0.0.1"), ("c", "10.0.0.2")]);
    world.list(&["b"], 2);
    assert_eq!(gone(&world.look()), names(&[("a", Gone::NotListed)]));
    let list = world.listed.remove("net").unwrap();
    world.listed.insert("other".to_owned(), list);
    assert_eq!(gone(&world.look()), []);
}

#[test]
fn a_pod_that_is_gone_while_its_namespace_stands_is_named_and_not_freed() {
    let mut world = World::new(&[("a", "10.0.0.0")]);
    world.object("a", "u1", true);
    let findings = world.look();
    assert_eq!(gone(&findings), names(&[("a", Gone::PodGone)]));
    let mut reconciler = Reconciler::default();
    reconciler.observe(findings.clone(), 0, 0);
    assert_eq!(reconciler.observe(findings.clone(), 10, 0), []);
    assert_eq!(reconciler.since(&findings[0]), Some(0));
    assert!(!reconciler.is_waiting());
}

#[test]
fn of_two_sandboxes_of_a_living_pod_the_earlier_leaks_once_its_namespace_is_gone() {
    let mut world = World::new(&[("a", "10.0.0.0"), ("b", "10.0.0.1")]);
    for live in world.state.endpoints.values_mut() {
        live.endpoint.pod = "web".to_owned().into();
    }
    world.object("web", "u1", false);
    world.links.remove(0);
    assert_eq!(gone(&world.look()), names(&[("a", Gone::NamespaceGone)]));
}

#[test]
fn doubled_and_foreign_addresses_are_named_with_everybody_who_has_them() {
    let mut world = World::new(&[("a", "10.0.0.0"), ("b", "10.0.0.70")]);
    world.blocks.push(block("10.0.0.64/26", "n2"));
    world.written.push(endpoint("n2", "x", &[ip("10.0.0.0")]));
    let sentences: Vec<String> = world.look().iter().map(ToString::to_string).collect();
    assert_eq!(
        sentences,
        [
            "10.0.0.0 is the address of pod default/a on node n1, pod default/x on node n2",
            "10.0.0.0 of pod default/x on node n2 is in block 10.0.0.0/26 of node n1",
            "10.0.0.70 of pod default/b on node n1 is in block 10.0.0.64/26 of node n2",
        ]
    );
}

#[test]
fn what_only_one_side_knows_is_found() {
    let mut world = World::new(&[("a", "10.0.0.0")]);
    world
        .ipam
        .adopt(&crate::tests::owner("ghost"), ip("10.0.0.9"));
    world.links.push(HostEnd {
        ifindex: 7,
        name: "oci7".into(),
    });
    world.written.push(endpoint("n1", "old", &[ip("10.0.0.8")]));
    let sentences: Vec<String> = world.look().iter().map(ToString::to_string).collect();
    assert_eq!(
        sentences,
        [
            "10.0.0.9 is held for ghost, which is not in the journal",
            "link oci7 has no pod",
            "WorkloadEndpoint n1-k8s-old-eth0: pod default/old on node n1 is not on its node",
        ]
    );
}

#[test]
fn the_address_of_a_tunnel_is_no_leak() {
    let mut world = World::new(&[]);
    world.state.apply(&Record::Tunnel {
        device: "ipip.ocicat".into(),
        ip: Some(ip("10.0.0.0")),
        at_ms: 0,
    });
    world.ipam.restore(&world.state);
    assert_eq!(world.look(), []);
    world.state.tunnels.clear();
    assert_eq!(world.look().len(), 1);
}

/// One thing that happens between two looks.
#[derive(Debug, Clone)]
enum Change {
    Unlink(usize),
    Relink(usize),
    /// A new sandbox in the place of an endpoint, with its address.
    Again(usize),
    List(Vec<usize>),
    Unlist,
    Delete(usize),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let one = || 0..6usize;
    let change = prop_oneof![
        3 => one().prop_map(Change::Unlink),
        2 => one().prop_map(Change::Relink),
        2 => one().prop_map(Change::Again),
        1 => prop::collection::vec(one(), 0..6).prop_map(Change::List),
        1 => Just(Change::Unlist),
        1 => one().prop_map(Change::Delete),
    ];
    prop::collection::vec(change, 1..60)
}

proptest! {
    /// Whatever happens between looks: only an endpoint is freed that every look since an earlier
    /// one took for gone, and in the end nothing that is gone is left.
    #[test]
    fn nothing_is_freed_on_one_look_and_nothing_that_is_gone_is_left(changes in changes()) {
        let containers = ["a", "b", "c", "d", "e", "f"];
        let addresses = ["10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"];
        let all: Vec<(&str, &str)> = containers.into_iter().zip(addresses).collect();
        let mut world = World::new(&all);
        let mut reconciler = Reconciler::default();
        let mut suspected: BTreeSet<(String, u64)> = BTreeSet::new();
        let mut now = 0;
        for change in changes {
            let key = |index: usize| crate::tests::owner(containers[index]);
            match change {
                Change::Unlink(index) => world.links.retain(|l| l.name != format!("oci{index}")),
                Change::Relink(index) => {
                    let name = format!("oci{index}");
                    if world.links.iter().all(|l| l.name != name) {
                        world.links.push(HostEnd { ifindex: 100 + index as u32, name });
                    }
                }
                Change::Again(index) => {
                    let sequence = world.state.next_sequence;
                    if let Some(live) = world.state.endpoints.get(&key(index)).cloned() {
                        world.state.apply(&Record::Endpoint {
                            endpoint: live.endpoint,
                            ifindex: live.ifindex,
                            mtu: 1500,
                            sequence,
                            network: live.network,
                        });
                    }
                }
                Change::List(valid) => {
                    let valid: Vec<&str> = valid.iter().map(|i| containers[*i]).collect();
                    let horizon = world.state.next_sequence;
                    world.list(&valid, horizon);
                }
                Change::Unlist => world.listed.clear(),
                Change::Delete(index) => {
                    world.state.endpoints.remove(&key(index));
                    world.ipam.release(&key(index), 0);
                }
            }
            now += 5;
            let findings = world.look();
            let gone: BTreeSet<(String, u64)> = findings
                .iter()
                .filter_map(|f| match f {
                    Finding::Leaked { holder, sequence, .. } => Some((holder.container.clone(), *sequence)),
                    _ => None,
                })
                .collect();
            for remedy in reconciler.observe(findings, now, 10) {
                let Remedy::Free { owner, sequence } = remedy else { continue };
                let freed = (owner.container_id.clone(), sequence);
                prop_assert!(suspected.contains(&freed) && gone.contains(&freed), "{freed:?}");
                let live: Option<Live> = world.state.endpoints.get(&owner).cloned();
                prop_assert_eq!(live.map(|live| live.sequence), Some(sequence));
                world.state.endpoints.remove(&owner);
                world.ipam.release(&owner, 0);
            }
            suspected = gone;
        }
        for _ in 0..4 {
            now += 10;
            for remedy in reconciler.observe(world.look(), now, 10) {
                if let Remedy::Free { owner, .. } = remedy {
                    world.state.endpoints.remove(&owner);
                    world.ipam.release(&owner, 0);
                }
            }
        }
        prop_assert_eq!(gone(&world.look()), []);
    }
}
