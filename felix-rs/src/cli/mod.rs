//! `ocicat`: ask the agent, print a table, JSON or text.

mod bgp;
mod diff;
mod doctor;
mod drops;
mod ipam;
mod lint;
mod migrate;
mod source;
mod table;
mod why;

use crate::ctl::{Answer, EndpointLine, NodeReport, Question};
use clap::{Parser, Subcommand, ValueEnum};
use model::names;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use table::Table;

/// Ask Ocicat's agent on this node.
#[derive(Debug, Parser)]
#[command(name = "ocicat", version)]
struct Cli {
    /// Directory of the agent's sockets
    #[arg(long, default_value = names::RUN_DIR, global = true)]
    run_dir: PathBuf,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Table, global = true)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
    Yaml,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Ask(Ask),
    /// BGP sessions and routes
    #[command(subcommand)]
    Bgp(bgp::Bgp),
    /// Whether policy allows a connection, and what decides at each end
    Why(why::Why),
    /// What of this host stands in the agent's way, or will; exit status 1 if anything is found
    Doctor(doctor::Doctor),
    /// Which connections manifests would open or close; exit status 1 if any
    Diff(diff::Diff),
    /// What is probably not meant in policies; exit status 1 if anything is found
    Lint(lint::Lint),
    /// What becomes of the objects of an existing Calico; exit status 1 if any is refused
    Migrate(migrate::Migrate),
}

/// Commands whose answer is the agent's.
#[derive(Debug, Subcommand)]
enum Ask {
    /// Is this node doing its job, and if not, why
    Status,
    /// Pods of this node
    Endpoints,
    /// Addresses: pools, blocks, what is wrong
    #[command(subcommand)]
    Ipam(ipam::Ipam),
    /// What policy denied lately, and which policy
    Drops,
    /// What the agent would change in the kernel now
    Plan,
    /// The nftables table that should be in force, as nft text
    Ruleset,
}

/// Whether the executable goes by the name of the command: `ocicat`, or `ocicat-node ctl ...`.
pub(crate) fn is_called() -> bool {
    let mut args = std::env::args_os();
    let name = args.next().map(PathBuf::from);
    let by_name = name
        .and_then(|n| n.file_name().map(|f| f == "ocicat"))
        .unwrap_or(false);
    by_name || args.next().is_some_and(|first| first == "ctl")
}

pub(crate) fn run() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    let skip = usize::from(args.get(1).is_some_and(|first| first == "ctl"));
    let args = args
        .into_iter()
        .take(1)
        .chain(std::env::args_os().skip(1 + skip));
    let cli = Cli::parse_from(args);
    match answer(&cli) {
        Ok((text, code)) => {
            // A reader that closed the pipe has what it wants.
            let _ = std::io::stdout().write_all(text.as_bytes());
            code
        }
        Err(message) => {
            eprintln!("ocicat: {message}");
            cli.command.failure()
        }
    }
}

impl Command {
    /// Commands that say something by ending with 1 fail with 2, as `diff` does.
    fn failure(&self) -> ExitCode {
        match self {
            Self::Diff(_) | Self::Lint(_) | Self::Doctor(_) | Self::Migrate(_) => ExitCode::from(2),
            Self::Ask(_) | Self::Bgp(_) | Self::Why(_) => ExitCode::FAILURE,
        }
    }
}

fn answer(cli: &Cli) -> Result<(String, ExitCode), String> {
    let (run_dir, output) = (&cli.run_dir, cli.output);
    let found = |(text, any)| {
        (
            text,
            if any {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            },
        )
    };
    match &cli.command {
        Command::Bgp(bgp) => bgp
            .run(run_dir, output)
            .map(|text| (text, ExitCode::SUCCESS)),
        Command::Why(why) => why
            .run(run_dir, output)
            .map(|text| (text, ExitCode::SUCCESS)),
        Command::Doctor(doctor) => doctor.run(run_dir, output).map(found),
        Command::Diff(diff) => diff.run(run_dir, output).map(found),
        Command::Lint(lint) => lint.run(run_dir, output).map(found),
        Command::Migrate(migrate) => migrate.run(output).map(found),
        Command::Ask(command) => {
            let answer = ask(run_dir, &question(command))?;
            print(command, output, answer).map(|text| (text, ExitCode::SUCCESS))
        }
    }
}

