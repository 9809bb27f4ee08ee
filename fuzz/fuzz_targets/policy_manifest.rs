//! Any JSON as the spec of any kind of policy or BGP object: never a panic, a mistake names its
//! field, what is put in force for it is of the same object, and what is written reads back equal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::manifest::{Parsed, parse, to_manifest};
use serde_json::{Value, json};

const CALICO: &str = "projectcalico.org/v3";
const KINDS: &[(&str, &str)] = &[
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy"),
    (CALICO, "NetworkPolicy"),
    (CALICO, "GlobalNetworkPolicy"),
    (CALICO, "StagedNetworkPolicy"),
    (CALICO, "StagedGlobalNetworkPolicy"),
    (CALICO, "StagedKubernetesNetworkPolicy"),
    (CALICO, "Tier"),
    (CALICO, "NetworkSet"),
    (CALICO, "GlobalNetworkSet"),
    (CALICO, "HostEndpoint"),
    (CALICO, "Profile"),
    (CALICO, "BGPFilter"),
    (CALICO, "BGPPeer"),
    (CALICO, "BGPConfiguration"),
    (CALICO, "FelixConfiguration"),
];

fuzz_target!(|data: &[u8]| {
    let Some((first, spec)) = data.split_first() else {
        return;
    };
    let Ok(spec) = serde_json::from_slice::<Value>(spec) else {
        return;
    };
    let (version, kind) = KINDS[usize::from(*first) % KINDS.len()];
    let document = json!({ "apiVersion": version, "kind": kind, "spec": spec,
        "metadata": { "name": "x" } });
    match parse(&document).expect("the object is named") {
        Parsed::Valid { object, .. } => {
            let Some(written) = to_manifest(&object) else {
                return;
            };
            let Ok(Parsed::Valid { object: again, .. }) = parse(&written) else {
                panic!("what was written can't be read: {written}");
            };
            assert_eq!(object, again);
        }
        Parsed::Invalid { invalid, fallback } => {
            assert!(!invalid.field.is_empty());
            assert!(fallback.is_none_or(|object| object.key() == invalid.object));
        }
        Parsed::Ignored { kind, .. } => panic!("{kind} is read"),
    }
});
