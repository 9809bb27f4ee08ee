//! What a pod asks for: the pod's annotations win over its namespace's, those over the CNI
//! configuration, and that over the pools' selectors (as in Calico).
//!
//! | annotation | on | value |
//! |---|---|---|
//! | `ipAddrs` | pod | JSON list of exact addresses, at most one of each family |
//! | `ipv4pools`, `ipv6pools` | pod, namespace | JSON list of pools by name or CIDR, tried in order |
//! | `ipFamilies` | pod, namespace | JSON list of `IPv4`, `IPv6` |
//! | `hwAddr` | pod | MAC address |

use crate::{Family, Pools};
use model::Annotations;
use model::names::ANNOTATION_PREFIX;
use std::fmt;
use std::net::IpAddr;

/// What a pod asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Exactly these addresses; pools and families are then not looked at.
    pub ips: Vec<IpAddr>,
    /// Pools to use.
    pub pools: Pools,
    /// Families to assign; none where all that have a pool are meant.
    pub families: Option<Vec<Family>>,
    /// MAC of the pod's interface.
    pub mac: Option<[u8; 6]>,
}

/// Where an annotation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Source {
    Pod,
    Namespace,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pod => "pod",
            Self::Namespace => "namespace",
        })
    }
}

/// An annotation that can't be honoured; it is never left out in silence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{source_object} annotation {ANNOTATION_PREFIX}{key}: {reason}")]
pub struct AnnotationError {
    /// Whose annotation it is.
    pub source_object: Source,
    /// Its key without the prefix.
    pub key: &'static str,
    /// What is wrong, in words that include the offending value.
    pub reason: String,
}

/// Features that change what addresses mean, and that this agent does not have.
const UNSUPPORTED: [&str; 2] = ["ipAddrsNoIpam", "floatingIPs"];

/// What is wanted in the end: `configured` is what the CNI configuration and the runtime ask for.
pub fn wanted(
    configured: Wanted,
    namespace: &Annotations,
    pod: &Annotations,
) -> Result<Wanted, AnnotationError> {
    let (pod, namespace) = (
        Reader(Source::Pod, pod),
        Reader(Source::Namespace, namespace),
    );
    if let Some(key) = UNSUPPORTED.into_iter().find(|key| pod.text(key).is_some()) {
        return Err(pod.error(key, "not supported".to_owned()));
    }
    let either = |key| -> Result<Option<Vec<String>>, AnnotationError> {
        match pod.list(key)? {
            Some(list) => Ok(Some(list)),
            None => namespace.list(key),
        }
    };
    let mut wanted = configured;
    if let Some(pools) = either("ipv4pools")? {
        wanted.pools.v4 = pools;
    }
    if let Some(pools) = either("ipv6pools")? {
        wanted.pools.v6 = pools;
    }
    if let Some(families) = pod
        .families()?
        .map_or_else(|| namespace.families(), |f| Ok(Some(f)))?
    {
        wanted.families = Some(families);
    }
    if let Some(ips) = pod.addresses()? {
        wanted.ips = ips;
    }
    if let Some(mac) = pod.mac()? {
        wanted.mac = Some(mac);
    }
    Ok(wanted)
}

struct Reader<'a>(Source, &'a Annotations);

