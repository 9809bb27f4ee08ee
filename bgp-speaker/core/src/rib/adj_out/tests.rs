use super::member::QUEUE_LIMIT;
use super::*;
use crate::config::{Export, LocalRoute};
use crate::wire::{Framer, Message, decode};
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
        keep_next_hop: false,
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
