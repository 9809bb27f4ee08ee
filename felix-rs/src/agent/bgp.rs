//! What operators ask the BGP speaker, and what they do to its sessions until the agent's end.

use super::Agent;
use crate::ctl::{Answer, BgpQuestion, Destination, Drain, Refresh, RouteQuestion};
use bgp_core::{Operation, PeerKey, PeerStatus, RouteStatus};
use bgp_speaker::{Gone, Handle, SpeakerConfig};
use ipnet::IpNet;
use std::borrow::Cow;
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// What a peer is told of a node that goes out of service (RFC 9003).
const OUT_OF_SERVICE: &str = "this node is going out of service";

/// What an operator has said over the objects.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    /// Sessions that are shut down, and the text for the peer.
    shut: BTreeMap<PeerKey, String>,
    /// No session at all.
    closed: bool,
}

impl Overrides {
    /// The configuration that is in force with them.
    pub(super) fn over<'a>(&self, config: &'a SpeakerConfig) -> Cow<'a, SpeakerConfig> {
        if self.shut.is_empty() && !self.closed {
            return Cow::Borrowed(config);
        }
        let mut config = config.clone();
        for (key, text) in &self.shut {
            if let Some(peer) = config.peers.get_mut(key) {
                peer.shutdown = Some(text.clone());
            }
        }
        if self.closed {
            let ranges = config
                .dynamic_peers
                .values_mut()
                .map(|range| &mut range.peer);
            let listed = config.peers.values_mut();
            for peer in listed
                .chain(ranges)
                .chain(config.interface_peers.values_mut())
            {
                peer.shutdown = Some(OUT_OF_SERVICE.to_owned());
            }
        }
        Cow::Owned(config)
    }
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
enum BgpError {
    #[error("{0}")]
    Gone(#[from] Gone),
    #[error("{peer} is no peer of this node")]
    NoPeer { peer: String },
    #[error("{peer} stands for several peers, say which: {keys}")]
    Several { peer: String, keys: String },
    #[error("there is no session with {peer}")]
    NoSession { peer: String },
    #[error("{0}")]
    Operation(#[from] bgp_core::OperationError),
}

impl Agent {
    pub(super) fn on_bgp(&mut self, question: BgpQuestion, answer: oneshot::Sender<Answer>) {
        let said = match question {
            BgpQuestion::Shutdown { peer, text } => self.shut(&peer, text),
            BgpQuestion::Drain(Drain::Announce) => {
                self.speaker.set_draining(true);
                Ok("peers are told that this node's routes are a last resort (RFC 8326)")
            }
            BgpQuestion::Drain(Drain::Close) => {
                self.overrides.closed = true;
                Ok("no session until `ocicat bgp drain --undo`, or the agent's next start")
            }
            BgpQuestion::Drain(Drain::Undo) => {
                self.overrides.closed = false;
                self.speaker.set_draining(false);
                Ok("this node is in service")
            }
            other => {
                let speaker = self.speaker.clone();
                tokio::spawn(async move {
                    let said = ask(&speaker, other).await;
                    let _ = answer.send(said.unwrap_or_else(|e| Answer::Error(e.to_string())));
                });
                return;
            }
        };
        let _ = answer.send(said.map_or_else(
            |error| Answer::Error(error.to_string()),
            |text| Answer::Text(format!("{text}\n")),
        ));
    }

    /// Shuts a listed peer down, or lets it come back.
    fn shut(&mut self, peer: &str, text: Option<String>) -> Result<&'static str, BgpError> {
        let sessions = self.calc.desired().sessions.as_ref();
        let listed = sessions.map(|config| config.peers.iter().map(|(key, of)| (*key, &*of.name)));
        let key = one(peer, listed.into_iter().flatten())?;
        match text {
            Some(text) => {
                tracing::info!(peer = %key, "shut down by hand");
                self.overrides.shut.insert(key, text);
                Ok("shut down until `ocicat bgp enable`, or the agent's next start")
            }
            None => {
                tracing::info!(peer = %key, "enabled by hand");
                self.overrides.shut.remove(&key);
                Ok("as its object says")
            }
        }
    }
}

/// Questions that the speaker answers.
async fn ask(speaker: &Handle, question: BgpQuestion) -> Result<Answer, BgpError> {
    match question {
        BgpQuestion::Summary => Ok(Answer::json(&speaker.status().await?)),
        BgpQuestion::Neighbours(peer) => {
            let mut peers = speaker.status().await?.peers;
            if let Some(peer) = peer {
                peers.retain(|status| is_called(&peer, &status.key, &status.name));
                if peers.is_empty() {
                    return Err(BgpError::NoPeer { peer });
                }
            }
            Ok(Answer::json(&peers))
        }
        BgpQuestion::Routes(question) => routes(speaker, question).await,
        BgpQuestion::Refresh { peer, direction } => {
            let key = key_of(speaker, &peer).await?;
            if direction != Refresh::Out {
                speaker.operate(key, Operation::RefreshIn).await??;
            }
            if direction != Refresh::In {
                speaker.operate(key, Operation::RefreshOut).await??;
            }
            Ok(Answer::Text(String::new()))
        }
        BgpQuestion::Drain(_) => {
            let peers = speaker.status().await?.peers;
            let up = peers.iter().filter(|peer| peer.state == "Established");
            let mut ended = 0;
            for peer in up {
                let reset = Operation::HardReset(OUT_OF_SERVICE.to_owned());
                // A session that ended meanwhile needs no end.
                if speaker.operate(peer.key, reset).await?.is_ok() {
                    ended += 1;
                }
            }
            Ok(Answer::Text(format!("{ended} sessions ended\n")))
        }
        // Answered by the agent.
        BgpQuestion::Shutdown { peer, .. } => Err(BgpError::NoPeer { peer }),
    }
}

async fn routes(speaker: &Handle, question: RouteQuestion) -> Result<Answer, BgpError> {
    let wanted = question.destination;
    if let Some(peer) = question.advertised {
        let key = key_of(speaker, &peer).await?;
        let told = speaker.advertised(key).await?;
        let told = told.ok_or(BgpError::NoSession { peer })?;
        return Ok(Answer::json(&among(told, wanted, |route| route.prefix)));
    }
    let received = match question.received {
        Some(peer) => Some(key_of(speaker, &peer).await?),
        None => None,
    };
    let mut routes: Vec<RouteStatus> = speaker.routes().await?;
    if received.is_some() {
        for route in &mut routes {
            route.paths.retain(|path| path.peer == received);
        }
        routes.retain(|route| !route.paths.is_empty());
    }
    Ok(Answer::json(&among(routes, wanted, |route| route.prefix)))
}

/// Those with this prefix, or with the longest that holds an address.
fn among<T>(mut all: Vec<T>, wanted: Option<Destination>, of: impl Fn(&T) -> IpNet) -> Vec<T> {
    match wanted {
        None => {}
        Some(Destination::Prefix(prefix)) => all.retain(|route| of(route) == prefix.trunc()),
        Some(Destination::Address(address)) => {
            all.retain(|route| of(route).contains(&address));
            let longest = all.iter().map(|route| of(route).prefix_len()).max();
            all.retain(|route| Some(of(route).prefix_len()) == longest);
        }
    }
    all
}

async fn key_of(speaker: &Handle, peer: &str) -> Result<PeerKey, BgpError> {
    let status = speaker.status().await?;
    let all = status
        .peers
        .iter()
        .map(|PeerStatus { key, name, .. }| (*key, &**name));
    one(peer, all)
}

/// The one peer that goes by this.
fn one<'a>(peer: &str, all: impl Iterator<Item = (PeerKey, &'a str)>) -> Result<PeerKey, BgpError> {
    let peer = peer.to_owned();
    let named = all.filter(|(key, name)| is_called(&peer, key, name));
    let keys: Vec<PeerKey> = named.map(|(key, _)| key).collect();
    match keys.as_slice() {
        [] => Err(BgpError::NoPeer { peer }),
        [key] => Ok(*key),
        several => {
            let keys: Vec<String> = several.iter().map(ToString::to_string).collect();
            let keys = keys.join(", ");
            Err(BgpError::Several { peer, keys })
        }
    }
}

