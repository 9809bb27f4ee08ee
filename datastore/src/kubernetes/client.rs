//! Requests to whichever API server answers.

use super::connection::{self, ClusterOptions, ConnectError, Server};
use super::gate::Gate;
use http_body_util::BodyExt;
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::Value;
use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Patience with a server that takes a request and says nothing.
const ANSWER: Duration = Duration::from_secs(30);
/// Time between two readings of the credentials with which no server is reached.
const CREDENTIALS: Duration = Duration::from_secs(5);
/// Octets of an error's text that are kept.
const MESSAGE: usize = 64 << 10;

const JSON: &str = "application/json";

/// Why a request to the API servers failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// Nobody answers.
    #[error("API server {server}: {reason}")]
    Unreachable {
        /// The URL of the last server that was asked.
        server: String,
        /// Why, in words.
        reason: String,
    },
    /// The server refused.
    #[error("{verb} {path}: {code} {reason}: {message}")]
    Refused {
        /// The HTTP method.
        verb: String,
        /// The path, without the query.
        path: String,
        /// The HTTP status code.
        code: u16,
        /// One word, such as `AlreadyExists` (`metav1.Status`).
        reason: String,
        /// A sentence.
        message: String,
    },
    /// The answer is not what the API promises.
    #[error("{path}: {reason}")]
    Malformed {
        /// The path, without the query.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl ApiError {
    /// The HTTP status code, if a server refused.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Unreachable { .. } | Self::Malformed { .. } => None,
        }
    }

    /// The word for why a server refused.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Refused { reason, .. } => Some(reason),
            Self::Unreachable { .. } | Self::Malformed { .. } => None,
        }
    }
}

/// A cluster: its API servers and a thread that drives the connections to them. Clones share both;
/// with the last one the thread ends.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
}

struct Shared {
    options: ClusterOptions,
    runtime: Handle,
    servers: Mutex<Credentials>,
    /// Index of the server that answered last.
    current: AtomicUsize,
    gate: Gate,
    _stop: oneshot::Sender<()>,
}

/// Servers, and when who we are was last read.
struct Credentials {
    servers: Arc<[Server]>,
    read: Instant,
}

