//! Our nft table, written by us and judged by `nft`.
#![allow(clippy::unwrap_used)]

mod common;

use common::Namespace;
use common::ruleset::{ip, representative, rule, set};
use kernel::{Kernel, NftError};
use model::{
    Labels, NetworkPolicy, NetworkSet, Object, Parsed, PolicyPeer, PolicyPort, PolicyRule,
    PortMatch, Protocol, Selector,
};
use policy::ruleset::{Element, KeyType, Op, Part, Ruleset, SetKind, Statement as S, Verdict};
use std::net::{IpAddr, UdpSocket};

/// Compares object by object, so that a failure shows one and not all.
#[track_caller]
fn assert_reads(kernel: &mut Kernel, wanted: &Ruleset) {
    let read = kernel.nft_read().unwrap().expect("the table is there");
    assert!(
        read.sets.keys().eq(wanted.sets.keys()),
        "{:?}",
        read.sets.keys()
    );
    assert!(
        read.chains.keys().eq(wanted.chains.keys()),
        "{:?}",
        read.chains.keys()
    );
    for (name, set) in &wanted.sets {
        assert_eq!(read.sets[name].header, set.header, "{name}");
        assert!(
            read.sets[name].elements == set.elements,
            "elements of {name}"
        );
    }
    for (name, chain) in &wanted.chains {
        assert_eq!(read.chains[name].hook, chain.hook, "{name}");
        for (read, wanted) in read.chains[name].rules.iter().zip(&chain.rules) {
            assert_eq!(read, wanted, "{name}");
        }
        assert_eq!(read.chains[name].rules.len(), chain.rules.len(), "{name}");
    }
}

/// What `nft` lists. The flags of the table, and the order in which objects were made, are no
/// part of its meaning.
fn listing(namespace: &Namespace) -> Vec<String> {
    let text = namespace.sh("nft -s list table inet ocicat");
    let mut blocks: Vec<String> = vec![String::new()];
    for line in text
        .lines()
        .filter(|line| !line.contains("progname") && !line.contains("flags owner"))
    {
        let last = blocks.last_mut().unwrap();
        last.push_str(line);
        last.push('\n');
        if line.starts_with("\t}") {
            blocks.push(String::new());
        }
    }
    let header = "table inet ocicat {\n";
    let mut blocks: Vec<_> = blocks
        .into_iter()
        .map(|block| {
            block
                .strip_prefix(header)
                .unwrap_or(&block)
                .trim()
                .to_owned()
        })
        .collect();
    blocks.sort();
    blocks
}

#[test]
fn nft_lists_what_we_wrote_as_it_lists_the_same_text_loaded_by_itself() {
    let (ours, theirs) = (Namespace::new(), Namespace::new());
    let ruleset = representative();
    let mut kernel = ours.kernel();
    kernel.nft_replace(&ruleset).unwrap();
    theirs.nft(&ruleset.to_string()).unwrap();
    let (ours, theirs) = (listing(&ours), listing(&theirs));
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());
}

#[test]
fn what_was_written_is_read_back_as_the_same_value() {
    let namespace = Namespace::new();
    let mut kernel = namespace.kernel();
    assert_eq!(kernel.nft_read(), Ok(None));
    let ruleset = representative();
    kernel.nft_replace(&ruleset).unwrap();
    assert_reads(&mut kernel, &ruleset);
}

