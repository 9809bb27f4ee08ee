//! Our table back into a value.

use super::elements::Collector;
use super::expression::Expression;
use super::statement::raise;
use super::wire::*;
use super::write::{chain_type, data_type, hook_number};
use super::{Count, NftError, Table, TableState};
use crate::netlink::{Attributes, Encoder, Flags, Frame, NetlinkError, be_u32};
use model::names::NFT_TABLE;
use policy::ruleset::{
    BaseHook, Chain, ChainType, Hook, KeyType, Rule, Ruleset, Set, SetHeader, SetKind,
};
use std::collections::BTreeMap;

/// How often a table that changes while it is read is read again.
const ATTEMPTS: usize = 10;
/// So many elements are always dumped at once.
const ONE_DATAGRAM: usize = 32;

/// Name, header if it is of our making, and number of elements if the kernel tells it.
type ListedSet = (String, Option<SetHeader>, Option<u32>);

impl Table {
    pub(super) fn read(&mut self) -> Result<Option<Ruleset>, NftError> {
        for _ in 0..ATTEMPTS {
            let before = self.generation()?;
            let read = self.read_once();
            // What vanished meanwhile is no failure of the next attempt.
            if self.generation()? == before {
                return read;
            }
        }
        let what = format!("the nft table {NFT_TABLE}");
        Err(NftError::Read {
            what,
            source: NetlinkError::Unstable,
        })
    }

    /// Headers of the sets of our table that are of our making.
    pub(super) fn read_headers(&mut self) -> Result<BTreeMap<String, SetHeader>, NftError> {
        let known = |(name, header, _): ListedSet| Some((name, header?));
        Ok(self.sets()?.into_iter().filter_map(known).collect())
    }

    pub(super) fn state(&mut self) -> Result<TableState, NftError> {
        Ok(match self.table_flags()? {
            None => TableState::Missing,
            Some((_, Some(port))) => TableState::Owned(port),
            Some((flags, None)) if flags & PERSIST != 0 => TableState::Orphan,
            Some(_) => TableState::Ours,
        })
    }

    fn read_once(&mut self) -> Result<Option<Ruleset>, NftError> {
        let Some((flags, _)) = self.table_flags()? else {
            return Ok(None);
        };
        let mut foreign = Vec::new();
        if flags & DORMANT != 0 {
            foreign.push("the flag dormant".to_owned());
        }
        let mut ruleset = Ruleset::default();
        for (name, header, count) in self.sets()? {
            let Some(header) = header else {
                foreign.push(format!("set {name}"));
                continue;
            };
            match self.elements(&name, count)?.finish(&header) {
                Some(elements) => drop(ruleset.sets.insert(name, Set { header, elements })),
                None => foreign.push(format!("elements of set {name}")),
            }
        }
        for (name, hook) in self.chains()? {
            let Some(hook) = hook else {
                foreign.push(format!("chain {name}"));
                continue;
            };
            let mut rules = Vec::new();
            for (handle, rule) in self.rules(&name)? {
                match rule {
                    Some(rule) => rules.push(rule),
                    None => foreign.push(format!("rule {handle} of chain {name}")),
                }
            }
            ruleset.chains.insert(name, Chain { hook, rules });
        }
        for (name, is_counter) in self.objects()? {
            match is_counter {
                true => drop(ruleset.counters.insert(name)),
                false => foreign.push(format!("object {name}")),
            }
        }
        foreign.extend(self.others(GET_FLOWTABLE, "flowtable"));
        if !foreign.is_empty() {
            return Err(NftError::Foreign { objects: foreign });
        }
        self.headers = ruleset
            .sets
            .iter()
            .map(|(n, set)| (n.clone(), set.header.clone()))
            .collect();
        Ok(Some(ruleset))
    }

    /// Flags and owner of our table.
    fn table_flags(&mut self) -> Result<Option<(u32, Option<u32>)>, NftError> {
        let encode = |encoder: &mut Encoder| {
            request(encoder, GET_TABLE, Flags::QUIET, |_| {});
        };
        let found = self.socket.dump(
            encode,
            || None,
            |found, frame| {
                let attributes = frame.attributes(4);
                let flags = attributes.be_u32(TABLE_FLAGS).unwrap_or(0);
                *found = Some((flags, attributes.be_u32(TABLE_OWNER)));
            },
        );
        match found {
            Err(error) if error.is(libc::ENOENT) => Ok(None),
            found => found.map_err(failed(format!("the nft table {NFT_TABLE}"))),
        }
    }

