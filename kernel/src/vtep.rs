//! Where the other ends of a VXLAN are: entries of the device's forwarding database (a MAC, and the
//! node that has it) and neighbours (a gateway, and its MAC). Nobody else has anything to say there.

use crate::kernel::Kernel;
use crate::link::LinkError;
use crate::message::{
    self, DELETE_NEIGHBOUR, GET_NEIGHBOUR, NEW_NEIGHBOUR, NUD_PERMANENT, family, octets,
};
use crate::netlink::{Encoder, Flags, Frame, NetlinkError, Socket};
use model::dataplane::Vtep;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

type Mac = [u8; 6];

const AF_BRIDGE: u8 = 7;
/// `NTF_SELF`.
const OWN: u8 = 2;
/// `NUD_NOARP`.
const NUD_NOARP: u16 = 0x40;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// What sends the frames of one entry elsewhere than the device does: `NDA_PORT`, `NDA_VNI`,
/// `NDA_IFINDEX`.
const ELSEWHERE: [u16; 3] = [6, 7, 8];
const NDA_IFINDEX: u16 = 8;

/// An entry of a neighbour table or of a forwarding database, as the kernel tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeighbourEntry {
    /// Index of its interface.
    pub ifindex: u32,
    /// Of a forwarding database.
    pub forwarding: bool,
    /// The neighbour, or where frames for `mac` are sent; none where a next hop object says it.
    pub address: Option<IpAddr>,
    /// A hardware address; none where it is not known.
    pub mac: Option<[u8; 6]>,
    /// `NUD_*` of `linux/neighbour.h`.
    pub state: u16,
    /// It names a port, identifier or interface of its own.
    pub elsewhere: bool,
}

impl NeighbourEntry {
    pub(crate) fn read(frame: Frame<'_>) -> Option<Self> {
        let fixed = frame.payload();
        let attributes = frame.attributes(12);
        let address = attributes.find(NDA_DST);
        Some(Self {
            ifindex: u32::from_ne_bytes(fixed.get(4..8)?.try_into().ok()?),
            forwarding: *fixed.first()? == AF_BRIDGE,
            address: address.and_then(ip),
            mac: attributes
                .find(NDA_LLADDR)
                .and_then(|mac| mac.try_into().ok()),
            state: u16::from_ne_bytes(fixed.get(8..10)?.try_into().ok()?),
            elsewhere: ELSEWHERE
                .into_iter()
                .any(|attribute| attributes.find(attribute).is_some()),
        })
    }

    fn is_permanent(&self) -> bool {
        self.state & NUD_PERMANENT != 0
    }
}

/// What an entry is to a device whose ends are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// As it has to be.
    Right,
    /// In the place of one that has to be there.
    Wrong,
    /// Of nobody that we know.
    Stranger,
    /// What the kernel makes by itself, and no packet of ours needs.
    Indifferent,
}

/// What the tables of a VXLAN device have to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VtepTables {
    forwarding: BTreeMap<Mac, IpAddr>,
    neighbours: BTreeMap<IpAddr, Mac>,
}

impl VtepTables {
    /// For these ends.
    pub fn of(ends: &BTreeSet<Vtep>) -> Self {
        let gateways = |end: &'_ Vtep| {
            let mac = end.mac;
            let gateways = end.gateways.iter();
            gateways
                .map(move |gateway| (*gateway, mac))
                .collect::<Vec<_>>()
        };
        Self {
            forwarding: ends.iter().map(|end| (end.mac, end.underlay)).collect(),
            neighbours: ends.iter().flat_map(gateways).collect(),
        }
    }

    /// Whether all is well although this entry came (or, `gone`, went).
    pub fn allows(&self, entry: &NeighbourEntry, gone: bool) -> bool {
        match self.judge(entry) {
            Verdict::Right => !gone,
            Verdict::Wrong => false,
            Verdict::Stranger => gone,
            Verdict::Indifferent => true,
        }
    }

    fn judge(&self, entry: &NeighbourEntry) -> Verdict {
        let (wanted, right) = if entry.forwarding {
            let address = entry.mac.and_then(|mac| self.forwarding.get(&mac));
            let right = entry.address.as_ref() == address && !entry.elsewhere;
            (address.is_some(), right)
        } else {
            let mac = entry.address.and_then(|to| self.neighbours.get(&to));
            (mac.is_some(), entry.mac.as_ref() == mac)
        };
        // The kernel has entries of its own for groups, and learns those who ask for this node.
        let by_kernel = || {
            let group = entry.mac.is_none_or(|mac| mac[0] & 1 != 0);
            !entry.forwarding && !entry.is_permanent() && (group || entry.state & NUD_NOARP == 0)
        };
        match wanted {
            true if right && entry.is_permanent() => Verdict::Right,
            true => Verdict::Wrong,
            false if by_kernel() => Verdict::Indifferent,
            false => Verdict::Stranger,
        }
    }
}

