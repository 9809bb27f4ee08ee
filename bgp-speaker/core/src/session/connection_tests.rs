use super::super::open::tests::{open_of, proposal};
use super::*;
use crate::wire::Family;

fn drain(connection: &mut Connection) -> Vec<Action> {
    std::iter::from_fn(|| connection.poll()).collect()
}

/// A connection brought to a phase, with nothing left to poll.
fn at(phase: Phase, now: Instant) -> Connection {
    let delay = match phase {
        Phase::Delayed => Duration::from_secs(5),
        Phase::Closed | Phase::OpenSent | Phase::OpenConfirm | Phase::Established => Duration::ZERO,
    };
    let mut connection = Connection::start(proposal(64512, 65001), delay, 1, now);
    if phase >= Phase::OpenConfirm {
        connection.handle(Event::Open(open_of(65001)), now);
    }
    if phase >= Phase::Established {
        connection.handle(Event::Keepalive, now);
    }
    if phase == Phase::Closed {
        connection.handle(Event::Lost("gone".into()), now);
    }
    drain(&mut connection);
    assert_eq!(connection.phase(), phase);
    connection
}

/// What a connection did about an event: phase, code and subcode of a NOTIFICATION sent, other actions.
fn outcome(phase: Phase, event: Event) -> (Phase, Option<(u8, u8)>, Vec<&'static str>) {
    let now = Instant::now();
    let mut connection = at(phase, now);
    connection.handle(event, now);
    let mut notification = None;
    let mut others = Vec::new();
    for action in drain(&mut connection) {
        match action {
            Action::Send(Control::Notification(sent)) => {
                notification = Some((sent.code, sent.subcode));
            }
            Action::Send(Control::Keepalive) => others.push("keepalive"),
            Action::Send(_) => others.push("other message"),
            Action::Confirming => others.push("confirming"),
            Action::Up => others.push("up"),
            Action::Update(_) => others.push("update"),
            Action::RouteRefresh(_) => others.push("refresh"),
            Action::Ended(_) => others.push("ended"),
        }
    }
    (connection.phase(), notification, others)
}

fn malformed() -> WireError {
    let notification = Notification::new(ErrorCode::MALFORMED_ATTRIBUTE_LIST);
    WireError {
        notification,
        reason: "malformed",
    }
}

fn events() -> Vec<(&'static str, Event)> {
    let cease = Notification::new(ErrorCode::CEASE_ADMIN_SHUTDOWN);
    let refresh = RouteRefresh {
        family: Family::IPV4,
        subtype: 0,
    };
    vec![
        ("open", Event::Open(open_of(65001))),
        ("bad open", Event::Open(open_of(65009))),
        ("keepalive", Event::Keepalive),
        ("update", Event::Update(Box::default())),
        ("refresh", Event::RouteRefresh(refresh)),
        ("notification", Event::Notification(cease.clone())),
        ("malformed", Event::Malformed(malformed())),
        ("lost", Event::Lost("gone".into())),
        ("stop", Event::Stop(Some(cease), "stop".into())),
        ("silent stop", Event::Stop(None, "stop".into())),
        ("send hold", Event::SendHoldExpired),
        ("tick", Event::Tick),
    ]
}

#[test]
fn every_event_in_every_state_does_what_the_rfc_says() {
    use Phase::{Closed, Delayed, Established, OpenConfirm, OpenSent};
    type Outcome = (Phase, Option<(u8, u8)>, &'static [&'static str]);
    let end: &[_] = &["ended"];
    let ended = |code, subcode| -> Outcome { (Closed, Some((code, subcode)), end) };
    let gone: Outcome = (Closed, None, end);
    let stays = |phase| -> Outcome { (phase, None, &[]) };
    let confirmed: &[_] = &["keepalive", "confirming"];
    // In `Delayed`, the other message is our OPEN.
    let table: [(&str, [Outcome; 4]); 12] = [
        (
            "open",
            [
                (
                    OpenConfirm,
                    None,
                    &["other message", "keepalive", "confirming"],
                ),
                (OpenConfirm, None, confirmed),
                ended(5, 2),
                ended(5, 3),
            ],
        ),
        (
            "bad open",
            [
                (Closed, Some((2, 2)), &["other message", "ended"]),
                ended(2, 2),
                ended(5, 2),
                ended(5, 3),
            ],
        ),
        (
            "keepalive",
            [
                ended(5, 0),
                ended(5, 1),
                (Established, None, &["up"]),
                stays(Established),
            ],
        ),
        (
            "update",
            [
                ended(5, 0),
                ended(5, 1),
                ended(5, 2),
                (Established, None, &["update"]),
            ],
        ),
        (
            "refresh",
            [
                ended(5, 0),
                ended(5, 1),
                ended(5, 2),
                (Established, None, &["refresh"]),
            ],
        ),
        ("notification", [gone; 4]),
        ("malformed", [ended(3, 1); 4]),
        ("lost", [gone; 4]),
        ("stop", [ended(6, 2); 4]),
        ("silent stop", [gone; 4]),
        ("send hold", [ended(8, 0); 4]),
        (
            "tick",
            [
                stays(Delayed),
                stays(OpenSent),
                stays(OpenConfirm),
                stays(Established),
            ],
        ),
    ];
    for ((name, event), (row, outcomes)) in events().into_iter().zip(table) {
        assert_eq!(name, row);
        let phases = [Delayed, OpenSent, OpenConfirm, Established];
        for (phase, (to, notification, actions)) in phases.into_iter().zip(outcomes) {
            let expected = (to, notification, actions.to_vec());
            assert_eq!(
                outcome(phase, event.clone()),
                expected,
                "{name} in {phase:?}"
            );
        }
        assert_eq!(
            outcome(Closed, event),
            (Closed, None, vec![]),
            "{name} in Closed"
        );
    }
}

