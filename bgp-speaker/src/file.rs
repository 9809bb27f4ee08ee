//! The configuration file of the `bgp-speaker` program.

mod filter;
mod peer;

use crate::watchers::Monitoring;
use bgp_core::{Decision, DynamicPeers, LocalRoute, PeerConfig, PeerKey, SpeakerConfig};
use filter::{EntryText, RuleText};
use ipnet::IpNet;
use peer::{Filters, Peer, Place};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use filter::RuleError;

/// Why a configuration file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not YAML, or a field is wrong.
    #[error("{}: {source}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<serde_saphyr::Error>,
    },
    /// Two peers are the same.
    #[error("{}: peers: {place} is listed twice", path.display())]
    Twice {
        /// Which file.
        path: PathBuf,
        /// Address, range or interface.
        place: String,
    },
    /// A peer that is nowhere, or in two places.
    #[error("{}: peers: {name}: one of address, range and interface must be set", path.display())]
    Place {
        /// Which file.
        path: PathBuf,
        /// The peer.
        name: String,
    },
    /// A filter that nobody has written.
    #[error("{}: peers: {name}: there is no filter {filter}", path.display())]
    NoFilter {
        /// Which file.
        path: PathBuf,
        /// The peer.
        name: String,
        /// The filter.
        filter: String,
    },
    /// A rule that cannot be used.
    #[error("{}: filters: {filter}: rule {number}: {source}", path.display())]
    Rule {
        /// Which file.
        path: PathBuf,
        /// The filter.
        filter: String,
        /// Which rule, from 1 on.
        number: usize,
        /// Why.
        #[source]
        source: RuleError,
    },
    /// A password that cannot be used.
    #[error("{}: peers: {name}: passwordFile: {source}", path.display())]
    Password {
        /// Which file.
        path: PathBuf,
        /// The peer.
        name: String,
        /// Why.
        #[source]
        source: bgp_core::PasswordError,
    },
    /// A hold time that RFC 4271 rules out.
    #[error("{}: peers: {name}: holdTime: must be 0 or at least 3 s", path.display())]
    HoldTime {
        /// Which file.
        path: PathBuf,
        /// The peer.
        name: String,
    },
}

/// What a configuration file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileConfig {
    /// The speaker's configuration.
    pub speaker: SpeakerConfig,
    /// Routes to originate.
    pub networks: BTreeSet<LocalRoute>,
    /// The kernel goes on forwarding while no speaker runs.
    pub forwarding_preserved: bool,
    /// Who is told about sessions and routes as they come.
    pub monitoring: Monitoring,
    /// Where the table goes, in MRT format, when it is asked for.
    pub mrt_table: Option<PathBuf>,
}

impl FileConfig {
    /// Reads a YAML file.
    ///
    /// # Errors
    /// [`FileError`], naming the file and where it has a field, the field.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let text = std::fs::read_to_string(path).map_err(|source| FileError::Read {
            path: path.to_owned(),
            source,
        })?;
        let document: Document =
            serde_saphyr::from_str(&text).map_err(|source| FileError::Parse {
                path: path.to_owned(),
                source: Box::new(source),
            })?;
        document.check(path)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    local_as: u32,
    router_id: Ipv4Addr,
    #[serde(default = "default_port")]
    listen_port: u16,
    #[serde(default)]
    listen_addresses: BTreeSet<IpAddr>,
    next_hop_v4: Option<Ipv4Addr>,
    next_hop_v6: Option<Ipv6Addr>,
    cluster_id: Option<Ipv4Addr>,
    #[serde(default)]
    forwarding_preserved: bool,
    #[serde(default)]
    networks: Vec<IpNet>,
    /// RFC 8212: external peers get and give nothing unless somebody says what.
    #[serde(default = "default_requires_policy")]
    ebgp_requires_policy: bool,
    #[serde(default)]
    decision: DecisionText,
    #[serde(default)]
    prefix_lists: BTreeMap<String, Vec<EntryText>>,
    #[serde(default)]
    filters: BTreeMap<String, Vec<RuleText>>,
    #[serde(default)]
    peers: Vec<Peer>,
    /// Addresses and ports.
    #[serde(default)]
    bmp_stations: Vec<SocketAddr>,
    mrt_updates: Option<PathBuf>,
    mrt_table: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DecisionText {
    always_compare_med: Option<bool>,
    maximum_paths: Option<u16>,
    as_path_relax: Option<bool>,
}

