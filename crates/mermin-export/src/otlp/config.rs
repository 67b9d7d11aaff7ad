//! `export.otlp` of the configuration.

use super::secret::Secret;
use crate::buffer::BufferKind;
use mermin_flow::{ByteSize, Interval};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Records to an OpenTelemetry collector. Keys without a default take theirs from OpenTelemetry's own variables
/// (`OTEL_EXPORTER_OTLP_…`); what is written here, or set by `MERMIN_…` or `--set`, goes before those.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OtlpConfig {
    /// `false` switches this output off.
    pub enabled: bool,
    /// Where the collector listens: `http://host:port`, or `https://host:port` for TLS. With `protocol: http` the
    /// signal's path (`/v1/traces` …) is added. Without it: `OTEL_EXPORTER_OTLP_ENDPOINT`, else port 4317 (grpc) or
    /// 4318 (http) of this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "http://localhost:4317")]
    pub endpoint: Option<String>,
    /// How requests are sent. Without it: `OTEL_EXPORTER_OTLP_PROTOCOL`, else `grpc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<OtlpProtocol>,
    /// What is sent, each as an output of its own: a span per record, a log record per record, sums of records.
    pub signals: Vec<OtlpSignal>,
    /// Of requests. Without it: `OTEL_EXPORTER_OTLP_COMPRESSION`, else `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<OtlpCompression>,
    /// Headers of each request, names and values; they are never shown. Added to those of
    /// `OTEL_EXPORTER_OTLP_HEADERS`. `authorization` excludes a credential from a file.
    pub headers: BTreeMap<String, Secret>,
    /// How long a request may take until it counts as unanswered. Without it: `OTEL_EXPORTER_OTLP_TIMEOUT`, else 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Interval>,
    /// Certificates.
    pub tls: OtlpTls,
    /// A file that holds a bearer token; read again when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer_token_file: Option<PathBuf>,
    /// Name and password of HTTP's basic authentication.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuth>,
    /// Attributes of the resource, beside those that Mermin finds out itself and those of `OTEL_RESOURCE_ATTRIBUTES`.
    pub resource: BTreeMap<String, String>,
    /// Requests that are under way at a time. While none is answered, records wait in the queue.
    #[schemars(range(min = 1, max = 64))]
    pub requests_in_flight: NonZeroUsize,
    /// `disk`: records wait in `export.disk_buffer`, while the collector doesn't take them and over a restart. The signal
    /// `metrics` sums up in memory all the same.
    pub buffer: BufferKind,
    /// How records are gathered into requests.
    pub batch: OtlpBatch,
    /// The signal `metrics`.
    pub metrics: OtlpMetrics,
    /// Whether the agent's own metrics are sent too, whatever the signals: those of `docs/reference/metrics.md`, every
    /// `metrics.interval`.
    pub agent_metrics: bool,
}

impl Default for OtlpConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            endpoint: None,
            protocol: None,
            signals: vec![OtlpSignal::Traces],
            compression: None,
            headers: BTreeMap::new(),
            timeout: None,
            tls: OtlpTls::default(),
            bearer_token_file: None,
            basic_auth: None,
            resource: BTreeMap::new(),
            requests_in_flight: count(4),
            buffer: BufferKind::default(),
            batch: OtlpBatch::default(),
            metrics: OtlpMetrics::default(),
            agent_metrics: false,
        }
    }
}

const fn count(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).expect("the default is not zero")
}

/// How requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OtlpProtocol {
    /// gRPC over HTTP/2.
    Grpc,
    /// Protobuf over HTTP/1.1, or HTTP/2 where TLS negotiates it.
    Http,
}

/// A kind of telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OtlpSignal {
    /// A span per record.
    Traces,
    /// An event `flow` per record.
    Logs,
    /// Sums over records, by chosen attributes.
    Metrics,
}

impl OtlpSignal {
    /// As in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Logs => "logs",
            Self::Metrics => "metrics",
        }
    }
}

/// Of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OtlpCompression {
    /// As they are.
    None,
    /// Every collector takes it.
    Gzip,
    /// Less work for the same size; the OpenTelemetry Collector takes it, others may not.
    Zstd,
}

impl OtlpCompression {
    /// As in the configuration and in headers; `None` where there is none.
    #[must_use]
    pub const fn encoding(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }
}

/// Certificates, PEM. The files are read again when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OtlpTls {
    /// Certificates of the authorities that the collector's certificate is checked against, instead of the host's
    /// own. Without it: `OTEL_EXPORTER_OTLP_CERTIFICATE`, else the host's (which `SSL_CERT_FILE` can name).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The certificate that Mermin shows. Without it: `OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE`, else none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its key. Without it: `OTEL_EXPORTER_OTLP_CLIENT_KEY`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

/// Name and password of HTTP's basic authentication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BasicAuth {
    /// The name.
    pub username: String,
    /// A file that holds the password; read again when it changes.
    pub password_file: PathBuf,
}

/// How records are gathered into requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OtlpBatch {
    /// The most records in a request. How many there are adapts: more while answers come quickly, fewer when one
    /// takes 3 s or more, or when the collector finds a request too large.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub records: NonZeroUsize,
    /// The most bytes in a request, before compression, from 1B to 256MiB. Many collectors take 4 MiB and no more.
    pub bytes: ByteSize,
    /// How long a record waits for others to come along.
    pub delay: Interval,
}

impl Default for OtlpBatch {
    fn default() -> Self {
        Self {
            records: count(8_192),
            bytes: ByteSize(2 << 20),
            delay: Interval(std::time::Duration::from_millis(500)),
        }
    }
}

/// The signal `metrics`: sums of packets, bytes, records and ended flows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OtlpMetrics {
    /// The attributes that tell sums apart: names of the record reference. Addresses and ports are possible, but
    /// soon reach the limit.
    pub attributes: Vec<String>,
    /// The most combinations of values. All further ones are counted together, under `otel.metric.overflow`.
    #[schemars(range(min = 2, max = 1_000_000))]
    pub cardinality_limit: NonZeroUsize,
    /// What the sums are sums of. Without it: `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`, else `cumulative`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temporality: Option<OtlpTemporality>,
    /// How often they are sent. Without it: `OTEL_METRIC_EXPORT_INTERVAL`, else 1m.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
}

impl Default for OtlpMetrics {
    fn default() -> Self {
        let end = [
            "name",
            "k8s.namespace.name",
            "k8s.deployment.name",
            "k8s.statefulset.name",
            "k8s.daemonset.name",
            "k8s.cronjob.name",
        ];
        let ends = ["source", "destination"];
        let ends = ends.iter().flat_map(|side| end.iter().map(move |name| format!("{side}.{name}")));
        let others = ["network.transport", "flow.direction"].map(str::to_owned);
        Self {
            attributes: ends.chain(others).collect(),
            cardinality_limit: count(2_000),
            temporality: None,
            interval: None,
        }
    }
}

/// What sums are sums of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OtlpTemporality {
    /// Everything since the start: a request that is lost or comes twice changes nothing.
    Cumulative,
    /// What came since the request before.
    Delta,
}
