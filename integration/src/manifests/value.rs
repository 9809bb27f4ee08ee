//! What an administrator may want other than it is.

/// A place in the templates, `${name}`.
pub(super) struct Value {
    /// In the templates.
    pub(super) name: &'static str,
    /// In the chart's values; none for what Helm itself knows.
    key: Option<&'static str>,
    /// In the plain manifest, and in the chart where nothing is given. Empty where the lines that
    /// use it are left out.
    pub(super) default: &'static str,
    about: &'static str,
}

const VALUES: [Value; 13] = [
    Value {
        name: "namespace",
        key: None,
        default: "ocicat-system",
        about: "",
    },
    Value {
        name: "image",
        key: Some("image"),
        default: concat!("localhost/ocicat-node:", env!("CARGO_PKG_VERSION")),
        about: "The image that deploy/image builds, or where it was pushed to.",
    },
    Value {
        name: "pull-policy",
        key: Some("imagePullPolicy"),
        default: "IfNotPresent",
        about: "",
    },
    Value {
        name: "log",
        key: Some("log"),
        default: "info",
        about: "error, warn, info, debug, or a filter such as felix_rs=debug.",
    },
    Value {
        name: "cni-bin",
        key: Some("cniBinDir"),
        default: "/opt/cni/bin",
        about: "Where container runtimes look for plugins and configurations.",
    },
    Value {
        name: "cni-conf",
        key: Some("cniConfDir"),
        default: "/etc/cni/net.d",
        about: "",
    },
    Value {
        name: "cpu",
        key: Some("cpu"),
        default: "50m",
        about: "What is reserved on each node.",
    },
    Value {
        name: "memory",
        key: Some("memory"),
        default: "64Mi",
        about: "",
    },
    Value {
        name: "api-servers",
        key: Some("apiServers"),
        default: "",
        about: "URLs of API servers, with commas in between, where no kube-proxy serves their Service.",
    },
    Value {
        name: "ipv4-pool",
        key: Some("ipv4Pool"),
        default: "",
        about: "Prefixes of the pools that a cluster without any gets; found out where empty.",
    },
    Value {
        name: "ipv6-pool",
        key: Some("ipv6Pool"),
        default: "",
        about: "",
    },
    Value {
        name: "ipip",
        key: Some("ipip"),
        default: "",
        about: "Encapsulation of those pools: Never, CrossSubnet or Always.",
    },
    Value {
        name: "vxlan",
        key: Some("vxlan"),
        default: "",
        about: "",
    },
];

/// The value that templates call `name`.
pub(super) fn find(name: &str) -> Option<&'static Value> {
    VALUES.iter().find(|value| value.name == name)
}

impl Value {
    /// As the chart refers to it.
    pub(super) fn in_chart(&self) -> String {
        match self.key {
            Some(key) => format!(".Values.{key}"),
            None => ".Release.Namespace".to_owned(),
        }
    }
}

/// `values.yaml` of the chart.
pub(super) fn chart_values() -> String {
    let line = |value: &Value| {
        let key = value.key?;
        let about = match value.about {
            "" => String::new(),
            about => format!("# {about}\n"),
        };
        let default = match value.default {
            "" => "\"\"",
            default => default,
        };
        Some(format!("{about}{key}: {default}\n"))
    };
    VALUES.iter().filter_map(line).collect()
}
