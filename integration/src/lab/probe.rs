//! Probers in pods and hosts, asked from outside.

use super::Netns;
use crate::prober::{Fragments, Operation, Outcome, PORTS, Poured, Received, Reply, Request, Sent};
use anyhow::{Context, Result, anyhow, bail};
use std::collections::HashMap;
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a prober that runs may take to say what came of an operation that has ended.
const ANSWER: Duration = Duration::from_secs(30);

/// Numbers flows across all probers of this process.
static FLOWS: AtomicU64 = AtomicU64::new(1);

type Waiting = Arc<Mutex<HashMap<u64, Sender<Result<Outcome, String>>>>>;

/// How something is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // the names say it
pub enum Protocol {
    Tcp,
    Udp,
    Icmp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        })
    }
}

/// A running prober.
#[derive(Debug)]
pub struct Probe {
    name: String,
    child: Child,
    stdin: Mutex<ChildStdin>,
    waiting: Waiting,
    next: AtomicU64,
}

impl Probe {
    /// Starts a prober and waits until it serves.
    ///
    /// # Errors
    /// It does not start, or a port is taken.
    pub fn start(netns: &Netns, name: &str) -> Result<Self> {
        Self::start_at(&netns.path(), name)
    }

    /// As [`Probe::start`], in a network namespace without a name: of a pod that a runtime made.
    ///
    /// # Errors
    /// It does not start, or a port is taken.
    pub fn start_at(netns: &Path, name: &str) -> Result<Self> {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", netns.display()))
            .arg(lab_binary()?)
            .args(["prober", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().context("nsenter")?;
        let stdin = child.stdin.take().context("the prober's input")?;
        let stdout = child.stdout.take().context("the prober's output")?;
        let waiting = Waiting::default();
        let (sender, ready) = channel();
        locked(&waiting).insert(0, sender);
        let hands = Arc::clone(&waiting);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let Ok(reply) = serde_json::from_str::<Reply>(&line) else {
                    break;
                };
                if let Some(sender) = locked(&hands).remove(&reply.id) {
                    // Who asked may have stopped waiting.
                    let _ = sender.send(reply.outcome);
                }
            }
            locked(&hands).clear();
        });
        ready
            .recv_timeout(Duration::from_secs(60))
            .map_err(|_| anyhow!("the prober of {name} does not start"))?
            .map_err(|error| anyhow!("the prober of {name}: {error}"))?;
        let (name, stdin) = (name.to_owned(), Mutex::new(stdin));
        Ok(Self {
            name,
            child,
            stdin,
            waiting,
            next: AtomicU64::new(1),
        })
    }

    /// Its name, with which its servers answer.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks for something; the answer comes through the receiver.
    ///
    /// # Errors
    /// The prober has ended.
    pub fn ask(&self, operation: Operation) -> Result<Receiver<Result<Outcome, String>>> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = channel();
        locked(&self.waiting).insert(id, sender);
        let line = serde_json::to_string(&Request { id, operation })?;
        let mut stdin = self.stdin.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(stdin, "{line}")
            .with_context(|| format!("the prober of {} has ended", self.name))?;
        Ok(receiver)
    }

    /// Waits for longer than the operation itself may take: it says why it failed.
    fn answer(&self, operation: Operation, limit: Duration) -> Result<Outcome> {
        let receiver = self.ask(operation)?;
        let outcome = receiver.recv_timeout(limit + ANSWER);
        outcome
            .map_err(|_| anyhow!("the prober of {} does not answer", self.name))?
            .map_err(|error| anyhow!("from {}: {error}", self.name))
    }

    /// Reaches `to` and returns the name of who answered (nothing for ICMP).
    ///
    /// # Errors
    /// Nobody answered within `limit`: why.
    pub fn reach(
        &self,
        protocol: Protocol,
        to: IpAddr,
        port: u16,
        limit: Duration,
    ) -> Result<String> {
        match self.answer(operation(protocol, to, port, limit), limit)? {
            Outcome::Answered { name, .. } => Ok(name),
            other => bail!("unexpected answer {other:?}"),
        }
    }

    /// Sends octets to `to` over TCP; how many it says have arrived.
    ///
    /// # Errors
    /// It does not say so within `limit`.
    pub fn bulk(&self, to: IpAddr, octets: usize, limit: Duration) -> Result<usize> {
        let operation = Operation::Bulk {
            to,
            octets,
            limit_ms: milliseconds(limit),
        };
        match self.answer(operation, limit)? {
            Outcome::Arrived(count) => Ok(count),
            other => bail!("unexpected answer {other:?}"),
        }
    }

    /// Sends a datagram; how long it was when it arrived, or what it is longer than.
    ///
    /// # Errors
    /// Nobody answered within `limit`: why.
    pub fn datagram(
        &self,
        to: IpAddr,
        octets: usize,
        fragments: Fragments,
        limit: Duration,
    ) -> Result<Outcome> {
        self.answer(
            Operation::Datagram {
                to,
                octets,
                fragments,
                limit_ms: milliseconds(limit),
            },
            limit,
        )
    }

    /// Opens a TCP connection to the prober at `to` and sends through it, 6.5 MB a second, until it
    /// is stopped.
    ///
    /// # Errors
    /// Nobody answers within `limit`, which is also how long it may make no progress later.
    pub fn stream(&self, to: IpAddr, limit: Duration) -> Result<Stream<'_>> {
        let stream = FLOWS.fetch_add(1, Ordering::Relaxed);
        self.answer(
            Operation::StreamStart {
                stream,
                to,
                limit_ms: milliseconds(limit),
            },
            limit,
        )?;
        Ok(Stream { stream, from: self })
    }

    /// Starts a flow of `rate` numbered datagrams a second to the prober `to` at `address`.
    ///
    /// # Errors
    /// The prober has ended.
    pub fn flow<'a>(&'a self, to: &'a Probe, address: IpAddr, rate: u32) -> Result<Flow<'a>> {
        let flow = FLOWS.fetch_add(1, Ordering::Relaxed);
        self.answer(
            Operation::FlowStart {
                flow,
                to: address,
                rate,
            },
            Duration::ZERO,
        )?;
        Ok(Flow {
            flow,
            from: self,
            to,
            running: true,
        })
    }
}

