use super::decision::Refusal;
use super::*;
use crate::config::LocalRoute;
use crate::wire::{AsPath, AsSegment, Attributes, NextHop, Nlri};
use proptest::prelude::*;

const PEERS: u32 = 4;

fn facts(peer: u32) -> PeerFacts {
    PeerFacts {
        address: IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + peer)),
        router_id: Ipv4Addr::from(0xc000_0200 + peer),
        local_as: 64512,
        ibgp: peer == 3,
        client: false,
        allow_own_as: 0,
        import: Import::All,
        local_address: None,
        scope: 0,
        interface: None,
        remote_as: 65000 + peer,
        cluster_id: Ipv4Addr::new(192, 0, 2, 1),
        import_filter: Arc::default(),
        role: None,
        long_lived: Vec::new(),
    }
}

pub(super) fn rib() -> Rib {
    let mut rib = Rib::new(0);
    rib.set_identity(Identity {
        local_as: 64599,
        router_id: Ipv4Addr::new(192, 0, 2, 100),
        cluster_ids: [Ipv4Addr::new(192, 0, 2, 100)].into(),
        decision: Decision::default(),
        metric: None,
        addresses: vec![IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100))],
    });
    for peer in 0..PEERS {
        rib.set_peer(PeerId(peer), facts(peer));
    }
    rib
}

fn prefix(index: u8) -> IpNet {
    IpNet::V4(ipnet::Ipv4Net::new_assert(
        Ipv4Addr::new(10, 1, index, 0),
        24,
    ))
}

fn via(path: &[u32]) -> Attributes {
    Attributes {
        as_path: AsPath(vec![AsSegment::Sequence(path.to_vec())]),
        ..Attributes::default()
    }
}

fn next_hop(peer: u32) -> NextHop {
    NextHop {
        address: facts(peer).address,
        link_local: None,
    }
}

/// Everything that can be seen of a prefix: next hops installed, and paths.
type Picture = (IpNet, Vec<IpAddr>, Vec<(Source, Verdict, bool)>);

fn picture(rib: &Rib) -> Vec<Picture> {
    rib.destinations()
        .map(|(prefix, destination)| {
            let paths = destination.paths.iter();
            let paths = paths
                .map(|path| (path.source, path.verdict, path.stale))
                .collect();
            (prefix, installed(rib, &prefix), paths)
        })
        .collect()
}

fn installed(rib: &Rib, prefix: &IpNet) -> Vec<IpAddr> {
    let slot = rib.table.find(prefix).expect("a prefix of the table");
    let known = rib.forwarding.get(rib.table[slot].installed);
    let next_hops = known.map(|known| known.next_hops.iter());
    let addresses = next_hops.into_iter().flatten();
    addresses.map(|next_hop| next_hop.address).collect()
}

fn unnumbered(prefix: &IpNet) -> Nlri {
    Nlri {
        prefix: *prefix,
        path_id: 0,
    }
}

fn announce(rib: &mut Rib, peer: u32, index: u8, path: &[u32]) {
    let nlri = [unnumbered(&prefix(index))];
    rib.announce(PeerId(peer), via(path), next_hop(peer), &nlri);
}

pub(super) fn nlri(prefix: IpNet) -> Nlri {
    unnumbered(&prefix)
}

pub(super) fn announce_path(rib: &mut Rib, peer: u32, prefix: &str, path: &[u32]) {
    let nlri = [nlri(prefix.parse().unwrap())];
    rib.announce(PeerId(peer), via(path), next_hop(peer), &nlri);
}

fn withdraw(rib: &mut Rib, peer: u32, index: u8) {
    rib.withdraw(PeerId(peer), &[unnumbered(&prefix(index))]);
}

/// Decides about everything, and takes what follows for the forwarding table.
fn resolve(rib: &mut Rib) -> Vec<FibChange> {
    while rib.is_dirty() {
        rib.resolve(2);
    }
    let changes = std::iter::from_fn(|| rib.poll_fib()).collect();
    rib.reclaim(|_| false);
    changes
}

fn verdict_of(rib: &mut Rib, peer: u32, index: u8) -> Verdict {
    verdict_at(rib, peer, &prefix(index))
}

fn verdict_at(rib: &mut Rib, peer: u32, prefix: &IpNet) -> Verdict {
    resolve(rib);
    let slot = rib.table.find(prefix).expect("a prefix of the table");
    let destination = rib.destination(slot);
    let mut paths = destination.paths.iter();
    let path = paths.find(|path| path.source == Source::Peer(PeerId(peer)));
    path.expect("the path is kept").verdict
}

