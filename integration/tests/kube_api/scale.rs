//! More objects than a page has.

use crate::Api;
use anyhow::Result;
use integration::lab::kube_api::etcd_tells_progress;
use model::Kind;

const MANY: usize = 1300;
/// Objects that a page has.
const PAGE: usize = 500;

#[test]
fn a_long_list_is_said_whole_in_either_way_of_listing() -> Result<()> {
    let mut api = Api::start(&[])?;
    let mut manifests = String::new();
    for index in 0..MANY {
        manifests.push_str(&format!(
            "{{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {{name: p{index}}}, spec: {{cidr: 10.{}.{}.0/24}}}}\n---\n",
            index / 256,
            index % 256
        ));
    }
    api.api.apply(&manifests)?;
    assert_eq!(said(&api)?, MANY);
    let in_one_stream = etcd_tells_progress()?;
    let pages = MANY.div_ceil(PAGE);
    assert_eq!(lists(&api)?, if in_one_stream { 0 } else { pages });
    // As servers are that do not stream lists.
    api.api.stop_server()?;
    api.api.set_flags(&["--feature-gates=WatchList=false"]);
    api.api.start_server()?;
    assert_eq!(said(&api)?, MANY);
    assert_eq!(lists(&api)?, pages);
    Ok(())
}

fn said(api: &Api) -> Result<usize> {
    let mut view = api.watch("admin")?;
    view.until_in_sync()?;
    let pools = view.objects.keys().filter(|key| key.kind == Kind::IpPool);
    Ok(pools.count())
}

/// How many lists of pools the server has answered since it started.
fn lists(api: &Api) -> Result<usize> {
    let metrics = api.api.kubectl(&["get", "--raw", "/metrics"])?;
    let of_pools = metrics.lines().filter(|line| {
        line.starts_with("apiserver_request_total{")
            && line.contains(r#"resource="ippools""#)
            && line.contains(r#"verb="LIST""#)
    });
    let counts = of_pools.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok());
    Ok(counts.sum())
}