/// A peer goes by its address, and by the name of its object with or without the kind.
fn is_called(text: &str, key: &PeerKey, name: &str) -> bool {
    let (_, short) = name.split_once('/').unwrap_or(("", name));
    text == key.to_string() || text == key.address.to_string() || text == name || text == short
}

#[cfg(test)]
mod tests {
    use super::*;
    use bgp_core::{DynamicPeers, PeerConfig};

    fn key(address: &str) -> PeerKey {
        PeerKey::new(address.parse().unwrap(), 179)
    }

    fn config() -> SpeakerConfig {
        let mut config = SpeakerConfig::new(64512, [10, 0, 0, 1].into());
        for address in ["10.0.0.2", "10.0.0.3"] {
            let peer = PeerConfig::new("BGPPeer/racks", 65001);
            config.peers.insert(key(address), peer);
        }
        let peer = PeerConfig::new("BGPPeer/lab", 65001);
        let range = DynamicPeers { limit: 1, peer };
        config
            .dynamic_peers
            .insert("10.9.0.0/16".parse().unwrap(), range);
        config
    }

    #[test]
    fn a_shut_down_touches_one_session_and_a_drained_node_has_none() {
        let mut overrides = Overrides::default();
        assert!(matches!(overrides.over(&config()), Cow::Borrowed(_)));
        overrides.shut.insert(key("10.0.0.2"), "swap".into());
        let shut = overrides.over(&config()).into_owned();
        assert_eq!(
            shut.peers[&key("10.0.0.2")].shutdown.as_deref(),
            Some("swap")
        );
        assert_eq!(
            shut.peers[&key("10.0.0.3")],
            config().peers[&key("10.0.0.3")]
        );
        overrides.closed = true;
        let closed = overrides.over(&config()).into_owned();
        let ranges = closed.dynamic_peers.values().map(|range| &range.peer);
        let mut all = closed.peers.values().chain(ranges);
        assert!(all.all(|peer| peer.shutdown.is_some()));
    }