fn default_requires_policy() -> bool {
    true
}

fn default_port() -> u16 {
    model::names::BGP_PORT
}

impl Document {
    fn check(self, path: &Path) -> Result<FileConfig, FileError> {
        let filters = self.filters(path)?;
        let usual = Decision::default();
        let decision = &self.decision;
        let mut speaker = SpeakerConfig {
            listen_port: self.listen_port,
            listen_addresses: self.listen_addresses.clone(),
            next_hop_v4: self.next_hop_v4,
            next_hop_v6: self.next_hop_v6,
            cluster_id: self.cluster_id,
            decision: Decision {
                always_compare_med: decision
                    .always_compare_med
                    .unwrap_or(usual.always_compare_med),
                maximum_paths: decision.maximum_paths.unwrap_or(usual.maximum_paths).max(1),
                as_path_relax: decision.as_path_relax.unwrap_or(usual.as_path_relax),
            },
            ..SpeakerConfig::new(self.local_as, self.router_id)
        };
        for peer in &self.peers {
            let config = self.peer(peer, &filters, path)?;
            add(&mut speaker, peer, config, path)?;
        }
        let networks = self.networks.into_iter().map(LocalRoute::from).collect();
        Ok(FileConfig {
            speaker,
            networks,
            forwarding_preserved: self.forwarding_preserved,
            monitoring: Monitoring {
                name: self.router_id.to_string(),
                stations: self.bmp_stations,
                updates_file: self.mrt_updates,
            },
            mrt_table: self.mrt_table,
        })
    }

    fn filters(&self, path: &Path) -> Result<Filters, FileError> {
        let lists = self.prefix_lists.iter();
        let lists = lists
            .map(|(name, entries)| (name.clone(), Arc::new(filter::list(entries))))
            .collect();
        let filters = self.filters.iter().map(|(name, rules)| {
            let filter = filter::filter(rules, &lists);
            let filter = filter.map_err(|(place, source)| FileError::Rule {
                path: path.to_owned(),
                filter: name.clone(),
                number: place + 1,
                source,
            })?;
            Ok((name.clone(), Arc::new(filter)))
        });
        filters.collect()
    }

    fn peer(&self, peer: &Peer, filters: &Filters, path: &Path) -> Result<PeerConfig, FileError> {
        let config = peer.config(filters, self.ebgp_requires_policy);
        let config = config.map_err(|filter| FileError::NoFilter {
            path: path.to_owned(),
            name: peer.name(),
            filter,
        })?;
        if matches!(config.hold_time, 1 | 2) {
            return Err(FileError::HoldTime {
                path: path.to_owned(),
                name: config.name,
            });
        }
        Ok(PeerConfig {
            password: peer.password(path)?,
            ..config
        })
    }
}

/// Puts a peer where it belongs, unless there is one already.
fn add(
    speaker: &mut SpeakerConfig,
    peer: &Peer,
    config: PeerConfig,
    path: &Path,
) -> Result<(), FileError> {
    let place = peer.place().ok_or_else(|| FileError::Place {
        path: path.to_owned(),
        name: peer.name(),
    })?;
    let (twice, place) = match place {
        Place::Address(address) => {
            let key = PeerKey::new(address, peer.port);
            let before = speaker.peers.insert(key, config);
            (before.is_some(), key.to_string())
        }
        Place::Range(range, limit) => {
            let peers = DynamicPeers {
                limit,
                peer: config,
            };
            let before = speaker.dynamic_peers.insert(range.trunc(), peers);
            (before.is_some(), range.to_string())
        }
        Place::Interface(interface) => {
            let peers = &mut speaker.interface_peers;
            let before = peers.insert(interface.clone(), config);
            (before.is_some(), interface)
        }
    };
    if twice {
        return Err(FileError::Twice {
            path: path.to_owned(),
            place,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
