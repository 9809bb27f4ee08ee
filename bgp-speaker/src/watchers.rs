//! Those who watch: BMP stations, and an MRT file of updates.

use crate::runtime::Event;
use crate::station::{self, Feed};
use bgp_core::monitoring::{Monitored, bmp, mrt};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Records that the disk may be behind.
const BACKLOG: usize = 4096;

/// Who is told about sessions and routes as they come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Monitoring {
    /// Our name, as BMP stations are told.
    pub name: String,
    /// BMP stations (RFC 7854) to connect to.
    pub stations: Vec<SocketAddr>,
    /// A file to which UPDATEs and changes of state are appended in MRT format (RFC 6396).
    pub updates_file: Option<PathBuf>,
}

/// Connections to all of them.
#[derive(Debug)]
pub(crate) struct Watchers {
    wanted: Monitoring,
    events: mpsc::Sender<Event>,
    /// Dropped to have the tasks of the stations end.
    stay: Option<watch::Sender<()>>,
    stations: BTreeMap<SocketAddr, Feed>,
    file: Option<SyncSender<Arc<[u8]>>>,
    lost: u64,
}

impl Watchers {
    /// Nobody watches.
    pub(crate) fn new(events: mpsc::Sender<Event>) -> Self {
        Self {
            wanted: Monitoring::default(),
            events,
            stay: None,
            stations: BTreeMap::new(),
            file: None,
            lost: 0,
        }
    }

    /// Others watch from here on.
    pub(crate) fn set(&mut self, wanted: Monitoring, tasks: &mut JoinSet<()>) {
        if self.wanted == wanted {
            return;
        }
        self.dismiss();
        let stay = watch::Sender::new(());
        for target in &wanted.stations {
            let (name, events) = (wanted.name.clone(), self.events.clone());
            tasks.spawn(station::run(*target, name, events, stay.subscribe()));
        }
        self.stay = Some(stay);
        self.file = wanted.updates_file.as_deref().and_then(append);
        self.wanted = wanted;
    }

    /// Whether anybody does.
    pub(crate) fn watch(&self) -> bool {
        !self.wanted.stations.is_empty() || self.file.is_some()
    }

    /// A station is connected: it is told first what there is.
    pub(crate) fn connected(&mut self, station: SocketAddr, feed: Feed, all: &[Monitored]) {
        let now = since_1970();
        for monitored in all {
            let mut octets = Vec::new();
            bmp::encode(monitored, now, &mut octets);
            if feed.try_send(octets.into()).is_err() {
                // Dropping it has it connected anew.
                return;
            }
        }
        self.stations.insert(station, feed);
    }

    /// Tells all.
    pub(crate) fn tell(&mut self, monitored: &Monitored) {
        let now = since_1970();
        if !self.stations.is_empty() {
            let mut octets = Vec::new();
            bmp::encode(monitored, now, &mut octets);
            let octets: Arc<[u8]> = octets.into();
            self.stations
                .retain(|_, feed| feed.try_send(Arc::clone(&octets)).is_ok());
        }
        if let Some(file) = &self.file {
            let mut octets = Vec::new();
            mrt::encode(monitored, now, &mut octets);
            if file.try_send(octets.into()).is_err() {
                self.lost += 1;
                if self.lost.is_power_of_two() {
                    tracing::warn!("{} events are missing in the MRT file", self.lost);
                }
            }
        }
    }

    /// Ends all connections after what waits for them.
    pub(crate) fn dismiss(&mut self) {
        self.stations.clear();
        self.file = None;
        self.stay = None;
    }
}

/// The thread that appends to a file, for a disk may take its time.
fn append(path: &Path) -> Option<SyncSender<Arc<[u8]>>> {
    let mut file = match File::options().create(true).append(true).open(path) {
        Ok(file) => file,
        Err(error) => {
            tracing::error!("cannot write {}: {error}", path.display());
            return None;
        }
    };
    let (sender, records) = sync_channel::<Arc<[u8]>>(BACKLOG);
    let path = path.to_owned();
    let thread = std::thread::Builder::new().name("mrt".into());
    let started = thread.spawn(move || {
        while let Ok(record) = records.recv() {
            if let Err(error) = file.write_all(&record) {
                tracing::error!("cannot write {}: {error}", path.display());
                return;
            }
        }
    });
    if let Err(error) = &started {
        tracing::error!("cannot start a thread for MRT: {error}");
    }
    started.is_ok().then_some(sender)
}

/// The time of the day, for those who compare it with that of others.
pub(crate) fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
