//! Ports of the node that lead to pods.

use policy::ruleset::ChainType;
use policy::{Compiler, Endpoint, EndpointId, HostPort, Options, Ruleset};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

type Ports = BTreeMap<HostPort, SocketAddr>;

fn ports() -> impl Strategy<Value = Ports> {
    let address = select(vec!["0.0.0.0", "10.0.0.1", "127.0.0.1", "::", "fd00::1"]);
    let key = (address, select(vec![6, 17, 132]), 1..60_u16);
    let target = (1..4_u8, 1..4_u16);
    btree_map(key, target, 0..80).prop_map(|ports| {
        let port = |((address, protocol, port), (pod, to)): ((&str, u8, u16), (u8, u16))| {
            let address: IpAddr = address.parse().unwrap();
            let pod: IpAddr = match address {
                IpAddr::V4(_) => [10, 244, 0, pod].into(),
                IpAddr::V6(_) => [0xfd00, 0, 0, 0, 0, 0, 0, pod.into()].into(),
            };
            let key = HostPort {
                address,
                protocol,
                port,
            };
            (key, SocketAddr::new(pod, to))
        };
        ports.into_iter().map(port).collect()
    })
}

/// A pod of this node, or none under its name.
fn set_pod(compiler: &mut Compiler, number: u8, there: bool) {
    let endpoint = Endpoint {
        namespace: "shop".into(),
        pod: format!("p{number}").into(),
        labels: [].into(),
        ports: vec![].into(),
        ips: vec![[10, 244, 1, number].into()],
        local: Some(100 + u32::from(number)),
        service_account: None,
        profiles: vec![].into(),
        labels_known: true,
    };
    let id = EndpointId(format!("shop/p{number}").into());
    compiler.set_endpoint(&id, there.then_some(endpoint));
}

fn compiled(pods: u8, ports: Ports) -> Ruleset {
    let mut compiler = Compiler::new(Options::default());
    (0..pods).for_each(|number| set_pod(&mut compiler, number, true));
    compiler.set_host_ports(ports);
    compiler.resolve();
    compiler.ruleset().clone()
}

proptest! {
    #[test]
    fn the_table_depends_on_the_present_ports_and_pods_alone_and_every_change_is_one_transaction(
        history in vec((ports(), 0..60_u8), 1..6),
    ) {
        let mut compiler = Compiler::new(Options::default());
        let mut kernel = Ruleset::default();
        for (ports, pods) in history {
            (0..60).for_each(|number| set_pod(&mut compiler, number, number < pods));
            compiler.set_host_ports(ports.clone());
            kernel.apply(&compiler.resolve()).unwrap();
            prop_assert!(kernel.is_same_but_for_sizes(&compiled(pods, ports)));
            prop_assert_eq!(&kernel, compiler.ruleset());
        }
        compiler.set_host_ports(Ports::new());
        kernel.apply(&compiler.resolve()).unwrap();
        prop_assert!(kernel.chains.keys().all(|name| !name.starts_with("h")));
    }
}

#[test]
fn a_node_without_ports_translates_no_destination() {
    let table = compiled(3, Ports::new());
    let nat = table
        .chains
        .values()
        .filter_map(|chain| chain.hook.as_ref());
    assert!(
        nat.into_iter()
            .all(|hook| hook.chain_type != ChainType::Nat)
    );
}

#[test]
fn nft_reads_the_table_of_a_node_with_ports() {
    let key = |address: &str| HostPort {
        address: address.parse().unwrap(),
        protocol: 17,
        port: 53,
    };
    let table = compiled(
        1,
        [
            (key("0.0.0.0"), "10.244.0.5:5353".parse().unwrap()),
            (key("10.0.0.1"), "10.244.0.6:53".parse().unwrap()),
            (key("::"), "[fd00::5]:5353".parse().unwrap()),
        ]
        .into(),
    );
    crate::nft::nft("-c", &format!("{table}{}", crate::nft::END)).unwrap();
}
