use super::member::QUEUE_LIMIT;
use super::*;
use crate::config::{Export, Import, LocalRoute, NextHopMode};
use crate::rib::PeerFacts;
use crate::wire::{AsPath, AsSegment, Attributes, Framer, Message, NextHop, Nlri, decode};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

const QUICK: PeerId = PeerId(1);
const SLOW: PeerId = PeerId(2);
const PREFIXES: u32 = 2500;

fn group(rib: &Rib) -> AdjRibOut {
    let policy = ExportPolicy {
        local_as: 64512,
        ibgp: false,
        client: false,
        export: Export::OwnRoutes,
        next_hop_mode: NextHopMode::Auto,
        next_hop_v4: Some(Ipv4Addr::new(10, 0, 0, 1)),
        next_hop_v6: None,
        cluster_id: Ipv4Addr::new(192, 0, 2, 1),
        families: vec![Family::IPV4],
        four_octet_as: true,
        filter: Arc::default(),
        link_local: None,
        role: None,
        graceful_shutdown: false,
        long_lived: false,
        extended_message: false,
        extended_next_hop: false,
        add_path: Vec::new(),
        path_limit: 0,
    };
    AdjRibOut::new(policy, rib)
}

/// Prefix number `index`, with attributes of its own.
fn route(index: u32, round: u32) -> LocalRoute {
    let address = Ipv4Addr::from(0x0a00_0000 + (index << 8));
    let prefix = IpNet::V4(ipnet::Ipv4Net::new_assert(address, 24));
    let communities = vec![index, round];
    LocalRoute {
        communities,
        ..LocalRoute::from(prefix)
    }
}

fn set(rib: &mut Rib, round: u32) -> Vec<SlotId> {
    let routes = (0..PREFIXES)
        .filter(|index| !(index + round).is_multiple_of(7))
        .map(|index| route(index, round));
    rib.set_local(&routes.map(|route| (route.prefix, route)).collect());
    rib.resolve(usize::MAX)
}

/// Applies messages as the peer would; returns whether End-of-RIB was among them.
fn apply(told: &mut BTreeMap<IpNet, Vec<u32>>, group: &AdjRibOut, runs: &[Arc<[u8]>]) -> bool {
    let mut framer = Framer::new();
    let mut end_of_rib = false;
    for run in runs {
        framer.push(run);
        while let Some(frame) = framer.next_frame().expect("sound messages") {
            let Ok(Message::Update(update)) = decode(&frame, &group.params) else {
                panic!("not an UPDATE");
            };
            for nlri in update.withdrawn {
                told.remove(&nlri.prefix);
            }
            for nlri in update
                .announced
                .iter()
                .flat_map(|announced| &announced.nlri)
            {
                told.insert(nlri.prefix, update.attributes.communities.clone());
            }
            end_of_rib |= update.end_of_rib == Some(Family::IPV4);
        }
    }
    end_of_rib
}

fn advertised(group: &AdjRibOut, rib: &Rib, peer: PeerId) -> BTreeMap<IpNet, Vec<u32>> {
    let entries = group.advertised(peer, rib);
    entries
        .map(|(prefix, path)| (prefix, path.attributes.communities))
        .collect()
}

#[test]
fn a_slow_member_costs_bounded_memory_and_ends_where_the_others_do() {
    let mut rib = Rib::new(0);
    set(&mut rib, 0);
    let mut group = group(&rib);
    let (mut quick, mut slow) = (BTreeMap::new(), BTreeMap::new());
    for peer in [QUICK, SLOW] {
        group.join(peer);
        group.end_of_rib(peer, &[Family::IPV4]);
    }
    // The slow member takes its first messages and then nothing for a long time.
    let runs = take_all(&mut group, &rib, SLOW);
    assert!(
        apply(&mut slow, &group, &runs),
        "End-of-RIB follows the table"
    );
    for round in 1..12 {
        let changed = set(&mut rib, round);
        group.update(&changed, &rib);
        let runs = take_all(&mut group, &rib, QUICK);
        apply(&mut quick, &group, &runs);
        assert!(group.members[&SLOW].octets() <= QUEUE_LIMIT + 512 * 1024);
    }
    assert!(group.members[&SLOW].is_behind(), "it has fallen behind");
    let runs = take_all(&mut group, &rib, SLOW);
    apply(&mut slow, &group, &runs);
    assert_eq!(quick, advertised(&group, &rib, QUICK));
    assert_eq!(slow, quick);
    assert!(!group.wants_to_send(SLOW));
}

#[test]
fn a_member_that_moves_in_is_told_the_difference() {
    let mut rib = Rib::new(0);
    set(&mut rib, 0);
    let mut old = group(&rib);
    old.join(QUICK);
    let mut told = BTreeMap::new();
    let runs = take_all(&mut old, &rib, QUICK);
    apply(&mut told, &old, &runs);
    set(&mut rib, 1);
    let mut new = group(&rib);
    new.take_over(&mut old, QUICK);
    let runs = take_all(&mut new, &rib, QUICK);
    apply(&mut told, &new, &runs);
    assert_eq!(told, advertised(&new, &rib, QUICK));
}

fn take_all(group: &mut AdjRibOut, rib: &Rib, peer: PeerId) -> Vec<Arc<[u8]>> {
    group.take(peer, rib, usize::MAX)
}

/// What a peer has understood of the messages it took.
type View = BTreeMap<IpNet, Vec<u32>>;

const FEEDERS: u32 = 3;

