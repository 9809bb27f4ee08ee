//! What sessions can do beside telling each other routes.

use super::network::{Network, address, config, key, prefixes, two_v4_prefixes};
use super::{LONG, pair, peer, received, sent};
use crate::config::{AddPath, Export, Import, NextHopMode, PeerConfig, Role, SpeakerConfig};
use crate::filter::{
    Action, Community, Filter, MatchOperator, Matches, Operation, PrefixLength, PrefixMatch, Rule,
};
use crate::speaker::Operation as Task;
use crate::wire::encode_keepalive;
use crate::{Excess, LocalRoute, PathStatus, PeerStatus, PrefixLimit};
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn change(config: &mut SpeakerConfig, to: usize, change: impl FnOnce(&mut PeerConfig)) {
    change(config.peers.get_mut(&key(to)).expect("a peer"));
}

fn filter(rules: Vec<Rule>) -> Arc<Filter> {
    Arc::new(Filter { rules })
}

fn rule(prefix: &str, action: Action, operations: Vec<Operation>) -> Rule {
    let prefix = PrefixMatch {
        prefix: net(prefix),
        operator: MatchOperator::In,
        length: PrefixLength::default(),
    };
    Rule {
        matches: Matches {
            prefix: Some(prefix),
            ..Matches::default()
        },
        action,
        operations,
    }
}

fn status(network: &Network, at: usize, of: usize) -> PeerStatus {
    let status = network.nodes[at].speaker.status(network.now);
    let mut peers = status.peers.into_iter();
    peers.find(|peer| peer.key == key(of)).expect("a peer")
}

/// The paths that a node has to a prefix.
fn paths(network: &Network, at: usize, prefix: IpNet) -> Vec<PathStatus> {
    let routes = network.nodes[at].speaker.routes();
    let route = routes.into_iter().find(|route| route.prefix == prefix);
    route.map(|route| route.paths).unwrap_or_default()
}

fn announced(network: &Network, from: usize, to: usize, prefix: IpNet) -> bool {
    let all = network.nodes[from].speaker.advertised(&key(to));
    let mut all = all.expect("Established").into_iter();
    all.any(|told| told.prefix == prefix)
}

#[test]
fn an_import_filter_works_on_what_is_there_and_gives_it_back() {
    let mut network = pair(3);
    network.run(LONG);
    let [v4, v6] = prefixes(1);
    let updates = status(&network, 0, 1).updates_received;
    let set = vec![
        Operation::AddCommunity("64512:7".parse().unwrap()),
        Operation::SetLocalPref(300),
    ];
    let rules = vec![
        rule("10.0.0.0/8", Action::Reject, Vec::new()),
        rule("fd00::/8", Action::Accept, set),
    ];
    network.configure(0, |config| {
        change(config, 1, |peer| peer.import_filter = filter(rules));
    });
    network.run(SECOND);
    assert!(!network.nodes[0].fib.contains_key(&v4));
    let path = &paths(&network, 0, v4)[0];
    assert_eq!(path.verdict, "refused: an import filter rejects it");
    let path = &paths(&network, 0, v6)[0];
    assert_eq!(
        (path.local_pref, path.verdict.as_str()),
        (Some(300), "best")
    );
    assert_eq!(path.communities, ["64512:7"]);

    network.configure(0, |config| {
        change(config, 1, |peer| peer.import_filter = Arc::default());
    });
    network.run(SECOND);
    assert!(network.nodes[0].fib.contains_key(&v4));
    assert_eq!(paths(&network, 0, v6)[0].communities, [""; 0]);
    let after = status(&network, 0, 1);
    assert_eq!(
        (after.updates_received, after.established_count),
        (updates, 1)
    );
}

