//! What a pod and a policy of a large cluster cost in memory: from the API's octets through the
//! decoder, the objects in force and the compiler, counted by the allocator. Alone in its program,
//! so that nobody else allocates meanwhile.
#![allow(clippy::unwrap_used)] // a test may panic

#[path = "../examples/cluster_memory/world.rs"]
mod world;

use felix_core::Calc;
use model::Object;
use peak_alloc::PeakAlloc;
use std::net::TcpListener;
use world::World;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Octets of heap that a pod of another node may cost, its endpoint included.
const POD: usize = 1500;
/// Octets of heap that a policy may cost that is about no pod of this node.
const POLICY: usize = 1200;
/// Octets that reading may take for a while beside what is held at its end, however long the list:
/// what is on its way in connections and channels, and what tables leave behind as they grow.
const UNDER_WAY: usize = 2 << 20;
const PODS: usize = 10_000;
const POLICIES: usize = 5_000;

/// What a cluster costs after a start with objects of an earlier process.
struct Cost {
    /// Octets that are held.
    held: usize,
    /// Octets that were held beside them at most.
    under_way: usize,
    /// The objects.
    objects: Vec<String>,
}

fn cost(world: World, earlier: Vec<String>) -> Cost {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || world::serve(&listener, world));
    let cluster = world::connect(&url).unwrap();
    let kept: usize = earlier.iter().map(String::capacity).sum();
    let kept = kept + earlier.capacity() * size_of::<String>();
    let before = HEAP.current_usage() - kept;
    let mut calc = world::core();
    HEAP.reset_peak_usage();
    for object in earlier {
        calc.restore(vec![serde_json::from_str(&object).unwrap()]);
    }
    let _connections = world::tell(&cluster, &mut calc).unwrap();
    calc.resolve();
    let now = HEAP.current_usage();
    Cost {
        held: now - before,
        under_way: HEAP.peak_usage() - now,
        objects: written(&calc),
    }
}

fn written(calc: &Calc) -> Vec<String> {
    let write = |object: &Object| serde_json::to_string(object).unwrap();
    calc.objects().all().map(write).collect()
}

#[test]
fn a_pod_and_a_policy_cost_what_the_documentation_says_also_after_a_restart() {
    let of = |pods, policies, earlier| cost(World { pods, policies }, earlier);
    // Once for what is made once in a process.
    of(0, 0, vec![]);
    let nothing = of(0, 0, vec![]).held;
    let pods = of(PODS, 0, vec![]);
    let again = of(PODS, 0, pods.objects);
    let policies = of(0, POLICIES, vec![]);
    let costs = [
        ("a pod", (pods.held - nothing) / PODS, POD),
        ("a pod after a restart", (again.held - nothing) / PODS, POD),
        ("a policy", (policies.held - nothing) / POLICIES, POLICY),
        ("reading pods", pods.under_way, UNDER_WAY),
        ("reading policies", policies.under_way, UNDER_WAY),
    ];
    for (what, octets, bound) in costs {
        assert!(octets <= bound, "{what} costs {octets} octets: {costs:?}");
    }
}
