//! Sessions with BIRD and FRR in namespaces of their own. Needs root, `bird2` and `frr`.

#![allow(clippy::unwrap_used)] // a test may panic

mod lab;

use lab::{Daemon, Lab, eventually};

const BIRD: &str = "{ name: BGPPeer/bird, address: 10.0.0.2, remoteAs: 65001, connectRetry: 1 }";
const FRR: &str = "{ name: BGPPeer/frr, address: 10.0.0.2, remoteAs: 65001, connectRetry: 1 }";

fn we_have_their_routes(lab: &Lab, speaker: &Daemon) -> bool {
    speaker.signal("USR1");
    let log = lab.read("log");
    let status = log.rsplit("status:").next().unwrap_or_default();
    // Two of ours and two of theirs.
    status.contains("state: Established") && status.contains("prefixes: 4")
}

/// Kills our speaker, checks that they go on forwarding, and starts a successor.
fn restart_without_their_noticing(lab: &Lab, speaker: Daemon, peer: &str, stop: &str) -> Daemon {
    eventually("we have converged", || {
        lab.read("log").contains("all peers have sent")
    });
    let _monitor = lab.monitor();
    // The monitor is running once it has seen a change of ours.
    eventually("the monitor runs", || {
        lab.theirs
            .ip(&["route", "replace", "10.77.0.0/24", "dev", "lo"]);
        lab.theirs.ip(&["route", "del", "10.77.0.0/24"]);
        lab.read("monitor").contains("10.77.0.0/24")
    });
    speaker.signal(stop);
    speaker.wait();
    assert!(
        lab.they_forward(),
        "routes are kept while nobody speaks for them"
    );
    let successor = lab.speaker(peer, true);
    eventually("the successor has their routes", || {
        lab.read("log").matches("is up").count() >= 2 && we_have_their_routes(lab, &successor)
    });
    eventually("the successor has converged", || {
        lab.read("log")
            .matches("all peers have sent their routes")
            .count()
            >= 2
    });
    assert!(lab.they_forward());
    assert_eq!(lab.deleted(), [""; 0]);
    successor
}

#[test]
fn bird_exchanges_both_families_with_us_on_one_session_and_survives_a_kill() {
    let lab = Lab::new();
    let _bird = lab.bird(65001, "10.0.0.2");
    let speaker = lab.speaker(BIRD, false);
    eventually("BIRD forwards to us", || lab.they_forward());
    eventually("we have BIRD's routes", || {
        we_have_their_routes(&lab, &speaker)
    });
    let route = lab.birdc("show route 10.1.0.0/26 all");
    assert!(route.contains("BGP.as_path: 4200000001"), "{route}");
    let _successor = restart_without_their_noticing(&lab, speaker, BIRD, "KILL");
    eventually("BIRD has seen End-of-RIB", || {
        let session = lab.birdc("show protocols all ours");
        session.contains("Established") && !session.contains("graceful restart active")
    });
}

#[test]
fn bird_exchanges_both_families_with_us_over_ipv6() {
    let lab = Lab::new();
    let _bird = lab.bird(65001, "fd00::2");
    let peer = BIRD.replace("10.0.0.2", "'fd00::2'");
    let speaker = lab.speaker(&peer, false);
    eventually("BIRD forwards to us", || lab.they_forward());
    eventually("we have BIRD's routes", || {
        we_have_their_routes(&lab, &speaker)
    });
}

#[test]
fn frr_exchanges_both_families_with_us_on_one_session_and_survives_a_kill() {
    let lab = Lab::new();
    let _frr = lab.frr();
    let speaker = lab.speaker(FRR, false);
    eventually("FRR forwards to us", || lab.they_forward());
    eventually("we have FRR's routes", || {
        we_have_their_routes(&lab, &speaker)
    });
    let route = lab.vtysh("show bgp ipv4 unicast 10.1.0.0/26");
    assert!(route.contains("4200000001"), "{route}");
    let _successor = restart_without_their_noticing(&lab, speaker, FRR, "KILL");
    eventually("FRR has seen End-of-RIB", || {
        let table = lab.vtysh("show bgp ipv4 unicast");
        table.contains("10.1.0.0/26") && !table.contains("S>") && !table.contains("S*")
    });
}

#[test]
fn a_planned_stop_is_not_noticed_either() {
    let lab = Lab::new();
    let _frr = lab.frr();
    let speaker = lab.speaker(FRR, false);
    eventually("FRR forwards to us", || lab.they_forward());
    let _successor = restart_without_their_noticing(&lab, speaker, FRR, "TERM");
}

#[test]
fn an_interrupt_withdraws_our_routes_at_once() {
    let lab = Lab::new();
    let _bird = lab.bird(65001, "10.0.0.2");
    let speaker = lab.speaker(BIRD, false);
    eventually("BIRD forwards to us", || lab.they_forward());
    speaker.signal("INT");
    speaker.wait();
    eventually("BIRD has dropped our routes", || {
        !lab.birdc("show route").contains("10.1.0.0/26")
    });
}

#[test]
fn a_wrong_as_number_is_named_on_our_side() {
    let lab = Lab::new();
    let _bird = lab.bird(65009, "10.0.0.2");
    let _speaker = lab.speaker(BIRD, false);
    let words = "peer says AS 65009 but BGPPeer/bird expects 65001";
    eventually("the log names both AS numbers", || {
        lab.read("log").contains(words)
    });
}
