//! The node's own address, where nobody has said it, or said another.

use super::{Agent, Phase};
use datastore::Condition;
use felix_core::autodetect::{Method, detect, differs};
use ipnet::IpNet;
use model::{Kind, ObjectKey};
use std::time::{Duration, Instant};

/// How often it is looked for.
const EVERY: Duration = Duration::from_secs(10);

/// What was found last.
#[derive(Debug, Default)]
pub(super) struct Detected {
    v4: Option<IpNet>,
    v6: Option<IpNet>,
    at: Option<Instant>,
    /// How that differs from what the Node object says, as told last.
    told: Vec<String>,
}

impl Agent {
    /// Looks for the addresses again, when it is time.
    pub(super) fn detect_addresses(&mut self, now: Instant) {
        let early = |at: Instant| now - at < EVERY;
        if self.calc.phase() != Phase::InSync || self.detected.at.is_some_and(early) {
            return;
        }
        let node = self.calc.objects().node(&self.options.node_name);
        let missing = node.is_none_or(|n| n.ipv4_address.is_none() && n.ipv6_address.is_none());
        let found = |method: Option<&Method>, v6| {
            method.and_then(|method| detect(method, v6, self.calc.underlay(), node))
        };
        let by_default = (missing && self.store.is_cluster()).then_some(Method::FirstFound);
        let v4 = self.options.ip_autodetection_method.as_ref();
        let detected = Detected {
            v4: found(v4.or(by_default.as_ref()), false),
            v6: found(self.options.ip6_autodetection_method.as_ref(), true),
            at: Some(now),
            told: self.detected.told.clone(),
        };
        self.detected = detected;
        self.tell_differing_addresses();
    }

    /// Annotations of the Node object that it lacks.
    pub(super) fn missing_addresses(&self) -> Vec<(String, Option<String>)> {
        let node = self.calc.objects().node(&self.options.node_name);
        let v4 = node.is_some_and(|node| node.ipv4_address.is_some());
        let v6 = node.is_some_and(|node| node.ipv6_address.is_some());
        let names = [
            ("projectcalico.org/IPv4Address", v4, self.detected.v4),
            ("projectcalico.org/IPv6Address", v6, self.detected.v6),
        ];
        let missing = names.into_iter().filter(|(_, there, _)| !there);
        missing
            .filter_map(|(name, _, found)| Some((name.to_owned(), Some(found?.to_string()))))
            .collect()
    }

    /// What was found and is not what the Node object says. Sessions, tunnels and routes of the
    /// whole cluster hang on it: only an administrator changes it.
    pub(super) fn differing_addresses(&self) -> Vec<String> {
        let Some(node) = self.calc.objects().node(&self.options.node_name) else {
            return Vec::new();
        };
        let said = [
            node.ipv4_address.map(IpNet::V4),
            node.ipv6_address.map(IpNet::V6),
        ];
        let found = [self.detected.v4, self.detected.v6];
        let differ = said.into_iter().zip(found).filter(|(said, found)| {
            said.zip(*found)
                .is_some_and(|(said, found)| differs(said, found))
        });
        let sentence = |(said, found): (Option<IpNet>, Option<IpNet>)| {
            let (said, found) = (said?, found?);
            Some(format!(
                "Node/{}: {said} is its address, and {found} is what autodetection finds; \
                 nothing is changed",
                node.name
            ))
        };
        differ.filter_map(sentence).collect()
    }

    /// Says so in an Event about the Node object, once.
    fn tell_differing_addresses(&mut self) {
        let differ = self.differing_addresses();
        if differ == self.detected.told {
            return;
        }
        let condition = |message: &String| Condition {
            type_: "AddressDetected".into(),
            status: false,
            reason: "AddressDiffers".into(),
            message: message.clone(),
        };
        let own = ObjectKey::global(Kind::Node, &self.options.node_name);
        self.write_status(&own, differ.iter().map(condition).collect());
        self.detected.told = differ;
    }
}
