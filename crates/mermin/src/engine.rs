//! Runs a pipeline from its start to its summary, for every source alike.

use crate::Surroundings;
use crate::agent::{Agent, Means, Present, Views};
use crate::cli::ResultArgs;
use crate::config::{Config, in_sentence, lower};
use crate::exit::{Exit, Stop};
use crate::metrics::{Reporter, Reporting};
use crate::outputs::files;
use crate::reload::{Reload, Reloads};
use crate::server::{Bound, Serving};
use crate::signals::Asked;
use crate::summary::summary;
use mermin_export::ipfix::{LedgerBoard, LedgerFigures};
use mermin_export::otlp::AgentMetrics;
use mermin_export::resolved;
use mermin_flow::{Enricher, Exporter, Loss, ObservationPoints, QUARANTINE, Source, Tally};
use mermin_pipeline::{DiskBuffer, Hold, Ledger, Outcome, RunJournal, Stages, Statistics};
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A live run that has seen no packet for this long says so.
const SILENCE: Duration = Duration::from_secs(10);

/// A run that is ready to start.
pub(crate) struct Plan<S> {
    /// `run`, `replay` or `demo`.
    pub(crate) command: &'static str,
    pub(crate) source: S,
    pub(crate) enricher: Option<Arc<dyn Enricher>>,
    pub(crate) exporters: Vec<Box<dyn Exporter>>,
    /// Where their records wait on disk.
    pub(crate) buffers: HashMap<String, DiskBuffer>,
    pub(crate) stats: Option<StatsFile>,
    /// Goes into flow ids; empty in a replay.
    pub(crate) agent_id: String,
    /// Where what is in memory is written down.
    pub(crate) journal: Option<RunJournal>,
    /// Bytes of memory that are not among the resident ones, less those that are counted twice there.
    pub(crate) beside_resident: i64,
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
    /// Where outputs ask for the ledger.
    pub(crate) ledger: Arc<LedgerBoard>,
    /// Reads its configuration again when it is asked to.
    pub(crate) reload: Option<Reload>,
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

    fn write(self, statistics: &Statistics, means: &Means, out: &mut dyn Write) -> Result<(), Stop> {
        let mut json = statistics.to_json(env!("CARGO_PKG_VERSION"));
        means.tell(&mut json);
        let text = format!("{json}\n");
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
    let started = Instant::now();
    let stages = Stages {
        source: plan.source,
        enricher: plan.enricher.clone(),
        exporters: plan.exporters,
        buffers: plan.buffers,
        output_queue_capacity: config.export.queue_capacity.get(),
        agent_id: plan.agent_id,
        journal: plan.journal,
        budget: config.resources.budget(plan.beside_resident),
        hold: Hold::default(),
    };
    let running = mermin_pipeline::start(&config.pipeline, &config.flow, stages).map_err(|error| {
        Stop::new(Exit::Unavailable, error.to_string()).help("raise the limit of threads (ulimit -u)")
    })?;
    let (observer, present) = (running.observer(), Arc::new(Present::of(config, plan.command)));
    let reloads = plan.reload.is_some().then(|| Arc::new(Reloads::new(config.clone())));
    let agent = Agent {
        command: plan.command,
        headline: Mutex::new(plan.headline),
        started,
        observer: observer.clone(),
        points: plan.points,
        enricher: plan.enricher,
        present: Arc::clone(&present),
        reloads: reloads.clone(),
        views: plan.views,
        looked: Mutex::default(),
    };
    let agent = Arc::new(agent);
    let reporting = plan.agent_metrics.map(|metrics| Reporting::start(metrics, &agent)).transpose()?;
    let reporter = Reporter::new(Mutex::new(reporting));
    let serving = plan.server.map(|bound| Serving::start(bound, Arc::clone(&agent))).transpose()?;
    let reloading = match (plan.reload, &reloads) {
        (Some(reload), Some(reloads)) => {
            Some(reload.start(reloads, Arc::clone(&agent), running.tuning(), Arc::clone(&reporter))?)
        }
        _ => None,
    };
    let started = Instant::now();
    let (mut end, mut listens_on, ledger) = (plan.end, plan.listens_on, plan.ledger);
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
        if ledger.was_asked() {
            ledger.put(figures(&agent.statistics().0.ledger));
        }
        end.asked.now() || end.after.is_some_and(|after| started.elapsed() >= after) || (end.when)()
    });
    let reporting = reporter.lock().unwrap_or_else(PoisonError::into_inner).take();
    drop((serving, reporting, reloading));
    let means = present.means();
    finish(outcome, plan.stats.map(|stats| (stats, &means)), surroundings)
}

