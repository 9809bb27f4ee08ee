//! Which policies are about an endpoint, and in which order they stand: tiers by order and name,
//! policies in them by order and name. Kubernetes' NetworkPolicies stand in tier `default` at
//! order 1000, ClusterNetworkPolicies in `kube-admin` and `kube-baseline` by their priority.

use super::calico::{self, Scope};
use super::peer::{Asked, Member, Owners};
use super::{
    Action, Block, Clause, Denial, Direction, Item, Peer, Place, PolicySet, Ports, Staged, TierSet,
    cluster, kubernetes,
};
use crate::endpoint::Endpoint;
use crate::input::{Policy, PolicyKey};
use model::{
    CalicoAction, CalicoPolicy, ClusterAction, ClusterNetworkPolicy, ClusterTier, HostEndpoint,
    NetworkPolicy, Order, StagedAction, Tier, TierDefault,
};
use std::collections::{BTreeMap, BTreeSet};

const ADMIN: &str = "kube-admin";
const DEFAULT: &str = "default";
const BASELINE: &str = "kube-baseline";
/// The profile of host endpoints that allows what no policy decides.
const ALLOWING_PROFILE: &str = "projectcalico-default-allow";
/// Where Calico puts Kubernetes' policies.
const KUBERNETES_ORDER: f64 = 1000.0;
/// Up to so many policies of one block are counted one by one; more share sets and a counter.
const COUNTED_APART: usize = 3;

/// What policies are evaluated against.
#[derive(Clone, Copy)]
pub(crate) struct Cluster<'a> {
    pub(crate) tiers: &'a BTreeMap<String, Tier>,
    pub(crate) owners: Owners<'a>,
}

/// Whose policies are asked for.
#[derive(Clone, Copy)]
pub(crate) enum Subject<'a> {
    Pod(&'a Endpoint),
    Host(&'a HostEndpoint),
}

/// Rules of one policy, in order, and what they do.
type Rules = Vec<(Action, Vec<Clause>)>;

/// A policy that is about the endpoint.
struct Applying<'a> {
    key: PolicyKey,
    order: Order,
    policy: &'a Policy,
}

/// The policies that are about an endpoint: with the ports that it has by name, all that its
/// policy set depends on.
pub(crate) fn applying<'a>(
    subject: Subject<'_>,
    direction: Direction,
    place: Place,
    policies: impl IntoIterator<Item = &'a Policy>,
    cluster: Cluster<'_>,
) -> Vec<&'a Policy> {
    let view = View {
        subject,
        asked: Asked::new(subject.member(), cluster.owners),
        direction,
        place,
    };
    let policies = policies.into_iter();
    policies
        .filter(|policy| view.tier_of(policy).is_some())
        .collect()
}

impl PolicySet {
    /// What decides `direction` of an endpoint, given all policies that may be about it; `None`
    /// where everything is allowed.
    pub(crate) fn of<'a>(
        subject: Subject<'_>,
        direction: Direction,
        place: Place,
        policies: impl IntoIterator<Item = &'a Policy>,
        cluster: Cluster<'_>,
    ) -> Option<Self> {
        if let Subject::Pod(endpoint) = subject
            && !endpoint.labels_known
        {
            return (place == Place::Pod).then(|| Self::deny(direction));
        }
        let view = View {
            subject,
            asked: Asked::new(subject.member(), cluster.owners),
            direction,
            place,
        };
        let mut by_tier: BTreeMap<(Order, String), Vec<Applying<'a>>> = BTreeMap::new();
        for policy in policies {
            if let Some((tier, order)) = view.tier_of(policy) {
                let place = (tier_order(tier, cluster.tiers), tier.to_owned());
                by_tier.entry(place).or_default().push(Applying {
                    key: policy.key(),
                    order,
                    policy,
                });
            }
        }
        // Kubernetes' policies allow what a pod sends to its own node.
        let others = by_tier.values().flatten();
        let mut others = others.filter(|one| !matches!(one.policy, Policy::Kubernetes(_)));
        if place == Place::OwnNode && others.next().is_none() {
            return None;
        }
        let mut tiers = vec![];
        for ((_, name), mut policies) in by_tier {
            policies.sort_by(|a, b| (a.order, &a.key).cmp(&(b.order, &b.key)));
            let tier = view.tier(&name, &policies, cluster.tiers);
            let leads_on = tier.leads_on();
            tiers.push(tier);
            if !leads_on {
                break;
            }
        }
        let closed = place == Place::Host && !subject.is_open();
        let end = closed.then_some(Denial::HostEndpoint);
        let decides = end.is_some() || !tiers.is_empty();
        decides.then_some(Self {
            direction,
            place,
            tiers,
            end,
        })
    }
}

