//! What to ask the server about a collection, and what follows from its answers. Pure.
//!
//! ```text
//!            position lost (410) or never known
//!        +---------------------------------------+
//!        v                                       |
//!   [ Stream | Page, Page, ... ] --listed--> [ Watch ] --broken--> [ Newest ] --> Watch
//!      (a break begins anew)                                       (older than we are: position lost)
//! ```
//!
//! Objects are gone when the server says so, or when a new list without them is complete; a list
//! that breaks off says nothing about what it did not get to.

use super::item::Item;
use model::Text;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    /// All objects, then changes, in one stream (`sendInitialEvents`).
    Stream,
    /// The next page of a list.
    Page {
        /// Where it goes on; none for the first one.
        after: Option<String>,
    },
    /// Changes since this version.
    Watch {
        /// `resourceVersion`
        version: String,
    },
    /// Which version the server is at.
    Newest,
}

/// What the server says.
#[derive(Debug)]
pub(super) enum Heard {
    Page {
        version: String,
        after: Option<String>,
        items: Vec<Item>,
    },
    Newest {
        version: String,
    },
    Set(Item),
    Deleted {
        name: Box<str>,
        version: String,
    },
    Bookmark {
        version: String,
        /// All objects of a [`Ask::Stream`] have been said.
        listed: bool,
    },
    /// An HTTP status, or that of an `ERROR` event.
    Refused {
        code: u16,
    },
    /// The stream ended when it should.
    Ended,
    /// It ended early, or nobody answers: the server may have been away, and come back with an
    /// older state.
    Broken,
}

/// What follows.
#[derive(Debug)]
pub(super) enum Step {
    /// The object is new or changed.
    Set {
        item: Item,
        /// The last part of its name, as it is held here: for whoever holds it too.
        own_name: Text,
        /// The node of the endpoint that was said for the same object before.
        before: Option<Arc<str>>,
    },
    /// The object is gone.
    Gone {
        name: Box<str>,
        /// Likewise.
        before: Option<Arc<str>>,
    },
    /// All that exists has been said.
    Listed,
}

/// How a server is asked for all objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Stream,
    /// For servers without streaming lists.
    Pages,
}

#[derive(Debug)]
struct Known {
    hash: u64,
    /// The list in which it was said last.
    list: u32,
    /// The node of the endpoint that was said for it, in [`Follow::nodes`].
    endpoint: Option<u32>,
}

/// By namespace (empty for cluster-scoped kinds) and name.
type AllKnown = BTreeMap<Box<str>, BTreeMap<Text, Known>>;

/// A collection as it was said.
#[derive(Debug)]
pub(super) struct Follow {
    known: AllKnown,
    list: u32,
    style: Style,
    /// The version from which changes are to be told; none means that a list is needed.
    position: Option<String>,
    after: Option<String>,
    /// Whether the server may have gone back in time.
    doubt: bool,
    /// Names of nodes of endpoints, each held once.
    nodes: Vec<Arc<str>>,
    node_numbers: BTreeMap<Arc<str>, u32>,
}

impl Follow {
    pub(super) fn new() -> Self {
        Self {
            known: BTreeMap::new(),
            list: 0,
            style: Style::Stream,
            position: None,
            after: None,
            doubt: false,
            nodes: Vec::new(),
            node_numbers: BTreeMap::new(),
        }
    }

    /// What to ask for now.
    pub(super) fn ask(&mut self) -> Ask {
        match (&self.position, self.style) {
            (Some(_), _) if self.doubt => Ask::Newest,
            (Some(version), _) => Ask::Watch {
                version: version.clone(),
            },
            (None, Style::Stream) => {
                self.begin();
                Ask::Stream
            }
            (None, Style::Pages) => {
                if self.after.is_none() {
                    self.begin();
                }
                Ask::Page {
                    after: self.after.clone(),
                }
            }
        }
    }

    /// Whether nothing is known of the collection.
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Whether the next question is for a list.
    pub(super) fn needs_list(&self) -> bool {
        self.position.is_none()
    }

    /// Takes in what came of `ask`.
    pub(super) fn hear(&mut self, ask: &Ask, heard: Heard, steps: &mut Vec<Step>) {
        match heard {
            Heard::Page {
                version,
                after,
                items,
            } => {
                for item in items {
                    self.set(item, steps);
                }
                self.after = after;
                if self.after.is_none() {
                    self.complete(version, steps);
                }
            }
            Heard::Newest { version } => {
                self.doubt = false;
                if self.is_before_us(&version) {
                    self.forget_position();
                }
            }
            Heard::Set(item) => {
                self.move_to(&item.version);
                self.set(item, steps);
            }
            Heard::Deleted { name, version } => {
                self.move_to(&version);
                self.gone(name, steps);
            }
            Heard::Bookmark { version, listed } => {
                if listed && self.position.is_none() {
                    self.complete(version, steps);
                } else {
                    self.move_to(&version);
                }
            }
            Heard::Refused { code } => self.refused(ask, code),
            Heard::Ended => {}
            Heard::Broken => self.doubt = true,
        }
    }

