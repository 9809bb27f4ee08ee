//! A ruleset as nft JSON, in the form that `nft -j -f` reads (`libnftables-json(5)`).

use super::element::{Part, decode};
use super::{
    BaseHook, Chain, ChainType, CtState, Element, Family, Field, Hook, KeyType, Rule, Ruleset, Set,
    SetKind, Statement, Verdict,
};
use serde_json::{Map, Value, json};

impl Ruleset {
    /// The commands that build the table: what `nft -j -c -f` checks, and people and programs read.
    pub fn to_nft_json(&self) -> Value {
        let table = model::names::NFT_TABLE;
        let mut commands = vec![
            json!({ "metainfo": { "json_schema_version": 1 } }),
            add("table", [("family", json!("inet")), ("name", json!(table))]),
        ];
        for name in &self.counters {
            commands.push(add("counter", in_table([("name", json!(name))])));
        }
        for (name, chain) in &self.chains {
            commands.push(add("chain", in_table(chain_fields(name, chain))));
        }
        for (name, set) in &self.sets {
            let kind = if set.header.verdict_map { "map" } else { "set" };
            commands.push(add(kind, in_table(set_fields(name, set))));
        }
        for (name, chain) in &self.chains {
            let rules = chain.rules.iter();
            commands.extend(rules.map(|rule| add("rule", in_table(rule_fields(name, rule)))));
        }
        json!({ "nftables": commands })
    }
}

type Fields = Vec<(&'static str, Value)>;

fn add(kind: &str, fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let object: Map<String, Value> = fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    json!({ "add": { kind: object } })
}

fn in_table(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Fields {
    let table = [
        ("family", json!("inet")),
        ("table", json!(model::names::NFT_TABLE)),
    ];
    table.into_iter().chain(fields).collect()
}

fn set_fields(name: &str, set: &Set) -> Fields {
    let header = &set.header;
    let types: Vec<_> = header.key.iter().map(|key| type_name(*key)).collect();
    let mut fields = vec![("name", json!(name)), ("type", one_or_all(&types))];
    if header.verdict_map {
        fields.push(("map", json!("verdict")));
    }
    if header.kind == SetKind::Interval {
        fields.push(("flags", json!(["interval"])));
    }
    fields.extend(header.size.map(|size| ("size", json!(size))));
    let elements = set.elements.iter().map(|(element, verdict)| {
        let key = element_value(&header.key, element);
        match verdict {
            Some(verdict) => json!([key, verdict_value(verdict)]),
            None => key,
        }
    });
    let elements: Vec<_> = elements.collect();
    if !elements.is_empty() {
        fields.push(("elem", json!(elements)));
    }
    fields
}

fn one_or_all(names: &[&str]) -> Value {
    match names {
        [one] => json!(one),
        all => json!(all),
    }
}

fn type_name(key: KeyType) -> &'static str {
    match key {
        KeyType::Ifindex => "iface_index",
        KeyType::Ipv4 => "ipv4_addr",
        KeyType::Ipv6 => "ipv6_addr",
        KeyType::Proto => "inet_proto",
        KeyType::Port => "inet_service",
    }
}

fn chain_fields(name: &str, chain: &Chain) -> Fields {
    let mut fields = vec![("name", json!(name))];
    if let Some(BaseHook {
        hook,
        chain_type,
        priority,
    }) = &chain.hook
    {
        let chain_type = match chain_type {
            ChainType::Filter => "filter",
            ChainType::Nat => "nat",
        };
        let hook = match hook {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
        };
        fields.extend([
            ("type", json!(chain_type)),
            ("hook", json!(hook)),
            ("prio", json!(priority)),
            ("policy", json!("accept")),
        ]);
    }
    fields
}

fn rule_fields(chain: &str, rule: &Rule) -> Fields {
    let statements: Vec<_> = rule.statements.iter().flat_map(statement).collect();
    let mut fields = vec![("chain", json!(chain)), ("expr", json!(statements))];
    let comment = rule.comment.as_ref();
    fields.extend(comment.map(|text| ("comment", json!(text.replace('"', "'")))));
    fields
}

fn element_value(types: &[KeyType], element: &Element) -> Value {
    let first = decode(types, &element.key).unwrap_or_default();
    let last = element.end.as_ref().and_then(|end| decode(types, end));
    let last = last.as_ref().unwrap_or(&first);
    let field = |(first, last): (&Part, &Part)| match first == last {
        true => part(*first),
        false => json!({ "range": [part(*first), part(*last)] }),
    };
    let mut fields: Vec<_> = first.iter().zip(last).map(field).collect();
    match fields.len() {
        1 => fields.remove(0),
        _ => json!({ "concat": fields }),
    }
}

fn part(part: Part) -> Value {
    match part {
        Part::Ifindex(index) => json!(index),
        Part::Address(address) => json!(address.to_string()),
        Part::Proto(number) => json!(number),
        Part::Port(number) => json!(number),
    }
}

fn verdict_value(verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Accept => json!({ "accept": null }),
        Verdict::Drop => json!({ "drop": null }),
        Verdict::Return => json!({ "return": null }),
        Verdict::Jump(chain) => json!({ "jump": { "target": chain } }),
        Verdict::Goto(chain) => json!({ "goto": { "target": chain } }),
    }
}

