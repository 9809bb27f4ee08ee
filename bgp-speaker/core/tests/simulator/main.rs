//! Networks of speakers without a network: a clock of their own, octets that are late or lost,
//! connections that break, processes that die and come back. Once nothing happens any more,
//! everything has to be as if nothing had happened.
//!
//! `BGP_SIM_SEED` is where all chance comes from (a fixed one unless set; every failure prints it),
//! `BGP_SIM_SCALE` multiplies the size of the networks.
#![allow(clippy::unwrap_used)] // a test may panic

mod check;
mod topology;
mod world;

use bgp_core::filter::{Action, Community, Filter, Matches, Operation, RouteSource, Rule};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use topology::{Nodes, prefix, routes};
use world::{NodeId, World};

const SECOND: Duration = Duration::from_secs(1);
/// Longer than any timer that may still be at work: the retry timers, the idle hold, the stale
/// timers of graceful restart.
const QUIET: Duration = Duration::from_secs(1200);

fn number(name: &str, usual: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(usual, |text| text.parse().expect("a number"))
}

fn scale() -> usize {
    usize::try_from(number("BGP_SIM_SCALE", 1)).unwrap()
}

/// Prints the seed of a test that fails.
struct Seed(u64);

impl Seed {
    fn new(salt: u64) -> Self {
        Self(number("BGP_SIM_SEED", 0x0ca7) ^ salt)
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed of the simulation: {}", self.0);
        }
    }
}

fn check_all(world: &World) {
    check::sessions_are_up(world);
    check::told_is_held(world);
    check::every_packet_arrives(world);
}

/// Lets things happen to a network for a while, and compares what comes of it with a network that
/// has been like that from the start.
fn storm(nodes: Nodes, salt: u64, rounds: usize) {
    let seed = Seed::new(salt);
    let mut world = World::new(nodes, seed.0);
    world.run(60 * SECOND);
    check_all(&world);
    let mut down = BTreeSet::new();
    let mut cuts = Vec::new();
    for _ in 0..rounds {
        happen(&mut world, &mut down, &mut cuts);
        let pause = Duration::from_millis(world.random.next() % 8000);
        world.run(pause);
    }
    for (a, b) in cuts {
        world.set_cut(a, b, false);
    }
    for node in down {
        world.boot(node, true);
    }
    world.run(QUIET);
    check_all(&world);
    let nodes = world.nodes.iter();
    let same = nodes.map(|node| (node.config.clone(), node.routes.clone()));
    let mut fresh = World::new(same.collect(), !seed.0);
    fresh.run(60 * SECOND);
    check_all(&fresh);
    assert_eq!(check::picture(&world), check::picture(&fresh));
}

/// One that changes no order of preference but by the length of paths, so that there is one outcome.
fn a_filter(choice: u64) -> Arc<Filter> {
    let operation = match choice % 3 {
        0 => return Arc::default(),
        1 => Operation::AddCommunity("65000:7".parse().expect("a community")),
        _ => Operation::PrependAsPath(vec![65100]),
    };
    let matches = Matches {
        source: choice.is_multiple_of(2).then_some(RouteSource::Local),
        ..Matches::default()
    };
    let rules = vec![Rule {
        matches,
        action: Action::Accept,
        operations: vec![operation],
    }];
    Arc::new(Filter { rules })
}

