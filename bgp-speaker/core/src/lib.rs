//! BGP-4 without IO (RFC 4271, RFC 4760): wire format, session state machine, RIBs, decision.
pub mod wire;
