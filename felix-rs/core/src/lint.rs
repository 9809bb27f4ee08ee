//! What is probably not meant: in policies that are valid, and in manifests as such.

use crate::cluster::{Cluster, View};
use crate::objects::Objects;
use serde::{Deserialize, Serialize};

/// Something that is probably not meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// The object, such as `NetworkPolicy/shop/api`, or the file.
    pub object: String,
    /// The field; empty for the whole object.
    pub field: String,
    /// What was looked for, such as `deny-without-dns`.
    pub check: String,
    /// What is the matter, in words.
    pub message: String,
}

/// What is the matter with the policies of a cluster.
pub fn lint(view: &View) -> Vec<Finding> {
    let found = Cluster::new(view).evaluator().lint().into_iter();
    let findings = found.map(|found| Finding {
        object: found.policy.to_string(),
        check: found.check.to_string(),
        field: found.field,
        message: found.message,
    });
    findings.collect()
}

/// What is the matter with manifests: those that can't be used, and fields that nobody reads.
pub fn faults(objects: &Objects) -> Vec<Finding> {
    let invalid = objects.rejected().map(|invalid| Finding {
        object: invalid.object.to_string(),
        check: "invalid".to_owned(),
        field: invalid.field.clone(),
        message: invalid.reason.clone(),
    });
    let unreadable = objects.unreadable().iter().map(|(source, reason)| Finding {
        object: source.clone(),
        check: "unreadable".to_owned(),
        field: String::new(),
        message: reason.clone(),
    });
    let ignored = objects.warnings().iter().flat_map(|(key, warnings)| {
        warnings.iter().map(|warning| Finding {
            object: key.to_string(),
            check: "warning".to_owned(),
            field: String::new(),
            message: warning.clone(),
        })
    });
    invalid.chain(unreadable).chain(ignored).collect()
}
