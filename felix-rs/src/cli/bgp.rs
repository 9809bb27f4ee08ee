//! `ocicat bgp`: sessions and routes of this node's speaker.

use super::table::Table;
use super::{Output, ask, formatted, value_of};
use crate::ctl::{Answer, BgpQuestion, Destination, Drain, Question, Refresh, RouteQuestion};
use bgp_core::{AdvertisedStatus, PathStatus, PeerStatus, RouteStatus, SpeakerStatus};
use clap::{Args, Subcommand};
use std::fmt::{Display, Write};
use std::path::Path;
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub(super) enum Bgp {
    /// Sessions, and in words why one is down
    Summary,
    /// All that is known of each session
    Neighbors {
        /// Address or name of a peer
        peer: Option<String>,
    },
    /// Every path to every prefix, and why it is or is not in use
    Routes(Routes),
    /// What BFD says of the paths to peers
    Bfd,
    /// Exchange the routes of a session again, without a reset (RFC 2918)
    Refresh {
        /// Address or name of the peer
        peer: String,
        /// One direction only: what the peer tells, or what it is told
        #[arg(value_enum, default_value_t = Refresh::Both)]
        direction: Refresh,
    },
    /// End a session and keep it down until `enable` or the agent's next start
    Shutdown {
        /// Address or name of the peer
        peer: String,
        /// What the peer is told (RFC 9003)
        #[arg(long, default_value = "")]
        text: String,
    },
    /// Undo `shutdown`
    Enable {
        /// Address or name of the peer
        peer: String,
    },
    /// Take this node out of service: routes become a last resort, then all sessions end
    Drain(DrainArgs),
}

#[derive(Debug, Args)]
pub(super) struct Routes {
    /// A prefix, or an address: the longest prefix that holds it
    destination: Option<Destination>,
    /// Only what this peer announces, also what is not taken
    #[arg(long, value_name = "PEER", conflicts_with = "advertised")]
    received: Option<String>,
    /// What this peer is told
    #[arg(long, value_name = "PEER")]
    advertised: Option<String>,
    /// Path by path with all attributes, and what decided
    #[arg(long)]
    why: bool,
}

#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    /// Seconds that the network has to find other paths before the sessions end
    #[arg(long, default_value_t = 10)]
    wait: u64,
    /// Put the node back into service
    #[arg(long, conflicts_with = "wait")]
    undo: bool,
}

impl Bgp {
    pub(super) fn run(&self, run_dir: &Path, output: Output) -> Result<String, String> {
        let ask = |question| ask(run_dir, &Question::Bgp(question));
        match self {
            Self::Summary => {
                let status: SpeakerStatus = value_of(ask(BgpQuestion::Summary)?)?;
                formatted(output, &status, || summary(&status))
            }
            Self::Neighbors { peer } => {
                let peers: Vec<_> = value_of(ask(BgpQuestion::Neighbours(peer.clone()))?)?;
                formatted(output, &peers, || peers.iter().map(neighbour).collect())
            }
            Self::Routes(routes) => routes.print(output, ask(routes.question())?),
            Self::Bfd => {
                let mut peers: Vec<PeerStatus> = value_of(ask(BgpQuestion::Neighbours(None))?)?;
                peers.retain(|peer| peer.bfd.is_some());
                formatted(output, &peers, || bfd(&peers))
            }
            Self::Refresh { peer, direction } => {
                let (peer, direction) = (peer.clone(), *direction);
                text_of(ask(BgpQuestion::Refresh { peer, direction })?)
            }
            Self::Shutdown { peer, text } => {
                let (peer, text) = (peer.clone(), Some(text.clone()));
                text_of(ask(BgpQuestion::Shutdown { peer, text })?)
            }
            Self::Enable { peer } => {
                let (peer, text) = (peer.clone(), None);
                text_of(ask(BgpQuestion::Shutdown { peer, text })?)
            }
            Self::Drain(drain) if drain.undo => text_of(ask(BgpQuestion::Drain(Drain::Undo))?),
            Self::Drain(drain) => {
                print!("{}", text_of(ask(BgpQuestion::Drain(Drain::Announce))?)?);
                std::thread::sleep(Duration::from_secs(drain.wait));
                print!("{}", text_of(ask(BgpQuestion::Drain(Drain::Reset))?)?);
                text_of(ask(BgpQuestion::Drain(Drain::Close))?)
            }
        }
    }
}

impl Routes {
    fn question(&self) -> BgpQuestion {
        BgpQuestion::Routes(RouteQuestion {
            destination: self.destination,
            received: self.received.clone(),
            advertised: self.advertised.clone(),
        })
    }

    fn print(&self, output: Output, answer: Answer) -> Result<String, String> {
        if self.advertised.is_some() {
            let routes: Vec<AdvertisedStatus> = value_of(answer)?;
            return formatted(output, &routes, || advertised(&routes));
        }
        let found: Vec<RouteStatus> = value_of(answer)?;
        formatted(output, &found, || {
            if self.why {
                found.iter().map(why).collect()
            } else {
                table(&found)
            }
        })
    }
}

fn text_of(answer: Answer) -> Result<String, String> {
    match answer {
        Answer::Text(text) => Ok(text),
        Answer::Error(message) => Err(message),
        Answer::Value(value) => Ok(value.to_string()),
    }
}

