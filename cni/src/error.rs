//! What the runtime is told when something fails.

use crate::SpecVersion;
use crate::frame::FrameError;
use model::cni::Failure;
use serde_json::{Value, json};
use std::io;
use std::path::PathBuf;

/// Why a command failed. [`Error::code`] is that of the CNI specification, or 100 and up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `cniVersion` is missing, unknown, or older than the command.
    #[error("cniVersion: {reason}")]
    Version {
        /// What is wrong with it.
        reason: String,
    },
    /// A `CNI_*` variable is missing or wrong.
    #[error("{variable}: {reason}")]
    Environment {
        /// The variable.
        variable: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Standard input cannot be read.
    #[error("standard input: {0}")]
    Stdin(#[source] io::Error),
    /// Standard input is not a configuration.
    #[error("standard input: {reason}")]
    Decode {
        /// Why not.
        reason: String,
    },
    /// A field of the configuration is wrong.
    #[error("{field}: {reason}")]
    Config {
        /// Path of the field, such as `args.cni.ports[0].port`.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The agent's socket cannot be connected to.
    #[error("the node agent does not answer on {} ({source})", .socket.display())]
    AgentAway {
        /// The socket.
        socket: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The agent did not reply in time.
    #[error("the node agent on {} did not reply within {seconds} s", .socket.display())]
    AgentSilent {
        /// The socket.
        socket: PathBuf,
        /// How long the plugin waited.
        seconds: u64,
    },
    /// The plugin was asked whether it can serve, and there is no agent to talk to.
    #[error("{0}")]
    NotAvailable(#[source] Box<Error>),
    /// Whoever serves the socket is not root.
    #[error("{} is served by a process of uid {uid}, not of root", .socket.display())]
    Peer {
        /// The socket.
        socket: PathBuf,
        /// The uid of the process.
        uid: u32,
    },
    /// The agent's reply makes no sense.
    #[error("reply of the node agent: {0}")]
    Frame(#[from] FrameError),
    /// The agent's reply makes no sense.
    #[error("reply of the node agent: {reason}")]
    Reply {
        /// Why not.
        reason: String,
    },
    /// The kernel refused something.
    #[error("{operation}: {source}")]
    Kernel {
        /// What was tried.
        operation: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The agent is away and the deletion cannot be kept for it.
    #[error("the node agent is away, and the deletion cannot be kept in {}: {source}", .path.display())]
    Spool {
        /// File or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The agent could not do it.
    #[error("{}", .0.msg)]
    Agent(Failure),
}

impl Error {
    /// The error code.
    pub fn code(&self) -> u32 {
        match self {
            Self::Version { .. } => 1,
            Self::Environment { .. } => 4,
            Self::Stdin(_) | Self::Kernel { .. } | Self::Spool { .. } => 5,
            Self::Decode { .. } => 6,
            Self::Config { .. } => 7,
            Self::AgentAway { .. } | Self::AgentSilent { .. } => 11,
            Self::NotAvailable(_) => 50,
            Self::Frame(_) | Self::Reply { .. } => 100,
            Self::Peer { .. } => 101,
            Self::Agent(failure) => failure.code,
        }
    }

    /// The JSON that the specification asks for.
    pub fn to_json(&self, version: &str) -> Value {
        json!({
            "cniVersion": version,
            "code": self.code(),
            "msg": self.to_string(),
            "details": self.details(),
        })
    }

    /// What to do about it.
    fn details(&self) -> String {
        match self {
            Self::Version { .. } => {
                let known = SpecVersion::ALL.map(SpecVersion::as_str).join(", ");
                format!("supported: {known}; CHECK from 0.4.0, STATUS and GC from 1.1.0")
            }
            Self::AgentAway { .. } => "start ocicat-node on this node, or set `socket` in the CNI \
                                       configuration to its cni.sock; the runtime tries again"
                .to_owned(),
            Self::AgentSilent { .. } => {
                "look at `ocicat status` and the log of ocicat-node; the runtime tries again"
                    .to_owned()
            }
            Self::NotAvailable(cause) => cause.details(),
            Self::Peer { .. } => "the agent runs as root; stop whoever took its socket".to_owned(),
            Self::Frame(_) | Self::Reply { .. } => {
                "plugin and agent may be of different versions".to_owned()
            }
            Self::Agent(failure) => failure.details.clone(),
            Self::Environment { .. }
            | Self::Stdin(_)
            | Self::Decode { .. }
            | Self::Config { .. }
            | Self::Kernel { .. }
            | Self::Spool { .. } => String::new(),
        }
    }
}
