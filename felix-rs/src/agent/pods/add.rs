//! ADD: link, journal, policy, routes, pod, in this order.

use super::{Awaited, Outcome, added, code, failed, key, neighbours, pod_name};
use crate::add_times::{self, Laps};
use crate::agent::addresses::{is_ours, now_ms, owner};
use crate::agent::{Agent, Table};
use crate::store::Write;
use felix_core::{EndpointKey, LocalEndpoint, Phase};
use ipam::annotations::Wanted;
use ipam::journal::Record;
use ipam::{AssignError, AssignRequest, Family};
use ipnet::IpNet;
use kernel::LinkError;
use model::cni::{Failure, Reply, Request};
use model::dataplane::{PodLink, RouteKind};
use model::{Kind, Labels, Object, ObjectKey, WorkloadEndpoint, names};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// How long ADD waits for the kernel to let packets through a link that is up.
const CARRIER_DEADLINE: Duration = Duration::from_millis(500);
/// Attempts to find a free interface index.
const INDEX_ATTEMPTS: u32 = 64;

impl Agent {
    pub(super) fn add(
        &mut self,
        request: &Request,
        descriptors: &[OwnedFd],
        laps: &mut Laps,
    ) -> Outcome {
        if let Err(reason) = self.serving() {
            let failure = failed(code::TRY_AGAIN, reason, "the runtime will try again");
            return Outcome::Answer(Reply::Failed(failure));
        }
        let [netns, socket] = descriptors else {
            let message = format!(
                "{} descriptors came with ADD instead of 2",
                descriptors.len()
            );
            return Outcome::Answer(Reply::Failed(failed(
                code::INVALID_ENVIRONMENT,
                message,
                "",
            )));
        };
        let key = key(request);
        if let Some(local) = self.calc.local().get(&key).cloned() {
            let healthy = self
                .kernel
                .check_pod(&self.pod_link(&local), socket.as_fd());
            if healthy.is_ok_and(|faults| faults.is_empty()) {
                return Outcome::Answer(Reply::Added(added(&local)));
            }
            // Half an ADD, or another namespace under the same name: begin again.
            self.remove_endpoint(&key);
        }
        if let Err(failure) = self.host_ports_are_free(request) {
            return Outcome::Answer(Reply::Failed(failure));
        }
        if !self.deleting.is_empty()
            && self
                .kernel
                .pod_has_interface(&request.ifname, socket.as_fd())
        {
            return Outcome::Wait(Awaited::Deletion);
        }
        if self.awaits_pod_object(request, &key) {
            return Outcome::Wait(Awaited::PodObject);
        }
        let wanted = match self.wanted(request) {
            Ok(wanted) => wanted,
            Err(error) => {
                let message = format!("pod {}: {error}", pod_name(request));
                let failure = failed(code::INVALID_CONFIG, message, "");
                return Outcome::Answer(Reply::Failed(failure));
            }
        };
        let assigned = self.assign(request, &wanted, &key);
        laps.lap(add_times::Phase::Address);
        match assigned {
            Ok(ips) => match self.set_up(request, wanted.mac, ips, (netns, socket), laps) {
                Ok(local) => Outcome::Answer(Reply::Added(added(&local))),
                Err(failure) => {
                    self.remove_endpoint(&key);
                    self.ipam.release(&owner(&key), now_ms());
                    Outcome::Answer(Reply::Failed(failure))
                }
            },
            Err(AssignError::NeedsBlock { block }) if self.calc.phase() == Phase::InSync => {
                Outcome::Wait(Awaited::Block(block))
            }
            Err(error) => Outcome::Answer(Reply::Failed(assign_failure(&error, self.calc.phase()))),
        }
    }

    fn assign(
        &mut self,
        request: &Request,
        wanted: &Wanted,
        key: &EndpointKey,
    ) -> Result<Vec<IpNet>, AssignError> {
        let namespace = ObjectKey::global(Kind::Namespace, &request.namespace);
        let labels: Option<Labels> = match self.calc.objects().get(&namespace) {
            Some(Object::Namespace(namespace)) => Some(namespace.labels.clone()),
            _ => None,
        };
        let (v4, v6) = match &wanted.families {
            Some(families) => (
                families.contains(&Family::V4),
                families.contains(&Family::V6),
            ),
            None => {
                let (v4, v6) = self.ipam.families();
                (
                    request.assign_ipv4.unwrap_or(v4),
                    request.assign_ipv6.unwrap_or(v6),
                )
            }
        };
        // Where no pool gives anything, the error names the family that could be meant.
        let neither = !v4 && !v6;
        let only_v6 = request.assign_ipv4 == Some(false);
        let assigned = self.ipam.assign(
            &AssignRequest {
                owner: owner(key),
                namespace_labels: labels.as_ref(),
                requested: &wanted.ips,
                pools: &wanted.pools,
                v4: v4 || (neither && !only_v6),
                v6: v6 || (neither && only_v6),
            },
            now_ms(),
        )?;
        Ok(assigned
            .into_iter()
            .map(|assignment| IpNet::from(assignment.ip))
            .collect())
    }

