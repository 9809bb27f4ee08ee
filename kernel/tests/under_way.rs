//! Packets that are under way while our table changes: what the table before and the one after deny
//! does not pass in between.
#![allow(clippy::unwrap_used)]

mod common;

use common::Namespace;
use common::ruleset::rule;
use kernel::Kernel;
use policy::ruleset::{
    BaseHook, Chain, ChainType, Element, Field, Hook, KeyType, Part, Ruleset, Set, SetHeader,
    SetKind, Statement as S, Verdict,
};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where the denied packets go.
const TARGET: &str = "127.0.0.1:7777";
/// Index of the loopback interface in every network namespace.
const LOOPBACK: u32 = 1;
/// In one transaction each, some of 150 let a packet through.
const COMMITS: usize = 150;

/// A base chain that looks its chain up in `map`, and one of the name `chain` that drops.
fn table(map: &str, chain: &str) -> Ruleset {
    let drop_7777 = rule(
        vec![
            S::L4Proto(17),
            S::DportRange(7777, 7777),
            S::Verdict(Verdict::Drop),
        ],
        None,
    );
    let look_up = rule(
        vec![S::VerdictMap {
            fields: vec![Field::Iif],
            map: map.to_owned(),
        }],
        None,
    );
    let header = SetHeader {
        key: vec![KeyType::Ifindex],
        kind: SetKind::Hash,
        verdict_map: true,
        size: Some(64),
    };
    let lead = (
        Element::exact(&[Part::Ifindex(LOOPBACK)]),
        Some(Verdict::Jump(chain.to_owned())),
    );
    let base = BaseHook {
        hook: Hook::Input,
        chain_type: ChainType::Filter,
        priority: 0,
    };
    let chains = [
        (
            "input".to_owned(),
            Chain {
                hook: Some(base),
                rules: vec![look_up],
            },
        ),
        (
            chain.to_owned(),
            Chain {
                hook: None,
                rules: vec![drop_7777],
            },
        ),
    ];
    Ruleset {
        sets: [(
            map.to_owned(),
            Set {
                header,
                elements: [lead].into(),
            },
        )]
        .into(),
        chains: chains.into(),
        ..Ruleset::default()
    }
}

/// Has tables follow each other, each change made by `change`, under a flood of packets that all of
/// them deny. Answers how many were sent, and how many came through.
fn flood(
    tables: impl Fn(usize) -> Ruleset,
    change: impl Fn(&mut Kernel, &Ruleset, &Ruleset),
) -> (u64, u64) {
    let namespace = Namespace::new();
    let mut kernel = namespace.kernel();
    kernel.nft_replace(&tables(0)).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            namespace.run(|| {
                let receiver = UdpSocket::bind(TARGET).unwrap();
                receiver.set_nonblocking(true).unwrap();
                let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
                let mut sent = 0_u64;
                while !done.load(Ordering::Relaxed) {
                    sent += u64::from(sender.send_to(b"x", TARGET).is_ok());
                }
                let received = std::iter::from_fn(|| receiver.recv(&mut [0; 8]).ok());
                (sent, received.count() as u64)
            })
        });
        for number in 0..COMMITS {
            change(&mut kernel, &tables(number), &tables(number + 1));
        }
        done.store(true, Ordering::Relaxed);
        sender.join().unwrap()
    })
}

#[track_caller]
fn assert_closed((sent, received): (u64, u64)) {
    assert!(sent > COMMITS as u64, "{sent}");
    assert_eq!(received, 0, "of {sent}");
}

fn commit(kernel: &mut Kernel, before: &Ruleset, after: &Ruleset) {
    let ops = before.diff(after).expect("names stay");
    kernel.nft_commit(&ops).unwrap();
}

#[test]
fn nothing_passes_while_the_table_is_replaced() {
    let replace = |kernel: &mut Kernel, _: &Ruleset, after: &Ruleset| {
        kernel.nft_replace(after).unwrap();
    };
    assert_closed(flood(|_| table("map", "deny"), replace));
}

#[test]
fn nothing_passes_while_an_interface_is_sent_to_another_chain() {
    assert_closed(flood(
        |number| table("map", &format!("deny{number}")),
        commit,
    ));
}

#[test]
fn nothing_passes_while_a_verdict_map_makes_way_for_another() {
    assert_closed(flood(
        |number| table(&format!("map{number}"), "deny"),
        commit,
    ));
}

#[test]
fn nothing_of_the_copy_that_stood_in_is_left() {
    let namespace = Namespace::new();
    // Left by a process whose kernel knew no owners.
    namespace
        .nft("table inet ocicat-guard { chain forward { drop; }; }")
        .unwrap();
    let mut kernel = namespace.kernel();
    for _ in 0..2 {
        kernel.nft_replace(&table("map", "deny")).unwrap();
        assert_eq!(namespace.sh("nft list tables").trim(), "table inet ocicat");
    }
    kernel.nft_delete().unwrap();
    assert_eq!(namespace.sh("nft list tables"), "");
}
