//! The chains and the sets of a policy set.
//!
//! Tiers follow each other in one chain; after a tier with rules that pass, the next one has a
//! chain of its own, to go to. In a block, looked up in this order, and only where it has such a
//! clause: ports that anyone may use; then, for each family, peers with any port, peer and port,
//! address ranges with any port, and peers and address ranges of one port range. Clauses with
//! further conditions come after those without. For ingress and IPv4:
//!
//! ```text
//! meta l4proto . th dport @ports counter return
//! ip saddr @pods counter return
//! ip saddr . meta l4proto . th dport @pods_and_ports counter return
//! ip saddr @ranges counter return
//! meta l4proto 17 th dport 1000-2000 ip saddr @pods counter return
//! oif . ip saddr @local4 iif . ip saddr @local4 return
//! counter drop
//! ```
//!
//! What is allowed returns instead of being accepted: after the egress chain of the source, the
//! ingress chain of the destination has its say.

mod block;
mod guards;

use super::Options;
use super::counters::{Counted, Reason};
use super::parts::{self, FAMILIES, daddr, lookup, rule, saddr};
use super::pod_sets::{PodSet, twin};
use super::sets::Sets;
use crate::hash::{base32, content_name};
use crate::input::PolicyKey;
use crate::intervals::{self, Ranges};
use crate::ir::{Action, Block, Denial, Direction, Item, Place, PolicySet, Staged, TierSet};
use crate::ruleset::{Chain, CtState, Family, Field, Rule, Set, Statement, Verdict};
use block::BlockLayout;
use ipnet::IpNet;
use model::{FailsafePort, Protocol, TierDefault};
use std::collections::BTreeMap;

/// `NFT_USERDATA_RULE_COMMENT` of nft holds this many bytes.
const MAX_COMMENT: usize = 127;

/// A policy set in terms of chains, rules and sets.
#[derive(Debug)]
pub(super) struct Layout {
    /// Chains; the first is the one to call. Rules name sets of peers, and those of all chains,
    /// by base name.
    chains: Vec<(String, Vec<Rule>)>,
    /// Sets of peers by base name.
    pub(super) pod_sets: BTreeMap<String, PodSet>,
    /// Sets that never change, named by content.
    pub(super) fixed: BTreeMap<String, Set>,
    /// What is counted, by the name of the counter.
    pub(super) counters: BTreeMap<String, Counted>,
}

impl Layout {
    /// `name` is that of the chain to call, and begins those of the others.
    pub(super) fn new(name: &str, set: &PolicySet, options: &Options) -> Self {
        let mut builder = Builder {
            set,
            options,
            name,
            layout: Self {
                chains: vec![(name.to_owned(), vec![])],
                pod_sets: BTreeMap::new(),
                fixed: BTreeMap::new(),
                counters: BTreeMap::new(),
            },
            current: 0,
        };
        builder.build();
        builder.layout
    }

    /// The chains, with the names that the sets have.
    pub(super) fn render(&self, sets: &Sets) -> impl Iterator<Item = (String, Chain)> {
        self.chains.iter().map(|(name, rules)| {
            let mut rules = rules.clone();
            for statement in rules.iter_mut().flat_map(|rule| &mut rule.statements) {
                if let Statement::Lookup { set, .. } = statement
                    && !self.fixed.contains_key(set)
                {
                    *set = sets.name(set);
                }
            }
            (name.clone(), Chain { hook: None, rules })
        })
    }

    /// True where rules look up one of these sets.
    pub(super) fn uses(&self, bases: &std::collections::BTreeSet<String>) -> bool {
        let renamed = |(base, set): (&String, &PodSet)| {
            bases.contains(base) || set.has_twin() && bases.contains(&twin(base))
        };
        !bases.is_empty() && self.pod_sets.iter().any(renamed)
    }

    /// Names of the chains.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.chains.iter().map(|(name, _)| name)
    }
}

