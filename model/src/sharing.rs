//! What many objects have in common, held once.

use crate::{Labels, NamedPort, Object, PolicyRule, Text};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Values that are compared by content and held by reference.
pub trait Held: Ord + Clone {
    /// How many hold this very value, the pool included.
    fn holders(&self) -> usize;
}

impl Held for Text {
    fn holders(&self) -> usize {
        Text::holders(self)
    }
}

impl Held for Labels {
    fn holders(&self) -> usize {
        Labels::holders(self)
    }
}

impl<T: Ord> Held for Arc<[T]> {
    fn holders(&self) -> usize {
        Arc::strong_count(self)
    }
}

/// One value of each content, as long as somebody else holds it too.
#[derive(Debug)]
pub struct Pool<T> {
    all: BTreeSet<T>,
    /// With so many it is time to look for those that nobody else holds.
    full: usize,
}

/// Fewer than these are not looked through.
const FEW: usize = 1024;

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self {
            all: BTreeSet::new(),
            full: FEW,
        }
    }
}

impl<T: Held> Pool<T> {
    /// The value of this content that everybody holds.
    pub fn share(&mut self, value: &T) -> T {
        self.find(value, Clone::clone)
    }

    fn find(&mut self, value: &T, prepared: impl FnOnce(&T) -> T) -> T {
        if let Some(known) = self.all.get(value) {
            return known.clone();
        }
        if self.all.len() >= self.full {
            self.all.retain(|one| one.holders() > 1);
            self.full = FEW.max(2 * self.all.len());
        }
        let first = prepared(value);
        self.all.insert(first.clone());
        first
    }

    /// How many different values are held.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

/// What pods and their endpoints have in common with each other.
#[derive(Debug, Default)]
pub struct Sharing {
    texts: Pool<Text>,
    labels: Pool<Labels>,
    ports: Pool<Arc<[NamedPort]>>,
}

impl Sharing {
    /// Makes the object hold what equal ones hold, and no room that it does not need. Its content
    /// stays the same.
    pub fn share(&mut self, object: &mut Object) {
        match object {
            Object::Pod(pod) => {
                pod.namespace = self.texts.share(&pod.namespace);
                if let Some(account) = &mut pod.service_account {
                    *account = self.texts.share(account);
                }
                self.share_labels(&mut pod.labels);
                pod.ports = self.ports.share(&pod.ports);
            }
            Object::WorkloadEndpoint(endpoint) => {
                for text in [
                    &mut endpoint.namespace,
                    &mut endpoint.node,
                    &mut endpoint.endpoint,
                    &mut endpoint.interface_name,
                    &mut endpoint.container_id,
                ] {
                    *text = self.texts.share(text);
                }
                self.share_labels(&mut endpoint.labels);
                endpoint.ports = self.ports.share(&endpoint.ports);
                endpoint.ip_networks.shrink_to_fit();
                endpoint.host_ports.shrink_to_fit();
            }
            Object::Namespace(namespace) => self.share_labels(&mut namespace.labels),
            Object::NetworkPolicy(policy) => {
                if let Some(policy) = Arc::get_mut(policy) {
                    fit(&mut policy.ingress);
                    fit(&mut policy.egress);
                }
            }
            _ => {}
        }
    }

    fn share_labels(&mut self, labels: &mut Labels) {
        let texts = &mut self.texts;
        let of_texts = |labels: &Labels| {
            let all = labels.iter();
            all.map(|(key, value)| (texts.share(key), texts.share(value)))
                .collect()
        };
        *labels = self.labels.find(labels, of_texts);
    }
}

/// Gives back what readers took in advance: most policies have one rule with one peer and one port.
fn fit(rules: &mut Option<Vec<PolicyRule>>) {
    let Some(rules) = rules else { return };
    rules.shrink_to_fit();
    for rule in rules {
        rule.peers.iter_mut().for_each(Vec::shrink_to_fit);
        rule.ports.iter_mut().for_each(Vec::shrink_to_fit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Annotations, Pod};

    fn pod(name: &str, version: &str) -> Object {
        Object::Pod(Pod {
            namespace: "shop".into(),
            name: name.into(),
            uid: None,
            labels: [("app".to_owned(), version.to_owned())].into(),
            service_account: Some("till".into()),
            annotations: Annotations::new(),
            ports: [].into(),
            host_network: false,
            finished: false,
            ready: false,
        })
    }

    fn inside(object: &Object) -> &Pod {
        match object {
            Object::Pod(pod) => pod,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_shared_is_held_once_and_reads_as_before() {
        let mut sharing = Sharing::default();
        let (mut one, mut other) = (pod("a", "v1"), pod("b", "v1"));
        sharing.share(&mut one);
        sharing.share(&mut other);
        assert_eq!((&one, &other), (&pod("a", "v1"), &pod("b", "v1")));
        let (one, other) = (inside(&one), inside(&other));
        assert!(std::ptr::eq(
            one.namespace.as_str(),
            other.namespace.as_str()
        ));
        let label = |pod: &Pod| pod.labels.get("app").map(|text| text.as_ptr());
        assert_eq!(label(one), label(other));
        assert_eq!(one.labels.holders(), 3);
    }

    #[test]
    fn what_nobody_holds_any_more_is_let_go() {
        let mut pool = Pool::default();
        let kept = pool.share(&Text::from("kept"));
        for number in 0..10 * FEW {
            pool.share(&Text::from(number.to_string()));
        }
        assert!(pool.len() <= FEW, "{}", pool.len());
        assert_eq!(pool.share(&Text::from("kept")).holders(), 3);
        drop(kept);
    }

    #[test]
    fn a_pod_and_its_endpoint_stay_small() {
        assert!(size_of::<Object>() <= 120, "{}", size_of::<Object>());
        assert!(size_of::<Pod>() <= 120, "{}", size_of::<Pod>());
        let endpoint = size_of::<crate::WorkloadEndpoint>();
        assert!(endpoint <= 216, "{endpoint}");
    }
}
