//! What is used: the configuration, then OpenTelemetry's variables, then defaults; checked, before anything is sent.

use super::config::{OtlpCompression, OtlpConfig, OtlpProtocol, OtlpSignal, OtlpTemporality};
use super::environment::{Environment, pairs};
use super::transport::Credentials;
use crate::error::ExportError;
use crate::secure::TlsFiles;
use http::{HeaderName, HeaderValue, Uri};
use mermin_flow::ByteSize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// How one signal is sent.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) signal: OtlpSignal,
    /// Where requests go: the whole URL, with the path of the call.
    pub(crate) url: Uri,
    /// As users know it.
    pub(crate) endpoint: String,
    pub(crate) protocol: OtlpProtocol,
    pub(crate) compression: OtlpCompression,
    pub(crate) timeout: Duration,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) tls: TlsFiles,
    pub(crate) credentials: Credentials,
}

/// OpenTelemetry's variables for metrics, which have no form for other signals.
const TEMPORALITY: &str = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
const INTERVAL: &str = "OTEL_METRIC_EXPORT_INTERVAL";

/// What `batch.bytes` may be: from less than a record to more than any collector takes.
const BATCH_BYTES: RangeInclusive<u64> = 1..=256 << 20;

/// Headers that belong to the protocol itself.
const RESERVED: [&str; 9] = [
    "content-type",
    "content-length",
    "content-encoding",
    "grpc-encoding",
    "host",
    "te",
    "connection",
    "transfer-encoding",
    "user-agent",
];

/// An error at a key of the configuration, or at a variable.
pub(crate) fn problem(
    place: impl Into<String>,
    what: impl Into<String>,
    help: impl Into<String>,
) -> ExportError {
    ExportError::Setting { place: place.into(), what: what.into(), help: help.into() }
}

impl Settings {
    /// Of `signal`.
    pub(crate) fn of(
        signal: OtlpSignal,
        config: &OtlpConfig,
        environment: &Environment,
    ) -> Result<Self, ExportError> {
        let protocol = word(config.protocol, signal, environment, "PROTOCOL", &PROTOCOLS)?;
        let protocol = protocol.unwrap_or(OtlpProtocol::Grpc);
        let compression = word(config.compression, signal, environment, "COMPRESSION", &COMPRESSIONS)?;
        bounded(config)?;
        let credentials = Credentials::of(config)?;
        let mut headers = headers(signal, config, environment)?;
        if !matches!(credentials, Credentials::None) {
            // At most a variable's: the configuration has one or the other.
            headers.retain(|(name, _)| *name != http::header::AUTHORIZATION);
        }
        let (endpoint, url) = endpoint(signal, protocol, config, environment)?;
        Ok(Self {
            signal,
            url,
            endpoint,
            protocol,
            compression: compression.unwrap_or(OtlpCompression::None),
            timeout: timeout(signal, config, environment)?,
            headers,
            tls: tls(signal, config, environment)?,
            credentials,
        })
    }

    /// For people, without anything secret.
    pub(crate) fn describe(&self) -> String {
        let mut parts = vec![
            self.signal.name().to_owned(),
            match self.protocol {
                OtlpProtocol::Grpc => "grpc".to_owned(),
                OtlpProtocol::Http => "http".to_owned(),
            },
        ];
        parts.push(self.endpoint.clone());
        parts.extend(self.compression.encoding().map(str::to_owned));
        parts.extend(self.tls.describe(self.is_secure()));
        parts.extend(self.credentials.describe());
        if !self.headers.is_empty() {
            let names: Vec<_> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
            parts.push(format!("headers {}", names.join(" ")));
        }
        parts.join(", ")
    }

    /// Whether it goes over TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.url.scheme() == Some(&http::uri::Scheme::HTTPS)
    }
}

const PROTOCOLS: [(&str, OtlpProtocol); 2] =
    [("grpc", OtlpProtocol::Grpc), ("http/protobuf", OtlpProtocol::Http)];

const COMPRESSIONS: [(&str, OtlpCompression); 3] =
    [("none", OtlpCompression::None), ("gzip", OtlpCompression::Gzip), ("zstd", OtlpCompression::Zstd)];

/// What the configuration says, else the word in a variable.
fn word<T: Copy>(
    configured: Option<T>,
    signal: OtlpSignal,
    environment: &Environment,
    setting: &str,
    words: &[(&str, T)],
) -> Result<Option<T>, ExportError> {
    let (None, Some((name, text))) = (configured, environment.setting(signal, setting)) else {
        return Ok(configured);
    };
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    let all: Vec<_> = words.iter().map(|(word, _)| *word).collect();
    found.map(Some).ok_or_else(|| {
        problem(&name, format!("{name} can't be `{text}`"), format!("set it to one of {}", all.join(", ")))
    })
}

