use super::*;
use proptest::prelude::*;
use serde_json::json;
use std::collections::VecDeque;

type State = BTreeMap<&'static str, u32>;

fn item(name: &str, value: u32, version: u64) -> Item {
    Item {
        name: name.into(),
        version: version.to_string(),
        value: json!(value),
    }
}

/// A server with etcd's idea of time: versions, a log, and compaction.
struct Server {
    version: u64,
    compacted: u64,
    /// The state at each version.
    history: BTreeMap<u64, State>,
    streams_lists: bool,
}

impl Server {
    fn new(streams_lists: bool) -> Self {
        Self {
            version: 1,
            compacted: 0,
            history: BTreeMap::from([(1, State::new())]),
            streams_lists,
        }
    }

    fn state(&self) -> &State {
        &self.history[&self.version]
    }

    fn write(&mut self, change: impl FnOnce(&mut State)) {
        let mut state = self.state().clone();
        change(&mut state);
        self.version += 1;
        self.history.insert(self.version, state);
    }

    /// A backup is put back: what was written since is as if it never had been.
    fn restore(&mut self, version: u64) {
        self.version = version.clamp(1, self.version);
        let newest = self.version;
        self.history.retain(|version, _| *version <= newest);
        self.compacted = self.compacted.min(newest);
    }

    /// What happened at a version.
    fn event(&self, version: u64) -> Option<Heard> {
        let (before, after) = (&self.history[&(version - 1)], &self.history[&version]);
        let set = after
            .iter()
            .find(|(name, value)| before.get(*name) != Some(value));
        let gone = || before.keys().find(|name| !after.contains_key(*name));
        match set {
            Some((name, value)) => Some(Heard::Set(item(name, *value, version))),
            None => gone().map(|name| Heard::Deleted {
                name: (*name).into(),
                version: version.to_string(),
            }),
        }
    }

    /// A page of two objects.
    fn page(&self, after: Option<&str>) -> Heard {
        let (version, from) = match after {
            None => (self.version, String::new()),
            Some(after) => {
                let (version, from) = after.split_once(' ').unwrap();
                (version.parse().unwrap(), from.to_owned())
            }
        };
        if version < self.compacted || version > self.version {
            return Heard::Refused { code: 410 };
        }
        let state = &self.history[&version];
        let rest: Vec<_> = state.iter().filter(|(name, _)| **name > &*from).collect();
        let page = &rest[..rest.len().min(2)];
        Heard::Page {
            version: version.to_string(),
            after: (page.len() < rest.len()).then(|| format!("{version} {}", page[1].0)),
            items: page
                .iter()
                .map(|(name, value)| item(name, **value, version))
                .collect(),
        }
    }
}

