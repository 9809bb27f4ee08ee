//! Addresses of one node's pods: blocks, affinity, allocation, cooldown, and the records of the
//! journal that makes them survive.
//!
//! Pure: time is an argument, blocks are claimed by the caller, bytes are written by the caller.
//!
//! A pool ([`IpPool`](model::IpPool)) is cut into blocks. A node owns a block once it has created
//! the block's object ([`IpamBlock`](model::IpamBlock)) in the datastore; nobody else allocates
//! from it. So that no two nodes ever give out one address, [`Ipam`] allocates only from blocks
//! that it owns and that nobody disputes, and says with [`Ipam::wanted_claims`] and
//! [`AssignError::NeedsBlock`] what to claim next.
//!
//! | module | what it holds |
//! |---|---|
//! | [`Ipam`] | the allocator of one node |
//! | [`AssignError`] | why there is no address, naming pools and counts |
//! | [`annotations`] | what a pod asks for: pod, namespace, configuration, in this order |
//! | [`reconcile`] | journal against kernel, datastore and what should live |
//! | [`Departed`], [`Election`] | blocks of nodes that are gone, and who frees them |
//! | [`load_balancer`] | addresses of Services |
//! | [`journal`] | records, their frames, replay after a crash, compaction |

mod allocator;
pub mod annotations;
mod assign;
mod bars;
mod block;
mod departed;
mod error;
mod give_back;
pub mod journal;
mod lease;
pub mod load_balancer;
mod net;
mod pools;
pub mod reconcile;
mod registry;
mod report;
mod request;
mod suspicion;
mod tunnel;

pub use allocator::Ipam;
pub use departed::{Departed, Evidence};
pub use error::{AssignError, Family, PoolUsage, Unusable};
pub use lease::Election;
pub use pools::Overlap;
pub use registry::Conflict;
pub use report::{BlockCounts, BlockReport, BlockState};
pub use request::{AssignRequest, Assignment, Owner, Pools};
pub use suspicion::Suspicions;
pub use tunnel::TunnelError;

#[cfg(test)]
mod tests;
