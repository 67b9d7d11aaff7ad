//! Reading the configuration again while the agent runs.
//!
//! The same inputs are read as at the start and checked as a whole. When anything is wrong nothing is changed. Otherwise the
//! keys that differ from what the run goes by are sorted by one table (`keys.rs`) into those that count at once and those
//! that need a restart; the former are applied, the latter named each time until there is a restart or they are taken
//! back. Why it is a signal that asks for it: `docs/design/0018-reload.md`.
//!
//! A thread of its own does it, one at a time: files may be slow, and nothing else waits for them.

mod command;
mod hangup;
mod keys;
mod outlets;
mod told;

pub(crate) use command::reload;
pub(crate) use hangup::Hangups;
pub use keys::reload_page;
pub(crate) use outlets::Outlets;
pub(crate) use told::{Reloads, Told, Verdict};

use crate::agent::Agent;
use crate::config::{Config, Difference, Inputs, differences, load};
use crate::exit::{Exit, Stop};
use crate::logging;
use crate::metrics::Reporter;
use hangup::Waker;
use keys::When;
use mermin_capture::interfaces::Selection;
use mermin_capture::links::Links;
use mermin_enrich::Chain;
use mermin_pipeline::Tuning;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::SystemTime;
use tracing::{error, info, warn};

type Check = Box<dyn Fn(&Config, &Config) -> Result<(), Stop> + Send>;

/// What a live run needs to read its configuration again.
pub(crate) struct Reload {
    /// As at the start.
    pub(crate) inputs: Inputs,
    pub(crate) hangups: Hangups,
    /// Whether a run that goes by the first could go by the second, as far as that can be told.
    pub(crate) check: Check,
    pub(crate) hands: Hands,
}

/// Where a reload reaches besides the pipeline.
pub(crate) struct Hands {
    pub(crate) links: Arc<Links>,
    pub(crate) chain: Option<Arc<Chain>>,
    pub(crate) outputs: Outlets,
}

/// The thread. Letting go of it ends it, but doesn't wait for a file that is slow.
pub(crate) struct Reloading {
    over: Arc<AtomicBool>,
    waker: Waker,
}

impl Drop for Reloading {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        self.waker.wake();
    }
}

struct Work {
    reload: Reload,
    /// What the run began with.
    started: Config,
    reloads: Arc<Reloads>,
    agent: Arc<Agent>,
    tuning: Tuning,
    reporter: Reporter,
    over: Arc<AtomicBool>,
}

impl Reload {
    /// From now on, what was asked for meanwhile first.
    pub(crate) fn start(
        self,
        reloads: &Arc<Reloads>,
        agent: Arc<Agent>,
        tuning: Tuning,
        reporter: Reporter,
    ) -> Result<Reloading, Stop> {
        let over = Arc::new(AtomicBool::new(false));
        let reloading = Reloading { over: Arc::clone(&over), waker: self.hangups.waker.clone() };
        let reloads = Arc::clone(reloads);
        let started = reloads.running();
        let work = Work { reload: self, started, reloads, agent, tuning, reporter, over };
        let failed = |error| Stop::new(Exit::Unavailable, format!("can't start a thread: {error}"));
        thread::Builder::new().name("reload".to_owned()).spawn(move || work.run()).map_err(failed)?;
        Ok(reloading)
    }
}

impl Work {
    fn run(self) {
        while self.reload.hangups.woken.recv().is_ok() && !self.is_over() {
            // Its message is in the log by then.
            if catch_unwind(AssertUnwindSafe(|| self.once())).is_err() {
                error!("Reading the configuration again has panicked: a bug. It can be asked for again");
            }
        }
    }

