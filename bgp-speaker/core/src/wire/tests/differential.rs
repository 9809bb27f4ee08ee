//! What independent decoders read in what we encode.
//!
//! bgpkit-parser is asked about both families, with and without path identifiers, but not about
//! default routes: of several prefixes it takes a first octet of 0 for what is no NLRI.
//! zettabgp is asked only about what it reads soundly: 4-octet AS numbers, IPv4 transport, IPv4
//! prefixes without path identifiers, no AGGREGATOR. It keeps communities as sorted sets.

use std::collections::BTreeSet;

use bgpkit_parser::Elementor;
use bgpkit_parser::models::{AsnLength, ElemType};
use bgpkit_parser::parser::bgp::parse_bgp_message;
use proptest::collection::vec;
use proptest::prelude::*;
use zettabgp::prelude::*;

use super::*;

proptest! {
    #[test]
    fn zettabgp_reads_what_we_write(
        attributes in strategies::internal_attributes(),
        next_hop in strategies::next_hop(Family::IPV4, false),
        prefixes in vec(strategies::nlri(Family::IPV4, false), 1..50),
    ) {
        let attributes = Attributes { aggregator: None, unknown: Vec::new(), ..attributes };
        let params = SessionParams { extended_message: true, ..internal() };
        let mut bytes = Vec::new();
        let announced = prefixes.clone();
        UpdateEncoder::new(&params)
            .announce(Family::IPV4, &attributes, next_hop, announced, &mut bytes)
            .unwrap();
        let mut framer = Framer::new();
        framer.push(&bytes);
        let frame = framer.next_frame().unwrap().expect("a whole message");
        let mut update = BgpUpdateMessage::new();
        update.decode_from(&session(), frame.body()).unwrap();

        let Some(Message::Update(ours)) = decode(&frame, &params).ok() else {
            return Err(TestCaseError::fail("we can't read it ourselves"));
        };
        prop_assert_eq!(their_prefixes(&update.updates), our_prefixes(&ours.announced[0].nlri));
        let theirs = their_attributes(&update);
        let wanted = our_attributes(&ours.attributes, next_hop);
        prop_assert_eq!(theirs, wanted);
    }

    #[test]
    fn zettabgp_reads_what_we_withdraw(
        prefixes in vec(strategies::nlri(Family::IPV4, false), 1..50),
    ) {
        let params = internal();
        let mut bytes = Vec::new();
        let encoder = UpdateEncoder::new(&params);
        encoder.withdraw(Family::IPV4, prefixes.clone(), &mut bytes).unwrap();
        let mut update = BgpUpdateMessage::new();
        update.decode_from(&session(), &bytes[HEADER_LENGTH..]).unwrap();
        prop_assert_eq!(their_prefixes(&update.withdraws), our_prefixes(&prefixes));
    }

    #[test]
    fn bgpkit_reads_what_we_write(
        attributes in strategies::internal_attributes(),
        (family, add_path, next_hop, prefixes) in announcement(),
    ) {
        let attributes = Attributes { unknown: Vec::new(), ..attributes };
        let add_path_send = if add_path { vec![family] } else { Vec::new() };
        let families = vec![Family::IPV4, Family::IPV6];
        let params = SessionParams { extended_message: true, add_path_send, families, ..internal() };
        let mut bytes = Vec::new();
        let encoder = UpdateEncoder::new(&params);
        let announced = prefixes.clone();
        encoder.announce(family, &attributes, next_hop, announced, &mut bytes).unwrap();
        let message = parse_bgp_message(&mut bytes.into(), add_path, &AsnLength::Bits32).unwrap();
        let peer = std::net::IpAddr::from([192, 0, 2, 1]);
        let all = Elementor::bgp_to_elems(message, 0.0, &peer, &65001.into());
        let mut theirs: Vec<_> = all
            .iter()
            .map(|one| (one.prefix.prefix.to_string(), one.prefix.path_id.unwrap_or(0)))
            .collect();
        let mut ours: Vec<_> = prefixes
            .iter()
            .map(|nlri| (nlri.prefix.to_string(), nlri.path_id))
            .collect();
        theirs.sort();
        ours.sort();
        prop_assert_eq!(theirs, ours);
        for one in &all {
            prop_assert_eq!(one.elem_type, ElemType::ANNOUNCE);
            prop_assert_eq!(one.next_hop, Some(next_hop.address));
            // It takes a missing MULTI_EXIT_DISC for 0, as the decision does.
            prop_assert_eq!(one.med, Some(attributes.med.unwrap_or(0)));
            prop_assert_eq!(one.local_pref, attributes.local_pref);
            let path = one.as_path.as_ref().and_then(|path| path.to_u32_vec_opt(false));
            let hops: Vec<u32> = attributes.as_path.hops().collect();
            prop_assert_eq!(path.unwrap_or_default(), hops);
        }
    }
}