struct Builder<'a> {
    set: &'a PolicySet,
    options: &'a Options,
    name: &'a str,
    layout: Layout,
    /// The chain that is being written.
    current: usize,
}

impl Builder<'_> {
    fn build(&mut self) {
        self.add_start();
        for (number, tier) in self.set.tiers.iter().enumerate() {
            self.add_tier(number, tier);
        }
        if let Some(denial) = self.set.end {
            let reason = match denial {
                Denial::Unknown => Reason::Unknown,
                Denial::HostEndpoint => Reason::HostEndpoint,
            };
            self.add_denial("", vec![], reason);
        }
    }

    /// What policies of hosts never get to see.
    fn add_start(&mut self) {
        let returns = || Statement::Verdict(Verdict::Return);
        let of_host = matches!(self.set.place, Place::Host | Place::HostForward);
        // An untracked policy has allowed it already.
        if of_host || self.set.place == Place::PreDnat {
            self.push(rule([Statement::CtState(CtState::Untracked), returns()]));
        }
        if of_host && self.set.direction == Direction::Ingress {
            let admitted = Statement::CtMarkBits(self.options.admitted_mark);
            self.push(rule([admitted, returns()]));
        }
        let (there, back) = match self.set.direction {
            Direction::Ingress => (
                &self.options.failsafe.inbound,
                &self.options.failsafe.outbound,
            ),
            Direction::Egress => (
                &self.options.failsafe.outbound,
                &self.options.failsafe.inbound,
            ),
        };
        if matches!(
            self.set.place,
            Place::Host | Place::PreDnat | Place::Untracked
        ) {
            self.add_failsafe(Field::Dport, there);
        }
        // Before connection tracking, answers are packets like others.
        if self.set.place == Place::Untracked {
            self.add_failsafe(Field::Sport, back);
        }
    }

    fn add_failsafe(&mut self, field: Field, ports: &[FailsafePort]) {
        let mut by_net: BTreeMap<Option<IpNet>, Vec<(Protocol, u16)>> = BTreeMap::new();
        for port in ports {
            let of_net = by_net.entry(port.net.map(|net| net.trunc())).or_default();
            of_net.push((port.protocol, port.port));
        }
        for (net, ports) in by_net {
            let Some((name, set)) = parts::port_set(&ports) else {
                continue;
            };
            self.layout.fixed.insert(name.clone(), set);
            let mut statements = net.map(|net| self.within(net)).unwrap_or_default();
            statements.push(lookup(&[Field::L4Proto, field], name, false));
            statements.push(Statement::Verdict(Verdict::Return));
            self.push(rule(statements));
        }
    }

    /// The other end has an address of this network.
    fn within(&mut self, net: IpNet) -> Vec<Statement> {
        let family = intervals::family_of(net.addr());
        let mut statements = vec![Statement::Family(family)];
        let ranges = Ranges::union([intervals::prefix_range(&net)]);
        if !ranges.is_all(family) {
            let address = match self.set.direction {
                Direction::Ingress => saddr(family),
                Direction::Egress => daddr(family),
            };
            let (name, set) = guards::address_set(family, &ranges);
            self.layout.fixed.insert(name.clone(), set);
            statements.push(lookup(&[address], name, false));
        }
        statements
    }

    fn add_tier(&mut self, number: usize, tier: &TierSet) {
        let passes = tier
            .items
            .iter()
            .any(|item| matches!(item, Item::Block(block) if block.action == Action::Pass));
        let next = passes.then(|| format!("{}_t{}", self.name, base32(number + 1)));
        let mut ordinals: BTreeMap<Option<&PolicyKey>, usize> = BTreeMap::new();
        for item in &tier.items {
            match item {
                Item::Staged(staged) => self.add_staged(tier, staged),
                Item::Block(block) => {
                    let alone = match block.policies.as_slice() {
                        [policy] => Some(policy),
                        _ => None,
                    };
                    let ordinal = ordinals.entry(alone).or_default();
                    let place = content_name(&(self.name, &tier.name, alone, *ordinal));
                    *ordinal += 1;
                    self.add_block(tier, block, &place, next.as_deref());
                }
            }
        }
        match (tier.default, next) {
            (TierDefault::Deny, next) => {
                self.add_denial(&tier.name, tier.policies.clone(), Reason::EndOfTier);
                self.start(next);
            }
            (TierDefault::Pass, Some(next)) => {
                let on = Verdict::Goto(next.clone());
                self.push(rule([Statement::Verdict(on)]));
                self.start(Some(next));
            }
            (TierDefault::Pass, None) => {}
        }
    }

    /// Goes on with another chain.
    fn start(&mut self, chain: Option<String>) {
        if let Some(chain) = chain {
            self.layout.chains.push((chain, vec![]));
            self.current = self.layout.chains.len() - 1;
        }
    }

    fn add_block(&mut self, tier: &TierSet, block: &Block, place: &str, next: Option<&str>) {
        let counted = Counted {
            direction: self.set.direction.into(),
            place: self.set.place,
            tier: tier.name.clone(),
            reason: Reason::Rule(block.action),
            staged: false,
            policies: block.policies.clone(),
        };
        let counter = match block.policies.as_slice() {
            [] => None,
            [_] => Some(counted.name()),
            _ => Some(format!("b{place}")),
        };
        if let Some(name) = &counter {
            self.layout.counters.insert(name.clone(), counted);
        }
        let count = counter.clone().map(Statement::NamedCounter);
        let statements: Vec<Statement> = match block.action {
            Action::Allow => count.into_iter().chain(self.allow()).collect(),
            Action::Pass => {
                let on = next.map_or(Verdict::Return, |next| Verdict::Goto(next.to_owned()));
                count.into_iter().chain([Statement::Verdict(on)]).collect()
            }
            Action::Log => {
                let name = counter.clone().unwrap_or_default();
                count.into_iter().chain(self.log(&name)).collect()
            }
            Action::Deny => {
                let chain = self.denial_chain(counter.as_deref());
                vec![Statement::Verdict(Verdict::Goto(chain))]
            }
        };
        self.lay_out(block, place, statements, self.current);
    }

    fn lay_out(&mut self, block: &Block, place: &str, verdict: Vec<Statement>, chain: usize) {
        let rules = BlockLayout::new(self.set.direction, place, verdict).lay_out(block);
        self.layout.pod_sets.extend(rules.pod_sets);
        self.layout.fixed.extend(rules.fixed);
        self.layout.chains[chain].1.extend(rules.rules);
    }

    /// A policy that is staged counts what it would decide, and returns.
    fn add_staged(&mut self, tier: &TierSet, staged: &Staged) {
        let name = format!("{}_s{}", self.name, base32(self.layout.chains.len()));
        self.push(rule([Statement::Verdict(Verdict::Jump(name.clone()))]));
        let chain = self.layout.chains.len();
        self.layout.chains.push((name, vec![]));
        let counted = |reason| Counted {
            direction: self.set.direction.into(),
            place: self.set.place,
            tier: tier.name.clone(),
            reason,
            staged: true,
            policies: vec![staged.policy.clone()],
        };
        for (number, block) in staged.blocks.iter().enumerate() {
            let counted = counted(Reason::Rule(block.action));
            let counter = counted.name();
            self.layout.counters.insert(counter.clone(), counted);
            let mut statements = vec![Statement::NamedCounter(counter)];
            if block.action != Action::Log {
                statements.push(Statement::Verdict(Verdict::Return));
            }
            let place = content_name(&(self.name, &tier.name, &staged.policy, "staged", number));
            self.lay_out(block, &place, statements, chain);
        }
        let rest = counted(Reason::EndOfTier);
        let counter = rest.name();
        self.layout.counters.insert(counter.clone(), rest);
        let count = rule([Statement::NamedCounter(counter)]);
        self.layout.chains[chain].1.push(count);
    }

    fn allow(&self) -> Vec<Statement> {
        let returns = Statement::Verdict(Verdict::Return);
        match self.set.place {
            Place::Pod | Place::OwnNode | Place::Host | Place::HostForward => vec![returns],
            Place::PreDnat => {
                let admit = Statement::SetCtMarkBits(self.options.admitted_mark);
                vec![admit, returns]
            }
            Place::Untracked => vec![Statement::NoTrack, returns],
        }
    }

    fn log(&self, prefix: &str) -> Vec<Statement> {
        let Some(log) = self.options.drop_log else {
            return vec![];
        };
        let limit = Statement::Limit {
            per_second: log.per_second,
            burst: log.burst,
        };
        let prefix = prefix.to_owned();
        let group = log.group;
        vec![limit, Statement::Log { group, prefix }]
    }

    /// A chain that logs, counts and drops.
    fn denial_chain(&mut self, counter: Option<&str>) -> String {
        let name = format!("{}_d{}", self.name, base32(self.layout.chains.len()));
        let rules = self.denial(counter);
        self.layout.chains.push((name.clone(), rules));
        name
    }

    fn denial(&self, counter: Option<&str>) -> Vec<Rule> {
        let logged = counter.map(|counter| self.log(counter)).unwrap_or_default();
        let logged = (!logged.is_empty()).then(|| rule(logged));
        let count = match counter {
            Some(counter) => Statement::NamedCounter(counter.to_owned()),
            None => Statement::Counter,
        };
        let dropped = rule([count, Statement::Verdict(Verdict::Drop)]);
        logged.into_iter().chain([dropped]).collect()
    }

    /// What nothing has decided is denied.
    fn add_denial(&mut self, tier: &str, policies: Vec<PolicyKey>, reason: Reason) {
        let counted = Counted {
            direction: self.set.direction.into(),
            place: self.set.place,
            tier: tier.to_owned(),
            reason,
            staged: false,
            policies,
        };
        let name = match counted.policies.len() {
            0..=MOST_NAMED => counted.name(),
            _ => format!("e{}", content_name(&(self.name, tier))),
        };
        let mut rules = self.denial(Some(&name));
        if let Some(last) = rules.last_mut() {
            last.comment = Some(comment(&counted.policies));
        }
        self.layout.counters.insert(name, counted);
        rules.into_iter().for_each(|rule| self.push(rule));
    }

    fn push(&mut self, rule: Rule) {
        self.layout.chains[self.current].1.push(rule);
    }
}

