//! A real directory, real inotify: what is written is what is said.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod support;

use datastore::{Condition, Directory, OpenError, Status};
use model::{IpamBlock, Object};
use std::fs::{self, File, create_dir, create_dir_all, remove_dir_all, remove_file, rename};
use std::io::Write;
use std::os::unix::fs::symlink;
use support::{Listener, namespace, namespace_version, write};
use tempfile::tempdir;

#[test]
fn a_missing_directory_and_a_file_are_refused_with_a_sentence() {
    let directory = tempdir().unwrap();
    let missing = directory.path().join("missing");
    let error = Directory::open(&missing).unwrap_err();
    assert!(matches!(error, OpenError::Missing { .. }));
    let expected = "there is no such directory; create it, or name another";
    assert_eq!(
        error.to_string(),
        format!("datastore {}: {expected}", missing.display())
    );
    write(&missing, "");
    assert!(matches!(
        Directory::open(&missing),
        Err(OpenError::NotADirectory { .. })
    ));
}

#[test]
fn opening_and_watching_change_nothing() {
    let directory = tempdir().unwrap();
    Listener::in_sync(directory.path());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn everything_below_the_directory_is_said_before_in_sync() {
    let directory = tempdir().unwrap();
    let root = directory.path();
    create_dir_all(root.join("team/deep")).unwrap();
    create_dir(root.join(".git")).unwrap();
    write(
        &root.join("a.yaml"),
        &format!("{}---\n{}", namespace("a1"), namespace("a2")),
    );
    write(&root.join("team/b.yml"), &namespace("b"));
    write(
        &root.join("team/deep/c.json"),
        r#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"c"}}]}"#,
    );
    for ignored in [
        ".a.yaml",
        "a.yaml~",
        ".a.yaml.swp",
        "#a.yaml#",
        "a.txt",
        ".git/a.yaml",
    ] {
        write(&root.join(ignored), &namespace("ignored"));
    }
    let listener = Listener::in_sync(root);
    assert_eq!(
        listener.names(),
        ["Namespace/a1", "Namespace/a2", "Namespace/b", "Namespace/c"]
    );
}

#[test]
fn writing_renaming_over_and_removing_are_said_as_they_happen() {
    let directory = tempdir().unwrap();
    let root = directory.path();
    let mut listener = Listener::in_sync(root);
    write(&root.join("a.yaml"), &namespace("a"));
    listener.until("created", |l| l.version("a") == Some("1"));
    write(&root.join(".a.new"), &namespace_version("a", "2"));
    rename(root.join(".a.new"), root.join("a.yaml")).unwrap();
    listener.until("replaced", |l| l.version("a") == Some("2"));
    rename(root.join("a.yaml"), root.join("b.yaml")).unwrap();
    listener.fence(root);
    assert_eq!(listener.deleted, []);
    remove_file(root.join("b.yaml")).unwrap();
    listener.until("removed", |l| !l.knows("a"));
}

#[test]
fn a_file_without_change_says_nothing() {
    let directory = tempdir().unwrap();
    let root = directory.path();
    write(&root.join("a.yaml"), &namespace("a"));
    let mut listener = Listener::in_sync(root);
    write(
        &root.join("a.yaml"),
        &format!("# touched\n{}", namespace("a")),
    );
    listener.fence(root);
    assert_eq!(listener.applied, 2, "a, and the fence");
}

#[test]
fn a_file_that_is_being_written_keeps_its_objects() {
    let directory = tempdir().unwrap();
    let root = directory.path();
    write(&root.join("a.yaml"), &namespace("a"));
    let mut listener = Listener::in_sync(root);
    let mut file = File::create(root.join("a.yaml")).unwrap();
    listener.fence(root);
    let text = namespace_version("a", "2");
    let (first, second) = text.split_at(40);
    file.write_all(first.as_bytes()).unwrap();
    listener.fence(root);
    file.write_all(second.as_bytes()).unwrap();
    drop(file);
    listener.until("written", |l| l.version("a") == Some("2"));
    assert!(listener.deleted.is_empty() && listener.unreadable.is_empty());
}

#[test]
fn a_broken_file_keeps_its_objects_and_is_reported_until_it_is_repaired() {
    let directory = tempdir().unwrap();
    let root = directory.path();
    write(&root.join("a.yaml"), &namespace("a"));
    let mut listener = Listener::in_sync(root);
    write(&root.join("a.yaml"), "apiVersion: v1\nkind: [\n");
    listener.until("reported", |l| l.unreadable.contains_key("a.yaml"));
    assert!(
        listener.unreadable["a.yaml"].contains("line "),
        "{:?}",
        listener.unreadable
    );
    assert!(listener.knows("a"));
    write(&root.join("a.yaml"), &namespace_version("a", "2"));
    listener.until("repaired", |l| {
        l.unreadable.is_empty() && l.version("a") == Some("2")
    });
    assert_eq!(listener.deleted, []);
}

#[test]
fn a_file_that_is_broken_from_the_start_is_reported_before_in_sync() {
    let directory = tempdir().unwrap();
    let root = directory.path();
    write(&root.join("a.yaml"), "a: 1\na: 2\n");
    write(&root.join("b.yaml"), &namespace("b"));
    let listener = Listener::in_sync(root);
    assert!(
        listener.unreadable["a.yaml"].contains("duplicate"),
        "{:?}",
        listener.unreadable
    );
    assert_eq!(listener.names(), ["Namespace/b"]);
}

#[test]
fn an_emptied_file_loses_its_objects() {
    let directory = tempdir().unwrap();
    let root = directory.path();
    write(&root.join("a.yaml"), &namespace("a"));
    let mut listener = Listener::in_sync(root);
    write(&root.join("a.yaml"), "");
    listener.until("emptied", |l| !l.knows("a"));
}

#[test]
fn an_invalid_object_is_rejected_and_takes_no_other_down() {
    let directory = tempdir().unwrap();
    let root = directory.path();
    let pool =
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: p}\nspec: {cidr: x}\n";
    write(
        &root.join("a.yaml"),
        &format!("{pool}---\n{}", namespace("a")),
    );
    let listener = Listener::in_sync(root);
    assert_eq!(
        listener.rejected,
        ["IPPool/p: spec.cidr: \"x\" is not a CIDR such as \"10.244.0.0/16\""]
    );
    assert_eq!(listener.names(), ["Namespace/a"]);
}

