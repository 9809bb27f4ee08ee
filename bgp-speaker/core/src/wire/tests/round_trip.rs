//! What is encoded decodes to the same, within the limits of the format.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn open_survives_the_wire(open in strategies::open()) {
        let bytes = encode_open(&open);
        let decoded = decode_one(&bytes, &SessionParams::default());
        prop_assert_eq!(decoded, Ok(Message::Open(open)));
    }

    #[test]
    fn notification_survives_the_wire(notification in strategies::notification()) {
        let bytes = encode_notification(&notification);
        let decoded = decode_one(&bytes, &SessionParams::default());
        prop_assert!(!notification.to_string().is_empty());
        prop_assert_eq!(decoded, Ok(Message::Notification(notification)));
    }

    #[test]
    fn shutdown_text_survives_the_wire(text in "\\PC{1,60}") {
        let notification = Notification::with_text(ErrorCode::CEASE_ADMIN_RESET, &text);
        let decoded = decode_one(&encode_notification(&notification), &SessionParams::default());
        let Ok(Message::Notification(decoded)) = decoded else {
            return Err(TestCaseError::fail("not a NOTIFICATION"));
        };
        prop_assert_eq!(decoded.text(), Some(text.as_str()));
    }

    #[test]
    fn route_refresh_survives_the_wire(refresh in strategies::route_refresh()) {
        let decoded = decode_one(&encode_route_refresh(&refresh), &SessionParams::default());
        prop_assert_eq!(decoded, Ok(Message::RouteRefresh(refresh)));
    }

    #[test]
    fn announcements_survive_the_wire(case in announcement()) {
        let Announcement { params, family, attributes, next_hop, prefixes } = case;
        let mut bytes = Vec::new();
        let count = UpdateEncoder::new(&params)
            .announce(family, &attributes, next_hop, prefixes.clone(), &mut bytes)
            .unwrap();
        let updates = updates(&bytes, &params);
        prop_assert_eq!(updates.len(), count);
        let mut received = Vec::new();
        for update in updates {
            prop_assert_eq!(&update.faults, &[]);
            prop_assert_eq!(&update.attributes, &attributes);
            prop_assert!(update.withdrawn.is_empty() && update.end_of_rib.is_none());
            let [announced] = update.announced.as_slice() else {
                return Err(TestCaseError::fail("one family is announced"));
            };
            prop_assert_eq!(announced.next_hop, next_hop);
            received.extend_from_slice(&announced.nlri);
        }
        prop_assert_eq!(received, prefixes);
    }

    #[test]
    fn withdrawals_survive_the_wire((params, family, prefixes) in withdrawal()) {
        let mut bytes = Vec::new();
        let encoder = UpdateEncoder::new(&params);
        encoder.withdraw(family, prefixes.clone(), &mut bytes).unwrap();
        let mut received = Vec::new();
        for update in updates(&bytes, &params) {
            prop_assert!(update.announced.is_empty() && update.end_of_rib.is_none());
            prop_assert_eq!(update.faults, &[]);
            received.extend(update.withdrawn);
        }
        prop_assert_eq!(received, prefixes);
    }
}

#[derive(Debug)]
struct Announcement {
    params: SessionParams,
    family: Family,
    attributes: Attributes,
    next_hop: NextHop,
    prefixes: Vec<Nlri>,
}

/// Sessions that carry both families.
fn params() -> impl Strategy<Value = SessionParams> {
    strategies::params().prop_map(|params| SessionParams {
        families: vec![Family::IPV4, Family::IPV6],
        ..params
    })
}

fn announcement() -> impl Strategy<Value = Announcement> {
    (params(), strategies::family()).prop_flat_map(|(params, family)| {
        let attributes = if params.ibgp {
            strategies::internal_attributes().boxed()
        } else {
            strategies::attributes().boxed()
        };
        let add_path = params.add_path_send.contains(&family);
        let next_hop = strategies::next_hop(family, params.extended_next_hop);
        let prefixes = vec(strategies::nlri(family, add_path), 1..400);
        (attributes, next_hop, prefixes).prop_map(move |(attributes, next_hop, prefixes)| {
            Announcement {
                params: params.clone(),
                family,
                attributes,
                next_hop,
                prefixes,
            }
        })
    })
}

fn withdrawal() -> impl Strategy<Value = (SessionParams, Family, Vec<Nlri>)> {
    (params(), strategies::family()).prop_flat_map(|(params, family)| {
        let add_path = params.add_path_send.contains(&family);
        let prefixes = vec(strategies::nlri(family, add_path), 1..1000);
        prefixes.prop_map(move |prefixes| (params.clone(), family, prefixes))
    })
}
