//! Several processes share one directory. Each test starts itself again as the other process.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

use datastore::{Directory, WriteError};
use model::{IpamBlock, Labels, Node, Object};
use std::env;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::tempdir;

/// Set in the other process: the directory.
const DIRECTORY: &str = "OCICAT_TEST_DIRECTORY";
/// Set in the other process: the node that it writes for.
const NODE: &str = "OCICAT_TEST_NODE";

/// The other process's directory and node, if this is the other process.
fn other_process() -> Option<(Directory, String)> {
    let directory = env::var_os(DIRECTORY)?;
    Some((
        Directory::open(Path::new(&directory)).unwrap(),
        env::var(NODE).unwrap(),
    ))
}

fn start(test: &str, directory: &Path, node: &str) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", test])
        .env(DIRECTORY, directory)
        .env(NODE, node)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn block(index: u32, node: &str) -> IpamBlock {
    let base = u32::from(Ipv4Addr::new(10, 244, 0, 0));
    let address = Ipv4Addr::from(base + index * 64);
    IpamBlock {
        cidr: format!("{address}/26").parse().unwrap(),
        node: node.to_owned(),
    }
}

#[test]
fn of_several_processes_that_claim_a_block_exactly_one_gets_it() {
    const BLOCKS: u32 = 50;
    if let Some((directory, node)) = other_process() {
        let writer = directory.writer();
        let mut claimed = Vec::new();
        for index in 0..BLOCKS {
            match writer.create(&Object::IpamBlock(block(index, &node))) {
                Ok(()) => claimed.push(index.to_string()),
                Err(WriteError::Exists { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        let root = env::var(DIRECTORY).unwrap();
        fs::write(
            Path::new(&root).join(format!("{node}.claimed")),
            claimed.join(" "),
        )
        .unwrap();
        return;
    }
    let directory = tempdir().unwrap();
    let test = "of_several_processes_that_claim_a_block_exactly_one_gets_it";
    let nodes = ["n1", "n2", "n3", "n4"];
    let children: Vec<Child> = nodes
        .iter()
        .map(|node| start(test, directory.path(), node))
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let mut owners = vec![Vec::new(); BLOCKS as usize];
    for node in nodes {
        let claimed = fs::read_to_string(directory.path().join(format!("{node}.claimed"))).unwrap();
        for index in claimed.split_whitespace() {
            owners[index.parse::<usize>().unwrap()].push(node);
        }
    }
    for (index, owners) in (0..BLOCKS).zip(owners) {
        assert_eq!(owners.len(), 1, "block {index}: {owners:?}");
        let file = format!("state/ipamblocks/{}.yaml", block(index, "").name());
        let text = fs::read_to_string(directory.path().join(file)).unwrap();
        assert!(text.contains(&format!("host:{}", owners[0])), "{text}");
    }
}

/// A node whose file takes many pages.
fn large_node(version: u32) -> Object {
    let label = |index: u32| {
        (
            format!("label-{index}"),
            format!("{version}-{}", "x".repeat(40)),
        )
    };
    Object::Node(Node {
        name: "n1".to_owned(),
        labels: (0..1000).map(label).collect::<Labels>(),
        ipv4_address: None,
        ipv6_address: None,
        addresses: std::collections::BTreeSet::new(),
        as_number: None,
        route_reflector_cluster_id: None,
    })
}

#[test]
fn a_process_killed_while_it_writes_leaves_a_whole_file_and_no_lock() {
    if let Some((directory, _)) = other_process() {
        let writer = directory.writer();
        for version in 0.. {
            writer.put(&large_node(version)).unwrap();
        }
    }
    let directory = tempdir().unwrap();
    let test = "a_process_killed_while_it_writes_leaves_a_whole_file_and_no_lock";
    let file = directory.path().join("state/nodes/n1.yaml");
    for round in 0..10 {
        let mut child = start(test, directory.path(), "n1");
        let deadline = Instant::now() + Duration::from_secs(60);
        // Killed at a different point of its work each time.
        let mut replaced = 0;
        let mut before = fs::read(&file).ok();
        while replaced <= round {
            assert!(Instant::now() < deadline, "nothing was written");
            let found = fs::read(&file).ok();
            replaced += u32::from(found != before);
            before = found;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let document: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(
            document["metadata"]["labels"].as_object().unwrap().len(),
            1000
        );
        let version = large_node(1_000_000 + round);
        Directory::open(directory.path())
            .unwrap()
            .writer()
            .put(&version)
            .unwrap();
    }
}