/// A family, whether prefixes have path identifiers, and some prefixes with their next hop.
fn announcement() -> impl Strategy<Value = (Family, bool, NextHop, Vec<Nlri>)> {
    (strategies::family(), any::<bool>()).prop_flat_map(|(family, add_path)| {
        let next_hop = strategies::next_hop(family, false);
        let prefix = strategies::nlri(family, add_path)
            .prop_filter("a default route", |nlri| nlri.prefix.prefix_len() > 0);
        let prefixes = vec(prefix, 1..50);
        (Just(family), Just(add_path), next_hop, prefixes)
    })
}

fn session() -> BgpSessionParams {
    let router_id = [192, 0, 2, 1].into();
    let mode = BgpTransportMode::IPv4;
    let mut params = BgpSessionParams::new(65001, 90, mode, router_id, Vec::new());
    params.fuzzy_pathid = false;
    params
}

fn their_prefixes(addresses: &BgpAddrs) -> Vec<String> {
    match addresses {
        BgpAddrs::IPV4U(list) => list
            .iter()
            .map(|item| format!("{}/{}", item.addr, item.prefixlen))
            .collect(),
        other => panic!("not IPv4 unicast: {other:?}"),
    }
}

fn our_prefixes(nlri: &[Nlri]) -> Vec<String> {
    nlri.iter().map(|nlri| nlri.prefix.to_string()).collect()
}

/// Attributes as lines, sorted.
fn their_attributes(update: &BgpUpdateMessage) -> BTreeSet<String> {
    let lines = update.attrs.iter().map(|attribute| match attribute {
        BgpAttrItem::Origin(origin) => format!("origin {:?}", origin.value),
        BgpAttrItem::ASPath(path) => {
            let numbers: Vec<u32> = path
                .value
                .iter()
                .flat_map(|item| match item {
                    BgpASitem::Seq(sequence) => sequence.value.iter().map(|number| number.value),
                    BgpASitem::Set(set) => panic!("we never send sets: {set:?}"),
                })
                .collect();
            format!("path {numbers:?}")
        }
        BgpAttrItem::NextHop(next_hop) => format!("next hop {}", next_hop.value),
        BgpAttrItem::MED(med) => format!("med {}", med.value),
        BgpAttrItem::LocalPref(preference) => format!("preference {}", preference.value),
        BgpAttrItem::AtomicAggregate(_) => "atomic".to_owned(),
        BgpAttrItem::CommunityList(list) => {
            let list: BTreeSet<_> = list.value.iter().map(|community| community.value).collect();
            format!("communities {list:?}")
        }
        BgpAttrItem::OriginatorID(id) => format!("originator {}", id.value),
        BgpAttrItem::ClusterList(list) => format!("clusters {:?}", list.value),
        BgpAttrItem::ExtCommunityList(list) => format!("extended {}", list.value.len()),
        BgpAttrItem::LargeCommunityList(list) => {
            let list: BTreeSet<_> = list.value.iter().map(|c| [c.ga, c.ldp1, c.ldp2]).collect();
            format!("large {list:?}")
        }
        BgpAttrItem::OTC(number) => format!("otc {}", number.value),
        other => panic!("we have not sent {other:?}"),
    });
    lines.collect()
}

fn our_attributes(attributes: &Attributes, next_hop: NextHop) -> BTreeSet<String> {
    let mut lines = BTreeSet::from([
        format!("origin {:?}", attributes.origin),
        format!("path {:?}", attributes.as_path.hops().collect::<Vec<_>>()),
        format!("next hop {}", next_hop.address),
    ]);
    lines.extend(attributes.med.map(|med| format!("med {med}")));
    lines.extend(
        attributes
            .local_pref
            .map(|value| format!("preference {value}")),
    );
    lines.extend(attributes.atomic_aggregate.then(|| "atomic".to_owned()));
    lines.extend(
        attributes
            .originator_id
            .map(|id| format!("originator {id}")),
    );
    lines.extend(attributes.otc.map(|number| format!("otc {number}")));
    let mut list = |empty: bool, line: String| lines.extend((!empty).then_some(line));
    let communities: BTreeSet<_> = attributes.communities.iter().collect();
    list(
        communities.is_empty(),
        format!("communities {communities:?}"),
    );
    let large: BTreeSet<_> = attributes.large_communities.iter().collect();
    list(large.is_empty(), format!("large {large:?}"));
    let extended: BTreeSet<_> = attributes.extended_communities.iter().collect();
    list(extended.is_empty(), format!("extended {}", extended.len()));
    let clusters = &attributes.cluster_list;
    list(clusters.is_empty(), format!("clusters {clusters:?}"));
    lines
}
