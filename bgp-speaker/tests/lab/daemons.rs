//! GoBGP, OpenBGPD and ExaBGP at the other end of the link; all are AS 65001 and announce
//! 10.2.0.0/24 and fd02::/64.

use super::{Daemon, Lab, eventually, path};

impl Lab {
    /// GoBGP; with further lines, in TOML, of the neighbor and of its transport.
    pub(crate) fn gobgp(&self, auth: &str, transport: &str) -> Daemon {
        self.gobgp_with(auth, transport, 60, "")
    }

    /// GoBGP; with its restart time in seconds, and further lines of graceful restart and of both
    /// families.
    pub(crate) fn gobgp_with(
        &self,
        auth: &str,
        transport: &str,
        restart_time: u16,
        more: &str,
    ) -> Daemon {
        let long_lived = if more.contains("long-lived") {
            "long-lived-enabled = true\n"
        } else {
            ""
        };
        let family = |name: &str| {
            format!(
                "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\n\
                 afi-safi-name = \"{name}\"\n\
                 [neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n{more}"
            )
        };
        let config = self.write(
            "gobgpd.toml",
            &format!(
                "[global.config]\nas = 65001\nrouter-id = \"192.0.2.2\"\n\
                 local-address-list = [\"10.0.0.2\"]\n\
                 [[neighbors]]\n[neighbors.config]\nneighbor-address = \"10.0.0.1\"\n\
                 peer-as = 4200000001\n{auth}[neighbors.timers.config]\nconnect-retry = 1\n\
                 [neighbors.graceful-restart.config]\nenabled = true\nrestart-time = {restart_time}\n{long_lived}\
                 {}{}[neighbors.transport.config]\nlocal-address = \"10.0.0.2\"\n{transport}\n",
                family("ipv4-unicast"),
                family("ipv6-unicast")
            ),
        );
        let arguments = ["-f", path(&config), "--api-hosts", "127.0.0.1:50051"];
        let daemon = self
            .theirs
            .daemon("gobgpd", &arguments, &self.path("gobgpd.log"));
        eventually("GoBGP answers", || {
            self.gobgp_command("global").contains("65001")
        });
        self.gobgp_command("global rib add 10.2.0.0/24 nexthop 10.0.0.2 -a ipv4");
        self.gobgp_command("global rib add fd02::/64 nexthop fd00::2 -a ipv6");
        daemon
    }

    /// What `gobgp` says.
    pub(crate) fn gobgp_command(&self, command: &str) -> String {
        let words = command.split_whitespace();
        self.theirs.run("gobgp", words)
    }

    /// OpenBGPD, with a session for each IP version, since it has one next hop for each; `neighbor`
    /// are further lines of both.
    pub(crate) fn openbgpd(&self, neighbor: &str) -> Daemon {
        let socket = self.path("bgpd.sock");
        let config = self.write(
            "bgpd.openbgpd.conf",
            &format!(
                "AS 65001\nrouter-id 192.0.2.2\nlisten on 10.0.0.2\nlisten on fd00::2\nfib-update no\nsocket \"{}\"\n\
                 network 10.2.0.0/24\nnetwork fd02::/64\n\
                 neighbor 10.0.0.1 {{\n remote-as 4200000001\n local-address 10.0.0.2\n \
                 announce IPv4 unicast\n announce IPv6 none\n {neighbor}\n}}\n\
                 neighbor fd00::1 {{\n remote-as 4200000001\n local-address fd00::2\n \
                 announce IPv4 none\n announce IPv6 unicast\n {neighbor}\n}}\n\
                 allow from any\nallow to any\n",
                path(&socket)
            ),
        );
        // What it is jailed in; the service of the package would make it.
        std::fs::create_dir_all("/run/openbgpd").unwrap();
        // It refuses a configuration that others may read.
        super::run("chmod", &["600", path(&config)]);
        let arguments = ["-d", "-f", path(&config)];
        self.theirs
            .daemon("/usr/sbin/bgpd", &arguments, &self.path("openbgpd.log"))
    }

    /// What `bgpctl` says.
    pub(crate) fn bgpctl(&self, command: &str) -> String {
        let socket = self.path("bgpd.sock");
        let words = ["-s", path(&socket)];
        let words = words.into_iter().chain(command.split_whitespace());
        self.theirs.run("bgpctl", words)
    }

    /// ExaBGP, which writes what it receives to the file `exabgp.log`; `neighbor` are further lines
    /// of the neighbor, `routes` further routes.
    pub(crate) fn exabgp(&self, neighbor: &str, routes: &str) -> Daemon {
        let config = self.write(
            "exabgp.conf",
            &format!(
                "process dump {{ run /bin/cat; encoder text; }}\n\
                 neighbor 10.0.0.1 {{\n router-id 192.0.2.2;\n local-address 10.0.0.2;\n \
                 local-as 65001;\n peer-as 4200000001;\n {neighbor}\n \
                 family {{ ipv4 unicast; ipv6 unicast; }}\n \
                 api {{ processes [ dump ]; receive {{ parsed; update; notification; }} }}\n \
                 static {{ route 10.2.0.0/24 next-hop 10.0.0.2; route fd02::/64 next-hop fd00::2; \
                 {routes} }}\n}}\n"
            ),
        );
        let arguments = [
            "exabgp.daemon.user=root",
            "exabgp.api.ack=false",
            "exabgp.log.level=INFO",
            "exabgp.log.all=true",
            "exabgp.tcp.bind=10.0.0.2",
            "exabgp.tcp.port=179",
            "/usr/sbin/exabgp",
            path(&config),
        ];
        self.theirs
            .daemon("/usr/bin/env", &arguments, &self.path("exabgp.log"))
    }
}
