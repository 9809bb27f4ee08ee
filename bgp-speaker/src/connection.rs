//! A TCP connection: a task that reads, a task that writes, and what the loop holds of them.

use crate::drops::Drops;
use crate::runtime::Event;
use crate::sys;
use bgp_core::{ConnectionId, Password, SocketOptions};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

/// Octets read at a time.
const READ: usize = 64 * 1024;
/// How long a peer that does not read is borne with (RFC 9687).
const SEND_HOLD: Duration = Duration::from_secs(480);
/// How long the peer has to close its side after our last message: closing with unread octets
/// would reset the connection and the message might be lost.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// How long a peer has to answer: less than the session's patience, so that what the kernel has
/// dropped meanwhile can be told.
const ANSWER: Duration = Duration::from_secs(9);

/// What the loop holds of a connection. Dropping it aborts dialling and reading.
#[derive(Debug)]
pub(crate) struct Connection {
    /// While it is being opened.
    pub(crate) options: Option<SocketOptions>,
    /// The writer has messages and will say when it wants more.
    pub(crate) writing: bool,
    /// The socket once more, to change its password; only if it has one.
    signed: Option<OwnedFd>,
    outgoing: Option<mpsc::UnboundedSender<Outgoing>>,
    dialling: Option<AbortHandle>,
}

/// For the writer. The loop sends no second batch before the first is written.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Messages(Vec<Arc<[u8]>>),
    /// The end of the connection.
    Last(Vec<u8>),
}

impl Connection {
    /// The options that it is being opened with.
    pub(crate) fn into_options(mut self) -> Option<SocketOptions> {
        self.options.take()
    }

    /// Signs with another password from here on, retransmissions included.
    pub(crate) fn rekey(&self, peer: IpAddr, password: &Password) -> io::Result<()> {
        match &self.signed {
            Some(socket) => sys::set_md5_password(socket, sys::host(peer), Some(password.expose())),
            None => Ok(()),
        }
    }

    pub(crate) fn send(&self, outgoing: Outgoing) {
        if let Some(sender) = &self.outgoing {
            // A writer that is gone has told why, and the event is on its way.
            let _ = sender.send(outgoing);
        }
    }

    /// Sends `last` after what is being written, then closes.
    pub(crate) fn close(self, last: Vec<u8>) {
        self.send(Outgoing::Last(last));
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(dialling) = &self.dialling {
            dialling.abort();
        }
    }
}

/// Opens a connection; the result comes as an event.
pub(crate) fn dial(
    id: ConnectionId,
    target: SocketAddr,
    options: SocketOptions,
    events: mpsc::Sender<Event>,
    tasks: &mut JoinSet<()>,
) -> Connection {
    let attempt = options.clone();
    let task = tasks.spawn(async move {
        let before = Drops::read();
        let event = match tokio::time::timeout(ANSWER, connect(target, &attempt)).await {
            Ok(Ok(stream)) => Event::Connected(id, stream),
            Ok(Err(error)) => Event::ConnectFailed(id, why_not(&error, &attempt, before)),
            Err(_) => {
                let error = io::ErrorKind::TimedOut.into();
                Event::ConnectFailed(id, why_not(&error, &attempt, before))
            }
        };
        // The loop has ended.
        let _ = events.send(event).await;
    });
    Connection {
        options: Some(options),
        writing: false,
        signed: None,
        outgoing: None,
        dialling: Some(task),
    }
}

/// Why there is no connection, with what the kernel has dropped meanwhile: it answers wrong
/// signatures and distant senders with silence.
fn why_not(error: &io::Error, attempt: &SocketOptions, before: Drops) -> String {
    match (error.kind(), attempt.source, &attempt.device) {
        (io::ErrorKind::AddrNotAvailable, Some(source), _) => {
            format!("source address {source} is not on this node")
        }
        (io::ErrorKind::NotFound, _, Some(device)) => {
            format!("device {device} is not on this node")
        }
        (io::ErrorKind::TimedOut, _, _) => {
            let mut words = words(error);
            words.extend(before.since(attempt));
            words
        }
        _ => words(error),
    }
}

async fn connect(target: SocketAddr, options: &SocketOptions) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(target),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    secure(&socket, target.ip(), options)?;
    if let Some(device) = &options.device {
        let bound = socket.bind_device(Some(device.as_bytes()));
        bound.map_err(|error| match error.raw_os_error() {
            Some(libc::ENODEV) => io::ErrorKind::NotFound.into(),
            _ => error,
        })?;
    }
    if let Some(source) = options.source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    TcpSocket::from_std_stream(socket.into())
        .connect(target)
        .await
}

