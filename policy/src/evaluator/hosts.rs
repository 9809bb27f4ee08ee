//! The way of a flow through the policies of a host endpoint: failsafe ports, untracked policies,
//! those before destination NAT, then the ordinary ones.

use super::Evaluator;
use super::calico::CalicoSubject;
use super::decision::{Action, Judgement, Reason, RuleRef};
use super::flow::{Direction, Flow, HostPath, Party};
use super::order::{Active, TierOfPolicies, View};
use super::pods::Outcome;
use crate::input::PolicyKey;
use model::{CalicoPolicy, FailsafePort, HostEndpoint, Protocol, TierDefault};
use std::net::IpAddr;

/// Ports of hosts that stay open: of the host, and of others.
#[derive(Debug, Clone, Default)]
pub(super) struct FailsafePorts {
    inbound: Option<Vec<FailsafePort>>,
    outbound: Option<Vec<FailsafePort>>,
}

/// Calico's `failsafeInboundHostPorts` are SSH, DHCP and [`FAILSAFE`].
const FAILSAFE_IN: [(Protocol, u16); 2] = [(Protocol::Tcp, 22), (Protocol::Udp, 68)];
/// Calico's `failsafeOutboundHostPorts` are DNS, DHCP and [`FAILSAFE`].
const FAILSAFE_OUT: [(Protocol, u16); 2] = [(Protocol::Udp, 53), (Protocol::Udp, 67)];
/// BGP, etcd, Typha and the Kubernetes API, in TCP and both directions.
const FAILSAFE: [u16; 7] = [179, 2379, 2380, 5473, 6443, 6666, 6667];

/// The profile that allows what no policy decides.
const ALLOWS: &str = "projectcalico-default-allow";

/// Policies of a host endpoint that are asked together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// `doNotTrack`
    Untracked,
    /// `preDNAT`
    PreDnat,
    /// All others; of what is forwarded, those with `applyOnForward`.
    Ordinary(HostPath),
}

impl Stage {
    fn holds(self, policy: &CalicoPolicy) -> bool {
        let ordinary = !policy.do_not_track && !policy.pre_dnat;
        match self {
            Self::Untracked => policy.do_not_track,
            Self::PreDnat => policy.pre_dnat,
            Self::Ordinary(HostPath::Local) => ordinary,
            Self::Ordinary(HostPath::Forward) => ordinary && policy.apply_on_forward,
        }
    }
}

impl Evaluator {
    /// Which ports of hosts stay open, of one node or of all that say nothing of their own. What is
    /// none is not configured there.
    pub fn set_failsafe(
        &mut self,
        node: Option<&str>,
        inbound: Option<Vec<FailsafePort>>,
        outbound: Option<Vec<FailsafePort>>,
    ) {
        let ports = FailsafePorts { inbound, outbound };
        self.failsafe.insert(node.map(str::to_owned), ports);
    }

    /// Judges a new connection at a host endpoint: `path` says whether the host is an end of it.
    /// An endpoint that nobody knows decides nothing.
    pub fn host_judgement(
        &self,
        host_endpoint: &str,
        direction: Direction,
        path: HostPath,
        flow: &Flow,
    ) -> Judgement {
        match self.host_endpoints.get(host_endpoint) {
            Some(host) => self.judge_host(host, direction, path, flow),
            None => Judgement::of(Reason::NoEndpoint),
        }
    }

    /// The host endpoint that is in charge of an address of a node: one that expects it before
    /// one for all interfaces of the node, the first by name.
    pub(super) fn host_endpoint_at(&self, address: IpAddr) -> Option<&HostEndpoint> {
        let all = || self.host_endpoints.values();
        let expects = |host: &&HostEndpoint| host.expected_ips.contains(&address);
        let of_node = |host: &&HostEndpoint| {
            let node = self.nodes.get(&host.node);
            let everywhere = host.interface_name.as_deref() == Some("*");
            everywhere && node.is_some_and(|node| node.addresses.contains(&address))
        };
        let everywhere = |host: &&HostEndpoint| host.interface_name.as_deref() == Some("*");
        let named = all().find(|host| expects(host) && !everywhere(host));
        named.or_else(|| all().find(|host| everywhere(host) && (expects(host) || of_node(host))))
    }

    pub(super) fn judge_host(
        &self,
        host: &HostEndpoint,
        direction: Direction,
        path: HostPath,
        flow: &Flow,
    ) -> Judgement {
        let walk = Walk {
            evaluator: self,
            host,
            direction,
            path,
            flow,
        };
        let (reason, passed) = walk.through(View::Enforced);
        let staged = self
            .changed_by_staging()
            .into_iter()
            .any(|policy| walk.is_concerned(policy))
            .then(|| walk.through(View::Committed).0);
        Judgement {
            reason,
            passed,
            staged,
        }
    }
}

struct Walk<'a> {
    evaluator: &'a Evaluator,
    host: &'a HostEndpoint,
    direction: Direction,
    path: HostPath,
    flow: &'a Flow,
}

