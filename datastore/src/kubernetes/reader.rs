//! Follows one source: asks, reads what streams in, says what follows.

use super::backoff::{Backoff, jittered};
use super::board::Health;
use super::client::{ApiError, Cluster};
use super::follow::{Ask, Follow, Heard, Step};
use super::item::{self, Item};
use super::resource::{Source, escaped};
use http_body_util::BodyExt;
use hyper::Request;
use hyper::header::ACCEPT;
use kube::client::Body;
use model::Update;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::Sender;
use tokio::time::{sleep, timeout};

/// Objects in a page of a list.
const PAGE: u32 = 500;
/// How long a server is asked to keep a watch open, at most.
const WATCH: Duration = Duration::from_secs(600);
/// Pauses after a failure, and while a collection is not installed.
const FAILED: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
const MISSING: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// Silence in a streamed list after which the server is taken for one that can't tell its end.
const LIST_SILENCE: Duration = Duration::from_secs(15);
/// Patience with a page that has begun.
const PAGE_TIME: Duration = Duration::from_secs(60);
/// Octets of one event: an object of etcd's largest size, and what JSON makes of it.
const LINE: usize = 16 << 20;
/// A buffer that one large event left behind is given back.
const BUFFER: usize = 64 << 10;
/// The bookmark after which all objects have been said.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// What a reader tells.
#[derive(Debug)]
pub(super) enum Told {
    Said(Vec<Update>),
    Health(Health),
}

pub(super) struct Reader {
    pub(super) cluster: Cluster,
    pub(super) source: Source,
    /// The name of the node that asks.
    pub(super) own: Arc<str>,
    pub(super) told: Sender<(Arc<str>, Told)>,
}

/// Nobody listens any more.
struct Closed;

impl Reader {
    /// Runs until nobody listens.
    pub(super) async fn run(self) {
        let name: Arc<str> = self.source.to_string().into();
        let mut following = Following {
            reader: self,
            name,
            follow: Follow::new(),
            failed: Backoff::new(FAILED.0, FAILED.1),
            missing: Backoff::new(MISSING.0, MISSING.1),
        };
        while following.round().await.is_ok() {}
    }
}

struct Following {
    reader: Reader,
    name: Arc<str>,
    follow: Follow,
    failed: Backoff,
    missing: Backoff,
}

impl Following {
    /// One question and what came of it.
    async fn round(&mut self) -> Result<(), Closed> {
        let ask = self.follow.ask();
        let (path, length) = self.path(&ask);
        let asked = Instant::now();
        let request = Request::get(&path).header(ACCEPT, "application/json");
        let request = request
            .body(Vec::new())
            .expect("invariant: a path of letters and escapes is a URI");
        let answer = match self.reader.cluster.send(request).await {
            Ok(answer) => answer.into_body(),
            Err(error) => return self.refused(&ask, error).await,
        };
        match ask {
            Ask::Page { .. } | Ask::Newest => match self.page(&ask, answer).await? {
                Ok(()) => Ok(()),
                Err(error) => self.refused(&ask, error).await,
            },
            Ask::Stream | Ask::Watch { .. } => {
                if !self.follow.needs_list() {
                    self.is_live().await?;
                }
                let end = self.stream(&ask, answer).await?;
                let in_time = asked.elapsed() + Duration::from_secs(2) >= length;
                match end {
                    Ok(()) if in_time => self.hear(&ask, Heard::Ended).await,
                    Ok(()) => {
                        let error = self
                            .reader
                            .cluster
                            .unreachable("a watch ended early".into());
                        self.refused(&ask, error).await
                    }
                    Err(error) => self.refused(&ask, error).await,
                }
            }
        }
    }

    /// What to ask for, and how long a watch is to last.
    fn path(&self, ask: &Ask) -> (String, Duration) {
        let base = self.reader.source.path();
        let length = jittered(WATCH);
        let seconds = length.as_secs();
        let path = match ask {
            Ask::Stream => format!(
                "{base}&watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
                 &allowWatchBookmarks=true&timeoutSeconds={seconds}"
            ),
            Ask::Watch { version } => format!(
                "{base}&watch=1&resourceVersion={}&allowWatchBookmarks=true&timeoutSeconds={seconds}",
                escaped(version)
            ),
            Ask::Page { after: None } => format!("{base}&limit={PAGE}"),
            Ask::Page { after: Some(after) } => {
                format!("{base}&limit={PAGE}&continue={}", escaped(after))
            }
            Ask::Newest => format!("{base}&limit=1"),
        };
        (path, Duration::from_secs(seconds))
    }