impl Cluster {
    /// The cluster that the options name. Reads files; no server is asked yet.
    pub fn connect(options: &ClusterOptions) -> Result<Self, ConnectError> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ConnectError::Thread)?;
        let servers = runtime.block_on(connection::servers(options))?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        thread::Builder::new()
            .name("kubernetes".to_owned())
            .spawn(move || runtime.block_on(stopped))
            .map_err(ConnectError::Thread)?;
        let servers = Credentials {
            servers: servers.into(),
            read: Instant::now(),
        };
        let shared = Shared {
            options: options.clone(),
            runtime: handle,
            servers: Mutex::new(servers),
            current: AtomicUsize::new(0),
            gate: Gate::default(),
            _stop: stop,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Where futures of this cluster run; a thread that may wait uses [`Handle::block_on`].
    pub fn runtime(&self) -> &Handle {
        &self.shared.runtime
    }

    /// The agent's own namespace.
    pub fn namespace(&self) -> &str {
        &self.shared.options.namespace
    }

    /// Sends a request and reads a whole answer of JSON. `path` is an absolute path with its query.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Value, ApiError> {
        let malformed = |reason: String| ApiError::Malformed {
            path: without_query(path),
            reason,
        };
        let text = body.map(serde_json::to_vec).transpose();
        let text = text.map_err(|error| malformed(error.to_string()))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(ACCEPT, JSON)
            .header(CONTENT_TYPE, content_type.unwrap_or(JSON))
            .body(text.unwrap_or_default())
            .map_err(|error| malformed(error.to_string()))?;
        let answer = self.send(request).await?;
        let whole = timeout(ANSWER, answer.into_body().collect()).await;
        let whole = match whole {
            Ok(Ok(whole)) => whole.to_bytes(),
            Ok(Err(error)) => return Err(self.unreachable(chain(&error))),
            Err(_) => return Err(self.unreachable("the answer does not end".to_owned())),
        };
        serde_json::from_slice(&whole).map_err(|error| malformed(error.to_string()))
    }

    /// Sends a request to the server that answered last, or to the next one where it can't be
    /// reached. A request that may have arrived is not sent twice. Returns the head of an answer of
    /// success, whose body may be a stream. All requests share one connection, where the server
    /// speaks HTTP/2.
    pub async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Body>, ApiError> {
        let answer = self.shared.gate.through(self.ask(&request)).await?;
        self.accepted(&request, answer).await
    }

    async fn ask(&self, request: &Request<Vec<u8>>) -> Result<Response<Body>, ApiError> {
        let servers = self.servers();
        let (mut failure, mut reached) = (None, false);
        for _ in 0..servers.len() {
            let at = self.shared.current.load(Ordering::Relaxed) % servers.len();
            let server = &servers[at];
            let sent = server.client.send(request.clone().map(Body::from));
            let reason;
            (reason, reached) = match timeout(ANSWER, sent).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => (chain(&error), !is_connect(&error)),
                Err(_) => ("no answer".to_owned(), true),
            };
            let next = (at + 1) % servers.len();
            self.shared.current.store(next, Ordering::Relaxed);
            failure = Some(ApiError::Unreachable {
                server: server.url.to_string(),
                reason,
            });
            if reached {
                break;
            }
        }
        // The servers may have certificates of another authority now, or other addresses.
        if !reached {
            self.read_credentials().await;
        }
        Err(failure.expect("invariant: there is a server"))
    }

    async fn accepted(
        &self,
        request: &Request<Vec<u8>>,
        answer: Response<Body>,
    ) -> Result<Response<Body>, ApiError> {
        let code = answer.status();
        if code.is_success() {
            return Ok(answer);
        }
        if code == StatusCode::UNAUTHORIZED {
            self.read_credentials().await;
        }
        let body = http_body_util::Limited::new(answer.into_body(), MESSAGE);
        let text = match timeout(ANSWER, body.collect()).await {
            Ok(Ok(text)) => text.to_bytes(),
            Ok(Err(_)) | Err(_) => Default::default(),
        };
        Err(refused(request, code, &text))
    }

    /// What failed after an answer had begun.
    pub(super) fn unreachable(&self, reason: String) -> ApiError {
        self.shared.gate.close();
        let servers = self.servers();
        let at = self.shared.current.load(Ordering::Relaxed) % servers.len();
        ApiError::Unreachable {
            server: servers[at].url.to_string(),
            reason,
        }
    }

    fn servers(&self) -> Arc<[Server]> {
        let held = self.shared.servers.lock();
        let held = held.unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&held.servers)
    }

    /// Tokens, certificates and authorities are replaced while we run: where no server knows us, or
    /// none is reached, the files are read again.
    async fn read_credentials(&self) {
        let due = {
            let held = self.shared.servers.lock();
            let mut held = held.unwrap_or_else(PoisonError::into_inner);
            let due = held.read.elapsed() >= CREDENTIALS;
            if due {
                held.read = Instant::now();
            }
            due
        };
        if !due {
            return;
        }
        match connection::servers(&self.shared.options).await {
            Ok(servers) => {
                let held = self.shared.servers.lock();
                held.unwrap_or_else(PoisonError::into_inner).servers = servers.into();
                // These clients have no connection yet.
                self.shared.gate.close();
            }
            Err(error) => tracing::warn!(%error, "credentials not read again"),
        }
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let urls: Vec<String> = self.servers().iter().map(|s| s.url.to_string()).collect();
        f.debug_tuple("Cluster").field(&urls).finish()
    }
}

fn without_query(path: &str) -> String {
    path.split('?').next().unwrap_or_default().to_owned()
}

/// A `metav1.Status`, or whatever else the server or something in front of it says.
fn refused(request: &Request<Vec<u8>>, code: StatusCode, text: &[u8]) -> ApiError {
    let status: Value = serde_json::from_slice(text).unwrap_or_default();
    let word = |field: &str| status[field].as_str().map(str::to_owned);
    let otherwise = || String::from_utf8_lossy(text).trim().to_owned();
    ApiError::Refused {
        verb: request.method().to_string(),
        path: request.uri().path().to_owned(),
        code: code.as_u16(),
        reason: word("reason")
            .unwrap_or_else(|| code.canonical_reason().unwrap_or_default().to_owned()),
        message: word("message").unwrap_or_else(otherwise),
    }
}

/// What rustls says of a certificate whose time is not that of this node's clock.
const OTHER_TIME: [&str; 2] = ["certificate expired", "certificate not valid yet"];

/// An error and what caused it, in one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    if OTHER_TIME.iter().any(|words| text.contains(words)) {
        text.push_str("; if the certificate is right, the clock of this node is wrong");
    }
    text
}

/// Whether the request was not even sent.
fn is_connect(error: &kube::Error) -> bool {
    use hyper_util::client::legacy;
    let kube::Error::Service(source) = error else {
        return false;
    };
    source
        .downcast_ref::<legacy::Error>()
        .is_some_and(legacy::Error::is_connect)
}
