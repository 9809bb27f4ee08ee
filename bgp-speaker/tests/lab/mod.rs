//! Two network namespaces joined by a link, and daemons in them; all of it goes with the value.

#![allow(dead_code)] // each test program uses its part

mod daemons;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Ours has 10.0.0.1 and fd00::1, theirs 10.0.0.2 and fd00::2.
pub(crate) struct Lab {
    pub(crate) ours: Namespace,
    pub(crate) theirs: Namespace,
    pub(crate) directory: tempfile::TempDir,
}

pub(crate) struct Namespace(String);

/// A process that is killed with the value.
pub(crate) struct Daemon(Child);

impl Lab {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |side| format!("bgpt-{}-{number}{side}", std::process::id());
        let (ours, theirs) = (Namespace::new(name("a")), Namespace::new(name("b")));
        let (a, b) = (&ours.0, &theirs.0);
        run(
            "ip",
            &[
                "link", "add", "eth0", "netns", a, "type", "veth", "peer", "eth0", "netns", b,
            ],
        );
        for (namespace, v4, v6) in [
            (&ours, "10.0.0.1/24", "fd00::1/64"),
            (&theirs, "10.0.0.2/24", "fd00::2/64"),
        ] {
            namespace.ip(&["addr", "add", v4, "dev", "eth0"]);
            namespace.ip(&["addr", "add", v6, "dev", "eth0", "nodad"]);
            namespace.ip(&["link", "set", "lo", "up"]);
            namespace.ip(&["link", "set", "eth0", "up"]);
        }
        Self {
            ours,
            theirs,
            directory: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Our program, announcing 10.1.0.0/26 and fd01::/122; it logs to the file `log`.
    pub(crate) fn speaker(&self, peer: &str, restarting: bool) -> Daemon {
        let config = self.write(
            "speaker.yaml",
            &format!(
                "localAs: 4200000001\nrouterId: 192.0.2.1\nforwardingPreserved: true\nebgpRequiresPolicy: false\n\
                 nextHopV4: 10.0.0.1\nnextHopV6: fd00::1\nnetworks: [10.1.0.0/26, 'fd01::/122']\n\
                 peers:\n- {peer}\n"
            ),
        );
        let program = env!("CARGO_BIN_EXE_bgp-speaker");
        let mut arguments = vec!["--config", config.to_str().unwrap()];
        arguments.extend(restarting.then_some("--restarting"));
        let running = || self.read("log").matches("running with").count();
        let before = running();
        let speaker = self.ours.daemon(program, &arguments, &self.path("log"));
        // Before that, the signal that asks for the status would end it.
        eventually("our program runs", || running() > before);
        speaker
    }

    /// Our program at the other end, announcing 10.2.0.0/24 and fd02::/64; it logs to `their.log`.
    pub(crate) fn their_speaker(&self, peer: &str) -> Daemon {
        self.write(
            "their.yaml",
            &format!(
                "localAs: 65001\nrouterId: 192.0.2.2\nebgpRequiresPolicy: false\nnextHopV4: 10.0.0.2\nnextHopV6: fd00::2\n\
                 networks: [10.2.0.0/24, 'fd02::/64']\npeers:\n- {peer}\n"
            ),
        );
        self.their_speaker_of_file()
    }

    /// Our program at the other end, with the file `their.yaml`.
    pub(crate) fn their_speaker_of_file(&self) -> Daemon {
        self.their_speaker_called("their")
    }

    /// Our program at the other end, with the file and the log of this name.
    pub(crate) fn their_speaker_called(&self, name: &str) -> Daemon {
        let config = self.path(&format!("{name}.yaml"));
        let arguments = ["--config", path(&config)];
        let program = env!("CARGO_BIN_EXE_bgp-speaker");
        let log = format!("{name}.log");
        let speaker = self.theirs.daemon(program, &arguments, &self.path(&log));
        eventually("their program runs", || {
            self.read(&log).contains("running with")
        });
        speaker
    }

    /// BIRD, announcing 10.2.0.0/24 and fd02::/64 as `their_as`, routes in the kernel;
    /// the session is over IPv4 or, with `fd00::2` as its own address, over IPv6.
    pub(crate) fn bird(&self, their_as: u32, own: &str) -> Daemon {
        self.bird_with(their_as, own, "", "")
    }

    /// BIRD with further options of the session, and further protocols.
    pub(crate) fn bird_with(&self, their_as: u32, own: &str, options: &str, more: &str) -> Daemon {
        self.bird_telling(their_as, own, options, "", more)
    }

    /// BIRD with further options of the session, of both its channels, and further protocols.
    pub(crate) fn bird_telling(
        &self,
        their_as: u32,
        own: &str,
        options: &str,
        channel: &str,
        more: &str,
    ) -> Daemon {
        let ours = if own.contains(':') {
            "fd00::1"
        } else {
            "10.0.0.1"
        };
        let config = self.write(
            "bird.conf",
            &format!(
                "router id 192.0.2.2;\nprotocol device {{}}\n\
                 protocol kernel k4 {{ ipv4 {{ export all; }}; }}\n\
                 protocol kernel k6 {{ ipv6 {{ export all; }}; }}\n\
                 protocol static s4 {{ ipv4; route 10.2.0.0/24 blackhole; }}\n\
                 protocol static s6 {{ ipv6; route fd02::/64 blackhole; }}\n\
                 protocol bgp ours {{\n  local {own} as {their_as};\n\
                 neighbor {ours} as 4200000001;\n  graceful restart on;\n\
                 connect delay time 1; error wait time 1, 2; {options}\n\
                 ipv4 {{ import all; export all; next hop address 10.0.0.2; {channel} }};\n\
                 ipv6 {{ import all; export all; next hop address fd00::2; {channel} }};\n}}\n{more}\n"
            ),
        );
        let (control, pid) = (self.path("bird.ctl"), self.path("bird.pid"));
        let arguments = [
            "-f",
            "-c",
            path(&config),
            "-s",
            path(&control),
            "-P",
            path(&pid),
        ];
        self.theirs
            .daemon("bird", &arguments, &self.path("bird.log"))
    }

    pub(crate) fn birdc(&self, command: &str) -> String {
        output("birdc", &["-s", path(&self.path("bird.ctl")), command])
    }

    /// FRR's zebra and bgpd, announcing 10.2.0.0/24 and fd02::/64.
    pub(crate) fn frr(&self) -> Vec<Daemon> {
        self.frr_with("")
    }

    /// FRR with further lines about the neighbor; with bfdd if one of them is about that.
    pub(crate) fn frr_with(&self, neighbor: &str) -> Vec<Daemon> {
        let who = " neighbor 10.0.0.1 remote-as 4200000001\n";
        self.frr_to("10.0.0.1", &format!("{who}{neighbor}"))
    }

    /// FRR with a neighbor on the link rather than at an address.
    pub(crate) fn frr_unnumbered(&self, neighbor: &str) -> Vec<Daemon> {
        let who = " neighbor eth0 interface remote-as external\n";
        self.frr_to("eth0", &format!("{who}{neighbor}"))
    }

    fn frr_to(&self, name: &str, neighbor: &str) -> Vec<Daemon> {
        let config = self.write(
            "bgpd.conf",
            &format!(
                "router bgp 65001\n bgp router-id 192.0.2.2\n no bgp ebgp-requires-policy\n\
             \x20bgp graceful-restart\n no bgp network import-check\n\
             {neighbor} neighbor {name} timers connect 1\n\
             \x20address-family ipv4 unicast\n  network 10.2.0.0/24\n exit-address-family\n\
             \x20address-family ipv6 unicast\n  network fd02::/64\n  neighbor {name} activate\n\
             \x20exit-address-family\n"
            ),
        );
        let empty = self.write("empty.conf", "");
        run("chown", &["-R", "frr:frr", path(self.directory.path())]);
        let start = |program: &str, config: &Path| {
            let socket = self.path("zserv");
            let pid = self.path(&format!("{program}.pid"));
            let binary = format!("/usr/lib/frr/{program}");
            let bfd_socket = self.path("bfdd.sock");
            let mut arguments = vec![
                "-u",
                "frr",
                "-g",
                "frr",
                "-f",
                path(config),
                "-i",
                path(&pid),
                "-z",
                path(&socket),
                "--vty_socket",
                path(self.directory.path()),
                "-A",
                "127.0.0.1",
            ];
            if program == "bfdd" {
                arguments.extend(["--bfdctl", path(&bfd_socket)]);
            }
            self.theirs
                .daemon(&binary, &arguments, &self.path(&format!("{program}.log")))
        };
        let mut daemons = vec![start("zebra", &empty)];
        eventually("zebra listens", || self.path("zserv").exists());
        if neighbor.contains("bfd") {
            daemons.push(start("bfdd", &empty));
        }
        daemons.push(start("bgpd", &config));
        daemons
    }

    pub(crate) fn vtysh(&self, command: &str) -> String {
        output(
            "vtysh",
            &["--vty_socket", path(self.directory.path()), "-c", command],
        )
    }

    /// Changes FRR's BGP configuration.
    pub(crate) fn configure_frr(&self, line: &str) {
        let directory = path(self.directory.path());
        let words = ["--vty_socket", directory, "-c", "configure terminal"];
        let words = words
            .into_iter()
            .chain(["-c", "router bgp 65001", "-c", line]);
        output("vtysh", &words.collect::<Vec<_>>());
    }

    /// Writes every change of their kernel's routes to the file `monitor`.
    pub(crate) fn monitor(&self) -> Daemon {
        self.theirs
            .daemon("ip", &["-o", "monitor", "route"], &self.path("monitor"))
    }

    /// Their kernel forwards both of our prefixes to us.
    pub(crate) fn they_forward(&self) -> bool {
        let v4 = self.theirs.ip(&["-4", "route", "show", "10.1.0.0/26"]);
        let v6 = self.theirs.ip(&["-6", "route", "show", "fd01::/122"]);
        v4.contains("via 10.0.0.1") && v6.contains("via fd00::1")
    }

    /// Kills our speaker, checks that they go on forwarding, and starts a successor.
    pub(crate) fn restart_unnoticed(&self, speaker: Daemon, peer: &str, stop: &str) -> Daemon {
        eventually("we have converged", || {
            self.read("log").contains("all peers have sent")
        });
        let _monitor = self.monitor();
        // The monitor is running once it has seen a change of ours.
        eventually("the monitor runs", || {
            self.theirs
                .ip(&["route", "replace", "10.77.0.0/24", "dev", "lo"]);
            self.theirs.ip(&["route", "del", "10.77.0.0/24"]);
            self.read("monitor").contains("10.77.0.0/24")
        });
        speaker.signal(stop);
        speaker.wait();
        assert!(
            self.they_forward(),
            "routes are kept while nobody speaks for them"
        );
        let successor = self.speaker(peer, true);
        eventually("the successor has their routes", || {
            self.read("log")
                .matches(": session with 10.0.0.2 is up")
                .count()
                >= 2
                && self.we_have_their_routes(&successor)
        });
        eventually("the successor has converged", || {
            self.read("log")
                .matches("all peers have sent their routes")
                .count()
                >= 2
        });
        assert!(self.they_forward());
        assert_eq!(self.deleted(), [""; 0]);
        successor
    }

    /// Two of ours and two of theirs.
    pub(crate) fn we_have_their_routes(&self, speaker: &Daemon) -> bool {
        let status = self.status(speaker);
        status.contains("state: Established") && status.contains("prefixes: 4")
    }

    /// What our speaker last said about itself; asks for more.
    pub(crate) fn status(&self, speaker: &Daemon) -> String {
        speaker.signal("USR1");
        let log = self.read("log");
        log.rsplit("status:").next().unwrap_or_default().to_owned()
    }

    /// Routes of ours that their kernel was told to delete.
    pub(crate) fn deleted(&self) -> Vec<String> {
        let log = self.read("monitor");
        let ours = |line: &&str| line.contains("10.1.0.0/26") || line.contains("fd01::/122");
        log.lines()
            .filter(|line| line.contains("Deleted"))
            .filter(ours)
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.read("log");
            let events = log.lines().filter(|line| line.contains("bgp_speaker"));
            events.for_each(|line| println!("{line}"));
        }
    }
}

