//! Messages that nobody would send on purpose, in numbers: they are decoded and fed to a speaker
//! with a session. Nothing panics, nothing takes memory out of proportion, nothing takes for ever.
//!
//! `BGP_HOSTILE_CASES` says how many (100,000 unless set), `BGP_HOSTILE_SEED` which. A failure
//! prints both, and the message.
#![allow(clippy::unwrap_used)] // a test may panic

use bgp_core::wire::*;
use bgp_core::{LocalRoute, PeerConfig, PeerKey, PrefixLimit, Restart, Speaker, SpeakerConfig};
use peak_alloc::PeakAlloc;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[path = "../src/wire/tests/samples.rs"]
mod samples;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Octets that decoding may take at its peak: a prefix of one octet becomes a value of 24, lists
/// grow by doubling, and treat-as-withdraw moves one list into another.
const fn memory_cap(message: usize) -> usize {
    64 * 1024 + 256 * message
}

/// Octets that a session with a limit of prefixes may come to hold.
const SPEAKER_CAP: usize = 32 * 1024 * 1024;
/// Every so many cases, the message goes to the speaker too.
const SPEAKER_EVERY: u64 = 8;
/// A single message that takes so long is taken for an endless loop.
const PATIENCE: Duration = Duration::from_secs(60);

static CASE: AtomicU64 = AtomicU64::new(0);

#[test]
fn hostile_messages_cost_what_they_weigh_and_break_nothing() {
    let number = |name, usual| -> u64 {
        let set = std::env::var(name).ok();
        set.map_or(usual, |text: String| text.parse().expect("a number"))
    };
    let cases = number("BGP_HOSTILE_CASES", 100_000);
    let seed = number("BGP_HOSTILE_SEED", 0x0b6b_1e55);
    watch(seed);
    let mut random = Random(seed | 1);
    let sessions = samples::sessions();
    let pools: Vec<_> = sessions.iter().map(samples::valid_messages).collect();
    let mut victim = Victim::new();
    let (mut accepted, mut survived) = (0, 0);
    for case in 0..cases {
        CASE.store(case, Ordering::Relaxed);
        let which = random.below(sessions.len());
        let pool = &pools[which];
        let message = mutated(&pool[random.below(pool.len())], pool, &mut random);
        let said = Said {
            seed,
            case,
            message,
        };
        accepted += u64::from(decode_within_cap(&said, &sessions[which]));
        if case % SPEAKER_EVERY == 0 {
            survived += u64::from(victim.receives(&said.message));
        }
    }
    // Were it otherwise, the mutations would test the first check only, or none.
    assert!((cases / 20..cases).contains(&accepted), "{accepted}");
    let fed = cases / SPEAKER_EVERY;
    assert!((fed / 20..fed).contains(&survived), "{survived}");
}

fn external() -> SessionParams {
    SessionParams {
        four_octet_as: true,
        families: vec![Family::IPV4, Family::IPV6],
        ..SessionParams::default()
    }
}

fn internal() -> SessionParams {
    SessionParams {
        ibgp: true,
        ..external()
    }
}

/// Says what was sent if there is a panic.
struct Said {
    seed: u64,
    case: u64,
    message: Vec<u8>,
}

impl Drop for Said {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let octets = self.message.iter().map(|octet| format!("{octet:02x}"));
            let octets: String = octets.collect();
            eprintln!("seed {} case {}: {octets}", self.seed, self.case);
        }
    }
}

/// Ends the process when one case goes on for ever: nobody else can.
fn watch(seed: u64) {
    std::thread::spawn(move || {
        let mut last = u64::MAX;
        loop {
            std::thread::park_timeout(PATIENCE);
            let case = CASE.load(Ordering::Relaxed);
            if case == last {
                eprintln!("seed {seed} case {case} does not end");
                std::process::abort();
            }
            last = case;
        }
    });
}

