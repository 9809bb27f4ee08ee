//! What a [`Ruleset`] does to a packet: an interpreter with the semantics of nf_tables.
//!
//! A rule whose statement can't be evaluated (the port of a packet without ports, a field of the
//! other family) does not match, negated or not, as in the kernel (`NFT_BREAK`).

use crate::ruleset::element::spans;
use crate::ruleset::{
    Chain, CtState, Element, Family, Field, Hook, Part, Rule, Ruleset, Set, SetKind, Statement,
    Verdict,
};
use std::net::IpAddr;

/// `NFT_JUMP_STACK_SIZE`
const MAX_DEPTH: usize = 16;
/// `NF_IP_PRI_NAT_DST`
const DSTNAT: i32 = -100;
const IPPROTO_ICMP: u8 = 1;
const IPPROTO_ICMPV6: u8 = 58;

/// A packet on its way through this host. With both interfaces it is forwarded, with an incoming
/// one it is for us, with an outgoing one it is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Where it came from.
    pub iif: Option<Interface>,
    /// Where it goes to.
    pub oif: Option<Interface>,
    /// Source address.
    pub source: IpAddr,
    /// Destination address, after destination NAT.
    pub destination: IpAddr,
    /// Destination address and port before destination NAT; none where nothing was translated.
    pub original_destination: Option<(IpAddr, Option<u16>)>,
    /// L4 protocol number.
    pub protocol: u8,
    /// Source and destination port, of protocols that have ports.
    pub ports: Option<(u16, u16)>,
    /// Type and code of an ICMP or ICMPv6 message.
    pub icmp: Option<(u8, u8)>,
    /// What connection tracking says.
    pub connection: Connection,
    /// The connection's mark.
    pub mark: u32,
}

/// An interface of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
}

/// State of the packet's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// First packet.
    New,
    /// Reply or later packet.
    Established,
    /// An error about the connection, or a reset that the kernel answers it with.
    Related,
    /// Belongs to none.
    Invalid,
    /// Taken out of connection tracking.
    Untracked,
}

/// What became of the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It passed all chains.
    Accepted {
        /// Its source address was replaced.
        masqueraded: bool,
    },
    /// A rule dropped it.
    Dropped {
        /// The chain of the rule.
        chain: String,
        /// The rule's place in the chain, from 0.
        rule: usize,
    },
}

/// A ruleset that the kernel would not have taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// A rule names a set that is not there.
    #[error("there is no set {0}")]
    NoSuchSet(String),
    /// A verdict names a chain that is not there.
    #[error("there is no chain {0}")]
    NoSuchChain(String),
    /// A rule names a counter that is not there.
    #[error("there is no counter {0}")]
    NoSuchCounter(String),
    /// Chains call each other too deeply.
    #[error("calls of chain {0} are too deep")]
    TooDeep(String),
}

/// A ruleset that is ready to be asked about many packets.
#[derive(Debug)]
pub struct Program<'a> {
    ruleset: &'a Ruleset,
    /// Base chains by hook, those that come first in front.
    bases: [Vec<Base<'a>>; HOOKS.len()],
}

#[derive(Debug)]
struct Base<'a> {
    priority: i32,
    name: &'a str,
    chain: &'a Chain,
}

const HOOKS: [Hook; 5] = [
    Hook::Prerouting,
    Hook::Input,
    Hook::Forward,
    Hook::Output,
    Hook::Postrouting,
];

/// Sends `packet` through the base chains of its way.
pub fn run(ruleset: &Ruleset, packet: &Packet) -> Result<Outcome, RunError> {
    Program::new(ruleset).run(packet)
}

/// Likewise; also tells the named counters that counted it, in order.
pub fn run_and_count(
    ruleset: &Ruleset,
    packet: &Packet,
) -> Result<(Outcome, Vec<String>), RunError> {
    Program::new(ruleset).run_and_count(packet)
}

