//! Our table compared with what it should be, a few milliseconds at a time.
//!
//! What is compared is what the kernel has when it is asked and what should be at that moment: the
//! table may be written to between two steps.

use super::NftError;
use super::elements::Collector;
use super::read::{base_hook, rule, set_header};
use super::wire::*;
use crate::kernel::{OpenError, open};
use crate::netlink::{
    Attributes, Dump, Encoder, Flags, Frame, NetlinkError, Progress, Protocol, Socket,
};
use model::names::NFT_TABLE;
use policy::ruleset::{Ruleset, SetKind};
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::time::{Duration, Instant};

/// A piece that changes while it is read is read again so often; then it is read without a pause,
/// and so often again.
const ATTEMPTS: usize = 3;

/// One comparison of our table, from its name to the last rule.
pub struct Audit {
    socket: Socket,
    stage: Stage,
    dump: Option<Dump>,
    found: Found,
    /// How often the piece in hand changed meanwhile.
    torn: usize,
    /// The piece in hand differed when it was read before.
    doubted: bool,
}

/// What is known of the piece in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    InHand,
    Different,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audited {
    /// The table is as it should be.
    Same,
    /// It is not, and this is where it shows first.
    Differs(String),
}

/// What is compared: names and headers of everything first.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Table,
    Sets,
    Chains,
    Counters,
    Flowtables,
    Elements(String),
    Rules(String),
    Done,
}

/// What was found of the piece in hand.
#[derive(Debug, Default)]
struct Found {
    /// Objects, elements or rules so far.
    count: usize,
    /// Ranges come in two halves, which may be far from each other.
    ranges: Collector,
    different: bool,
}

impl Audit {
    /// A comparison in the calling thread's network namespace, with a socket of its own.
    pub fn begin() -> Result<Self, OpenError> {
        Ok(Self {
            socket: open(Protocol::Netfilter)?,
            stage: Stage::Table,
            dump: None,
            found: Found::default(),
            torn: 0,
            doubted: false,
        })
    }

    /// Whether names and headers have been compared: what remains are elements and rules.
    pub fn is_past_headers(&self) -> bool {
        matches!(
            self.stage,
            Stage::Elements(_) | Stage::Rules(_) | Stage::Done
        )
    }

    /// Compares on for about as long as `budget`; `None` where that was not enough.
    pub fn step(
        &mut self,
        expected: &Ruleset,
        budget: Duration,
    ) -> Result<Option<Audited>, NftError> {
        let started = Instant::now();
        while self.stage != Stage::Done {
            if self.read_on(expected)? == Piece::Different {
                return Ok(Some(Audited::Differs(self.stage.to_string())));
            }
            let hurries = self.doubted || self.torn > ATTEMPTS;
            if !hurries && started.elapsed() >= budget && self.stage != Stage::Done {
                return Ok(None);
            }
        }
        Ok(Some(Audited::Same))
    }

