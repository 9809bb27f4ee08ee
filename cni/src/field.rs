//! Reading JSON with errors that name the field.

use crate::Error;
use serde_json::Value;
use std::net::IpAddr;

/// Longest excerpt of a wrong value in a message.
const EXCERPT: usize = 64;

/// A value and where it stands.
pub(crate) struct Field<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> Field<'a> {
    pub(crate) fn root(value: &'a Value) -> Self {
        Self {
            path: String::new(),
            value,
        }
    }

    /// A member; none where it is absent or null.
    pub(crate) fn get(&self, key: &str) -> Result<Option<Field<'a>>, Error> {
        let Value::Object(object) = self.value else {
            return Err(self.not("an object"));
        };
        let value = object.get(key).filter(|value| !value.is_null());
        let dot = if self.path.is_empty() { "" } else { "." };
        Ok(value.map(|value| Field {
            path: format!("{}{dot}{key}", self.path),
            value,
        }))
    }

    /// A member of a member and so on; none where one is absent or null.
    pub(crate) fn at(&self, path: &[&str]) -> Result<Option<Field<'a>>, Error> {
        let mut field = Field {
            path: self.path.clone(),
            value: self.value,
        };
        for key in path {
            match field.get(key)? {
                Some(member) => field = member,
                None => return Ok(None),
            }
        }
        Ok(Some(field))
    }

    /// A member that has to be there.
    pub(crate) fn required(&self, key: &str) -> Result<Field<'a>, Error> {
        self.get(key)?.ok_or_else(|| {
            let dot = if self.path.is_empty() { "" } else { "." };
            let field = format!("{}{dot}{key}", self.path);
            Error::Config {
                field,
                reason: "is required".to_owned(),
            }
        })
    }

    pub(crate) fn value(&self) -> &'a Value {
        self.value
    }

    pub(crate) fn string(&self) -> Result<&'a str, Error> {
        self.value.as_str().ok_or_else(|| self.not("a string"))
    }

    /// A whole number between two bounds, both included.
    pub(crate) fn number(&self, least: u64, most: u64) -> Result<u64, Error> {
        if !self.value.is_number() {
            return Err(self.not("a number"));
        }
        let number = self.value.as_u64().filter(|n| (least..=most).contains(n));
        number.ok_or_else(|| self.not(&format!("a whole number from {least} to {most}")))
    }

    pub(crate) fn list(&self) -> Result<Vec<Field<'a>>, Error> {
        let Value::Array(items) = self.value else {
            return Err(self.not("a list"));
        };
        let item = |(index, value)| Field {
            path: format!("{}[{index}]", self.path),
            value,
        };
        Ok(items.iter().enumerate().map(item).collect())
    }

    /// Members of an object, in order of their names.
    pub(crate) fn members(&self) -> Result<Vec<(&'a str, Field<'a>)>, Error> {
        let Value::Object(object) = self.value else {
            return Err(self.not("an object"));
        };
        let member = |(key, value): (&'a String, &'a Value)| {
            (
                key.as_str(),
                Field {
                    path: format!("{}.{key}", self.path),
                    value,
                },
            )
        };
        Ok(object.iter().map(member).collect())
    }

    /// An address, with or without a prefix length.
    pub(crate) fn address(&self) -> Result<IpAddr, Error> {
        address(self.string()?).map_err(|what| self.not(what))
    }

    /// A unicast hardware address.
    pub(crate) fn mac(&self) -> Result<[u8; 6], Error> {
        mac(self.string()?).map_err(|what| self.not(what))
    }

    /// The error that the value is not what it should be.
    pub(crate) fn not(&self, what: &str) -> Error {
        let mut value = self.value.to_string();
        if let Some((cut, _)) = value.char_indices().nth(EXCERPT) {
            value.truncate(cut);
            value.push('…');
        }
        self.error(format!("{value} is not {what}"))
    }

    pub(crate) fn error(&self, reason: String) -> Error {
        let field = if self.path.is_empty() {
            "configuration"
        } else {
            &self.path
        };
        Error::Config {
            field: field.to_owned(),
            reason,
        }
    }
}

/// An address, with or without a prefix length; otherwise what the text is not.
pub(crate) fn address(text: &str) -> Result<IpAddr, &'static str> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| "an IP address")?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bad = |length: &str| length.parse::<u8>().map_or(true, |length| length > most);
    if length.is_some_and(bad) {
        Err("an IP address with a prefix length")
    } else {
        Ok(address)
    }
}

/// A unicast hardware address; otherwise what the text is not.
pub(crate) fn mac(text: &str) -> Result<[u8; 6], &'static str> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2);
        *byte = part
            .and_then(|part| u8::from_str_radix(part, 16).ok())
            .ok_or("a MAC address")?;
    }
    if parts.next().is_some() {
        return Err("a MAC address");
    }
    let unicast = mac[0] & 1 == 0 && mac != [0; 6];
    if unicast {
        Ok(mac)
    } else {
        Err("a unicast MAC address")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message(value: Value, read: impl Fn(&Field<'_>) -> Option<Error>) -> String {
        let root = json!({ "a": { "b": value } });
        let field = Field::root(&root).at(&["a", "b"]).unwrap().unwrap();
        read(&field).expect("an error").to_string()
    }

    #[test]
    fn errors_name_the_field_and_the_value() {
        let cases = [
            (
                message(json!("big"), |f| f.number(1, 9).err()),
                r#"a.b: "big" is not a number"#,
            ),
            (
                message(json!(10), |f| f.number(1, 9).err()),
                "a.b: 10 is not a whole number from 1 to 9",
            ),
            (
                message(json!(1.5), |f| f.number(1, 9).err()),
                "a.b: 1.5 is not a whole number from 1 to 9",
            ),
            (
                message(json!([]), |f| f.string().err()),
                "a.b: [] is not a string",
            ),
            (
                message(json!({}), |f| f.list().err()),
                "a.b: {} is not a list",
            ),
            (
                message(json!(true), |f| f.get("c").err()),
                "a.b: true is not an object",
            ),
            (
                message(json!({}), |f| f.required("c").err()),
                "a.b.c: is required",
            ),
            (
                message(json!("10.0.0.256"), |f| f.address().err()),
                r#"a.b: "10.0.0.256" is not an IP address"#,
            ),
            (
                message(json!("10.0.0.1/33"), |f| f.address().err()),
                r#"a.b: "10.0.0.1/33" is not an IP address with a prefix length"#,
            ),
            (
                message(json!("0a:00"), |f| f.mac().err()),
                r#"a.b: "0a:00" is not a MAC address"#,
            ),
            (
                message(json!("01:00:5e:00:00:01"), |f| f.mac().err()),
                r#"a.b: "01:00:5e:00:00:01" is not a unicast MAC address"#,
            ),
        ];
        for (got, expected) in cases {
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn a_long_wrong_value_is_cut() {
        let text = message(json!("ä".repeat(10_000)), |f| f.number(0, 1).err());
        assert!(text.chars().count() < 100, "{text}");
    }

    #[test]
    fn null_is_absence() {
        let root = json!({ "a": null });
        assert!(Field::root(&root).at(&["a", "b"]).unwrap().is_none());
    }

    #[test]
    fn addresses_may_carry_a_prefix_length() {
        for (text, expected) in [
            ("10.0.0.1", "10.0.0.1"),
            ("10.0.0.1/24", "10.0.0.1"),
            ("fd00::1/64", "fd00::1"),
        ] {
            let value = json!(text);
            assert_eq!(Field::root(&value).address().unwrap().to_string(), expected);
        }
    }
}
