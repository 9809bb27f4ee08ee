//! What an existing Calico has stored in a cluster, as `ocicat migrate --dry-run` reads it.

use crate::Api;
use anyhow::{Context, Result, ensure};
use integration::lab::agent::binary;
use serde_json::Value;

/// Kinds of `crd.projectcalico.org/v1` that the test stores.
const KINDS: [(&str, &str); 4] = [
    ("IPPool", "ippools"),
    ("FelixConfiguration", "felixconfigurations"),
    ("GlobalNetworkSet", "globalnetworksets"),
    ("IPAMBlock", "ipamblocks"),
];
/// More than a page has.
const MANY: usize = 620;

const OBJECTS: &str = "
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata: {name: default-ipv4-ippool}
spec: {cidr: 10.244.0.0/16, ipipMode: Always, natOutgoing: true}
---
apiVersion: crd.projectcalico.org/v1
kind: FelixConfiguration
metadata: {name: default}
spec: {wireguardEnabled: true}
---
apiVersion: crd.projectcalico.org/v1
kind: IPAMBlock
metadata: {name: 10-244-0-64-26}
spec:
  cidr: 10.244.0.64/26
  affinity: host:n1
  strictAffinity: false
  allocations: [0, null]
  unallocated: [1]
  attributes: [{handle_id: k8s-pod-network.abc, secondary: {namespace: shop, pod: web, node: n1}}]
---
";

/// Kind, name and version of everything of the group.
fn stored(api: &Api) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for (kind, plural) in KINDS {
        let list = api.get(&[&format!("{plural}.crd.projectcalico.org")])?;
        for item in list["items"].as_array().context("items")? {
            let metadata = &item["metadata"];
            let (name, version) = (&metadata["name"], &metadata["resourceVersion"]);
            all.push(format!("{kind} {name} {version}"));
        }
    }
    Ok(all)
}

#[test]
fn what_a_cluster_has_of_calico_is_judged_whole_and_left_as_it_is() -> Result<()> {
    let api = Api::without_kinds(&[])?;
    let mut manifests = String::new();
    for (kind, plural) in KINDS {
        let definition =
            crate::crd(kind, plural).replace("projectcalico.org", "crd.projectcalico.org");
        manifests += &format!("{}---\n", definition.replace("name: v3", "name: v1"));
    }
    api.api.apply(&manifests)?;
    for (_, plural) in KINDS {
        let crd = format!("crd/{plural}.crd.projectcalico.org");
        let wait = ["wait", "--for=condition=Established", "--timeout=60s", &crd];
        api.api.kubectl(&wait)?;
    }
    let set = |number: usize| {
        format!(
            "{{apiVersion: crd.projectcalico.org/v1, kind: GlobalNetworkSet, metadata: {{name: s{number}}}, \
             spec: {{nets: [10.9.0.{}]}}}}\n---\n",
            number % 256
        )
    };
    let sets: String = (0..MANY).map(set).collect();
    api.api.apply(&(OBJECTS.to_owned() + &sets))?;
    let before = stored(&api)?;
    ensure!(before.len() == MANY + 3, "{}", before.len());

    let program = binary("OCICAT_NODE_BIN", "ocicat-node")?;
    let kubeconfig = api.api.kubeconfig("admin").display().to_string();
    // An object that is refused is exit status 1, and the report is whole all the same.
    let command = format!(
        "{} ctl migrate --dry-run -o json --kubeconfig {kubeconfig}; echo \"status $?\"",
        program.display()
    );
    let said = api.netns.run(&["sh", "-c", &command])?;
    let (report, status) = said.rsplit_once("status ").context("a status")?;
    ensure!(status.trim() == "1", "{said}");
    let report: Value = serde_json::from_str(report)?;
    let findings = report["findings"].as_array().context("findings")?;
    ensure!(findings.len() >= MANY + 2, "{}", findings.len());
    let of = |name: &str| {
        let named = |finding: &&Value| finding["object"].as_str().is_some_and(|o| o.contains(name));
        findings.iter().find(named).with_context(|| name.to_owned())
    };
    ensure!(
        of("FelixConfiguration default")?["reasons"]
            .to_string()
            .contains("wireguardEnabled"),
        "{report}"
    );
    ensure!(
        of("FelixConfiguration default")?["outcome"] == "Refused",
        "{report}"
    );
    ensure!(
        of("GlobalNetworkSet s619")?["outcome"] == "Taken",
        "{report}"
    );
    of("IPPool default-ipv4-ippool")?;
    let held = &report["allocations"][0];
    ensure!(
        held["address"] == "10.244.0.64" && held["handle"] == "k8s-pod-network.abc",
        "{report}"
    );
    ensure!(stored(&api)? == before, "something was written");
    Ok(())
}
