//! Our one nf_tables table: written in transactions, read back into the same value.
//!
//! A transaction is one datagram between `BATCH_BEGIN` and `BATCH_END`, through one socket that
//! lives as long as the process: it owns the table where the kernel knows owners, and closing it
//! would wait for an RCU grace period after every deletion.

mod audit;
mod elements;
mod expression;
mod guard;
mod probe;
mod read;
mod statement;
mod wire;
mod write;

#[cfg(test)]
mod tests;

pub use audit::{Audit, Audited};
pub(crate) use probe::{probe_owner, probe_queue, probe_statements};
pub(crate) use wire::FAMILY_INET;

use crate::kernel::Kernel;
use crate::netlink::{Errno, NetlinkError, Socket};
use model::names::{INTERFACE_PREFIX, NFT_TABLE};
use policy::ruleset::{Op, Ruleset, SetHeader, stages};
use std::collections::BTreeMap;
use write::{Finished, HeaderChanges, Transaction};

/// Our table could not be changed or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NftError {
    /// The kernel refused one operation, and so the whole transaction: nothing was changed.
    #[error("{op}: {errno}{}", text.as_ref().map(|text| format!(": {text}")).unwrap_or_default())]
    Op {
        /// The first operation that failed.
        op: String,
        /// Why.
        errno: Errno,
        /// The kernel's own words, if it had any.
        text: Option<String>,
    },
    /// The operation cannot be expressed; nothing was sent.
    #[error("{op}: {reason}")]
    Unencodable {
        /// The operation.
        op: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The operations were accepted and the transaction was not: nothing was changed.
    #[error("nft transaction: {0}")]
    Transaction(#[source] NetlinkError),
    /// Our table is not there any more: it has to be replaced as a whole.
    #[error("the nft table {} is gone", NFT_TABLE)]
    TableGone,
    /// Another process owns our table.
    #[error(
        "the nft table {} belongs to another process (netlink port {port})",
        NFT_TABLE
    )]
    OwnedByOther {
        /// Port number of its socket.
        port: u32,
    },
    /// Our table holds what we never write.
    #[error("the nft table {} holds what is not ours: {}", NFT_TABLE, objects.join(", "))]
    Foreign {
        /// The objects.
        objects: Vec<String>,
    },
    /// The table could not be read.
    #[error("cannot read {what}: {source}")]
    Read {
        /// What was read.
        what: String,
        /// Why not.
        source: NetlinkError,
    },
}

/// Elements and rules of one transaction, where a table is made in several: the kernel's lock is
/// held for a few milliseconds.
const AT_ONCE: usize = 10_000;

/// What a counter has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes, from the network header on.
    pub bytes: u64,
}

/// Our table, as one socket sees it.
pub(crate) struct Table {
    socket: Socket,
    port: u32,
    /// The kernel knows `owner, persist`.
    owner: bool,
    /// The table is there, and ours to write.
    adopted: bool,
    /// A copy of the table may be there.
    guarded: bool,
    /// Headers of its sets: elements are encoded according to them.
    headers: BTreeMap<String, SetHeader>,
}

impl Kernel {
    /// Applies operations in one transaction, all of them or, on error, none; or in several, where
    /// one could lose sight of packets under way ([`stages`]): then an error may leave those before
    /// it done. The first commit creates the table if it is missing, or takes it over from an
    /// earlier process, which a commit of no operations does too.
    pub fn nft_commit(&mut self, ops: &[Op]) -> Result<(), NftError> {
        self.nft.commit(ops)
    }

    /// Drops our table and builds it anew in one transaction, while a copy of the new one stands
    /// guard: a packet never sees less than one of them whole. A large table that is not there is made in several, of which the first
    /// closes pods and the last opens them ([`Ruleset::opening`]).
    pub fn nft_replace(&mut self, ruleset: &Ruleset) -> Result<(), NftError> {
        self.nft.replace(ruleset)
    }

    /// Removes our table. Answers whether it was there.
    pub fn nft_delete(&mut self) -> Result<bool, NftError> {
        self.nft.delete()
    }

    /// What every counter of our table has counted since it was created, by name.
    pub fn nft_counters(&mut self) -> Result<BTreeMap<String, Count>, NftError> {
        self.nft.counters()
    }

    /// The number of the last transaction that changed any nft table of the network namespace:
    /// while it stays, nothing of ours has changed. None where the kernel does not tell.
    pub fn nft_generation(&mut self) -> Result<Option<u32>, NftError> {
        self.nft.generation()
    }

    /// Our table as a value; `None` if it is not there. [`NftError::Foreign`] names what we never
    /// write; replacing the table removes it.
    pub fn nft_read(&mut self) -> Result<Option<Ruleset>, NftError> {
        self.nft.read()
    }
}

impl Table {
    pub(crate) fn new(socket: Socket, port: u32, owner: bool) -> Self {
        Self {
            socket,
            port,
            owner,
            adopted: false,
            guarded: true,
            headers: BTreeMap::new(),
        }
    }

    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    fn commit(&mut self, ops: &[Op]) -> Result<(), NftError> {
        self.unguard()?;
        if ops.is_empty() && (self.adopted || self.state()? != TableState::Orphan) {
            return Ok(());
        }
        self.learn_headers(ops)?;
        match stages(ops) {
            None => self.commit_one(ops),
            Some(stages) => self.commit_each(&stages),
        }
    }

    /// Each transaction begins when no packet is left that has seen the table before the last one.
    fn commit_each(&mut self, stages: &[Vec<Op>]) -> Result<(), NftError> {
        for (at, ops) in stages.iter().enumerate() {
            if at > 0 {
                guard::wait_for_packets();
            }
            self.commit_one(ops)?;
        }
        Ok(())
    }

