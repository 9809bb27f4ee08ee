use super::*;
use crate::document::Entry;
use model::{Kind, Labels, Namespace, Object};
use proptest::collection::vec;
use proptest::prelude::*;

fn namespace(name: &str, version: &str) -> Object {
    let labels = Labels::from([("version".to_owned(), version.to_owned())]);
    Object::Namespace(Namespace {
        name: name.to_owned(),
        labels,
        annotations: model::Annotations::new(),
    })
}

fn contents(objects: &[(&str, &str)], problems: &[&str]) -> Contents {
    let entry = |(name, version): &(&str, &str)| {
        let object = namespace(name, version);
        Entry {
            key: object.key(),
            said: Arc::new(Said::Apply {
                object,
                warnings: Vec::new(),
            }),
        }
    };
    Contents {
        entries: objects.iter().map(entry).collect(),
        problems: problems
            .iter()
            .map(|problem| (*problem).to_owned())
            .collect(),
    }
}

fn apply(name: &str, version: &str) -> Update {
    Update::Apply {
        object: namespace(name, version),
        warnings: Vec::new(),
    }
}

fn delete(name: &str) -> Update {
    Update::Delete(ObjectKey::global(Kind::Namespace, name))
}

fn unreadable(source: &str, reason: &str) -> Update {
    Update::Unreadable {
        source: source.to_owned(),
        reason: reason.to_owned(),
    }
}

fn set(index: &mut Index, path: &str, contents: Option<Contents>) -> Vec<Update> {
    index.set(Path::new(path), contents);
    index.changes()
}

#[test]
fn only_real_changes_are_said() {
    let mut index = Index::default();
    let both = || Some(contents(&[("a", "1"), ("b", "1")], &[]));
    assert_eq!(
        set(&mut index, "f", both()),
        [apply("a", "1"), apply("b", "1")]
    );
    assert_eq!(set(&mut index, "f", both()), []);
    let changed = Some(contents(&[("a", "1"), ("b", "2")], &[]));
    assert_eq!(set(&mut index, "f", changed), [apply("b", "2")]);
    assert_eq!(
        set(&mut index, "f", Some(contents(&[("b", "2")], &[]))),
        [delete("a")]
    );
    assert_eq!(set(&mut index, "f", None), [delete("b")]);
    assert_eq!(set(&mut index, "f", None), []);
}

#[test]
fn an_object_that_moves_to_another_file_is_never_gone() {
    let mut index = Index::default();
    set(&mut index, "old", Some(contents(&[("a", "1")], &[])));
    index.set(Path::new("old"), None);
    index.set(Path::new("new"), Some(contents(&[("a", "1")], &[])));
    assert_eq!(index.changes(), []);
}

#[test]
fn what_exists_is_said_before_what_is_gone() {
    let mut index = Index::default();
    set(&mut index, "f", Some(contents(&[("a", "1")], &[])));
    let renamed = Some(contents(&[("z", "1")], &[]));
    assert_eq!(
        set(&mut index, "f", renamed),
        [apply("z", "1"), delete("a")]
    );
}

#[test]
fn the_first_file_by_path_defines_an_object_and_the_other_is_reported() {
    let mut index = Index::default();
    assert_eq!(
        set(&mut index, "b", Some(contents(&[("x", "b")], &[]))),
        [apply("x", "b")]
    );
    assert_eq!(
        set(&mut index, "a", Some(contents(&[("x", "a")], &[]))),
        [
            apply("x", "a"),
            unreadable("b", "Namespace/x is defined in a already")
        ]
    );
    assert_eq!(
        set(&mut index, "a", None),
        [
            apply("x", "b"),
            Update::Readable {
                source: "b".to_owned()
            }
        ]
    );
}

#[test]
fn what_users_define_counts_before_what_agents_write() {
    let mut index = Index::default();
    set(
        &mut index,
        "state/nodes/x.yaml",
        Some(contents(&[("x", "agent")], &[])),
    );
    assert_eq!(
        set(
            &mut index,
            "topology.yaml",
            Some(contents(&[("x", "user")], &[]))
        ),
        [
            apply("x", "user"),
            unreadable(
                "state/nodes/x.yaml",
                "Namespace/x is defined in topology.yaml already"
            ),
        ]
    );
}

#[test]
fn the_first_of_two_definitions_in_one_file_counts() {
    let mut index = Index::default();
    assert_eq!(
        set(
            &mut index,
            "f",
            Some(contents(&[("x", "1"), ("x", "2")], &[]))
        ),
        [
            apply("x", "1"),
            unreadable("f", "Namespace/x is defined twice")
        ]
    );
}

#[test]
fn while_a_file_is_unreadable_what_it_said_before_stays() {
    let mut index = Index::default();
    set(
        &mut index,
        "f",
        Some(contents(&[("a", "1"), ("b", "1")], &[])),
    );
    assert_eq!(
        set(&mut index, "f", Some(contents(&[], &["bad"]))),
        [unreadable("f", "bad")]
    );
    assert_eq!(set(&mut index, "f", Some(contents(&[], &["bad"]))), []);
    assert_eq!(
        set(&mut index, "f", Some(contents(&[("a", "2")], &["worse"]))),
        [apply("a", "2"), unreadable("f", "worse")]
    );
    assert_eq!(
        set(&mut index, "f", Some(contents(&[("a", "2")], &[]))),
        [
            delete("b"),
            Update::Readable {
                source: "f".to_owned()
            }
        ]
    );
}

/// What somebody who listened from the start knows.
fn replay(known: &mut BTreeMap<ObjectKey, Object>, updates: Vec<Update>) {
    for update in updates {
        match update {
            Update::Apply { object, .. } => {
                let before = known.insert(object.key(), object.clone());
                assert_ne!(before, Some(object), "said twice");
            }
            Update::Delete(key) => assert!(known.remove(&key).is_some(), "{key} was never said"),
            Update::Unreadable { .. } | Update::Readable { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

type Files = BTreeMap<String, Vec<(String, String)>>;

fn step() -> impl Strategy<Value = (String, Option<Vec<(String, String)>>, bool)> {
    let objects = vec(("[a-d]", "[0-2]"), 0..4);
    ("[f-i]", proptest::option::of(objects), any::<bool>())
}

proptest! {
    #[test]
    fn what_was_said_follows_from_the_files_as_they_are_and_not_from_their_history(
        steps in vec(step(), 0..30),
    ) {
        let (mut index, mut files, mut known) = (Index::default(), Files::new(), BTreeMap::new());
        for (path, objects, say) in steps {
            let read = objects.as_ref().map(|objects| {
                let pairs: Vec<_> = objects.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                contents(&pairs, &[])
            });
            index.set(Path::new(&path), read);
            match objects {
                Some(objects) => files.insert(path, objects),
                None => files.remove(&path),
            };
            if say {
                replay(&mut known, index.changes());
            }
        }
        replay(&mut known, index.changes());
        let mut expected = BTreeMap::new();
        for (name, version) in files.values().flatten() {
            let object = namespace(name, version);
            expected.entry(object.key()).or_insert(object);
        }
        prop_assert_eq!(known, expected);
    }
}