impl<'a> Subject<'a> {
    fn member(self) -> Member<'a> {
        match self {
            Self::Pod(endpoint) => Member::Endpoint(endpoint),
            Self::Host(endpoint) => Member::HostEndpoint(endpoint),
        }
    }
}

impl Subject<'_> {
    /// Whether a host endpoint allows what no policy decides.
    fn is_open(self) -> bool {
        match self {
            Self::Pod(_) => false,
            Self::Host(endpoint) => endpoint
                .profiles
                .iter()
                .any(|name| name == ALLOWING_PROFILE),
        }
    }
}

fn tier_order(name: &str, tiers: &BTreeMap<String, Tier>) -> Order {
    let number = match (tiers.get(name), name) {
        (Some(tier), _) => return tier.order,
        (None, ADMIN) => 1e3,
        (None, DEFAULT) => 1e6,
        (None, BASELINE) => 1e7,
        (None, _) => return Order::LAST,
    };
    Order::new(number).unwrap_or(Order::LAST)
}

fn tier_default(name: &str, tiers: &BTreeMap<String, Tier>) -> TierDefault {
    match (tiers.get(name), name) {
        (Some(tier), _) => tier.default_action,
        (None, ADMIN | BASELINE) => TierDefault::Pass,
        (None, _) => TierDefault::Deny,
    }
}

/// One endpoint, direction and place, as policies see it.
struct View<'a> {
    subject: Subject<'a>,
    asked: Asked<'a>,
    direction: Direction,
    place: Place,
}

