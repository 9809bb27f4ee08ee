//! Which prefixes a rule means.

use ipnet::IpNet;

/// A prefix and how those of routes compare with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixMatch {
    /// Compared with; routes of the other family never match, whatever the operator.
    pub prefix: IpNet,
    /// How.
    pub operator: MatchOperator,
    /// Bounds on the route's prefix length for `Equal` and `In`; `NotEqual` and `NotIn` are what
    /// those leave over.
    pub length: PrefixLength,
}

/// How prefixes compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MatchOperator {
    /// The same prefix.
    Equal,
    /// Another prefix.
    NotEqual,
    /// The prefix, or one that lies within it.
    In,
    /// Neither the prefix nor one within it.
    NotIn,
}

/// Bounds on a prefix length, both included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixLength {
    /// At least this long.
    pub min: Option<u8>,
    /// At most this long.
    pub max: Option<u8>,
}

impl PrefixLength {
    fn allows(&self, length: u8) -> bool {
        self.min.is_none_or(|min| length >= min) && self.max.is_none_or(|max| length <= max)
    }
}

impl PrefixMatch {
    pub(super) fn holds(&self, prefix: &IpNet) -> bool {
        let same_family = matches!(
            (self.prefix, prefix),
            (IpNet::V4(_), IpNet::V4(_)) | (IpNet::V6(_), IpNet::V6(_))
        );
        let wanted = self.prefix.trunc();
        let bounded = self.length.allows(prefix.prefix_len());
        same_family
            && match self.operator {
                MatchOperator::Equal => wanted == *prefix && bounded,
                MatchOperator::NotEqual => !(wanted == *prefix && bounded),
                MatchOperator::In => wanted.contains(prefix) && bounded,
                MatchOperator::NotIn => !(wanted.contains(prefix) && bounded),
            }
    }
}

/// Prefixes that several rules may refer to: the first entry that contains a prefix, and whose
/// bounds allow its length, says whether it is permitted; without one it is not.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixList {
    /// In order: whether to permit, the prefix, and bounds. Without bounds only the prefix itself
    /// is meant; with either, what lies within it.
    pub entries: Vec<(super::Action, IpNet, PrefixLength)>,
}

impl PrefixList {
    /// Whether the list permits a prefix.
    pub fn permits(&self, prefix: &IpNet) -> bool {
        let entry = self.entries.iter().find(|(_, wanted, length)| {
            let exact = *length == PrefixLength::default();
            if exact {
                wanted.trunc() == *prefix
            } else {
                wanted.trunc().contains(prefix) && length.allows(prefix.prefix_len())
            }
        });
        entry.is_some_and(|(action, ..)| *action == super::Action::Accept)
    }
}
