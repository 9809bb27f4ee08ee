//! What runs inside a pod: `lab prober NAME`.
//!
//! It serves TCP, UDP and SCTP on [`PORTS`], answering with its own name, so that a connection proves
//! who answered. It counts the numbered datagrams of [`FLOW_PORT`]. And it does what it is asked
//! to on standard input, one JSON request a line, concurrently, with one JSON reply a line. It
//! ends with its standard input.

mod attempt;
mod flow;
mod raw;
mod serve;
mod size;
mod stream;

use serde::{Deserialize, Serialize};
use std::io::BufRead;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// TCP, UDP and SCTP ports that every pod serves.
pub const PORTS: [u16; 2] = [8080, 8081];
/// TCP port that reads to the end and answers with the count of octets, and UDP port that answers
/// each datagram with its length.
pub const SIZE_PORT: u16 = 8090;
/// UDP port where numbered datagrams are counted.
pub const FLOW_PORT: u16 = 9000;

/// A request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// Comes back in the reply.
    pub id: u64,
    /// What to do.
    pub operation: Operation,
}

/// What a prober can be asked to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Operation {
    /// Connect and read the name of who answers.
    Tcp {
        /// Whom to reach.
        to: SocketAddr,
        /// Patience in milliseconds.
        limit_ms: u64,
    },
    /// Send a datagram and read the name of who answers; repeated every 200 ms.
    Udp {
        /// Whom to reach.
        to: SocketAddr,
        /// Patience in milliseconds.
        limit_ms: u64,
    },
    /// Send an SCTP INIT and read the name of who answers it; repeated every 200 ms.
    Sctp {
        /// Whom to reach.
        to: SocketAddr,
        /// Patience in milliseconds.
        limit_ms: u64,
    },
    /// One ICMP echo.
    Ping {
        /// Whom to reach.
        to: IpAddr,
        /// Patience in milliseconds.
        limit_ms: u64,
    },
    /// Send octets over TCP to [`SIZE_PORT`] and read how many arrived.
    Bulk {
        /// Whom to reach.
        to: IpAddr,
        /// How many.
        octets: usize,
        /// Patience in milliseconds.
        limit_ms: u64,
    },
    /// Send one datagram to [`SIZE_PORT`] and read its length as it arrived; repeated every 200 ms.
    Datagram {
        /// Whom to reach.
        to: IpAddr,
        /// Octets of payload.
        octets: usize,
        /// What may become of it where it is longer than the path allows.
        fragments: Fragments,
        /// Patience in milliseconds.
        limit_ms: u64,
    },
    /// Starts a flow of numbered datagrams to [`FLOW_PORT`] of `to`.
    FlowStart {
        /// The flow's number, chosen by the asker.
        flow: u64,
        /// Whom to send to.
        to: IpAddr,
        /// Datagrams a second.
        rate: u32,
    },
    /// Ends it.
    FlowStop {
        /// Which flow.
        flow: u64,
    },
    /// Connects to [`SIZE_PORT`] and sends a burst of octets every 10 ms.
    StreamStart {
        /// The connection's number, chosen by the asker.
        stream: u64,
        /// Whom to send to.
        to: IpAddr,
        /// How long the connection may make no progress, in milliseconds.
        limit_ms: u64,
    },
    /// Ends it and reads how many octets have arrived.
    StreamStop {
        /// Which connection.
        stream: u64,
    },
    /// What has arrived of a flow, once its last datagram is here or 300 ms are over.
    FlowReport {
        /// Which flow.
        flow: u64,
        /// How many were sent.
        sent: u64,
    },
}

/// What becomes of a datagram that is longer than the MTU of its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fragments {
    /// The sender splits it as far as it knows the path's MTU (`IP_PMTUDISC_WANT`).
    AsKnown,
    /// Nobody may split it (`IP_PMTUDISC_DO`): it is refused.
    Never,
}

/// A reply.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reply {
    /// Of the request.
    pub id: u64,
    /// What came of it, or why nothing did.
    pub outcome: Result<Outcome, String>,
}

