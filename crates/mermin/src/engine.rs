//! Runs a pipeline from its start to its summary, for every source alike.

use crate::Surroundings;
use crate::agent::{Agent, Views};
use crate::cli::ResultArgs;
use crate::config::{Config, in_sentence, lower};
use crate::exit::{Exit, Stop};
use crate::metrics::Reporting;
use crate::outputs::files;
use crate::server::{Bound, Serving};
use crate::signals::Asked;
use crate::summary::summary;
use mermin_export::otlp::AgentMetrics;
use mermin_export::resolved;
use mermin_flow::{Enricher, Exporter, ObservationPoints, Source};
use mermin_pipeline::{Hold, Outcome, Stages, Statistics};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// A live run that has seen no packet for this long says so.
const SILENCE: Duration = Duration::from_secs(10);

/// A run that is ready to start.
pub(crate) struct Plan<S> {
    /// `run`, `replay` or `demo`.
    pub(crate) command: &'static str,
    pub(crate) source: S,
    pub(crate) enricher: Option<Arc<dyn Enricher>>,
    pub(crate) exporters: Vec<Box<dyn Exporter>>,
    pub(crate) stats: Option<StatsFile>,
    /// Goes into flow ids; empty in a replay.
    pub(crate) agent_id: String,
    /// The first line on standard error, without program and version.
    pub(crate) headline: String,
    /// For the log, behind that line.
    pub(crate) warnings: Vec<String>,
    /// Whether a run without packets deserves a hint; names what is listened on.
    pub(crate) listens_on: Option<String>,
    pub(crate) end: End,
    pub(crate) points: Arc<ObservationPoints>,
    /// Who may ask how it goes.
    pub(crate) server: Option<Arc<Bound>>,
    /// What can be told besides the pipeline's figures.
    pub(crate) views: Views,
    /// Sends these figures to a collector.
    pub(crate) agent_metrics: Option<AgentMetrics>,
}

/// What ends a run, besides its source.
pub(crate) struct End {
    pub(crate) asked: Asked,
    pub(crate) after: Option<Duration>,
    /// Something else that has ended, asked several times a second.
    pub(crate) when: Box<dyn FnMut() -> bool>,
}

impl End {
    pub(crate) fn on_signal(asked: Asked) -> Self {
        Self { asked, after: None, when: Box::new(|| false) }
    }
}

/// Where the final statistics go, opened before anything runs.
pub(crate) enum StatsFile {
    StandardOutput,
    File(PathBuf, File),
}

impl StatsFile {
    pub(crate) fn open(results: &ResultArgs, config: &Config) -> Result<Option<Self>, Stop> {
        let Some(path) = &results.stats else { return Ok(None) };
        if path == Path::new("-") {
            return Ok(Some(Self::StandardOutput));
        }
        let place = format!("--stats {}", path.display());
        // A device or a pipe takes both, one after the other.
        let keeps_one = path.is_file() || !path.exists();
        if keeps_one && files(results, config)?.iter().any(|file| resolved(file) == resolved(path)) {
            return Err(Stop::new(Exit::Usage, "records and statistics would be written to one file")
                .at(place)
                .help("give the statistics a file of their own"));
        }
        let file = File::create(path).map_err(|error| {
            Stop::new(Exit::Io, format!("can't write the statistics: {}", lower(&error)))
                .at(place)
                .help("name a file in a folder that exists and that you may write to")
        })?;
        Ok(Some(Self::File(path.clone(), file)))
    }

    fn write(self, statistics: &Statistics, out: &mut dyn Write) -> Result<(), Stop> {
        let text = format!("{}\n", statistics.to_json(env!("CARGO_PKG_VERSION")));
        let (result, place) = match self {
            Self::StandardOutput => {
                (out.write_all(text.as_bytes()).and_then(|()| out.flush()), "--stats -".to_owned())
            }
            Self::File(path, mut file) => {
                (file.write_all(text.as_bytes()), format!("--stats {}", path.display()))
            }
        };
        result.map_err(|error| {
            Stop::new(Exit::Io, format!("can't write the statistics: {}", lower(&error))).at(place)
        })
    }
}

/// What is left of a run: the source and the final statistics.
pub(crate) struct Finished<S> {
    pub(crate) source: Option<S>,
    pub(crate) statistics: Statistics,
    pub(crate) exit: Exit,
}

