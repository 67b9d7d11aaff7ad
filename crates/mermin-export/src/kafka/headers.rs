//! What each message says beside key and value: what the value is, and who sent it.
//!
//! They are the same in all messages of an agent's run, so in a compressed batch all but the first cost a few bytes
//! (`docs/benchmarks.md`).

use super::config::KafkaEncoding;
use crate::schema::SCHEMA;
use rdkafka::message::{Header, OwnedHeaders};
use std::fs;

/// Names and values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Headers(Vec<(&'static str, String)>);

impl Headers {
    /// Of an agent with this id (empty in a replay) on this node.
    pub(super) fn new(encoding: KafkaEncoding, node: &str, agent_id: &str) -> Self {
        let boot = || fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        // A replay's packets are not of this host.
        let boot = if agent_id.is_empty() { String::new() } else { boot() };
        let all = [
            ("schema", SCHEMA),
            ("encoding", encoding.name()),
            ("node", node),
            ("agent.id", agent_id),
            ("boot.id", boot.trim()),
        ];
        let known = all.into_iter().filter(|(_, value)| !value.is_empty());
        Self(known.map(|(name, value)| (name, value.to_owned())).collect())
    }

    /// For messages: each gets a copy.
    pub(super) fn of_message(&self) -> OwnedHeaders {
        let headers = OwnedHeaders::new_with_capacity(self.0.len());
        self.0
            .iter()
            .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::message::Headers as _;

    #[test]
    fn a_message_says_what_it_is_and_who_sent_it() {
        let of = |agent| {
            let headers = Headers::new(KafkaEncoding::Json, "n1", agent).of_message();
            let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
            let all = headers.as_borrowed().iter();
            all.map(|header| (header.key.to_owned(), text(header.value.unwrap()))).collect::<Vec<_>>()
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let common = [pair("schema", "mermin.flow.v1"), pair("encoding", "json"), pair("node", "n1")];
        assert_eq!(of(""), common, "a replay has no agent");
        let live = of("a1");
        assert_eq!(live[..3], common);
        assert_eq!((live[3].clone(), live[4].0.as_str()), (pair("agent.id", "a1"), "boot.id"));
    }
}
