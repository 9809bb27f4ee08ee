//! Addresses of Services that nobody has.
//!
//! A node attracts whole ranges of such addresses by BGP. kube-proxy translates those in use before
//! they are forwarded; what is left would follow the default route to the router that sent it.

use super::super::NetworkSets;
use super::super::parts::{FAMILIES, daddr, drop_rule, hook, interval_set, lookup, rule};
use super::{SERVICES, nat};
use crate::hash::content_name;
use crate::ruleset::{Chain, ChainType, Hook, Set, Statement};
use std::collections::BTreeMap;

/// After `filter`, where kube-proxy refuses Services without endpoints in its own words.
const PRIORITY: i32 = 10;

/// The chain that ends such packets, with the sets that it looks up; none where no range is
/// announced.
pub(super) fn unused_services(network: &NetworkSets) -> Option<(Chain, BTreeMap<String, Set>)> {
    let (mut rules, mut sets) = (vec![], BTreeMap::new());
    for (family, digit) in FAMILIES.into_iter().zip(['4', '6']) {
        let ranges = nat::ranges(&network.services, family);
        // All addresses are no range of Services.
        if ranges.is_empty() || ranges.is_all(family) {
            continue;
        }
        let name = format!("{SERVICES}{digit}_{}", content_name(&ranges));
        let unused = [
            Statement::Family(family),
            lookup(&[daddr(family)], name.clone(), false),
        ];
        sets.insert(name, interval_set(family, &ranges));
        rules.push(if network.reject_unused_services {
            rule(unused.into_iter().chain([Statement::Reject]))
        } else {
            drop_rule(unused)
        });
    }
    let hook = hook(Hook::Forward, ChainType::Filter, PRIORITY);
    let chain = Chain {
        hook: Some(hook),
        rules,
    };
    (!sets.is_empty()).then_some((chain, sets))
}
