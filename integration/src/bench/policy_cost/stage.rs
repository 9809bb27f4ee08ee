//! A node between a client and servers.

use super::{COUNTS, port};
use crate::bench::policy_world::nanoseconds_of_one;
use crate::lab::link::End;
use crate::lab::{Lab, Netns};
use anyhow::{Context, Result, ensure};
use kernel::Kernel;
use rustix::net::sockopt;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 245, 1, 1);
/// Time of one measurement.
const TIME: Duration = Duration::from_millis(40);
const LIMIT: Duration = Duration::from_secs(2);

/// The address of a server.
pub(super) fn server(at: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 245, 0, 1 + at as u8)
}

/// Indices of the node's ends of the links.
#[derive(Debug, Default)]
pub(super) struct Links {
    pub(super) client: u32,
    pub(super) servers: [u32; COUNTS.len()],
}

/// A pod that sends, a node, and pods that receive: one for each number of policies.
pub(super) struct Stage {
    pub(super) name: &'static str,
    pub(super) node: Netns,
    pub(super) kernel: Kernel,
    pub(super) links: Links,
    client: Netns,
    packets: UdpSocket,
    servers: Vec<Server>,
}

struct Server {
    listener: TcpListener,
    packets: UdpSocket,
}

impl Stage {
    pub(super) fn new(lab: &Lab, name: &'static str) -> Result<Self> {
        let node = lab.netns(name)?;
        let client = wired(lab, &node, name, "client", CLIENT)?;
        let mut servers = vec![];
        for (at, count) in COUNTS.into_iter().enumerate() {
            let netns = wired(lab, &node, name, &at.to_string(), server(at))?;
            let address = SocketAddr::from((server(at), port(count)));
            let server = netns.within(|| -> Result<Server> {
                let packets = UdpSocket::bind(address)?;
                // A queue that is full soon, and stays so: then all packets take the same way.
                sockopt::set_socket_recv_buffer_size(&packets, 1)?;
                packets.set_read_timeout(Some(LIMIT))?;
                Ok(Server {
                    listener: TcpListener::bind(address)?,
                    packets,
                })
            })??;
            servers.push(server);
        }
        node.set_sysctl("net.ipv4.ip_forward", "1")?;
        // Without tracking, no packet belongs to a connection that is established.
        node.run(&["nft", "add table ip raw; add chain ip raw pre { type filter hook prerouting priority -350; }; \
             add rule ip raw pre meta l4proto udp notrack"])?;
        let mut kernel = node.within(Kernel::open)?.context("netlink")?;
        let mut links = Links::default();
        for link in kernel.links()? {
            match link.name.strip_prefix("oci") {
                Some("client") => links.client = link.ifindex,
                Some(at) => links.servers[at.parse::<usize>()?] = link.ifindex,
                None => {}
            }
        }
        let packets = client.within(|| UdpSocket::bind((CLIENT, 0)))??;
        Ok(Self {
            name,
            node,
            kernel,
            links,
            client,
            packets,
            servers,
        })
    }

    /// The client reaches every server as it should, and nothing else of it, unless all is open.
    pub(super) fn prove(&self, open: bool) -> Result<()> {
        for (at, (count, server)) in COUNTS.into_iter().zip(&self.servers).enumerate() {
            let address = SocketAddr::from((self::server(at), port(count)));
            self.packets.send_to(b"x", address)?;
            let arrived = server.packets.recv_from(&mut [0; 8]);
            arrived.with_context(|| format!("{}: {count} policies", self.name))?;
            let (client, accepted) = self.connection(at)?;
            drop((client, accepted));
            let other = SocketAddr::from((address.ip(), port(count) + 5000));
            let limit = Duration::from_millis(200);
            let other = self
                .client
                .within(|| TcpStream::connect_timeout(&other, limit))?;
            let refused = other.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused);
            ensure!(
                refused == (open || count == 0),
                "{}: a port that no policy admits, of {count} policies",
                self.name
            );
        }
        Ok(())
    }

    fn at(count: u32) -> Result<usize> {
        COUNTS.iter().position(|c| *c == count).context("a server")
    }

    /// Nanoseconds of one packet, from the client's system call to the server's queue: all of it
    /// happens inside the call.
    pub(super) fn packet(&self, count: u32) -> Result<f64> {
        let address = SocketAddr::from((server(Self::at(count)?), port(count)));
        nanoseconds_of_one(TIME, || {
            self.packets.send_to(b"x", address)?;
            Ok(())
        })
    }

    /// A connection to a server, and its other end.
    fn connection(&self, at: usize) -> Result<(TcpStream, TcpStream)> {
        let listener = &self.servers[at].listener;
        let address = listener.local_addr()?;
        let client = self
            .client
            .within(|| TcpStream::connect_timeout(&address, LIMIT))??;
        let (accepted, _) = listener.accept()?;
        for end in [&client, &accepted] {
            // Ends with a reset, which leaves nothing behind.
            sockopt::set_socket_linger(end, Some(Duration::ZERO))?;
            end.set_nodelay(true)?;
        }
        Ok((client, accepted))
    }

    /// Connections opened, accepted and reset in a second, one after the other.
    pub(super) fn connects(&self, count: u32) -> Result<f64> {
        let at = Self::at(count)?;
        let listener = &self.servers[at].listener;
        let address = listener.local_addr()?;
        let connect = || -> Result<()> {
            let client = TcpStream::connect(address)?;
            sockopt::set_socket_linger(&client, Some(Duration::ZERO))?;
            listener.accept()?;
            Ok(())
        };
        let one = self
            .client
            .within(|| nanoseconds_of_one(4 * TIME, connect))??;
        Ok(1e9 / one)
    }

    /// Turns of one byte each way in a second, over one connection.
    pub(super) fn turns(&self, count: u32) -> Result<f64> {
        let (mut client, mut accepted) = self.connection(Self::at(count)?)?;
        let mut byte = [0];
        let one = nanoseconds_of_one(2 * TIME, || {
            client.write_all(b"a")?;
            accepted.read_exact(&mut byte)?;
            accepted.write_all(b"b")?;
            client.read_exact(&mut byte)?;
            Ok(())
        })?;
        Ok(1e9 / one)
    }

    /// Megabytes a second through one connection, written and read by turns.
    pub(super) fn stream(&self, count: u32) -> Result<f64> {
        let (mut client, mut accepted) = self.connection(Self::at(count)?)?;
        let mut block = vec![0; 48 << 10];
        let one = nanoseconds_of_one(3 * TIME, || {
            client.write_all(&block)?;
            accepted.read_exact(&mut block)?;
            Ok(())
        })?;
        Ok(block.len() as f64 * 1e3 / one)
    }
}

/// A pod on a wire of its own, with the node as its gateway.
fn wired(lab: &Lab, node: &Netns, stage: &str, name: &str, address: Ipv4Addr) -> Result<Netns> {
    let pod = lab.netns(&format!("{stage}{name}"))?;
    let host_end = format!("oci{name}");
    lab.wire(
        &End {
            netns: &pod,
            interface: "eth0",
            addresses: &[&format!("{address}/32")],
        },
        &End {
            netns: node,
            interface: &host_end,
            addresses: &[],
        },
    )?;
    pod.ip([
        "route add 169.254.1.1 dev eth0",
        "route add default via 169.254.1.1 dev eth0",
    ])?;
    node.ip([
        format!("address add 169.254.1.1/32 dev {host_end}"),
        format!("route add {address}/32 dev {host_end}"),
    ])?;
    Ok(pod)
}
