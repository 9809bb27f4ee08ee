//! Kubeconfig or service account -> an HTTP client of one API server.
//!
//! The client speaks HTTP/2 where the server does, so that all watches of a node are streams of one
//! connection, whose pings notice a server that is gone without a word.

use hyper::Uri;
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{ClientBuilder, ConfigExt};
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use std::path::PathBuf;
use std::time::Duration;
use tower::{BoxError, ServiceBuilder};

/// Patience with a server that does not take a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Silence after which a connection is asked for a sign of life, and the time it has to give one.
const PING: Duration = Duration::from_secs(15);
/// Octets of one answer that are on their way before they were asked for.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 2 << 20;

/// Where the API servers are, and who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterOptions {
    /// Kubeconfig files, which are merged as `kubectl` merges them; with none, the service account
    /// of the pod.
    pub kubeconfig: Vec<PathBuf>,
    /// URLs of API servers, which take the place of the one that the kubeconfig or the pod's
    /// environment names. While one does not answer, the next is asked.
    pub servers: Vec<String>,
    /// The agent's own namespace, where the Secrets stand that BGP objects name.
    pub namespace: String,
}

/// Why there is no way to the API servers.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A kubeconfig can't be used.
    #[error("kubeconfig {path}: {source}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<KubeconfigError>,
    },
    /// There is no kubeconfig, and this is not a pod with a service account.
    #[error("no kubeconfig is named, and there is no service account: {source}")]
    ServiceAccount {
        /// What is missing.
        source: Box<InClusterError>,
    },
    /// The address of an API server is not one.
    #[error("API server {url:?}: a URL such as \"https://10.0.0.1:6443\" is needed")]
    Url {
        /// What was given.
        url: String,
    },
    /// The kubeconfig asks for a proxy.
    #[error("API server behind proxy {proxy}: proxies are not supported; name the server itself")]
    Proxy {
        /// Its URL.
        proxy: Uri,
    },
    /// Certificates, keys or tokens can't be used.
    #[error("API server {server}: {source}")]
    Credentials {
        /// Its URL.
        server: Uri,
        /// What is wrong.
        source: BoxError,
    },
    /// The thread of the client does not start.
    #[error("thread of the Kubernetes client: {0}")]
    Thread(#[source] std::io::Error),
}

/// One API server.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) url: Uri,
    pub(super) client: Client,
}

/// A client of each server, in the order in which they are asked. Reads files, says nothing to a
/// server yet. Belongs on the runtime that drives the connections.
pub(super) async fn servers(options: &ClusterOptions) -> Result<Vec<Server>, ConnectError> {
    let config = config(options).await?;
    if let Some(proxy) = config.proxy_url {
        return Err(ConnectError::Proxy { proxy });
    }
    let mut urls = Vec::new();
    for url in &options.servers {
        let parsed = url.trim_end_matches('/').parse::<Uri>().ok();
        let usable = parsed.filter(|url| {
            matches!(url.scheme_str(), Some("https" | "http")) && url.host().is_some()
        });
        urls.push(usable.ok_or_else(|| ConnectError::Url { url: url.clone() })?);
    }
    if urls.is_empty() {
        urls.push(config.cluster_url.clone());
    }
    let server = |url: Uri| {
        let mut config = config.clone();
        config.cluster_url = url.clone();
        match client(&config) {
            Ok(client) => Ok(Server { url, client }),
            Err(source) => Err(ConnectError::Credentials {
                server: url,
                source,
            }),
        }
    };
    urls.into_iter().map(server).collect()
}

async fn config(options: &ClusterOptions) -> Result<Config, ConnectError> {
    let Some(last) = options.kubeconfig.last() else {
        return Config::incluster().map_err(|source| ConnectError::ServiceAccount {
            source: Box::new(source),
        });
    };
    let bad = |path: &PathBuf| {
        let path = path.clone();
        move |source| ConnectError::Kubeconfig {
            path,
            source: Box::new(source),
        }
    };
    let mut merged = Kubeconfig::default();
    for path in &options.kubeconfig {
        let read = Kubeconfig::read_from(path).and_then(|next| merged.merge(next));
        merged = read.map_err(bad(path))?;
    }
    Config::from_custom_kubeconfig(merged, &KubeConfigOptions::default())
        .await
        .map_err(bad(last))
}

fn client(config: &Config) -> Result<Client, BoxError> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_keepalive(Some(PING));
    let builder = HttpsConnectorBuilder::new()
        .with_tls_config(config.rustls_client_config()?)
        .https_or_http();
    let builder = match &config.tls_server_name {
        Some(name) => {
            let name = name.clone().try_into()?;
            builder.with_server_name_resolver(FixedServerNameResolver::new(name))
        }
        None => builder,
    };
    let connector = builder
        .enable_http1()
        .enable_http2()
        .wrap_connector(connector);
    let http = legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(PING)
        .http2_keep_alive_timeout(PING)
        .http2_keep_alive_while_idle(true)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(config.extra_headers_layer()?)
        .option_layer(config.auth_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, &*config.default_namespace).build())
}
