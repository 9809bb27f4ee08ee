//! A TCP connection: what the loop holds of it, a task that waits until there is something to read,
//! and one that waits until there is room to write. The loop reads and writes itself.

use crate::drops::Drops;
use crate::runtime::Event;
use crate::sys;
use bgp_core::{ConnectionId, Password, SocketOptions};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinSet};

/// Pieces written with one call.
const PIECES: usize = 64;
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
    options: Option<SocketOptions>,
    open: Option<Open>,
    dialling: Option<AbortHandle>,
}

/// A connection once it is there.
#[derive(Debug)]
struct Open {
    stream: Arc<TcpStream>,
    /// Its segments are signed.
    signed: bool,
    /// The loop has read what there was.
    drained: Arc<Notify>,
    /// The task that waits for room has messages and will say when they are written.
    writing: bool,
    outgoing: mpsc::UnboundedSender<Outgoing>,
}

/// For the task that waits for room. The loop sends no second batch before the first is written.
#[derive(Debug)]
enum Outgoing {
    Messages(Backlog),
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
        match &self.open {
            Some(open) if open.signed => {
                let secret = Some(password.expose());
                sys::set_md5_password(&open.stream, sys::host(peer), secret)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Reads without waiting.
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.open {
            Some(open) => open.stream.try_read(buffer),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Tell again when there is something to read.
    pub(crate) fn wait_readable(&self) {
        if let Some(open) = &self.open {
            open.drained.notify_one();
        }
    }

    /// Whether what was to be written earlier still waits for room.
    pub(crate) fn is_writing(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.writing)
    }

    /// What had to wait for room is written.
    pub(crate) fn written(&mut self) {
        if let Some(open) = &mut self.open {
            open.writing = false;
        }
    }

    /// Writes without waiting; what is left is to go to [`Connection::write`].
    pub(crate) fn try_write(&self, messages: Vec<Arc<[u8]>>) -> Backlog {
        let mut backlog = Backlog::new(messages);
        if let Some(open) = &self.open {
            // What is wrong with the connection will be found by those that wait for it.
            let _ = backlog.write(&open.stream);
        }
        backlog
    }

    /// Has messages written as there is room.
    pub(crate) fn write(&mut self, messages: Backlog) {
        if let Some(open) = self.open.as_mut().filter(|_| !messages.is_empty()) {
            open.writing = true;
            // A task that is gone has told why, and the event is on its way.
            let _ = open.outgoing.send(Outgoing::Messages(messages));
        }
    }

    /// Sends `last` after what is being written, then closes.
    pub(crate) fn close(self, last: Vec<u8>) {
        if let Some(open) = &self.open {
            let _ = open.outgoing.send(Outgoing::Last(last));
        }
    }
}

/// Messages of which some octets may be written.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    messages: VecDeque<Arc<[u8]>>,
    /// Octets of the first one that are.
    written: usize,
}

impl Backlog {
    pub(crate) fn new(messages: Vec<Arc<[u8]>>) -> Self {
        Self {
            messages: messages.into(),
            written: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Writes as much as there is room for.
    fn write(&mut self, stream: &TcpStream) -> io::Result<()> {
        while !self.messages.is_empty() {
            let mut skip = self.written;
            let pieces: Vec<IoSlice<'_>> = self
                .messages
                .iter()
                .take(PIECES)
                .map(|message| IoSlice::new(&message[std::mem::take(&mut skip)..]))
                .collect();
            let count = match stream.try_write_vectored(&pieces) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            self.advance(count);
        }
        Ok(())
    }

    fn advance(&mut self, count: usize) {
        self.written += count;
        while let Some(first) = self.messages.front()
            && self.written >= first.len()
        {
            self.written -= first.len();
            self.messages.pop_front();
        }
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
        open: None,
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

/// Starts the tasks of a connection that is there.
pub(crate) fn serve(
    id: ConnectionId,
    stream: TcpStream,
    signed: bool,
    events: mpsc::Sender<Event>,
    tasks: &mut JoinSet<()>,
) -> Connection {
    let stream = Arc::new(stream);
    let drained = Arc::new(Notify::new());
    // The loop bounds this queue: one batch, and the last message.
    let (sender, outgoing) = mpsc::unbounded_channel();
    let reading = wait_readable(
        id,
        Arc::clone(&stream),
        Arc::clone(&drained),
        events.clone(),
    );
    let reading = tasks.spawn(reading);
    tasks.spawn(write(id, Arc::clone(&stream), outgoing, events, reading));
    Connection {
        options: None,
        open: Some(Open {
            stream,
            signed,
            drained,
            writing: false,
            outgoing: sender,
        }),
        dialling: None,
    }
}

async fn wait_readable(
    id: ConnectionId,
    stream: Arc<TcpStream>,
    drained: Arc<Notify>,
    events: mpsc::Sender<Event>,
) {
    loop {
        let event = match stream.readable().await {
            Ok(()) => Event::Readable(id),
            Err(error) => Event::Lost(id, words(&error)),
        };
        if events.send(event).await.is_err() {
            return;
        }
        drained.notified().await;
    }
}

async fn write(
    id: ConnectionId,
    stream: Arc<TcpStream>,
    mut outgoing: mpsc::UnboundedReceiver<Outgoing>,
    events: mpsc::Sender<Event>,
    reading: AbortHandle,
) {
    while let Some(batch) = outgoing.recv().await {
        match batch {
            Outgoing::Messages(messages) => {
                let writing = write_all(&stream, messages);
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
                reading.abort();
                drop(events);
                farewell(&stream, last).await;
                break;
            }
        }
    }
    reading.abort();
}

async fn write_all(stream: &TcpStream, mut messages: Backlog) -> io::Result<()> {
    loop {
        messages.write(stream)?;
        if messages.is_empty() {
            return Ok(());
        }
        stream.writable().await?;
    }
}

/// The last message, and then until the peer has closed its side too or [`LINGER`] is over.
async fn farewell(stream: &TcpStream, last: Vec<u8>) {
    let farewell = async {
        // The peer may be gone already, and the session is over in any case.
        write_all(stream, Backlog::new(vec![last.into()])).await?;
        SockRef::from(stream).shutdown(Shutdown::Write)?;
        let mut unread = [0; 4096];
        loop {
            stream.readable().await?;
            match stream.try_read(&mut unread) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    };
    let _: Result<io::Result<()>, _> = tokio::time::timeout(LINGER, farewell).await;
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
