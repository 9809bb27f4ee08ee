//! A cluster of 5,000 nodes, each with a block of each family, in the table of one: all routes
//! lost and put back, and one, and an uplink that flaps.

use super::told::{Change, Told};
use crate::bench::report::{Row, Series, Target};
use crate::bench::steal::Steal;
use crate::lab::link::End;
use crate::lab::{Agent, Lab, Netns, Store, wait};
use anyhow::{Context, Result};
use ipnet::IpNet;
use kernel::Kernel;
use model::dataplane::{Route, RouteKind};
use std::fmt::Write;
use std::time::{Duration, Instant};

const NODES: u32 = 5000;
const ROUNDS: usize = 5;
const LIMIT: Duration = Duration::from_secs(120);

/// Rows of all routes and of one.
pub(super) fn rows(lab: &Lab) -> Result<Vec<Row>> {
    let (node, peer) = (lab.netns("scale")?, lab.netns("scale-peer")?);
    join(lab, &node, &peer)?;
    let store = Store::new(lab.dir().join("store-scale"))?;
    cluster(&store)?;
    let mut agent = Agent::new(lab, &node, "n0", &store)?;
    agent.start()?;
    agent.wait_ready(LIMIT)?;
    let mut kernel = node.within(Kernel::open)?.context("netlink")?;
    let wanted = usize::try_from(2 * (NODES - 1))?;
    wait_routes(&mut kernel, wanted)?;
    let routes: Vec<Route> = ours(&mut kernel)?;
    let steal = Steal::now();
    // The addresses stay, so that what is measured is the agent's part.
    node.set_sysctl("net.ipv6.conf.eth0.keep_addr_on_down", "1")?;
    let mut bare = Bare::new(lab, &routes)?;
    let [mut all, mut one, mut flaps]: [Series; 3] = Default::default();
    for _ in 0..ROUNDS {
        flaps.push(flap(&node, &mut kernel, &routes)?, bare.all());
        all.push(put_back(&mut kernel, &routes)?, bare.all());
        for number in (0..routes.len()).step_by(routes.len() / 10) {
            let back = one_back(&node, &mut kernel, &routes[number])?;
            one.push(back, bare.one(number)?);
        }
    }
    let share = steal.share_since();
    let target = Target::Ratio(1.5);
    Ok(vec![
        all.row(
            "routes_10000_put_back",
            "ms",
            "the batch alone",
            share,
            target,
        ),
        one.row(
            "route_put_back",
            "ms",
            "delete, hear, write",
            share,
            Target::Ours(0.2),
        ),
        flaps.row("uplink_flap_10000", "ms", "the batch alone", share, None),
    ])
}

/// Nodes, pools and blocks; no sessions.
fn cluster(store: &Store) -> Result<()> {
    let mut text =
        "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {name: default}\n\
        spec: {nodeToNodeMeshEnabled: false}\n---\napiVersion: projectcalico.org/v3\nkind: IPPool\n\
        metadata: {name: v4}\nspec: {cidr: 10.128.0.0/9, ipipMode: Never}\n---\n\
        apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: v6}\n\
        spec: {cidr: 'fd00:10:244::/56'}\n"
            .to_owned();
    for number in 0..NODES {
        let (high, low) = ((number + 1) >> 8, (number + 1) & 255);
        let block = 64 * number;
        let v4 = format!(
            "10.{}.{}.{}",
            128 + (block >> 16),
            (block >> 8) & 255,
            block & 255
        );
        let v6 = format!("fd00:10:244:0:1:0:{:x}:{:x}", block >> 16, block & 0xffff);
        let v6: IpNet = format!("{v6}/122").parse()?;
        let v4: IpNet = format!("{v4}/26").parse()?;
        write!(
            text,
            "---\napiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{name: n{number}}}\n\
             spec: {{bgp: {{ipv4Address: 10.96.{high}.{low}/12, \
             ipv6Address: 'fd00:96::{:x}/64'}}}}\n",
            number + 1
        )?;
        for block in [v4, v6] {
            let name = block.to_string().replace(['.', ':', '/'], "-");
            write!(
                text,
                "---\napiVersion: projectcalico.org/v3\nkind: IPAMBlock\nmetadata: {{name: {name}}}\n\
                 spec: {{cidr: '{block}', affinity: 'host:n{number}'}}\n"
            )?;
        }
    }
    store.write("cluster.yaml", &text).map(drop)
}

