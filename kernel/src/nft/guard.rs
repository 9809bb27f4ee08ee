//! A copy of our table that stands in while the table itself is replaced.
//!
//! One transaction that deletes a table and creates it again is not one moment for a packet that is
//! under way: it has passed the new base chain while that was empty, and reaches the old one when
//! that is (base chains are hooked in when they are announced, before the commit). Where a copy is
//! there throughout, whatever slips through the one is held to the same policy by the other.

use super::wire::{GET_TABLE, OWNER, request_of};
use super::write::{self, Transaction};
use super::{NftError, Table};
use crate::netlink::{Encoder, Flags};
use model::names::NFT_GUARD;
use policy::ruleset::Ruleset;
use rustix::thread::{MembarrierCommand, membarrier};
use std::time::Duration;

/// As long as a grace period may take where the kernel can't be asked for one.
const GRACE: Duration = Duration::from_millis(100);

/// Waits until every packet is through that was under way when this was called, some 10 to 30 ms:
/// packets pass the hooks within one RCU read-side critical section, and `MEMBARRIER_CMD_GLOBAL` is
/// `synchronize_rcu()` (`kernel/sched/membarrier.c`). A processor that the hypervisor has taken away
/// may keep a packet for longer than any number of transactions takes.
pub(super) fn wait_for_packets() {
    // Refused where processors run without a timer tick (`nohz_full`).
    if membarrier(MembarrierCommand::Global).is_err() {
        std::thread::sleep(GRACE);
    }
}

impl Table {
    /// Makes the copy. Where the kernel knows owners, it goes with this process.
    pub(super) fn guard(&mut self, ruleset: &Ruleset) -> Result<(), NftError> {
        let mut transaction = Transaction::begin(&self.socket, NFT_GUARD, None);
        transaction.create_table(self.owner.then_some(OWNER));
        for op in write::creation(ruleset) {
            transaction.op(&op)?;
        }
        self.guarded = true;
        self.run_beside(transaction)
    }

    /// Removes the copy, also one that an earlier process left. As long as one may be there it is
    /// in force, so that nothing else may go on before.
    pub(super) fn unguard(&mut self) -> Result<(), NftError> {
        if !self.guarded {
            return Ok(());
        }
        if self.guard_is_there()? {
            let mut transaction = Transaction::begin(&self.socket, NFT_GUARD, None);
            transaction.delete_table();
            self.run_beside(transaction)?;
        }
        self.guarded = false;
        Ok(())
    }

    /// What happens to the copy says nothing about whose the table is.
    fn run_beside(&mut self, transaction: Transaction<'_>) -> Result<(), NftError> {
        let adopted = self.adopted;
        self.run(transaction.end())?;
        self.adopted = adopted;
        Ok(())
    }

    fn guard_is_there(&mut self) -> Result<bool, NftError> {
        let encode = |encoder: &mut Encoder| {
            request_of(NFT_GUARD, encoder, GET_TABLE, Flags::QUIET, |_| {});
        };
        let found = self.socket.dump(encode, || false, |found, _| *found = true);
        match found {
            Err(error) if error.is(libc::ENOENT) => Ok(false),
            found => found.map_err(|source| NftError::Read {
                what: format!("the nft table {NFT_GUARD}"),
                source,
            }),
        }
    }
}