#[test]
fn an_export_filter_changes_only_what_it_is_about() {
    let mut network = pair(4);
    network.run(LONG);
    let [v4, v6] = prefixes(0);
    let updates = status(&network, 1, 0).updates_received;
    let rules = vec![rule("10.0.0.0/8", Action::Reject, Vec::new())];
    network.configure(0, |config| {
        change(config, 1, |peer| peer.export_filter = filter(rules));
    });
    network.run(SECOND);
    assert!(!network.nodes[1].fib.contains_key(&v4));
    assert!(network.nodes[1].fib.contains_key(&v6));
    assert_eq!(sent(&network, 0, 1), received(&network, 1, 0));
    let after = status(&network, 1, 0);
    assert_eq!(after.updates_received, updates + 1, "one withdrawal");
    assert_eq!(after.established_count, 1);
    let prepended = Operation::PrependAsPath(vec![64512, 64512]);
    let rules = vec![rule("10.0.0.0/8", Action::Accept, vec![prepended])];
    network.configure(0, |config| {
        change(config, 1, |peer| peer.export_filter = filter(rules));
    });
    network.run(SECOND);
    assert_eq!(paths(&network, 1, v4)[0].as_path, "64512 64512 64512");
}

#[test]
fn an_external_peer_without_a_policy_gets_and_gives_nothing() {
    let mut network = pair(5);
    network.configure(0, |config| {
        change(config, 1, |peer| {
            (peer.import, peer.export) = (Import::Unstated, Export::Unstated);
        });
    });
    network.run(LONG);
    assert!(network.established(0, 1));
    assert!(network.nodes[0].fib.is_empty() && network.nodes[1].fib.is_empty());
    let path = &paths(&network, 0, prefixes(1)[0])[0];
    assert!(path.verdict.contains("nobody has said what to import"));
}

/// Nodes 0 and 1 announce one prefix each of their own and a common one to node 2.
fn two_ways(seed: u64, tune: impl Fn(&mut PeerConfig)) -> (Network, IpNet) {
    let tuned = |(node, mut config): (usize, PeerConfig)| {
        tune(&mut config);
        (node, config)
    };
    let configs = vec![
        config(0, 65000, &[tuned(peer(2, 65002))]),
        config(1, 65001, &[tuned(peer(2, 65002))]),
        config(2, 65002, &[tuned(peer(0, 65000)), tuned(peer(1, 65001))]),
    ];
    let mut network = Network::new(configs, seed);
    let common = net("192.0.2.0/24");
    network.set_routes(0, &[common, prefixes(0)[0]]);
    network.set_routes(1, &[common, prefixes(1)[0]]);
    network.run(LONG);
    assert_eq!(network.nodes[2].fib[&common], [address(0), address(1)]);
    (network, common)
}

#[test]
fn a_node_that_drains_keeps_its_routes_as_the_last_choice() {
    let (mut network, common) = two_ways(6, |_| {});
    network.nodes[0].speaker.set_draining(true);
    network.run(SECOND);
    assert_eq!(network.nodes[2].fib[&common], [address(1)]);
    assert_eq!(network.nodes[2].fib[&prefixes(0)[0]], [address(0)]);
    let drained = &paths(&network, 2, common)[1];
    assert_eq!(drained.communities, ["graceful-shutdown"]);
    assert_eq!(drained.verdict, "lost: lower LOCAL_PREF");
    network.nodes[0].speaker.set_draining(false);
    network.run(SECOND);
    assert_eq!(network.nodes[2].fib[&common], [address(0), address(1)]);
}

#[test]
fn routes_of_a_peer_that_stays_away_become_a_last_resort_and_then_go() {
    let (mut network, common) = two_ways(7, |peer| peer.long_lived_stale_time = 1000);
    let alone = prefixes(0)[0];
    network.kill(0);
    network.run(60 * SECOND);
    assert_eq!(network.nodes[2].fib[&common].len(), 2, "graceful restart");
    network.run(100 * SECOND);
    assert_eq!(network.nodes[2].fib[&common], [address(1)]);
    assert_eq!(network.nodes[2].fib[&alone], [address(0)]);
    let path = &paths(&network, 2, alone)[0];
    assert_eq!(path.communities, ["llgr-stale"]);
    assert!(path.stale);
    assert!(
        announced(&network, 2, 1, alone),
        "a peer that knows last resorts is told of them"
    );
    network.run(1000 * SECOND);
    assert!(!network.nodes[2].fib.contains_key(&alone));
}