    /// The question was not answered, or not to its end.
    async fn refused(&mut self, ask: &Ask, error: ApiError) -> Result<(), Closed> {
        let heard = match error.code() {
            Some(code) => Heard::Refused { code },
            None => Heard::Broken,
        };
        let listed = !self.follow.needs_list();
        self.hear(ask, heard).await?;
        // A list by pages in the place of a stream, or in that of what can't be resumed.
        let asks_anew = match error.code() {
            Some(410) => listed,
            Some(400 | 422 | 500) => *ask == Ask::Stream && !listed,
            _ => false,
        };
        if asks_anew && self.failed.failures() == 0 {
            self.failed.failed();
            return Ok(());
        }
        let pause = match error.code() {
            Some(404) if self.follow.is_empty() => {
                self.tell(Told::Health(Health::Missing)).await?;
                self.missing.failed()
            }
            // What it held before it was taken away stays: nobody deleted the objects.
            Some(403 | 404) => {
                let verb = match self.follow.needs_list() {
                    true => "list",
                    false => "watch",
                };
                let reason = format!("{} can't be read ({verb}): {error}", self.name);
                self.tell(Told::Health(Health::Refused(reason))).await?;
                self.failed.failed()
            }
            _ => {
                let again = self.failed.failures() > 0 || error.code() == Some(401);
                let pause = self.failed.failed();
                if again {
                    let health = Health::Unreachable(error.to_string());
                    self.tell(Told::Health(health)).await?;
                }
                pause
            }
        };
        tokio::select! {
            () = sleep(pause) => Ok(()),
            () = self.reader.told.closed() => Err(Closed),
        }
    }

    async fn is_live(&mut self) -> Result<(), Closed> {
        self.failed.succeeded();
        self.missing.succeeded();
        self.tell(Told::Health(Health::Live)).await
    }