/// A local pod behind a policy that uses every way to name peers and ports, and a remote one.
fn compiler() -> policy::Compiler {
    let mut compiler = policy::Compiler::new(policy::Options::default());
    compiler.set_network(policy::NetworkSets {
        masquerade: ["10.1.0.0/16", "fd00::/64"]
            .map(|prefix| prefix.parse().unwrap())
            .into(),
        pools: ["10.0.0.0/8", "fd00::/8"]
            .map(|prefix| prefix.parse().unwrap())
            .into(),
        ipip_peers: ["192.0.2.1".parse().unwrap()].into(),
        ipip_local: Some("192.0.2.9".parse().unwrap()),
        ..policy::NetworkSets::default()
    });
    compiler.set_namespace("default", Some(Labels::new()));
    for (name, ips, local) in [
        ("web", ["10.1.0.2", "fd00::2"], Some(7)),
        ("client", ["10.2.0.2", "fd00:2::2"], None),
    ] {
        let endpoint = policy::Endpoint {
            namespace: "default".into(),
            pod: name.into(),
            labels: Labels::new(),
            ports: [].into(),
            ips: ips.map(|ip| ip.parse().unwrap()).into(),
            local,
            labels_known: true,
            service_account: None,
            profiles: [].into(),
        };
        compiler.set_endpoint(
            &policy::EndpointId(format!("default/{name}").into()),
            Some(endpoint),
        );
    }
    let block = |cidr: &str, except: &str| PolicyPeer::IpBlock {
        cidr: cidr.parse().unwrap(),
        except: vec![except.parse().unwrap()],
    };
    let pods = PolicyPeer::Pods {
        namespaces: None,
        pods: Selector::All,
    };
    let port = |first, last| PolicyPort {
        protocol: Protocol::Tcp,
        port: PortMatch::Range(first, last),
    };
    let rule = |peers: &[PolicyPeer], ports: &[PolicyPort]| PolicyRule {
        peers: (!peers.is_empty()).then(|| peers.to_vec()),
        ports: (!ports.is_empty()).then(|| ports.to_vec()),
    };
    let blocks = [
        block("198.51.100.0/24", "198.51.100.8/29"),
        block("2001:db8::/32", "2001:db8:1::/48"),
    ];
    let policy = NetworkPolicy {
        namespace: "default".into(),
        name: "web".into(),
        pod_selector: Selector::All,
        ingress: Some(vec![
            rule(&[], &[port(443, 443), port(8000, 9000)]),
            rule(
                std::slice::from_ref(&pods),
                &[port(80, 80), port(1000, 2000)],
            ),
            rule(&blocks, &[port(22, 22)]),
        ]),
        egress: Some(vec![rule(&blocks, &[]), rule(&[pods], &[])]),
    };
    let policy = policy::Policy::from(policy);
    compiler.set_policy(&policy.key(), Some(policy));
    compiler
}

#[test]
fn the_compilers_table_is_read_back_as_the_same_value_and_listed_as_its_text_is() {
    let (ours, theirs) = (Namespace::new(), Namespace::new());
    let mut kernel = ours.kernel();
    let mut compiler = compiler();
    kernel.nft_commit(&compiler.resolve()).unwrap();
    assert_reads(&mut kernel, compiler.ruleset());
    theirs.nft(&compiler.ruleset().to_string()).unwrap();
    for (ours, theirs) in listing(&ours).iter().zip(&listing(&theirs)) {
        assert_eq!(ours, theirs);
    }
}

/// Everything that only other kinds of policies need: a host endpoint with policies at every
/// place, a network set, tiers that pass, a staged policy, cluster-wide rules.
fn told_of_every_kind() -> policy::Compiler {
    let mut compiler = compiler();
    compiler.set_options(policy::Options {
        node: "here".into(),
        drop_log: Some(policy::DropLog {
            group: 7,
            per_second: 10,
            burst: 20,
        }),
        ..policy::Options::default()
    });
    let manifests = include_str!("common/every_kind.json");
    let manifests: Vec<serde_json::Value> = serde_json::from_str(manifests).unwrap();
    for manifest in manifests {
        let object = match model::manifest::parse(&manifest).unwrap() {
            Parsed::Valid { object, .. } => object,
            other => panic!("{other:?}"),
        };
        match object {
            Object::Tier(tier) => compiler.set_tier(&tier.name.clone(), Some(tier)),
            Object::NetworkSet(set) => {
                let (namespace, name) = (set.namespace.clone(), set.name.clone());
                compiler.set_network_set(namespace.as_deref(), &name, Some(set));
            }
            Object::HostEndpoint(host) => {
                compiler.set_host_endpoint(&host.name.clone(), Some(*host));
            }
            object => {
                let policy = policy::Policy::try_from(object).unwrap();
                compiler.set_policy(&policy.key(), Some(policy));
            }
        }
    }
    compiler
}

#[test]
fn the_table_of_policies_of_every_kind_is_read_back_and_listed_as_its_text_is() {
    let (ours, theirs) = (Namespace::new(), Namespace::new());
    let mut kernel = ours.kernel();
    let mut compiler = told_of_every_kind();
    kernel.nft_commit(&compiler.resolve()).unwrap();
    assert_reads(&mut kernel, compiler.ruleset());
    theirs.nft(&compiler.ruleset().to_string()).unwrap();
    for (ours, theirs) in listing(&ours).iter().zip(&listing(&theirs)) {
        assert_eq!(ours, theirs);
    }
    let counters = kernel.nft_counters().unwrap();
    assert!(counters.keys().eq(&compiler.ruleset().counters));
}

