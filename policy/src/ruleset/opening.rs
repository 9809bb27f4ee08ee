//! A large table made in several transactions, so that none of them holds the kernel's lock for
//! long; pods are cut off until the last.

use super::{
    BaseHook, Chain, ChainType, CtState, Family, Hook, Op, Rule, Ruleset, Statement, Verdict,
};

/// The chain that closes one hook while the table is made.
const CLOSED: [(Hook, &str); 2] = [
    (Hook::Forward, "closed_forward"),
    (Hook::Input, "closed_input"),
];

impl Ruleset {
    /// The transactions that make this table where there is none, with about `most` elements and
    /// rules in each. Where one is not enough, the first drops what is forwarded from and to
    /// interfaces with this prefix, and what policies may deny of that which they send to this
    /// host; what is established passes. The last takes that back, and nothing else: whatever fails
    /// before, no pod is open.
    pub fn opening(&self, prefix: &str, most: usize) -> Vec<Vec<Op>> {
        // Nothing is in its way where there is nothing.
        let ops = Self::default().diff(self).unwrap_or_default();
        if ops.iter().map(weight).sum::<usize>() <= most {
            return vec![ops];
        }
        let closed: Vec<_> = CLOSED
            .iter()
            .filter(|(hook, _)| self.asks_at(*hook))
            .collect();
        let close = closed.iter().flat_map(|(hook, name)| {
            let base = BaseHook {
                hook: *hook,
                chain_type: ChainType::Filter,
                priority: 0,
            };
            [
                Op::AddChain((*name).to_owned(), Some(base)),
                Op::AddRules((*name).to_owned(), closing_rules(*hook, prefix)),
            ]
        });
        let mut transactions = vec![close.collect::<Vec<_>>()];
        let (mut last, mut room) = (vec![], most);
        for op in ops.into_iter().flat_map(|op| split(op, most)) {
            let weight = weight(&op);
            if weight > room {
                transactions.push(std::mem::take(&mut last));
                room = most;
            }
            room = room.saturating_sub(weight);
            last.push(op);
        }
        transactions.push(last);
        let open = closed.into_iter().flat_map(|(_, name)| {
            let name = (*name).to_owned();
            [Op::FlushChain(name.clone()), Op::DeleteChain(name)]
        });
        transactions.push(open.collect());
        transactions
    }

    /// Whether pods have policies at a hook.
    fn asks_at(&self, hook: Hook) -> bool {
        let is_base = |chain: &&Chain| chain.hook.as_ref().is_some_and(|base| base.hook == hook);
        let mut rules = self
            .chains
            .values()
            .filter(is_base)
            .flat_map(|chain| &chain.rules);
        rules.any(|rule| {
            let mut statements = rule.statements.iter();
            statements.any(|statement| matches!(statement, Statement::VerdictMap { .. }))
        })
    }
}

fn closing_rules(hook: Hook, prefix: &str) -> Vec<Rule> {
    let (prefix, negate) = (prefix.to_owned(), false);
    let from_pod = Statement::IifnamePrefix {
        prefix: prefix.clone(),
        negate,
    };
    let to_pod = Statement::OifnamePrefix { prefix, negate };
    let discovery = Statement::Icmpv6Type {
        first: 133,
        last: 137,
    };
    let accept = Statement::Verdict(Verdict::Accept);
    let drop = Statement::Verdict(Verdict::Drop);
    let mut rules = vec![
        vec![
            Statement::CtState(CtState::EstablishedOrRelated),
            accept.clone(),
        ],
        vec![Statement::Family(Family::Ipv6), discovery, accept],
        vec![from_pod, Statement::Counter, drop.clone()],
    ];
    if hook == Hook::Forward {
        rules.push(vec![to_pod, Statement::Counter, drop]);
    }
    let rule = |statements| Rule {
        statements,
        comment: None,
    };
    rules.into_iter().map(rule).collect()
}

fn weight(op: &Op) -> usize {
    match op {
        Op::AddElements(_, all) | Op::DeleteElements(_, all) => all.len(),
        Op::AddRules(_, rules) => rules.len(),
        _ => 1,
    }
}

/// The same in parts, where it is elements.
fn split(op: Op, most: usize) -> Vec<Op> {
    match op {
        Op::AddElements(name, all) if all.len() > most => all
            .chunks(most)
            .map(|part| Op::AddElements(name.clone(), part.to_vec()))
            .collect(),
        other => vec![other],
    }
}