/// The endpoint as users know it, and the URL of the call.
fn endpoint(
    signal: OtlpSignal,
    protocol: OtlpProtocol,
    config: &OtlpConfig,
    environment: &Environment,
) -> Result<(String, Uri), ExportError> {
    let port = if protocol == OtlpProtocol::Grpc { 4317 } else { 4318 };
    let (place, text, whole) = match (&config.endpoint, environment.setting(signal, "ENDPOINT")) {
        (Some(text), _) => ("export.otlp.endpoint".to_owned(), text.clone(), false),
        // A signal's own variable holds the whole URL.
        (None, Some((name, text))) => (name, text.to_owned(), environment.has_own(signal, "ENDPOINT")),
        (None, None) => (String::new(), format!("http://localhost:{port}"), false),
    };
    let help = format!("write http://host:{port}, or https://host:{port} for TLS");
    let wrong = |why: &str| problem(&place, format!("`{}` is no endpoint: {why}", shown(&text)), &help);
    let uri = Uri::from_str(&text).map_err(|error| wrong(&error.to_string()))?;
    let scheme = match uri.scheme_str() {
        Some(scheme @ ("http" | "https")) => scheme,
        Some(_) => return Err(wrong("its scheme is neither http nor https")),
        None => match (protocol, insecure(signal, environment)?) {
            (OtlpProtocol::Grpc, Some(true)) => "http",
            (OtlpProtocol::Grpc, Some(false)) => "https",
            _ => return Err(wrong("it has no scheme")),
        },
    };
    let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
    if authority.as_str().contains('@') {
        let help = "name them in export.otlp.basic_auth, so that nothing shows them";
        return Err(problem(&place, "the endpoint holds a name or password".to_owned(), help));
    }
    if uri.query().is_some() {
        return Err(wrong("it has a query"));
    }
    let base = uri.path().trim_end_matches('/');
    let path = match protocol {
        OtlpProtocol::Grpc if !base.is_empty() => return Err(wrong("with grpc it has no path")),
        OtlpProtocol::Grpc => service(signal).to_owned(),
        OtlpProtocol::Http if whole => uri.path().to_owned(),
        OtlpProtocol::Http => format!("{base}/v1/{}", signal.name()),
    };
    let url = Uri::builder().scheme(scheme).authority(authority.clone()).path_and_query(path);
    let url = url.build().map_err(|error| wrong(&error.to_string()))?;
    let endpoint = if whole { url.to_string() } else { format!("{scheme}://{authority}{base}") };
    Ok((endpoint, url))
}

/// A URL in a message: without what may be a password or a key.
fn shown(text: &str) -> String {
    let (rest, query) = text.split_once('?').map_or((text, ""), |(rest, _)| (rest, "?…"));
    match rest.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}{query}"),
        None => format!("{rest}{query}"),
    }
}

/// What `OTEL_EXPORTER_OTLP_INSECURE` says of a gRPC endpoint without a scheme; `None` where it says nothing.
fn insecure(signal: OtlpSignal, environment: &Environment) -> Result<Option<bool>, ExportError> {
    let Some((name, text)) = environment.setting(signal, "INSECURE") else { return Ok(None) };
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(Some(true)),
        "false" => Ok(Some(false)),
        _ => Err(problem(&name, format!("{name} can't be `{text}`"), "set it to true or false")),
    }
}

/// The path of the call (opentelemetry-proto, `collector/*/v1/*_service.proto`).
const fn service(signal: OtlpSignal) -> &'static str {
    match signal {
        OtlpSignal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        OtlpSignal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        OtlpSignal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    }
}

fn timeout(
    signal: OtlpSignal,
    config: &OtlpConfig,
    environment: &Environment,
) -> Result<Duration, ExportError> {
    if let Some(timeout) = config.timeout {
        return Ok(timeout.0);
    }
    let Some((name, text)) = environment.setting(signal, "TIMEOUT") else {
        return Ok(Duration::from_secs(10));
    };
    match text.parse() {
        Ok(millis @ 1..) => Ok(Duration::from_millis(millis)),
        _ => Err(problem(&name, format!("{name} can't be `{text}`"), "set it to a number of milliseconds")),
    }
}

