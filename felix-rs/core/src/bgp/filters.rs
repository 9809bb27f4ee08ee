//! `BGPFilter` objects -> the speaker's filters.

use crate::objects::Objects;
use bgp_core::filter::{
    Action, Community, Filter, MatchOperator, Matches, Operation, PeerType, PrefixLength,
    PrefixMatch, RouteSource, Rule,
};
use bgp_core::wire::Family;
use model::{BgpFilter, BgpFilterAction, BgpFilterOperation, BgpFilterRule, BgpPeer, BgpPeerType};
use std::sync::Arc;

/// What a peer's filters say of routes in and out, one after the other.
pub(super) struct Filters {
    pub(super) import: Arc<Filter>,
    pub(super) export: Arc<Filter>,
}

/// The filters that a peer names, or the name of the first that is not there.
pub(super) fn of<'a>(peer: &'a BgpPeer, objects: &Objects) -> Result<Filters, &'a str> {
    let (mut import, mut export) = (Filter::default(), Filter::default());
    for name in &peer.filters {
        let filter = objects.bgp_filters().find(|filter| filter.name == *name);
        let BgpFilter {
            import_v4,
            import_v6,
            export_v4,
            export_v6,
            ..
        } = filter.ok_or(name.as_str())?;
        add(&mut import, import_v4, Family::IPV4);
        add(&mut import, import_v6, Family::IPV6);
        add(&mut export, export_v4, Family::IPV4);
        add(&mut export, export_v6, Family::IPV6);
    }
    Ok(Filters {
        import: Arc::new(import),
        export: Arc::new(export),
    })
}

fn add(filter: &mut Filter, rules: &[BgpFilterRule], family: Family) {
    filter
        .rules
        .extend(rules.iter().map(|rule| self::rule(rule, family)));
}

fn rule(rule: &BgpFilterRule, family: Family) -> Rule {
    Rule {
        matches: Matches {
            family: Some(family),
            prefix: rule.prefix.map(prefix),
            prefix_list: None,
            source: rule.from_peers_only.then_some(RouteSource::RemotePeers),
            interface: rule.interface.clone(),
            peer_type: rule.peer_type.map(|peer_type| match peer_type {
                BgpPeerType::External => PeerType::External,
                BgpPeerType::Internal => PeerType::Internal,
            }),
            communities: rule.community.map(community).into_iter().collect(),
            as_path_prefix: rule.as_path_prefix.clone(),
            priority: rule.priority,
        },
        action: match rule.action {
            BgpFilterAction::Accept => Action::Accept,
            BgpFilterAction::Reject => Action::Reject,
        },
        operations: rule.operations.iter().map(operation).collect(),
    }
}

fn prefix(prefix: model::PrefixMatch) -> PrefixMatch {
    PrefixMatch {
        prefix: prefix.cidr,
        operator: match prefix.operator {
            model::MatchOperator::Equal => MatchOperator::Equal,
            model::MatchOperator::NotEqual => MatchOperator::NotEqual,
            model::MatchOperator::In => MatchOperator::In,
            model::MatchOperator::NotIn => MatchOperator::NotIn,
        },
        length: PrefixLength {
            min: Some(prefix.min_length),
            max: Some(prefix.max_length),
        },
    }
}

fn community(community: model::Community) -> Community {
    match community {
        model::Community::Standard(high, low) => {
            Community::Standard(u32::from(high) << 16 | u32::from(low))
        }
        model::Community::Large(a, b, c) => Community::Large([a, b, c]),
    }
}

fn operation(operation: &BgpFilterOperation) -> Operation {
    match operation {
        BgpFilterOperation::AddCommunity(value) => Operation::AddCommunity(community(*value)),
        BgpFilterOperation::RemoveCommunity(value) => Operation::RemoveCommunity(community(*value)),
        BgpFilterOperation::PrependAsPath(numbers) => Operation::PrependAsPath(numbers.clone()),
        BgpFilterOperation::SetPriority(value) => Operation::SetPriority(*value),
        BgpFilterOperation::SetLocalPreference(value) => Operation::SetLocalPref(*value),
        BgpFilterOperation::SetMed(value) => Operation::SetMed(*value),
    }
}
