//! `export.kafka` of the configuration.

use crate::buffer::BufferKind;
use mermin_flow::{ByteSize, Interval};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Records to a topic of Apache Kafka, each a message of its own. In builds with the Cargo feature `kafka`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {
    /// `false` switches this output off.
    pub enabled: bool,
    /// Brokers that are asked for the others first: `host:port` each.
    pub brokers: Vec<String>,
    /// The topic. It must be there: Mermin makes none.
    pub topic: String,
    /// The form of a message's value.
    pub encoding: KafkaEncoding,
    /// Of batches of messages.
    pub compression: KafkaCompression,
    /// What this agent is called in the brokers' log, metrics and quotas.
    pub client_id: String,
    /// Certificates; switches TLS on, also when it is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<KafkaTls>,
    /// Name and password; switches the login on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sasl: Option<KafkaSasl>,
    /// How messages are gathered into batches, one for each partition.
    pub batch: KafkaBatch,
    /// The most bytes of a message, from 1kB to 100MiB; a longer record is dropped (`too_large`). The brokers have a bound
    /// of their own, `message.max.bytes`.
    pub message_bytes: ByteSize,
    /// `disk`: records wait in `export.disk_buffer`, while no broker takes them and over a restart.
    pub buffer: BufferKind,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            brokers: vec!["localhost:9092".to_owned()],
            topic: "mermin.flows".to_owned(),
            encoding: KafkaEncoding::Protobuf,
            compression: KafkaCompression::Lz4,
            client_id: "mermin".to_owned(),
            tls: None,
            sasl: None,
            batch: KafkaBatch::default(),
            message_bytes: ByteSize(1_000_000),
            buffer: BufferKind::default(),
        }
    }
}

impl KafkaConfig {
    /// What stands behind `-o kafka:`: brokers, or `/` and a topic, or both. What it doesn't name stays.
    pub(crate) fn address(&mut self, text: &str) {
        let (brokers, topic) = match text.split_once('/') {
            Some((brokers, topic)) => (brokers, Some(topic)),
            None => (text, None),
        };
        if !brokers.is_empty() {
            self.brokers = brokers.split(',').map(|broker| broker.trim().to_owned()).collect();
        }
        if let Some(topic) = topic {
            topic.clone_into(&mut self.topic);
        }
    }
}

/// The form of a message's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KafkaEncoding {
    /// `mermin.flow.v1.Flow` of `schemas/mermin/flow/v1/flow.proto`.
    Protobuf,
    /// A JSON line, without the line feed.
    Json,
}

impl KafkaEncoding {
    /// As in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Protobuf => "protobuf",
            Self::Json => "json",
        }
    }
}

/// Of batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KafkaCompression {
    /// As they are.
    None,
    /// The least work.
    Lz4,
    /// The smallest.
    Zstd,
    /// The one that every reader knows; the most work.
    Gzip,
    /// As quick as lz4, and larger.
    Snappy,
}

impl KafkaCompression {
    /// As in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
        }
    }
}

/// Certificates, PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaTls {
    /// Certificates of the authorities that the brokers' certificates are checked against, instead of the host's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The certificate that Mermin shows; `key` belongs to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

/// Name and password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaSasl {
    /// How the password is proved.
    #[serde(default)]
    pub mechanism: KafkaMechanism,
    /// The name.
    pub username: String,
    /// A file that holds the password; another one is read within seconds.
    pub password_file: PathBuf,
}

/// How a password is proved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KafkaMechanism {
    /// Without being sent (RFC 7677), with SHA-512.
    #[default]
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
    /// The same with SHA-256.
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// It is sent as it is: only with `tls`.
    Plain,
}

impl KafkaMechanism {
    /// The protocol's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::Plain => "PLAIN",
        }
    }
}

/// How messages are gathered into batches, one for each partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaBatch {
    /// The most messages in a batch. All batches that fill at one time, one for each partition, have room for 65536.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub records: NonZeroUsize,
    /// The most bytes in a batch, before compression, from 1kB to 100MiB.
    pub bytes: ByteSize,
    /// How long a message waits for others to come along, at most 5s; the end of a run waits for it, too. Give it more than
    /// brokers take to acknowledge: what waits for longer than this behind a batch under way keeps a core busy.
    pub delay: Interval,
}

impl Default for KafkaBatch {
    fn default() -> Self {
        Self {
            records: NonZeroUsize::new(1_000).expect("the default is not zero"),
            bytes: ByteSize(1_000_000),
            delay: Interval(std::time::Duration::from_secs(1)),
        }
    }
}
