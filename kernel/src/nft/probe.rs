//! What nf_tables can do, found out by batches without an end: the kernel checks them and changes
//! nothing.

use super::wire::{BATCH, BATCH_BEGIN, INET, NEW_TABLE, OWNER_PERSIST, TABLE_FLAGS, TABLE_NAME};
use super::write::Transaction;
use crate::netlink::{Flags, Socket};
use model::names::NFT_TABLE;
use policy::ruleset::{BaseHook, ChainType, CtState, Family, Hook, Op, Rule, Statement, Verdict};

/// Whether tables can have an owner and outlive it.
pub(crate) fn probe_owner(socket: &mut Socket) -> bool {
    let mut request = socket.encoder();
    request.message(BATCH_BEGIN, Flags::QUIET, &BATCH, |_| {});
    request.message(NEW_TABLE, Flags::CREATE, &INET, |encoder| {
        encoder.string(TABLE_NAME, "ocicat-probe");
        encoder.be_u32(TABLE_FLAGS, OWNER_PERSIST);
    });
    request.acknowledge(1);
    socket
        .transact(&request)
        .is_ok_and(|acks| acks.refused.is_empty() && !acks.accepted.is_empty())
}

/// Whether rules can hold packets in a queue.
pub(crate) fn probe_queue(socket: &mut Socket) -> bool {
    let hook = BaseHook {
        hook: Hook::Postrouting,
        chain_type: ChainType::Filter,
        priority: 0,
    };
    let chain = "ocicat-probe queue".to_owned();
    let rule = Rule {
        statements: vec![Statement::Queue(0)],
        comment: None,
    };
    let ops = [
        Op::AddChain(chain.clone(), Some(hook)),
        Op::AddRules(chain, vec![rule]),
    ];
    check(socket, &ops).is_ok()
}

/// Statements that the kernel lacks, each with its own words.
pub(crate) fn probe_statements(socket: &mut Socket) -> Vec<String> {
    let filter = [
        ("meta nfproto", Statement::Family(Family::Ipv6)),
        ("ct state", Statement::CtState(CtState::Invalid)),
        ("counter", Statement::Counter),
        (
            "limit",
            Statement::Limit {
                per_second: 1,
                burst: 5,
            },
        ),
        (
            "log",
            Statement::Log {
                group: 1,
                prefix: "probe".into(),
            },
        ),
    ];
    let filter = filter
        .into_iter()
        .map(|(name, s)| (name, ChainType::Filter, Hook::Forward, s));
    let nat = (
        "masquerade",
        ChainType::Nat,
        Hook::Postrouting,
        Statement::Masquerade,
    );
    let local = (
        "fib",
        ChainType::Nat,
        Hook::Prerouting,
        Statement::LocalDestination,
    );
    let probes: Vec<(&str, [Op; 2])> = filter
        .chain([nat, local])
        .map(|(name, chain_type, hook, statement)| {
            let hook = BaseHook {
                hook,
                chain_type,
                priority: 0,
            };
            let chain = format!("ocicat-probe {name}");
            let rule = Rule {
                statements: vec![statement, Statement::Verdict(Verdict::Return)],
                comment: None,
            };
            let add = Op::AddChain(chain.clone(), Some(hook));
            (name, [add, Op::AddRules(chain, vec![rule])])
        })
        .collect();
    // What the kernel does not carry out costs it an RCU grace period each time.
    let all: Vec<Op> = probes.iter().flat_map(|(_, ops)| ops.clone()).collect();
    if check(socket, &all).is_ok() {
        return Vec::new();
    }
    let missing = probes.iter().filter_map(|(name, ops)| {
        let reason = check(socket, ops).err()?;
        Some(format!("{name} ({reason})"))
    });
    missing.collect()
}

/// Has the kernel check operations in our table as if it were there.
fn check(socket: &mut Socket, ops: &[Op]) -> Result<(), String> {
    let mut transaction = Transaction::begin(socket, NFT_TABLE, None);
    transaction.create_table(None);
    for op in ops {
        transaction.op(op).map_err(|error| error.to_string())?;
    }
    let finished = transaction.check_only();
    let acks = socket
        .transact(&finished.request)
        .map_err(|error| error.to_string())?;
    match acks.refused.into_iter().next() {
        None => Ok(()),
        Some((sequence, error)) => Err(format!(
            "{}: {error}",
            finished.name(sequence).unwrap_or("nf_tables")
        )),
    }
}
