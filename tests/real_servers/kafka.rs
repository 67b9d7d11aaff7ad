//! Apache Kafka, and kcat as its consumer.

use crate::is_there;
use mermin_tests::need;
use mermin_tests::servers::KAFKA;
use mermin_tests::servers::folder::Folder;
use mermin_tests::servers::kafka::{Kafka, Listener, Message, PASSWORD, USER};
use std::io::Write;
use std::process::{Command, Stdio};

/// Sends a message by kcat; what kcat says where it can't.
fn produce(broker: &Kafka, listener: Listener, more: &[&str], payload: &[u8]) -> Result<(), String> {
    let mut command = Command::new("timeout");
    command.args(["20", "kcat", "-P", "-b", &broker.address(listener).to_string(), "-D", "\u{1}"]);
    command.args(["-X", "acks=all", "-X", "message.timeout.ms=3000"]).args(more);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(payload).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() && !said.contains("ERROR") { Ok(()) } else { Err(said) }
}

/// Whether Kafka's own client gets in by a password. kcat's library (librdkafka 2.0.2 in Debian 12) says a nonce twice in
/// SCRAM (mended in 2.6.1), which Kafka 4 refuses.
fn lists(broker: &Kafka, mechanism: &str, password: &str) -> bool {
    let module = if mechanism == "PLAIN" { "plain.PlainLoginModule" } else { "scram.ScramLoginModule" };
    let config = format!(
        "security.protocol=SASL_SSL\nsasl.mechanism={mechanism}\nssl.truststore.type=PEM\nssl.truststore.location={}\n\
         sasl.jaas.config=org.apache.kafka.common.security.{module} required username=\"{USER}\" password=\"{password}\";\n",
        broker.authority().display(),
    );
    let folder = Folder::new();
    let config = folder.write("client.properties", config).display().to_string();
    let address = broker.address(Listener::Password).to_string();
    let class = ["-Xmx128m", "org.apache.kafka.tools.TopicCommand", "--list", "--bootstrap-server", &address];
    let output = Command::new(KAFKA.program("kafka").unwrap())
        .args(class)
        .args(["--command-config", &config])
        .output();
    String::from_utf8_lossy(&output.unwrap().stdout).lines().any(|line| line == "flows")
}

fn payloads(messages: &[Message]) -> Vec<&[u8]> {
    messages.iter().filter_map(|message| message.payload.as_deref()).collect()
}

#[test]
fn keeps_what_it_acknowledged_and_takes_clients_by_every_listener() {
    need!(Kafka::installed());
    let mut broker = Kafka::start();
    broker.create_topic("flows", 4, &[]);
    let bytes = b"\0\n\xff,|\n";
    produce(
        &broker,
        Listener::Plain,
        &["-t", "flows", "-k", "a key", "-p", "2", "-H", "a=1", "-H", "b=2"],
        bytes,
    )
    .unwrap();
    let messages = broker.consume("flows");
    let [message] = messages.as_slice() else { panic!("{messages:?}") };
    assert_eq!((message.partition, message.offset, message.key_text()), (2, 0, Some("a key")));
    assert_eq!(message.payload.as_deref(), Some(bytes.as_slice()));
    assert_eq!((message.header("a"), message.header("b"), message.header("c")), (Some("1"), Some("2"), None));
    assert!(message.timestamp > 1_700_000_000_000);

    broker.kill();
    assert!(produce(&broker, Listener::Plain, &["-t", "flows"], b"nobody").is_err());
    broker.restart();
    let authority = format!("ssl.ca.location={}", broker.authority().display());
    let pair = broker.client_pair();
    let shown = [
        format!("ssl.certificate.location={}", pair.certificate.display()),
        format!("ssl.key.location={}", pair.key.display()),
    ];
    let tls = ["-t", "flows", "-X", "security.protocol=ssl", "-X", &authority];
    let mutual = [&tls[..], &["-X", &shown[0], "-X", &shown[1]]].concat();
    produce(&broker, Listener::Tls, &tls, b"tls").unwrap();
    produce(&broker, Listener::Mutual, &mutual, b"mutual").unwrap();
    assert!(produce(&broker, Listener::Mutual, &tls, b"nobody").is_err(), "without a certificate");
    assert!(
        produce(&broker, Listener::Tls, &["-t", "flows", "-X", "security.protocol=ssl"], b"nobody").is_err()
    );
    let words =
        ["sasl.mechanism=PLAIN", &format!("sasl.username={USER}"), &format!("sasl.password={PASSWORD}")]
            .map(String::from);
    let plain = ["-t", "flows", "-X", "security.protocol=sasl_ssl", "-X", &authority];
    let plain: Vec<&str> = plain.into_iter().chain(words.iter().flat_map(|word| ["-X", word])).collect();
    produce(&broker, Listener::Password, &plain, b"plain").unwrap();
    for (mechanism, password, taken) in [
        ("PLAIN", PASSWORD, true),
        ("SCRAM-SHA-512", PASSWORD, true),
        ("SCRAM-SHA-256", PASSWORD, true),
        ("SCRAM-SHA-512", "another", false),
    ] {
        assert_eq!(lists(&broker, mechanism, password), taken, "{mechanism} {password}");
    }
    let messages = broker.consume("flows");
    let mut found = payloads(&messages);
    found.sort_unstable();
    let mut sent: Vec<&[u8]> = vec![bytes, b"tls", b"mutual", b"plain"];
    sent.sort_unstable();
    assert_eq!(found, sent);
    let id = broker.process().id();
    drop(broker);
    assert!(!is_there(id));
}

#[test]
fn makes_no_topic_by_itself_and_keeps_to_a_topics_own_bounds() {
    need!(Kafka::installed());
    let mut broker = Kafka::start();
    broker.create_topic("small", 1, &[("max.message.bytes", "1000")]);
    produce(&broker, Listener::Plain, &["-t", "small"], &[b'a'; 800]).unwrap();
    assert!(
        produce(&broker, Listener::Plain, &["-t", "small"], &[b'a'; 1100]).unwrap_err().contains("too large")
    );
    let nowhere = ["-t", "nowhere", "-X", "topic.metadata.propagation.max.ms=500"];
    assert!(produce(&broker, Listener::Plain, &nowhere, b"a").unwrap_err().contains("Unknown topic"));
    assert_eq!(payloads(&broker.consume("small")), [[b'a'; 800]]);
    let twice =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| broker.create_topic("small", 1, &[])));
    assert!(twice.is_err(), "a topic is made once");
    broker.stop();
    assert!(!is_there(broker.process().id()));
}
