//! What each message says beside key and value: what the value is, and who sent it.
//!
//! They are the same in all messages for seconds, so in a compressed batch all but the first cost a few bytes
//! (`docs/benchmarks.md`).

use super::config::KafkaEncoding;
use crate::agent::{Agent, ClockError};
use crate::schema::SCHEMA;
use rdkafka::message::{Header, OwnedHeaders};
use std::fs;
use std::time::{Duration, Instant};

/// How old what is said of the clock may be.
const FRESH: Duration = Duration::from_secs(10);

/// Names and values.
#[derive(Debug)]
pub(super) struct Headers {
    fixed: Vec<(&'static str, String)>,
    clock: Option<fn() -> Option<ClockError>>,
    made: OwnedHeaders,
    at: Instant,
}

impl Headers {
    /// Of this agent on this node.
    pub(super) fn new(encoding: KafkaEncoding, node: &str, agent: &Agent) -> Self {
        let boot = || fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        // A replay's packets are not of this host.
        let boot = if agent.id.is_empty() { String::new() } else { boot() };
        let all = [
            ("schema", SCHEMA),
            ("encoding", encoding.name()),
            ("node", node),
            ("agent.id", &agent.id),
            ("boot.id", boot.trim()),
        ];
        let known = all.into_iter().filter(|(_, value)| !value.is_empty());
        let fixed: Vec<_> = known.map(|(name, value)| (name, value.to_owned())).collect();
        Self { made: made(&fixed, agent.clock), fixed, clock: agent.clock, at: Instant::now() }
    }

    /// Asks the clock again, if it is time.
    pub(super) fn refresh(&mut self) {
        if self.clock.is_some() && self.at.elapsed() >= FRESH {
            self.made = made(&self.fixed, self.clock);
            self.at = Instant::now();
        }
    }

    /// For a message.
    pub(super) fn of_message(&self) -> OwnedHeaders {
        self.made.clone()
    }
}

fn made(fixed: &[(&'static str, String)], clock: Option<fn() -> Option<ClockError>>) -> OwnedHeaders {
    let clock = clock
        .and_then(|clock| clock())
        .map(|clock| [("clock.offset", clock.offset.to_string()), ("clock.error", clock.bound.to_string())]);
    let all = fixed.iter().cloned().chain(clock.into_iter().flatten());
    let headers = OwnedHeaders::new_with_capacity(fixed.len() + 2);
    all.fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(&value) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::message::Headers as _;

    fn said(headers: &Headers) -> Vec<(String, String)> {
        let headers = headers.of_message();
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
        let all = headers.as_borrowed().iter();
        all.map(|header| (header.key.to_owned(), text(header.value.unwrap()))).collect()
    }

    #[test]
    fn a_message_says_what_it_is_and_who_sent_it() {
        let of = |agent: &Agent| said(&Headers::new(KafkaEncoding::Json, "n1", agent));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let common = [pair("schema", "mermin.flow.v1"), pair("encoding", "json"), pair("node", "n1")];
        assert_eq!(of(&Agent::default()), common, "a replay has no agent");
        let clock = || Some(ClockError { offset: -1_500, bound: 250_000 });
        let live = of(&Agent { id: "a1".to_owned(), clock: Some(clock) });
        assert_eq!(live[..3], common);
        assert_eq!((live[3].clone(), live[4].0.as_str()), (pair("agent.id", "a1"), "boot.id"));
        assert_eq!(live[5..], [pair("clock.offset", "-1500"), pair("clock.error", "250000")]);
        assert_eq!(of(&Agent { id: "a1".to_owned(), clock: Some(|| None) }).len(), 5);
    }
}
