//! What is said about objects of users: conditions in the status of kinds that have them, Events
//! about the others. One agent says it for the whole cluster.

use super::{APPLY, ClusterWriter, MANAGER, path, time};
use crate::{Condition, Status, WriteError};
use model::{Kind, ObjectKey};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

/// Events of one agent in one [`WINDOW`]; more are left out.
const EVENTS: u32 = 30;
const WINDOW: Duration = Duration::from_secs(60);
/// Longest `note` of an Event.
const NOTE: usize = 1024;
/// Longest `message` of a condition.
const MESSAGE: usize = 32768;
const CONTROLLER: &str = "ocicat.io/node";

/// How many Events were written since when.
#[derive(Debug, Default)]
pub(super) struct Budget(Option<(Instant, u32)>);

impl Budget {
    fn spend(&mut self, now: Instant) -> bool {
        let (since, spent) = self.0.get_or_insert((now, 0));
        if now.duration_since(*since) >= WINDOW {
            (*since, *spent) = (now, 0);
        }
        *spent += 1;
        *spent <= EVENTS
    }
}

impl ClusterWriter {
    /// Says of an object what the status says; with no conditions, takes back what was said in its
    /// conditions. An object that is gone is left out, and so is the node itself, which has
    /// [`ClusterWriter::put_node_status`].
    pub async fn put_status(&self, status: &Status) -> Result<(), WriteError> {
        let Some(key) = &status.object else {
            return Ok(());
        };
        let place = path::object(key);
        let has_conditions = has_conditions(key.kind);
        if !has_conditions && status.conditions.is_empty() {
            return Ok(());
        }
        let Some(object) = self.get(&place).await? else {
            return Ok(());
        };
        if has_conditions {
            let applied = applied(key, &status.conditions, &object);
            let url = format!("{place}/status?fieldManager={MANAGER}&force=true");
            match self.patch(&url, APPLY, &applied).await {
                // The kind has no status here.
                Err(error) if error.code() == Some(404) => {}
                result => return result.map(drop).map_err(WriteError::Api),
            }
        }
        for condition in &status.conditions {
            self.put_event(key, &status.node, condition, &object)
                .await?;
        }
        Ok(())
    }

    /// One Event for what is said about an object, however often it is said.
    async fn put_event(
        &self,
        key: &ObjectKey,
        node: &str,
        condition: &Condition,
        object: &Value,
    ) -> Result<(), WriteError> {
        let event = event(key, node, condition, object);
        let allowed = {
            let held = self.events.lock();
            held.unwrap_or_else(std::sync::PoisonError::into_inner)
                .spend(Instant::now())
        };
        if !allowed {
            tracing::warn!(object = %key, reason = %condition.message, "too many Events: left out");
            return Ok(());
        }
        let namespace = event["metadata"]["namespace"].as_str();
        let collection = path::under("events.k8s.io/v1", "events", namespace);
        self.create_document(&collection, &event).await?;
        Ok(())
    }
}

fn has_conditions(kind: Kind) -> bool {
    let (version, _) = path::resource(kind);
    version == "projectcalico.org/v3" || kind == Kind::ClusterNetworkPolicy
}

/// What is applied to the status: all that we say, so that what we do not say any more goes.
fn applied(key: &ObjectKey, conditions: &[Condition], object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut by_type: BTreeMap<&str, (&Condition, Vec<&str>)> = BTreeMap::new();
    for condition in conditions {
        let entry = by_type.entry(&condition.type_);
        entry
            .or_insert((condition, Vec::new()))
            .1
            .push(&condition.message);
    }
    let found = object["status"]["conditions"].as_array();
    let conditions = by_type.into_iter().map(|(type_, (condition, messages))| {
        let value = if condition.status { "True" } else { "False" };
        let before = found
            .into_iter()
            .flatten()
            .find(|f| f["type"] == type_ && f["status"] == value);
        let since = before.and_then(|before| before["lastTransitionTime"].as_str());
        json!({
            "type": type_,
            "status": value,
            "reason": reason(condition),
            "message": cut(&messages.join("; "), MESSAGE),
            "observedGeneration": metadata["generation"].as_i64().unwrap_or(0),
            "lastTransitionTime": since.map_or_else(time::now, str::to_owned),
        })
    });
    let (version, _) = path::resource(key.kind);
    let mut document = json!({
        "apiVersion": version,
        "kind": key.kind.as_str(),
        "metadata": { "name": key.name },
        "status": { "conditions": conditions.collect::<Value>() },
    });
    if let Some(namespace) = &key.namespace {
        document["metadata"]["namespace"] = namespace.as_str().into();
    }
    document
}

