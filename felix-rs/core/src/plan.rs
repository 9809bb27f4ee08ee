//! Desired and actual -> ordered steps.

use crate::calc::Desired;
use ipnet::IpNet;
use model::dataplane::{Route, RouteKind, Tunnel};
use model::names::ROUTE_METRIC;
use policy::ruleset::Op;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What the kernel has of ours, as far as it was read or applied.
#[derive(Debug, Clone, Default)]
pub struct Actual {
    /// Routes with our protocol number.
    pub routes: BTreeMap<IpNet, RouteKind>,
    /// All metrics of those that have another than [`ROUTE_METRIC`], or several: the kernel holds
    /// one route for each.
    pub metrics: BTreeMap<IpNet, BTreeSet<u32>>,
    /// The tunnel devices by name.
    pub tunnels: BTreeMap<String, Tunnel>,
    /// Devices with the names of ours that an earlier process left.
    pub stray_tunnels: BTreeSet<String>,
}

impl Actual {
    /// The kernel has this route.
    pub fn insert(&mut self, dest: IpNet, kind: RouteKind, metric: u32) {
        let known = self.routes.insert(dest, kind).is_some();
        if metric == ROUTE_METRIC && !self.metrics.contains_key(&dest) {
            return;
        }
        let usual = known.then_some(ROUTE_METRIC);
        let metrics = self.metrics.entry(dest);
        metrics
            .or_insert_with(|| usual.into_iter().collect())
            .insert(metric);
        self.tidy(&dest);
    }

    /// The kernel has the route of this metric no more.
    pub fn remove(&mut self, dest: &IpNet, metric: u32) {
        let none_left = match self.metrics.get_mut(dest) {
            Some(metrics) => metrics.remove(&metric) && metrics.is_empty(),
            None => metric == ROUTE_METRIC,
        };
        if none_left {
            self.routes.remove(dest);
        }
        self.tidy(dest);
    }

    /// Metrics of the routes of ours to a destination, as far as they are known.
    fn metrics_of(&self, dest: &IpNet) -> BTreeSet<u32> {
        let usual = || self.routes.contains_key(dest).then_some(ROUTE_METRIC);
        let known = self.metrics.get(dest).cloned();
        known.unwrap_or_else(|| usual().into_iter().collect())
    }

    fn tidy(&mut self, dest: &IpNet) {
        let metrics = self.metrics.get(dest);
        let usual = |metrics: &BTreeSet<u32>| metrics.iter().eq([&ROUTE_METRIC]);
        if metrics.is_some_and(|metrics| metrics.is_empty() || usual(metrics)) {
            self.metrics.remove(dest);
        }
    }
}

/// What may be removed at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permissions {
    /// Routes of pods and blocks: once the datastore is in sync.
    pub local: bool,
    /// Routes learnt by BGP: once every peer has said what it has, or has been given up on.
    pub learned: bool,
}

/// One thing to do to the kernel.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Make a tunnel device be so.
    EnsureTunnel(Tunnel),
    /// One transaction on our table.
    Table(Vec<Op>),
    /// Rebuild our table in one transaction.
    ReplaceTable,
    /// Add or replace these routes, with this metric.
    ReplaceRoutes(u32, Vec<Route>),
    /// Remove the routes of this metric to these destinations.
    DeleteRoutes(u32, Vec<IpNet>),
    /// Remove a tunnel device.
    RemoveTunnel(String),
}

/// Steps in the order in which they are applied: policy before the routes that lead to it, the
/// tunnel before the routes through it, removals last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
}

/// Which prefixes to look at.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    /// All of them.
    All,
    /// Those whose desired or actual route changed.
    Prefixes(&'a BTreeSet<IpNet>),
}

/// The steps from `actual` to `desired`; `table` is what the policy compiler wants changed.
pub fn plan(
    desired: &Desired,
    actual: &Actual,
    table: Option<Step>,
    permissions: Permissions,
    scope: Scope<'_>,
) -> Plan {
    let mut steps = Vec::new();
    for (name, tunnel) in &desired.tunnels {
        if actual.tunnels.get(name) != Some(tunnel) {
            steps.push(Step::EnsureTunnel(tunnel.clone()));
        }
    }
    steps.extend(table.filter(|step| !matches!(step, Step::Table(ops) if ops.is_empty())));
    let mut replace: BTreeMap<u32, Vec<Route>> = BTreeMap::new();
    let mut delete: BTreeMap<u32, Vec<IpNet>> = BTreeMap::new();
    let mut visit = |dest: &IpNet| match (desired.route(dest), actual.routes.get(dest)) {
        (Some(kind), have) => {
            let metric = desired.metric(dest);
            let usual = metric == ROUTE_METRIC && !actual.metrics.contains_key(dest);
            if usual && have == Some(kind) {
                return;
            }
            let mut metrics = actual.metrics_of(dest);
            let is_there = metrics.remove(&metric);
            if !(have == Some(kind) && is_there && metrics.is_empty()) {
                let (dest, kind) = (*dest, kind.clone());
                replace
                    .entry(metric)
                    .or_default()
                    .push(Route { dest, kind });
            }
            // The kernel replaces by destination and metric: what has another one stays beside.
            for other in metrics {
                delete.entry(other).or_default().push(*dest);
            }
        }
        (None, Some(have)) if may_delete(dest, have, desired, permissions) => {
            for metric in actual.metrics_of(dest) {
                delete.entry(metric).or_default().push(*dest);
            }
        }
        (None, _) => {}
    };
    match scope {
        Scope::All => {
            let all: BTreeSet<&IpNet> = desired.prefixes().chain(actual.routes.keys()).collect();
            all.into_iter().for_each(&mut visit);
        }
        Scope::Prefixes(prefixes) => prefixes.iter().for_each(&mut visit),
    }
    let replace = replace.into_iter();
    steps.extend(replace.map(|(metric, routes)| Step::ReplaceRoutes(metric, routes)));
    let delete = delete.into_iter();
    steps.extend(delete.map(|(metric, dests)| Step::DeleteRoutes(metric, dests)));
    if permissions.local {
        let gone = actual.tunnels.keys().chain(&actual.stray_tunnels);
        let gone = gone.filter(|name| !desired.tunnels.contains_key(*name));
        steps.extend(gone.map(|name| Step::RemoveTunnel(name.clone())));
    }
    Plan { steps }
}

