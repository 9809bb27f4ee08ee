//! What an empty cluster needs to begin with: pools, a BGP configuration, tiers.

use super::{ClusterWriter, path};
use crate::WriteError;
use ipnet::IpNet;
use model::manifest::to_manifest;
use model::object::{AllowedUse, AssignmentMode, EncapMode};
use model::{IpPool, Kind, Object, ObjectKey, Selector};
use serde_json::{Value, json};
use std::net::IpAddr;

/// Nodes that are asked for the range of the cluster's pods.
const NODES: usize = 50;
/// What is taken where nothing says which range is the pods', as in Calico.
const LAST_RESORT: &str = "192.168.0.0/16";

/// How the pool of one family is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolDefaults {
    /// Its addresses; none where the cluster is asked for them.
    pub cidr: Option<IpNet>,
    /// Prefix length of its blocks; none is 26 or 122.
    pub block_size: Option<u8>,
    /// `ipipMode`
    pub ipip_mode: EncapMode,
    /// `vxlanMode`
    pub vxlan_mode: EncapMode,
    /// `natOutgoing`
    pub nat_outgoing: bool,
    /// `nodeSelector`
    pub node_selector: Selector,
}

/// What to make in a cluster that has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// The pools of IPv4 and of IPv6; none where no pool is to be made.
    pub pools: Option<[PoolDefaults; 2]>,
    /// Addresses that are not pods': nodes' and Services'.
    pub avoid: Vec<IpAddr>,
}

/// What was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Made {
    /// The objects.
    pub objects: Vec<ObjectKey>,
    /// What was not made and why, and where ranges come from, in sentences.
    pub notes: Vec<String>,
}

impl ClusterWriter {
    /// Makes of each kind what is needed to begin with, where there is none of the kind. A kind that
    /// the cluster does not know is left out.
    pub async fn make_defaults(&self, defaults: &Defaults) -> Result<Made, WriteError> {
        let mut made = Made::default();
        if let Some(pools) = &defaults.pools
            && self.has_none(Kind::IpPool).await?
        {
            let (ranges, source) = self.pod_ranges().await?;
            for (pool, note) in choose(pools, &ranges, source, &defaults.avoid) {
                made.notes.push(note);
                if let Some(pool) = pool {
                    let document = to_manifest(&Object::IpPool(Box::new(pool)));
                    let document = document.expect("invariant: pools have a manifest");
                    self.make(Kind::IpPool, &document, &mut made).await?;
                }
            }
        }
        if self.has_none(Kind::BgpConfiguration).await? {
            let spec =
                json!({ "nodeToNodeMeshEnabled": true, "asNumber": model::names::DEFAULT_AS });
            let document = calico("BGPConfiguration", "default", spec);
            self.make(Kind::BgpConfiguration, &document, &mut made)
                .await?;
        }
        if self.has_none(Kind::Tier).await? {
            for (name, order, action) in [
                ("kube-admin", 1_000, "Pass"),
                ("default", 1_000_000, "Deny"),
                ("kube-baseline", 10_000_000, "Pass"),
            ] {
                let document = calico(
                    "Tier",
                    name,
                    json!({ "order": order, "defaultAction": action }),
                );
                self.make(Kind::Tier, &document, &mut made).await?;
            }
        }
        Ok(made)
    }

    /// Whether the cluster knows the kind and has no object of it.
    async fn has_none(&self, kind: Kind) -> Result<bool, WriteError> {
        let list = self
            .get(&format!("{}?limit=1", path::collection(kind, None)))
            .await?;
        let items = list.as_ref().map(|list| list["items"].as_array());
        Ok(items.is_some_and(|items| items.is_none_or(Vec::is_empty)))
    }

    async fn make(&self, kind: Kind, document: &Value, made: &mut Made) -> Result<(), WriteError> {
        if self
            .create_document(&path::collection(kind, None), document)
            .await?
        {
            let name = document["metadata"]["name"].as_str().unwrap_or_default();
            made.objects.push(ObjectKey::global(kind, name));
        }
        Ok(())
    }

