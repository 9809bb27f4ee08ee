//! One session against crafted packets, and two against each other over a link with delay and loss.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const MS: Duration = Duration::from_millis(1);

fn profile(min_tx: u32, min_rx: u32, multiplier: u8) -> Profile {
    Profile {
        min_tx: MS * min_tx,
        min_rx: MS * min_rx,
        multiplier: NonZeroU8::new(multiplier).unwrap(),
        passive: false,
    }
}

fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

/// Two sessions and the link between them.
struct Link {
    now: Instant,
    ends: [Session; 2],
    /// By time of arrival: for whom, what.
    in_flight: BTreeMap<(Instant, u64), (usize, Packet)>,
    sent: u64,
    delay: Duration,
    /// Permille of packets that do not arrive.
    loss: u64,
    dice: Jitter,
    transitions: [Vec<Transition>; 2],
    /// When an end sent its packets.
    times: [Vec<Instant>; 2],
}

impl Link {
    fn new(profiles: [Profile; 2], seed: u64, loss: u64) -> Self {
        let now = Instant::now();
        let [one, other] = profiles;
        Self {
            now,
            ends: [
                Session::new(one, number(1), seed, now),
                Session::new(other, number(2), !seed, now),
            ],
            in_flight: BTreeMap::new(),
            sent: 0,
            delay: MS,
            loss,
            dice: Jitter::new(seed),
            transitions: Default::default(),
            times: Default::default(),
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.next().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step();
        }
        self.now = end;
    }

    fn next(&self) -> Option<Instant> {
        let arrival = self.in_flight.keys().next().map(|(at, _)| *at);
        let ends = self.ends.iter().filter_map(Session::next_deadline);
        ends.chain(arrival).min()
    }

    fn step(&mut self) {
        while let Some(entry) = self.in_flight.first_entry()
            && entry.key().0 <= self.now
        {
            let (to, packet) = entry.remove();
            // Through the wire format, as in life.
            let packet = Packet::decode(&packet.encode()).unwrap();
            self.ends[to].receive(&packet, self.now);
        }
        for end in 0..2 {
            while let Some(packet) = self.ends[end].transmit(self.now) {
                assert!(!(packet.poll && packet.final_));
                assert!(!packet.independent && !packet.demand);
                self.times[end].push(self.now);
                self.sent += 1;
                if self.dice.next() % 1000 >= self.loss {
                    let arrival = (self.now + self.delay, self.sent);
                    self.in_flight.insert(arrival, (1 - end, packet));
                }
            }
            self.transitions[end].extend(self.ends[end].transition());
        }
    }

    fn states(&self) -> [State; 2] {
        [0, 1].map(|end| self.ends[end].report().state)
    }
}

fn profiles() -> impl Strategy<Value = Profile> {
    (10..2000_u32, 10..2000_u32, 1..6_u8)
        .prop_map(|(tx, rx, multiplier)| profile(tx, rx, multiplier))
}

proptest! {
    #[test]
    fn two_sessions_come_up_over_a_lossy_link_and_agree_on_intervals(
        one in profiles(), other in profiles(), passive in any::<bool>(), seed: u64, loss in 0..700_u64,
    ) {
        let one = Profile { passive, ..one };
        let mut link = Link::new([one, other], seed, loss);
        link.run(Duration::from_secs(20));
        link.loss = 0;
        link.run(Duration::from_secs(60));
        prop_assert_eq!(link.states(), [State::Up; 2]);
        for (end, (ours, theirs)) in [(0, (one, other)), (1, (other, one))] {
            let report = link.ends[end].report();
            prop_assert_eq!(report.remote_state, State::Up);
            prop_assert_eq!(report.transmit_interval, ours.min_tx.max(theirs.min_rx));
            let detection = ours.min_rx.max(theirs.min_tx) * u32::from(theirs.multiplier.get());
            prop_assert_eq!(report.detection_time, detection);
            prop_assert!(!link.ends[end].polling);
        }
        // Without loss nothing flaps any more.
        let before = link.transitions.clone();
        link.run(Duration::from_secs(60));
        prop_assert_eq!(&link.transitions, &before);
    }

    #[test]
    fn a_cut_link_is_noticed_within_the_detection_time(
        one in profiles(), other in profiles(), seed: u64,
    ) {
        let mut link = Link::new([one, other], seed, 0);
        link.run(Duration::from_secs(60));
        prop_assert_eq!(link.states(), [State::Up; 2]);
        let longest = link.ends.iter().map(|end| end.report().detection_time).max().unwrap();
        link.loss = 1000;
        link.run(longest + MS);
        prop_assert_eq!(link.states(), [State::Down; 2]);
        for transitions in &link.transitions {
            let last = transitions.last().unwrap();
            prop_assert_eq!(last.from, State::Up);
            prop_assert_eq!(last.report.diagnostic, Diagnostic::DETECTION_TIME_EXPIRED);
        }
    }

    #[test]
    fn intervals_change_without_a_flap(
        one in profiles(), other in profiles(), changed in profiles(), seed: u64,
    ) {
        let mut link = Link::new([one, other], seed, 0);
        link.run(Duration::from_secs(60));
        let before = link.transitions.clone();
        link.ends[0].configure(changed, link.now);
        link.run(Duration::from_secs(60));
        prop_assert_eq!(link.states(), [State::Up; 2]);
        prop_assert_eq!(&link.transitions, &before);
        let report = link.ends[0].report();
        prop_assert_eq!(report.transmit_interval, changed.min_tx.max(other.min_rx));
    }

    #[test]
    fn no_sequence_of_packets_makes_a_session_answer_without_end(
        packets in prop::collection::vec(any::<[u8; 24]>(), 0..50), seed: u64,
    ) {
        let now = Instant::now();
        let mut session = Session::new(Profile::default(), number(1), seed, now);
        for mut octets in packets {
            (octets[0], octets[3]) = (0x20 | octets[0] & 0x1f, 24);
            octets[1] &= !0x05;
            if let Ok(packet) = Packet::decode(&octets) {
                session.receive(&packet, now);
                let answers = std::iter::from_fn(|| session.transmit(now)).count();
                prop_assert!(answers <= 2, "an answer to a poll and a change of state");
            }
        }
    }
}

