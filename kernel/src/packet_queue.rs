//! Packets that rules hold in a queue (`linux/netfilter/nfnetlink_queue.h`).

use crate::kernel::{OpenError, open};
use crate::netlink::{Encoder, Errno, Flags, Frame, NetlinkError, Protocol, Socket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use tokio::sync::mpsc;

/// `NFNL_SUBSYS_QUEUE << 8` with `NFQNL_MSG_PACKET`, `_VERDICT`, `_CONFIG`.
const PACKET: u16 = 3 << 8;
const VERDICT: u16 = PACKET | 1;
const CONFIG: u16 = PACKET | 2;
/// `enum nfqnl_attr_config`.
const CONFIG_COMMAND: u16 = 1;
const CONFIG_PARAMETERS: u16 = 2;
const CONFIG_LENGTH: u16 = 3;
const CONFIG_MASK: u16 = 4;
const CONFIG_FLAGS: u16 = 5;
/// `NFQNL_CFG_CMD_BIND`, `NFQNL_COPY_PACKET`, `NFQA_CFG_F_FAIL_OPEN`.
const BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
const FAIL_OPEN: u32 = 1;
/// `enum nfqnl_attr_type`.
const HEADER: u16 = 1;
const VERDICT_HEADER: u16 = 2;
const PAYLOAD: u16 = 10;
/// `NF_INET_PRE_ROUTING`
const PREROUTING: u8 = 0;
/// `NF_ACCEPT`
const ACCEPT: u32 = 1;
/// Packets that may wait; what comes beyond passes.
const QUEUE: usize = 1024;
/// How long the thread outlives its receiver at most.
const NOTICE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 500_000_000,
};

/// A packet that waits in the kernel, and goes on when this is dropped.
#[derive(Debug)]
pub struct HeldPacket {
    /// The packet from its IP header on, as much as was asked for.
    pub bytes: Vec<u8>,
    /// It waits before it is routed; else later on its way.
    pub before_routing: bool,
    queue: u16,
    id: u32,
    socket: Arc<OwnedFd>,
}

impl Drop for HeldPacket {
    fn drop(&mut self) {
        let mut verdict = Encoder::new(0);
        verdict.message(VERDICT, Flags::QUIET, &family(self.queue), |encoder| {
            let mut header = [0; 8];
            header[..4].copy_from_slice(&ACCEPT.to_be_bytes());
            header[4..].copy_from_slice(&self.id.to_be_bytes());
            encoder.attribute(VERDICT_HEADER, &header);
        });
        let flags = rustix::net::SendFlags::empty();
        if let Err(error) = rustix::net::send(self.socket.as_fd(), verdict.bytes(), flags) {
            tracing::warn!(%error, "a held packet is not let go");
        }
    }
}

/// Starts a thread that receives what rules in the calling thread's network namespace hold in
/// `queue`: the first `length` bytes of each packet. What waits when the receiver is dropped, or
/// the process ends, passes.
pub fn packet_queue(queue: u16, length: u32) -> Result<mpsc::Receiver<HeldPacket>, OpenError> {
    let failed = |errno| OpenError {
        what: "packet queue",
        errno,
    };
    let mut socket = open(Protocol::Netfilter)?;
    bind(&mut socket, queue, length).map_err(|error| {
        failed(match error {
            NetlinkError::Refused { errno, .. } | NetlinkError::Socket(errno) => errno,
            _ => Errno(libc::EPROTO),
        })
    })?;
    let answers = socket.as_fd().try_clone_to_owned();
    let answers = Arc::new(answers.map_err(|error| failed(error.into()))?);
    let (packets, receiver) = mpsc::channel(QUEUE);
    std::thread::Builder::new()
        .name(format!("packet-queue-{queue}"))
        .spawn(move || receive(socket, queue, &answers, &packets))
        .map_err(|error| failed(error.into()))?;
    Ok(receiver)
}

/// `struct nfgenmsg` of a queue.
fn family(queue: u16) -> [u8; 4] {
    let [high, low] = queue.to_be_bytes();
    [0, 0, high, low]
}

fn bind(socket: &mut Socket, queue: u16, length: u32) -> Result<(), NetlinkError> {
    let mut request = |attributes: &dyn Fn(&mut Encoder)| {
        let mut message = socket.encoder();
        message.message(CONFIG, Flags::QUIET, &family(queue), |encoder| {
            attributes(encoder);
        });
        socket.request(message)
    };
    request(&|encoder| encoder.attribute(CONFIG_COMMAND, &[BIND, 0, 0, 0]))?;
    request(&|encoder| {
        let mut parameters = [0; 5];
        parameters[..4].copy_from_slice(&length.to_be_bytes());
        parameters[4] = COPY_PACKET;
        encoder.attribute(CONFIG_PARAMETERS, &parameters);
        encoder.be_u32(CONFIG_LENGTH, QUEUE as u32);
        encoder.be_u32(CONFIG_FLAGS, FAIL_OPEN);
        encoder.be_u32(CONFIG_MASK, FAIL_OPEN);
    })
}

fn receive(
    mut socket: Socket,
    queue: u16,
    answers: &Arc<OwnedFd>,
    packets: &mpsc::Sender<HeldPacket>,
) {
    while !packets.is_closed() {
        let mut ready = [PollFd::new(&socket, PollFlags::IN)];
        // An interrupted wait is a short one.
        let _ = poll(&mut ready, Some(&NOTICE));
        loop {
            match socket.receive() {
                Ok(None) => break,
                Ok(Some(datagram)) => {
                    for frame in Frame::split(datagram).filter(|frame| frame.kind == PACKET) {
                        // Where there is no room, it is dropped here, and so goes on.
                        if let Some(packet) = held(frame, queue, answers) {
                            drop(packets.try_send(packet));
                        }
                    }
                }
                Err(Errno(libc::ENOBUFS)) => {}
                Err(errno) => {
                    // The receiver sees the end of the channel.
                    tracing::error!(%errno, "held packets cannot be read");
                    return;
                }
            }
        }
    }
}

fn held(frame: Frame<'_>, queue: u16, socket: &Arc<OwnedFd>) -> Option<HeldPacket> {
    let attributes = frame.attributes(4);
    // `struct nfqnl_msg_packet_hdr`: number, protocol, hook.
    let header = attributes.find(HEADER)?;
    let id = header.get(..4)?.try_into().ok()?;
    Some(HeldPacket {
        bytes: attributes.find(PAYLOAD).unwrap_or(&[]).to_vec(),
        before_routing: header.get(6) == Some(&PREROUTING),
        queue,
        id: u32::from_be_bytes(id),
        socket: Arc::clone(socket),
    })
}
