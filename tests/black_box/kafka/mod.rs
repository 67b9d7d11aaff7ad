//! Records in a topic of the real Kafka, read back by another program.

mod delivery;
mod outage;
mod refusals;
mod renewed;

use mermin_tests::crowd;
use mermin_tests::program::Program;
use mermin_tests::protoc;
use mermin_tests::servers::kafka::{Kafka, Listener, Message, PASSWORD, USER};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const TOPIC: &str = "mermin.flows";
const PARTITIONS: u16 = 4;
const LONG: Duration = Duration::from_secs(120);

/// Whether broker and program are there, and the program has this output.
fn ready() -> Result<(), String> {
    Kafka::installed()?;
    mermin_tests::need::tool("protoc")?;
    let outcome = Program::new("replay").output("kafka").arg("-").run();
    if outcome.stderr.contains("built without Kafka") {
        Err("mermin with the feature kafka".into())
    } else {
        Ok(())
    }
}

fn broker(config: &[(&str, &str)]) -> Kafka {
    let broker = Kafka::start();
    broker.create_topic(TOPIC, PARTITIONS, config);
    broker
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_nanos()).unwrap()
}

/// Flows from this time on. A broker forgets a producer a day after its last batch, by the time that its messages have: of
/// one that replays old packets it knows nothing when it comes back, and takes what is sent again for new.
fn capture_from(begin: u64, flows: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    crowd::write_from(begin, &mut bytes, flows, &AtomicU64::new(0)).unwrap();
    bytes
}

/// A replay of standard input to the topic.
fn replay(broker: &Kafka, listener: Listener) -> Program {
    Program::new("replay").output(&format!("kafka:{}/{TOPIC}", broker.address(listener))).arg("-")
}

/// The same with a password.
fn with_password(broker: &Kafka, mechanism: &str, password: &str) -> Program {
    let program = replay(broker, Listener::Password);
    let file = program.folder().join("password");
    std::fs::write(&file, format!("{password}\n")).unwrap();
    let authority = broker.authority().display();
    program
        .set(&format!("export.kafka.tls.ca={authority}"))
        .set(&format!("export.kafka.sasl.mechanism={mechanism}"))
        .set(&format!("export.kafka.sasl.username={USER}"))
        .set(&format!("export.kafka.sasl.password_file={}", file.display()))
}

/// The values of messages as JSON lines, whichever form they have.
fn lines(messages: &[Message]) -> Vec<Map<String, Value>> {
    let value = |message: &Message| message.payload.clone().unwrap();
    if messages.iter().all(|message| message.header("encoding") == Some("json")) {
        return messages.iter().map(|message| serde_json::from_slice(&value(message)).unwrap()).collect();
    }
    protoc::lines(&messages.iter().map(value).collect::<Vec<_>>()).unwrap()
}

/// Checks what is promised of each message, and that no record is there twice; what they hold.
fn kept(messages: &[Message], encoding: &str) -> Vec<Map<String, Value>> {
    let lines = lines(messages);
    let (mut partitions, mut records) = (BTreeMap::new(), HashSet::new());
    for (message, line) in messages.iter().zip(&lines) {
        let key = message.key_text().unwrap();
        assert_eq!(line["flow.community_id"], key);
        let partition = partitions.entry(key).or_insert(message.partition);
        assert_eq!(*partition, message.partition, "{key} is in two partitions");
        let said = ["schema", "encoding"].map(|name| message.header(name));
        assert_eq!(said, [Some("mermin.flow.v1"), Some(encoding)]);
        assert!(message.header("node").is_some_and(|node| !node.is_empty()));
        let identity = (line["flow.id"].to_string(), line["flow.sequence"].to_string());
        assert!(records.insert(identity), "{line:?} is there twice");
    }
    lines
}
