//! Mistakes on a cluster that works: words name the object or the file, running pods keep their
//! network, and what is put right is taken up.

use super::lifecycle::kill_agent;
use super::policy;
use super::world::{
    AGENT, CONTROL, Member, PATIENCE, SYSTEM, World, is_ready, items, node_names, pod, text,
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The node that the mistakes are made on.
const NODE: &str = "n1";
/// A configuration of somebody else that the runtime takes before ours.
const FOREIGN: &str = "/etc/cni/net.d/05-other.conflist";
/// The pools that the agents made.
const POOLS: [&str; 2] = ["default-ipv4-ippool", "default-ipv6-ippool"];
/// Pods whose records do not fit into what is left of the journal's last page.
const FILLING: usize = 24;
const STATE: &str = model::names::STATE_DIR;

/// What an agent says of itself: whether it is ready, and all its sentences.
fn said(world: &World, node: &str) -> Result<(bool, String)> {
    let url = format!("http://127.0.0.1:{}/readyz", model::names::HEALTH_PORT);
    let text = world
        .cluster
        .exec(node, &["curl", "-s", "--noproxy", "*", &url])?;
    let value: Value = serde_json::from_str(&text).context("/readyz")?;
    let sentences = [&value["reasons"], &value["notes"]]
        .into_iter()
        .flat_map(|list| list.as_array().into_iter().flatten())
        .filter_map(Value::as_str)
        .collect::<Vec<_>>();
    Ok((value["ready"] == Value::Bool(true), sentences.join("; ")))
}

/// Waits until an agent says all these words; the whole of what it says.
fn says(world: &World, node: &str, ready: bool, words: &[&str]) -> Result<String> {
    world.until(&format!("{node} to speak of {words:?}"), || {
        let (is_ready, sentences) = said(world, node)?;
        let named = words.iter().all(|word| sentences.contains(word));
        ensure!(named && is_ready == ready, "ready {is_ready}: {sentences}");
        Ok(sentences)
    })
}

/// Waits until an agent is ready and no longer says a word.
fn is_silent(world: &World, node: &str, word: &str) -> Result<()> {
    world.until(&format!("{node} to be ready"), || {
        let (ready, sentences) = said(world, node)?;
        ensure!(ready && !sentences.contains(word), "{sentences}");
        Ok(())
    })
}

/// Waits until the node's own condition says the words.
fn condition_says(world: &World, node: &str, words: &[&str]) -> Result<()> {
    world.until(&format!("the condition of {node}"), || {
        let object = world.cluster.kubectl_json(&["get", "node", node])?;
        let conditions = object
            .pointer("/status/conditions")
            .and_then(Value::as_array);
        let message = conditions
            .into_iter()
            .flatten()
            .filter(|condition| text(condition, "/type") == "NetworkUnavailable")
            .find(|condition| text(condition, "/status") == "True")
            .map(|condition| text(condition, "/message").to_owned());
        let message = message.context("NetworkUnavailable is not True")?;
        ensure!(words.iter().all(|word| message.contains(word)), "{message}");
        Ok(())
    })
}

/// Waits until an Event about a pod of this namespace that a field selects says the words.
fn pod_is_told(world: &World, namespace: &str, field: &str, words: &[&str]) -> Result<()> {
    world.until(&format!("an Event in {namespace} with {field}"), || {
        let about = format!("--field-selector=involvedObject.{field}");
        let events = world
            .cluster
            .kubectl_json(&["-n", namespace, "get", "events", &about])?;
        let told = items(&events)
            .map(|event| text(event, "/message"))
            .any(|message| words.iter().all(|word| message.contains(word)));
        ensure!(told, "{events}");
        Ok(())
    })
}

/// Waits until a pod of the base namespace is Ready, and takes it away.
fn starts(world: &World, name: &str) -> Result<()> {
    world.cluster.wait_until(name, PATIENCE * 2, || {
        let found = world
            .cluster
            .kubectl_json(&["-n", "base", "get", "pod", name])?;
        ensure!(is_ready(&found), "{}", found["status"]);
        Ok(())
    })?;
    goes(world, name)
}

fn goes(world: &World, name: &str) -> Result<()> {
    let arguments = ["-n", "base", "delete", "pod", name, "--ignore-not-found"];
    world.kubectl(&arguments).map(drop)
}

/// Whatever came of `mistake`, `remedy` is applied.
fn mended<T>(mistake: Result<T>, remedy: impl FnOnce() -> Result<()>) -> Result<T> {
    match (mistake, remedy()) {
        (Ok(said), Ok(())) => Ok(said),
        (Err(error), _) | (Ok(_), Err(error)) => Err(error),
    }
}

/// The default pool is changed, which is refused, and deleted while pods have addresses of it.
pub(super) fn pool(world: &mut World) -> Result<String> {
    world.base()?;
    world.outside()?;
    let patch = [
        "patch",
        "ippools.projectcalico.org",
        POOLS[0],
        "--type=merge",
    ];
    for (field, spec) in [
        ("cidr", r#"{"spec":{"cidr":"10.99.0.0/16"}}"#),
        ("blockSize", r#"{"spec":{"blockSize":27}}"#),
    ] {
        match world.kubectl(&[&patch[..], &["-p", spec]].concat()) {
            Ok(said) => bail!("{field} was changed: {said}"),
            Err(error) => {
                let words = format!("{error:#}");
                let named = words.contains(&format!("{field} can't be changed"));
                ensure!(named, "{words}");
            }
        }
    }
    let mut saved = Vec::new();
    for name in POOLS {
        let get = ["get", "ippools.projectcalico.org", name];
        saved.push(restorable(world.cluster.kubectl_json(&get)?)?);
    }
    let delete = ["delete", "ippools.projectcalico.org"];
    world.kubectl(&[&delete[..], &POOLS].concat())?;
    let outcome = without_pool(world);
    mended(outcome, || {
        for pool in &saved {
            world.cluster.apply(&pool.to_string())?;
        }
        Ok(())
    })?;
    starts(world, "without-pool")?;
    is_silent(world, NODE, "no IPPool")?;
    world.base_is_connected()?;
    Ok("refused; without its pool pods are reached, and others wait in words".to_owned())
}

/// An object as a user would have written it.
fn restorable(mut object: Value) -> Result<Value> {
    let metadata = object["metadata"].as_object_mut().context("metadata")?;
    metadata.retain(|field, _| field == "name" || field == "labels");
    object
        .as_object_mut()
        .context("an object")?
        .remove("status");
    Ok(object)
}

fn without_pool(world: &World) -> Result<()> {
    let manifest = pod("base", "without-pool", NODE, "late");
    world.cluster.apply(&manifest)?;
    pod_is_told(world, "base", "name=without-pool", &["no pool for"])?;
    says(world, NODE, true, &["no IPPool", "10.244."])?;
    world.base_is_connected()?;
    let (base, outside) = world.base_and_outside()?;
    for member in base {
        world.until(&format!("{} from outside", member.name), || {
            reach(outside, member)
        })?;
    }
    Ok(())
}

fn reach(from: &crate::lab::probe::Probe, to: &Member) -> Result<()> {
    let (tcp, port) = (crate::lab::probe::Protocol::Tcp, crate::prober::PORTS[0]);
    let who = from.reach(tcp, to.addresses[0], port, super::world::REACH)?;
    ensure!(who == to.name, "{who} answers");
    Ok(())
}

/// The agents' rights are taken away and given back.
pub(super) fn rights(world: &mut World) -> Result<String> {
    world.base()?;
    let get = ["get", "clusterrolebinding", AGENT];
    let saved = world.cluster.kubectl_json(&get)?;
    let manifest = serde_json::json!({
        "apiVersion": saved["apiVersion"], "kind": saved["kind"],
        "metadata": {"name": AGENT, "labels": saved["metadata"]["labels"]},
        "roleRef": saved["roleRef"], "subjects": saved["subjects"],
    });
    world.kubectl(&["delete", "clusterrolebinding", AGENT])?;
    let outcome = without_rights(world);
    let said = mended(outcome, || {
        world.cluster.apply(&manifest.to_string()).map(drop)
    })?;
    // What was asked for meanwhile is in force.
    let closed = policy::is_closed(world);
    mended(closed, || policy::open(world))?;
    for node in node_names() {
        is_silent(world, node, "can't be read")?;
    }
    starts(world, "without-rights")?;
    world.base_is_connected()?;
    Ok(said)
}

/// Watches that have begun go on: the API server asks once, so that it is started anew.
fn without_rights(world: &World) -> Result<String> {
    world.cluster.stop(CONTROL, "apiserver", "KILL")?;
    world.cluster.start(CONTROL, "apiserver")?;
    world.until("the API server", || {
        world.kubectl(&["get", "--raw=/readyz"]).map(drop)
    })?;
    let words = ["pods", "403", "ocicat-node"];
    let sentence = says(world, NODE, true, &words)?;
    world.base_is_connected()?;
    kill_agent(world, NODE)?;
    says(world, NODE, true, &words)?;
    world.base_is_connected()?;
    world.cluster.apply(policy::CLOSED)?;
    // It starts, and is closed until its labels are known.
    let manifest = pod("base", "without-rights", NODE, "late");
    world.cluster.apply(&manifest)?;
    world.base_is_connected()?;
    let first = sentence.split(';').next().unwrap_or_default();
    Ok(first.chars().take(160).collect())
}

/// A configuration of another plugin comes before ours.
pub(super) fn foreign(world: &mut World) -> Result<String> {
    world.base()?;
    let write = format!(
        r#"echo '{{"cniVersion":"0.4.0","name":"other","plugins":[{{"type":"loopback"}}]}}' >{FOREIGN}"#
    );
    world.cluster.exec(NODE, &["sh", "-c", &write])?;
    let outcome = says(
        world,
        NODE,
        false,
        &["05-other.conflist", "remove the file"],
    )
    .and_then(|_| condition_says(world, NODE, &["05-other.conflist"]))
    .and_then(|()| world.base_is_connected());
    mended(outcome, || {
        world.cluster.exec(NODE, &["rm", FOREIGN]).map(drop)
    })?;
    is_silent(world, NODE, "05-other")?;
    world.agents_ready()?;
    world
        .cluster
        .apply(&pod("base", "after-other", NODE, "late"))?;
    starts(world, "after-other")?;
    Ok("named in readiness and in the node's condition".to_owned())
}

/// The disk below the agent's state is full.
pub(super) fn disk(world: &mut World) -> Result<String> {
    world.base()?;
    // A disk of its own, with what the state was.
    let small = format!(
        "mkdir /run/state && cp -a {STATE}/. /run/state && mount -t tmpfs -o size=4m tmpfs {STATE} \
         && cp -a /run/state/. {STATE} && rm -r /run/state"
    );
    world.cluster.exec(NODE, &["sh", "-c", &small])?;
    let outcome = renew_agent(world).and_then(|()| full(world));
    let back = format!(
        "rm -f {STATE}/filler; mkdir /run/state && cp -a {STATE}/. /run/state && umount -l {STATE} \
         && cp -a /run/state/. {STATE} && rm -r /run/state"
    );
    mended(outcome, || {
        world.cluster.exec(NODE, &["sh", "-c", &back]).map(drop)
    })?;
    renew_agent(world)?;
    world.base_is_connected()?;
    world.nothing_is_left(NODE)?;
    Ok("named; pods go on, others wait, and start when there is room".to_owned())
}

/// Gives the node's agent another pod, which mounts what is there now.
fn renew_agent(world: &World) -> Result<()> {
    let on_node = format!("--field-selector=spec.nodeName={NODE}");
    world.kubectl(&["-n", SYSTEM, "delete", "pods", &on_node])?;
    world.agents_ready()?;
    is_silent(world, NODE, "journal")
}

fn full(world: &World) -> Result<()> {
    // dd fails when the disk is full, which is the point.
    let fill = format!("dd if=/dev/zero of={STATE}/filler bs=512 2>/dev/null; sync");
    world.cluster.exec(NODE, &["sh", "-c", &fill])?;
    world.namespace("full-disk")?;
    let late = (0..FILLING).map(|n| pod("full-disk", &format!("late-{n}"), NODE, "late"));
    world.cluster.apply(&late.collect::<String>())?;
    let words = ["journal", "No space left on device"];
    let outcome = says(world, NODE, false, &words)
        .and_then(|_| condition_says(world, NODE, &words))
        .and_then(|()| pod_is_told(world, "full-disk", "kind=Pod", &words))
        .and_then(|()| world.base_is_connected());
    let free = format!("{STATE}/filler");
    mended(outcome, || {
        world.cluster.exec(NODE, &["rm", &free]).map(drop)
    })?;
    is_silent(world, NODE, "journal")?;
    world.ready("full-disk", FILLING)?;
    world.remove("full-disk")
}