    /// The endpoint that was said for the object is on this node, or there is none.
    pub(super) fn endpoint_said(&mut self, name: &str, node: Option<&str>) {
        let node = node.and_then(|node| self.node_number(node));
        let (namespace, name) = parts(name);
        let here = self.known.get_mut(namespace);
        if let Some(known) = here.and_then(|here| here.get_mut(name)) {
            known.endpoint = node;
        }
    }

    fn node_number(&mut self, node: &str) -> Option<u32> {
        if let Some(number) = self.node_numbers.get(node) {
            return Some(*number);
        }
        let number = u32::try_from(self.nodes.len()).ok()?;
        let held: Arc<str> = node.into();
        self.nodes.push(Arc::clone(&held));
        self.node_numbers.insert(held, number);
        Some(number)
    }

    fn node(&self, known: &Known) -> Option<Arc<str>> {
        let number = usize::try_from(known.endpoint?).ok()?;
        self.nodes.get(number).cloned()
    }

    fn begin(&mut self) {
        self.list = self.list.wrapping_add(1);
    }

    fn complete(&mut self, version: String, steps: &mut Vec<Step>) {
        let list = self.list;
        let mut all = std::mem::take(&mut self.known);
        for (namespace, here) in &mut all {
            let gone = here.extract_if(.., |_, known| known.list != list);
            steps.extend(gone.map(|(name, known)| Step::Gone {
                name: whole(namespace, &name),
                before: self.node(&known),
            }));
        }
        all.retain(|_, here| !here.is_empty());
        self.known = all;
        self.position = Some(version);
        self.doubt = false;
        steps.push(Step::Listed);
    }

    fn set(&mut self, item: Item, steps: &mut Vec<Step>) {
        let list = self.list;
        let hash = item.hash();
        let (namespace, name) = parts(&item.name);
        let here = match self.known.get_mut(namespace) {
            Some(here) => here,
            None => self.known.entry(namespace.into()).or_default(),
        };
        if let Some(known) = here.get_mut(name) {
            known.list = list;
            if std::mem::replace(&mut known.hash, hash) == hash {
                return;
            }
        }
        let own_name = match here.get_key_value(name) {
            Some((held, _)) => held.clone(),
            None => {
                let (held, endpoint) = (Text::from(name), None);
                let known = Known {
                    hash,
                    list,
                    endpoint,
                };
                here.insert(held.clone(), known);
                held
            }
        };
        let known = self.known.get(namespace).and_then(|here| here.get(name));
        let before = known.and_then(|known| self.node(known));
        steps.push(Step::Set {
            item,
            own_name,
            before,
        });
    }

    fn gone(&mut self, name: Box<str>, steps: &mut Vec<Step>) {
        let (namespace, own_name) = parts(&name);
        let Some(here) = self.known.get_mut(namespace) else {
            return;
        };
        let Some(known) = here.remove(own_name) else {
            return;
        };
        if here.is_empty() {
            self.known.remove(namespace);
        }
        let before = self.node(&known);
        steps.push(Step::Gone { name, before });
    }

    /// Changes count from here; not while a list has gaps.
    fn move_to(&mut self, version: &str) {
        if let Some(position) = &mut self.position
            && !version.is_empty()
        {
            version.clone_into(position);
        }
    }

    fn refused(&mut self, ask: &Ask, code: u16) {
        match (code, ask) {
            // What the continuation or the version refers to is no longer kept.
            (410, _) => self.forget_position(),
            // It does not know of streamed lists, or its etcd is too old for them (500).
            (400 | 422 | 500, Ask::Stream) if self.needs_list() => self.style = Style::Pages,
            // The version is not one of this server's, or from its future.
            (400 | 422 | 504, Ask::Watch { .. }) => self.forget_position(),
            (400 | 422, Ask::Page { .. }) => self.after = None,
            _ => {}
        }
    }

    fn forget_position(&mut self) {
        self.position = None;
        self.after = None;
    }

    /// Whether the server was set back, such as by a restored backup.
    fn is_before_us(&self, newest: &str) -> bool {
        let ours = self.position.as_deref().unwrap_or_default();
        match (newest.parse::<u64>(), ours.parse::<u64>()) {
            (Ok(newest), Ok(ours)) => newest < ours,
            _ => false,
        }
    }
}

/// Namespace and name.
fn parts(name: &str) -> (&str, &str) {
    name.split_once('/').unwrap_or(("", name))
}

fn whole(namespace: &str, name: &str) -> Box<str> {
    match namespace {
        "" => name.into(),
        _ => format!("{namespace}/{name}").into(),
    }
}

#[cfg(test)]
mod tests;