#[test]
fn nft_lists_what_we_wrote_as_it_lists_our_json_loaded_by_itself() {
    let mut compiler = told_of_every_kind();
    compiler.resolve();
    for ruleset in [representative(), compiler.ruleset().clone()] {
        let (ours, theirs) = (Namespace::new(), Namespace::new());
        // The kernel stays open: it owns the table, and nft hides that.
        let mut kernel = ours.kernel();
        kernel.nft_replace(&ruleset).unwrap();
        let json = ruleset.to_nft_json().to_string();
        theirs.load("nft -j -c -f", &json).unwrap();
        theirs.load("nft -j -f", &json).unwrap();
        let (ours, theirs) = (listing(&ours), listing(&theirs));
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs);
        }
        assert_eq!(ours.len(), theirs.len());
    }
}

#[test]
fn prefixes_of_a_network_set_change_in_place_whatever_they_overlap() {
    let namespace = Namespace::new();
    let mut kernel = namespace.kernel();
    let mut compiler = told_of_every_kind();
    let steps: [&[&str]; 7] = [
        &["203.0.113.0/30"],
        &["203.0.113.0/24", "2001:db8:bad::/64"],
        &["203.0.113.0/25", "203.0.113.192/26", "2001:db8:bad::/48"],
        &["0.0.0.0/0", "::/0"],
        &["203.0.113.4/32"],
        &["255.255.255.0/24", "0.0.0.0/24", "ffff::/16"],
        &[],
    ];
    for nets in steps {
        let set = NetworkSet {
            namespace: None,
            name: "feed".into(),
            labels: [("list".to_owned(), "bad".to_owned())].into(),
            nets: nets.iter().map(|net| net.parse().unwrap()).collect(),
        };
        compiler.set_network_set(None, "feed", Some(set));
        kernel.nft_commit(&compiler.resolve()).unwrap();
        assert_reads(&mut kernel, compiler.ruleset());
    }
}

#[test]
fn counters_count_on_while_the_rules_around_them_change() {
    let namespace = Namespace::new();
    let mut kernel = namespace.kernel();
    let count = |verdict| {
        let statements = vec![
            S::L4Proto(17),
            S::DportRange(7777, 7777),
            S::NamedCounter("counted".into()),
            S::Verdict(verdict),
        ];
        rule(statements, None)
    };
    let mut before = representative();
    before.chains.get_mut("input").unwrap().rules = vec![count(Verdict::Accept)];
    let mut after = before.clone();
    after.chains.get_mut("input").unwrap().rules = vec![count(Verdict::Drop)];
    kernel.nft_replace(&before).unwrap();
    let send = || {
        namespace.run(|| {
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            sender.send_to(b"x", "127.0.0.1:7777").unwrap();
        });
    };
    let packets = |kernel: &mut Kernel| kernel.nft_counters().unwrap()["counted"].packets;
    send();
    assert_eq!(packets(&mut kernel), 1);
    kernel.nft_commit(&before.diff(&after).unwrap()).unwrap();
    send();
    assert_eq!(packets(&mut kernel), 2);
}

#[test]
fn operations_lead_from_one_ruleset_to_another_and_to_nothing() {
    let namespace = Namespace::new();
    let mut kernel = namespace.kernel();
    let full = representative();
    let creation = Ruleset::default().diff(&full).unwrap();
    kernel.nft_commit(&creation).unwrap();
    assert_reads(&mut kernel, &full);
    let mut less = full.clone();
    for set in less.sets.values_mut() {
        set.elements.pop_first();
    }
    less.chains.get_mut("forward").unwrap().rules.drain(3..9);
    for (from, to) in [(&full, &less), (&less, &full), (&full, &Ruleset::default())] {
        kernel.nft_commit(&from.diff(to).unwrap()).unwrap();
        assert_reads(&mut kernel, to);
    }
}

#[test]
fn elements_change_without_the_header_having_been_seen() {
    let namespace = Namespace::new();
    let full = representative();
    namespace.kernel().nft_replace(&full).unwrap();
    let mut successor = namespace.kernel();
    let gone = full.sets["cidr4"].elements.iter().next().unwrap();
    let gone = vec![(gone.0.clone(), None)];
    successor
        .nft_commit(&[Op::DeleteElements("cidr4".into(), gone.clone())])
        .unwrap();
    let mut wanted = full;
    wanted
        .sets
        .get_mut("cidr4")
        .unwrap()
        .elements
        .remove(&gone[0].0);
    assert_reads(&mut successor, &wanted);
}