    /// The ranges of the cluster's pods, and who says so.
    async fn pod_ranges(&self) -> Result<(Vec<IpNet>, Source), WriteError> {
        let config = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config";
        let config = match self.get(config).await {
            // Whoever may not read it goes on without.
            Err(error) if error.code() == Some(403) => None,
            config => config?,
        };
        let text = config
            .as_ref()
            .and_then(|config| config["data"]["ClusterConfiguration"].as_str());
        let ranges = text.map(kubeadm_ranges).unwrap_or_default();
        if !ranges.is_empty() {
            return Ok((ranges, Source::Kubeadm));
        }
        let nodes = self
            .get(&format!("/api/v1/nodes?limit={NODES}"))
            .await?
            .unwrap_or_default();
        let nodes = nodes["items"].as_array().into_iter().flatten();
        let ranges = nodes.flat_map(|node| {
            let listed = node["spec"]["podCIDRs"].as_array().into_iter().flatten();
            listed
                .filter_map(|cidr| cidr.as_str()?.parse().ok())
                .collect::<Vec<IpNet>>()
        });
        Ok((ranges.collect(), Source::Nodes))
    }
}

fn calico(kind: &str, name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

/// Who says which ranges are the pods'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// `networking.podSubnet` of kubeadm's ConfigMap: the whole of it.
    Kubeadm,
    /// `spec.podCIDRs` of nodes: parts of it.
    Nodes,
}

/// `networking.podSubnet` of kubeadm's `ClusterConfiguration`.
fn kubeadm_ranges(text: &str) -> Vec<IpNet> {
    let document: Value = serde_saphyr::from_str(text).unwrap_or_default();
    let subnets = document["networking"]["podSubnet"]
        .as_str()
        .unwrap_or_default();
    subnets
        .split(',')
        .filter_map(|subnet| subnet.trim().parse().ok())
        .collect()
}

/// The pool of each family, and where its range comes from or why there is none.
fn choose(
    pools: &[PoolDefaults; 2],
    ranges: &[IpNet],
    source: Source,
    avoid: &[IpAddr],
) -> Vec<(Option<IpPool>, String)> {
    let [v4, v6] = pools;
    let mut chosen = Vec::new();
    for (defaults, is_v4, name) in [
        (v4, true, "default-ipv4-ippool"),
        (v6, false, "default-ipv6-ippool"),
    ] {
        let ours: Vec<IpNet> = ranges
            .iter()
            .copied()
            .filter(|net| net.addr().is_ipv4() == is_v4)
            .collect();
        let in_the_way = |net: &IpNet| avoid.iter().copied().find(|ip| net.contains(ip));
        let (cidr, why) = match (defaults.cidr, cover(&ours), source) {
            (Some(cidr), _, _) => (cidr, "as it was asked for"),
            (None, Some(cover), Source::Kubeadm) => {
                (cover, "the podSubnet of kubeadm's configuration")
            }
            (None, Some(cover), Source::Nodes) => {
                let usual = widened(cover);
                let cidr = if in_the_way(&usual).is_none() {
                    usual
                } else {
                    cover
                };
                (cidr, "around the podCIDRs of the nodes")
            }
            (None, None, _) if is_v4 => {
                let cidr = LAST_RESORT.parse().expect("invariant: it is a prefix");
                (cidr, "since nothing says which addresses are the pods'")
            }
            (None, None, _) => continue,
        };
        if let Some(ip) = in_the_way(&cidr).filter(|_| defaults.cidr.is_none()) {
            let note = format!(
                "no IPPool is made: {cidr}, {why}, holds {ip}, which is a node's or a Service's; create one"
            );
            chosen.push((None, note));
            continue;
        }
        chosen.push((
            Some(pool(name, cidr, defaults)),
            format!("IPPool {name}: {cidr}, {why}"),
        ));
    }
    chosen
}

fn pool(name: &str, cidr: IpNet, defaults: &PoolDefaults) -> IpPool {
    let usual = if cidr.addr().is_ipv4() { 26 } else { 122 };
    IpPool {
        name: name.to_owned(),
        cidr: cidr.trunc(),
        block_size: defaults.block_size.unwrap_or(usual).max(cidr.prefix_len()),
        ipip_mode: defaults.ipip_mode,
        vxlan_mode: defaults.vxlan_mode,
        nat_outgoing: defaults.nat_outgoing,
        disabled: false,
        disable_bgp_export: false,
        node_selector: defaults.node_selector.clone(),
        namespace_selector: None,
        allowed_uses: [AllowedUse::Workload, AllowedUse::Tunnel].into(),
        assignment_mode: AssignmentMode::Automatic,
    }
}