impl Walk<'_> {
    fn through(&self, view: View) -> (Reason, Vec<RuleRef>) {
        let mut passed = vec![];
        if self.path == HostPath::Local && self.is_failsafe() {
            return (Reason::Failsafe, passed);
        }
        let tiers = self.evaluator.tiers(view);
        for stage in self.stages() {
            if self.is_spared(stage) {
                continue;
            }
            for tier in &tiers {
                match self.through_tier(tier, stage, &mut passed) {
                    Outcome::Decided(reason) => return (reason, passed),
                    Outcome::Passed => {}
                }
            }
        }
        let profiles = &self.host.profiles;
        let allowed = self.path == HostPath::Forward || profiles.iter().any(|one| one == ALLOWS);
        let reason = if allowed {
            Reason::NoPolicy
        } else {
            Reason::HostEndpoint
        };
        (reason, passed)
    }

    fn stages(&self) -> Vec<Stage> {
        let ordinary = Stage::Ordinary(self.path);
        match self.direction {
            Direction::Ingress => vec![Stage::Untracked, Stage::PreDnat, ordinary],
            Direction::Egress => vec![Stage::Untracked, ordinary],
        }
    }

    fn is_failsafe(&self) -> bool {
        self.is_open(self.direction, self.flow, self.flow.destination_port)
    }

    /// Whether a port stays open for what is opened in this direction.
    fn is_open(&self, opened: Direction, flow: &Flow, port: Option<u16>) -> bool {
        let peer = match self.direction {
            Direction::Ingress => flow.source.address(),
            Direction::Egress => flow.destination.address(),
        };
        let is = |protocol: Protocol, open: u16| {
            protocol.number() == flow.protocol && Some(open) == port
        };
        let said = |node: Option<&str>| {
            let ports = self.evaluator.failsafe.get(&node.map(str::to_owned))?;
            match opened {
                Direction::Ingress => ports.inbound.as_ref(),
                Direction::Egress => ports.outbound.as_ref(),
            }
        };
        if let Some(ports) = said(Some(&self.host.node)).or_else(|| said(None)) {
            return ports.iter().any(|one| {
                is(one.protocol, one.port) && one.net.is_none_or(|net| net.contains(&peer))
            });
        }
        let usual = match opened {
            Direction::Ingress => FAILSAFE_IN,
            Direction::Egress => FAILSAFE_OUT,
        };
        usual.into_iter().any(|(protocol, open)| is(protocol, open))
            || FAILSAFE.into_iter().any(|open| is(Protocol::Tcp, open))
    }

    /// Policies that come before the way of a packet is known never see failsafe ports, whether the
    /// host is its end or not; those that come before connection tracking don't see answers from
    /// such ports either.
    fn is_spared(&self, stage: Stage) -> bool {
        let seen = self.seen_by(stage);
        let opened = || self.is_open(self.direction, &seen, seen.destination_port);
        let answered = match self.direction {
            Direction::Ingress => Direction::Egress,
            Direction::Egress => Direction::Ingress,
        };
        match stage {
            Stage::Ordinary(_) => false,
            Stage::PreDnat => opened(),
            Stage::Untracked => opened() || self.is_open(answered, &seen, seen.source_port),
        }
    }

    /// Only ordinary policies deny by being there: after the others come more.
    fn through_tier(
        &self,
        tier: &TierOfPolicies<'_>,
        stage: Stage,
        passed: &mut Vec<RuleRef>,
    ) -> Outcome {
        let flow = self.seen_by(stage);
        let mut applying: Vec<PolicyKey> = vec![];
        for (key, policy) in &tier.policies {
            let Some(policy) = self.applying(*policy, stage) else {
                continue;
            };
            applying.push(PolicyKey::clone(key));
            for matched in self.evaluator.calico_matches(policy, self.direction, &flow) {
                let rule = matched.at(tier.name, key);
                match rule.action {
                    Action::Allow | Action::Deny => return Outcome::Decided(Reason::Rule(rule)),
                    Action::Log => passed.push(rule),
                    Action::Pass => {
                        passed.push(rule);
                        return Outcome::Passed;
                    }
                }
            }
        }
        let denies =
            matches!(stage, Stage::Ordinary(_)) && tier.default_action == TierDefault::Deny;
        if applying.is_empty() || !denies {
            return Outcome::Passed;
        }
        let tier = tier.name.to_owned();
        Outcome::Decided(Reason::EndOfTier {
            tier,
            policies: applying,
        })
    }

    /// Before destination NAT, the flow goes where it was sent.
    fn seen_by(&self, stage: Stage) -> Flow {
        let mut flow = self.flow.clone();
        if let (Stage::Untracked | Stage::PreDnat, Some(original)) =
            (stage, self.flow.original_destination)
        {
            flow.destination = Party::Address(original.ip());
            flow.destination_port = flow.destination_port.map(|_| original.port());
        }
        flow
    }

    fn applying<'p>(&self, policy: Active<'p>, stage: Stage) -> Option<&'p CalicoPolicy> {
        let Active::Calico(policy) = policy else {
            return None;
        };
        let subject = CalicoSubject::Host(self.host);
        let applies = self
            .evaluator
            .calico_applies(policy, subject, self.direction);
        (stage.holds(policy) && applies).then_some(policy)
    }

    fn is_concerned(&self, policy: Active<'_>) -> bool {
        self.stages()
            .into_iter()
            .any(|stage| self.applying(policy, stage).is_some())
    }
}
