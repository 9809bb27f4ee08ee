//! A server that is away, refuses or forgets: what was said stays, and in the end all is right.

use crate::{Api, View};
use anyhow::Result;
use datastore::kubernetes::ClusterOptions;
use integration::lab::kube_api::{SERVER_TWIN, TWIN};
use model::{Object, Update};

const NAMESPACES: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n---\n\
    {apiVersion: v1, kind: Namespace, metadata: {name: gone}}\n---\n\
    {apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: pods}, spec: {cidr: 10.244.0.0/16}}\n---\n\
    {apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: old}, spec: {cidr: 10.245.0.0/16}}\n";

/// What is made from now on is seen.
fn more_comes(api: &Api, view: &mut View) -> Result<()> {
    api.api
        .apply("{apiVersion: v1, kind: Namespace, metadata: {name: late}}")?;
    view.until("what comes later", |view| {
        view.object("Namespace/late").is_ok()
    })
}

#[test]
fn a_server_that_was_away_and_whose_history_is_compacted_ends_in_the_same_view() -> Result<()> {
    let mut api = Api::start(&[])?;
    api.api.apply(NAMESPACES)?;
    let mut view = api.watch("admin")?;
    view.until_in_sync()?;
    api.api.stop_server()?;
    view.until("the loss", |view| view.lost.is_some())?;
    assert!(view.deleted.is_empty(), "{:?}", view.deleted);
    // Behind the server's back, so that no watch tells of it.
    api.api
        .delete_key("/registry/projectcalico.org/ippools/old")?;
    api.api.start_server()?;
    view.until_in_sync()?;
    view.until("the deletion", |view| view.object("IPPool/old").is_err())?;
    assert_eq!(view.deleted.len(), 1, "{:?}", view.deleted);
    more_comes(&api, &mut view)
}

#[test]
fn an_etcd_that_is_set_back_to_an_earlier_state_is_noticed() -> Result<()> {
    let mut api = Api::start(&[])?;
    api.api.apply(NAMESPACES)?;
    api.api.stop_server()?;
    api.api.backup()?;
    api.api.start_server()?;
    let mut view = api.watch("admin")?;
    view.until_in_sync()?;
    api.api.apply("{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: lost}, spec: {cidr: 10.246.0.0/16}}")?;
    view.until("a pool", |view| view.object("IPPool/lost").is_ok())?;
    api.api.stop_server()?;
    api.api.restore()?;
    api.api.start_server()?;
    view.until_in_sync()?;
    view.until("the past", |view| view.object("IPPool/lost").is_err())?;
    assert_eq!(view.deleted.len(), 1, "{:?}", view.deleted);
    api.api.apply("{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: next}, spec: {cidr: 10.247.0.0/16}}")?;
    view.until("what comes next", |view| view.object("IPPool/next").is_ok())
}

#[test]
fn what_is_forbidden_from_the_start_keeps_the_view_from_being_whole_and_is_named() -> Result<()> {
    let api = Api::start(&["agent"])?;
    api.api.apply(NAMESPACES)?;
    let but_policies: Vec<_> = crate::READ
        .into_iter()
        .filter(|(group, _)| *group != "networking.k8s.io")
        .collect();
    api.allow("agent", "list, watch", &but_policies)?;
    let mut view = api.watch("agent")?;
    view.until("the refusal", |view| view.lost.is_some())?;
    let reason = view.lost.clone().unwrap_or_default();
    assert!(
        reason.contains("networkpolicies.networking.k8s.io") && reason.contains("list"),
        "{reason}"
    );
    view.until("the others", |view| view.object("IPPool/pods").is_ok())?;
    assert!(!view.in_sync);
    api.allow("agent", "list, watch", &crate::READ)?;
    view.until_in_sync()
}

#[test]
fn what_is_forbidden_later_leaves_what_was_said_and_makes_the_others_go_on() -> Result<()> {
    let mut api = Api::start(&["agent"])?;
    api.api.apply(NAMESPACES)?;
    api.allow("agent", "list, watch", &crate::READ)?;
    let mut view = api.watch("agent")?;
    view.until_in_sync()?;
    let but_calico: Vec<_> = crate::READ
        .into_iter()
        .filter(|(group, _)| *group != "projectcalico.org")
        .collect();
    api.allow("agent", "list, watch", &but_calico)?;
    // Watches that are open stay so.
    api.api.stop_server()?;
    api.api.start_server()?;
    let source = "kubernetes: ippools.projectcalico.org";
    view.until("the refusal", |view| view.unreadable.contains_key(source))?;
    assert!(
        view.unreadable[source].contains("watch"),
        "{:?}",
        view.unreadable
    );
    more_comes(&api, &mut view)?;
    assert!(view.object("IPPool/pods").is_ok() && view.deleted.is_empty());
    api.allow("agent", "list, watch", &crate::READ)?;
    view.until("it to be readable", |view| {
        !view.unreadable.contains_key(source)
    })
}

