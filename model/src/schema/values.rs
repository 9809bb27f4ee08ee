//! Values that several kinds share.

use super::build::{Schema, boolean, integer, integer_or_text, list, map_of, object, one_of, text};

/// Rules in one direction, as in Calico.
pub(super) const MOST_RULES: usize = 1024;
/// As long as the longest IPv6 prefix with an IPv4 tail.
const LONGEST_PREFIX: usize = 49;
const LONGEST_SELECTOR: usize = 1024;
/// Ports by number, range or name.
const PORT: &str = "^([0-9]{1,5}(:[0-9]{1,5})?|[a-zA-Z0-9_.-]{1,128})$";
/// A number, or RFC 5396 asdot.
const AS_NUMBER: &str = "^([0-9]{1,10}|[0-9]{1,5}[.][0-9]{1,5})$";
/// Addresses and prefixes, as far as an expression can tell them from other text.
const ADDRESS_OR_PREFIX: &str = "^[0-9a-fA-F:.]{2,45}(/[0-9]{1,3})?$";
/// RFC 1123, as the name of an object.
const SUBDOMAIN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// A prefix without host bits. Costly: not for lists in lists.
pub(super) fn prefix() -> Schema {
    text().longest(LONGEST_PREFIX).rule(
        "isCIDR(self) && cidr(self) == cidr(self).masked()",
        "must be a CIDR without host bits, such as 10.0.0.0/16",
    )
}

/// An address, or a prefix; host bits mean nothing. Costly: not for lists in lists.
pub(super) fn network() -> Schema {
    text().longest(LONGEST_PREFIX).rule(
        "isIP(self) || isCIDR(self)",
        "must be an IP address or a CIDR",
    )
}

/// Likewise where rules hold lists of them.
pub(super) fn cheap_network() -> Schema {
    text().pattern(ADDRESS_OR_PREFIX)
}

/// An address of either family; the empty string stands for none.
pub(super) fn address_or_empty() -> Schema {
    text()
        .longest(LONGEST_PREFIX)
        .rule("self == '' || isIP(self)", "must be an IP address")
}

/// A selector in Calico's syntax.
pub(super) fn selector() -> Schema {
    text().longest(LONGEST_SELECTOR)
}

pub(super) fn as_number() -> Schema {
    integer_or_text(1..=i64::from(u32::MAX), AS_NUMBER)
}

/// A port by number, range (`80:90`) or name.
pub(super) fn port() -> Schema {
    integer_or_text(1..=65535, PORT)
}

/// The name of an object.
pub(super) fn name() -> Schema {
    text().longest(253).pattern(SUBDOMAIN)
}

/// Likewise; the empty string stands for none.
pub(super) fn name_or_empty() -> Schema {
    let pattern = format!("^$|{SUBDOMAIN}");
    text().longest(253).pattern(&pattern)
}

/// The name of a namespace or tier; the empty string stands for none.
pub(super) fn label_or_empty() -> Schema {
    let pattern = format!("^$|{LABEL}");
    text().longest(63).pattern(&pattern)
}

/// A duration in Go's form, of whole seconds.
pub(super) fn seconds() -> Schema {
    text().longest(32).pattern("^(0|([0-9]+[hms])+)$")
}

/// aa:nn, or aa:nn:mm of RFC 8092.
pub(super) fn community() -> Schema {
    text().longest(32).pattern("^[0-9]+:[0-9]+(:[0-9]+)?$")
}

/// `{secretKeyRef: {name, key, optional}}`. What is not understood must not mean a session without
/// a password, so it is kept and refused by the reader.
pub(super) fn password() -> Schema {
    let reference = object([
        ("name", name().about("Name of the Secret.")),
        (
            "key",
            text()
                .longest(253)
                .pattern("^[-._a-zA-Z0-9]+$")
                .about("Key in the Secret."),
        ),
        (
            "optional",
            boolean().about("Whether a session may start without a password where there is none."),
        ),
    ])
    .required(&["name", "key"])
    .keeps_unknown();
    object([("secretKeyRef", reference)])
        .required(&["secretKeyRef"])
        .keeps_unknown()
}

/// A port of an endpoint, with a name that policies can use.
pub(super) fn named_port() -> Schema {
    object([
        ("name", text().longest(128).pattern("^[a-zA-Z0-9_.-]+$")),
        ("protocol", integer_or_text(1..=255, "^(TCP|UDP|SCTP)$")),
        ("port", integer(1..=65535)),
    ])
    .required(&["name", "protocol", "port"])
}

/// A label selector of Kubernetes.
pub(super) fn label_selector() -> Schema {
    let expression = object([
        ("key", text().longest(317)),
        (
            "operator",
            one_of(&["In", "NotIn", "Exists", "DoesNotExist"]),
        ),
        ("values", list(text().longest(63))),
    ])
    .required(&["key", "operator"])
    .keeps_unknown();
    object([
        ("matchLabels", map_of(text().longest(63))),
        ("matchExpressions", list(expression)),
    ])
    .keeps_unknown()
}
