//! A ruleset as nft text, in the form that `nft -f` reads.

use super::element::{Part, decode};
use super::{
    BaseHook, ChainType, CtState, Element, Family, Field, Hook, KeyType, Op, Rule, Ruleset, Set,
    SetHeader, SetKind, Statement, Verdict,
};
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, SocketAddr};

impl Display for Ruleset {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {} {{", model::names::NFT_TABLE)?;
        for name in &self.counters {
            writeln!(f, "\tcounter {name} {{ packets 0 bytes 0; }}")?;
        }
        for (name, set) in &self.sets {
            write_set(f, name, set)?;
        }
        for (name, chain) in &self.chains {
            writeln!(f, "\tchain {name} {{")?;
            if let Some(hook) = &chain.hook {
                writeln!(f, "\t\t{hook}")?;
            }
            for rule in &chain.rules {
                writeln!(f, "\t\t{rule}")?;
            }
            writeln!(f, "\t}}")?;
        }
        writeln!(f, "}}")
    }
}

/// The operations as commands that `nft -f` carries out as one transaction, given the ruleset
/// that they start from (it knows the types of the keys of elements).
pub fn commands(ops: &[Op], from: &Ruleset) -> String {
    let table = format!("inet {}", model::names::NFT_TABLE);
    let mut headers: BTreeMap<&str, &SetHeader> = from
        .sets
        .iter()
        .map(|(name, set)| (name.as_str(), &set.header))
        .collect();
    let mut text = format!("add table {table}\n");
    for op in ops {
        if let Op::AddSet(name, header) = op {
            headers.insert(name, header);
        }
        text.push_str(&command(op, &table, &headers));
    }
    text
}

fn command(op: &Op, table: &str, headers: &BTreeMap<&str, &SetHeader>) -> String {
    let keyword = |set: &String| headers.get(set.as_str()).map_or("set", |h| set_keyword(h));
    let elements = |set: &String, elements: &[(Element, Option<Verdict>)]| {
        let types = headers
            .get(set.as_str())
            .map_or(&[][..], |header| &header.key);
        let texts = elements
            .iter()
            .map(|(key, value)| element_text(types, key, value.as_ref()));
        texts.collect::<Vec<_>>().join(", ")
    };
    match op {
        Op::AddSet(name, header) => {
            let clauses = header_text(header, "; ");
            format!(
                "add {} {table} {name} {{ {clauses}; }}\n",
                set_keyword(header)
            )
        }
        Op::AddElements(name, all) => {
            format!("add element {table} {name} {{ {} }}\n", elements(name, all))
        }
        Op::DeleteElements(name, all) => {
            format!(
                "delete element {table} {name} {{ {} }}\n",
                elements(name, all)
            )
        }
        Op::AddChain(name, None) => format!("add chain {table} {name}\n"),
        Op::AddChain(name, Some(hook)) => format!("add chain {table} {name} {{ {hook} }}\n"),
        Op::FlushChain(name) => format!("flush chain {table} {name}\n"),
        Op::AddRules(name, rules) => rules
            .iter()
            .map(|rule| format!("add rule {table} {name} {rule}\n"))
            .collect(),
        Op::DeleteChain(name) => format!("delete chain {table} {name}\n"),
        Op::DeleteSet(name) => format!("delete {} {table} {name}\n", keyword(name)),
        Op::AddCounter(name) => format!("add counter {table} {name}\n"),
        Op::DeleteCounter(name) => format!("delete counter {table} {name}\n"),
    }
}

fn write_set(f: &mut Formatter<'_>, name: &str, set: &Set) -> fmt::Result {
    let header = &set.header;
    writeln!(f, "\t{} {name} {{", set_keyword(header))?;
    writeln!(f, "\t\t{}", header_text(header, "\n\t\t"))?;
    if !set.elements.is_empty() {
        writeln!(f, "\t\telements = {{")?;
        for (element, verdict) in &set.elements {
            let element = element_text(&header.key, element, verdict.as_ref());
            writeln!(f, "\t\t\t{element},")?;
        }
        writeln!(f, "\t\t}}")?;
    }
    writeln!(f, "\t}}")
}

fn set_keyword(header: &SetHeader) -> &'static str {
    if header.verdict_map { "map" } else { "set" }
}

