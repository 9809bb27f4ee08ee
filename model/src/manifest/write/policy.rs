//! Policies, and what they select besides pods.

use super::{calico, document, protocol, without_nulls};
use crate::Selector;
use crate::object::{
    CalicoAction, CalicoPolicy, CalicoPort, CalicoRule, ClusterAction, ClusterNetworkPolicy,
    ClusterPeer, ClusterPods, ClusterPort, ClusterRule, ClusterTier, EntityRule, HostEndpoint,
    IcmpMatch, IpVersion, NetworkPolicy, NetworkSet, Order, PolicyPeer, PolicyPort, PolicyRule,
    PortMatch, Profile, StagedAction, StagedKubernetesPolicy, Tier, TierDefault,
};
use ipnet::IpNet;
use serde_json::{Map, Value, json};

pub(super) fn network_policy(policy: &NetworkPolicy) -> Option<Value> {
    Some(document(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        json!({ "name": policy.name, "namespace": policy.namespace }),
        network_policy_spec(policy)?,
    ))
}

fn network_policy_spec(policy: &NetworkPolicy) -> Option<Value> {
    let rules = |rules: &Option<Vec<PolicyRule>>, peers| -> Option<Value> {
        let rules = rules.iter().flatten();
        rules.map(|rule| network_policy_rule(rule, peers)).collect()
    };
    Some(json!({
        "podSelector": label_selector(&policy.pod_selector)?,
        "policyTypes": types(policy.ingress.is_some(), policy.egress.is_some()),
        "ingress": rules(&policy.ingress, "from")?,
        "egress": rules(&policy.egress, "to")?,
    }))
}

fn types(ingress: bool, egress: bool) -> Vec<&'static str> {
    let ingress = ingress.then_some("Ingress");
    ingress
        .into_iter()
        .chain(egress.then_some("Egress"))
        .collect()
}

fn network_policy_rule(rule: &PolicyRule, peers: &str) -> Option<Value> {
    let mut written = Map::new();
    if let Some(list) = &rule.peers {
        let list = stated(list)?.iter().map(network_policy_peer);
        written.insert(peers.to_owned(), list.collect::<Option<_>>()?);
    }
    if let Some(list) = &rule.ports {
        let list = stated(list)?.iter().map(network_policy_port);
        written.insert("ports".to_owned(), list.collect());
    }
    Some(Value::Object(written))
}

/// An empty list stands for what failed closed, which no manifest says.
fn stated<T>(list: &[T]) -> Option<&[T]> {
    (!list.is_empty()).then_some(list)
}

fn network_policy_peer(peer: &PolicyPeer) -> Option<Value> {
    Some(match peer {
        PolicyPeer::Pods { namespaces, pods } => {
            let mut written = json!({ "podSelector": label_selector(pods)? });
            if let Some(namespaces) = namespaces {
                written["namespaceSelector"] = label_selector(namespaces)?;
            }
            written
        }
        PolicyPeer::IpBlock { cidr, except } => {
            json!({ "ipBlock": { "cidr": cidr.to_string(), "except": texts(except) } })
        }
    })
}

fn network_policy_port(port: &PolicyPort) -> Value {
    let protocol = protocol(port.protocol);
    match &port.port {
        PortMatch::Any => json!({ "protocol": protocol }),
        PortMatch::Named(name) => json!({ "protocol": protocol, "port": name }),
        PortMatch::Range(first, last) => {
            json!({ "protocol": protocol, "port": first, "endPort": last })
        }
    }
}

/// None for selectors that Kubernetes can't write.
fn label_selector(selector: &Selector) -> Option<Value> {
    let parts = match selector {
        Selector::All => &[],
        Selector::And(parts) if parts.len() > 1 => parts.as_slice(),
        part => std::slice::from_ref(part),
    };
    let mut labels = Map::new();
    let mut expressions = Vec::new();
    for part in parts {
        let expression = match part {
            Selector::Eq(key, value) if expressions.is_empty() => {
                let value = Value::from(value.as_str());
                if labels.insert(key.clone(), value).is_some() {
                    return None;
                }
                continue;
            }
            Selector::In(key, values) => json!({ "key": key, "operator": "In", "values": values }),
            Selector::NotIn(key, values) => {
                json!({ "key": key, "operator": "NotIn", "values": values })
            }
            Selector::Has(key) => json!({ "key": key, "operator": "Exists" }),
            Selector::Not(inner) => match &**inner {
                Selector::Has(key) => json!({ "key": key, "operator": "DoesNotExist" }),
                _ => return None,
            },
            _ => return None,
        };
        expressions.push(expression);
    }
    Some(without_nulls(
        json!({ "matchLabels": labels, "matchExpressions": expressions }),
    ))
}

