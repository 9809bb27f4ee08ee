//! `cargo lab demo`: what Ocicat promises, played with real routers and seen from the other side.
//!
//! A *scene* plays on a [`cluster::Cluster`] and fails with what it missed. A
//! *sabotage* breaks one thing so that one scene must fail; a demo whose scenes pass
//! regardless would prove nothing.

pub mod cluster;
mod objects;
mod sabotage;
mod scene;
mod scenes;
mod stage;

pub use stage::{Options, run, run_sabotages};
