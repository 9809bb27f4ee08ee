//! What the kernel alone takes for a pod: its link, neighbours, route and inner configuration, by
//! netlink from one process that does nothing else.

use crate::lab::{Lab, Netns};
use anyhow::{Result, bail};
use kernel::{Kernel, netns};
use model::dataplane::{Neighbour, PodLink, Route, RouteKind};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::time::Instant;

/// First interface index; the agents of the lab are in other namespaces.
const FIRST: u32 = 0x0020_0000;

/// A node without an agent.
pub(super) struct Floor {
    node: Netns,
}

impl Floor {
    pub(super) fn new(lab: &Lab) -> Result<Self> {
        Ok(Self {
            node: lab.netns("floor")?,
        })
    }

    /// Milliseconds of each of `count` pods.
    pub(super) fn measure(&self, lab: &Lab, count: usize) -> Result<Vec<f64>> {
        let pods: Vec<Netns> = (0..count)
            .map(|number| lab.netns(&format!("floor{number}")))
            .collect::<Result<_>>()?;
        let times = self.node.within(|| -> Result<Vec<f64>> {
            let mut kernel = Kernel::open()?;
            let set_up = |(number, pod): (usize, &Netns)| set_up(&mut kernel, number, pod);
            pods.iter().enumerate().map(set_up).collect()
        })??;
        for pod in pods {
            pod.delete()?;
        }
        Ok(times)
    }
}

fn set_up(kernel: &mut Kernel, number: usize, pod: &Netns) -> Result<f64> {
    let start = Instant::now();
    let namespace = netns::open(&pod.path())?;
    let socket = netns::route_socket(namespace.as_fd())?;
    let ifindex = FIRST + u32::try_from(number)?;
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 246, 0, 0).to_bits() + ifindex - FIRST);
    let link = PodLink {
        host_name: format!("oci{number}"),
        host_ifindex: ifindex,
        alias: "ocicat:bench/floor".to_owned(),
        pod_name: "eth0".to_owned(),
        pod_mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
        queues: 1,
        addresses: vec![address.into()],
        loopback: false,
    };
    kernel.create_pod_link(&link, namespace.as_fd())?;
    let route = Route {
        dest: IpAddr::V4(address).into(),
        kind: RouteKind::Device { ifindex },
    };
    let neighbour = Neighbour {
        ifindex,
        address: address.into(),
        mac: link.pod_mac,
    };
    if let Some((_, error)) = kernel.replace_routes(&[route]).into_iter().next() {
        bail!("{error}");
    }
    if let Some((_, error)) = kernel.set_neighbours(&[neighbour]).into_iter().next() {
        bail!("{error}");
    }
    kernel.configure_pod(&link, socket.as_fd())?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}
