//! NetworkPolicy -> nftables ruleset, and an evaluator that is independent of the compiler. Pure.
pub mod ruleset;
