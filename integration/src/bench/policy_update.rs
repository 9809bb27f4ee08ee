//! From an update to the kernel's commit, with 2,000 sets of 100 members and 2,000 chains there:
//! one pod joins one set, or 1,000 at once; a policy for 100 pods comes, or 1,000 come at once.

use super::policy_audit;
use super::policy_world::{
    FIRST_LINK, admits, cpu_of, local_address, member_of, pod, set_label, world,
};
use super::report::{Row, Series, Target, quantile};
use super::steal::Steal;
use crate::lab::Lab;
use anyhow::{Context, Result, ensure};
use kernel::Kernel;
use model::{Protocol, Selector};
use policy::{Compiler, Endpoint, EndpointId, Op};
use std::net::Ipv4Addr;

const SETS: u32 = 2000;
const CHAINS: u32 = 2000;
const ROUNDS: usize = 5;
/// Joins a round.
const JOINS: usize = 200;
/// Policies that come at once, and how many of them the agent is told in one round.
const LIVE: u32 = 1000;
const TOLD_AT_ONCE: u32 = 100;

pub(super) fn run() -> Result<Vec<Row>> {
    let lab = Lab::new()?;
    let mut stage = Stage::new(&lab)?;
    let mut rows = stage.joins()?;
    rows.push(stage.joins_of_many()?);
    rows.push(stage.policies()?);
    rows.push(stage.many_policies()?);
    rows.extend(policy_audit::rows(&lab)?);
    Ok(rows)
}

/// A compiler with its kernel, and another kernel with the same table.
struct Stage {
    compiler: Compiler,
    ours: Kernel,
    floor: Kernel,
}

impl Stage {
    fn new(lab: &Lab) -> Result<Self> {
        let open = |name: &str| lab.netns(name)?.within(Kernel::open)?.context("netlink");
        let mut stage = Self {
            compiler: world(SETS, CHAINS),
            ours: open("ours")?,
            floor: open("floor")?,
        };
        let ruleset = stage.compiler.ruleset();
        let (sets, chains) = (ruleset.sets.len(), ruleset.chains.len());
        ensure!(
            sets >= SETS as usize && chains >= CHAINS as usize,
            "{sets} sets, {chains} chains"
        );
        for kernel in [&mut stage.ours, &mut stage.floor] {
            kernel.nft_replace(ruleset).context("the table")?;
        }
        stage.prove_commits()?;
        Ok(stage)
    }

    /// What is timed does reach the kernel: a join is read back from it.
    fn prove_commits(&mut self) -> Result<()> {
        let (id, pod) = joiner([0]);
        for pod in [Some(pod), None] {
            self.compiler.set_endpoint(&id, pod);
            self.commit()?;
            let read = self.ours.nft_read()?.context("our table is gone")?;
            let same = read == *self.compiler.ruleset();
            ensure!(same, "the kernel's table is not the compiler's");
        }
        Ok(())
    }

    /// Brings both kernels up to date; milliseconds of ours, from the compiler on, and of the other.
    /// The kernel does its part inside the call, so that the processor's time is all there is.
    fn commit(&mut self) -> Result<(f64, f64)> {
        let (ours, ops) = cpu_of(|| -> Result<Vec<Op>> {
            let ops = self.compiler.resolve();
            self.ours.nft_commit(&ops).context("a transaction")?;
            Ok(ops)
        });
        let ops = ops?;
        ensure!(!ops.is_empty(), "something was told and nothing changed");
        let (floor, committed) = cpu_of(|| self.floor.nft_commit(&ops));
        committed.context("the floor's")?;
        Ok((ours, floor))
    }

    fn join(&mut self, sets: impl IntoIterator<Item = u32>) -> Result<(f64, f64)> {
        let (id, pod) = joiner(sets);
        self.compiler.set_endpoint(&id, Some(pod));
        let times = self.commit()?;
        self.compiler.set_endpoint(&id, None);
        self.commit()?;
        Ok(times)
    }

