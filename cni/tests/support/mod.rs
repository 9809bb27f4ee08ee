//! Namespaces, an agent that answers once, and runs of the plugin.

use model::cni::{Reply, Request};
use ocicat_cni::frame::{read_frame, write_frame};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix,
    SocketType, recv, recvmsg, send,
};
use rustix::process::Uid;
use rustix::thread::set_thread_uid;
use serde_json::{Value, json};
use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A namespace with `lo` and `pod0`, removed when dropped (a panic included).
pub(crate) struct Netns(String);

impl Netns {
    pub(crate) fn new(tag: &str) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let netns = Self(format!("cnit-{tag}-{}-{number}", std::process::id()));
        ip(&["netns", "add", &netns.0]);
        ip(&["-n", &netns.0, "link", "add", "pod0", "type", "bridge"]);
        netns
    }

    pub(crate) fn path(&self) -> String {
        format!("/run/netns/{}", self.0)
    }

    pub(crate) fn inode(&self) -> u64 {
        std::fs::metadata(self.path())
            .expect("the namespace exists")
            .ino()
    }

    pub(crate) fn exec(&self, command: &[&str]) -> String {
        ip(&[&["netns", "exec", &self.0], command].concat())
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "delete", &self.0])
            .status();
    }
}

fn ip(args: &[&str]) -> String {
    let output = Command::new("ip")
        .args(args)
        .output()
        .expect("iproute2 is installed");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ip {args:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What the agent got.
pub(crate) struct Received {
    pub(crate) request: Request,
    /// Inode of the namespace that the first descriptor stands for.
    pub(crate) namespace_inode: Option<u64>,
    /// Links that the second descriptor shows, by name and in order.
    pub(crate) links: Vec<String>,
}

/// Serves one connection on a socket in a directory of its own.
pub(crate) struct Agent {
    pub(crate) socket: PathBuf,
    thread: Option<JoinHandle<Received>>,
    _listener: Option<OwnedFd>,
    _directory: tempfile::TempDir,
}

impl Agent {
    /// Answers with a proper frame.
    pub(crate) fn answer(reply: &Reply) -> Self {
        let mut bytes = Vec::new();
        let payload = serde_json::to_vec(reply).expect("a reply is JSON");
        write_frame(&mut bytes, &payload).expect("a reply is short");
        Self::raw(&bytes)
    }

    /// Answers with these bytes and closes.
    pub(crate) fn raw(bytes: &[u8]) -> Self {
        let bytes = bytes.to_vec();
        Self::serve(move |stream| {
            stream.write_all(&bytes).expect("the plugin listens");
        })
    }

    /// Reads the request and waits until the plugin has gone.
    pub(crate) fn silent() -> Self {
        Self::serve(|stream| {
            let _ = std::io::Read::read(stream, &mut [0]);
        })
    }

    /// A socket that another user listens on: the kernel notes the credentials of the thread that
    /// calls listen(2), and only that thread changes its own.
    pub(crate) fn of_uid(uid: u32) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = directory.path().join("cni.sock");
        let address = SocketAddrUnix::new(&socket).expect("the path is short");
        let listener = std::thread::spawn(move || {
            let listener = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)
                .expect("a socket");
            rustix::net::bind(&listener, &address).expect("the path is free");
            set_thread_uid(Uid::from_raw(uid)).expect("root may become anybody");
            rustix::net::listen(&listener, 1).expect("the socket is bound");
            listener
        });
        let listener = listener.join().expect("the thread listens");
        Self {
            socket,
            thread: None,
            _listener: Some(listener),
            _directory: directory,
        }
    }

    fn serve(answer: impl FnOnce(&mut UnixStream) + Send + 'static) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = directory.path().join("cni.sock");
        let listener = UnixListener::bind(&socket).expect("the socket is free");
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let received = receive(&mut stream);
            answer(&mut stream);
            received
        });
        Self {
            socket,
            thread: Some(thread),
            _listener: None,
            _directory: directory,
        }
    }

    pub(crate) fn received(mut self) -> Received {
        let thread = self.thread.take().expect("an agent that reads requests");
        thread.join().expect("the agent got a request")
    }
}

