//! What is probably not meant, in policies that are valid.

mod reach;
mod rules;
mod selectors;

use super::Evaluator;
use super::order::Active;
use crate::input::{Policy, PolicyKey};
use std::fmt;

/// Something that is probably not meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The policy.
    pub policy: PolicyKey,
    /// What was looked for.
    pub check: Check,
    /// The field, such as `spec.ingress[0].from[1]`.
    pub field: String,
    /// What is the matter, in words.
    pub message: String,
}

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// Pods may not ask any DNS server.
    DenyWithoutDns,
    /// A selector finds nothing.
    SelectorMatchesNothing,
    /// No pod in question has a port of this name.
    NamedPortNobodyHas,
    /// An exception takes nothing away.
    ExceptCoversNothing,
    /// Two policies of one priority are about the same pods.
    PriorityTie,
    /// Something before decides everything.
    Shadowed,
    /// There is no tier of this name.
    UnknownTier,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DenyWithoutDns => "deny-without-dns",
            Self::SelectorMatchesNothing => "selector-matches-nothing",
            Self::NamedPortNobodyHas => "named-port-nobody-has",
            Self::ExceptCoversNothing => "except-covers-nothing",
            Self::PriorityTie => "priority-tie",
            Self::Shadowed => "shadowed",
            Self::UnknownTier => "unknown-tier",
        })
    }
}

impl Evaluator {
    /// What is probably not meant in the policies, staged ones included. Where no pod is known,
    /// nothing is said of what pods there are.
    pub fn lint(&self) -> Vec<Finding> {
        let mut findings = vec![];
        for (key, policy) in &self.policies {
            let policy = match policy {
                Policy::Kubernetes(policy) => Active::Kubernetes(policy),
                Policy::Cluster(policy) => Active::Cluster(policy),
                Policy::Calico(policy) => Active::Calico(policy),
                Policy::StagedKubernetes(staged) => Active::Kubernetes(&staged.policy),
            };
            let mut found = |check, field: String, message: String| {
                let policy = key.clone();
                findings.push(Finding {
                    policy,
                    check,
                    field,
                    message,
                });
            };
            if !self.endpoints.is_empty() {
                self.lint_selectors(policy, &mut found);
            }
            self.lint_rules(policy, &mut found);
        }
        self.lint_reach(&mut findings);
        findings.sort();
        findings
    }
}

/// Takes down a finding: the check, the field, what is the matter.
type Found<'a> = dyn FnMut(Check, String, String) + 'a;
