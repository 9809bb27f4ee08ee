use super::*;
use proptest::prelude::*;

fn path() -> Candidate {
    Candidate {
        local: false,
        local_pref: 100,
        path_length: 2,
        origin: Origin::Igp,
        neighbour_as: Some(65001),
        med: 0,
        ebgp: true,
        router_id: Ipv4Addr::new(192, 0, 2, 1),
        cluster_list_length: 0,
        peer_address: Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))),
        last_resort: false,
        path_id: 0,
        as_path: None,
    }
}

/// By the usual rules.
fn decide(candidates: &[Candidate]) -> Vec<Verdict> {
    super::decide(candidates, &Decision::default())
}

fn second_peer() -> Candidate {
    Candidate {
        router_id: Ipv4Addr::new(192, 0, 2, 2),
        peer_address: Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2))),
        ..path()
    }
}

#[test]
fn each_step_decides_and_is_the_stored_reason() {
    let cases = [
        (
            Step::Local,
            Candidate {
                local: true,
                ..second_peer()
            },
            path(),
        ),
        (
            Step::LocalPref,
            Candidate {
                local_pref: 101,
                path_length: 9,
                ..second_peer()
            },
            path(),
        ),
        (
            Step::PathLength,
            Candidate {
                path_length: 1,
                med: 9,
                ..second_peer()
            },
            path(),
        ),
        (
            Step::Origin,
            second_peer(),
            Candidate {
                origin: Origin::Incomplete,
                ..path()
            },
        ),
        (Step::Med, second_peer(), Candidate { med: 1, ..path() }),
        (
            Step::Ebgp,
            second_peer(),
            Candidate {
                ebgp: false,
                ..path()
            },
        ),
    ];
    for (step, winner, loser) in cases {
        assert_eq!(
            decide(&[loser.clone(), winner.clone()]),
            [Verdict::Lost(step), Verdict::Best]
        );
        assert_eq!(
            decide(&[winner, loser]),
            [Verdict::Best, Verdict::Lost(step)]
        );
    }
}

#[test]
fn paths_equal_up_to_the_identifier_are_used_together() {
    assert_eq!(
        decide(&[second_peer(), path()]),
        [Verdict::Multipath, Verdict::Best]
    );
}

#[test]
fn ties_break_by_identifier_then_cluster_list_then_address() {
    let by_cluster = Candidate {
        cluster_list_length: 1,
        ..path()
    };
    assert_eq!(
        decide(&[by_cluster, path()]),
        [Verdict::Multipath, Verdict::Best]
    );
    let by_address = Candidate {
        router_id: path().router_id,
        ..second_peer()
    };
    assert_eq!(
        decide(&[by_address, path()]),
        [Verdict::Multipath, Verdict::Best]
    );
}

#[test]
fn meds_of_different_neighbours_do_not_compare() {
    let other_as = Candidate {
        med: 50,
        neighbour_as: Some(65002),
        ..second_peer()
    };
    assert_eq!(
        decide(&[path(), other_as]),
        [Verdict::Best, Verdict::Multipath]
    );
}

#[test]
fn nothing_wins_among_nothing() {
    assert_eq!(decide(&[]), []);
}

prop_compose! {
    fn any_candidate()(
        local_pref in 0..2_u32, path_length in 0..3_usize, med in 0..3_u32, neighbour in 0..3_u32,
        origin in prop_oneof![Just(Origin::Igp), Just(Origin::Egp)], ebgp: bool,
        id in 0..3_u8, cluster_list_length in 0..2_usize,
    ) -> Candidate {
        Candidate {
            local_pref, path_length, med, origin, ebgp, cluster_list_length,
            neighbour_as: Some(neighbour),
            router_id: Ipv4Addr::new(192, 0, 2, id),
            ..path()
        }
    }
}

proptest! {
    #[test]
    fn the_order_of_paths_does_not_matter(
        mut paths in prop::collection::vec(any_candidate(), 1..8), rotation in 0..8_usize,
    ) {
        for (index, path) in paths.iter_mut().enumerate() {
            path.peer_address = Some(IpAddr::V4(Ipv4Addr::from(index as u32)));
        }
        let verdicts = decide(&paths);
        let turn = rotation % paths.len();
        let mut turned = paths.clone();
        turned.rotate_left(turn);
        let mut turned_verdicts = decide(&turned);
        turned_verdicts.rotate_right(turn);
        prop_assert_eq!(&verdicts, &turned_verdicts);
        prop_assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Best).count(), 1);
    }
}