/// A TCP connection that is kept busy. It ends with its prober.
#[derive(Debug)]
pub struct Stream<'a> {
    stream: u64,
    from: &'a Probe,
}

impl Stream<'_> {
    /// Ends it, and counts at both ends.
    ///
    /// # Errors
    /// It was reset, or made no progress for too long.
    pub fn stop(self) -> Result<Poured> {
        let stop = Operation::StreamStop {
            stream: self.stream,
        };
        match self.from.answer(stop, Duration::ZERO)? {
            Outcome::Poured(poured) => Ok(poured),
            other => bail!("unexpected answer {other:?}"),
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // It may have ended with its namespace.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running flow.
#[derive(Debug)]
pub struct Flow<'a> {
    flow: u64,
    from: &'a Probe,
    to: &'a Probe,
    running: bool,
}

impl Drop for Flow<'_> {
    fn drop(&mut self) {
        if self.running {
            // Nobody waits for the count; a prober that has ended sends nothing either.
            let _ = self.from.ask(Operation::FlowStop { flow: self.flow });
        }
    }
}

impl Flow<'_> {
    /// Ends the flow and counts.
    ///
    /// # Errors
    /// A prober has ended.
    pub fn stop(mut self) -> Result<FlowReport> {
        self.running = false;
        let Outcome::Sent(sent) = self
            .from
            .answer(Operation::FlowStop { flow: self.flow }, Duration::ZERO)?
        else {
            bail!("unexpected answer to FlowStop")
        };
        let report = Operation::FlowReport {
            flow: self.flow,
            sent: sent.count,
        };
        let Outcome::Received(received) = self.to.answer(report, Duration::ZERO)? else {
            bail!("unexpected answer to FlowReport")
        };
        Ok(FlowReport { sent, received })
    }
}

