//! `projectcalico.org/v3` `CalicoNodeStatus`.

use super::Body;
use super::reader::{Item, Problem};
use crate::object::{CalicoNodeStatus, NodeStatusClass, Object};

const CLASSES: &[(&str, NodeStatusClass)] = &[
    ("Agent", NodeStatusClass::Agent),
    ("BGP", NodeStatusClass::Bgp),
    ("Routes", NodeStatusClass::Routes),
];
/// As in Calico.
const PERIOD: u32 = 10;
/// A day.
const LONGEST: i64 = 86_400;

pub(super) fn read(body: &mut Body<'_>) -> Result<Object, Problem> {
    let mut spec = body.spec()?;
    let classes = spec.take("classes").map_or(Ok(Vec::new()), Item::list)?;
    let status = CalicoNodeStatus {
        name: body.name.clone(),
        node: spec.need("node")?.text()?.to_owned(),
        classes: classes
            .iter()
            .map(|item| item.one_of(CLASSES))
            .collect::<Result<_, _>>()?,
        update_period_seconds: spec
            .take("updatePeriodSeconds")
            .map_or(Ok(PERIOD), |item| item.integer(0..=LONGEST))?,
    };
    spec.warn_unknown(&mut body.warnings);
    Ok(Object::CalicoNodeStatus(status))
}
