//! The purity wall holds, and notices when it does not.

use anyhow::Result;
use integration::purity::{PURE, check, violations};
use serde_json::{Value, json};

/// The pure crates, of which `policy` needs `between`, which needs `far` in the given way.
fn workspace(far: &str, kind: &Value) -> Value {
    let mut names = PURE.to_vec();
    names.extend(["between", far]);
    let packages: Vec<Value> = names
        .iter()
        .map(|name| json!({ "id": name, "name": name }))
        .collect();
    json!({
        "packages": packages,
        "workspace_members": PURE,
        "resolve": { "nodes": [
            { "id": "policy", "deps": [{ "pkg": "between", "dep_kinds": [{ "kind": null }] }] },
            { "id": "between", "deps": [{ "pkg": far, "dep_kinds": [{ "kind": kind }] }] },
        ]},
    })
}

#[test]
fn this_workspace_keeps_the_wall() -> Result<()> {
    assert_eq!(check()?, []);
    Ok(())
}

#[test]
fn a_forbidden_crate_behind_another_is_found_with_the_way_to_it() -> Result<()> {
    for far in ["tokio", "kube-client", "libc", "rand"] {
        let found = violations(&workspace(far, &Value::Null))?;
        assert_eq!(found.len(), 1, "{far}");
        assert_eq!(found[0].path, ["policy", "between", far]);
    }
    Ok(())
}

#[test]
fn tests_and_build_scripts_may_use_what_they_want() -> Result<()> {
    for kind in ["dev", "build"] {
        assert_eq!(violations(&workspace("tokio", &json!(kind)))?, []);
    }
    Ok(())
}

#[test]
fn a_pure_crate_that_is_gone_is_an_error_and_not_a_pass() {
    let mut metadata = workspace("serde", &Value::Null);
    metadata["workspace_members"] = json!(["model"]);
    assert!(violations(&metadata).is_err());
}
