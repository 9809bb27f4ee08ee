//! Restarts on either side with every daemon, several paths, and changes that touch one session.
//! Needs root and the daemons.

#![allow(clippy::unwrap_used)] // a test may panic

mod lab;

use lab::{Daemon, Lab, eventually};

/// Community LLGR_STALE (RFC 9494 section 4.6) as FRR and GoBGP write it.
const LAST_RESORT: &str = "llgr-stale";

fn peer(more: &str) -> String {
    format!("{{ name: BGPPeer/tor, address: 10.0.0.2, remoteAs: 65001, connectRetry: 1, {more} }}")
}

/// A peer for each IP version.
fn both() -> String {
    let v4 = peer("");
    let v6 = v4.replace("10.0.0.2", "'fd00::2'");
    format!("{v4}\n- {v6}")
}

/// BIRD beside another daemon at the other end.
const BESIDE: &str = "{ name: BGPPeer/bird, address: 10.0.0.3, remoteAs: 65002, connectRetry: 1, \
                      export: All, addPath: { receive: true, send: 4 } }";

fn wait_for_their_routes(lab: &Lab, speaker: &Daemon) {
    eventually("we have their routes", || lab.we_have_their_routes(speaker));
}

fn kill(daemon: Daemon) {
    daemon.signal("KILL");
    daemon.wait();
}

fn wait_until_stale(lab: &Lab, speaker: &Daemon) {
    eventually("their routes are kept and stale", || {
        let status = lab.status(speaker);
        // FRR also gives our own routes back, which are stale with the others.
        let stale = !status.contains("stale: 0") && !status.contains("Established");
        stale && status.contains("prefixes: 4")
    });
}

fn wait_until_fresh(lab: &Lab, speaker: &Daemon) {
    eventually("their routes are fresh again", || {
        lab.we_have_their_routes(speaker) && lab.status(speaker).contains("stale: 0")
    });
}

#[test]
fn we_keep_the_routes_of_a_killed_gobgp_until_it_is_back() {
    let lab = Lab::new();
    let gobgp = lab.gobgp("", "");
    let speaker = lab.speaker(&peer(""), false);
    wait_for_their_routes(&lab, &speaker);
    kill(gobgp);
    wait_until_stale(&lab, &speaker);
    let _gobgp = lab.gobgp("", "");
    wait_until_fresh(&lab, &speaker);
}

#[test]
fn we_keep_the_routes_of_a_killed_frr_until_it_is_back() {
    let lab = Lab::new();
    // Without the F bit a helper has nothing to keep (RFC 4724 section 4.2).
    let forwards = " bgp graceful-restart preserve-fw-state\n";
    let frr = lab.frr_with(forwards);
    let speaker = lab.speaker(&peer(""), false);
    wait_for_their_routes(&lab, &speaker);
    frr.into_iter().for_each(kill);
    wait_until_stale(&lab, &speaker);
    let _frr = lab.frr_with(forwards);
    wait_until_fresh(&lab, &speaker);
}

#[test]
fn we_keep_the_routes_of_a_killed_exabgp_until_it_is_back() {
    let lab = Lab::new();
    let restarts = "passive true; capability { graceful-restart 60; }";
    let exabgp = lab.exabgp(restarts, "");
    let speaker = lab.speaker(&peer(""), false);
    wait_for_their_routes(&lab, &speaker);
    kill(exabgp);
    wait_until_stale(&lab, &speaker);
    let _exabgp = lab.exabgp(restarts, "");
    wait_until_fresh(&lab, &speaker);
}

#[test]
fn openbgpd_keeps_our_routes_while_we_restart() {
    let lab = Lab::new();
    let speaker = lab.speaker(&both(), false);
    let _openbgpd = lab.openbgpd("");
    wait_for_their_routes(&lab, &speaker);
    let has_our_route = || lab.bgpctl("show rib").contains("10.1.0.0/26");
    eventually("OpenBGPD has our route", has_our_route);
    kill(speaker);
    eventually("OpenBGPD knows that we are gone", || {
        let neighbor = lab.bgpctl("show neighbor 10.0.0.1");
        neighbor.contains("BGP state = ") && !neighbor.contains("BGP state = Established")
    });
    assert!(has_our_route());
    let successor = lab.speaker(&both(), true);
    wait_for_their_routes(&lab, &successor);
    assert!(has_our_route());
}

#[test]
fn the_routes_of_a_killed_openbgpd_go_at_once_as_it_says_and_come_back_with_it() {
    let lab = Lab::new();
    let speaker = lab.speaker(&both(), false);
    let openbgpd = lab.openbgpd("");
    wait_for_their_routes(&lab, &speaker);
    // Its OPEN asks for End-of-RIB and names no family whose routes may be kept (RFC 4724
    // section 3).
    kill(openbgpd);
    eventually("its routes are gone", || {
        let status = lab.status(&speaker);
        status.contains("prefixes: 2") && !status.contains("Established")
    });
    let _openbgpd = lab.openbgpd("");
    wait_for_their_routes(&lab, &speaker);
}

