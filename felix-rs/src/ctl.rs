//! The control socket: one JSON line in, one out. `ocicat` is its client.

use crate::health::Readiness;
use felix_core::cluster::View;
use felix_core::revoke::LiveFlow;
use felix_core::why::Connection;
use ipam::PoolUsage;
use ipam::reconcile::Finding;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

const MAX_QUESTION: u64 = 4096;
/// A caller that has not asked after this long is dropped.
const QUESTION_DEADLINE: Duration = Duration::from_secs(5);
/// So long may the agent be busy with something else.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// What may be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Question {
    Status,
    Endpoints,
    Bgp(BgpQuestion),
    Drops,
    Metrics,
    Paths,
    Plan,
    Ruleset,
    Why(Connection),
    PolicyView,
    Ipam(IpamQuestion),
}

/// All that `ocicat diff` and `ocicat lint` have to know.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PolicyView {
    pub(crate) view: View,
    /// Live connections of this node's pods; none where the agent can't say.
    pub(crate) connections: Option<Vec<LiveFlow>>,
}

/// Questions about BGP. A peer goes by its address or its object's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum BgpQuestion {
    Summary,
    Neighbours(Option<String>),
    Routes(RouteQuestion),
    Refresh {
        peer: String,
        direction: Refresh,
    },
    Shutdown {
        peer: String,
        /// What the peer is told; none lets the session come back.
        text: Option<String>,
    },
    Drain(Drain),
}

/// Which routes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RouteQuestion {
    pub(crate) destination: Option<Destination>,
    /// Only what this peer announces.
    pub(crate) received: Option<String>,
    /// What this peer is told.
    pub(crate) advertised: Option<String>,
}

/// Where routes lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Destination {
    Prefix(IpNet),
    /// Whatever prefix is the longest that holds it.
    Address(IpAddr),
}

impl FromStr for Destination {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let prefix = text.parse().map(Self::Prefix);
        prefix
            .or_else(|_| text.parse().map(Self::Address))
            .map_err(|_| "a prefix or an address is needed, such as 10.244.0.0/16")
    }
}

/// Directions of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub(crate) enum Refresh {
    In,
    Out,
    Both,
}

/// The steps by which a node goes out of service, and the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Drain {
    Announce,
    Reset,
    Close,
    Undo,
}

/// Questions about addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum IpamQuestion {
    Show,
    Blocks,
    Check,
    Release {
        address: IpAddr,
        /// Only the use of the address that has this number.
        sequence: Option<u64>,
        /// Also where its network namespace is still there.
        force: bool,
    },
}

/// `ocicat ipam show`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct IpamSummary {
    pub(crate) pools: Vec<PoolUsage>,
    /// This node's own addresses, by tunnel device.
    pub(crate) tunnels: BTreeMap<String, IpAddr>,
    /// What was freed by reconciliation since the agent's start.
    pub(crate) freed: u64,
}

/// A line of `ocicat ipam blocks`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BlockLine {
    pub(crate) block: IpNet,
    pub(crate) node: String,
    pub(crate) pool: String,
    /// Known of this node's own blocks.
    pub(crate) in_use: Option<u32>,
    pub(crate) free: Option<u32>,
    pub(crate) state: String,
}

/// A line of `ocicat ipam check`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ProblemLine {
    pub(crate) problem: String,
    #[serde(flatten)]
    pub(crate) finding: Finding,
    /// For how long this agent has seen it, in seconds.
    pub(crate) seconds: u64,
    /// Since when, in seconds since 1970.
    pub(crate) since: u64,
}

/// What `ocicat ipam check` says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CheckReport {
    pub(crate) node: String,
    /// Endpoints of this node that were compared.
    pub(crate) endpoints: usize,
    pub(crate) problems: Vec<ProblemLine>,
    /// Blocks that two nodes claim.
    pub(crate) conflicts: Vec<String>,
    /// Nodes without a Node object that own blocks, and for how many seconds nothing speaks for them.
    pub(crate) departed: BTreeMap<String, u64>,
}

/// The answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    Value(serde_json::Value),
    Text(String),
    Error(String),
}

impl Answer {
    pub(crate) fn json(value: &impl Serialize) -> Self {
        serde_json::to_value(value).map_or_else(|e| Self::Error(e.to_string()), Self::Value)
    }
}

/// A question on its way to the agent.
pub(crate) struct Query {
    pub(crate) question: Question,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// `ocicat status`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NodeReport {
    pub(crate) node: String,
    pub(crate) phase: String,
    pub(crate) readiness: Readiness,
    pub(crate) kernel: String,
    pub(crate) blocks: Vec<IpNet>,
    pub(crate) endpoints: usize,
    pub(crate) objects: usize,
    pub(crate) routes: usize,
    pub(crate) withheld: Vec<String>,
    pub(crate) problems: Vec<String>,
    /// How often something of ours was changed by somebody else and put right.
    pub(crate) repairs: u64,
    /// Live connections cut because policy did not allow them any more.
    pub(crate) revoked: u64,
    pub(crate) bgp_converged: bool,
    pub(crate) uptime_seconds: u64,
}

/// The ways to the other nodes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PathsReport {
    /// MTU in bytes that is reckoned with.
    pub(crate) mtu: u32,
    /// Their addresses by name.
    pub(crate) nodes: BTreeMap<String, Vec<IpAddr>>,
    /// Routes of ours over which somebody else's win.
    pub(crate) overridden: Vec<String>,
}

/// A line of `ocicat endpoints`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EndpointLine {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) interface: String,
    pub(crate) ifindex: u32,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) container: String,
}

/// Accept questions for as long as somebody answers them.
pub(crate) async fn serve(listener: UnixListener, queries: mpsc::Sender<Query>) {
    while !queries.is_closed() {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let queries = queries.clone();
        tokio::spawn(async move {
            // A caller that hangs up or says nothing costs its own connection only.
            let _ = answer(stream, queries).await;
        });
    }
}

async fn answer(stream: UnixStream, queries: mpsc::Sender<Query>) -> std::io::Result<()> {
    if stream.peer_cred()?.uid() != 0 {
        return Ok(());
    }
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(read.take(MAX_QUESTION));
    timeout(QUESTION_DEADLINE, reader.read_line(&mut line)).await??;
    let answer = match serde_json::from_str(&line) {
        Ok(question) => timeout(ANSWER_DEADLINE, ask(question, queries))
            .await
            .unwrap_or_else(|_| {
                let seconds = ANSWER_DEADLINE.as_secs();
                Answer::Error(format!("the agent has not answered within {seconds} s"))
            }),
        Err(error) => Answer::Error(format!("not a question: {error}")),
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    timeout(ANSWER_DEADLINE, write.write_all(&text)).await?
}

async fn ask(question: Question, queries: mpsc::Sender<Query>) -> Answer {
    let (sender, receiver) = oneshot::channel();
    let query = Query {
        question,
        answer: sender,
    };
    let stopping = || Answer::Error("the agent is stopping".into());
    match queries.send(query).await {
        Ok(()) => receiver.await.unwrap_or_else(|_| stopping()),
        Err(_) => stopping(),
    }
}