fn event(key: &ObjectKey, node: &str, condition: &Condition, object: &Value) -> Value {
    let (version, _) = path::resource(key.kind);
    let metadata = &object["metadata"];
    let mut hasher = DefaultHasher::new();
    let about = (
        metadata["uid"].as_str(),
        &condition.type_,
        &condition.message,
    );
    about.hash(&mut hasher);
    // Events about what has no namespace are in this one.
    let namespace = key.namespace.as_deref().unwrap_or("default");
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": format!("{}.{:016x}", cut(&key.name, 200), hasher.finish()),
            "namespace": namespace,
        },
        "eventTime": time::now_micros(),
        "reportingController": CONTROLLER,
        "reportingInstance": cut(node, 128),
        "action": "Read",
        "reason": reason(condition),
        "type": "Warning",
        "note": cut(&condition.message, NOTE),
        "regarding": {
            "apiVersion": version,
            "kind": key.kind.as_str(),
            "namespace": key.namespace,
            "name": key.name,
            "uid": metadata["uid"],
        },
    })
}

/// A word as the API demands one: the reasons of conditions may be paths of fields.
fn reason(condition: &Condition) -> &str {
    let word = |c: char| c.is_ascii_alphanumeric();
    match condition.reason.as_str() {
        given if !given.is_empty() && given.chars().all(word) => given,
        _ if condition.type_ == "Valid" => "InvalidField",
        _ => "NotUsable",
    }
}

fn cut(text: &str, length: usize) -> &str {
    &text[..text.floor_char_boundary(length)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(type_: &str, reason: &str, message: &str) -> Condition {
        Condition {
            type_: type_.into(),
            status: false,
            reason: reason.into(),
            message: message.into(),
        }
    }

    #[test]
    fn conditions_of_one_type_are_one_and_keep_their_time_while_nothing_changes() {
        let key = ObjectKey::global(Kind::IpPool, "pool");
        let object = json!({
            "metadata": { "generation": 3 },
            "status": { "conditions": [
                { "type": "Valid", "status": "False", "lastTransitionTime": "2020-01-01T00:00:00Z" },
                { "type": "Accepted", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z" },
            ] },
        });
        let said = [
            condition("Valid", "spec.cidr", "a"),
            condition("Accepted", "InUse", "c"),
            condition("Valid", "spec.ipipMode", "b"),
        ];
        let applied = applied(&key, &said, &object);
        let conditions = applied["status"]["conditions"].as_array().unwrap();
        let told: Vec<_> = conditions
            .iter()
            .map(|c| (&c["type"], &c["reason"], &c["message"]))
            .collect();
        let expected = [
            (json!("Accepted"), json!("InUse"), json!("c")),
            (json!("Valid"), json!("InvalidField"), json!("a; b")),
        ];
        assert_eq!(
            told,
            expected
                .iter()
                .map(|(a, b, c)| (a, b, c))
                .collect::<Vec<_>>()
        );
        assert_ne!(
            conditions[0]["lastTransitionTime"], "2020-01-01T00:00:00Z",
            "it was True"
        );
        assert_eq!(conditions[1]["lastTransitionTime"], "2020-01-01T00:00:00Z");
        assert_eq!(conditions[1]["observedGeneration"], 3);
    }

    #[test]
    fn an_event_is_named_after_what_it_says_of_which_object() {
        let key = ObjectKey::namespaced(Kind::NetworkPolicy, "shop", "api");
        let named = |uid: &str, message: &str| {
            let object = json!({ "metadata": { "uid": uid } });
            let event = event(&key, "n1", &condition("Valid", "spec", message), &object);
            assert_eq!(event["regarding"]["namespace"], "shop");
            event["metadata"]["name"].as_str().unwrap().to_owned()
        };
        assert_eq!(named("u", "a"), named("u", "a"));
        assert_ne!(named("u", "a"), named("u", "b"));
        assert_ne!(named("u", "a"), named("v", "a"));
        assert!(named("u", &"é".repeat(2000)).starts_with("api."));
    }

    #[test]
    fn events_are_bounded_in_a_minute() {
        let (mut budget, now) = (Budget::default(), Instant::now());
        let allowed = (0..100).filter(|_| budget.spend(now)).count();
        assert_eq!(allowed, 30);
        assert!(budget.spend(now + WINDOW));
    }
}