#[test]
fn exabgp_tells_us_everything_again_when_we_restart_and_hears_no_withdrawal() {
    let lab = Lab::new();
    let _exabgp = lab.exabgp("passive true; capability { graceful-restart 60; }", "");
    let speaker = lab.speaker(&peer(""), false);
    wait_for_their_routes(&lab, &speaker);
    let told = || lab.read("exabgp.log").matches("10.1.0.0/26").count();
    eventually("ExaBGP was told our route", || told() > 0);
    let before = told();
    kill(speaker);
    let successor = lab.speaker(&peer(""), true);
    wait_for_their_routes(&lab, &successor);
    eventually("all is told", || {
        let converged = lab.read("log").matches("all peers have sent").count();
        converged == 2 && told() > before
    });
    let log = lab.read("exabgp.log");
    let withdrawn = |line: &&str| line.contains("withdraw") && line.contains("10.1.0.0/26");
    assert_eq!(log.lines().find(withdrawn), None);
}

/// Kills us, and waits for our route to be a last resort at the other end.
fn wait_for_last_resort(speaker: Daemon, route: impl Fn() -> String, mark: &str) {
    eventually("they have our route", || route().contains("10.1.0.0/26"));
    kill(speaker);
    eventually("it is a last resort", || route().contains(mark));
}

const LONG_LIVED: &str = "restartTime: 1, longLivedStaleTime: 600";

#[test]
fn frr_and_we_keep_routes_of_each_other_as_a_last_resort() {
    let lab = Lab::new();
    let long_lived = " bgp long-lived-graceful-restart stale-time 600\n \
                      bgp graceful-restart restart-time 1\n \
                      bgp graceful-restart preserve-fw-state\n";
    let frr = lab.frr_with(long_lived);
    let speaker = lab.speaker(&peer(LONG_LIVED), false);
    wait_for_their_routes(&lab, &speaker);
    frr.into_iter().for_each(kill);
    eventually("FRR's routes are a last resort", || {
        lab.read("log").contains("routes are kept as a last resort")
    });
    let _frr = lab.frr_with(long_lived);
    wait_until_fresh(&lab, &speaker);
    let route = || lab.vtysh("show bgp ipv4 unicast 10.1.0.0/26");
    wait_for_last_resort(speaker, route, LAST_RESORT);
}

#[test]
fn gobgp_keeps_our_routes_as_a_last_resort() {
    let lab = Lab::new();
    let long_lived = "[neighbors.afi-safis.long-lived-graceful-restart.config]\n\
                      enabled = true\nrestart-time = 600\n";
    let _gobgp = lab.gobgp_with("", "", 1, long_lived);
    let speaker = lab.speaker(&peer(LONG_LIVED), false);
    wait_for_their_routes(&lab, &speaker);
    let route = || lab.gobgp_command("global rib 10.1.0.0/26");
    wait_for_last_resort(speaker, route, LAST_RESORT);
}

#[test]
fn we_keep_the_routes_of_gobgp_as_a_last_resort() {
    let lab = Lab::new();
    let long_lived = "[neighbors.afi-safis.long-lived-graceful-restart.config]\n\
                      enabled = true\nrestart-time = 600\n";
    let gobgp = lab.gobgp_with("", "", 1, long_lived);
    let speaker = lab.speaker(&peer(LONG_LIVED), false);
    wait_for_their_routes(&lab, &speaker);
    kill(gobgp);
    eventually("GoBGP's routes are a last resort", || {
        lab.read("log").contains("routes are kept as a last resort")
    });
    let _gobgp = lab.gobgp_with("", "", 1, long_lived);
    wait_until_fresh(&lab, &speaker);
}

#[test]
fn bird_keeps_our_routes_as_a_last_resort() {
    let lab = Lab::new();
    let options = "long lived graceful restart on; long lived stale time 600;";
    let _bird = lab.bird_with(65001, "10.0.0.2", options, "");
    let speaker = lab.speaker(&peer(LONG_LIVED), false);
    wait_for_their_routes(&lab, &speaker);
    let route = || lab.birdc("show route 10.1.0.0/26 all");
    wait_for_last_resort(speaker, route, "(65535,6)");
}

/// BIRD at 10.0.0.3 with two paths to 10.9.0.0/24.
fn bird_with_two_paths(lab: &Lab) -> Daemon {
    lab.theirs
        .ip(&["addr", "add", "10.0.0.3/24", "dev", "eth0"]);
    let two = "protocol static s7 { ipv4 { preference 110; }; route 10.9.0.0/24 blackhole; }\n\
               protocol static s8 { ipv4 { preference 120; }; route 10.9.0.0/24 blackhole; }";
    lab.bird_telling(65002, "10.0.0.3", "strict bind on;", "add paths on;", two)
}

