//! The verdict, and what decided.

use crate::input::PolicyKey;
use model::{CalicoAction, ClusterAction};
use std::fmt;

/// The verdict: both ends have to allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The flow is allowed.
    pub allowed: bool,
    /// What decided at the source.
    pub egress: Judgement,
    /// What decided at the destination.
    pub ingress: Judgement,
}

/// The verdict of one end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// What decided.
    pub reason: Reason,
    /// Rules that matched before and did not decide: `Log` and `Pass`.
    pub passed: Vec<RuleRef>,
    /// What would decide if every staged policy were in force; none where no staged policy is
    /// about this end.
    pub staged: Option<Reason>,
}

/// What decided one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// This end is neither a pod nor a host endpoint: nothing to decide.
    NoEndpoint,
    /// No policy applies to the pod in this direction, or all that do passed: allowed.
    NoPolicy,
    /// Between a pod and its own node: allowed.
    OwnNode,
    /// A pod reaches itself: allowed.
    Itself,
    /// A port through which a host can always be repaired: allowed.
    Failsafe,
    /// A rule allows or denies.
    Rule(RuleRef),
    /// Policies of this tier apply, none of their rules matches, and the tier denies the rest.
    EndOfTier {
        /// The tier.
        tier: String,
        /// The policies, in order.
        policies: Vec<PolicyKey>,
    },
    /// A pod sends packets inside of packets (IP in IP, VXLAN), past all policies: denied.
    Encapsulation,
    /// The labels of the pod are not known: denied.
    LabelsUnknown,
    /// A host endpoint that no policy allows anything: denied.
    HostEndpoint,
}

/// A rule that matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleRef {
    /// The tier that the policy stands in; `default` for Kubernetes' NetworkPolicy.
    pub tier: String,
    /// The policy.
    pub policy: PolicyKey,
    /// Place of the rule in the policy's direction, from 0.
    pub rule: usize,
    /// Name of the rule, where it has one.
    pub name: Option<String>,
    /// What it does.
    pub action: Action,
}

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Allowed, whatever comes later.
    Allow,
    /// Denied, whatever comes later.
    Deny,
    /// On to the next tier.
    Pass,
    /// Written to the log; the next rule goes on.
    Log,
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

impl Judgement {
    pub(super) fn of(reason: Reason) -> Self {
        Self {
            reason,
            passed: vec![],
            staged: None,
        }
    }

    /// True where this end allows.
    pub fn allows(&self) -> bool {
        self.reason.allows()
    }
}

impl Reason {
    /// True where this direction is allowed.
    pub fn allows(&self) -> bool {
        match self {
            Self::NoEndpoint | Self::NoPolicy | Self::OwnNode | Self::Itself | Self::Failsafe => {
                true
            }
            Self::Rule(rule) => rule.action == Action::Allow,
            Self::EndOfTier { .. }
            | Self::Encapsulation
            | Self::LabelsUnknown
            | Self::HostEndpoint => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEndpoint => f.write_str("neither a pod nor a host endpoint"),
            Self::NoPolicy => f.write_str("no policy decides: allowed"),
            Self::OwnNode => f.write_str("between a pod and its own node: allowed"),
            Self::Itself => f.write_str("a pod reaches itself: allowed"),
            Self::Failsafe => f.write_str("failsafe port of a host endpoint: allowed"),
            Self::Rule(rule) => rule.fmt(f),
            Self::EndOfTier { tier, policies } => {
                let names: Vec<String> = policies.iter().map(ToString::to_string).collect();
                let names = names.join(", ");
                write!(
                    f,
                    "no rule of {names} matches: denied at the end of tier {tier}"
                )
            }
            Self::Encapsulation => {
                f.write_str("pods may not send IP in IP or VXLAN past policy: denied")
            }
            Self::LabelsUnknown => f.write_str("the pod's labels are not known yet: denied"),
            Self::HostEndpoint => f.write_str("no policy of the host endpoint allows: denied"),
        }
    }
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            tier,
            policy,
            rule,
            name,
            action,
        } = self;
        let verb = match action {
            Action::Allow => "allowed",
            Action::Deny => "denied",
            Action::Pass => "passed to the next tier",
            Action::Log => "logged",
        };
        write!(f, "{verb} by rule {rule}")?;
        if let Some(name) = name {
            write!(f, " {name:?}")?;
        }
        write!(f, " of {policy} (tier {tier})")
    }
}
