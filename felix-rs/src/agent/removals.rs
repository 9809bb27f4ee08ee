//! Routes of ours that somebody else removed: they are put back first, and told of then.

use super::Agent;
use ipnet::IpNet;
use std::collections::BTreeMap;

impl Agent {
    /// The kernel says that a route of ours is gone, by a request from the socket of this port.
    pub(super) fn note_removal(&mut self, dest: IpNet, metric: u32, port: u32) {
        let desired = self.calc.desired();
        if desired.route(&dest).is_some() && desired.metric(&dest) == metric {
            self.repairs += 1;
            self.removed.push((port, dest));
        }
    }

    /// Once what can be put back is back: one line for each of those who removed routes.
    pub(super) fn tell_removals(&mut self) {
        let mut by_port: BTreeMap<u32, Vec<IpNet>> = BTreeMap::new();
        for (port, dest) in std::mem::take(&mut self.removed) {
            by_port.entry(port).or_default().push(dest);
        }
        for (port, dests) in by_port {
            let is_back = |dest: &&IpNet| self.actual.routes.contains_key(*dest);
            let (routes, back) = (dests.len(), dests.iter().filter(is_back).count());
            tracing::warn!(route = %dests[0], routes, back, by = %remover(port), "our route was removed by somebody else");
        }
    }
}

/// Short-lived tools may have ended before they can be asked for their name.
fn remover(port: u32) -> String {
    match (port, kernel::port_owner(port)) {
        (0, _) => "the kernel".to_owned(),
        (_, Some(name)) => format!("{name}, process {port}"),
        (_, None) => format!("netlink port {port}"),
    }
}
