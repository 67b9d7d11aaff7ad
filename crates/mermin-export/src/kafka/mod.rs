//! Records to a topic of Apache Kafka: a record is a message, its key is the flow's Community ID.
//!
//! So both directions, and what every node sees of a conversation, come to one partition in order. The client is librdkafka
//! (`docs/design/0026-kafka.md`), which is C and wants OpenSSL: a Cargo feature, without which only the settings are here.
//! A record is delivered when all replicas in sync have it (`acks=all`), once (idempotent producer). While no broker takes
//! records they wait, those under way here and then those in the queue or on disk, and nothing is given up.

#[cfg(feature = "kafka")]
mod client;
mod config;
#[cfg(feature = "kafka")]
mod encode;
#[cfg(feature = "kafka")]
mod headers;
mod plan;
#[cfg(feature = "kafka")]
mod records;
#[cfg(feature = "kafka")]
mod refusal;
#[cfg(feature = "kafka")]
mod settings;
#[cfg(feature = "kafka")]
mod window;

pub use config::{
    KafkaBatch, KafkaCompression, KafkaConfig, KafkaEncoding, KafkaMechanism, KafkaSasl, KafkaTls,
};
pub use plan::KafkaPlan;
