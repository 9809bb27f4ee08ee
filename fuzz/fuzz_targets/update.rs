//! The body of an UPDATE on a session that the first octet chooses. What is accepted can be sent
//! on, and is accepted there without complaint.
#![no_main]

use bgp_core::wire::{Family, Framer, Message, SessionParams, Update, UpdateEncoder, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, body)) = data.split_first() else {
        return;
    };
    let params = params(choice);
    let length = u16::try_from(19 + body.len()).unwrap_or(u16::MAX);
    let header = [&[0xff; 16][..], &length.to_be_bytes(), &[2]].concat();
    for update in read(&[&header, body].concat(), &params) {
        for announced in &update.announced {
            let family = announced.nlri.first().map(|nlri| Family::of(&nlri.prefix));
            let family = family.expect("an announcement of something");
            let mut bytes = Vec::new();
            let nlri = announced.nlri.iter().copied();
            UpdateEncoder::new(&params)
                .announce(
                    family,
                    &update.attributes,
                    announced.next_hop,
                    nlri,
                    &mut bytes,
                )
                .expect("what was received fits");
            let again = read(&bytes, &params);
            let received: Vec<_> = again.iter().flat_map(|update| &update.announced).collect();
            assert!(
                received
                    .iter()
                    .all(|again| again.next_hop == announced.next_hop)
            );
            let received = received.iter().flat_map(|again| &again.nlri);
            assert!(received.eq(&announced.nlri));
            assert!(again.iter().all(|update| update.faults.is_empty()));
        }
    }
});

fn params(choice: u8) -> SessionParams {
    let bit = |n: u8| choice >> n & 1 == 1;
    let families = vec![Family::IPV4, Family::IPV6];
    let add_path = if bit(0) { families.clone() } else { Vec::new() };
    SessionParams {
        four_octet_as: bit(1),
        ibgp: bit(2),
        families,
        add_path_receive: add_path.clone(),
        add_path_send: add_path,
        extended_next_hop: bit(3),
        extended_message: true,
    }
}

fn read(stream: &[u8], params: &SessionParams) -> Vec<Update> {
    let mut framer = Framer::new();
    framer.set_extended_message(params.extended_message);
    framer.push(stream);
    let mut updates = Vec::new();
    while let Ok(Some(frame)) = framer.next_frame() {
        match decode(&frame, params) {
            Ok(Message::Update(update)) => updates.push(update),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    updates
}
