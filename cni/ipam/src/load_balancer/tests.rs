use super::blocks::virtual_block;
use super::*;
use model::Selector;
use model::Service;
use model::object::{EncapMode, ExternalTrafficPolicy, ServiceType};
use proptest::prelude::*;

fn pool(name: &str, cidr: &str, block_size: u8) -> IpPool {
    IpPool {
        name: name.into(),
        cidr: cidr.parse().unwrap(),
        block_size,
        ipip_mode: EncapMode::Never,
        vxlan_mode: EncapMode::Never,
        nat_outgoing: false,
        disabled: false,
        disable_bgp_export: false,
        node_selector: Selector::All,
        namespace_selector: None,
        allowed_uses: [AllowedUse::LoadBalancer].into(),
        assignment_mode: AssignmentMode::Automatic,
    }
}

fn service(name: &str) -> Service {
    Service {
        namespace: "shop".into(),
        name: name.into(),
        service_type: ServiceType::LoadBalancer,
        cluster_ips: vec!["10.96.0.1".parse().unwrap()],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        requested_load_balancer_ip: None,
        load_balancer_class: None,
        external_traffic_policy: ExternalTrafficPolicy::Cluster,
        ip_families: Vec::new(),
        ports: Vec::new(),
        annotations: BTreeMap::new(),
    }
}

fn annotated(name: &str, key: &str, value: &str) -> Service {
    let mut service = service(name);
    service
        .annotations
        .insert(format!("projectcalico.org/{key}"), value.into());
    service
}

fn ledger(pools: &[IpPool]) -> Ledger {
    Ledger::new(pools.to_vec(), Vec::new(), BTreeMap::new(), BTreeSet::new())
}

fn demands(services: &[Service]) -> Vec<Demand> {
    services.iter().filter_map(Demand::of).collect()
}