    /// Whether the run is ending: then nothing is changed any more.
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire) || self.agent.pulse().ending
    }

    fn once(&self) {
        let running = self.reloads.running();
        let read = self.read(&running);
        if self.is_over() {
            return;
        }
        let plan = read.and_then(|config| {
            let is_heeded = |key: &str| self.reload.hands.outputs.workshop.heeds(key);
            let reaches = |key: &str| self.reaches(key, (&running, &config));
            let plan = Plan::of(&running, &config, is_heeded, reaches)?;
            // First: all else can't fail.
            Ok(self.exchange_outputs(&plan.config)?.then_some(plan))
        });
        match plan {
            // The run is ending.
            Ok(None) => {}
            Err(stop) => {
                let told = Told::refused(&stop);
                warn!("{}", told.sentence());
                problems(&stop).iter().for_each(|problem| warn!("{problem}"));
                self.reloads.note(told, None);
            }
            Ok(Some(plan)) => {
                let told = plan.told();
                // Before, where it would not be seen after.
                let quieter = plan.config.log_level < running.log_level;
                if quieter {
                    info!("{}", told.sentence());
                }
                self.apply(&running, &plan.config);
                if !quieter {
                    info!("{}", told.sentence());
                }
                self.reloads.note(told, Some(plan.config));
            }
        }
    }

    fn read(&self, running: &Config) -> Result<Config, Stop> {
        let config = load(&self.reload.inputs)?;
        (self.reload.check)(running, &config)?;
        Ok(config)
    }

    /// Whether this run has what it takes to change a key that can be changed.
    fn reaches(&self, key: &str, (running, config): (&Config, &Config)) -> bool {
        let is_within = |bound: fn(&Config) -> NonZeroUsize| {
            self.tuning.may_raise_bounds() || bound(config) <= bound(&self.started)
        };
        match key {
            "flow.table_capacity" => is_within(|config| config.flow.table_capacity),
            "pipeline.coalescing_capacity" => is_within(|config| config.pipeline.coalescing_capacity),
            "export.queue_capacity" => is_within(|config| config.export.queue_capacity),
            "pipeline.enrichment_workers" => {
                self.tuning.has_room_for_enrichment(config.pipeline.enrichment_workers)
            }
            "pipeline.flow_workers" => self.tuning.has_room_for(config.pipeline.flow_workers),
            "enrich.names" => self.reload.hands.chain.is_some(),
            _ => !outlets::takes_a_restart(key, &running.export, &config.export),
        }
    }

    /// Has everything that can be changed be as `config` says. What is so already stays.
    fn apply(&self, running: &Config, config: &Config) {
        let Hands { links, chain, .. } = &self.reload.hands;
        logging::set_level(config.log_level);
        if let Some(chain) = chain.as_ref().filter(|_| running.enrich.names != config.enrich.names) {
            chain.rename(&config.enrich.names);
        }
        // Before there are such flows.
        chain.iter().for_each(|chain| chain.expect(&config.flow));
        self.tuning.change(&config.pipeline, &config.flow);
        self.tuning.set_output_queue_capacity(config.export.queue_capacity);
        let (before, interfaces) = (&running.capture.interfaces, &config.capture.interfaces);
        if before != interfaces
            && let Ok(selection) = Selection::new(&interfaces.include, &interfaces.exclude)
        {
            links.select(selection);
        }
        self.agent.present.set(config);
    }
}

/// What a reload changes.
struct Plan {
    /// What the run goes by afterwards.
    config: Config,
    live: Vec<Difference>,
    at_restart: Vec<Difference>,
    /// Of what says where records go, where `-o` says it.
    unheeded: Vec<Difference>,
}

impl Plan {
    /// `is_heeded` says of a key whether this run goes by it; `reaches`, of one that can be changed, whether this run can
    /// change it.
    fn of(
        running: &Config,
        config: &Config,
        is_heeded: impl Fn(&str) -> bool,
        reaches: impl Fn(&str) -> bool,
    ) -> Result<Self, Stop> {
        let is_live = |difference: &Difference| {
            keys::when(&difference.key) == Some(When::Live) && reaches(&difference.key)
        };
        let (heeded, unheeded): (Vec<_>, Vec<_>) =
            differences(running, config).into_iter().partition(|difference| is_heeded(&difference.key));
        let (live, at_restart): (Vec<_>, Vec<_>) = heeded.into_iter().partition(is_live);
        // Of no use to this run, but it need not be named again.
        let changed: Vec<_> = live.iter().chain(&unheeded).cloned().collect();
        let config = running.with(&changed).map_err(|error| {
            Stop::new(Exit::Software, format!("what changes at once is no configuration by itself: {error}"))
                .help("this is a bug in mermin; please report it with both files, if they can be shared")
        })?;
        Ok(Self { config, live, at_restart, unheeded })
    }

    fn told(&self) -> Told {
        let verdict = match (self.live.is_empty(), self.at_restart.is_empty()) {
            (false, _) => Verdict::Applied,
            (true, false) => Verdict::AtRestart,
            (true, true) => Verdict::Unchanged,
        };
        let texts = |differences: &[Difference]| differences.iter().map(told::told).collect();
        Told {
            verdict,
            at: SystemTime::now(),
            applied: texts(&self.live),
            at_restart: texts(&self.at_restart),
            unheeded: texts(&self.unheeded),
            problems: Vec::new(),
            is_wrong: false,
        }
    }
}

impl Told {
    fn refused(stop: &Stop) -> Self {
        Self {
            verdict: Verdict::Refused,
            at: SystemTime::now(),
            applied: Vec::new(),
            at_restart: Vec::new(),
            unheeded: Vec::new(),
            problems: told::without_secrets(stop),
            is_wrong: stop.exit() == Exit::Usage,
        }
    }
}