    /// Link, journal, policy, routes, pod: in this order, so that nothing is open before its
    /// policy is in force and nothing is forgotten by a crash in between.
    fn set_up(
        &mut self,
        request: &Request,
        mac: Option<[u8; 6]>,
        ips: Vec<IpNet>,
        (netns, socket): (&OwnedFd, &OwnedFd),
        laps: &mut Laps,
    ) -> Result<LocalEndpoint, Failure> {
        let mtu = request.mtu.unwrap_or_else(|| self.calc.pod_mtu());
        let mac = mac.unwrap_or_else(|| link_of(&request.container_id, &request.ifname).1);
        let endpoint = self.endpoint(request, ips, mac);
        let sequence = self.journal.state().next_sequence;
        let mut local = LocalEndpoint {
            endpoint,
            ifindex: self.next_ifindex,
            mtu,
            sequence,
        };
        self.create_link(&mut local, request.queues, netns)?;
        laps.lap(add_times::Phase::Link);
        let record = Record::Endpoint {
            endpoint: local.endpoint.clone(),
            ifindex: local.ifindex,
            mtu,
            sequence,
            network: request.network.clone(),
        };
        if let Err(error) = self.journal.append(&record) {
            self.delete_link(local.ifindex);
            return Err(failed(
                code::IO,
                error.to_string(),
                "the address was not given out",
            ));
        }
        laps.lap(add_times::Phase::Journal);
        self.calc.set_local(local.clone());
        // What failed a moment ago is tried again at once: a pod waits for it.
        self.retry_at = None;
        self.pending.append(&mut self.deferred);
        // What fails elsewhere is no failure of this pod; `finish` looks at what is its own.
        let failure = self.converge().err();
        if let Some(error) = &failure {
            self.fail(error);
        }
        laps.lap(add_times::Phase::Program);
        self.finish(request, &local, socket, laps)?;
        self.store
            .write(Write::Put(Box::new(Object::WorkloadEndpoint(Box::new(
                local.endpoint.clone(),
            )))));
        Ok(local)
    }

    fn finish(
        &mut self,
        request: &Request,
        local: &LocalEndpoint,
        socket: &OwnedFd,
        laps: &mut Laps,
    ) -> Result<(), Failure> {
        let device = RouteKind::Device {
            ifindex: local.ifindex,
        };
        let missing =
            local.endpoint.ip_networks.iter().find(|ip| {
                self.table != Table::InStep || self.actual.routes.get(*ip) != Some(&device)
            });
        if let Some(ip) = missing {
            let cause = self
                .last_failure
                .as_deref()
                .unwrap_or("no reason was given");
            let message = format!("pod {}: {ip} is not in force: {cause}", pod_name(request));
            return Err(failed(code::KERNEL, message, ""));
        }
        let kernel_failure = |operation: &str, error: String| {
            failed(
                code::KERNEL,
                format!("pod {}: {operation}: {error}", pod_name(request)),
                "",
            )
        };
        if let Some((_, error)) = self
            .kernel
            .set_neighbours(&neighbours(local))
            .into_iter()
            .next()
        {
            return Err(kernel_failure("neighbour entries", error.to_string()));
        }
        let link = self.pod_link(local);
        let ready = self
            .kernel
            .configure_pod(&link, socket.as_fd())
            .and_then(|()| {
                laps.lap(add_times::Phase::PodEnd);
                self.kernel
                    .await_pod_link(&link, socket.as_fd(), CARRIER_DEADLINE)
            })
            .map_err(|error| kernel_failure("inside the pod", error.to_string()))?;
        laps.lap(add_times::Phase::Carrier);
        if !ready {
            tracing::warn!(
                pod = %pod_name(request),
                interface = %link.host_name,
                "the link takes no packets yet; the first ones may be lost"
            );
        }
        self.forget_flows_past(local);
        Ok(())
    }

