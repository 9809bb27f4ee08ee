//! `/healthz`, `/readyz` and `/metrics` on the loopback address.
//!
//! Readiness says whether this node does its job, and why not. It never depends on a peer.

use crate::ctl::{Answer, Query, Question};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

/// Callers at one time.
const CONNECTIONS: usize = 64;
/// A caller that takes longer is dropped.
const DEADLINE: Duration = Duration::from_secs(5);

/// What readiness says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Readiness {
    /// The node does its job.
    pub(crate) ready: bool,
    /// Why not, one sentence each.
    pub(crate) reasons: Vec<String>,
    /// What is not as it should be although the node does its job.
    pub(crate) notes: Vec<String>,
}

/// Why the port could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("health port 127.0.0.1:{port}: {source}")]
pub(crate) struct BindError {
    port: u16,
    #[source]
    source: std::io::Error,
}

/// Open the port.
pub(crate) async fn bind(port: u16) -> Result<TcpListener, BindError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address)
        .await
        .map_err(|source| BindError { port, source })
}

/// Answer until the end of the process.
pub(crate) async fn serve(
    listener: TcpListener,
    readiness: watch::Receiver<Readiness>,
    queries: mpsc::Sender<Query>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // Whoever comes when all places are taken is turned away: any process of the node may ask.
        let Ok(place) = places.clone().try_acquire_owned() else {
            continue;
        };
        let readiness = readiness.clone();
        let queries = queries.clone();
        tokio::spawn(async move {
            let answer = |request| answer(request, readiness.borrow().clone(), queries.clone());
            let connection = hyper::server::conn::http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service_fn(answer));
            // A caller that hangs up has its answer, or does not want it.
            let _ = tokio::time::timeout(DEADLINE, connection).await;
            drop(place);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    readiness: Readiness,
    queries: mpsc::Sender<Query>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, body) = match request.uri().path() {
        "/healthz" => (StatusCode::OK, "{\"alive\":true}".to_owned()),
        "/readyz" => {
            let ready = readiness.ready;
            let status = if ready {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            (
                status,
                serde_json::to_string(&readiness).unwrap_or_default(),
            )
        }
        "/metrics" => return Ok(metrics(&queries).await),
        _ => (
            StatusCode::NOT_FOUND,
            "{\"error\":\"/healthz, /readyz or /metrics\"}".to_owned(),
        ),
    };
    Ok(response(status, "application/json", body + "\n"))
}

/// Prometheus text, from the agent.
async fn metrics(queries: &mpsc::Sender<Query>) -> Response<Full<Bytes>> {
    let (answer, answered) = oneshot::channel();
    let question = Question::Metrics;
    let sent = queries.send(Query { question, answer }).await;
    match (sent, answered.await) {
        (Ok(()), Ok(Answer::Text(text))) => {
            response(StatusCode::OK, "text/plain; version=0.0.4", text)
        }
        _ => response(StatusCode::SERVICE_UNAVAILABLE, "text/plain", String::new()),
    }
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        hyper::header::CONTENT_TYPE,
        hyper::header::HeaderValue::from_static(content_type),
    );
    response
}
