//! The decision process (RFC 4271 section 9.1.2, RFC 4456 section 9, RFC 9494 section 4.3).

use crate::config::Decision;
use crate::wire::{AsPath, Origin};
use std::cmp::Reverse;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// What decides about a path, after import policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Originated by this node.
    pub(crate) local: bool,
    /// Kept long after its session has ended, here or further away (RFC 9494).
    pub(crate) last_resort: bool,
    pub(crate) local_pref: u32,
    pub(crate) path_length: usize,
    pub(crate) origin: Origin,
    pub(crate) neighbour_as: Option<u32>,
    pub(crate) med: u32,
    pub(crate) ebgp: bool,
    /// ORIGINATOR_ID or else the peer's identifier.
    pub(crate) router_id: Ipv4Addr,
    pub(crate) cluster_list_length: usize,
    pub(crate) peer_address: Option<IpAddr>,
    pub(crate) path_id: u32,
    /// Where paths share traffic only if it is the same.
    pub(crate) as_path: Option<AsPath>,
}

impl Candidate {
    /// What is left to tell equally good paths apart.
    fn tie_break(&self) -> (Ipv4Addr, usize, Option<IpAddr>, u32) {
        let clusters = self.cluster_list_length;
        (self.router_id, clusters, self.peer_address, self.path_id)
    }
}

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// In use and announced.
    Best,
    /// In use beside the best one.
    Multipath,
    /// Another path was better, and in which respect.
    Lost(Step),
    /// Not a candidate at all.
    Refused(Refusal),
}

/// The steps, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Local,
    LongLivedStale,
    LocalPref,
    PathLength,
    Origin,
    Med,
    Ebgp,
    RouterId,
    ClusterListLength,
    PeerAddress,
    PathId,
}

/// Why a path is not a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    ImportPolicy,
    /// RFC 8212.
    NoPolicy,
    ImportFilter,
    /// RFC 9234 section 5.
    RouteLeak,
    /// RFC 9494 section 4.2.
    NoLongLived,
    /// The prefix is no unicast destination in a network (RFC 6890).
    Martian,
    OwnPrefix,
    /// The prefix lies within a route of this node.
    WithinOwnPrefix,
    OwnAs,
    OwnOriginator,
    OwnCluster,
    OwnNextHop,
    UnusableNextHop,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Best => "best",
            Self::Multipath => "multipath",
            Self::Lost(Step::Local) => "lost: this node originates the prefix",
            Self::Lost(Step::LongLivedStale) => "lost: long-lived stale routes are a last resort",
            Self::Lost(Step::LocalPref) => "lost: lower LOCAL_PREF",
            Self::Lost(Step::PathLength) => "lost: longer AS_PATH",
            Self::Lost(Step::Origin) => "lost: worse ORIGIN",
            Self::Lost(Step::Med) => "lost: higher MULTI_EXIT_DISC",
            Self::Lost(Step::Ebgp) => "lost: eBGP is preferred to iBGP",
            Self::Lost(Step::RouterId) => "lost: higher BGP identifier",
            Self::Lost(Step::ClusterListLength) => "lost: longer CLUSTER_LIST",
            Self::Lost(Step::PeerAddress) => "lost: higher peer address",
            Self::Lost(Step::PathId) => "lost: higher path identifier",
            Self::Refused(Refusal::NoPolicy) => {
                "refused: nobody has said what to import from this external peer"
            }
            Self::Refused(Refusal::ImportFilter) => "refused: an import filter rejects it",
            Self::Refused(Refusal::RouteLeak) => "refused: ONLY_TO_CUSTOMER says that it is a leak",
            Self::Refused(Refusal::NoLongLived) => {
                "refused: its session has ended and its communities forbid a last resort"
            }
            Self::Refused(Refusal::ImportPolicy) => "refused: nothing is imported from this peer",
            Self::Refused(Refusal::Martian) => "refused: the prefix is never routed",
            Self::Refused(Refusal::OwnPrefix) => "refused: this node originates the prefix",
            Self::Refused(Refusal::WithinOwnPrefix) => {
                "refused: the prefix is part of one that this node originates"
            }
            Self::Refused(Refusal::OwnAs) => "refused: our AS is in the AS_PATH",
            Self::Refused(Refusal::OwnOriginator) => "refused: we are the ORIGINATOR_ID",
            Self::Refused(Refusal::OwnCluster) => "refused: our cluster is in the CLUSTER_LIST",
            Self::Refused(Refusal::OwnNextHop) => "refused: the next hop is this node",
            Self::Refused(Refusal::UnusableNextHop) => "refused: the next hop cannot be used",
        })
    }
}

