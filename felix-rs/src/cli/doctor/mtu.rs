//! The MTU of a path, by echo requests that nobody may fragment (RFC 4821's idea: what arrives
//! counts, not what routers say).

use super::super::table::Table;
use super::super::{Output, ask, formatted, value_of};
use crate::ctl::{PathsReport, Question};
use rustix::net::sockopt::{
    self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, Timeout, set_socket_timeout,
};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto};
use serde::Serialize;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How many paths are tried at once.
const AT_ONCE: usize = 32;
/// How often a length that does not come back is tried.
const ATTEMPTS: usize = 2;
/// How often that is done before a path is given up.
const FIRST_ATTEMPTS: usize = 4;
/// The least that every link carries (RFC 791, RFC 8200).
const LEAST: [u32; 2] = [576, 1280];

#[derive(Debug, clap::Args)]
pub(super) struct Mtu {
    /// Only to these nodes
    node: Vec<String>,
    /// How long an answer is waited for, in milliseconds
    #[arg(long, default_value_t = 300)]
    wait: u64,
}

/// What was found out about one path.
#[derive(Debug, Serialize)]
struct Measured {
    node: String,
    address: IpAddr,
    /// MTU in bytes; none where nobody answers.
    mtu: Option<u32>,
    /// What the agent reckons with.
    expected: u32,
}

impl Mtu {
    /// The paths, and whether one carries less than is reckoned with.
    pub(super) fn run(&self, run_dir: &Path, output: Output) -> Result<(String, bool), String> {
        let paths: PathsReport = value_of(ask(run_dir, &Question::Paths)?)?;
        let expected = paths.mtu;
        let asked = |name: &String| self.node.is_empty() || self.node.contains(name);
        let ends = paths.nodes.into_iter().filter(|(name, _)| asked(name));
        let ends = ends
            .flat_map(|(name, addresses)| addresses.into_iter().map(move |ip| (name.clone(), ip)));
        let queue: Mutex<VecDeque<(String, IpAddr)>> = Mutex::new(ends.collect());
        let wait = Duration::from_millis(self.wait.max(1));
        let mut measured = std::thread::scope(|scope| {
            let work = || {
                let mut done = Vec::new();
                loop {
                    let next = queue.lock().ok().and_then(|mut queue| queue.pop_front());
                    let Some((node, address)) = next else {
                        return Ok(done);
                    };
                    let mtu = path_mtu(address, expected, wait)
                        .map_err(|error| format!("{address}: {error}"))?;
                    done.push(Measured {
                        node,
                        address,
                        mtu,
                        expected,
                    });
                }
            };
            let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
            let mut all = Vec::new();
            for thread in threads {
                let done: Result<Vec<Measured>, String> =
                    thread.join().map_err(|_| "a probe panicked".to_owned())?;
                all.extend(done?);
            }
            Ok::<_, String>(all)
        })?;
        measured.sort_by(|a, b| (&a.node, a.address).cmp(&(&b.node, b.address)));
        let short = measured
            .iter()
            .any(|path| path.mtu.is_none_or(|mtu| mtu < expected));
        let text = formatted(output, &measured, || table(&measured))?;
        Ok((text, short))
    }
}

fn table(measured: &[Measured]) -> String {
    let mut table = Table::new(["NODE", "ADDRESS", "PATH MTU", "EXPECTED", "WHAT"]);
    for path in measured {
        let (mtu, what) = match path.mtu {
            None => ("-".to_owned(), "no answer to the shortest echo"),
            Some(mtu) if mtu < path.expected => (mtu.to_string(), "TOO SHORT: packets are lost"),
            Some(mtu) => (mtu.to_string(), "ok"),
        };
        let expected = path.expected.to_string();
        table.row([
            path.node.clone(),
            path.address.to_string(),
            mtu,
            expected,
            what.to_owned(),
        ]);
    }
    table.to_string()
}

/// The longest packet up to `most` bytes that is answered whole; none if not even the least is.
fn path_mtu(to: IpAddr, most: u32, wait: Duration) -> std::io::Result<Option<u32>> {
    let mut echo = Echo::open(to, wait)?;
    let least = LEAST[usize::from(to.is_ipv6())].min(most);
    // The first packet on a way may have to wait for neighbours to be found.
    let mut tries = 0..FIRST_ATTEMPTS;
    if !tries.try_fold(false, |seen, _| {
        Ok::<_, std::io::Error>(seen || echo.passes(least)?)
    })? {
        return Ok(None);
    }
    if echo.passes(most)? {
        return Ok(Some(most));
    }
    let (mut passes, mut fails) = (least, most);
    while fails - passes > 1 {
        let middle = passes + (fails - passes) / 2;
        match echo.passes(middle)? {
            true => passes = middle,
            false => fails = middle,
        }
    }
    Ok(Some(passes))
}