#[test]
fn equal_paths_are_installed_together_and_shrink_one_by_one() {
    let mut rib = rib();
    announce(&mut rib, 1, 1, &[65001, 65100]);
    announce(&mut rib, 2, 1, &[65002, 65100]);
    let set = |peers: &[u32]| {
        let next_hops = peers.iter().map(|peer| facts(*peer).address.into());
        vec![FibChange::Set {
            prefix: prefix(1),
            next_hops: next_hops.collect(),
            priority: None,
        }]
    };
    assert_eq!(resolve(&mut rib), set(&[1, 2]));
    withdraw(&mut rib, 1, 1);
    assert_eq!(resolve(&mut rib), set(&[2]));
    withdraw(&mut rib, 2, 1);
    assert_eq!(resolve(&mut rib), [FibChange::Remove { prefix: prefix(1) }]);
    assert_eq!((rib.len(), rib.slots().count()), (0, 0));
}

#[test]
fn an_announcement_that_changes_nothing_changes_nothing() {
    let mut rib = rib();
    announce(&mut rib, 1, 1, &[65001]);
    resolve(&mut rib);
    announce(&mut rib, 1, 1, &[65001]);
    assert!(!rib.is_dirty());
}

#[test]
fn paths_that_must_not_be_used_are_kept_with_the_reason() {
    let mut rib = rib();
    let refused = Verdict::Refused;
    announce(&mut rib, 1, 1, &[65001, 64512]);
    assert_eq!(verdict_of(&mut rib, 1, 1), refused(Refusal::OwnAs));
    rib.set_peer(
        PeerId(1),
        PeerFacts {
            allow_own_as: 1,
            ..facts(1)
        },
    );
    assert_eq!(verdict_of(&mut rib, 1, 1), Verdict::Best);
    rib.set_peer(
        PeerId(1),
        PeerFacts {
            import: Import::None,
            ..facts(1)
        },
    );
    assert_eq!(verdict_of(&mut rib, 1, 1), refused(Refusal::ImportPolicy));
    announce(&mut rib, 2, 1, &[65001, 64599]);
    assert_eq!(verdict_of(&mut rib, 2, 1), refused(Refusal::OwnAs));

    for (address, reason) in [
        ("10.0.0.100", Refusal::OwnNextHop),
        ("0.0.0.0", Refusal::UnusableNextHop),
        ("224.0.0.1", Refusal::UnusableNextHop),
        ("fe80::1", Refusal::UnusableNextHop),
    ] {
        let next_hop = NextHop {
            address: address.parse().unwrap(),
            link_local: None,
        };
        let nlri = [unnumbered(&prefix(2))];
        rib.announce(PeerId(2), Attributes::default(), next_hop, &nlri);
        assert_eq!(verdict_of(&mut rib, 2, 2), refused(reason), "{address}");
    }

    let ours = Ipv4Addr::new(192, 0, 2, 100);
    let originator = Attributes {
        originator_id: Some(ours),
        ..Attributes::default()
    };
    let cluster = Attributes {
        cluster_list: vec![ours],
        ..Attributes::default()
    };
    for (attributes, reason) in [
        (originator, Refusal::OwnOriginator),
        (cluster, Refusal::OwnCluster),
    ] {
        let nlri = [unnumbered(&prefix(3))];
        rib.announce(PeerId(3), attributes, next_hop(3), &nlri);
        assert_eq!(verdict_of(&mut rib, 3, 3), refused(reason));
    }
}

#[test]
fn a_route_of_this_node_is_neither_forwarded_nor_taken_from_others() {
    let mut rib = rib();
    announce(&mut rib, 1, 1, &[65001]);
    resolve(&mut rib);
    let route = LocalRoute::from(prefix(1));
    rib.set_local(&BTreeMap::from([(prefix(1), route)]));
    assert_eq!(resolve(&mut rib), [FibChange::Remove { prefix: prefix(1) }]);
    assert_eq!(
        verdict_of(&mut rib, 1, 1),
        Verdict::Refused(Refusal::OwnPrefix)
    );
    rib.set_local(&BTreeMap::new());
    let next_hops = vec![facts(1).address.into()];
    assert_eq!(
        resolve(&mut rib),
        [FibChange::Set {
            prefix: prefix(1),
            next_hops,
            priority: None,
        }]
    );
}

