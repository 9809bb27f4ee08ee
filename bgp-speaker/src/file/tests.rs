use super::*;
use bgp_core::filter::{Action, Community, Operation};
use bgp_core::{Excess, Export, Import, RemoteAs};
use std::io::Write;

fn read(text: &str) -> Result<FileConfig, FileError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    FileConfig::read(file.path())
}

const HEAD: &str = "localAs: 64512\nrouterId: 192.0.2.1\n";

#[test]
fn a_small_file_gets_the_usual_values() {
    let text = format!(
        "{HEAD}networks: [10.1.0.0/26]\npeers:\n- {{ address: 10.0.0.1, remoteAs: 65001 }}\n"
    );
    let config = read(&text).unwrap();
    assert_eq!(config.speaker.listen_port, 179);
    let key = PeerKey::new("10.0.0.1".parse().unwrap(), 179);
    let expected = PeerConfig {
        import: Import::Unstated,
        export: Export::Unstated,
        ..PeerConfig::new("10.0.0.1", 65001)
    };
    assert_eq!(config.speaker.peers[&key], expected);
    assert_eq!(config.networks.len(), 1);
}

#[test]
fn what_is_wrong_is_named() {
    let twice = "peers: [{address: '::1', remoteAs: 1}, {address: '::1', remoteAs: 2}]";
    let hold = "peers: [{name: tor, address: '::1', remoteAs: 1, holdTime: 2}]";
    for (text, expected) in [
        (format!("{HEAD}{twice}"), "peers: ::1 is listed twice"),
        (format!("{HEAD}{hold}"), "peers: tor: holdTime"),
        (format!("{HEAD}colour: red"), "colour"),
        (
            format!("{HEAD}peers: [{{name: tor, remoteAs: 1}}]"),
            "peers: tor: one of address, range and interface",
        ),
        (
            format!("{HEAD}peers: [{{address: '::1', remoteAs: 1, importFilters: [gone]}}]"),
            "peers: ::1: there is no filter gone",
        ),
        (
            format!("{HEAD}filters: {{f: [{{action: Accept, cidr: 10.0.0.0/8}}]}}"),
            "filters: f: rule 1: cidr and matchOperator",
        ),
        (
            format!(
                "{HEAD}filters: {{f: [{{action: Accept}}, \
                 {{action: Reject, communities: ['1:2:3:4']}}]}}"
            ),
            "filters: f: rule 2: community: \"1:2:3:4\" is no community",
        ),
        (
            format!("{HEAD}filters: {{f: [{{action: Accept, prefixList: gone}}]}}"),
            "filters: f: rule 1: prefixList: there is no list gone",
        ),
        (
            format!(
                "{HEAD}filters: {{f: [{{action: Accept, cidr: 10.0.0.0/8, \
                 matchOperator: In, prefixLength: {{min: 25, max: 24}}}}]}}"
            ),
            "prefixLength: min must not exceed max",
        ),
        (
            format!("{HEAD}filters: {{f: [{{action: Reject, operations: [{{setMed: 1}}]}}]}}"),
            "filters: f: rule 1: operations: only with action Accept",
        ),
        ("localAs: many".to_owned(), "localAs"),
    ] {
        let error = read(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn filters_and_peers_of_all_kinds_are_read() {
    let text = format!(
        "{HEAD}
decision: {{ maximumPaths: 1, asPathRelax: false }}
prefixLists:
  ours: [{{ action: Accept, cidr: 10.0.0.0/8, max: 24 }}]
filters:
  tag:
  - action: Accept
    prefixList: ours
    peerType: eBGP
    operations:
    - addCommunity: '64512:7'
    - prependASPath: [64512]
  - action: Reject
peers:
- {{ address: 10.0.0.1, remoteAs: external, importFilters: [tag] }}
- range: 10.0.0.0/24
  remoteAs: auto
  limit: 5
  maxPrefixes: {{ maximum: 10, excess: Idle }}
  export: All
- {{ interface: eth0, remoteAs: external, import: None }}
"
    );
    let speaker = read(&text).unwrap().speaker;
    assert_eq!(speaker.decision.maximum_paths, 1);
    let tor = &speaker.peers[&PeerKey::new("10.0.0.1".parse().unwrap(), 179)];
    assert_eq!(tor.remote_as, RemoteAs::External);
    assert_eq!((tor.import, tor.export), (Import::All, Export::Unstated));
    let rules = &tor.import_filter.rules;
    let community: Community = "64512:7".parse().unwrap();
    assert_eq!(
        rules[0].operations,
        [
            Operation::AddCommunity(community),
            Operation::PrependAsPath(vec![64512])
        ]
    );
    assert_eq!(rules[1].action, Action::Reject);
    let range = &speaker.dynamic_peers[&"10.0.0.0/24".parse::<IpNet>().unwrap()];
    assert_eq!(range.limit, 5);
    let limit = range.peer.prefix_limit.unwrap();
    assert_eq!((limit.maximum, limit.excess), (10, Excess::Idle));
    assert_eq!(range.peer.export, Export::All);
    assert_eq!(speaker.interface_peers["eth0"].import, Import::None);
}

#[test]
fn without_the_demand_for_policies_the_usual_ones_hold() {
    let peers = "peers: [{ address: 10.0.0.1, remoteAs: 65001 }]";
    let config = read(&format!("{HEAD}ebgpRequiresPolicy: false\n{peers}")).unwrap();
    let (_, peer) = config.speaker.peers.first_key_value().unwrap();
    assert_eq!((peer.import, peer.export), (Import::All, Export::OwnRoutes));
}
