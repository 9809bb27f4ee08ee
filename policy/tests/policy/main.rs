//! What the policy crate promises, through its public interface.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod apply;
mod bounds;
mod cluster;
mod differential;
mod evaluator;
mod evaluator_properties;
mod generate;
mod host_ports;
mod hosts;
mod kinds;
mod nft;
mod properties;
mod specification;
mod table;
mod updates;
