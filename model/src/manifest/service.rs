//! Kubernetes `v1` `Service` and `ServiceAccount`, `discovery.k8s.io/v1` `EndpointSlice`.

use super::Body;
use super::reader::{Fields, Item, Problem};
use super::workload::PROTOCOLS;
use crate::object::{
    EndpointSlice, ExternalTrafficPolicy, IpFamily, NamedPort, Object, Protocol, Service,
    ServiceAccount, ServicePort, ServiceType,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

const TYPES: &[(&str, ServiceType)] = &[
    ("ClusterIP", ServiceType::ClusterIp),
    ("NodePort", ServiceType::NodePort),
    ("LoadBalancer", ServiceType::LoadBalancer),
    ("ExternalName", ServiceType::ExternalName),
];
const TRAFFIC_POLICIES: &[(&str, ExternalTrafficPolicy)] = &[
    ("Cluster", ExternalTrafficPolicy::Cluster),
    ("Local", ExternalTrafficPolicy::Local),
];
const FAMILIES: &[(&str, IpFamily)] = &[("IPv4", IpFamily::Ipv4), ("IPv6", IpFamily::Ipv6)];
const ANNOTATIONS: &str = "projectcalico.org/";
const SERVICE_NAME: &str = "kubernetes.io/service-name";

pub(super) fn service_account(body: &mut Body<'_>) -> Result<Object, Problem> {
    body.root.ignore(&[
        "secrets",
        "imagePullSecrets",
        "automountServiceAccountToken",
    ]);
    Ok(Object::ServiceAccount(ServiceAccount {
        labels: body.labels()?,
        namespace: body.namespace.clone(),
        name: body.name.clone(),
    }))
}

pub(super) fn service(body: &mut Body<'_>) -> Result<Object, Problem> {
    let annotations = annotations(&mut body.metadata)?;
    let load_balancer_ips = load_balancer_ips(&mut body.root)?;
    let mut spec = body.spec()?;
    let traffic_policy = spec.take("externalTrafficPolicy");
    let families = spec.take("ipFamilies");
    let ports = spec.take("ports").map_or(Ok(Vec::new()), Item::list)?;
    Ok(Object::Service(Box::new(Service {
        namespace: body.namespace.clone(),
        name: body.name.clone(),
        service_type: spec
            .take("type")
            .map_or(Ok(ServiceType::ClusterIp), |item| item.one_of(TYPES))?,
        cluster_ips: cluster_ips(&mut spec)?,
        external_ips: addresses(&mut spec, "externalIPs")?,
        load_balancer_ips,
        requested_load_balancer_ip: spec
            .take("loadBalancerIP")
            .filter(|item| item.value() != "")
            .map(|item| item.parse("an IP address"))
            .transpose()?,
        load_balancer_class: spec
            .take("loadBalancerClass")
            .map(Item::text)
            .transpose()?
            .map(str::to_owned),
        external_traffic_policy: traffic_policy
            .map_or(Ok(ExternalTrafficPolicy::Cluster), |item| {
                item.one_of(TRAFFIC_POLICIES)
            })?,
        ip_families: families
            .map_or(Ok(Vec::new()), Item::list)?
            .iter()
            .map(|item| item.one_of(FAMILIES))
            .collect::<Result<_, _>>()?,
        ports: ports.into_iter().map(port).collect::<Result<_, _>>()?,
        annotations,
    })))
}

fn annotations(metadata: &mut Fields<'_>) -> Result<BTreeMap<String, String>, Problem> {
    let Some(item) = metadata.take("annotations") else {
        return Ok(BTreeMap::new());
    };
    let fields = item.fields()?;
    let ours = fields.all().filter(|(key, _)| key.starts_with(ANNOTATIONS));
    ours.map(|(key, item)| Ok((key.to_owned(), item.text()?.to_owned())))
        .collect()
}

fn load_balancer_ips(root: &mut Fields<'_>) -> Result<Vec<IpAddr>, Problem> {
    let Some(status) = root.take("status") else {
        return Ok(Vec::new());
    };
    let Some(load_balancer) = status.fields()?.take("loadBalancer") else {
        return Ok(Vec::new());
    };
    let ingress = load_balancer.fields()?.take("ingress");
    let mut addresses = Vec::new();
    for item in ingress.map_or(Ok(Vec::new()), Item::list)? {
        // Others have a hostname.
        if let Some(item) = item.fields()?.take("ip") {
            addresses.push(item.parse("an IP address")?);
        }
    }
    Ok(addresses)
}

/// `clusterIPs`, or `clusterIP` of an older API server; `None` stands for no address.
fn cluster_ips(spec: &mut Fields<'_>) -> Result<Vec<IpAddr>, Problem> {
    let one = spec.take("clusterIP");
    let several = spec.take("clusterIPs").map(Item::list).transpose()?;
    let items = several.unwrap_or_else(|| one.into_iter().collect());
    let address = |item: &&Item<'_>| !matches!(item.value().as_str(), Some("" | "None"));
    let addresses = items.iter().filter(address);
    addresses.map(|item| item.parse("an IP address")).collect()
}

fn addresses(spec: &mut Fields<'_>, name: &'static str) -> Result<Vec<IpAddr>, Problem> {
    let items = spec.take(name).map_or(Ok(Vec::new()), Item::list)?;
    let address = |item: &Item<'_>| item.parse("an IP address");
    items.iter().map(address).collect()
}

fn port(item: Item<'_>) -> Result<ServicePort, Problem> {
    let mut port = item.fields()?;
    Ok(ServicePort {
        name: port
            .take("name")
            .map(Item::text)
            .transpose()?
            .map(str::to_owned),
        protocol: port
            .take("protocol")
            .map_or(Ok(Protocol::Tcp), |item| item.one_of(PROTOCOLS))?,
        port: port.need("port")?.integer(1..=65535)?,
        // 0 stands for none.
        node_port: port
            .take("nodePort")
            .map(|item| item.integer(0..=65535))
            .transpose()?
            .filter(|port| *port != 0),
    })
}

pub(super) fn endpoint_slice(body: &mut Body<'_>) -> Result<Object, Problem> {
    let labels = body.labels()?;
    body.root.ignore(&["addressType"]);
    let mut slice = EndpointSlice {
        namespace: body.namespace.clone(),
        name: body.name.clone(),
        // Of no Service where there is no label.
        service: labels
            .get(SERVICE_NAME)
            .map(String::from)
            .unwrap_or_default(),
        addresses: BTreeSet::new(),
        ports: slice_ports(&mut body.root)?,
        ready_nodes: BTreeSet::new(),
    };
    let endpoints = body.root.take("endpoints");
    for item in endpoints.map_or(Ok(Vec::new()), Item::list)? {
        endpoint(item, &mut slice)?;
    }
    Ok(Object::EndpointSlice(Box::new(slice)))
}

fn endpoint(item: Item<'_>, slice: &mut EndpointSlice) -> Result<(), Problem> {
    let mut endpoint = item.fields()?;
    let addresses = endpoint.take("addresses");
    for item in addresses.map_or(Ok(Vec::new()), Item::list)? {
        // Of type FQDN otherwise.
        if let Ok(address) = item.text()?.parse() {
            slice.addresses.insert(address);
        }
    }
    let ready = match endpoint.take("conditions") {
        Some(conditions) => conditions
            .fields()?
            .take("ready")
            .map_or(Ok(true), Item::boolean)?,
        None => true,
    };
    if let (true, Some(node)) = (ready, endpoint.take("nodeName")) {
        slice.ready_nodes.insert(node.text()?.to_owned());
    }
    Ok(())
}

/// Ports with a number: one without stands for all, and Calico's rules take that for none.
fn slice_ports(root: &mut Fields<'_>) -> Result<Vec<NamedPort>, Problem> {
    let mut ports = Vec::new();
    for item in root.take("ports").map_or(Ok(Vec::new()), Item::list)? {
        let mut port = item.fields()?;
        let Some(number) = port.take("port") else {
            continue;
        };
        ports.push(NamedPort {
            name: port.take("name").map_or(Ok(""), Item::text)?.to_owned(),
            protocol: port
                .take("protocol")
                .map_or(Ok(Protocol::Tcp), |item| item.one_of(PROTOCOLS))?,
            port: number.integer(1..=65535)?,
        });
    }
    Ok(ports)
}