    /// The link, under the next free interface index. What an earlier attempt left under the same
    /// name is replaced.
    fn create_link(
        &mut self,
        local: &mut LocalEndpoint,
        queues: Option<u32>,
        netns: &OwnedFd,
    ) -> Result<(), Failure> {
        let pod = format!("{}/{}", local.endpoint.namespace, local.endpoint.pod);
        let mut replaced = false;
        for _ in 0..INDEX_ATTEMPTS {
            local.ifindex = self.next_ifindex;
            self.next_ifindex = self
                .next_ifindex
                .checked_add(1)
                .unwrap_or(names::FIRST_IFINDEX);
            let wanted = PodLink {
                queues: queues.unwrap_or(1),
                ..self.pod_link(local)
            };
            match self.kernel.create_pod_link(&wanted, netns.as_fd()) {
                Ok(link) => {
                    self.rising.insert(link.ifindex);
                    self.calc.on_link(link);
                    return Ok(());
                }
                Err(LinkError::IndexTaken { .. }) => {}
                Err(LinkError::NameTaken { .. }) if !replaced => {
                    replaced = true;
                    self.remove_leftover(&local.endpoint.interface_name);
                }
                Err(LinkError::PodNameTaken { pod_name, .. }) => {
                    let message =
                        format!("CNI_IFNAME: pod {pod} already has an interface {pod_name}");
                    return Err(failed(code::INVALID_ENVIRONMENT, message, ""));
                }
                Err(error) => {
                    let message = format!("pod {pod}: {error}");
                    return Err(failed(code::KERNEL, message, ""));
                }
            }
        }
        let message = format!("pod {pod}: no free interface index after {INDEX_ATTEMPTS} attempts");
        Err(failed(code::KERNEL, message, ""))
    }

    fn remove_leftover(&mut self, name: &str) {
        let Ok(links) = self.kernel.links() else {
            return;
        };
        if let Some(link) = links.iter().find(|link| link.name == name && is_ours(link))
            && let Err(error) = self.kernel.delete_link(link.ifindex)
        {
            tracing::warn!(%name, %error, "leftover link not removed");
        }
    }

    fn endpoint(&self, request: &Request, ips: Vec<IpNet>, mac: [u8; 6]) -> WorkloadEndpoint {
        WorkloadEndpoint {
            namespace: request.namespace.clone().into(),
            name: WorkloadEndpoint::name_of(&self.options.node_name, &request.pod, &request.ifname)
                .into(),
            node: self.options.node_name.clone().into(),
            pod: request.pod.clone().into(),
            pod_uid: request.pod_uid.as_deref().map(Into::into),
            container_id: request.container_id.clone().into(),
            endpoint: request.ifname.clone().into(),
            interface_name: link_of(&request.container_id, &request.ifname).0.into(),
            mac,
            ip_networks: ips,
            labels: request.labels.clone(),
            ports: request.ports.clone().into(),
            host_ports: request.host_ports.clone(),
        }
    }
}

fn assign_failure(error: &AssignError, phase: Phase) -> Failure {
    let code = match error {
        AssignError::Exhausted { .. } => code::NO_ADDRESS,
        AssignError::NeedsBlock { .. } => code::TRY_AGAIN,
        AssignError::InUse { .. }
        | AssignError::InUseElsewhere { .. }
        | AssignError::ForeignBlock { .. } => code::ADDRESS_IN_USE,
        _ => code::INVALID_CONFIG,
    };
    let details = match phase {
        Phase::InSync => "",
        _ => "the datastore does not answer, so that no block can be claimed",
    };
    failed(code, error.to_string(), details)
}

/// Name of the host end and MAC of the pod's end, the same for the same container after a restart.
/// The name is the prefix and 11 hexadecimal digits, 14 of the 15 characters that Linux allows; the
/// MAC is locally administered, unicast.
pub(in crate::agent) fn link_of(container_id: &str, ifname: &str) -> (String, [u8; 6]) {
    let bytes = container_id.bytes().chain([0]).chain(ifname.bytes());
    // 64-bit FNV-1a.
    let fingerprint = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let digits = format!("{fingerprint:016x}");
    let digits = digits.get(..11).unwrap_or_default();
    let [a, b, c, d, e, ..] = fingerprint.to_le_bytes();
    (
        format!("{}{digits}", names::INTERFACE_PREFIX),
        [0x0a, a, b, c, d, e],
    )
}
