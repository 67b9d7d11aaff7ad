//! `mermin run`: packets that cross this host, through the pipeline.
//!
//! The source is chosen once, at start: eBPF, or AF_PACKET where eBPF works on none of the selected interfaces. The log
//! says why, and what is lost by it. Interfaces that come later are followed by the source.

use crate::Surroundings;
use crate::agent::{Capture, Views};
use crate::cleanup;
use crate::cli::{CaptureArgs, RunArgs};
use crate::config::{Config, Inputs, lower};
use crate::engine::{End, Plan, StatsFile, drive};
use crate::exit::{Exit, Stop};
use crate::host;
use crate::outputs::{self, Enriching, Outputs, Workshop};
use crate::reload::{Hands, Hangups, Outlets, Reload};
use crate::server::Bound;
use crate::signals::Asked;
use mermin_capture::af_packet::{AfPacketOptions, AfPacketSource};
use mermin_capture::ebpf::{EbpfError, EbpfOptions, EbpfSource, JournalUse, Opened};
use mermin_capture::interfaces::{Interface, SelectError, Selection, discover};
use mermin_capture::links::{Follow, Links};
use mermin_capture::{OnExit, SourceKind};
use mermin_export::{Agent, ClockError};
use mermin_flow::{ObservationPoints, Source};
use mermin_journal::SourceJournal;
use mermin_pipeline::RunJournal;
use std::cell::RefCell;
use std::error::Error;
use std::fs;
use std::sync::Arc;

/// Runs the command.
///
/// `inputs` are what `config` is made of.
pub(crate) fn run(
    args: &RunArgs,
    config: &Config,
    (inputs, hangups): (Inputs, Hangups),
    surroundings: &mut Surroundings<'_>,
) -> Result<Exit, Stop> {
    let (interfaces, selection) = selected(&args.capture, config)?;
    let journal = &config.pipeline.journal;
    if keeps_journal(config) && !journal.folder.is_absolute() {
        let what = format!("`{}` is not an absolute path", journal.folder.display());
        let help = "name the whole path: an agent that is started elsewhere would not find its journal";
        return Err(Stop::new(Exit::Usage, what).at("pipeline.journal.folder").help(help));
    }
    let server = Bound::bind(config)?;
    let reload = RefCell::new(Some((inputs, hangups)));
    let live = Live { args, config, interfaces, selection, points: Arc::default(), server, reload };
    match config.capture.source {
        SourceKind::Ebpf => live.with_ebpf(surroundings).unwrap_or_else(|why| Err(not_permitted(why))),
        SourceKind::AfPacket => {
            live.with_af_packet(None, surroundings).unwrap_or_else(|why| Err(not_permitted(why)))
        }
        SourceKind::Auto => live.with_ebpf(surroundings).unwrap_or_else(|no_ebpf| {
            let neither = |no_af_packet| Err(not_permitted(format!("{no_ebpf}; {no_af_packet}")));
            live.with_af_packet(Some(&no_ebpf), surroundings).unwrap_or_else(neither)
        }),
    }
}

/// Whether what is in memory is to be written down.
fn keeps_journal(config: &Config) -> bool {
    config.pipeline.journal.enabled && config.capture.on_exit == OnExit::Keep
}

/// What is lost without eBPF.
pub(crate) fn fallback(why: &str) -> String {
    format!("{why}; this is AF_PACKET, whose drops are known in packets but not in bytes")
}

/// The interfaces that the configuration selects, of those that there are; and which it selects of those to come.
pub(crate) fn selected(args: &CaptureArgs, config: &Config) -> Result<(Vec<Interface>, Selection), Stop> {
    let devices = discover().map_err(|error| {
        Stop::new(Exit::Unavailable, format!("can't list the network interfaces: {}", lower(&error)))
    })?;
    let interfaces = &config.capture.interfaces;
    let chosen = Selection::new(&interfaces.include, &interfaces.exclude).and_then(|selection| {
        let present =
            if interfaces.wait { selection.present(&devices) } else { selection.choose(&devices)? };
        Ok((present, selection))
    });
    chosen.map_err(|error| {
        let help = match &error {
            SelectError::NoMatch { .. } | SelectError::NoneLeft { .. } => {
                "name one of them, for example: mermin run -i lo; \
                 or wait for one that fits: --set capture.interfaces.wait=true"
            }
            _ => "write a name, or a pattern with *, ? and [...]",
        };
        let place = args.interface_options().unwrap_or_else(|| "capture.interfaces".to_owned());
        Stop::new(Exit::Usage, error.to_string()).at(place).help(help)
    })
}