#[test]
fn tens_of_thousands_of_elements_are_one_transaction() {
    let namespace = Namespace::new();
    let mut kernel = namespace.kernel();
    let element = |n: u32| {
        (
            Element::exact(&[Part::Address(IpAddr::from(n.to_be_bytes()))]),
            None,
        )
    };
    let elements = (0x0a00_0000..0x0a00_0000 + 40_000).map(element).collect();
    let sets = [(
        "many".to_owned(),
        set(&[KeyType::Ipv4], SetKind::Hash, elements),
    )]
    .into();
    let ruleset = Ruleset {
        sets,
        ..Ruleset::default()
    };
    kernel.nft_replace(&ruleset).unwrap();
    assert_reads(&mut kernel, &ruleset);
}

#[test]
fn every_operation_that_fails_names_itself_and_nothing_is_changed() {
    let namespace = Namespace::new();
    let mut kernel = namespace.kernel();
    let full = representative();
    kernel.nft_replace(&full).unwrap();
    let hash4 = full.sets["hash4"].header.clone();
    let element = |text: &str| vec![(Element::exact(&[ip(text)]), None)];
    let jump = |chain: &str| {
        vec![rule(
            vec![S::Verdict(Verdict::Jump(chain.into()))],
            Some("why"),
        )]
    };
    let cases = [
        (Op::AddSet("hash4".into(), hash4.clone()), "add set hash4"),
        (
            Op::AddElements("hash4".into(), element("fd00::1")),
            "add elements to hash4",
        ),
        (
            Op::DeleteElements("hash4".into(), element("192.0.2.9")),
            "delete elements of hash4",
        ),
        (Op::AddChain("pod-7".into(), None), "add chain pod-7"),
        (Op::FlushChain("nowhere".into()), "flush chain nowhere"),
        (
            Op::AddRules("pod-7".into(), jump("nowhere")),
            "add rule 1 to chain pod-7 (why)",
        ),
        (
            Op::AddRules("pod-7".into(), jump("pod-7")),
            "add rule 1 to chain pod-7 (why)",
        ),
        (Op::DeleteChain("pod-7".into()), "delete chain pod-7"),
        (Op::DeleteSet("by-iif".into()), "delete set by-iif"),
    ];
    for (op, name) in cases {
        let harmless = Op::AddElements("hash4".into(), element("10.9.9.9"));
        let ops = [harmless.clone(), op, harmless];
        match kernel.nft_commit(&ops) {
            Err(NftError::Op { op, .. }) => assert_eq!(op, name),
            other => panic!("{name}: {other:?}"),
        }
        assert_reads(&mut kernel, &full);
    }
}

#[test]
fn operations_without_content_change_nothing() {
    let namespace = Namespace::new();
    let mut kernel = namespace.kernel();
    let full = representative();
    kernel.nft_replace(&full).unwrap();
    let nothing = [
        Op::AddElements("hash4".into(), vec![]),
        Op::DeleteElements("hash4".into(), vec![]),
        Op::AddRules("pod-7".into(), vec![]),
    ];
    assert_eq!(kernel.nft_commit(&nothing), Ok(()));
    assert_eq!(kernel.nft_commit(&[]), Ok(()));
    assert_reads(&mut kernel, &full);
}