fn may_delete(dest: &IpNet, kind: &RouteKind, desired: &Desired, permissions: Permissions) -> bool {
    match kind {
        RouteKind::Via(_) => permissions.learned,
        RouteKind::Device { .. } | RouteKind::Blackhole => {
            permissions.local || desired.freed.contains(dest)
        }
    }
}

impl Plan {
    /// True where the kernel is as it should be.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing to do\n");
        }
        for step in &self.steps {
            match step {
                Step::EnsureTunnel(Tunnel::Ipip(device)) => writeln!(
                    f,
                    "link {} type ipip local {} mtu {}",
                    device.name, device.local, device.mtu
                )?,
                Step::EnsureTunnel(Tunnel::Ip6(device)) => writeln!(
                    f,
                    "link {} type ip6tnl external local {} mtu {}",
                    device.name, device.local, device.mtu
                )?,
                Step::EnsureTunnel(Tunnel::Vxlan { device, ends }) => writeln!(
                    f,
                    "link {} type vxlan id {} dstport {} local {} mtu {}, {} ends",
                    device.name,
                    device.vni,
                    device.port,
                    device.local,
                    device.mtu,
                    ends.len()
                )?,
                Step::Table(ops) => {
                    for op in ops {
                        writeln!(f, "nft {}", ShowOp(op))?;
                    }
                }
                Step::ReplaceTable => writeln!(f, "nft replace table")?,
                Step::ReplaceRoutes(metric, routes) => {
                    let metric = ShowMetric(*metric);
                    for Route { dest, kind } in routes {
                        writeln!(f, "route replace {dest}{}{metric}", Show(kind))?;
                    }
                }
                Step::DeleteRoutes(metric, dests) => {
                    for dest in dests {
                        writeln!(f, "route delete {dest}{}", ShowMetric(*metric))?;
                    }
                }
                Step::RemoveTunnel(name) => writeln!(f, "link delete {name}")?,
            }
        }
        Ok(())
    }
}

struct ShowOp<'a>(&'a Op);

impl fmt::Display for ShowOp<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Op::AddSet(name, _) => write!(f, "add set {name}"),
            Op::AddElements(set, elements) => write!(f, "add {} elements to {set}", elements.len()),
            Op::DeleteElements(set, elements) => {
                write!(f, "delete {} elements of {set}", elements.len())
            }
            Op::AddChain(name, _) => write!(f, "add chain {name}"),
            Op::FlushChain(name) => write!(f, "flush chain {name}"),
            Op::AddRules(chain, rules) => write!(f, "add {} rules to {chain}", rules.len()),
            Op::DeleteChain(name) => write!(f, "delete chain {name}"),
            Op::DeleteSet(name) => write!(f, "delete set {name}"),
            Op::AddCounter(name) => write!(f, "add counter {name}"),
            Op::DeleteCounter(name) => write!(f, "delete counter {name}"),
        }
    }
}

struct ShowMetric(u32);

impl fmt::Display for ShowMetric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ROUTE_METRIC => Ok(()),
            other => write!(f, " metric {other}"),
        }
    }
}

struct Show<'a>(&'a RouteKind);

impl fmt::Display for Show<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            RouteKind::Blackhole => f.write_str(" blackhole"),
            RouteKind::Device { ifindex } => write!(f, " dev #{ifindex}"),
            RouteKind::Via(hops) => hops.iter().try_for_each(|hop| {
                write!(f, " via {}", hop.gateway)?;
                if let Some(ifindex) = hop.ifindex {
                    write!(f, " dev #{ifindex}")?;
                }
                if hop.onlink {
                    f.write_str(" onlink")?;
                }
                if hops.len() > 1 {
                    write!(f, " weight {}", hop.weight)?;
                }
                Ok(())
            }),
        }
    }
}

#[cfg(test)]
mod tests;
