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
//! | [`journal`] | records, their frames, replay after a crash, compaction |

mod allocator;
mod assign;
mod block;
mod error;
pub mod journal;
mod net;
mod pools;
mod registry;

pub use allocator::{AssignRequest, Assignment, Ipam, Owner};
pub use error::{AssignError, Family, PoolUsage, Unusable};
pub use pools::Overlap;
pub use registry::Conflict;

#[cfg(test)]
mod tests;
