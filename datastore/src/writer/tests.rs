use super::*;
use crate::Directory;
use model::{IpamBlock, Labels, Namespace, Node, WorkloadEndpoint};
use proptest::prelude::*;
use std::sync::Barrier;
use std::thread;
use tempfile::TempDir;

fn directory() -> (TempDir, Writer) {
    let directory = tempfile::tempdir().unwrap();
    let writer = Directory::open(directory.path()).unwrap().writer();
    (directory, writer)
}

fn block(node: &str) -> Object {
    let cidr = "10.244.0.0/26".parse().unwrap();
    Object::IpamBlock(IpamBlock {
        cidr,
        node: node.to_owned(),
    })
}

fn node(name: &str, labels: Labels) -> Object {
    Object::Node(Node {
        name: name.to_owned(),
        labels,
        ipv4_address: Some("10.1.0.11/24".parse().unwrap()),
        ipv6_address: None,
        addresses: std::collections::BTreeSet::new(),
        as_number: None,
        route_reflector_cluster_id: None,
    })
}

fn endpoint(name: &str) -> Object {
    Object::WorkloadEndpoint(Box::new(WorkloadEndpoint {
        namespace: "shop".into(),
        name: name.into(),
        node: "n1".into(),
        pod: "web".into(),
        pod_uid: Some("1e5".into()),
        container_id: "0123".into(),
        endpoint: "eth0".into(),
        interface_name: "oci1".into(),
        mac: [10, 0, 0, 0, 0, 1],
        ip_networks: vec![
            "10.244.0.1/32".parse().unwrap(),
            "fd00::1/128".parse().unwrap(),
        ],
        labels: Labels::from([("app".into(), "1.10".into())]),
        ports: Vec::new().into(),
        host_ports: Vec::new(),
    }))
}