/// Runs `plan` to its end and prints the summary.
pub(crate) fn drive<S: Source + 'static>(
    config: &Config,
    plan: Plan<S>,
    surroundings: &mut Surroundings<'_>,
) -> Result<Finished<S>, Stop> {
    let version = env!("CARGO_PKG_VERSION");
    drop(writeln!(surroundings.err, "mermin {version}: {}", plan.headline));
    plan.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let started = SystemTime::now();
    let stages = Stages {
        source: plan.source,
        enricher: plan.enricher.clone(),
        exporters: plan.exporters,
        output_queue_capacity: config.export.queue_capacity.get(),
        agent_id: plan.agent_id,
        hold: Hold::default(),
    };
    let running = mermin_pipeline::start(&config.pipeline, &config.flow, stages).map_err(|error| {
        Stop::new(Exit::Unavailable, error.to_string()).help("raise the limit of threads (ulimit -u)")
    })?;
    let observer = running.observer();
    let agent = Agent {
        command: plan.command,
        headline: plan.headline,
        started,
        observer: observer.clone(),
        table_capacity: config.flow.table_capacity.get() as u64,
        points: plan.points,
        enricher: plan.enricher,
        views: plan.views,
        looked: Mutex::default(),
    };
    let agent = Arc::new(agent);
    let reporting = plan.agent_metrics.map(|metrics| Reporting::start(metrics, &agent)).transpose()?;
    let serving = plan.server.map(|bound| Serving::start(bound, agent)).transpose()?;
    let started = Instant::now();
    let (mut end, mut listens_on) = (plan.end, plan.listens_on);
    let outcome = running.wait(|| {
        if listens_on.is_some() && started.elapsed() >= SILENCE {
            let names = listens_on.take().unwrap_or_default();
            if observer.packets() == 0 {
                tracing::info!(
                    "No packet has crossed {names} in {} seconds; `mermin demo` shows traffic of its own making",
                    SILENCE.as_secs()
                );
            }
        }
        end.asked.now() || end.after.is_some_and(|after| started.elapsed() >= after) || (end.when)()
    });
    drop((serving, reporting));
    finish(outcome, plan.stats, surroundings)
}

fn finish<S>(
    outcome: Outcome<S>,
    stats: Option<StatsFile>,
    surroundings: &mut Surroundings<'_>,
) -> Result<Finished<S>, Stop> {
    if !outcome.nobody_reads {
        drop(write!(surroundings.err, "{}", summary(&outcome.statistics)));
    }
    if let Some(stats) = stats {
        stats.write(&outcome.statistics, surroundings.out)?;
    }
    let mut exit = Exit::Fine;
    let mut say = |stop: Stop| {
        drop(writeln!(surroundings.err, "{stop}"));
        exit = stop.exit();
    };
    if outcome.source.is_none() && outcome.panicked.is_empty() {
        say(Stop::new(Exit::TimedOut, "the source did not answer before the shutdown timeout passed")
            .at("pipeline.shutdown_timeout")
            .help("what it had handed over is in the books; look at the device or the network that it reads from"));
    } else if outcome.timed_out {
        say(Stop::new(Exit::TimedOut, "the shutdown timeout passed with records undelivered")
            .at("pipeline.shutdown_timeout")
            .help("give it more time, for example --set pipeline.shutdown_timeout=30s"));
    }
    for failure in &outcome.failures {
        say(Stop::new(
            Exit::Io,
            format!("output {} failed: {}", failure.output, in_sentence(&failure.error)),
        )
        .help("its book above says how many records were lost, and why"));
    }
    for thread in &outcome.panicked {
        say(Stop::new(Exit::Software, format!("the thread {thread} panicked: a bug in mermin"))
            .help("please report it with the lines above and the input, if it can be shared"));
    }
    Ok(Finished { source: outcome.source, statistics: outcome.statistics, exit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_out_of_time_says_whom_it_waited_for() {
        let end = |source: Option<()>, panicked: &[&str]| {
            let outcome = Outcome {
                statistics: Statistics::default(),
                source,
                failures: Vec::new(),
                timed_out: true,
                nobody_reads: true,
                panicked: panicked.iter().map(|name| (*name).to_owned()).collect(),
            };
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut surroundings = Surroundings { environment: Vec::new(), out: &mut out, err: &mut err };
            let exit = finish(outcome, None, &mut surroundings).map(|finished| finished.exit).unwrap();
            (exit, String::from_utf8(err).unwrap())
        };
        let first = |text: &str| text.lines().next().unwrap_or_default().to_owned();
        let (exit, err) = end(None, &[]);
        assert_eq!(exit, Exit::TimedOut);
        assert_eq!(first(&err), "error: the source did not answer before the shutdown timeout passed");
        assert_eq!(err.matches("error: ").count(), 1, "{err}");
        let (exit, err) = end(Some(()), &[]);
        assert_eq!(exit, Exit::TimedOut);
        assert_eq!(first(&err), "error: the shutdown timeout passed with records undelivered");
        // A reader that panicked has left no source either, and that is another matter.
        let (exit, err) = end(None, &["reader"]);
        assert_eq!(exit, Exit::Software);
        assert!(!err.contains("did not answer"), "{err}");
    }
}