/// The smallest prefix around all of them.
fn cover(nets: &[IpNet]) -> Option<IpNet> {
    let mut cover = nets.first()?.trunc();
    while let Some(outside) = nets.iter().find(|net| !cover.contains(*net)) {
        cover = cover.supernet().unwrap_or(*outside).trunc();
    }
    Some(cover)
}

/// The size that clusters' ranges usually have, of which nodes are given parts.
fn widened(net: IpNet) -> IpNet {
    let usual = if net.addr().is_ipv4() { 16 } else { 56 };
    let length = net.prefix_len().min(usual);
    IpNet::new(net.addr(), length).map_or(net, |net| net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults(cidr: Option<&str>) -> PoolDefaults {
        PoolDefaults {
            cidr: cidr.map(|cidr| cidr.parse().unwrap()),
            block_size: None,
            ipip_mode: EncapMode::Never,
            vxlan_mode: EncapMode::Never,
            nat_outgoing: true,
            node_selector: Selector::All,
        }
    }

    fn chosen(
        asked: [Option<&str>; 2],
        ranges: &[&str],
        source: Source,
        avoid: &[&str],
    ) -> Vec<String> {
        let ranges: Vec<IpNet> = ranges.iter().map(|net| net.parse().unwrap()).collect();
        let avoid: Vec<IpAddr> = avoid.iter().map(|ip| ip.parse().unwrap()).collect();
        let pools = choose(&asked.map(defaults), &ranges, source, &avoid);
        pools
            .into_iter()
            .map(|(pool, note)| {
                pool.map_or(note, |pool| format!("{}/{}", pool.cidr, pool.block_size))
            })
            .collect()
    }

    #[test]
    fn a_pool_is_what_was_asked_for_or_what_the_cluster_says_its_pods_have() {
        let nodes = ["10.1.0.11", "10.96.0.1"];
        let both = ["10.244.0.0/16", "fd00:10:244::/56"];
        assert_eq!(
            chosen([None, None], &both, Source::Kubeadm, &nodes),
            ["10.244.0.0/16/26", "fd00:10:244::/56/122"]
        );
        assert_eq!(
            chosen(
                [Some("10.5.0.0/27"), None],
                &both[..1],
                Source::Kubeadm,
                &nodes
            ),
            ["10.5.0.0/27/27"]
        );
        let cut = ["10.42.0.0/24", "10.42.7.0/24", "fd00:42::/64"];
        assert_eq!(
            chosen([None, None], &cut, Source::Nodes, &nodes),
            ["10.42.0.0/16/26", "fd00:42::/56/122"]
        );
        assert_eq!(
            chosen([None, None], &[], Source::Nodes, &nodes),
            ["192.168.0.0/16/26"]
        );
    }

    #[test]
    fn a_guess_holds_no_address_of_a_node_or_a_service() {
        let cut = ["10.1.128.0/24", "10.1.129.0/24"];
        assert_eq!(
            chosen([None, None], &cut, Source::Nodes, &["10.1.0.11"]),
            ["10.1.128.0/23/26"]
        );
        let said = chosen([None, None], &[], Source::Nodes, &["192.168.1.11"]);
        assert!(
            said[0].starts_with("no IPPool is made: 192.168.0.0/16"),
            "{said:?}"
        );
        let asked = chosen(
            [Some("192.168.0.0/16"), None],
            &[],
            Source::Nodes,
            &["192.168.1.11"],
        );
        assert_eq!(asked, ["192.168.0.0/16/26"], "whoever asks knows");
    }

    #[test]
    fn kubeadms_configuration_is_read_for_both_families() {
        let text = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nnetworking:\n  \
                    dnsDomain: cluster.local\n  podSubnet: 10.244.0.0/16,fd00:10:244::/56\n";
        let expected: Vec<IpNet> = ["10.244.0.0/16", "fd00:10:244::/56"]
            .map(|n| n.parse().unwrap())
            .into();
        assert_eq!(kubeadm_ranges(text), expected);
        assert!(kubeadm_ranges("networking: [").is_empty());
        assert!(kubeadm_ranges("networking: {}").is_empty());
    }
}