/// The descriptors come with the first byte.
fn receive(stream: &mut UnixStream) -> Received {
    let mut first = [0; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(
        &*stream,
        &mut [IoSliceMut::new(&mut first)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .expect("a first byte");
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            descriptors.extend(fds);
        }
    }
    let mut rest = std::io::Read::chain(&first[..], &mut *stream);
    let frame = read_frame(&mut rest).expect("a frame");
    let request = serde_json::from_slice(&frame).expect("a request");
    let namespace = descriptors.first();
    let namespace_inode = namespace.map(|fd| rustix::fs::fstat(fd).expect("a file").st_ino);
    let links = descriptors.get(1).map(links).unwrap_or_default();
    assert!(
        descriptors.len() == 2 || descriptors.is_empty(),
        "{descriptors:?}"
    );
    Received {
        request,
        namespace_inode,
        links,
    }
}

/// Dumps the links with one RTM_GETLINK, and finds IFLA_IFNAME in the answers.
fn links(socket: &OwnedFd) -> Vec<String> {
    const RTM_NEWLINK: u16 = 16;
    const RTM_GETLINK: u16 = 18;
    const NLM_F_REQUEST_DUMP: u16 = 0x301;
    const IFLA_IFNAME: u16 = 3;
    let mut request = Vec::new();
    request.extend(32u32.to_ne_bytes());
    request.extend(RTM_GETLINK.to_ne_bytes());
    request.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.extend([0; 24]);
    send(socket, &request, SendFlags::empty()).expect("the socket takes a request");
    let mut names = Vec::new();
    loop {
        let mut buffer = vec![0; 65_536];
        let (length, _) = recv(socket, &mut buffer[..], RecvFlags::empty()).expect("an answer");
        let mut messages = &buffer[..length];
        while let Some((head, _)) = messages.split_first_chunk::<6>() {
            let size = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
            if u16::from_ne_bytes([head[4], head[5]]) != RTM_NEWLINK {
                names.sort();
                return names;
            }
            names.extend(attribute(&messages[32..size], IFLA_IFNAME));
            messages = &messages[size.next_multiple_of(4).min(messages.len())..];
        }
    }
}

fn attribute(mut attributes: &[u8], wanted: u16) -> Option<String> {
    while let Some((head, _)) = attributes.split_first_chunk::<4>() {
        let size = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        if u16::from_ne_bytes([head[2], head[3]]) == wanted {
            let text = &attributes[4..size];
            return Some(
                String::from_utf8_lossy(text)
                    .trim_end_matches('\0')
                    .to_owned(),
            );
        }
        attributes = attributes.get(size.next_multiple_of(4)..)?;
    }
    None
}

/// One execution of the binary.
pub(crate) struct Plugin {
    variables: Vec<(&'static str, String)>,
    pub(crate) config: Value,
}

pub(crate) struct Ran {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!(
                "{error}: stdout {:?}, stderr {:?}",
                self.stdout, self.stderr
            )
        })
    }
}

impl Plugin {
    pub(crate) fn new(command: &str, socket: &Path) -> Self {
        let variables = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/opt/cni/bin"),
        ];
        Self {
            variables: variables.map(|(key, value)| (key, value.to_owned())).into(),
            config: json!({
                "cniVersion": "1.1.0", "name": "ocicat", "type": "ocicat", "socket": socket,
            }),
        }
    }

    pub(crate) fn netns(mut self, path: &str) -> Self {
        self.variable("CNI_NETNS", path);
        self
    }

    pub(crate) fn variable(&mut self, key: &'static str, value: &str) {
        self.variables.retain(|(name, _)| *name != key);
        self.variables.push((key, value.to_owned()));
    }

    pub(crate) fn run(&self) -> Ran {
        self.run_with(self.config.to_string().as_bytes())
    }

    pub(crate) fn run_with(&self, stdin: &[u8]) -> Ran {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ocicat-cni"))
            .env_clear()
            .envs(self.variables.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        // The plugin may refuse to read to the end.
        let _ = child.stdin.take().expect("it is piped").write_all(stdin);
        let output = child.wait_with_output().expect("the binary ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran {
            success: output.status.success(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }
}
