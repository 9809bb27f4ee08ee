//! The CustomResourceDefinitions of `projectcalico.org/v3`: names, scope and structural schema of
//! every kind that a cluster stores for us, so that what can be refused is refused when it is
//! written.
//!
//! What a [reader](crate::manifest) takes, its schema takes. The reverse holds where JSON Schema
//! and the Common Expression Language (CEL) can say it, with what they cost in mind: the API
//! server bounds a rule's cost by the most that lists and strings may hold.
//!
//! | file | what it holds |
//! |---|---|
//! | `build` | the parts that schemas are built of |
//! | `definition` | a kind with its names, columns and schema, and its manifest |
//! | `values` | values that several kinds share |
//! | `ipam`, `bgp`, `bgp_filter`, `endpoints`, `felix` | kinds of Calico |
//! | `policy`, `rule`, `kubernetes_policy`, `cluster_policy` | policies |
//! | `status` | what agents say about objects |

mod bgp;
mod bgp_filter;
mod build;
mod cluster_policy;
mod definition;
mod endpoints;
mod felix;
mod ipam;
mod kubernetes_policy;
mod policy;
mod rule;
mod status;
mod values;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod wrong_fields;

pub use build::Schema;
pub use definition::{Column, Definition, Scope};

/// Every kind of `projectcalico.org/v3` that a cluster stores, in the order of their names.
pub fn definitions() -> Vec<Definition> {
    let mut all = ipam::definitions();
    all.extend(bgp::definitions());
    all.push(bgp_filter::definition());
    all.extend(endpoints::definitions());
    all.push(felix::definition());
    all.extend(policy::definitions());
    all.sort_by_key(|definition| definition.plural);
    all
}

/// `ClusterNetworkPolicy` of `policy.networking.k8s.io`, for a cluster that does not have its own.
pub fn cluster_network_policy() -> Definition {
    cluster_policy::definition()
}
