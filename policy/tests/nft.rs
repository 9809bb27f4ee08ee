//! The text of our rulesets is what `nft` reads. Needs root (a network namespace) and nft.

use policy::{Compiler, NetworkSets, Options, Ruleset};
use std::io::Write;
use std::process::{Command, Stdio};

/// Checks the ruleset in an empty network namespace; the answer is nft's complaint.
fn check(ruleset: &Ruleset) -> Result<(), String> {
    let mut nft = Command::new("unshare")
        .args(["-n", "nft", "-c", "-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("unshare and nft are installed");
    let text = ruleset.to_string();
    nft.stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = nft.wait_with_output().unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{}{text}", String::from_utf8_lossy(&output.stderr))),
    }
}

#[test]
fn nft_reads_the_table_of_a_node_without_pods() {
    let mut compiler = Compiler::new(Options::default());
    compiler.set_network(NetworkSets {
        masquerade: ["10.1.0.0/16", "fd00::/64"]
            .map(|p| p.parse().unwrap())
            .into(),
        pools: ["10.0.0.0/8", "fd00::/8"]
            .map(|p| p.parse().unwrap())
            .into(),
        ipip_peers: ["192.0.2.1".parse().unwrap()].into(),
    });
    compiler.resolve();
    check(compiler.ruleset()).unwrap();
}