/// Whether the message was sound.
fn decode_within_cap(said: &Said, params: &SessionParams) -> bool {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let mut framer = Framer::new();
    framer.set_extended_message(params.extended_message);
    framer.push(&said.message);
    let mut sound = false;
    loop {
        let decoded = match framer.next_frame() {
            Ok(None) => break,
            Ok(Some(frame)) => decode(&frame, params),
            Err(error) => Err(error),
        };
        match decoded {
            Ok(_) => sound = true,
            Err(error) => {
                let known = error.notification.error_code().subcode_name();
                assert!(known.is_some(), "{error}");
                sound = false;
                break;
            }
        }
    }
    let peak = MEMORY.peak_usage().saturating_sub(before);
    let cap = memory_cap(said.message.len());
    assert!(peak <= cap, "{peak} octets for a message, over {cap}");
    sound
}

/// A speaker with one external peer, whose session is established again after each end.
struct Victim {
    speaker: Speaker,
    now: Instant,
    connection: Option<bgp_core::ConnectionId>,
}

impl Victim {
    fn new() -> Self {
        let now = Instant::now();
        let mut config = SpeakerConfig::new(64512, Ipv4Addr::new(192, 0, 2, 1));
        let peer = PeerConfig {
            passive: true,
            restart_time: 0,
            prefix_limit: Some(PrefixLimit::new(10_000)),
            export: bgp_core::Export::All,
            ..PeerConfig::new("BGPPeer/hostile", 65001)
        };
        let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
        config.peers.insert(PeerKey::new(address, 179), peer);
        let mut speaker = Speaker::new(Restart::default(), 1);
        speaker.set_config(config, now);
        let network: ipnet::IpNet = "10.1.0.0/26".parse().unwrap();
        speaker.set_local_routes([LocalRoute::from(network)].into(), now);
        Self {
            speaker,
            now,
            connection: None,
        }
    }

    /// Whether the session survived.
    fn receives(&mut self, message: &[u8]) -> bool {
        let connection = self.establish();
        self.speaker.received(connection, message, self.now);
        self.settle();
        let held = MEMORY.current_usage();
        assert!(held <= SPEAKER_CAP, "{held} octets held");
        self.connection.is_some()
    }

    fn establish(&mut self) -> bgp_core::ConnectionId {
        if let Some(connection) = self.connection {
            return connection;
        }
        loop {
            // Past whatever the last error keeps the session idle for.
            self.now += Duration::from_secs(61);
            self.speaker.tick(self.now);
            let remote = ([10, 0, 0, 2], 40000).into();
            let local = ([10, 0, 0, 1], 179).into();
            let Ok((connection, _)) = self.speaker.accept(remote, local, self.now) else {
                self.settle();
                continue;
            };
            self.connection = Some(connection);
            let open = Open {
                as_number: 65001,
                hold_time: 0,
                router_id: Ipv4Addr::new(192, 0, 2, 2),
                capabilities: vec![
                    Capability::MultiProtocol(Family::IPV4),
                    Capability::MultiProtocol(Family::IPV6),
                    Capability::FourOctetAs(65001),
                    Capability::EnhancedRouteRefresh,
                    Capability::RouteRefresh,
                ],
            };
            self.speaker
                .received(connection, &encode_open(&open), self.now);
            self.speaker
                .received(connection, &encode_keepalive(), self.now);
            self.settle();
            assert_eq!(self.connection, Some(connection), "established");
            return connection;
        }
    }

    /// Takes what the speaker says, as its owner would.
    fn settle(&mut self) {
        while let Some(output) = self.speaker.poll() {
            match output {
                bgp_core::Output::Close { connection, .. }
                    if self.connection == Some(connection) =>
                {
                    self.connection = None;
                }
                bgp_core::Output::Transmit(connection) => {
                    while !self.speaker.transmit(connection, 65536).is_empty() {}
                }
                _ => {}
            }
        }
        while self.speaker.poll_fib().is_some() {}
    }
}

