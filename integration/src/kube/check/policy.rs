//! What policies close and open.

use super::world::{DENIED, Member, REACH, World};
use crate::kube::shape::OUTSIDE;
use crate::lab::probe::{Probe, Protocol};
use crate::prober::PORTS;
use anyhow::{Result, bail, ensure};
use std::net::IpAddr;

/// What the tests of a denial stand on.
pub(super) const CLOSED: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
     metadata: {name: one-only, namespace: base}\n\
     spec:\n  podSelector: {matchLabels: {name: base-0}}\n  policyTypes: [Ingress]\n  \
     ingress: [{from: [{podSelector: {matchLabels: {name: base-1}}}]}]\n";

/// A NetworkPolicy by which only `base-1` reaches `base-0`, in force.
pub(super) fn close(world: &World) -> Result<()> {
    world.cluster.apply(CLOSED)?;
    is_closed(world)
}

/// Waits until only `base-1` reaches `base-0`, at every address.
pub(super) fn is_closed(world: &World) -> Result<()> {
    let base = world.made_base()?;
    let target = &base[0];
    for member in &base[1..] {
        for address in &target.addresses {
            if member.name == "base-1" {
                expect(world, &member.probe, *address, Expected::Answer)?;
            } else {
                expect(world, &member.probe, *address, Expected::Silence)?;
            }
        }
    }
    Ok(())
}

/// Takes [`close`] back.
pub(super) fn open(world: &World) -> Result<()> {
    world.kubectl(&["-n", "base", "delete", "networkpolicy", "one-only"])?;
    is_open(world)
}

fn is_open(world: &World) -> Result<()> {
    let base = world.made_base()?;
    for member in &base[1..] {
        for address in &base[0].addresses {
            expect(world, &member.probe, *address, Expected::Answer)?;
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Answer,
    Silence,
}

/// Waits until an address answers, or until it does not.
fn expect(world: &World, from: &Probe, to: IpAddr, expected: Expected) -> Result<()> {
    let limit = if expected == Expected::Answer {
        REACH
    } else {
        DENIED
    };
    world.until(
        &format!("{expected:?} from {to} to {}", from.name()),
        || match (from.reach(Protocol::Tcp, to, PORTS[0], limit), expected) {
            (Ok(_), Expected::Answer) | (Err(_), Expected::Silence) => Ok(()),
            (Ok(who), Expected::Silence) => bail!("{who} answers"),
            (Err(error), Expected::Answer) => Err(error),
        },
    )
}

pub(super) fn network_policy(world: &mut World) -> Result<String> {
    world.base()?;
    world.outside()?;
    is_open(world)?;
    close(world)?;
    let (base, outside) = world.base_and_outside()?;
    expect(world, outside, base[0].addresses[0], Expected::Silence)?;
    expect(world, outside, base[1].addresses[0], Expected::Answer)?;
    open(world)?;
    Ok(format!("{} pods and a host outside", base.len()))
}

pub(super) fn cluster_network_policy(world: &mut World) -> Result<String> {
    world.base()?;
    let path = super::world::repository().join("deploy/cluster-network-policy.yaml");
    if path.is_file() {
        world.kubectl(&["apply", "--server-side", "-f", &path.display().to_string()])?;
    }
    close(world)?;
    world.cluster.apply(
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: closed}\n\
         spec:\n  tier: Admin\n  priority: 10\n  \
         subject: {pods: {namespaceSelector: {matchLabels: {team: base}}, podSelector: {matchLabels: {name: base-0}}}}\n  \
         ingress:\n  - {name: nobody, action: Deny, from: [{namespaces: {}}]}\n",
    )?;
    let base = world.made_base()?;
    expect(
        world,
        &base[1].probe,
        base[0].addresses[0],
        Expected::Silence,
    )?;
    world.kubectl(&[
        "delete",
        "clusternetworkpolicies.policy.networking.k8s.io",
        "closed",
    ])?;
    expect(
        world,
        &base[1].probe,
        base[0].addresses[0],
        Expected::Answer,
    )?;
    is_closed(world)?;
    open(world)?;
    Ok("denied above NetworkPolicy, and back".to_owned())
}

pub(super) fn calico(world: &mut World) -> Result<String> {
    world.outside()?;
    world.base()?;
    let folder = super::world::repository().join("integration/kube/calico");
    let folder = folder.display().to_string();
    let said = world.kubectl(&["apply", "-f", &folder])?;
    let kinds = said.lines().count();
    let base = world.made_base()?;
    let (target, other): (&Member, &Member) = (&base[0], &base[2]);
    let out: IpAddr = OUTSIDE.ipv4.parse()?;
    // examples.quarantine: whoever gets the label is cut off, and is back without it.
    for (label, expected) in [
        ("quarantine=true", Expected::Silence),
        ("quarantine-", Expected::Answer),
    ] {
        world.kubectl(&["-n", "base", "label", "pod", &other.name, label])?;
        expect(world, &target.probe, other.addresses[0], expected)?;
        expect(world, &target.probe, other.addresses[1], expected)?;
    }
    // A policy with a GlobalNetworkSet and an order; a staged one denies nothing.
    world.kubectl(&["-n", "base", "label", "pod", &other.name, "example=sealed"])?;
    expect(world, &other.probe, out, Expected::Silence)?;
    expect(world, &base[1].probe, out, Expected::Answer)?;
    expect(world, &other.probe, target.addresses[0], Expected::Answer)?;
    world.kubectl(&["-n", "base", "label", "pod", &other.name, "example-"])?;
    expect(world, &other.probe, out, Expected::Answer)?;
    let said = world.kubectl(&["delete", "-f", &folder])?;
    ensure!(said.lines().count() == kinds, "deleted: {said}");
    Ok(format!("{kinds} objects"))
}
