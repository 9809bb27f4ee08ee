//! What this node should have: [`Calc`] (current state) -> [`Desired`] -> [`Plan`].
//!
//! Pure: `Calc` is told what is, `resolve` says what should be, and `plan` orders the steps
//! between the two. Any order of the same facts ends in the same desired state.
//!
//! | module | what it holds |
//! |---|---|
//! | [`calc`] | the state, and what a change of it makes dirty |
//! | [`dns`] | what names resolve to, from the pods' own queries |
//! | [`objects`] | objects in force: last good versions, restored ones, what is rejected and why |
//! | [`packet`] | the headers of a logged packet |
//! | [`revoke`] | which live connections the rules in force deny |
//! | [`routes`] | Loc-RIB, pools and nodes -> routes, native or through the tunnel |
//! | [`bgp`] | nodes, peers, filters, Secrets and Services -> sessions and what to advertise |
//! | [`underlay`] | links, addresses and routes of the node that are not ours |
//! | [`cluster`] | pods, policies and what they refer to, ready to be asked |
//! | [`mod@diff`] | which connections other policies would allow or deny |
//! | [`mod@lint`] | what is probably not meant |
//! | [`migrate`] | what becomes of the objects of an existing Calico |
//! | [`mod@why`] | why a connection is allowed or denied |
//! | [`workloads`] | pods and workload endpoints -> what the policy compiler sees |
//! | [`checks`] | contradictions between objects, as data |
//! | [`mod@plan`] | desired and actual -> ordered steps |

pub mod autodetect;
pub mod bgp;
pub mod calc;
pub mod checks;
pub mod cluster;
pub mod diff;
pub mod dns;
#[cfg(test)]
mod fixtures;
pub mod lint;
pub mod migrate;
pub mod objects;
pub mod packet;
pub mod plan;
pub mod revoke;
pub mod routes;
pub mod underlay;
pub mod why;
pub mod workloads;

pub use calc::{Calc, Desired};
pub use objects::Phase;
pub use plan::{Actual, Permissions, Plan, Step, plan};
pub use workloads::{EndpointKey, LocalEndpoint};