#[test]
fn folders_may_come_move_and_go() {
    let directory = tempdir().unwrap();
    let elsewhere = tempdir().unwrap();
    let root = directory.path();
    let mut listener = Listener::in_sync(root);
    create_dir_all(root.join("x/y")).unwrap();
    write(&root.join("x/y/a.yaml"), &namespace("a"));
    listener.until("a file in a new folder", |l| l.knows("a"));
    rename(root.join("x"), root.join("z")).unwrap();
    write(&root.join("z/y/a.yaml"), &namespace_version("a", "2"));
    listener.until("a file in a moved folder", |l| l.version("a") == Some("2"));
    create_dir(elsewhere.path().join("in")).unwrap();
    write(&elsewhere.path().join("in/b.yaml"), &namespace("b"));
    rename(elsewhere.path().join("in"), root.join("in")).unwrap();
    listener.until("a folder moved in", |l| l.knows("b"));
    assert_eq!(listener.deleted, []);
    rename(root.join("in"), elsewhere.path().join("out")).unwrap();
    listener.until("a folder moved out", |l| !l.knows("b"));
    remove_dir_all(root.join("z")).unwrap();
    listener.until("a folder removed", |l| !l.knows("a"));
    write(
        &elsewhere.path().join("out/b.yaml"),
        &namespace_version("b", "2"),
    );
    listener.fence(root);
    assert_eq!(listener.names(), [""; 0]);
}

#[test]
fn an_object_in_two_files_is_taken_from_the_first_and_the_other_is_reported() {
    let directory = tempdir().unwrap();
    let root = directory.path();
    write(&root.join("b.yaml"), &namespace_version("x", "b"));
    write(&root.join("a.yaml"), &namespace_version("x", "a"));
    let mut listener = Listener::in_sync(root);
    assert_eq!(listener.version("x"), Some("a"));
    assert_eq!(
        listener.unreadable["b.yaml"],
        "Namespace/x is defined in a.yaml already"
    );
    remove_file(root.join("a.yaml")).unwrap();
    listener.until("the other counts", |l| {
        l.version("x") == Some("b") && l.unreadable.is_empty()
    });
    assert_eq!(listener.deleted, []);
}

#[test]
fn a_mounted_config_map_is_followed_through_its_data_link() {
    let directory = tempdir().unwrap();
    let root = directory.path();
    for version in ["1", "2"] {
        create_dir(root.join(format!("..{version}"))).unwrap();
        write(
            &root.join(format!("..{version}/a.yaml")),
            &namespace_version("a", version),
        );
    }
    symlink("..1", root.join("..data")).unwrap();
    symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
    let mut listener = Listener::in_sync(root);
    assert_eq!(listener.version("a"), Some("1"));
    symlink("..2", root.join("..data_tmp")).unwrap();
    rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    listener.until("swapped", |l| l.version("a") == Some("2"));
}

#[test]
fn a_fifo_is_no_manifest_and_blocks_nothing() {
    let directory = tempdir().unwrap();
    let fifo = directory.path().join("a.yaml");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    write(&directory.path().join("b.yaml"), &namespace("b"));
    assert_eq!(Listener::in_sync(directory.path()).names(), ["Namespace/b"]);
}