    /// Reads one datagram.
    fn read_on(&mut self, expected: &Ruleset) -> Result<Piece, NftError> {
        if self.dump.is_none() && !self.stage.is_of(expected) {
            return Ok(self.proceed(expected));
        }
        match self.read_datagram(expected) {
            Ok(Progress::More) => Ok(Piece::InHand),
            Ok(Progress::Torn) => {
                self.dump = None;
                self.torn += 1;
                match self.torn > 2 * ATTEMPTS {
                    true => Err(self.failed(NetlinkError::Unstable)),
                    false => Ok(Piece::InHand),
                }
            }
            Ok(Progress::Whole) => {
                let found = std::mem::take(&mut self.found);
                Ok(match found.concludes(&self.stage, expected) {
                    true => self.proceed(expected),
                    false => self.doubt(),
                })
            }
            // A kernel without flow tables has none.
            Err(NetlinkError::Refused { .. }) if self.stage == Stage::Flowtables => {
                Ok(self.proceed(expected))
            }
            Err(error) if error.is(libc::ENOENT) => Ok(self.doubt()),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn proceed(&mut self, expected: &Ruleset) -> Piece {
        self.dump = None;
        self.torn = 0;
        self.doubted = false;
        self.stage = self.stage.next(expected);
        Piece::InHand
    }

    /// The kernel answers ahead of what is read, so that what was read may be from before the last
    /// transaction: a difference is believed when it is found again without a pause.
    fn doubt(&mut self) -> Piece {
        self.dump = None;
        if std::mem::replace(&mut self.doubted, true) {
            return Piece::Different;
        }
        Piece::InHand
    }

    fn read_datagram(&mut self, expected: &Ruleset) -> Result<Progress, NetlinkError> {
        let Self {
            socket,
            stage,
            dump,
            found,
            ..
        } = self;
        let dump = match dump {
            Some(dump) => dump,
            None => {
                *found = Found::default();
                dump.insert(socket.begin_dump(|encoder| stage.encode(encoder))?)
            }
        };
        let progress = socket.continue_dump(dump, &mut |frame| found.take(stage, expected, frame));
        found.settle(stage, expected);
        progress
    }

    fn failed(&self, source: NetlinkError) -> NftError {
        NftError::Read {
            what: self.stage.to_string(),
            source,
        }
    }
}

impl Stage {
    fn encode(&self, encoder: &mut Encoder) {
        let (kind, flags) = match self {
            Self::Table => (GET_TABLE, Flags::QUIET),
            Self::Sets => (GET_SET, Flags::DUMP),
            Self::Chains => (GET_CHAIN, Flags::DUMP),
            Self::Counters => (GET_OBJECT, Flags::DUMP),
            Self::Flowtables | Self::Done => (GET_FLOWTABLE, Flags::DUMP),
            Self::Elements(_) => (GET_ELEMENTS, Flags::DUMP),
            Self::Rules(_) => (GET_RULE, Flags::DUMP),
        };
        request(encoder, kind, flags, |encoder| match self {
            Self::Elements(set) => encoder.string(ELEMENTS_SET, set),
            Self::Rules(chain) => encoder.string(RULE_CHAIN, chain),
            _ => {}
        });
    }

    /// False for the content of what should not be there any more.
    fn is_of(&self, expected: &Ruleset) -> bool {
        match self {
            Self::Elements(set) => expected.sets.contains_key(set),
            Self::Rules(chain) => expected.chains.contains_key(chain),
            _ => true,
        }
    }

    fn next(&self, expected: &Ruleset) -> Self {
        let chain_after = |name: Option<&String>| match after(&expected.chains, name) {
            Some(chain) => Self::Rules(chain.clone()),
            None => Self::Done,
        };
        let set_after = |name: Option<&String>| match after(&expected.sets, name) {
            Some(set) => Self::Elements(set.clone()),
            None => chain_after(None),
        };
        match self {
            Self::Table => Self::Sets,
            Self::Sets => Self::Chains,
            Self::Chains => Self::Counters,
            Self::Counters => Self::Flowtables,
            Self::Flowtables => set_after(None),
            Self::Elements(set) => set_after(Some(set)),
            Self::Rules(chain) => chain_after(Some(chain)),
            Self::Done => Self::Done,
        }
    }
}

fn after<'a, T>(all: &'a BTreeMap<String, T>, name: Option<&String>) -> Option<&'a String> {
    match name {
        None => all.keys().next(),
        Some(name) => {
            let mut rest = all.range::<String, _>((Excluded(name), Unbounded));
            rest.next().map(|(name, _)| name)
        }
    }
}

/// What is compared in it.
impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Table | Self::Done => write!(f, "the nft table {NFT_TABLE}"),
            Self::Sets => f.write_str("the sets"),
            Self::Chains => f.write_str("the chains"),
            Self::Counters => f.write_str("the counters"),
            Self::Flowtables => f.write_str("the flowtables"),
            Self::Elements(set) => write!(f, "the elements of set {set}"),
            Self::Rules(chain) => write!(f, "the rules of chain {chain}"),
        }
    }
}

