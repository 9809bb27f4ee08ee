//! Network policy as an nftables table, and an evaluator that is independent of the compiler.
//!
//! Pure: values in, values out. Nothing here knows netlink.
//!
//! | module | what it holds |
//! |---|---|
//! | [`ruleset`] | our table as a value: [`Ruleset`], the operations between two of them, nft text and JSON |
//! | [`compiler`] | [`Compiler`]: policies of every kind, and what they are about -> [`Ruleset`], incrementally |
//! | [`evaluator`] | [`Evaluator`]: the verdict of a flow and its reason, from the specification |
//! | [`program`] | what a [`Ruleset`] does to a packet |
//!
//! The way of a policy: [`Policy`] -> `ir::PolicySet` (what decides one direction of one endpoint,
//! shared by all that it decides for) -> `layout` (its chains and sets) -> [`Ruleset`].

pub mod compiler;
mod endpoint;
pub mod evaluator;
mod hash;
mod input;
mod intervals;
mod ir;
pub mod program;
pub mod ruleset;

pub use compiler::dns;
pub use compiler::{
    Compiler, Counted, DropLog, Failsafe, HostPort, NetworkSets, Options, Reason as CountedReason,
};
pub use endpoint::{Endpoint, EndpointId};
pub use evaluator::{
    Action, Check, Decision, Difference, Direction, Evaluator, Finding, Flow, HostPath, Judgement,
    Party, Peer, PortOf, Reason, RuleRef, Service, differences,
};
pub use input::{NodePeer, Policy, PolicyKey, PolicyKind};
pub use ir::domain_matches;
pub use ruleset::{ApplyError, Op, Ruleset};
