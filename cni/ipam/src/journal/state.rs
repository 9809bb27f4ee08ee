//! What the records add up to.

use super::{HEADER, Record, encode};
use crate::Owner;
use ipnet::IpNet;
use model::{IpamBlock, WorkloadEndpoint};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A live endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// The endpoint with its addresses.
    pub endpoint: WorkloadEndpoint,
    /// Index of the host end.
    pub ifindex: u32,
    /// MTU of both ends.
    pub mtu: u32,
    /// Tells this use of the addresses from earlier and later ones.
    pub sequence: u64,
    /// The CNI network that it was made for; empty where that is not known.
    pub network: String,
}

/// The journal's content: what was, at the last record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// This node's blocks.
    pub blocks: BTreeMap<IpNet, IpamBlock>,
    /// This node's endpoints.
    pub endpoints: BTreeMap<Owner, Live>,
    /// This node's own addresses, by tunnel device.
    pub tunnels: BTreeMap<String, IpAddr>,
    /// Released addresses and when, in milliseconds.
    pub cooldowns: BTreeMap<IpAddr, u64>,
    /// Sequence number of the next endpoint; greater than any before.
    pub next_sequence: u64,
}

impl State {
    /// The state after these records.
    pub fn from_records<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut state = Self::default();
        records.into_iter().for_each(|record| state.apply(record));
        state
    }

    /// The state after one more record.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Block(block) => {
                self.blocks.insert(block.cidr, block.clone());
            }
            Record::BlockGone(cidr) => {
                self.blocks.remove(cidr);
            }
            Record::Endpoint {
                endpoint,
                ifindex,
                mtu,
                sequence,
                network,
            } => {
                for net in &endpoint.ip_networks {
                    self.cooldowns.remove(&net.addr());
                }
                self.reserve(*sequence);
                let (ifindex, mtu, sequence) = (*ifindex, *mtu, *sequence);
                let live = Live {
                    endpoint: endpoint.clone(),
                    ifindex,
                    mtu,
                    sequence,
                    network: network.clone(),
                };
                self.endpoints.insert(Owner::from(endpoint), live);
            }
            Record::EndpointGone {
                container_id,
                ifname,
                sequence,
                at_ms,
            } => {
                self.reserve(*sequence);
                let owner = Owner {
                    container_id: container_id.clone(),
                    ifname: ifname.clone(),
                };
                self.remove(&owner, *sequence, *at_ms);
            }
            Record::Tunnel { device, ip, at_ms } => {
                let before = match ip {
                    Some(ip) => self.tunnels.insert(device.clone(), *ip),
                    None => self.tunnels.remove(device),
                };
                self.cooldowns.extend(
                    before
                        .filter(|b| Some(b) != ip.as_ref())
                        .map(|b| (b, *at_ms)),
                );
                ip.iter().for_each(|ip| {
                    self.cooldowns.remove(ip);
                });
            }
            Record::Cooldown { ip, at_ms } => {
                self.cooldowns.insert(*ip, *at_ms);
            }
            Record::NextSequence(next) => self.next_sequence = self.next_sequence.max(*next),
        }
    }

    /// Forgets cooldowns that are over at `now_ms`.
    pub fn expire(&mut self, now_ms: u64, cooldown_ms: u64) {
        self.cooldowns
            .retain(|_, at| now_ms.saturating_sub(*at) < cooldown_ms);
    }

    fn reserve(&mut self, sequence: u64) {
        self.next_sequence = self.next_sequence.max(sequence.saturating_add(1));
    }

    fn remove(&mut self, owner: &Owner, sequence: u64, at_ms: u64) {
        if self
            .endpoints
            .get(owner)
            .is_none_or(|live| live.sequence != sequence)
        {
            return;
        }
        if let Some(live) = self.endpoints.remove(owner) {
            let ips = live.endpoint.ip_networks.iter().map(IpNet::addr);
            self.cooldowns.extend(ips.map(|ip| (ip, at_ms)));
        }
    }
}

/// The shortest journal that ends in this state, header included.
pub fn compact(state: &State) -> Vec<u8> {
    let blocks = state
        .blocks
        .values()
        .map(|block| Record::Block(block.clone()));
    let endpoints = state.endpoints.values().map(|live| Record::Endpoint {
        endpoint: live.endpoint.clone(),
        ifindex: live.ifindex,
        mtu: live.mtu,
        sequence: live.sequence,
        network: live.network.clone(),
    });
    let cooldowns = state.cooldowns.iter().map(|(ip, at_ms)| Record::Cooldown {
        ip: *ip,
        at_ms: *at_ms,
    });
    let tunnels = state.tunnels.iter().map(|(device, ip)| Record::Tunnel {
        device: device.clone(),
        ip: Some(*ip),
        at_ms: 0,
    });
    let records = std::iter::once(Record::NextSequence(state.next_sequence))
        .chain(blocks)
        .chain(endpoints)
        .chain(tunnels)
        .chain(cooldowns);
    let mut bytes = HEADER.to_vec();
    records.for_each(|record| bytes.extend(encode(&record)));
    bytes
}
