//! From the configuration to an output: checked as a whole, described for people, then opened.

use super::config::{KafkaConfig, KafkaMechanism};
use crate::agent::Agent;
use crate::error::ExportError;
use mermin_flow::{ByteSize, Exporter, ObservationPoints};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Bounds of librdkafka.
const BYTES_MIN: ByteSize = ByteSize(1_000);
const BYTES_MAX: ByteSize = ByteSize(100 << 20);
const RECORDS_MAX: usize = 1_000_000;
/// The end of a run waits for it.
const DELAY_MAX: Duration = Duration::from_secs(5);
/// Of a topic's name, Kafka's own.
const NAME_MAX: usize = 249;

/// What would be sent, and where.
#[derive(Clone, Debug)]
pub struct KafkaPlan {
    config: KafkaConfig,
    /// What the node is called.
    node: String,
}

fn problem(key: &str, what: impl Into<String>, help: impl Into<String>) -> ExportError {
    let place = format!("export.kafka.{key}").trim_end_matches('.').to_owned();
    ExportError::Setting { place, what: what.into(), help: help.into() }
}

impl KafkaPlan {
    /// Of the configuration, for a node of this name; connects to nothing.
    ///
    /// # Errors
    /// [`ExportError::Setting`], with the key to blame.
    pub fn new(config: &KafkaConfig, node: String) -> Result<Self, ExportError> {
        if cfg!(not(feature = "kafka")) {
            return Err(ExportError::Setting {
                place: String::new(),
                what: "this mermin was built without Kafka".to_owned(),
                help: "build it with the feature: cargo build --release --features kafka (it needs make, a C++ compiler and OpenSSL: apt-get install g++ make libssl-dev pkg-config)".to_owned(),
            });
        }
        brokers(&config.brokers)?;
        topic(&config.topic)?;
        bounds(config)?;
        secrets(config)?;
        Ok(Self { config: config.clone(), node })
    }

    /// How long a record waits for its batch.
    pub(crate) fn delay(&self) -> Duration {
        self.config.batch.delay.0
    }

    /// For the first line: `kafka topic mermin.flows at localhost:9092`.
    #[must_use]
    pub fn headline(&self) -> String {
        format!("kafka topic {} at {}", self.config.topic, self.config.brokers.join(","))
    }

    /// How records are sent, without anything secret.
    #[must_use]
    pub fn descriptions(&self) -> Vec<String> {
        let config = &self.config;
        let mut line = format!(
            "{} to topic {} at {}, compression {}",
            config.encoding.name(),
            config.topic,
            config.brokers.join(","),
            config.compression.name(),
        );
        if let Some(tls) = &config.tls {
            line += if tls.cert.is_some() { ", TLS with a certificate of its own" } else { ", TLS" };
        }
        if let Some(sasl) = &config.sasl {
            line += &format!(", login {} by {}", sasl.username, sasl.mechanism.name());
        }
        vec![line, format!("node {}", self.node)]
    }

    /// The output, of this agent.
    ///
    /// # Errors
    /// [`ExportError::Setting`], as in [`KafkaPlan::new`]; [`ExportError::Runtime`].
    #[cfg(feature = "kafka")]
    pub fn open(
        &self,
        points: &Arc<ObservationPoints>,
        agent: &Agent,
    ) -> Result<Vec<Box<dyn Exporter>>, ExportError> {
        let headers = super::headers::Headers::new(self.config.encoding, &self.node, agent);
        let patience = super::records::REFUSAL_PATIENCE;
        let records = super::records::Records::new(self.config.clone(), points, headers, patience)?;
        Ok(vec![Box::new(records)])
    }

    /// Without the feature there is no plan to open.
    ///
    /// # Errors
    /// None.
    #[cfg(not(feature = "kafka"))]
    pub fn open(&self, _: &Arc<ObservationPoints>, _: &Agent) -> Result<Vec<Box<dyn Exporter>>, ExportError> {
        Ok(Vec::new())
    }
}

