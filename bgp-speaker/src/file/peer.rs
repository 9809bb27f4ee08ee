//! A peer of the configuration file.

use super::FileError;
use bgp_core::bfd::Profile;
use bgp_core::filter::Filter;
use bgp_core::{
    AddPath, Excess, Export, Import, NextHopMode, Password, PeerConfig, PrefixLimit, RemoteAs,
    Role, wire::Family,
};
use ipnet::IpNet;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::num::{NonZeroU8, NonZeroU32};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Peers of a range that may be there at a time, unless something else is said.
const DYNAMIC_LIMIT: u32 = 100;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Peer {
    name: Option<String>,
    pub(super) address: Option<IpAddr>,
    pub(super) range: Option<IpNet>,
    pub(super) interface: Option<String>,
    limit: Option<u32>,
    #[serde(default = "super::default_port")]
    pub(super) port: u16,
    remote_as: RemoteAsText,
    local_as: Option<u32>,
    #[serde(default)]
    passive: bool,
    shutdown: Option<String>,
    hold_time: Option<u16>,
    /// Seconds.
    connect_retry: Option<u16>,
    /// Seconds.
    delay_open: Option<u16>,
    restart_time: Option<u16>,
    /// Seconds.
    long_lived_stale_time: Option<u32>,
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
    cluster_id: Option<Ipv4Addr>,
    #[serde(default)]
    next_hop: NextHopText,
    #[serde(default)]
    extended_next_hop: bool,
    #[serde(default)]
    add_path: AddPathText,
    role: Option<RoleText>,
    #[serde(default)]
    strict_role: bool,
    #[serde(default)]
    graceful_shutdown: bool,
    max_prefixes: Option<MaxPrefixes>,
    export: Option<ExportRule>,
    import: Option<ImportRule>,
    #[serde(default)]
    export_filters: Vec<String>,
    #[serde(default)]
    import_filters: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RemoteAsText {
    Number(u32),
    Word(RemoteAsWord),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RemoteAsWord {
    Internal,
    External,
    Auto,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AddPathText {
    #[serde(default)]
    receive: bool,
    #[serde(default)]
    send: u8,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
enum NextHopText {
    #[default]
    Auto,
    #[serde(rename = "Self")]
    Own,
    Keep,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
enum RoleText {
    Provider,
    RouteServer,
    RouteServerClient,
    Customer,
    Peer,
}

/// A number, or all that can be said.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum MaxPrefixes {
    Number(u32),
    Whole(PrefixLimitText),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PrefixLimitText {
    maximum: u32,
    /// Per cent.
    warn_at: Option<u8>,
    excess: Option<ExcessText>,
    /// Seconds.
    restart_after: Option<u32>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum ExcessText {
    Warn,
    Restart,
    Idle,
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

#[derive(Debug, Clone, Copy, Deserialize)]
enum ExportRule {
    None,
    OwnRoutes,
    All,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum ImportRule {
    All,
    None,
}

/// Where a peer is.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Address(IpAddr),
    Range(IpNet, u32),
    Interface(String),
}

/// Filters by name.
pub(super) type Filters = BTreeMap<String, Arc<Filter>>;

impl Peer {
    /// What messages call it: its name, or else where it is.
    pub(super) fn name(&self) -> String {
        let address = self.address.map(|address| address.to_string());
        let range = self.range.map(|range| range.to_string());
        let place = address.or(range).or(self.interface.clone());
        self.name.clone().or(place).unwrap_or_default()
    }

    /// None unless it says exactly one of the three.
    pub(super) fn place(&self) -> Option<Place> {
        let limit = self.limit.unwrap_or(DYNAMIC_LIMIT);
        match (self.address, self.range, &self.interface) {
            (Some(address), None, None) => Some(Place::Address(address)),
            (None, Some(range), None) => Some(Place::Range(range, limit)),
            (None, None, Some(interface)) => Some(Place::Interface(interface.clone())),
            _ => None,
        }
    }

    /// What the password file says, without the end of its line.
    pub(super) fn password(&self, config: &Path) -> Result<Option<Password>, FileError> {
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
            name: self.name(),
            source,
        })
    }

    /// The rules of these filters one after another; `Err` names the one that is not there.
    fn chain(names: &[String], filters: &Filters) -> Result<Arc<Filter>, String> {
        let mut rules = Vec::new();
        for name in names {
            let filter = filters.get(name).ok_or_else(|| name.clone())?;
            rules.extend(filter.rules.iter().cloned());
        }
        Ok(Arc::new(Filter { rules }))
    }

    /// `Err` names a filter that is not there. Without a policy of its own an external peer gets
    /// and gives nothing if `required` (RFC 8212).
    pub(super) fn config(&self, filters: &Filters, required: bool) -> Result<PeerConfig, String> {
        let import_filter = Self::chain(&self.import_filters, filters)?;
        let export_filter = Self::chain(&self.export_filters, filters)?;
        let seconds = |value: u16| Duration::from_secs(value.into());
        let usual = PeerConfig::new(self.name(), self.remote_as.remote_as());
        Ok(PeerConfig {
            local_as: self.local_as,
            passive: self.passive,
            shutdown: self.shutdown.clone(),
            hold_time: self.hold_time.unwrap_or(usual.hold_time),
            connect_retry: self.connect_retry.map_or(usual.connect_retry, seconds),
            delay_open: self.delay_open.map_or(usual.delay_open, seconds),
            restart_time: self.restart_time.unwrap_or(usual.restart_time),
            long_lived_stale_time: self.long_lived_stale_time.unwrap_or_default(),
            allow_own_as: self.allow_own_as,
            ttl_security: self.ttl_security,
            multihop: self.multihop,
            source_address: self.source_address,
            bind_device: self.bind_device.clone(),
            bfd: self.bfd.as_ref().map(Bfd::profile),
            route_reflector_client: self.route_reflector_client,
            cluster_id: self.cluster_id,
            next_hop: match self.next_hop {
                NextHopText::Auto => NextHopMode::Auto,
                NextHopText::Own => NextHopMode::Own,
                NextHopText::Keep => NextHopMode::Keep,
            },
            extended_next_hop: self.extended_next_hop,
            add_path: AddPath {
                receive: self.add_path.receive,
                send: self.add_path.send,
            },
            role: self.role.map(RoleText::role),
            strict_role: self.strict_role,
            graceful_shutdown: self.graceful_shutdown,
            prefix_limit: self.max_prefixes.as_ref().map(MaxPrefixes::limit),
            families: vec![Family::IPV4, Family::IPV6],
            export: match self.export {
                Some(ExportRule::None) => Export::None,
                Some(ExportRule::OwnRoutes) => Export::OwnRoutes,
                Some(ExportRule::All) => Export::All,
                None if required && export_filter.rules.is_empty() => Export::Unstated,
                None => Export::OwnRoutes,
            },
            import: match self.import {
                Some(ImportRule::All) => Import::All,
                Some(ImportRule::None) => Import::None,
                None if required && import_filter.rules.is_empty() => Import::Unstated,
                None => Import::All,
            },
            export_filter,
            import_filter,
            ..usual
        })
    }
}

impl RemoteAsText {
    fn remote_as(&self) -> RemoteAs {
        match self {
            Self::Number(number) => RemoteAs::Number(*number),
            Self::Word(RemoteAsWord::Internal) => RemoteAs::Internal,
            Self::Word(RemoteAsWord::External) => RemoteAs::External,
            Self::Word(RemoteAsWord::Auto) => RemoteAs::Auto,
        }
    }
}

impl RoleText {
    fn role(self) -> Role {
        match self {
            Self::Provider => Role::Provider,
            Self::RouteServer => Role::RouteServer,
            Self::RouteServerClient => Role::RouteServerClient,
            Self::Customer => Role::Customer,
            Self::Peer => Role::Peer,
        }
    }
}

impl MaxPrefixes {
    fn limit(&self) -> PrefixLimit {
        match self {
            Self::Number(maximum) => PrefixLimit::new(*maximum),
            Self::Whole(whole) => {
                let usual = PrefixLimit::new(whole.maximum);
                let after = whole
                    .restart_after
                    .map(|seconds| Excess::Restart(Duration::from_secs(seconds.into())));
                PrefixLimit {
                    warn_at: whole.warn_at.unwrap_or(usual.warn_at),
                    excess: match whole.excess {
                        Some(ExcessText::Warn) => Excess::Warn,
                        Some(ExcessText::Idle) => Excess::Idle,
                        Some(ExcessText::Restart) | None => after.unwrap_or(usual.excess),
                    },
                    ..usual
                }
            }
        }
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