/// xorshift64*, so that a run repeats.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % limit.max(1)
    }

    fn one_in(&mut self, odds: usize) -> bool {
        self.below(odds) == 0
    }

    /// Values at which something tends to change, or any.
    fn octet(&mut self) -> u8 {
        const TELLING: [u8; 14] = [0, 1, 2, 3, 4, 5, 8, 16, 32, 33, 64, 128, 254, 255];
        if self.one_in(2) {
            TELLING[self.below(TELLING.len())]
        } else {
            u8::try_from(self.next() >> 56).unwrap()
        }
    }
}

/// A message taken apart, changed and put together again.
fn mutated(message: &[u8], pool: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = match message.get(18) {
        Some(2) if !random.one_in(8) => mutated_update(message, random),
        Some(1) if !random.one_in(8) => mutated_open(message, random),
        _ => message.to_vec(),
    };
    if random.one_in(3) {
        mutate_octets(&mut bytes, pool, random);
    }
    bytes.truncate(5000);
    // Mostly with a header that lets the body be seen.
    if bytes.len() >= HEADER_LENGTH && !random.one_in(16) {
        let length = u16::try_from(bytes.len()).unwrap();
        bytes[..16].fill(0xff);
        bytes[16..18].copy_from_slice(&length.to_be_bytes());
    }
    bytes
}

struct Attribute {
    flags: u8,
    code: u8,
    value: Vec<u8>,
    /// What its length says, if not the truth.
    lie: Option<u16>,
}

fn mutated_update(message: &[u8], random: &mut Random) -> Vec<u8> {
    let body = &message[HEADER_LENGTH..];
    let (mut withdrawn, rest) = block(body);
    let (attributes, nlri) = block(rest);
    let mut nlri = nlri.to_vec();
    let mut attributes = split(&attributes);
    for _ in 0..=random.below(3) {
        match random.below(10) {
            0 if !attributes.is_empty() => {
                attributes.remove(random.below(attributes.len()));
            }
            1 if attributes.len() > 1 => {
                let (a, b) = (
                    random.below(attributes.len()),
                    random.below(attributes.len()),
                );
                attributes.swap(a, b);
            }
            2 => {
                let length = random.below(40);
                attributes.push(Attribute {
                    flags: random.octet() & 0xf0,
                    code: random.octet(),
                    value: (0..length).map(|_| random.octet()).collect(),
                    lie: None,
                });
            }
            3 => mutate_value(&mut nlri, random),
            4 => mutate_value(&mut withdrawn, random),
            _ if !attributes.is_empty() => {
                let at = random.below(attributes.len());
                mutate_attribute(&mut attributes[at], random);
            }
            _ => {}
        }
    }
    let mut joined = Vec::new();
    for attribute in &attributes {
        attribute.write(&mut joined);
    }
    let mut out = message[..HEADER_LENGTH].to_vec();
    for section in [&withdrawn, &joined] {
        let mut length = u16::try_from(section.len().min(0xffff)).unwrap();
        if random.one_in(32) {
            length = length.wrapping_add(u16::from(random.octet()));
        }
        out.extend(length.to_be_bytes());
        out.extend(section);
    }
    out.extend(nlri);
    out
}

fn mutate_attribute(attribute: &mut Attribute, random: &mut Random) {
    match random.below(6) {
        0 => attribute.flags ^= 0x10 << random.below(4),
        1 => attribute.code = random.octet(),
        2 => attribute.lie = Some(random.next() as u16),
        3 => attribute.lie = Some(u16::from(random.octet())),
        _ => mutate_value(&mut attribute.value, random),
    }
}

fn mutate_value(value: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(value.len() + 1);
    match random.below(5) {
        0 => value.truncate(at),
        1 => value.insert(at, random.octet()),
        2 => {
            let copies = 1 + random.below(64);
            *value = value.repeat(copies).into_iter().take(4000).collect();
        }
        _ => {
            if let Some(octet) = value.get_mut(at) {
                *octet = random.octet();
            }
        }
    }
}