fn verdict_on(rib: &mut Rib, text: &str) -> Verdict {
    let prefix = text.parse().unwrap();
    rib.announce(
        PeerId(1),
        via(&[65001]),
        next_hop(1),
        &[unnumbered(&prefix)],
    );
    verdict_at(rib, 1, &prefix)
}

#[test]
fn prefixes_that_are_never_routed_are_kept_with_the_reason() {
    let mut rib = rib();
    for text in [
        "0.0.0.0/8",
        "0.0.0.1/32",
        "127.0.0.0/8",
        "127.0.0.53/32",
        "169.254.0.0/16",
        "169.254.169.254/32",
        "224.0.0.0/3",
        "239.1.0.0/16",
        "240.0.0.0/4",
        "255.255.255.255/32",
        "::/128",
        "::1/128",
        "fe80::/10",
        "fe80::/64",
        "ff00::/8",
        "ff02::1/128",
    ] {
        let refused = Verdict::Refused(Refusal::Martian);
        assert_eq!(verdict_on(&mut rib, text), refused, "{text}");
    }
    for text in [
        "0.0.0.0/0",
        "0.0.0.0/1",
        "128.0.0.0/1",
        "126.0.0.0/8",
        "169.255.0.0/16",
        "223.255.255.0/24",
        "::/0",
        "2000::/3",
        "fd00::/8",
    ] {
        assert_eq!(verdict_on(&mut rib, text), Verdict::Best, "{text}");
    }
}

#[test]
fn nobody_takes_a_part_of_a_route_of_this_node() {
    let mut rib = rib();
    assert_eq!(verdict_on(&mut rib, "10.1.1.64/27"), Verdict::Best);
    let own = |texts: &[&str]| -> BTreeMap<_, _> {
        let routes = texts
            .iter()
            .map(|text| LocalRoute::from(text.parse::<IpNet>().unwrap()));
        routes.map(|route| (route.prefix, route)).collect()
    };
    rib.set_local(&own(&["10.1.1.64/26", "fd00:1::/122", "0.0.0.0/0"]));
    let part: IpNet = "10.1.1.64/27".parse().unwrap();
    assert_eq!(resolve(&mut rib), [FibChange::Remove { prefix: part }]);
    for text in ["10.1.1.64/27", "10.1.1.127/32", "fd00:1::3f/128"] {
        let refused = Verdict::Refused(Refusal::WithinOwnPrefix);
        assert_eq!(verdict_on(&mut rib, text), refused, "{text}");
    }
    for text in [
        "10.1.1.0/24",
        "10.1.1.63/32",
        "10.1.1.128/26",
        "fd00:1::40/128",
    ] {
        assert_eq!(verdict_on(&mut rib, text), Verdict::Best, "{text}");
    }
    rib.set_local(&BTreeMap::new());
    let mut restored: Vec<_> = resolve(&mut rib).iter().map(FibChange::prefix).collect();
    restored.sort();
    let expected = ["10.1.1.64/27", "10.1.1.127/32", "fd00:1::3f/128"];
    assert_eq!(
        restored,
        expected.map(|text| text.parse::<IpNet>().unwrap())
    );
}

#[test]
fn stale_paths_forward_until_they_are_swept() {
    let mut rib = rib();
    announce(&mut rib, 1, 1, &[65001]);
    announce(&mut rib, 1, 2, &[65001]);
    resolve(&mut rib);
    rib.mark_stale(PeerId(1), &[Family::IPV4]);
    assert_eq!(
        rib.count(PeerId(1)),
        Count {
            received: 2,
            received_v6: 0,
            stale: 2
        }
    );
    announce(&mut rib, 1, 1, &[65001]);
    assert_eq!(resolve(&mut rib), []);
    rib.sweep(PeerId(1), Family::IPV4);
    assert_eq!(resolve(&mut rib), [FibChange::Remove { prefix: prefix(2) }]);
    assert_eq!(
        rib.count(PeerId(1)),
        Count {
            received: 1,
            received_v6: 0,
            stale: 0
        }
    );
}

#[derive(Debug, Clone)]
enum Step {
    Announce(u32, u8, Vec<u32>),
    Withdraw(u32, u8),
    Local(u8, bool),
    Resolve,
}

