//! Answers to `CalicoNodeStatus` objects that ask about this node, in Calico's schema.

use super::Agent;
use crate::store::Write;
use bgp_core::{PathStatus, PeerStatus, RouteStatus, SpeakerStatus};
use ipnet::IpNet;
use model::{CalicoNodeStatus, NodeStatusClass, Selector};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Routes of one family in one answer: objects of the API have a largest size.
const ROUTES: usize = 2_000;

/// The questions that were answered, and when.
pub(super) type Answered = BTreeMap<String, (CalicoNodeStatus, Instant)>;

impl Agent {
    /// Answers what is new or due again. The speaker is asked off the agent's loop.
    pub(super) fn answer_node_statuses(&mut self, answered: &mut Answered) {
        let objects = self.calc.objects();
        let asked = objects
            .node_statuses()
            .filter(|asked| asked.node == self.options.node_name);
        let asked: Vec<CalicoNodeStatus> = asked.cloned().collect();
        answered.retain(|name, _| asked.iter().any(|asked| asked.name == *name));
        for question in asked {
            let due = answered.get(&question.name).is_none_or(|(before, at)| {
                let period = Duration::from_secs(question.update_period_seconds.into());
                *before != question || !period.is_zero() && at.elapsed() >= period
            });
            if !due {
                continue;
            }
            answered.insert(question.name.clone(), (question.clone(), Instant::now()));
            let for_all_nodes = self.peers_of_all_nodes();
            let (speaker, store, ready) = (
                self.speaker.clone(),
                self.store.clone(),
                self.reported_ready(),
            );
            tokio::spawn(async move {
                let routes = match question.classes.contains(&NodeStatusClass::Routes) {
                    true => speaker.routes().await,
                    false => Ok(Vec::new()),
                };
                // A speaker that is gone ends the process.
                if let (Ok(status), Ok(routes)) = (speaker.status().await, routes) {
                    store.write(Write::NodeReport {
                        name: question.name.clone(),
                        status: Box::new(answer(
                            &question,
                            ready,
                            &status,
                            &routes,
                            &for_all_nodes,
                        )),
                    });
                }
            });
        }
    }

    /// What sessions are called that every node has.
    fn peers_of_all_nodes(&self) -> BTreeSet<String> {
        let peers = self.calc.objects().bgp_peers();
        let of_all =
            peers.filter(|peer| peer.node.is_none() && peer.node_selector == Selector::All);
        of_all
            .map(|peer| format!("BGPPeer/{}", peer.name))
            .collect()
    }
}

fn answer(
    question: &CalicoNodeStatus,
    ready: bool,
    speaker: &SpeakerStatus,
    routes: &[RouteStatus],
    for_all_nodes: &BTreeSet<String>,
) -> Value {
    let mut answer = Map::new();
    for class in &question.classes {
        match class {
            NodeStatusClass::Agent => {
                let daemon = json!({
                    "state": if ready && speaker.listen_error.is_none() { "Ready" } else { "NotReady" },
                    "version": env!("CARGO_PKG_VERSION"),
                    "routerID": speaker.router_id.map(|id| id.to_string()).unwrap_or_default(),
                });
                answer.insert(
                    "agent".into(),
                    json!({ "birdV4": daemon, "birdV6": daemon }),
                );
            }
            NodeStatusClass::Bgp => {
                drop(answer.insert("bgp".into(), sessions(speaker, for_all_nodes)))
            }
            NodeStatusClass::Routes => {
                let of_family = |v4: bool| {
                    let ours = routes
                        .iter()
                        .filter(|route| route.prefix.addr().is_ipv4() == v4);
                    let paths =
                        ours.flat_map(|route| route.paths.iter().map(|path| (route.prefix, path)));
                    paths
                        .take(ROUTES)
                        .map(|(prefix, path)| self::route(prefix, path))
                        .collect::<Value>()
                };
                let both = json!({ "routesV4": of_family(true), "routesV6": of_family(false) });
                answer.insert("routes".into(), both);
            }
        }
    }
    answer.into()
}

