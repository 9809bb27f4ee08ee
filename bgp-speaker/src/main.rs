//! `bgp-speaker`: a BGP speaker that announces networks and reflects routes; it writes no routes
//! into the kernel.
//!
//! SIGHUP reads the configuration again, SIGUSR1 logs the state of all sessions, SIGUSR2 writes the
//! table in MRT format, SIGTERM stops so that a successor can take over (peers keep our routes),
//! SIGINT stops and withdraws them.

use bgp_speaker::{FileConfig, Handle, Options, Stop, spawn};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "usage: bgp-speaker --config FILE [--restarting]";

struct Arguments {
    config: PathBuf,
    /// A speaker ran here before and its peers may still hold its routes.
    restarting: bool,
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let Some(arguments) = arguments(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments(mut words: impl Iterator<Item = String>) -> Option<Arguments> {
    let mut config = None;
    let mut restarting = false;
    while let Some(word) = words.next() {
        match word.as_str() {
            "--config" => config = Some(PathBuf::from(words.next()?)),
            "--restarting" => restarting = true,
            _ => return None,
        }
    }
    Some(Arguments {
        config: config?,
        restarting,
    })
}

#[tokio::main(flavor = "current_thread")]
async fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let config = FileConfig::read(&arguments.config)?;
    let (speaker, fib) = spawn(Options {
        restarting: arguments.restarting,
        forwarding_preserved: config.forwarding_preserved,
    })?;
    // Nothing is forwarded here.
    drop(fib);
    let mut table = config.mrt_table.clone();
    configure(&speaker, config);
    let stop = serve(&speaker, &arguments.config, &mut table).await?;
    log_status(&speaker).await;
    speaker.shutdown(stop).await;
    Ok(())
}

fn configure(speaker: &Handle, config: FileConfig) {
    speaker.configure(config.speaker);
    speaker.local_routes(config.networks);
    speaker.monitor(config.monitoring);
}

async fn serve(
    speaker: &Handle,
    path: &Path,
    table: &mut Option<PathBuf>,
) -> Result<Stop, Box<dyn Error>> {
    let mut reload = signal(SignalKind::hangup())?;
    let mut report = signal(SignalKind::user_defined1())?;
    let mut dump = signal(SignalKind::user_defined2())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tracing::info!("running with {}", path.display());
    loop {
        tokio::select! {
            _ = reload.recv() => match FileConfig::read(path) {
                Ok(config) => {
                    table.clone_from(&config.mrt_table);
                    configure(speaker, config);
                }
                Err(error) => tracing::error!("the configuration stays as it was: {error}"),
            },
            _ = report.recv() => log_status(speaker).await,
            _ = dump.recv() => match table {
                Some(file) => write_table(speaker, file).await,
                None => tracing::warn!("mrtTable does not say where the table is to go"),
            },
            _ = terminate.recv() => return Ok(Stop::Planned),
            _ = interrupt.recv() => return Ok(Stop::Drain),
        }
    }
}

async fn log_status(speaker: &Handle) {
    match speaker.status().await {
        Ok(status) => match serde_saphyr::to_string(&status) {
            Ok(text) => tracing::info!("status:\n{text}"),
            Err(error) => tracing::error!("cannot print the status: {error}"),
        },
        Err(error) => tracing::error!("{error}"),
    }
}

/// Under another name first, so that whoever reads the file finds all of it.
async fn write_table(speaker: &Handle, path: &Path) {
    let Ok(table) = speaker.mrt_table().await else {
        return;
    };
    let partial = path.with_extension("partial");
    let written = std::fs::write(&partial, &table).and_then(|()| std::fs::rename(&partial, path));
    match written {
        Ok(()) => tracing::info!("the table is in {}", path.display()),
        Err(error) => tracing::error!("cannot write {}: {error}", path.display()),
    }
}
