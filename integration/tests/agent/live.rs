//! What a change of policy does to connections that exist, and what is told of what was denied.

use crate::node::{LIMIT, Member, Node, policy, wait_denied};
use anyhow::{Context, Result, bail};
use integration::lab::agent::binary;
use integration::lab::{Netns, wait};
use integration::prober::PORTS;
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;

/// Where a test's own server listens.
const PORT: u16 = 7070;
const ALLOW_CLIENTS: &str = "[{from: [{podSelector: {matchLabels: {app: client}}}]}]";

/// Both ends of a connection.
struct Tcp {
    client: TcpStream,
    server: TcpStream,
}

impl Tcp {
    fn open(from: &Netns, to: &Netns, address: IpAddr) -> Result<Self> {
        let listener = to.within(|| TcpListener::bind((address, PORT)))??;
        let address = SocketAddr::from((address, PORT));
        let client = from.within(|| TcpStream::connect_timeout(&address, LIMIT))??;
        let (server, _) = listener.accept()?;
        for end in [&client, &server] {
            end.set_read_timeout(Some(LIMIT))?;
            end.set_nodelay(true)?;
        }
        let mut tcp = Self { client, server };
        tcp.exchange()?;
        Ok(tcp)
    }

    /// One byte each way.
    fn exchange(&mut self) -> Result<()> {
        let mut byte = [0];
        self.client.write_all(b"a")?;
        self.server.read_exact(&mut byte)?;
        self.server.write_all(b"b")?;
        self.client.read_exact(&mut byte)?;
        Ok(())
    }
}