/// What outputs tell of the ledger.
fn figures(ledger: &Ledger) -> LedgerFigures {
    let term = |tally: Tally| [tally.packets, tally.bytes];
    LedgerFigures {
        seen: term(ledger.seen),
        metered: term(ledger.metered),
        secondary: term(ledger.secondary),
        unmetered: term(ledger.unmetered.values().copied().sum()),
        filtered: term(ledger.filtered.values().copied().sum()),
        sampled_out: term(ledger.sampled_out),
        lost: term(ledger.lost.values().copied().sum()),
    }
}

fn finish<S>(
    outcome: Outcome<S>,
    stats: Option<(StatsFile, &Means)>,
    surroundings: &mut Surroundings<'_>,
) -> Result<Finished<S>, Stop> {
    if !outcome.nobody_reads {
        drop(write!(surroundings.err, "{}", summary(&outcome.statistics)));
    }
    if let Some((stats, means)) = stats {
        stats.write(&outcome.statistics, means, surroundings.out)?;
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
    let given_up = outcome.statistics.ledger.lost.get(Loss::WorkerQuarantine.name());
    if let Some(given_up) = given_up {
        let n = given_up.packets;
        let packets = if n == 1 { "1 packet".to_owned() } else { format!("{n} packets") };
        say(Stop::new(Exit::Software, format!("{packets} could not be metered: a bug in mermin"))
            .help("they stand in lost.worker_quarantine; please report it with the lines above"));
    }
    // Also of outputs that were removed: a bug is to be told of.
    for (output, book) in &outcome.statistics.outputs {
        if let Some(given_up) = book.dropped.get(QUARANTINE) {
            let n = given_up.records;
            let records = if n == 1 { "1 record".to_owned() } else { format!("{n} records") };
            say(Stop::new(
                Exit::Software,
                format!("output {output} could not take {records}: a bug in mermin"),
            )
            .help("they stand in its dropped.quarantine; please report it with the lines above"));
        }
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
    use mermin_flow::Amount;
    use mermin_pipeline::OutputBook;

    /// An end like this one: the exit code, and what is said.
    fn end(outcome: Outcome<()>) -> (Exit, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut surroundings = Surroundings { environment: Vec::new(), out: &mut out, err: &mut err };
        let exit = finish(outcome, None, &mut surroundings).map(|finished| finished.exit).unwrap();
        (exit, String::from_utf8(err).unwrap())
    }

    /// All came to its end.
    fn in_order(statistics: Statistics) -> Outcome<()> {
        Outcome {
            statistics,
            source: Some(()),
            failures: Vec::new(),
            timed_out: false,
            nobody_reads: true,
            panicked: Vec::new(),
        }
    }

    #[test]
    fn what_could_not_be_metered_is_a_bug_and_said_to_be_one() {
        for (packets, said) in [(1, "1 packet could not"), (3, "3 packets could not")] {
            let mut statistics = Statistics::default();
            let given_up = Tally { packets, ..Tally::ZERO };
            statistics.ledger.lost.insert(Loss::WorkerQuarantine.name(), given_up);
            let (exit, err) = end(in_order(statistics));
            assert_eq!(exit, Exit::Software);
            assert!(err.starts_with(&format!("error: {said} be metered: a bug in mermin\n")), "{err}");
        }
    }

    #[test]
    fn records_that_an_output_could_not_take_are_a_bug_too() {
        for (records, said) in [(1, "1 record"), (2, "2 records")] {
            let given_up = Amount { records, packets: 9, bytes: 900 };
            let book = OutputBook { dropped: [(QUARANTINE, given_up)].into(), ..OutputBook::default() };
            let statistics = Statistics { outputs: vec![("json".to_owned(), book)], ..Statistics::default() };
            let (exit, err) = end(in_order(statistics));
            assert_eq!(exit, Exit::Software);
            let said = format!("error: output json could not take {said}: a bug in mermin\n");
            assert!(err.starts_with(&said), "{err}");
        }
    }

    #[test]
    fn an_end_out_of_time_says_whom_it_waited_for() {
        let end = |source: Option<()>, panicked: &[&str]| {
            let panicked = panicked.iter().map(|name| (*name).to_owned()).collect();
            end(Outcome { source, panicked, timed_out: true, ..in_order(Statistics::default()) })
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
