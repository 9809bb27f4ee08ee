//! CNI calls: the kernel has everything, policy included, before ADD is answered.

use super::addresses::{is_ours, key_of, now_ms, owner};
use super::{Agent, Table};
use crate::cni_socket::Call;
use crate::store::Write;
use felix_core::{EndpointKey, LocalEndpoint, Phase};
use ipam::journal::Record;
use ipam::{AssignError, AssignRequest};
use ipnet::IpNet;
use kernel::LinkError;
use model::cni::{Added, Command, Failure, Reply, Request};
use model::dataplane::{Neighbour, PodLink, Route, RouteKind};
use model::{Kind, Labels, Object, ObjectKey, WorkloadEndpoint, names};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// An ADD that needs a block waits this long for the datastore.
const BLOCK_DEADLINE: Duration = Duration::from_secs(3);
/// Attempts to find a free interface index.
const INDEX_ATTEMPTS: u32 = 64;

/// Codes of the CNI specification, and ours from 100 on.
mod code {
    pub(super) const INVALID_ENVIRONMENT: u32 = 4;
    pub(super) const IO: u32 = 5;
    pub(super) const INVALID_CONFIG: u32 = 7;
    pub(super) const TRY_AGAIN: u32 = 11;
    pub(super) const NOT_AVAILABLE: u32 = 50;
    pub(super) const NO_ADDRESS: u32 = 100;
    pub(super) const ADDRESS_IN_USE: u32 = 101;
    pub(super) const KERNEL: u32 = 102;
    pub(super) const UNHEALTHY: u32 = 103;
}

/// What becomes of an ADD.
enum Outcome {
    Answer(Reply),
    /// A block has to be claimed first.
    Wait(IpNet),
}

fn failed(code: u32, msg: impl Into<String>, details: impl Into<String>) -> Failure {
    Failure {
        code,
        msg: msg.into(),
        details: details.into(),
    }
}

impl Agent {
    pub(super) fn on_call(&mut self, call: Call) {
        let reply = match call.request.command {
            Command::Add => return self.on_add(call, Instant::now() + BLOCK_DEADLINE),
            Command::Del => {
                self.give_up_waiting(&key(&call.request));
                self.remove_endpoint(&key(&call.request));
                Reply::Done
            }
            Command::Check => match self.check(&call.request, &call.descriptors) {
                Ok(()) => Reply::Done,
                Err(failure) => Reply::Failed(failure),
            },
            Command::Status => match self.serving() {
                Ok(()) => Reply::Done,
                Err(reason) => Reply::Failed(failed(
                    code::NOT_AVAILABLE,
                    format!("node {}: {reason}", self.options.node_name),
                    "",
                )),
            },
            Command::Gc => {
                self.collect(&call.request);
                Reply::Done
            }
        };
        // A plugin that is gone needs no answer.
        let _ = call.reply.send(reply);
    }

    fn serving(&self) -> Result<(), String> {
        if self.calc.phase() == Phase::Starting {
            let lost = self.calc.objects().lost();
            let reason = lost.map_or_else(|| "it has not answered yet".to_owned(), str::to_owned);
            return Err(format!(
                "nothing is known of the cluster yet; datastore: {reason}"
            ));
        }
        Ok(())
    }

    fn on_add(&mut self, call: Call, deadline: Instant) {
        // A deletion of the same container that waits in the spool is older.
        self.take_spool();
        match self.add(&call.request, &call.descriptors) {
            Outcome::Answer(reply) => {
                if let Reply::Failed(failure) = &call_log(&call.request, &reply) {
                    tracing::warn!(
                        pod = %pod_name(&call.request),
                        code = failure.code,
                        error = %failure.msg,
                        "ADD failed"
                    );
                }
                // A plugin that gave up waiting sends DEL for what it did not get to know.
                let _ = call.reply.send(reply);
            }
            Outcome::Wait(block) => {
                self.claim(block);
                self.waiting.push((call, deadline));
            }
        }
    }

    /// A runtime that gave up an ADD takes it down: it must not come to be after that.
    fn give_up_waiting(&mut self, gone: &EndpointKey) {
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let (given_up, kept) = waiting.partition(|(call, _)| key(&call.request) == *gone);
        self.waiting = kept;
        for (call, _) in given_up {
            let reason = "taken down by DEL while it waited for a block";
            let failure = failed(code::TRY_AGAIN, reason, "");
            let _ = call.reply.send(Reply::Failed(failure));
        }
    }