pub(super) fn cluster_policy(policy: &ClusterNetworkPolicy) -> Option<Value> {
    let rules = |rules: &[ClusterRule], peers| -> Option<Value> {
        rules.iter().map(|rule| cluster_rule(rule, peers)).collect()
    };
    let tier = match policy.tier {
        ClusterTier::Admin => "Admin",
        ClusterTier::Baseline => "Baseline",
    };
    Some(document(
        "policy.networking.k8s.io/v1alpha2",
        "ClusterNetworkPolicy",
        json!({ "name": policy.name }),
        json!({
            "tier": tier,
            "priority": policy.priority,
            "subject": cluster_pods(&policy.subject)?,
            "ingress": rules(&policy.ingress, "from")?,
            "egress": rules(&policy.egress, "to")?,
        }),
    ))
}

fn cluster_pods(pods: &ClusterPods) -> Option<Value> {
    Some(json!({ "pods": {
        "namespaceSelector": label_selector(&pods.namespaces)?,
        "podSelector": label_selector(&pods.pods)?,
    } }))
}

fn cluster_rule(rule: &ClusterRule, peers: &str) -> Option<Value> {
    let action = match rule.action {
        ClusterAction::Accept => "Accept",
        ClusterAction::Deny => "Deny",
        ClusterAction::Pass => "Pass",
    };
    let list = stated(rule.peers.as_deref()?)?.iter().map(cluster_peer);
    let mut written = json!({ "action": action });
    written[peers] = list.collect::<Option<_>>()?;
    if let Some(name) = &rule.name {
        written["name"] = name.as_str().into();
    }
    if let Some(protocols) = &rule.protocols {
        written["protocols"] = stated(protocols)?.iter().map(cluster_port).collect();
    }
    Some(written)
}

fn cluster_peer(peer: &ClusterPeer) -> Option<Value> {
    Some(match peer {
        ClusterPeer::Pods(pods) => cluster_pods(pods)?,
        ClusterPeer::Networks(networks) => json!({ "networks": texts(networks) }),
        ClusterPeer::Nodes(selector) => json!({ "nodes": label_selector(selector)? }),
        ClusterPeer::DomainNames(names) => json!({ "domainNames": names }),
    })
}

fn cluster_port(port: &ClusterPort) -> Value {
    match port {
        ClusterPort::Named(name) => json!({ "destinationNamedPort": name }),
        ClusterPort::Range {
            protocol,
            first,
            last,
        } => {
            let ports = if first == last {
                json!({ "number": first })
            } else {
                json!({ "range": { "start": first, "end": last } })
            };
            let name = super::protocol(*protocol).to_ascii_lowercase();
            json!({ name: { "destinationPort": ports } })
        }
    }
}

pub(super) fn tier(tier: &Tier) -> Value {
    let default_action = match tier.default_action {
        TierDefault::Deny => "Deny",
        TierDefault::Pass => "Pass",
    };
    calico(
        "Tier",
        json!({ "name": tier.name }),
        json!({ "order": order(tier.order), "defaultAction": default_action }),
    )
}

fn order(order: Order) -> Option<f64> {
    (order != Order::LAST).then(|| order.value())
}

pub(super) fn calico_policy(policy: &CalicoPolicy) -> Option<Value> {
    let metadata = json!({ "name": policy.name, "namespace": policy.namespace });
    let kind = policy.kind().as_str();
    let ignored = policy.ingress.is_none() && policy.egress.is_none();
    let staged = match (policy.staged, ignored) {
        (Some(StagedAction::Delete), _) => {
            let spec = json!({ "stagedAction": "Delete", "tier": policy.tier });
            return Some(calico(kind, metadata, spec));
        }
        (Some(StagedAction::Set), false) => Some("Set"),
        (Some(StagedAction::Set), true) => Some("Ignore"),
        (None, false) => None,
        (None, true) => return None,
    };
    let rules = |rules: &Option<Vec<CalicoRule>>| -> Option<Value> {
        rules.iter().flatten().map(calico_rule).collect()
    };
    let flag = |stated: bool| stated.then_some(true);
    Some(calico(
        kind,
        metadata,
        json!({
            "stagedAction": staged,
            "tier": policy.tier,
            "order": order(policy.order),
            "selector": policy.selector.to_string(),
            "namespaceSelector": text(&policy.namespace_selector),
            "serviceAccountSelector": text(&policy.service_account_selector),
            "types": types(policy.ingress.is_some(), policy.egress.is_some()),
            "ingress": rules(&policy.ingress)?,
            "egress": rules(&policy.egress)?,
            "doNotTrack": flag(policy.do_not_track),
            "preDNAT": flag(policy.pre_dnat),
            "applyOnForward": flag(policy.apply_on_forward),
        }),
    ))
}