fn sessions(speaker: &SpeakerStatus, for_all_nodes: &BTreeSet<String>) -> Value {
    let of_family = |v4: bool| {
        let peers = speaker.peers.iter();
        let peers: Vec<&PeerStatus> = peers
            .filter(|peer| peer.key.address.is_ipv4() == v4)
            .collect();
        let established = peers
            .iter()
            .filter(|peer| peer.state == "Established")
            .count();
        let told = peers.iter().map(|peer| session(peer, for_all_nodes));
        let told: Value = told.collect();
        (established, peers.len() - established, told)
    };
    let ((up4, down4, peers4), (up6, down6, peers6)) = (of_family(true), of_family(false));
    json!({
        "numberEstablishedV4": up4,
        "numberNotEstablishedV4": down4,
        "numberEstablishedV6": up6,
        "numberNotEstablishedV6": down6,
        "peersV4": peers4,
        "peersV6": peers6,
    })
}

fn session(peer: &PeerStatus, for_all_nodes: &BTreeSet<String>) -> Value {
    let type_ = match &peer.name {
        name if is_mesh(name) => "NodeMesh",
        name if for_all_nodes.contains(name) => "GlobalPeer",
        _ => "NodePeer",
    };
    json!({
        "peerIP": peer.key.address,
        "type": type_,
        "state": peer.state,
        "since": format!("{} s", peer.since),
    })
}

fn route(prefix: IpNet, path: &PathStatus) -> Value {
    let source = match &path.peer {
        None => "Static",
        Some(_) if is_mesh(&path.from) => "NodeMesh",
        Some(_) => "BGPPeer",
    };
    let mut learned_from = json!({ "sourceType": source });
    if let Some(peer) = &path.peer {
        learned_from["peerIP"] = json!(peer.address);
    }
    let in_use = matches!(path.verdict.as_str(), "best" | "multipath");
    json!({
        "type": if in_use { "FIB" } else { "RIB" },
        "destination": prefix,
        "gateway": path.next_hop.map(|hop| hop.to_string()).unwrap_or_else(|| "N/A".to_owned()),
        "learnedFrom": learned_from,
    })
}

/// Sessions of the mesh are named after the other node.
fn is_mesh(name: &str) -> bool {
    name.starts_with("Node/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bgp_core::PeerKey;

    fn path(from: &str, peer: Option<&str>, verdict: &str) -> PathStatus {
        PathStatus {
            from: from.into(),
            peer: peer.map(|address| PeerKey::new(address.parse().unwrap(), 179)),
            next_hop: peer.map(|address| address.parse().unwrap()),
            as_path: String::new(),
            local_pref: None,
            med: None,
            communities: Vec::new(),
            path_id: 0,
            stale: false,
            verdict: verdict.into(),
        }
    }

    #[test]
    fn what_is_asked_is_answered_in_calicos_words() {
        let question = CalicoNodeStatus {
            name: "n1".into(),
            node: "n1".into(),
            classes: [NodeStatusClass::Agent, NodeStatusClass::Routes].into(),
            update_period_seconds: 10,
        };
        let speaker = SpeakerStatus {
            local_as: Some(64512),
            router_id: Some([10, 1, 0, 11].into()),
            converged: true,
            prefixes: 2,
            listen_error: None,
            peers: Vec::new(),
        };
        let routes = [
            RouteStatus {
                prefix: "10.244.1.0/26".parse().unwrap(),
                paths: vec![
                    path("Node/n2", Some("10.1.0.12"), "best"),
                    path("BGPPeer/rack", Some("10.1.0.1"), "lost: longer AS_PATH"),
                ],
            },
            RouteStatus {
                prefix: "fd00::/122".parse().unwrap(),
                paths: vec![path("local", None, "best")],
            },
        ];
        let said = answer(&question, true, &speaker, &routes, &BTreeSet::new());
        assert_eq!(said["agent"]["birdV6"]["state"], "Ready");
        assert_eq!(said["agent"]["birdV4"]["routerID"], "10.1.0.11");
        assert!(said.get("bgp").is_none(), "nobody asked");
        assert_eq!(
            said["routes"]["routesV4"],
            json!([
                { "type": "FIB", "destination": "10.244.1.0/26", "gateway": "10.1.0.12",
                  "learnedFrom": { "sourceType": "NodeMesh", "peerIP": "10.1.0.12" } },
                { "type": "RIB", "destination": "10.244.1.0/26", "gateway": "10.1.0.1",
                  "learnedFrom": { "sourceType": "BGPPeer", "peerIP": "10.1.0.1" } },
            ])
        );
        assert_eq!(
            said["routes"]["routesV6"],
            json!([{ "type": "FIB", "destination": "fd00::/122", "gateway": "N/A",
                     "learnedFrom": { "sourceType": "Static" } }])
        );
    }
}
