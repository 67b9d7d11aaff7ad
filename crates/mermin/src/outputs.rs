//! From `-o` and the configuration to exporters, and how the first line names them.

mod exchange;

pub(crate) use exchange::{Departing, Exchange, Opened};

use crate::Surroundings;
use crate::agent::{KubernetesView, View};
use crate::cli::{CommonArgs, ResultArgs};
use crate::config::{Config, lower};
use crate::exit::{Exit, Stop};
use mermin_enrich::{Chain, Cluster, ConntrackStatus, KubernetesError};
use mermin_export::ipfix::LedgerBoard;
use mermin_export::otlp::{AgentMetrics, Environment};
use mermin_export::{
    Agent, Color, ExportError, Materials, Open, OutputKind, OutputSpec, Plan, Target, build_all, check_all,
};
use mermin_flow::{Enricher, Exporter, Interval, ObservationPoints, WallClock};
use mermin_pipeline::DiskBuffer;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The outputs of a run.
pub(crate) struct Outputs {
    pub(crate) exporters: Vec<Box<dyn Exporter>>,
    /// Where their records wait on disk, by their names.
    pub(crate) buffers: HashMap<String, DiskBuffer>,
    /// For the log.
    pub(crate) warnings: Vec<String>,
    /// For the first line: `text to stdout`.
    pub(crate) description: String,
    /// Sends the agent's own metrics.
    pub(crate) agent_metrics: Option<AgentMetrics>,
    /// Where they ask for the agent's ledger.
    pub(crate) ledger: Arc<LedgerBoard>,
    /// What they were made from.
    pub(crate) opened: Vec<Opened>,
}

/// What outputs are made with, besides the configuration.
pub(crate) struct Workshop {
    pub(crate) results: ResultArgs,
    pub(crate) color: Color,
    pub(crate) points: Arc<ObservationPoints>,
    pub(crate) ledger: Arc<LedgerBoard>,
    pub(crate) environment: Vec<(String, String)>,
    /// Who sends; nobody in a replay.
    pub(crate) agent: Agent,
}

impl Workshop {
    pub(crate) fn new(
        results: &ResultArgs,
        common: &CommonArgs,
        points: &Arc<ObservationPoints>,
        surroundings: &Surroundings<'_>,
    ) -> Self {
        Self {
            results: results.clone(),
            color: common.color,
            points: Arc::clone(points),
            ledger: Arc::default(),
            environment: surroundings.environment.clone(),
            agent: Agent::default(),
        }
    }

    /// Of this agent.
    pub(crate) fn of_agent(self, agent: Agent) -> Self {
        Self { agent, ..self }
    }

    fn materials(&self, config: &Config) -> Materials {
        let (points, ledger, color) = (Arc::clone(&self.points), Arc::clone(&self.ledger), self.color);
        let agent = self.agent.clone();
        Materials { points, ledger, color, agent, ..materials(config, &self.environment) }
    }
}

/// Where records go to a collector, the agent's own figures may, too.
fn agent_metrics(specs: &[OutputSpec], materials: &Materials) -> Result<Option<AgentMetrics>, ExportError> {
    for spec in specs {
        if let Some(plan) = materials.plan(spec)?
            && let Some(metrics) = plan.open_agent_metrics()?
        {
            return Ok(Some(metrics));
        }
    }
    Ok(None)
}

impl Outputs {
    /// Opens what `-o` names; without it, what the configuration names.
    pub(crate) fn build(workshop: &Workshop, config: &Config) -> Result<Self, Stop> {
        let (specs, materials) = (specs(&workshop.results, config)?, workshop.materials(config));
        let points = &workshop.points;
        let mut opened: Vec<_> = specs.iter().map(|spec| Opened::of(spec.clone(), &materials)).collect();
        let (mut exporters, mut buffers, mut warnings) = (Vec::new(), HashMap::new(), Vec::new());
        for Open { spec, exporter, buffer } in
            build_all(&specs, &materials, |warning| warnings.push(warning)).map_err(|error| stop(&error))?
        {
            if let Some(spool) = buffer {
                let points = Arc::clone(points);
                buffers.insert(exporter.name().to_owned(), DiskBuffer { spool, points });
            }
            opened[spec].names.push(exporter.name().to_owned());
            exporters.push(exporter);
        }
        warnings.extend(specs.iter().filter_map(|spec| late_at_the_end(spec, &materials, config)));
        let description = describe(&specs, &materials).map_err(|error| stop(&error))?;
        let agent_metrics = agent_metrics(&specs, &materials).map_err(|error| stop(&error))?;
        let ledger = Arc::clone(&workshop.ledger);
        Ok(Self { exporters, buffers, warnings, description, agent_metrics, ledger, opened })
    }
}