fn compare(left: &Value, negate: bool, right: &Value) -> Value {
    let op = if negate { "!=" } else { "==" };
    json!({ "match": { "op": op, "left": left, "right": right } })
}

fn meta(key: &str) -> Value {
    json!({ "meta": { "key": key } })
}

fn payload(protocol: &str, field: &str) -> Value {
    json!({ "payload": { "protocol": protocol, "field": field } })
}

fn range(first: &Value, last: &Value) -> Value {
    match first == last {
        true => first.clone(),
        false => json!({ "range": [first, last] }),
    }
}

fn field(field: Field) -> Value {
    match field {
        Field::Iif => meta("iif"),
        Field::Oif => meta("oif"),
        Field::Ipv4Saddr => payload("ip", "saddr"),
        Field::Ipv4Daddr => payload("ip", "daddr"),
        Field::Ipv6Saddr => payload("ip6", "saddr"),
        Field::Ipv6Daddr => payload("ip6", "daddr"),
        Field::L4Proto => meta("l4proto"),
        Field::Sport => payload("th", "sport"),
        Field::Dport => payload("th", "dport"),
    }
}

fn fields(all: &[Field]) -> Value {
    let mut values: Vec<_> = all.iter().map(|one| field(*one)).collect();
    match values.len() {
        1 => values.remove(0),
        _ => json!({ "concat": values }),
    }
}

