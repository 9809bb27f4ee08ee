//! The loop that owns the speaker. It never waits for a peer nor for its owner: connections have
//! tasks that wait for them, and forwarding changes wait in the speaker, merged per prefix.

use crate::bfd::{self, Bfd};
use crate::connection::{self, Backlog, Connection};
use crate::discovery::Discovery;
use crate::farewell::Farewells;
use crate::handle::FibEvent;
use crate::listen::{self, Listeners};
use crate::station::Feed;
use crate::watchers::{self, Monitoring, Watchers};
use bgp_core::{
    AdvertisedStatus, ConnectionId, LocalRoute, Notice, Operation, OperationError, Output,
    Password, PeerId, PeerKey, Restart, RouteStatus, Severity, SocketOptions, Speaker,
    SpeakerConfig, SpeakerStatus, Stop, WatchedPath,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// Events of connections that may wait for the loop; readers pause beyond.
const EVENT_QUEUE: usize = 128;
/// Events handled before decisions are taken and passed on.
const BATCH: usize = 64;
/// Octets read before decisions are taken and passed on: some milliseconds of work.
const READ: usize = 256 * 1024;
/// Octets written to a connection before others have their turn.
const WRITE: usize = 256 * 1024;
/// Forwarding changes handed to the owner at a time.
const FIB_BATCH: usize = 8192;
/// Broken paths that wait for the owner.
const BROKEN: usize = 1024;
/// How long connections may take to send their last message.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a handle asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Configure(Box<SpeakerConfig>),
    LocalRoutes(BTreeSet<LocalRoute>),
    Status(oneshot::Sender<SpeakerStatus>),
    Routes(oneshot::Sender<Vec<RouteStatus>>),
    Monitor(Monitoring),
    MrtTable(oneshot::Sender<Vec<u8>>),
    Advertised(PeerKey, oneshot::Sender<Option<Vec<AdvertisedStatus>>>),
    Operate(
        PeerKey,
        Operation,
        oneshot::Sender<Result<(), OperationError>>,
    ),
    Draining(bool),
    Neighbour(String, Option<(Ipv6Addr, u32)>),
    Shutdown(Stop, oneshot::Sender<()>),
}

/// What connections and listeners tell.
#[derive(Debug)]
pub(crate) enum Event {
    Accepted {
        stream: TcpStream,
        remote: SocketAddr,
    },
    Connected(ConnectionId, TcpStream),
    ConnectFailed(ConnectionId, String),
    /// There is something to read.
    Readable(ConnectionId),
    /// What did not fit at once is written.
    Written(ConnectionId),
    Lost(ConnectionId, String),
    /// A router is on an interface, or is there no more.
    Neighbour(String, Option<(Ipv6Addr, u32)>),
    /// A BMP station is connected.
    Station(SocketAddr, Feed),
    /// Whether we listen at an address, and if not, why.
    Listening(SocketAddr, Result<(), String>),
}