fn brokers(brokers: &[String]) -> Result<(), ExportError> {
    let help = "write host:port, for example `localhost:9092`, or [address]:port";
    if brokers.is_empty() {
        return Err(problem("brokers", "there is no broker", help));
    }
    for broker in brokers {
        let valid = broker.rsplit_once(':').is_some_and(|(host, port)| {
            let bracketed = host.starts_with('[') && host.ends_with(']');
            let plain = !host.is_empty() && !host.contains([':', '/', ',', ' ', '[', ']']);
            (bracketed || plain) && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if !valid {
            return Err(problem("brokers", format!("`{broker}` is not a broker"), help));
        }
    }
    Ok(())
}

fn topic(name: &str) -> Result<(), ExportError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !name.is_empty() && name.len() <= NAME_MAX && name.chars().all(legal) && !matches!(name, "." | "..") {
        return Ok(());
    }
    let help = format!("letters, digits, `.`, `_` and `-`, {NAME_MAX} at most");
    Err(problem("topic", format!("`{name}` is not the name of a topic"), help))
}

fn bounds(config: &KafkaConfig) -> Result<(), ExportError> {
    let range = format!("give it {BYTES_MIN} to {BYTES_MAX}");
    for (key, bytes) in [("message_bytes", config.message_bytes), ("batch.bytes", config.batch.bytes)] {
        if !(BYTES_MIN..=BYTES_MAX).contains(&bytes) {
            return Err(problem(key, format!("`{bytes}` is out of range"), range));
        }
    }
    if config.batch.records.get() > RECORDS_MAX {
        let what = format!("`{}` is out of range", config.batch.records);
        return Err(problem("batch.records", what, format!("give it 1 to {RECORDS_MAX}")));
    }
    if config.batch.delay.0 > DELAY_MAX {
        return Err(problem("batch.delay", "that is longer than a message may wait", "give it 5s at most"));
    }
    Ok(())
}

fn secrets(config: &KafkaConfig) -> Result<(), ExportError> {
    if let Some(tls) = &config.tls {
        for (key, path) in [("tls.ca", &tls.ca), ("tls.cert", &tls.cert), ("tls.key", &tls.key)] {
            path.as_deref().map(|path| readable(key, path)).transpose()?;
        }
        if tls.cert.is_some() != tls.key.is_some() {
            let what = "a certificate and its key belong together";
            return Err(problem("tls", what, "give both cert and key, or neither"));
        }
    }
    let Some(sasl) = &config.sasl else { return Ok(()) };
    if sasl.username.is_empty() {
        return Err(problem("sasl.username", "it is empty", "give the name that the brokers know"));
    }
    if sasl.mechanism == KafkaMechanism::Plain && config.tls.is_none() {
        let what = "a password would cross the network for all to read";
        let help = "switch TLS on (export.kafka.tls: {}), or use scram-sha-512";
        return Err(problem("sasl.mechanism", what, help));
    }
    if readable("sasl.password_file", &sasl.password_file)?.trim_ascii().is_empty() {
        let what = format!("{} is empty", sasl.password_file.display());
        return Err(problem("sasl.password_file", what, "write the password into it"));
    }
    Ok(())
}

fn readable(key: &str, path: &Path) -> Result<Vec<u8>, ExportError> {
    fs::read(path).map_err(|error| {
        let what = format!("can't read {}: {error}", path.display());
        problem(key, what, "name a file that mermin may read")
    })
}

#[cfg(test)]
#[cfg(not(feature = "kafka"))]
mod without {
    use super::*;

    #[test]
    fn a_program_without_kafka_says_how_to_build_one_with_it() {
        let error = KafkaPlan::new(&KafkaConfig::default(), String::new()).unwrap_err();
        assert_eq!(error.to_string(), "this mermin was built without Kafka");
        assert!(error.help().unwrap().contains("cargo build --release --features kafka"));
    }
}

#[cfg(test)]
#[cfg(feature = "kafka")]
mod tests {
    use super::*;

    fn plan(config: &str) -> Result<KafkaPlan, ExportError> {
        KafkaPlan::new(&serde_json::from_str(config).unwrap(), "n1".to_owned())
    }

    #[test]
    fn what_cannot_be_is_said_with_the_key_and_a_way_out() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let empty = format!(r#"{{"sasl": {{"username": "u", "password_file": {:?}}}}}"#, file.path());
        fs::write(file.path(), "\n").unwrap();
        for (config, place, what) in [
            (r#"{"brokers": []}"#, "brokers", "there is no broker"),
            (r#"{"brokers": ["b"]}"#, "brokers", "`b` is not a broker"),
            (r#"{"brokers": ["b:0"]}"#, "brokers", "`b:0` is not a broker"),
            (r#"{"brokers": ["::1:9092"]}"#, "brokers", "`::1:9092` is not a broker"),
            (r#"{"brokers": ["ssl://b:9092"]}"#, "brokers", "is not a broker"),
            (r#"{"topic": "a/b"}"#, "topic", "`a/b` is not the name of a topic"),
            (r#"{"topic": ".."}"#, "topic", "is not the name of a topic"),
            (r#"{"message_bytes": "10B"}"#, "message_bytes", "is out of range"),
            (r#"{"batch": {"bytes": "1GiB"}}"#, "batch.bytes", "is out of range"),
            (r#"{"batch": {"records": 2000000}}"#, "batch.records", "is out of range"),
            (r#"{"batch": {"delay": "1h"}}"#, "batch.delay", "longer than a message may wait"),
            (r#"{"tls": {"ca": "/nowhere/ca"}}"#, "tls.ca", "can't read /nowhere/ca"),
            (r#"{"tls": {"cert": "/dev/null"}}"#, "tls", "belong together"),
            (
                r#"{"sasl": {"mechanism": "plain", "username": "u", "password_file": "/dev/null"}}"#,
                "sasl.mechanism",
                "for all to read",
            ),
            (&empty, "sasl.password_file", "is empty"),
        ] {
            let error = plan(config).unwrap_err();
            assert_eq!(error.place(), Some(&*format!("export.kafka.{place}")), "{config}");
            assert!(error.to_string().contains(what) && error.help().is_some(), "{error}");
        }
    }

    #[test]
    fn it_is_described_without_the_password() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "hunter2").unwrap();
        let config = format!(
            r#"{{"brokers": ["[::1]:9092", "b:9093"], "tls": {{}},
                "sasl": {{"mechanism": "scram-sha-256", "username": "u", "password_file": {:?}}}}}"#,
            file.path()
        );
        let plan = plan(&config).unwrap();
        assert_eq!(plan.headline(), "kafka topic mermin.flows at [::1]:9092,b:9093");
        assert_eq!(
            plan.descriptions(),
            [
                "protobuf to topic mermin.flows at [::1]:9092,b:9093, compression lz4, TLS, login u by SCRAM-SHA-256",
                "node n1"
            ]
        );
        assert!(!format!("{plan:?}").contains("hunter2"));
    }

    #[test]
    fn what_stands_behind_o_goes_before_the_configuration() {
        for (text, brokers, topic) in [
            ("b:1", &["b:1"][..], "mermin.flows"),
            ("b:1,c:2/flows", &["b:1", "c:2"], "flows"),
            ("/flows", &["localhost:9092"], "flows"),
        ] {
            let mut config = KafkaConfig::default();
            config.address(text);
            assert_eq!(
                (&*config.brokers, &*config.topic),
                (&*brokers.iter().map(|b| (*b).to_owned()).collect::<Vec<_>>(), topic)
            );
        }
    }
}
