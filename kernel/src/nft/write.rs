//! Operations as messages of one transaction.

use super::NftError;
use super::elements;
use super::statement::{lower, words};
use super::wire::*;
use crate::netlink::{Encoder, Flags, Socket};
use policy::ruleset::{
    BaseHook, ChainType, Hook, KeyType, Op, Rule, Ruleset, SetHeader, SetKind, Statement, Verdict,
};
use std::collections::BTreeMap;

/// `NFT_RULE_MAXEXPRS`.
const MOST_EXPRESSIONS: usize = 128;
/// `NFT_NAME_MAXLEN`, without the terminating zero.
const LONGEST_NAME: usize = 255;
/// Longest comment that nft shows, without the terminating zero.
const LONGEST_COMMENT: usize = 127;

/// Sets that a transaction creates, and those that it removes.
pub(super) type HeaderChanges = BTreeMap<String, Option<SetHeader>>;

/// A transaction that is being written.
pub(super) struct Transaction<'a> {
    /// The table's name.
    table: &'static str,
    encoder: Encoder,
    /// What each operation is called, with the sequence number of its first message.
    names: Vec<(u32, String)>,
    /// Headers of the sets that are there before.
    known: Option<&'a BTreeMap<String, SetHeader>>,
    headers: HeaderChanges,
    next_set_id: u32,
}

/// A transaction that is ready to be sent.
pub(super) struct Finished {
    /// The datagram.
    pub(super) request: Encoder,
    /// What the operations are called, with the sequence numbers of their first messages.
    pub(super) names: Vec<(u32, String)>,
    /// What becomes of sets.
    pub(super) headers: HeaderChanges,
}

impl Finished {
    /// What the operation of a message is called.
    pub(super) fn name(&self, sequence: u32) -> Option<&str> {
        let before = self
            .names
            .iter()
            .rev()
            .find(|(first, _)| *first <= sequence);
        before.map(|(_, name)| name.as_str())
    }
}

impl<'a> Transaction<'a> {
    /// `known` are the headers of the sets that are there before.
    pub(super) fn begin(
        socket: &Socket,
        table: &'static str,
        known: Option<&'a BTreeMap<String, SetHeader>>,
    ) -> Self {
        let mut encoder = socket.encoder();
        encoder.message(BATCH_BEGIN, Flags::QUIET, &BATCH, |_| {});
        Self {
            table,
            encoder,
            names: Vec::new(),
            known,
            headers: BTreeMap::new(),
            next_set_id: 1,
        }
    }

    /// Appends a message about the table; answers its sequence number.
    fn request(&mut self, kind: u16, flags: Flags, body: impl FnOnce(&mut Encoder)) -> u32 {
        request_of(self.table, &mut self.encoder, kind, flags, body)
    }

    /// Creates the table if it is missing. With flags, one that is there has to have them too.
    pub(super) fn create_table(&mut self, flags: Option<u32>) {
        let sequence = self.request(NEW_TABLE, Flags::CREATE, |encoder| {
            if let Some(flags) = flags {
                encoder.be_u32(TABLE_FLAGS, flags);
            }
        });
        self.names
            .push((sequence, format!("create table {}", self.table)));
    }

    pub(super) fn delete_table(&mut self) {
        let sequence = self.request(DELETE_TABLE, Flags::QUIET, |_| {});
        self.names
            .push((sequence, format!("delete table {}", self.table)));
    }

    /// Appends the messages of one operation.
    pub(super) fn op(&mut self, op: &Op) -> Result<(), NftError> {
        check(op)?;
        match op {
            Op::AddSet(name, header) => self.add_set(name, header),
            Op::AddElements(name, entries) => self.elements(NEW_ELEMENTS, name, entries)?,
            Op::DeleteElements(name, entries) => self.elements(DELETE_ELEMENTS, name, entries)?,
            Op::AddChain(name, hook) => self.add_chain(name, hook.as_ref()),
            Op::FlushChain(name) => self.simple(DELETE_RULE, RULE_CHAIN, name, "flush chain"),
            Op::AddRules(chain, rules) => self.add_rules(chain, rules)?,
            Op::DeleteChain(name) => self.simple(DELETE_CHAIN, CHAIN_NAME, name, "delete chain"),
            Op::DeleteSet(name) => {
                self.headers.insert(name.clone(), None);
                self.simple(DELETE_SET, SET_NAME, name, "delete set");
            }
            Op::AddCounter(name) => self.counter(NEW_OBJECT, Flags::CREATE, name, "add counter"),
            Op::DeleteCounter(name) => {
                self.counter(DELETE_OBJECT, Flags::QUIET, name, "delete counter");
            }
        }
        Ok(())
    }

