//! The configuration in librdkafka's words
//! (<https://github.com/confluentinc/librdkafka/blob/v2.12.1/CONFIGURATION.md>).

use super::config::KafkaConfig;
use crate::secure::secret;
use rdkafka::ClientConfig;
use std::io;
use std::time::Duration;

/// Messages under way, those waiting for a batch among them: about half a kB each beside their bytes.
pub(super) const MESSAGES_MAX: usize = 65_536;
/// Their bytes, in kB.
const KILOBYTES_MAX: usize = 65_536;

/// How often librdkafka tells how requests go.
const STATISTICS: &str = "1000";

/// With batches of at most so many bytes, and this patience with a topic that isn't there. The password is read anew.
pub(super) fn client_config(
    config: &KafkaConfig,
    batch_bytes: u64,
    patience: Duration,
) -> io::Result<ClientConfig> {
    let mut client = ClientConfig::new();
    let mut set = |key: &str, value: &str| {
        client.set(key, value);
    };
    set("bootstrap.servers", &config.brokers.join(","));
    set("client.id", &config.client_id);
    // Once, in order, on all replicas that are in sync; tried until the end of the run.
    set("enable.idempotence", "true");
    set("acks", "all");
    set("message.timeout.ms", "0");
    // As Java's clients have it, so that other producers find the same partition for a key.
    set("partitioner", "murmur2_random");
    set("allow.auto.create.topics", "false");
    set("topic.metadata.propagation.max.ms", &patience.as_millis().to_string());
    set("compression.codec", config.compression.name());
    // A broker answers within 30 s that replicas have not (request.timeout.ms). While one says nothing at all and a batch waits
    // behind the one under way, librdkafka 2.12 goes round without rest until it gives the connection up.
    set("socket.timeout.ms", "35000");
    set("linger.ms", &config.batch.delay.0.as_millis().to_string());
    set("batch.num.messages", &config.batch.records.to_string());
    set("batch.size", &batch_bytes.to_string());
    set("message.max.bytes", &config.message_bytes.0.to_string());
    set("queue.buffering.max.messages", &MESSAGES_MAX.to_string());
    set("queue.buffering.max.kbytes", &KILOBYTES_MAX.to_string());
    set("reconnect.backoff.max.ms", "5000");
    set("statistics.interval.ms", STATISTICS);
    set(
        "security.protocol",
        match (&config.tls, &config.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        },
    );
    if let Some(tls) = &config.tls {
        let files = [
            ("ssl.ca.location", &tls.ca),
            ("ssl.certificate.location", &tls.cert),
            ("ssl.key.location", &tls.key),
        ];
        for (key, path) in files {
            if let Some(path) = path {
                set(key, &path.to_string_lossy());
            }
        }
        set("ssl.endpoint.identification.algorithm", "https");
    }
    if let Some(sasl) = &config.sasl {
        set("sasl.mechanism", sasl.mechanism.name());
        set("sasl.username", &sasl.username);
        set("sasl.password", &secret(&sasl.password_file)?);
    }
    Ok(client)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn settings(config: &str) -> HashMap<String, String> {
        let config: KafkaConfig = serde_json::from_str(config).unwrap();
        let client = client_config(&config, 1_000, Duration::from_secs(30)).unwrap();
        client.config_map().iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn no_record_comes_twice_or_is_given_up_and_no_topic_is_made() {
        let plain = settings("{}");
        for (key, value) in [
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("message.timeout.ms", "0"),
            ("allow.auto.create.topics", "false"),
            ("partitioner", "murmur2_random"),
            ("security.protocol", "plaintext"),
            ("compression.codec", "lz4"),
            ("linger.ms", "1000"),
            ("socket.timeout.ms", "35000"),
            ("batch.size", "1000"),
        ] {
            assert_eq!(plain[key], value, "{key}");
        }
        assert!(!plain.contains_key("sasl.password"));
    }

    #[test]
    fn presence_switches_tls_and_login_on() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), " secret\n").unwrap();
        let sasl = format!(r#""sasl": {{"username": "u", "password_file": {:?}}}"#, file.path());
        let both = settings(&format!(r#"{{"tls": {{"ca": "/ca.pem"}}, {sasl}}}"#));
        for (key, value) in [
            ("security.protocol", "sasl_ssl"),
            ("ssl.ca.location", "/ca.pem"),
            ("ssl.endpoint.identification.algorithm", "https"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
        ] {
            assert_eq!(both[key], value, "{key}");
        }
        let config: KafkaConfig = serde_json::from_str(&format!("{{{sasl}}}")).unwrap();
        let client = client_config(&config, 1_000, Duration::from_secs(30)).unwrap();
        assert_eq!(client.get("sasl.password"), Some("secret"), "without white space");
        assert!(!format!("{client:?}").contains("secret"));
        assert_eq!(settings(&format!("{{{sasl}}}"))["security.protocol"], "sasl_plaintext");
        assert_eq!(settings(r#"{"tls": {}}"#)["security.protocol"], "ssl");
    }
}
