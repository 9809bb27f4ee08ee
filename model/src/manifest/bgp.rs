//! `projectcalico.org/v3` `BGPConfiguration`, and values that BGP objects share.
//!
//! Fields that Calico does not have stand in a mapping of their own, `spec.ocicat`, so that a field
//! that Calico may add later can't change what a manifest means.

use super::Body;
use super::reader::{Fields, Item, Problem};
use super::syntax;
use crate::names;
use crate::object::{
    BgpConfiguration, BindMode, Community, Object, PrefixAdvertisement, SecretKeyRef,
};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The field of the graceful restart capability has 12 bits (RFC 4724 section 3).
pub(super) const MOST_RESTART_TIME: u16 = 4095;

const BIND_MODES: &[(&str, BindMode)] = &[("None", BindMode::None), ("NodeIP", BindMode::NodeIp)];
const LOG_LEVELS: &[(&str, ())] = &[
    ("Debug", ()),
    ("Info", ()),
    ("Warning", ()),
    ("Error", ()),
    ("Fatal", ()),
];

pub(super) fn configuration(body: &mut Body<'_>) -> Result<Object, Problem> {
    let mut spec = body.spec()?;
    let warnings = &mut body.warnings;
    let defaults = BgpConfiguration::default();
    let restart_time = spec.take("nodeMeshMaxRestartTime");
    let configuration = BgpConfiguration {
        name: body.name.clone(),
        as_number: spec
            .take("asNumber")
            .map_or(Ok(names::DEFAULT_AS), |item| syntax::as_number(&item))?,
        node_to_node_mesh_enabled: spec
            .take("nodeToNodeMeshEnabled")
            .map_or(Ok(true), Item::boolean)?,
        listen_port: spec
            .take("listenPort")
            .map_or(Ok(names::BGP_PORT), |item| item.integer(1..=65535))?,
        node_mesh_max_restart_time: restart_time
            .map_or(Ok(defaults.node_mesh_max_restart_time), |item| {
                syntax::seconds(&item, MOST_RESTART_TIME)
            })?,
        node_mesh_password: password(&mut spec, "nodeMeshPassword")?,
        bind_mode: spec
            .take("bindMode")
            .map_or(Ok(BindMode::None), |item| item.one_of(BIND_MODES))?,
        ignored_interfaces: ignored_interfaces(&mut spec)?,
        service_cluster_ips: ranges(&mut spec, "serviceClusterIPs", warnings)?,
        service_external_ips: ranges(&mut spec, "serviceExternalIPs", warnings)?,
        service_load_balancer_ips: ranges(&mut spec, "serviceLoadBalancerIPs", warnings)?,
        service_load_balancer_aggregation: spec
            .take("serviceLoadBalancerAggregation")
            .map_or(Ok(true), |item| {
                item.one_of(&[("Enabled", true), ("Disabled", false)])
            })?,
        prefix_advertisements: prefix_advertisements(&mut spec, warnings)?,
        local_workload_peering_ipv4: address::<Ipv4Addr>(&mut spec, "localWorkloadPeeringIPV4")?,
        local_workload_peering_ipv6: address::<Ipv6Addr>(&mut spec, "localWorkloadPeeringIPV6")?,
        ebgp_requires_policy: ebgp_requires_policy(&mut spec, warnings)?,
    };
    if configuration.node_mesh_password.is_some() && body.name != "default" {
        let reason = "may stand only in the object named default";
        return Err(spec.problem("nodeMeshPassword", reason));
    }
    if let Some(item) = spec.take("logSeverityScreen") {
        item.one_of(LOG_LEVELS)?;
    }
    // Which of two processes writes a route: here it is one.
    spec.ignore(&["programClusterRoutes"]);
    spec.warn_unknown(warnings);
    Ok(Object::BgpConfiguration(Box::new(configuration)))
}

fn address<T: std::str::FromStr>(
    spec: &mut Fields<'_>,
    name: &'static str,
) -> Result<Option<T>, Problem> {
    let item = spec.take(name).filter(|item| item.value() != "");
    item.map(|item| item.parse("an address of its family"))
        .transpose()
}

fn ignored_interfaces(spec: &mut Fields<'_>) -> Result<Vec<String>, Problem> {
    let items = spec
        .take("ignoredInterfaces")
        .map_or(Ok(Vec::new()), Item::list)?;
    let pattern = |item: &Item<'_>| {
        let pattern = item.check(syntax::interface_pattern)?;
        if pattern == "*" {
            return Err(item.problem("\"*\" would ignore every interface"));
        }
        Ok(pattern.to_owned())
    };
    items.iter().map(pattern).collect()
}