fn ours(kernel: &mut Kernel) -> Result<Vec<Route>> {
    let learnt = |route: &Route| matches!(route.kind, RouteKind::Via(_));
    let all = kernel.routes()?.into_iter().filter(|route| route.ours);
    Ok(all.map(|route| route.route).filter(learnt).collect())
}

fn wait_routes(kernel: &mut Kernel, wanted: usize) -> Result<()> {
    wait::until(LIMIT, "all routes", || {
        let routes = ours(kernel).map_err(|error| format!("{error:#}"))?;
        match routes.len() {
            count if count >= wanted => Ok(()),
            count => Err(format!("{count} of {wanted}")),
        }
    })
}

/// Milliseconds from the loss of all routes until they are back.
fn put_back(kernel: &mut Kernel, routes: &[Route]) -> Result<f64> {
    let dests: Vec<IpNet> = routes.iter().map(|route| route.dest).collect();
    let start = Instant::now();
    kernel.delete_routes(&dests);
    while ours(kernel)?.len() < routes.len() {
        std::thread::yield_now();
    }
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// Milliseconds from the return of an uplink, with which all routes went, until they are back.
fn flap(node: &Netns, kernel: &mut Kernel, routes: &[Route]) -> Result<f64> {
    node.ip(["link set eth0 down"])?;
    wait::until(LIMIT, "the routes to go", || {
        match ours(kernel).map_err(|error| format!("{error:#}"))?.len() {
            0 => Ok(()),
            left => Err(format!("{left} are left")),
        }
    })?;
    let start = Instant::now();
    node.ip(["link set eth0 up"])?;
    while ours(kernel)?.len() < routes.len() {
        std::thread::yield_now();
    }
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// The same routes in a namespace without an agent.
struct Bare {
    netns: Netns,
    kernel: Kernel,
    routes: Vec<Route>,
}

impl Bare {
    fn new(lab: &Lab, routes: &[Route]) -> Result<Self> {
        let (netns, peer) = (lab.netns("bare")?, lab.netns("bare-peer")?);
        join(lab, &netns, &peer)?;
        let mut kernel = netns.within(Kernel::open)?.context("netlink")?;
        let links = kernel.links()?;
        let eth0 = links.iter().find(|link| link.name == "eth0");
        let eth0 = eth0.context("eth0")?.ifindex;
        let mut routes = routes.to_vec();
        for route in &mut routes {
            if let RouteKind::Via(hops) = &mut route.kind {
                hops.iter_mut().for_each(|hop| hop.ifindex = Some(eth0));
            }
        }
        kernel.replace_routes(&routes);
        Ok(Self {
            netns,
            kernel,
            routes,
        })
    }

    /// Milliseconds to delete and write all of them, in batches.
    fn all(&mut self) -> f64 {
        let dests: Vec<IpNet> = self.routes.iter().map(|route| route.dest).collect();
        let start = Instant::now();
        self.kernel.delete_routes(&dests);
        self.kernel.replace_routes(&self.routes);
        start.elapsed().as_secs_f64() * 1e3
    }

    /// Milliseconds from the loss of one until it is back, where the one who hears of the loss
    /// writes the route, with nothing to find out and nobody to wake.
    fn one(&mut self, number: usize) -> Result<f64> {
        let told = Told::listen(&self.netns)?;
        let route = &self.routes[number];
        let start = Instant::now();
        self.kernel.delete_routes(&[route.dest]);
        told.wait(Change::Gone, route.dest)?;
        self.kernel.replace_routes(std::slice::from_ref(route));
        told.wait(Change::There, route.dest)?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    }
}

/// Milliseconds from the loss of a route until the kernel tells that it is back.
fn one_back(node: &Netns, kernel: &mut Kernel, route: &Route) -> Result<f64> {
    let told = Told::listen(node)?;
    let start = Instant::now();
    kernel.delete_routes(&[route.dest]);
    told.wait(Change::There, route.dest)?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// A wire to a peer, of both families.
fn join(lab: &Lab, node: &Netns, peer: &Netns) -> Result<()> {
    let end = |netns, addresses| End {
        netns,
        interface: "eth0",
        addresses,
    };
    let (own, other) = (
        ["10.96.0.1/12", "fd00:96::1/64"],
        ["10.96.0.2/12", "fd00:96::2/64"],
    );
    lab.wire(&end(node, &own), &end(peer, &other))
}
