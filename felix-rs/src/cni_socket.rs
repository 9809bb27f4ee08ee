//! The socket on which the CNI plugin asks. See [`model::cni`] for the messages.
//!
//! A bad caller costs its own connection and nothing else: frames are bounded, reads have a
//! deadline, and only root is listened to.

use crate::add_times::{AddTimes, Laps, Phase};
use model::cni::{Failure, MAX_FRAME, PROTOCOL_VERSION, Reply, Request};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

/// A caller that has not said its request after this long is dropped.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
/// Code of the CNI specification: failed to decode content.
const DECODE_FAILURE: u32 = 6;

/// A request with the descriptors that came with it, and where the answer goes.
pub(crate) struct Call {
    /// What is asked.
    pub(crate) request: Request,
    /// The pod's network namespace, then the netlink socket inside it.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// Where its time goes.
    pub(crate) laps: Laps,
    answer: oneshot::Sender<(Reply, Laps)>,
}

impl Call {
    /// Answers. A plugin that is gone needs no answer, and one that gave up waiting sends DEL for
    /// what it did not get to know.
    pub(crate) fn answer(self, reply: Reply) {
        let _ = self.answer.send((reply, self.laps));
    }
}

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub(crate) struct ListenError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// Listen on `path`, readable by root only; what an earlier process left there is replaced.
pub(crate) fn listen(path: &Path) -> Result<UnixListener, ListenError> {
    let bind = || {
        if let Some(folder) = path.parent() {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(folder)?;
        }
        // Bound under another name first, so that the socket is never there with wider rights.
        let temporary = path.with_extension("new");
        let _ = std::fs::remove_file(&temporary);
        let listener = UnixListener::bind(&temporary)?;
        std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&temporary, path)?;
        Ok(listener)
    };
    bind().map_err(|source| ListenError {
        path: path.to_owned(),
        source,
    })
}

/// Accept callers for as long as somebody takes their calls.
pub(crate) async fn serve(listener: UnixListener, calls: mpsc::Sender<Call>, times: AddTimes) {
    while !calls.is_closed() {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (calls, times) = (calls.clone(), times.clone());
                tokio::spawn(async move {
                    if let Err(error) = answer(stream, calls, times).await {
                        tracing::warn!(%error, "CNI caller dropped");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "CNI socket: accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("uid {0} is not root")]
    NotRoot(u32),
    #[error("nothing readable within {} s", REQUEST_DEADLINE.as_secs())]
    Deadline,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the agent is stopping")]
    Stopping,
}

#[derive(Debug, thiserror::Error)]
enum FrameError {
    #[error("frame of {0} bytes; at most {MAX_FRAME} are taken")]
    TooLong(usize),
    #[error("not a request: {0}")]
    Json(#[from] serde_json::Error),
    #[error("protocol version {0}; this agent speaks up to {PROTOCOL_VERSION}")]
    Version(u32),
}

async fn answer(
    mut stream: UnixStream,
    calls: mpsc::Sender<Call>,
    times: AddTimes,
) -> Result<(), CallError> {
    let uid = stream.peer_cred()?.uid();
    if uid != 0 {
        return Err(CallError::NotRoot(uid));
    }
    let read = tokio::time::timeout(REQUEST_DEADLINE, read_request(&mut stream));
    let (reply, laps) = match read.await.map_err(|_| CallError::Deadline)?? {
        Ok((request, descriptors)) => {
            let (answer, receiver) = oneshot::channel();
            let call = Call {
                laps: Laps::begin(request.times),
                request,
                descriptors,
                answer,
            };
            calls.send(call).await.map_err(|_| CallError::Stopping)?;
            let (reply, laps) = receiver.await.map_err(|_| CallError::Stopping)?;
            let added = matches!(reply, Reply::Added(_));
            (reply, added.then_some(laps))
        }
        Err(error) => {
            tracing::warn!(%error, "CNI request refused");
            let failure = Failure {
                code: DECODE_FAILURE,
                msg: format!("request to the agent: {error}"),
                details: String::new(),
            };
            (Reply::Failed(failure), None)
        }
    };
    stream.write_all(&frame(&reply)).await?;
    if let Some(mut laps) = laps {
        laps.lap(Phase::Answer);
        times.observe(&laps);
    }
    Ok(())
}

type Received = Result<(Request, Vec<OwnedFd>), FrameError>;

async fn read_request(stream: &mut UnixStream) -> Result<Received, std::io::Error> {
    let mut descriptors = Vec::new();
    let mut length = [0_u8; 4];
    let mut filled = 0;
    while filled < length.len() {
        stream.readable().await?;
        let rest = length.get_mut(filled..).unwrap_or_default();
        let received = stream.try_io(Interest::READABLE, || {
            receive(stream, rest, &mut descriptors)
        });
        match received {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_FRAME {
        return Ok(Err(FrameError::TooLong(length)));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(parse(&body).map(|request| (request, descriptors)))
}

/// What requests of every version have.
#[derive(serde::Deserialize)]
struct Head {
    version: u32,
}

fn parse(body: &[u8]) -> Result<Request, FrameError> {
    let Head { version } = serde_json::from_slice(body)?;
    if version > PROTOCOL_VERSION {
        return Err(FrameError::Version(version));
    }
    Ok(serde_json::from_slice(body)?)
}

/// One `recvmsg`, keeping the descriptors that ride on it; at most two are taken.
fn receive(
    stream: &UnixStream,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> Result<usize, std::io::Error> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = recvmsg(
        stream.as_fd(),
        &mut [IoSliceMut::new(buffer)],
        &mut control,
        flags,
    )?;
    for ancillary in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = ancillary {
            descriptors.extend(received);
        }
    }
    Ok(message.bytes)
}

/// Length and JSON of a message.
pub(crate) fn frame(message: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message).expect("invariant: messages serialise to JSON");
    let length = u32::try_from(bytes.len() - 4).expect("invariant: a message is below 4 GiB");
    let mut head = bytes
        .get_mut(..4)
        .expect("invariant: four bytes were reserved");
    head.write_all(&length.to_be_bytes())
        .expect("invariant: the head has four bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_a_later_version_is_refused_by_its_number_whatever_it_holds() {
        let later = br#"{"version": 7, "command": {"Migrate": []}}"#;
        let error = parse(later).map(drop).unwrap_err().to_string();
        assert_eq!(error, "protocol version 7; this agent speaks up to 1");
    }
}