/// Requests of any size can't be held, and gRPC has four bytes for theirs.
fn bounded(config: &OtlpConfig) -> Result<(), ExportError> {
    let bytes = config.batch.bytes;
    if BATCH_BYTES.contains(&bytes.0) {
        return Ok(());
    }
    let (least, most) = (ByteSize(*BATCH_BYTES.start()), ByteSize(*BATCH_BYTES.end()));
    let what = format!("`{bytes}` is no size for a request");
    Err(problem("export.otlp.batch.bytes", what, format!("set it from {least} to {most}")))
}

/// How sums of records are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) temporality: OtlpTemporality,
    pub(crate) interval: Duration,
}

impl Sums {
    /// As configured, else by variables, else by default.
    pub(crate) fn of(config: &OtlpConfig, environment: &Environment) -> Result<Self, ExportError> {
        let (temporality, interval) = (config.metrics.temporality, config.metrics.interval);
        let wrong = |name: &str, text: &str, help: &str| {
            Err(problem(name, format!("{name} can't be `{text}`"), help))
        };
        let temporality = match (temporality, environment.get(TEMPORALITY)) {
            (Some(temporality), _) => temporality,
            (None, None) => OtlpTemporality::Cumulative,
            (None, Some(text)) => match text.to_ascii_lowercase().as_str() {
                "cumulative" => OtlpTemporality::Cumulative,
                // The second means it for counters, and these are nothing else.
                "delta" | "lowmemory" => OtlpTemporality::Delta,
                _ => return wrong(TEMPORALITY, text, "set it to cumulative, delta or lowmemory"),
            },
        };
        let interval = match (interval, environment.get(INTERVAL)) {
            (Some(interval), _) => interval.0,
            (None, None) => Duration::from_secs(60),
            (None, Some(text)) => match text.parse() {
                Ok(millis @ 1..) => Duration::from_millis(millis),
                _ => return wrong(INTERVAL, text, "set it to a number of milliseconds"),
            },
        };
        Ok(Self { temporality, interval })
    }
}

/// Those of the variable, then the configuration's, which replace equal ones.
fn headers(
    signal: OtlpSignal,
    config: &OtlpConfig,
    environment: &Environment,
) -> Result<Vec<(HeaderName, HeaderValue)>, ExportError> {
    let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
    let mut add = |place: &str, name: &str, value: &str| {
        let help = "a name is letters, digits and -, a value is one line of plain text";
        // The value is secret: what is wrong with it is not said.
        let wrong = || problem(place, format!("`{name}` can't be a header"), help);
        let key = HeaderName::from_str(name).map_err(|_| wrong())?;
        if RESERVED.contains(&key.as_str()) {
            let help = "leave it out: the protocol sets it itself";
            return Err(problem(place, format!("`{name}` can't be set"), help));
        }
        let mut value = HeaderValue::from_str(value).map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.retain(|(known, _)| *known != key);
        headers.push((key, value));
        Ok(())
    };
    if let Some((name, text)) = environment.setting(signal, "HEADERS") {
        let pairs = pairs(text).ok_or_else(|| {
            problem(&name, format!("{name} is not a list of headers"), "write name=value,name=value")
        })?;
        pairs.iter().try_for_each(|(key, value)| add(&name, key, value))?;
    }
    config.headers.iter().try_for_each(|(name, value)| add("export.otlp.headers", name, value.reveal()))?;
    Ok(headers)
}

