//! A node has one connection to the API servers, also right after it starts or has lost one.

use crate::{Api, View};
use anyhow::{Context, Result};
use datastore::kubernetes::ClusterOptions;
use integration::lab::{Netns, kube_api};
use rustix::net::{Shutdown, shutdown};
use std::net::{Ipv4Addr, Shutdown as Ends, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// One object of each of several collections, which have a watch each.
const OBJECTS: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n---\n\
    {apiVersion: v1, kind: Node, metadata: {name: n2}}\n---\n\
    {apiVersion: v1, kind: Pod, metadata: {name: web, namespace: default}, spec: {containers: [{name: c, image: i}]}}\n---\n\
    {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: api, namespace: default}, spec: {podSelector: {}}}\n---\n\
    {apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: pods}, spec: {cidr: 10.244.0.0/16}}\n---\n\
    {apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {name: rack}, spec: {peerIP: 10.0.0.1, asNumber: 64513}}\n---\n\
    {apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: partners}, spec: {nets: [192.0.2.0/24]}}\n---\n\
    {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: security}, spec: {order: 100}}\n";
const KEYS: [&str; 8] = [
    "Namespace/shop",
    "Node/n2",
    "Pod/default/web",
    "NetworkPolicy/default/api",
    "IPPool/pods",
    "BGPPeer/rack",
    "GlobalNetworkSet/partners",
    "Tier/security",
];

#[test]
fn all_watches_share_one_connection_from_the_start_and_after_a_cut() -> Result<()> {
    let api = Api::installed(&[])?;
    let relay = Relay::start(&api.netns, 7443)?;
    let mut view = watch_through(&api, &[&relay])?;
    view.until_in_sync()?;
    assert_eq!(relay.accepted(), 1, "connections at the start");
    relay.cut();
    api.api.apply(OBJECTS)?;
    until_objects(&mut view)?;
    assert_eq!(relay.accepted(), 2, "connections after the first was cut");
    Ok(())
}

#[test]
fn another_server_is_asked_over_one_connection() -> Result<()> {
    let api = Api::installed(&[])?;
    let first = Relay::start(&api.netns, 7443)?;
    let second = Relay::start(&api.netns, 7444)?;
    let mut view = watch_through(&api, &[&first, &second])?;
    view.until_in_sync()?;
    assert_eq!((first.accepted(), second.accepted()), (1, 0));
    first.close();
    api.api.apply(OBJECTS)?;
    until_objects(&mut view)?;
    assert_eq!((first.accepted(), second.accepted()), (1, 1));
    Ok(())
}

fn watch_through(api: &Api, relays: &[&Relay]) -> Result<View> {
    let url = |relay: &&Relay| format!("https://127.0.0.1:{}", relay.port);
    api.watch_with(&ClusterOptions {
        kubeconfig: vec![api.api.kubeconfig("admin")],
        servers: relays.iter().map(url).collect(),
        namespace: "net".to_owned(),
    })
}

fn until_objects(view: &mut View) -> Result<()> {
    view.until("an object of each watch", |view| {
        KEYS.iter().all(|key| view.object(key).is_ok())
    })
}

/// Carries TCP to the API server, and knows every connection that was ever made.
struct Relay {
    port: u16,
    listener: TcpListener,
    clients: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    fn start(netns: &Netns, port: u16) -> Result<Self> {
        let clients = Arc::new(Mutex::new(Vec::new()));
        let known = Arc::clone(&clients);
        let listener = netns.within(|| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
            let accepting = listener.try_clone()?;
            // Threads are in the namespace of the thread that starts them.
            thread::spawn(move || {
                for client in accepting.incoming() {
                    let Ok(client) = client else { return };
                    carry(client, &known);
                }
            });
            Ok::<_, std::io::Error>(listener)
        })?;
        Ok(Self {
            port,
            listener: listener.context("a relay's port")?,
            clients,
        })
    }

    fn accepted(&self) -> usize {
        self.clients().len()
    }

    /// Ends all connections; others can be made.
    fn cut(&self) {
        for client in self.clients().iter() {
            // One that has ended is cut.
            let _ = client.shutdown(Ends::Both);
        }
    }

    /// Ends all connections and takes no more.
    fn close(&self) {
        // A listener that was shut down refuses, and wakes who waits in `accept`.
        let _ = shutdown(&self.listener, Shutdown::Both);
        self.cut();
    }

    fn clients(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.close();
    }
}

fn carry(client: TcpStream, known: &Mutex<Vec<TcpStream>>) {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, kube_api::PORT));
    let ends = server.and_then(|server| Ok((client.try_clone()?, server.try_clone()?, server)));
    let Ok((from_client, to_server, server)) = ends else {
        return;
    };
    let to_client = client.try_clone();
    known
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(client);
    thread::spawn(move || pump(from_client, to_server));
    if let Ok(to_client) = to_client {
        thread::spawn(move || pump(server, to_client));
    }
}

/// Until one end closes; then neither gets any more.
fn pump(mut from: TcpStream, mut to: TcpStream) {
    // However it ends, it ends both.
    let _ = std::io::copy(&mut from, &mut to);
    let _ = from.shutdown(Ends::Both);
    let _ = to.shutdown(Ends::Both);
}
