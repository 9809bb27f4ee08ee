//! Sessions with GoBGP, OpenBGPD and ExaBGP in namespaces of their own. Needs root, `gobgpd`,
//! `openbgpd` and `exabgp`.

#![allow(clippy::unwrap_used)] // a test may panic

mod lab;

use lab::{Daemon, Lab, eventually};

fn peer(more: &str) -> String {
    format!("{{ name: BGPPeer/tor, address: 10.0.0.2, remoteAs: 65001, connectRetry: 1, {more} }}")
}

/// A peer for each IP version.
fn both(more: &str) -> String {
    let v4 = peer(more);
    let v6 = v4.replace("10.0.0.2", "'fd00::2'");
    format!("{v4}\n- {v6}")
}

fn wait_for_their_routes(lab: &Lab, speaker: &Daemon) {
    eventually("we have their routes", || lab.we_have_their_routes(speaker));
}

#[test]
fn gobgp_exchanges_both_families_with_us_whoever_connects() {
    for (ours, theirs) in [("", ""), ("passive: true", ""), ("", "passive-mode = true")] {
        let lab = Lab::new();
        let _gobgp = lab.gobgp("", theirs);
        let speaker = lab.speaker(&peer(ours), false);
        wait_for_their_routes(&lab, &speaker);
        eventually("GoBGP has our routes", || {
            lab.gobgp_command("global rib -a ipv4")
                .contains("10.1.0.0/26")
                && lab
                    .gobgp_command("global rib -a ipv6")
                    .contains("fd01::/122")
        });
        let route = lab.gobgp_command("global rib 10.1.0.0/26");
        assert!(route.contains("4200000001"), "{route}");
    }
}

#[test]
fn gobgp_keeps_our_routes_while_we_restart() {
    let lab = Lab::new();
    let _gobgp = lab.gobgp("", "");
    let speaker = lab.speaker(&peer(""), false);
    wait_for_their_routes(&lab, &speaker);
    eventually("GoBGP has our route", || {
        lab.gobgp_command("global rib -a ipv4")
            .contains("10.1.0.0/26")
    });
    speaker.signal("KILL");
    speaker.wait();
    eventually("GoBGP knows that we are gone", || {
        !lab.gobgp_command("neighbor 10.0.0.1")
            .contains("ESTABLISHED")
    });
    assert!(
        lab.gobgp_command("global rib -a ipv4")
            .contains("10.1.0.0/26")
    );
    let successor = lab.speaker(&peer(""), true);
    wait_for_their_routes(&lab, &successor);
    assert!(
        lab.gobgp_command("global rib -a ipv4")
            .contains("10.1.0.0/26")
    );
}

#[test]
fn gobgp_sessions_are_signed() {
    let lab = Lab::new();
    lab.write("password", "hunter2");
    let _gobgp = lab.gobgp("auth-password = \"hunter2\"\n", "");
    let ours = format!("passwordFile: {}", lab.path("password").display());
    let speaker = lab.speaker(&peer(&ours), false);
    wait_for_their_routes(&lab, &speaker);
}

#[test]
fn gobgp_sessions_are_guarded() {
    let lab = Lab::new();
    let _gobgp = lab.gobgp(
        "",
        "[neighbors.ttl-security.config]\nenabled = true\nttl-min = 255\n",
    );
    let speaker = lab.speaker(&peer("ttlSecurity: 1"), false);
    wait_for_their_routes(&lab, &speaker);
}

#[test]
fn gobgp_is_told_when_it_announces_too_much() {
    let lab = Lab::new();
    let _gobgp = lab.gobgp("", "");
    lab.gobgp_command("global rib add 10.4.0.0/24 nexthop 10.0.0.2 -a ipv4");
    let _speaker = lab.speaker(&peer("maxPrefixes: 1"), false);
    eventually("we say why", || {
        lab.read("log").contains("over the limit of 1")
    });
    eventually("GoBGP has dropped the session", || {
        !lab.gobgp_command("neighbor 10.0.0.1")
            .contains("ESTABLISHED")
    });
}

