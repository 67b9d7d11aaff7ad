//! Outputs that send records over a network: the settings of each, and what comes of them, before anything is sent.

use crate::agent::Agent;
use crate::buffer::BufferKind;
use crate::error::ExportError;
use crate::ipfix::{IpfixConfig, IpfixPlan, LedgerBoard};
use crate::kafka::{KafkaConfig, KafkaPlan};
use crate::otlp::{AgentMetrics, Environment, OtlpConfig, OtlpPlan};
use mermin_flow::{Exporter, ObservationPoints};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The settings of an output that has a receiver, as the configuration and `-o` have them together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiverConfig {
    /// An OpenTelemetry collector's.
    Otlp(Box<OtlpConfig>),
    /// An IPFIX collector's.
    Ipfix(Box<IpfixConfig>),
    /// A Kafka topic's.
    Kafka(Box<KafkaConfig>),
}

impl ReceiverConfig {
    /// Where its records wait.
    #[must_use]
    pub fn buffer(&self) -> BufferKind {
        match self {
            Self::Otlp(config) => config.buffer,
            Self::Ipfix(config) => config.buffer,
            Self::Kafka(config) => config.buffer,
        }
    }

    /// Checks it as a whole; connects to nothing.
    ///
    /// # Errors
    /// [`ExportError::Setting`], with the key or variable to blame.
    pub fn plan(&self, environment: &Environment) -> Result<Plan, ExportError> {
        match self {
            Self::Otlp(config) => OtlpPlan::new(config, environment).map(Box::new).map(Plan::Otlp),
            Self::Ipfix(config) => IpfixPlan::new(config).map(Box::new).map(Plan::Ipfix),
            Self::Kafka(config) => {
                KafkaPlan::new(config, environment.node_name()).map(Box::new).map(Plan::Kafka)
            }
        }
    }
}

/// What would be sent, and where.
#[derive(Clone, Debug)]
pub enum Plan {
    /// To an OpenTelemetry collector.
    Otlp(Box<OtlpPlan>),
    /// To an IPFIX collector.
    Ipfix(Box<IpfixPlan>),
    /// To a Kafka topic.
    Kafka(Box<KafkaPlan>),
}

impl Plan {
    /// What users call it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Otlp(_) => "otlp",
            Self::Ipfix(_) => "ipfix",
            Self::Kafka(_) => "kafka",
        }
    }

    /// How long a record may wait for others until it is sent, also at the end of a run.
    #[must_use]
    pub fn longest_wait(&self) -> Option<Duration> {
        match self {
            Self::Otlp(_) | Self::Ipfix(_) => None,
            Self::Kafka(plan) => Some(plan.delay()),
        }
    }

    /// For the first line: `otlp traces to http://localhost:4317`.
    #[must_use]
    pub fn headline(&self) -> String {
        match self {
            Self::Otlp(plan) => plan.headline(),
            Self::Ipfix(plan) => plan.headline(),
            Self::Kafka(plan) => plan.headline(),
        }
    }

    /// Lines that say how records are sent, without anything secret.
    #[must_use]
    pub fn descriptions(&self) -> Vec<String> {
        match self {
            Self::Otlp(plan) => plan.descriptions(),
            Self::Ipfix(plan) => plan.descriptions(),
            Self::Kafka(plan) => plan.descriptions(),
        }
    }

    /// What is said once of all records; nothing where the form has no room for it.
    #[must_use]
    pub fn resource(&self) -> BTreeMap<String, String> {
        match self {
            Self::Otlp(plan) => plan.resource().clone(),
            Self::Kafka(_) | Self::Ipfix(_) => BTreeMap::new(),
        }
    }

    /// The outputs of this agent: one, or several where records are sent in several forms.
    ///
    /// # Errors
    /// [`ExportError`].
    pub fn open(
        &self,
        points: &Arc<ObservationPoints>,
        ledger: &Arc<LedgerBoard>,
        agent: &Agent,
    ) -> Result<Vec<Box<dyn Exporter>>, ExportError> {
        match self {
            Self::Otlp(plan) => plan.open(points),
            Self::Ipfix(plan) => Ok(vec![plan.open(points, ledger)]),
            Self::Kafka(plan) => plan.open(points, agent),
        }
    }

    /// The sender of the agent's own metrics, where they are wanted and the receiver takes any.
    ///
    /// # Errors
    /// [`ExportError::Runtime`].
    pub fn open_agent_metrics(&self) -> Result<Option<AgentMetrics>, ExportError> {
        match self {
            Self::Otlp(plan) => plan.open_agent_metrics(),
            Self::Kafka(_) | Self::Ipfix(_) => Ok(None),
        }
    }
}