fn question(command: &Ask) -> Question {
    match command {
        Ask::Status => Question::Status,
        Ask::Endpoints => Question::Endpoints,
        Ask::Ipam(ipam) => Question::Ipam(ipam.question()),
        Ask::Drops => Question::Drops,
        Ask::Plan => Question::Plan,
        Ask::Ruleset => Question::Ruleset,
    }
}

fn ask(run_dir: &Path, question: &Question) -> Result<Answer, String> {
    let path = run_dir.join(names::CTL_SOCKET.rsplit('/').next().unwrap_or_default());
    let said = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(&path)?;
        stream.set_read_timeout(Some(Duration::from_secs(40)))?;
        let mut line = serde_json::to_vec(question)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(answer)
    };
    let line =
        said().map_err(|error| format!("{}: {error}; is ocicat-node running?", path.display()))?;
    serde_json::from_str(&line).map_err(|error| format!("the agent's answer: {error}"))
}

/// The value that the agent answered with.
fn value_of<T: DeserializeOwned>(answer: Answer) -> Result<T, String> {
    match answer {
        Answer::Error(message) => Err(message),
        Answer::Text(text) => Err(format!("the agent's answer: unexpected text {text:?}")),
        Answer::Value(value) => {
            serde_json::from_value(value).map_err(|error| format!("the agent's answer: {error}"))
        }
    }
}

/// The value in the form that is asked for; for people in words.
fn formatted<T: Serialize>(
    output: Output,
    value: &T,
    words: impl FnOnce() -> String,
) -> Result<String, String> {
    match output {
        Output::Table => Ok(words()),
        Output::Json => serde_json::to_string_pretty(value)
            .map(|text| text + "\n")
            .map_err(|error| error.to_string()),
        Output::Yaml => serde_saphyr::to_string(value).map_err(|error| error.to_string()),
    }
}

fn print(command: &Ask, output: Output, answer: Answer) -> Result<String, String> {
    let value = match answer {
        Answer::Error(message) => return Err(message),
        Answer::Text(text) => return Ok(text),
        Answer::Value(value) => value,
    };
    let unexpected = |error: serde_json::Error| format!("the agent's answer: {error}");
    if output != Output::Table {
        return formatted(output, &value, String::new);
    }
    match command {
        Ask::Status => serde_json::from_value(value).map(|report| status(&report)),
        Ask::Endpoints => serde_json::from_value(value).map(|lines: Vec<_>| endpoints(&lines)),
        Ask::Ipam(ipam) => ipam.table(value),
        Ask::Drops => serde_json::from_value(value).map(|lines: Vec<_>| drops::table(&lines)),
        Ask::Plan | Ask::Ruleset => Ok(value.to_string()),
    }
    .map_err(unexpected)
}

fn status(report: &NodeReport) -> String {
    let mut text = format!(
        "node       {}: {}\nknown      {} ({} objects)\nkernel     {}\npods       {}\nblocks     {}\nroutes     {}\nrepairs    {}\ncut        {} connections\n",
        report.node,
        if report.readiness.ready {
            "ready"
        } else {
            "NOT READY"
        },
        report.phase,
        report.objects,
        report.kernel,
        report.endpoints,
        report
            .blocks
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" "),
        report.routes,
        report.repairs,
        report.revoked,
    );
    let sections = [
        ("reason", &report.readiness.reasons),
        ("note", &report.readiness.notes),
        ("problem", &report.problems),
        ("withheld", &report.withheld),
    ];
    for (title, sentences) in sections {
        for sentence in sentences {
            text.push_str(&format!("{title:<10} {sentence}\n"));
        }
    }
    text
}

fn endpoints(lines: &[EndpointLine]) -> String {
    let mut table = Table::new(["NAMESPACE", "POD", "ADDRESSES", "INTERFACE", "CONTAINER"]);
    for line in lines {
        let addresses: Vec<String> = line.addresses.iter().map(ToString::to_string).collect();
        let container: String = line.container.chars().take(12).collect();
        table.row([
            line.namespace.clone(),
            line.pod.clone(),
            addresses.join(" "),
            line.interface.clone(),
            container,
        ]);
    }
    table.to_string()
}