    /// The number of the last transaction that changed any table of the network namespace.
    pub(super) fn generation(&mut self) -> Result<Option<u32>, NftError> {
        let encode = |encoder: &mut Encoder| {
            encoder.message(GET_GENERATION, Flags::QUIET, &[0; 4], |_| {});
        };
        let found = self.socket.dump(
            encode,
            || None,
            |found, frame| {
                *found = frame.attributes(4).be_u32(1);
            },
        );
        found.map_err(failed("the generation of nf_tables".into()))
    }

    fn sets(&mut self) -> Result<Vec<ListedSet>, NftError> {
        self.list(
            GET_SET,
            "sets",
            |_| {},
            |attributes| {
                let count = attributes.be_u32(SET_COUNT);
                Some((attributes.text(SET_NAME)?, set_header(attributes), count))
            },
        )
    }

    /// The elements of a set, of which there may be known how many.
    ///
    /// A hash table that grows or shrinks, as it does for a while after many elements came or
    /// went, is dumped with elements missing, and the kernel does not say so. A dump is believed
    /// when it has the right number of elements, is one datagram, or is found twice.
    fn elements(&mut self, set: &str, count: Option<u32>) -> Result<Collector, NftError> {
        let mut read = self.dump_elements(set)?;
        for _ in 0..ATTEMPTS {
            let counted = count.is_some_and(|count| read.len() == count as usize);
            if counted || read.len() <= ONE_DATAGRAM {
                return Ok(read);
            }
            let again = self.dump_elements(set)?;
            if again == read {
                return Ok(read);
            }
            read = again;
        }
        let what = format!("the elements of set {set}");
        Err(NftError::Read {
            what,
            source: NetlinkError::Unstable,
        })
    }

    fn dump_elements(&mut self, set: &str) -> Result<Collector, NftError> {
        let encode = |encoder: &mut Encoder| {
            request(encoder, GET_ELEMENTS, Flags::DUMP, |e| {
                e.string(ELEMENTS_SET, set)
            });
        };
        let read = self
            .socket
            .dump(encode, Collector::default, |collector, frame| {
                for (_, element) in frame.attributes(4).inside(ELEMENTS_LIST) {
                    collector.push(Attributes(element));
                }
            });
        read.map_err(failed(format!("the elements of set {set}")))
    }

    /// Chains; a chain that is not of our making has no hook, one that is not a base chain has
    /// `Some(None)`.
    #[allow(clippy::type_complexity)] // the two layers are what is told apart
    fn chains(&mut self) -> Result<Vec<(String, Option<Option<BaseHook>>)>, NftError> {
        self.list(
            GET_CHAIN,
            "chains",
            |_| {},
            |attributes| {
                let hook = match attributes.find(CHAIN_HOOK) {
                    None => Some(None),
                    Some(_) => base_hook(attributes).map(Some),
                };
                Some((attributes.text(CHAIN_NAME)?, hook))
            },
        )
    }

    /// Rules of a chain in order, with their handles.
    fn rules(&mut self, chain: &str) -> Result<Vec<(u64, Option<Rule>)>, NftError> {
        let what = format!("rules of chain {chain}");
        let filter = |encoder: &mut Encoder| encoder.string(RULE_CHAIN, chain);
        self.list(GET_RULE, &what, filter, |attributes| {
            if attributes.text(RULE_CHAIN)? != chain {
                return None;
            }
            let handle = attributes
                .find(RULE_HANDLE)?
                .try_into()
                .ok()
                .map(u64::from_be_bytes)?;
            Some((handle, rule(attributes)))
        })
    }

    /// Names of objects, and whether they are counters. A kernel without objects has none.
    fn objects(&mut self) -> Result<Vec<(String, bool)>, NftError> {
        let object = |attributes: Attributes<'_>| {
            let is_counter = attributes.be_u32(OBJECT_TYPE) == Some(OBJECT_COUNTER);
            Some((attributes.text(OBJECT_NAME)?, is_counter))
        };
        self.list(GET_OBJECT, "objects", |_| {}, object)
    }

    /// What every counter has counted since it was created.
    pub(super) fn counters(&mut self) -> Result<BTreeMap<String, Count>, NftError> {
        let counter = |attributes: Attributes<'_>| {
            let data = attributes.inside(OBJECT_DATA);
            let number = |kind| data.find(kind)?.try_into().ok().map(u64::from_be_bytes);
            let count = Count {
                packets: number(COUNTER_PACKETS)?,
                bytes: number(COUNTER_BYTES)?,
            };
            Some((attributes.text(OBJECT_NAME)?, count))
        };
        let all = self.list(GET_OBJECT, "counters", |_| {}, counter)?;
        Ok(all.into_iter().collect())
    }

    /// Names of objects of a kind that we never make. A kernel without the kind has none.
    fn others(&mut self, kind: u16, what: &str) -> Vec<String> {
        const NAME: u16 = 2;
        let named = |attributes: Attributes<'_>| {
            Some(format!(
                "{what} {}",
                attributes.text(NAME).unwrap_or_default()
            ))
        };
        self.list(kind, what, |_| {}, named).unwrap_or_default()
    }

    /// Dumps a kind of object of our table.
    fn list<T>(
        &mut self,
        kind: u16,
        what: &str,
        filter: impl Fn(&mut Encoder),
        decode: impl Fn(Attributes<'_>) -> Option<T>,
    ) -> Result<Vec<T>, NftError> {
        let encode = |encoder: &mut Encoder| {
            request(encoder, kind, Flags::DUMP, &filter);
        };
        // Filters of dumps came with different kernels: the table is compared here as well.
        let each = |found: &mut Vec<T>, frame: Frame<'_>| {
            let ours = frame.payload().first() == Some(&FAMILY_INET);
            let attributes = frame.attributes(4);
            if ours && attributes.text(IN_TABLE).as_deref() == Some(NFT_TABLE) {
                found.extend(decode(attributes));
            }
        };
        self.socket
            .dump(encode, Vec::new, each)
            .map_err(failed(format!("the {what}")))
    }
}

