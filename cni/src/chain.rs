//! ADD after other plugins of a list: their result is part of ours (CNI specification, "Overview
//! of the execution protocol").

use crate::Error;
use crate::field::Field;
use serde_json::{Map, Value, json};

/// What the plugins before this one made.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Chain {
    previous: Option<Map<String, Value>>,
}

impl Chain {
    /// Reads `prevResult`. An interface of the name that is asked for must not be there already.
    pub(crate) fn read(previous: Option<&Value>, ifname: &str) -> Result<Self, Error> {
        let Some(previous) = previous else {
            return Ok(Self::default());
        };
        let root = json!({ "prevResult": previous });
        let field = Field::root(&root).required("prevResult")?;
        for list in ["ips", "routes"] {
            if let Some(list) = field.get(list)? {
                list.list()?;
            }
        }
        if let Some(interfaces) = field.get("interfaces")? {
            for interface in interfaces.list()? {
                let name = interface.required("name")?;
                let sandbox = interface.get("sandbox")?;
                let inside = sandbox.map(|field| field.string().map(|text| !text.is_empty()));
                if name.string()? == ifname && inside.transpose()?.unwrap_or(false) {
                    let reason = format!("a plugin before this one has made {ifname}");
                    return Err(name.error(reason));
                }
            }
        }
        let previous = field.value().as_object().cloned();
        Ok(Self { previous })
    }

    /// The result of the list so far: what was there before, and then `ours`.
    pub(crate) fn with(self, mut ours: Value) -> Value {
        let Some(mut previous) = self.previous else {
            return ours;
        };
        let before = list(&mut previous, "interfaces").len();
        for ip in ours["ips"].as_array_mut().into_iter().flatten() {
            if let Some(index) = ip["interface"].as_u64() {
                ip["interface"] = json!(index + before as u64);
            }
        }
        for key in ["interfaces", "ips", "routes"] {
            let own = ours[key].as_array().cloned().unwrap_or_default();
            let all = list(&mut previous, key);
            for entry in own {
                if key != "routes" || !all.contains(&entry) {
                    all.push(entry);
                }
            }
        }
        if ours["dns"].as_object().is_some_and(|dns| !dns.is_empty()) {
            previous.insert("dns".to_owned(), ours["dns"].take());
        }
        previous.insert("cniVersion".to_owned(), ours["cniVersion"].take());
        Value::Object(previous)
    }
}

/// A list of the result, which comes to be where it is absent.
fn list<'a>(result: &'a mut Map<String, Value>, key: &str) -> &'a mut Vec<Value> {
    let entry = result.entry(key).or_insert_with(|| json!([]));
    if !entry.is_array() {
        *entry = json!([]);
    }
    entry
        .as_array_mut()
        .expect("invariant: it was made a list just now")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Value {
        json!({
            "cniVersion": "1.0.0",
            "interfaces": [{ "name": "oci1" }, { "name": "eth0", "sandbox": "/run/netns/a" }],
            "ips": [{ "address": "10.1.0.7/32", "interface": 1 }],
            "routes": [{ "dst": "0.0.0.0/0", "gw": "169.254.1.1" }],
            "dns": {},
        })
    }

    #[test]
    fn the_first_of_a_list_answers_with_its_own_result() {
        assert_eq!(Chain::read(None, "eth0").unwrap().with(ours()), ours());
    }

    #[test]
    fn what_earlier_plugins_made_is_kept_and_addresses_still_name_their_interface() {
        let previous = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{ "name": "net1", "sandbox": "/run/netns/a" }],
            "ips": [{ "address": "192.0.2.1/24", "interface": 0 }],
            "routes": [{ "dst": "198.51.100.0/24" }, { "dst": "0.0.0.0/0", "gw": "169.254.1.1" }],
            "dns": { "nameservers": ["10.0.0.10"] },
        });
        assert_eq!(
            Chain::read(Some(&previous), "eth0").unwrap().with(ours()),
            json!({
                "cniVersion": "1.0.0",
                "interfaces": [
                    { "name": "net1", "sandbox": "/run/netns/a" },
                    { "name": "oci1" },
                    { "name": "eth0", "sandbox": "/run/netns/a" },
                ],
                "ips": [
                    { "address": "192.0.2.1/24", "interface": 0 },
                    { "address": "10.1.0.7/32", "interface": 2 },
                ],
                "routes": [{ "dst": "198.51.100.0/24" }, { "dst": "0.0.0.0/0", "gw": "169.254.1.1" }],
                "dns": { "nameservers": ["10.0.0.10"] },
            })
        );
    }

    #[test]
    fn a_result_that_is_wrong_or_has_the_interface_already_is_refused_by_its_field() {
        let cases = [
            (json!([]), "prevResult: [] is not an object"),
            (json!({ "ips": 1 }), "prevResult.ips: 1 is not a list"),
            (
                json!({ "interfaces": [{}] }),
                "prevResult.interfaces[0].name: is required",
            ),
            (
                json!({ "interfaces": [{ "name": "eth0", "sandbox": "/x" }] }),
                "prevResult.interfaces[0].name: a plugin before this one has made eth0",
            ),
        ];
        for (previous, expected) in cases {
            let error = Chain::read(Some(&previous), "eth0").unwrap_err();
            assert_eq!((error.code(), error.to_string().as_str()), (7, expected));
        }
        let on_the_host = json!({ "interfaces": [{ "name": "eth0" }] });
        assert!(Chain::read(Some(&on_the_host), "eth0").is_ok());
    }
}