/// The way from the server to what was said, message by message.
struct Connection {
    follow: Follow,
    said: State,
    names: [&'static str; 5],
    gone: usize,
    ask: Option<Ask>,
    initial: VecDeque<Heard>,
    /// The last version that the open watch has told of.
    told: Option<u64>,
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

impl Connection {
    fn new() -> Self {
        Self {
            follow: Follow::new(),
            said: State::new(),
            names: NAMES,
            gone: 0,
            ask: None,
            initial: VecDeque::new(),
            told: None,
        }
    }

    fn hear(&mut self, heard: Heard) {
        let ask = self.ask.clone().expect("something was asked");
        let mut steps = Vec::new();
        self.follow.hear(&ask, heard, &mut steps);
        for step in steps {
            match step {
                Step::Set { item, .. } => {
                    let name = self
                        .names
                        .iter()
                        .find(|name| **name == &*item.name)
                        .unwrap();
                    let value = u32::try_from(item.value.as_u64().unwrap()).unwrap();
                    let before = self.said.insert(name, value);
                    assert_ne!(before, Some(value), "what is said is news");
                }
                Step::Gone { name, .. } => {
                    assert!(self.said.remove(&*name).is_some(), "what is gone was there");
                    self.gone += 1;
                }
                Step::Listed => {}
            }
        }
    }

    fn over(&mut self, heard: Heard) {
        if self.ask.is_some() {
            self.hear(heard);
        }
        self.ask = None;
        self.told = None;
        self.initial.clear();
    }

    /// One more message. False if there is none to come.
    fn deliver(&mut self, server: &Server) -> bool {
        if self.ask.is_none() {
            self.ask(server);
            return true;
        }
        if let Some(heard) = self.initial.pop_front() {
            self.hear(heard);
            return true;
        }
        let Some(told) = self.told.filter(|told| *told < server.version) else {
            return false;
        };
        self.told = Some(told + 1);
        if let Some(heard) = server.event(told + 1) {
            self.hear(heard);
        }
        true
    }

    fn ask(&mut self, server: &Server) {
        let ask = self.follow.ask();
        self.ask = Some(ask.clone());
        match ask {
            Ask::Page { after } => {
                let page = server.page(after.as_deref());
                self.over(page);
            }
            Ask::Newest => self.over(Heard::Newest {
                version: server.version.to_string(),
            }),
            Ask::Stream if !server.streams_lists => self.over(Heard::Refused { code: 500 }),
            Ask::Stream => {
                let version = server.version;
                let state = server.state().iter();
                let items = state.map(|(name, value)| Heard::Set(item(name, *value, version)));
                self.initial = items.collect();
                self.initial.push_back(Heard::Bookmark {
                    version: version.to_string(),
                    listed: true,
                });
                self.told = Some(version);
            }
            Ask::Watch { version } => {
                let version: u64 = version.parse().unwrap();
                if version < server.compacted {
                    self.over(Heard::Refused { code: 410 });
                } else {
                    self.told = Some(version);
                }
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Put(usize, u32),
    Delete(usize),
    Compact,
    Deliver(u8),
    End,
    Break,
    Bookmark,
    Restore(u64),
}

fn put() -> impl Strategy<Value = Op> {
    (0..NAMES.len(), 0..3_u32).prop_map(|(name, value)| Op::Put(name, value))
}

fn network() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1..6_u8).prop_map(Op::Deliver),
        1 => Just(Op::Compact),
        1 => Just(Op::End),
        1 => Just(Op::Break),
        1 => Just(Op::Bookmark),
    ]
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => put(),
        3 => (0..NAMES.len()).prop_map(Op::Delete),
        8 => network(),
        1 => (1..12_u64).prop_map(Op::Restore),
    ]
}

fn run(streams_lists: bool, ops: &[Op]) -> (Server, Connection) {
    let mut server = Server::new(streams_lists);
    let mut connection = Connection::new();
    for op in ops {
        match op {
            Op::Put(name, value) => server.write(|state| {
                state.insert(NAMES[*name], *value);
            }),
            Op::Delete(name) => server.write(|state| {
                state.remove(NAMES[*name]);
            }),
            Op::Compact => server.compacted = server.version,
            Op::Deliver(messages) => {
                for _ in 0..*messages {
                    connection.deliver(&server);
                }
            }
            Op::End => connection.over(Heard::Ended),
            Op::Break => connection.over(Heard::Broken),
            Op::Bookmark => {
                if let Some(told) = connection.told.filter(|_| connection.initial.is_empty()) {
                    connection.hear(Heard::Bookmark {
                        version: told.to_string(),
                        listed: false,
                    });
                }
            }
            Op::Restore(version) => {
                server.restore(*version);
                if connection.ask.is_none() {
                    connection.ask = Some(connection.follow.ask());
                }
                connection.over(Heard::Broken);
                // It is asked before it has grown past where it was.
                connection.deliver(&server);
            }
        }
    }
    let mut patience = 1000;
    while connection.deliver(&server) {
        patience -= 1;
        assert!(patience > 0, "it goes on for ever");
    }
    (server, connection)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_happens_on_the_way_what_was_said_ends_as_the_servers_state(
        streams_lists: bool,
        ops in prop::collection::vec(any_op(), 0..60),
    ) {
        let (server, connection) = run(streams_lists, &ops);
        prop_assert_eq!(&connection.said, server.state());
    }

    #[test]
    fn what_is_never_deleted_is_never_gone(
        streams_lists: bool,
        ops in prop::collection::vec(prop_oneof![put(), network()], 0..60),
    ) {
        let (_, connection) = run(streams_lists, &ops);
        prop_assert_eq!(connection.gone, 0);
    }
}

#[test]
fn a_list_that_breaks_off_says_nothing_of_what_it_did_not_get_to() {
    let mut connection = Connection::new();
    let mut server = Server::new(true);
    for name in NAMES {
        server.write(|state| {
            state.insert(name, 1);
        });
    }
    while connection.deliver(&server) {}
    assert_eq!(connection.said.len(), 5);
    server.write(|state| state.clear());
    server.write(|state| {
        state.insert("b", 2);
        state.insert("c", 2);
    });
    connection.over(Heard::Refused { code: 410 });
    connection.deliver(&server);
    connection.deliver(&server);
    connection.over(Heard::Broken);
    assert_eq!((connection.gone, connection.said["b"]), (0, 2));
    while connection.deliver(&server) {}
    assert_eq!(connection.said, State::from([("b", 2), ("c", 2)]));
}

#[test]
fn the_node_of_an_endpoint_is_remembered_until_the_object_is_gone() {
    let mut follow = Follow::new();
    let mut steps = Vec::new();
    let ask = follow.ask();
    follow.hear(&ask, Heard::Set(item("a", 1, 1)), &mut steps);
    follow.endpoint_said("a", Some("n1"));
    follow.hear(&ask, Heard::Set(item("a", 2, 2)), &mut steps);
    let name = "a".into();
    follow.hear(
        &ask,
        Heard::Deleted {
            name,
            version: "3".into(),
        },
        &mut steps,
    );
    let before = |step: &Step| match step {
        Step::Set { before, .. } | Step::Gone { before, .. } => before.clone(),
        Step::Listed => None,
    };
    let before: Vec<_> = steps.iter().map(before).collect();
    assert_eq!(before, [None, Some("n1".into()), Some("n1".into())]);
}
