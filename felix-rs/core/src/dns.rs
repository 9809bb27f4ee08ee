//! What names resolve to, from the queries of this node's pods and the answers to them.
//!
//! An answer counts if it repeats the question of a query that the same pod sent from the same
//! port with the same id, not long ago. An address stays for its time to live and a grace: a
//! program goes on using what it has resolved.

mod message;

use message::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time that an address is kept beyond its time to live.
pub const GRACE: Duration = Duration::from_secs(300);
/// Queries without an answer that are remembered.
const MAX_QUERIES: usize = 10_000;
/// Addresses of one name, and names, that are remembered.
const MAX_ADDRESSES: usize = 1000;
const MAX_NAMES: usize = 10_000;

/// Points in time, as the time since some beginning.
type Instant = Duration;

/// Who asked: address and port of the pod, and the id of the query.
type Asker = (IpAddr, u16, u16);

/// Queries under way, and what names resolve to.
#[derive(Debug, Default)]
pub struct Names {
    queries: BTreeMap<Asker, (String, Instant)>,
    /// Until when each address of a name counts.
    addresses: BTreeMap<String, BTreeMap<IpAddr, Instant>>,
    /// Every address that a name ever had: what was opened while it counted stays open.
    ever: BTreeSet<IpAddr>,
    changed: BTreeSet<String>,
}

impl Names {
    /// A pod asked.
    pub fn on_query(&mut self, pod: IpAddr, port: u16, payload: &[u8], now: Instant) {
        let Some(message) = Message::parse(payload).filter(|m| !m.is_answer) else {
            return;
        };
        self.queries.retain(|_, (_, until)| *until > now);
        if self.queries.len() < MAX_QUERIES {
            let asker = (pod, port, message.id);
            self.queries
                .insert(asker, (message.question, now + PATIENCE));
        }
    }

    /// A pod was answered. Names that `wanted` does not want are forgotten at once.
    pub fn on_answer(
        &mut self,
        pod: IpAddr,
        port: u16,
        payload: &[u8],
        now: Instant,
        wanted: impl Fn(&str) -> bool,
    ) {
        let Some(message) = Message::parse(payload).filter(|m| m.is_answer) else {
            return;
        };
        let asker = (pod, port, message.id);
        let asked = self.queries.get(&asker);
        if asked.is_none_or(|(name, until)| *name != message.question || *until <= now) {
            return;
        }
        self.queries.remove(&asker);
        if !wanted(&message.question) {
            return;
        }
        let known = self.addresses.len();
        if known >= MAX_NAMES && !self.addresses.contains_key(&message.question) {
            return;
        }
        let of_name = self.addresses.entry(message.question.clone()).or_default();
        for (address, lifetime) in message.addresses {
            let until = now + Duration::from_secs(lifetime.into()) + GRACE;
            if let Some(present) = of_name.get_mut(&address) {
                *present = until.max(*present);
            } else if of_name.len() < MAX_ADDRESSES {
                of_name.insert(address, until);
                self.ever.insert(address);
                self.changed.insert(message.question.clone());
            }
        }
    }

    /// What counts no more, and what nobody wants any more, goes.
    pub fn expire(&mut self, now: Instant, wanted: impl Fn(&str) -> bool) {
        for (name, addresses) in &mut self.addresses {
            let before = addresses.len();
            let keep = wanted(name);
            addresses.retain(|_, until| keep && *until > now);
            if addresses.len() != before {
                self.changed.insert(name.clone());
            }
        }
        self.addresses.retain(|_, addresses| !addresses.is_empty());
        if self.addresses.is_empty() && self.ever.len() > MAX_NAMES {
            self.ever.clear();
        }
    }

    /// Names whose addresses changed since the last call, with those that they have.
    pub fn take_changed(&mut self) -> Vec<(String, BTreeSet<IpAddr>)> {
        let changed = std::mem::take(&mut self.changed).into_iter();
        changed
            .map(|name| {
                let addresses = self.addresses.get(&name);
                let addresses = addresses.map(|known| known.keys().copied().collect());
                (name, addresses.unwrap_or_default())
            })
            .collect()
    }

    /// What is known now, by name.
    pub fn known(&self) -> impl Iterator<Item = (&String, BTreeSet<IpAddr>)> {
        let all = self.addresses.iter();
        all.map(|(name, addresses)| (name, addresses.keys().copied().collect()))
    }

    /// Whether a name ever resolved to this address.
    pub fn ever_had(&self, address: IpAddr) -> bool {
        self.ever.contains(&address)
    }
}

#[cfg(test)]
mod tests;