#[test]
fn packets_are_jittered_and_never_late() {
    for (multiplier, least, most) in [(3, 75, 100), (1, 75, 90)] {
        let mut link = Link::new([profile(100, 100, multiplier); 2], 7, 0);
        link.run(Duration::from_secs(30));
        let times = &link.times[0];
        let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let settled = &gaps[gaps.len() - 200..];
        assert!(settled.iter().all(|gap| *gap <= MS * most), "{settled:?}");
        assert!(settled.iter().all(|gap| *gap >= MS * least), "{settled:?}");
        assert!(
            settled
                .iter()
                .collect::<std::collections::BTreeSet<_>>()
                .len()
                > 100
        );
    }
}

#[test]
fn a_stop_is_heard_as_an_operators_doing_and_is_released() {
    let mut link = Link::new([profile(50, 50, 3); 2], 3, 0);
    link.run(Duration::from_secs(10));
    link.ends[0].stop(link.now);
    assert!(!link.ends[0].is_released());
    link.run(MS * 5);
    assert_eq!(link.states(), [State::AdminDown, State::Down]);
    let last = link.transitions[1].last().unwrap();
    assert_eq!(last.report.remote_state, State::AdminDown);
    assert_eq!(last.report.diagnostic, Diagnostic::NEIGHBOR_SIGNALED_DOWN);
    assert!(link.ends[0].is_released());
    // And stays so.
    link.run(Duration::from_secs(10));
    assert_eq!(link.states(), [State::AdminDown, State::Down]);
}

#[test]
fn a_passive_session_is_silent_until_it_hears_something_and_again_after_the_last_of_it() {
    let passive = Profile {
        passive: true,
        ..profile(50, 50, 3)
    };
    let mut link = Link::new([passive, passive], 3, 0);
    link.run(Duration::from_secs(10));
    assert_eq!(link.sent, 0);
    let mut link = Link::new([passive, profile(50, 50, 3)], 3, 0);
    link.run(Duration::from_secs(10));
    assert_eq!(link.states(), [State::Up; 2]);
    link.loss = 1000;
    link.run(Duration::from_secs(10));
    let sent = link.times[0].len();
    link.run(Duration::from_secs(10));
    assert_eq!(link.times[0].len(), sent);
}

#[test]
fn a_poll_is_answered_at_once_and_outside_the_schedule() {
    let mut link = Link::new([profile(1000, 1000, 3); 2], 3, 0);
    link.run(Duration::from_secs(10));
    let [one, other] = &mut link.ends;
    while other.transmit(link.now).is_some() {}
    let poll = Packet {
        poll: true,
        ..one.packet()
    };
    let due = other.transmit_at;
    other.receive(&poll, link.now);
    let answer = other.transmit(link.now).unwrap();
    assert!(answer.final_ && !answer.poll);
    assert_eq!(other.transmit(link.now), None);
    assert_eq!(other.transmit_at, due);
}

#[test]
fn who_asks_for_no_packets_gets_none() {
    let mut link = Link::new([profile(100, 100, 3); 2], 3, 0);
    link.run(Duration::from_secs(10));
    let quiet = [
        Packet {
            required_min_rx: Duration::ZERO,
            ..link.ends[0].packet()
        },
        Packet {
            demand: true,
            ..link.ends[0].packet()
        },
    ];
    for packet in quiet {
        let other = &mut link.ends[1];
        other.receive(&packet, link.now);
        for ms in 0..250 {
            assert_eq!(other.transmit(link.now + MS * ms), None);
        }
        assert_eq!(other.report().state, State::Up);
    }
}