fn header_text(header: &SetHeader, separator: &str) -> String {
    let types: Vec<_> = header.key.iter().map(|field| type_name(*field)).collect();
    let verdict = if header.verdict_map { " : verdict" } else { "" };
    let mut clauses = vec![format!("type {}{verdict}", types.join(" . "))];
    if header.kind == SetKind::Interval {
        clauses.push("flags interval".to_owned());
    }
    clauses.extend(header.size.map(|size| format!("size {size}")));
    clauses.join(separator)
}

fn type_name(field: KeyType) -> &'static str {
    match field {
        KeyType::Ifindex => "iface_index",
        KeyType::Ipv4 => "ipv4_addr",
        KeyType::Ipv6 => "ipv6_addr",
        KeyType::Proto => "inet_proto",
        KeyType::Port => "inet_service",
    }
}

fn element_text(types: &[KeyType], element: &Element, verdict: Option<&Verdict>) -> String {
    let first = decode(types, &element.key).unwrap_or_default();
    let last = element
        .end
        .as_ref()
        .map(|end| decode(types, end).unwrap_or_default());
    let field = |at: usize, part: &Part| match last.as_ref().and_then(|last| last.get(at)) {
        Some(last) if last != part => format!("{part}-{last}"),
        _ => part.to_string(),
    };
    let fields: Vec<_> = first
        .iter()
        .enumerate()
        .map(|(at, part)| field(at, part))
        .collect();
    let verdict = verdict.map(|verdict| format!(" : {verdict}"));
    fields.join(" . ") + &verdict.unwrap_or_default()
}

impl Display for Part {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ifindex(index) => index.fmt(f),
            Self::Address(address) => address.fmt(f),
            Self::Proto(number) => number.fmt(f),
            Self::Port(number) => number.fmt(f),
        }
    }
}

impl Display for BaseHook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let chain_type = match self.chain_type {
            ChainType::Filter => "filter",
            ChainType::Nat => "nat",
        };
        let hook = match self.hook {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
        };
        let priority = self.priority;
        write!(
            f,
            "type {chain_type} hook {hook} priority {priority}; policy accept;"
        )
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let statements: Vec<_> = self.statements.iter().map(ToString::to_string).collect();
        f.write_str(&statements.join(" "))?;
        match &self.comment {
            Some(comment) => write!(f, " comment \"{}\"", comment.replace('"', "'")),
            None => Ok(()),
        }
    }
}