impl<'a> Program<'a> {
    /// Finds the base chains, for which it looks at every chain once.
    pub fn new(ruleset: &'a Ruleset) -> Self {
        let bases = HOOKS.map(|hook| {
            let mut bases = Vec::new();
            for (name, chain) in &ruleset.chains {
                if let Some(base) = chain.hook.as_ref().filter(|base| base.hook == hook) {
                    let priority = base.priority;
                    bases.push(Base {
                        priority,
                        name,
                        chain,
                    });
                }
            }
            bases.sort_by_key(|base| base.priority);
            bases
        });
        Self { ruleset, bases }
    }

    /// Sends `packet` through the base chains of its way.
    pub fn run(&self, packet: &Packet) -> Result<Outcome, RunError> {
        self.through(packet, &mut |_| {})
    }

    /// Likewise; also tells the named counters that counted it, in order.
    pub fn run_and_count(&self, packet: &Packet) -> Result<(Outcome, Vec<String>), RunError> {
        let mut counted = vec![];
        let outcome = self.through(packet, &mut |name| counted.push(name.to_owned()))?;
        Ok((outcome, counted))
    }

    fn through(&self, packet: &Packet, count: &mut dyn FnMut(&str)) -> Result<Outcome, RunError> {
        let hooks: &[Hook] = match (&packet.iif, &packet.oif) {
            (Some(_), Some(_)) => &[Hook::Prerouting, Hook::Forward, Hook::Postrouting],
            (Some(_), None) => &[Hook::Prerouting, Hook::Input],
            (None, _) => &[Hook::Output, Hook::Postrouting],
        };
        let mut run = Run {
            ruleset: self.ruleset,
            packet,
            hook: Hook::Prerouting,
            translated: false,
            masqueraded: false,
            mark: packet.mark,
            untracked: false,
            count,
        };
        for hook in hooks {
            run.hook = *hook;
            for base in &self.bases[*hook as usize] {
                // What this node sends is judged by where it goes at last.
                run.translated = *hook != Hook::Prerouting || base.priority >= DSTNAT;
                if let End::Dropped { chain, rule } = run.rules(base.name, base.chain, 0)? {
                    return Ok(Outcome::Dropped { chain, rule });
                }
            }
        }
        Ok(Outcome::Accepted {
            masqueraded: run.masqueraded,
        })
    }
}

struct Run<'a, 'b> {
    ruleset: &'a Ruleset,
    packet: &'b Packet,
    hook: Hook,
    /// Destination NAT has been done.
    translated: bool,
    masqueraded: bool,
    mark: u32,
    untracked: bool,
    count: &'b mut dyn FnMut(&str),
}

/// How a chain ended.
enum End {
    Accepted,
    Dropped { chain: String, rule: usize },
    Returned,
}