#[test]
fn what_cannot_be_encoded_is_refused_before_it_is_sent() {
    let namespace = Namespace::new();
    let mut kernel = namespace.kernel();
    let long = rule(vec![], Some(&"x".repeat(200)));
    let endless = rule(vec![S::Counter; 1000], None);
    let cases = [
        Op::AddRules("c".into(), vec![long]),
        Op::AddRules("c".into(), vec![endless]),
        Op::AddChain("c".repeat(70_000), None),
        Op::AddElements(
            "nowhere".into(),
            vec![(Element::exact(&[ip("10.0.0.1")]), None)],
        ),
        Op::AddElements(
            "s".into(),
            vec![(
                Element {
                    key: vec![0; 70_000].into(),
                    end: None,
                },
                None,
            )],
        ),
    ];
    for op in cases {
        let refused = kernel.nft_commit(&[op]);
        assert!(
            matches!(refused, Err(NftError::Unencodable { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(kernel.nft_read(), Ok(None));
}

#[test]
fn a_table_that_vanished_is_reported_and_can_be_replaced() {
    let namespace = Namespace::new();
    let full = representative();
    namespace.kernel().nft_replace(&full).unwrap();
    let mut kernel = namespace.kernel();
    namespace.sh("nft delete table inet ocicat");
    // The first commit of a process makes the table, but not the chain.
    let op = Op::FlushChain("pod-7".into());
    let gone = Err(NftError::TableGone);
    assert_eq!(kernel.nft_commit(std::slice::from_ref(&op)), gone);
    assert_eq!(kernel.nft_read(), Ok(None));
    kernel.nft_replace(&full).unwrap();
    assert_reads(&mut kernel, &full);
    if !kernel.features().nft_owner {
        namespace.sh("nft delete table inet ocicat");
        assert_eq!(kernel.nft_commit(&[op]), gone);
    }
}

#[test]
fn foreign_objects_in_our_table_are_reported_by_name_until_it_is_replaced() {
    let namespace = Namespace::new();
    let full = representative();
    namespace.kernel().nft_replace(&full).unwrap();
    let mut kernel = namespace.kernel();
    for (command, name) in [
        (
            "add rule inet ocicat pod-7 meta mark 1 accept",
            "of chain pod-7",
        ),
        (
            "add chain inet ocicat mine { type filter hook output priority 0; policy drop; }",
            "chain mine",
        ),
        ("add set inet ocicat mine { type ether_addr; }", "set mine"),
        ("add quota inet ocicat mine { over 9 bytes }", "object mine"),
        (
            "add rule inet ocicat pod-7 tcp dport { 1, 2 } accept",
            "set __set0",
        ),
    ] {
        namespace.nft(command).unwrap();
        match kernel.nft_read() {
            Err(NftError::Foreign { objects }) => {
                assert!(
                    objects.iter().any(|object| object.contains(name)),
                    "{name}: {objects:?}"
                );
            }
            other => panic!("{command}: {other:?}"),
        }
        kernel.nft_replace(&full).unwrap();
        assert_reads(&mut kernel, &full);
        // The table belongs to the process that replaced it; a successor lets others in again.
        kernel = namespace.kernel();
    }
}

#[test]
fn an_owned_table_refuses_others_and_outlives_its_owner() {
    let namespace = Namespace::new();
    let mut kernel = namespace.kernel();
    let full = representative();
    kernel.nft_replace(&full).unwrap();
    let mut other = namespace.kernel();
    let port = kernel.nft_port_id();
    if kernel.features().nft_owner {
        assert!(namespace.nft("delete table inet ocicat").is_err());
        let op = Op::FlushChain("pod-7".into());
        assert_eq!(
            other.nft_commit(&[op]),
            Err(NftError::OwnedByOther { port })
        );
    }
    drop(kernel);
    assert_reads(&mut other, &full);
    other.nft_commit(&[Op::FlushChain("pod-7".into())]).unwrap();
    if other.features().nft_owner {
        assert!(namespace.nft("delete table inet ocicat").is_err());
    }
}

#[test]
fn a_table_without_flags_is_taken_over_and_gets_them_when_it_is_replaced() {
    let namespace = Namespace::new();
    let mut full = representative();
    // Where ranges are concatenated, nft converts a protocol's byte order, all one byte of it.
    full.chains.get_mut("forward").unwrap().rules.remove(6);
    namespace.nft(&full.to_string()).unwrap();
    let mut kernel = namespace.kernel();
    assert_reads(&mut kernel, &full);
    kernel
        .nft_commit(&[Op::FlushChain("pod-7".into())])
        .unwrap();
    kernel.nft_replace(&full).unwrap();
    assert_reads(&mut kernel, &full);
    if kernel.features().nft_owner {
        assert!(namespace.nft("delete table inet ocicat").is_err());
    }
}

#[test]
fn probing_changes_nothing_and_this_kernel_has_every_statement() {
    let namespace = Namespace::new();
    let kernel: Kernel = namespace.kernel();
    assert_eq!(kernel.features().nft_missing, Vec::<String>::new());
    assert_eq!(namespace.sh("nft list tables"), "");
    assert!(kernel.features().to_string().contains("ipip"));
}
