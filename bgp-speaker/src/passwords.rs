//! Whose segments a listening socket expects to be signed.

use crate::sys;
use bgp_core::{Password, SpeakerConfig};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;

/// Passwords of TCP MD5 signatures by the addresses they are for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Passwords(BTreeMap<IpNet, Password>);

impl Passwords {
    /// Those of the configured peers and of ranges of them. Peers that share an address share what it is signed with.
    pub(crate) fn of(config: &SpeakerConfig) -> Self {
        let signed = config.peers.iter().filter_map(|(key, peer)| {
            let password = peer.password.clone()?;
            Some((sys::host(key.address), password))
        });
        let dynamic = config.dynamic_peers.iter().filter_map(|(range, peers)| {
            let password = peers.peer.password.clone()?;
            Some((*range, password))
        });
        Self(signed.chain(dynamic).collect())
    }

    /// Has `socket`, on which `before` is in force, expect these instead. Returns what went wrong,
    /// by peer; all others are in force.
    pub(crate) fn apply(
        &self,
        socket: impl AsFd,
        ipv4: bool,
        before: &Self,
    ) -> Vec<(IpNet, io::Error)> {
        let gone = before.0.keys().filter(|peer| !self.0.contains_key(*peer));
        let gone = gone.map(|peer| (peer, None));
        let changed = self
            .0
            .iter()
            .filter(|(peer, password)| before.0.get(*peer) != Some(*password));
        let changed = changed.map(|(peer, password)| (peer, Some(password.expose())));
        let ours = gone
            .chain(changed)
            .filter(|(peer, _)| peer.addr().is_ipv4() == ipv4);
        let mut failures = Vec::new();
        for (peer, password) in ours {
            if let Err(error) = sys::set_md5_password(&socket, *peer, password) {
                failures.push((*peer, error));
            }
        }
        failures
    }
}