/// Sets the options of an established connection.
///
/// # Errors
/// Why the connection must not be used.
pub(crate) fn prepare(stream: &TcpStream, options: &SocketOptions) -> Result<(), String> {
    let set = || {
        stream.set_nodelay(true)?;
        let peer = stream.peer_addr()?.ip();
        secure(&SockRef::from(stream), peer, options)?;
        Ok(peer.is_ipv4())
    };
    let ipv4 = set()
        .map_err(|error: io::Error| format!("cannot set the options of its connection: {error}"))?;
    // Its segments would be dropped from here on, and nobody would know why.
    match sys::first_ttl(stream, ipv4) {
        Some(ttl) if ttl < options.min_ttl => Err(format!(
            "the peer connects with TTL {ttl}, and ttlSecurity asks for {} or more",
            options.min_ttl
        )),
        _ => Ok(()),
    }
}

/// TTLs and signatures.
fn secure(socket: &Socket, peer: IpAddr, options: &SocketOptions) -> io::Result<()> {
    set_ttl(socket, peer.is_ipv4(), options.ttl)?;
    if options.min_ttl > 0 {
        sys::set_min_ttl(socket, peer.is_ipv4(), options.min_ttl)?;
    }
    match &options.password {
        Some(password) => sys::set_md5_password(socket, sys::host(peer), Some(password.expose())),
        None => Ok(()),
    }
}

fn set_ttl(socket: &Socket, ipv4: bool, ttl: u8) -> io::Result<()> {
    if ipv4 {
        socket.set_ttl_v4(ttl.into())
    } else {
        socket.set_unicast_hops_v6(ttl.into())
    }
}

/// Starts reading and writing.
pub(crate) fn serve(
    id: ConnectionId,
    stream: TcpStream,
    signed: bool,
    events: mpsc::Sender<Event>,
    tasks: &mut JoinSet<()>,
) -> Connection {
    let duplicate = || stream.as_fd().try_clone_to_owned().ok();
    let signed = signed.then(duplicate).flatten();
    let (reader, writer) = stream.into_split();
    // The loop bounds this queue: one batch, and the last message.
    let (sender, outgoing) = mpsc::unbounded_channel();
    let reading = tasks.spawn(read(id, reader, events.clone()));
    tasks.spawn(write(id, writer, outgoing, events, reading));
    Connection {
        options: None,
        writing: false,
        signed,
        outgoing: Some(sender),
        dialling: None,
    }
}

async fn read(id: ConnectionId, stream: OwnedReadHalf, events: mpsc::Sender<Event>) {
    loop {
        let event = match next_octets(&stream).await {
            Ok(octets) if octets.is_empty() => {
                Event::Lost(id, "the peer closed the connection".into())
            }
            Ok(octets) => Event::Received(id, octets),
            Err(error) => Event::Lost(id, words(&error)),
        };
        let over = matches!(event, Event::Lost(..));
        if events.send(event).await.is_err() || over {
            return;
        }
    }
}

/// Takes memory only when there is something to read: most of many connections are idle.
async fn next_octets(stream: &OwnedReadHalf) -> io::Result<Vec<u8>> {
    loop {
        stream.readable().await?;
        let mut octets = Vec::with_capacity(READ);
        match stream.try_read_buf(&mut octets) {
            Ok(_) => return Ok(octets),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn write(
    id: ConnectionId,
    mut stream: OwnedWriteHalf,
    mut outgoing: mpsc::UnboundedReceiver<Outgoing>,
    events: mpsc::Sender<Event>,
    reading: AbortHandle,
) {
    while let Some(batch) = outgoing.recv().await {
        match batch {
            Outgoing::Messages(messages) => {
                let writing = write_all(&mut stream, &messages);
                let failure = match tokio::time::timeout(SEND_HOLD, writing).await {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(words(&error)),
                    Err(_) => Some("send hold timer expired: the peer does not read".into()),
                };
                if let Some(failure) = failure {
                    let _ = events.send(Event::Lost(id, failure)).await;
                    break;
                }
                if events.send(Event::Written(id)).await.is_err() {
                    break;
                }
            }
            Outgoing::Last(last) => {
                // The peer may be gone already, and the session is over in any case.
                let _ = stream.write_all(&last).await;
                let _ = stream.shutdown().await;
                drop(events);
                wait_for(&reading).await;
                break;
            }
        }
    }
    reading.abort();
}

async fn write_all(stream: &mut OwnedWriteHalf, messages: &[Arc<[u8]>]) -> io::Result<()> {
    // Small messages go out in one segment.
    if messages.len() > 1 {
        return stream.write_all(&messages.concat()).await;
    }
    for message in messages {
        stream.write_all(message).await?;
    }
    Ok(())
}

/// Until the peer has closed its side too, or [`LINGER`] is over.
async fn wait_for(reading: &AbortHandle) {
    let closed = async {
        while !reading.is_finished() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let _ = tokio::time::timeout(LINGER, closed).await;
}

/// An error of a connection in words that name the cause.
pub(crate) fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::TimedOut => "no answer".into(),
        io::ErrorKind::HostUnreachable => "no route to host".into(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".into(),
        io::ErrorKind::ConnectionReset => "the peer reset the connection".into(),
        _ => error.to_string(),
    }
}