/// Whether those that the configuration names could be opened; `warn` is told what should be known all the same.
pub(crate) fn check(
    config: &Config,
    environment: &[(String, String)],
    mut warn: impl FnMut(String),
) -> Result<(), Stop> {
    let (outputs, materials) = (config.export.outputs(), materials(config, environment));
    check_all(&outputs, &materials, &mut warn).map_err(|error| stop(&error))?;
    outputs.iter().filter_map(|spec| late_at_the_end(spec, &materials, config)).for_each(warn);
    Ok(())
}

/// That what comes last may not be delivered, where it waits for a batch about as long as the end of the run may take.
fn late_at_the_end(spec: &OutputSpec, materials: &Materials, config: &Config) -> Option<String> {
    let waits = materials.plan(spec).ok()??.longest_wait()?;
    let (wait, timeout) = (Interval(waits), config.pipeline.shutdown_timeout);
    // With a disk buffer a part of that time is for putting away what is left.
    (waits * 2 > timeout.0).then(|| {
        format!(
            "{}: the last records wait {wait} for their batch, and pipeline.shutdown_timeout is {timeout}: give it {} at least",
            spec.kind.name(),
            Interval(waits * 2)
        )
    })
}

fn materials(config: &Config, environment: &[(String, String)]) -> Materials {
    Materials {
        otlp: config.export.otlp.clone().unwrap_or_default(),
        ipfix: config.export.ipfix.clone().unwrap_or_default(),
        kafka: config.export.kafka.clone().unwrap_or_default(),
        environment: Environment::new(environment),
        disk_buffer: config.export.disk_buffer.clone(),
        ..Materials::default()
    }
}

/// What the configuration sends over a network, and where, as far as it is fine.
pub(crate) fn plans(config: &Config, environment: &[(String, String)]) -> Vec<Plan> {
    let materials = materials(config, environment);
    let plan = |spec: &OutputSpec| materials.plan(spec).ok().flatten();
    config.export.outputs().iter().filter_map(plan).collect()
}

/// What `-o` names; without it, what the configuration names.
fn specs(results: &ResultArgs, config: &Config) -> Result<Vec<OutputSpec>, Stop> {
    if results.outputs.is_empty() {
        return Ok(config.export.outputs());
    }
    let parse =
        |text: &String| OutputSpec::parse(text).map_err(|error| stop(&error).at(format!("--output {text}")));
    results.outputs.iter().map(parse).collect()
}

/// The files that records go to.
pub(crate) fn files(results: &ResultArgs, config: &Config) -> Result<Vec<PathBuf>, Stop> {
    let file = |spec: OutputSpec| match spec.target {
        Target::File { path, .. } => Some(path),
        Target::Stdout | Target::Receiver { .. } | Target::Nowhere => None,
    };
    Ok(specs(results, config)?.into_iter().filter_map(file).collect())
}

/// Whether records go to the log. An output that can't be is told of when the outputs are built.
pub(crate) fn to_log(results: &ResultArgs, config: &Config) -> bool {
    specs(results, config).is_ok_and(|specs| specs.iter().any(|spec| spec.kind == OutputKind::Log))
}

/// What adds names to records, and how its sources are.
pub(crate) struct Enriching {
    /// Nothing where the configuration has nothing to add.
    pub(crate) chain: Option<Arc<Chain>>,
    pub(crate) kubernetes: Option<View<KubernetesView>>,
    pub(crate) conntrack: Option<Arc<ConntrackStatus>>,
}

impl Enriching {
    /// From the configuration. `live`: packets of this host, timed by this clock.
    pub(crate) fn start(config: &Config, live: Option<&WallClock>) -> Result<Self, Stop> {
        let cluster = cluster(config, live.is_some())?;
        let chain = Chain::build(&config.enrich, cluster.as_ref(), &config.flow, live);
        let chain = chain.map_err(|error| no_cluster(&error))?.map(Arc::new);
        let kubernetes = chain.as_deref().and_then(Chain::kubernetes).cloned().map(KubernetesView::of);
        let conntrack = chain.as_deref().and_then(Chain::conntrack).cloned();
        Ok(Self { chain, kubernetes, conntrack })
    }

    /// What the pipeline goes by.
    pub(crate) fn enricher(&self) -> Option<Arc<dyn Enricher>> {
        self.chain.clone().map(|chain| chain as Arc<dyn Enricher>)
    }
}

/// The cluster whose API server is to be asked for names.
pub(crate) fn cluster(config: &Config, live: bool) -> Result<Option<Cluster>, Stop> {
    if !config.enrich.enabled {
        return Ok(None);
    }
    let environment = mermin_enrich::Environment::of_process();
    Cluster::find(&config.enrich.kubernetes, &environment, live).map_err(|error| no_cluster(&error))
}

