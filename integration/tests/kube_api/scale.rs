//! More objects than a page has.

use crate::Api;
use anyhow::Result;
use model::Kind;

const MANY: usize = 1300;

#[test]
fn a_long_list_is_said_whole_in_either_way_of_listing() -> Result<()> {
    let api = Api::start(&[])?;
    let mut manifests = String::new();
    for index in 0..MANY {
        manifests.push_str(&format!(
            "{{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {{name: p{index}}}, spec: {{cidr: 10.{}.{}.0/24}}}}\n---\n",
            index / 256,
            index % 256
        ));
    }
    api.api.apply(&manifests)?;
    let mut view = api.watch("admin")?;
    view.until_in_sync()?;
    let pools = view.objects.keys().filter(|key| key.kind == Kind::IpPool);
    assert_eq!(pools.count(), MANY);
    Ok(())
}