/// The names of all files below `state/`, sorted.
fn files(directory: &TempDir) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![directory.path().join(STATE)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let path = path.strip_prefix(directory.path()).unwrap();
                found.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn one_object_is_one_file_at_a_known_place_and_nothing_else_is_left() {
    let (directory, writer) = directory();
    writer.put(&endpoint("n1-k8s-web-eth0")).unwrap();
    writer.create(&block("n1")).unwrap();
    writer.put(&node("n1", Labels::new())).unwrap();
    assert_eq!(
        files(&directory),
        [
            "state/.lock",
            "state/ipamblocks/10-244-0-0-26.yaml",
            "state/nodes/n1.yaml",
            "state/workloadendpoints/shop_n1-k8s-web-eth0.yaml",
        ]
    );
}

#[test]
fn what_is_there_as_it_is_is_not_written_again() {
    let (directory, writer) = directory();
    writer.put(&block("n1")).unwrap();
    let path = directory.path().join("state/ipamblocks/10-244-0-0-26.yaml");
    let inode = |path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let before = inode(&path);
    writer.put(&block("n1")).unwrap();
    assert_eq!(inode(&path), before);
    writer.put(&block("n2")).unwrap();
    assert_ne!(inode(&path), before);
}

#[test]
fn creating_what_exists_answers_whose_it_is() {
    let (_directory, writer) = directory();
    writer.create(&block("n1")).unwrap();
    for again in ["n2", "n1"] {
        match writer.create(&block(again)) {
            Err(WriteError::Exists { object }) => assert_eq!(*object, block("n1")),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn deleting_compares_with_what_is_expected_and_missing_is_well() {
    let (_directory, writer) = directory();
    let key = block("n1").key();
    writer.delete(&key, None).unwrap();
    writer.delete(&key, Some(&block("n1"))).unwrap();
    writer.put(&block("n1")).unwrap();
    match writer.delete(&key, Some(&block("n2"))) {
        Err(WriteError::Changed { object }) => assert_eq!(*object, block("n1")),
        other => panic!("{other:?}"),
    }
    writer.delete(&key, Some(&block("n1"))).unwrap();
    writer.create(&block("n2")).unwrap();
}

#[test]
fn a_file_that_is_no_manifest_is_named_and_not_overwritten_by_a_claim() {
    let (directory, writer) = directory();
    let folder = directory.path().join("state/ipamblocks");
    fs::create_dir_all(&folder).unwrap();
    for content in [
        "",
        "{",
        "a: 1",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n",
    ] {
        fs::write(folder.join("10-244-0-0-26.yaml"), content).unwrap();
        let error = writer.create(&block("n1")).unwrap_err();
        assert!(
            matches!(error, WriteError::Occupied { .. }),
            "{content}: {error}"
        );
        assert!(
            error.to_string().starts_with("IPAMBlock/10-244-0-0-26: "),
            "{error}"
        );
    }
}

#[test]
fn kinds_of_users_and_objects_that_would_be_read_back_differently_are_refused() {
    let (_directory, writer) = directory();
    let namespace = Object::Namespace(Namespace {
        name: "a".into(),
        labels: Labels::new(),
        annotations: model::Annotations::new(),
    });
    assert!(matches!(
        writer.put(&namespace),
        Err(WriteError::Kind { .. })
    ));
    for name in ["../../etc/x", "UPPER", "", "a\nb"] {
        let result = writer.put(&node(name, Labels::new()));
        assert!(
            matches!(result, Err(WriteError::Unwritable { .. })),
            "{name:?}: {result:?}"
        );
    }
}

#[test]
fn a_directory_that_is_gone_is_not_made_again() {
    let (directory, writer) = directory();
    fs::remove_dir(directory.path()).unwrap();
    let error = writer.put(&block("n1")).unwrap_err();
    assert!(matches!(error, WriteError::Io { .. }), "{error}");
    assert!(!directory.path().exists());
}

#[test]
fn what_a_killed_writer_left_staged_is_dropped_without_touching_the_object_it_may_be() {
    let (directory, writer) = directory();
    writer.create(&block("n1")).unwrap();
    let folder = directory.path().join("state/ipamblocks");
    fs::hard_link(folder.join("10-244-0-0-26.yaml"), folder.join(".staged")).unwrap();
    let other = IpamBlock {
        cidr: "10.244.0.64/26".parse().unwrap(),
        node: "n2".into(),
    };
    writer.create(&Object::IpamBlock(other)).unwrap();
    let key = block("n1").key();
    let path = folder.join("10-244-0-0-26.yaml");
    assert_eq!(read(&key, &path).unwrap(), Some(block("n1")));
}

#[test]
fn of_many_threads_that_create_one_object_exactly_one_succeeds() {
    const THREADS: usize = 8;
    let (_directory, writer) = directory();
    for round in 0..20_u8 {
        let cidr = ipnet::IpNet::from(std::net::IpAddr::from([10, 0, 0, round]));
        let barrier = Barrier::new(THREADS);
        let claim = |index: usize| {
            let object = Object::IpamBlock(IpamBlock {
                cidr,
                node: format!("n{index}"),
            });
            barrier.wait();
            (object.clone(), writer.clone().create(&object))
        };
        let results: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|index| scope.spawn(move || claim(index)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        let winners: Vec<_> = results
            .iter()
            .filter(|(_, result)| result.is_ok())
            .map(|(object, _)| object)
            .collect();
        assert_eq!(winners.len(), 1);
        for (_, result) in &results {
            if let Err(error) = result {
                assert!(
                    matches!(error, WriteError::Exists { object } if **object == *winners[0]),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn a_status_is_one_file_a_node_and_object_and_goes_with_its_last_condition() {
    let (directory, writer) = directory();
    let condition = Condition {
        type_: "Accepted".into(),
        status: false,
        reason: "Invalid".into(),
        message: "spec.cidr: \"x\" is not a CIDR".into(),
    };
    let key = ObjectKey::namespaced(Kind::NetworkPolicy, "shop", "api");
    let status = |object, conditions| Status {
        node: "n1".into(),
        object,
        conditions,
    };
    writer
        .put_status(&status(Some(key.clone()), vec![condition.clone()]))
        .unwrap();
    writer.put_status(&status(None, vec![condition])).unwrap();
    assert_eq!(
        files(&directory)[1..],
        [
            "state/status/n1/NetworkPolicy_shop_api.yaml",
            "state/status/n1/Node_n1.yaml"
        ]
    );
    let path = directory
        .path()
        .join("state/status/n1/NetworkPolicy_shop_api.yaml");
    let read: serde_json::Value =
        serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(read["object"]["name"], "api");
    assert_eq!(read["conditions"][0]["status"], "False");
    assert_eq!(
        read["conditions"][0]["message"],
        "spec.cidr: \"x\" is not a CIDR"
    );
    writer
        .put_status(&status(Some(key.clone()), Vec::new()))
        .unwrap();
    writer.put_status(&status(Some(key), Vec::new())).unwrap();
    assert_eq!(files(&directory)[1..], ["state/status/n1/Node_n1.yaml"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_written_is_read_back_whatever_strings_it_holds(
        labels in proptest::collection::btree_map("[a-z]{1,5}", any::<String>(), 0..4),
        odd in proptest::sample::select(vec![
            "yes", "no", "null", "~", "1e5", "0x1f", "1.10", "- a", "a: b", "#", " a ", "\n", "'", "\"",
            "!tag", "&a", "*a", "2026-01-01", "|", ">", "%", "@", "`", "---", "0o7", ".inf", "\u{0}",
        ]),
    ) {
        let mut labels = labels;
        labels.insert("odd".to_owned(), odd.to_owned());
        let object = node("n1", labels.into());
        let text = text(&object).unwrap();
        let contents = document::parse(&text).unwrap();
        match &*contents.entries[0].said {
            Said::Apply { object: read, warnings } => {
                prop_assert_eq!(read, &object);
                prop_assert!(warnings.is_empty());
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}

#[test]
fn a_lease_is_swapped_only_by_who_knows_what_it_is() {
    let (directory, writer) = directory();
    let lease = |holder: &str, renewals| Lease {
        holder: holder.to_owned(),
        renewals,
    };
    assert_eq!(writer.lease("gc").unwrap(), None);
    writer.swap_lease("gc", None, &lease("n1", 1)).unwrap();
    let refused = writer.swap_lease("gc", None, &lease("n2", 1)).unwrap_err();
    match refused {
        WriteError::LeaseChanged { lease: found, .. } => assert_eq!(found, Some(lease("n1", 1))),
        other => panic!("{other}"),
    }
    let first = lease("n1", 1);
    writer
        .swap_lease("gc", Some(&first), &lease("n1", 2))
        .unwrap();
    assert_eq!(writer.lease("gc").unwrap(), Some(lease("n1", 2)));
    assert!(
        writer
            .swap_lease("gc", Some(&first), &lease("n2", 2))
            .is_err()
    );
    // What is not a lease is taken over.
    fs::write(directory.path().join("state/.leases/gc.yaml"), "[").unwrap();
    writer.swap_lease("gc", None, &lease("n2", 3)).unwrap();
    assert_eq!(writer.lease("gc").unwrap(), Some(lease("n2", 3)));
}

#[test]
fn of_several_threads_that_take_a_lease_exactly_one_gets_it() {
    let (_directory, writer) = directory();
    let barrier = Barrier::new(8);
    let taken = thread::scope(|scope| {
        let take = |number: u64| {
            let (writer, barrier) = (&writer, &barrier);
            scope.spawn(move || {
                barrier.wait();
                let next = Lease {
                    holder: format!("n{number}"),
                    renewals: 1,
                };
                writer.swap_lease("gc", None, &next).is_ok()
            })
        };
        let threads: Vec<_> = (0..8).map(take).collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap())
            .filter(|won| *won)
            .count()
    });
    assert_eq!(taken, 1);
}

#[test]
fn a_block_changes_hands_only_from_the_owner_that_was_expected() {
    let (_directory, writer) = directory();
    let swap = |from: &str, to: &str| writer.swap(&block(from), &block(to));
    assert!(matches!(swap("n1", "n2"), Err(WriteError::Missing { .. })));
    writer.create(&block("n1")).unwrap();
    assert!(matches!(swap("n3", "n2"), Err(WriteError::Changed { .. })));
    swap("n1", "n2").unwrap();
    match writer.create(&block("n1")) {
        Err(WriteError::Exists { object }) => assert_eq!(*object, block("n2")),
        other => panic!("{other:?}"),
    }
}
