//! Calls that were cut short, by whoever was cut short: nothing is lost, nothing is left.

use crate::node::{LIMIT, Node, cni_error, entries, nothing, spec};
use anyhow::{Context, Result};
use integration::lab::pod::Plugin;
use integration::lab::{Netns, Pod, Process, process, wait};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Command;
use std::sync::mpsc::Sender;
use std::time::Duration;

#[test]
fn a_del_while_the_agent_is_away_is_carried_out_at_its_next_start() -> Result<()> {
    let mut node = Node::started()?;
    let (gone, kept) = (node.pod("gone", "web")?, node.pod("kept", "web")?);
    node.wait_written(2)?;
    node.agent.kill()?;
    gone.del()?;
    gone.del()?;
    let spool = node.agent.run_dir().join("spool");
    assert_eq!(entries(&spool)?, ["shop-gone.eth0.json"]);
    std::fs::write(spool.join("x.eth0.json"), "not a request")?;
    node.start()?;
    for ip in gone.addresses() {
        node.wait_route(ip, false)?;
    }
    node.wait_written(1)?;
    wait::until(LIMIT, "the spool to be empty", || match entries(&spool) {
        Ok(left) if left == ["x.eth0.json.bad"] => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    wait::until(LIMIT, "the link to go", || match node.links() {
        Ok(links) if links.len() == 1 => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    node.wait_logged("x.eth0.json")?;
    kept.check()?;
    // The same container may come back: what waited was older.
    let again = node
        .plugin
        .call("ADD", gone.spec(), gone.netns(), &nothing())?;
    assert_ne!(again["ips"], Value::Null);
    node.crash_and_start()?;
    let extra = json!({ "prevResult": again });
    node.plugin
        .call("CHECK", gone.spec(), gone.netns(), &extra)
        .map(drop)
}

#[test]
fn a_del_while_agent_and_datastore_are_away_is_carried_out_from_the_snapshot() -> Result<()> {
    let mut node = Node::started()?;
    let gone = node.pod("gone", "web")?;
    node.wait_snapshot("IpPool")?;
    node.agent.kill()?;
    node.hide_store()?;
    gone.del()?;
    node.agent.start()?;
    node.agent.wait_ready(LIMIT)?;
    wait::until(LIMIT, "no endpoint to be left", || {
        let endpoints = node
            .ctl(&["endpoints"])
            .map_err(|error| format!("{error:#}"))?;
        if endpoints == json!([]) {
            Ok(())
        } else {
            Err(endpoints.to_string())
        }
    })
}

#[test]
fn a_runtime_that_dies_during_add_leaves_nothing_after_its_del() -> Result<()> {
    let node = Node::started()?;
    let before = (node.rules(), node.routes()?, node.links()?);
    for number in 0..5 {
        let netns = node.lab.netns(&format!("p{number}"))?;
        let spec = spec(netns.name(), "web");
        let config = node.lab.dir().join("conf.json");
        std::fs::write(&config, node.plugin.config.to_string())?;
        let mut command = Command::new("sh");
        command
            .args(["-c", "exec \"$0\" < \"$1\""])
            .arg(&node.plugin.binary)
            .arg(&config)
            .env("CNI_COMMAND", "ADD")
            .env("CNI_CONTAINERID", format!("shop-p{number}"))
            .env("CNI_NETNS", netns.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin")
            .env(
                "CNI_ARGS",
                format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=p{number}"),
            );
        // Dropped, and with it killed, before it can have ended.
        drop(Process::start(
            &node.netns,
            node.lab.dir(),
            "plugin",
            &mut command,
        )?);
        node.plugin.call("DEL", &spec, &netns, &nothing())?;
        process::run(Command::new("ip").args(["netns", "del", netns.full_name()]))?;
    }
    wait::until(LIMIT, "nothing to be left", || {
        let now = (node.rules(), node.routes(), node.links());
        match now {
            (rules, Ok(routes), Ok(links))
                if (&rules, &routes, &links) == (&before.0, &before.1, &before.2) =>
            {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    })
}

#[test]
fn an_add_that_waits_for_a_block_is_ended_by_the_del_of_its_container() -> Result<()> {
    let mut node = Node::prepared()?;
    // Where the folder of blocks should be is a file: no block can be claimed.
    std::fs::create_dir(node.store.path().join("state"))?;
    std::fs::write(node.store.path().join("state/ipamblocks"), "")?;
    node.start()?;
    let netns = node.lab.netns("a")?;
    let plugin = &node.plugin;
    let spec = spec("a", "web");
    let result = std::thread::scope(|scope| {
        let add = scope.spawn(|| plugin.call("ADD", &spec, &netns, &nothing()));
        while !add.is_finished() {
            plugin.call("DEL", &spec, &netns, &nothing())?;
        }
        add.join().expect("a thread of the test")
    });
    let (code, message) = cni_error(result)?;
    assert_eq!(code, 11, "{message}");
    assert_eq!(message, "taken down by DEL while it waited for a block");
    node.store.remove("state/ipamblocks")?;
    wait::until(LIMIT, "an ADD", || {
        plugin
            .call("ADD", &spec, &netns, &nothing())
            .map_err(|error| format!("{error:#}"))
    })?;
    assert_eq!(node.links()?.len(), 1);
    Ok(())
}

#[test]
fn a_pod_whose_namespace_went_without_del_keeps_the_node_ready_and_is_taken_down_later()
-> Result<()> {
    let mut node = Node::started()?;
    let (gone, kept) = (node.pod("gone", "web")?, node.member("kept", "web")?);
    gone.netns().delete()?;
    for ip in gone.addresses() {
        node.wait_route(ip, false)?;
    }
    let late = node.member("late", "web")?;
    late.wait_reaches(&kept)?;
    assert_eq!(node.agent.health("/readyz")?.0, 200);
    gone.del()?;
    node.wait_written(2)?;
    // And one that goes while the agent is away.
    let other = node.pod("other", "web")?;
    node.wait_written(3)?;
    node.agent.kill()?;
    other.netns().delete()?;
    node.start()?;
    node.wait_written(2)?;
    for ip in other.addresses() {
        node.wait_route(ip, false)?;
    }
    other.del()?;
    late.reaches(&kept)
}

#[test]
fn a_full_disk_is_an_error_of_add_that_names_the_journal_and_takes_no_pod_down() -> Result<()> {
    let mut node = Node::prepared()?;
    let state = node.agent.state_dir();
    std::fs::create_dir_all(&state)?;
    // A disk of a few pages, seen by the agent alone and gone with it.
    let agent = integration::lab::agent::binary("OCICAT_NODE_BIN", "ocicat-node")?;
    let script = node.lab.dir().join("agent-with-a-small-disk");
    let text = format!(
        "#!/bin/sh\nexec unshare -m sh -c 'mount -t tmpfs -o size=20k none {} && exec {} \"$@\"' sh \"$@\"\n",
        state.display(),
        agent.display()
    );
    std::fs::write(&script, text)?;
    process::run(Command::new("chmod").arg("755").arg(&script))?;
    node.agent.set_binary(script);
    node.start()?;
    let mut pods = Vec::new();
    let (code, message) = loop {
        match node.pod(&format!("p{}", pods.len()), "web") {
            Ok(pod) if pods.len() < 100 => pods.push(pod),
            other => break cni_error(other)?,
        }
    };
    assert_eq!(code, 5, "{message}");
    assert!(
        message.contains("journal") && message.contains("No space left"),
        "{message}"
    );
    wait::until(
        LIMIT,
        "no link of the pod that was refused",
        || match node.links() {
            Ok(links) if links.len() == pods.len() => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )?;
    for pod in &pods {
        pod.check()?;
    }
    let last = pods.pop().context("a pod")?;
    let addresses = last.addresses();
    last.delete()?;
    for ip in addresses {
        node.wait_route(ip, false)?;
    }
    Ok(())
}

#[test]
fn sigkill_in_the_middle_of_adds_loses_no_pod_and_leaves_no_half_of_one() -> Result<()> {
    const PODS: usize = 24;
    let mut node = Node::started()?;
    let namespaces: Vec<Netns> = (0..PODS)
        .map(|number| node.lab.netns(&format!("p{number}")))
        .collect::<Result<_>>()?;
    let plugin = node.plugin.clone();
    let (done, adds) = std::sync::mpsc::channel();
    let results = std::thread::scope(|scope| {
        let (plugin, namespaces) = (&plugin, &namespaces);
        let runtime = scope.spawn(move || {
            let add = |netns| add_as_a_runtime_does(plugin, netns, &done);
            namespaces.iter().map(add).collect::<Result<Vec<Value>>>()
        });
        // At another moment of an ADD each time, for as long as there are any.
        for (crash, _) in adds
            .iter()
            .enumerate()
            .filter(|(number, _)| number % 2 == 0)
        {
            std::thread::sleep(Duration::from_millis(crash as u64 % 12));
            node.agent.kill()?;
            node.agent.start()?;
        }
        runtime.join().expect("the runtime's thread")
    })?;
    node.agent.wait_ready(LIMIT)?;
    let mut addresses = BTreeSet::new();
    for (netns, result) in namespaces.iter().zip(&results) {
        let extra = json!({ "prevResult": result });
        plugin.call("CHECK", &spec(netns.name(), "web"), netns, &extra)?;
        for ip in result["ips"].as_array().context("ips")? {
            assert!(addresses.insert(ip["address"].to_string()), "{ip} twice");
        }
    }
    wait::until(LIMIT, "only the pods that were answered", || {
        let links = node.links().map_err(|error| format!("{error:#}"))?.len();
        let routes = node.routes().map_err(|error| format!("{error:#}"))?;
        let routes = routes
            .lines()
            .filter(|line| line.contains(" dev oci"))
            .count();
        if links == PODS && routes == addresses.len() {
            Ok(())
        } else {
            Err(format!("{links} links, {routes} routes"))
        }
    })
}

#[test]
fn sigkill_in_the_middle_of_dels_leaves_nothing_of_the_pods() -> Result<()> {
    const PODS: usize = 16;
    let mut node = Node::started()?;
    let before = (node.rules(), node.routes()?);
    let pods: Vec<Pod> = (0..PODS)
        .map(|number| node.pod(&format!("p{number}"), "web"))
        .collect::<Result<_>>()?;
    let (done, dels) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let pods = &pods;
        let runtime = scope.spawn(move || {
            pods.iter().try_for_each(|pod| {
                // Away or not, the agent gets to know: DEL does not fail.
                pod.del()?;
                let _ = done.send(());
                Ok::<_, anyhow::Error>(())
            })
        });
        for (crash, ()) in dels
            .iter()
            .enumerate()
            .filter(|(number, ())| number % 2 == 0)
        {
            std::thread::sleep(Duration::from_millis(crash as u64 % 7));
            node.agent.kill()?;
            node.agent.start()?;
        }
        runtime.join().expect("the runtime's thread")
    })?;
    node.agent.wait_ready(LIMIT)?;
    wait::until(LIMIT, "nothing to be left", || {
        let now = (node.rules(), node.routes(), node.links());
        match now {
            (rules, Ok(routes), Ok(links))
                if (&rules, &routes) == (&before.0, &before.1) && links.is_empty() =>
            {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    })?;
    node.wait_written(0)
}

/// ADD until it succeeds, with a DEL after every failure; tells of every success.
fn add_as_a_runtime_does(plugin: &Plugin, netns: &Netns, done: &Sender<()>) -> Result<Value> {
    let spec = spec(netns.name(), "web");
    wait::until(LIMIT, "an ADD", || {
        match plugin.call("ADD", &spec, netns, &nothing()) {
            Ok(result) => {
                // The other end is gone only when the test has failed.
                let _ = done.send(());
                Ok(result)
            }
            Err(error) => {
                let deleted = plugin.call("DEL", &spec, netns, &nothing());
                Err(format!("{error:#}; {deleted:?}"))
            }
        }
    })
}

#[test]
fn a_link_whose_making_was_interrupted_is_removed_and_no_obstacle() -> Result<()> {
    let mut node = Node::started()?;
    let pod = node.pod("a", "web")?;
    let interface = pod.host_interface()?;
    pod.delete()?;
    // What a process leaves that dies before the alias is set, which the kernel takes only later.
    let interrupted = |node: &Node| {
        node.netns.ip([format!(
            "link add {interface} address ee:ee:ee:ee:ee:ee type veth peer name half"
        )])
    };
    let gone = |node: &Node| {
        wait::until(LIMIT, "no link", || match node.links() {
            Ok(links) if links.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        })
    };
    gone(&node)?;
    interrupted(&node)?;
    node.pod("a", "web")?.delete()?;
    gone(&node)?;
    node.agent.kill()?;
    interrupted(&node)?;
    node.start()?;
    gone(&node)
}
