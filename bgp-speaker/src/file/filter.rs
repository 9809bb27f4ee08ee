//! Filters and prefix lists of the configuration file: the rules of `BGPFilter`, and some more.

use bgp_core::filter::{
    Action, Community, CommunityError, Filter, MatchOperator, Matches, Operation, PeerType,
    PrefixLength, PrefixList, PrefixMatch, RouteSource, Rule,
};
use bgp_core::wire::Family;
use ipnet::IpNet;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why a rule is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// `cidr` and `matchOperator` belong together.
    #[error("cidr and matchOperator: both or neither must be set")]
    Operator,
    /// Bounds of nothing.
    #[error("prefixLength: cidr must be set too")]
    Length,
    /// Bounds that no prefix is within.
    #[error("prefixLength: min must not exceed max, nor max {longest}")]
    Bounds {
        /// The longest prefix of the family.
        longest: u8,
    },
    /// Nothing passes, so there is nothing to change.
    #[error("operations: only with action Accept")]
    Operations,
    /// A list that nobody has written.
    #[error("prefixList: there is no list {name}")]
    NoList {
        /// Its name.
        name: String,
    },
    /// A text that is no community.
    #[error("community: {0}")]
    Community(#[from] CommunityError),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RuleText {
    action: ActionText,
    cidr: Option<IpNet>,
    match_operator: Option<OperatorText>,
    #[serde(default)]
    prefix_length: LengthText,
    prefix_list: Option<String>,
    family: Option<FamilyText>,
    source: Option<SourceText>,
    interface: Option<String>,
    peer_type: Option<PeerTypeText>,
    #[serde(default)]
    communities: Vec<String>,
    #[serde(default)]
    as_path_prefix: Vec<u32>,
    priority: Option<u32>,
    #[serde(default)]
    operations: Vec<OperationText>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum ActionText {
    Accept,
    Reject,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum OperatorText {
    Equal,
    NotEqual,
    In,
    NotIn,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum FamilyText {
    #[serde(rename = "ipv4")]
    Ipv4,
    #[serde(rename = "ipv6")]
    Ipv6,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum SourceText {
    RemotePeers,
    Local,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum PeerTypeText {
    #[serde(rename = "eBGP")]
    External,
    #[serde(rename = "iBGP")]
    Internal,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LengthText {
    min: Option<u8>,
    max: Option<u8>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum OperationText {
    AddCommunity(String),
    RemoveCommunity(String),
    #[serde(rename = "prependASPath")]
    PrependAsPath(Vec<u32>),
    SetLocalPref(u32),
    SetMed(u32),
    SetPriority(u32),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntryText {
    action: ActionText,
    cidr: IpNet,
    min: Option<u8>,
    max: Option<u8>,
}

/// Prefix lists by name.
pub(super) type Lists = BTreeMap<String, Arc<PrefixList>>;

pub(super) fn list(entries: &[EntryText]) -> PrefixList {
    let entries = entries.iter().map(|entry| {
        let length = PrefixLength {
            min: entry.min,
            max: entry.max,
        };
        (entry.action.action(), entry.cidr, length)
    });
    PrefixList {
        entries: entries.collect(),
    }
}

/// The place of a rule from 0 on, and what is wrong with it.
pub(super) fn filter(rules: &[RuleText], lists: &Lists) -> Result<Filter, (usize, RuleError)> {
    let rules = rules.iter().enumerate();
    let rules = rules.map(|(place, rule)| rule.rule(lists).map_err(|error| (place, error)));
    Ok(Filter {
        rules: rules.collect::<Result<_, _>>()?,
    })
}

impl RuleText {
    fn rule(&self, lists: &Lists) -> Result<Rule, RuleError> {
        let action = self.action.action();
        if action == Action::Reject && !self.operations.is_empty() {
            return Err(RuleError::Operations);
        }
        let list = |name: &String| {
            let name = name.clone();
            lists.get(&name).cloned().ok_or(RuleError::NoList { name })
        };
        let communities = self.communities.iter().map(|text| text.parse());
        let operations = self.operations.iter().map(OperationText::operation);
        Ok(Rule {
            action,
            matches: Matches {
                family: self.family.map(|family| match family {
                    FamilyText::Ipv4 => Family::IPV4,
                    FamilyText::Ipv6 => Family::IPV6,
                }),
                prefix: self.prefix()?,
                prefix_list: self.prefix_list.as_ref().map(list).transpose()?,
                source: self.source.map(|source| match source {
                    SourceText::RemotePeers => RouteSource::RemotePeers,
                    SourceText::Local => RouteSource::Local,
                }),
                interface: self.interface.clone(),
                peer_type: self.peer_type.map(|kind| match kind {
                    PeerTypeText::External => PeerType::External,
                    PeerTypeText::Internal => PeerType::Internal,
                }),
                communities: communities.collect::<Result<_, CommunityError>>()?,
                as_path_prefix: self.as_path_prefix.clone(),
                priority: self.priority,
            },
            operations: operations.collect::<Result<_, CommunityError>>()?,
        })
    }

    fn prefix(&self) -> Result<Option<PrefixMatch>, RuleError> {
        let LengthText { min, max } = self.prefix_length;
        let (Some(prefix), Some(operator)) = (self.cidr, self.match_operator) else {
            return match (self.cidr, self.match_operator, min.or(max)) {
                (None, None, None) => Ok(None),
                (None, None, Some(_)) => Err(RuleError::Length),
                _ => Err(RuleError::Operator),
            };
        };
        let longest = prefix.max_prefix_len();
        let upper = max.unwrap_or(longest);
        if upper > longest || min.is_some_and(|min| min > upper) {
            return Err(RuleError::Bounds { longest });
        }
        Ok(Some(PrefixMatch {
            prefix,
            operator: match operator {
                OperatorText::Equal => MatchOperator::Equal,
                OperatorText::NotEqual => MatchOperator::NotEqual,
                OperatorText::In => MatchOperator::In,
                OperatorText::NotIn => MatchOperator::NotIn,
            },
            length: PrefixLength { min, max },
        }))
    }
}

impl ActionText {
    fn action(self) -> Action {
        match self {
            Self::Accept => Action::Accept,
            Self::Reject => Action::Reject,
        }
    }
}

impl OperationText {
    fn operation(&self) -> Result<Operation, CommunityError> {
        let community = |text: &String| text.parse::<Community>();
        Ok(match self {
            Self::AddCommunity(text) => Operation::AddCommunity(community(text)?),
            Self::RemoveCommunity(text) => Operation::RemoveCommunity(community(text)?),
            Self::PrependAsPath(numbers) => Operation::PrependAsPath(numbers.clone()),
            Self::SetLocalPref(value) => Operation::SetLocalPref(*value),
            Self::SetMed(value) => Operation::SetMed(*value),
            Self::SetPriority(value) => Operation::SetPriority(*value),
        })
    }
}
