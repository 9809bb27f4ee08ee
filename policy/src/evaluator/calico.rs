//! `projectcalico.org/v3` `NetworkPolicy` and `GlobalNetworkPolicy`: the endpoints that they are
//! for, and when a rule matches.

mod entity;

use super::Evaluator;
use super::flow::{Direction, Flow};
use super::pods::Match;
use crate::endpoint::Endpoint;
use entity::Entity;
use model::{
    CalicoPolicy, CalicoPort, CalicoRule, EntityRule, HostEndpoint, IcmpMatch, IpVersion, Protocol,
    Selector, ServiceAccountMatch, ServiceMatch,
};
use std::net::IpAddr;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Whose policies are asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum CalicoSubject<'a> {
    Pod(&'a Endpoint),
    Host(&'a HostEndpoint),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

fn rules(policy: &CalicoPolicy, direction: Direction) -> Option<&Vec<CalicoRule>> {
    match direction {
        Direction::Egress => policy.egress.as_ref(),
        Direction::Ingress => policy.ingress.as_ref(),
    }
}

impl Evaluator {
    /// Whether the policy is for the endpoint, and its types include the direction.
    pub(super) fn calico_applies(
        &self,
        policy: &CalicoPolicy,
        subject: CalicoSubject<'_>,
        direction: Direction,
    ) -> bool {
        let entity = match subject {
            CalicoSubject::Pod(pod) => self.pod_entity(pod),
            CalicoSubject::Host(host) => self.host_entity(host),
        };
        // What only makes sense for hosts is not for pods.
        let for_hosts = policy.do_not_track || policy.pre_dnat;
        let misplaced = for_hosts && matches!(subject, CalicoSubject::Pod(_));
        let namespaces = &policy.namespace_selector;
        let accounts = &policy.service_account_selector;
        rules(policy, direction).is_some()
            && !misplaced
            && policy
                .namespace
                .as_deref()
                .is_none_or(|own| entity.namespace == Some(own))
            && namespaces
                .as_ref()
                .is_none_or(|one| self.namespace_matches(one, &entity))
            && accounts
                .as_ref()
                .is_none_or(|one| self.account_matches(one, &entity))
            && policy.selector.matches(&entity.labels)
    }

    /// The rules of a policy that match, in order.
    pub(super) fn calico_matches(
        &self,
        policy: &CalicoPolicy,
        direction: Direction,
        flow: &Flow,
    ) -> Vec<Match> {
        let rules = rules(policy, direction).into_iter().flatten().enumerate();
        let namespace = policy.namespace.as_deref();
        let matching = rules.filter(|(_, rule)| self.calico_rule(rule, namespace, flow));
        let found = matching.map(|(place, rule)| Match {
            rule: place,
            name: None,
            action: rule.action.into(),
        });
        found.collect()
    }

    /// A rule matches where everything that it states does.
    fn calico_rule(&self, rule: &CalicoRule, namespace: Option<&str>, flow: &Flow) -> bool {
        let family = if flow.source.address().is_ipv4() {
            IpVersion::V4
        } else {
            IpVersion::V6
        };
        rule.ip_version.is_none_or(|wanted| wanted == family)
            && rule.protocol.is_none_or(|wanted| wanted == flow.protocol)
            && rule
                .not_protocol
                .is_none_or(|unwanted| unwanted != flow.protocol)
            && rule
                .icmp
                .is_none_or(|wanted| icmp_matches(wanted, rule, flow))
            && rule
                .not_icmp
                .is_none_or(|unwanted| !icmp_matches(unwanted, rule, flow))
            && self.entity_matches(&rule.source, Side::Source, rule, namespace, flow)
            && self.entity_matches(&rule.destination, Side::Destination, rule, namespace, flow)
    }

    fn entity_matches(
        &self,
        wanted: &EntityRule,
        side: Side,
        rule: &CalicoRule,
        namespace: Option<&str>,
        flow: &Flow,
    ) -> bool {
        let (address, port) = match side {
            Side::Source => (flow.source.address(), flow.source_port),
            Side::Destination => (flow.destination.address(), flow.destination_port),
        };
        let entities = self.entities(address);
        let selected: Vec<&Entity<'_>> = entities
            .iter()
            .filter(|entity| self.selects(wanted, namespace, entity))
            .collect();
        let unselected = |unwanted: &Selector| {
            !entities
                .iter()
                .any(|entity| unwanted.matches(&entity.labels))
        };
        let ports = Ports { rule, port, flow };
        let among = |entities: &[&Entity<'_>], one: &CalicoPort| match one {
            CalicoPort::Range(first, last) => {
                port.is_some_and(|port| *first <= port && port <= *last)
            }
            CalicoPort::Named(name) => entities.iter().any(|entity| ports.names(entity, name)),
        };
        let everybody: Vec<&Entity<'_>> = entities.iter().collect();
        let service = |service: &ServiceMatch| self.service_holds(service, side, address, flow);
        wanted
            .nets
            .as_ref()
            .is_none_or(|nets| nets.iter().any(|net| net.contains(&address)))
            && !wanted.not_nets.iter().any(|net| net.contains(&address))
            && (!is_selective(wanted, namespace) || !selected.is_empty())
            && wanted.not_selector.as_ref().is_none_or(unselected)
            && wanted.services.as_ref().is_none_or(service)
            && wanted
                .ports
                .as_ref()
                .is_none_or(|all| all.iter().any(|one| among(&selected, one)))
            && !wanted.not_ports.iter().any(|one| among(&everybody, one))
    }

    /// Whether the positive selectors of a rule, where it has any, find anything at all.
    pub(super) fn calico_finds(&self, wanted: &EntityRule, namespace: Option<&str>) -> bool {
        let mut all = self.all_entities();
        !is_selective(wanted, namespace) || all.any(|one| self.selects(wanted, namespace, &one))
    }

    /// Whether the positive selectors of a rule match.
    fn selects(&self, wanted: &EntityRule, policy: Option<&str>, entity: &Entity<'_>) -> bool {
        let in_namespace = match (&wanted.namespace_selector, policy) {
            (Some(selector), _) => self.namespace_matches(selector, entity),
            (None, Some(own)) if is_selective(wanted, policy) => entity.namespace == Some(own),
            (None, _) => true,
        };
        let accounts = |wanted: &ServiceAccountMatch| {
            let selector = wanted.selector.as_ref();
            let named = |account| wanted.names.is_empty() || wanted.names.contains(account);
            entity.service_account.is_some_and(named)
                && selector.is_none_or(|selector| self.account_matches(selector, entity))
        };
        in_namespace
            && wanted
                .selector
                .as_ref()
                .is_none_or(|one| one.matches(&entity.labels))
            && wanted.service_accounts.as_ref().is_none_or(accounts)
    }

    /// Whether a Service's connections end at the address; as a destination, at the port too.
    fn service_holds(
        &self,
        service: &ServiceMatch,
        side: Side,
        address: IpAddr,
        flow: &Flow,
    ) -> bool {
        let of_service = self
            .slices
            .values()
            .filter(|slice| slice.namespace == service.namespace && slice.service == service.name);
        let mut holding = of_service.filter(|slice| slice.addresses.contains(&address));
        holding.any(|slice| {
            side == Side::Source
                || slice.ports.iter().any(|own| {
                    own.protocol.number() == flow.protocol
                        && Some(own.port) == flow.destination_port
                })
        })
    }
}

/// Whether a rule looks at who is there. In a namespaced policy a `notSelector` alone does: it is
/// for what is in the policy's namespace.
fn is_selective(wanted: &EntityRule, policy: Option<&str>) -> bool {
    wanted.selector.is_some()
        || wanted.namespace_selector.is_some()
        || wanted.service_accounts.is_some()
        || (policy.is_some() && wanted.not_selector.is_some())
}

fn icmp_matches(wanted: IcmpMatch, rule: &CalicoRule, flow: &Flow) -> bool {
    let of_family = if flow.source.address().is_ipv4() {
        ICMP
    } else {
        ICMPV6
    };
    let (kind, code) = flow.icmp.unzip();
    flow.protocol == rule.protocol.unwrap_or(of_family)
        && wanted.icmp_type.is_none_or(|wanted| kind == Some(wanted))
        && wanted.code.is_none_or(|wanted| code == Some(wanted))
}

struct Ports<'a> {
    rule: &'a CalicoRule,
    port: Option<u16>,
    flow: &'a Flow,
}

impl Ports<'_> {
    /// Whether the port is the entity's of this name and the rule's protocol, TCP where the rule
    /// has none.
    fn names(&self, entity: &Entity<'_>, name: &str) -> bool {
        let protocol = self.rule.protocol.unwrap_or(Protocol::Tcp.number());
        self.flow.protocol == protocol
            && entity.ports.iter().any(|own| {
                own.name == name && own.protocol.number() == protocol && Some(own.port) == self.port
            })
    }
}
