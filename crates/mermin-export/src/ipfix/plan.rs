//! From the configuration to an output: checked as a whole, described for people, then opened.

use super::config::{IpfixConfig, IpfixDirections, IpfixTransport, IpfixVersion};
use super::exporter::Ipfix;
use super::ledger::LedgerBoard;
use super::settings::Settings;
use crate::error::ExportError;
use mermin_flow::{Exporter, ObservationPoints};
use std::sync::Arc;

/// What would be sent, and where.
#[derive(Clone, Debug)]
pub struct IpfixPlan {
    settings: Settings,
}

impl IpfixPlan {
    /// Of the configuration; connects to nothing.
    ///
    /// # Errors
    /// [`ExportError::Setting`], with the key to blame.
    pub fn new(config: &IpfixConfig) -> Result<Self, ExportError> {
        Ok(Self { settings: Settings::of(config)? })
    }

    /// For the first line: `ipfix to 127.0.0.1:4739 (UDP)`.
    #[must_use]
    pub fn headline(&self) -> String {
        format!("{} to {} ({})", self.version(), self.settings.collector(), self.settings.way())
    }

    fn version(&self) -> &'static str {
        match self.settings.version {
            IpfixVersion::Ipfix => "ipfix",
            IpfixVersion::Netflow9 => "netflow9",
        }
    }

    /// Lines that say how records are sent.
    #[must_use]
    pub fn descriptions(&self) -> Vec<String> {
        let settings = &self.settings;
        let directions = match settings.directions {
            IpfixDirections::Both => "both directions in a record",
            IpfixDirections::Each => "a record for each direction",
        };
        let mut first = format!("{}, {directions}, observation domain {}", self.headline(), settings.domain);
        if settings.version == IpfixVersion::Ipfix {
            first = format!("{first}, enterprise number {}", settings.enterprise);
        }
        let mut second = format!("messages of at most {} bytes", settings.message);
        if settings.transport == IpfixTransport::Udp {
            second = format!(
                "{second} and of what the path takes, {} a second, templates again every {}",
                settings.rate,
                mermin_flow::Interval(settings.template_refresh)
            );
        }
        let tls = settings.tls.as_ref().and_then(|files| files.describe(true));
        [first, second].into_iter().chain(tls).collect()
    }

    /// The output. It connects when it has something to send.
    #[must_use]
    pub fn open(&self, points: &Arc<ObservationPoints>, ledger: &Arc<LedgerBoard>) -> Box<dyn Exporter> {
        let (points, ledger) = (Arc::clone(points), Arc::clone(ledger));
        Box::new(Ipfix::new("ipfix".to_owned(), self.settings.clone(), points, ledger))
    }
}
