//! Tests of the whole layer: malformed inputs by name, round trips, mutations, another decoder.

mod differential;
mod malformed_attribute;
mod malformed_open;
mod malformed_update;
mod mutation;
mod packing;
mod round_trip;
mod samples;
mod strategies;
mod update_cases;

use super::*;

/// Octets from hexadecimal; blanks are skipped.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| u8::try_from(c.to_digit(16).expect("a hexadecimal digit")).unwrap())
        .collect();
    assert_eq!(digits.len() % 2, 0, "half an octet in {text}");
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

/// A message around a body.
fn message(kind: MessageType, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let start = writer::begin_message(&mut out, kind);
    out.extend_from_slice(body);
    writer::finish_message(&mut out, start);
    out
}

/// Decodes messages that lie back to back.
fn decode_all(bytes: &[u8], params: &SessionParams) -> Result<Vec<Message>, WireError> {
    let mut framer = Framer::new();
    framer.set_extended_message(params.extended_message);
    framer.push(bytes);
    let mut messages = Vec::new();
    while let Some(frame) = framer.next_frame()? {
        messages.push(decode(&frame, params)?);
    }
    assert_eq!(framer.buffered(), 0, "a message was left incomplete");
    Ok(messages)
}

fn decode_one(bytes: &[u8], params: &SessionParams) -> Result<Message, WireError> {
    let mut messages = decode_all(bytes, params)?;
    assert_eq!(messages.len(), 1);
    Ok(messages.remove(0))
}

/// An external session with all that is common today.
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

/// UPDATEs that lie back to back, none longer than 4096 octets.
fn updates(bytes: &[u8], params: &SessionParams) -> Vec<Update> {
    let mut framer = Framer::new();
    framer.push(bytes);
    while let Some(frame) = framer.next_frame().unwrap() {
        assert!(frame.bytes().len() <= MAX_LENGTH);
    }
    let messages = decode_all(bytes, params).unwrap().into_iter();
    let updates = messages.map(|message| match message {
        Message::Update(update) => update,
        other => panic!("not an UPDATE: {other:?}"),
    });
    updates.collect()
}