fn key(name: &str) -> ServiceKey {
    ServiceKey {
        namespace: "shop".into(),
        name: name.into(),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn shown(outcome: &Outcome, name: &str) -> Vec<String> {
    outcome.shown[&key(name)]
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn a_service_gets_one_address_of_each_of_its_families_and_keeps_them() {
    let mut ledger = ledger(&[
        pool("v4", "10.9.0.0/24", 26),
        pool("v6", "fd00:9::/64", 122),
    ]);
    let mut dual = service("dual");
    dual.ip_families = vec![model::IpFamily::Ipv4, model::IpFamily::Ipv6];
    let services = [service("a"), dual];
    let outcome = ledger.assign(&demands(&services));
    assert_eq!(shown(&outcome, "a"), ["10.9.0.0"]);
    assert_eq!(shown(&outcome, "dual"), ["10.9.0.1", "fd00:9::"]);
    assert_eq!(outcome.refused, []);
    let again = ledger.assign(&demands(&services));
    assert_eq!(again, outcome);
}

#[test]
fn services_of_another_class_or_type_or_controller_are_left_alone() {
    let mut other = service("other");
    other.load_balancer_class = Some("metallb".into());
    assert_eq!(Demand::of(&other), None);
    let mut plain = service("plain");
    plain.service_type = ServiceType::ClusterIp;
    assert_eq!(Demand::of(&plain), None);
    let mut ours = service("ours");
    ours.load_balancer_class = Some("calico".into());
    assert!(Demand::of(&ours).is_some());
    let mut cloud = service("cloud");
    cloud.load_balancer_ips = vec![ip("203.0.113.7")];
    let outcome = ledger(&[pool("v4", "10.9.0.0/24", 26)]).assign(&demands(&[cloud]));
    assert!(outcome.shown.is_empty());
    assert_eq!(
        outcome.refused,
        [(
            key("cloud"),
            Refused::Foreign {
                ip: ip("203.0.113.7")
            }
        )]
    );
}

#[test]
fn addresses_and_pools_that_are_asked_for_are_given_or_refused_with_the_reason() {
    let mut manual = pool("manual", "10.8.0.0/24", 26);
    manual.assignment_mode = AssignmentMode::Manual;
    let pools = [pool("auto", "10.9.0.0/24", 26), manual];
    let mut requested = service("c");
    requested.requested_load_balancer_ip = Some(ip("10.9.0.77"));
    let services = [
        annotated("a", "loadBalancerIPs", r#"["10.8.0.5"]"#),
        annotated("b", "ipv4pools", r#"["manual"]"#),
        requested,
        annotated("d", "loadBalancerIPs", r#"["10.7.0.1"]"#),
        annotated("e", "ipv4pools", r#"["nothing"]"#),
        annotated("f", "loadBalancerIPs", r#"["10.8.0.5"]"#),
        annotated("g", "loadBalancerIPs", "10.8.0.5"),
        annotated("h", "loadBalancerIPs", r#"["10.9.0.200"]"#),
    ];
    let pods = BTreeSet::from(["10.9.0.192/26".parse().unwrap()]);
    let mut ledger = Ledger::new(pools, Vec::new(), BTreeMap::new(), pods);
    let outcome = ledger.assign(&demands(&services));
    assert_eq!(shown(&outcome, "a"), ["10.8.0.5"]);
    assert_eq!(shown(&outcome, "b"), ["10.8.0.0"]);
    assert_eq!(shown(&outcome, "c"), ["10.9.0.77"]);
    let refused: Vec<String> = outcome
        .refused
        .iter()
        .map(|(key, reason)| format!("{}: {reason}", key.name))
        .collect();
    assert_eq!(
        refused,
        [
            "d: requested address 10.7.0.1 is in no IPPool with LoadBalancer among its allowedUses",
            "e: there is no IPPool \"nothing\" of IPv4 with LoadBalancer among its allowedUses",
            "f: requested address 10.8.0.5 is in use by Service/shop/a",
            "g: annotation projectcalico.org/loadBalancerIPs: \"10.8.0.5\" is not a JSON list of \
         strings: invalid type: floating point `10.8`, expected a sequence at line 1 column 4",
            "h: requested address 10.9.0.200 is in block 10.9.0.192/26, which gives addresses to pods",
        ]
    );
}

#[test]
fn an_address_that_another_service_still_shows_is_not_given_out() {
    let mut ledger = ledger(&[pool("v4", "10.9.0.0/24", 26)]);
    let first = ledger.assign(&demands(&[service("a")]));
    assert_eq!(shown(&first, "a"), ["10.9.0.0"]);
    let mut moved = annotated("a", "loadBalancerIPs", r#"["10.9.0.9"]"#);
    moved.load_balancer_ips = vec![ip("10.9.0.0")];
    let wants = annotated("b", "loadBalancerIPs", r#"["10.9.0.0"]"#);
    let outcome = ledger.assign(&demands(&[moved.clone(), wants.clone()]));
    assert_eq!(
        (shown(&outcome, "a"), shown(&outcome, "b")),
        (vec!["10.9.0.9".into()], vec![])
    );
    moved.load_balancer_ips = vec![ip("10.9.0.9")];
    let outcome = ledger.assign(&demands(&[moved, wants]));
    assert_eq!(shown(&outcome, "b"), ["10.9.0.0"]);
}

#[test]
fn a_service_whose_block_was_lost_keeps_the_address_that_it_shows() {
    let mut seen = service("b");
    seen.load_balancer_ips = vec![ip("10.9.0.3")];
    let outcome = ledger(&[pool("v4", "10.9.0.0/24", 26)]).assign(&demands(&[service("a"), seen]));
    assert_eq!(
        (shown(&outcome, "a"), shown(&outcome, "b")),
        (vec!["10.9.0.0".into()], vec!["10.9.0.3".into()])
    );
}

#[test]
fn reserved_addresses_and_blocks_of_nodes_are_left_out_however_large() {
    let all = pool("v6", "fd00:9::/64", 122);
    let reserved = vec![
        "fd00:9::/65".parse().unwrap(),
        "fd00:9::8000:0:0:0/128".parse().unwrap(),
    ];
    let pods = BTreeSet::from(["fd00:9::8000:0:0:40/122".parse().unwrap()]);
    let mut ledger = Ledger::new([all], reserved, BTreeMap::new(), pods);
    let mut wants = service("a");
    wants.ip_families = vec![model::IpFamily::Ipv6];
    let outcome = ledger.assign(&demands(&[wants]));
    assert_eq!(shown(&outcome, "a"), ["fd00:9::8000:0:0:1"]);
}

#[test]
fn a_full_pool_says_so_and_what_is_forgotten_is_given_out_last() {
    let mut ledger = ledger(&[pool("v4", "10.9.0.0/31", 32)]);
    let outcome = ledger.assign(&demands(&[service("a"), service("b"), service("c")]));
    let exhausted = Refused::Exhausted {
        family: Family::V4,
        pools: "v4".into(),
    };
    assert_eq!(outcome.refused, [(key("c"), exhausted)]);
    let rest = demands(&[service("b"), service("c")]);
    assert_eq!(ledger.strangers(&rest), [key("a")].into());
    ledger.forget(&key("a"));
    let outcome = ledger.assign(&rest);
    assert_eq!(
        (shown(&outcome, "b"), shown(&outcome, "c")),
        (vec!["10.9.0.1".into()], vec!["10.9.0.0".into()])
    );
}

/// The cluster: what the API holds of the blocks, and of the Services.
#[derive(Debug, Default)]
struct Cluster {
    blocks: BTreeMap<IpNet, BlockAllocations>,
    services: BTreeMap<String, Service>,
}

/// Somebody who believes to be in charge, with what was seen when it last looked.
#[derive(Debug, Default, Clone)]
struct Controller {
    blocks: BTreeMap<IpNet, BlockAllocations>,
    services: Vec<Service>,
    plan: Option<(Vec<(IpNet, BlockAllocations)>, Outcome)>,
}

#[derive(Debug, Clone)]
enum Action {
    Create(u8, u8),
    Delete(u8),
    Look(usize),
    Plan(usize),
    WriteBlocks(usize),
    WriteStatuses(usize),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        (0..6_u8, 0..6_u8).prop_map(|(name, wish)| Action::Create(name, wish)),
        (0..6_u8).prop_map(Action::Delete),
        (0..2_usize).prop_map(Action::Look),
        (0..2_usize).prop_map(Action::Plan),
        (0..2_usize).prop_map(Action::WriteBlocks),
        (0..2_usize).prop_map(Action::WriteStatuses),
    ]
}

fn wishing(name: u8, wish: u8) -> Service {
    let name = format!("s{name}");
    match wish {
        0 => annotated(&name, "loadBalancerIPs", r#"["10.9.0.1"]"#),
        1 => annotated(&name, "loadBalancerIPs", r#"["10.9.0.2","10.9.0.5"]"#),
        2 => annotated(&name, "ipv4pools", r#"["second"]"#),
        _ => service(&name),
    }
}

impl Cluster {
    fn run(&mut self, controllers: &mut [Controller], action: Action) {
        match action {
            Action::Create(name, wish) => {
                let wanted = wishing(name, wish);
                let kept = self
                    .services
                    .get(&wanted.name)
                    .map(|old| old.load_balancer_ips.clone());
                let load_balancer_ips = kept.unwrap_or_default();
                self.services.insert(
                    wanted.name.clone(),
                    Service {
                        load_balancer_ips,
                        ..wanted
                    },
                );
            }
            Action::Delete(name) => {
                self.services.remove(&format!("s{name}"));
            }
            // The watch of Services may lag behind; blocks are read.
            Action::Look(at) => {
                controllers[at].services = self.services.values().cloned().collect()
            }
            Action::Plan(at) => self.plan(&mut controllers[at]),
            Action::WriteBlocks(at) => {
                let controller = &mut controllers[at];
                let Some((changed, _)) = &mut controller.plan else {
                    return;
                };
                for (cidr, mut block) in std::mem::take(changed) {
                    let same = self.blocks.get(&cidr).map(|b| b.sequence)
                        == controller.blocks.get(&cidr).map(|b| b.sequence);
                    if !same {
                        controller.plan = None;
                        return;
                    }
                    block.sequence += 1;
                    self.blocks.insert(cidr, block);
                }
            }
            Action::WriteStatuses(at) => {
                if controllers[at]
                    .plan
                    .as_ref()
                    .is_some_and(|(changed, _)| changed.is_empty())
                    && let Some((_, outcome)) = controllers[at].plan.take()
                {
                    for (key, ips) in outcome.shown {
                        if let Some(service) = self.services.get_mut(&key.name) {
                            service.load_balancer_ips = ips;
                        }
                    }
                }
            }
        }
    }

    fn plan(&self, controller: &mut Controller) {
        controller.blocks = self.blocks.clone();
        let pools = [
            pool("first", "10.9.0.0/29", 30),
            pool("second", "10.9.1.0/30", 30),
        ];
        let mut ledger = Ledger::new(pools, Vec::new(), self.blocks.clone(), BTreeSet::new());
        let demands = demands(&controller.services);
        for stranger in ledger.strangers(&demands) {
            if !self.services.contains_key(&stranger.name) {
                ledger.forget(&stranger);
            }
        }
        let outcome = ledger.assign(&demands);
        let changed = ledger
            .changed()
            .map(|(block, held)| (block.cidr, held.clone()))
            .collect();
        controller.plan = Some((changed, outcome));
    }
}

proptest! {
    /// Two controllers with views of any age write at any time.
    #[test]
    fn no_address_is_ever_held_twice_and_a_calm_cluster_shows_what_is_held(
        actions in prop::collection::vec(action(), 1..120),
    ) {
        let mut cluster = Cluster::default();
        let mut controllers = vec![Controller::default(), Controller::default()];
        for action in actions {
            cluster.run(&mut controllers, action);
            for (cidr, block) in &cluster.blocks {
                let mut all: Vec<u32> = block.free.iter().chain(block.held.keys()).copied().collect();
                all.sort_unstable();
                let whole: Vec<u32> = (0..virtual_block(*cidr).size()).collect();
                prop_assert_eq!(all, whole, "each address of {} is held once or free once", cidr);
            }
        }
        for _ in 0..8 {
            for action in [Action::Look(0), Action::Plan(0), Action::WriteBlocks(0), Action::WriteStatuses(0)] {
                cluster.run(&mut controllers, action);
            }
        }
        let mut seen = BTreeSet::new();
        for service in cluster.services.values() {
            for ip in &service.load_balancer_ips {
                prop_assert!(seen.insert(*ip), "{} is shown twice", ip);
            }
        }
        let held = cluster.blocks.iter().flat_map(|(cidr, block)| {
            block.held.keys().filter_map(|at| virtual_block(*cidr).address(*at))
        });
        prop_assert_eq!(held.collect::<BTreeSet<_>>(), seen);
    }
}