#[test]
fn a_peer_that_comes_back_late_finds_its_routes_and_replaces_them() {
    let (mut network, common) = two_ways(8, |peer| peer.long_lived_stale_time = 1000);
    network.kill(0);
    network.run(200 * SECOND);
    assert_eq!(network.nodes[2].fib[&common], [address(1)]);
    network.nodes[2].removed.clear();
    network.set_routes(0, &[common]);
    network.boot(0, true);
    network.run(LONG);
    assert_eq!(network.nodes[2].fib[&common], [address(0), address(1)]);
    assert_eq!(network.nodes[2].removed, [prefixes(0)[0]]);
    assert_eq!(status(&network, 2, 0).stale, 0);
    assert_eq!(paths(&network, 2, common)[0].communities, [""; 0]);
}

#[test]
fn last_resorts_are_kept_from_peers_that_do_not_know_them_and_from_those_that_forbid_it() {
    let (mut network, _) = two_ways(9, |_| {});
    for (node, other) in [(0, 2), (2, 0)] {
        network.configure(node, |config| {
            change(config, other, |peer| peer.long_lived_stale_time = 1000);
        });
    }
    let forbidden = LocalRoute {
        communities: vec![0xffff_0007],
        ..LocalRoute::from(net("198.51.100.0/24"))
    };
    let alone = prefixes(0)[0];
    let now = network.now;
    let routes = [forbidden.clone(), LocalRoute::from(alone)].into();
    network.nodes[0].speaker.set_local_routes(routes, now);
    network.run(LONG);
    assert!(network.nodes[2].fib.contains_key(&forbidden.prefix));
    network.kill(0);
    network.run(200 * SECOND);
    assert!(!network.nodes[2].fib.contains_key(&forbidden.prefix));
    assert!(network.nodes[2].fib.contains_key(&alone));
    assert!(!announced(&network, 2, 1, alone));
}

#[test]
fn several_paths_reach_a_peer_that_wants_them() {
    // 0 and 1 announce a prefix to 2, which passes both paths on to 3.
    let wanted = |(node, config): (usize, PeerConfig)| {
        let add_path = AddPath {
            receive: true,
            send: 4,
        };
        let next_hop = NextHopMode::Keep;
        (
            node,
            PeerConfig {
                add_path,
                next_hop,
                ..config
            },
        )
    };
    let configs = vec![
        config(0, 65000, &[peer(2, 65002)]),
        config(1, 65001, &[peer(2, 65002)]),
        config(
            2,
            65002,
            &[peer(0, 65000), peer(1, 65001), wanted(peer(3, 65003))],
        ),
        config(3, 65003, &[wanted(peer(2, 65002))]),
    ];
    let mut network = Network::new(configs, 10);
    let common = net("192.0.2.0/24");
    network.set_routes(0, &[common]);
    network.set_routes(1, &[common]);
    network.run(LONG);
    assert_eq!(network.nodes[3].fib[&common], [address(0), address(1)]);
    let ids: Vec<u32> = paths(&network, 3, common)
        .iter()
        .map(|path| path.path_id)
        .collect();
    assert!(ids.len() == 2 && ids[0] != ids[1], "{ids:?}");
    network.set_routes(1, &[]);
    network.run(SECOND);
    assert_eq!(network.nodes[3].fib[&common], [address(0)]);
    // A new configuration of the same kind does not tell everything anew, nor lose anything.
    network.configure(2, |config| {
        change(config, 3, |peer| peer.graceful_shutdown = true);
    });
    network.run(SECOND);
    let path = &paths(&network, 3, common)[0];
    assert_eq!(path.communities, ["graceful-shutdown"]);
    network.set_routes(0, &[]);
    network.run(SECOND);
    assert!(!network.nodes[3].fib.contains_key(&common));
}

#[test]
fn ipv4_routes_have_ipv6_next_hops_where_both_sides_agree() {
    for agreed in [true, false] {
        let mut network = pair(11);
        network.configure(0, |config| {
            config.next_hop_v4 = None;
            change(config, 1, |peer| peer.extended_next_hop = true);
        });
        network.configure(1, |config| {
            change(config, 0, |peer| peer.extended_next_hop = agreed);
        });
        // Node 0 has no IPv4 next hop but the session's own address, which it must not need.
        network.run(LONG);
        let id = network.nodes[0].speaker.by_key[&key(1)];
        let peer = &network.nodes[0].speaker.peers[&id];
        let (_, policy) = peer.member.as_ref().expect("Established");
        assert_eq!(policy.extended_next_hop, agreed);
    }
}

