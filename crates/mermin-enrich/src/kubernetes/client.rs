//! Requests to the API server.
//!
//! kube brings credentials, their renewal, and TLS. Under it lies a connection pool of our own: over HTTP/2, so that all
//! watches share one connection, with pings, and with a [`Pulse`]. Where the server (or what stands before it) speaks
//! only HTTP/1.1, each watch has its own connection, and a probe takes the place of the pings.

use crate::clock::Clock;
use crate::kubernetes::cluster::{Cluster, KubernetesError};
use crate::kubernetes::failure::{Failure, WireStatus};
use crate::kubernetes::object::Time;
use crate::kubernetes::pulse::{Connector, Pulse};
use futures::{Stream, StreamExt};
use http_body_util::{BodyExt, Limited};
use hyper::header::{ACCEPT, USER_AGENT};
use hyper::{HeaderMap, Request, StatusCode, Version};
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt};
use std::cell::Cell;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use tokio::runtime::Handle;
use tower::{BoxError, ServiceBuilder};

/// How often the server is pinged over HTTP/2, and probed over HTTP/1.1.
const PING: Duration = Duration::from_secs(1);
const PROBE: Duration = Duration::from_secs(2);
/// For a connection, and for the answer to a ping.
const ANSWER: Duration = Duration::from_secs(4);
/// Nothing heard for so long, pings included: the server hangs or the way to it is cut.
pub(crate) const SILENCE: Duration = Duration::from_secs(6);
/// For the head of a response. A server that answers pings may still take long to gather a list.
const HEAD: Duration = Duration::from_secs(30);
/// What the answers of a watch may hold up in the server, in bytes: per watch and together.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// For credentials, which an exec plugin may have to fetch.
const CREDENTIALS: Duration = Duration::from_secs(30);
/// A refusal's text is read so far, in bytes.
const REFUSAL_MAX: usize = 64 << 10;

/// Asks one API server. Used by one thread.
pub(crate) struct Client {
    kube: kube::Client,
    /// Stands for the connections that can't be pinged.
    probe: Pulse,
    /// How many of them there are.
    unpinged: Cell<usize>,
    clock: Clock,
}

/// A response that has begun well.
pub(crate) struct Answer {
    /// What comes.
    pub(crate) body: Pin<Box<dyn Stream<Item = Result<hyper::body::Bytes, kube::Error>>>>,
    /// Whether the server lives.
    pub(crate) pulse: Pulse,
    /// The last beat that was looked at.
    pub(crate) seen: Time,
    /// Whether [`Answer::pulse`] is the probe's.
    pub(crate) probed: bool,
}

impl Client {
    /// Must be called in the context of the runtime.
    pub(crate) fn new(cluster: &Cluster, clock: Clock) -> Result<Self, KubernetesError> {
        Self::within(CREDENTIALS, cluster, clock)
    }

