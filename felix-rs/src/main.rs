//! `ocicat-node`, the node agent, and `ocicat`, the command that asks it: one executable, told
//! apart by its name.

mod add_times;
mod agent;
mod cleanup;
mod cli;
mod cni_socket;
mod ctl;
mod default_pools;
mod health;
mod host_settings;
mod installation;
mod journal;
mod metrics;
mod options;
mod revoker;
mod snapshot;
mod store;

use bgp_speaker::Stop;
use clap::Parser;
use options::Options;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

fn main() -> ExitCode {
    if cli::is_called() {
        return cli::run();
    }
    if cleanup::is_called() {
        return cleanup::run();
    }
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(&options.log))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "event loop");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        if options.plan {
            let plan = agent::print_plan(options)
                .await
                .map_err(|error| error.to_string())?;
            print!("{plan}");
            return Ok(());
        }
        run(options).await
    });
    // Threads that wait on a file or a socket end with the process.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "stopped");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), String> {
    let health = health::bind(options.health_port)
        .await
        .map_err(|error| error.to_string())?;
    let (readiness, watched) = watch::channel(health::Readiness::default());
    let (queries_to, queries) = mpsc::channel(agent::CALLS);
    tokio::spawn(health::serve(health, watched, queries_to.clone()));
    let (agent, inputs, lock) = agent::start(options, readiness, (queries_to, queries))
        .map_err(|error| error.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping; routes and policy stay in force");
        Stop::Planned
    };
    let result = agent
        .run(inputs, stop)
        .await
        .map_err(|error| error.to_string());
    drop(lock);
    result
}
