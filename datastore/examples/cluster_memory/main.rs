//! What a large cluster costs an agent in memory: an API server without a store streams so many
//! pods and policies through the datastore's own decoder into the agent's core.
//!
//! `cargo run --release -p datastore --example cluster_memory -- [PODS] [POLICIES]` prints octets of
//! heap, exactly, and resident memory. With `serve PORT` before the numbers it only serves, for an
//! agent to be measured from outside.

mod world;

use peak_alloc::PeakAlloc;
use std::error::Error;
use std::net::TcpListener;
use world::World;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (port, numbers) = match arguments.split_first() {
        Some((word, rest)) if word == "serve" => {
            let (port, numbers) = rest.split_first().ok_or("serve PORT")?;
            (Some(port.parse()?), numbers)
        }
        _ => (None, &arguments[..]),
    };
    let number = |at: usize, default| numbers.get(at).map_or(Ok(default), |text| text.parse());
    let world = World {
        pods: number(0, 100_000)?,
        policies: number(1, 10_000)?,
    };
    let listener = TcpListener::bind(("127.0.0.1", port.unwrap_or(0)))?;
    let address = listener.local_addr()?;
    println!(
        "serving {} pods, {} policies at http://{address}",
        world.pods, world.policies
    );
    let server = move || world::serve(&listener, world);
    match port {
        Some(_) => server(),
        None => {
            std::thread::spawn(server);
            measure(&format!("http://{address}"))?;
        }
    }
    Ok(())
}

fn measure(url: &str) -> Result<(), Box<dyn Error>> {
    let cluster = world::connect(url)?;
    let before = HEAP.current_usage();
    let mut calc = world::core();
    let _connections = world::tell(&cluster, &mut calc)?;
    let told = HEAP.current_usage();
    calc.resolve();
    let heap = HEAP.current_usage();
    println!("objects          {:>12}", calc.objects().all().count());
    println!("heap             {heap:>12} (the datastore's before {before})");
    println!("heap, told only  {told:>12}");
    println!("heap, greatest   {:>12}", HEAP.peak_usage());
    for line in ["VmRSS:", "VmHWM:"] {
        println!("{line:<16} {:>12}", resident(line)?);
    }
    drop(calc);
    let after = HEAP.current_usage();
    println!("of it the core   {:>12}", heap - after);
    Ok(())
}

/// A line of memory of this process, in octets.
fn resident(line: &str) -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let words = status.lines().find_map(|one| one.strip_prefix(line));
    let kib = words.and_then(|words| words.split_whitespace().next());
    Ok(kib.ok_or("no such line")?.parse::<u64>()? * 1024)
}