#[test]
fn frr_is_told_both_paths_that_bird_tells_us() {
    let lab = Lab::new();
    let _bird = bird_with_two_paths(&lab);
    let _frr = lab.frr_with(
        " address-family ipv4 unicast\n  \
         neighbor 10.0.0.1 addpath-tx-all-paths\n exit-address-family\n",
    );
    let to_frr = peer("export: All, addPath: { receive: true, send: 4 }");
    let _speaker = lab.speaker(&format!("{to_frr}\n- {BESIDE}"), false);
    eventually("FRR has both paths of BIRD", || {
        let route = lab.vtysh("show bgp ipv4 unicast 10.9.0.0/24");
        route.matches("AddPath ID: RX").count() == 2
    });
}

#[test]
fn bird_gobgp_and_we_tell_each_other_several_paths() {
    let lab = Lab::new();
    let _bird = bird_with_two_paths(&lab);
    let several = "[neighbors.afi-safis.add-paths.config]\nreceive = true\nsend-max = 8\n";
    let _gobgp = lab.gobgp_with("", "local-port = 0", 60, several);
    for (identifier, med) in [("1", "10"), ("2", "20")] {
        let path = format!(
            "global rib add 10.8.0.0/24 identifier {identifier} nexthop 10.0.0.2 med {med} -a ipv4"
        );
        lab.gobgp_command(&path);
    }
    let to_gobgp = peer("export: All, addPath: { receive: true, send: 4 }");
    let _speaker = lab.speaker(&format!("{to_gobgp}\n- {BESIDE}"), false);
    eventually("GoBGP has both paths of BIRD", || {
        let route = lab.gobgp_command("global rib 10.9.0.0/24");
        route.matches("65002").count() == 2
    });
    eventually("BIRD has both paths of GoBGP", || {
        let route = lab.birdc("show route 10.8.0.0/24 all");
        route.matches("BGP.as_path:").count() == 2
    });
}

#[test]
fn openbgpd_is_told_both_paths_that_bird_tells_us() {
    let lab = Lab::new();
    let _bird = bird_with_two_paths(&lab);
    let _openbgpd = lab.openbgpd("announce add-path recv yes");
    let to_openbgpd = peer("export: All, addPath: { receive: true, send: 4 }");
    let _speaker = lab.speaker(&format!("{to_openbgpd}\n- {BESIDE}"), false);
    eventually("OpenBGPD has both paths of BIRD", || {
        let rib = lab.bgpctl("show rib 10.9.0.0/24");
        rib.matches("10.9.0.0/24").count() == 2
    });
}

#[test]
fn bird_exabgp_and_we_tell_each_other_several_paths() {
    let lab = Lab::new();
    let _bird = bird_with_two_paths(&lab);
    let route = |path: u8| {
        format!(
            "route 10.8.0.0/24 path-information 0.0.0.{path} next-hop 10.0.0.2 med {};",
            10 * path
        )
    };
    let several = "passive true; capability { add-path send/receive; }";
    let _exabgp = lab.exabgp(several, &(route(1) + &route(2)));
    let to_exabgp = peer("export: All, addPath: { receive: true, send: 4 }");
    let _speaker = lab.speaker(&format!("{to_exabgp}\n- {BESIDE}"), false);
    eventually("BIRD has both paths of ExaBGP", || {
        let route = lab.birdc("show route 10.8.0.0/24 all");
        route.matches("BGP.as_path:").count() == 2
    });
    eventually("ExaBGP is told both paths of BIRD", || {
        lab.read("exabgp.log")
            .matches("announced 10.9.0.0/24")
            .count()
            == 2
    });
}

#[test]
fn another_as_number_of_one_peer_touches_no_other_session() {
    let lab = Lab::new();
    lab.theirs
        .ip(&["addr", "add", "10.0.0.3/24", "dev", "eth0"]);
    let _bird = lab.bird_with(65002, "10.0.0.3", "strict bind on;", "");
    let _frr = lab.frr();
    let speaker = lab.speaker(&format!("{}\n- {BESIDE}", peer("")), false);
    let told = |words: &str| lab.read("log").matches(words).count();
    let (frr_up, bird_up) = ("session with 10.0.0.2 is up", "session with 10.0.0.3 is up");
    eventually("both sessions", || told(frr_up) == 1 && told(bird_up) == 1);
    let config = lab.read("speaker.yaml");
    lab.write(
        "speaker.yaml",
        &config.replace("remoteAs: 65002", "remoteAs: 65003"),
    );
    speaker.signal("HUP");
    eventually("BIRD has the wrong number", || {
        lab.status(&speaker)
            .contains("peer says AS 65002 but BGPPeer/bird expects 65003")
    });
    lab.write("speaker.yaml", &config);
    speaker.signal("HUP");
    eventually("BIRD has the right number", || told(bird_up) == 2);
    assert_eq!(told(frr_up), 1);
    assert_eq!(told("session with 10.0.0.2 is down"), 0);
    let neighbor = lab.vtysh("show bgp neighbors 10.0.0.1");
    assert!(
        neighbor.contains("Connections established 1; dropped 0"),
        "{neighbor}"
    );
}
