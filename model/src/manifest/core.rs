//! `v1` `Namespace` and `Pod`: the few fields that policy and address assignment need.

use super::Body;
use super::reader::{Item, Problem};
use super::workload::PROTOCOLS;
use crate::Text;
use crate::object::{NamedPort, Namespace, Object, Pod, Protocol};

/// The label that every namespace has, whatever its manifest says.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub(super) fn namespace(body: &mut Body<'_>) -> Result<Object, Problem> {
    body.root.ignore(&["spec"]);
    let mut labels = body.labels()?;
    labels.insert(NAME_LABEL.to_owned(), body.name.clone());
    Ok(Object::Namespace(Namespace {
        name: body.name.clone(),
        labels,
        annotations: body.annotations()?,
    }))
}

pub(super) fn pod(body: &mut Body<'_>) -> Result<Object, Problem> {
    let labels = body.labels()?;
    let annotations = body.annotations()?;
    let uid = body
        .metadata
        .take("uid")
        .map(Item::text)
        .transpose()?
        .map(Text::from);
    let mut ports = Vec::new();
    let mut host_network = false;
    let mut service_account = None;
    if let Some(spec) = body.root.take("spec") {
        let mut spec = spec.fields()?;
        host_network = spec.take("hostNetwork").map_or(Ok(false), Item::boolean)?;
        service_account = spec
            .take("serviceAccountName")
            .map(Item::text)
            .transpose()?
            .map(Text::from);
        for container in spec.take("containers").map_or(Ok(Vec::new()), Item::list)? {
            container_ports(container, Container::Main, &mut ports)?;
        }
        for container in spec
            .take("initContainers")
            .map_or(Ok(Vec::new()), Item::list)?
        {
            container_ports(container, Container::Init, &mut ports)?;
        }
    }
    let (mut finished, mut ready) = (false, false);
    if let Some(status) = body.root.take("status") {
        let mut status = status.fields()?;
        if let Some(phase) = status.take("phase") {
            finished = matches!(phase.text()?, "Succeeded" | "Failed");
        }
        for condition in status
            .take("conditions")
            .map_or(Ok(Vec::new()), Item::list)?
        {
            ready |= is_ready(condition)?;
        }
    }
    let (namespace, name) = (body.namespace.clone(), body.name.clone());
    Ok(Object::Pod(Pod {
        namespace: namespace.into(),
        name: name.into(),
        uid,
        labels,
        service_account,
        annotations,
        ports: ports.into(),
        host_network,
        finished,
        ready,
    }))
}

fn is_ready(condition: Item<'_>) -> Result<bool, Problem> {
    let mut condition = condition.fields()?;
    let mut is = |field, value| match condition.take(field) {
        Some(said) => Ok(said.text()? == value),
        None => Ok(false),
    };
    Ok(is("type", "Ready")? && is("status", "True")?)
}

enum Container {
    Main,
    /// Serves only if it is a sidecar, that is if it restarts always.
    Init,
}

fn container_ports(
    item: Item<'_>,
    container: Container,
    found: &mut Vec<NamedPort>,
) -> Result<(), Problem> {
    let mut fields = item.fields()?;
    if let Container::Init = container {
        match fields.take("restartPolicy").map(Item::text).transpose()? {
            Some("Always") => {}
            _ => return Ok(()),
        }
    }
    for port in fields.take("ports").map_or(Ok(Vec::new()), Item::list)? {
        let mut port = port.fields()?;
        let number = port.need("containerPort")?.integer(1..=65535)?;
        let protocol = port
            .take("protocol")
            .map_or(Ok(Protocol::Tcp), |item| item.one_of(PROTOCOLS))?;
        if let Some(name) = port.take("name") {
            found.push(NamedPort {
                name: name.text()?.to_owned(),
                protocol,
                port: number,
            });
        }
    }
    Ok(())
}