    /// Ends the batch. Only since 6.10 the end is acknowledged; the last message before it always
    /// was.
    pub(super) fn end(self) -> Finished {
        let mut finished = self.check_only();
        finished
            .request
            .message(BATCH_END, Flags::QUIET, &BATCH, |_| {});
        finished
    }

    /// Like [`Self::end`] without the end: the kernel checks the operations and forgets them.
    pub(super) fn check_only(mut self) -> Finished {
        self.encoder.acknowledge(self.encoder.len() - 1);
        Finished {
            request: self.encoder,
            names: self.names,
            headers: self.headers,
        }
    }

    fn header(&self, set: &str) -> Option<SetHeader> {
        match self.headers.get(set) {
            Some(changed) => changed.clone(),
            None => self.known?.get(set).cloned(),
        }
    }

    fn simple(&mut self, kind: u16, attribute: u16, name: &str, what: &str) {
        let sequence = self.request(kind, Flags::QUIET, |encoder| {
            encoder.string(attribute, name);
        });
        self.names.push((sequence, format!("{what} {name}")));
    }

    fn counter(&mut self, kind: u16, flags: Flags, name: &str, what: &str) {
        let sequence = self.request(kind, flags, |encoder| {
            encoder.string(OBJECT_NAME, name);
            encoder.be_u32(OBJECT_TYPE, OBJECT_COUNTER);
            if kind == NEW_OBJECT {
                encoder.nested(OBJECT_DATA, |_| {});
            }
        });
        self.names.push((sequence, format!("{what} {name}")));
    }

    fn add_set(&mut self, name: &str, header: &SetHeader) {
        let concatenated = header.key.len() > 1;
        let interval = header.kind == SetKind::Interval;
        let mut flags = 0;
        flags |= if interval { SET_INTERVAL } else { 0 };
        flags |= if header.verdict_map { SET_MAP } else { 0 };
        flags |= if interval && concatenated {
            SET_CONCAT
        } else {
            0
        };
        let id = self.next_set_id;
        self.next_set_id += 1;
        let sequence = self.request(NEW_SET, Flags::CREATE_EXCLUSIVE, |encoder| {
            encoder.string(SET_NAME, name);
            encoder.be_u32(SET_FLAGS, flags);
            encoder.be_u32(SET_KEY_TYPE, key_type(&header.key));
            encoder.be_u32(SET_KEY_LENGTH, key_length(&header.key));
            encoder.be_u32(SET_ID, id);
            if header.verdict_map {
                encoder.be_u32(SET_DATA_TYPE, DATA_VERDICT);
            }
            if header.key == [KeyType::Ifindex] {
                encoder.attribute(SET_USERDATA, &host_byte_order());
            }
            if header.size.is_some() || (interval && concatenated) {
                encoder.nested(SET_DESCRIPTION, |encoder| description(encoder, header));
            }
        });
        let what = if header.verdict_map { "map" } else { "set" };
        self.names.push((sequence, format!("add {what} {name}")));
        self.headers.insert(name.to_owned(), Some(header.clone()));
    }

    fn elements(
        &mut self,
        kind: u16,
        name: &str,
        entries: &[elements::Entry],
    ) -> Result<(), NftError> {
        let verb = if kind == NEW_ELEMENTS {
            "add elements to"
        } else {
            "delete elements of"
        };
        if entries.is_empty() {
            return Ok(());
        }
        let Some(header) = self.header(name) else {
            let reason = "there is no such set".into();
            return Err(NftError::Unencodable {
                op: format!("{verb} {name}"),
                reason,
            });
        };
        for part in elements::parts(entries) {
            let sequence = self.request(kind, Flags::CREATE, |encoder| {
                encoder.string(ELEMENTS_SET, name);
                encoder.nested(ELEMENTS_LIST, |encoder| {
                    for (element, verdict) in part {
                        let verdict = verdict.as_ref().filter(|_| kind == NEW_ELEMENTS);
                        elements::encode(encoder, &header, element, verdict);
                    }
                });
            });
            self.names.push((sequence, format!("{verb} {name}")));
        }
        Ok(())
    }