    /// ADDs that wait for a block: one more attempt each, or the end of their patience.
    pub(super) fn retry_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        for (call, deadline) in std::mem::take(&mut self.waiting) {
            if Instant::now() < deadline {
                self.on_add(call, deadline);
            } else {
                let reason = "the datastore did not answer the claim of a block in time";
                let failure = failed(code::TRY_AGAIN, reason, "the runtime will try again");
                let _ = call.reply.send(Reply::Failed(failure));
            }
        }
    }

    fn add(&mut self, request: &Request, descriptors: &[OwnedFd]) -> Outcome {
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
        match self.assign(request, &key) {
            Ok(ips) => match self.set_up(request, ips, netns, socket) {
                Ok(local) => Outcome::Answer(Reply::Added(added(&local))),
                Err(failure) => {
                    self.remove_endpoint(&key);
                    self.ipam.release(&owner(&key), now_ms());
                    Outcome::Answer(Reply::Failed(failure))
                }
            },
            Err(AssignError::NeedsBlock { block }) if self.calc.phase() == Phase::InSync => {
                Outcome::Wait(block)
            }
            Err(error) => Outcome::Answer(Reply::Failed(assign_failure(&error, self.calc.phase()))),
        }
    }

    fn assign(&mut self, request: &Request, key: &EndpointKey) -> Result<Vec<IpNet>, AssignError> {
        let namespace = ObjectKey::global(Kind::Namespace, &request.namespace);
        let labels: Option<Labels> = match self.calc.objects().get(&namespace) {
            Some(Object::Namespace(namespace)) => Some(namespace.labels.clone()),
            _ => None,
        };
        let (v4, v6) = self.ipam.families();
        let neither = !v4 && !v6;
        let assigned = self.ipam.assign(
            &AssignRequest {
                owner: owner(key),
                namespace_labels: labels.as_ref(),
                requested: &request.ips,
                pools: &request.pools,
                v4: v4 || neither,
                v6,
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
        ips: Vec<IpNet>,
        netns: &OwnedFd,
        socket: &OwnedFd,
    ) -> Result<LocalEndpoint, Failure> {
        let mtu = request.mtu.unwrap_or_else(|| self.calc.pod_mtu());
        let mac = request.mac.unwrap_or_else(|| pod_mac(request));
        let endpoint = self.endpoint(request, ips, mac);
        let sequence = self.journal.state().next_sequence;
        let mut local = LocalEndpoint {
            endpoint,
            ifindex: self.next_ifindex,
            mtu,
            sequence,
        };
        self.create_link(&mut local, netns)?;
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
        self.calc.set_local(local.clone());
        // What fails elsewhere is no failure of this pod; `finish` looks at what is its own.
        let failure = self.converge().err();
        if let Some(error) = &failure {
            self.fail(error);
        }
        self.finish(request, &local, socket)?;
        self.store
            .write(Write::Put(Box::new(Object::WorkloadEndpoint(
                local.endpoint.clone(),
            ))));
        Ok(local)
    }

    fn finish(
        &mut self,
        request: &Request,
        local: &LocalEndpoint,
        socket: &OwnedFd,
    ) -> Result<(), Failure> {
        let device = RouteKind::Device {
            ifindex: local.ifindex,
        };
        let missing =
            local.endpoint.ip_networks.iter().find(|ip| {
                self.table != Table::InStep || self.actual.routes.get(*ip) != Some(&device)
            });
        if let Some(ip) = missing {
            let route = Route {
                dest: *ip,
                kind: device,
            };
            let message = format!("pod {}: not programmed: {route:?}", pod_name(request));
            let cause = self.last_failure.clone().unwrap_or_default();
            return Err(failed(code::KERNEL, message, cause));
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
        self.kernel
            .configure_pod(&self.pod_link(local), socket.as_fd())
            .map_err(|error| kernel_failure("inside the pod", error.to_string()))
    }

    /// Nobody tells when a permanent entry goes, with an interface that was down or by hand: set
    /// all of them again.
    pub(super) fn restore_neighbours(&mut self) {
        let wanted: Vec<Neighbour> = self.calc.local().values().flat_map(neighbours).collect();
        if wanted.is_empty() {
            return;
        }
        for (neighbour, error) in self.kernel.set_neighbours(&wanted) {
            tracing::warn!(address = %neighbour.address, %error, "neighbour entry not set");
        }
    }

    /// The link, under the next free interface index. What an earlier attempt left under the same
    /// name is replaced.
    fn create_link(&mut self, local: &mut LocalEndpoint, netns: &OwnedFd) -> Result<(), Failure> {
        let pod = format!("{}/{}", local.endpoint.namespace, local.endpoint.pod);
        let mut replaced = false;
        for _ in 0..INDEX_ATTEMPTS {
            local.ifindex = self.next_ifindex;
            self.next_ifindex = self
                .next_ifindex
                .checked_add(1)
                .unwrap_or(names::FIRST_IFINDEX);
            match self
                .kernel
                .create_pod_link(&self.pod_link(local), netns.as_fd())
            {
                Ok(link) => {
                    self.calc.on_link(link);
                    return Ok(());
                }
                Err(LinkError::IndexTaken { .. }) => {}
                Err(LinkError::NameTaken { .. }) if !replaced => {
                    replaced = true;
                    self.remove_leftover(&local.endpoint.interface_name);
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
        let doubled = |part: &str| part.replace('-', "--");
        WorkloadEndpoint {
            namespace: request.namespace.clone(),
            name: format!(
                "{}-k8s-{}-{}",
                doubled(&self.options.node_name),
                doubled(&request.pod),
                doubled(&request.ifname)
            ),
            node: self.options.node_name.clone(),
            pod: request.pod.clone(),
            pod_uid: request.pod_uid.clone(),
            container_id: request.container_id.clone(),
            endpoint: request.ifname.clone(),
            interface_name: host_name(request),
            mac,
            ip_networks: ips,
            labels: request.labels.clone(),
            ports: request.ports.clone(),
        }
    }

    pub(super) fn pod_link(&self, local: &LocalEndpoint) -> PodLink {
        let endpoint = &local.endpoint;
        PodLink {
            host_name: endpoint.interface_name.clone(),
            host_ifindex: local.ifindex,
            alias: format!(
                "{}{}/{}",
                names::ALIAS_PREFIX,
                endpoint.namespace,
                endpoint.pod
            ),
            pod_name: endpoint.endpoint.clone(),
            pod_mac: endpoint.mac,
            mtu: local.mtu,
            addresses: endpoint.ip_networks.iter().map(IpNet::addr).collect(),
        }
    }

    /// Take an endpoint down: policy, routes, address, link. Nothing happens where there is none.
    pub(super) fn remove_endpoint(&mut self, key: &EndpointKey) {
        let Some(local) = self.calc.remove_local(key) else {
            return;
        };
        if let Err(error) = self.converge() {
            self.fail(&error);
        }
        let now = now_ms();
        self.ipam.release(&owner(key), now);
        let record = Record::EndpointGone {
            container_id: key.container_id.clone(),
            ifname: key.ifname.clone(),
            sequence: local.sequence,
            at_ms: now,
        };
        if let Err(error) = self.journal.append(&record) {
            tracing::error!(%error, "a deletion was not journaled");
        }
        self.delete_link(local.ifindex);
        let object = key_of(&local.endpoint);
        if !self
            .calc
            .local()
            .values()
            .any(|other| key_of(&other.endpoint) == object)
        {
            self.store.write(Write::Delete(object));
        }
        if let Err(error) = self.journal.tidy(now, self.ipam.cooldown_ms) {
            tracing::warn!(%error, "journal not compacted");
        }
    }

    /// Off the reply's path: the kernel takes tens of milliseconds for it.
    fn delete_link(&mut self, ifindex: u32) {
        if let Err(error) = self.kernel.delete_link_in_background(ifindex) {
            tracing::warn!(%error, "a link stays behind");
        }
    }

    fn check(&mut self, request: &Request, descriptors: &[OwnedFd]) -> Result<(), Failure> {
        let pod = pod_name(request);
        let Some(local) = self.calc.local().get(&key(request)).cloned() else {
            let message = format!(
                "pod {pod}: container {} is not known here",
                request.container_id
            );
            return Err(failed(code::UNHEALTHY, message, ""));
        };
        let mut faults = Vec::new();
        if let [_, socket] = descriptors {
            match self
                .kernel
                .check_pod(&self.pod_link(&local), socket.as_fd())
            {
                Ok(found) => faults.extend(found),
                Err(error) => faults.push(error.to_string()),
            }
        }
        for ip in &local.endpoint.ip_networks {
            if self.actual.routes.get(ip)
                != Some(&RouteKind::Device {
                    ifindex: local.ifindex,
                })
            {
                faults.push(format!("route {ip} is missing"));
            }
        }
        for ip in request
            .prev_ips
            .iter()
            .filter(|ip| !local.endpoint.ip_networks.contains(ip))
        {
            faults.push(format!("address {ip} of prevResult is not the pod's"));
        }
        if self.table != Table::InStep {
            faults.push("policy is not known to be in force".to_owned());
        }
        if faults.is_empty() {
            return Ok(());
        }
        Err(failed(
            code::UNHEALTHY,
            format!("pod {pod}: {}", faults.join("; ")),
            "",
        ))
    }

    /// Free what the runtime no longer lists. It lists the attachments of one network.
    fn collect(&mut self, request: &Request) {
        let valid = |key: &EndpointKey| {
            request
                .valid_attachments
                .iter()
                .any(|(container, ifname)| *container == key.container_id && *ifname == key.ifname)
        };
        let journaled = &self.journal.state().endpoints;
        let of_network = |key: &EndpointKey| {
            journaled
                .get(&owner(key))
                .is_some_and(|live| live.network == request.network)
        };
        let locals = self.calc.local().keys();
        let gone: Vec<_> = locals
            .filter(|key| of_network(key) && !valid(key))
            .cloned()
            .collect();
        for key in gone {
            tracing::info!(container = %key.container_id, "GC: no longer listed, freed");
            self.remove_endpoint(&key);
        }
    }
}

fn call_log(request: &Request, reply: &Reply) -> Reply {
    if let Reply::Added(added) = reply {
        let ips: Vec<String> = added.ips.iter().map(|ip| ip.addr().to_string()).collect();
        tracing::debug!(pod = %pod_name(request), ?ips, interface = %added.host_interface, "ADD");
    }
    reply.clone()
}

fn key(request: &Request) -> EndpointKey {
    EndpointKey {
        container_id: request.container_id.clone(),
        ifname: request.ifname.clone(),
    }
}

fn pod_name(request: &Request) -> String {
    format!("{}/{}", request.namespace, request.pod)
}

fn added(local: &LocalEndpoint) -> Added {
    Added {
        host_interface: local.endpoint.interface_name.clone(),
        host_mac: names::HOST_MAC,
        pod_mac: local.endpoint.mac,
        mtu: local.mtu,
        ips: local.endpoint.ip_networks.clone(),
    }
}

fn neighbours(local: &LocalEndpoint) -> Vec<Neighbour> {
    let ips = local.endpoint.ip_networks.iter();
    ips.map(|ip| Neighbour {
        ifindex: local.ifindex,
        address: ip.addr(),
        mac: local.endpoint.mac,
    })
    .collect()
}

fn assign_failure(error: &AssignError, phase: Phase) -> Failure {
    let code = match error {
        AssignError::Exhausted { .. } => code::NO_ADDRESS,
        AssignError::NeedsBlock { .. } => code::TRY_AGAIN,
        AssignError::InUse { .. } | AssignError::ForeignBlock { .. } => code::ADDRESS_IN_USE,
        _ => code::INVALID_CONFIG,
    };
    let details = match phase {
        Phase::InSync => "",
        _ => "the datastore does not answer, so that no block can be claimed",
    };
    failed(code, error.to_string(), details)
}

/// 64-bit FNV-1a: names and MACs are the same for the same container after a restart.
fn fingerprint(request: &Request) -> u64 {
    let bytes = request
        .container_id
        .bytes()
        .chain([0])
        .chain(request.ifname.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The host end: the prefix and 11 hexadecimal digits, 14 of the 15 characters that Linux allows.
fn host_name(request: &Request) -> String {
    let digits = format!("{:016x}", fingerprint(request));
    format!(
        "{}{}",
        names::INTERFACE_PREFIX,
        digits.get(..11).unwrap_or_default()
    )
}

/// Locally administered, unicast.
fn pod_mac(request: &Request) -> [u8; 6] {
    let [a, b, c, d, e, ..] = fingerprint(request).to_le_bytes();
    [0x0a, a, b, c, d, e]
}
