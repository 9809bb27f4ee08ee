//! What is watched, under which path, and what of it is kept.

use super::slim::Keep;
use model::Kind;
use std::fmt;

/// A collection of the API.
#[derive(Debug)]
pub(super) struct Resource {
    pub(super) kind: Kind,
    /// Such as `v1` or `networking.k8s.io/v1`.
    pub(super) api_version: &'static str,
    /// The last part of its path.
    pub(super) plural: &'static str,
    /// What the model reads of an object.
    pub(super) keep: &'static Keep,
    /// What the server leaves out.
    field_selector: Option<&'static str>,
    /// Whether it is watched from the start, or only once something needs it.
    pub(super) always: bool,
}

const METADATA: Keep = Keep::Fields(&[
    ("name", Keep::All),
    ("namespace", Keep::All),
    ("resourceVersion", Keep::All),
    ("uid", Keep::All),
    ("labels", Keep::All),
    ("annotations", Keep::Named("projectcalico.org/")),
]);

/// Kinds of which users write the `spec`.
static SPEC: Keep = Keep::Fields(&[("metadata", METADATA), ("spec", Keep::All)]);
static ONLY_METADATA: Keep = Keep::Fields(&[("metadata", METADATA)]);
static NODE: Keep = Keep::Fields(&[
    ("metadata", METADATA),
    ("status", Keep::Fields(&[("addresses", Keep::All)])),
]);
static SERVICE: Keep = Keep::Fields(&[
    ("metadata", METADATA),
    ("spec", Keep::All),
    ("status", Keep::Fields(&[("loadBalancer", Keep::All)])),
]);
static ENDPOINT_SLICE: Keep = Keep::Fields(&[
    ("metadata", METADATA),
    ("addressType", Keep::All),
    ("endpoints", Keep::All),
    ("ports", Keep::All),
]);
static SECRET: Keep = Keep::Fields(&[("metadata", METADATA), ("data", Keep::All)]);

const CONTAINERS: Keep = Keep::Each(&Keep::Fields(&[
    ("restartPolicy", Keep::All),
    ("ports", Keep::All),
]));
const CONDITIONS: Keep = Keep::Each(&Keep::Fields(&[("type", Keep::All), ("status", Keep::All)]));
static POD: Keep = Keep::Fields(&[
    ("metadata", METADATA),
    (
        "spec",
        Keep::Fields(&[
            ("nodeName", Keep::All),
            ("hostNetwork", Keep::All),
            ("serviceAccountName", Keep::All),
            ("containers", CONTAINERS),
            ("initContainers", CONTAINERS),
        ]),
    ),
    (
        "status",
        Keep::Fields(&[
            ("phase", Keep::All),
            ("podIPs", Keep::All),
            ("conditions", CONDITIONS),
        ]),
    ),
]);

const fn core(kind: Kind, plural: &'static str, keep: &'static Keep) -> Resource {
    Resource {
        kind,
        api_version: "v1",
        plural,
        keep,
        field_selector: None,
        always: true,
    }
}

const fn calico(kind: Kind, plural: &'static str) -> Resource {
    Resource {
        api_version: "projectcalico.org/v3",
        ..core(kind, plural, &SPEC)
    }
}