    /// The same; credentials are waited for for `limit`.
    fn within(limit: Duration, cluster: &Cluster, clock: Clock) -> Result<Self, KubernetesError> {
        let config = &cluster.config;
        let fail = |error: &dyn Error| {
            let reason = error.to_string();
            KubernetesError::Credentials { server: cluster.server(), reason }
        };
        let asked = config.clone();
        let ask = move || Ok::<_, kube::Error>((asked.rustls_client_config()?, asked.auth_layer()?));
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}"));
        let answer = in_time(limit, ask).map_err(KubernetesError::Thread)?.ok_or_else(|| fail(&late()))?;
        let (tls, auth) = answer.map_err(|error| fail(&error))?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        let mut https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        if let Some(name) = &config.tls_server_name {
            let name = name.clone().try_into().map_err(|error| fail(&error))?;
            https = https.with_server_name_resolver(FixedServerNameResolver::new(name));
        }
        let https = https.enable_all_versions().wrap_connector(tcp);
        let pool = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http2_keep_alive_interval(PING)
            .http2_keep_alive_timeout(ANSWER)
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            .build::<_, Body>(Connector::new(https, clock, ANSWER));
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(auth)
            .layer(config.extra_headers_layer().map_err(|error| fail(&error))?)
            .map_err(BoxError::from)
            .service(pool);
        let kube = kube::Client::new(service, "default");
        Ok(Self { kube, probe: Pulse::new(clock), unpinged: Cell::new(0), clock })
    }

    /// Asks for `path`, with its query; `streaming`: that a refusal may mean the form of the question.
    pub(crate) async fn get(&self, path: &str, accept: &str, streaming: bool) -> Result<Answer, Failure> {
        let request = Request::get(path)
            .header(ACCEPT, accept)
            .header(USER_AGENT, concat!("mermin/", env!("CARGO_PKG_VERSION")))
            .body(Body::empty())
            .map_err(|error| Failure::broken(&error))?;
        let sent = self.kube.send(request);
        let response = tokio::time::timeout(HEAD, sent).await.map_err(|_| Failure::Silent(HEAD))?;
        let response = response.map_err(|error| Failure::broken(&error))?;
        let (head, body) = response.into_parts();
        if !head.status.is_success() {
            return Err(refusal(head.status, &head.headers, body).await.failure(streaming));
        }
        let probed = head.version < Version::HTTP_2;
        let pulse = head.extensions.get::<Pulse>().filter(|_| !probed).unwrap_or(&self.probe).clone();
        Ok(Answer { body: Box::pin(body.into_data_stream().map(|part| part)), pulse, seen: 0, probed })
    }

    /// Notes that a watch runs whose connection can't be pinged, as long as the result lives.
    pub(crate) fn unpinged(&self) -> Unpinged<'_> {
        if self.unpinged.get() == 0 {
            self.probe.beat_at(self.clock.now());
        }
        self.unpinged.set(self.unpinged.get() + 1);
        Unpinged(&self.unpinged)
    }

    /// Probes the server while there are such watches. Never ends.
    pub(crate) async fn probe(&self) {
        loop {
            tokio::time::sleep(PROBE).await;
            if self.unpinged.get() == 0 {
                continue;
            }
            let sent = self.clock.now();
            // Also a refusal will do, but not the word of a proxy that the server is gone; everybody may ask for this.
            let request = Request::get("/livez").body(Body::empty()).expect("the path is fixed");
            if let Ok(Ok(answer)) = tokio::time::timeout(ANSWER, self.kube.send(request)).await
                && !answer.status().is_server_error()
            {
                self.probe.beat_at(sent);
            }
        }
    }
}

/// Does `work` on a thread of its own, which is left alone where it takes longer than `limit`: then there is no result.
fn in_time<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Option<T>> {
    let (tell, told) = mpsc::sync_channel(1);
    let context = Handle::current();
    let work = move || {
        let _context = context.enter();
        // Nobody waits any more if it fails.
        let _ = tell.send(work());
    };
    thread::Builder::new().name("credentials".to_owned()).spawn(work)?;
    Ok(told.recv_timeout(limit).ok())
}

/// A watch that relies on the probe.
pub(crate) struct Unpinged<'c>(&'c Cell<usize>);

impl Drop for Unpinged<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What a refusal says, as far as it comes soon.
async fn refusal(status: StatusCode, headers: &HeaderMap, body: Body) -> WireStatus {
    let body = tokio::time::timeout(ANSWER, Limited::new(body, REFUSAL_MAX).collect()).await;
    let body = body.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
    WireStatus::of_response(status, headers, &body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::config::Kubeconfig;
    use tokio::runtime::Builder;

    #[test]
    fn a_plugin_that_hangs_is_not_waited_for() {
        let kubeconfig = r#"
clusters: [{name: c, cluster: {server: "https://192.0.2.1"}}]
users:
- name: u
  user:
    exec: {apiVersion: client.authentication.k8s.io/v1, command: sleep, args: ["5"], interactiveMode: Never}
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
"#;
        let config = kube::Config::try_from(Kubeconfig::from_yaml(kubeconfig).unwrap()).unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let _context = runtime.enter();
        let limit = Duration::from_millis(100);
        let error = Client::within(limit, &Cluster { config }, Clock::new()).map(drop).unwrap_err();
        assert!(error.to_string().ends_with("can't be used: no answer within 100ms"), "{error}");
    }
}