impl Display for Statement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let not = |negate: &bool| if *negate { "!= " } else { "" };
        match self {
            Self::Family(Family::Ipv4) => f.write_str("meta nfproto ipv4"),
            Self::Family(Family::Ipv6) => f.write_str("meta nfproto ipv6"),
            Self::IifnamePrefix { prefix, negate } => {
                write!(f, "iifname {}\"{prefix}*\"", not(negate))
            }
            Self::OifnamePrefix { prefix, negate } => {
                write!(f, "oifname {}\"{prefix}*\"", not(negate))
            }
            Self::Iifname(name) => write!(f, "iifname \"{name}\""),
            Self::Oifname(name) => write!(f, "oifname \"{name}\""),
            Self::L4Proto(number) => write!(f, "meta l4proto {number}"),
            Self::DportRange(first, last) if first == last => write!(f, "th dport {first}"),
            Self::DportRange(first, last) => write!(f, "th dport {first}-{last}"),
            Self::CtState(CtState::EstablishedOrRelated) => {
                f.write_str("ct state established,related")
            }
            Self::CtState(CtState::Established) => f.write_str("ct state established"),
            Self::CtState(CtState::Invalid) => f.write_str("ct state invalid"),
            Self::CtState(CtState::Untracked) => f.write_str("ct state untracked"),
            Self::CtMarkBits(bits) => write!(f, "ct mark and {bits:#x} == {bits:#x}"),
            Self::Icmpv6Type { first, last } if first == last => write!(f, "icmpv6 type {first}"),
            Self::Icmpv6Type { first, last } => write!(f, "icmpv6 type {first}-{last}"),
            Self::Ipv6LinkLocalSource => f.write_str("ip6 saddr fe80::/10"),
            Self::Lookup {
                fields,
                set,
                negate,
            } => {
                write!(f, "{} {}@{set}", field_list(fields), not(negate))
            }
            Self::VerdictMap { fields, map } => write!(f, "{} vmap @{map}", field_list(fields)),
            Self::Icmp {
                family,
                icmp_type,
                code,
                negate,
            } => {
                let protocol = icmp_number(*family);
                write!(f, "meta l4proto {protocol} ")?;
                match code {
                    None => write!(f, "@th,0,8 {}{icmp_type}", not(negate)),
                    Some(code) => {
                        let both = u16::from_be_bytes([*icmp_type, *code]);
                        write!(f, "@th,0,16 {}{both}", not(negate))
                    }
                }
            }
            Self::SetCtMarkBits(bits) => write!(f, "ct mark set ct mark or {bits:#x}"),
            Self::NoTrack => f.write_str("notrack"),
            Self::RejectTcpReset => f.write_str("reject with tcp reset"),
            Self::Reject => f.write_str("reject"),
            Self::NamedCounter(name) => write!(f, "counter name \"{name}\""),
            Self::Counter => f.write_str("counter"),
            Self::Limit { per_second, burst } => {
                write!(f, "limit rate {per_second}/second burst {burst} packets")
            }
            Self::Log { group, prefix } => {
                write!(
                    f,
                    "log prefix \"{}\" group {group}",
                    prefix.replace('"', "'")
                )
            }
            Self::Queue(number) => write!(f, "queue flags bypass to {number}"),
            Self::LocalDestination => f.write_str("fib daddr type local"),
            Self::Dnat { address, port } => {
                let family = if address.is_ipv4() { "ip" } else { "ip6" };
                write!(f, "dnat {family} to {}", SocketAddr::new(*address, *port))
            }
            Self::Masquerade => f.write_str("masquerade fully-random"),
            Self::MasqueradePorts { first, last } => {
                write!(f, "masquerade to :{first}-{last} fully-random")
            }
            Self::Snat { address, ports } => {
                let (family, shown) = match address {
                    IpAddr::V4(address) => ("ip", address.to_string()),
                    IpAddr::V6(address) if ports.is_some() => ("ip6", format!("[{address}]")),
                    IpAddr::V6(address) => ("ip6", address.to_string()),
                };
                write!(f, "snat {family} to {shown}")?;
                if let Some((first, last)) = ports {
                    write!(f, ":{first}-{last}")?;
                }
                f.write_str(" fully-random")
            }
            Self::SetMarkBits(bits) => write!(f, "meta mark set meta mark or {bits:#x}"),
            Self::ClampMss => {
                f.write_str("tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu")
            }
            Self::Verdict(verdict) => verdict.fmt(f),
        }
    }
}

fn icmp_number(family: Family) -> u8 {
    match family {
        Family::Ipv4 => 1,
        Family::Ipv6 => 58,
    }
}

fn field_list(fields: &[Field]) -> String {
    let names: Vec<_> = fields.iter().map(|field| field_name(*field)).collect();
    names.join(" . ")
}

fn field_name(field: Field) -> &'static str {
    match field {
        Field::Iif => "iif",
        Field::Oif => "oif",
        Field::Ipv4Saddr => "ip saddr",
        Field::Ipv4Daddr => "ip daddr",
        Field::Ipv6Saddr => "ip6 saddr",
        Field::Ipv6Daddr => "ip6 daddr",
        Field::L4Proto => "meta l4proto",
        Field::Sport => "th sport",
        Field::Dport => "th dport",
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}
