//! What a Service asks for.

use super::Refused;
use crate::Family;
use model::object::{IpFamily, ServiceType};
use model::{Allocation, Service};
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

/// `spec.loadBalancerClass` of Services that are ours, beside those without one.
const CLASS: &str = "calico";
const ANNOTATIONS: &str = "projectcalico.org/";

/// Namespace and name of a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service/{}/{}", self.namespace, self.name)
    }
}

impl ServiceKey {
    /// How an address of the Service is noted in its block.
    pub fn allocation(&self) -> Allocation {
        let attributes = [
            ("namespace", self.namespace.as_str()),
            ("service", self.name.as_str()),
            ("type", "LoadBalancer"),
        ];
        Allocation {
            // A namespace holds no dot.
            handle: format!("load-balancer.{}.{}", self.namespace, self.name),
            attributes: attributes.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        }
    }

    /// Whose address it is; none where it is no Service's.
    pub fn of(allocation: &Allocation) -> Option<Self> {
        let rest = allocation.handle.strip_prefix("load-balancer.")?;
        let (namespace, name) = rest.split_once('.')?;
        Some(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// Which addresses a Service may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Of any pool that gives addresses by itself.
    Any,
    /// Of these pools, by name or CIDR; a family without a list is free.
    Pools {
        /// Of IPv4.
        v4: Option<Vec<String>>,
        /// Of IPv6.
        v6: Option<Vec<String>>,
    },
    /// Exactly these.
    Exactly(Vec<IpAddr>),
}

/// A Service of type LoadBalancer whose addresses are ours to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// Which one.
    pub service: ServiceKey,
    /// One address of each.
    pub families: BTreeSet<Family>,
    /// The addresses that its status shows.
    pub shown: Vec<IpAddr>,
    /// What it asks for, or why that can't be read.
    pub wish: Result<Wish, Refused>,
}

impl Demand {
    /// What the Service asks for; none where it asks nothing of us.
    pub fn of(service: &Service) -> Option<Self> {
        let class = service.load_balancer_class.as_deref();
        if service.service_type != ServiceType::LoadBalancer || class.is_some_and(|c| c != CLASS) {
            return None;
        }
        let listed = service.ip_families.iter().map(|family| match family {
            IpFamily::Ipv4 => Family::V4,
            IpFamily::Ipv6 => Family::V6,
        });
        let mut families: BTreeSet<Family> = listed.collect();
        if families.is_empty() {
            families.extend(service.cluster_ips.iter().copied().map(Family::of));
        }
        if families.is_empty() {
            families.insert(Family::V4);
        }
        Some(Self {
            service: ServiceKey {
                namespace: service.namespace.clone(),
                name: service.name.clone(),
            },
            families,
            shown: service.load_balancer_ips.clone(),
            wish: wish(service),
        })
    }
}

fn wish(service: &Service) -> Result<Wish, Refused> {
    if let Some(list) = list(service, "loadBalancerIPs")? {
        let parse = |text: &String| {
            text.parse().map_err(|_| Refused::Annotation {
                key: "loadBalancerIPs",
                reason: format!("{text:?} is not an IP address"),
            })
        };
        return Ok(Wish::Exactly(
            list.iter().map(parse).collect::<Result<_, _>>()?,
        ));
    }
    if let Some(address) = service.requested_load_balancer_ip {
        return Ok(Wish::Exactly(vec![address]));
    }
    let (v4, v6) = (list(service, "ipv4pools")?, list(service, "ipv6pools")?);
    Ok(if v4.is_none() && v6.is_none() {
        Wish::Any
    } else {
        Wish::Pools { v4, v6 }
    })
}

/// A JSON list of strings; an empty one says nothing.
fn list(service: &Service, key: &'static str) -> Result<Option<Vec<String>>, Refused> {
    let Some(text) = service.annotations.get(&format!("{ANNOTATIONS}{key}")) else {
        return Ok(None);
    };
    let list: Vec<String> = serde_json::from_str(text).map_err(|error| Refused::Annotation {
        key,
        reason: format!("{text:?} is not a JSON list of strings: {error}"),
    })?;
    Ok(Some(list).filter(|list| !list.is_empty()))
}