/// What came of a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Outcome {
    /// Ready to be asked; the first line of a prober, with the id 0.
    Ready,
    /// Somebody answered.
    Answered {
        /// The name of who did; empty for ICMP.
        name: String,
        /// Round trip in microseconds.
        micros: u64,
    },
    /// As many octets arrived.
    Arrived(usize),
    /// The datagram is longer than this, the MTU of its path as the kernel knows it.
    TooLong {
        /// In octets, IP header included.
        mtu: u32,
    },
    /// The flow runs.
    Flowing,
    /// The flow has ended.
    Sent(Sent),
    /// What arrived.
    Received(Received),
    /// The stream has ended.
    Poured(Poured),
}

/// Both ends of a TCP stream that has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poured {
    /// Octets sent.
    pub sent: usize,
    /// Octets that the receiver says it has.
    pub arrived: usize,
}

/// The sender's view of a flow.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Sent {
    /// How many datagrams were numbered, whether the kernel took them or not.
    pub count: u64,
    /// How many the kernel refused.
    pub refused: u64,
    /// The last refusal.
    pub last_error: Option<String>,
}

/// The receiver's view of a flow.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Received {
    /// Different datagrams that arrived.
    pub count: u64,
    /// Datagrams that arrived twice.
    pub duplicates: u64,
    /// The ranges of numbers that did not arrive: first and last.
    pub missing: Vec<(u64, u64)>,
    /// The longest time between two arrivals, in microseconds.
    pub longest_gap_us: u64,
}

/// Serves until standard input ends.
///
/// # Errors
/// A port is taken, or standard input can't be read.
pub fn run(name: &str) -> anyhow::Result<()> {
    for port in PORTS {
        serve::tcp(name, port)?;
        serve::udp(name, port)?;
    }
    raw::serve_sctp(name, &PORTS)?;
    serve::sizes(SIZE_PORT)?;
    let flows = Arc::new(flow::Flows::listen()?);
    let streams = Arc::new(stream::Streams::default());
    print(&Reply {
        id: 0,
        outcome: Ok(Outcome::Ready),
    });
    let mut running = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let request: Request = serde_json::from_str(&line?)?;
        let (flows, streams) = (Arc::clone(&flows), Arc::clone(&streams));
        running.push(std::thread::spawn(move || {
            let outcome =
                perform(&flows, &streams, request.operation).map_err(|error| format!("{error:#}"));
            print(&Reply {
                id: request.id,
                outcome,
            });
        }));
        // Joined and not let go: glibc may read a thread that it detaches after its end (bug 19951).
        for thread in running.extract_if(.., |thread| thread.is_finished()) {
            let _ = thread.join();
        }
    }
    Ok(())
}

fn perform(
    flows: &flow::Flows,
    streams: &stream::Streams,
    operation: Operation,
) -> anyhow::Result<Outcome> {
    use std::time::Duration;
    match operation {
        Operation::Tcp { to, limit_ms } => attempt::tcp(to, Duration::from_millis(limit_ms)),
        Operation::Udp { to, limit_ms } => attempt::udp(to, Duration::from_millis(limit_ms)),
        Operation::Sctp { to, limit_ms } => raw::sctp(to, Duration::from_millis(limit_ms)),
        Operation::Ping { to, limit_ms } => raw::ping(to, Duration::from_millis(limit_ms)),
        Operation::Bulk {
            to,
            octets,
            limit_ms,
        } => size::bulk(to, octets, Duration::from_millis(limit_ms)),
        Operation::Datagram {
            to,
            octets,
            fragments,
            limit_ms,
        } => size::datagram(to, octets, fragments, Duration::from_millis(limit_ms)),
        Operation::FlowStart { flow, to, rate } => flows.start(flow, to, rate),
        Operation::FlowStop { flow } => flows.stop(flow),
        Operation::StreamStart {
            stream,
            to,
            limit_ms,
        } => streams.start(stream, to, Duration::from_millis(limit_ms)),
        Operation::StreamStop { stream } => streams.stop(stream),
        Operation::FlowReport { flow, sent } => Ok(flows.report(flow, sent)),
    }
}

fn print(reply: &Reply) {
    let line = serde_json::to_string(reply).expect("invariant: replies are plain data");
    // Standard output is locked for the whole line; a lost reader ends us by standard input.
    let _ = std::io::Write::write_all(
        &mut std::io::stdout().lock(),
        format!("{line}\n").as_bytes(),
    );
}
