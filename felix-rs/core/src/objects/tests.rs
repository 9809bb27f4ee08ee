use super::*;
use model::{NetworkPolicy, Selector};

fn policy(name: &str, selector: Selector) -> Object {
    Object::NetworkPolicy(std::sync::Arc::new(NetworkPolicy {
        namespace: "shop".into(),
        name: name.into(),
        pod_selector: selector,
        ingress: Some(vec![]),
        egress: None,
    }))
}

fn apply(object: Object) -> Update {
    Update::Apply {
        object,
        warnings: vec![],
    }
}

fn reject(object: &Object, fallback: Option<Object>) -> Update {
    Update::Reject {
        invalid: Invalid {
            object: object.key(),
            field: "spec".into(),
            reason: "bad".into(),
        },
        fallback,
    }
}

#[test]
fn a_rejected_object_keeps_its_last_good_version() {
    let mut objects = Objects::default();
    let good = policy("api", Selector::Has("app".into()));
    objects.apply(apply(good.clone()));
    let changed = objects.apply(reject(&good, Some(policy("api", Selector::All))));
    assert!(changed.is_empty());
    assert_eq!(objects.get(&good.key()), Some(&good));
    assert_eq!(objects.rejected().count(), 1);
}

#[test]
fn a_rejected_object_that_was_never_good_uses_its_fallback() {
    let mut objects = Objects::default();
    let fallback = policy("api", Selector::All);
    objects.apply(reject(&fallback, Some(fallback.clone())));
    assert_eq!(objects.get(&fallback.key()), Some(&fallback));
}

#[test]
fn a_snapshot_keeps_the_last_good_version_of_an_object_that_is_bad_after_the_restart() {
    let mut objects = Objects::default();
    let good = policy("api", Selector::Has("app".into()));
    objects.restore(vec![good.clone()]);
    objects.apply(reject(&good, Some(policy("api", Selector::All))));
    objects.apply(Update::InSync);
    assert_eq!(objects.get(&good.key()), Some(&good));
}

#[test]
fn what_the_datastore_no_longer_has_goes_when_it_is_in_sync() {
    let mut objects = Objects::default();
    let (gone, kept) = (policy("gone", Selector::All), policy("kept", Selector::All));
    objects.restore(vec![gone.clone(), kept.clone()]);
    objects.start_from_snapshot();
    assert!(objects.apply(apply(kept.clone())).is_empty());
    assert!(objects.get(&gone.key()).is_some());
    assert_eq!(objects.apply(Update::InSync), vec![gone.key()]);
    assert!(objects.get(&gone.key()).is_none());
    assert!(objects.get(&kept.key()).is_some());
}

#[test]
fn what_may_stand_in_an_unreadable_file_stays_until_the_file_can_be_read() {
    let mut objects = Objects::default();
    let unknown = policy("api", Selector::All);
    objects.restore(vec![unknown.clone()]);
    objects.apply(Update::Unreadable {
        source: "np.yaml".into(),
        reason: "line 3".into(),
    });
    assert!(objects.apply(Update::InSync).is_empty());
    assert!(objects.get(&unknown.key()).is_some());
    let changed = objects.apply(Update::Readable {
        source: "np.yaml".into(),
    });
    assert_eq!(changed, vec![unknown.key()]);
}

#[test]
fn a_snapshot_never_replaces_what_the_datastore_said() {
    let mut objects = Objects::default();
    let said = policy("api", Selector::Has("app".into()));
    objects.apply(apply(said.clone()));
    assert!(
        objects
            .restore(vec![policy("api", Selector::All)])
            .is_empty()
    );
    assert_eq!(objects.get(&said.key()), Some(&said));
}