/// What is there, or a dash.
fn or_dash(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn summary(status: &SpeakerStatus) -> String {
    let header = [
        "PEER",
        "ADDRESS",
        "AS",
        "STATE",
        "FOR",
        "RECEIVED",
        "ADVERTISED",
        "WHY",
    ];
    let mut table = Table::new(header);
    for peer in &status.peers {
        let down = peer.state != "Established";
        let why = peer.last_error.clone().filter(|_| down);
        table.row([
            peer.name.clone(),
            peer.key.to_string(),
            or_dash(peer.remote_as),
            peer.state.clone(),
            format!("{}s", peer.since),
            peer.received.to_string(),
            peer.advertised.to_string(),
            why.unwrap_or_default(),
        ]);
    }
    let up = status
        .peers
        .iter()
        .filter(|peer| peer.state == "Established");
    let mut text = format!(
        "router id {}, local AS {}, {} prefixes, {} of {} sessions established\n",
        or_dash(status.router_id),
        or_dash(status.local_as),
        status.prefixes,
        up.count(),
        status.peers.len(),
    );
    if let Some(error) = &status.listen_error {
        let _ = writeln!(text, "not listening: {error}");
    }
    text + &table.to_string()
}

fn neighbour(peer: &PeerStatus) -> String {
    let mut text = format!("{} ({})\n", peer.key, peer.name);
    let mut line = |title: &str, words: String| {
        let _ = writeln!(text, "  {title:<20} {words}");
    };
    line("state", format!("{} for {} s", peer.state, peer.since));
    line("remote AS", or_dash(peer.remote_as));
    line("remote router id", or_dash(peer.router_id));
    line("local address", or_dash(peer.local_address));
    line(
        "hold time",
        peer.hold_time
            .map_or_else(|| "-".to_owned(), |time| format!("{time} s")),
    );
    line("families", peer.families.join(", "));
    let stale = if peer.stale == 0 {
        String::new()
    } else {
        format!(", {} of them stale", peer.stale)
    };
    line("prefixes received", format!("{}{stale}", peer.received));
    line("prefixes advertised", peer.advertised.to_string());
    line(
        "updates received",
        format!(
            "{}, {} malformed attributes",
            peer.updates_received, peer.faults
        ),
    );
    line("established", format!("{} times", peer.established_count));
    if let Some(bfd) = &peer.bfd {
        line("BFD", bfd.state.to_string());
    }
    let sentences = [
        ("last error", &peer.last_error),
        ("notification received", &peer.last_notification_received),
        ("notification sent", &peer.last_notification_sent),
    ];
    for (title, sentence) in sentences {
        if let Some(sentence) = sentence {
            line(title, sentence.clone());
        }
    }
    text
}

fn bfd(peers: &[PeerStatus]) -> String {
    let header = [
        "PEER",
        "ADDRESS",
        "STATE",
        "REMOTE",
        "EVERY",
        "DETECTS IN",
        "LAST DOWN",
    ];
    let mut table = Table::new(header);
    for peer in peers {
        let Some(report) = &peer.bfd else { continue };
        table.row([
            peer.name.clone(),
            peer.key.to_string(),
            report.state.to_string(),
            report.remote_state.to_string(),
            format!("{} ms", report.transmit_interval_ms),
            format!("{} ms", report.detection_time_ms),
            report.diagnostic.to_string(),
        ]);
    }
    table.to_string()
}

fn table(routes: &[RouteStatus]) -> String {
    let mut table = Table::new(["PREFIX", "NEXT HOP", "FROM", "AS PATH", "VERDICT"]);
    for route in routes {
        for path in &route.paths {
            table.row([
                route.prefix.to_string(),
                or_dash(path.next_hop),
                path.from.clone(),
                path.as_path.clone(),
                path.verdict.clone(),
            ]);
        }
    }
    table.to_string()
}

fn why(route: &RouteStatus) -> String {
    let mut text = format!("{}\n", route.prefix);
    for path in &route.paths {
        text.push_str(&path_lines(path));
    }
    text
}

fn path_lines(path: &PathStatus) -> String {
    let via = path.next_hop.map(|hop| format!(" via {hop}"));
    let peer = path.peer.map(|key| format!(" {key}"));
    let mut text = format!(
        "  from {}{}{}{}\n",
        path.from,
        peer.unwrap_or_default(),
        via.unwrap_or_default(),
        if path.stale { ", stale" } else { "" },
    );
    let mut line = |title: &str, words: String| {
        if !words.is_empty() {
            let _ = writeln!(text, "    {title:<12} {words}");
        }
    };
    let number = |number: Option<u32>| number.map(|n| n.to_string()).unwrap_or_default();
    line("AS path", path.as_path.clone());
    line("local pref", number(path.local_pref));
    line("MED", number(path.med));
    line("communities", path.communities.join(" "));
    line("path id", number(Some(path.path_id).filter(|id| *id != 0)));
    line("verdict", path.verdict.clone());
    text
}

fn advertised(routes: &[AdvertisedStatus]) -> String {
    let header = [
        "PREFIX",
        "NEXT HOP",
        "AS PATH",
        "PREF",
        "MED",
        "COMMUNITIES",
    ];
    let mut table = Table::new(header);
    for route in routes {
        table.row([
            route.prefix.to_string(),
            route.next_hop.to_string(),
            route.as_path.clone(),
            or_dash(route.local_pref),
            or_dash(route.med),
            route.communities.join(" "),
        ]);
    }
    table.to_string()
}
