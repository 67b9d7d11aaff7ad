//! From the configuration to outputs: checked as a whole, described for people, then opened.

use super::agent::AgentMetrics;
use super::config::{OtlpConfig, OtlpSignal};
use super::encode::{Encode, Envelope, Logs, Spans};
use super::environment::Environment;
use super::metrics::{Aggregate, Metrics};
use super::records::Records;
use super::resource;
use super::settings::{Settings, Sums, problem};
use super::transport::Transport;
use crate::buffer::BufferKind;
use crate::error::ExportError;
use mermin_flow::{Delivery, Exporter, ObservationPoints};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What would be sent, and where.
#[derive(Clone, Debug)]
pub struct OtlpPlan {
    config: OtlpConfig,
    signals: Vec<Settings>,
    /// How the agent's own metrics are sent.
    agent: Option<Settings>,
    sums: Sums,
    resource: BTreeMap<String, String>,
}

impl OtlpPlan {
    /// Of the configuration and OpenTelemetry's variables; connects to nothing.
    ///
    /// # Errors
    /// [`ExportError::Setting`], with the key or variable to blame.
    pub fn new(config: &OtlpConfig, environment: &Environment) -> Result<Self, ExportError> {
        if config.signals.is_empty() {
            return Err(problem(
                "export.otlp.signals",
                "there is nothing to send",
                "name one of traces, logs and metrics, or switch the output off: export.otlp.enabled: false",
            ));
        }
        if config.buffer == BufferKind::Disk && config.signals == [OtlpSignal::Metrics] {
            return Err(problem(
                "export.otlp.buffer",
                "`metrics` sums records up in memory: nothing of it waits on disk",
                "leave `buffer` out, or send traces or logs, too",
            ));
        }
        let mut signals = Vec::new();
        for (place, signal) in config.signals.iter().enumerate() {
            if config.signals[..place].contains(signal) {
                let what = format!("`{}` is there twice", signal.name());
                return Err(problem("export.otlp.signals", what, "name it once"));
            }
            let settings = Settings::of(*signal, config, environment)?;
            if settings.is_secure() {
                settings.tls.config()?;
            }
            signals.push(settings);
        }
        super::metrics::Choice::of(&config.metrics.attributes)?;
        let agent = config.agent_metrics.then(|| Settings::of(OtlpSignal::Metrics, config, environment));
        let agent = agent.transpose()?;
        Ok(Self {
            config: config.clone(),
            signals,
            agent,
            sums: Sums::of(config, environment)?,
            resource: resource::attributes(config, environment)?,
        })
    }

    /// For the first line: `otlp traces to http://localhost:4317`.
    #[must_use]
    pub fn headline(&self) -> String {
        let mut parts: Vec<(Vec<&str>, &str)> = Vec::new();
        for settings in &self.signals {
            match parts.iter_mut().find(|(_, endpoint)| *endpoint == settings.endpoint) {
                Some((signals, _)) => signals.push(settings.signal.name()),
                None => parts.push((vec![settings.signal.name()], &settings.endpoint)),
            }
        }
        let part =
            |(signals, endpoint): &(Vec<&str>, &str)| format!("otlp {} to {endpoint}", signals.join(" and "));
        parts.iter().map(part).collect::<Vec<_>>().join(", ")
    }

    /// A line for each signal: how it is sent, without anything secret.
    #[must_use]
    pub fn descriptions(&self) -> Vec<String> {
        self.signals.iter().map(Settings::describe).collect()
    }

    /// The resource's attributes.
    #[must_use]
    pub fn resource(&self) -> &BTreeMap<String, String> {
        &self.resource
    }

    /// An output for each signal.
    ///
    /// # Errors
    /// [`ExportError::Setting`], as in [`OtlpPlan::new`]; [`ExportError::Runtime`].
    pub fn open(&self, points: &Arc<ObservationPoints>) -> Result<Vec<Box<dyn Exporter>>, ExportError> {
        self.signals.iter().map(|settings| self.open_one(settings, points)).collect()
    }

    /// The sender of the agent's own metrics, where they are wanted.
    ///
    /// # Errors
    /// [`ExportError::Runtime`].
    pub fn open_agent_metrics(&self) -> Result<Option<AgentMetrics>, ExportError> {
        let Some(settings) = &self.agent else { return Ok(None) };
        let transport =
            Transport::new("otlp:agent".to_owned(), settings.clone(), Arc::new(Delivery::default()))?;
        let envelope = Envelope::new(&resource::resource(&self.resource));
        let metrics = AgentMetrics::new(transport, envelope, self.sums.interval);
        metrics.map(Some).map_err(|source| ExportError::Runtime { source })
    }

    fn open_one(
        &self,
        settings: &Settings,
        points: &Arc<ObservationPoints>,
    ) -> Result<Box<dyn Exporter>, ExportError> {
        let name = format!("otlp:{}", settings.signal.name());
        let transport = Transport::new(name.clone(), settings.clone(), Arc::new(Delivery::default()))?;
        let envelope = Envelope::new(&resource::resource(&self.resource));
        let points = Arc::clone(points);
        match settings.signal {
            OtlpSignal::Traces => self.records(name, Spans::new(points), transport, envelope),
            OtlpSignal::Logs => self.records(name, Logs::new(points), transport, envelope),
            OtlpSignal::Metrics => {
                let aggregate = Aggregate::new(&self.config.metrics, self.sums.temporality, points)?;
                let metrics = Metrics::new(name, aggregate, &self.config, self.sums, transport, envelope);
                Ok(Box::new(metrics.map_err(|source| ExportError::Runtime { source })?))
            }
        }
    }

    fn records(
        &self,
        name: String,
        encoder: impl Encode + 'static,
        transport: Transport,
        envelope: Envelope,
    ) -> Result<Box<dyn Exporter>, ExportError> {
        let records = Records::new(name, encoder, &self.config, transport, envelope);
        Ok(Box::new(records.map_err(|source| ExportError::Runtime { source })?))
    }
}
