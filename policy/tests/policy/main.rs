//! What the policy crate promises, through its public interface.

mod apply;
mod cluster;
mod nft;
mod properties;
mod table;
mod updates;
