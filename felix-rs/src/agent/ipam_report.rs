//! Answers to `ocicat ipam`.

use super::Agent;
use super::addresses::now_ms;
use crate::ctl::{Answer, BlockLine, CheckReport, IpamQuestion, IpamSummary, ProblemLine};
use felix_core::{EndpointKey, LocalEndpoint};
use ipnet::IpNet;
use std::net::IpAddr;

impl Agent {
    pub(super) fn ipam_answer(&mut self, question: IpamQuestion) -> Answer {
        match question {
            IpamQuestion::Show => {
                self.ipam.tick(now_ms());
                Answer::json(&IpamSummary {
                    pools: self.ipam.usages(),
                    tunnels: self.journal.state().tunnels.clone(),
                    freed: self.care.freed,
                })
            }
            IpamQuestion::Blocks => Answer::json(&self.block_lines()),
            IpamQuestion::Check => Answer::json(&self.check_report()),
            IpamQuestion::Release {
                address,
                sequence,
                force,
            } => match self.release_address(address, sequence, force) {
                Ok(sentence) => Answer::Text(sentence + "\n"),
                Err(reason) => Answer::Error(reason),
            },
        }
    }

    fn block_lines(&mut self) -> Vec<BlockLine> {
        self.ipam.tick(now_ms());
        let blocks = self.ipam.blocks();
        let lines = blocks.into_iter().map(|block| BlockLine {
            block: block.cidr,
            node: block.node,
            pool: block.pool,
            in_use: block.counts.map(|counts| counts.in_use),
            free: block.counts.map(|counts| counts.free),
            state: block.state.to_string(),
        });
        lines.collect()
    }

    fn check_report(&self) -> CheckReport {
        let now = self.uptime_ms();
        let wall = now_ms();
        let problems = self.findings().into_iter().map(|finding| {
            let since = self.care.reconciler.since(&finding).unwrap_or(now);
            let ago = now.saturating_sub(since);
            ProblemLine {
                problem: finding.to_string(),
                finding,
                seconds: ago / 1000,
                since: wall.saturating_sub(ago) / 1000,
            }
        });
        let departed = self.care.departed.departed.nodes();
        CheckReport {
            node: self.options.node_name.clone(),
            endpoints: self.calc.local().len(),
            problems: problems.collect(),
            conflicts: self.conflicts.iter().map(ToString::to_string).collect(),
            departed: departed
                .map(|(node, since)| (node.to_owned(), now.saturating_sub(since) / 1000))
                .collect(),
        }
    }

    /// Frees the address of a pod of this node that is gone; with `force`, of any.
    fn release_address(
        &mut self,
        address: IpAddr,
        sequence: Option<u64>,
        force: bool,
    ) -> Result<String, String> {
        let locals = self.calc.local().values();
        let holder = locals
            .filter(|local| local.endpoint.ip_networks.contains(&IpNet::from(address)))
            .find(|local| sequence.is_none_or(|wanted| wanted == local.sequence))
            .cloned();
        let Some(local) = holder else {
            return self.release_unjournaled(address, sequence);
        };
        let pod = format!("{}/{}", local.endpoint.namespace, local.endpoint.pod);
        if !force && self.has_link(&local) {
            return Err(format!(
                "{address} is the address of pod {pod}, whose network namespace is there; --force \
                 takes its interface down with it"
            ));
        }
        self.remove_endpoint(&EndpointKey::of(&local.endpoint));
        Ok(format!(
            "{address} released; it was the address of pod {pod}"
        ))
    }

    fn has_link(&self, local: &LocalEndpoint) -> bool {
        let link = self.calc.underlay().link(local.ifindex);
        link.is_some_and(|link| link.name == local.endpoint.interface_name)
    }

    fn release_unjournaled(
        &mut self,
        address: IpAddr,
        sequence: Option<u64>,
    ) -> Result<String, String> {
        match self.ipam.owner(address).cloned() {
            Some(owner) if owner.is_tunnel() => Err(format!(
                "{address} is this node's own address on {}",
                owner.ifname
            )),
            Some(owner) if sequence.is_none() => {
                self.ipam.release_one(address, now_ms());
                Ok(format!("{address} released; it was held for {owner}"))
            }
            _ => Err(match sequence {
                Some(sequence) => format!("{address} is not in use under number {sequence} here"),
                None => format!("{address} is not in use on this node"),
            }),
        }
    }
}