/// `[{cidr: …}]`
fn ranges(
    spec: &mut Fields<'_>,
    name: &'static str,
    warnings: &mut Vec<String>,
) -> Result<Vec<IpNet>, Problem> {
    let items = spec.take(name).map_or(Ok(Vec::new()), Item::list)?;
    let mut range = |item: Item<'_>| {
        let mut fields = item.fields()?;
        let cidr = syntax::network(&fields.need("cidr")?, warnings)?;
        fields.warn_unknown(warnings);
        Ok(cidr)
    };
    items.into_iter().map(&mut range).collect()
}

/// Communities are values, or names that `communities` gives values to.
fn prefix_advertisements(
    spec: &mut Fields<'_>,
    warnings: &mut Vec<String>,
) -> Result<Vec<PrefixAdvertisement>, Problem> {
    let mut named = BTreeMap::new();
    for item in spec
        .take("communities")
        .map_or(Ok(Vec::new()), Item::list)?
    {
        let mut fields = item.fields()?;
        let name = fields.need("name")?.check(syntax::subdomain)?;
        named.insert(name, community(&fields.need("value")?)?);
        fields.warn_unknown(warnings);
    }
    let items = spec.take("prefixAdvertisements");
    let mut advertisements = Vec::new();
    for item in items.map_or(Ok(Vec::new()), Item::list)? {
        let mut fields = item.fields()?;
        let cidr = syntax::network(&fields.need("cidr")?, warnings)?;
        let communities = fields.take("communities");
        let value = |item: &Item<'_>| match named.get(item.as_text()?) {
            Some(community) => Ok(*community),
            None => item.parse("a community (aa:nn or aa:nn:mm), nor a name in spec.communities"),
        };
        let communities = communities
            .map_or(Ok(Vec::new()), Item::list)?
            .iter()
            .map(value)
            .collect::<Result<_, _>>()?;
        let local_preference = ocicat(&mut fields, warnings, |ocicat| {
            let item = ocicat.take("localPreference");
            item.map(|item| item.integer(0..=i64::from(u32::MAX)))
                .transpose()
        })?;
        fields.warn_unknown(warnings);
        advertisements.push(PrefixAdvertisement {
            cidr,
            communities,
            local_preference: local_preference.flatten(),
        });
    }
    Ok(advertisements)
}

fn ebgp_requires_policy(
    spec: &mut Fields<'_>,
    warnings: &mut Vec<String>,
) -> Result<bool, Problem> {
    let stated = ocicat(spec, warnings, |ocicat| {
        let item = ocicat.take("ebgpRequiresPolicy");
        item.map_or(Ok(false), Item::boolean)
    })?;
    Ok(stated.unwrap_or(false))
}

/// Reads the fields that Calico does not have.
pub(super) fn ocicat<'a, T>(
    spec: &mut Fields<'a>,
    warnings: &mut Vec<String>,
    read: impl FnOnce(&mut Fields<'a>) -> Result<T, Problem>,
) -> Result<Option<T>, Problem> {
    let Some(item) = spec.take("ocicat") else {
        return Ok(None);
    };
    let mut fields = item.fields()?;
    let found = read(&mut fields)?;
    fields.warn_unknown(warnings);
    Ok(Some(found))
}

pub(super) fn community(item: &Item<'_>) -> Result<Community, Problem> {
    item.parse("a community (aa:nn of 16 bits each, or aa:nn:mm of 32 bits each)")
}

/// `{secretKeyRef: {name, key, optional}}`
pub(super) fn password(
    spec: &mut Fields<'_>,
    name: &'static str,
) -> Result<Option<SecretKeyRef>, Problem> {
    let Some(item) = spec.take(name) else {
        return Ok(None);
    };
    let mut password = item.fields()?;
    let mut reference = password.need("secretKeyRef")?.fields()?;
    let found = SecretKeyRef {
        name: reference.need("name")?.check(syntax::subdomain)?.to_owned(),
        key: reference.need("key")?.check(syntax::secret_key)?.to_owned(),
        optional: reference
            .take("optional")
            .map_or(Ok(false), Item::boolean)?,
    };
    // A password in a place that is not understood must not mean a session without one.
    reference.refuse_unknown("unknown field")?;
    password.refuse_unknown("unknown field")?;
    Ok(Some(found))
}