impl Namespace {
    fn new(name: String) -> Self {
        run("ip", &["netns", "add", &name]);
        Self(name)
    }

    /// Drops what matches; everything that was dropped before passes again.
    pub(crate) fn drop_packets(&self, matching: &str) {
        let table = format!(
            "table inet cut\ndelete table inet cut\n\
             table inet cut {{ chain in {{ type filter hook input priority 0; {matching}; }}; }}"
        );
        let mut nft = Command::new("ip")
            .args(["netns", "exec", &self.0, "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        nft.stdin
            .take()
            .unwrap()
            .write_all(table.as_bytes())
            .unwrap();
        assert!(nft.wait().unwrap().success(), "{table}");
    }

    /// What a program says there.
    pub(crate) fn run<'a>(
        &'a self,
        program: &'a str,
        words: impl Iterator<Item = &'a str>,
    ) -> String {
        let mut arguments = vec!["netns", "exec", &self.0, program];
        arguments.extend(words);
        output("ip", &arguments)
    }

    pub(crate) fn ip(&self, arguments: &[&str]) -> String {
        let mut all = vec!["-n", &self.0];
        all.extend(arguments);
        output("ip", &all)
    }

    fn daemon(&self, program: &str, arguments: &[&str], log: &Path) -> Daemon {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        let child = Command::new("ip")
            .args(["netns", "exec", &self.0, program])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {program}: {error}"));
        Daemon(child)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

impl Daemon {
    pub(crate) fn signal(&self, name: &str) {
        run("kill", &[&format!("-{name}"), &self.0.id().to_string()]);
    }

    pub(crate) fn wait(mut self) {
        self.0.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until a condition holds; panics with its name if that takes too long.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(40);
    while !condition() {
        assert!(Instant::now() < give_up, "not so: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[track_caller]
fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "{program} {arguments:?} (needs root)"
    );
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}