    fn add_chain(&mut self, name: &str, hook: Option<&BaseHook>) {
        const ACCEPT: u32 = 1;
        let sequence = self.request(NEW_CHAIN, Flags::CREATE_EXCLUSIVE, |encoder| {
            encoder.string(CHAIN_NAME, name);
            let Some(hook) = hook else { return };
            encoder.nested(CHAIN_HOOK, |encoder| {
                encoder.be_u32(HOOK_NUMBER, hook_number(hook.hook));
                encoder.be_u32(HOOK_PRIORITY, hook.priority as u32);
            });
            encoder.be_u32(CHAIN_POLICY, ACCEPT);
            encoder.string(CHAIN_TYPE, chain_type(hook.chain_type));
        });
        self.names.push((sequence, format!("add chain {name}")));
    }

    fn add_rules(&mut self, chain: &str, rules: &[Rule]) -> Result<(), NftError> {
        for (index, rule) in rules.iter().enumerate() {
            let comment = rule.comment.as_deref();
            let shown = comment
                .map(|comment| format!(" ({comment})"))
                .unwrap_or_default();
            let op = format!("add rule {} to chain {chain}{shown}", index + 1);
            let expressions: Vec<_> = rule.statements.iter().flat_map(lower).collect();
            if expressions.len() > MOST_EXPRESSIONS {
                return Err(NftError::Unencodable {
                    op,
                    reason: "the rule is too long".into(),
                });
            }
            let sequence = self.request(NEW_RULE, Flags::APPEND, |encoder| {
                encoder.string(RULE_CHAIN, chain);
                encoder.nested(RULE_EXPRESSIONS, |encoder| {
                    expressions
                        .iter()
                        .for_each(|expression| expression.encode(encoder));
                });
                if let Some(comment) = comment {
                    encoder.attribute(RULE_USERDATA, &comment_userdata(comment));
                }
            });
            self.names.push((sequence, op));
        }
        Ok(())
    }
}

/// The operations that build a ruleset from nothing. Maps refer to chains, rules to both.
pub(super) fn creation(ruleset: &Ruleset) -> Vec<Op> {
    let mut ops: Vec<Op> = ruleset
        .counters
        .iter()
        .cloned()
        .map(Op::AddCounter)
        .collect();
    for (name, set) in &ruleset.sets {
        ops.push(Op::AddSet(name.clone(), set.header.clone()));
    }
    for (name, chain) in &ruleset.chains {
        ops.push(Op::AddChain(name.clone(), chain.hook.clone()));
    }
    for (name, set) in &ruleset.sets {
        let entries = set
            .elements
            .iter()
            .map(|(element, verdict)| (element.clone(), verdict.clone()));
        ops.push(Op::AddElements(name.clone(), entries.collect()));
    }
    for (name, chain) in &ruleset.chains {
        ops.push(Op::AddRules(name.clone(), chain.rules.clone()));
    }
    ops
}

