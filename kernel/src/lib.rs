//! What the kernel has and does: links, routes, neighbours, nf_tables, namespaces, sysctls.
//!
//! [`Kernel`] is synchronous and has one owner; it acts in the network namespace in which it was
//! opened. [`monitor`] reports what others change. What is ours is recognised by the names in
//! [`model::names`] alone.
//!
//! | module | what it does |
//! |---|---|
//! | [`Kernel`] | everything that writes to the kernel, and the dumps |
//! | [`monitor`] | links, addresses, routes and our nft table, as they change |
//! | [`Conntrack`] | tracked connections: reading, marking, forgetting |
//! | [`ConntrackTable`] | how full the table of connections is |
//! | [`Audit`] | our nft table compared with what it should be, in steps |
//! | [`packet_log`] | packets that rules log |
//! | [`packet_queue`] | packets that rules hold |
//! | [`netns`] | named network namespaces: create, open, run something inside |
//! | [`Features`] | what this kernel can do |

mod address;
mod conntrack;
mod conntrack_table;
mod features;
mod ip6;
mod ipip;
mod kernel;
mod link;
mod message;
mod monitor;
mod neighbour;
mod netlink;
pub mod netns;
mod next_hop;
mod nft;
mod packet_log;
mod packet_queue;
mod path_mtu;
mod pod;
mod port_owner;
mod raw;
mod route;
mod sysctl;
mod tunnel;
mod vtep;
mod vxlan;

pub use address::AddressError;
pub use conntrack::{Connection, Conntrack, ConntrackError, Tuple};
pub use conntrack_table::ConntrackTable;
pub use features::Features;
pub use kernel::{Kernel, OpenError, Options};
pub use link::LinkError;
pub use monitor::{KernelEvent, monitor};
pub use neighbour::NeighbourError;
pub use netlink::{Errno, NetlinkError};
pub use next_hop::NextHopError;
pub use nft::{Audit, Audited, Count, NftError};
pub use packet_log::{LoggedPacket, packet_log};
pub use packet_queue::{HeldPacket, packet_queue};
pub use path_mtu::PathMtus;
pub use pod::PodError;
pub use port_owner::port_owner;
pub use route::{KernelRoute, RouteError};
pub use sysctl::SysctlError;
pub use tunnel::MadeTunnel;
pub use vtep::{NeighbourEntry, VtepTables};
