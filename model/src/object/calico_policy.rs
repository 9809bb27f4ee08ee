//! `projectcalico.org/v3` policy, normalised: `NetworkPolicy`, `GlobalNetworkPolicy`, their staged
//! forms, `Tier`, and what their selectors match besides pods.

use super::{Kind, NamedPort, NetworkPolicy};
use crate::{Labels, Selector, Text};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Place among tiers or policies: lower first, [`Order::LAST`] where the manifest has none. Ties
/// go by name. Never NaN.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "Option<f64>", into = "Option<f64>")]
pub struct Order(f64);

/// Not a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an order is a number")]
pub struct OrderError;

// JSON has no infinity.
impl From<Order> for Option<f64> {
    fn from(order: Order) -> Self {
        (order != Order::LAST).then_some(order.0)
    }
}

impl TryFrom<Option<f64>> for Order {
    type Error = OrderError;

    fn try_from(order: Option<f64>) -> Result<Self, OrderError> {
        order.map_or(Ok(Order::LAST), |order| Order::new(order).ok_or(OrderError))
    }
}

impl Order {
    /// Before every other number.
    pub const FIRST: Self = Self(f64::MIN);
    /// After every number.
    pub const LAST: Self = Self(f64::INFINITY);

    /// `None` where `order` is not a number.
    pub fn new(order: f64) -> Option<Self> {
        // -0.0 and 0.0 are one place.
        (!order.is_nan()).then_some(Self(order + 0.0))
    }

    /// The number; infinite for [`Order::LAST`].
    pub fn value(self) -> f64 {
        self.0
    }
}

impl PartialEq for Order {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Order {}

impl PartialOrd for Order {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Order {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// What happens to a packet that no rule of a tier decides, where a policy of the tier selects
/// the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // the names say it
pub enum TierDefault {
    Deny,
    Pass,
}

/// Calico `Tier`. Three exist without an object: `kube-admin` (1000, Pass), `default` (1000000,
/// Deny) and `kube-baseline` (10000000, Pass).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tier {
    /// Its name.
    pub name: String,
    /// Its place.
    pub order: Order,
    /// What follows where nothing decided.
    pub default_action: TierDefault,
}

/// What becomes of a staged policy when it is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum StagedAction {
    /// It is put in force, in place of the one of its name.
    Set,
    /// The one of its name is removed.
    Delete,
}

/// `NetworkPolicy` and `GlobalNetworkPolicy` of `projectcalico.org/v3`, and their staged forms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalicoPolicy {
    /// Its namespace; none for a global policy.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Set on a staged policy: evaluated and counted, never enforced.
    pub staged: Option<StagedAction>,
    /// The tier that it stands in (`default`).
    pub tier: String,
    /// Its place in the tier.
    pub order: Order,
    /// Endpoints that it is for; with a namespace, those in it only.
    pub selector: Selector,
    /// Only endpoints in these namespaces (global policies).
    pub namespace_selector: Option<Selector>,
    /// Only endpoints whose service account matches.
    pub service_account_selector: Option<Selector>,
    /// Rules for what comes in; `None` where its types do not include Ingress.
    pub ingress: Option<Vec<CalicoRule>>,
    /// Rules for what goes out; `None` where its types do not include Egress.
    pub egress: Option<Vec<CalicoRule>>,
    /// Host endpoints: before connection tracking.
    pub do_not_track: bool,
    /// Host endpoints: before destination NAT; ingress only.
    pub pre_dnat: bool,
    /// Host endpoints: also for what is forwarded.
    pub apply_on_forward: bool,
}

impl CalicoPolicy {
    /// Which of the four kinds it is.
    pub fn kind(&self) -> Kind {
        match (&self.namespace, self.staged) {
            (Some(_), None) => Kind::CalicoNetworkPolicy,
            (None, None) => Kind::GlobalNetworkPolicy,
            (Some(_), Some(_)) => Kind::StagedNetworkPolicy,
            (None, Some(_)) => Kind::StagedGlobalNetworkPolicy,
        }
    }
}

/// `StagedKubernetesNetworkPolicy`: a Kubernetes policy that is not in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedKubernetesPolicy {
    /// What becomes of it.
    pub action: StagedAction,
    /// The policy.
    pub policy: NetworkPolicy,
}

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CalicoAction {
    /// Allowed, whatever comes later.
    Allow,
    /// Denied, whatever comes later.
    Deny,
    /// Written to the log; the next rule goes on.
    Log,
    /// On to the next tier.
    Pass,
}

