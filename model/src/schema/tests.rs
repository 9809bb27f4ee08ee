//! Readers and schemas agree.