/// Refuses strings that the kernel would refuse, and that might not fit an attribute.
fn check(op: &Op) -> Result<(), NftError> {
    let (what, name) = match op {
        Op::AddSet(name, _) => ("add set", name),
        Op::AddElements(name, _) => ("add elements to", name),
        Op::DeleteElements(name, _) => ("delete elements of", name),
        Op::AddChain(name, _) => ("add chain", name),
        Op::FlushChain(name) => ("flush chain", name),
        Op::AddRules(name, _) => ("add rules to chain", name),
        Op::DeleteChain(name) => ("delete chain", name),
        Op::DeleteSet(name) => ("delete set", name),
        Op::AddCounter(name) => ("add counter", name),
        Op::DeleteCounter(name) => ("delete counter", name),
    };
    let error = |reason: String| NftError::Unencodable {
        op: format!("{what} {name}"),
        reason,
    };
    let mut texts = vec![name.as_str()];
    match op {
        Op::AddElements(_, entries) => {
            for (element, verdict) in entries {
                let longest = element
                    .key
                    .len()
                    .max(element.end.as_ref().map_or(0, |end| end.len()));
                if longest > LONGEST_NAME {
                    return Err(error("a key is too long".into()));
                }
                texts.extend(verdict.as_ref().and_then(target));
            }
        }
        Op::AddRules(_, rules) => {
            for rule in rules {
                texts.extend(rule.statements.iter().filter_map(text));
                if rule
                    .comment
                    .as_ref()
                    .is_some_and(|comment| comment.len() > LONGEST_COMMENT)
                {
                    return Err(error("a comment is longer than 127 bytes".into()));
                }
            }
        }
        _ => {}
    }
    match texts
        .into_iter()
        .find(|text| text.len() > LONGEST_NAME || text.contains('\0'))
    {
        Some(text) => Err(error(format!("{text:?} is too long or no text"))),
        None => Ok(()),
    }
}

fn text(statement: &Statement) -> Option<&str> {
    match statement {
        Statement::IifnamePrefix { prefix, .. }
        | Statement::OifnamePrefix { prefix, .. }
        | Statement::Log { prefix, .. } => Some(prefix),
        Statement::Iifname(name) | Statement::Oifname(name) | Statement::NamedCounter(name) => {
            Some(name)
        }
        Statement::Lookup { set, .. } => Some(set),
        Statement::VerdictMap { map, .. } => Some(map),
        Statement::Verdict(verdict) => target(verdict),
        _ => None,
    }
}

fn target(verdict: &Verdict) -> Option<&str> {
    match verdict {
        Verdict::Jump(chain) | Verdict::Goto(chain) => Some(chain),
        Verdict::Accept | Verdict::Drop | Verdict::Return => None,
    }
}

/// Tells nft that it has to print the key as a number of the host
/// (`NFTNL_UDATA_SET_KEYBYTEORDER`, 4 bytes, `BYTEORDER_HOST_ENDIAN`).
fn host_byte_order() -> [u8; 6] {
    let [a, b, c, d] = 1_u32.to_ne_bytes();
    [0, 4, a, b, c, d]
}

/// Numbers of nft's data types, which it prints elements by: 6 bits a field.
fn key_type(key: &[KeyType]) -> u32 {
    key.iter()
        .fold(0, |types, key| types << 6 | data_type(*key))
}

/// `enum datatypes` of nft.
pub(super) fn data_type(key: KeyType) -> u32 {
    match key {
        KeyType::Ipv4 => 7,
        KeyType::Ipv6 => 8,
        KeyType::Proto => 12,
        KeyType::Port => 13,
        KeyType::Ifindex => 20,
    }
}

fn key_length(key: &[KeyType]) -> u32 {
    match key {
        [one] => one.len() as u32,
        several => several.iter().map(|key| 4 * words(*key)).sum(),
    }
}

fn description(encoder: &mut Encoder, header: &SetHeader) {
    if let Some(size) = header.size {
        encoder.be_u32(DESCRIPTION_SIZE, size);
    }
    // The lengths of the fields are for ranges alone; with exact keys the kernel refuses them.
    if header.kind == SetKind::Interval && header.key.len() > 1 {
        encoder.nested(DESCRIPTION_CONCAT, |encoder| {
            for key in &header.key {
                encoder.nested(1, |encoder| encoder.be_u32(1, key.len() as u32));
            }
        });
    }
}

/// `enum nf_inet_hooks`.
pub(super) fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}

pub(super) fn chain_type(kind: ChainType) -> &'static str {
    match kind {
        ChainType::Filter => "filter",
        ChainType::Nat => "nat",
    }
}

/// As libnftnl writes it: kind 0, length, text with its terminating zero.
fn comment_userdata(comment: &str) -> Vec<u8> {
    let mut bytes = vec![0, comment.len() as u8 + 1];
    bytes.extend_from_slice(comment.as_bytes());
    bytes.push(0);
    bytes
}