impl View<'_> {
    /// Tier and order of a policy that is about this.
    fn tier_of<'p>(&self, policy: &'p Policy) -> Option<(&'p str, Order)> {
        let kubernetes = Order::new(KUBERNETES_ORDER).unwrap_or(Order::LAST);
        match policy {
            Policy::Kubernetes(policy) => self.isolated_by(policy).then_some((DEFAULT, kubernetes)),
            Policy::StagedKubernetes(staged) => (staged.action == StagedAction::Set
                && self.place == Place::Pod
                && self.isolated_by(&staged.policy))
            .then_some((DEFAULT, kubernetes)),
            Policy::Cluster(policy) => {
                let tier = match policy.tier {
                    ClusterTier::Admin => ADMIN,
                    ClusterTier::Baseline => BASELINE,
                };
                let order = Order::new(policy.priority.into()).unwrap_or(Order::LAST);
                self.subject_of(policy).then_some((tier, order))
            }
            Policy::Calico(policy) => (policy.staged != Some(StagedAction::Delete)
                && self.selected_by(policy))
            .then_some((policy.tier.as_str(), policy.order)),
        }
    }

    fn isolated_by(&self, policy: &NetworkPolicy) -> bool {
        let Subject::Pod(endpoint) = self.subject else {
            return false;
        };
        let rules = match self.direction {
            Direction::Ingress => &policy.ingress,
            Direction::Egress => &policy.egress,
        };
        rules.is_some()
            && policy.namespace == endpoint.namespace
            && policy.pod_selector.matches(&endpoint.labels)
    }

    /// A policy without rules for a direction does not affect it.
    fn subject_of(&self, policy: &ClusterNetworkPolicy) -> bool {
        let peer = super::PeerSelector::Pods(super::PodPeer {
            namespaces: super::Namespaces::Selected(policy.subject.namespaces.clone()),
            pods: policy.subject.pods.clone(),
        });
        let rules = match self.direction {
            Direction::Ingress => &policy.ingress,
            Direction::Egress => &policy.egress,
        };
        !rules.is_empty() && peer.matches(&self.asked)
    }

    fn selected_by(&self, policy: &CalicoPolicy) -> bool {
        let rules = match self.direction {
            Direction::Ingress => &policy.ingress,
            Direction::Egress => &policy.egress,
        };
        let ordinary = !policy.do_not_track && !policy.pre_dnat;
        let here = match self.place {
            Place::Pod | Place::OwnNode | Place::Host => ordinary,
            Place::HostForward => ordinary && policy.apply_on_forward,
            Place::PreDnat => policy.pre_dnat,
            Place::Untracked => policy.do_not_track,
        };
        let namespace = self.asked.member.namespace();
        let in_namespace = &policy.namespace_selector;
        let accounts = &policy.service_account_selector;
        rules.is_some()
            && here
            && policy
                .namespace
                .as_deref()
                .is_none_or(|own| namespace == Some(own))
            && in_namespace
                .as_ref()
                .is_none_or(|one| self.asked.is_in_namespace(one))
            && accounts
                .as_ref()
                .is_none_or(|one| self.asked.has_account(one))
            && policy.selector.matches(self.asked.labels())
    }

    fn tier(
        &self,
        name: &str,
        policies: &[Applying<'_>],
        tiers: &BTreeMap<String, Tier>,
    ) -> TierSet {
        let mut tier = TierSet {
            name: name.to_owned(),
            items: vec![],
            default: TierDefault::Pass,
            policies: vec![],
        };
        let mut isolated = false;
        let mut run = Run::default();
        for applying in policies {
            let rules = self.rules(applying.policy, isolated);
            if is_staged(applying.policy) {
                run.end(&mut tier.items);
                tier.items.push(staged(&applying.key, rules));
                continue;
            }
            tier.policies.push(applying.key.clone());
            isolated |= matches!(applying.policy, Policy::Kubernetes(_));
            for (action, clauses) in rules {
                run.add(action, &applying.key, clauses, &mut tier.items);
            }
        }
        run.end(&mut tier.items);
        // Only ordinary policies deny by being there; after the others come more.
        let last = !matches!(self.place, Place::PreDnat | Place::Untracked);
        let denies = tier_default(name, tiers) == TierDefault::Deny || isolated;
        if last && denies && !tier.policies.is_empty() {
            tier.default = TierDefault::Deny;
        }
        tier
    }

    /// The rules of a policy. The first of Kubernetes' policies also allows what none of them
    /// denies: a pod's traffic to itself, and to its own node.
    fn rules(&self, policy: &Policy, isolated: bool) -> Rules {
        let own_ports = self.asked.member.ports();
        match policy {
            Policy::Kubernetes(policy) => self.kubernetes_rules(policy, !isolated),
            Policy::StagedKubernetes(staged) => self.kubernetes_rules(&staged.policy, false),
            Policy::Cluster(policy) => {
                let rules = match self.direction {
                    Direction::Ingress => &policy.ingress,
                    Direction::Egress => &policy.egress,
                };
                let lower = |rule| cluster::lower(rule, self.direction, own_ports);
                rules
                    .iter()
                    .map(|rule| (rule.action.into(), lower(rule)))
                    .collect()
            }
            Policy::Calico(policy) => {
                let scope = Scope {
                    namespace: policy.namespace.as_deref(),
                    direction: self.direction,
                    place: self.place,
                    own_ports,
                };
                let rules = match self.direction {
                    Direction::Ingress => &policy.ingress,
                    Direction::Egress => &policy.egress,
                };
                let rules = rules.iter().flatten();
                rules
                    .map(|rule| (rule.action.into(), calico::lower(rule, scope)))
                    .collect()
            }
        }
    }

    fn kubernetes_rules(&self, policy: &NetworkPolicy, first: bool) -> Rules {
        let own_ports = self.asked.member.ports();
        let mut clauses = vec![];
        match (self.place, first) {
            (Place::OwnNode, _) => clauses.push(Clause::new(Peer::Anyone, Ports::Any)),
            (_, true) => clauses.push(Clause::new(Peer::Itself, Ports::Any)),
            (_, false) => {}
        }
        let rules = match self.direction {
            Direction::Ingress => &policy.ingress,
            Direction::Egress => &policy.egress,
        };
        for rule in rules.iter().flatten() {
            clauses.extend(kubernetes::lower(
                rule,
                &policy.namespace,
                self.direction,
                own_ports,
            ));
        }
        vec![(Action::Allow, clauses)]
    }
}

