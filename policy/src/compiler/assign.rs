//! Which policy set decides for whom, and which chains packets go to.

use super::dispatch::Dispatch;
use super::endpoints::class;
use super::groups::{ContentName, Slot, Wanted};
use super::moves::Affected;
use super::{Compiler, host};
use crate::hash::content_name;
use crate::input::Policy;
use crate::ir::{self, Asked, Cluster, Member, Place, PolicySet, Subject};
use crate::ruleset::changes::Changes;
use model::NamedPort;
use std::collections::BTreeMap;
use std::sync::Arc;

type NamedSet = (ContentName, Arc<PolicySet>);

/// Policy sets that were found while all that they depend on stays.
#[derive(Debug, Default)]
struct Known<'a> {
    by_class: BTreeMap<(ContentName, ir::Direction, Place), Option<NamedSet>>,
    by_policies: BTreeMap<Depends<'a>, Option<NamedSet>>,
}

/// All that a pod's policy set depends on.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Depends<'a> {
    direction: ir::Direction,
    place: Place,
    labels_known: bool,
    /// Compared by identity.
    policies: Vec<*const Policy>,
    ports: &'a [NamedPort],
}

impl Compiler {
    /// Gives the affected endpoints their policy sets.
    pub(super) fn assign(&mut self, affected: &Affected) {
        let mut known = Known::default();
        let mut wanted = vec![];
        for interface in &affected.interfaces {
            for direction in ir::Direction::BOTH {
                let set = self.wanted(*interface, direction, Place::Pod, &mut known);
                wanted.push((Slot::Pod(*interface, direction), set));
            }
            let egress = ir::Direction::Egress;
            let set = self.wanted(*interface, egress, Place::OwnNode, &mut known);
            wanted.push((Slot::OwnNode(*interface), set));
        }
        for (slot, set) in wanted {
            self.groups.assign(&slot, set);
        }
        if affected.hosts {
            self.assign_hosts();
        }
    }

    fn assign_hosts(&mut self) {
        let owners = host::Owners::new(&self.told, &self.options);
        let mut wanted = BTreeMap::new();
        for endpoint in owners.endpoints() {
            for (direction, place) in host::PLACES {
                let policies = self.policies.all(&None);
                let subject = Subject::Host(endpoint);
                let Some(set) = PolicySet::of(subject, direction, place, policies, self.cluster())
                else {
                    continue;
                };
                let one = Wanted {
                    content: content_name(&set),
                    set: Arc::new(set),
                    class: content_name(&("host endpoint", &endpoint.name)),
                };
                wanted.insert(Slot::Host(endpoint.name.clone(), direction, place), one);
            }
        }
        let gone = self
            .groups
            .slots()
            .filter(|slot| matches!(slot, Slot::Host(..)));
        let gone: Vec<_> = gone
            .filter(|slot| !wanted.contains_key(slot))
            .cloned()
            .collect();
        gone.iter().for_each(|slot| self.groups.assign(slot, None));
        for (slot, wanted) in wanted {
            self.groups.assign(&slot, Some(wanted));
        }
    }

    fn cluster(&self) -> Cluster<'_> {
        Cluster {
            tiers: &self.told.tiers.values,
            owners: self.told.owners(),
        }
    }

    /// The policy set of a pod; endpoints that are alike have the same.
    fn wanted<'a>(
        &'a self,
        interface: u32,
        direction: ir::Direction,
        place: Place,
        known: &mut Known<'a>,
    ) -> Option<Wanted> {
        let mut owners = self.dispatch.owners(interface);
        let endpoint = self.endpoints.get(owners.next()?)?;
        let class = class(endpoint);
        if owners.next().is_some() {
            let set = PolicySet::deny(direction);
            return (place == Place::Pod).then(|| Wanted {
                content: content_name(&set),
                set: Arc::new(set),
                class: content_name(&("several owners", interface)),
            });
        }
        let key = (class.clone(), direction, place);
        let by_class = known.by_class.entry(key).or_insert_with(|| {
            let asked = Asked::new(Member::Endpoint(endpoint), self.told.owners());
            let own = self
                .policies
                .about(&Some(endpoint.namespace.to_string()), &asked);
            let policies = own.chain(self.policies.about(&None, &asked));
            let (subject, cluster) = (Subject::Pod(endpoint), self.cluster());
            let applying = match endpoint.labels_known {
                true => ir::applying(subject, direction, place, policies, cluster),
                false => vec![],
            };
            let names = applying.iter().map(|policy| std::ptr::from_ref(*policy));
            let key = Depends {
                direction,
                place,
                labels_known: endpoint.labels_known,
                policies: names.collect(),
                ports: &endpoint.ports,
            };
            let set = known.by_policies.entry(key).or_insert_with(|| {
                let set = PolicySet::of(subject, direction, place, applying, cluster)?;
                Some((content_name(&set), Arc::new(set)))
            });
            set.clone()
        });
        let (content, set) = by_class.clone()?;
        Some(Wanted {
            set,
            content,
            class,
        })
    }

    /// Sends packets to the chains of those whom they concern. Returns whether base chains may be
    /// others than before.
    pub(super) fn dispatch(&mut self, hosts: bool, changes: &mut Changes) -> bool {
        let moved = self.groups.take_moved();
        let mut of_hosts = hosts;
        for slot in &moved {
            of_hosts |= matches!(slot, Slot::Host(..));
            let own = Dispatch::assign(slot, self.groups.chain(slot), &mut self.sets);
            let own = own.filter(|(name, chain)| self.ruleset.chains.get(name) != chain.as_ref());
            changes.chains.extend(own);
        }
        let own_node = self
            .groups
            .slots()
            .any(|slot| matches!(slot, Slot::OwnNode(_)));
        let names = self.watches_names();
        let mut differs = std::mem::replace(&mut self.own_node, own_node) != own_node;
        differs |= std::mem::replace(&mut self.names, names) != names;
        if !of_hosts {
            return differs;
        }
        let owners = host::Owners::new(&self.told, &self.options);
        let hosts = owners.chains(|endpoint, direction, place| {
            let slot = Slot::Host(endpoint.name.clone(), direction, place);
            self.groups.chain(&slot).cloned()
        });
        let differ = hosts != self.hosts;
        self.hosts = hosts;
        differs || differ
    }
}
