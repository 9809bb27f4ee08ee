//! Live connections that a change denies are cut.

use super::Agent;
use crate::revoker::{Event, Portion};
use felix_core::Phase;
use ipnet::IpNet;
use policy::ruleset::Op;

impl Agent {
    /// Our table changed by these operations.
    pub(super) fn table_changed(&mut self, ops: &[Op]) {
        if ops.iter().any(may_deny) {
            self.revoke();
        }
    }

    /// Has the connections of this node's addresses looked at.
    pub(super) fn revoke(&mut self) {
        if !self.revoker.is_on() {
            self.calc.forget_departed(|_| true);
        // Before that, pods and policies may be missing that exist.
        } else if self.calc.phase() != Phase::Starting {
            self.revoker.look(self.calc.judged_addresses());
        }
    }

    pub(super) fn on_revoker(&mut self, event: Event) {
        match event {
            Event::Judge(Portion { flows, denied }) => {
                let departed = self.calc.departed();
                let ends = flows
                    .iter()
                    .flat_map(|flow| [flow.source, flow.destination]);
                self.haunted
                    .extend(ends.filter(|end| departed.contains(end)));
                let judge = self.calc.judge();
                let indices = 0..flows.len();
                // A thread that does not wait any more asks again.
                let _ = denied.send(indices.filter(|i| judge.denies(&flows[*i])).collect());
            }
            Event::Revoked { count, addresses } => {
                let haunted = std::mem::take(&mut self.haunted);
                self.calc.forget_departed(|address| {
                    addresses.contains(&IpNet::from(address)) && !haunted.contains(&address)
                });
                if count > 0 {
                    tracing::info!(
                        connections = count,
                        "cut: policy does not allow them any more"
                    );
                }
                self.revoked += count as u64;
                self.revoke_failure = None;
            }
            Event::Failed(reason) => {
                if self.revoke_failure.as_ref() != Some(&reason) {
                    tracing::warn!(%reason, "connections that policy denies are not cut");
                }
                self.revoke_failure = Some(reason);
            }
        }
    }
}

/// Whether an operation can deny what was allowed.
fn may_deny(op: &Op) -> bool {
    match op {
        Op::AddSet(..) | Op::AddCounter(_) | Op::DeleteCounter(_) => false,
        Op::AddElements(..)
        | Op::DeleteElements(..)
        | Op::AddChain(..)
        | Op::FlushChain(_)
        | Op::AddRules(..)
        | Op::DeleteChain(_)
        | Op::DeleteSet(_) => true,
    }
}