fn is_staged(policy: &Policy) -> bool {
    match policy {
        Policy::Kubernetes(_) | Policy::Cluster(_) => false,
        Policy::Calico(policy) => policy.staged.is_some(),
        Policy::StagedKubernetes(_) => true,
    }
}

fn staged(key: &PolicyKey, rules: Rules) -> Item {
    let mut blocks: Vec<Block> = vec![];
    for (action, clauses) in rules {
        match blocks.last_mut().filter(|last| last.action == action) {
            Some(last) => last.clauses.extend(clauses),
            None => blocks.push(Block {
                action,
                policies: vec![key.clone()],
                clauses: clauses.into_iter().collect(),
            }),
        }
    }
    Item::Staged(Staged {
        policy: key.clone(),
        blocks,
    })
}

/// Rules in a row that do the same.
#[derive(Default)]
struct Run {
    action: Option<Action>,
    by_policy: Vec<(PolicyKey, BTreeSet<Clause>)>,
}

impl Run {
    fn add(
        &mut self,
        action: Action,
        policy: &PolicyKey,
        clauses: Vec<Clause>,
        items: &mut Vec<Item>,
    ) {
        if self.action != Some(action) {
            self.end(items);
            self.action = Some(action);
        }
        match self.by_policy.last_mut().filter(|(last, _)| last == policy) {
            Some((_, all)) => all.extend(clauses),
            None => self
                .by_policy
                .push((policy.clone(), clauses.into_iter().collect())),
        }
    }

    fn end(&mut self, items: &mut Vec<Item>) {
        let Some(action) = self.action.take() else {
            return;
        };
        let mut by_policy = std::mem::take(&mut self.by_policy);
        by_policy.retain(|(_, clauses)| !clauses.is_empty());
        if by_policy.len() > COUNTED_APART {
            let mut merged = Block {
                action,
                policies: vec![],
                clauses: BTreeSet::new(),
            };
            for (policy, clauses) in by_policy {
                merged.policies.push(policy);
                merged.clauses.extend(clauses);
            }
            items.push(Item::Block(merged));
            return;
        }
        items.extend(by_policy.into_iter().map(|(policy, clauses)| {
            Item::Block(Block {
                action,
                policies: vec![policy],
                clauses,
            })
        }));
    }
}

impl From<ClusterAction> for Action {
    fn from(action: ClusterAction) -> Self {
        match action {
            ClusterAction::Accept => Self::Allow,
            ClusterAction::Deny => Self::Deny,
            ClusterAction::Pass => Self::Pass,
        }
    }
}

impl From<CalicoAction> for Action {
    fn from(action: CalicoAction) -> Self {
        match action {
            CalicoAction::Allow => Self::Allow,
            CalicoAction::Deny => Self::Deny,
            CalicoAction::Pass => Self::Pass,
            CalicoAction::Log => Self::Log,
        }
    }
}
