//! Bytes that nobody would send on purpose: nothing panics, and what is accepted is sound.

use proptest::prelude::*;

use super::*;

/// Cases of the mutation test; the seed is fixed, so that a failure repeats.
const CASES: u32 = 200_000;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn any_stream_is_cut_into_frames_or_refused(
        stream in proptest::collection::vec(any::<u8>(), 0..200),
        params in strategies::params(),
    ) {
        inspect(&stream, &params);
        let mut marked = vec![0xff; 16];
        marked.extend(stream);
        inspect(&marked, &params);
    }

    #[test]
    fn any_body_decodes_or_is_refused(
        body in proptest::collection::vec(any::<u8>(), 0..300),
        code in 1_u8..=5,
        params in strategies::params(),
    ) {
        let kind = MessageType::from_code(code).unwrap();
        inspect(&message(kind, &body), &params);
    }

    #[test]
    fn any_attributes_decode_or_are_refused(
        attributes in proptest::collection::vec(attribute(), 0..12),
        nlri in proptest::collection::vec(any::<u8>(), 0..12),
        params in strategies::params(),
    ) {
        let attributes = attributes.concat();
        let mut body = vec![0, 0];
        body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
        body.extend(attributes);
        body.extend(nlri);
        inspect(&message(MessageType::Update, &body), &params);
    }
}

/// A well-framed attribute of any flags, type and value.
fn attribute() -> impl Strategy<Value = Vec<u8>> {
    let value = proptest::collection::vec(any::<u8>(), 0..24);
    let code = prop_oneof![4 => 1_u8..=18, 1 => any::<u8>()];
    let flags = prop_oneof![Just(0x40), Just(0x80), Just(0xc0), any::<u8>()];
    (flags, code, value).prop_map(|(flags, code, value)| {
        let length = u8::try_from(value.len()).unwrap();
        let mut bytes = vec![flags, code];
        bytes.extend((flags & attribute::EXTENDED_LENGTH != 0).then_some(0));
        bytes.push(length);
        bytes.extend(value);
        bytes
    })
}

#[test]
fn mutated_messages_decode_or_are_refused() {
    let mut random = Random(0x0b6b_1e55);
    let sessions = samples::sessions();
    let messages: Vec<_> = sessions.iter().map(samples::valid_messages).collect();
    let mut accepted = 0_u32;
    for _ in 0..CASES {
        let session = random.below(sessions.len());
        let pool = &messages[session];
        let mut bytes = pool[random.below(pool.len())].clone();
        for _ in 0..=random.below(3) {
            mutate(&mut bytes, pool, &mut random);
        }
        // Mostly with a header that lets the body be seen.
        if random.below(8) > 0 && bytes.len() >= HEADER_LENGTH {
            bytes[..16].fill(0xff);
            writer::finish_message(&mut bytes, 0);
        }
        // Mostly as it was meant to be read.
        let reader = if random.below(4) > 0 {
            session
        } else {
            random.below(sessions.len())
        };
        accepted += inspect(&bytes, &sessions[reader]);
    }
    // Were it otherwise, the mutations would test the first check only.
    assert!(
        (CASES / 10..CASES).contains(&accepted),
        "{accepted} accepted"
    );
}

/// Decodes all of it, checks what comes out, and returns how many messages were accepted.
fn inspect(stream: &[u8], params: &SessionParams) -> u32 {
    let mut framer = Framer::new();
    framer.set_extended_message(params.extended_message);
    framer.push(stream);
    let mut accepted = 0;
    loop {
        let decoded = match framer.next_frame() {
            Ok(None) => return accepted,
            Ok(Some(frame)) => decode(&frame, params),
            Err(error) => Err(error),
        };
        match decoded {
            Ok(message) => inspect_message(&message, params),
            Err(error) => {
                assert!((1..=7).contains(&error.notification.code), "{error}");
                assert!(
                    error.notification.error_code().subcode_name().is_some(),
                    "{error}"
                );
                assert!(encode_notification(&error.notification).len() <= MAX_LENGTH);
                return accepted;
            }
        }
        accepted += 1;
    }
}

