//! Desired -> kernel: one plan, step by step, recording what was done.

use super::{Agent, Table};
use felix_core::{Permissions, Phase, Plan, Step, plan, plan::Scope};
use kernel::{LinkError, NftError};
use model::dataplane::Route;

/// Failed transactions in a row after which the agent gives up and leaves the old rules in force.
pub(super) const GIVE_UP: u32 = 5;

/// A step that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// Our table.
    #[error("nftables: {source}")]
    Table {
        #[source]
        source: NftError,
    },
    /// The tunnel device.
    #[error("device {name}: {source}")]
    Device {
        name: String,
        #[source]
        source: LinkError,
    },
    /// Routes; the first that failed is named.
    #[error("{count} routes, the first being {first}: {reason}")]
    Routes {
        count: usize,
        first: ipnet::IpNet,
        reason: String,
    },
    /// The kernel could not be read.
    #[error("reading {what}: {reason}")]
    Read { what: &'static str, reason: String },
}

impl Agent {
    /// Make the kernel be as it should be, as far as that is allowed now.
    pub(super) fn converge(&mut self) -> Result<(), ApplyError> {
        if self.calc.phase() == Phase::Starting {
            // What an earlier process left is better than what is known now.
            return Ok(());
        }
        let plan = self.next_plan()?;
        let mut failure = None;
        for step in plan.steps {
            if let Err(error) = self.apply(step) {
                let policy_failed = matches!(error, ApplyError::Table { .. });
                failure.get_or_insert(error);
                if policy_failed {
                    // No route before the policy that guards it.
                    break;
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// The plan for this moment. Reads our table back first where it is not known.
    pub(super) fn next_plan(&mut self) -> Result<Plan, ApplyError> {
        let ops = self.calc.resolve();
        self.pending.extend(self.calc.take_touched());
        let table = match self.table {
            Table::InStep => Some(Step::Table(ops)),
            Table::Unknown => Some(self.read_table()),
        };
        let in_step = matches!(&table, Some(Step::Table(ops)) if ops.is_empty());
        if in_step && self.table == Table::Unknown {
            // Taken over from an earlier process as it is.
            let taken = self.kernel.nft_commit(&[]);
            self.table_result(taken)?;
        }
        let permissions = self.permissions();
        let desired = self.calc.desired();
        let pending = std::mem::take(&mut self.pending);
        let plan = plan(
            desired,
            &self.actual,
            table,
            permissions,
            Scope::Prefixes(&pending),
        );
        // What may not go yet is looked at again when it may.
        let kept = |dest: &ipnet::IpNet| {
            desired.route(dest).is_none() && self.actual.routes.contains_key(dest)
        };
        if !(permissions.local && permissions.learned) {
            self.pending.extend(pending.into_iter().filter(kept));
        }
        Ok(plan)
    }

    fn permissions(&self) -> Permissions {
        Permissions {
            local: self.calc.phase() == Phase::InSync,
            learned: self.converged && self.calc.phase() != Phase::Starting,
        }
    }

    /// What our table lacks, by reading it; the whole table where it can't be read.
    fn read_table(&mut self) -> Step {
        match self.kernel.nft_read() {
            Ok(Some(actual)) => Step::Table(actual.diff(self.calc.ruleset())),
            Ok(None) => Step::ReplaceTable,
            Err(error) => {
                tracing::warn!(%error, "our table can't be read: replacing it");
                Step::ReplaceTable
            }
        }
    }

    fn apply(&mut self, step: Step) -> Result<(), ApplyError> {
        match step {
            Step::Table(ops) => {
                let result = if ops.is_empty() {
                    Ok(())
                } else {
                    self.kernel.nft_commit(&ops)
                };
                self.table_result(result)
            }
            Step::ReplaceTable => {
                let result = self.kernel.nft_replace(self.calc.ruleset());
                self.table_result(result)
            }
            Step::EnsureIpip(device) => match self.kernel.ensure_ipip(&device) {
                Ok(_) => {
                    self.actual.ipip = Some(device);
                    Ok(())
                }
                Err(source) => Err(ApplyError::Device {
                    name: device.name,
                    source,
                }),
            },
            Step::RemoveIpip(name) => match self.kernel.remove_ipip(&name) {
                Ok(()) => {
                    self.actual.ipip = None;
                    Ok(())
                }
                Err(source) => Err(ApplyError::Device { name, source }),
            },
            Step::ReplaceRoutes(routes) => self.replace_routes(routes),
            Step::DeleteRoutes(dests) => self.delete_routes(&dests),
        }
    }

    fn table_result(&mut self, result: Result<(), NftError>) -> Result<(), ApplyError> {
        match result {
            Ok(()) => {
                self.table = Table::InStep;
                self.table_failures = 0;
                Ok(())
            }
            Err(source) => {
                self.table = Table::Unknown;
                self.table_failures += 1;
                Err(ApplyError::Table { source })
            }
        }
    }

    fn replace_routes(&mut self, routes: Vec<Route>) -> Result<(), ApplyError> {
        let failed = self.kernel.replace_routes(&routes);
        for route in routes {
            self.actual.routes.insert(route.dest, route.kind);
        }
        let count = failed.len();
        let mut first = None;
        for (route, error) in failed {
            self.actual.routes.remove(&route.dest);
            self.pending.insert(route.dest);
            first.get_or_insert((route.dest, error.to_string()));
        }
        match first {
            Some((first, reason)) => Err(ApplyError::Routes {
                count,
                first,
                reason,
            }),
            None => Ok(()),
        }
    }

    fn delete_routes(&mut self, dests: &[ipnet::IpNet]) -> Result<(), ApplyError> {
        let failed = self.kernel.delete_routes(dests);
        for dest in dests {
            self.actual.routes.remove(dest);
        }
        self.calc.confirm_freed(dests);
        let count = failed.len();
        match failed.into_iter().next() {
            Some((first, error)) => {
                self.audit_due = true;
                Err(ApplyError::Routes {
                    count,
                    first,
                    reason: error.to_string(),
                })
            }
            None => Ok(()),
        }
    }

    /// Read everything back and compare: what an event should have told and did not is counted
    /// and logged, so that the audit can't hide a defect.
    pub(super) fn audit(&mut self) {
        if let Err(error) = self.read_kernel() {
            self.fail(&error);
            return;
        }
        let before = self.actual.routes.clone();
        self.pending.extend(self.calc.desired().prefixes().copied());
        self.pending.extend(before.keys());
        self.table = Table::Unknown;
        if self
            .kernel
            .nft_read()
            .is_ok_and(|read| read.as_ref() == Some(self.calc.ruleset()))
        {
            self.table = Table::InStep;
        }
    }

    /// Links, addresses and routes as they are now.
    pub(super) fn read_kernel(&mut self) -> Result<(), ApplyError> {
        let read = |what, reason: String| ApplyError::Read { what, reason };
        let links = self
            .kernel
            .links()
            .map_err(|e| read("links", e.to_string()))?;
        let addresses = self
            .kernel
            .addresses()
            .map_err(|e| read("addresses", e.to_string()))?;
        let routes = self
            .kernel
            .routes()
            .map_err(|e| read("routes", e.to_string()))?;
        let gone: Vec<u32> = self
            .calc
            .underlay()
            .links()
            .map(|link| link.ifindex)
            .filter(|known| !links.iter().any(|link| link.ifindex == *known))
            .collect();
        for ifindex in gone {
            self.calc.on_link_gone(ifindex);
        }
        if !links
            .iter()
            .any(|link| link.name == model::names::IPIP_DEVICE && link.up)
        {
            self.actual.ipip = None;
        }
        for link in links {
            self.calc.on_link(link);
        }
        for address in addresses {
            self.calc.on_address(address);
        }
        self.actual.routes.clear();
        for route in routes {
            if route.ours {
                self.actual
                    .routes
                    .insert(route.route.dest, route.route.kind);
            } else {
                self.calc.on_foreign_route(route.route);
            }
        }
        Ok(())
    }
}
