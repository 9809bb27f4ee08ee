//! Wires and switches between namespaces.

use super::{Lab, Netns};
use anyhow::Result;
use std::process::Command;

/// One end of a wire: an interface in a namespace, with its addresses.
#[derive(Debug, Clone)]
pub struct End<'a> {
    /// Where the interface is.
    pub netns: &'a Netns,
    /// Its name there.
    pub interface: &'a str,
    /// Its addresses with prefix lengths.
    pub addresses: &'a [&'a str],
}

/// An Ethernet segment: a bridge in a namespace of its own, the switch of a rack, so that the
/// nodes and routers on it have plain interfaces.
#[derive(Debug)]
pub struct Switch {
    netns: Netns,
}

impl Lab {
    /// A wire (veth) between two namespaces, both ends up.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn wire(&self, a: &End<'_>, b: &End<'_>) -> Result<()> {
        super::process::run(Command::new("ip").args([
            "link",
            "add",
            a.interface,
            "netns",
            a.netns.full_name(),
            "type",
            "veth",
            "peer",
            "name",
            b.interface,
            "netns",
            b.netns.full_name(),
        ]))?;
        for end in [a, b] {
            end.configure()?;
        }
        Ok(())
    }

    /// An empty switch.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn switch(&self, name: &str) -> Result<Switch> {
        let netns = self.netns(name)?;
        netns.set_sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
        netns.set_sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        netns.ip(["link add lan type bridge", "link set lan up"])?;
        Ok(Switch { netns })
    }

    /// Plugs an interface into a switch; the switch's port has the name of the namespace.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn plug(&self, switch: &Switch, end: &End<'_>) -> Result<()> {
        self.plug_into(switch, end.netns.name(), end)
    }

    /// Plugs an interface into the port of this name: of a namespace with several interfaces.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn plug_into(&self, switch: &Switch, port: &str, end: &End<'_>) -> Result<()> {
        let port = End {
            netns: &switch.netns,
            interface: port,
            addresses: &[],
        };
        self.wire(end, &port)?;
        switch
            .netns
            .ip([format!("link set {} master lan", port.interface)])
    }
}

impl Switch {
    /// Sets a port up or down; who is plugged in sees its carrier come and go.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn set_port(&self, port: &str, up: bool) -> Result<()> {
        let state = if up { "up" } else { "down" };
        self.netns.ip([format!("link set {port} {state}")])
    }
}

impl End<'_> {
    fn configure(&self) -> Result<()> {
        let Self {
            interface,
            addresses,
            ..
        } = self;
        let mut lines = vec![format!("link set {interface} up")];
        for address in *addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            lines.push(format!("addr add {address} dev {interface}{nodad}"));
        }
        self.netns.ip(lines)
    }
}