    fn joins(&mut self) -> Result<Vec<Row>> {
        let steal = Steal::now();
        let (mut p50, mut p99) = (Series::default(), Series::default());
        for _ in 0..ROUNDS {
            let joins = (0..JOINS as u32).map(|number| self.join([number * 7 % SETS]));
            let (ours, floor): (Vec<_>, Vec<_>) =
                joins.collect::<Result<Vec<_>>>()?.into_iter().unzip();
            p50.push(quantile(&ours, 0.5), quantile(&floor, 0.5));
            p99.push(quantile(&ours, 0.99), quantile(&floor, 0.99));
        }
        let steal = steal.share_since();
        let row = |what: &str, series: &Series| {
            series.row(what, "ms", "commit alone", steal, Target::Ours(1.0))
        };
        Ok(vec![row("member_p50_ms", &p50), row("member_p99_ms", &p99)])
    }

    fn joins_of_many(&mut self) -> Result<Row> {
        let (steal, mut series) = (Steal::now(), Series::default());
        for _ in 0..4 * ROUNDS {
            let (ours, floor) = self.join(0..1000)?;
            series.push(ours, floor);
        }
        let (steal, target) = (steal.share_since(), Target::Ours(20.0));
        Ok(series.row("set_add_1000_ms", "ms", "commit alone", steal, target))
    }

    fn policies(&mut self) -> Result<Row> {
        let (steal, mut series) = (Steal::now(), Series::default());
        for batch in 0..4 * ROUNDS {
            let subject = Selector::Eq("batch".to_owned(), (batch % 20).to_string());
            let added = admits("added", subject, member_of(0), &[(Protocol::Tcp, 80)]);
            self.compiler.set_policy(&added.key(), Some(added.clone()));
            let (ours, floor) = self.commit()?;
            series.push(ours, floor);
            self.compiler.set_policy(&added.key(), None);
            self.commit()?;
        }
        let (steal, target) = (steal.share_since(), Target::Ours(20.0));
        Ok(series.row("policy_add_ms", "ms", "commit alone", steal, target))
    }

    /// For 50 pods that had none.
    fn many_policies(&mut self) -> Result<Row> {
        for number in 0..50 {
            let at = CHAINS + number;
            let labels = [("role".to_owned(), "server".to_owned())];
            let (address, link) = (local_address(at), Some(FIRST_LINK + at));
            let (id, pod) = pod(&format!("server{number}"), labels, address, link);
            self.compiler.set_endpoint(&id, Some(pod));
        }
        self.commit()?;
        let (steal, mut series) = (Steal::now(), Series::default());
        for _ in 0..ROUNDS {
            let (mut ours, mut floor) = (0.0, 0.0);
            let subject = Selector::Eq("role".to_owned(), "server".to_owned());
            let policies: Vec<_> = (0..LIVE)
                .map(|number| {
                    let port = (Protocol::Tcp, 1000 + number as u16);
                    admits(
                        &format!("live{number}"),
                        subject.clone(),
                        member_of(number),
                        &[port],
                    )
                })
                .collect();
            for told in policies.chunks(TOLD_AT_ONCE as usize) {
                let (telling, ()) = cpu_of(|| {
                    for policy in told {
                        self.compiler
                            .set_policy(&policy.key(), Some(policy.clone()));
                    }
                });
                ours += telling / 1e3;
                let (one, alone) = self.commit()?;
                ours += one / 1e3;
                floor += alone / 1e3;
            }
            series.push(ours, floor);
            for policy in &policies {
                self.compiler.set_policy(&policy.key(), None);
            }
            self.commit()?;
        }
        let (steal, target) = (steal.share_since(), Target::Ours(0.3));
        Ok(series.row("policies_1000_live_s", "s", "commits alone", steal, target))
    }
}

/// A pod that belongs to these sets.
fn joiner(sets: impl IntoIterator<Item = u32>) -> (EndpointId, Endpoint) {
    let labels = sets.into_iter().map(set_label);
    pod("joiner", labels, Ipv4Addr::new(10, 250, 0, 1), None)
}
