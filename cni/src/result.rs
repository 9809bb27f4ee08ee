//! ADD's result, in the form of the requested version.

use crate::SpecVersion;
use model::cni::Added;
use model::names::{GATEWAY_V4, GATEWAY_V6};
use serde_json::{Map, Value, json};

/// Index of the pod's end in `interfaces`.
const POD_INTERFACE: usize = 1;

pub(crate) fn added(
    version: SpecVersion,
    added: &Added,
    ifname: &str,
    netns: &str,
    dns: Option<Value>,
) -> Value {
    let mut host = interface(&added.host_interface, added.host_mac);
    let mut pod = interface(ifname, added.pod_mac);
    pod.insert("sandbox".to_owned(), netns.into());
    if version >= SpecVersion::V1_1_0 {
        host.insert("mtu".to_owned(), added.mtu.into());
        pod.insert("mtu".to_owned(), added.mtu.into());
    }
    let ips: Vec<Value> = added.ips.iter().map(|ip| address(version, ip)).collect();
    let mut result = json!({
        "cniVersion": version.as_str(),
        "interfaces": [host, pod],
        "ips": ips,
        "routes": routes(added),
    });
    result["dns"] = dns.unwrap_or_else(|| json!({}));
    result
}

/// Answers VERSION.
pub(crate) fn versions(requested: &str) -> Value {
    json!({
        "cniVersion": requested,
        "supportedVersions": SpecVersion::ALL.map(SpecVersion::as_str),
    })
}

fn interface(name: &str, mac: [u8; 6]) -> Map<String, Value> {
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    Map::from_iter([
        ("name".to_owned(), name.into()),
        ("mac".to_owned(), mac.into()),
    ])
}

fn address(version: SpecVersion, ip: &ipnet::IpNet) -> Value {
    let mut address = json!({ "address": ip.to_string(), "interface": POD_INTERFACE });
    if version < SpecVersion::V1_0_0 {
        address["version"] = if ip.addr().is_ipv4() { "4" } else { "6" }.into();
    }
    address
}

fn routes(added: &Added) -> Vec<Value> {
    let has = |v4: bool| added.ips.iter().any(|ip| ip.addr().is_ipv4() == v4);
    let v4 = has(true).then(|| json!({ "dst": "0.0.0.0/0", "gw": GATEWAY_V4.to_string() }));
    let v6 = has(false).then(|| json!({ "dst": "::/0", "gw": GATEWAY_V6.to_string() }));
    v4.into_iter().chain(v6).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Added {
        Added {
            host_interface: "oci1".to_owned(),
            host_mac: [0xee; 6],
            pod_mac: [2, 0, 0, 0, 0, 10],
            mtu: 1480,
            ips: vec![
                "10.1.0.7/32".parse().unwrap(),
                "fd00::7/128".parse().unwrap(),
            ],
        }
    }

    #[test]
    fn version_1_1_has_the_mtu_of_both_ends() {
        let dns = json!({ "nameservers": ["10.0.0.10"] });
        assert_eq!(
            added(
                SpecVersion::V1_1_0,
                &example(),
                "eth0",
                "/run/netns/a",
                Some(dns.clone())
            ),
            json!({
                "cniVersion": "1.1.0",
                "interfaces": [
                    { "name": "oci1", "mac": "ee:ee:ee:ee:ee:ee", "mtu": 1480 },
                    { "name": "eth0", "mac": "02:00:00:00:00:0a", "mtu": 1480, "sandbox": "/run/netns/a" },
                ],
                "ips": [
                    { "address": "10.1.0.7/32", "interface": 1 },
                    { "address": "fd00::7/128", "interface": 1 },
                ],
                "routes": [
                    { "dst": "0.0.0.0/0", "gw": "169.254.1.1" },
                    { "dst": "::/0", "gw": "fe80::1" },
                ],
                "dns": dns,
            })
        );
    }

    #[test]
    fn versions_below_1_0_name_the_family_of_each_address() {
        for version in [
            SpecVersion::V0_3_0,
            SpecVersion::V0_3_1,
            SpecVersion::V0_4_0,
        ] {
            let result = added(version, &example(), "eth0", "/x", None);
            assert_eq!(result["ips"][0]["version"], "4");
            assert_eq!(result["ips"][1]["version"], "6");
            assert!(result["interfaces"][0].get("mtu").is_none());
        }
        let result = added(SpecVersion::V1_0_0, &example(), "eth0", "/x", None);
        assert!(result["ips"][0].get("version").is_none());
        assert!(result["interfaces"][1].get("mtu").is_none());
    }

    #[test]
    fn a_family_without_address_has_no_route() {
        let mut v6_only = example();
        v6_only.ips.remove(0);
        let result = added(SpecVersion::V1_0_0, &v6_only, "eth0", "/x", None);
        assert_eq!(
            result["routes"],
            json!([{ "dst": "::/0", "gw": "fe80::1" }])
        );
    }
}
