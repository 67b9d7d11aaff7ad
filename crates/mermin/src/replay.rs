//! `mermin replay`: captures through the pipeline.

use crate::Surroundings;
use crate::agent::Views;
use crate::cli::ReplayArgs;
use crate::config::{Config, lower};
use crate::engine::{End, Plan, StatsFile, drive};
use crate::exit::{Exit, Stop};
use crate::outputs::{Enriching, Outputs, Workshop, files};
use crate::server::Bound;
use crate::signals::Asked;
use mermin_capture::file::{Fault, OpenError, ReplaySource};
use mermin_export::resolved;
use mermin_flow::ObservationPoints;
use std::path::PathBuf;
use std::sync::Arc;

/// Runs the command.
pub(crate) fn replay(
    args: &ReplayArgs,
    config: &Config,
    surroundings: &mut Surroundings<'_>,
) -> Result<Exit, Stop> {
    let server = Bound::bind(config)?;
    let points = Arc::new(ObservationPoints::default());
    let source = ReplaySource::open(&args.files, Arc::clone(&points)).map_err(cannot_open)?;
    let source = source.filtered(&config.capture.filters);
    spare_captures(args, config)?;
    let stats = StatsFile::open(&args.results, config)?;
    let outputs = Outputs::build(&Workshop::new(&args.results, &args.common, &points, surroundings), config)?;
    let files = match args.files.as_slice() {
        few @ ([_] | [_, _] | [_, _, _]) => {
            few.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
        }
        many => format!("{} captures", many.len()),
    };
    let enriching = Enriching::start(config, None)?;
    let plan = Plan {
        command: "replay",
        source,
        enricher: enriching.enricher(),
        exporters: outputs.exporters,
        buffers: outputs.buffers,
        stats,
        agent_id: String::new(),
        journal: None,
        beside_resident: 0,
        headline: format!("replay of {}; records: {}", files, outputs.description),
        warnings: outputs.warnings,
        listens_on: None,
        end: End::on_signal(Asked::listen()?),
        points,
        server,
        views: Views { capture: None, kubernetes: enriching.kubernetes, conntrack: None },
        agent_metrics: outputs.agent_metrics,
        ledger: outputs.ledger,
        reload: None,
    };
    let finished = drive(config, plan, surroundings)?;
    let damages = finished.source.as_ref().map(ReplaySource::damages).unwrap_or_default();
    let mut exit = finished.exit;
    for damage in damages {
        let own = if matches!(damage.fault, Fault::Panic) { Exit::Software } else { Exit::Data };
        exit = match exit {
            // A bug says more than a damaged file.
            Exit::Fine | Exit::Data => own,
            other => other,
        };
        let stop = Stop::new(own, damage.to_string()).help(damage.help());
        drop(writeln!(surroundings.err, "{stop}"));
    }
    Ok(exit)
}

/// Outputs are emptied when they are opened: none may be one of the captures, under whatever name.
fn spare_captures(args: &ReplayArgs, config: &Config) -> Result<(), Stop> {
    let captures: Vec<PathBuf> =
        args.files.iter().filter(|path| path.is_file()).map(|path| resolved(path)).collect();
    for path in files(&args.results, config)?.iter().chain(&args.results.stats) {
        if captures.contains(&resolved(path)) {
            let what = format!("{} is a capture to be read and would be overwritten", path.display());
            return Err(Stop::new(Exit::Usage, what).help("write to another file"));
        }
    }
    Ok(())
}

fn cannot_open(error: OpenError) -> Stop {
    let what = match &error {
        OpenError::Open { source, .. } => format!("{error}: {}", lower(source)),
        OpenError::Directory { .. } | OpenError::StandardInputTwice => error.to_string(),
    };
    Stop::new(Exit::NoInput, what)
        .help("name captures that exist and that you may read: mermin replay FILE...")
}