/// An error with its causes, on one line and each said once.
pub(crate) fn in_full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn not_permitted(why: String) -> Stop {
    Stop::new(Exit::NoPermission, why).help(host::how_to_get_permission())
}

/// Tells the records of one agent from those of others: the machine's id, else its name.
fn agent_id() -> String {
    let read = |path| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let id = read("/etc/machine-id").filter(|id| !id.is_empty());
    id.or_else(|| read("/proc/sys/kernel/hostname")).unwrap_or_default()
}

fn agent() -> Agent {
    let clock = || {
        let discipline = mermin_capture::discipline()?;
        Some(ClockError { offset: discipline.offset, bound: discipline.error })
    };
    Agent { id: agent_id(), clock: Some(clock) }
}

struct Live<'a> {
    args: &'a RunArgs,
    config: &'a Config,
    interfaces: Vec<Interface>,
    selection: Selection,
    points: Arc<ObservationPoints>,
    server: Option<Arc<Bound>>,
    /// Goes to the source that is used in the end.
    reload: RefCell<Option<(Inputs, Hangups)>>,
}

impl Live<'_> {
    /// The run's result, or why eBPF can't be used.
    fn with_ebpf(&self, surroundings: &mut Surroundings<'_>) -> Result<Result<Exit, Stop>, String> {
        let follow = Some(Follow::new(self.selection.clone()));
        let (mut journal, no_journal) = match self.journal() {
            Ok(journal) => (journal, None),
            Err(error) => (None, Some(error)),
        };
        let options = EbpfOptions {
            follow,
            journal: journal.as_ref().map(|(_, part)| part.clone()),
            ..EbpfOptions::of(&self.config.capture)
        };
        let Opened { source, skipped, journal: used } =
            match EbpfSource::open(&self.interfaces, &self.points, &options) {
                Ok(opened) => opened,
                // Another source would do no better: two would count the same packets.
                Err(error @ EbpfError::Held { .. }) => return Ok(Err(cleanup::stop(&error))),
                Err(error) => return Err(in_full(&error)),
            };
        let skipped =
            skipped.iter().map(|one| (&*one.interface, one.error.as_ref().map(|error| in_full(error))));
        let (names, mut warnings) = self.told(&skipped.collect::<Vec<_>>());
        warnings.extend(no_journal);
        match (used, &mut journal) {
            (JournalUse::None, journal) => {
                warnings.extend(
                    journal.take().and_then(|(journal, _)| journal.remove().err()).map(|e| in_full(&e)),
                );
            }
            (JournalUse::Afresh, Some((journal, _))) => journal.starts_afresh(),
            (JournalUse::Afresh | JournalUse::GoesOn, _) => {}
        }
        let journal = journal.map(|(journal, _)| journal);
        let links = source.links();
        let beside = source.beside_resident();
        let kind = format!("ebpf ({} mode)", self.config.capture.mode.name());
        Ok(self.drive((source, beside, journal), &links, (&kind, &names), warnings, surroundings))
    }

    /// Where what is in memory is written down, if it is, and the source's part; or why it isn't.
    fn journal(&self) -> Result<Option<(RunJournal, SourceJournal)>, String> {
        if !keeps_journal(self.config) {
            return Ok(None);
        }
        let folder = &self.config.pipeline.journal.folder;
        let whose = host::identity()
            .map_err(|error| format!("pipeline.journal: it can't be tied to this boot: {error}"))?;
        RunJournal::open(folder, whose.as_bytes(), &self.points).map(Some).map_err(|error| {
            format!(
                "pipeline.journal: {}; without it what is in memory is lost if this process is killed (lost.crash)",
                in_full(&error)
            )
        })
    }

    /// The run's result, or why AF_PACKET can't be used. `no_ebpf` is why it is used instead of eBPF.
    fn with_af_packet(
        &self,
        no_ebpf: Option<&str>,
        surroundings: &mut Surroundings<'_>,
    ) -> Result<Result<Exit, Stop>, String> {
        let options = AfPacketOptions {
            ring_bytes: self.config.capture.ring_bytes.0,
            filters: self.config.capture.filters.clone(),
            follow: Some(Follow::new(self.selection.clone())),
        };
        let source = AfPacketSource::open(&self.interfaces, &self.points, &options)
            .map_err(|error| in_full(&error))?;
        let skipped = source.skipped().iter();
        let skipped = skipped.map(|one| (&*one.interface, one.error.as_ref().map(|error| in_full(error))));
        let (names, skips) = self.told(&skipped.collect::<Vec<_>>());
        let warnings = no_ebpf.into_iter().map(fallback).chain(skips).collect();
        let links = source.links();
        Ok(self.drive((source, 0, None), &links, ("af_packet", &names), warnings, surroundings))
    }

    /// The names of those that are captured on, and a warning for each of the others.
    fn told(&self, skipped: &[(&str, Option<String>)]) -> (String, Vec<String>) {
        let names = self.interfaces.iter().map(|interface| interface.name.as_ref());
        let names: Vec<_> = names.filter(|name| skipped.iter().all(|(other, _)| other != name)).collect();
        let names = if names.is_empty() { "no interface yet".to_owned() } else { names.join(", ") };
        let skip = |(name, why): &(&str, Option<String>)| {
            format!("{name} is skipped: {}", why.as_deref().unwrap_or("there are 32 767 interfaces already"))
        };
        (names, skipped.iter().map(skip).collect())
    }

    /// What reads the configuration again, and what says that the run is to go with its terminal.
    fn reload(
        &self,
        (inputs, hangups): (Inputs, Hangups),
        hands: Hands,
        surroundings: &Surroundings<'_>,
    ) -> (Reload, Asked) {
        let ends = hangups.end.clone();
        let (capture, environment) = (self.args.capture.clone(), surroundings.environment.clone());
        let replaced = !self.args.results.outputs.is_empty();
        // Only what is new is tried: a device that has gone, or a disk that is full, is no mistake in the configuration.
        let check = move |running: &Config, config: &Config| {
            if running.capture.interfaces != config.capture.interfaces {
                selected(&capture, config)?;
            }
            // `-o` takes the place of what the configuration says of outputs.
            let is_new = running.export != config.export && !replaced;
            if is_new { outputs::check(config, &environment, |_| {}) } else { Ok(()) }
        };
        (Reload { inputs, hangups, check: Box::new(check), hands }, ends)
    }

    fn drive<S: Source + 'static>(
        &self,
        (source, beside_resident, journal): (S, i64, Option<RunJournal>),
        links: &Arc<Links>,
        (kind, names): (&str, &str),
        warnings: Vec<String>,
        surroundings: &mut Surroundings<'_>,
    ) -> Result<Exit, Stop> {
        let stats = StatsFile::open(&self.args.results, self.config)?;
        let workshop = Workshop::new(&self.args.results, &self.args.common, &self.points, surroundings)
            .of_agent(agent());
        let outputs = Outputs::build(&workshop, self.config)?;
        let about = format!("{kind} on {names}");
        let headline = move |records: &str| format!("{about}; records: {records}; Ctrl-C ends");
        let first_line = headline(&outputs.description);
        let enriching = Enriching::start(self.config, Some(&source.wall_clock()))?;
        let hands = Hands {
            links: Arc::clone(links),
            chain: enriching.chain.clone(),
            outputs: Outlets {
                workshop,
                opened: RefCell::new(outputs.opened),
                left: RefCell::default(),
                headline: Box::new(headline),
            },
        };
        let reload = self.reload.take().map(|it| self.reload(it, hands, surroundings));
        let (reload, terminal_has_gone) = reload.unzip();
        let terminal_has_gone = terminal_has_gone.unwrap_or_default();
        let end = End {
            after: self.args.duration,
            when: Box::new(move || terminal_has_gone.now()),
            ..End::on_signal(Asked::listen()?)
        };
        let plan = Plan {
            command: "run",
            source,
            enricher: enriching.enricher(),
            exporters: outputs.exporters,
            buffers: outputs.buffers,
            stats,
            agent_id: agent_id(),
            journal,
            beside_resident,
            headline: first_line,
            warnings: warnings.into_iter().chain(outputs.warnings).collect(),
            listens_on: Some(names.to_owned()),
            end,
            points: Arc::clone(&self.points),
            server: self.server.clone(),
            views: Views {
                capture: Some(Capture::of(kind, links)),
                kubernetes: enriching.kubernetes,
                conntrack: enriching.conntrack,
            },
            agent_metrics: outputs.agent_metrics,
            ledger: outputs.ledger,
            reload,
        };
        let finished = drive(self.config, plan, surroundings);
        // Also when the source did not come to its end in time: filters would stay.
        links.finish();
        Ok(finished?.exit)
    }
}
