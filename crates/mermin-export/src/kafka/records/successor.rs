//! Another client with the files that are there now: a certificate or a password was renewed.

use super::super::client::Client;
use super::super::config::KafkaConfig;
use super::Records;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// How long messages may take to arrive until the other client takes the place of theirs. Less than after which a call is slow.
const PATIENCE: Duration = Duration::from_secs(4);

/// Between two looks at the files.
const INTERVAL: Duration = Duration::from_secs(5);

/// Those that a client is made of.
pub(super) fn files(config: &KafkaConfig) -> impl Iterator<Item = &PathBuf> {
    let tls = config.tls.iter().flat_map(|tls| [&tls.ca, &tls.cert, &tls.key]).flatten();
    tls.chain(config.sasl.iter().map(|sasl| &sasl.password_file))
}

/// A client that waits for the messages of the one before.
pub(super) struct Successor {
    pub(super) client: Client,
    since: Instant,
}

impl Records {
    /// Makes one, where files have changed and one can be made of them: a certificate may be there before its key.
    pub(super) fn follow_files(&mut self) {
        if self.looked.elapsed() < INTERVAL {
            return;
        }
        self.looked = Instant::now();
        if !self.files.have_changed() {
            return;
        }
        match Client::new(&self.config, self.batch_bytes, self.patience, &self.delivery) {
            Ok(client) => {
                info!("kafka: goes on with the certificates and the password that are there now");
                self.successor = Some(Successor { client, since: Instant::now() });
            }
            Err(error) => {
                warn!(
                    "kafka: no client can be made of the files that are there now: {error}; it goes on with those before"
                );
            }
        }
    }

    /// Nothing is under way any more, or brokers refuse it, or it takes too long.
    pub(super) fn is_successor_due(&self) -> bool {
        self.successor.as_ref().is_some_and(|successor| {
            self.client.under_way() == 0 || self.refused.is_some() || successor.since.elapsed() >= PATIENCE
        })
    }
}