/// The routes of this node: prefixes of peers, one that contains two of them, one that contains all.
fn own_prefix(index: u8) -> IpNet {
    match index {
        0 | 1 => prefix(index),
        2 => "10.1.0.0/23".parse().unwrap(),
        _ => "10.1.0.0/22".parse().unwrap(),
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let path = prop::collection::vec(65000..65003_u32, 1..3);
    prop_oneof![
        4 => (0..PEERS, 0..3_u8, path).prop_map(|(peer, index, path)| Step::Announce(peer, index, path)),
        2 => (0..PEERS, 0..3_u8).prop_map(|(peer, index)| Step::Withdraw(peer, index)),
        1 => (0..4_u8, any::<bool>()).prop_map(|(index, present)| Step::Local(index, present)),
        1 => Just(Step::Resolve),
    ]
}

/// The last word of every peer on every prefix, and the routes of this node.
type Final = (BTreeMap<(u32, u8), Vec<u32>>, BTreeMap<IpNet, LocalRoute>);

fn play(rib: &mut Rib, steps: &[Step]) -> Final {
    let (mut paths, mut local) = Final::default();
    for step in steps {
        match step {
            Step::Announce(peer, index, path) => {
                announce(rib, *peer, *index, path);
                paths.insert((*peer, *index), path.clone());
            }
            Step::Withdraw(peer, index) => {
                withdraw(rib, *peer, *index);
                paths.remove(&(*peer, *index));
            }
            Step::Local(index, present) => {
                let route = LocalRoute::from(own_prefix(*index));
                if *present {
                    local.insert(route.prefix, route);
                } else {
                    local.remove(&route.prefix);
                }
                rib.set_local(&local);
            }
            Step::Resolve => drop(resolve(rib)),
        }
    }
    resolve(rib);
    (paths, local)
}

proptest! {
    #[test]
    fn a_table_depends_on_what_is_and_not_on_what_was(
        steps in prop::collection::vec(any_step(), 0..60), backwards: bool,
    ) {
        let mut grown = rib();
        let (paths, local) = play(&mut grown, &steps);
        let mut rebuilt = rib();
        rebuilt.set_local(&local);
        let mut order: Vec<_> = paths.iter().collect();
        if backwards {
            order.reverse();
        }
        for ((peer, index), path) in order {
            announce(&mut rebuilt, *peer, *index, path);
        }
        resolve(&mut rebuilt);
        prop_assert_eq!(picture(&grown), picture(&rebuilt));
    }

    #[test]
    fn forwarding_changes_add_up_to_the_table(steps in prop::collection::vec(any_step(), 0..60)) {
        let mut rib = rib();
        let mut fib = BTreeMap::new();
        for step in &steps {
            if !matches!(step, Step::Resolve) {
                play_one(&mut rib, step);
            }
            for change in resolve(&mut rib) {
                match change {
                    FibChange::Set { prefix, next_hops, .. } => {
                        let next_hops: Vec<_> =
                            next_hops.iter().map(|next_hop| next_hop.address).collect();
                        prop_assert!(fib.insert(prefix, next_hops.clone()) != Some(next_hops));
                    }
                    FibChange::Remove { prefix } => prop_assert!(fib.remove(&prefix).is_some()),
                }
            }
        }
        let destinations = rib.destinations();
        let all = destinations.map(|(prefix, _)| (prefix, installed(&rib, &prefix)));
        let used = all.filter(|(_, next_hops)| !next_hops.is_empty());
        prop_assert_eq!(fib, used.collect::<BTreeMap<_, _>>());
    }
}

fn play_one(rib: &mut Rib, step: &Step) {
    match step {
        Step::Announce(peer, index, path) => announce(rib, *peer, *index, path),
        Step::Withdraw(peer, index) => withdraw(rib, *peer, *index),
        Step::Local(index, true) => {
            let route = LocalRoute::from(own_prefix(*index));
            rib.set_local(&BTreeMap::from([(route.prefix, route)]));
        }
        Step::Local(_, false) => rib.set_local(&BTreeMap::new()),
        Step::Resolve => {}
    }
}

/// A way to change what is taken from a peer.
fn any_facts() -> impl Strategy<Value = (u32, PeerFacts)> {
    (0..PEERS, 0..4_u8, any::<bool>()).prop_map(|(peer, filter, long_lived)| {
        use crate::filter::{Action, Community, Matches, Operation, Rule};
        let rule = |action, operations| Rule {
            matches: Matches {
                as_path_prefix: vec![65001],
                ..Matches::default()
            },
            action,
            operations,
        };
        let rules = match filter {
            0 => Vec::new(),
            1 => vec![rule(Action::Reject, Vec::new())],
            2 => vec![rule(Action::Accept, vec![Operation::SetLocalPref(200)])],
            _ => {
                let tag = Operation::AddCommunity(Community::Standard(7));
                vec![rule(Action::Accept, vec![tag, Operation::SetPriority(512)])]
            }
        };
        let facts = PeerFacts {
            import_filter: Arc::new(Filter { rules }),
            long_lived: if long_lived {
                vec![Family::IPV4]
            } else {
                Vec::new()
            },
            ..facts(peer)
        };
        (peer, facts)
    })
}

#[derive(Debug, Clone)]
enum Change {
    Step(Step),
    Facts(u32, PeerFacts),
    Stale(u32),
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => any_step().prop_map(Change::Step),
        1 => any_facts().prop_map(|(peer, facts)| Change::Facts(peer, facts)),
        1 => (0..PEERS).prop_map(Change::Stale),
    ]
}

