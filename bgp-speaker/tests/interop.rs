//! Sessions with BIRD and FRR in namespaces of their own. Needs root, `bird2` and `frr`.

#![allow(clippy::unwrap_used)] // a test may panic

mod lab;

use lab::{Lab, eventually};

const BIRD: &str = "{ name: BGPPeer/bird, address: 10.0.0.2, remoteAs: 65001, connectRetry: 1 }";
const FRR: &str = "{ name: BGPPeer/frr, address: 10.0.0.2, remoteAs: 65001, connectRetry: 1 }";

#[test]
fn bird_exchanges_both_families_with_us_on_one_session_and_survives_a_kill() {
    let lab = Lab::new();
    let _bird = lab.bird(65001, "10.0.0.2");
    let speaker = lab.speaker(BIRD, false);
    eventually("BIRD forwards to us", || lab.they_forward());
    eventually("we have BIRD's routes", || {
        lab.we_have_their_routes(&speaker)
    });
    let route = lab.birdc("show route 10.1.0.0/26 all");
    assert!(route.contains("BGP.as_path: 4200000001"), "{route}");
    let _successor = lab.restart_unnoticed(speaker, BIRD, "KILL");
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
        lab.we_have_their_routes(&speaker)
    });
}

#[test]
fn frr_exchanges_both_families_with_us_on_one_session_and_survives_a_kill() {
    let lab = Lab::new();
    let _frr = lab.frr();
    let speaker = lab.speaker(FRR, false);
    eventually("FRR forwards to us", || lab.they_forward());
    eventually("we have FRR's routes", || {
        lab.we_have_their_routes(&speaker)
    });
    let route = lab.vtysh("show bgp ipv4 unicast 10.1.0.0/26");
    assert!(route.contains("4200000001"), "{route}");
    let _successor = lab.restart_unnoticed(speaker, FRR, "KILL");
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
    let _successor = lab.restart_unnoticed(speaker, FRR, "TERM");
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

#[test]
fn frr_and_we_find_each_other_on_a_link_without_addresses() {
    let lab = Lab::new();
    for namespace in [&lab.ours, &lab.theirs] {
        namespace.ip(&["addr", "flush", "dev", "eth0", "scope", "global"]);
    }
    let _frr = lab.frr_unnumbered(" neighbor eth0 bfd 3 100 100\n");
    let peer = "{ name: BGPPeer/link, interface: eth0, remoteAs: external, connectRetry: 1, \
                extendedNextHop: true, import: All, export: OwnRoutes, \
                bfd: { minTransmit: 100, minReceive: 100 } }";
    let speaker = lab.speaker(peer, false);
    eventually("we have FRR's routes", || {
        lab.we_have_their_routes(&speaker)
    });
    eventually("FRR has ours", || {
        let v4 = lab.vtysh("show bgp ipv4 unicast 10.1.0.0/26");
        let v6 = lab.vtysh("show bgp ipv6 unicast fd01::/122");
        v4.contains("4200000001") && v6.contains("4200000001")
    });
    eventually("BFD watches the link", || {
        lab.read("log").contains("BFD session with fe80::")
            && lab.vtysh("show bfd peers").contains("Status: up")
    });
}

#[test]
fn we_keep_the_routes_of_a_killed_bird_until_it_is_back() {
    let lab = Lab::new();
    let bird = lab.bird(65001, "10.0.0.2");
    let speaker = lab.speaker(BIRD, false);
    eventually("we have BIRD's routes", || {
        lab.we_have_their_routes(&speaker)
    });
    bird.signal("KILL");
    bird.wait();
    eventually("they are stale", || {
        let status = lab.status(&speaker);
        status.contains("stale: 2") && status.contains("prefixes: 4")
    });
    let _bird = lab.bird(65001, "10.0.0.2");
    eventually("they are fresh again", || {
        lab.we_have_their_routes(&speaker) && lab.status(&speaker).contains("stale: 0")
    });
}

#[test]
fn texts_of_a_shutdown_are_told_both_ways() {
    let lab = Lab::new();
    let _frr = lab.frr();
    let speaker = lab.speaker(FRR, false);
    eventually("we have FRR's routes", || {
        lab.we_have_their_routes(&speaker)
    });
    lab.configure_frr("neighbor 10.0.0.1 shutdown message maintenance tonight");
    eventually("FRR's text is in our status", || {
        lab.status(&speaker).contains("maintenance tonight")
    });

    let lab = Lab::new();
    let _bird = lab.bird(65001, "10.0.0.2");
    let speaker = lab.speaker(BIRD, false);
    eventually("we have BIRD's routes", || {
        lab.we_have_their_routes(&speaker)
    });
    let config = lab.read("speaker.yaml");
    let text = "connectRetry: 1, shutdown: rack 7 moves";
    lab.write("speaker.yaml", &config.replace("connectRetry: 1", text));
    speaker.signal("HUP");
    eventually("our text is in BIRD's status", || {
        lab.birdc("show protocols all ours")
            .contains("rack 7 moves")
    });
}

#[test]
fn frr_asks_for_our_routes_again() {
    let lab = Lab::new();
    let _frr = lab.frr();
    let _speaker = lab.speaker(FRR, false);
    eventually("FRR forwards to us", || lab.they_forward());
    let received = || {
        let neighbor = lab.vtysh("show bgp neighbors 10.0.0.1");
        let updates = neighbor
            .lines()
            .find(|line| line.trim().starts_with("Updates:"));
        updates.and_then(|line| line.split_whitespace().last()?.parse::<u32>().ok())
    };
    let before = received().unwrap();
    lab.vtysh("clear bgp ipv4 unicast 10.0.0.1 soft in");
    eventually("it gets them", || received() > Some(before));
}