/// One statement of ours is one or two of nft's.
fn statement(statement: &Statement) -> Vec<Value> {
    let one = match statement {
        Statement::Icmp {
            family,
            icmp_type,
            code,
            negate,
        } => {
            let protocol = match family {
                Family::Ipv4 => 1,
                Family::Ipv6 => 58,
            };
            let (length, value) = match code {
                None => (8, u16::from(*icmp_type)),
                Some(code) => (16, u16::from_be_bytes([*icmp_type, *code])),
            };
            let raw = json!({ "payload": { "base": "th", "offset": 0, "len": length } });
            return vec![
                compare(&meta("l4proto"), false, &json!(protocol)),
                compare(&raw, *negate, &json!(value)),
            ];
        }
        Statement::Family(Family::Ipv4) => compare(&meta("nfproto"), false, &json!("ipv4")),
        Statement::Family(Family::Ipv6) => compare(&meta("nfproto"), false, &json!("ipv6")),
        Statement::IifnamePrefix { prefix, negate } => {
            compare(&meta("iifname"), *negate, &json!(format!("{prefix}*")))
        }
        Statement::OifnamePrefix { prefix, negate } => {
            compare(&meta("oifname"), *negate, &json!(format!("{prefix}*")))
        }
        Statement::Iifname(name) => compare(&meta("iifname"), false, &json!(name)),
        Statement::Oifname(name) => compare(&meta("oifname"), false, &json!(name)),
        Statement::L4Proto(number) => compare(&meta("l4proto"), false, &json!(number)),
        Statement::DportRange(first, last) => {
            let ports = range(&json!(first), &json!(last));
            compare(&payload("th", "dport"), false, &ports)
        }
        Statement::CtState(state) => {
            let states = match state {
                CtState::EstablishedOrRelated => json!(["established", "related"]),
                CtState::Established => json!("established"),
                CtState::Invalid => json!("invalid"),
                CtState::Untracked => json!("untracked"),
            };
            let left = json!({ "ct": { "key": "state" } });
            json!({ "match": { "op": "in", "left": left, "right": states } })
        }
        Statement::CtMarkBits(bits) => {
            let masked = json!({ "&": [{ "ct": { "key": "mark" } }, bits] });
            compare(&masked, false, &json!(bits))
        }
        Statement::SetCtMarkBits(bits) => {
            let mark = json!({ "ct": { "key": "mark" } });
            json!({ "mangle": { "key": mark, "value": { "|": [mark, bits] } } })
        }
        Statement::Icmpv6Type { first, last } => {
            let types = range(&json!(first), &json!(last));
            compare(&payload("icmpv6", "type"), false, &types)
        }
        Statement::Ipv6LinkLocalSource => {
            let prefix = json!({ "prefix": { "addr": "fe80::", "len": 10 } });
            compare(&payload("ip6", "saddr"), false, &prefix)
        }
        Statement::Lookup {
            fields: all,
            set,
            negate,
        } => compare(&fields(all), *negate, &json!(format!("@{set}"))),
        Statement::VerdictMap { fields: all, map } => {
            json!({ "vmap": { "key": fields(all), "data": format!("@{map}") } })
        }
        Statement::NoTrack => json!({ "notrack": null }),
        Statement::RejectTcpReset => json!({ "reject": { "type": "tcp reset" } }),
        Statement::Reject => json!({ "reject": null }),
        Statement::Counter => json!({ "counter": null }),
        Statement::NamedCounter(name) => json!({ "counter": name }),
        Statement::Limit { per_second, burst } => {
            json!({ "limit": { "rate": per_second, "per": "second", "burst": burst } })
        }
        Statement::Log { group, prefix } => {
            json!({ "log": { "prefix": prefix.replace('"', "'"), "group": group } })
        }
        Statement::Queue(number) => json!({ "queue": { "num": number, "flags": "bypass" } }),
        Statement::LocalDestination => {
            let address_type = json!({ "fib": { "result": "type", "flags": ["daddr"] } });
            compare(&address_type, false, &json!("local"))
        }
        Statement::Dnat { address, port } => {
            let family = if address.is_ipv4() { "ip" } else { "ip6" };
            json!({ "dnat": { "family": family, "addr": address.to_string(), "port": port } })
        }
        Statement::Masquerade => json!({ "masquerade": { "flags": "fully-random" } }),
        Statement::MasqueradePorts { first, last } => {
            let port = range(&json!(first), &json!(last));
            json!({ "masquerade": { "port": port, "flags": "fully-random" } })
        }
        Statement::Snat { address, ports } => {
            let family = if address.is_ipv4() { "ip" } else { "ip6" };
            let mut snat = json!({
                "family": family, "addr": address.to_string(), "flags": "fully-random",
            });
            if let Some((first, last)) = ports {
                snat["port"] = range(&json!(first), &json!(last));
            }
            json!({ "snat": snat })
        }
        Statement::SetMarkBits(bits) => {
            let mark = json!({ "meta": { "key": "mark" } });
            json!({ "mangle": { "key": mark, "value": { "|": [mark, bits] } } })
        }
        Statement::ClampMss => {
            let flags = json!({ "&": [payload("tcp", "flags"), { "|": ["syn", "rst"] }] });
            let size = json!({ "tcp option": { "name": "maxseg", "field": "size" } });
            let mtu = json!({ "rt": { "key": "mtu" } });
            return vec![
                compare(&flags, false, &json!("syn")),
                json!({ "mangle": { "key": size, "value": mtu } }),
            ];
        }
        Statement::Verdict(verdict) => verdict_value(verdict),
    };
    vec![one]
}