impl Kernel {
    /// Makes these the only ends that the device of index `ifindex` knows; answers how many entries
    /// were written or removed. What is there already is not touched; additions come first.
    pub fn set_vteps(
        &mut self,
        name: &str,
        ifindex: u32,
        vteps: &BTreeSet<Vtep>,
    ) -> Result<usize, LinkError> {
        let refused = |step| LinkError::refused(name, step);
        let tables = VtepTables::of(vteps);
        let found = entries(&mut self.route, ifindex).map_err(refused("read its ends"))?;
        let judged: Vec<_> = found
            .iter()
            .map(|entry| (entry, tables.judge(entry)))
            .collect();
        let of = |wanted: Verdict, forwarding: bool| {
            let all = judged.iter();
            all.filter(move |(entry, verdict)| *verdict == wanted && entry.forwarding == forwarding)
                .map(|(entry, _)| *entry)
        };
        let right = |entry: &NeighbourEntry| (entry.address, entry.mac);
        let present: BTreeSet<_> = of(Verdict::Right, false).map(right).collect();
        let mut neighbours = tables
            .neighbours
            .iter()
            .map(|(to, mac)| (*to, *mac))
            .collect::<Vec<_>>();
        neighbours.retain(|(to, mac)| !present.contains(&(Some(*to), Some(*mac))));
        let present: BTreeSet<_> = of(Verdict::Right, true).map(right).collect();
        let mut forwarding = tables
            .forwarding
            .iter()
            .map(|(mac, to)| (*to, *mac))
            .collect::<Vec<_>>();
        forwarding.retain(|(to, mac)| !present.contains(&(Some(*to), Some(*mac))));
        // One that a next hop object leads elsewhere can't be replaced.
        let by_object = of(Verdict::Wrong, true).filter(|entry| entry.address.is_none());
        let strangers: BTreeSet<Mac> = of(Verdict::Stranger, true)
            .filter_map(|entry| entry.mac)
            .collect();
        let by_object: Vec<Mac> = by_object.filter_map(|entry| entry.mac).collect();
        let strangers: Vec<Mac> = strangers.into_iter().collect();
        let gone: Vec<IpAddr> = of(Verdict::Stranger, false)
            .filter_map(|entry| entry.address)
            .collect();

        let mut failed = self.route.batch(&neighbours, |encoder, (address, mac)| {
            message::permanent_neighbour(encoder, ifindex, *address, *mac);
        });
        failed.extend(self.route.batch(&by_object, |encoder, mac| {
            forget_mac(encoder, ifindex, *mac);
        }));
        failed.extend(self.route.batch(&forwarding, |encoder, (address, mac)| {
            let fixed = ndmsg(AF_BRIDGE, ifindex, OWN);
            encoder.message(NEW_NEIGHBOUR, Flags::REPLACE, &fixed, |encoder| {
                encoder.attribute(NDA_DST, &octets(*address));
                encoder.attribute(NDA_LLADDR, mac);
            });
        }));
        failed.extend(self.route.batch(&strangers, |encoder, mac| {
            forget_mac(encoder, ifindex, *mac);
        }));
        failed.extend(self.route.batch(&gone, |encoder, address| {
            let fixed = ndmsg(family(*address), ifindex, 0);
            encoder.message(DELETE_NEIGHBOUR, Flags::QUIET, &fixed, |encoder| {
                encoder.attribute(NDA_DST, &octets(*address));
            });
        }));
        let failed = failed
            .into_iter()
            .find(|(_, error)| !error.is(libc::ENOENT));
        match failed {
            Some((_, source)) => Err(refused("write its ends")(source)),
            None => Ok(neighbours.len() + forwarding.len() + strangers.len() + gone.len()),
        }
    }
}

/// Takes every place out of the forwarding database to which frames for this MAC are sent.
fn forget_mac(encoder: &mut Encoder, ifindex: u32, mac: Mac) {
    let fixed = ndmsg(AF_BRIDGE, ifindex, OWN);
    encoder.message(DELETE_NEIGHBOUR, Flags::QUIET, &fixed, |encoder| {
        encoder.attribute(NDA_LLADDR, &mac);
    });
}

/// What the forwarding database and the neighbour table of a device hold.
fn entries(socket: &mut Socket, ifindex: u32) -> Result<Vec<NeighbourEntry>, NetlinkError> {
    let mut entries = dump(socket, AF_BRIDGE, ifindex)?;
    entries.extend(dump(socket, libc::AF_UNSPEC as u8, ifindex)?);
    Ok(entries)
}

fn dump(socket: &mut Socket, of: u8, ifindex: u32) -> Result<Vec<NeighbourEntry>, NetlinkError> {
    socket.dump(
        |encoder| {
            // The forwarding database wants the index in the header, the neighbours an attribute.
            let bridge = of == AF_BRIDGE;
            let fixed = ndmsg(of, if bridge { ifindex } else { 0 }, 0);
            encoder.message(GET_NEIGHBOUR, Flags::DUMP, &fixed, |encoder| {
                if !bridge {
                    encoder.u32(NDA_IFINDEX, ifindex);
                }
            });
        },
        Vec::new,
        |entries, frame| {
            let entry = NeighbourEntry::read(frame);
            entries.extend(entry.filter(|entry| entry.ifindex == ifindex));
        },
    )
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// `struct ndmsg`, of a permanent entry where it has flags.
fn ndmsg(family: u8, ifindex: u32, flags: u8) -> [u8; 12] {
    let mut fixed = [0; 12];
    fixed[0] = family;
    fixed[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    if flags != 0 {
        fixed[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
        fixed[10] = flags;
    }
    fixed
}
