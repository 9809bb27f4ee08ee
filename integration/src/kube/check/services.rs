//! Services, and who reaches them.

use super::world::{REACH, World, text};
use crate::lab::probe::{Probe, Protocol};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The addresses that Services of type LoadBalancer get.
const POOL: &str = "198.51.100.0/26";

pub(super) fn cluster_ip(world: &mut World) -> Result<String> {
    let names: BTreeSet<String> = world
        .base()?
        .iter()
        .map(|member| member.name.clone())
        .collect();
    world.cluster.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: base}\nspec:\n  selector: {app: web}\n  \
         ipFamilyPolicy: PreferDualStack\n  ports:\n  - {name: tcp, port: 80, targetPort: 9376}\n  \
         - {name: udp, port: 81, targetPort: 9376, protocol: UDP}\n",
    )?;
    let service = world
        .cluster
        .kubectl_json(&["-n", "base", "get", "service", "web"])?;
    let addresses = strings(&service, "/spec/clusterIPs")?;
    ensure!(addresses.len() == 2, "ClusterIPs {addresses:?}");
    let mut seen = BTreeSet::new();
    for member in world.made_base()? {
        for address in &addresses {
            for (protocol, port) in [(Protocol::Tcp, 80), (Protocol::Udp, 81)] {
                let who = world.until(&format!("{address}:{port} from {}", member.name), || {
                    member.probe.reach(protocol, *address, port, REACH)
                })?;
                ensure!(
                    names.contains(&who),
                    "{address}:{port} was answered by {who}"
                );
                seen.insert(who);
            }
        }
    }
    ensure!(seen.len() > 1, "one pod only answers: {seen:?}");
    Ok(format!(
        "{} ClusterIPs, {} pods answered",
        addresses.len(),
        seen.len()
    ))
}

pub(super) fn load_balancer(world: &mut World) -> Result<String> {
    world.outside()?;
    let names: BTreeSet<String> = world
        .base()?
        .iter()
        .map(|member| member.name.clone())
        .collect();
    world.cluster.apply(&format!(
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: services}}\n\
         spec: {{cidr: {POOL}, allowedUses: [LoadBalancer], natOutgoing: false}}\n"
    ))?;
    let patch = format!(r#"{{"spec":{{"serviceLoadBalancerIPs":[{{"cidr":"{POOL}"}}]}}}}"#);
    let defaults = [
        "patch",
        "bgpconfigurations.projectcalico.org",
        "default",
        "--type=merge",
    ];
    world.kubectl(&[&defaults[..], &["-p", &patch]].concat())?;
    world.cluster.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: public, namespace: base}\nspec:\n  type: LoadBalancer\n  \
         selector: {app: web}\n  ports:\n  - {port: 80, targetPort: 9376}\n",
    )?;
    let address = world.until("an address of the Service", || {
        let service = world
            .cluster
            .kubectl_json(&["-n", "base", "get", "service", "public"])?;
        let address: IpAddr = text(&service, "/status/loadBalancer/ingress/0/ip").parse()?;
        Ok(address)
    })?;
    let pool: ipnet::IpNet = POOL.parse()?;
    ensure!(pool.contains(&address), "{address} is not of {POOL}");
    let (_, outside) = world.base_and_outside()?;
    let who = world.until(&format!("{address} from outside"), || {
        reach(outside, address)
    })?;
    ensure!(names.contains(&who), "{address} was answered by {who}");
    world.kubectl(&["-n", "base", "delete", "service", "public"])?;
    world.until("the routers to forget the address", || {
        let said = world.cluster.vtysh("tor2", "show bgp ipv4 unicast json")?;
        ensure!(!said.contains(&format!("\"{address}/32\"")), "tor2 has it");
        Ok(())
    })?;
    world.kubectl(&["delete", "ippools.projectcalico.org", "services"])?;
    Ok(format!("{address} answered by {who}"))
}

fn reach(from: &Probe, address: IpAddr) -> Result<String> {
    from.reach(Protocol::Tcp, address, 80, REACH)
}

fn strings(value: &Value, pointer: &str) -> Result<Vec<IpAddr>> {
    let list = value.pointer(pointer).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .map(|word| {
            word.as_str()
                .unwrap_or_default()
                .parse()
                .context("an address")
        })
        .collect()
}