#[test]
fn a_token_that_is_no_longer_taken_is_replaced_from_its_file() -> Result<()> {
    let mut api = Api::start(&["agent"])?;
    api.api.apply(NAMESPACES)?;
    api.allow("agent", "list, watch", &crate::READ)?;
    let token = api.api.token_file("agent");
    let good = std::fs::read_to_string(&token)?;
    let mut view = api.watch("agent")?;
    view.until_in_sync()?;
    std::fs::write(&token, "expired")?;
    let mut late = api.watch("agent")?;
    late.until("the refusal", |view| view.lost.is_some())?;
    let reason = late.lost.clone().unwrap_or_default();
    assert!(reason.contains("401"), "{reason}");
    std::fs::write(&token, good)?;
    late.until_in_sync()?;
    // Whoever was connected goes on with the new one too.
    api.api.stop_server()?;
    api.api.start_server()?;
    more_comes(&api, &mut view)?;
    view.until_in_sync()
}

#[test]
fn a_server_with_another_authority_is_trusted_once_the_file_says_so() -> Result<()> {
    let mut api = Api::start(&[])?;
    api.api.apply(NAMESPACES)?;
    let mut view = api.watch("admin")?;
    view.until_in_sync()?;
    api.api.stop_server()?;
    view.until("the loss", |view| view.lost.is_some())?;
    api.api.forget_certificate()?;
    api.api.start_server()?;
    more_comes(&api, &mut view)?;
    view.until_in_sync()?;
    assert!(view.deleted.is_empty(), "{:?}", view.deleted);
    Ok(())
}

#[test]
fn of_several_servers_the_next_is_asked_while_one_does_not_answer() -> Result<()> {
    let api = Api::start(&[])?;
    api.api.apply(NAMESPACES)?;
    let options = ClusterOptions {
        kubeconfig: vec![api.api.kubeconfig("admin")],
        servers: vec![
            "https://127.0.0.1:1".into(),
            "https://127.0.0.1:6443".into(),
        ],
        namespace: "net".to_owned(),
    };
    let mut view = api.watch_with(&options)?;
    view.until_in_sync()?;
    assert!(matches!(
        view.object("Namespace/shop")?,
        Object::Namespace(_)
    ));
    Ok(())
}

/// Nobody says that a connection is gone: packets to and from the first server are lost.
const CUT: &str = "table inet cut {
    chain out {
        type filter hook output priority 0
        tcp dport 6443 drop
        tcp sport 6443 drop
    }
}";

#[test]
fn through_a_silent_cut_nothing_is_removed_and_another_server_is_asked() -> Result<()> {
    let mut api = Api::start(&[])?;
    api.api.start_twin()?;
    api.api.apply(NAMESPACES)?;
    let watch = |servers: &[&str]| {
        api.watch_with(&ClusterOptions {
            kubeconfig: vec![api.api.kubeconfig("admin")],
            servers: servers.iter().map(|url| (*url).to_owned()).collect(),
            namespace: "net".to_owned(),
        })
    };
    let first = "https://127.0.0.1:6443";
    let (mut alone, mut either) = (watch(&[first])?, watch(&[first, TWIN])?);
    alone.until_in_sync()?;
    either.until_in_sync()?;

    api.netns.run(&["nft", CUT])?;
    alone.until("the loss", |view| view.lost.is_some())?;
    for change in [
        &["delete", "ippool", "old"][..],
        &["create", "namespace", "late"],
    ] {
        api.api.kubectl(&[&[SERVER_TWIN], change].concat())?;
    }
    either.until("what changed, from the other server", |view| {
        view.object("IPPool/old").is_err() && view.object("Namespace/late").is_ok()
    })?;
    assert_eq!(either.deleted.len(), 1, "{:?}", either.deleted);
    alone.until("what was said before", |view| view.lost.is_some())?;
    assert!(alone.deleted.is_empty(), "{:?}", alone.deleted);
    assert!(alone.object("IPPool/old").is_ok());

    api.netns.run(&["nft", "delete table inet cut"])?;
    alone.until("what changed meanwhile", |view| {
        view.object("IPPool/old").is_err() && view.object("Namespace/late").is_ok()
    })?;
    alone.until_in_sync()?;
    assert_eq!(alone.deleted.len(), 1, "{:?}", alone.deleted);
    Ok(())
}

#[test]
fn without_any_server_the_reason_is_said() -> Result<()> {
    let api = Api::start(&[])?;
    let options = ClusterOptions {
        kubeconfig: vec![api.api.kubeconfig("admin")],
        servers: vec!["https://127.0.0.1:1".into()],
        namespace: "net".to_owned(),
    };
    let mut view = api.watch_with(&options)?;
    let update = view.updates.blocking_recv();
    let Some(Update::Lost { reason }) = update else {
        panic!("{update:?}");
    };
    assert!(
        reason.contains("https://127.0.0.1:1") && reason.contains("refused"),
        "{reason}"
    );
    Ok(())
}
