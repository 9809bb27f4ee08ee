//! Names in policies: queries and answers go in, the compiler is told what changed.

use super::Calc;
use crate::dns::Saved;
use policy::domain_matches;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

impl Calc {
    /// A pod asked for a name; times are since the start of the process.
    pub fn on_query(&mut self, pod: IpAddr, port: u16, payload: &[u8], now: Duration) {
        let patterns = self.compiler.domain_names();
        let wanted = |name: &str| patterns.iter().any(|pattern| domain_matches(pattern, name));
        self.names.on_query(pod, port, payload, now, wanted);
    }

    /// A server answered a pod. A pod that answers by itself is no server: it could give any name
    /// any address. One behind a Service speaks with the Service's address.
    pub fn on_answer(
        &mut self,
        server: IpAddr,
        pod: IpAddr,
        port: u16,
        payload: &[u8],
        now: Duration,
    ) {
        if self
            .topology
            .pools
            .keys()
            .any(|pool| pool.contains(&server))
        {
            return;
        }
        self.names.on_answer(pod, port, payload, now);
        self.feed_names();
    }

    /// What names resolve to, to be kept over a restart.
    pub fn save_names(&self, now: Duration) -> Saved {
        self.names.save(now)
    }

    /// What an earlier process knew of names, saved so long ago.
    pub fn restore_names(&mut self, saved: Saved, ago: Duration, now: Duration) {
        self.names.restore(saved, ago, now);
        self.feed_names();
    }

    /// What has not been resolved for long is forgotten.
    pub fn expire_names(&mut self, now: Duration) {
        let patterns = self.compiler.domain_names();
        let wanted = |name: &str| patterns.iter().any(|pattern| domain_matches(pattern, name));
        self.names.expire(now, wanted);
        self.feed_names();
    }

    /// Whether a name resolved to this address lately: a connection to it outlives the answer.
    pub(crate) fn was_resolved(&self, address: IpAddr) -> bool {
        self.names.had(address)
    }

    /// What names of policies resolve to now.
    pub(crate) fn resolved_names(&self) -> BTreeMap<String, BTreeSet<IpAddr>> {
        let known = self.names.known();
        known.map(|(name, all)| (name.clone(), all)).collect()
    }

    fn feed_names(&mut self) {
        for (name, addresses) in self.names.take_changed() {
            self.compiler.set_domain(&name, addresses);
        }
    }
}
