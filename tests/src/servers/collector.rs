//! The real OpenTelemetry Collector: takes all three signals by gRPC and by HTTP and writes what it took to a file.
//!
//! An item that it has acknowledged is in the file, also after `kill -9`: the file exporter buffers unless its files
//! rotate, so here they do, at a size that no test reaches. What it took but could not acknowledge before it was
//! killed comes again; a test that kills it compares by the records' own identity.

use super::OTELCOL;
use super::certificates::{Authority, Pair};
use super::folder::Folder;
use super::place::Place;
use super::process::Process;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::process::Signal;
use rustls::ClientConfig;
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How the collector is to be.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Where it runs.
    pub place: Place,
    /// Speaks TLS; with a client's certificate asked for, or without.
    pub tls: Option<Tls>,
    /// Wants this bearer token.
    pub token: Option<String>,
    /// Wants this user and password (HTTP basic authentication).
    pub basic: Option<(String, String)>,
    /// Refuses everything as "out of memory": 503, or UNAVAILABLE. It is the collector's own memory limiter.
    pub refuses: bool,
}

/// TLS, or mutual TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// The server shows a certificate.
    Server,
    /// The client too.
    Mutual,
}

/// A running collector.
#[derive(Debug)]
pub struct Collector {
    process: Process,
    grpc: SocketAddr,
    http: SocketAddr,
    settings: Settings,
    authority: Authority,
    client: Pair,
    folder: Folder,
}

/// What the collector has written: for each signal its requests as OTLP JSON, in the order that they came.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// Objects with `resourceSpans`.
    pub traces: Vec<Value>,
    /// Objects with `resourceLogs`.
    pub logs: Vec<Value>,
    /// Objects with `resourceMetrics`.
    pub metrics: Vec<Value>,
}

impl Collector {
    /// Whether its program is there.
    ///
    /// # Errors
    /// What is missing.
    pub fn installed() -> Result<(), String> {
        crate::need::tool("setpriv")?;
        OTELCOL.installed()
    }

    /// Starts one that takes everything.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(Settings::default())
    }

    /// Starts one.
    ///
    /// # Panics
    /// When it doesn't come up.
    #[must_use]
    pub fn start_with(settings: Settings) -> Self {
        let (folder, authority) = (Folder::new(), Authority::new());
        let server = authority.server("collector", &[]);
        let client = authority.client("agent", &[]);
        let (grpc, http) = (settings.place.free_address(), settings.place.free_address());
        let config = config(&settings, grpc, http, &server, authority.certificate());
        folder.write("config.yaml", config.to_string());
        let process = launch(&settings, grpc, &folder);
        Self { process, grpc, http, settings, authority, client, folder }
    }

    /// For `export.otlp.endpoint` with gRPC: `http://127.0.0.1:PORT`, or `https://…`.
    #[must_use]
    pub fn grpc_endpoint(&self) -> String {
        format!("{}://{}", self.scheme(), self.grpc)
    }

    /// For `export.otlp.endpoint` with HTTP, without `/v1/traces`.
    #[must_use]
    pub fn http_endpoint(&self) -> String {
        format!("{}://{}", self.scheme(), self.http)
    }

    fn scheme(&self) -> &'static str {
        if self.settings.tls.is_some() { "https" } else { "http" }
    }

    /// The file with the authority that signed its certificate.
    #[must_use]
    pub fn authority(&self) -> &Path {
        self.authority.certificate()
    }

    /// What a client may show to it.
    #[must_use]
    pub fn client_pair(&self) -> &Pair {
        &self.client
    }

    /// A TLS client that trusts it, and shows a certificate or doesn't.
    #[must_use]
    pub fn trusting(&self, shows: bool) -> Arc<ClientConfig> {
        self.authority.trusting(shows.then_some(&self.client))
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Ends it by SIGKILL. What it has acknowledged is in its file.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends it by SIGTERM, as a roll-out does; whether it ended well.
    pub fn stop(&mut self) -> bool {
        self.process.terminate()
    }

    /// Starts it again at its addresses; it goes on in its file.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = launch(&self.settings, self.grpc, &self.folder);
    }

    /// Stops it in its tracks: connections stay open, nothing answers.
    pub fn hang(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Lets a stopped one go on.
    pub fn resume(&self) {
        self.process.signal(Signal::CONT);
    }

    /// The file that it writes.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("received.json")
    }

    /// What it has written so far, a line each. Left out is a part that it is about to write, and one that it was writing when it was
    /// killed: what it wrote next stands behind that, in its line.
    ///
    /// # Panics
    /// When something is no OTLP JSON.
    #[must_use]
    pub fn received(&self) -> Received {
        let text = std::fs::read(self.file()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut received = Received::default();
        for line in text.lines() {
            let starts = ["{\"resourceSpans\":", "{\"resourceLogs\":", "{\"resourceMetrics\":"];
            let last = starts.iter().filter_map(|start| line.rfind(start)).max().unwrap_or_default();
            let object: Value = match serde_json::from_str(&line[last..]) {
                Ok(object) => object,
                Err(error) if error.is_eof() => continue,
                Err(error) => panic!("{}: {error}", self.file().display()),
            };
            let list = match object.as_object().and_then(|object| object.keys().next()).map(String::as_str) {
                Some("resourceSpans") => &mut received.traces,
                Some("resourceLogs") => &mut received.logs,
                Some("resourceMetrics") => &mut received.metrics,
                other => panic!("{other:?} is no signal"),
            };
            list.push(object);
        }
        received
    }
}

