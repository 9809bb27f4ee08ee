//! Objects in force by what they are.

use super::Objects;
use model::{BgpConfiguration, Kind, Node, Object, ObjectKey, Pod};

macro_rules! typed {
    ($($(#[$doc:meta])* $name:ident: $variant:ident($type:ty) of $($kind:ident),+;)*) => {
        impl Objects {
            $($(#[$doc])*
            pub fn $name(&self) -> impl Iterator<Item = &$type> {
                let kinds = [$(Kind::$kind),+].into_iter();
                kinds.flat_map(|kind| self.of_kind(kind)).filter_map(|object| match object {
                    Object::$variant(inner) => {
                        let inner: &$type = inner;
                        Some(inner)
                    }
                    _ => None,
                })
            })*
        }
    };
}

typed! {
    /// Namespaces in force, by name.
    namespaces: Namespace(model::Namespace) of Namespace;
    /// Pods in force.
    pods: Pod(Pod) of Pod;
    /// Nodes in force, by name.
    nodes: Node(Node) of Node;
    /// Policies in force.
    policies: NetworkPolicy(model::NetworkPolicy) of NetworkPolicy;
    /// Pools in force, by name.
    pools: IpPool(model::IpPool) of IpPool;
    /// BGP configurations in force.
    bgp_configurations: BgpConfiguration(BgpConfiguration) of BgpConfiguration;
    /// BGP peers in force, by name.
    bgp_peers: BgpPeer(model::BgpPeer) of BgpPeer;
    /// Workload endpoints in force.
    workload_endpoints: WorkloadEndpoint(model::WorkloadEndpoint) of WorkloadEndpoint;
    /// Blocks in force.
    blocks: IpamBlock(model::IpamBlock) of IpamBlock;
    /// Service accounts in force.
    service_accounts: ServiceAccount(model::ServiceAccount) of ServiceAccount;
    /// Endpoint slices in force.
    endpoint_slices: EndpointSlice(model::EndpointSlice) of EndpointSlice;
    /// Cluster network policies in force, by name.
    cluster_policies: ClusterNetworkPolicy(model::ClusterNetworkPolicy) of ClusterNetworkPolicy;
    /// Tiers that have an object, by name.
    tiers: Tier(model::Tier) of Tier;
    /// Calico policies, staged ones too.
    calico_policies: CalicoPolicy(model::CalicoPolicy) of CalicoNetworkPolicy,
        GlobalNetworkPolicy, StagedNetworkPolicy, StagedGlobalNetworkPolicy;
    /// Staged Kubernetes policies.
    staged_kubernetes_policies: StagedKubernetesPolicy(model::StagedKubernetesPolicy)
        of StagedKubernetesNetworkPolicy;
    /// Network sets, of namespaces and global.
    network_sets: NetworkSet(model::NetworkSet) of NetworkSet, GlobalNetworkSet;
    /// Host endpoints, by name.
    host_endpoints: HostEndpoint(model::HostEndpoint) of HostEndpoint;
    /// Profiles, by name.
    profiles: Profile(model::Profile) of Profile;
    /// Services in force.
    services: Service(model::Service) of Service;
    /// Reservations in force, by name.
    reservations: IpReservation(model::IpReservation) of IpReservation;
    /// Questions about nodes, by name.
    node_statuses: CalicoNodeStatus(model::CalicoNodeStatus) of CalicoNodeStatus;
    /// BGP filters in force, by name.
    bgp_filters: BgpFilter(model::BgpFilter) of BgpFilter;
    /// Felix configurations in force: `default` and `node.<name>`.
    felix_configurations: FelixConfiguration(model::FelixConfiguration) of FelixConfiguration;
}

impl Objects {
    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.in_force.of_kind(kind).map(|object| &**object)
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        match self.get(&ObjectKey::global(Kind::Node, name)) {
            Some(Object::Node(node)) => Some(node),
            _ => None,
        }
    }

    /// The pod of this name.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Pod> {
        match self
            .in_force
            .get(Kind::Pod, namespace, name)
            .map(|pod| &**pod)
        {
            Some(Object::Pod(pod)) => Some(pod),
            _ => None,
        }
    }

    /// The cluster's BGP configuration (`default`), or Calico's defaults.
    pub fn bgp_configuration(&self) -> BgpConfiguration {
        match self.get(&ObjectKey::global(Kind::BgpConfiguration, "default")) {
            Some(Object::BgpConfiguration(configuration)) => (**configuration).clone(),
            _ => BgpConfiguration::default(),
        }
    }
}
