//! Which connections other policies would allow or deny.

use crate::cluster::{Cluster, View};
use crate::revoke::LiveFlow;
use policy::{Decision, Flow, Judgement, Party, Peer, differences};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Connections whose verdict changes, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Change {
    /// They are allowed then; else they are allowed now.
    pub opens: bool,
    /// Who opens them: pods as `namespace/name`, or an address that stands for those around it.
    pub source: Vec<String>,
    /// Who accepts them.
    pub destination: Vec<String>,
    /// What they are, such as `tcp/80`, `udp/(other ports)`, `icmp`.
    pub services: Vec<String>,
    /// Only of this family, `IPv4` or `IPv6`; none for both.
    pub family: Option<String>,
    /// What decides now, in words, at the end that decides.
    pub before: String,
    /// What decides then.
    pub after: String,
}

/// What changes between two views of a cluster.
pub fn diff(before: &View, after: &View) -> Vec<Change> {
    let (before, after) = (Cluster::new(before), Cluster::new(after));
    let names = |peer: Peer| match peer {
        Peer::Pods(pods) => pods.iter().map(|id| before.name_of(id)).collect(),
        Peer::Address(address) => vec![address.to_string()],
    };
    // What differs in service and family only is one change.
    let mut services: BTreeMap<Change, BTreeMap<String, [bool; 2]>> = BTreeMap::new();
    for found in differences(before.evaluator(), after.evaluator()) {
        let (was, will) = reasons(&found.before, &found.after);
        let change = Change {
            opens: found.after.allowed,
            source: names(found.source),
            destination: names(found.destination),
            services: vec![],
            family: None,
            before: was,
            after: will,
        };
        let of_service = services.entry(change).or_default();
        let families = of_service.entry(found.service.to_string()).or_default();
        families[usize::from(!found.ipv4)] = true;
    }
    let mut changes = vec![];
    for (change, services) in services {
        let mut by_families: BTreeMap<[bool; 2], Vec<String>> = BTreeMap::new();
        for (service, families) in services {
            by_families.entry(families).or_default().push(service);
        }
        // Where both ends have one family only, there is no other to tell it from.
        let several = by_families.len() > 1 || by_families.contains_key(&[false, true]);
        for (families, services) in by_families {
            let family = match families {
                [true, false] if several => Some("IPv4".to_owned()),
                [false, true] => Some("IPv6".to_owned()),
                _ => None,
            };
            changes.push(Change {
                services,
                family,
                ..change.clone()
            });
        }
    }
    changes
}

/// The end that decides: that which denies on the side that is denied, the same one on the other.
fn reasons(before: &Decision, after: &Decision) -> (String, String) {
    let denied = if before.allowed { after } else { before };
    let at_source = !denied.egress.allows();
    let words = |decision: &Decision| {
        let (judgement, end): (&Judgement, _) = if at_source {
            (&decision.egress, "egress")
        } else {
            (&decision.ingress, "ingress")
        };
        format!("{end}: {}", judgement.reason)
    };
    (words(before), words(after))
}

/// Which live connections are allowed now and would not be then: those that a change cuts.
pub fn cut<'a>(before: &View, after: &View, flows: &'a [LiveFlow]) -> Vec<&'a LiveFlow> {
    let (before, after) = (Cluster::new(before), Cluster::new(after));
    let judged = |cluster: &Cluster, live: &LiveFlow| {
        let party = |address, other| match cluster.is_own_node(address, None, other) {
            true => Party::OwnNode(address),
            false => Party::Address(address),
        };
        let (source, destination) = (live.source, live.destination);
        let ends = (party(source, destination), party(destination, source));
        let flow = Flow {
            source_port: live.ports.map(|(from, _)| from),
            ..Flow::new(ends.0, ends.1, live.protocol, live.ports.map(|(_, to)| to))
        };
        cluster.evaluator().verdict(&flow).allowed
    };
    let cut = flows
        .iter()
        .filter(|live| judged(&before, live) && !judged(&after, live));
    cut.collect()
}

#[cfg(test)]
mod tests;
