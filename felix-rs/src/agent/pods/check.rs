//! CHECK and GC.

use super::{code, failed, key, pod_name};
use crate::agent::addresses::owner;
use crate::agent::{Agent, Table};
use felix_core::EndpointKey;
use model::cni::{Failure, Request};
use model::dataplane::RouteKind;
use std::os::fd::{AsFd, OwnedFd};

impl Agent {
    pub(super) fn check(
        &mut self,
        request: &Request,
        descriptors: &[OwnedFd],
    ) -> Result<(), Failure> {
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
        match self.kernel.check_host_end(&self.pod_link(&local)) {
            Ok(found) => faults.extend(found),
            Err(error) => faults.push(error.to_string()),
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
    pub(super) fn collect(&mut self, request: &Request) {
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
        self.remember_list(request);
        for key in gone {
            tracing::info!(container = %key.container_id, "GC: no longer listed, freed");
            self.remove_endpoint(&key);
        }
    }
}