/// Writes until the other side's kernel says that the connection is no more.
fn wait_reset(end: &mut TcpStream, who: &str) -> Result<()> {
    wait::until(LIMIT, &format!("a reset at the {who}"), || {
        match end.write_all(b"x") {
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                ) =>
            {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    })
}

fn addresses(member: &Member) -> Result<[IpAddr; 2]> {
    Ok([member.pod.ipv4()?, member.pod.ipv6()?])
}

#[test]
fn a_policy_cuts_what_it_denies_at_both_ends_and_nothing_else() -> Result<()> {
    let node = Node::started()?;
    let (web, client) = (node.member("web", "web")?, node.member("client", "client")?);
    let other = node.member("other", "other")?;
    for address in addresses(&web)? {
        node.store.remove("policy.yaml").ok();
        let open = |from: &Member| Tcp::open(from.pod.netns(), web.pod.netns(), address);
        wait::until(LIMIT, "two connections", || {
            open(&client)
                .map(drop)
                .map_err(|error| format!("{error:#}"))
        })?;
        let (mut allowed, mut denied) = (open(&client)?, open(&other)?);
        let mut from_host = Tcp::open(&node.netns, web.pod.netns(), address)?;
        node.store
            .write("policy.yaml", &policy("web", "web", ALLOW_CLIENTS))?;
        // The server speaks first: what it sends must not make a connection of its own.
        wait_reset(&mut denied.server, "server")?;
        wait_reset(&mut denied.client, "client")?;
        allowed.exchange()?;
        from_host.exchange()?;
    }
    let status = node.ctl(&["status"])?;
    assert!(
        status["revoked"].as_u64().is_some_and(|n| n >= 2),
        "{status}"
    );
    Ok(())
}

#[test]
fn what_a_pod_has_open_with_its_own_node_is_cut_at_both_ends() -> Result<()> {
    let node = Node::started()?;
    let client = node.member("client", "client")?;
    let address = "10.1.0.11".parse()?;
    let mut tcp = Tcp::open(client.pod.netns(), &node.netns, address)?;
    let mut to_pod = Tcp::open(&node.netns, client.pod.netns(), client.pod.ipv4()?)?;
    node.store.write(
        "closed.yaml",
        "apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: closed}
spec:
  selector: app == 'client'
  types: [Egress]
  egress: [{action: Deny, destination: {nets: [10.1.0.0/24]}}, {action: Allow}]
",
    )?;
    wait_reset(&mut tcp.server, "server")?;
    wait_reset(&mut tcp.client, "client")?;
    to_pod.exchange()
}

#[test]
fn a_diff_names_the_live_connections_that_it_would_cut() -> Result<()> {
    let node = Node::started()?;
    let (web, client) = (node.member("web", "web")?, node.member("client", "client")?);
    let other = node.member("other", "other")?;
    let address = web.pod.ipv4()?;
    let mut allowed = Tcp::open(client.pod.netns(), web.pod.netns(), address)?;
    let mut denied = Tcp::open(other.pod.netns(), web.pod.netns(), address)?;
    let file = node.lab.dir().join("new.yaml");
    std::fs::write(&file, policy("web", "web", ALLOW_CLIENTS))?;
    let mut diff = Command::new(binary("OCICAT_NODE_BIN", "ocicat-node")?);
    diff.args(["ctl", "--run-dir"]).arg(node.agent.run_dir());
    diff.args(["diff", "-o", "json", "-f"]).arg(&file);
    let output = node.netns.output(&mut diff)?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let cut: Vec<_> = report["cut"]
        .as_array()
        .context("an array")?
        .iter()
        .collect();
    let (from, to) = (denied.client.local_addr()?, denied.client.peer_addr()?);
    let [cut] = cut[..] else {
        bail!("{report}");
    };
    assert_eq!(cut["source"], from.ip().to_string(), "{report}");
    assert_eq!(cut["destination"], to.ip().to_string(), "{report}");
    assert_eq!(cut["ports"][0], from.port(), "{report}");
    allowed.exchange()?;
    denied.exchange()
}

#[test]
fn a_knob_leaves_connections_alone() -> Result<()> {
    let mut node = Node::prepared()?;
    node.agent.set_flags(&["--revoke-connections=off"]);
    node.start()?;
    let (web, other) = (node.member("web", "web")?, node.member("other", "other")?);
    let mut tcp = Tcp::open(other.pod.netns(), web.pod.netns(), web.pod.ipv4()?)?;
    node.store
        .write("policy.yaml", &policy("web", "web", ALLOW_CLIENTS))?;
    wait_denied(&other.probe, &web)?;
    tcp.exchange()
}

#[test]
fn the_next_pod_with_an_address_inherits_no_connection() -> Result<()> {
    let node = Node::started()?;
    let (web, client) = (node.member("web", "web")?, node.member("client", "client")?);
    let address = web.pod.ipv4()?;
    let _from_host = Tcp::open(&node.netns, web.pod.netns(), address)?;
    let _between = Tcp::open(client.pod.netns(), web.pod.netns(), address)?;
    web.pod.del()?;
    let text = address.to_string();
    let marked = format!("mark={}", model::names::REVOKED_MARK);
    wait::until(LIMIT, "both connections marked", || {
        let list = ["conntrack", "-L", "-p", "tcp", "-d", text.as_str()];
        let listed = node
            .netns
            .run(&list)
            .map_err(|error| format!("{error:#}"))?;
        let of_address: Vec<_> = listed
            .lines()
            .filter(|line| line.contains("dport=7070"))
            .collect();
        match of_address.len() == 2 && of_address.iter().all(|line| line.contains(&marked)) {
            true => Ok(()),
            false => Err(listed),
        }
    })
}

#[test]
fn what_is_denied_is_told_with_pods_and_policy() -> Result<()> {
    let node = Node::started()?;
    let (web, other) = (node.member("web", "web")?, node.member("other", "other")?);
    node.store
        .write("policy.yaml", &policy("web", "web", ALLOW_CLIENTS))?;
    wait_denied(&other.probe, &web)?;
    let line = wait::until(LIMIT, "a line of the drop log", || {
        let lines = node.ctl(&["drops"]).map_err(|error| format!("{error:#}"))?;
        let lines = lines.as_array().cloned().unwrap_or_default();
        let port = format!("tcp/{}", PORTS[0]);
        let of = lines.iter().find(|line| line["flow"] == port.as_str());
        of.cloned().ok_or_else(|| format!("{lines:?}"))
    })?;
    assert_eq!(line["source"], "shop/other", "{line}");
    assert_eq!(line["destination"], "shop/web", "{line}");
    let by = line["decided_by"].as_str().context("a reason")?;
    assert!(
        by.contains("ingress") && by.contains("NetworkPolicy/shop/web"),
        "{by}"
    );

    let (status, metrics) = node.agent.health("/metrics")?;
    assert_eq!(status, 200);
    let counter = |line: &&str| {
        line.starts_with("ocicat_policy_packets_total{") && line.contains("NetworkPolicy/shop/web")
    };
    let counted = metrics
        .lines()
        .filter(counter)
        .any(|line| !line.ends_with(" 0"));
    if !counted {
        bail!("no packets are counted: {metrics}");
    }
    for name in [
        "ocicat_programming_seconds_count",
        "ocicat_cni_add_seconds_count 2",
        "ocicat_cni_add_own_seconds_count 2",
        "ocicat_cni_add_phase_seconds_bucket{phase=\"journal\",le=\"+Inf\"} 2",
        "ocicat_endpoints 2",
        "ocicat_ready 1",
    ] {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }
    Ok(())
}
