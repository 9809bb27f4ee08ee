//! What counters count. A counter is an object of the table with a name: it stays while rules are
//! rewritten, as long as something of its name is counted. The same name begins the lines of the
//! drop log.

use crate::hash::content_name;
use crate::input::PolicyKey;
use crate::ir;
use std::fmt;

/// What a counter counts, and what a line of the drop log is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Counted {
    /// Seen from the endpoint that the policies are for.
    pub direction: Direction,
    pub(super) place: ir::Place,
    /// The tier; empty where no tier decides.
    pub tier: String,
    /// What decides.
    pub reason: Reason,
    /// Nothing is decided, only counted.
    pub staged: bool,
    /// The policies: one, or several that share their sets and are counted together. At the end of
    /// a tier, those that let the packet come there.
    pub policies: Vec<PolicyKey>,
}

/// Seen from the endpoint that policies are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the names say it
pub enum Direction {
    Ingress,
    Egress,
}

/// What decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Rules that do this.
    Rule(Action),
    /// No rule of the tier's policies matches.
    EndOfTier,
    /// The labels of the pod, or its owner, are not known.
    Unknown,
    /// No policy allows anything to the host endpoint.
    HostEndpoint,
}

pub use crate::ir::Action;

impl Counted {
    /// The name of the counter.
    pub(super) fn name(&self) -> String {
        format!("n{}", content_name(self))
    }
}

impl From<ir::Direction> for Direction {
    fn from(direction: ir::Direction) -> Self {
        match direction {
            ir::Direction::Ingress => Self::Ingress,
            ir::Direction::Egress => Self::Egress,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// `egress: end of tier default: NetworkPolicy/shop/a, NetworkPolicy/shop/b`
impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.direction)?;
        match self.reason {
            Reason::Rule(action) => write!(f, "{action} in tier {}", self.tier)?,
            Reason::EndOfTier => write!(f, "end of tier {}", self.tier)?,
            Reason::Unknown => f.write_str("labels or owner of the pod not known")?,
            Reason::HostEndpoint => f.write_str("no policy of the host endpoint allows")?,
        }
        if self.staged {
            f.write_str(" (staged)")?;
        }
        for (number, policy) in self.policies.iter().enumerate() {
            f.write_str(if number == 0 { ": " } else { ", " })?;
            write!(f, "{policy}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allowed",
            Self::Deny => "denied",
            Self::Pass => "passed",
            Self::Log => "logged",
        })
    }
}
