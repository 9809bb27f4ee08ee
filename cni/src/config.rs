//! The network configuration on standard input.

use crate::environment::is_identifier;
use crate::field::Field;
use crate::{Error, SpecVersion};
use ipnet::IpNet;
use model::cni::Command;
use model::{HostPort, Labels, NamedPort, Protocol, names};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Seconds to wait for the agent's reply unless `timeout` says otherwise.
const TIMEOUT: u64 = 30;

/// More queues than a link of a pod ever needs.
const MAX_QUEUES: u64 = 256;

/// What every command needs.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) version: SpecVersion,
    pub(crate) network: String,
    pub(crate) socket: PathBuf,
    pub(crate) spool_dir: PathBuf,
    pub(crate) timeout: Duration,
    pub(crate) wishes: Wishes,
    /// Passed through to the result.
    pub(crate) dns: Option<Value>,
    /// Addresses in CHECK's `prevResult`, with the names of their interfaces.
    pub(crate) prev_ips: Vec<(IpNet, Option<String>)>,
    /// ADD's `prevResult`, of the plugins before this one.
    pub(crate) previous: Option<Value>,
    /// GC's `cni.dev/valid-attachments`.
    pub(crate) valid_attachments: Vec<(String, String)>,
}

/// What the configuration asks for on behalf of the pod.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Wishes {
    pub(crate) labels: Labels,
    pub(crate) ports: Vec<NamedPort>,
    pub(crate) host_ports: Vec<HostPort>,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) pools: Vec<String>,
    pub(crate) assign_ipv4: Option<bool>,
    pub(crate) assign_ipv6: Option<bool>,
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) mtu: Option<u32>,
    pub(crate) queues: Option<u32>,
}

impl Config {
    /// Reads what the command uses, and no more: a pod is taken down whatever the fields say
    /// that only its set-up looks at.
    pub(crate) fn read(command: Command, value: &Value) -> Result<Self, Error> {
        let root = Field::root(value);
        let version = version(&root, command)?;
        let network = root.required("name")?;
        if !is_identifier(network.string()?) {
            return Err(network.not("a name of letters, digits, '_', '.' and '-'"));
        }
        let socket = path(&root, "socket")?.unwrap_or_else(|| names::CNI_SOCKET.into());
        let sets_up = matches!(command, Command::Add | Command::Check | Command::Status);
        Ok(Self {
            version,
            network: network.string()?.to_owned(),
            spool_dir: path(&root, "spoolDir")?.unwrap_or_else(|| spool_dir(&socket)),
            socket,
            timeout: Duration::from_secs(match root.get("timeout")? {
                Some(field) => field.number(1, 600)?,
                None => TIMEOUT,
            }),
            wishes: if sets_up {
                Wishes::read(&root)?
            } else {
                Wishes::default()
            },
            dns: if sets_up { dns(&root)? } else { None },
            prev_ips: if command == Command::Check {
                prev_ips(&root)?
            } else {
                Vec::new()
            },
            previous: match command {
                Command::Add => root.get("prevResult")?.map(|field| field.value().clone()),
                _ => None,
            },
            valid_attachments: match command {
                Command::Gc => valid_attachments(&root)?,
                _ => Vec::new(),
            },
        })
    }
}

impl Wishes {
    fn read(root: &Field<'_>) -> Result<Self, Error> {
        check_ipam(root)?;
        check_bandwidth(root)?;
        let mtu = root
            .get("mtu")?
            .map(|field| field.number(0, 65_535).map(|mtu| (field, mtu)));
        let mtu = match mtu.transpose()? {
            // IPv4 needs links of 68 bytes (RFC 791); 0 lets the agent choose.
            Some((field, 1..68)) => return Err(field.not("an MTU (0, or 68 to 65535)")),
            Some((_, mtu)) => u32::try_from(mtu).ok().filter(|mtu| *mtu > 0),
            None => None,
        };
        let [assign_ipv4, assign_ipv6] = families(root)?;
        Ok(Self {
            assign_ipv4,
            assign_ipv6,
            labels: labels(root.at(&["args", "cni", "labels"])?)?,
            ports: ports(root.at(&["args", "cni", "ports"])?)?,
            host_ports: host_ports(root.at(&["runtimeConfig", "portMappings"])?)?,
            ips: match addresses(root.at(&["runtimeConfig", "ips"])?)? {
                ips if ips.is_empty() => addresses(root.at(&["args", "cni", "ips"])?)?,
                ips => ips,
            },
            pools: [pools(root, "ipv4_pools")?, pools(root, "ipv6_pools")?].concat(),
            mac: match root.at(&["runtimeConfig", "mac"])? {
                Some(field) if field.string()?.is_empty() => None,
                Some(field) => Some(field.mac()?),
                None => None,
            },
            mtu,
            queues: match root.get("num_queues")? {
                Some(field) => Some(field.number(1, MAX_QUEUES)? as u32),
                None => None,
            },
        })
    }
}

