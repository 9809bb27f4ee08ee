//! What follows from BFD, and what those who watch are told of it.

use super::{LONG, network::prefixes, pair};
use crate::bfd::{Diagnostic, Profile, Report, State, Transition};
use crate::monitoring::{DownReason, MonitoredEvent};
use crate::speaker::tests::network::{Network, key};
use std::time::Duration;

const MOMENT: Duration = Duration::from_millis(100);

/// Two speakers that watch the path between them; the first is told that it is up.
fn watched(seed: u64) -> Network {
    let mut network = pair(seed);
    for node in 0..2 {
        network.configure(node, |config| {
            for peer in config.peers.values_mut() {
                peer.bfd = Some(Profile::default());
            }
        });
    }
    network.run(LONG);
    tell(&mut network, State::Down, State::Up, |_| {});
    network
}

/// The first speaker's BFD goes from one state to another.
fn tell(network: &mut Network, from: State, to: State, change: impl FnOnce(&mut Transition)) {
    let report = Report {
        state: to,
        remote_state: to,
        diagnostic: Diagnostic::DETECTION_TIME_EXPIRED,
        remote_diagnostic: Diagnostic::NONE,
        independent: false,
        transmit_interval: Duration::from_millis(300),
        detection_time: Duration::from_millis(900),
    };
    let mut transition = Transition {
        from,
        remote_restarted: false,
        report,
    };
    change(&mut transition);
    let now = network.now;
    let speaker = &mut network.nodes[0].speaker;
    let id = speaker.by_key[&key(1)];
    speaker.path_changed(id, &transition, now);
}

#[test]
fn a_failed_path_takes_routes_along_although_restarts_are_graceful() {
    let mut network = watched(1);
    assert_eq!(network.nodes[0].fib.len(), 2);
    tell(&mut network, State::Up, State::Down, |_| {});
    network.run(MOMENT);
    assert_eq!(network.nodes[0].fib.len(), 0);
    assert_eq!(
        network.nodes[0].broken,
        [key(1).address],
        "nobody forwards there"
    );
    assert!(network.has_said(0, "BFD: control detection time expired"));
    let status = network.nodes[0].speaker.status(network.now);
    let sent = status.peers[0].last_notification_sent.as_deref().unwrap();
    assert!(sent.contains("BFD Down"), "{sent}");
    // The other side gives up our routes as well: the path is no good in one direction.
    assert_eq!(network.nodes[1].fib.len(), 0);
    network.run(LONG);
    assert!(network.established(0, 1));
}

#[test]
fn a_peer_that_closes_or_restarts_its_bfd_says_nothing_about_the_path() {
    for change in [
        (|t| t.report.remote_state = State::AdminDown) as fn(&mut Transition),
        |t| t.remote_restarted = true,
    ] {
        let mut network = watched(2);
        tell(&mut network, State::Up, State::Down, change);
        network.run(MOMENT);
        assert!(network.established(0, 1));
        assert_eq!(network.nodes[0].fib.len(), 2);
    }
}

#[test]
fn stale_routes_go_with_a_path_whose_bfd_outlives_the_control_plane() {
    for (independent, left) in [(false, 2), (true, 0)] {
        let mut network = watched(3);
        network.kill(1);
        network.run(MOMENT);
        assert_eq!(network.nodes[0].fib.len(), 2, "kept for a graceful restart");
        tell(&mut network, State::Up, State::Down, |t| {
            t.report.independent = independent;
        });
        network.run(MOMENT);
        assert_eq!(network.nodes[0].fib.len(), left, "C bit: {independent}");
    }
}

#[test]
fn whoever_begins_to_watch_is_told_what_there_is_and_then_what_changes() {
    let mut network = pair(4);
    network.run(LONG);
    let speaker = &mut network.nodes[0].speaker;
    speaker.set_monitored(true);
    let told = speaker.monitored();
    assert!(
        matches!(&told[0].event, MonitoredEvent::Up { sent_open, received_open }
        if sent_open[18] == 1 && received_open[18] == 1 && sent_open != received_open)
    );
    let updates = |event: &MonitoredEvent| match event {
        MonitoredEvent::Updates(octets) => crate::monitoring::messages(octets).count(),
        _ => 0,
    };
    assert_eq!(
        updates(&told[1].event),
        4,
        "one of each family, and two End-of-RIB"
    );
    network.set_routes(1, &prefixes(1)[..1]);
    network.run(Duration::from_secs(1));
    let changes = std::mem::take(&mut network.nodes[0].monitored);
    assert_eq!(
        changes
            .iter()
            .map(|change| updates(&change.event))
            .sum::<usize>(),
        1
    );
    network.configure(0, |config| config.peers.clear());
    network.run(Duration::from_secs(1));
    let last = network.nodes[0].monitored.last().unwrap();
    assert_eq!(last.event, MonitoredEvent::Down(DownReason::Deconfigured));
    assert_eq!(last.peer, told[0].peer);
}
