//! What an ADD asks for, with the annotations of its pod and namespace.

use super::{Agent, Phase};
use felix_core::EndpointKey;
use ipam::Pools;
use ipam::annotations::{AnnotationError, Wanted, wanted};
use model::cni::Request;
use model::{Annotations, Kind, Object, ObjectKey, Pod};
use std::time::{Duration, Instant};

/// An ADD waits this long for its Pod object.
const POD_DEADLINE: Duration = Duration::from_secs(2);

impl Agent {
    pub(super) fn wanted(&self, request: &Request) -> Result<Wanted, AnnotationError> {
        let configured = Wanted {
            ips: request.ips.clone(),
            pools: Pools {
                any: request.pools.clone(),
                ..Pools::default()
            },
            families: None,
            mac: request.mac,
        };
        let namespace = ObjectKey::global(Kind::Namespace, &request.namespace);
        let none = Annotations::new();
        let namespace = match self.calc.objects().get(&namespace) {
            Some(Object::Namespace(namespace)) => &namespace.annotations,
            _ => &none,
        };
        let pod = self
            .pod_object(request)
            .map_or(&none, |pod| &pod.annotations);
        wanted(configured, namespace, pod)
    }

    /// The Pod object of the request: not that of an earlier pod of the same name.
    fn pod_object(&self, request: &Request) -> Option<&Pod> {
        let pod = self.calc.objects().pod(&request.namespace, &request.pod)?;
        let uids = pod.uid.as_ref().zip(request.pod_uid.as_ref());
        uids.is_none_or(|(object, asked)| object == asked)
            .then_some(pod)
    }

    /// Whether the Pod object, which may say which addresses it wants, is still on its way. It is
    /// waited for where the runtime names the pod's UID and the datastore has Pod objects at all,
    /// and for a bounded time: without it the pod gets what its namespace and the configuration say.
    pub(super) fn awaits_pod_object(&mut self, request: &Request, key: &EndpointKey) -> bool {
        let objects = self.calc.objects();
        let expected = request.pod_uid.is_some()
            && self.calc.phase() == Phase::InSync
            && objects.lost().is_none()
            && objects.pods().next().is_some();
        if !expected || self.pod_object(request).is_some() {
            self.pod_deadlines.remove(key);
            return false;
        }
        let now = Instant::now();
        // Of ADDs that were given up.
        self.pod_deadlines
            .retain(|_, at| now.saturating_duration_since(*at) < 10 * POD_DEADLINE);
        let deadline = *self
            .pod_deadlines
            .entry(key.clone())
            .or_insert(now + POD_DEADLINE);
        if now < deadline {
            return true;
        }
        self.pod_deadlines.remove(key);
        tracing::warn!(
            pod = %format!("{}/{}", request.namespace, request.pod),
            "its Pod object did not come: annotations of the namespace and the configuration decide"
        );
        false
    }
}
