//! What an error of librdkafka means for a record, or for all of them.

use rdkafka::types::RDKafkaErrorCode as Code;

/// Reasons in `dropped` of the book.
pub(super) const TOO_LARGE: &str = "too_large";
/// The brokers will never take this record.
pub(super) const REFUSED: &str = "refused";
/// There is no such topic.
pub(super) const NO_TOPIC: &str = "no_topic";
/// Brokers don't let the agent in, or not to the topic.
pub(super) const NO_ACCESS: &str = "no_access";
pub(super) const TOO_LATE: &str = "shutdown_timeout";

/// What became of a message that was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Dropped, for this reason.
    Dropped(&'static str),
    /// The batch that it was in is more than the topic takes.
    BatchTooLarge,
    /// Of its batch a record has a time that the broker does not take: this one or another.
    Untimely,
    /// Nothing was said about it that holds for ever: the client gave it back.
    Back,
}

impl Fate {
    /// Of a message whose delivery failed.
    pub(super) const fn of(code: Code) -> Self {
        match code {
            Code::MessageSizeTooLarge | Code::MessageBatchTooLarge => Self::BatchTooLarge,
            Code::InvalidTimestamp => Self::Untimely,
            Code::InvalidMessageSize => Self::Dropped(TOO_LARGE),
            Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
                Self::Dropped(NO_TOPIC)
            }
            // Rights may be on their way: see `Obstacle::of_message`.
            Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            // Another record of its batch is refused, and the batch with it.
            | Code::InvalidDifferentRecord
            // Where the idempotent producer can't go on, and where the client was told to let go of its messages.
            | Code::PurgeQueue
            | Code::PurgeInflight
            | Code::Fatal
            | Code::OutOfOrderSequenceNumber
            | Code::UnknownProducerId
            | Code::InvalidProducerEpoch
            | Code::ProducerFenced
            | Code::BrokerDestroy => Self::Back,
            _ => Self::Dropped(REFUSED),
        }
    }
}

/// What all records wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// A broker doesn't answer.
    Away(String),
    /// There is no connection to any, whyever.
    AllDown(String),
    /// Brokers answer, and let the agent not in.
    NoAccess(String),
}

impl Obstacle {
    /// Of an error that is about no single message, in words that say what to do. `None`: it concerns nobody.
    pub(super) fn of(code: Code, reason: &str) -> Option<Self> {
        let is_about_certificate = alert(reason).is_some_and(|number| CERTIFICATE_ALERTS.contains(&number));
        let reason = plain(reason);
        Some(match code {
            Code::Authentication | Code::SaslAuthenticationFailed => Self::NoAccess(format!(
                "brokers refuse the login, see export.kafka.sasl.username and password_file: {reason}"
            )),
            Code::SSL => Self::tls(&reason),
            // With TLS 1.3 a broker judges the agent's certificate when the session stands: its answer comes as one that can't be
            // read.
            Code::BrokerTransportFailure if is_about_certificate => Self::tls(&reason),
            Code::UnsupportedSASLMechanism => {
                Self::NoAccess(format!("brokers don't have export.kafka.sasl.mechanism: {reason}"))
            }
            Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => Self::NoAccess(format!(
                "brokers don't allow it, grant Write on the topic and IdempotentWrite on the cluster: {reason}"
            )),
            Code::AllBrokersDown => Self::AllDown(format!("no broker answers: {reason}")),
            Code::BrokerTransportFailure | Code::Resolve | Code::OperationTimedOut | Code::NodeUpdate => {
                Self::Away(reason)
            }
            _ => return None,
        })
    }

    fn tls(reason: &str) -> Self {
        Self::NoAccess(format!("TLS with a broker fails, see export.kafka.tls: {reason}"))
    }

    /// Of an error that a message came back with.
    pub(super) fn of_message(code: Code) -> Option<Self> {
        matches!(code, Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed)
            .then(|| Self::of(code, &code.to_string()))
            .flatten()
    }

    pub(super) fn why(&self) -> &str {
        let (Self::Away(why) | Self::AllDown(why) | Self::NoAccess(why)) = self;
        why
    }
}

/// Alerts by which a peer refuses a certificate, or wants one (RFC 8446 section 6): bad, unsupported, revoked, expired,
/// unknown, of an unknown authority, access denied, required. Others pass.
const CERTIFICATE_ALERTS: [u8; 8] = [42, 43, 44, 45, 46, 48, 49, 116];

/// The number of a TLS alert in OpenSSL's words.
fn alert(reason: &str) -> Option<u8> {
    let (_, number) = reason.split_once("SSL alert number ")?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Characters of a text from outside that are shown.
const TEXT_MAX: usize = 300;

/// On one line, and bounded. What librdkafka puts in front (`sasl_ssl://127.0.0.1:9094/bootstrap: `) stays: it names the broker.
fn plain(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let clean = clean.split_whitespace().collect::<Vec<_>>().join(" ");
    match clean.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}…", &clean[..end]),
        None => clean,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart_by_what_can_be_done() {
        for (code, fate) in [
            (Code::MessageSizeTooLarge, Fate::BatchTooLarge),
            (Code::UnknownTopic, Fate::Dropped(NO_TOPIC)),
            (Code::UnknownTopicOrPartition, Fate::Dropped(NO_TOPIC)),
            (Code::TopicAuthorizationFailed, Fate::Back),
            (Code::ClusterAuthorizationFailed, Fate::Back),
            (Code::InvalidDifferentRecord, Fate::Back),
            (Code::InvalidRecord, Fate::Dropped(REFUSED)),
            (Code::MessageBatchTooLarge, Fate::BatchTooLarge),
            (Code::InvalidTimestamp, Fate::Untimely),
            (Code::PolicyViolation, Fate::Dropped(REFUSED)),
            (Code::PurgeInflight, Fate::Back),
            (Code::Fatal, Fate::Back),
        ] {
            assert_eq!(Fate::of(code), fate, "{code:?}");
        }
    }

    #[test]
    fn an_obstacle_says_what_to_do() {
        let login = Obstacle::of(Code::Authentication, "sasl_ssl://b:9094/1:\n bad\tpassword").unwrap();
        assert!(matches!(login, Obstacle::NoAccess(_)));
        assert_eq!(
            login.why(),
            "brokers refuse the login, see export.kafka.sasl.username and password_file: sasl_ssl://b:9094/1: bad password"
        );
        let away = Obstacle::of(Code::AllBrokersDown, "1/1 brokers are down").unwrap();
        assert_eq!(away, Obstacle::AllDown("no broker answers: 1/1 brokers are down".to_owned()));
        let alert = "ssl://b:9093/1: Receive failed: error:0A000416:SSL routines::sslv3 alert certificate unknown: SSL alert number 46";
        let refused = Obstacle::of(Code::BrokerTransportFailure, alert).unwrap();
        assert!(matches!(&refused, Obstacle::NoAccess(why) if why.contains("see export.kafka.tls")));
        let away =
            Obstacle::of(Code::BrokerTransportFailure, "Receive failed: Connection reset by peer").unwrap();
        assert!(matches!(away, Obstacle::Away(_)));
        assert_eq!(Obstacle::of(Code::Fail, "x"), None);
        let denied = Obstacle::of_message(Code::TopicAuthorizationFailed).unwrap();
        assert!(matches!(&denied, Obstacle::NoAccess(why) if why.contains("grant Write on the topic")));
        assert_eq!(Obstacle::of_message(Code::PurgeInflight), None);
    }
}
