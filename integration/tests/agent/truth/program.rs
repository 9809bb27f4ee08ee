//! What the tables of both nodes do to a connection, in the interpreter: as read from the kernel.

use super::{Cell, Peer, Stage};
use anyhow::{Context, Result};
use kernel::Kernel;
use policy::Ruleset;
use policy::program::{Connection, Interface, Outcome, Packet, run};
use std::collections::BTreeMap;

/// Of every connection that has ports.
pub(super) const SOURCE_PORT: u16 = 40_000;

/// The tables of the two nodes, and the links that rules speak of.
pub(super) struct Tables([(Ruleset, BTreeMap<String, u32>); 2]);

impl Tables {
    pub(super) fn read(stage: &Stage) -> Result<Self> {
        let read = |netns: &integration::lab::Netns| -> Result<_> {
            let mut kernel = netns.within(Kernel::open)??;
            let table = kernel.nft_read()?.context("our table")?;
            let links = kernel.links()?.into_iter();
            let links = links.map(|link| (link.name, link.ifindex)).collect();
            Ok((table, links))
        };
        let nodes = [&stage.node.netns, stage.second.netns()];
        Ok(Self([read(nodes[0])?, read(nodes[1])?]))
    }

    /// Whether every node on the way lets the first packet pass.
    pub(super) fn allow(&self, stage: &Stage, cell: Cell) -> Result<bool> {
        let (from, to) = (&stage.peers[cell.from], &stage.peers[cell.to]);
        let flow = stage.flow(cell);
        for (number, (table, links)) in self.0.iter().enumerate() {
            let end = |peer: &Peer| -> Result<Option<Interface>> {
                let name = match (&peer.pod, peer.node == Some(number)) {
                    (Some(pod), true) => &pod.host_interface,
                    (None, true) => return Ok(None),
                    (_, false) => "eth0",
                };
                let index = *links.get(name).with_context(|| format!("no link {name}"))?;
                let name = name.to_owned();
                Ok(Some(Interface { index, name }))
            };
            if from.node != Some(number) && to.node != Some(number) {
                continue;
            }
            let packet = Packet {
                iif: end(from)?,
                oif: end(to)?,
                source: flow.source.address(),
                destination: flow.destination.address(),
                protocol: flow.protocol,
                ports: flow.destination_port.map(|port| (SOURCE_PORT, port)),
                icmp: flow.icmp,
                connection: Connection::New,
                mark: 0,
                original_destination: None,
            };
            if !matches!(run(table, &packet)?, Outcome::Accepted { .. }) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