impl Reader<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        let Self(_, annotations) = self;
        let text = annotations.get(&format!("{ANNOTATION_PREFIX}{key}"))?;
        Some(text.trim()).filter(|text| !text.is_empty())
    }

    fn error(&self, key: &'static str, reason: String) -> AnnotationError {
        AnnotationError {
            source_object: self.0,
            key,
            reason,
        }
    }

    /// A JSON list of strings; an empty one says nothing.
    fn list(&self, key: &'static str) -> Result<Option<Vec<String>>, AnnotationError> {
        let Some(text) = self.text(key) else {
            return Ok(None);
        };
        let list: Vec<String> = serde_json::from_str(text).map_err(|error| {
            self.error(
                key,
                format!("{text:?} is not a JSON list of strings: {error}"),
            )
        })?;
        Ok(Some(list).filter(|list| !list.is_empty()))
    }

    fn addresses(&self) -> Result<Option<Vec<IpAddr>>, AnnotationError> {
        const KEY: &str = "ipAddrs";
        let Some(list) = self.list(KEY)? else {
            return Ok(None);
        };
        let parse = |text: &String| {
            let bad = |_| self.error(KEY, format!("{text:?} is not an IP address"));
            text.parse::<IpAddr>().map_err(bad)
        };
        let ips = list.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        for family in [Family::V4, Family::V6] {
            let count = ips.iter().filter(|ip| Family::of(**ip) == family).count();
            if count > 1 {
                let reason = format!("{count} {family} addresses; a pod has one of each family");
                return Err(self.error(KEY, reason));
            }
        }
        Ok(Some(ips))
    }

    fn families(&self) -> Result<Option<Vec<Family>>, AnnotationError> {
        const KEY: &str = "ipFamilies";
        let Some(list) = self.list(KEY)? else {
            return Ok(None);
        };
        let parse = |text: &String| match text.to_ascii_lowercase().as_str() {
            "ipv4" => Ok(Family::V4),
            "ipv6" => Ok(Family::V6),
            _ => Err(self.error(KEY, format!("{text:?} is neither IPv4 nor IPv6"))),
        };
        list.iter().map(parse).collect::<Result<_, _>>().map(Some)
    }

    fn mac(&self) -> Result<Option<[u8; 6]>, AnnotationError> {
        const KEY: &str = "hwAddr";
        let Some(text) = self.text(KEY) else {
            return Ok(None);
        };
        let bad = || {
            let reason =
                format!("{text:?} is not a unicast MAC address such as \"0a:1b:2c:3d:4e:5f\"");
            self.error(KEY, reason)
        };
        let mut mac = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut mac {
            let part = parts.next().filter(|part| part.len() == 2);
            let digits = part.filter(|part| part.bytes().all(|b| b.is_ascii_hexdigit()));
            let parsed = digits.and_then(|part| u8::from_str_radix(part, 16).ok());
            *byte = parsed.ok_or_else(bad)?;
        }
        let group = mac[0] & 1 == 1;
        if parts.next().is_some() || group || mac == [0; 6] {
            return Err(bad());
        }
        Ok(Some(mac))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn annotations(pairs: &[(&str, &str)]) -> Annotations {
        let key = |key: &str| format!("{ANNOTATION_PREFIX}{key}");
        pairs
            .iter()
            .map(|(k, v)| (key(k), (*v).to_owned()))
            .collect()
    }

    fn configured() -> Wanted {
        Wanted {
            ips: vec!["10.0.0.1".parse().unwrap()],
            pools: Pools {
                any: vec!["config".into()],
                ..Pools::default()
            },
            families: None,
            mac: Some([2, 0, 0, 0, 0, 1]),
        }
    }

    #[test]
    fn the_pod_wins_over_the_namespace_and_the_namespace_over_the_configuration() {
        let none = Annotations::new();
        assert_eq!(wanted(configured(), &none, &none), Ok(configured()));
        let namespace = annotations(&[
            ("ipv4pools", r#"["n4"]"#),
            ("ipv6pools", r#"["n6"]"#),
            ("ipFamilies", r#"["IPv6"]"#),
            ("ipAddrs", r#"["10.0.0.9"]"#),
            ("hwAddr", "02:00:00:00:00:09"),
        ]);
        let found = wanted(configured(), &namespace, &none).unwrap();
        assert_eq!(found.pools.any, ["config"]);
        assert_eq!(
            (&*found.pools.v4, &*found.pools.v6),
            (&["n4".to_owned()][..], &["n6".to_owned()][..])
        );
        assert_eq!(found.families, Some(vec![Family::V6]));
        // Of a pod alone.
        assert_eq!((found.ips, found.mac), (configured().ips, configured().mac));

        let pod = annotations(&[
            ("ipv4pools", r#"["p4","10.2.0.0/16"]"#),
            ("ipFamilies", r#"["IPv4", "ipv6"]"#),
            ("ipAddrs", r#"["10.0.0.7","fd00::7"]"#),
            ("hwAddr", "02:00:00:00:00:07"),
        ]);
        let found = wanted(configured(), &namespace, &pod).unwrap();
        assert_eq!(found.pools.v4, ["p4", "10.2.0.0/16"]);
        assert_eq!(found.pools.v6, ["n6"]);
        assert_eq!(found.families, Some(vec![Family::V4, Family::V6]));
        let ips: Vec<IpAddr> = ["10.0.0.7", "fd00::7"].map(|ip| ip.parse().unwrap()).into();
        assert_eq!((found.ips, found.mac), (ips, Some([2, 0, 0, 0, 0, 7])));
    }

    #[test]
    fn an_annotation_that_can_not_be_honoured_is_an_error_that_names_it() {
        let cases = [
            (
                "ipAddrs",
                "10.0.0.1",
                "\"10.0.0.1\" is not a JSON list of strings",
            ),
            (
                "ipAddrs",
                r#"["10.0.0.300"]"#,
                "\"10.0.0.300\" is not an IP address",
            ),
            ("ipAddrs", r#"["10.0.0.1","10.0.0.2"]"#, "2 IPv4 addresses"),
            ("ipv4pools", "[1]", "\"[1]\" is not a JSON list of strings"),
            ("ipFamilies", r#"["v4"]"#, "\"v4\" is neither IPv4 nor IPv6"),
            ("hwAddr", "02:00:00:00:00", "is not a unicast MAC address"),
            (
                "hwAddr",
                "01:00:00:00:00:01",
                "is not a unicast MAC address",
            ),
            ("ipAddrsNoIpam", r#"["10.0.0.1"]"#, "not supported"),
            ("floatingIPs", r#"["10.0.0.1"]"#, "not supported"),
        ];
        for (key, value, reason) in cases {
            let pod = annotations(&[(key, value)]);
            let error = wanted(Wanted::default(), &Annotations::new(), &pod).unwrap_err();
            let text = error.to_string();
            let start = format!("pod annotation cni.projectcalico.org/{key}: ");
            assert!(text.starts_with(&start) && text.contains(reason), "{text}");
        }
    }

    #[test]
    fn an_empty_annotation_says_nothing() {
        let pod = annotations(&[("ipv4pools", "[]"), ("ipAddrs", ""), ("hwAddr", " ")]);
        assert_eq!(
            wanted(configured(), &Annotations::new(), &pod),
            Ok(configured())
        );
    }

    proptest! {
        #[test]
        fn no_annotation_panics(key in "ip(Addrs|v4pools|v6pools|Families)|hwAddr", value in any::<String>()) {
            let pod = annotations(&[(&key, &value)]);
            let _ = wanted(Wanted::default(), &pod, &pod);
        }
    }
}
