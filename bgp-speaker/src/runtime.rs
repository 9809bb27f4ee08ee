//! The speaker's loop.

use crate::handle::FibEvent;
use bgp_core::{LocalRoute, Restart, RouteStatus, SpeakerConfig, SpeakerStatus, Stop};
use std::collections::BTreeSet;
use tokio::sync::{mpsc, oneshot};

/// What a handle asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Configure(Box<SpeakerConfig>),
    LocalRoutes(BTreeSet<LocalRoute>),
    Status(oneshot::Sender<SpeakerStatus>),
    Routes(oneshot::Sender<Vec<RouteStatus>>),
    Shutdown(Stop, oneshot::Sender<()>),
}

/// Runs until told to stop.
pub(crate) async fn run(
    _restart: Restart,
    mut commands: mpsc::UnboundedReceiver<Command>,
    fib: mpsc::Sender<FibEvent>,
) {
    while let Some(command) = commands.recv().await {
        match command {
            Command::Configure(_) | Command::LocalRoutes(_) => {
                let _ = fib.try_send(FibEvent::Converged);
            }
            Command::Status(answer) => drop(answer.send(SpeakerStatus::default())),
            Command::Routes(answer) => drop(answer.send(Vec::new())),
            Command::Shutdown(_, done) => return drop(done.send(())),
        }
    }
}
