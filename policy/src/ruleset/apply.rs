//! Carrying operations out on the value, refusing what the kernel would refuse.

use super::element::key_length;
use super::{
    BaseHook, Chain, Element, Op, Rule, Ruleset, Set, SetHeader, SetKind, Statement, Verdict,
};

/// Why an operation is not possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// A set of this name exists with another header.
    #[error("set {0} exists and is another")]
    SetExists(String),
    /// A chain of this name exists with another hook.
    #[error("chain {0} exists with another hook")]
    ChainExists(String),
    /// No such set.
    #[error("there is no set {0}")]
    NoSuchSet(String),
    /// No such chain.
    #[error("there is no chain {0}")]
    NoSuchChain(String),
    /// A base chain can't be jumped to.
    #[error("chain {0} is a base chain and can't be jumped to")]
    JumpToBaseChain(String),
    /// The element to delete is not there.
    #[error("set {set} has no element {element:?}")]
    NoSuchElement {
        /// The set.
        set: String,
        /// The element.
        element: Element,
    },
    /// The element has another verdict, or overlaps another element.
    #[error("element {element:?} is in conflict with one of set {set}")]
    ElementConflict {
        /// The set.
        set: String,
        /// The element.
        element: Element,
    },
    /// The element does not have the form that the set's header asks for.
    #[error("element {element:?} does not fit set {set}")]
    ElementForm {
        /// The set.
        set: String,
        /// The element.
        element: Element,
    },
    /// The set holds as many elements as its size allows.
    #[error("set {0} is full")]
    SetFull(String),
    /// A rule looks the wrong fields up, or takes a set for a verdict map or the other way around.
    #[error("a rule of chain {chain} can't look its fields up in set {set}")]
    LookupForm {
        /// The chain of the rule.
        chain: String,
        /// The set.
        set: String,
    },
    /// Something still refers to the set.
    #[error("set {set} is used by chain {by}")]
    SetInUse {
        /// The set.
        set: String,
        /// A chain with a rule that uses it.
        by: String,
    },
    /// No such counter.
    #[error("there is no counter {0}")]
    NoSuchCounter(String),
    /// Something still refers to the counter.
    #[error("counter {counter} is used by chain {by}")]
    CounterInUse {
        /// The counter.
        counter: String,
        /// A chain with a rule that uses it.
        by: String,
    },
    /// Something still refers to the chain, or it has rules.
    #[error("chain {chain} is used by {by}")]
    ChainInUse {
        /// The chain.
        chain: String,
        /// A chain or verdict map that leads to it.
        by: String,
    },
}

impl Ruleset {
    /// Carries `ops` out in order. After an error the value is what the operations before the
    /// wrong one made of it: of no use, since the kernel takes all of a transaction or nothing.
    pub fn apply(&mut self, ops: &[Op]) -> Result<(), ApplyError> {
        ops.iter().try_for_each(|op| self.apply_one(op))
    }

    fn apply_one(&mut self, op: &Op) -> Result<(), ApplyError> {
        match op {
            Op::AddSet(name, header) => self.add_set(name, header),
            Op::AddElements(name, elements) => self.add_elements(name, elements),
            Op::DeleteElements(name, elements) => self.delete_elements(name, elements),
            Op::AddChain(name, hook) => self.add_chain(name, hook.as_ref()),
            Op::FlushChain(name) => {
                self.chain(name)?.rules.clear();
                Ok(())
            }
            Op::AddRules(name, rules) => self.add_rules(name, rules),
            Op::DeleteChain(name) => self.delete_chain(name),
            Op::DeleteSet(name) => self.delete_set(name),
            Op::AddCounter(name) => {
                self.counters.insert(name.clone());
                Ok(())
            }
            Op::DeleteCounter(name) => self.delete_counter(name),
        }
    }