#[test]
fn a_directory_that_vanishes_is_lost_and_what_changed_meanwhile_is_said_when_it_is_back() {
    let parent = tempdir().unwrap();
    let (root, away) = (parent.path().join("store"), parent.path().join("away"));
    create_dir(&root).unwrap();
    for name in ["a", "b", "c"] {
        write(&root.join(format!("{name}.yaml")), &namespace(name));
    }
    let mut listener = Listener::in_sync(&root);
    rename(&root, &away).unwrap();
    listener.until("lost", |l| l.lost == 1);
    assert_eq!(listener.names().len(), 3);
    write(&away.join("a.yaml"), &namespace_version("a", "2"));
    remove_file(away.join("b.yaml")).unwrap();
    rename(&away, &root).unwrap();
    listener.until("back", |l| l.in_sync == 2);
    listener.until("b is gone", |l| !l.knows("b"));
    assert_eq!(listener.version("a"), Some("2"));
    assert_eq!(
        (listener.applied, listener.deleted.len(), listener.lost),
        (4, 1, 1)
    );
    write(&root.join("d.yaml"), &namespace("d"));
    listener.until("watched again", |l| l.knows("d"));
}

#[test]
fn an_empty_directory_in_the_place_of_a_lost_one_deletes_nothing() {
    let parent = tempdir().unwrap();
    let (root, away) = (parent.path().join("store"), parent.path().join("away"));
    create_dir(&root).unwrap();
    write(&root.join("a.yaml"), &namespace("a"));
    let mut listener = Listener::in_sync(&root);
    rename(&root, &away).unwrap();
    create_dir(&root).unwrap();
    listener.until("lost", |l| l.lost == 1);
    fs::remove_dir(&root).unwrap();
    rename(&away, &root).unwrap();
    listener.until("back", |l| l.in_sync == 2);
    assert_eq!((listener.deleted.len(), listener.applied), (0, 1));
}

#[test]
fn what_agents_write_is_said_to_all_and_status_to_nobody() {
    let directory = tempdir().unwrap();
    let root = directory.path();
    let mut listener = Listener::in_sync(root);
    let writer = Directory::open(root).unwrap().writer();
    let block = |node: &str| {
        let cidr = "10.244.0.0/26".parse().unwrap();
        Object::IpamBlock(IpamBlock {
            cidr,
            node: node.to_owned(),
        })
    };
    let key = block("n1").key();
    writer.create(&block("n1")).unwrap();
    listener.until("claimed", |l| l.known.get(&key) == Some(&block("n1")));
    writer.put(&block("n2")).unwrap();
    listener.until("replaced", |l| l.known.get(&key) == Some(&block("n2")));
    let condition = Condition {
        type_: "Ready".into(),
        status: true,
        reason: "Ok".into(),
        message: String::new(),
    };
    let status = Status {
        node: "n1".into(),
        object: None,
        conditions: vec![condition],
    };
    writer.put_status(&status).unwrap();
    writer.delete(&key, None).unwrap();
    listener.until("released", |l| !l.known.contains_key(&key));
    listener.fence(root);
    assert!(listener.unreadable.is_empty());
}

#[test]
fn events_that_the_kernel_had_no_room_for_are_made_up_for() {
    let directory = tempdir().unwrap();
    let root = directory.path();
    let updates = Directory::open(root).unwrap().watch().unwrap();
    // Nobody listens: the watching thread fills its channel and stops reading events.
    for index in 0..2000 {
        write(
            &root.join(format!("n{index}.yaml")),
            &namespace(&format!("n{index}")),
        );
    }
    let room: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    // Alternating names, since the kernel merges equal events that follow each other.
    for index in 0..room {
        let path = root.join(if index % 2 == 0 {
            "even.txt"
        } else {
            "odd.txt"
        });
        File::create(path).unwrap();
    }
    remove_file(root.join("n7.yaml")).unwrap();
    write(&root.join("last.yaml"), &namespace("last"));
    let mut listener = Listener::new(updates);
    listener.until("all is known", |l| {
        l.knows("last") && !l.knows("n7") && l.known.len() == 2000
    });
}

#[test]
fn one_change_among_many_files_says_that_change_alone() {
    let directory = tempdir().unwrap();
    let root = directory.path();
    for index in 0..3000 {
        write(
            &root.join(format!("n{index}.yaml")),
            &namespace(&format!("n{index}")),
        );
    }
    let mut listener = Listener::in_sync(root);
    assert_eq!(listener.applied, 3000);
    write(&root.join("n5.yaml"), &namespace_version("n5", "2"));
    listener.until("changed", |l| l.version("n5") == Some("2"));
    assert_eq!(listener.applied, 3001);
}