/// A raw socket for echoes of one family.
struct Echo {
    socket: OwnedFd,
    to: IpAddr,
    wait: Duration,
    sequence: u16,
}

impl Echo {
    fn open(to: IpAddr, wait: Duration) -> std::io::Result<Self> {
        let (family, protocol) = match to {
            IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
            IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
        };
        let socket = raw(family, protocol)?;
        // What routers said before is not believed: every length is tried.
        match to {
            IpAddr::V4(_) => sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?,
            IpAddr::V6(_) => sockopt::set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE)?,
        }
        set_socket_timeout(&socket, Timeout::Recv, Some(wait))?;
        // Answers of others are not shown.
        rustix::net::connect(&socket, &SocketAddr::new(to, 0))?;
        Ok(Self {
            socket,
            to,
            wait,
            sequence: 0,
        })
    }

    /// Whether a packet of this length is answered.
    fn passes(&mut self, length: u32) -> std::io::Result<bool> {
        for _ in 0..ATTEMPTS {
            if self.attempt(length)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn attempt(&mut self, length: u32) -> std::io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request(self.to, std::process::id() as u16, self.sequence, length);
        match rustix::net::send(&self.socket, &request, SendFlags::empty()) {
            Ok(_) => {}
            Err(rustix::io::Errno::MSGSIZE) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
        let deadline = Instant::now() + self.wait;
        let mut buffer = vec![0; 1 << 16];
        while Instant::now() < deadline {
            let received =
                rustix::net::recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty());
            let count = match received {
                Ok((count, _)) => count,
                // A router's word on the way, such as that it was too long, ends the wait as silence
                // does.
                Err(_) => break,
            };
            if is_answer(&buffer[..count], self.to, &request) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn raw(family: AddressFamily, protocol: rustix::net::Protocol) -> std::io::Result<OwnedFd> {
    Ok(rustix::net::socket(
        family,
        SocketType::RAW,
        Some(protocol),
    )?)
}

/// An echo request (RFC 792, RFC 4443) such that the packet has this length.
fn request(to: IpAddr, id: u16, sequence: u16, length: u32) -> Vec<u8> {
    let (kind, header) = if to.is_ipv4() { (8, 20) } else { (128, 40) };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length.saturating_sub(header).max(8)];
    bytes[0] = kind;
    bytes[4..6].copy_from_slice(&id.to_be_bytes());
    bytes[6..8].copy_from_slice(&sequence.to_be_bytes());
    // The kernel computes that of ICMPv6, with the addresses in it.
    if to.is_ipv4() {
        let sum = checksum(&bytes);
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        u32::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Whether it is the whole answer to the request. IPv4 raw sockets also show the IP header.
fn is_answer(packet: &[u8], from: IpAddr, request: &[u8]) -> bool {
    let (kind, message) = match from {
        IpAddr::V4(_) => {
            let header = packet
                .first()
                .map_or(0, |first| usize::from(first & 15) * 4);
            (0, packet.get(header..).unwrap_or_default())
        }
        IpAddr::V6(_) => (129, packet),
    };
    message.len() == request.len() && message[0] == kind && message[4..8] == request[4..8]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_makes_a_packet_of_the_length_that_is_tried() {
        for (to, header) in [("192.0.2.1", 20), ("2001:db8::1", 40)] {
            let bytes = request(to.parse().unwrap(), 7, 9, 1400);
            assert_eq!(bytes.len() + header, 1400);
        }
        let v4 = request("192.0.2.1".parse().unwrap(), 7, 9, 99);
        assert_eq!(checksum(&v4), 0, "the sum over a message with its sum");
    }

    #[test]
    fn only_the_whole_answer_to_this_request_counts() {
        let from = "2001:db8::1".parse().unwrap();
        let asked = request(from, 7, 9, 100);
        let mut answer = asked.clone();
        assert!(!is_answer(&answer, from, &asked), "the request itself");
        answer[0] = 129;
        assert!(is_answer(&answer, from, &asked));
        assert!(!is_answer(&answer[..50], from, &asked));
        answer[7] += 1;
        assert!(!is_answer(&answer, from, &asked));
        assert!(!is_answer(&[], from, &asked));
    }

    #[test]
    fn the_mtu_of_loopback_is_all_that_is_asked_for() {
        let wait = Duration::from_secs(5);
        match path_mtu("127.0.0.1".parse().unwrap(), 9000, wait) {
            Ok(mtu) => assert_eq!(mtu, Some(9000)),
            // Raw sockets need CAP_NET_RAW.
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
        }
    }
}