fn happen(world: &mut World, down: &mut BTreeSet<NodeId>, cuts: &mut Vec<(NodeId, NodeId)>) {
    let node = world.random.below(world.nodes.len());
    match world.random.below(10) {
        0 | 1 => world.reset_any(),
        2 if !down.contains(&node) => {
            world.kill(node);
            down.insert(node);
        }
        3 if !down.contains(&node) => {
            world.stop_planned(node);
            down.insert(node);
        }
        4 => {
            if let Some(node) = down.pop_first() {
                world.boot(node, true);
            }
        }
        5 => {
            let peers = &world.nodes[node].config.peers;
            let peers: Vec<_> = peers.keys().map(check::node_of).collect();
            let other = peers[world.random.below(peers.len())];
            world.set_cut(node, other, true);
            cuts.push((node, other));
        }
        6 if !world.nodes[node].routes.is_empty() => {
            let bits = world.random.next();
            let wanted = (0..4).filter(|index| bits >> index & 1 == 1);
            world.set_routes(node, routes(node, wanted));
        }
        7 => {
            let choice = world.random.next();
            world.configure(node, |config| {
                let count = config.peers.len();
                let mut peers = config.peers.values_mut();
                if let Some(peer) = peers.nth(choice as usize % count) {
                    peer.export_filter = a_filter(choice >> 32);
                }
            });
        }
        _ => {
            if let Some((a, b)) = cuts.pop() {
                world.set_cut(a, b, false);
            }
        }
    }
}

#[test]
fn a_fabric_survives_a_storm_and_is_as_if_it_had_never_been() {
    storm(topology::fabric(4, 8 * scale(), 6), 1, 120);
}

#[test]
fn reflectors_and_their_clients_survive_a_storm() {
    storm(topology::reflected(60 * scale()), 2, 120);
}

#[test]
fn a_mesh_survives_a_storm() {
    storm(topology::mesh(24 * scale()), 3, 120);
}

#[test]
fn a_process_that_comes_back_in_time_is_not_missed_by_anybody() {
    let seed = Seed::new(4);
    let mut world = World::new(topology::fabric(2, 6 * scale(), 4), seed.0);
    world.run(60 * SECOND);
    check_all(&world);
    for round in 0..24 {
        for node in &mut world.nodes {
            node.removed.clear();
        }
        let before = check::picture(&world);
        let node = world.random.below(world.nodes.len());
        if round % 2 == 0 {
            world.kill(node);
        } else {
            world.stop_planned(node);
        }
        let away = Duration::from_millis(world.random.next() % 60_000);
        world.run(away);
        world.boot(node, true);
        world.run(QUIET);
        check_all(&world);
        for (id, other) in world.nodes.iter().enumerate() {
            let missed = &other.removed;
            assert!(
                missed.is_empty(),
                "{id} lost {missed:?} while {node} was away"
            );
        }
        assert_eq!(check::picture(&world), before);
    }
}

#[test]
fn a_process_that_does_not_come_back_is_forgotten() {
    let seed = Seed::new(5);
    let mut world = World::new(topology::mesh(12), seed.0);
    world.run(60 * SECOND);
    world.kill(3);
    world.run(100 * SECOND);
    let lost = prefix(3, 0);
    assert!(
        world.nodes[5].fib.contains_key(&lost),
        "kept for its return"
    );
    world.run(60 * SECOND);
    for (id, node) in world.nodes.iter().enumerate() {
        assert!(id == 3 || !node.fib.contains_key(&lost), "{id}");
    }
}

#[test]
fn a_filter_that_comes_and_goes_resets_nothing_and_leaves_nothing() {
    let seed = Seed::new(6);
    let mut world = World::new(topology::fabric(2, 4, 4), seed.0);
    world.run(60 * SECOND);
    let before = check::picture(&world);
    let tag: Community = "65000:7".parse().unwrap();
    let filter = Arc::new(Filter {
        rules: vec![Rule {
            matches: Matches::default(),
            action: Action::Accept,
            operations: vec![
                Operation::AddCommunity(tag),
                Operation::PrependAsPath(vec![65000; 3]),
            ],
        }],
    });
    for filter in [filter, Arc::default()] {
        world.configure(0, |config| {
            for peer in config.peers.values_mut() {
                peer.export_filter = Arc::clone(&filter);
            }
        });
        world.run(30 * SECOND);
        check_all(&world);
        let status = world.nodes[0].speaker.status(world.now);
        assert!(status.peers.iter().all(|peer| peer.established_count == 1));
    }
    assert_eq!(check::picture(&world), before);
}