#[test]
fn openbgpd_exchanges_both_families_with_us_whoever_connects() {
    for (ours, theirs) in [("", ""), ("passive: true", ""), ("", "passive")] {
        let lab = Lab::new();
        // It waits for half a minute after its first attempt.
        let speaker = lab.speaker(&both(ours), false);
        let _openbgpd = lab.openbgpd(theirs);
        wait_for_their_routes(&lab, &speaker);
        eventually("OpenBGPD has our routes", || {
            let rib = lab.bgpctl("show rib");
            rib.contains("10.1.0.0/26") && rib.contains("fd01::/122")
        });
    }
}

#[test]
fn openbgpd_sessions_are_signed_and_guarded() {
    let lab = Lab::new();
    lab.write("password", "hunter2");
    let file = lab.path("password");
    let _openbgpd = lab.openbgpd("tcp md5sig password hunter2\n ttl-security yes");
    let ours = format!("passwordFile: {}, ttlSecurity: 1", file.display());
    let speaker = lab.speaker(&both(&ours), false);
    wait_for_their_routes(&lab, &speaker);
}

#[test]
fn openbgpd_is_told_that_we_leave_and_forgets_our_routes() {
    let lab = Lab::new();
    let _openbgpd = lab.openbgpd("");
    let speaker = lab.speaker(&both(""), false);
    wait_for_their_routes(&lab, &speaker);
    eventually("OpenBGPD has our route", || {
        lab.bgpctl("show rib").contains("10.1.0.0/26")
    });
    speaker.signal("INT");
    speaker.wait();
    eventually("OpenBGPD has dropped it", || {
        !lab.bgpctl("show rib").contains("10.1.0.0/26")
    });
    let neighbor = lab.bgpctl("show neighbor 10.0.0.1");
    assert!(
        neighbor.contains("Last error received: Cease, administratively down"),
        "{neighbor}"
    );
}

#[test]
fn exabgp_exchanges_both_families_with_us_whoever_connects() {
    for (ours, theirs) in [("", "passive true;"), ("passive: true", "")] {
        let lab = Lab::new();
        let _exabgp = lab.exabgp(theirs, "");
        let speaker = lab.speaker(&peer(ours), false);
        wait_for_their_routes(&lab, &speaker);
        eventually("ExaBGP has our routes", || {
            let log = lab.read("exabgp.log");
            log.contains("10.1.0.0/26") && log.contains("fd01::/122")
        });
    }
}

#[test]
fn exabgp_sessions_are_signed_and_those_that_it_opens_are_guarded() {
    // What it listens on answers with the usual TTL.
    for (ours, theirs) in [
        ("", "passive true;"),
        ("passive: true, ttlSecurity: 1,", "outgoing-ttl 255;"),
    ] {
        let lab = Lab::new();
        lab.write("password", "hunter2");
        let _exabgp = lab.exabgp(&format!("{theirs} md5-password hunter2;"), "");
        let signed = format!("{ours} passwordFile: {}", lab.path("password").display());
        let speaker = lab.speaker(&peer(&signed), false);
        wait_for_their_routes(&lab, &speaker);
    }
}

#[test]
fn all_kinds_of_communities_and_unknown_attributes_pass_through_us() {
    let lab = Lab::new();
    lab.theirs
        .ip(&["addr", "add", "10.0.0.3/24", "dev", "eth0"]);
    let routes = "route 10.3.0.0/24 next-hop 10.0.0.2 community [ 65001:1 ] \
                  large-community [ 65001:2:3 ] extended-community [ target:65001:4 ] \
                  attribute [ 0x63 0xc0 0xabcdef ];";
    let _exabgp = lab.exabgp("passive true;", routes);
    let _bird = lab.bird_with(65002, "10.0.0.3", "strict bind on;", "");
    let bird =
        "{ name: BGPPeer/bird, address: 10.0.0.3, remoteAs: 65002, connectRetry: 1, export: All }";
    let _speaker = lab.speaker(&format!("{}\n- {bird}", peer("")), false);
    let mut route = String::new();
    eventually("BIRD has the route by way of us", || {
        route = lab.birdc("show route 10.3.0.0/24 all");
        route.contains("BGP.as_path")
    });
    for attribute in [
        "BGP.as_path: 4200000001 65001",
        "BGP.community: (65001,1)",
        "BGP.large_community: (65001, 2, 3)",
        "BGP.ext_community: (rt, 65001, 4)",
        "ab cd ef",
    ] {
        assert!(route.contains(attribute), "{attribute}: {route}");
    }
}
