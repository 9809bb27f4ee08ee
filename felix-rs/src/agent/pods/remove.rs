//! The end of an endpoint, and of its link.

use crate::agent::Agent;
use crate::agent::addresses::{key_of, now_ms, owner};
use crate::store::Write;
use felix_core::EndpointKey;
use ipam::journal::Record;
use kernel::LinkError;
use std::thread::JoinHandle;

/// A link that a thread of its own deletes.
pub(in crate::agent) type Deletion = JoinHandle<Result<(), LinkError>>;

impl Agent {
    /// Take an endpoint down: policy, routes, address, link. Nothing happens where there is none.
    pub(in crate::agent) fn remove_endpoint(&mut self, key: &EndpointKey) {
        let Some(local) = self.calc.remove_local(key) else {
            return;
        };
        if let Err(error) = self.converge() {
            self.fail(&error);
        }
        let now = now_ms();
        self.ipam.release(&owner(key), now);
        let record = Record::EndpointGone {
            container_id: key.container_id.clone(),
            ifname: key.ifname.clone(),
            sequence: local.sequence,
            at_ms: now,
        };
        self.journal.note(record);
        self.delete_link(local.ifindex);
        self.forget_flows_of(&local);
        let object = key_of(&local.endpoint);
        if !self
            .calc
            .local()
            .values()
            .any(|other| key_of(&other.endpoint) == object)
        {
            self.store.write(Write::Delete(object));
        }
        if let Err(error) = self.journal.tidy(now, self.ipam.cooldown_ms) {
            tracing::warn!(%error, "journal not compacted");
        }
    }

    /// Off the reply's path: the kernel takes tens of milliseconds for it.
    pub(super) fn delete_link(&mut self, ifindex: u32) {
        match self.kernel.delete_link_in_background(ifindex) {
            Ok(deletion) => drop(self.deleting.insert(ifindex, Some(deletion))),
            Err(error) => {
                tracing::warn!(%error, "a link stays behind for now");
                self.deleting.insert(ifindex, None);
            }
        }
    }

    /// Deletions that failed are begun again; one that is done has nothing to delete.
    pub(in crate::agent) fn retry_deletions(&mut self) {
        let ended =
            |deletion: &Option<Deletion>| deletion.as_ref().is_none_or(Deletion::is_finished);
        let again: Vec<u32> = self
            .deleting
            .extract_if(.., |_, deletion| ended(deletion))
            .filter_map(|(ifindex, deletion)| match deletion.map(Deletion::join) {
                Some(Ok(Ok(()))) => None,
                Some(Ok(Err(error))) => {
                    tracing::warn!(%error, "a link is not deleted: trying again");
                    Some(ifindex)
                }
                Some(Err(_)) | None => Some(ifindex),
            })
            .collect();
        for ifindex in again {
            self.delete_link(ifindex);
        }
    }
}
