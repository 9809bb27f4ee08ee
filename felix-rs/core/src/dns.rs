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
/// The longest time to live that is believed.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Queries without an answer that are remembered of one pod.
const MAX_QUERIES: usize = 64;
/// Addresses of one name, and names, that are remembered.
const MAX_ADDRESSES: usize = 256;
const MAX_NAMES: usize = 4096;

/// What is kept over a restart: names, their addresses, and seconds left.
pub type Saved = BTreeMap<String, BTreeMap<IpAddr, u64>>;

/// Points in time, as the time since some beginning.
type Instant = Duration;

/// Of one pod: the port that asked, and the id of the query.
type Query = (u16, u16);

/// Queries under way, and what names resolve to.
#[derive(Debug, Default)]
pub struct Names {
    queries: BTreeMap<IpAddr, BTreeMap<Query, (String, Instant)>>,
    /// Until when each address of a name counts.
    addresses: BTreeMap<String, BTreeMap<IpAddr, Instant>>,
    /// Addresses that a name had, and until when what was opened to them meanwhile is left open.
    past: BTreeMap<IpAddr, Instant>,
    changed: BTreeSet<String>,
}

impl Names {
    /// A pod asked. Names that `wanted` does not want are not looked at.
    pub fn on_query(
        &mut self,
        pod: IpAddr,
        port: u16,
        payload: &[u8],
        now: Instant,
        wanted: impl Fn(&str) -> bool,
    ) {
        let Some(message) = Message::parse(payload).filter(|m| !m.is_answer) else {
            return;
        };
        if !wanted(&message.question) {
            return;
        }
        let of_pod = self.queries.entry(pod).or_default();
        of_pod.retain(|_, (_, until)| *until > now);
        if of_pod.len() < MAX_QUERIES {
            of_pod.insert((port, message.id), (message.question, now + PATIENCE));
        }
    }

    /// A pod was answered.
    pub fn on_answer(&mut self, pod: IpAddr, port: u16, payload: &[u8], now: Instant) {
        let Some(message) = Message::parse(payload).filter(|m| m.is_answer) else {
            return;
        };
        let Some(of_pod) = self.queries.get_mut(&pod) else {
            return;
        };
        let query = (port, message.id);
        let asked = of_pod.get(&query);
        if asked.is_none_or(|(name, until)| *name != message.question || *until <= now) {
            return;
        }
        of_pod.remove(&query);
        let name = message.question;
        if self.addresses.len() >= MAX_NAMES && !self.addresses.contains_key(&name) {
            return;
        }
        let of_name = self.addresses.entry(name.clone()).or_default();
        for (address, lifetime) in message.addresses {
            let lifetime = Duration::from_secs(lifetime.into()).min(MAX_LIFETIME);
            let until = now + lifetime + GRACE;
            if let Some(present) = of_name.get_mut(&address) {
                *present = until.max(*present);
            } else if of_name.len() < MAX_ADDRESSES {
                of_name.insert(address, until);
                self.changed.insert(name.clone());
            }
        }
    }

    /// What counts no more, and what nobody wants any more, goes.
    pub fn expire(&mut self, now: Instant, wanted: impl Fn(&str) -> bool) {
        self.queries.retain(|_, of_pod| {
            of_pod.retain(|_, (_, until)| *until > now);
            !of_pod.is_empty()
        });
        self.past.retain(|_, until| *until > now);
        let past = &mut self.past;
        for (name, addresses) in &mut self.addresses {
            let before = addresses.len();
            let keep = wanted(name);
            addresses.retain(|address, until| {
                if keep && *until <= now {
                    past.insert(*address, now + MAX_LIFETIME);
                }
                keep && *until > now
            });
            if addresses.len() != before {
                self.changed.insert(name.clone());
            }
        }
        self.addresses.retain(|_, addresses| !addresses.is_empty());
    }

    /// What is known, with the seconds for which each address still counts.
    pub fn save(&self, now: Instant) -> Saved {
        let left = |until: &Instant| until.saturating_sub(now).as_secs();
        let of_name = |known: &BTreeMap<IpAddr, Instant>| {
            known
                .iter()
                .map(|(address, until)| (*address, left(until)))
                .collect()
        };
        let all = self.addresses.iter();
        all.map(|(name, known)| (name.clone(), of_name(known)))
            .collect()
    }

    /// What an earlier process knew, saved so long ago.
    pub fn restore(&mut self, saved: Saved, ago: Duration, now: Instant) {
        for (name, known) in saved.into_iter().take(MAX_NAMES) {
            for (address, left) in known.into_iter().take(MAX_ADDRESSES) {
                let left = Duration::from_secs(left).min(MAX_LIFETIME + GRACE);
                if left > ago {
                    let of_name = self.addresses.entry(name.clone()).or_default();
                    of_name.insert(address, now + left - ago);
                    self.changed.insert(name.clone());
                }
            }
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

    /// Whether a name that is still wanted resolved to this address lately, and does no more.
    pub fn had(&self, address: IpAddr) -> bool {
        self.past.contains_key(&address)
    }
}

#[cfg(test)]
mod tests;
