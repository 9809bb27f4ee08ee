use super::*;
use model::dataplane::NextHop;

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn via(gateway: &str) -> RouteKind {
    let gateway = gateway.parse().expect("an address");
    RouteKind::Via(vec![NextHop {
        gateway,
        ifindex: Some(2),
        onlink: false,
        weight: 1,
    }])
}

const ALL: Permissions = Permissions {
    local: true,
    learned: true,
};
const NONE: Permissions = Permissions {
    local: false,
    learned: false,
};

fn actual() -> Actual {
    let routes = [
        (net("10.244.0.5/32"), RouteKind::Device { ifindex: 7 }),
        (net("10.244.0.0/26"), RouteKind::Blackhole),
        (net("10.244.1.0/26"), via("10.1.0.12")),
    ];
    Actual {
        routes: routes.into(),
        metrics: BTreeMap::new(),
        tunnels: BTreeMap::new(),
        stray_tunnels: BTreeSet::new(),
    }
}

#[test]
fn nothing_is_removed_without_permission() {
    let plan = plan(&Desired::default(), &actual(), None, NONE, Scope::All);
    assert!(plan.is_empty(), "{plan}");
}

#[test]
fn routes_of_peers_go_only_when_bgp_has_converged_and_local_ones_only_in_sync() {
    let learned = Permissions {
        learned: true,
        local: false,
    };
    let plan_learned = plan(&Desired::default(), &actual(), None, learned, Scope::All);
    assert_eq!(plan_learned.to_string(), "route delete 10.244.1.0/26\n");
    let local = Permissions {
        learned: false,
        local: true,
    };
    let plan_local = plan(&Desired::default(), &actual(), None, local, Scope::All);
    assert_eq!(
        plan_local.to_string(),
        "route delete 10.244.0.0/26\nroute delete 10.244.0.5/32\n"
    );
}

#[test]
fn the_route_of_a_deleted_pod_goes_at_once() {
    let desired = Desired {
        freed: [net("10.244.0.5/32")].into(),
        ..Desired::default()
    };
    let plan = plan(&desired, &actual(), None, NONE, Scope::All);
    assert_eq!(plan.to_string(), "route delete 10.244.0.5/32\n");
}

#[test]
fn a_plan_for_what_is_there_is_empty_and_its_scope_limits_it() {
    let actual = actual();
    let mut desired = Desired {
        local: actual.routes.clone(),
        ..Desired::default()
    };
    assert!(plan(&desired, &actual, None, ALL, Scope::All).is_empty());
    desired
        .local
        .insert(net("10.244.0.6/32"), RouteKind::Device { ifindex: 8 });
    desired
        .local
        .insert(net("10.244.0.7/32"), RouteKind::Device { ifindex: 9 });
    let scope = [net("10.244.0.7/32")].into();
    let plan = plan(&desired, &actual, None, ALL, Scope::Prefixes(&scope));
    assert_eq!(plan.to_string(), "route replace 10.244.0.7/32 dev #9\n");
}

#[test]
fn policy_comes_before_routes_and_removals_come_last() {
    let device = model::dataplane::IpipDevice {
        name: "ipip.ocicat".into(),
        local: [10, 1, 0, 11].into(),
        mtu: 1480,
        address: None,
    };
    let desired = Desired {
        tunnels: [(device.name.clone(), Tunnel::Ipip(device))].into(),
        learned: [(net("10.244.2.0/26"), via("10.1.0.1"))].into(),
        ..Desired::default()
    };
    let table = Some(Step::ReplaceTable);
    let steps = plan(&desired, &actual(), table, ALL, Scope::All).steps;
    assert!(matches!(
        steps.as_slice(),
        [
            Step::EnsureTunnel(_),
            Step::ReplaceTable,
            Step::ReplaceRoutes(..),
            Step::DeleteRoutes(..)
        ]
    ));
}

#[test]
fn a_route_of_another_metric_stands_before_the_one_in_its_place_goes() {
    let dest = net("10.244.1.0/26");
    let mut actual = actual();
    let mut desired = Desired {
        learned: [(dest, via("10.1.0.12"))].into(),
        metrics: [(dest, 300)].into(),
        ..Desired::default()
    };
    let scope = [dest].into();
    let go = |actual: &mut Actual, desired: &Desired| {
        let plan = plan(desired, actual, None, NONE, Scope::Prefixes(&scope));
        for step in &plan.steps {
            match step {
                Step::ReplaceRoutes(metric, routes) => {
                    let all = routes.iter().cloned();
                    all.for_each(|route| actual.insert(route.dest, route.kind, *metric));
                }
                Step::DeleteRoutes(metric, dests) => {
                    dests.iter().for_each(|dest| actual.remove(dest, *metric));
                }
                _ => {}
            }
        }
        plan.to_string()
    };
    assert_eq!(
        go(&mut actual, &desired),
        "route replace 10.244.1.0/26 via 10.1.0.12 dev #2 metric 300\n\
         route delete 10.244.1.0/26\n"
    );
    assert_eq!(go(&mut actual, &desired), "nothing to do\n");
    desired.metrics.clear();
    assert_eq!(
        go(&mut actual, &desired),
        "route replace 10.244.1.0/26 via 10.1.0.12 dev #2\n\
         route delete 10.244.1.0/26 metric 300\n"
    );
    assert_eq!(go(&mut actual, &desired), "nothing to do\n");
    assert!(actual.metrics.is_empty());
}

#[test]
fn of_two_routes_to_one_destination_that_an_earlier_process_left_the_wrong_one_goes() {
    let dest = net("10.244.1.0/26");
    let mut actual = actual();
    actual.insert(dest, via("10.1.0.1"), 300);
    let desired = Desired {
        learned: [(dest, via("10.1.0.12"))].into(),
        ..Desired::default()
    };
    let scope = [dest].into();
    let plan_for = |desired, permissions| {
        let plan = plan(desired, &actual, None, permissions, Scope::Prefixes(&scope));
        plan.to_string()
    };
    assert_eq!(
        plan_for(&desired, NONE),
        "route replace 10.244.1.0/26 via 10.1.0.12 dev #2\n\
         route delete 10.244.1.0/26 metric 300\n"
    );
    assert_eq!(
        plan_for(&Desired::default(), ALL),
        "route delete 10.244.1.0/26 metric 300\nroute delete 10.244.1.0/26\n"
    );
}
