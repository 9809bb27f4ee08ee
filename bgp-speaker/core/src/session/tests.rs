//! The states in which there is no connection yet, against everything that can happen.

use super::open::tests::{open_of, proposal};
use super::*;

const RETRY: Duration = Duration::from_secs(5);

/// The states of RFC 4271 section 8.2.2 before OpenSent, told apart by what they wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Not started.
    Idle,
    /// An error has ended the last connection.
    IdleHold,
    /// TCP is connecting.
    Connect,
    /// The ConnectRetryTimer runs.
    Active,
    /// A passive session waits.
    Passive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happens {
    Start,
    Stop,
    Reset,
    TcpConnected,
    TcpFailed,
    PeerConnects,
    /// The timer that runs expires.
    Timer,
}

const ALL: [Happens; 7] = [
    Happens::Start,
    Happens::Stop,
    Happens::Reset,
    Happens::TcpConnected,
    Happens::TcpFailed,
    Happens::PeerConnects,
    Happens::Timer,
];

fn drain(session: &mut Session) -> Vec<&'static str> {
    let outputs = std::iter::from_fn(|| session.poll());
    outputs
        .map(|output| match output {
            Output::Connect(_) => "connect",
            Output::Send(_, Control::Open(_)) => "open",
            Output::Send(_, Control::Notification(_)) => "notification",
            Output::Send(_, Control::Keepalive) => "keepalive",
            Output::Close(_) => "close",
            Output::Failed(_) => "failed",
            Output::Up(..) => "up",
            Output::Down(..) => "down",
            Output::Update(_) | Output::RouteRefresh(_) => "message",
        })
        .collect()
}

/// A session in a state, and the connection that was asked for last.
fn at(state: At, now: Instant) -> (Session, ConnectionId) {
    let policy = DialPolicy {
        passive: state == At::Passive,
        retry: RETRY,
        delay_open: Duration::ZERO,
    };
    let mut session = Session::new(PeerId(1), proposal(64512, 65001), policy, 1);
    if state != At::Idle {
        session.start(now);
        session.tick(now);
    }
    let asked = session.connecting.unwrap_or(ConnectionId {
        peer: PeerId(1),
        serial: 99,
    });
    match state {
        At::Idle | At::Connect | At::Passive => {}
        At::Active => session.connect_failed(asked, "refused".into(), now),
        At::IdleHold => {
            session.connected(asked, now);
            session.handle(asked, Event::Open(open_of(65009)), now);
        }
    }
    drain(&mut session);
    (session, asked)
}

fn outcome(state: At, happens: Happens) -> (&'static str, Vec<&'static str>) {
    let now = Instant::now();
    let (mut session, asked) = at(state, now);
    let cease = Notification::new(crate::wire::ErrorCode::CEASE_ADMIN_SHUTDOWN);
    match happens {
        Happens::Start => session.start(now),
        Happens::Stop => session.stop(Some(&cease), "stop", now),
        Happens::Reset => session.reset(&cease, "reset", now),
        Happens::TcpConnected => session.connected(asked, now),
        Happens::TcpFailed => session.connect_failed(asked, "refused".into(), now),
        Happens::PeerConnects => drop(session.accept(now)),
        Happens::Timer => session.tick(session.next_deadline().unwrap_or(now)),
    }
    (session.state(), drain(&mut session))
}

