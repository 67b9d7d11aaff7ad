//! Mistakes on the command line, in the form of all other errors.
//!
//! The parser's own measure of likeness gives nothing for short words (`rnu`), so commands and options are compared by
//! edits, as everywhere else in the program.

use crate::Surroundings;
use crate::cli::Cli;
use crate::exit::{Exit, Stop};
use crate::output::print;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};
use clap::{Command, CommandFactory as _};

/// Help and version go to standard output; everything else is an error with exit code 64.
pub(crate) fn report(error: &Error, surroundings: &mut Surroundings<'_>) -> Result<Exit, Stop> {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => print(surroundings.out, &text),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            drop(surroundings.err.write_all(text.as_bytes()));
            Ok(Exit::Usage)
        }
        _ => {
            let stop = translate(&text);
            Err(match suggestion(error, &text) {
                Some(help) => stop.help(help),
                None => stop,
            })
        }
    }
}

/// What a command or option that there isn't may have been meant to be.
fn suggestion(error: &Error, text: &str) -> Option<String> {
    let given = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    let (path, command) = command_of(text);
    if let Some(word) = given(ContextKind::InvalidSubcommand) {
        let names: Vec<_> = command.get_subcommands().map(|one| one.get_name().to_owned()).collect();
        let all = format!("the commands are {}", names.join(", "));
        return Some(did_you_mean(word, &names, &all));
    }
    if error.kind() == ErrorKind::UnknownArgument {
        let word = given(ContextKind::InvalidArg).filter(|word| word.starts_with("--"))?;
        let word = word.split('=').next()?;
        let options = command.get_arguments().filter_map(|one| one.get_long());
        let names: Vec<_> = options.chain(["help"]).map(|name| format!("--{name}")).collect();
        return Some(did_you_mean(word, &names, &format!("`{path} --help` lists the options")));
    }
    None
}

/// The command that the usage line is about: it says how far the parser understood.
fn command_of(text: &str) -> (String, Command) {
    let (mut path, mut command) = ("mermin".to_owned(), Cli::command());
    let usage = text.lines().find_map(|line| line.trim().strip_prefix("Usage: mermin")).unwrap_or_default();
    for word in usage.split_whitespace() {
        let Some(inner) = command.find_subcommand(word).cloned() else { break };
        path = format!("{path} {word}");
        command = inner;
    }
    (path, command)
}

fn did_you_mean(word: &str, names: &[String], all: &str) -> String {
    // A third of it may be wrong, a swap counting once; of a short word one letter.
    let near = (word.trim_start_matches('-').chars().count() / 3).max(1);
    let nearest = names
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&word.to_lowercase(), name), name))
        .filter(|(edits, _)| *edits <= near)
        .min_by_key(|(edits, _)| *edits);
    match nearest {
        Some((_, name)) => format!("did you mean `{name}`? {all}"),
        None => all.to_owned(),
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
