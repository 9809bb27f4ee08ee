//! `cargo lab`: the demo, the benchmarks, and a kernel that has what this one lacks.

use clap::{Parser, Subcommand};
use integration::lab::{Lab, Process};
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(name = "lab", about = "Clusters of network namespaces with real peers")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What runs inside a pod
    #[command(hide = true)]
    Prober { name: String },
    /// An empty lab until standard input ends, for the test of its end
    #[command(hide = true)]
    Hold,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Prober { name } => integration::prober::run(&name).map(|()| ExitCode::SUCCESS),
        Command::Hold => hold().map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("lab: {error:#}");
        ExitCode::FAILURE
    })
}

/// Says what it holds (prefix, directory, a process) and waits for the end of standard input.
fn hold() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let netns = lab.netns("held")?;
    let mut sleeper = std::process::Command::new("sleep");
    let process = Process::start(&netns, lab.dir(), "sleep", sleeper.arg("600"))?;
    println!(
        "{}\n{}\n{}",
        lab.prefix(),
        lab.dir().display(),
        process.pid()
    );
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}
