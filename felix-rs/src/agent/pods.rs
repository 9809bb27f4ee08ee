//! CNI calls: the kernel has everything, policy included, before ADD is answered.

mod add;
mod check;
mod host_ports;
mod remove;

pub(super) use add::link_of;
pub(super) use remove::Deletion;

use super::Agent;
use crate::add_times;
use crate::cni_socket::Call;
use felix_core::{EndpointKey, LocalEndpoint, Phase};
use ipnet::IpNet;
use model::cni::{Added, Command, Failure, Reply, Request};
use model::dataplane::{Neighbour, PodLink};
use model::names;
use std::time::{Duration, Instant};

/// An ADD waits this long for the datastore to give a block, or for the kernel to finish the
/// deletion of the interface that was there before.
const WAIT_DEADLINE: Duration = Duration::from_secs(3);

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
    /// Something has to happen first.
    Wait(Awaited),
}

/// What an ADD waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    /// The claim of a block.
    Block(IpNet),
    /// The Pod object, which may say which addresses it wants.
    PodObject,
    /// The deletion of a link whose other end is in the pod's namespace.
    Deletion,
}

impl Awaited {
    fn phase(self) -> add_times::Phase {
        match self {
            Self::Block(_) => add_times::Phase::Block,
            Self::PodObject => add_times::Phase::PodObject,
            Self::Deletion => add_times::Phase::Deletion,
        }
    }
}

/// An ADD that waits.
pub(super) struct Waiting {
    call: Call,
    deadline: Instant,
    awaited: Awaited,
}

fn failed(code: u32, msg: impl Into<String>, details: impl Into<String>) -> Failure {
    Failure {
        code,
        msg: msg.into(),
        details: details.into(),
    }
}

impl Agent {
    pub(super) fn on_call(&mut self, mut call: Call) {
        call.laps.lap(add_times::Phase::Queue);
        let reply = match call.request.command {
            Command::Add => return self.on_add(call, Instant::now() + WAIT_DEADLINE),
            Command::Del => {
                self.give_up_waiting(&key(&call.request));
                self.remove_endpoint(&key(&call.request));
                Reply::Done
            }
            Command::Check => match self.check(&call.request, &call.descriptors) {
                Ok(()) => Reply::Done,
                Err(failure) => Reply::Failed(failure),
            },
            Command::Status => match self.will_serve() {
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
        call.answer(reply);
    }

    /// A start with a snapshot serves soon, whatever the datastore does; a failing STATUS would
    /// make the node not ready.
    fn will_serve(&self) -> Result<(), String> {
        if self.calc.objects().has_snapshot() {
            return Ok(());
        }
        self.serving()
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

    fn on_add(&mut self, mut call: Call, deadline: Instant) {
        // A deletion of the same container that waits in the spool is older.
        self.take_spool();
        match self.add(&call.request, &call.descriptors, &mut call.laps) {
            Outcome::Answer(reply) => {
                if let Reply::Failed(failure) = &call_log(&call.request, &reply) {
                    tracing::warn!(
                        pod = %pod_name(&call.request),
                        code = failure.code,
                        error = %failure.msg,
                        "ADD failed"
                    );
                }
                call.answer(reply);
            }
            Outcome::Wait(awaited) => {
                if let Awaited::Block(block) = awaited {
                    self.claim(block);
                }
                self.waiting.push(Waiting {
                    call,
                    deadline,
                    awaited,
                });
            }
        }
    }

    /// A runtime that gave up an ADD takes it down: it must not come to be after that.
    fn give_up_waiting(&mut self, gone: &EndpointKey) {
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let (given_up, kept) = waiting.partition(|add| key(&add.call.request) == *gone);
        self.waiting = kept;
        for Waiting { call, awaited, .. } in given_up {
            let reason = match awaited {
                Awaited::Block(_) => "taken down by DEL while it waited for a block",
                Awaited::PodObject => "taken down by DEL while it waited for its Pod object",
                Awaited::Deletion => "taken down by DEL while it waited for an earlier deletion",
            };
            let failure = failed(code::TRY_AGAIN, reason, "");
            call.answer(Reply::Failed(failure));
        }
    }

    /// ADDs that wait: one more attempt each, or the end of their patience.
    pub(super) fn retry_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        for Waiting {
            mut call,
            deadline,
            awaited,
        } in std::mem::take(&mut self.waiting)
        {
            call.laps.lap(awaited.phase());
            if Instant::now() < deadline {
                self.on_add(call, deadline);
            } else {
                let reason = match awaited {
                    Awaited::Block(block) => format!(
                        "the datastore did not answer the claim of the block {block} in time"
                    ),
                    Awaited::PodObject => format!(
                        "pod {}: its Pod object did not come in time",
                        pod_name(&call.request)
                    ),
                    Awaited::Deletion => format!(
                        "pod {}: the earlier {} in its namespace is still being deleted",
                        pod_name(&call.request),
                        call.request.ifname
                    ),
                };
                let failure = failed(code::TRY_AGAIN, reason, "the runtime will try again");
                call.answer(Reply::Failed(failure));
            }
        }
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

    pub(super) fn pod_link(&self, local: &LocalEndpoint) -> PodLink {
        let endpoint = &local.endpoint;
        PodLink {
            host_name: endpoint.interface_name.to_string(),
            host_ifindex: local.ifindex,
            alias: format!(
                "{}{}/{}",
                names::ALIAS_PREFIX,
                endpoint.namespace,
                endpoint.pod
            ),
            pod_name: endpoint.endpoint.to_string(),
            pod_mac: endpoint.mac,
            mtu: local.mtu,
            queues: 1,
            addresses: endpoint.ip_networks.iter().map(IpNet::addr).collect(),
            loopback: !endpoint.host_ports.is_empty(),
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
        host_interface: local.endpoint.interface_name.to_string(),
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
