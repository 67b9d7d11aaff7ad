//! Mistakes on the command line, in the form of all other errors.

use crate::Surroundings;
use crate::exit::{Exit, Stop};
use crate::output::print;
use clap::error::{Error, ErrorKind};

/// Help and version go to standard output; everything else is an error with exit code 64.
pub(crate) fn report(error: &Error, surroundings: &mut Surroundings<'_>) -> Result<Exit, Stop> {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => print(surroundings.out, &text),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            drop(surroundings.err.write_all(text.as_bytes()));
            Ok(Exit::Usage)
        }
        _ => Err(translate(&text)),
    }
}

/// The parser prints paragraphs: what is wrong, tips, usage, where help is.
fn translate(text: &str) -> Stop {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let starting = |start: &str| lines.iter().find_map(|line| line.strip_prefix(start));
    let help = starting("tip: ")
        .map(str::to_owned)
        .or_else(|| {
            starting("[possible values: ").map(|rest| format!("one of {}", rest.trim_end_matches(']')))
        })
        .or_else(|| starting("Usage: ").map(str::to_owned))
        .unwrap_or_else(|| "mermin --help".to_owned());
    let mut what = Vec::new();
    for line in &lines {
        let end = ["tip: ", "[possible values: ", "Usage: ", "For more information"];
        if end.iter().any(|start| line.starts_with(start)) {
            break;
        }
        what.push(line.strip_prefix("error: ").unwrap_or(line));
    }
    Stop::new(Exit::Usage, what.join(" ")).help(help)
}