    fn commit_one(&mut self, ops: &[Op]) -> Result<(), NftError> {
        let create = self.adoption()?;
        let mut transaction = Transaction::begin(&self.socket, NFT_TABLE, Some(&self.headers));
        if let Some(flags) = create {
            transaction.create_table(flags);
        }
        for op in ops {
            transaction.op(op)?;
        }
        let finished = transaction.end();
        for (name, header) in self.run(finished)? {
            match header {
                Some(header) => self.headers.insert(name, header),
                None => self.headers.remove(&name),
            };
        }
        Ok(())
    }

    fn replace(&mut self, ruleset: &Ruleset) -> Result<(), NftError> {
        self.unguard()?;
        match self.state()? {
            TableState::Missing => {
                return self.open(&ruleset.opening(INTERFACE_PREFIX, AT_ONCE));
            }
            TableState::Owned(port) if port != self.port => {
                return Err(NftError::OwnedByOther { port });
            }
            _ => {}
        }
        let mut replaced = self.guard(ruleset);
        if replaced.is_ok() {
            guard::wait_for_packets();
            replaced = self.replace_at_once(ruleset);
            guard::wait_for_packets();
        }
        self.unguard()?;
        replaced
    }

    fn replace_at_once(&mut self, ruleset: &Ruleset) -> Result<(), NftError> {
        let mut transaction = Transaction::begin(&self.socket, NFT_TABLE, None);
        // Deleting needs a table, and creating one that is there changes nothing.
        transaction.create_table(None);
        transaction.delete_table();
        transaction.create_table(self.flags());
        for op in write::creation(ruleset) {
            transaction.op(&op)?;
        }
        let finished = transaction.end();
        let headers = self.run(finished)?.into_iter();
        self.headers = headers
            .filter_map(|(name, header)| Some((name, header?)))
            .collect();
        Ok(())
    }

    fn delete(&mut self) -> Result<bool, NftError> {
        self.unguard()?;
        if self.state()? == TableState::Missing {
            return Ok(false);
        }
        let create = self.adoption()?;
        let mut transaction = Transaction::begin(&self.socket, NFT_TABLE, None);
        // One that an earlier process left has to be taken over first.
        transaction.create_table(create.flatten());
        transaction.delete_table();
        let finished = transaction.end();
        self.run(finished)?;
        self.adopted = false;
        self.headers.clear();
        Ok(true)
    }

    /// Makes a table that is not there.
    fn open(&mut self, transactions: &[Vec<Op>]) -> Result<(), NftError> {
        self.adopted = false;
        self.headers.clear();
        for (at, ops) in transactions.iter().enumerate() {
            if at > 0 && at + 1 == transactions.len() {
                // The last takes away what kept pods closed.
                guard::wait_for_packets();
            }
            self.commit(ops)?;
        }
        Ok(())
    }

    /// Whether a commit has to create the table or take it over first, and with which flags.
    fn adoption(&mut self) -> Result<Option<Option<u32>>, NftError> {
        if self.adopted {
            return Ok(None);
        }
        match self.state()? {
            TableState::Missing => Ok(Some(self.flags())),
            TableState::Orphan => Ok(Some(Some(wire::OWNER_PERSIST))),
            TableState::Ours => Ok(None),
            TableState::Owned(port) if port == self.port => Ok(None),
            TableState::Owned(port) => Err(NftError::OwnedByOther { port }),
        }
    }

    /// Sends a transaction; answers the sets that it created or removed.
    fn run(&mut self, finished: Finished) -> Result<HeaderChanges, NftError> {
        if finished.names.is_empty() {
            return Ok(finished.headers);
        }
        let acks = self
            .socket
            .transact(&finished.request)
            .map_err(NftError::Transaction)?;
        let Some((sequence, error)) = acks.refused.into_iter().next() else {
            if acks.accepted.is_empty() {
                return Err(NftError::Transaction(NetlinkError::NoAnswer));
            }
            self.adopted = true;
            return Ok(finished.headers);
        };
        self.adopted = false;
        let state = self.state()?;
        let op = finished.name(sequence).map(str::to_owned);
        match (state, op, error) {
            (TableState::Missing, _, error) if error.is(libc::ENOENT) => Err(NftError::TableGone),
            (TableState::Owned(port), ..) if port != self.port => {
                Err(NftError::OwnedByOther { port })
            }
            (_, Some(op), NetlinkError::Refused { errno, text }) => {
                Err(NftError::Op { op, errno, text })
            }
            (_, _, error) => Err(NftError::Transaction(error)),
        }
    }

    fn flags(&self) -> Option<u32> {
        self.owner.then_some(wire::OWNER_PERSIST)
    }

    /// Reads the headers of sets whose elements change and that this process has not created.
    fn learn_headers(&mut self, ops: &[Op]) -> Result<(), NftError> {
        let mut created = std::collections::BTreeSet::new();
        let unknown = ops.iter().any(|op| match op {
            Op::AddSet(name, _) => {
                created.insert(name);
                false
            }
            Op::AddElements(name, _) | Op::DeleteElements(name, _) => {
                !created.contains(name) && !self.headers.contains_key(name)
            }
            _ => false,
        });
        if unknown && self.state()? != TableState::Missing {
            self.headers = self.read_headers()?;
        }
        Ok(())
    }
}

/// Whose our table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TableState {
    Missing,
    /// Without flags: made where the kernel knew none. It stays so until it is replaced.
    Ours,
    /// Its owner is gone; flags `persist` alone.
    Orphan,
    /// Owned by the socket with this port.
    Owned(u32),
}
