//! `cargo lab`: the demo, the benchmarks, and a kernel that has what this one lacks.

use clap::{Parser, Subcommand};
use integration::demo;
use integration::kube::KubeCommand;
use integration::lab::{Lab, Process};
use integration::vm::Guest;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, Parser)]
#[command(name = "lab", about = "Clusters of network namespaces with real peers")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Plays what Ocicat promises, with real routers, and checks it from the other side
    Demo(DemoArguments),
    /// Breaks one thing for every scene of the demo; the scene must fail, and pass when healed
    Sabotages(DemoArguments),
    /// Measures, as ratios to a floor or a peer in the same run
    Bench {
        /// Which benchmark
        name: String,
        /// Also writes the rows to this file
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Removes the labs that `demo --keep` left up
    Clean,
    /// Fails if a pure crate depends on the world
    Purity,
    /// Writes deploy/ from its source: CustomResourceDefinitions, plain manifest, Kustomize, Helm
    Manifests {
        /// Write nothing; fail if a file is not what would be written
        #[arg(long)]
        check: bool,
    },
    /// Runs a command inside a kernel that has what this one lacks (IPIP, netem and more)
    Vm {
        /// Memory of the guest
        #[arg(long, default_value = "1536M")]
        memory: String,
        /// Seconds after which the guest is ended
        #[arg(long, default_value_t = 1800)]
        timeout: u64,
        /// Seconds of silence after which the guest is taken to hang, and the command begins again
        #[arg(long, default_value_t = 600)]
        silence: u64,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Builds the programs that nodes are upgraded from
    Previous,
    /// A real Kubernetes in namespaces, and what Ocicat promises on it
    #[command(subcommand)]
    Kube(KubeCommand),
    /// What runs as process 1 of a machine of such a cluster
    #[command(hide = true)]
    Machine { description: PathBuf },
    /// What runs inside a pod
    #[command(hide = true)]
    Prober { name: String },
    /// An empty lab until standard input ends, for the test of its end
    #[command(hide = true)]
    Hold,
}

#[derive(Debug, clap::Args)]
struct DemoArguments {
    /// Leave the lab up and say how to enter it
    #[arg(long)]
    keep: bool,
    /// Break one thing; its scene must fail
    #[arg(long)]
    sabotage: Option<String>,
    /// Play only this scene
    #[arg(long)]
    scene: Option<String>,
    /// Play everything here: this is the guest
    #[arg(long, hide = true)]
    inside_guest: bool,
}

impl From<DemoArguments> for demo::Options {
    fn from(a: DemoArguments) -> Self {
        let DemoArguments {
            keep,
            sabotage,
            scene,
            inside_guest,
        } = a;
        Self {
            keep,
            sabotage,
            scene,
            inside_guest,
        }
    }
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo(arguments) => demo::run(&arguments.into()).map(passed),
        Command::Sabotages(arguments) => demo::run_sabotages(&arguments.into()).map(passed),
        Command::Bench { name, json } => {
            integration::bench::run(&name, json.as_deref()).map(|()| ExitCode::SUCCESS)
        }
        Command::Clean => {
            Lab::remove_kept();
            Ok(ExitCode::SUCCESS)
        }
        Command::Purity => purity(),
        Command::Manifests { check } => manifests(check),
        Command::Vm {
            memory,
            timeout,
            silence,
            command,
        } => {
            let guest = Guest {
                memory,
                limit: Duration::from_secs(timeout),
                silence: Duration::from_secs(silence),
            };
            guest.run(&command).map(ExitCode::from)
        }
        Command::Previous => previous().map(|()| ExitCode::SUCCESS),
        Command::Kube(command) => integration::kube::run(command).map(passed),
        Command::Machine { description } => {
            integration::kube::machine::run(&description).map(|()| ExitCode::SUCCESS)
        }
        Command::Prober { name } => integration::prober::run(&name).map(|()| ExitCode::SUCCESS),
        Command::Hold => hold().map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("lab: {error:#}");
        ExitCode::FAILURE
    })
}

fn previous() -> anyhow::Result<()> {
    let programs = integration::lab::previous::programs()?;
    println!(
        "{}\n{}",
        programs.agent.display(),
        programs.plugin.display()
    );
    Ok(())
}

fn passed(all: bool) -> ExitCode {
    if all {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn purity() -> anyhow::Result<ExitCode> {
    let violations = integration::purity::check()?;
    for violation in &violations {
        eprintln!("a pure crate depends on the world: {violation}");
    }
    Ok(passed(violations.is_empty()))
}

fn manifests(check: bool) -> anyhow::Result<ExitCode> {
    let folder = integration::manifests::folder();
    if check {
        let differing = integration::manifests::differing(&folder)?;
        for path in differing.keys() {
            eprintln!(
                "run `cargo lab manifests`: {} is not up to date",
                path.display()
            );
        }
        return Ok(passed(differing.is_empty()));
    }
    for path in integration::manifests::write(&folder)? {
        println!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
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
