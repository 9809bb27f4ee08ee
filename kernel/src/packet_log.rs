//! Packets that rules log to a group (`linux/netfilter/nfnetlink_log.h`).

use crate::kernel::{OpenError, open};
use crate::netlink::{Encoder, Errno, Flags, Frame, NetlinkError, Protocol, Socket, be_u32};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc;

/// `NFNL_SUBSYS_ULOG << 8` with `NFULNL_MSG_PACKET`, `_CONFIG`.
const PACKET: u16 = 4 << 8;
const CONFIG: u16 = PACKET | 1;
/// `enum nfulnl_attr_config`.
const CONFIG_COMMAND: u16 = 1;
const CONFIG_MODE: u16 = 2;
const CONFIG_TIMEOUT: u16 = 4;
const CONFIG_THRESHOLD: u16 = 5;
/// `NFULNL_CFG_CMD_BIND`, `NFULNL_COPY_PACKET`.
const BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
/// `enum nfulnl_attr_type`.
const IIF: u16 = 4;
const OIF: u16 = 5;
const PAYLOAD: u16 = 9;
const PREFIX: u16 = 10;
/// Packets that may wait for the receiver; what comes beyond is dropped and counted.
const QUEUE: usize = 1024;
/// How long the thread outlives its receiver at most.
const NOTICE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 500_000_000,
};

/// A packet that a rule logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedPacket {
    /// The prefix of the rule.
    pub prefix: String,
    /// Index of the interface that it came in by.
    pub iif: Option<u32>,
    /// Index of the interface that it goes out by.
    pub oif: Option<u32>,
    /// The packet from its IP header on, as much as was asked for.
    pub bytes: Vec<u8>,
    /// How many packets were lost before this one, because they came too fast.
    pub lost: u64,
}

/// Starts a thread that receives what rules in the calling thread's network namespace log to
/// `group`: the first `length` bytes of each packet. The thread ends soon after the receiver is
/// dropped.
pub fn packet_log(group: u16, length: u32) -> Result<mpsc::Receiver<LoggedPacket>, OpenError> {
    let mut socket = open(Protocol::Netfilter)?;
    bind(&mut socket, group, length).map_err(|error| OpenError {
        what: "packet log",
        errno: match error {
            NetlinkError::Refused { errno, .. } | NetlinkError::Socket(errno) => errno,
            _ => Errno(libc::EPROTO),
        },
    })?;
    let (packets, receiver) = mpsc::channel(QUEUE);
    std::thread::Builder::new()
        .name(format!("packet-log-{group}"))
        .spawn(move || receive(socket, &packets))
        .map_err(|error| OpenError {
            what: "packet log",
            errno: error.into(),
        })?;
    Ok(receiver)
}

fn bind(socket: &mut Socket, group: u16, length: u32) -> Result<(), NetlinkError> {
    let mut fixed = [0; 4];
    fixed[2..].copy_from_slice(&group.to_be_bytes());
    let mut bind = socket.encoder();
    bind.message(CONFIG, Flags::QUIET, &fixed, |encoder| {
        encoder.attribute(CONFIG_COMMAND, &[BIND]);
    });
    socket.request(bind)?;
    let mut mode = socket.encoder();
    mode.message(CONFIG, Flags::QUIET, &fixed, |encoder: &mut Encoder| {
        let mut bytes = [0; 6];
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        bytes[4] = COPY_PACKET;
        encoder.attribute(CONFIG_MODE, &bytes);
        // One packet a datagram, at once: a name that a pod has just resolved is waited for.
        encoder.be_u32(CONFIG_THRESHOLD, 1);
        encoder.be_u32(CONFIG_TIMEOUT, 1);
    });
    socket.request(mode)
}

fn receive(mut socket: Socket, packets: &mpsc::Sender<LoggedPacket>) {
    let mut lost = 0;
    while !packets.is_closed() {
        let mut ready = [PollFd::new(&socket, PollFlags::IN)];
        // An interrupted wait is a short one.
        let _ = poll(&mut ready, Some(&NOTICE));
        loop {
            match socket.receive() {
                Ok(None) => break,
                Ok(Some(datagram)) => {
                    for frame in Frame::split(datagram).filter(|frame| frame.kind == PACKET) {
                        let packet = logged(frame, lost);
                        match packets.try_send(packet) {
                            Ok(()) => lost = 0,
                            Err(_) => lost += 1,
                        }
                    }
                }
                Err(Errno(libc::ENOBUFS)) => lost += 1,
                Err(errno) => {
                    // The receiver sees the end of the channel.
                    tracing::error!(%errno, "logged packets cannot be read");
                    return;
                }
            }
        }
    }
}

fn logged(frame: Frame<'_>, lost: u64) -> LoggedPacket {
    let attributes = frame.attributes(4);
    LoggedPacket {
        prefix: attributes.text(PREFIX).unwrap_or_default(),
        iif: attributes.find(IIF).and_then(be_u32),
        oif: attributes.find(OIF).and_then(be_u32),
        bytes: attributes.find(PAYLOAD).unwrap_or(&[]).to_vec(),
        lost,
    }
}
