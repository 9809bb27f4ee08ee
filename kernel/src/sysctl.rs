//! Parameters under `/proc/sys/net`.

use crate::kernel::Kernel;
use crate::netlink::Errno;
use model::names::{INTERFACE_PREFIX, TUNNEL_DEVICES};
use std::ffi::OsString;
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
    /// Which interfaces have IPv6 parameters could not be found out.
    #[error("cannot list net.ipv6.conf: {0}")]
    Interfaces(Errno),
}

impl Kernel {
    /// Sets a parameter, such as `ipv4/ip_forward`, unless it has the value already: a read-only
    /// tree with the right values in it will do.
    pub fn set_sysctl(&mut self, path: &str, value: &str) -> Result<(), SysctlError> {
        let file = self.parameter(path)?;
        if self.is(path, value) {
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
    ) -> Result<(), SysctlError> {
        for (parameter, value) in [
            ("rp_filter", self.reverse_path_filter()),
            ("send_redirects", "0"),
            ("accept_redirects", "0"),
            ("accept_source_route", "0"),
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

    /// As little as the node allows. The kernel takes the greater number of the interface's and that
    /// of `conf.all`: beside a strict one (1) only the loose one (2) is not strict, and that one
    /// costs a second look at the routes for each packet. Whose addresses may come from where is
    /// for rules to say, and exactly.
    fn reverse_path_filter(&self) -> &'static str {
        match self.is("ipv4/conf/all/rp_filter", "0") {
            true => "0",
            false => "2",
        }
    }

    /// Switches forwarding on, both families. An interface of somebody else that takes router
    /// advertisements goes on to take them: once it forwards, the kernel asks for `accept_ra=2`,
    /// and drops the default routes that came by them at once where it has less. One that forwards
    /// already, or whose advertisements a program in user space reads (0), stays as it is.
    pub fn enable_forwarding(&mut self) -> Result<(), SysctlError> {
        self.set_sysctl("ipv4/ip_forward", "1")?;
        if !self.sysctl_root.join("ipv6").exists() {
            return Ok(());
        }
        for name in self.interfaces_of_others()? {
            let is = |parameter, value| self.is(&format!("ipv6/conf/{name}/{parameter}"), value);
            if !(is("accept_ra", "1") && is("forwarding", "0")) {
                continue;
            }
            match self.set_sysctl(&format!("ipv6/conf/{name}/accept_ra"), "2") {
                Err(SysctlError::Write { errno, .. }) if errno == Errno(libc::ENOENT) => {}
                done => done?,
            }
        }
        self.set_sysctl("ipv6/conf/all/forwarding", "1")
    }

    /// Lets flows choose among paths of equal cost by ports as well (`fib_multipath_hash_policy` 1)
    /// where the kernel's default stands: by addresses alone, everything between two nodes that is
    /// wrapped in VXLAN takes one path. A policy that somebody has chosen stays.
    pub fn spread_flows(&mut self) -> Result<(), SysctlError> {
        for family in ["ipv4", "ipv6"] {
            let path = format!("{family}/fib_multipath_hash_policy");
            if self.is(&path, "0") {
                self.set_sysctl(&path, "1")?;
            }
        }
        Ok(())
    }

    /// Names of the interfaces with IPv6 parameters that are not ours.
    fn interfaces_of_others(&self) -> Result<Vec<String>, SysctlError> {
        let listed = std::fs::read_dir(self.sysctl_root.join("ipv6/conf"))
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
        let listed: Vec<OsString> =
            listed.map_err(|error| SysctlError::Interfaces(error.into()))?;
        let of_others = |name: &String| {
            !["all", "default"].contains(&name.as_str())
                && !TUNNEL_DEVICES.contains(&name.as_str())
                && !name.starts_with(INTERFACE_PREFIX)
        };
        let names = listed
            .into_iter()
            .filter_map(|name| name.into_string().ok());
        Ok(names.filter(of_others).collect())
    }

    /// Whether a parameter is there and has this value.
    fn is(&self, path: &str, value: &str) -> bool {
        let current = std::fs::read_to_string(self.sysctl_root.join(path));
        current.is_ok_and(|current| current.trim() == value)
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
