#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

const POD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 0, 5));
const NOW: Duration = Duration::from_secs(1000);

fn encoded(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn header(id: u16, flags: u16, answers: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in [id, flags, 1, answers, 0, 0] {
        bytes.extend(field.to_be_bytes());
    }
    bytes
}

fn query(id: u16, name: &str) -> Vec<u8> {
    let mut bytes = header(id, 0x0100, 0);
    bytes.extend(encoded(name));
    bytes.extend([0, 1, 0, 1]);
    bytes
}

fn record(name: &[u8], kind: u16, lifetime: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = name.to_vec();
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(lifetime.to_be_bytes());
    bytes.extend((data.len() as u16).to_be_bytes());
    bytes.extend(data);
    bytes
}

fn answer(id: u16, name: &str, records: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = header(id, 0x8180, records.len() as u16);
    bytes.extend(encoded(name));
    bytes.extend([0, 1, 0, 1]);
    bytes.extend(records.concat());
    bytes
}

/// The question's name, as a pointer.
const QUESTION: [u8; 2] = [0xc0, 12];

fn resolved(names: &mut Names) -> Vec<(String, Vec<String>)> {
    let changed = names.take_changed().into_iter();
    changed
        .map(|(name, all)| (name, all.iter().map(ToString::to_string).collect()))
        .collect()
}

fn asked(name: &str) -> Names {
    let mut names = Names::default();
    names.on_query(POD, 4000, &query(7, name), NOW, |name| {
        !name.starts_with("unwanted")
    });
    names
}

#[test]
fn an_answer_to_a_query_of_the_pod_gives_the_name_its_addresses() {
    let mut names = asked("API.example.com");
    let a = record(&QUESTION, 1, 60, &[192, 0, 2, 1]);
    let aaaa = record(
        &QUESTION,
        28,
        60,
        &"2001:db8::1"
            .parse::<std::net::Ipv6Addr>()
            .unwrap()
            .octets(),
    );
    names.on_answer(POD, 4000, &answer(7, "api.example.com", &[a, aaaa]), NOW);
    let expected = vec!["192.0.2.1".to_owned(), "2001:db8::1".to_owned()];
    assert_eq!(
        resolved(&mut names),
        [("api.example.com".to_owned(), expected)]
    );
    let address = "192.0.2.1".parse().unwrap();
    assert!(!names.had(address));
    names.expire(NOW + GRACE + Duration::from_secs(60), |_| true);
    assert!(names.had(address), "what was opened to it stays open");
}

#[test]
fn an_alias_is_followed_and_its_shorter_life_counts() {
    let mut names = asked("www.example.com");
    let records = [
        record(&QUESTION, 5, 1, &encoded("edge.cdn.net")),
        record(&encoded("edge.cdn.net"), 1, 600, &[192, 0, 2, 9]),
        record(&encoded("other.net"), 1, 600, &[192, 0, 2, 66]),
    ];
    names.on_answer(POD, 4000, &answer(7, "www.example.com", &records), NOW);
    assert_eq!(
        resolved(&mut names),
        [("www.example.com".to_owned(), vec!["192.0.2.9".to_owned()])]
    );
    names.expire(NOW + GRACE, |_| true);
    assert_eq!(resolved(&mut names), []);
    names.expire(NOW + GRACE + Duration::from_secs(1), |_| true);
    assert_eq!(
        resolved(&mut names),
        [("www.example.com".to_owned(), vec![])]
    );
}

#[test]
fn nothing_else_counts() {
    let good = answer(
        7,
        "a.example.com",
        &[record(&QUESTION, 1, 60, &[192, 0, 2, 1])],
    );
    let cases: [(&str, IpAddr, u16, Vec<u8>); 5] = [
        (
            "another pod",
            "10.244.0.6".parse().unwrap(),
            4000,
            good.clone(),
        ),
        ("another port", POD, 4001, good.clone()),
        ("another id", POD, 4000, answer(8, "a.example.com", &[])),
        (
            "another name",
            POD,
            4000,
            answer(
                7,
                "b.example.com",
                &[record(&QUESTION, 1, 60, &[1, 1, 1, 1])],
            ),
        ),
        ("a failure", POD, 4000, {
            let mut bytes = good.clone();
            bytes[3] |= 3;
            bytes
        }),
    ];
    for (what, pod, port, payload) in cases {
        let mut names = asked("a.example.com");
        names.on_answer(pod, port, &payload, NOW);
        assert_eq!(resolved(&mut names), [], "{what}");
    }
    let mut late = asked("a.example.com");
    late.on_answer(POD, 4000, &good, NOW + PATIENCE);
    assert_eq!(resolved(&mut late), []);
    let mut unwanted = asked("unwanted.example.com");
    let address = record(&QUESTION, 1, 60, &[192, 0, 2, 1]);
    unwanted.on_answer(
        POD,
        4000,
        &answer(7, "unwanted.example.com", &[address]),
        NOW,
    );
    assert_eq!(resolved(&mut unwanted), []);
    let mut twice = asked("a.example.com");
    twice.on_answer(POD, 4000, &good, NOW);
    twice.take_changed();
    let other = answer(
        7,
        "a.example.com",
        &[record(&QUESTION, 1, 60, &[192, 0, 2, 2])],
    );
    twice.on_answer(POD, 4000, &other, NOW);
    assert_eq!(resolved(&mut twice), [], "one answer to a query");
}

#[test]
fn what_is_known_outlives_the_process_for_the_time_that_is_left() {
    let mut names = asked("a.example.com");
    let good = answer(
        7,
        "a.example.com",
        &[record(&QUESTION, 1, 60, &[192, 0, 2, 1])],
    );
    names.on_answer(POD, 4000, &good, NOW);
    let saved = names.save(NOW);
    let mut later = Names::default();
    later.restore(saved.clone(), Duration::from_secs(10), Duration::ZERO);
    let expected = vec!["192.0.2.1".to_owned()];
    assert_eq!(
        resolved(&mut later),
        [("a.example.com".to_owned(), expected)]
    );
    later.expire(GRACE + Duration::from_secs(51), |_| true);
    assert_eq!(resolved(&mut later).len(), 1, "its time is over");
    let mut too_late = Names::default();
    too_late.restore(saved, Duration::from_secs(3600), Duration::ZERO);
    assert_eq!(resolved(&mut too_late), []);
}

#[test]
fn a_dot_inside_a_label_is_no_other_name() {
    let mut bytes = header(7, 0x0100, 0);
    bytes.push(9);
    bytes.extend(b"a.example");
    bytes.extend([3, b'c', b'o', b'm', 0, 0, 1, 0, 1]);
    assert_eq!(Message::parse(&bytes), None);
}

#[test]
fn a_pointer_that_leads_forwards_or_to_itself_ends_the_reading() {
    for target in [12_u8, 14, 40] {
        let mut bytes = header(7, 0x0100, 0);
        bytes.extend([0xc0, target, 0, 1, 0, 1]);
        assert_eq!(Message::parse(&bytes), None, "{target}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Message::parse(&bytes);
    }

    #[test]
    fn a_damaged_answer_is_read_without_a_panic(at in 0..70_usize, byte in any::<u8>()) {
        let mut bytes = answer(7, "www.example.com", &[
            record(&QUESTION, 5, 1, &encoded("edge.cdn.net")),
            record(&encoded("edge.cdn.net"), 1, 600, &[192, 0, 2, 9]),
        ]);
        let length = bytes.len();
        bytes[at % length] = byte;
        let _ = Message::parse(&bytes);
    }
}
