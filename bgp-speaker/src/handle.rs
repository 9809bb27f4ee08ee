//! The two ends that the owner of a speaker holds.

use crate::runtime::{self, Command};
use crate::watchers::Monitoring;
use bgp_core::{
    AdvertisedStatus, FibChange, LocalRoute, Operation, OperationError, PeerKey, Restart,
    RouteStatus, SpeakerConfig, SpeakerStatus, Stop,
};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use tokio::sync::{mpsc, oneshot};

/// How to start.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// An earlier process ran here and its kernel routes are kept: OPENs carry the R bit (RFC 4724)
    /// until the peer's first session or [`FibEvent::Converged`], which waits for an absent peer as
    /// long as its restart time, 30 s at least and 120 s at most, instead of 5 s.
    pub restarting: bool,
    /// The kernel goes on forwarding while no speaker runs: OPENs carry the F bit.
    pub forwarding_preserved: bool,
}

/// Why a speaker could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The thread could not be created.
    #[error("cannot start the BGP speaker's thread: {0}")]
    Thread(#[source] std::io::Error),
    /// The event loop could not be created.
    #[error("cannot start the BGP speaker's event loop: {0}")]
    EventLoop(#[source] std::io::Error),
}

/// The speaker's thread has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the BGP speaker has stopped")]
pub struct Gone;

/// What the owner is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FibEvent {
    /// Forwarding changes, at most one per prefix.
    Changes(Vec<FibChange>),
    /// The way to a peer is known to be broken: nothing should be forwarded to its address. Changes
    /// that say the same prefix by prefix follow.
    PathDown {
        /// Address of the peer.
        address: IpAddr,
        /// Index of the interface that a link-local address is on; 0 for others.
        scope: u32,
    },
    /// Comes once: every configured peer has sent all of its routes or was given up on, and all
    /// changes that follow from them have been delivered. Routes of an earlier process that have
    /// not been mentioned may go.
    Converged,
}

/// Where forwarding changes arrive. Dropping it says that nobody forwards by this speaker's routes.
pub type FibEvents = mpsc::Receiver<FibEvent>;

/// Controls a speaker. The speaker stops (as by [`Stop::Planned`]) when all handles are dropped.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
}

impl Handle {
    /// Replaces the configuration. Only sessions whose parameters differ are touched.
    pub fn configure(&self, config: SpeakerConfig) {
        // A speaker that has stopped needs no configuration; `status` tells that it has.
        let _ = self.commands.send(Command::Configure(Box::new(config)));
    }

    /// Replaces the routes that this node originates. Sessions start after the first call, so that
    /// a restarted speaker never tells its peers an empty table.
    pub fn local_routes(&self, routes: BTreeSet<LocalRoute>) {
        let _ = self.commands.send(Command::LocalRoutes(routes));
    }

    /// The state of all sessions.
    pub async fn status(&self) -> Result<SpeakerStatus, Gone> {
        self.ask(Command::Status).await
    }

    /// All known paths, with the reason why each is or is not in use.
    pub async fn routes(&self) -> Result<Vec<RouteStatus>, Gone> {
        self.ask(Command::Routes).await
    }

    /// Who is told about sessions and routes as they come.
    pub fn monitor(&self, monitoring: Monitoring) {
        let _ = self.commands.send(Command::Monitor(monitoring));
    }

    /// All known paths as an MRT file (RFC 6396, TABLE_DUMP_V2).
    pub async fn mrt_table(&self) -> Result<Vec<u8>, Gone> {
        self.ask(Command::MrtTable).await
    }

    /// What a peer is told; `None` without a session.
    pub async fn advertised(&self, peer: PeerKey) -> Result<Option<Vec<AdvertisedStatus>>, Gone> {
        self.ask(|answer| Command::Advertised(peer, answer)).await
    }

    /// Does something with the session of a peer.
    pub async fn operate(
        &self,
        peer: PeerKey,
        operation: Operation,
    ) -> Result<Result<(), OperationError>, Gone> {
        self.ask(|answer| Command::Operate(peer, operation, answer))
            .await
    }

    /// Announces to all peers that our routes are about to go away (RFC 8326), or that they are not.
    pub fn set_draining(&self, draining: bool) {
        let _ = self.commands.send(Command::Draining(draining));
    }

    /// A router has been found on an interface, or is there no more: its link-local address and the
    /// index of the interface.
    pub fn set_neighbour(&self, interface: String, neighbour: Option<(Ipv6Addr, u32)>) {
        let _ = self.commands.send(Command::Neighbour(interface, neighbour));
    }

    /// Stops the speaker; returns when its connections are closed.
    pub async fn shutdown(&self, stop: Stop) {
        // A speaker that is gone has stopped.
        let _ = self.ask(|done| Command::Shutdown(stop, done)).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Gone> {
        let (sender, receiver) = oneshot::channel();
        self.commands.send(command(sender)).map_err(|_| Gone)?;
        receiver.await.map_err(|_| Gone)
    }
}

/// Starts a speaker without peers on a thread of its own.
pub fn spawn(options: Options) -> Result<(Handle, FibEvents), SpawnError> {
    let (commands, command_queue) = mpsc::unbounded_channel();
    let (fib, fib_events) = mpsc::channel(1);
    let restart = Restart {
        restarting: options.restarting,
        forwarding_preserved: options.forwarding_preserved,
    };
    let event_loop = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(SpawnError::EventLoop)?;
    std::thread::Builder::new()
        .name("bgp-speaker".into())
        .spawn(move || event_loop.block_on(runtime::run(restart, command_queue, fib)))
        .map_err(SpawnError::Thread)?;
    Ok((Handle { commands }, fib_events))
}