fn inspect_message(message: &Message, params: &SessionParams) {
    match message {
        Message::Open(open) => {
            assert!(open.as_number != 0 && !open.router_id.is_unspecified());
            assert!(!matches!(open.hold_time, 1 | 2));
        }
        Message::Update(update) => inspect_update(update, params),
        Message::Notification(notification) => {
            let words = notification.to_string();
            assert!(!words.chars().any(char::is_control), "{words:?}");
        }
        Message::Keepalive | Message::RouteRefresh(_) => {}
    }
}

fn inspect_update(update: &Update, params: &SessionParams) {
    let announced = update
        .announced
        .iter()
        .flat_map(|announced| &announced.nlri);
    for nlri in update.withdrawn.iter().chain(announced) {
        assert_eq!(nlri.prefix, nlri.prefix.trunc());
        assert!(params.families.contains(&Family::of(&nlri.prefix)));
    }
    if !update.announced.is_empty() {
        assert!(update.attributes.as_path.length() <= MAX_AS_PATH_LENGTH);
        let sequences = update.attributes.as_path.0.iter();
        assert!(sequences.clone().count() <= 1);
        assert!(
            sequences
                .clone()
                .all(|s| matches!(s, AsSegment::Sequence(_)))
        );
    }
    for announced in &update.announced {
        let Some(first) = announced.nlri.first() else {
            panic!("an announcement of nothing: {update:?}");
        };
        passes_on(update, announced, Family::of(&first.prefix), params);
    }
}

/// What we accept can be sent on, and reads the same at the other end.
fn passes_on(update: &Update, announced: &Announced, family: Family, params: &SessionParams) {
    let mut expected = update.attributes.clone();
    if params.ibgp {
        expected.local_pref.get_or_insert(DEFAULT_LOCAL_PREF);
    }
    let mut bytes = Vec::new();
    let params = SessionParams {
        add_path_send: params.add_path_receive.clone(),
        extended_message: true,
        ..params.clone()
    };
    let encoder = UpdateEncoder::new(&params);
    let nlri = announced.nlri.iter().copied();
    encoder
        .announce(
            family,
            &update.attributes,
            announced.next_hop,
            nlri,
            &mut bytes,
        )
        .unwrap();
    let mut received = Vec::new();
    for message in decode_all(&bytes, &params).unwrap() {
        let Message::Update(mut again) = message else {
            panic!("{message:?}");
        };
        assert_eq!(again.faults, []);
        let unknown = again.attributes.unknown.iter_mut();
        for (again, first) in unknown.zip(&expected.unknown) {
            again.flags = first.flags;
        }
        assert_eq!(again.attributes, expected);
        assert_eq!(again.announced[0].next_hop, announced.next_hop);
        received.append(&mut again.announced[0].nlri);
    }
    assert_eq!(received, announced.nlri);
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

    fn octet(&mut self) -> u8 {
        const TELLING: [u8; 12] = [0, 1, 2, 3, 4, 8, 32, 33, 64, 128, 254, 255];
        match self.below(2) {
            0 => TELLING[self.below(TELLING.len())],
            _ => u8::try_from(self.next() >> 56).unwrap(),
        }
    }
}

/// One change that knows a little about messages: octets, 16-bit lengths, cuts, copies, splices.
fn mutate(bytes: &mut Vec<u8>, pool: &[Vec<u8>], random: &mut Random) {
    if bytes.is_empty() {
        return;
    }
    let at = random.below(bytes.len());
    let length = 1 + random.below(12);
    let end = (at + length).min(bytes.len());
    match random.below(8) {
        0 => bytes[at] = random.octet(),
        1 => bytes[at] ^= 1 << random.below(8),
        2 => bytes[at] = bytes[at].wrapping_add(if random.below(2) == 0 { 1 } else { 255 }),
        3 => {
            bytes.drain(at..end);
        }
        4 => {
            let inserted: Vec<_> = (0..length).map(|_| random.octet()).collect();
            bytes.splice(at..at, inserted);
        }
        5 => {
            let copy = bytes[at..end].to_vec();
            bytes.splice(at..at, copy);
        }
        6 => bytes.truncate(at),
        _ => {
            let donor = &pool[random.below(pool.len())];
            let from = random.below(donor.len());
            let to = (from + 4 * length).min(donor.len());
            bytes.splice(at..end, donor[from..to].iter().copied());
        }
    }
    bytes.truncate(5000);
}