fn version(root: &Field<'_>, command: Command) -> Result<SpecVersion, Error> {
    let Some(field) = root.get("cniVersion")? else {
        return Err(Error::Version {
            reason: "is not set".to_owned(),
        });
    };
    let version = SpecVersion::read(field.string()?)?;
    let (least, name) = match command {
        Command::Add | Command::Del => return Ok(version),
        Command::Check => (SpecVersion::V0_4_0, "CHECK"),
        Command::Status => (SpecVersion::V1_1_0, "STATUS"),
        Command::Gc => (SpecVersion::V1_1_0, "GC"),
    };
    if version < least {
        return Err(Error::Version {
            reason: format!(
                "{} does not have {name}, {} does",
                version.as_str(),
                least.as_str()
            ),
        });
    }
    Ok(version)
}

fn path(root: &Field<'_>, key: &str) -> Result<Option<PathBuf>, Error> {
    let Some(field) = root.get(key)? else {
        return Ok(None);
    };
    let path = Path::new(field.string()?);
    if path.is_absolute() {
        Ok(Some(path.to_owned()))
    } else {
        Err(field.not("an absolute path"))
    }
}

/// The default agent's spool survives a reboot; an agent elsewhere has it beside its socket.
fn spool_dir(socket: &Path) -> PathBuf {
    let base = if socket == Path::new(names::CNI_SOCKET) {
        Path::new(names::STATE_DIR)
    } else {
        socket.parent().unwrap_or(Path::new(names::STATE_DIR))
    };
    base.join("spool")
}

fn check_ipam(root: &Field<'_>) -> Result<(), Error> {
    let Some(field) = root.at(&["ipam", "type"])? else {
        return Ok(());
    };
    match field.string()? {
        "" | "ocicat" | "calico-ipam" => Ok(()),
        _ => Err(field.not(
            "supported: addresses come from the agent's own pools; leave it out, or set it to \
             \"ocicat\" or \"calico-ipam\"",
        )),
    }
}

/// A limit that nobody keeps is worse than none: the plugin that does it has to be asked.
fn check_bandwidth(root: &Field<'_>) -> Result<(), Error> {
    let Some(field) = root.at(&["runtimeConfig", "bandwidth"])? else {
        return Ok(());
    };
    for (_, rate) in field.members()? {
        if rate.number(0, u64::MAX)? > 0 {
            return Err(field.error(
                "is not limited here: give the capability to the plugin \"bandwidth\", after \
                 this one in the list"
                    .to_owned(),
            ));
        }
    }
    Ok(())
}

fn labels(field: Option<Field<'_>>) -> Result<Labels, Error> {
    let Some(field) = field else {
        return Ok(Labels::new());
    };
    let mut labels = Labels::new();
    if field.value().is_object() {
        for (key, value) in field.members()? {
            labels.insert(key.to_owned(), value.string()?.to_owned());
        }
        return Ok(labels);
    }
    if !field.value().is_array() {
        return Err(field.not("an object, nor a list of {key, value}"));
    }
    for label in field.list()? {
        let key = label.required("key")?.string()?.to_owned();
        labels.insert(key, label.required("value")?.string()?.to_owned());
    }
    Ok(labels)
}

fn ports(field: Option<Field<'_>>) -> Result<Vec<NamedPort>, Error> {
    let Some(field) = field else {
        return Ok(Vec::new());
    };
    let read = |port: &Field<'_>| {
        let protocol = protocol(port)?;
        let name = port.required("name")?.string()?.to_owned();
        let number = port.required("port")?.number(1, 65_535)?;
        Ok(NamedPort {
            name,
            protocol,
            port: number as u16,
        })
    };
    field.list()?.iter().map(read).collect()
}

/// TCP where nothing is said, as Kubernetes has it.
fn protocol(port: &Field<'_>) -> Result<Protocol, Error> {
    let Some(field) = port.get("protocol")? else {
        return Ok(Protocol::Tcp);
    };
    match field.string()?.to_ascii_uppercase().as_str() {
        "" | "TCP" => Ok(Protocol::Tcp),
        "UDP" => Ok(Protocol::Udp),
        "SCTP" => Ok(Protocol::Sctp),
        _ => Err(field.not("TCP, UDP or SCTP")),
    }
}

