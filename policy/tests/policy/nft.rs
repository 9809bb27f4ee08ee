//! The text of our rulesets and operations is what `nft` reads, and the kernel takes every
//! transaction. Needs root (for network namespaces) and nft.

use crate::cluster::{History, events};
use policy::ruleset::commands;
use policy::{Compiler, NetworkSets, Options, Ruleset};
use proptest::prelude::*;
use std::io::Write;
use std::process::{Command, Stdio};

/// Between two transactions on the way to nft.
pub(crate) const END: &str = "# end\n";

/// Feeds transactions to nft in a network namespace of its own; the answer is nft's complaint.
pub(crate) fn nft(check_only: &str, transactions: &str) -> Result<(), String> {
    let script = format!(
        "text=; while IFS= read -r line; do \
           if [ \"$line\" = '# end' ]; then \
             printf '%s' \"$text\" | nft {check_only} -f - || exit 1; text=; \
           else text=\"$text$line\n\"; fi; done"
    );
    let mut shell = Command::new("unshare")
        .args(["-n", "bash", "-c", &script])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("unshare and nft are installed");
    let mut input = shell.stdin.take().unwrap();
    // After an error the shell is gone and so is the pipe; the error itself is in its output.
    let _ = input.write_all(transactions.as_bytes());
    drop(input);
    let output = shell.wait_with_output().unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{}{transactions}",
            String::from_utf8_lossy(&output.stderr)
        )),
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
        ipip_local: Some("192.0.2.9".parse().unwrap()),
        ..NetworkSets::default()
    });
    compiler.resolve();
    nft("-c", &format!("{}{END}", compiler.ruleset())).unwrap();
}

#[test]
fn nft_refuses_a_table_that_is_wrong() {
    nft("-c", &format!("table inet ocicat {{ nonsense }}\n{END}")).unwrap_err();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 40, ..Default::default() })]

    #[test]
    fn the_kernel_takes_every_transaction_and_nft_reads_every_table(
        events in prop::collection::vec(events(), 1..6)
    ) {
        let mut history = History::default();
        let (mut transactions, mut tables) = (String::new(), String::new());
        for batch in events.iter().flat_map(|events| events.chunks(6)) {
            batch.iter().for_each(|event| history.tell(event));
            let before: Ruleset = history.compiler.ruleset().clone();
            let ops = history.compiler.resolve();
            transactions += &format!("{}{END}", commands(&ops, &before));
            tables += &format!("{}{END}", history.compiler.ruleset());
        }
        prop_assert_eq!(nft("", &transactions), Ok(()));
        prop_assert_eq!(nft("-c", &tables), Ok(()));
    }
}