/// A path that may be used, as policy has left it.
type Used = (Source, PathAttributes, Option<u32>);

/// What policy has made of every path in use, and what the forwarding table has been told.
fn told(rib: &Rib) -> Vec<(IpNet, Forwarding, Vec<Used>)> {
    let destinations = rib.destinations();
    destinations
        .map(|(prefix, _)| {
            let slot = rib.table.find(&prefix).expect("a prefix of the table");
            let known = rib.forwarding.get(rib.table[slot].installed);
            let usable = rib.usable(slot);
            let paths = usable.map(|(_, _, path)| {
                (
                    path.source,
                    PathAttributes::clone(path.attributes),
                    path.priority,
                )
            });
            (prefix, known.cloned().unwrap_or_default(), paths.collect())
        })
        .collect()
}

proptest! {
    #[test]
    fn policies_that_come_and_go_leave_nothing(
        changes in prop::collection::vec(any_change(), 0..60),
    ) {
        let mut grown = rib();
        let mut last: BTreeMap<u32, PeerFacts> = BTreeMap::new();
        let (mut paths, mut local) = Final::default();
        let mut stale = BTreeSet::new();
        for change in changes {
            match change {
                Change::Facts(peer, facts) => {
                    grown.set_peer(PeerId(peer), facts.clone());
                    last.insert(peer, facts);
                }
                Change::Stale(peer) => {
                    grown.mark_stale(PeerId(peer), &[Family::IPV4]);
                    stale.extend(paths.keys().filter(|(from, _)| *from == peer));
                }
                Change::Step(step) => {
                    play_one(&mut grown, &step);
                    match step {
                        Step::Announce(peer, index, path) => {
                            paths.insert((peer, index), path);
                            stale.remove(&(peer, index));
                        }
                        Step::Withdraw(peer, index) => {
                            paths.remove(&(peer, index));
                            stale.remove(&(peer, index));
                        }
                        Step::Local(index, present) => {
                            local.clear();
                            let route = LocalRoute::from(own_prefix(index));
                            local.extend(present.then_some((route.prefix, route)));
                        }
                        Step::Resolve => drop(resolve(&mut grown)),
                    }
                }
            }
        }
        // Marking does not decide anew by itself; becoming a last resort does.
        for peer in 0..PEERS {
            let facts = last.remove(&peer).unwrap_or_else(|| facts(peer));
            let none = PeerFacts { long_lived: Vec::new(), ..facts.clone() };
            grown.set_peer(PeerId(peer), none);
            grown.set_peer(PeerId(peer), facts.clone());
            last.insert(peer, facts);
        }
        resolve(&mut grown);
        let mut rebuilt = rib();
        rebuilt.set_local(&local);
        for (peer, facts) in last {
            rebuilt.set_peer(PeerId(peer), facts);
        }
        for ((peer, index), path) in &paths {
            announce(&mut rebuilt, *peer, *index, path);
        }
        for (peer, index) in &stale {
            let slot = rebuilt.table.find(&prefix(*index)).expect("announced");
            let at = rebuilt.position(slot, 0, Source::Peer(PeerId(*peer))).expect("announced");
            rebuilt.table.paths_mut(slot)[at].stale = true;
        }
        resolve(&mut rebuilt);
        prop_assert_eq!(told(&grown), told(&rebuilt));
        prop_assert_eq!(picture(&grown), picture(&rebuilt));
        let overlays = |rib: &Rib| -> Vec<(IpNet, usize)> {
            rib.overlays.iter().map(|(prefix, all)| (*prefix, all.len())).collect()
        };
        prop_assert_eq!(overlays(&grown), overlays(&rebuilt));
    }
}