/// The port mappings of the CNI conventions; `0.0.0.0` and `::` are any address of their family.
fn host_ports(field: Option<Field<'_>>) -> Result<Vec<HostPort>, Error> {
    let Some(field) = field else {
        return Ok(Vec::new());
    };
    let number = |port: &Field<'_>, key: &str| {
        let number = port.required(key)?.number(1, 65_535)?;
        Ok::<_, Error>(number as u16)
    };
    let read = |port: &Field<'_>| {
        let host_ip = match port.get("hostIP")? {
            Some(field) if field.string()?.is_empty() => None,
            Some(field) => match field.address()? {
                // The kernel takes no answer for it from another interface.
                IpAddr::V6(Ipv6Addr::LOCALHOST) => {
                    return Err(field.not("an address whose ports can lead to a pod"));
                }
                ip => Some(ip),
            },
            None => None,
        };
        Ok(HostPort {
            host_ip,
            host_port: number(port, "hostPort")?,
            protocol: protocol(port)?,
            port: number(port, "containerPort")?,
        })
    };
    field.list()?.iter().map(read).collect()
}

fn addresses(field: Option<Field<'_>>) -> Result<Vec<IpAddr>, Error> {
    let Some(field) = field else {
        return Ok(Vec::new());
    };
    let mut seen = BTreeSet::new();
    let mut read = |field: &Field<'_>| {
        let ip = field.address()?;
        if seen.insert(ip) {
            Ok(ip)
        } else {
            Err(field.error(format!("{ip} stands there twice")))
        }
    };
    field.list()?.iter().map(&mut read).collect()
}

fn pools(root: &Field<'_>, key: &str) -> Result<Vec<String>, Error> {
    let Some(field) = root.at(&["ipam", key])? else {
        return Ok(Vec::new());
    };
    let read = |pool: &Field<'_>| match pool.string()? {
        "" => Err(pool.not("a pool's name or CIDR")),
        name => Ok(name.to_owned()),
    };
    field.list()?.iter().map(read).collect()
}

/// Whether addresses of IPv4 and of IPv6 are wanted. Calico writes these as strings.
fn families(root: &Field<'_>) -> Result<[Option<bool>; 2], Error> {
    let read = |key| -> Result<Option<bool>, Error> {
        let Some(field) = root.at(&["ipam", key])? else {
            return Ok(None);
        };
        match field.value() {
            Value::Bool(wanted) => Ok(Some(*wanted)),
            Value::String(text) if text == "true" => Ok(Some(true)),
            Value::String(text) if text == "false" => Ok(Some(false)),
            _ => Err(field.not("\"true\" or \"false\"")),
        }
    };
    let families = [read("assign_ipv4")?, read("assign_ipv6")?];
    match root.at(&["ipam", "assign_ipv6"])? {
        Some(field) if families == [Some(false); 2] => {
            Err(field.error("is \"false\", and so is assign_ipv4".to_owned()))
        }
        _ => Ok(families),
    }
}

fn dns(root: &Field<'_>) -> Result<Option<Value>, Error> {
    let Some(field) = root.get("dns")? else {
        return Ok(None);
    };
    for (key, member) in field.members()? {
        match key {
            "domain" => drop(member.string()?),
            "nameservers" | "search" | "options" => {
                member
                    .list()?
                    .iter()
                    .try_for_each(|item| item.string().map(drop))?;
            }
            _ => {}
        }
    }
    Ok(Some(field.value().clone()))
}

/// Addresses of CHECK's `prevResult`, with the names of their interfaces where it says them.
fn prev_ips(root: &Field<'_>) -> Result<Vec<(IpNet, Option<String>)>, Error> {
    let previous = root.required("prevResult")?;
    let Some(ips) = previous.get("ips")? else {
        return Ok(Vec::new());
    };
    let interfaces = previous.get("interfaces")?.map(|field| field.list());
    let interfaces = interfaces.transpose()?.unwrap_or_default();
    let read = |entry: &Field<'_>| {
        let field = entry.required("address")?;
        let address = field
            .string()?
            .parse()
            .map_err(|_| field.not("an address with a prefix length"))?;
        let interface = match entry.get("interface")? {
            Some(index) => interfaces.get(index.number(0, u64::from(u32::MAX))? as usize),
            None => None,
        };
        let name = interface.map(|interface| interface.required("name")?.string());
        Ok((address, name.transpose()?.map(str::to_owned)))
    };
    ips.list()?.iter().map(read).collect()
}

/// Its absence would free every pod of the node, and so is an error.
fn valid_attachments(root: &Field<'_>) -> Result<Vec<(String, String)>, Error> {
    let read = |entry: &Field<'_>| {
        let container = entry.required("containerID")?.string()?.to_owned();
        Ok((container, entry.required("ifname")?.string()?.to_owned()))
    };
    root.required("cni.dev/valid-attachments")?
        .list()?
        .iter()
        .map(read)
        .collect()
}

#[cfg(test)]
mod tests;