#[test]
fn every_event_without_a_connection_does_what_the_rfc_says() {
    type Row = (At, [(&'static str, &'static [&'static str]); 7]);
    let table: [Row; 5] = [
        (
            At::Idle,
            [
                ("Active", &[]),
                ("Idle", &[]),
                ("Active", &[]),
                ("Idle", &["close"]),
                ("Idle", &[]),
                ("Idle", &[]),
                ("Idle", &[]),
            ],
        ),
        (
            At::IdleHold,
            [
                ("Active", &[]),
                ("Idle", &[]),
                ("Active", &[]),
                ("Idle", &["close"]),
                ("Idle", &[]),
                ("Idle", &[]),
                ("Connect", &["connect"]),
            ],
        ),
        (
            At::Connect,
            [
                ("Active", &[]),
                ("Idle", &["close"]),
                ("Active", &["close"]),
                ("OpenSent", &["open"]),
                ("Active", &["failed"]),
                ("OpenSent", &["open"]),
                ("Active", &["close", "failed"]),
            ],
        ),
        (
            At::Active,
            [
                ("Active", &[]),
                ("Idle", &[]),
                ("Active", &[]),
                ("Active", &["close"]),
                ("Active", &[]),
                ("OpenSent", &["open"]),
                ("Connect", &["connect"]),
            ],
        ),
        (
            At::Passive,
            [
                ("Active", &[]),
                ("Idle", &[]),
                ("Active", &[]),
                ("Active", &["close"]),
                ("Active", &[]),
                ("OpenSent", &["open"]),
                ("Active", &[]),
            ],
        ),
    ];
    for (state, row) in table {
        for (happens, (to, outputs)) in ALL.into_iter().zip(row) {
            let expected = (to, outputs.to_vec());
            assert_eq!(
                outcome(state, happens),
                expected,
                "{happens:?} in {state:?}"
            );
        }
    }
}

#[test]
fn after_a_session_that_was_reset_the_peer_has_time_to_read_why() {
    let now = Instant::now();
    let cease = Notification::new(crate::wire::ErrorCode::CEASE_ADMIN_RESET);
    for hard in [true, false] {
        let (mut session, id) = at(At::Connect, now);
        session.connected(id, now);
        session.handle(id, Event::Open(open_of(65001)), now);
        session.handle(id, Event::Keepalive, now);
        assert_eq!(session.established(), Some(id));
        match hard {
            true => session.reset_hard(&cease, "reset", now),
            false => session.reset(&cease, "reset", now),
        }
        session.tick(now + Duration::from_millis(500));
        assert_eq!(session.state(), "Active");
        session.tick(now + Duration::from_secs(2));
        assert_eq!(session.state(), "Connect");
    }
    // Where there was none, nobody has to wait.
    let (mut session, _) = at(At::Active, now);
    session.reset(&cease, "reset", now);
    session.tick(now);
    assert_eq!(session.state(), "Connect");
}

#[test]
fn two_connections_at_once_end_as_one_whichever_comes_first() {
    // The identifier of the peer, 192.0.2.2, is the higher one: its connection is kept.
    for first_incoming in [true, false] {
        let now = Instant::now();
        let (mut session, outgoing) = at(At::Connect, now);
        session.connected(outgoing, now);
        let incoming = session.accept(now).expect("accepted");
        let order = if first_incoming {
            [incoming, outgoing]
        } else {
            [outgoing, incoming]
        };
        for id in order {
            session.handle(id, Event::Open(open_of(65001)), now);
        }
        session.handle(incoming, Event::Keepalive, now);
        assert_eq!(session.established(), Some(incoming));
        assert_eq!(session.slots.len(), 1);
    }
}

#[test]
fn a_peer_that_never_answers_our_connection_is_heard_on_its_own() {
    // The identifier of the peer is the lower one: our connection would be kept.
    let open = crate::wire::Open {
        router_id: std::net::Ipv4Addr::new(192, 0, 2, 0),
        ..open_of(65001)
    };
    let now = Instant::now();
    for (waited, kept) in [(1, false), (3, true)] {
        let (mut session, outgoing) = at(At::Connect, now);
        session.connected(outgoing, now);
        let later = now + Duration::from_secs(waited);
        let incoming = session.accept(later).expect("accepted");
        session.handle(incoming, Event::Open(open.clone()), later);
        session.handle(incoming, Event::Keepalive, later);
        let expected = kept.then_some(incoming);
        assert_eq!(session.established(), expected, "after {waited} s");
        // The other one goes without harm.
        session.tick(now + Duration::from_secs(60));
        assert_eq!(session.established(), expected);
        assert!(session.slots.iter().all(|slot| slot.id == incoming));
    }
}
