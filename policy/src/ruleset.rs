//! Our nftables table as a value: sets, verdict maps, chains and rules, and the operations that
//! lead from one such value to another. `kernel` puts it on the wire; nothing here knows netlink.

mod apply;
pub(crate) mod changes;
pub(crate) mod element;
mod json;
mod opening;
mod sizes;
mod stages;
mod text;

pub use apply::ApplyError;
pub use element::{Part, decode};
pub use stages::stages;
pub use text::commands;

use std::collections::{BTreeMap, BTreeSet};

/// The whole content of our table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Sets and verdict maps by name.
    pub sets: BTreeMap<String, Set>,
    /// Chains by name.
    pub chains: BTreeMap<String, Chain>,
    /// Names of counters; what they have counted is no part of the value.
    pub counters: BTreeSet<String>,
}

/// A set, or a verdict map, with its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// What can't change without making another set.
    pub header: SetHeader,
    /// Elements; the value is `Some` in verdict maps only.
    pub elements: BTreeMap<Element, Option<Verdict>>,
}

/// What a set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetHeader {
    /// The concatenated fields of its key, in order.
    pub key: Vec<KeyType>,
    /// Hash of exact keys, or ranges.
    pub kind: SetKind,
    /// Whether elements map to verdicts.
    pub verdict_map: bool,
    /// Greatest number of elements; declaring it gives the kernel's fixed-size hash.
    pub size: Option<u32>,
}

/// How a set finds its elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetKind {
    /// Exact keys (`nft_set_hash`).
    Hash,
    /// Ranges of one field (rbtree), or of several (pipapo).
    Interval,
}

/// Type of one field of a set's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyType {
    /// Interface index, 4 bytes, host byte order.
    Ifindex,
    /// IPv4 address, 4 bytes.
    Ipv4,
    /// IPv6 address, 16 bytes.
    Ipv6,
    /// L4 protocol number, 1 byte.
    Proto,
    /// L4 port, 2 bytes, network byte order.
    Port,
}

impl KeyType {
    /// Length of the field in bytes, without padding.
    #[allow(clippy::len_without_is_empty)] // no field is empty
    pub fn len(self) -> usize {
        match self {
            Self::Ifindex | Self::Ipv4 => 4,
            Self::Ipv6 => 16,
            Self::Proto => 1,
            Self::Port => 2,
        }
    }
}

/// One element of a set. In concatenated keys, every field is padded to a multiple of 4 bytes
/// (`NFT_REG32_SIZE`); a key of a single field is not padded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element {
    /// The key, or the first key of a range.
    pub key: Box<[u8]>,
    /// The last key of a range (included), in [`SetKind::Interval`] only.
    pub end: Option<Box<[u8]>>,
}

/// A chain: a base chain where it has a hook.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where it is called from.
    pub hook: Option<BaseHook>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// Where a base chain stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseHook {
    /// The hook.
    pub hook: Hook,
    /// `filter` or `nat`.
    pub chain_type: ChainType,
    /// Priority within the hook.
    pub priority: i32,
}

/// Netfilter hook (`enum nf_inet_hooks`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // as in the kernel
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

/// Type of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // as in nft
pub enum ChainType {
    Filter,
    Nat,
}

/// A rule: statements from left to right.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// The statements.
    pub statements: Vec<Statement>,
    /// Shown by `nft list`; at most 128 bytes.
    pub comment: Option<String>,
}

/// A packet field that a look-up or comparison reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // as in nft
pub enum Field {
    Iif,
    Oif,
    Ipv4Saddr,
    Ipv4Daddr,
    Ipv6Saddr,
    Ipv6Daddr,
    L4Proto,
    /// `th sport`
    Sport,
    /// `th dport`
    Dport,
}

impl Field {
    /// Type of this field in a set's key.
    pub fn key_type(self) -> KeyType {
        match self {
            Self::Iif | Self::Oif => KeyType::Ifindex,
            Self::Ipv4Saddr | Self::Ipv4Daddr => KeyType::Ipv4,
            Self::Ipv6Saddr | Self::Ipv6Daddr => KeyType::Ipv6,
            Self::L4Proto => KeyType::Proto,
            Self::Sport | Self::Dport => KeyType::Port,
        }
    }
}

/// Address family of a packet in an `inet` table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the names say it
pub enum Family {
    Ipv4,
    Ipv6,
}

