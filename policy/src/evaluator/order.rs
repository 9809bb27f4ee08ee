//! Policies in the order in which they are asked: tiers by order and name, policies in them by
//! order and name. Kubernetes' NetworkPolicies stand in tier `default` at order 1000,
//! ClusterNetworkPolicies in `kube-admin` and `kube-baseline` by their priority.

use super::Evaluator;
use crate::input::{Policy, PolicyKey, PolicyKind};
use model::{
    CalicoPolicy, ClusterNetworkPolicy, ClusterTier, NetworkPolicy, Order, StagedAction, Tier,
    TierDefault,
};
use std::borrow::Cow;
use std::collections::BTreeMap;

pub(super) const ADMIN: &str = "kube-admin";
pub(super) const DEFAULT: &str = "default";
pub(super) const BASELINE: &str = "kube-baseline";

/// Which policies are in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// Those that are not staged.
    Enforced,
    /// As if every staged policy had been committed.
    Committed,
}

/// A policy that can decide.
#[derive(Debug, Clone, Copy)]
pub(super) enum Active<'a> {
    Kubernetes(&'a NetworkPolicy),
    Cluster(&'a ClusterNetworkPolicy),
    Calico(&'a CalicoPolicy),
}

/// A tier with its policies, in order.
#[derive(Debug)]
pub(super) struct TierOfPolicies<'a> {
    pub(super) name: &'a str,
    pub(super) default_action: TierDefault,
    pub(super) policies: Vec<(Cow<'a, PolicyKey>, Active<'a>)>,
}

impl<'a> Active<'a> {
    fn tier(self) -> &'a str {
        match self {
            Self::Kubernetes(_) => DEFAULT,
            Self::Cluster(policy) => match policy.tier {
                ClusterTier::Admin => ADMIN,
                ClusterTier::Baseline => BASELINE,
            },
            Self::Calico(policy) => &policy.tier,
        }
    }

    fn is_silent(self) -> bool {
        match self {
            Self::Kubernetes(policy) => policy.ingress.is_none() && policy.egress.is_none(),
            Self::Cluster(policy) => policy.ingress.is_empty() && policy.egress.is_empty(),
            Self::Calico(policy) => policy.ingress.is_none() && policy.egress.is_none(),
        }
    }

    fn order(self) -> Order {
        match self {
            Self::Kubernetes(_) => order(1000.0),
            Self::Cluster(policy) => order(policy.priority.into()),
            Self::Calico(policy) => policy.order,
        }
    }
}

fn order(number: f64) -> Order {
    Order::new(number).expect("invariant: not NaN")
}

impl Evaluator {
    /// Every tier that has policies, in order.
    pub(super) fn tiers(&self, view: View) -> Vec<TierOfPolicies<'_>> {
        let mut tiers: BTreeMap<(Order, &str), TierOfPolicies<'_>> = BTreeMap::new();
        for (key, policy) in self.active(view) {
            let name = policy.tier();
            let (order, default_action) = self.place(name);
            let tier = tiers.entry((order, name)).or_insert(TierOfPolicies {
                name,
                default_action,
                policies: vec![],
            });
            tier.policies.push((key, policy));
        }
        let mut tiers: Vec<_> = tiers.into_values().collect();
        for tier in &mut tiers {
            tier.policies
                .sort_by(|(a_key, a), (b_key, b)| (a.order(), a_key).cmp(&(b.order(), b_key)));
        }
        tiers
    }

    /// Whether the tier was told of, or exists without.
    pub(super) fn has_tier(&self, name: &str) -> bool {
        self.tiers.contains_key(name) || [ADMIN, DEFAULT, BASELINE].contains(&name)
    }

    fn place(&self, name: &str) -> (Order, TierDefault) {
        match (self.tiers.get(name), name) {
            (
                Some(Tier {
                    order,
                    default_action,
                    ..
                }),
                _,
            ) => (*order, *default_action),
            (None, ADMIN) => (order(1e3), TierDefault::Pass),
            (None, DEFAULT) => (order(1e6), TierDefault::Deny),
            (None, BASELINE) => (order(1e7), TierDefault::Pass),
            (None, _) => (Order::LAST, TierDefault::Deny),
        }
    }

    /// The policies of a view, by the keys under which they are in force.
    fn active(&self, view: View) -> BTreeMap<Cow<'_, PolicyKey>, Active<'_>> {
        let mut active = BTreeMap::new();
        for (key, policy) in &self.policies {
            match policy {
                Policy::Kubernetes(policy) => {
                    active.insert(Cow::Borrowed(key), Active::Kubernetes(policy));
                }
                Policy::Cluster(policy) => {
                    active.insert(Cow::Borrowed(key), Active::Cluster(policy));
                }
                Policy::Calico(policy) if policy.staged.is_none() => {
                    active.insert(Cow::Borrowed(key), Active::Calico(policy));
                }
                Policy::Calico(_) | Policy::StagedKubernetes(_) => {}
            }
        }
        if view == View::Committed {
            for (target, action, policy) in self.staged() {
                match action {
                    StagedAction::Set => drop(active.insert(Cow::Owned(target), policy)),
                    StagedAction::Delete => drop(active.remove(&target)),
                }
            }
        }
        active
    }

    /// The staged policies, by the keys under which they would be in force.
    fn staged(&self) -> impl Iterator<Item = (PolicyKey, StagedAction, Active<'_>)> {
        self.policies.iter().filter_map(|(key, policy)| {
            let (kind, action, policy) = match policy {
                Policy::Calico(policy) => {
                    (PolicyKind::Calico, policy.staged?, Active::Calico(policy))
                }
                Policy::StagedKubernetes(staged) => {
                    let policy = Active::Kubernetes(&staged.policy);
                    (PolicyKind::Kubernetes, staged.action, policy)
                }
                Policy::Kubernetes(_) | Policy::Cluster(_) => return None,
            };
            // Staged to be ignored: it says nothing about either direction.
            if action == StagedAction::Set && policy.is_silent() {
                return None;
            }
            let target = PolicyKey {
                kind,
                ..key.clone()
            };
            Some((target, action, policy))
        })
    }

    /// The policies that are in one view and not in the other: added, replaced or removed when
    /// what is staged is committed.
    pub(super) fn changed_by_staging(&self) -> Vec<Active<'_>> {
        let staged: Vec<_> = self.staged().collect();
        if staged.is_empty() {
            return vec![];
        }
        let enforced = self.active(View::Enforced);
        let changes = staged.into_iter().flat_map(|(target, action, policy)| {
            let before = enforced.get(&target).copied();
            let after = (action == StagedAction::Set).then_some(policy);
            before.into_iter().chain(after)
        });
        changes.collect()
    }
}