    async fn page(&mut self, ask: &Ask, body: Body) -> Result<Result<(), ApiError>, Closed> {
        let cluster = &self.reader.cluster;
        let whole = match timeout(PAGE_TIME, body.collect()).await {
            Ok(Ok(whole)) => whole.to_bytes(),
            Ok(Err(error)) => return Ok(Err(cluster.unreachable(error.to_string()))),
            Err(_) => return Ok(Err(cluster.unreachable("a list does not end".into()))),
        };
        let list: List<'_> = match serde_json::from_slice(&whole) {
            Ok(list) => list,
            Err(error) => return Ok(Err(self.malformed(&error))),
        };
        let version = list.metadata.version;
        let heard = match ask {
            Ask::Newest => Heard::Newest { version },
            _ => Heard::Page {
                version,
                after: list.metadata.after.filter(|after| !after.is_empty()),
                items: {
                    let items = list.items.into_iter().flatten();
                    items.filter_map(|raw| self.read(raw)).collect()
                },
            },
        };
        self.hear(ask, heard).await?;
        Ok(Ok(()))
    }

    /// Events, a line each, until the stream ends.
    async fn stream(&mut self, ask: &Ask, mut body: Body) -> Result<Result<(), ApiError>, Closed> {
        let mut buffer: Vec<u8> = Vec::new();
        loop {
            let listing = self.follow.needs_list();
            let frame = tokio::select! {
                frame = body.frame() => frame,
                () = self.reader.told.closed() => return Err(Closed),
                () = sleep(LIST_SILENCE), if listing => return Ok(Err(self.endless_list())),
            };
            let octets = match frame {
                None => return Ok(Ok(())),
                Some(Err(error)) => {
                    let reason = super::client::chain(&error);
                    return Ok(Err(self.reader.cluster.unreachable(reason)));
                }
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            };
            let mut rest = &octets[..];
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let (line, after) = rest.split_at(end);
                rest = &after[1..];
                let event = if buffer.is_empty() {
                    self.event(line)
                } else {
                    buffer.extend_from_slice(line);
                    let event = self.event(&buffer);
                    buffer.clear();
                    buffer.shrink_to(BUFFER);
                    event
                };
                match event {
                    Ok(Some(heard)) => self.hear(ask, heard).await?,
                    Ok(None) => {}
                    Err(error) => return Ok(Err(error)),
                }
            }
            if buffer.len() + rest.len() > LINE {
                let reason = format!("an event of more than {LINE} octets");
                return Ok(Err(self.reader.cluster.unreachable(reason)));
            }
            buffer.extend_from_slice(rest);
        }
    }

    /// As if the server had refused to stream lists: it is asked for pages.
    fn endless_list(&self) -> ApiError {
        ApiError::Refused {
            verb: "watch".to_owned(),
            path: self.name.to_string(),
            code: 422,
            reason: "Invalid".to_owned(),
            message: "the end of the list is not told".to_owned(),
        }
    }

    /// An object that can't be recognised is nobody's: the others are read on.
    fn event(&self, line: &[u8]) -> Result<Option<Heard>, ApiError> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        let event: Event<'_> = serde_json::from_slice(line).map_err(|e| self.malformed(&e))?;
        let heard = match &*event.type_ {
            "ADDED" | "MODIFIED" => self.read(event.object).map(Heard::Set),
            "DELETED" => self.read(event.object).map(|item| Heard::Deleted {
                name: item.name,
                version: item.version,
            }),
            "BOOKMARK" => {
                let bookmark: Bookmark = self.small(event.object)?;
                let ends = bookmark.metadata.annotations.get(INITIAL_EVENTS_END);
                Some(Heard::Bookmark {
                    version: bookmark.metadata.version,
                    listed: ends.is_some_and(|value| value == "true"),
                })
            }
            "ERROR" => {
                let status: Status = self.small(event.object)?;
                return Err(ApiError::Refused {
                    verb: "watch".to_owned(),
                    path: self.name.to_string(),
                    code: status.code,
                    reason: status.reason,
                    message: status.message,
                });
            }
            other => {
                tracing::debug!(source = %self.name, event = other, "unknown event, ignored");
                None
            }
        };
        Ok(heard)
    }

    fn small<'de, T: Deserialize<'de>>(&self, raw: &'de RawValue) -> Result<T, ApiError> {
        serde_json::from_str(raw.get()).map_err(|error| self.malformed(&error))
    }

    fn read(&self, raw: &RawValue) -> Option<Item> {
        Item::read(self.reader.source.resource, raw)
            .map(|item| item.seen_from(&self.reader.own))
            .inspect_err(|error| tracing::warn!(source = %self.name, %error, "ignored"))
            .ok()
    }

    fn malformed(&self, error: &serde_json::Error) -> ApiError {
        ApiError::Malformed {
            path: self.name.to_string(),
            reason: error.to_string(),
        }
    }

    /// Takes in what was heard and says what follows.
    async fn hear(&mut self, ask: &Ask, heard: Heard) -> Result<(), Closed> {
        let mut steps = Vec::new();
        self.follow.hear(ask, heard, &mut steps);
        let (source, own) = (&self.reader.source, &self.reader.own);
        let mut updates = Vec::new();
        let mut listed = false;
        for step in steps {
            match step {
                Step::Set {
                    item,
                    own_name,
                    before,
                } => {
                    let name = item.name.clone();
                    let mut said = item::set(source, item, before.as_deref(), own);
                    said.hold_name(own_name);
                    self.follow.endpoint_said(&name, said.endpoint.as_deref());
                    updates.extend(said.updates);
                }
                Step::Gone { name, before } => {
                    updates.extend(item::gone(source, &name, before.as_deref()));
                }
                Step::Listed => listed = true,
            }
        }
        if !updates.is_empty() {
            self.tell(Told::Said(updates)).await?;
        }
        if listed {
            self.is_live().await?;
        }
        Ok(())
    }

    async fn tell(&self, told: Told) -> Result<(), Closed> {
        let sent = self.reader.told.send((Arc::clone(&self.name), told)).await;
        sent.map_err(|_| Closed)
    }
}

#[derive(Deserialize)]
struct List<'a> {
    metadata: ListMetadata,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct ListMetadata {
    #[serde(rename = "resourceVersion", default)]
    version: String,
    #[serde(rename = "continue", default)]
    after: Option<String>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow)]
    type_: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Bookmark {
    metadata: BookmarkMetadata,
}

#[derive(Deserialize)]
struct BookmarkMetadata {
    #[serde(rename = "resourceVersion")]
    version: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}