    fn add_set(&mut self, name: &str, header: &SetHeader) -> Result<(), ApplyError> {
        match self.sets.get(name) {
            Some(set) if set.header == *header => Ok(()),
            Some(_) => Err(ApplyError::SetExists(name.to_owned())),
            None => {
                let set = Set {
                    header: header.clone(),
                    elements: Default::default(),
                };
                self.sets.insert(name.to_owned(), set);
                Ok(())
            }
        }
    }

    fn add_chain(&mut self, name: &str, hook: Option<&BaseHook>) -> Result<(), ApplyError> {
        match self.chains.get(name) {
            Some(chain) if chain.hook.as_ref() == hook => Ok(()),
            Some(_) => Err(ApplyError::ChainExists(name.to_owned())),
            None => {
                let chain = Chain {
                    hook: hook.cloned(),
                    rules: vec![],
                };
                self.chains.insert(name.to_owned(), chain);
                Ok(())
            }
        }
    }

    fn add_elements(
        &mut self,
        name: &str,
        elements: &[(Element, Option<Verdict>)],
    ) -> Result<(), ApplyError> {
        for (_, verdict) in elements {
            self.check_target(verdict.as_ref())?;
        }
        let set = self.set(name)?;
        for (element, verdict) in elements {
            check_form(name, &set.header, element, verdict.as_ref())?;
            if conflicts(set, element, verdict.as_ref()) {
                let (set, element) = (name.to_owned(), element.clone());
                return Err(ApplyError::ElementConflict { set, element });
            }
            set.elements.insert(element.clone(), verdict.clone());
            if set
                .header
                .size
                .is_some_and(|size| set.elements.len() > size as usize)
            {
                return Err(ApplyError::SetFull(name.to_owned()));
            }
        }
        Ok(())
    }

    fn delete_elements(
        &mut self,
        name: &str,
        elements: &[(Element, Option<Verdict>)],
    ) -> Result<(), ApplyError> {
        let set = self.set(name)?;
        for (element, verdict) in elements {
            if set.elements.get(element) != Some(verdict) {
                let (set, element) = (name.to_owned(), element.clone());
                return Err(ApplyError::NoSuchElement { set, element });
            }
            set.elements.remove(element);
        }
        Ok(())
    }

    fn add_rules(&mut self, name: &str, rules: &[Rule]) -> Result<(), ApplyError> {
        for statement in rules.iter().flat_map(|rule| &rule.statements) {
            let (fields, set_name, is_map) = match statement {
                Statement::Lookup { fields, set, .. } => (fields, set, false),
                Statement::VerdictMap { fields, map } => (fields, map, true),
                Statement::Verdict(verdict) => {
                    self.check_target(Some(verdict))?;
                    continue;
                }
                Statement::NamedCounter(counter) if !self.counters.contains(counter) => {
                    return Err(ApplyError::NoSuchCounter(counter.clone()));
                }
                _ => continue,
            };
            let header = &self.set(set_name)?.header;
            let types = fields.iter().map(|field| field.key_type());
            if header.verdict_map != is_map || !types.eq(header.key.iter().copied()) {
                let (chain, set) = (name.to_owned(), set_name.clone());
                return Err(ApplyError::LookupForm { chain, set });
            }
        }
        self.chain(name)?.rules.extend_from_slice(rules);
        Ok(())
    }

    fn delete_chain(&mut self, name: &str) -> Result<(), ApplyError> {
        let in_use = |by: &str| {
            let (chain, by) = (name.to_owned(), by.to_owned());
            Err(ApplyError::ChainInUse { chain, by })
        };
        if !self.chain(name)?.rules.is_empty() {
            return in_use("its own rules");
        }
        let leads_here = |verdict: &Verdict| target(verdict) == Some(name);
        for (by, chain) in &self.chains {
            let mut statements = chain.rules.iter().flat_map(|rule| &rule.statements);
            if statements.any(|s| matches!(s, Statement::Verdict(verdict) if leads_here(verdict))) {
                return in_use(by);
            }
        }
        for (by, set) in self.sets.iter().filter(|(_, set)| set.header.verdict_map) {
            if set.elements.values().flatten().any(leads_here) {
                return in_use(by);
            }
        }
        self.chains.remove(name);
        Ok(())
    }