/// Denials in the name of so many policies are counted by their names, of more by the chain's.
const MOST_NAMED: usize = 3;

/// A pod reaches itself through a Service: its packet comes back to its own interface. Where the
/// source is in question, it must also have come from there.
fn itself(direction: Direction, local: &str, family: Family) -> Vec<Statement> {
    let of = |field, address| lookup(&[field, address], local.to_owned(), false);
    let own = match direction {
        Direction::Egress => vec![of(Field::Iif, daddr(family))],
        Direction::Ingress => {
            vec![of(Field::Oif, saddr(family)), of(Field::Iif, saddr(family))]
        }
    };
    [Statement::Family(family)].into_iter().chain(own).collect()
}

/// Names of policies, as far as they fit.
fn comment(policies: &[PolicyKey]) -> String {
    if policies.is_empty() {
        return "labels or owner not known".to_owned();
    }
    let mut text = String::new();
    for policy in policies {
        if !text.is_empty() {
            text.push_str(", ");
        }
        if let Some(namespace) = &policy.namespace {
            text.push_str(namespace);
            text.push('/');
        }
        text.push_str(&policy.name);
        if text.len() > MAX_COMMENT {
            break;
        }
    }
    if text.len() > MAX_COMMENT {
        let end = (0..=MAX_COMMENT - 3)
            .rev()
            .find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
        text.push_str("...");
    }
    text
}

fn local_sets() -> impl Iterator<Item = (&'static str, Family)> {
    super::base::LOCAL.into_iter().zip(FAMILIES)
}
