//! `NetworkPolicy`, `GlobalNetworkPolicy`, what is staged of them, and `Tier`.

use super::build::{Schema, boolean, list, number, object, one_of, text};
use super::definition::{Column, Definition, Scope};
use super::kubernetes_policy;
use super::rule::{Direction, rule};
use super::values::{MOST_RULES, label_or_empty, selector};

const COLUMNS: &[Column] = &[
    Column("Tier", "string", ".spec.tier"),
    Column("Order", "number", ".spec.order"),
    Column("Age", "date", ".metadata.creationTimestamp"),
];
const STAGED_COLUMNS: &[Column] = &[
    Column("Action", "string", ".spec.stagedAction"),
    Column("Tier", "string", ".spec.tier"),
    Column("Order", "number", ".spec.order"),
    Column("Age", "date", ".metadata.creationTimestamp"),
];
const BESIDE_DELETE: &str = "stagedAction Delete stands alone, or beside tier";

pub(super) fn definitions() -> Vec<Definition> {
    vec![
        tier(),
        Definition {
            short_names: &["cnp", "caliconetworkpolicy", "caliconetworkpolicies"],
            scope: Scope::Namespaced,
            columns: COLUMNS,
            ..Definition::calico(
                "NetworkPolicy",
                "networkpolicies",
                "What the pods of a namespace may exchange with others.",
                Policy::Namespaced.spec(),
            )
        },
        Definition {
            short_names: &["gnp", "cgnp", "calicoglobalnetworkpolicies"],
            columns: COLUMNS,
            ..Definition::calico(
                "GlobalNetworkPolicy",
                "globalnetworkpolicies",
                "What pods and nodes may exchange with others.",
                Policy::Global.spec(),
            )
        },
        Definition {
            short_names: &["snp"],
            scope: Scope::Namespaced,
            columns: STAGED_COLUMNS,
            ..Definition::calico(
                "StagedNetworkPolicy",
                "stagednetworkpolicies",
                "A NetworkPolicy that is evaluated and not enforced.",
                Policy::StagedNamespaced.spec(),
            )
        },
        Definition {
            short_names: &["sgnp"],
            columns: STAGED_COLUMNS,
            ..Definition::calico(
                "StagedGlobalNetworkPolicy",
                "stagedglobalnetworkpolicies",
                "A GlobalNetworkPolicy that is evaluated and not enforced.",
                Policy::StagedGlobal.spec(),
            )
        },
        Definition {
            short_names: &["sknp"],
            scope: Scope::Namespaced,
            columns: &[
                Column("Action", "string", ".spec.stagedAction"),
                Column("Age", "date", ".metadata.creationTimestamp"),
            ],
            ..Definition::calico(
                "StagedKubernetesNetworkPolicy",
                "stagedkubernetesnetworkpolicies",
                "A NetworkPolicy of Kubernetes that is evaluated and not enforced.",
                kubernetes_policy::staged(staged_action()),
            )
        },
    ]
}

fn tier() -> Definition {
    let spec = object([
        (
            "order",
            number().about("Its place among the tiers, smallest first; last where absent."),
        ),
        (
            "defaultAction",
            one_of(&["Deny", "Pass"])
                .about("What becomes of packets that no policy decides (Deny)."),
        ),
    ]);
    Definition {
        columns: &[
            Column("Order", "number", ".spec.order"),
            Column("Default", "string", ".spec.defaultAction"),
            Column("Age", "date", ".metadata.creationTimestamp"),
        ],
        rules: &[
            (
                "size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')",
                "the name of a tier has at most 63 characters and no dots",
            ),
            (
                "!(self.metadata.name in ['kube-admin', 'kube-baseline']) \
                 || !has(self.spec.defaultAction) || self.spec.defaultAction == 'Pass'",
                "tiers kube-admin and kube-baseline have defaultAction Pass",
            ),
            (
                "self.metadata.name != 'default' || !has(self.spec.defaultAction) \
                 || self.spec.defaultAction == 'Deny'",
                "tier default has defaultAction Deny",
            ),
            (
                "!has(self.spec.order) || (self.metadata.name == 'kube-admin' ? self.spec.order == 1000.0 \
                 : self.metadata.name == 'default' ? self.spec.order == 1000000.0 \
                 : self.metadata.name == 'kube-baseline' ? self.spec.order == 10000000.0 : true)",
                "the order of tiers kube-admin, default and kube-baseline is 1000, 1000000 and 10000000",
            ),
        ],
        ..Definition::calico(
            "Tier",
            "tiers",
            "Policies that are evaluated together.",
            spec,
        )
    }
}

