//! `mermin diagnose`: which entry of the troubleshooting guide applies to a running agent now, with the
//! figure behind it and the setting to change.
//!
//! Two looks some seconds apart, so that it speaks of what happens and not of what has happened since the start; or the
//! final statistics of a run, as a whole.

mod books;
mod figures;
mod looks;
mod page;
mod rules;
#[cfg(test)]
mod sample;

use crate::Surroundings;
use crate::cli::DiagnoseArgs;
use crate::config::{Config, lower};
use crate::exit::{Exit, Stop};
use crate::output::print;
use crate::status::{Reply, Target, ask};
use figures::Figures;
use looks::Looks;
use serde_json::Value;
use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

/// In place of a file's name.
const STDIN: &str = "-";

/// For figures of one moment.
const LOOKS_AT_MOST: u32 = 3;

/// Runs the command.
pub(crate) fn diagnose(
    args: &DiagnoseArgs,
    config: &Config,
    surroundings: &mut Surroundings<'_>,
) -> Result<Exit, Stop> {
    let (figures, of) = match &args.stats {
        Some(path) if path == Path::new(STDIN) => {
            (Figures::of_run(&read(path)?), "the run whose statistics came on standard input".to_owned())
        }
        Some(path) => (Figures::of_run(&read(path)?), format!("the run that wrote {}", path.display())),
        None => look_twice(args, config)?,
    };
    let findings = rules::all(&figures);
    if args.json {
        return print(surroundings.out, &format!("{}\n", page::json(&figures, &findings)));
    }
    let color = args.common.color.wanted(std::io::stdout().is_terminal());
    print(surroundings.out, &page::text(&figures, &findings, &of, color))
}

fn look_twice(args: &DiagnoseArgs, config: &Config) -> Result<(Figures, String), Stop> {
    let target = Target::find(&args.agent, config, "diagnose")?;
    let first = status(&target)?;
    std::thread::sleep(args.time);
    let last = status(&target)?;
    let of = format!("the agent at {}", target.authority);
    if !(Looks { first: Some(&first), last: &last }).are_of_one_run(args.time) {
        return Err(Stop::new(Exit::Unavailable, format!("{of} was started anew between the two looks"))
            .help("ask again; its log says why it ended"));
    }
    Ok((Figures::between(&first, &last), of))
}

/// One look. Where a stage did not answer in time, another one may be better.
fn status(target: &Target) -> Result<Value, Stop> {
    let mut left = LOOKS_AT_MOST;
    loop {
        left -= 1;
        let Reply { status, body } = ask(target, "/status")?;
        match (status.as_u16(), serde_json::from_str::<Value>(&body)) {
            (200, Ok(json)) if json.pointer("/statistics/ledger").is_some() => {
                // A replay's reader does not answer while it waits for its input.
                let waits = json["statistics"]["command"] == "replay";
                if left == 0 || waits || json["statistics"]["consistent"] != Value::Bool(false) {
                    return Ok(json);
                }
            }
            (401, _) => return Err(target.wants_token()),
            _ => return Err(target.unexpected(status, &body)),
        }
    }
}

/// Final statistics.
fn read(path: &Path) -> Result<Value, Stop> {
    let stop = |exit, what: String| {
        Stop::new(exit, what)
            .at(format!("--stats {}", path.display()))
            .help("name a file that mermin run --stats FILE has written")
    };
    let mut bytes = Vec::new();
    let result = if path == Path::new(STDIN) {
        std::io::stdin().read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes))
    };
    result.map_err(|error| stop(Exit::NoInput, format!("can't read the statistics: {}", lower(&error))))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| stop(Exit::Data, "the statistics are not UTF-8: this is no JSON".to_owned()))?;
    let json: Value = serde_json::from_str(&text)
        .map_err(|error| stop(Exit::Data, format!("the statistics are no JSON: {error}")))?;
    if json.pointer("/ledger/seen").is_some_and(Value::is_object) {
        Ok(json)
    } else {
        Err(stop(Exit::Data, "these are no statistics of mermin: there is no ledger in them".to_owned()))
    }
}