/// Every collection that agents read. Nodes are Kubernetes' own, and workload endpoints follow from
/// Pods: neither has a collection of Calico's here.
pub(super) static RESOURCES: [Resource; 27] = [
    core(Kind::Namespace, "namespaces", &ONLY_METADATA),
    core(Kind::Node, "nodes", &NODE),
    Resource {
        // A pod that has ended holds no address.
        field_selector: Some("status.phase!=Succeeded,status.phase!=Failed"),
        ..core(Kind::Pod, "pods", &POD)
    },
    Resource {
        always: false,
        ..core(Kind::ServiceAccount, "serviceaccounts", &ONLY_METADATA)
    },
    Resource {
        always: false,
        ..core(Kind::Service, "services", &SERVICE)
    },
    Resource {
        api_version: "discovery.k8s.io/v1",
        always: false,
        ..core(Kind::EndpointSlice, "endpointslices", &ENDPOINT_SLICE)
    },
    Resource {
        always: false,
        ..core(Kind::Secret, "secrets", &SECRET)
    },
    Resource {
        api_version: "networking.k8s.io/v1",
        ..core(Kind::NetworkPolicy, "networkpolicies", &SPEC)
    },
    Resource {
        api_version: "policy.networking.k8s.io/v1alpha2",
        ..core(Kind::ClusterNetworkPolicy, "clusternetworkpolicies", &SPEC)
    },
    calico(Kind::Tier, "tiers"),
    calico(Kind::CalicoNetworkPolicy, "networkpolicies"),
    calico(Kind::GlobalNetworkPolicy, "globalnetworkpolicies"),
    calico(Kind::StagedNetworkPolicy, "stagednetworkpolicies"),
    calico(
        Kind::StagedGlobalNetworkPolicy,
        "stagedglobalnetworkpolicies",
    ),
    calico(
        Kind::StagedKubernetesNetworkPolicy,
        "stagedkubernetesnetworkpolicies",
    ),
    calico(Kind::NetworkSet, "networksets"),
    calico(Kind::GlobalNetworkSet, "globalnetworksets"),
    calico(Kind::HostEndpoint, "hostendpoints"),
    calico(Kind::Profile, "profiles"),
    calico(Kind::IpPool, "ippools"),
    calico(Kind::IpReservation, "ipreservations"),
    calico(Kind::IpamBlock, "ipamblocks"),
    calico(Kind::BgpConfiguration, "bgpconfigurations"),
    calico(Kind::BgpPeer, "bgppeers"),
    calico(Kind::BgpFilter, "bgpfilters"),
    calico(Kind::FelixConfiguration, "felixconfigurations"),
    calico(Kind::CalicoNodeStatus, "caliconodestatuses"),
];

/// Something to watch: a collection, or the one object of it that is needed.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) resource: &'static Resource,
    /// Namespace and name of the one object.
    only: Option<(String, String)>,
}

impl Source {
    /// The whole collection.
    pub(super) fn all(resource: &'static Resource) -> Self {
        Self {
            resource,
            only: None,
        }
    }

    /// The collection of this kind; none if agents don't read it.
    pub(super) fn of(kind: Kind) -> Option<Self> {
        let resource = RESOURCES.iter().find(|resource| resource.kind == kind);
        resource.map(Self::all)
    }

    /// One object.
    pub(super) fn one(kind: Kind, namespace: &str, name: &str) -> Option<Self> {
        Some(Self {
            only: Some((namespace.to_owned(), name.to_owned())),
            ..Self::of(kind)?
        })
    }

    /// The path with a query that asks for these objects and no others; more can be added to it.
    pub(super) fn path(&self) -> String {
        let Resource {
            api_version,
            plural,
            field_selector,
            ..
        } = self.resource;
        let root = match api_version.contains('/') {
            true => "apis",
            false => "api",
        };
        match &self.only {
            Some((namespace, name)) => format!(
                "/{root}/{api_version}/namespaces/{}/{plural}?fieldSelector={}",
                escaped(namespace),
                escaped(&format!("metadata.name={name}"))
            ),
            None => format!(
                "/{root}/{api_version}/{plural}?fieldSelector={}",
                escaped(field_selector.unwrap_or_default())
            ),
        }
    }
}

/// As in RBAC rules and error messages: `ippools.projectcalico.org`, `pods`.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.resource.plural)?;
        if let Some((group, _)) = self.resource.api_version.split_once('/') {
            write!(f, ".{group}")?;
        }
        match &self.only {
            Some((namespace, name)) => write!(f, " {namespace}/{name}"),
            None => Ok(()),
        }
    }
}

/// A value of a query (RFC 3986 section 2.3).
pub(super) fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_collection_but_those_that_pods_stand_for() {
        let without: Vec<Kind> = Kind::ALL
            .into_iter()
            .filter(|kind| Source::of(*kind).is_none())
            .collect();
        assert_eq!(without, [Kind::WorkloadEndpoint]);
    }

    #[test]
    fn paths_are_those_of_the_api() {
        let path = |kind| Source::of(kind).unwrap().path();
        assert_eq!(
            path(Kind::Pod),
            "/api/v1/pods?fieldSelector=status.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed"
        );
        assert_eq!(
            path(Kind::IpPool),
            "/apis/projectcalico.org/v3/ippools?fieldSelector="
        );
        let secret = Source::one(Kind::Secret, "net", "bgp").unwrap();
        assert_eq!(
            secret.path(),
            "/api/v1/namespaces/net/secrets?fieldSelector=metadata.name%3Dbgp"
        );
        assert_eq!(secret.to_string(), "secrets net/bgp");
        let pools = Source::of(Kind::IpPool).unwrap();
        assert_eq!(pools.to_string(), "ippools.projectcalico.org");
    }
}
