//! Desired -> kernel: one plan, step by step, recording what was done.

use super::{Agent, Table};
use felix_core::{Permissions, Phase, Plan, Step, plan, plan::Scope};
use kernel::{LinkError, NftError};
use model::dataplane::{Address, Route, RouteKind, Tunnel};
use policy::ruleset::Op;
use std::time::{Duration, Instant};

/// Failed transactions in a row after which the agent gives up and leaves the old rules in force.
pub(super) const GIVE_UP: u32 = 5;
/// And the shortest time for which it fails before that.
pub(super) const GIVE_UP_AFTER: Duration = Duration::from_secs(10);

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
        let waits = self.retry_at.is_some_and(|at| Instant::now() < at);
        if waits && self.table_failures > 0 {
            return Ok(());
        }
        let mut ops = self.calc.resolve();
        let mut failure = None;
        match self.ensure_tunnels(waits, &mut ops) {
            Ok(true) => ops.extend(self.calc.resolve()),
            Ok(false) => {}
            Err(error) => failure = Some(error),
        }
        let plan = self.next_plan(ops)?;
        let mut steps = plan.steps.into_iter();
        for step in steps.by_ref() {
            let tunnel = matches!(step, Step::EnsureTunnel(_));
            if tunnel {
                continue;
            }
            if let Err(error) = self.apply(step) {
                let policy_failed = matches!(error, ApplyError::Table { .. });
                failure.get_or_insert(error);
                if policy_failed {
                    // No route before the policy that guards it.
                    break;
                }
            }
        }
        for step in steps {
            match step {
                Step::ReplaceRoutes(_, routes) => {
                    self.pending
                        .extend(routes.into_iter().map(|route| route.dest));
                }
                Step::DeleteRoutes(_, dests) => self.pending.extend(dests),
                _ => {}
            }
        }
        if let Err(error) = self.readdress_host_ends() {
            failure.get_or_insert(error);
        }
        if failure.is_none() && self.deferred.is_empty() {
            failure = self.drop_stale_addresses().err();
        }
        failure.map_or(Ok(()), Err)
    }

    /// Tunnel devices come before routes are computed: those through them are withheld while they
    /// are not there, and a change of mode must not leave a gap. Returns whether one changed.
    fn ensure_tunnels(&mut self, waits: bool, ops: &mut Vec<Op>) -> Result<bool, ApplyError> {
        let differs = |tunnel: &&Tunnel| self.actual.tunnels.get(tunnel.name()) != Some(*tunnel);
        let wanted = self.calc.desired().tunnels.values().filter(differs);
        let wanted: Vec<Tunnel> = wanted.cloned().collect();
        if waits || wanted.is_empty() {
            return Ok(false);
        }
        // Whose packets they may take is in force before they take any.
        let ops = std::mem::take(ops);
        let table = match self.table {
            Table::InStep => Step::Table(ops),
            // What it lacks says all of it.
            Table::Unknown => self.read_table(),
        };
        self.apply(table)?;
        let mut failure = None;
        for tunnel in wanted {
            failure = self.apply(Step::EnsureTunnel(tunnel)).err().or(failure);
        }
        let links = self.kernel.links().map_err(|error| ApplyError::Read {
            what: "links",
            reason: error.to_string(),
        })?;
        for link in links {
            if self.calc.desired().tunnels.contains_key(&link.name) {
                self.calc.on_link(link);
            }
        }
        // Those that were made are used although another failed.
        if let Some(error) = failure {
            self.fail(&error);
        }
        Ok(true)
    }

    /// The plan for this moment. Reads our table back first where it is not known; `ops` are what
    /// the compiler wants changed where it is.
    pub(super) fn next_plan(&mut self, ops: Vec<Op>) -> Result<Plan, ApplyError> {
        self.pending.append(&mut self.calc.take_touched());
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
            learned: self.converged && self.calc.phase() == Phase::InSync,
        }
    }

    /// What our table lacks, by reading it; the whole table where it can't be read.
    fn read_table(&mut self) -> Step {
        match self.kernel.nft_read() {
            Ok(Some(actual)) => {
                let ops = actual.diff(self.calc.ruleset());
                ops.map_or(Step::ReplaceTable, Step::Table)
            }
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
                    self.counters.commits += 1;
                    self.kernel.nft_commit(&ops)
                };
                self.table_result(result)?;
                self.table_changed(&ops);
                Ok(())
            }
            Step::ReplaceTable => {
                self.counters.commits += 1;
                let result = self.kernel.nft_replace(self.calc.ruleset());
                self.table_result(result)?;
                self.revoke();
                Ok(())
            }
            Step::EnsureTunnel(tunnel) => match self.kernel.ensure_tunnel(&tunnel) {
                Ok(made) => {
                    let before = self.actual.tunnels.get(tunnel.name());
                    if before.is_some_and(|before| before.address() != tunnel.address()) {
                        // Each of them names the node's own address as its source.
                        self.routes_lost_with(made.ifindex);
                    }
                    self.tunnel_made(&tunnel, made.ifindex);
                    self.actual.stray_tunnels.remove(tunnel.name());
                    self.actual.tunnels.insert(tunnel.name().to_owned(), tunnel);
                    Ok(())
                }
                Err(source) => Err(ApplyError::Device {
                    name: tunnel.name().to_owned(),
                    source,
                }),
            },
            // A route that could not be replaced keeps its device, and what other nodes that do not
            // know yet send through it still arrives.
            Step::RemoveTunnel(name)
                if self.is_routed_through(&name) || self.tunnel_is_awaited(&name) =>
            {
                Ok(())
            }
            Step::RemoveTunnel(name) => match self.kernel.remove_tunnel(&name) {
                Ok(()) => {
                    self.actual.tunnels.remove(&name);
                    self.actual.stray_tunnels.remove(&name);
                    Ok(())
                }
                Err(source) => Err(ApplyError::Device { name, source }),
            },
            Step::ReplaceRoutes(metric, routes) => self.replace_routes(metric, routes),
            Step::DeleteRoutes(metric, dests) => self.delete_routes(metric, &dests),
        }
    }

    /// Pods that are BGP peers find their node at the address that is configured.
    fn readdress_host_ends(&mut self) -> Result<(), ApplyError> {
        for change in self.calc.host_ends_to_readdress() {
            let ifindex = change.ifindex;
            let Some(link) = self.calc.underlay().link(ifindex).cloned() else {
                continue;
            };
            let done = self
                .kernel
                .readdress_host_end(&link, &change.add, &change.remove);
            if let Err(source) = done {
                let name = link.name;
                return Err(ApplyError::Device { name, source });
            }
            // As the kernel will tell.
            for address in change.remove {
                self.calc.on_address_gone(&Address { ifindex, address });
            }
            for address in change.add {
                let address = address.into();
                self.calc.on_address(Address { ifindex, address });
            }
        }
        Ok(())
    }

    fn is_routed_through(&self, name: &str) -> bool {
        let Some(link) = self.calc.underlay().link_named(name) else {
            return false;
        };
        let through = |kind: &RouteKind| match kind {
            RouteKind::Via(hops) => hops.iter().any(|hop| hop.ifindex == Some(link.ifindex)),
            RouteKind::Device { ifindex } => *ifindex == link.ifindex,
            RouteKind::Blackhole => false,
        };
        self.actual.routes.values().any(through)
    }

    fn table_result(&mut self, result: Result<(), NftError>) -> Result<(), ApplyError> {
        match result {
            Ok(()) => {
                self.table = Table::InStep;
                self.table_failures = 0;
                self.failing_since = None;
                Ok(())
            }
            Err(source) => {
                self.table = Table::Unknown;
                self.table_failures += 1;
                self.counters.failed_commits += 1;
                self.failing_since.get_or_insert_with(Instant::now);
                Err(ApplyError::Table { source })
            }
        }
    }

    fn replace_routes(&mut self, metric: u32, routes: Vec<Route>) -> Result<(), ApplyError> {
        let failed = self.kernel.replace_routes_at(metric, &routes);
        for route in routes {
            self.actual.insert(route.dest, route.kind, metric);
        }
        let count = failed.len();
        let mut first = None;
        for (route, error) in failed {
            self.actual.routes.remove(&route.dest);
            self.deferred.insert(route.dest);
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

    fn delete_routes(&mut self, metric: u32, dests: &[ipnet::IpNet]) -> Result<(), ApplyError> {
        let failed = self.kernel.delete_routes_at(Some(metric), dests);
        for dest in dests {
            self.actual.remove(dest, metric);
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
}
