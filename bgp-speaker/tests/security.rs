//! TCP MD5, GTSM and devices, with BIRD at the other end. Needs root, `bird2` and `nftables`.

#![allow(clippy::unwrap_used)] // a test may panic

mod lab;

use lab::{Daemon, Lab, eventually};

/// A session with BIRD at `address`, with a password file.
fn signed_peer(lab: &Lab, address: &str, passive: bool) -> String {
    let file = lab.path("password");
    let file = file.to_str().unwrap();
    format!(
        "{{ name: BGPPeer/bird, address: '{address}', remoteAs: 65001, connectRetry: 1, \
         passive: {passive}, passwordFile: {file} }}"
    )
}

fn established(lab: &Lab, speaker: &Daemon) -> bool {
    lab.status(speaker).contains("state: Established")
}

#[test]
fn sessions_are_signed_whoever_connects_and_over_either_ip_version() {
    for (address, passive) in [
        ("10.0.0.2", false),
        ("10.0.0.2", true),
        ("fd00::2", false),
        ("fd00::2", true),
    ] {
        let lab = Lab::new();
        lab.write("password", "hunter2\n");
        let options = if passive {
            "password \"hunter2\";"
        } else {
            "password \"hunter2\"; passive;"
        };
        let _bird = lab.bird_with(65001, address, options, "");
        let speaker = lab.speaker(&signed_peer(&lab, address, passive), false);
        eventually("the session is up", || established(&lab, &speaker));
        assert!(!lab.read("log").contains("hunter2"));
    }
}

#[test]
fn a_password_is_replaced_at_both_ends_without_a_reset() {
    let lab = Lab::new();
    lab.write("password", "old\n");
    let ours = signed_peer(&lab, "10.0.0.2", false).replace("passive", "holdTime: 6, passive");
    let theirs = ours.replace(
        "address: '10.0.0.2', remoteAs: 65001",
        "address: '10.0.0.1', remoteAs: 4200000001",
    );
    let they = lab.their_speaker(&theirs);
    let we = lab.speaker(&ours, false);
    eventually("the session is up", || established(&lab, &we));
    lab.write("password", "new\n");
    we.signal("HUP");
    they.signal("HUP");
    // Longer than the hold time, in which nothing would arrive that is signed otherwise.
    eventually("the session is older than its hold time", || {
        let status = lab.status(&we);
        let since = status
            .lines()
            .find_map(|line| line.trim().strip_prefix("since: "));
        since.is_some_and(|since| since.parse::<u64>().unwrap() > 8)
    });
    assert!(established(&lab, &we) && lab.status(&we).contains("established_count: 1"));
    // A stranger who knows the old one is not heard: the next session is signed anew.
    drop(they);
    lab.write("password", "old\n");
    let _they = lab.their_speaker(&theirs);
    eventually("the kernel counts", || {
        lab.read("log").contains("with a wrong TCP MD5 signature")
    });
}

#[test]
fn a_wrong_password_is_named_as_a_cause() {
    let lab = Lab::new();
    lab.write("password", "ours\n");
    let _bird = lab.bird_with(65001, "10.0.0.2", "password \"theirs\";", "");
    let _speaker = lab.speaker(&signed_peer(&lab, "10.0.0.2", false), false);
    eventually("the words name signatures", || {
        let log = lab.read("log");
        log.contains("no answer; meanwhile the kernel dropped")
            && log.contains("with a wrong TCP MD5 signature")
    });
}

#[test]
fn gtsm_takes_neighbours_and_nobody_from_further_away() {
    let peer = "{ name: BGPPeer/bird, address: 10.0.0.2, remoteAs: 65001, connectRetry: 1, ttlSecurity: 1 }";
    let lab = Lab::new();
    let _bird = lab.bird_with(65001, "10.0.0.2", "ttl security on;", "");
    let speaker = lab.speaker(peer, false);
    eventually("the session is up", || established(&lab, &speaker));

    let lab = Lab::new();
    // TTL 64, as from a host that is up to 191 hops away.
    let _bird = lab.bird_with(65001, "10.0.0.2", "multihop;", "");
    let _speaker = lab.speaker(&peer.replace("ttl", "passive: true, ttl"), false);
    eventually("the words name the TTL of connections", || {
        lab.read("log")
            .contains("the peer connects with TTL 64, and ttlSecurity asks for 255")
    });
}

#[test]
fn a_session_is_bound_to_its_device() {
    let lab = Lab::new();
    let _bird = lab.bird(65001, "10.0.0.2");
    let peer = |device: &str| {
        format!(
            "{{ name: BGPPeer/bird, address: 10.0.0.2, remoteAs: 65001, connectRetry: 1, \
             bindDevice: {device} }}"
        )
    };
    let speaker = lab.speaker(&peer("nowhere"), false);
    eventually("the words name the device", || {
        lab.read("log")
            .contains("device nowhere is not on this node")
    });
    drop(speaker);
    let speaker = lab.speaker(&peer("eth0"), false);
    eventually("the session is up", || established(&lab, &speaker));
}