fn calico_rule(rule: &CalicoRule) -> Option<Value> {
    let action = match rule.action {
        CalicoAction::Allow => "Allow",
        CalicoAction::Deny => "Deny",
        CalicoAction::Log => "Log",
        CalicoAction::Pass => "Pass",
    };
    let version = rule.ip_version.map(|version| match version {
        IpVersion::V4 => 4,
        IpVersion::V6 => 6,
    });
    let protocol = |number: Option<u8>| -> Option<Value> {
        let number = number?;
        let names = super::super::calico_rule::PROTOCOL_NAMES.iter();
        let name = names.clone().find(|(_, named)| *named == number);
        Some(name.map_or_else(|| number.into(), |(name, _)| (*name).into()))
    };
    let icmp = |icmp: Option<IcmpMatch>| {
        icmp.map(|icmp| without_nulls(json!({ "type": icmp.icmp_type, "code": icmp.code })))
    };
    let mut written = without_nulls(json!({
        "action": action,
        "ipVersion": version,
        "protocol": protocol(rule.protocol),
        "notProtocol": protocol(rule.not_protocol),
        "source": entity(&rule.source)?,
        "destination": entity(&rule.destination)?,
    }));
    // An empty mapping means something here.
    for (name, icmp) in [("icmp", icmp(rule.icmp)), ("notICMP", icmp(rule.not_icmp))] {
        if let Some(icmp) = icmp {
            written[name] = icmp;
        }
    }
    Some(written)
}

fn entity(entity: &EntityRule) -> Option<Value> {
    let nets = match &entity.nets {
        Some(nets) => texts(stated(nets)?),
        None => Vec::new(),
    };
    let ports = match &entity.ports {
        Some(ports) => stated(ports)?,
        None => &[],
    };
    let accounts = entity.service_accounts.as_ref().map(|accounts| {
        without_nulls(json!({ "names": accounts.names, "selector": text(&accounts.selector) }))
    });
    let services = entity
        .services
        .as_ref()
        .map(|service| json!({ "name": service.name, "namespace": service.namespace }));
    Some(without_nulls(json!({
        "nets": nets,
        "notNets": texts(&entity.not_nets),
        "selector": text(&entity.selector),
        "notSelector": text(&entity.not_selector),
        "namespaceSelector": text(&entity.namespace_selector),
        "serviceAccounts": accounts,
        "services": services,
        "ports": ports.iter().map(calico_port).collect::<Value>(),
        "notPorts": entity.not_ports.iter().map(calico_port).collect::<Value>(),
    })))
}

fn calico_port(port: &CalicoPort) -> Value {
    match port {
        CalicoPort::Named(name) => name.as_str().into(),
        CalicoPort::Range(first, last) if first == last => (*first).into(),
        CalicoPort::Range(first, last) => format!("{first}:{last}").into(),
    }
}

fn text(selector: &Option<Selector>) -> Option<String> {
    selector.as_ref().map(ToString::to_string)
}

fn texts(nets: &[IpNet]) -> Vec<String> {
    nets.iter().map(ToString::to_string).collect()
}

pub(super) fn staged_kubernetes(staged: &StagedKubernetesPolicy) -> Option<Value> {
    let policy = &staged.policy;
    let ignored = policy.ingress.is_none() && policy.egress.is_none();
    let action = match (staged.action, ignored) {
        (StagedAction::Delete, _) => "Delete",
        (StagedAction::Set, true) => "Ignore",
        (StagedAction::Set, false) => "Set",
    };
    let mut spec = match staged.action {
        StagedAction::Set => network_policy_spec(policy)?,
        StagedAction::Delete => json!({}),
    };
    spec["stagedAction"] = action.into();
    Some(calico(
        "StagedKubernetesNetworkPolicy",
        json!({ "name": policy.name, "namespace": policy.namespace }),
        spec,
    ))
}

pub(super) fn network_set(set: &NetworkSet) -> Value {
    calico(
        set.kind().as_str(),
        json!({ "name": set.name, "namespace": set.namespace, "labels": set.labels }),
        json!({ "nets": texts(&set.nets) }),
    )
}

pub(super) fn host_endpoint(endpoint: &HostEndpoint) -> Value {
    let ports = endpoint.ports.iter().map(
        |port| json!({ "name": port.name, "protocol": protocol(port.protocol), "port": port.port }),
    );
    calico(
        "HostEndpoint",
        json!({ "name": endpoint.name, "labels": endpoint.labels }),
        json!({
            "node": endpoint.node,
            "interfaceName": endpoint.interface_name,
            "expectedIPs": endpoint.expected_ips,
            "ports": ports.collect::<Value>(),
            "profiles": endpoint.profiles,
        }),
    )
}

pub(super) fn profile(profile: &Profile) -> Value {
    calico(
        "Profile",
        json!({ "name": profile.name }),
        json!({ "labelsToApply": profile.labels_to_apply }),
    )
}