impl Received {
    /// All spans.
    #[must_use]
    pub fn spans(&self) -> Vec<&Value> {
        items(&self.traces, "resourceSpans", "scopeSpans", "spans")
    }

    /// All log records.
    #[must_use]
    pub fn log_records(&self) -> Vec<&Value> {
        items(&self.logs, "resourceLogs", "scopeLogs", "logRecords")
    }

    /// All metrics, each with its data points.
    #[must_use]
    pub fn metric_list(&self) -> Vec<&Value> {
        items(&self.metrics, "resourceMetrics", "scopeMetrics", "metrics")
    }
}

/// An attribute of a span, a log record or a data point: text as it is, numbers as numbers, lists as lists.
#[must_use]
pub fn attribute(item: &Value, key: &str) -> Option<Value> {
    let all = item["attributes"].as_array()?;
    let found = all.iter().find(|attribute| attribute["key"] == key)?;
    Some(plain(&found["value"]))
}

/// The sum of a whole-numbered attribute over items; absent ones count as nothing.
#[must_use]
pub fn sum(items: &[&Value], key: &str) -> u64 {
    items.iter().filter_map(|item| attribute(item, key)?.as_u64()).sum()
}

/// OTLP's JSON writes 64-bit integers as text.
fn plain(value: &Value) -> Value {
    let Some((kind, inner)) = value.as_object().and_then(|object| object.iter().next()) else {
        return Value::Null;
    };
    match kind.as_str() {
        "intValue" => {
            inner.as_str().and_then(|text| text.parse::<i64>().ok()).map_or(inner.clone(), Value::from)
        }
        "arrayValue" => inner["values"].as_array().into_iter().flatten().map(plain).collect(),
        _ => inner.clone(),
    }
}

fn items<'a>(requests: &'a [Value], resources: &str, scopes: &str, list: &str) -> Vec<&'a Value> {
    let inner = |value: &'a Value, key: &str| value[key].as_array().into_iter().flatten();
    requests
        .iter()
        .flat_map(|request| inner(request, resources))
        .flat_map(|resource| inner(resource, scopes))
        .flat_map(|scope| inner(scope, list))
        .collect()
}

fn launch(settings: &Settings, grpc: SocketAddr, folder: &Folder) -> Process {
    let program = OTELCOL.program("otelcol").unwrap_or_else(|missing| panic!("{missing}"));
    let config = format!("--config=file:{}", folder.path().join("config.yaml").display());
    let mut process = Process::start(&settings.place, &program, &[config], folder.path());
    process.wait_until(|| settings.place.inside(|| TcpStream::connect(grpc).is_ok()));
    process
}

/// JSON is YAML.
fn config(settings: &Settings, grpc: SocketAddr, http: SocketAddr, server: &Pair, authority: &Path) -> Value {
    let receiver = |address: SocketAddr| {
        let mut receiver = json!({ "endpoint": address });
        if let Some(tls) = settings.tls {
            receiver["tls"] = json!({ "cert_file": server.certificate, "key_file": server.key });
            if tls == Tls::Mutual {
                receiver["tls"]["client_ca_file"] = json!(authority);
            }
        }
        if settings.token.is_some() || settings.basic.is_some() {
            receiver["auth"] = json!({ "authenticator": "bearertokenauth" });
        }
        receiver
    };
    let receivers = json!({ "otlp": { "protocols": { "grpc": receiver(grpc), "http": receiver(http) } } });
    let mut extensions = json!({});
    if let Some(token) = &settings.token {
        extensions["bearertokenauth"] = json!({ "token": token });
    } else if let Some((user, password)) = &settings.basic {
        // Its extension for basic authentication is not among the modules that proxies serve; this one compares the whole
        // header, and may be told the scheme.
        let token = BASE64_STANDARD.encode(format!("{user}:{password}"));
        extensions["bearertokenauth"] = json!({ "scheme": "Basic", "token": token });
    }
    let mut pipeline = json!({ "receivers": ["otlp"], "exporters": ["file"] });
    let mut processors = json!({});
    if settings.refuses {
        processors["memory_limiter"] = json!({ "check_interval": "100ms", "limit_mib": 1 });
        pipeline["processors"] = json!(["memory_limiter"]);
    }
    let names: Vec<&String> = extensions.as_object().into_iter().flat_map(|object| object.keys()).collect();
    let service = json!({
        // A port of its own otherwise.
        "telemetry": { "metrics": { "level": "none" } },
        "extensions": names,
        "pipelines": { "traces": pipeline, "logs": pipeline, "metrics": pipeline },
    });
    json!({
        "extensions": extensions,
        "receivers": receivers,
        "processors": processors,
        "exporters": { "file": { "path": "received.json", "rotation": { "max_megabytes": 1_000_000 } } },
        "service": service,
    })
}