impl<'a> Run<'a, '_> {
    fn chain(&mut self, name: &str, depth: usize) -> Result<End, RunError> {
        if depth > MAX_DEPTH {
            return Err(RunError::TooDeep(name.to_owned()));
        }
        match self.ruleset.chains.get(name) {
            Some(chain) => self.rules(name, chain, depth),
            None => Err(RunError::NoSuchChain(name.to_owned())),
        }
    }

    fn rules(&mut self, name: &str, chain: &'a Chain, depth: usize) -> Result<End, RunError> {
        for (place, rule) in chain.rules.iter().enumerate() {
            match self.rule(rule)? {
                None => {}
                Some(Verdict::Accept) => return Ok(End::Accepted),
                Some(Verdict::Drop) => {
                    return Ok(End::Dropped {
                        chain: name.to_owned(),
                        rule: place,
                    });
                }
                Some(Verdict::Return) => return Ok(End::Returned),
                Some(Verdict::Goto(target)) => return self.chain(target, depth + 1),
                Some(Verdict::Jump(target)) => match self.chain(target, depth + 1)? {
                    End::Returned => {}
                    end => return Ok(end),
                },
            }
        }
        Ok(End::Returned)
    }

    /// The verdict of a rule that matches and has one.
    fn rule(&mut self, rule: &'a Rule) -> Result<Option<&'a Verdict>, RunError> {
        for statement in &rule.statements {
            match statement {
                Statement::Verdict(verdict) => return Ok(Some(verdict)),
                Statement::VerdictMap { fields, map } => {
                    let set = self.set(map)?;
                    if let Some(Some(verdict)) = self.key(fields).and_then(|key| find(set, &key)) {
                        return Ok(Some(verdict));
                    }
                    return Ok(None);
                }
                Statement::Masquerade
                | Statement::MasqueradePorts { .. }
                | Statement::Snat { .. } => {
                    self.masqueraded = true;
                    return Ok(Some(&Verdict::Accept));
                }
                // The packet's destination is that after the translation already.
                Statement::Dnat { .. } => return Ok(Some(&Verdict::Accept)),
                // Nobody says anything but yes.
                Statement::Queue(_) => return Ok(Some(&Verdict::Accept)),
                Statement::SetCtMarkBits(bits) => self.mark |= bits,
                // Of the packet, not of its connection: no rule looks at it.
                Statement::SetMarkBits(_) | Statement::ClampMss => {}
                Statement::NoTrack => self.untracked = true,
                Statement::RejectTcpReset | Statement::Reject => return Ok(Some(&Verdict::Drop)),
                Statement::NamedCounter(name) => {
                    if !self.ruleset.counters.contains(name) {
                        return Err(RunError::NoSuchCounter(name.clone()));
                    }
                    (self.count)(name);
                }
                Statement::Counter | Statement::Limit { .. } | Statement::Log { .. } => {}
                condition => {
                    if !self.matches(condition)? {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(None)
    }

    fn matches(&self, condition: &Statement) -> Result<bool, RunError> {
        let packet = self.packet;
        let name = |interface: &Option<Interface>, prefix: &str, negate: &bool| {
            let interface = interface.as_ref();
            interface.is_some_and(|i| i.name.starts_with(prefix) != *negate)
        };
        Ok(match condition {
            Statement::Family(family) => self.family() == *family,
            Statement::IifnamePrefix { prefix, negate } => name(&packet.iif, prefix, negate),
            Statement::OifnamePrefix { prefix, negate } => name(self.oif(), prefix, negate),
            Statement::Iifname(wanted) => packet.iif.as_ref().is_some_and(|i| i.name == *wanted),
            Statement::Oifname(wanted) => self.oif().as_ref().is_some_and(|i| i.name == *wanted),
            Statement::Icmp {
                family,
                icmp_type,
                code,
                negate,
            } => {
                let protocol = match family {
                    Family::Ipv4 => IPPROTO_ICMP,
                    Family::Ipv6 => IPPROTO_ICMPV6,
                };
                let same = |(t, c)| t == *icmp_type && code.is_none_or(|code| code == c);
                packet.protocol == protocol && packet.icmp.is_some_and(|m| same(m) != *negate)
            }
            Statement::L4Proto(number) => packet.protocol == *number,
            Statement::DportRange(first, last) => self
                .destination()
                .1
                .is_some_and(|port| (*first..=*last).contains(&port)),
            Statement::CtState(CtState::EstablishedOrRelated) => {
                let state = self.connection();
                matches!(state, Connection::Established | Connection::Related)
            }
            Statement::CtState(CtState::Established) => {
                self.connection() == Connection::Established
            }
            Statement::CtState(CtState::Invalid) => self.connection() == Connection::Invalid,
            Statement::CtState(CtState::Untracked) => self.connection() == Connection::Untracked,
            Statement::CtMarkBits(bits) => {
                self.connection() != Connection::Untracked && self.mark & bits == *bits
            }
            Statement::Icmpv6Type { first, last } => {
                let of_icmpv6 = packet.protocol == IPPROTO_ICMPV6;
                of_icmpv6
                    && packet
                        .icmp
                        .is_some_and(|(t, _)| (*first..=*last).contains(&t))
            }
            Statement::Ipv6LinkLocalSource => {
                matches!(packet.source, IpAddr::V6(source) if source.is_unicast_link_local())
            }
            Statement::Lookup {
                fields,
                set,
                negate,
            } => {
                let set = self.set(set)?;
                self.key(fields)
                    .is_some_and(|key| find(set, &key).is_some() != *negate)
            }
            Statement::LocalDestination => packet.oif.is_none(),
            Statement::VerdictMap { .. }
            | Statement::SetCtMarkBits(_)
            | Statement::NoTrack
            | Statement::RejectTcpReset
            | Statement::Reject
            | Statement::NamedCounter(_)
            | Statement::Dnat { .. }
            | Statement::Counter
            | Statement::Limit { .. }
            | Statement::Log { .. }
            | Statement::Queue(_)
            | Statement::Masquerade
            | Statement::MasqueradePorts { .. }
            | Statement::Snat { .. }
            | Statement::SetMarkBits(_)
            | Statement::ClampMss
            | Statement::Verdict(_) => true,
        })
    }

    fn set(&self, name: &str) -> Result<&'a Set, RunError> {
        self.ruleset
            .sets
            .get(name)
            .ok_or_else(|| RunError::NoSuchSet(name.to_owned()))
    }

    fn connection(&self) -> Connection {
        match self.untracked {
            true => Connection::Untracked,
            false => self.packet.connection,
        }
    }

    fn family(&self) -> Family {
        match self.packet.source {
            IpAddr::V4(_) => Family::Ipv4,
            IpAddr::V6(_) => Family::Ipv6,
        }
    }

    /// Address and port of the destination, as they are at this point of the way.
    fn destination(&self) -> (IpAddr, Option<u16>) {
        let packet = self.packet;
        let translated = (packet.destination, packet.ports.map(|(_, port)| port));
        match packet.original_destination {
            Some(original) if !self.translated => original,
            _ => translated,
        }
    }

    /// The outgoing interface, once routing has chosen it.
    fn oif(&self) -> &Option<Interface> {
        match self.hook {
            Hook::Prerouting | Hook::Input => &None,
            Hook::Forward | Hook::Output | Hook::Postrouting => &self.packet.oif,
        }
    }

    /// The element that these fields of the packet are; `None` where it lacks one.
    fn key(&self, fields: &[Field]) -> Option<Element> {
        let parts: Option<Vec<_>> = fields.iter().map(|field| self.field(*field)).collect();
        Some(Element::exact(&parts?))
    }

    fn field(&self, field: Field) -> Option<Part> {
        let packet = self.packet;
        let (destination, port) = self.destination();
        Some(match field {
            Field::Iif => Part::Ifindex(packet.iif.as_ref()?.index),
            Field::Oif => Part::Ifindex(self.oif().as_ref()?.index),
            Field::Ipv4Saddr if packet.source.is_ipv4() => Part::Address(packet.source),
            Field::Ipv6Saddr if packet.source.is_ipv6() => Part::Address(packet.source),
            Field::Ipv4Daddr if destination.is_ipv4() => Part::Address(destination),
            Field::Ipv6Daddr if destination.is_ipv6() => Part::Address(destination),
            Field::L4Proto => Part::Proto(packet.protocol),
            Field::Sport => Part::Port(packet.ports?.0),
            Field::Dport => Part::Port(port?),
            Field::Ipv4Saddr | Field::Ipv6Saddr | Field::Ipv4Daddr | Field::Ipv6Daddr => {
                return None;
            }
        })
    }
}

/// The value of the element that holds `key`.
fn find<'a>(set: &'a Set, key: &Element) -> Option<&'a Option<Verdict>> {
    let holds = |element: &Element| {
        let last = element.end.as_ref().unwrap_or(&element.key);
        spans(&set.header.key).all(|span| {
            let value = &key.key[span.clone()];
            element.key[span.clone()] <= *value && *value <= last[span]
        })
    };
    match (set.header.kind, &set.header.key[..]) {
        (SetKind::Hash, _) => set.elements.get(key),
        // Ranges of one field do not overlap: only the last that begins before can hold the key.
        (SetKind::Interval, [_]) => {
            let bound = Element {
                key: key.key.clone(),
                end: Some(vec![u8::MAX; key.key.len()].into()),
            };
            let (element, value) = set.elements.range(..=bound).next_back()?;
            holds(element).then_some(value)
        }
        (SetKind::Interval, _) => {
            let mut candidates = set.elements.iter().filter(|(element, _)| holds(element));
            candidates.next().map(|(_, value)| value)
        }
    }
}
