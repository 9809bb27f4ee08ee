//! The configuration file of the `bgp-speaker` program.

use crate::watchers::Monitoring;
use bgp_core::bfd::Profile;
use bgp_core::{
    Export, Import, LocalRoute, Password, PeerConfig, PeerKey, PrefixLimit, SpeakerConfig,
    wire::Family,
};
use ipnet::IpNet;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::{NonZeroU8, NonZeroU32};
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    #[error("{}: peers: {key} is listed twice", path.display())]
    Twice {
        /// Which file.
        path: PathBuf,
        /// The peer.
        key: PeerKey,
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
    next_hop_v4: Option<Ipv4Addr>,
    next_hop_v6: Option<Ipv6Addr>,
    cluster_id: Option<Ipv4Addr>,
    #[serde(default)]
    forwarding_preserved: bool,
    #[serde(default)]
    networks: Vec<IpNet>,
    #[serde(default)]
    peers: Vec<Peer>,
    /// Addresses and ports.
    #[serde(default)]
    bmp_stations: Vec<SocketAddr>,
    mrt_updates: Option<PathBuf>,
    mrt_table: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Peer {
    name: Option<String>,
    address: IpAddr,
    #[serde(default = "default_port")]
    port: u16,
    remote_as: u32,
    local_as: Option<u32>,
    #[serde(default)]
    passive: bool,
    hold_time: Option<u16>,
    /// Seconds.
    connect_retry: Option<u16>,
    restart_time: Option<u16>,
    #[serde(default)]
    allow_own_as: u8,
    ttl_security: Option<u8>,
    #[serde(default)]
    multihop: bool,
    source_address: Option<IpAddr>,
    bind_device: Option<String>,
    /// A file with the password of TCP MD5 signatures.
    password_file: Option<PathBuf>,
    bfd: Option<Bfd>,
    #[serde(default)]
    route_reflector_client: bool,
    #[serde(default)]
    keep_next_hop: bool,
    max_prefixes: Option<u32>,
    #[serde(default)]
    export: ExportRule,
    #[serde(default)]
    import: ImportRule,
}

/// Intervals in milliseconds.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Bfd {
    min_transmit: Option<NonZeroU32>,
    min_receive: Option<NonZeroU32>,
    multiplier: Option<NonZeroU8>,
    #[serde(default)]
    passive: bool,
}

#[derive(Debug, Default, Deserialize)]
enum ExportRule {
    #[default]
    OwnRoutes,
    All,
}

#[derive(Debug, Default, Deserialize)]
enum ImportRule {
    #[default]
    All,
    None,
}

fn default_port() -> u16 {
    model::names::BGP_PORT
}

impl Document {
    fn check(self, path: &Path) -> Result<FileConfig, FileError> {
        let mut peers = BTreeMap::new();
        for peer in self.peers {
            let key = PeerKey::new(peer.address, peer.port);
            let password = peer.password(path)?;
            let config = PeerConfig {
                password,
                ..peer.config()
            };
            if matches!(config.hold_time, 1 | 2) {
                return Err(FileError::HoldTime {
                    path: path.to_owned(),
                    name: config.name,
                });
            }
            if peers.insert(key, config).is_some() {
                return Err(FileError::Twice {
                    path: path.to_owned(),
                    key,
                });
            }
        }
        let speaker = SpeakerConfig {
            listen_port: self.listen_port,
            next_hop_v4: self.next_hop_v4,
            next_hop_v6: self.next_hop_v6,
            cluster_id: self.cluster_id,
            peers,
            ..SpeakerConfig::new(self.local_as, self.router_id)
        };
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
}

impl Bfd {
    fn profile(&self) -> Profile {
        let usual = Profile::default();
        let interval = |given: Option<NonZeroU32>, usual| {
            given.map_or(usual, |milliseconds| {
                Duration::from_millis(milliseconds.get().into())
            })
        };
        Profile {
            min_tx: interval(self.min_transmit, usual.min_tx),
            min_rx: interval(self.min_receive, usual.min_rx),
            multiplier: self.multiplier.unwrap_or(usual.multiplier),
            passive: self.passive,
        }
    }
}

impl Peer {
    /// What the password file says, without the end of its line.
    fn password(&self, config: &Path) -> Result<Option<Password>, FileError> {
        let Some(path) = &self.password_file else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(path).map_err(|source| FileError::Read {
            path: path.clone(),
            source,
        })?;
        let password = Password::new(text.trim_end_matches(['\n', '\r']));
        password.map(Some).map_err(|source| FileError::Password {
            path: config.to_owned(),
            name: self
                .name
                .clone()
                .unwrap_or_else(|| self.address.to_string()),
            source,
        })
    }

    fn config(self) -> PeerConfig {
        let name = self.name.unwrap_or_else(|| self.address.to_string());
        let usual = PeerConfig::new(name, self.remote_as);
        PeerConfig {
            local_as: self.local_as,
            passive: self.passive,
            hold_time: self.hold_time.unwrap_or(usual.hold_time),
            connect_retry: self.connect_retry.map_or(usual.connect_retry, |seconds| {
                Duration::from_secs(seconds.into())
            }),
            restart_time: self.restart_time.unwrap_or(usual.restart_time),
            allow_own_as: self.allow_own_as,
            ttl_security: self.ttl_security,
            multihop: self.multihop,
            source_address: self.source_address,
            bind_device: self.bind_device,
            bfd: self.bfd.map(|bfd| bfd.profile()),
            route_reflector_client: self.route_reflector_client,
            keep_next_hop: self.keep_next_hop,
            prefix_limit: self.max_prefixes.map(PrefixLimit::new),
            families: vec![Family::IPV4, Family::IPV6],
            export: match self.export {
                ExportRule::OwnRoutes => Export::OwnRoutes,
                ExportRule::All => Export::All,
            },
            import: match self.import {
                ImportRule::All => Import::All,
                ImportRule::None => Import::None,
            },
            ..usual
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(text: &str) -> Result<FileConfig, FileError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        FileConfig::read(file.path())
    }

    const HEAD: &str = "localAs: 64512\nrouterId: 192.0.2.1\n";

    #[test]
    fn a_small_file_gets_the_usual_values() {
        let text = format!(
            "{HEAD}networks: [10.1.0.0/26]\npeers:\n- {{ address: 10.0.0.1, remoteAs: 65001 }}\n"
        );
        let config = read(&text).unwrap();
        assert_eq!(config.speaker.listen_port, 179);
        let key = PeerKey::new("10.0.0.1".parse().unwrap(), 179);
        assert_eq!(
            config.speaker.peers[&key],
            PeerConfig::new("10.0.0.1", 65001)
        );
        assert_eq!(config.networks.len(), 1);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let twice = "peers: [{address: '::1', remoteAs: 1}, {address: '::1', remoteAs: 2}]";
        let hold = "peers: [{name: tor, address: '::1', remoteAs: 1, holdTime: 2}]";
        for (text, expected) in [
            (format!("{HEAD}{twice}"), "peers: ::1 is listed twice"),
            (format!("{HEAD}{hold}"), "peers: tor: holdTime"),
            (format!("{HEAD}colour: red"), "colour"),
            ("localAs: many".to_owned(), "localAs"),
        ] {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
