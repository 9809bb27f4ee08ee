//! Writing path attributes.

use std::net::Ipv4Addr;

use super::as_path;
use super::attribute::{
    AGGREGATOR, AS_PATH, AS4_AGGREGATOR, AS4_PATH, ATOMIC_AGGREGATE, CLUSTER_LIST, COMMUNITIES,
    EXTENDED_COMMUNITIES, EXTENDED_LENGTH, LARGE_COMMUNITIES, LOCAL_PREF, MULTI_EXIT_DISC,
    NEXT_HOP, ONLY_TO_CUSTOMER, OPTIONAL, ORIGIN, ORIGINATOR_ID, PARTIAL, TRANSITIVE,
};
use super::update_encoder::DEFAULT_LOCAL_PREF;
use super::writer::fill_length;
use super::{Attributes, Origin, SessionParams};

/// Appends all attributes but the multiprotocol ones, in ascending order of type.
pub(crate) fn encode(
    attributes: &Attributes,
    next_hop: Option<Ipv4Addr>,
    params: &SessionParams,
    out: &mut Vec<u8>,
) {
    let four_octet = params.four_octet_as;
    let from = attributes;
    let origin = match from.origin {
        Origin::Igp => 0,
        Origin::Egp => 1,
        Origin::Incomplete => 2,
    };
    put(TRANSITIVE, ORIGIN, [[origin]], out);
    let mut value = Vec::new();
    as_path::encode(&from.as_path, four_octet, &mut value);
    put(TRANSITIVE, AS_PATH, [&value], out);
    if let Some(address) = next_hop {
        put(TRANSITIVE, NEXT_HOP, [address.octets()], out);
    }
    if let Some(med) = from.med {
        put(OPTIONAL, MULTI_EXIT_DISC, [med.to_be_bytes()], out);
    }
    if params.ibgp {
        let preference = from.local_pref.unwrap_or(DEFAULT_LOCAL_PREF);
        put(TRANSITIVE, LOCAL_PREF, [preference.to_be_bytes()], out);
    }
    if from.atomic_aggregate {
        put(TRANSITIVE, ATOMIC_AGGREGATE, [[]], out);
    }
    if let Some(aggregator) = from.aggregator {
        put(
            OPTIONAL | TRANSITIVE,
            AGGREGATOR,
            [aggregator_value(aggregator, four_octet)],
            out,
        );
    }
    put_list(
        OPTIONAL | TRANSITIVE,
        COMMUNITIES,
        from.communities.iter().map(|c| c.to_be_bytes()),
        out,
    );
    if params.ibgp {
        encode_reflection(from, out);
    }
    put_list(
        OPTIONAL | TRANSITIVE,
        EXTENDED_COMMUNITIES,
        from.extended_communities.iter().copied(),
        out,
    );
    if !four_octet {
        encode_as4(from, out);
    }
    let large = from.large_communities.iter();
    put_list(
        OPTIONAL | TRANSITIVE,
        LARGE_COMMUNITIES,
        large.map(large_octets),
        out,
    );
    if let Some(number) = from.otc {
        put(
            OPTIONAL | TRANSITIVE,
            ONLY_TO_CUSTOMER,
            [number.to_be_bytes()],
            out,
        );
    }
    for unknown in &from.unknown {
        let flags = (unknown.flags & (OPTIONAL | TRANSITIVE)) | PARTIAL;
        put(flags, unknown.code, [&unknown.value], out);
    }
}

fn encode_reflection(from: &Attributes, out: &mut Vec<u8>) {
    if let Some(id) = from.originator_id {
        put(OPTIONAL, ORIGINATOR_ID, [id.octets()], out);
    }
    put_list(
        OPTIONAL,
        CLUSTER_LIST,
        from.cluster_list.iter().map(|id| id.octets()),
        out,
    );
}

/// AS4_PATH and AS4_AGGREGATOR, where two octets lose something.
fn encode_as4(from: &Attributes, out: &mut Vec<u8>) {
    let is_long = |number: u32| number > u32::from(u16::MAX);
    if from.as_path.hops().any(is_long) {
        let mut value = Vec::new();
        as_path::encode(&from.as_path, true, &mut value);
        put(OPTIONAL | TRANSITIVE, AS4_PATH, [&value], out);
    }
    if let Some(aggregator) = from.aggregator.filter(|&(number, _)| is_long(number)) {
        put(
            OPTIONAL | TRANSITIVE,
            AS4_AGGREGATOR,
            [aggregator_value(aggregator, true)],
            out,
        );
    }
}

fn aggregator_value((number, address): (u32, Ipv4Addr), four_octet: bool) -> Vec<u8> {
    let mut value = if four_octet {
        number.to_be_bytes().to_vec()
    } else {
        as_path::two_octets(number).to_be_bytes().to_vec()
    };
    value.extend_from_slice(&address.octets());
    value
}

fn large_octets(&[a, b, c]: &[u32; 3]) -> [u8; 12] {
    let mut octets = [0; 12];
    let parts = [a, b, c].map(u32::to_be_bytes);
    octets.copy_from_slice(parts.as_flattened());
    octets
}

/// Appends an attribute unless its list is empty.
fn put_list<const N: usize>(
    flags: u8,
    code: u8,
    items: impl ExactSizeIterator<Item = [u8; N]>,
    out: &mut Vec<u8>,
) {
    if items.len() > 0 {
        put(flags, code, items, out);
    }
}

/// Appends an attribute, with a two-octet length where it needs one.
fn put(flags: u8, code: u8, parts: impl IntoIterator<Item = impl AsRef<[u8]>>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[flags, code, 0]);
    for part in parts {
        out.extend_from_slice(part.as_ref());
    }
    match u8::try_from(out.len() - start - 3) {
        Ok(length) => {
            if let Some(field) = out.get_mut(start + 2) {
                *field = length;
            }
        }
        Err(_) => {
            out.splice(start..start + 3, [flags | EXTENDED_LENGTH, code, 0, 0]);
            fill_length(out, start + 2);
        }
    }
}
