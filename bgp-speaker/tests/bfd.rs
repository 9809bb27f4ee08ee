//! BFD with BIRD and FRR in namespaces of their own. Needs root, `bird2`, `frr` and `nftables`.

#![allow(clippy::unwrap_used)] // a test may panic

mod lab;

use lab::{Daemon, Lab, eventually};

const BFD: &str = "bfd: { minTransmit: 100, minReceive: 100 }";
const BIRD_BFD: &str = "protocol bfd { interface \"*\" { interval 100 ms; multiplier 3; }; \
                        multihop { interval 100 ms; multiplier 3; }; }";
const FRR_BFD: &str = " neighbor 10.0.0.1 bfd 3 100 100\n \
                       neighbor 10.0.0.1 bfd check-control-plane-failure\n";
const UP: &str = "BFD session with 10.0.0.2 is up";

fn peer(more: &str) -> String {
    format!(
        "{{ name: BGPPeer/tor, address: 10.0.0.2, remoteAs: 65001, connectRetry: 1, {BFD}, {more} }}"
    )
}

fn bird_up(lab: &Lab) -> bool {
    let sessions = lab.birdc("show bfd sessions");
    sessions
        .lines()
        .any(|line| line.contains("10.0.0.1") && line.contains("Up"))
}

fn frr_up(lab: &Lab) -> bool {
    lab.vtysh("show bfd peers").contains("Status: up")
}

fn wait_until_up(lab: &Lab, theirs: impl Fn(&Lab) -> bool) {
    eventually("BFD is up on our side", || lab.read("log").contains(UP));
    eventually("BFD is up on their side", || theirs(lab));
    eventually("they forward to us", || lab.they_forward());
}

fn wait_until_up_again(lab: &Lab, speaker: &Daemon) {
    eventually("the path is back", || {
        lab.read("log").matches(UP).count() == 2
    });
    eventually("and their routes", || lab.we_have_their_routes(speaker));
}

#[test]
fn a_dead_path_to_bird_ends_the_session_long_before_the_hold_time() {
    let lab = Lab::new();
    let _bird = lab.bird_with(65001, "10.0.0.2", "bfd on;", BIRD_BFD);
    let speaker = lab.speaker(&peer(""), false);
    wait_until_up(&lab, bird_up);
    eventually("we have BIRD's routes", || {
        lab.we_have_their_routes(&speaker)
    });
    lab.ours.drop_packets("ip saddr 10.0.0.2 drop");
    eventually("we say why", || {
        lab.read("log")
            .contains("session with 10.0.0.2 is down: BFD: control detection time expired")
    });
    eventually("only our own routes are left", || {
        lab.status(&speaker).contains("prefixes: 2")
    });
    lab.ours.drop_packets("");
    wait_until_up_again(&lab, &speaker);
}

#[test]
fn a_path_that_is_dead_in_one_direction_is_told_to_frr_by_a_cease() {
    let lab = Lab::new();
    let _frr = lab.frr_with(" neighbor 10.0.0.1 bfd 3 100 100\n");
    let speaker = lab.speaker(&peer(""), false);
    wait_until_up(&lab, frr_up);
    // They go on hearing us, and hear of the end by BGP.
    lab.ours.drop_packets("udp dport 3784 drop");
    eventually("FRR has been told", || {
        let neighbor = lab.vtysh("show bgp neighbors 10.0.0.1");
        neighbor.contains("BFD Down")
            || neighbor.contains("Hard Reset")
            || neighbor.contains("Peer closed the session")
            || neighbor.contains("BFD down")
    });
    eventually("FRR's routes are gone", || {
        lab.status(&speaker).contains("prefixes: 2")
    });
    lab.ours.drop_packets("");
    wait_until_up_again(&lab, &speaker);
}

#[test]
fn bfd_runs_over_several_hops_too() {
    let lab = Lab::new();
    let _bird = lab.bird_with(65001, "10.0.0.2", "bfd on; multihop;", BIRD_BFD);
    let _speaker = lab.speaker(&peer("multihop: true"), false);
    eventually("BFD is up on our side", || lab.read("log").contains(UP));
    eventually("and on BIRD's", || bird_up(&lab));
}

#[test]
fn a_kill_is_no_failure_to_bird_with_bfd_graceful() {
    let lab = Lab::new();
    let _bird = lab.bird_with(65001, "10.0.0.2", "bfd graceful;", BIRD_BFD);
    let speaker = lab.speaker(&peer(""), false);
    wait_until_up(&lab, bird_up);
    let _successor = lab.restart_unnoticed(speaker, &peer(""), "KILL");
    eventually("BFD is up again", || bird_up(&lab));
}

#[test]
fn a_kill_is_no_failure_to_frr_that_checks_for_control_plane_failures() {
    let lab = Lab::new();
    let _frr = lab.frr_with(FRR_BFD);
    let speaker = lab.speaker(&peer(""), false);
    wait_until_up(&lab, frr_up);
    let _successor = lab.restart_unnoticed(speaker, &peer(""), "KILL");
    eventually("BFD is up again", || frr_up(&lab));
}

#[test]
fn a_planned_stop_is_announced_to_bfd_first() {
    let lab = Lab::new();
    let _frr = lab.frr_with(FRR_BFD);
    let speaker = lab.speaker(&peer(""), false);
    wait_until_up(&lab, frr_up);
    speaker.signal("TERM");
    speaker.wait();
    let sessions = lab.vtysh("show bfd peers");
    let cause = "Remote diagnostics: administratively down";
    assert!(sessions.contains(cause), "{sessions}");
    assert!(lab.they_forward());
}