/// The four kinds, which share most of their fields.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    Namespaced,
    Global,
    StagedNamespaced,
    StagedGlobal,
}

impl Policy {
    fn spec(self) -> Schema {
        let mut spec = fields();
        if matches!(self, Self::Global | Self::StagedGlobal) {
            spec = global(spec);
        }
        if matches!(self, Self::StagedNamespaced | Self::StagedGlobal) {
            spec = staged(spec);
        }
        spec
    }
}

/// What all kinds have. An unknown field is kept, so that it is named in the object's status.
fn fields() -> Schema {
    object([
        ("tier", label_or_empty().about("Its tier (default).")),
        (
            "order",
            number().about("Its place in the tier, smallest first; last where absent."),
        ),
        (
            "selector",
            selector().about("Endpoints that it is for; all where absent."),
        ),
        (
            "serviceAccountSelector",
            selector().about("Their service accounts, by label."),
        ),
        (
            "types",
            list(one_of(&["Ingress", "Egress"]))
                .most(2)
                .rule("size(self) != 2 || self[0] != self[1]", "is named twice")
                .about("Directions that it is for; those that it has rules for where absent."),
        ),
        (
            "ingress",
            list(rule(Direction::Ingress))
                .most(MOST_RULES)
                .about("Rules for what comes in."),
        ),
        (
            "egress",
            list(rule(Direction::Egress))
                .most(MOST_RULES)
                .about("Rules for what goes out."),
        ),
        (
            "performanceHints",
            list(text().longest(64))
                .most(16)
                .about("Means nothing here."),
        ),
    ])
    .keeps_unknown()
}

fn global(spec: Schema) -> Schema {
    let on = |field: &str| format!("has(self.{field}) && self.{field}");
    let (untracked, early, forward) = (on("doNotTrack"), on("preDNAT"), on("applyOnForward"));
    spec.field(
        "namespaceSelector",
        selector().about("Namespaces that it is for, by label."),
    )
    .field(
        "doNotTrack",
        boolean().about("Whether it stands before connection tracking; host endpoints only."),
    )
    .field(
        "preDNAT",
        boolean().about("Whether it stands before destination NAT; host endpoints only."),
    )
    .field(
        "applyOnForward",
        boolean().about("Whether it is for forwarded packets too; host endpoints only."),
    )
    .rule(
        &format!("!({untracked}) || !({early})"),
        "preDNAT may not stand beside doNotTrack",
    )
    .rule(
        &format!("!({untracked}) && !({early}) || {forward}"),
        "applyOnForward must be true with preDNAT or doNotTrack",
    )
    .rule(
        &format!(
            "!({early}) || (has(self.types) && size(self.types) > 0 ? !('Egress' in self.types) \
                 : !has(self.egress) || size(self.egress) == 0)"
        ),
        "preDNAT is for ingress only",
    )
}

fn staged(spec: Schema) -> Schema {
    let others = [
        "order",
        "selector",
        "serviceAccountSelector",
        "types",
        "ingress",
        "egress",
    ];
    let none: Vec<String> = others
        .iter()
        .map(|name| format!("!has(self.{name})"))
        .collect();
    spec.field("stagedAction", staged_action()).rule(
        &format!(
            "!has(self.stagedAction) || self.stagedAction != 'Delete' || {}",
            none.join(" && ")
        ),
        BESIDE_DELETE,
    )
}

fn staged_action() -> Schema {
    one_of(&["Set", "Delete", "Learn", "Ignore"])
        .about("What to evaluate: Set puts the policy in place, Delete takes the one of the same name away.")
}
