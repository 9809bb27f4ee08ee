//! What an object makes it necessary to read.
//!
//! Services, their endpoints and service accounts change all the time in a large cluster, and most
//! clusters never use them for policy or announce them: they are watched from when the first
//! object needs them until the process ends.

use super::resource::Source;
use model::{AllowedUse, BgpConfiguration, CalicoPolicy, EntityRule, Kind, Object};

/// What this object needs. `namespace` is the agent's, where Secrets stand.
pub(super) fn of(object: &Object, namespace: &str) -> Vec<Source> {
    let kinds: &[Kind] = match object {
        Object::BgpConfiguration(configuration) if announces(configuration) => {
            &[Kind::Service, Kind::EndpointSlice]
        }
        Object::IpPool(pool) if pool.allowed_uses.contains(&AllowedUse::LoadBalancer) => {
            &[Kind::Service]
        }
        Object::CalicoPolicy(policy) => match (names_services(policy), selects_accounts(policy)) {
            (true, true) => &[Kind::EndpointSlice, Kind::ServiceAccount],
            (true, false) => &[Kind::EndpointSlice],
            (false, true) => &[Kind::ServiceAccount],
            (false, false) => &[],
        },
        _ => &[],
    };
    let password = match object {
        Object::BgpPeer(peer) => peer.password.as_ref(),
        Object::BgpConfiguration(configuration) => configuration.node_mesh_password.as_ref(),
        _ => None,
    };
    let secret = password.and_then(|key| Source::one(Kind::Secret, namespace, &key.name));
    let all = kinds.iter().filter_map(|kind| Source::of(*kind));
    all.chain(secret).collect()
}

fn announces(configuration: &BgpConfiguration) -> bool {
    let ranges = [
        &configuration.service_cluster_ips,
        &configuration.service_external_ips,
        &configuration.service_load_balancer_ips,
    ];
    ranges.iter().any(|ranges| !ranges.is_empty())
}

fn ends(policy: &CalicoPolicy) -> impl Iterator<Item = &EntityRule> {
    let directions = [&policy.ingress, &policy.egress].into_iter();
    let rules = directions.flatten().flatten();
    rules.flat_map(|rule| [&rule.source, &rule.destination])
}

fn names_services(policy: &CalicoPolicy) -> bool {
    ends(policy).any(|end| end.services.is_some())
}

fn selects_accounts(policy: &CalicoPolicy) -> bool {
    let selects = |end: &EntityRule| {
        let accounts = end.service_accounts.as_ref();
        accounts.is_some_and(|accounts| accounts.selector.is_some())
    };
    policy.service_account_selector.is_some() || ends(policy).any(selects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::manifest::{self, Parsed};
    use serde_json::{Value, json};

    fn needs(kind: &str, name: &str, spec: Value) -> Vec<String> {
        let mut document = json!({
            "apiVersion": "projectcalico.org/v3", "kind": kind,
            "metadata": {"name": name}, "spec": spec,
        });
        if kind == "NetworkPolicy" {
            document["metadata"]["namespace"] = json!("shop");
        }
        let Parsed::Valid { object, .. } = manifest::parse(&document).unwrap() else {
            panic!("{document}");
        };
        of(&object, "net").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_what_an_object_uses_is_needed() {
        let services = ["services", "endpointslices.discovery.k8s.io"];
        let announce = json!({"serviceClusterIPs": [{"cidr": "10.96.0.0/12"}]});
        assert_eq!(needs("BGPConfiguration", "default", announce), services);
        assert!(needs("BGPConfiguration", "default", json!({"asNumber": 64513})).is_empty());
        let pool = |uses: &[&str]| json!({"cidr": "10.0.0.0/16", "allowedUses": uses});
        assert_eq!(needs("IPPool", "lb", pool(&["LoadBalancer"])), ["services"]);
        assert!(needs("IPPool", "pods", pool(&["Workload"])).is_empty());
    }

    #[test]
    fn policies_need_what_their_rules_refer_to() {
        let policy = |source: Value| json!({"ingress": [{"action": "Allow", "source": source}]});
        let of = |source| needs("NetworkPolicy", "api", policy(source));
        assert_eq!(
            of(json!({"serviceAccounts": {"selector": "a == 'b'"}})),
            ["serviceaccounts"]
        );
        assert!(of(json!({"serviceAccounts": {"names": ["x"]}})).is_empty());
        assert_eq!(
            of(json!({"services": {"name": "db"}})),
            ["endpointslices.discovery.k8s.io"]
        );
        let by_account = json!({"serviceAccountSelector": "a == 'b'", "types": ["Ingress"]});
        assert_eq!(
            needs("GlobalNetworkPolicy", "g", by_account),
            ["serviceaccounts"]
        );
    }

    #[test]
    fn a_password_needs_its_secret_and_no_other() {
        let peer = json!({
            "peerIP": "10.0.0.1", "asNumber": 64513,
            "password": {"secretKeyRef": {"name": "bgp", "key": "rack"}},
        });
        assert_eq!(needs("BGPPeer", "rack", peer), ["secrets net/bgp"]);
    }
}
