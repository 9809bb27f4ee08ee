//! One request to the agent, and its reply.

use crate::Error;
use crate::frame::{FrameError, frame, read_frame};
use model::cni::{Reply, Request};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, sendmsg, socket_with, sockopt,
};
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A connection to the agent. Every wait on it is bounded.
#[derive(Debug)]
pub(crate) struct Agent {
    stream: UnixStream,
    socket: PathBuf,
    timeout: Duration,
}

impl Agent {
    /// Connects, and makes sure that root is at the other end.
    pub(crate) fn connect(socket: &Path, timeout: Duration) -> Result<Self, Error> {
        let stream = open(socket, timeout).map_err(|source| Error::AgentAway {
            socket: socket.to_owned(),
            source,
        })?;
        let peer = sockopt::socket_peercred(&stream).map_err(|errno| Error::Kernel {
            operation: "SO_PEERCRED",
            source: errno.into(),
        })?;
        if !peer.uid.is_root() {
            return Err(Error::Peer {
                socket: socket.to_owned(),
                uid: peer.uid.as_raw(),
            });
        }
        Ok(Self {
            stream,
            socket: socket.to_owned(),
            timeout,
        })
    }

    /// Sends the request with the descriptors on its first byte, and waits for the reply.
    pub(crate) fn call(
        mut self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Reply, Error> {
        let payload = serde_json::to_vec(request)
            .expect("invariant: a request has string keys and no floats");
        let result = self
            .send(&frame(&payload)?, fds)
            .map_err(FrameError::Io)
            .and_then(|()| read_frame(&mut self.stream));
        let reply = result.map_err(|error| self.explain(error))?;
        serde_json::from_slice(&reply).map_err(|error| Error::Reply {
            reason: error.to_string(),
        })
    }

    fn send(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            let pushed = control.push(SendAncillaryMessage::ScmRights(fds));
            debug_assert!(pushed, "there is space for two descriptors");
        }
        let sent = loop {
            match sendmsg(
                &self.stream,
                &[IoSlice::new(bytes)],
                &mut control,
                SendFlags::NOSIGNAL,
            ) {
                Err(rustix::io::Errno::INTR) => {}
                sent => break sent?,
            }
        };
        self.stream.write_all(&bytes[sent..])
    }

    fn explain(&self, error: FrameError) -> Error {
        match error {
            FrameError::Io(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Error::AgentSilent {
                    socket: self.socket.clone(),
                    seconds: self.timeout.as_secs(),
                }
            }
            // The agent went away while it was being talked to.
            FrameError::Io(source) => Error::AgentAway {
                socket: self.socket.clone(),
                source,
            },
            FrameError::Closed => Error::AgentAway {
                socket: self.socket.clone(),
                source: io::ErrorKind::ConnectionAborted.into(),
            },
            error => Error::Frame(error),
        }
    }
}

/// The timeout holds for connecting too: a listener with a full backlog would block it.
fn open(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    for direction in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
        sockopt::set_socket_timeout(&socket, direction, Some(timeout))?;
    }
    connect(&socket, &address)?;
    Ok(UnixStream::from(socket))
}
