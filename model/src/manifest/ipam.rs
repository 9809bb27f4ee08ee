//! `projectcalico.org/v3` `IPPool`, `IPAMBlock` and `IPReservation`.

use super::Body;
use super::reader::{Fields, Item, Problem};
use super::syntax;
use crate::Selector;
use crate::object::{
    AllowedUse, AssignmentMode, EncapMode, IpPool, IpReservation, IpamBlock, Object,
};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;

const ENCAP_MODES: &[(&str, EncapMode)] = &[
    ("Never", EncapMode::Never),
    ("Always", EncapMode::Always),
    ("CrossSubnet", EncapMode::CrossSubnet),
];
const ALLOWED_USES: &[(&str, AllowedUse)] = &[
    ("Workload", AllowedUse::Workload),
    ("Tunnel", AllowedUse::Tunnel),
    ("LoadBalancer", AllowedUse::LoadBalancer),
];
const ASSIGNMENT_MODES: &[(&str, AssignmentMode)] = &[
    ("Automatic", AssignmentMode::Automatic),
    ("Manual", AssignmentMode::Manual),
];

pub(super) fn pool(body: &mut Body<'_>) -> Result<Object, Problem> {
    let mut spec = body.spec()?;
    let cidr = syntax::exact_network(&spec.need("cidr")?)?;
    let flag = |spec: &mut Fields<'_>, name| spec.take(name).map_or(Ok(false), Item::boolean);
    let pool = IpPool {
        name: body.name.clone(),
        cidr,
        block_size: block_size(&mut spec, cidr)?,
        ipip_mode: encap_mode(&mut spec, "ipipMode")?,
        vxlan_mode: encap_mode(&mut spec, "vxlanMode")?,
        nat_outgoing: flag(&mut spec, "natOutgoing")?,
        disabled: flag(&mut spec, "disabled")?,
        disable_bgp_export: flag(&mut spec, "disableBGPExport")?,
        node_selector: spec
            .take("nodeSelector")
            .map_or(Ok(Selector::All), |item| item.selector())?,
        namespace_selector: spec
            .take("namespaceSelector")
            .map(|item| item.selector())
            .transpose()?,
        allowed_uses: allowed_uses(&mut spec)?,
        assignment_mode: spec
            .take("assignmentMode")
            .map_or(Ok(AssignmentMode::Automatic), |item| {
                item.one_of(ASSIGNMENT_MODES)
            })?,
    };
    if pool.ipip_mode != EncapMode::Never && pool.vxlan_mode != EncapMode::Never {
        return Err(spec.problem("vxlanMode", "a pool has either ipipMode or vxlanMode"));
    }
    spec.warn_unknown(&mut body.warnings);
    Ok(Object::IpPool(Box::new(pool)))
}

pub(super) fn block(body: &mut Body<'_>) -> Result<Object, Problem> {
    let mut spec = body.spec()?;
    let cidr = syntax::exact_network(&spec.need("cidr")?)?;
    let affinity = spec.need("affinity")?;
    let affinity = affinity.text()?;
    let (kind, name) = affinity.split_once(':').unwrap_or_default();
    let node = match kind {
        "host" => Some(name),
        "virtual" => Some(affinity),
        _ => None,
    };
    let named = node.filter(|_| syntax::subdomain(name).is_ok());
    let node = named.ok_or_else(|| {
        spec.problem(
            "affinity",
            "must be \"host:\" and a node's name, or \"virtual:load-balancer\"",
        )
    })?;
    let block = IpamBlock {
        cidr,
        node: node.to_owned(),
    };
    if block.name() != body.name {
        let expected = format!("must be {:?}, after spec.cidr", block.name());
        return Err(body.metadata.problem("name", &expected));
    }
    if spec.take("deleted").map_or(Ok(false), Item::boolean)? {
        return Err(spec.problem("deleted", "blocks are deleted by deleting the object"));
    }
    spec.ignore(&[
        "affinityClaimTime",
        "allocations",
        "attributes",
        "sequenceNumber",
        "sequenceNumberForAllocation",
        "strictAffinity",
        "unallocated",
    ]);
    spec.warn_unknown(&mut body.warnings);
    Ok(Object::IpamBlock(block))
}

pub(super) fn reservation(body: &mut Body<'_>) -> Result<Object, Problem> {
    let mut spec = body.spec()?;
    let cidrs = spec
        .take("reservedCIDRs")
        .map_or(Ok(Vec::new()), Item::list)?;
    let reservation = IpReservation {
        name: body.name.clone(),
        reserved_cidrs: cidrs.iter().map(addresses).collect::<Result<_, _>>()?,
    };
    spec.warn_unknown(&mut body.warnings);
    Ok(Object::IpReservation(reservation))
}

/// One address, or a prefix whose host bits are zero.
fn addresses(item: &Item<'_>) -> Result<IpNet, Problem> {
    match item.parse::<IpAddr>("an address") {
        Ok(address) => Ok(IpNet::from(address)),
        Err(_) => syntax::exact_network(item),
    }
}

fn block_size(spec: &mut Fields<'_>, cidr: IpNet) -> Result<u8, Problem> {
    let (default, range) = match cidr {
        IpNet::V4(_) => (26, 20..=32),
        IpNet::V6(_) => (122, 116..=128),
    };
    let size = spec
        .take("blockSize")
        .map_or(Ok(default), |item| item.integer(range))?;
    if cidr.prefix_len() > size {
        let field = if spec.take("blockSize").is_some() {
            "blockSize"
        } else {
            "cidr"
        };
        return Err(spec.problem(
            field,
            &format!("a block of /{size} is larger than the pool {cidr}"),
        ));
    }
    Ok(size)
}

fn encap_mode(spec: &mut Fields<'_>, name: &'static str) -> Result<EncapMode, Problem> {
    spec.take(name)
        .map_or(Ok(EncapMode::Never), |item| item.one_of(ENCAP_MODES))
}

fn allowed_uses(spec: &mut Fields<'_>) -> Result<BTreeSet<AllowedUse>, Problem> {
    let uses = spec
        .take("allowedUses")
        .map_or(Ok(Vec::new()), Item::list)?;
    if uses.is_empty() {
        return Ok([AllowedUse::Workload, AllowedUse::Tunnel].into());
    }
    uses.iter().map(|item| item.one_of(ALLOWED_USES)).collect()
}