#[derive(Debug, Clone)]
enum Step {
    Announce(u32, u8, u8),
    Withdraw(u32, u8),
    /// Decisions are taken and passed on.
    Flush,
    /// A member takes some of its messages.
    Take(u32),
    /// A member's session ends and comes back, or its peer asks for everything again.
    Rejoin(u32),
    Refresh(u32),
    /// Every member moves to a group of its own making.
    Regroup,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..FEEDERS, 0..12_u8, 0..3_u8).prop_map(|(peer, prefix, path)| Step::Announce(peer, prefix, path)),
        4 => (0..FEEDERS, 0..12_u8).prop_map(|(peer, prefix)| Step::Withdraw(peer, prefix)),
        4 => Just(Step::Flush),
        4 => (0..FEEDERS).prop_map(Step::Take),
        1 => (0..FEEDERS).prop_map(Step::Rejoin),
        1 => (0..FEEDERS).prop_map(Step::Refresh),
        1 => Just(Step::Regroup),
    ]
}

struct World {
    rib: Rib,
    group: AdjRibOut,
    views: BTreeMap<PeerId, View>,
}

impl World {
    fn new() -> Self {
        let mut rib = Rib::new(0);
        for peer in 0..FEEDERS {
            rib.set_peer(PeerId(peer), facts(peer));
        }
        let group = Self::group_of(&rib, NextHopMode::Auto);
        let mut world = Self {
            rib,
            group,
            views: BTreeMap::new(),
        };
        for peer in (0..FEEDERS).map(PeerId) {
            world.group.join(peer);
            world.views.insert(peer, View::new());
        }
        world
    }

    fn group_of(rib: &Rib, next_hop_mode: NextHopMode) -> AdjRibOut {
        let policy = ExportPolicy {
            export: Export::All,
            next_hop_mode,
            ..group(rib).policy
        };
        AdjRibOut::new(policy, rib)
    }

    fn play(&mut self, step: Step) {
        match step {
            Step::Announce(peer, prefix, path) => {
                let attributes = Attributes {
                    as_path: AsPath(vec![AsSegment::Sequence(vec![65000 + peer, 65100])]),
                    communities: vec![peer, path.into()],
                    ..Attributes::default()
                };
                let next_hop = NextHop {
                    address: facts(peer).address,
                    link_local: None,
                };
                let nlri = [nlri(prefix)];
                self.rib.announce(PeerId(peer), attributes, next_hop, &nlri);
            }
            Step::Withdraw(peer, prefix) => self.rib.withdraw(PeerId(peer), &[nlri(prefix)]),
            Step::Flush => self.flush(),
            Step::Take(peer) => self.take(PeerId(peer), 1),
            Step::Rejoin(peer) => {
                self.group.leave(PeerId(peer));
                self.group.join(PeerId(peer));
                self.views.insert(PeerId(peer), View::new());
            }
            Step::Refresh(peer) => self.group.refresh(PeerId(peer), Family::IPV4),
            Step::Regroup => {
                let other = match self.group.policy.next_hop_mode {
                    NextHopMode::Auto => NextHopMode::Keep,
                    NextHopMode::Own | NextHopMode::Keep => NextHopMode::Auto,
                };
                let mut new = Self::group_of(&self.rib, other);
                for peer in (0..FEEDERS).map(PeerId) {
                    new.take_over(&mut self.group, peer);
                }
                self.group = new;
            }
        }
    }

    fn flush(&mut self) {
        let changed = self.rib.resolve(usize::MAX);
        self.group.update(&changed, &self.rib);
        while self.rib.poll_fib().is_some() {}
        let group = &self.group;
        self.rib.reclaim(|slot| group.needs(slot));
    }

    fn take(&mut self, peer: PeerId, limit: usize) {
        let runs = self.group.take(peer, &self.rib, limit);
        let view = self.views.get_mut(&peer).expect("a member");
        apply(view, &self.group, &runs);
    }
}

fn nlri(number: u8) -> Nlri {
    let prefix = IpNet::V4(ipnet::Ipv4Net::new_assert(
        Ipv4Addr::new(10, 1, number, 0),
        24,
    ));
    Nlri { prefix, path_id: 0 }
}

fn facts(peer: u32) -> PeerFacts {
    PeerFacts {
        address: Ipv4Addr::from(0x0a00_0001 + peer).into(),
        scope: 0,
        interface: None,
        router_id: Ipv4Addr::from(0xc000_0201 + peer),
        local_as: 64512,
        remote_as: 65000 + peer,
        ibgp: false,
        client: false,
        cluster_id: Ipv4Addr::UNSPECIFIED,
        allow_own_as: 0,
        import: Import::All,
        import_filter: Arc::default(),
        role: None,
        long_lived: Vec::new(),
        local_address: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_a_peer_holds_what_the_table_says(
        steps in prop::collection::vec(any_step(), 0..120),
    ) {
        let mut world = World::new();
        for step in steps {
            world.play(step);
        }
        world.flush();
        for peer in (0..FEEDERS).map(PeerId) {
            world.take(peer, usize::MAX);
            let told = advertised(&world.group, &world.rib, peer);
            prop_assert_eq!(told.len(), world.group.count(peer));
            prop_assert_eq!(&world.views[&peer], &told, "{:?}", peer);
        }
        // Nobody needs a slot any more but for prefixes that are there.
        world.rib.reclaim_soon();
        world.flush();
        prop_assert!(world.rib.slots().count() <= 3 * world.rib.len());
    }
}
