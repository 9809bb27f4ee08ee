//! A connection to a BMP station (RFC 7854 section 3.2): we connect, and only we speak.

use crate::runtime::Event;
use bgp_core::monitoring::bmp;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

/// Between attempts to connect.
const RETRY: Duration = Duration::from_secs(5);
/// How long a station may take to connect.
const ANSWER: Duration = Duration::from_secs(10);
/// Messages that a slow station may be behind. Beyond, it is connected anew and told everything:
/// memory is bounded by what there is, not by what has happened.
const BACKLOG: usize = 4096;

/// What a station is told next.
pub(crate) type Feed = mpsc::Sender<Arc<[u8]>>;

/// Stays connected to the station until the other end of `stay` is gone.
pub(crate) async fn run(
    target: SocketAddr,
    name: String,
    events: mpsc::Sender<Event>,
    mut stay: watch::Receiver<()>,
) {
    // Said once, not at every attempt.
    let mut failing = false;
    while stay.has_changed().is_ok() {
        let connected = tokio::select! {
            connected = tokio::time::timeout(ANSWER, TcpStream::connect(target)) => connected,
            _ = stay.changed() => return,
        };
        match connected {
            Ok(Ok(stream)) => {
                failing = false;
                tracing::info!("BMP station {target} is connected");
                serve(target, stream, &name, &events).await;
                tracing::info!("BMP station {target} is no longer connected");
            }
            failure if !failing => {
                failing = true;
                let error = failure.map_or("no answer".to_owned(), |failure| {
                    failure
                        .err()
                        .map_or_else(String::new, |error| error.to_string())
                });
                tracing::warn!("cannot connect to BMP station {target}: {error}");
            }
            _ => {}
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            _ = stay.changed() => return,
        }
    }
}

/// Until the station or its feed is gone.
async fn serve(
    target: SocketAddr,
    mut stream: TcpStream,
    name: &str,
    events: &mpsc::Sender<Event>,
) {
    let (feed, mut messages) = mpsc::channel::<Arc<[u8]>>(BACKLOG);
    let description = concat!("Ocicat bgp-speaker ", env!("CARGO_PKG_VERSION"));
    let initiation = bmp::initiation(name, description);
    if stream.write_all(&initiation).await.is_err()
        || events.send(Event::Station(target, feed)).await.is_err()
    {
        return;
    }
    let (mut reader, mut writer) = stream.split();
    let mut unexpected = [0; 64];
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Some(message) => if writer.write_all(&message).await.is_err() { return },
                None => {
                    // We stop, or the station is too slow: it sees that this was the end.
                    let _ = writer.write_all(&bmp::termination()).await;
                    return;
                }
            },
            read = reader.read(&mut unexpected) => match read {
                // A station has nothing to say.
                Ok(octets) if octets > 0 => {}
                Ok(_) | Err(_) => return,
            }
        }
    }
}