    fn delete_set(&mut self, name: &str) -> Result<(), ApplyError> {
        self.set(name)?;
        let uses = |statement: &Statement| match statement {
            Statement::Lookup { set, .. } => set == name,
            Statement::VerdictMap { map, .. } => map == name,
            _ => false,
        };
        for (by, chain) in &self.chains {
            if chain
                .rules
                .iter()
                .flat_map(|rule| &rule.statements)
                .any(uses)
            {
                let (set, by) = (name.to_owned(), by.clone());
                return Err(ApplyError::SetInUse { set, by });
            }
        }
        self.sets.remove(name);
        Ok(())
    }

    fn delete_counter(&mut self, name: &str) -> Result<(), ApplyError> {
        let counts =
            |s: &Statement| matches!(s, Statement::NamedCounter(counter) if counter == name);
        for (by, chain) in &self.chains {
            let mut statements = chain.rules.iter().flat_map(|rule| &rule.statements);
            if statements.any(counts) {
                let (counter, by) = (name.to_owned(), by.clone());
                return Err(ApplyError::CounterInUse { counter, by });
            }
        }
        match self.counters.remove(name) {
            true => Ok(()),
            false => Err(ApplyError::NoSuchCounter(name.to_owned())),
        }
    }

    fn check_target(&self, verdict: Option<&Verdict>) -> Result<(), ApplyError> {
        let Some(name) = verdict.and_then(target) else {
            return Ok(());
        };
        match self.chains.get(name) {
            None => Err(ApplyError::NoSuchChain(name.to_owned())),
            Some(chain) if chain.hook.is_some() => {
                Err(ApplyError::JumpToBaseChain(name.to_owned()))
            }
            Some(_) => Ok(()),
        }
    }

    fn set(&mut self, name: &str) -> Result<&mut Set, ApplyError> {
        self.sets
            .get_mut(name)
            .ok_or_else(|| ApplyError::NoSuchSet(name.to_owned()))
    }

    fn chain(&mut self, name: &str) -> Result<&mut Chain, ApplyError> {
        self.chains
            .get_mut(name)
            .ok_or_else(|| ApplyError::NoSuchChain(name.to_owned()))
    }
}

fn target(verdict: &Verdict) -> Option<&str> {
    match verdict {
        Verdict::Jump(chain) | Verdict::Goto(chain) => Some(chain),
        Verdict::Accept | Verdict::Drop | Verdict::Return => None,
    }
}

fn check_form(
    set: &str,
    header: &SetHeader,
    element: &Element,
    verdict: Option<&Verdict>,
) -> Result<(), ApplyError> {
    let length = key_length(&header.key);
    let end_fits = match (&element.end, header.kind) {
        (None, _) => true,
        (Some(_), SetKind::Hash) => false,
        (Some(end), SetKind::Interval) => end.len() == length && *end >= element.key,
    };
    if element.key.len() == length && end_fits && verdict.is_some() == header.verdict_map {
        return Ok(());
    }
    Err(ApplyError::ElementForm {
        set: set.to_owned(),
        element: element.clone(),
    })
}

/// Another verdict for the same key, or, among ranges of one field, an overlap.
fn conflicts(set: &Set, element: &Element, verdict: Option<&Verdict>) -> bool {
    if let Some(old) = set.elements.get(element) {
        return old.as_ref() != verdict;
    }
    if set.header.kind == SetKind::Hash || set.header.key.len() > 1 {
        return false;
    }
    let last = |of: &Element| of.end.clone().unwrap_or_else(|| of.key.clone());
    let before = set.elements.range(..element).next_back();
    let after = set.elements.range(element..).next();
    before.is_some_and(|(other, _)| last(other) >= element.key)
        || after.is_some_and(|(other, _)| other.key <= last(element))
}
