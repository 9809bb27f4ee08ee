//! Blocks of nodes that are gone for good.
//!
//! A node is gone when it has no Node object. Its blocks are freed by whoever holds the lease,
//! once it has been gone for a grace period without a break in which nothing spoke for it:
//!
//! - its agent renews its own lease while it runs without a Node object and has pods;
//! - a route into one of its blocks is learnt by BGP: something there forwards to its pods.
//!
//! Each look without evidence counts from the first such look, by a clock that never jumps; one
//! with evidence begins the period anew. What is freed after all while a pod lives there (its node
//! is cut off from datastore and peers alike) is still not given out: the pod's endpoint is in the
//! datastore until its block is freed, and a node that comes back names the conflict.

use ipnet::IpNet;
use model::IpamBlock;
use std::collections::{BTreeMap, BTreeSet};

/// What is known at one moment.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// Every block of the datastore.
    pub blocks: Vec<IpamBlock>,
    /// Nodes that have a Node object.
    pub nodes: BTreeSet<String>,
    /// Prefixes learnt by BGP.
    pub routes: BTreeSet<IpNet>,
    /// The leases of nodes as last read: a number that changes while the node's agent lives.
    pub renewals: BTreeMap<String, u64>,
}

/// Nodes without a Node object, and since when nothing speaks for them.
#[derive(Debug, Clone, Default)]
pub struct Departed {
    silent: BTreeMap<String, Silence>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Silence {
    since: u64,
    renewals: Option<u64>,
}

impl Departed {
    /// One look. Answers the blocks that may be freed.
    pub fn observe(&mut self, evidence: &Evidence, now: u64, grace: u64) -> Vec<IpamBlock> {
        let mut owners: BTreeMap<&str, Vec<&IpamBlock>> = BTreeMap::new();
        for block in &evidence.blocks {
            if !evidence.nodes.contains(&block.node) {
                owners.entry(&block.node).or_default().push(block);
            }
        }
        let before = std::mem::take(&mut self.silent);
        let mut free = Vec::new();
        for (node, blocks) in owners {
            let renewals = evidence.renewals.get(node).copied();
            let earlier = before.get(node);
            let renewed = earlier.is_some_and(|silence| silence.renewals != renewals);
            let routed = blocks
                .iter()
                .any(|block| is_routed(block.cidr, &evidence.routes));
            let since = match earlier {
                Some(silence) if !renewed && !routed => silence.since,
                _ => now,
            };
            if earlier.is_some() && !renewed && !routed && now.saturating_sub(since) >= grace {
                free.extend(blocks.into_iter().cloned());
            }
            self.silent
                .insert(node.to_owned(), Silence { since, renewals });
        }
        free
    }

    /// Nodes without a Node object that own blocks, and since when nothing speaks for them.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, u64)> {
        self.silent
            .iter()
            .map(|(node, silence)| (node.as_str(), silence.since))
    }
}

/// A route into the block: the block itself, or an address in it.
fn is_routed(block: IpNet, routes: &BTreeSet<IpNet>) -> bool {
    routes.iter().any(|route| block.contains(route))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(cidr: &str, node: &str) -> IpamBlock {
        IpamBlock {
            cidr: cidr.parse().unwrap(),
            node: node.to_owned(),
        }
    }

    fn evidence() -> Evidence {
        Evidence {
            blocks: vec![block("10.0.0.0/26", "n1"), block("10.0.0.64/26", "gone")],
            nodes: ["n1".to_owned()].into(),
            ..Evidence::default()
        }
    }

    #[test]
    fn blocks_of_a_node_without_an_object_are_free_after_the_grace_period() {
        let mut departed = Departed::default();
        assert!(departed.observe(&evidence(), 0, 100).is_empty());
        assert!(departed.observe(&evidence(), 99, 100).is_empty());
        let free = departed.observe(&evidence(), 100, 100);
        assert_eq!(free, [block("10.0.0.64/26", "gone")]);
        assert!(
            Departed::default().observe(&evidence(), 0, 0).is_empty(),
            "on one look"
        );
    }

    #[test]
    fn a_node_that_comes_back_begins_anew() {
        let mut departed = Departed::default();
        departed.observe(&evidence(), 0, 100);
        let mut back = evidence();
        back.nodes.insert("gone".into());
        departed.observe(&back, 50, 100);
        assert_eq!(departed.nodes().count(), 0);
        departed.observe(&evidence(), 60, 100);
        assert!(departed.observe(&evidence(), 159, 100).is_empty());
        assert_eq!(departed.observe(&evidence(), 160, 100).len(), 1);
    }

    #[test]
    fn a_renewed_lease_or_a_route_into_a_block_speaks_for_the_node() {
        let renewals = |count: u64| Evidence {
            renewals: [("gone".to_owned(), count)].into(),
            ..evidence()
        };
        let routed = |prefix: &str| Evidence {
            routes: [prefix.parse().unwrap()].into(),
            ..evidence()
        };
        for alive in [renewals(2), routed("10.0.0.64/26"), routed("10.0.0.70/32")] {
            let mut departed = Departed::default();
            departed.observe(&evidence(), 0, 100);
            assert!(departed.observe(&alive, 200, 100).is_empty(), "{alive:?}");
            assert!(departed.observe(&alive, 250, 100).is_empty(), "{alive:?}");
            let quiet = Evidence {
                routes: BTreeSet::new(),
                ..alive
            };
            departed.observe(&quiet, 260, 100);
            assert_eq!(departed.observe(&quiet, 360, 100).len(), 1);
        }
        let mut departed = Departed::default();
        departed.observe(&evidence(), 0, 100);
        let elsewhere = routed("10.0.0.0/24");
        assert_eq!(
            departed.observe(&elsewhere, 100, 100).len(),
            1,
            "a route around it says nothing"
        );
    }
}