/// Each on one line, as the log has them.
fn problems(stop: &Stop) -> Vec<String> {
    let one_line = |text: String| {
        text.trim_start_matches("error: ").replace("\n  --> ", " --> ").replace("\nhelp: ", "; help: ")
    };
    match stop {
        Stop::Config(problems) => problems.0.iter().map(|problem| one_line(problem.to_string())).collect(),
        Stop::Error { .. } => vec![one_line(stop.to_string())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn plan(running: &str, config: &str) -> Plan {
        Plan::of(&parse(running).unwrap(), &parse(config).unwrap(), |_| true, |_| true).unwrap()
    }

    #[test]
    fn what_needs_a_restart_is_left_as_it_is_and_named_again() {
        let plan = plan("", "log_level: debug\npipeline: {stats_interval: 1s}\ncapture: {ring_bytes: 1MiB}");
        assert_eq!(
            plan.told().sentence(),
            "Reloaded: log_level (info → debug), pipeline.stats_interval (30s → 1s); \
             a restart is needed for capture.ring_bytes (16MiB → 1MiB)"
        );
        assert_eq!(plan.config, parse("log_level: debug\npipeline: {stats_interval: 1s}").unwrap());
        let other = parse("log_level: debug\ncapture: {ring_bytes: 1MiB}").unwrap();
        let again = Plan::of(&plan.config, &other, |_| true, |_| true);
        let told = again.unwrap().told();
        assert_eq!((told.verdict, told.applied.len(), told.at_restart.len()), (Verdict::Applied, 1, 1));
    }

    #[test]
    fn what_this_run_cannot_change_needs_a_restart() {
        let (running, config) = (parse("").unwrap(), parse("pipeline: {flow_workers: 9}").unwrap());
        let plan = Plan::of(&running, &config, |_| true, |key| key != "pipeline.flow_workers").unwrap();
        let sentence = "Reloaded: nothing is changed; a restart is needed for pipeline.flow_workers (2 → 9)";
        assert_eq!((plan.told().sentence().as_str(), plan.config), (sentence, running));
    }

    #[test]
    fn what_the_run_does_not_go_by_is_named_once_as_that() {
        let (running, other) = (parse("").unwrap(), parse("export: {files: [{path: a}]}").unwrap());
        let plan = |running: &Config| Plan::of(running, &other, |key| key != "export.files", |_| true);
        let first = plan(&running).unwrap();
        let sentence = "Reloaded: nothing has changed; without effect beside -o: export.files";
        assert_eq!((first.told().verdict, &*first.told().sentence()), (Verdict::Unchanged, sentence));
        assert_eq!(plan(&first.config).unwrap().told().sentence(), "Reloaded: nothing has changed");
    }

    #[test]
    fn a_configuration_is_wrong_only_where_a_right_one_would_help() {
        for (exit, sentence) in [
            (Exit::Usage, "Not reloaded: the configuration is wrong, and nothing was changed"),
            (Exit::Io, "Not reloaded: nothing was changed"),
            (Exit::Unavailable, "Not reloaded: nothing was changed"),
        ] {
            assert_eq!(Told::refused(&Stop::new(exit, "this is why")).sentence(), sentence);
        }
    }

    #[test]
    fn what_came_of_it_is_told_in_one_sentence() {
        for (before, after, verdict, sentence) in [
            ("", "", Verdict::Unchanged, "Reloaded: nothing has changed"),
            (
                "",
                "server: {}",
                Verdict::AtRestart,
                "Reloaded: nothing is changed; a restart is needed for server",
            ),
            ("log_level: warn", "", Verdict::Applied, "Reloaded: log_level (warn → info)"),
        ] {
            let told = plan(before, after).told();
            assert_eq!((told.verdict, told.sentence().as_str()), (verdict, sentence));
        }
    }

    #[test]
    fn secrets_are_not_told() {
        let with = |token: &str| format!("export: {{otlp: {{headers: {{authorization: {token}}}}}}}");
        let told = plan(&with("s3cret"), &with("s4cret")).told();
        assert!(!told.sentence().contains("cret"), "{told:?}");
        for (wrong, hidden) in [
            ("export: {otlp: {headers: s3cret}}", true),
            ("export: {queue_capacity: s3cret}", true),
            ("flow: {idle_timeout: s3cret}", false),
        ] {
            let stop = Stop::Config(parse(wrong).unwrap_err());
            let told = Told::refused(&stop);
            let shown = format!("{:?}", told.problems);
            assert!(shown.contains("config.yaml:1:"), "the place is told: {shown}");
            assert_eq!(!shown.contains("s3cret"), hidden, "{wrong}: {shown}");
            assert!(problems(&stop).concat().contains("s3cret"), "the log tells all");
        }
    }
}
