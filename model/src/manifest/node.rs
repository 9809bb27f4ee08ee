//! Nodes: `v1` with Calico's annotations, and `projectcalico.org/v3`.

use super::Body;
use super::reader::{Fields, Item, Problem};
use super::syntax;
use crate::object::{Node, Object};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;

pub(super) fn kubernetes(body: &mut Body<'_>) -> Result<Object, Problem> {
    body.root.ignore(&["spec"]);
    let mut node = empty(body)?;
    if let Some(annotations) = body.metadata.take("annotations") {
        let mut fields = annotations.fields()?;
        let names = Names {
            ipv4: "projectcalico.org/IPv4Address",
            ipv6: "projectcalico.org/IPv6Address",
            as_number: "projectcalico.org/ASNumber",
            cluster_id: "projectcalico.org/RouteReflectorClusterID",
        };
        bgp(&mut fields, &names, &mut node)?;
        for name in [
            "projectcalico.org/IPv4IPIPTunnelAddr",
            "projectcalico.org/IPv4VXLANTunnelAddr",
            "projectcalico.org/IPv6VXLANTunnelAddr",
        ] {
            tunnel_address(&mut fields, name, &mut node)?;
        }
    }
    if let Some(status) = body.root.take("status") {
        let addresses = status
            .fields()?
            .take("addresses")
            .map_or(Ok(Vec::new()), Item::list)?;
        for address in addresses {
            status_address(address, &mut node)?;
        }
    }
    Ok(Object::Node(node))
}

pub(super) fn calico(body: &mut Body<'_>) -> Result<Object, Problem> {
    let mut node = empty(body)?;
    let Some(spec) = body.root.take("spec") else {
        return Ok(Object::Node(node));
    };
    let mut spec = spec.fields()?;
    if let Some(item) = spec.take("bgp") {
        let mut fields = item.fields()?;
        let names = Names {
            ipv4: "ipv4Address",
            ipv6: "ipv6Address",
            as_number: "asNumber",
            cluster_id: "routeReflectorClusterID",
        };
        bgp(&mut fields, &names, &mut node)?;
        tunnel_address(&mut fields, "ipv4IPIPTunnelAddr", &mut node)?;
        fields.unsupported(&["interfaces"], &mut body.warnings);
        fields.warn_unknown(&mut body.warnings);
    }
    for address in spec.take("addresses").map_or(Ok(Vec::new()), Item::list)? {
        spec_address(address, &mut node)?;
    }
    tunnel_address(&mut spec, "ipv4VXLANTunnelAddr", &mut node)?;
    tunnel_address(&mut spec, "ipv6VXLANTunnelAddr", &mut node)?;
    spec.ignore(&[
        "orchRefs",
        "vxlanTunnelMACAddr",
        "vxlanTunnelMACAddrV6",
        "wireguard",
    ]);
    spec.warn_unknown(&mut body.warnings);
    Ok(Object::Node(node))
}

/// What the two manifests call the same fields.
struct Names {
    ipv4: &'static str,
    ipv6: &'static str,
    as_number: &'static str,
    cluster_id: &'static str,
}

fn empty(body: &mut Body<'_>) -> Result<Node, Problem> {
    Ok(Node {
        name: body.name.clone(),
        labels: body.labels()?,
        ipv4_address: None,
        ipv6_address: None,
        addresses: BTreeSet::new(),
        as_number: None,
        route_reflector_cluster_id: None,
    })
}

fn bgp(fields: &mut Fields<'_>, names: &Names, node: &mut Node) -> Result<(), Problem> {
    if let Some(item) = fields.take(names.ipv4) {
        let what = "an IPv4 address such as \"10.1.0.11/24\"";
        let IpNet::V4(network) = address(&item, what)? else {
            return Err(item.is_not(what));
        };
        node.ipv4_address = Some(network);
    }
    if let Some(item) = fields.take(names.ipv6) {
        let what = "an IPv6 address such as \"fd00:1::11/64\"";
        let IpNet::V6(network) = address(&item, what)? else {
            return Err(item.is_not(what));
        };
        node.ipv6_address = Some(network);
    }
    node.as_number = fields
        .take(names.as_number)
        .map(|i| syntax::as_number(&i))
        .transpose()?;
    node.route_reflector_cluster_id = fields
        .take(names.cluster_id)
        .map(|item| item.parse("a cluster ID such as \"244.0.0.1\""))
        .transpose()?;
    Ok(())
}

/// The node's own address on a tunnel: what it sends to pods behind the tunnel comes from there.
fn tunnel_address(
    fields: &mut Fields<'_>,
    name: &'static str,
    node: &mut Node,
) -> Result<(), Problem> {
    if let Some(item) = fields.take(name) {
        node.addresses.insert(item.parse("an IP address")?);
    }
    Ok(())
}

/// An address with the length of its subnet, or alone, which is a subnet of one.
fn address(item: &Item<'_>, what: &str) -> Result<IpNet, Problem> {
    let network = match item.parse::<IpAddr>(what) {
        Ok(address) => IpNet::from(address),
        Err(_) => item.parse::<IpNet>(what)?,
    };
    syntax::unicast(item, network.addr())?;
    Ok(network)
}

/// An address of the node. The first internal one of each family is the node's own, for want of
/// an annotation that says more.
fn status_address(item: Item<'_>, node: &mut Node) -> Result<(), Problem> {
    let mut fields = item.fields()?;
    let internal = match fields.need("type")?.text()? {
        "InternalIP" => true,
        "ExternalIP" => false,
        _ => return Ok(()),
    };
    let address = fields.need("address")?.parse::<IpAddr>("an IP address")?;
    node.addresses.insert(address);
    match address {
        IpAddr::V4(address) if internal => {
            node.ipv4_address.get_or_insert(address.into());
        }
        IpAddr::V6(address) if internal => {
            node.ipv6_address.get_or_insert(address.into());
        }
        _ => {}
    }
    Ok(())
}

/// An entry of `spec.addresses`: an address, alone or with the length of its subnet.
fn spec_address(item: Item<'_>, node: &mut Node) -> Result<(), Problem> {
    let mut fields = item.fields()?;
    let address = fields.need("address")?;
    let kind = fields.take("type").map(Item::text).transpose()?;
    if matches!(kind, Some("Hostname" | "InternalDNS" | "ExternalDNS")) {
        return Ok(());
    }
    let address = self::address(&address, "an address such as \"10.1.0.11\"")?;
    node.addresses.insert(address.addr());
    Ok(())
}
