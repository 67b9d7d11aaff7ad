//! What each message says beside key and value: what the value is, and who sent it.
//!
//! They are the same in all messages for seconds, so in a compressed batch all but the first cost a few bytes. But each
//! header of a message is an allocation of librdkafka's and takes 0.2 µs, a twentieth of what a record costs: so what few
//! readers want is one header, `clock` (`docs/benchmarks.md`).

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
    boot: String,
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
        let all =
            [("schema", SCHEMA), ("encoding", encoding.name()), ("node", node), ("agent.id", &agent.id)];
        let known = all.into_iter().filter(|(_, value)| !value.is_empty());
        let fixed: Vec<_> = known.map(|(name, value)| (name, value.to_owned())).collect();
        let boot = boot.trim().to_owned();
        Self { made: made(&fixed, &boot, agent.clock), fixed, boot, clock: agent.clock, at: Instant::now() }
    }

    /// Asks the clock again, if it is time.
    pub(super) fn refresh(&mut self) {
        if self.clock.is_some() && self.at.elapsed() >= FRESH {
            self.made = made(&self.fixed, &self.boot, self.clock);
            self.at = Instant::now();
        }
    }

    /// For a message.
    pub(super) fn of_message(&self) -> OwnedHeaders {
        self.made.clone()
    }
}

fn made(
    fixed: &[(&'static str, String)],
    boot: &str,
    clock: Option<fn() -> Option<ClockError>>,
) -> OwnedHeaders {
    let boot = (!boot.is_empty()).then(|| format!("boot={boot}"));
    let error = clock.and_then(|clock| clock());
    let error = error.map(|error| format!("offset={};error={}", error.offset, error.bound));
    let clock: Vec<_> = boot.into_iter().chain(error).collect();
    let clock = (!clock.is_empty()).then(|| ("clock", clock.join(";")));
    let headers = OwnedHeaders::new_with_capacity(fixed.len() + 1);
    let all = fixed.iter().cloned().chain(clock);
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
        assert_eq!((live[3].clone(), live[4].0.as_str(), live.len()), (pair("agent.id", "a1"), "clock", 5));
        let parts: Vec<_> = live[4].1.split(';').collect();
        assert!(
            parts[0].len() == "boot=".len() + 36 && parts[1..] == ["offset=-1500", "error=250000"],
            "{parts:?}"
        );
        let clock = &of(&Agent { id: "a1".to_owned(), clock: Some(|| None) })[4].1;
        assert!(clock.starts_with("boot=") && !clock.contains(';'), "{clock}");
    }
}
