//! Our table is compared with the compiler's once in a while, in case an event was missed: a few
//! milliseconds at a time, with everything else in between.

use super::{Agent, Table};
use kernel::{Audit, Audited, NftError};
use std::time::Duration;

/// Time of one step; others wait for so long at most.
const STEP: Duration = Duration::from_millis(4);

/// How far the comparison is.
#[derive(Default)]
pub(super) struct TableAudit {
    running: Option<Audit>,
    /// The number of the kernel's last transaction when the one in hand began.
    began_at: Option<u32>,
    /// Likewise for the last that found nothing.
    clean_at: Option<u32>,
}

impl TableAudit {
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }
}

impl Agent {
    /// Begins a comparison, unless nobody has written to any table since the last one or the table
    /// is read as a whole anyway.
    pub(super) fn begin_table_audit(&mut self) {
        if self.table != Table::InStep || self.table_audit.is_running() {
            return;
        }
        let now = self.kernel.nft_generation().ok().flatten();
        if now.is_some() && now == self.table_audit.clean_at {
            return;
        }
        self.table_audit.began_at = now;
        match Audit::begin() {
            Ok(audit) => self.table_audit.running = Some(audit),
            Err(error) => tracing::warn!(%error, "our nftables table is not compared"),
        }
    }

    /// One step. True where the table has to be repaired.
    pub(super) fn continue_table_audit(&mut self) -> bool {
        let Some(mut audit) = self.table_audit.running.take() else {
            return false;
        };
        // What is not known to be in step is read as a whole before it is written to.
        if self.table != Table::InStep {
            return false;
        }
        match audit.step(self.calc.ruleset(), STEP) {
            Ok(None) => self.table_audit.running = Some(audit),
            Ok(Some(audited)) => return self.table_audited(audited),
            // It changes all the time; the next comparison may find a quiet moment.
            Err(error @ NftError::Read { .. }) => {
                tracing::debug!(%error, "our nftables table is compared later");
            }
            Err(error) => tracing::warn!(%error, "our nftables table is not compared"),
        }
        false
    }

    fn table_audited(&mut self, audited: Audited) -> bool {
        match audited {
            Audited::Same => {
                self.table_audit.clean_at = self.table_audit.began_at;
                false
            }
            Audited::Differs(what) => {
                tracing::warn!(%what, "audit: our nftables table is not as it should be: repairing");
                self.audit_findings += 1;
                self.table = Table::Unknown;
                true
            }
        }
    }
}
