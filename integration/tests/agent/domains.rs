//! Names in policies, resolved by pods in the usual way.

use crate::node::{LIMIT, Member, Node, SHORT};
use anyhow::{Result, bail};
use integration::lab::{Netns, wait};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const ALLOWED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
const PORT: u16 = 7071;

const POLICY: &str = "apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: only-example}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: shop}}}
  egress:
  - name: names
    action: Accept
    to: [{domainNames: ['*.example.com']}]
  - name: resolver
    action: Accept
    to: [{networks: [10.1.0.1/32]}]
  - name: rest
    action: Deny
    to: [{networks: [0.0.0.0/0]}]
";

/// A question for the A record of a name.
fn question(name: &str) -> Vec<u8> {
    let mut bytes = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// Answers one question with an address.
fn answer_one(server: &UdpSocket, address: Ipv4Addr) -> Result<()> {
    let mut bytes = [0; 512];
    let (length, from) = wait::uninterrupted(|| server.recv_from(&mut bytes))?;
    let mut answer = bytes[..length].to_vec();
    answer[2..4].copy_from_slice(&[0x81, 0x80]);
    answer[6..8].copy_from_slice(&[0, 1]);
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    answer.extend(address.octets());
    server.send_to(&answer, from)?;
    Ok(())
}

/// The pod asks for the name, and gets this address.
fn resolve(pod: &Netns, server: &UdpSocket, name: &str, address: Ipv4Addr) -> Result<()> {
    let client = pod.within(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
    client.set_read_timeout(Some(LIMIT))?;
    client.send_to(&question(name), (SERVER, 53))?;
    answer_one(server, address)?;
    wait::uninterrupted(|| client.recv_from(&mut [0; 512]))?;
    Ok(())
}

/// Whether answers wait until what they resolve to is in force.
fn holds_answers(features: &str) -> bool {
    let mut lines = features.lines().map(|line| line.split_whitespace());
    lines.any(|line| line.eq(["nft", "queue", "yes"]))
}

fn connects(pod: &Member, to: Ipv4Addr) -> Result<()> {
    let to = SocketAddr::from((IpAddr::from(to), PORT));
    let within = pod
        .pod
        .netns()
        .within(|| TcpStream::connect_timeout(&to, SHORT))?;
    Ok(within.map(drop)?)
}

#[test]
fn a_pod_reaches_what_an_allowed_name_resolved_to_and_nothing_else() -> Result<()> {
    let node = Node::started()?;
    node.host.ip([
        format!("address add {ALLOWED}/32 dev lo"),
        format!("address add {OTHER}/32 dev lo"),
    ])?;
    node.netns.ip(["route add 192.0.2.0/24 via 10.1.0.1"])?;
    let _listener = node
        .host
        .within(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))??;
    let server = node.host.within(|| UdpSocket::bind((SERVER, 53)))??;
    server.set_read_timeout(Some(Duration::from_secs(5)))?;
    let client = node.member("client", "client")?;
    wait::until(LIMIT, "the way without policy", || {
        connects(&client, ALLOWED).map_err(|error| format!("{error:#}"))
    })?;
    node.store.write("policy.yaml", POLICY)?;
    wait::until(LIMIT, "everything denied", || {
        match connects(&client, ALLOWED) {
            Ok(()) => Err("it connects".to_owned()),
            Err(_) => Ok(()),
        }
    })?;

    resolve(client.pod.netns(), &server, "elsewhere.net", OTHER)?;
    resolve(client.pod.netns(), &server, "Api.Example.com", ALLOWED)?;
    let status = node.ctl(&["status"])?;
    let kernel = status["kernel"].as_str().unwrap_or_default();
    if holds_answers(kernel) {
        // The answer came after the address was in force.
        connects(&client, ALLOWED)?;
    }
    wait::until(LIMIT, "the resolved address", || {
        connects(&client, ALLOWED).map_err(|error| format!("{error:#}"))
    })?;
    if connects(&client, OTHER).is_ok() {
        bail!("the address of another name is reached");
    }
    Ok(())
}

#[test]
fn what_a_name_resolved_to_outlives_the_agent() -> Result<()> {
    let mut node = Node::started()?;
    node.host.ip([format!("address add {ALLOWED}/32 dev lo")])?;
    node.netns.ip(["route add 192.0.2.0/24 via 10.1.0.1"])?;
    let _listener = node
        .host
        .within(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))??;
    let server = node.host.within(|| UdpSocket::bind((SERVER, 53)))??;
    server.set_read_timeout(Some(Duration::from_secs(5)))?;
    let client = node.member("client", "client")?;
    node.store.write("policy.yaml", POLICY)?;
    let kept = node.agent.state_dir().join("names.json");
    wait::until(LIMIT, "names on disk", || {
        // The first answers may pass before the policy is there.
        resolve(client.pod.netns(), &server, "api.example.com", ALLOWED)
            .map_err(|error| format!("{error:#}"))?;
        let text = std::fs::read_to_string(&kept).unwrap_or_default();
        match text.contains("api.example.com") {
            true => Ok(()),
            false => Err(text),
        }
    })?;
    connects(&client, ALLOWED)?;
    node.crash_and_start()?;
    connects(&client, ALLOWED)
}
