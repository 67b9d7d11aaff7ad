//! Records to a topic of Apache Kafka: a record is a message, its key is the flow's Community ID.
//!
//! So both directions, and what every node sees of a conversation, come to one partition, each agent's in order, as long as
//! the topic gets no more partitions. The client is librdkafka (`docs/design/0026-kafka.md`), which is C and wants OpenSSL: a
//! Cargo feature, without which only the settings are here. A record is delivered when all replicas in sync have it
//! (`acks=all`), once (idempotent producer); what has to be sent again by another producer, or in another batch, may come
//! twice or out of order (`docs/limits.md`). While no broker takes records they wait, those under way here and then those
//! in the queue or on disk, and nothing is given up.

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