    #[test]
    fn a_peer_goes_by_address_or_by_a_name_that_is_its_own() {
        let config = config();
        let all = || config.peers.iter().map(|(key, peer)| (*key, &*peer.name));
        assert_eq!(one("10.0.0.3", all()).unwrap(), key("10.0.0.3"));
        assert_eq!(
            one("racks", all()).unwrap_err().to_string(),
            "racks stands for several peers, say which: 10.0.0.2, 10.0.0.3"
        );
        let first = || all().take(1);
        assert_eq!(one("racks", first()).unwrap(), key("10.0.0.2"));
        assert_eq!(one("BGPPeer/racks", first()).unwrap(), key("10.0.0.2"));
        assert_eq!(
            one("10.0.0.4", all()).unwrap_err().to_string(),
            "10.0.0.4 is no peer of this node"
        );
    }

    #[test]
    fn an_address_asks_for_the_longest_prefix_and_a_prefix_for_itself() {
        let all = || -> Vec<IpNet> {
            ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16"]
                .map(|net| net.parse().unwrap())
                .into()
        };
        let found = |text: &str| -> Vec<String> {
            let found = among(all(), Some(text.parse().unwrap()), |net| *net);
            found.iter().map(ToString::to_string).collect()
        };
        assert_eq!(found("10.1.2.3"), ["10.1.0.0/16"]);
        assert_eq!(found("192.0.2.1"), ["0.0.0.0/0"]);
        assert_eq!(found("10.0.0.0/8"), ["10.0.0.0/8"]);
        assert!(found("fd00::1").is_empty());
        assert_eq!(among(all(), None, |net| *net), all());
    }
}
