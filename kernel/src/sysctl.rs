//! Parameters under `/proc/sys/net`.

use crate::kernel::Kernel;
use crate::netlink::{Errno, NetlinkError};
use crate::{link, route};
use netlink_packet_route::route::{RouteAttribute, RouteProtocol};
use std::path::{Component, Path};

/// A parameter could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SysctlError {
    /// The file system refused.
    #[error("cannot set net.{} to {value}: {errno}", dotted(.path))]
    Write {
        /// Path below `net`.
        path: String,
        /// What it should be.
        value: String,
        /// Why not.
        errno: Errno,
    },
    /// The path leads out of the tree of parameters.
    #[error("{path:?} is not the name of a parameter")]
    Name {
        /// The path.
        path: String,
    },
    /// Which interfaces have a default route by router advertisement could not be found out.
    #[error("cannot find out which default routes came by router advertisement: {0}")]
    Routes(#[source] NetlinkError),
}

/// What the reverse path filter of an interface of ours asks of a packet's source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SourceCheck {
    /// A route to it, by whatever interface.
    Loose,
    /// As little as the node allows: nothing, or [`Self::Loose`] where `conf.all` is strict.
    Least,
}

impl Kernel {
    /// Sets a parameter, such as `ipv4/ip_forward`, unless it has the value already: a read-only
    /// tree with the right values in it will do.
    pub fn set_sysctl(&mut self, path: &str, value: &str) -> Result<(), SysctlError> {
        let file = self.parameter(path)?;
        if std::fs::read_to_string(&file).is_ok_and(|current| current.trim() == value) {
            return Ok(());
        }
        std::fs::write(&file, value).map_err(|error| SysctlError::Write {
            path: path.to_owned(),
            value: value.to_owned(),
            errno: error.into(),
        })
    }

    /// The parameters of an interface of ours: never a strict reverse path filter, no redirects,
    /// no source routes, no router advertisements, no IPv6 unless it is wanted.
    pub(crate) fn host_interface_sysctls(
        &mut self,
        name: &str,
        ipv6: bool,
        check: SourceCheck,
    ) -> Result<(), SysctlError> {
        for (parameter, value) in [
            ("rp_filter", self.reverse_path_filter(check)),
            ("send_redirects", "0"),
            ("accept_redirects", "0"),
            ("accept_source_route", "0"),
            ("route_localnet", "0"),
            ("forwarding", "1"),
        ] {
            self.set_sysctl(&format!("ipv4/conf/{name}/{parameter}"), value)?;
        }
        let v6 = format!("ipv6/conf/{name}");
        if !self.sysctl_root.join(&v6).exists() {
            return Ok(());
        }
        self.set_sysctl(&format!("{v6}/accept_ra"), "0")?;
        self.set_sysctl(&format!("{v6}/accept_redirects"), "0")?;
        self.set_sysctl(&format!("{v6}/disable_ipv6"), if ipv6 { "0" } else { "1" })?;
        if ipv6 {
            self.set_sysctl(&format!("{v6}/forwarding"), "1")?;
        }
        Ok(())
    }

    /// The kernel takes the greater number of the interface's and that of `conf.all`: beside a
    /// strict one (1) only the loose one (2) is not strict.
    fn reverse_path_filter(&self, check: SourceCheck) -> &'static str {
        let all = std::fs::read_to_string(self.sysctl_root.join("ipv4/conf/all/rp_filter"));
        match check {
            SourceCheck::Least if all.is_ok_and(|all| all.trim() == "0") => "0",
            SourceCheck::Least | SourceCheck::Loose => "2",
        }
    }

    /// Switches forwarding on, both families. The kernel drops default routes that came by router
    /// advertisement when IPv6 starts to forward, unless the interface has `accept_ra=2`; that is
    /// set first where such a route is.
    pub fn enable_forwarding(&mut self) -> Result<(), SysctlError> {
        self.set_sysctl("ipv4/ip_forward", "1")?;
        if !self.sysctl_root.join("ipv6").exists() {
            return Ok(());
        }
        for ifindex in self.advertised_defaults().map_err(SysctlError::Routes)? {
            let link = link::by_index(&mut self.route, ifindex).map_err(SysctlError::Routes)?;
            if let Some(link) = link {
                self.set_sysctl(&format!("ipv6/conf/{}/accept_ra", link.name), "2")?;
            }
        }
        self.set_sysctl("ipv6/conf/all/forwarding", "1")
    }

    /// Interfaces with a default route by router advertisement.
    fn advertised_defaults(&mut self) -> Result<Vec<u32>, NetlinkError> {
        route::messages(
            &mut self.route,
            libc::AF_INET6,
            |found: &mut Vec<u32>, message| {
                let header = &message.header;
                if header.protocol == RouteProtocol::Ra && header.destination_prefix_length == 0 {
                    for attribute in &message.attributes {
                        match attribute {
                            RouteAttribute::Oif(ifindex) => found.push(*ifindex),
                            RouteAttribute::MultiPath(hops) => {
                                found.extend(hops.iter().map(|hop| hop.interface_index));
                            }
                            _ => {}
                        }
                    }
                }
            },
        )
    }

    fn parameter(&self, path: &str) -> Result<std::path::PathBuf, SysctlError> {
        let plain = Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !plain || path.is_empty() {
            return Err(SysctlError::Name {
                path: path.to_owned(),
            });
        }
        Ok(self.sysctl_root.join(path))
    }
}

fn dotted(path: &str) -> String {
    path.replace('/', ".")
}