impl Attribute {
    fn write(&self, out: &mut Vec<u8>) {
        let length = u16::try_from(self.value.len()).unwrap_or(u16::MAX);
        let length = self.lie.unwrap_or(length);
        // The extended form where it is needed, or was asked for.
        let flags = if length > 255 {
            self.flags | 0x10
        } else {
            self.flags
        };
        out.extend([flags, self.code]);
        if flags & 0x10 != 0 {
            out.extend(length.to_be_bytes());
        } else {
            out.push(length as u8);
        }
        out.extend(&self.value);
    }
}

/// A block preceded by its length, and what follows.
fn block(bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    let length = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    let (block, rest) = bytes[2..].split_at(length);
    (block.to_vec(), rest)
}

/// The attributes of a sound message.
fn split(mut bytes: &[u8]) -> Vec<Attribute> {
    let mut attributes = Vec::new();
    while let [flags, code, rest @ ..] = bytes {
        let (length, rest) = if flags & 0x10 == 0 {
            (usize::from(rest[0]), &rest[1..])
        } else {
            (
                usize::from(u16::from_be_bytes([rest[0], rest[1]])),
                &rest[2..],
            )
        };
        let (value, rest) = rest.split_at(length);
        attributes.push(Attribute {
            flags: *flags,
            code: *code,
            value: value.to_vec(),
            lie: None,
        });
        bytes = rest;
    }
    attributes
}

/// The optional parameters in either format of RFC 9072, with lengths that fit or do not.
fn mutated_open(message: &[u8], random: &mut Random) -> Vec<u8> {
    let fixed = HEADER_LENGTH + 9;
    let mut out = message[..fixed].to_vec();
    for octet in &mut out[HEADER_LENGTH..] {
        if random.one_in(24) {
            *octet = random.octet();
        }
    }
    let mut parameters = Vec::new();
    for _ in 0..random.below(12) {
        let length = random.below(20);
        let value: Vec<u8> = (0..length).map(|_| random.octet()).collect();
        let told = if random.one_in(8) {
            random.octet()
        } else {
            length as u8
        };
        let code = [1, 2, 5, 6, 9, 64, 65, 69, 70, 71, 73, random.octet()][random.below(12)];
        parameters.extend([code, told]);
        parameters.extend(value);
    }
    let kind = if random.one_in(16) { random.octet() } else { 2 };
    let length = u16::try_from(parameters.len()).unwrap();
    if random.one_in(2) && length < 250 {
        out.extend([length as u8 + 2, kind, length as u8]);
    } else {
        out.extend([255, 255]);
        out.extend((length + 3).to_be_bytes());
        out.push(kind);
        out.extend(length.to_be_bytes());
    }
    out.extend(parameters);
    if random.one_in(8) {
        let end = random.below(out.len());
        out.truncate(end.max(HEADER_LENGTH));
    }
    out
}

/// One change that knows nothing of messages.
fn mutate_octets(bytes: &mut Vec<u8>, pool: &[Vec<u8>], random: &mut Random) {
    let at = random.below(bytes.len());
    let end = (at + 1 + random.below(12)).min(bytes.len());
    match random.below(5) {
        0 => bytes[at] = random.octet(),
        1 => bytes[at] ^= 1 << random.below(8),
        2 => drop(bytes.drain(at..end)),
        3 => {
            let copy = bytes[at..end].to_vec();
            bytes.splice(at..at, copy);
        }
        _ => {
            let donor = &pool[random.below(pool.len())];
            let from = random.below(donor.len());
            let to = (from + 48).min(donor.len());
            bytes.splice(at..end, donor[from..to].iter().copied());
        }
    }
    if bytes.is_empty() {
        bytes.push(0xff);
    }
}
