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
mod tests {
    use super::*;
    use model::dataplane::NextHop;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a prefix")
    }

    fn via(gateway: &str) -> RouteKind {
        let gateway = gateway.parse().expect("an address");
        RouteKind::Via(vec![NextHop {
            gateway,
            ifindex: Some(2),
            onlink: false,
            weight: 1,
        }])
    }

    const ALL: Permissions = Permissions {
        local: true,
        learned: true,
    };
    const NONE: Permissions = Permissions {
        local: false,
        learned: false,
    };

    fn actual() -> Actual {
        let routes = [
            (net("10.244.0.5/32"), RouteKind::Device { ifindex: 7 }),
            (net("10.244.0.0/26"), RouteKind::Blackhole),
            (net("10.244.1.0/26"), via("10.1.0.12")),
        ];
        Actual {
            routes: routes.into(),
            metrics: BTreeMap::new(),
            tunnels: BTreeMap::new(),
            stray_tunnels: BTreeSet::new(),
        }
    }

    #[test]
    fn nothing_is_removed_without_permission() {
        let plan = plan(&Desired::default(), &actual(), None, NONE, Scope::All);
        assert!(plan.is_empty(), "{plan}");
    }

    #[test]
    fn routes_of_peers_go_only_when_bgp_has_converged_and_local_ones_only_in_sync() {
        let learned = Permissions {
            learned: true,
            local: false,
        };
        let plan_learned = plan(&Desired::default(), &actual(), None, learned, Scope::All);
        assert_eq!(plan_learned.to_string(), "route delete 10.244.1.0/26\n");
        let local = Permissions {
            learned: false,
            local: true,
        };
        let plan_local = plan(&Desired::default(), &actual(), None, local, Scope::All);
        assert_eq!(
            plan_local.to_string(),
            "route delete 10.244.0.0/26\nroute delete 10.244.0.5/32\n"
        );
    }

    #[test]
    fn the_route_of_a_deleted_pod_goes_at_once() {
        let desired = Desired {
            freed: [net("10.244.0.5/32")].into(),
            ..Desired::default()
        };
        let plan = plan(&desired, &actual(), None, NONE, Scope::All);
        assert_eq!(plan.to_string(), "route delete 10.244.0.5/32\n");
    }

    #[test]
    fn a_plan_for_what_is_there_is_empty_and_its_scope_limits_it() {
        let actual = actual();
        let mut desired = Desired {
            local: actual.routes.clone(),
            ..Desired::default()
        };
        assert!(plan(&desired, &actual, None, ALL, Scope::All).is_empty());
        desired
            .local
            .insert(net("10.244.0.6/32"), RouteKind::Device { ifindex: 8 });
        desired
            .local
            .insert(net("10.244.0.7/32"), RouteKind::Device { ifindex: 9 });
        let scope = [net("10.244.0.7/32")].into();
        let plan = plan(&desired, &actual, None, ALL, Scope::Prefixes(&scope));
        assert_eq!(plan.to_string(), "route replace 10.244.0.7/32 dev #9\n");
    }

    #[test]
    fn policy_comes_before_routes_and_removals_come_last() {
        let device = model::dataplane::IpipDevice {
            name: "ipip.ocicat".into(),
            local: [10, 1, 0, 11].into(),
            mtu: 1480,
            address: None,
        };
        let desired = Desired {
            tunnels: [(device.name.clone(), Tunnel::Ipip(device))].into(),
            learned: [(net("10.244.2.0/26"), via("10.1.0.1"))].into(),
            ..Desired::default()
        };
        let table = Some(Step::ReplaceTable);
        let steps = plan(&desired, &actual(), table, ALL, Scope::All).steps;
        assert!(matches!(
            steps.as_slice(),
            [
                Step::EnsureTunnel(_),
                Step::ReplaceTable,
                Step::ReplaceRoutes(..),
                Step::DeleteRoutes(..)
            ]
        ));
    }

    #[test]
    fn a_route_of_another_metric_stands_before_the_one_in_its_place_goes() {
        let dest = net("10.244.1.0/26");
        let mut actual = actual();
        let mut desired = Desired {
            learned: [(dest, via("10.1.0.12"))].into(),
            metrics: [(dest, 300)].into(),
            ..Desired::default()
        };
        let scope = [dest].into();
        let go = |actual: &mut Actual, desired: &Desired| {
            let plan = plan(desired, actual, None, NONE, Scope::Prefixes(&scope));
            for step in &plan.steps {
                match step {
                    Step::ReplaceRoutes(metric, routes) => {
                        let all = routes.iter().cloned();
                        all.for_each(|route| actual.insert(route.dest, route.kind, *metric));
                    }
                    Step::DeleteRoutes(metric, dests) => {
                        dests.iter().for_each(|dest| actual.remove(dest, *metric));
                    }
                    _ => {}
                }
            }
            plan.to_string()
        };
        assert_eq!(
            go(&mut actual, &desired),
            "route replace 10.244.1.0/26 via 10.1.0.12 dev #2 metric 300\n\
             route delete 10.244.1.0/26\n"
        );
        assert_eq!(go(&mut actual, &desired), "nothing to do\n");
        desired.metrics.clear();
        assert_eq!(
            go(&mut actual, &desired),
            "route replace 10.244.1.0/26 via 10.1.0.12 dev #2\n\
             route delete 10.244.1.0/26 metric 300\n"
        );
        assert_eq!(go(&mut actual, &desired), "nothing to do\n");
        assert!(actual.metrics.is_empty());
    }

    #[test]
    fn of_two_routes_to_one_destination_that_an_earlier_process_left_the_wrong_one_goes() {
        let dest = net("10.244.1.0/26");
        let mut actual = actual();
        actual.insert(dest, via("10.1.0.1"), 300);
        let desired = Desired {
            learned: [(dest, via("10.1.0.12"))].into(),
            ..Desired::default()
        };
        let scope = [dest].into();
        let plan_for = |desired, permissions| {
            let plan = plan(desired, &actual, None, permissions, Scope::Prefixes(&scope));
            plan.to_string()
        };
        assert_eq!(
            plan_for(&desired, NONE),
            "route replace 10.244.1.0/26 via 10.1.0.12 dev #2\n\
             route delete 10.244.1.0/26 metric 300\n"
        );
        assert_eq!(
            plan_for(&Desired::default(), ALL),
            "route delete 10.244.1.0/26 metric 300\nroute delete 10.244.1.0/26\n"
        );
    }
}
