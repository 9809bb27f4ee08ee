//! Ends live connections that the rules in force do not allow any more.
//!
//! A thread of its own reads connection tracking, which takes a while where there are many
//! connections, and hands those of this node's addresses to the agent in portions; what the agent
//! denies gets a bit in its mark, and a rule cuts what has the bit in both directions. Deleting an
//! entry instead would not do: the next packet of the server would make a reversed one.

use felix_core::revoke::LiveFlow;
use ipnet::IpNet;
use kernel::{Connection, Conntrack, ConntrackError, OpenError};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Connections in one portion: judging them takes a few milliseconds.
const PORTION: usize = 500;
/// Changes within this time share a reading.
const QUIET: Duration = Duration::from_millis(20);
/// Time before a failed reading is tried again, unless something changes first.
const RETRY: Duration = Duration::from_secs(1);
/// A reading is followed by a pause of this many times its duration.
const PAUSE: u32 = 4;

/// A portion of live connections to judge.
pub(crate) struct Portion {
    /// The connections.
    pub(crate) flows: Vec<LiveFlow>,
    /// Indices of those that are denied.
    pub(crate) denied: oneshot::Sender<Vec<usize>>,
}

/// The thread's handle.
pub(crate) struct Revoker {
    requests: Option<std_mpsc::Sender<BTreeSet<IpNet>>>,
}

/// What the thread tells the agent.
pub(crate) enum Event {
    /// Connections to judge.
    Judge(Portion),
    /// A reading has ended.
    Revoked {
        /// So many were cut.
        count: usize,
        /// Addresses whose connections were looked at.
        addresses: BTreeSet<IpNet>,
    },
    /// Connection tracking could not be read or written.
    Failed(String),
}

impl Revoker {
    /// Starts the thread in the calling thread's network namespace. Denied connections get `mark`.
    pub(crate) fn start(mark: u32) -> Result<(Self, mpsc::Receiver<Event>), OpenError> {
        let conntrack = Conntrack::open()?;
        let (requests, received) = std_mpsc::channel();
        let (events, receiver) = mpsc::channel(1);
        std::thread::Builder::new()
            .name("revoker".into())
            .spawn(move || run(conntrack, mark, &received, &events))
            .map_err(|error| OpenError {
                what: "connection tracking",
                errno: error.into(),
            })?;
        let requests = Some(requests);
        Ok((Self { requests }, receiver))
    }

    /// One that leaves connections alone.
    pub(crate) fn off() -> Self {
        Self { requests: None }
    }

    /// Whether anybody looks at connections.
    pub(crate) fn is_on(&self) -> bool {
        self.requests.is_some()
    }

    /// The rules changed: connections of these addresses have to be looked at.
    pub(crate) fn look(&self, addresses: BTreeSet<IpNet>) {
        if let Some(requests) = &self.requests {
            // A thread that has ended is noticed by its events.
            let _ = requests.send(addresses);
        }
    }
}

fn run(
    mut conntrack: Conntrack,
    mark: u32,
    requests: &std_mpsc::Receiver<BTreeSet<IpNet>>,
    events: &mpsc::Sender<Event>,
) {
    // What a failed reading leaves undone.
    let mut left: Option<BTreeSet<IpNet>> = None;
    loop {
        let mut addresses = match &left {
            None => match requests.recv() {
                Ok(addresses) => addresses,
                Err(_) => return,
            },
            Some(_) => match requests.recv_timeout(RETRY) {
                Ok(addresses) => addresses,
                Err(std_mpsc::RecvTimeoutError::Timeout) => BTreeSet::new(),
                Err(std_mpsc::RecvTimeoutError::Disconnected) => return,
            },
        };
        std::thread::sleep(QUIET);
        addresses.extend(requests.try_iter().flatten());
        addresses.extend(left.take().into_iter().flatten());
        let started = Instant::now();
        let event = match revoke(&mut conntrack, mark, &addresses, events) {
            Ok(count) => Event::Revoked { count, addresses },
            Err(reason) => {
                left = Some(addresses);
                Event::Failed(reason)
            }
        };
        if events.blocking_send(event).is_err() {
            return;
        }
        std::thread::sleep(started.elapsed() * PAUSE);
    }
}

/// Marks what is denied, and unmarks what is allowed again; answers how many were newly denied.
fn revoke(
    conntrack: &mut Conntrack,
    mark: u32,
    addresses: &BTreeSet<IpNet>,
    events: &mpsc::Sender<Event>,
) -> Result<usize, String> {
    let found = of_addresses(conntrack, addresses).map_err(|error| error.to_string())?;
    let (mut count, mut failure) = (0, None);
    for portion in found.chunks(PORTION) {
        let (answer, denied) = oneshot::channel();
        let question = Event::Judge(Portion {
            flows: portion.iter().map(flow).collect(),
            denied: answer,
        });
        if events.blocking_send(question).is_err() {
            break;
        }
        let Ok(denied) = denied.blocking_recv() else {
            break;
        };
        let denied: BTreeSet<usize> = denied.into_iter().collect();
        let differs = |wanted: bool| -> Vec<Connection> {
            let all = portion.iter().enumerate();
            let differs = all.filter(|(at, connection)| {
                denied.contains(at) == wanted && (connection.mark & mark != 0) != wanted
            });
            differs.map(|(_, connection)| connection.clone()).collect()
        };
        let (cut, again) = (differs(true), differs(false));
        let failed = conntrack.mark(&cut, mark, mark);
        count += cut.len() - failed.len();
        let failed = failed.into_iter().chain(conntrack.mark(&again, 0, mark));
        failure = failed.last().or(failure);
    }
    failure.map_or(Ok(count), |error| Err(error.to_string()))
}

fn of_addresses(
    conntrack: &mut Conntrack,
    addresses: &BTreeSet<IpNet>,
) -> Result<Vec<Connection>, ConntrackError> {
    let ours = |address: IpAddr| addresses.iter().any(|net| net.contains(&address));
    conntrack.connections(|c: &Connection| ours(c.original.source) || ours(c.reply.source))
}

/// Connections of these addresses were not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LiveFlowsError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Read(#[from] ConntrackError),
}

/// The live connections of these addresses, read in the calling thread's network namespace.
pub(crate) fn live_flows(addresses: &BTreeSet<IpNet>) -> Result<Vec<LiveFlow>, LiveFlowsError> {
    let found = of_addresses(&mut Conntrack::open()?, addresses)?;
    Ok(found.iter().map(flow).collect())
}

/// The connection as the forward hook saw its first packet.
fn flow(connection: &Connection) -> LiveFlow {
    let Connection {
        original, reply, ..
    } = connection;
    let ports = original.ports.zip(reply.ports);
    let ports = ports.map(|((source, _), (destination, _))| (source, destination));
    let dialled = (original.destination, original.ports.map(|(_, port)| port));
    let reached = (reply.source, ports.map(|(_, port)| port));
    LiveFlow {
        protocol: original.protocol,
        source: original.source,
        destination: reply.source,
        ports,
        icmp: original.icmp,
        original_destination: (dialled != reached).then_some(dialled),
    }
}