/// Both ends of a flow that has ended.
#[derive(Debug, Clone)]
pub struct FlowReport {
    /// What the sender says.
    pub sent: Sent,
    /// What the receiver says.
    pub received: Received,
}

impl FlowReport {
    /// How many datagrams did not arrive.
    pub fn lost(&self) -> u64 {
        self.sent.count.saturating_sub(self.received.count)
    }
}

impl fmt::Display for FlowReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gap = Duration::from_micros(self.received.longest_gap_us);
        write!(
            f,
            "{} sent, {} lost, longest gap {gap:?}",
            self.sent.count,
            self.lost()
        )?;
        if !self.received.missing.is_empty() {
            write!(f, ", missing {:?}", self.received.missing)?;
        }
        match &self.sent.last_error {
            Some(error) => write!(f, ", {} refused: {error}", self.sent.refused),
            None => Ok(()),
        }
    }
}

/// One attempt of a matrix.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Who tried.
    pub from: String,
    /// To reach whom.
    pub to: String,
    /// At which address.
    pub address: IpAddr,
    /// How.
    pub protocol: Protocol,
    /// Whether the right one answered, or why not.
    pub outcome: Result<(), String>,
}

/// A prober and the addresses of its pod.
#[derive(Debug)]
pub struct Target<'a> {
    /// The prober.
    pub probe: &'a Probe,
    /// Where it is reached.
    pub addresses: Vec<IpAddr>,
}

/// Everybody tries to reach everybody (themselves too), all at once.
///
/// # Errors
/// A prober has ended.
pub fn matrix(
    targets: &[Target<'_>],
    protocols: &[Protocol],
    limit: Duration,
) -> Result<Vec<Cell>> {
    let mut asked = Vec::new();
    for from in targets {
        for to in targets {
            for (&address, &protocol) in to
                .addresses
                .iter()
                .flat_map(|a| protocols.iter().map(move |p| (a, p)))
            {
                let answer = from
                    .probe
                    .ask(operation(protocol, address, PORTS[0], limit))?;
                asked.push((
                    from.probe.name(),
                    to.probe.name(),
                    address,
                    protocol,
                    answer,
                ));
            }
        }
    }
    let patience = limit + Duration::from_secs(20);
    let cells = asked
        .into_iter()
        .map(|(from, to, address, protocol, answer)| {
            let outcome = match answer.recv_timeout(patience) {
                Ok(Ok(Outcome::Answered { name, .. })) if name.is_empty() || name == to => Ok(()),
                Ok(Ok(other)) => Err(format!("answered by {other:?}")),
                Ok(Err(error)) => Err(error),
                Err(error) => Err(format!("the prober: {error}")),
            };
            Cell {
                from: from.to_owned(),
                to: to.to_owned(),
                address,
                protocol,
                outcome,
            }
        });
    Ok(cells.collect())
}

fn operation(protocol: Protocol, to: IpAddr, port: u16, limit: Duration) -> Operation {
    let limit_ms = milliseconds(limit);
    match protocol {
        Protocol::Tcp => Operation::Tcp {
            to: SocketAddr::new(to, port),
            limit_ms,
        },
        Protocol::Udp => Operation::Udp {
            to: SocketAddr::new(to, port),
            limit_ms,
        },
        Protocol::Icmp => Operation::Ping { to, limit_ms },
    }
}

fn milliseconds(limit: Duration) -> u64 {
    u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)
}

/// The binary with the hidden sub-commands: this program, or the one that cargo built beside it.
pub(crate) fn lab_binary() -> Result<std::path::PathBuf> {
    let exe = std::env::current_exe().context("path of this program")?;
    if exe.file_name().is_some_and(|name| name == "lab") {
        return Ok(exe);
    }
    super::agent::binary("OCICAT_LAB_BIN", "lab")
}

fn locked(
    waiting: &Waiting,
) -> std::sync::MutexGuard<'_, HashMap<u64, Sender<Result<Outcome, String>>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