/// One rule: everything that it states must match.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CalicoRule {
    /// What is done.
    pub action: CalicoAction,
    /// Only this family.
    pub ip_version: Option<IpVersion>,
    /// Only this protocol (`IPPROTO_*`).
    pub protocol: Option<u8>,
    /// Any protocol but this.
    pub not_protocol: Option<u8>,
    /// Only these ICMP messages; the family follows from `protocol` or `ip_version`.
    pub icmp: Option<IcmpMatch>,
    /// Any ICMP message but these.
    pub not_icmp: Option<IcmpMatch>,
    /// Where it comes from.
    pub source: EntityRule,
    /// Where it goes to.
    pub destination: EntityRule,
}

/// `ipVersion`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // the names say it
pub enum IpVersion {
    V4,
    V6,
}

/// An ICMP type, and a code of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IcmpMatch {
    /// 0 to 254; `None` is any message of the protocol.
    pub icmp_type: Option<u8>,
    /// `None` is any code.
    pub code: Option<u8>,
}

/// One end of a rule. Positive matches are a conjunction: an address is in `nets` and is one of a
/// selected endpoint or network set.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntityRule {
    /// In one of these; `None` is any address, an empty list none. Host bits are zero.
    pub nets: Option<Vec<IpNet>>,
    /// In none of these.
    pub not_nets: Vec<IpNet>,
    /// Endpoints and network sets with these labels. In a namespaced policy those of its own
    /// namespace, unless `namespace_selector` is there.
    pub selector: Option<Selector>,
    /// Not an endpoint or network set with these labels.
    pub not_selector: Option<Selector>,
    /// Endpoints and network sets in these namespaces; `global()` are those in none.
    pub namespace_selector: Option<Selector>,
    /// Endpoints of these service accounts.
    pub service_accounts: Option<ServiceAccountMatch>,
    /// Addresses and ports of a Service's endpoints; in an egress destination it stands alone, in
    /// an ingress source its ports do not count.
    pub services: Option<ServiceMatch>,
    /// One of these ports; `None` is any, an empty list none.
    pub ports: Option<Vec<CalicoPort>>,
    /// None of these ports.
    pub not_ports: Vec<CalicoPort>,
}

/// Service accounts by name, by labels, or both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceAccountMatch {
    /// One of these; any where empty.
    pub names: BTreeSet<String>,
    /// With these labels.
    pub selector: Option<Selector>,
}

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceMatch {
    /// Its namespace; the policy's own where the manifest names none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Ports of a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CalicoPort {
    /// First to last, both included.
    Range(u16, u16),
    /// The endpoint's port of this name and the rule's protocol.
    Named(String),
}

/// `NetworkSet` and `GlobalNetworkSet`: addresses with labels, matched by selectors of rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSet {
    /// Its namespace; none for a global one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its addresses. Host bits are zero.
    pub nets: Vec<IpNet>,
}

impl NetworkSet {
    /// `NetworkSet` or `GlobalNetworkSet`.
    pub fn kind(&self) -> Kind {
        match self.namespace {
            Some(_) => Kind::NetworkSet,
            None => Kind::GlobalNetworkSet,
        }
    }
}

/// Calico `HostEndpoint`: an interface of a node, or all of them, as a subject of policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEndpoint {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// The node that it is on.
    pub node: String,
    /// The interface; `*` is all of them, none is the one that holds an expected address.
    pub interface_name: Option<String>,
    /// Addresses of the interface; they stand for it in the selectors of rules.
    pub expected_ips: Vec<IpAddr>,
    /// Named ports.
    pub ports: Vec<NamedPort>,
    /// Profiles whose labels it inherits. `projectcalico-default-allow` allows what no policy
    /// selects it for.
    pub profiles: Vec<Text>,
}

/// Kubernetes `v1/ServiceAccount`: its labels, for selectors of service accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
}

/// Kubernetes `discovery.k8s.io/v1` `EndpointSlice`: where a Service's connections end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSlice {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The Service (`kubernetes.io/service-name`).
    pub service: String,
    /// Addresses of endpoints.
    pub addresses: BTreeSet<IpAddr>,
    /// Ports of endpoints; none means any port.
    pub ports: Vec<NamedPort>,
    /// Nodes that have a ready endpoint.
    pub ready_nodes: BTreeSet<String>,
}

/// Calico `Profile`: labels that the endpoints which name it inherit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// `spec.labelsToApply`
    pub labels_to_apply: Labels,
}