#[test]
fn a_route_that_leaks_between_providers_is_stopped_on_both_sides() {
    // 1 is a customer of 0 and of 2: what 0 tells it must not reach 2.
    let with_role = |(node, config): (usize, PeerConfig), role| {
        (
            node,
            PeerConfig {
                role: Some(role),
                ..config
            },
        )
    };
    for honest in [true, false] {
        let ours = honest.then_some(Role::Customer);
        let to_second = PeerConfig {
            role: ours,
            ..peer(2, 65002).1
        };
        let configs = vec![
            config(0, 65000, &[with_role(peer(1, 65001), Role::Provider)]),
            config(
                1,
                65001,
                &[
                    with_role(peer(0, 65000), Role::Customer),
                    (2, to_second.clone()),
                ],
            ),
            config(2, 65002, &[with_role(peer(1, 65001), Role::Provider)]),
        ];
        let mut network = Network::new(configs, 12);
        network.run(LONG);
        assert!(network.established(1, 2) && network.established(0, 1));
        let [leaked, _] = prefixes(0);
        assert!(network.nodes[1].fib.contains_key(&leaked));
        assert!(!network.nodes[2].fib.contains_key(&leaked));
        assert!(network.nodes[2].fib.contains_key(&prefixes(1)[0]));
        assert_eq!(announced(&network, 1, 2, leaked), !honest);
        if !honest {
            let verdict = &paths(&network, 2, leaked)[0].verdict;
            assert!(verdict.contains("leak"), "{verdict}");
        }
    }
}

#[test]
fn too_many_prefixes_keep_a_session_down_until_somebody_looks_after_it() {
    let mut network = pair(13);
    network.configure(0, |config| {
        let limit = PrefixLimit {
            excess: Excess::Idle,
            ..PrefixLimit::new(1)
        };
        change(config, 1, |peer| peer.prefix_limit = Some(limit));
    });
    network.set_routes(1, &two_v4_prefixes());
    network.run(3600 * SECOND);
    assert!(!network.established(0, 1));
    assert_eq!(status(&network, 0, 1).state, "Idle");
    network.set_routes(1, &prefixes(1)[..1]);
    let now = network.now;
    let reset = Task::Reset(String::new());
    let done = network.nodes[0].speaker.operate(key(1), &reset, now);
    assert_eq!(done, Ok(()));
    network.run(120 * SECOND);
    assert!(network.established(0, 1));
}

#[test]
fn a_peer_near_its_limit_is_warned_about_once_and_may_go_over_it_if_told_so() {
    let mut network = pair(14);
    network.configure(0, |config| {
        let limit = PrefixLimit {
            excess: Excess::Warn,
            ..PrefixLimit::new(1)
        };
        change(config, 1, |peer| peer.prefix_limit = Some(limit));
    });
    network.set_routes(1, &two_v4_prefixes());
    network.run(LONG);
    assert!(network.established(0, 1));
    let warnings = network.nodes[0].notices.iter();
    let warnings = warnings.filter(|notice| notice.text.contains("the limit is 1"));
    assert_eq!(warnings.count(), 1);
}

#[test]
fn a_peer_that_is_shut_down_is_told_why_and_comes_back_when_it_is_not() {
    let mut network = pair(15);
    network.run(LONG);
    network.configure(0, |config| {
        change(config, 1, |peer| {
            peer.shutdown = Some("maintenance until noon".into());
        });
    });
    network.run(LONG);
    assert!(network.has_said(1, "maintenance until noon"));
    assert_eq!(status(&network, 0, 1).state, "Idle");
    assert!(network.nodes[0].fib.is_empty() && network.nodes[1].fib.is_empty());
    network.configure(0, |config| change(config, 1, |peer| peer.shutdown = None));
    network.run(LONG);
    assert!(network.established(0, 1));
}

