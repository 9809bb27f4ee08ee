//! Policies that are larger than any API server stores.

use super::reader::Problem;
use crate::object::Kind;
use serde_json::Value;
use std::io::{self, Write};

/// etcd takes requests of 1.5 MiB, in which an object stands as JSON or shorter.
const MOST_MIB: usize = 2;

/// Refuses a policy whose `spec` is larger, before anything is made of it. Objects of other kinds are
/// small, or many.
pub(super) fn check(kind: Kind, document: &Value) -> Result<(), Problem> {
    match kind {
        Kind::NetworkPolicy
        | Kind::ClusterNetworkPolicy
        | Kind::CalicoNetworkPolicy
        | Kind::GlobalNetworkPolicy
        | Kind::StagedNetworkPolicy
        | Kind::StagedGlobalNetworkPolicy
        | Kind::StagedKubernetesNetworkPolicy => measure(document),
        _ => Ok(()),
    }
}

fn measure(document: &Value) -> Result<(), Problem> {
    let mut room = Room(MOST_MIB << 20);
    let Some(spec) = document.get("spec") else {
        return Ok(());
    };
    serde_json::to_writer(&mut room, spec).map_err(|_| Problem {
        field: "spec".to_owned(),
        reason: format!("is larger than {MOST_MIB} MiB"),
    })
}

/// Takes so many octets more.
struct Room(usize);

impl Write for Room {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0 = self
            .0
            .checked_sub(octets.len())
            .ok_or(io::ErrorKind::StorageFull)?;
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_spec_is_measured_as_json() {
        let spec = |length: usize| json!({ "spec": "x".repeat(length) });
        let most = MOST_MIB << 20;
        assert!(measure(&spec(most - 2)).is_ok(), "with its quotes");
        assert_eq!(measure(&spec(most - 1)).unwrap_err().field, "spec");
        assert!(measure(&json!({ "data": "x".repeat(most) })).is_ok());
    }
}