/// Runs until told to stop, or until nobody can tell any more.
pub(crate) async fn run(
    restart: Restart,
    mut commands: mpsc::UnboundedReceiver<Command>,
    fib: mpsc::Sender<FibEvent>,
) {
    let (events, mut event_queue) = mpsc::channel(EVENT_QUEUE);
    let (changes, mut path_changes) = mpsc::unbounded_channel();
    let mut speaker = Runtime {
        bfd: None,
        path_changes: changes,
        speaker: Speaker::new(restart, RandomState::new().hash_one(std::process::id())),
        listeners: Listeners::new(events.clone()),
        listen_at: BTreeSet::new(),
        announces: false,
        listen_errors: BTreeMap::new(),
        connections: BTreeMap::new(),
        tasks: JoinSet::new(),
        farewells: Farewells::new(),
        watchers: Watchers::new(events.clone()),
        discovery: Discovery::new(events.clone()),
        events,
        buffer: vec![0; READ].into(),
        more: false,
        deaf: false,
        converged: false,
        broken: VecDeque::new(),
        rejected: BTreeMap::new(),
    };
    let (stop, done) = loop {
        if fib.is_closed() && !std::mem::replace(&mut speaker.deaf, true) {
            speaker.speaker.forget_fib();
        }
        // A failed path comes before all that peers have to say.
        while let Ok((peer, change)) = path_changes.try_recv() {
            speaker.speaker.path_changed(peer, &change, Instant::now());
        }
        speaker.perform();
        let deadline = speaker.speaker.next_deadline();
        tokio::select! {
            Some((peer, change)) = path_changes.recv() => {
                speaker.speaker.path_changed(peer, &change, Instant::now());
            }
            command = commands.recv() => match command {
                Some(Command::Shutdown(stop, done)) => break (stop, Some(done)),
                Some(command) => speaker.command(command),
                None => break (Stop::Planned, None),
            },
            Some(event) = event_queue.recv(), if !speaker.more => {
                let mut octets = speaker.event(event);
                for _ in 1..BATCH {
                    if octets >= READ {
                        break;
                    }
                    let Ok(event) = event_queue.try_recv() else { break };
                    octets += speaker.event(event);
                }
            }
            // Lets the tasks run, and whatever is due.
            () = tokio::task::yield_now(), if speaker.more => {}
            () = sleep_until(deadline) => speaker.speaker.tick(Instant::now()),
            Ok(permit) = fib.reserve(), if !speaker.deaf && speaker.has_fib_event() => {
                if let Some(event) = speaker.next_fib_event() {
                    permit.send(event);
                }
            }
            Some(_) = speaker.tasks.join_next(), if !speaker.tasks.is_empty() => {}
        }
    };
    speaker.stop(stop).await;
    if let Some(done) = done {
        // Nobody may be waiting any more.
        let _ = done.send(());
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

struct Runtime {
    speaker: Speaker,
    /// Runs from the first path that is to be watched.
    bfd: Option<Bfd>,
    path_changes: mpsc::UnboundedSender<bfd::Change>,
    listeners: Listeners,
    /// Where to listen.
    listen_at: BTreeSet<SocketAddr>,
    /// The routes of this node are known.
    announces: bool,
    listen_errors: BTreeMap<SocketAddr, String>,
    connections: BTreeMap<ConnectionId, Connection>,
    tasks: JoinSet<()>,
    farewells: Farewells,
    watchers: Watchers,
    discovery: Discovery,
    events: mpsc::Sender<Event>,
    /// What is read goes through here.
    buffer: Box<[u8]>,
    /// The speaker has more to decide.
    more: bool,
    /// The owner does not want to know forwarding changes.
    deaf: bool,
    converged: bool,
    /// Addresses that can't be reached, and their interfaces.
    broken: VecDeque<(IpAddr, u32)>,
    /// When a rejected connection of an address was last logged.
    rejected: BTreeMap<IpAddr, Instant>,
}

impl Runtime {
    fn command(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Configure(config) => {
                self.listen_at = listen::addresses(&config);
                self.listeners.set_passwords(&config);
                self.discovery.set(&config);
                self.speaker.set_config(*config, now);
                self.listen();
            }
            Command::LocalRoutes(routes) => {
                self.speaker.set_local_routes(routes, now);
                self.announces = true;
                self.listen();
            }
            Command::Status(answer) => {
                let mut status = self.speaker.status(now);
                status.listen_error = self.listen_errors.values().next().cloned();
                // Nobody may be waiting any more.
                let _ = answer.send(status);
            }
            Command::Routes(answer) => {
                let _ = answer.send(self.speaker.routes());
            }
            Command::Monitor(monitoring) => {
                self.watchers.set(monitoring, &mut self.tasks);
                self.speaker.set_monitored(self.watchers.watch());
            }
            Command::MrtTable(answer) => {
                let _ = answer.send(self.speaker.mrt_table(watchers::since_1970()));
            }
            Command::Advertised(peer, answer) => {
                let _ = answer.send(self.speaker.advertised(&peer));
            }
            Command::Operate(peer, operation, answer) => {
                let _ = answer.send(self.speaker.operate(peer, &operation, now));
            }
            Command::Draining(draining) => self.speaker.set_draining(draining),
            Command::Neighbour(interface, neighbour) => {
                self.speaker.set_neighbour(&interface, neighbour, now);
            }
            Command::Shutdown(_, _) => {}
        }
    }

    /// Only once sessions may start: a peer that keeps our routes for our restart would take a
    /// NOTIFICATION for the end of it, but not a connection refused.
    fn listen(&mut self) {
        if self.announces && self.listeners.set(self.listen_at.clone()) {
            self.listen_errors.clear();
        }
    }

    /// Returns how many octets were read.
    fn event(&mut self, event: Event) -> usize {
        let now = Instant::now();
        match event {
            Event::Accepted { stream, remote } => self.accepted(stream, remote, now),
            Event::Connected(id, stream) => self.connected(id, stream, now),
            Event::ConnectFailed(id, words) => {
                if self.connections.remove(&id).is_some() {
                    self.speaker.connect_failed(id, &words, now);
                }
            }
            Event::Readable(id) => return self.read(id, now),
            Event::Written(id) => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.written();
                    self.transmit(id);
                }
            }
            Event::Lost(id, words) => {
                if self.connections.remove(&id).is_some() {
                    self.speaker.lost(id, &words, now);
                }
            }
            Event::Neighbour(interface, neighbour) => {
                self.speaker.set_neighbour(&interface, neighbour, now);
            }
            Event::Station(station, feed) => {
                // What was said before is in what there is.
                self.perform();
                let all = self.speaker.monitored();
                self.watchers.connected(station, feed, &all);
            }
            Event::Listening(address, Ok(())) => drop(self.listen_errors.remove(&address)),
            Event::Listening(address, Err(words)) => {
                if self.listen_errors.get(&address) != Some(&words) {
                    tracing::warn!("{words}");
                    self.listen_errors.insert(address, words);
                }
            }
        }
        0
    }

    /// Reads what there is, and no more than others can wait for.
    fn read(&mut self, id: ConnectionId, now: Instant) -> usize {
        let mut octets = 0;
        while octets < READ {
            let Some(connection) = self.connections.get(&id) else {
                break;
            };
            match connection.try_read(&mut self.buffer) {
                Ok(0) => {
                    self.connections.remove(&id);
                    let words = "the peer closed the connection";
                    self.speaker.lost(id, words, now);
                }
                Ok(count) => {
                    octets += count;
                    self.speaker.received(id, &self.buffer[..count], now);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.connections.remove(&id);
                    self.speaker.lost(id, &connection::words(&error), now);
                }
            }
        }
        if let Some(connection) = self.connections.get(&id) {
            connection.wait_readable();
        }
        octets
    }

    fn accepted(&mut self, stream: TcpStream, remote: SocketAddr, now: Instant) {
        let Ok(local) = stream.local_addr() else {
            return;
        };
        match self.speaker.accept(remote, local, now) {
            Ok((id, options)) => self.serve(id, stream, &options, now),
            Err(rejected) => {
                self.log_rejected(remote, &rejected.text, now);
                if !rejected.last.is_empty() {
                    self.farewells.say(stream, rejected.last, &mut self.tasks);
                }
            }
        }
    }

    /// Once a minute per address, and for a bounded number of addresses.
    fn log_rejected(&mut self, remote: SocketAddr, text: &str, now: Instant) {
        const QUIET: Duration = Duration::from_secs(60);
        const ADDRESSES: usize = 1024;
        self.rejected
            .retain(|_, logged| now.duration_since(*logged) < QUIET);
        let address = remote.ip();
        if self.rejected.contains_key(&address) || self.rejected.len() >= ADDRESSES {
            return;
        }
        self.rejected.insert(address, now);
        tracing::warn!("{text}");
    }

    fn connected(&mut self, id: ConnectionId, stream: TcpStream, now: Instant) {
        // Given up on in the meantime: dropping the stream closes it.
        let Some(options) = self
            .connections
            .remove(&id)
            .and_then(Connection::into_options)
        else {
            return;
        };
        match stream.local_addr() {
            Ok(local) => {
                self.speaker.connected(id, local, now);
                self.serve(id, stream, &options, now);
            }
            Err(error) => self
                .speaker
                .connect_failed(id, &connection::words(&error), now),
        }
    }

    fn serve(
        &mut self,
        id: ConnectionId,
        stream: TcpStream,
        options: &SocketOptions,
        now: Instant,
    ) {
        if let Err(words) = connection::prepare(&stream, options) {
            return self.speaker.lost(id, &words, now);
        }
        let signed = options.password.is_some();
        let connection =
            connection::serve(id, stream, signed, self.events.clone(), &mut self.tasks);
        self.connections.insert(id, connection);
    }

    fn watch(&mut self, peer: PeerId, path: Option<Box<WatchedPath>>) {
        match (&self.bfd, path) {
            (Some(bfd), Some(path)) => bfd.watch(peer, path),
            (Some(bfd), None) => bfd.forget(peer),
            (None, None) => {}
            (None, Some(path)) => match Bfd::spawn(self.path_changes.clone()) {
                Ok(bfd) => self.bfd.insert(bfd).watch(peer, path),
                Err(error) => tracing::error!("cannot start BFD: {error}"),
            },
        }
    }

    /// A kernel that can't change the password of an open connection costs the connection.
    fn rekey(&mut self, id: ConnectionId, peer: IpAddr, password: &Password) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        if let Err(error) = connection.rekey(peer, password) {
            self.connections.remove(&id);
            let words = format!("its password cannot be changed while it is open: {error}");
            self.speaker.lost(id, &words, Instant::now());
        }
    }

    /// Does what the speaker asks for.
    fn perform(&mut self) {
        self.more = false;
        while let Some(output) = self.speaker.poll() {
            match output {
                Output::Connect {
                    connection: id,
                    target,
                    options,
                } => {
                    let connection =
                        connection::dial(id, target, options, self.events.clone(), &mut self.tasks);
                    self.connections.insert(id, connection);
                }
                Output::Transmit(id) => self.transmit(id),
                Output::Rekey {
                    connection,
                    peer,
                    password,
                } => self.rekey(connection, peer, &password),
                Output::Watch { peer, path } => self.watch(peer, path),
                Output::Close { connection, last } => {
                    if let Some(connection) = self.connections.remove(&connection) {
                        connection.close(last);
                    }
                }
                Output::More => {
                    self.more = true;
                    return;
                }
                Output::PathDown { address, scope } => {
                    // A few are enough: the others are told by the changes that follow.
                    if !self.deaf && self.broken.len() < BROKEN {
                        self.broken.push_back((address, scope));
                    }
                }
                Output::Converged => {
                    tracing::info!("all peers have sent their routes");
                    self.converged = true;
                }
                Output::Monitored(monitored) => self.watchers.tell(&monitored),
                Output::Notice(Notice {
                    peer,
                    severity,
                    text,
                }) => match severity {
                    Severity::Info => tracing::info!("{peer}: {text}"),
                    Severity::Warning => tracing::warn!("{peer}: {text}"),
                },
            }
        }
    }

    fn transmit(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.is_writing() {
            return;
        }
        // At once as far as it goes; the task waits for room for the rest.
        let messages = self.speaker.transmit(id, WRITE);
        let rest = connection.try_write(messages);
        if rest.is_empty() {
            let more = self.speaker.transmit(id, WRITE);
            connection.write(Backlog::new(more));
        } else {
            connection.write(rest);
        }
    }

    fn has_fib_event(&self) -> bool {
        self.converged || !self.broken.is_empty() || self.speaker.has_fib_changes()
    }

    /// Broken paths before the changes that follow from them, and these before the end of the
    /// initial exchange.
    fn next_fib_event(&mut self) -> Option<FibEvent> {
        if let Some((address, scope)) = self.broken.pop_front() {
            return Some(FibEvent::PathDown { address, scope });
        }
        let changes = std::iter::from_fn(|| self.speaker.poll_fib());
        let changes: Vec<_> = changes.take(FIB_BATCH).collect();
        if !changes.is_empty() {
            return Some(FibEvent::Changes(changes));
        }
        std::mem::take(&mut self.converged).then_some(FibEvent::Converged)
    }

    async fn stop(mut self, stop: Stop) {
        self.listeners.stop();
        if let Some(bfd) = self.bfd.take() {
            bfd.stop().await;
        }
        self.speaker.stop(stop, Instant::now());
        self.perform();
        self.watchers.dismiss();
        let Self {
            connections,
            mut tasks,
            ..
        } = self;
        drop(connections);
        let all = async { while tasks.join_next().await.is_some() {} };
        // A peer that does not take its last message does not keep us.
        let _ = tokio::time::timeout(FAREWELL, all).await;
    }
}