/// One match or action of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// `meta nfproto ipv4`. Required before any field of that family.
    Family(Family),
    /// `iifname "oci*"` (or `!=`).
    IifnamePrefix {
        /// The prefix, without `*`.
        prefix: String,
        /// Matches names without the prefix.
        negate: bool,
    },
    /// `oifname "oci*"` (or `!=`).
    OifnamePrefix {
        /// The prefix, without `*`.
        prefix: String,
        /// Matches names without the prefix.
        negate: bool,
    },
    /// `iifname "eth0"`, exact.
    Iifname(String),
    /// `oifname "ipip.ocicat"`, exact.
    Oifname(String),
    /// `meta l4proto tcp`.
    L4Proto(u8),
    /// `th dport 80-90`, both ends included; after [`Statement::L4Proto`].
    DportRange(u16, u16),
    /// `udp dport`-independent: `ct state established,related`; bits are `NF_CT_STATE_*`.
    CtState(CtState),
    /// `ct mark & mask == mask`.
    CtMarkBits(u32),
    /// `icmpv6 type { first-last }`; after `Family(Ipv6)`; implies `meta l4proto ipv6-icmp`.
    Icmpv6Type {
        /// First type.
        first: u8,
        /// Last type, included.
        last: u8,
    },
    /// `ip6 saddr fe80::/10`; after `Family(Ipv6)`.
    Ipv6LinkLocalSource,
    /// `field . field @set` (or `!= @set`).
    Lookup {
        /// The concatenated fields.
        fields: Vec<Field>,
        /// Name of the set.
        set: String,
        /// Matches what is not in the set.
        negate: bool,
    },
    /// `field vmap @map`: takes the verdict of the element, goes on without one.
    VerdictMap {
        /// The concatenated fields.
        fields: Vec<Field>,
        /// Name of the verdict map.
        map: String,
    },
    /// Type, and code where there is one, of an ICMP or ICMPv6 message; after [`Statement::Family`];
    /// implies `meta l4proto`. Negated, any other message of the protocol. An ICMPv6 type alone is
    /// [`Statement::Icmpv6Type`].
    Icmp {
        /// ICMP or ICMPv6.
        family: Family,
        /// The type.
        icmp_type: u8,
        /// The code.
        code: Option<u8>,
        /// Matches other messages.
        negate: bool,
    },
    /// `ct mark set ct mark or bits`
    SetCtMarkBits(u32),
    /// `notrack`
    NoTrack,
    /// `reject with tcp reset`; after [`Statement::L4Proto`]. Ends the rule, and the packet.
    RejectTcpReset,
    /// `reject`: ICMP says that the port can't be reached. Ends the rule, and the packet.
    Reject,
    /// `counter`
    Counter,
    /// `counter name "..."`: a counter of the table, that outlives its rules.
    NamedCounter(String),
    /// `limit rate N/second burst M packets`
    Limit {
        /// Packets in a second.
        per_second: u32,
        /// Burst in packets.
        burst: u32,
    },
    /// `log group G prefix "..."`
    Log {
        /// nflog group.
        group: u16,
        /// At most 127 bytes.
        prefix: String,
    },
    /// `queue flags bypass to N`: the packet waits for somebody's word, and passes where nobody
    /// listens. Ends the rule.
    Queue(u16),
    /// `fib daddr type local`: the destination is an address of this host.
    LocalDestination,
    /// `dnat ip to address:port`; after [`Statement::Family`] and [`Statement::L4Proto`]. Ends the
    /// rule.
    Dnat {
        /// The destination's address from here on.
        address: std::net::IpAddr,
        /// And its port.
        port: u16,
    },
    /// `masquerade fully-random`
    Masquerade,
    /// `masquerade to :first-last fully-random`; after [`Statement::L4Proto`]. Ends the rule.
    MasqueradePorts {
        /// The first source port.
        first: u16,
        /// And the last.
        last: u16,
    },
    /// `snat ip to address:first-last fully-random`; after [`Statement::Family`], and with ports
    /// after [`Statement::L4Proto`]. Ends the rule.
    Snat {
        /// The source's address from here on.
        address: std::net::IpAddr,
        /// The first and last of its ports; none where the kernel chooses.
        ports: Option<(u16, u16)>,
    },
    /// `meta mark set meta mark or bits`
    SetMarkBits(u32),
    /// `tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu`: a TCP connection that is
    /// opened learns of both its ways how long a segment may be.
    ClampMss,
    /// Ends the rule.
    Verdict(Verdict),
}

/// Connection tracking states, as a mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CtState {
    /// `established,related`
    EstablishedOrRelated,
    /// `established`
    Established,
    /// `invalid`
    Invalid,
    /// `untracked`
    Untracked,
}

/// What happens to the packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Ends this base chain.
    Accept,
    /// Final.
    Drop,
    /// Back to the calling chain.
    Return,
    /// Call a chain.
    Jump(String),
    /// Continue in a chain without coming back.
    Goto(String),
}

/// One change of the table. A list of them is one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Create a counter, at zero.
    AddCounter(String),
    /// Remove a counter that no rule refers to any more.
    DeleteCounter(String),
    /// Create a set or verdict map, empty.
    AddSet(String, SetHeader),
    /// Add elements; adding one that is there is not an error.
    AddElements(String, Vec<(Element, Option<Verdict>)>),
    /// Remove elements that are there.
    DeleteElements(String, Vec<(Element, Option<Verdict>)>),
    /// Create a chain without rules.
    AddChain(String, Option<BaseHook>),
    /// Remove all rules of a chain.
    FlushChain(String),
    /// Append rules.
    AddRules(String, Vec<Rule>),
    /// Remove a chain that nothing refers to any more.
    DeleteChain(String),
    /// Remove a set that nothing refers to any more.
    DeleteSet(String),
}