#[test]
fn silence_ends_a_session_when_the_hold_time_is_over() {
    let now = Instant::now();
    for (phase, hold) in [
        (Phase::OpenSent, 60),
        (Phase::OpenConfirm, 90),
        (Phase::Established, 90),
    ] {
        let mut connection = at(phase, now);
        connection.handle(Event::Tick, now + Duration::from_secs(hold - 1));
        assert_eq!(connection.phase(), phase);
        connection.handle(Event::Tick, now + Duration::from_secs(hold));
        let actions = drain(&mut connection);
        let expired = Notification::new(ErrorCode::HOLD_TIMER_EXPIRED);
        assert!(
            actions.contains(&Action::Send(Control::Notification(expired))),
            "{actions:?}"
        );
    }
}

#[test]
fn our_open_waits_for_theirs_no_longer_than_it_was_told_to() {
    let now = Instant::now();
    let mut connection = at(Phase::Delayed, now);
    assert_eq!(
        connection.next_deadline(),
        Some(now + Duration::from_secs(5))
    );
    connection.handle(Event::Tick, now + Duration::from_secs(5));
    assert_eq!(connection.phase(), Phase::OpenSent);
    let sent = drain(&mut connection);
    assert!(
        matches!(sent[..], [Action::Send(Control::Open(_))]),
        "{sent:?}"
    );
}

#[test]
fn keepalives_go_out_within_a_third_of_the_hold_time() {
    let start = Instant::now();
    let mut connection = at(Phase::Established, start);
    let mut now = start;
    for _ in 0..20 {
        let next = connection.next_deadline().expect("a keepalive is due");
        assert!(next - now <= Duration::from_secs(30), "{:?}", next - now);
        now = next;
        connection.handle(Event::Tick, now);
        assert_eq!(drain(&mut connection), [Action::Send(Control::Keepalive)]);
        connection.handle(Event::Keepalive, now);
    }
    assert_eq!(connection.phase(), Phase::Established);
}

#[test]
fn a_hold_time_of_zero_means_no_timers() {
    let now = Instant::now();
    let mut connection = at(Phase::OpenSent, now);
    connection.handle(
        Event::Open(Open {
            hold_time: 0,
            ..open_of(65001)
        }),
        now,
    );
    connection.handle(Event::Keepalive, now);
    assert_eq!(
        (connection.phase(), connection.next_deadline()),
        (Phase::Established, None)
    );
}

#[test]
fn which_ends_keep_routes_follows_graceful_restart() {
    let with_n = proposal(64512, 65001)
        .accept(&open_of(65001))
        .expect("agreement");
    let mut without_n = with_n.clone();
    if let Some(restart) = &mut without_n.graceful_restart {
        restart.notification = false;
    }
    let without_gr = Agreement {
        graceful_restart: None,
        ..with_n.clone()
    };
    let cause = |code| Cause::Received(Notification::new(code));
    for (cause, n, plain) in [
        (Cause::Lost, true, true),
        (cause(ErrorCode::HOLD_TIMER_EXPIRED), true, false),
        (cause(ErrorCode::CEASE_ADMIN_SHUTDOWN), true, false),
        (cause(ErrorCode::CEASE_HARD_RESET), false, false),
        (cause(ErrorCode::CEASE_COLLISION), true, true),
    ] {
        let end = End {
            cause,
            words: String::new(),
        };
        let kept = (end.keeps_routes(&with_n), end.keeps_routes(&without_n));
        assert_eq!(kept, (n, plain), "{:?}", end.cause);
        assert!(!end.keeps_routes(&without_gr));
    }
}