#[test]
fn a_refresh_brings_everything_again_and_drops_what_does_not_come() {
    let mut network = pair(16);
    network.run(LONG);
    let updates = status(&network, 0, 1).updates_received;
    let now = network.now;
    let done = network.nodes[0]
        .speaker
        .operate(key(1), &Task::RefreshIn, now);
    assert_eq!(done, Ok(()));
    network.run(SECOND);
    let after = status(&network, 0, 1);
    assert_eq!((after.received, after.stale), (2, 0));
    assert!(after.updates_received > updates);
    let id = network.nodes[0].speaker.by_key[&key(1)];
    assert!(network.nodes[0].speaker.peers[&id].refreshing.is_empty());
    // A peer that marks the beginning and forgets a prefix has withdrawn it.
    for subtype in [1, 2] {
        let marker = crate::wire::RouteRefresh {
            family: crate::wire::Family::IPV4,
            subtype,
        };
        network.inject(1, 0, &crate::wire::encode_route_refresh(&marker));
    }
    network.run(SECOND);
    assert_eq!(status(&network, 0, 1).received, 1);
}

#[test]
fn only_a_peer_with_a_session_can_be_refreshed() {
    let mut network = pair(17);
    let now = network.now;
    let speaker = &mut network.nodes[0].speaker;
    let error = speaker.operate(key(1), &Task::RefreshIn, now).unwrap_err();
    assert_eq!(error.to_string(), "there is no session with 10.0.0.2");
    let error = speaker.operate(key(5), &Task::RefreshOut, now).unwrap_err();
    assert_eq!(error.to_string(), "10.0.0.6 is no peer");
}

#[test]
fn a_peer_that_sends_but_does_not_read_loses_its_session() {
    let mut network = pair(18);
    network.run(LONG);
    let connection = network.connection(0, 1);
    network.stalled.insert(0);
    network.power_off(1);
    for _ in 0..(8 * 60 + 60) / 20 {
        let now = network.now;
        let keepalive = encode_keepalive();
        network.nodes[0]
            .speaker
            .received(connection, &keepalive, now);
        network.run(20 * SECOND);
    }
    assert!(network.has_said(0, "send hold timer expired"));
}

#[test]
fn an_operator_can_have_a_session_begin_anew_with_or_without_routes() {
    for (task, kept) in [
        (Task::Reset("new software".into()), true),
        (Task::HardReset("new software".into()), false),
    ] {
        let mut network = pair(19);
        network.run(LONG);
        network.nodes[1].removed.clear();
        let now = network.now;
        let done = network.nodes[0].speaker.operate(key(1), &task, now);
        assert_eq!(done, Ok(()));
        network.run(LONG);
        assert!(network.established(0, 1));
        assert_eq!(network.nodes[1].removed.is_empty(), kept, "{task:?}");
        assert!(network.has_said(1, "Administrative Reset"));
    }
}

#[test]
fn an_internal_or_external_peer_needs_no_number() {
    use crate::RemoteAs;
    let mut network = pair(20);
    network.configure(0, |config| {
        change(config, 1, |peer| peer.remote_as = RemoteAs::External);
    });
    network.configure(1, |config| {
        change(config, 0, |peer| peer.remote_as = RemoteAs::Auto);
    });
    network.run(LONG);
    assert!(network.established(0, 1));
    assert_eq!(status(&network, 0, 1).remote_as, Some(65001));
    let next_hops: Vec<IpAddr> = network.nodes[1].fib[&prefixes(0)[0]].clone();
    assert_eq!(next_hops, [address(0)]);
    network.configure(0, |config| {
        change(config, 1, |peer| peer.remote_as = RemoteAs::Internal);
    });
    network.run(LONG);
    assert!(!network.established(0, 1));
    assert!(network.has_said(0, "peer says AS 65001 but Node/n1 expects internal"));
}

#[test]
fn communities_that_stop_at_the_border_do() {
    let mut network = pair(21);
    network.run(LONG);
    let now = network.now;
    let kept = LocalRoute {
        communities: vec![0xffff_ff01],
        ..LocalRoute::from(prefixes(0)[0])
    };
    network.nodes[0]
        .speaker
        .set_local_routes([kept].into(), now);
    network.run(SECOND);
    assert!(network.nodes[1].fib.is_empty());
    let no_export = Community::NO_EXPORT;
    assert_eq!(no_export.to_string(), "no-export");
}