impl Found {
    /// One message of the piece in hand.
    fn take(&mut self, stage: &Stage, expected: &Ruleset, frame: Frame<'_>) {
        let attributes = frame.attributes(4);
        if let Stage::Elements(_) = stage {
            for (_, element) in attributes.inside(ELEMENTS_LIST) {
                self.ranges.push(Attributes(element));
            }
            return;
        }
        let ours = frame.payload().first() == Some(&FAMILY_INET);
        let of_table = match stage {
            Stage::Table => attributes.text(TABLE_NAME),
            _ => attributes.text(IN_TABLE),
        };
        if !ours || of_table.as_deref() != Some(NFT_TABLE) {
            return;
        }
        // A kernel that does not filter tells the rules of all chains.
        let of_another = |chain: &String| attributes.text(RULE_CHAIN).as_ref() != Some(chain);
        if matches!(stage, Stage::Rules(chain) if of_another(chain)) {
            return;
        }
        self.different |= !self.is_expected(stage, expected, attributes);
        self.count += 1;
    }

    fn is_expected(&self, stage: &Stage, expected: &Ruleset, attributes: Attributes<'_>) -> bool {
        let name = |kind| attributes.text(kind).unwrap_or_default();
        match stage {
            Stage::Table => attributes.be_u32(TABLE_FLAGS).unwrap_or(0) & DORMANT == 0,
            Stage::Sets => {
                let set = expected.sets.get(&name(SET_NAME));
                set.is_some_and(|set| set_header(attributes).as_ref() == Some(&set.header))
            }
            Stage::Chains => {
                let chain = expected.chains.get(&name(CHAIN_NAME));
                chain.is_some_and(|chain| match attributes.find(CHAIN_HOOK) {
                    None => chain.hook.is_none(),
                    Some(_) => chain.hook.is_some() && base_hook(attributes) == chain.hook,
                })
            }
            Stage::Counters => {
                let is_counter = attributes.be_u32(OBJECT_TYPE) == Some(OBJECT_COUNTER);
                is_counter && expected.counters.contains(&name(OBJECT_NAME))
            }
            Stage::Rules(chain) => {
                let rules = expected.chains.get(chain).map(|chain| &chain.rules);
                let wanted = rules.and_then(|rules| rules.get(self.count));
                wanted.is_some() && rule(attributes).as_ref() == wanted
            }
            Stage::Flowtables | Stage::Elements(_) | Stage::Done => false,
        }
    }

    /// Compares the elements of one datagram, where each of them stands for itself.
    fn settle(&mut self, stage: &Stage, expected: &Ruleset) {
        let Stage::Elements(name) = stage else {
            return;
        };
        let set = expected.sets.get(name);
        let Some(set) = set.filter(|set| set.header.kind == SetKind::Hash) else {
            return;
        };
        match std::mem::take(&mut self.ranges).finish(&set.header) {
            Some(found)
                if found
                    .iter()
                    .all(|(element, value)| set.elements.get(element) == Some(value)) =>
            {
                self.count += found.len();
            }
            _ => self.different = true,
        }
    }

    /// Whether this is all there should be of a piece, and nothing else.
    fn concludes(self, stage: &Stage, expected: &Ruleset) -> bool {
        let different = self.different;
        let complete = match stage {
            Stage::Table => self.count == 1,
            Stage::Sets => self.count == expected.sets.len(),
            Stage::Chains => self.count == expected.chains.len(),
            Stage::Counters => self.count == expected.counters.len(),
            Stage::Flowtables | Stage::Done => self.count == 0,
            Stage::Rules(chain) => {
                let chain = expected.chains.get(chain);
                chain.is_some_and(|chain| self.count == chain.rules.len())
            }
            Stage::Elements(set) => match expected.sets.get(set) {
                Some(set) if set.header.kind == SetKind::Hash => self.count == set.elements.len(),
                Some(set) => self.ranges.finish(&set.header).as_ref() == Some(&set.elements),
                None => false,
            },
        };
        !different && complete
    }
}
