//! BFD on a thread of its own: sockets and timers around [`bgp_core::bfd`].
//!
//! The thread waits for nothing but its sockets, its timers and commands. It is a real-time one
//! where that is permitted, so that neither a full table nor a busy node costs a packet.

mod engine;
mod socket;

use bgp_core::bfd::Transition;
use bgp_core::{PeerId, WatchedPath};
use engine::Engine;
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use tokio::sync::{mpsc, oneshot};

/// A change on a path; `from` is the state of the report if only that has changed.
pub(crate) type Change = (PeerId, Transition);

#[derive(Debug)]
enum Command {
    Watch(PeerId, Box<WatchedPath>),
    Forget(PeerId),
    Stop(oneshot::Sender<()>),
}

/// The thread; it ends with the value.
#[derive(Debug)]
pub(crate) struct Bfd {
    commands: Option<Sender<Command>>,
    wake: Arc<OwnedFd>,
}

impl Bfd {
    /// Starts the thread.
    ///
    /// # Errors
    /// If it cannot be created.
    pub(crate) fn spawn(changes: mpsc::UnboundedSender<Change>) -> io::Result<Self> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (commands, queue) = channel();
        let engine = Engine::new(queue, Arc::clone(&wake), changes);
        std::thread::Builder::new()
            .name("bfd".into())
            .spawn(move || engine.run())?;
        Ok(Self {
            commands: Some(commands),
            wake,
        })
    }

    /// Watches a path, in place of an earlier one of the same peer.
    pub(crate) fn watch(&self, peer: PeerId, path: Box<WatchedPath>) {
        self.send(Command::Watch(peer, path));
    }

    /// Watches it no longer.
    pub(crate) fn forget(&self, peer: PeerId) {
        self.send(Command::Forget(peer));
    }

    /// Tells all peers that what follows is no failure of the path (AdminDown), and ends when they
    /// have heard it, or after a bounded time.
    pub(crate) async fn stop(self) {
        let (done, stopped) = oneshot::channel();
        self.send(Command::Stop(done));
        // A thread that is gone has stopped.
        let _ = stopped.await;
    }

    fn send(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // The thread ends only after this value.
            let _ = commands.send(command);
        }
        self.wake();
    }

    fn wake(&self) {
        // It fails only if 2^64 wake-ups are waiting.
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
    }
}

impl Drop for Bfd {
    fn drop(&mut self) {
        drop(self.commands.take());
        self.wake();
    }
}