fn tls(signal: OtlpSignal, config: &OtlpConfig, environment: &Environment) -> Result<TlsFiles, ExportError> {
    let file = |configured: &Option<PathBuf>, key: &str, setting: &str| match configured {
        Some(path) => Some((format!("export.otlp.tls.{key}"), path.clone())),
        None => environment.setting(signal, setting).map(|(name, path)| (name, PathBuf::from(path))),
    };
    let ca = file(&config.tls.ca, "ca", "CERTIFICATE");
    let cert = file(&config.tls.cert, "cert", "CLIENT_CERTIFICATE");
    let key = file(&config.tls.key, "key", "CLIENT_KEY");
    let client = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some((place, _)), None) => {
            return Err(problem(place, "a certificate without its key", "set export.otlp.tls.key too"));
        }
        (None, Some((place, _))) => {
            return Err(problem(place, "a key without its certificate", "set export.otlp.tls.cert too"));
        }
    };
    Ok(TlsFiles { section: "export.otlp.tls", ca, client })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Environment::new(&variables.iter().map(owned).collect::<Vec<_>>())
    }

    fn settings(config: &str, variables: &[(&str, &str)]) -> Result<Settings, ExportError> {
        let config = serde_json::from_str(config).unwrap();
        Settings::of(OtlpSignal::Traces, &config, &environment(variables))
    }

    #[test]
    fn endpoints_become_the_urls_of_calls() {
        let call = "opentelemetry.proto.collector.trace.v1.TraceService/Export";
        let general = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let own = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        let insecure = "OTEL_EXPORTER_OTLP_INSECURE";
        let insecure_traces = "OTEL_EXPORTER_OTLP_TRACES_INSECURE";
        for (config, variables, endpoint, url) in [
            ("{}", vec![], "http://localhost:4317", format!("http://localhost:4317/{call}")),
            (
                r#"{"protocol": "http"}"#,
                vec![],
                "http://localhost:4318",
                "http://localhost:4318/v1/traces".into(),
            ),
            (
                r#"{"endpoint": "https://c:1/"}"#,
                vec![(general, "http://x:2")],
                "https://c:1",
                format!("https://c:1/{call}"),
            ),
            (
                r#"{"protocol": "http", "endpoint": "https://c/otlp/"}"#,
                vec![],
                "https://c/otlp",
                "https://c/otlp/v1/traces".into(),
            ),
            ("{}", vec![(general, "http://x:2")], "http://x:2", format!("http://x:2/{call}")),
            ("{}", vec![(general, "x:2"), (insecure, "True")], "http://x:2", format!("http://x:2/{call}")),
            (
                r#"{"endpoint": "c:1"}"#,
                vec![(insecure, "true"), (insecure_traces, "false")],
                "https://c:1",
                format!("https://c:1/{call}"),
            ),
            (
                "{}",
                vec![(general, "https://x:2"), (insecure, "true")],
                "https://x:2",
                format!("https://x:2/{call}"),
            ),
            (
                r#"{"protocol": "http"}"#,
                vec![(general, "http://x:2"), (own, "http://y:3/in")],
                "http://y:3/in",
                "http://y:3/in".into(),
            ),
        ] {
            let settings = settings(config, &variables).unwrap();
            assert_eq!((settings.endpoint.as_str(), settings.url.to_string()), (endpoint, url), "{config}");
        }
    }

    #[test]
    fn the_configuration_goes_before_variables_and_those_before_defaults() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=1,b=2"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/env/ca"),
        ];
        let by_default = settings("{}", &[]).unwrap();
        assert_eq!(
            (by_default.protocol, by_default.compression),
            (OtlpProtocol::Grpc, OtlpCompression::None)
        );
        assert_eq!((by_default.timeout, by_default.headers.len()), (Duration::from_secs(10), 0));
        let by_variables = settings("{}", &variables).unwrap();
        assert_eq!(
            (by_variables.protocol, by_variables.compression),
            (OtlpProtocol::Http, OtlpCompression::Gzip)
        );
        assert_eq!(by_variables.timeout, Duration::from_millis(2_500));
        assert_eq!(by_variables.tls.ca.as_ref().unwrap().1, PathBuf::from("/env/ca"));
        let config = r#"{"protocol": "grpc", "compression": "zstd", "timeout": "1s", "headers": {"B": "3", "c": "4"},
            "tls": {"ca": "/own/ca"}}"#;
        let configured = settings(config, &variables).unwrap();
        assert_eq!(
            (configured.protocol, configured.compression),
            (OtlpProtocol::Grpc, OtlpCompression::Zstd)
        );
        assert_eq!(configured.timeout, Duration::from_secs(1));
        assert_eq!(configured.tls.ca.as_ref().unwrap().1, PathBuf::from("/own/ca"));
        let headers: Vec<_> =
            configured.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(headers, [("a", "1"), ("b", "3"), ("c", "4")]);
    }

    #[test]
    fn sums_are_sent_as_configured_else_as_variables_say() {
        let of = |config: &str, variables: &[(&str, &str)]| {
            Sums::of(&serde_json::from_str(config).unwrap(), &environment(variables))
        };
        let sums = |temporality, millis| Sums { temporality, interval: Duration::from_millis(millis) };
        let (cumulative, delta) = (OtlpTemporality::Cumulative, OtlpTemporality::Delta);
        assert_eq!(of("{}", &[]).unwrap(), sums(cumulative, 60_000));
        let variables = [(TEMPORALITY, "LowMemory"), (INTERVAL, "1500")];
        assert_eq!(of("{}", &variables).unwrap(), sums(delta, 1_500));
        assert_eq!(of("{}", &[(TEMPORALITY, "DELTA")]).unwrap(), sums(delta, 60_000));
        assert_eq!(of("{}", &[(TEMPORALITY, "Cumulative")]).unwrap(), sums(cumulative, 60_000));
        let config = r#"{"metrics": {"temporality": "cumulative", "interval": "2s"}}"#;
        assert_eq!(of(config, &variables).unwrap(), sums(cumulative, 2_000));
        for (name, text) in [(TEMPORALITY, "both"), (INTERVAL, "0"), (INTERVAL, "1s")] {
            assert_eq!(of("{}", &[(name, text)]).unwrap_err().place(), Some(name));
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place_and_without_secrets() {
        for (config, variables, place, part) in [
            (r#"{"endpoint": "c:4317"}"#, vec![], "export.otlp.endpoint", "is no endpoint"),
            (r#"{"endpoint": "ftp://c"}"#, vec![], "export.otlp.endpoint", "neither http nor https"),
            (r#"{"endpoint": "http://c/x"}"#, vec![], "export.otlp.endpoint", "no path"),
            (r#"{"endpoint": "http://u:hunter2@c"}"#, vec![], "export.otlp.endpoint", "name or password"),
            (r#"{"endpoint": "http://c?key=hunter2"}"#, vec![], "export.otlp.endpoint", "it has a query"),
            (r#"{"endpoint": "http://c?key=hunter2@x"}"#, vec![], "export.otlp.endpoint", "it has a query"),
            (
                r#"{"protocol": "http", "endpoint": "c:1"}"#,
                vec![("OTEL_EXPORTER_OTLP_INSECURE", "true")],
                "export.otlp.endpoint",
                "no scheme",
            ),
            (
                r#"{"endpoint": "c:1"}"#,
                vec![("OTEL_EXPORTER_OTLP_INSECURE", "1")],
                "OTEL_EXPORTER_OTLP_INSECURE",
                "true or false",
            ),
            (r#"{"batch": {"bytes": "0B"}}"#, vec![], "export.otlp.batch.bytes", "from 1B to 256MiB"),
            (r#"{"batch": {"bytes": "5GiB"}}"#, vec![], "export.otlp.batch.bytes", "`5GiB`"),
            (
                r#"{"bearer_token_file": "f", "headers": {"Authorization": "hunter2"}}"#,
                vec![],
                "export.otlp.headers",
                "exclude each other",
            ),
            (r#"{"endpoint": "http://u:hunter2@c c"}"#, vec![], "export.otlp.endpoint", "is no endpoint"),
            (
                "{}",
                vec![("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")],
                "OTEL_EXPORTER_OTLP_PROTOCOL",
                "http/json",
            ),
            (
                "{}",
                vec![("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0")],
                "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
                "`0`",
            ),
            (
                "{}",
                vec![("OTEL_EXPORTER_OTLP_HEADERS", "hunter2")],
                "OTEL_EXPORTER_OTLP_HEADERS",
                "not a list",
            ),
            (r#"{"headers": {"a b": "hunter2"}}"#, vec![], "export.otlp.headers", "`a b`"),
            (r#"{"headers": {"a": "hunter2\n"}}"#, vec![], "export.otlp.headers", "`a`"),
            (r#"{"headers": {"Content-Type": "x"}}"#, vec![], "export.otlp.headers", "can't be set"),
            (r#"{"tls": {"key": "k"}}"#, vec![], "export.otlp.tls.key", "without its certificate"),
            (r#"{"tls": {"cert": "k"}}"#, vec![], "export.otlp.tls.cert", "without its key"),
            (
                r#"{"bearer_token_file": "/nonexistent"}"#,
                vec![],
                "export.otlp.bearer_token_file",
                "can't read",
            ),
        ] {
            let error = settings(config, &variables).unwrap_err();
            let text = format!("{error} {:?}", error.help());
            assert_eq!(error.place(), Some(place), "{config}");
            assert!(text.contains(part), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn the_description_has_names_of_headers_and_no_values() {
        let settings = settings(
            r#"{"endpoint": "https://c:4317", "compression": "gzip", "headers": {"x-tenant": "hunter2"}}"#,
            &[],
        );
        let text = settings.unwrap().describe();
        assert_eq!(
            text,
            "traces, grpc, https://c:4317, gzip, TLS with the host's authorities, headers x-tenant"
        );
    }
}
