//! Generated policies of every kind on the real kernel: evaluator, interpreter and packets agree
//! about every connection, from scratch and after changes, and the kernel's dump of the table is
//! what was compiled.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

#[path = "../../../policy/tests/policy/generate/mod.rs"]
#[allow(dead_code)] // what others generate with it
mod generate;
mod stage;

use generate::{Change, changes, cluster, evaluator};
use policy::{Compiler, Endpoint, EndpointId, Options, Ruleset};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use stage::{Counted, LOCAL, Stage};
use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

/// Each is two policy sets: one from scratch, one by changes to it. `PROPTEST_CASES` asks for more.
const CASES: u32 = 160;

#[test]
fn the_kernel_decides_as_the_evaluator_does_from_scratch_and_after_changes() {
    let stage = RefCell::new(Stage::new().unwrap());
    let seed = seed();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed_bytes(seed));
    let config = Config {
        cases: asked("PROPTEST_CASES").map_or(CASES, |cases| cases as u32),
        max_shrink_iters: 2000,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let result = runner.run(&(cluster(), changes()), |(first, second)| {
        let stage = &mut *stage.borrow_mut();
        let mut changes = with_own_addresses(first);
        let mut compiler = Compiler::new(Options::default());
        stage.clear()?;
        both(stage, &mut compiler, &changes, &changes)?;
        let second = addresses_reused(with_own_addresses(second));
        changes.extend(second.iter().cloned());
        both(stage, &mut compiler, &changes, &second)
    });
    if let Err(error) = result {
        panic!("POLICY_SEED={seed} makes this again: {error}");
    }
    let Counted {
        policy_sets,
        packets,
        arrived,
    } = stage.borrow().counted;
    println!("{policy_sets} policy sets, {packets} packets, {arrived} arrived");
    // Neither is everything denied nor everything allowed.
    assert!(arrived > packets / 20 && arrived < packets / 2);
}

fn seed() -> u64 {
    asked("POLICY_SEED").unwrap_or_else(|| RandomState::new().hash_one(0))
}

fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn seed_bytes(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes
}

/// Tells what is told last, and compares everything there is then.
fn both(
    stage: &mut Stage,
    compiler: &mut Compiler,
    all: &[Change],
    last: &[Change],
) -> Result<(), TestCaseError> {
    last.iter().for_each(|change| change.tell(compiler));
    stage.apply(&compiler.resolve())?;
    let dump = stage.dump()?;
    if let Some(difference) = difference(&dump, compiler.ruleset()) {
        return Err(TestCaseError::fail(format!("the dump: {difference}")));
    }
    stage.compare(all, &evaluator(all), &dump)
}

/// What the kernel's dump of our table has otherwise than it was compiled.
fn difference(dump: &Ruleset, compiled: &Ruleset) -> Option<String> {
    if dump == compiled {
        return None;
    }
    let Ruleset {
        sets,
        chains,
        counters,
    } = compiled;
    let other = |name: &&String| dump.sets.get(*name) != sets.get(*name);
    let set = sets.keys().chain(dump.sets.keys()).find(other);
    let other = |name: &&String| dump.chains.get(*name) != chains.get(*name);
    let chain = chains.keys().chain(dump.chains.keys()).find(other);
    Some(format!(
        "set {set:?}: {:?} instead of {:?}; chain {chain:?}: {:?} instead of {:?}; counters {:?} instead of {counters:?}",
        set.map(|name| &dump.sets[name]),
        set.map(|name| &sets[name]),
        chain.map(|name| &dump.chains[name]),
        chain.map(|name| &chains[name]),
        dump.counters,
    ))
}

/// Pod n of both its names stands at the n-th address of each family that it has.
fn with_own_addresses(changes: Vec<Change>) -> Vec<Change> {
    let own = |change| match change {
        Change::Endpoint(id, Some(endpoint)) => {
            let number = number(&id);
            let ips = endpoint.ips.iter().map(|ip| match ip {
                IpAddr::V4(_) => stage::v4(number),
                IpAddr::V6(_) => stage::v6(number),
            });
            let local = (number < LOCAL).then_some(stage::FIRST_INDEX + number as u32);
            let ips = ips.collect();
            let endpoint = Endpoint {
                ips,
                local,
                ..endpoint
            };
            Change::Endpoint(id, Some(endpoint))
        }
        other => other,
    };
    changes.into_iter().map(own).collect()
}

fn number(id: &EndpointId) -> usize {
    let digits = id.0.trim_start_matches("pod-").trim_end_matches(AGAIN);
    digits.parse().unwrap()
}

const AGAIN: &str = "-again";

/// Every pod of these is another one than before, that has its address: the old one goes just
/// before, or just after.
fn addresses_reused(changes: Vec<Change>) -> Vec<Change> {
    let mut all = vec![];
    for change in changes {
        let Change::Endpoint(old, endpoint) = change else {
            all.push(change);
            continue;
        };
        let new = EndpointId(format!("{}{AGAIN}", old.0).into());
        let goes = Change::Endpoint(old, None);
        let goes_first = number(&new).is_multiple_of(2);
        if goes_first {
            all.push(goes.clone());
        }
        all.push(Change::Endpoint(new, endpoint));
        if !goes_first {
            all.push(goes);
        }
    }
    all
}