fn failed(what: String) -> impl FnOnce(NetlinkError) -> NftError {
    move |source| NftError::Read { what, source }
}

pub(super) fn set_header(attributes: Attributes<'_>) -> Option<SetHeader> {
    let flags = attributes.be_u32(SET_FLAGS).unwrap_or(0);
    if flags & !(SET_INTERVAL | SET_MAP | SET_CONCAT) != 0 {
        return None;
    }
    let verdict_map = flags & SET_MAP != 0;
    if verdict_map && attributes.be_u32(SET_DATA_TYPE) != Some(DATA_VERDICT) {
        return None;
    }
    let kind = if flags & SET_INTERVAL != 0 {
        SetKind::Interval
    } else {
        SetKind::Hash
    };
    let size = attributes.inside(SET_DESCRIPTION).be_u32(DESCRIPTION_SIZE);
    let key = key_types(attributes.be_u32(SET_KEY_TYPE)?)?;
    Some(SetHeader {
        key,
        kind,
        verdict_map,
        size,
    })
}

fn key_types(mut types: u32) -> Option<Vec<KeyType>> {
    const KNOWN: [KeyType; 5] = [
        KeyType::Ifindex,
        KeyType::Ipv4,
        KeyType::Ipv6,
        KeyType::Proto,
        KeyType::Port,
    ];
    let mut key = Vec::new();
    while types != 0 {
        key.push(
            KNOWN
                .into_iter()
                .find(|known| data_type(*known) == types & 0x3f)?,
        );
        types >>= 6;
    }
    key.reverse();
    (!key.is_empty()).then_some(key)
}

pub(super) fn base_hook(attributes: Attributes<'_>) -> Option<BaseHook> {
    const ACCEPT: u32 = 1;
    const BASE: u32 = 1;
    const HOOKS: [Hook; 5] = [
        Hook::Prerouting,
        Hook::Input,
        Hook::Forward,
        Hook::Output,
        Hook::Postrouting,
    ];
    let flags = attributes.be_u32(CHAIN_FLAGS).unwrap_or(0);
    if attributes.be_u32(CHAIN_POLICY) != Some(ACCEPT) || flags & !BASE != 0 {
        return None;
    }
    let number = attributes.inside(CHAIN_HOOK).be_u32(HOOK_NUMBER)?;
    let priority = attributes
        .inside(CHAIN_HOOK)
        .find(HOOK_PRIORITY)
        .and_then(be_u32)? as i32;
    let kind = attributes.text(CHAIN_TYPE)?;
    Some(BaseHook {
        hook: HOOKS
            .into_iter()
            .find(|hook| hook_number(*hook) == number)?,
        chain_type: [ChainType::Filter, ChainType::Nat]
            .into_iter()
            .find(|candidate| chain_type(*candidate) == kind)?,
        priority,
    })
}

pub(super) fn rule(attributes: Attributes<'_>) -> Option<Rule> {
    let expressions: Option<Vec<_>> = attributes
        .inside(RULE_EXPRESSIONS)
        .map(|(_, element)| Expression::decode(Attributes(element)))
        .collect();
    let comment = match attributes.find(RULE_USERDATA) {
        None => None,
        Some(userdata) => Some(comment(userdata)?),
    };
    Some(Rule {
        statements: raise(&expressions?)?,
        comment,
    })
}

/// The comment, if that is all there is.
fn comment(userdata: &[u8]) -> Option<String> {
    match userdata {
        [0, length, text @ ..] if usize::from(*length) == text.len() => {
            String::from_utf8(text.strip_suffix(&[0])?.to_vec()).ok()
        }
        _ => None,
    }
}