pub(crate) fn no_cluster(error: &KubernetesError) -> Stop {
    Stop::new(Exit::Usage, error.to_string())
        .at(format!("enrich.kubernetes.{}", error.key()))
        .help(error.help())
}

fn describe(specs: &[OutputSpec], materials: &Materials) -> Result<String, ExportError> {
    let one = |spec: &OutputSpec| {
        Ok(match (&spec.target, spec.kind) {
            (Target::File { path, .. }, kind) => format!("{} to {}", kind.name(), path.display()),
            (Target::Stdout, kind) => format!("{} to stdout", kind.name()),
            (Target::Nowhere, OutputKind::Log) => "log events".to_owned(),
            _ => match materials.plan(spec)? {
                Some(plan) => plan.headline(),
                None => "none".to_owned(),
            },
        })
    };
    if specs.is_empty() {
        return Ok("none".to_owned());
    }
    Ok(specs.iter().map(one).collect::<Result<Vec<_>, ExportError>>()?.join(", "))
}

fn stop(error: &ExportError) -> Stop {
    let (exit, cause) = match error {
        ExportError::Open { source, .. }
        | ExportError::Stdout { source }
        | ExportError::BufferFolder { source, .. } => (Exit::Io, Some(source)),
        ExportError::BufferInUse { .. } => (Exit::Unavailable, None),
        ExportError::Runtime { source } => (Exit::Unavailable, Some(source)),
        _ => (Exit::Usage, None),
    };
    let cause = cause.map(|source| format!(": {}", lower(source))).unwrap_or_default();
    let mut stop = Stop::new(exit, format!("{error}{cause}"));
    if let Some(place) = error.place() {
        stop = stop.at(place);
    }
    match error.help() {
        Some(help) => stop.help(help),
        None => stop.help("choose another file, or another kind of output"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_named() {
        let specs: Vec<_> = ["text", "json:a.jsonl", "log", "otlp", "ipfix", "none"]
            .iter()
            .map(|text| OutputSpec::parse(text).unwrap())
            .collect();
        let described = |specs: &[OutputSpec]| describe(specs, &Materials::default()).unwrap();
        assert_eq!(
            described(&specs),
            "text to stdout, json to a.jsonl, log events, otlp traces to http://localhost:4317, ipfix to 127.0.0.1:4739 (UDP), none"
        );
        assert_eq!(described(&[]), "none");
        let elsewhere = OutputSpec::parse("otlp:https://c:1").unwrap();
        assert_eq!(described(&[elsewhere]), "otlp traces to https://c:1");
        let elsewhere = OutputSpec::parse("ipfix:[::1]:1").unwrap();
        assert_eq!(described(&[elsewhere]), "ipfix to [::1]:1 (UDP)");
    }

    /// Makes what `-o` names.
    pub(super) fn workshop(outputs: &[&str]) -> Workshop {
        let outputs = outputs.iter().map(|text| (*text).to_owned()).collect();
        let results = ResultArgs { outputs, stats: Some("stats.json".into()) };
        Workshop {
            results,
            color: Color::default(),
            points: Arc::default(),
            ledger: Arc::default(),
            environment: Vec::new(),
            agent: Agent::default(),
        }
    }

    #[test]
    fn o_replaces_the_configuration() {
        let mut config = Config::default();
        config.export.log = Some(mermin_export::LogConfig { enabled: true });
        let build = |outputs: &[&str]| Outputs::build(&workshop(outputs), &config);
        assert_eq!(build(&[]).map(|outputs| outputs.description).unwrap(), "log events");
        let logs = |outputs: &[&str]| {
            let outputs = outputs.iter().map(|text| (*text).to_owned()).collect();
            to_log(&ResultArgs { outputs, stats: None }, &config)
        };
        assert_eq!([logs(&[]), logs(&["none"]), logs(&["none", "log"])], [true, false, true]);
        assert_eq!(build(&["none"]).map(|outputs| outputs.description).unwrap(), "none");
        let exit = |outputs: &[&str]| build(outputs).err().map(|stop| stop.exit());
        assert_eq!(exit(&["xml"]), Some(Exit::Usage));
        assert_eq!(exit(&["none", "none"]), Some(Exit::Usage));
        assert_eq!(exit(&["otlp", "otlp:http://other:4317"]), Some(Exit::Usage));
        assert_eq!(exit(&["otlp:nonsense"]), Some(Exit::Usage));
        assert_eq!(exit(&["ipfix:non sense"]), Some(Exit::Usage));
        assert_eq!(exit(&["json:/nonexistent/folder/a"]), Some(Exit::Io));
    }
}
