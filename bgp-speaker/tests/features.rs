//! What BIRD and FRR make of the capabilities beyond routes. Needs root, `bird2` and `frr`.

#![allow(clippy::unwrap_used)] // a test may panic

mod lab;

use lab::{Lab, eventually};

fn peer(more: &str) -> String {
    format!("{{ name: BGPPeer/tor, address: 10.0.0.2, remoteAs: 65001, connectRetry: 1, {more} }}")
}

#[test]
fn bird_agrees_on_roles_long_messages_and_long_lived_routes() {
    let lab = Lab::new();
    let options = "local role customer; require roles on; enable extended messages on; \
                   long lived graceful restart on; long lived stale time 600; \
                   graceful restart time 1;";
    let bird = lab.bird_with(65001, "10.0.0.2", options, "");
    let ours = peer("role: provider, strictRole: true, longLivedStaleTime: 600");
    let speaker = lab.speaker(&ours, false);
    eventually("BIRD forwards to us", || lab.they_forward());
    eventually("we have BIRD's routes", || {
        lab.we_have_their_routes(&speaker)
    });
    let session = lab.birdc("show protocols all ours");
    let (_, theirs) = session.split_once("Neighbor capabilities").unwrap();
    for capability in [
        "Route refresh",
        "Extended message",
        "Long-lived graceful restart",
        "Enhanced refresh",
        "Role: provider",
    ] {
        assert!(theirs.contains(capability), "{capability}: {session}");
    }
    drop(bird);
    eventually("BIRD's routes are a last resort", || {
        lab.read("log").contains("routes are kept as a last resort")
    });
    let status = lab.status(&speaker);
    assert!(status.contains("prefixes: 4"), "{status}");
}

#[test]
fn bird_with_the_wrong_role_is_refused_by_name() {
    let lab = Lab::new();
    let _bird = lab.bird_with(65001, "10.0.0.2", "local role provider;", "");
    let _speaker = lab.speaker(&peer("role: provider"), false);
    eventually("the words name the roles", || {
        let log = lab.read("log");
        log.contains("peer says role 0, which does not fit ours") || log.contains("Role Mismatch")
    });
}

#[test]
fn frr_and_we_tell_each_other_several_paths() {
    let lab = Lab::new();
    let _frr = lab.frr_with(
        " address-family ipv4 unicast\n  neighbor 10.0.0.1 addpath-tx-all-paths\n \
         exit-address-family\n",
    );
    let speaker = lab.speaker(&peer("addPath: { receive: true, send: 4 }"), false);
    eventually("FRR forwards to us", || lab.they_forward());
    eventually("we have FRR's routes", || {
        lab.we_have_their_routes(&speaker)
    });
    let neighbor = lab.vtysh("show bgp neighbors 10.0.0.1");
    assert!(neighbor.contains("AddPath"), "{neighbor}");
    let route = lab.vtysh("show bgp ipv4 unicast 10.1.0.0/26");
    assert!(route.contains("AddPath ID: RX"), "{route}");
}

#[test]
fn bird_may_connect_from_a_range() {
    let lab = Lab::new();
    let _bird = lab.bird(65001, "10.0.0.2");
    let ours = "{ name: BGPPeer/rack, range: 10.0.0.0/24, limit: 1, remoteAs: external }";
    let speaker = lab.speaker(ours, false);
    eventually("BIRD forwards to us", || lab.they_forward());
    eventually("we have BIRD's routes", || {
        lab.we_have_their_routes(&speaker)
    });
}