/// Decides between paths to one prefix; the result does not depend on their order.
pub(crate) fn decide(candidates: &[Candidate], rules: &Decision) -> Vec<Verdict> {
    if candidates.len() <= 1 {
        return vec![Verdict::Best; candidates.len()];
    }
    let mut round = Round {
        alive: (0..candidates.len()).collect(),
        verdicts: vec![Verdict::Best; candidates.len()],
        candidates,
    };
    round.keep_least(Step::Local, |path| !path.local);
    round.keep_least(Step::LongLivedStale, |path| path.last_resort);
    round.keep_least(Step::LocalPref, |path| Reverse(path.local_pref));
    round.keep_least(Step::PathLength, |path| path.path_length);
    round.keep_least(Step::Origin, |path| path.origin);
    round.keep_least_med(rules.always_compare_med);
    round.keep_least(Step::Ebgp, |path| !path.ebgp);
    let equal = round.alive.clone();
    round.keep_least(Step::RouterId, |path| path.router_id);
    round.keep_least(Step::ClusterListLength, |path| path.cluster_list_length);
    round.keep_least(Step::PeerAddress, |path| path.peer_address);
    round.keep_least(Step::PathId, |path| path.path_id);
    round.share(equal, rules);
    round.verdicts
}

struct Round<'a> {
    candidates: &'a [Candidate],
    alive: Vec<usize>,
    verdicts: Vec<Verdict>,
}

impl Round<'_> {
    fn keep_least<K: Ord>(&mut self, step: Step, key: impl Fn(&Candidate) -> K) {
        let Some(least) = self
            .alive
            .iter()
            .map(|index| key(&self.candidates[*index]))
            .min()
        else {
            return;
        };
        self.keep(step, |candidate| key(candidate) == least);
    }

    /// MEDs compare only within one neighbouring AS, unless told otherwise; a path loses to any of
    /// its group that is still a candidate, so that the order of paths does not matter.
    fn keep_least_med(&mut self, always: bool) {
        let alive = self.alive.clone();
        let candidates = self.candidates;
        self.keep(Step::Med, |candidate| {
            let rivals = alive
                .iter()
                .map(|index| &candidates[*index])
                .filter(|rival| always || rival.neighbour_as == candidate.neighbour_as);
            let least = rivals.map(|rival| rival.med).min();
            least.is_none_or(|least| candidate.med <= least)
        });
    }

    /// Uses some of the equally good paths beside the best one. The others keep what decided
    /// against them.
    fn share(&mut self, mut equal: Vec<usize>, rules: &Decision) {
        let Some(best) = self.alive.first() else {
            return;
        };
        let path = &self.candidates[*best].as_path;
        equal.retain(|index| self.candidates[*index].as_path == *path);
        equal.sort_by_key(|index| self.candidates[*index].tie_break());
        let beside = usize::from(rules.maximum_paths).saturating_sub(1);
        for index in equal.into_iter().skip(1).take(beside) {
            self.verdicts[index] = Verdict::Multipath;
        }
    }

    fn keep(&mut self, step: Step, keep: impl Fn(&Candidate) -> bool) {
        let (candidates, verdicts) = (self.candidates, &mut self.verdicts);
        self.alive.retain(|index| {
            let kept = keep(&candidates[*index]);
            if !kept {
                verdicts[*index] = Verdict::Lost(step);
            }
            kept
        });
    }
}

#[cfg(test)]
#[path = "decision_tests.rs"]
mod tests;
