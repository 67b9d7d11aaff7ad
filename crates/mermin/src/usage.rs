//! Mistakes on the command line, in the form of all other errors.
//!
//! The parser's own measure of likeness gives nothing for short words (`rnu`), so commands and options are compared by
//! edits, as everywhere else in the program. Its tips speak of the parser; ours of the commands.

use crate::Surroundings;
use crate::cli::Cli;
use crate::exit::{Exit, Stop};
use crate::output::print;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};
use clap::{Command, CommandFactory as _};
use std::error::Error as _;
use std::ffi::OsString;

/// Help and version go to standard output; everything else is an error with exit code 64. `arguments` are those that
/// were parsed, the program's name first.
pub(crate) fn report(
    error: &Error,
    arguments: &[OsString],
    surroundings: &mut Surroundings<'_>,
) -> Result<Exit, Stop> {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => print(surroundings.out, &text),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            drop(surroundings.err.write_all(text.as_bytes()));
            Ok(Exit::Usage)
        }
        ErrorKind::ValueValidation => {
            Err(wrong_value(error).unwrap_or_else(|| Stop::new(Exit::Usage, what(&text))))
        }
        _ => Err(Stop::new(Exit::Usage, what(&text)).help(help(error, &text, arguments))),
    }
}

/// The parser prints paragraphs: what is wrong, tips, usage, where help is.
fn what(text: &str) -> String {
    let ends = ["tip: ", "[possible values: ", "Usage: ", "For more information"];
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let what: Vec<_> = lines
        .take_while(|line| !ends.iter().any(|end| line.starts_with(end)))
        .map(|line| line.strip_prefix("error: ").unwrap_or(line))
        .collect();
    what.join(" ")
}

/// A value that our own reading of it refused, in the words of that.
fn wrong_value(error: &Error) -> Option<Stop> {
    let (option, value) = (given(error, ContextKind::InvalidArg)?, given(error, ContextKind::InvalidValue)?);
    let reason = error.source()?.to_string();
    let (what, help) = reason.split_once("; ")?;
    let option = option.split(' ').next()?;
    Some(Stop::new(Exit::Usage, what).at(format!("{option} {value}")).help(help))
}

/// What to type instead.
fn help(error: &Error, text: &str, arguments: &[OsString]) -> String {
    let (path, command) = command_of(arguments);
    let lists = format!("`{path} --help` lists the options");
    let line = |start: &str| text.lines().find_map(|line| line.trim().strip_prefix(start));
    match error.kind() {
        ErrorKind::InvalidSubcommand => wrong_command(given(error, ContextKind::InvalidSubcommand), &command),
        ErrorKind::UnknownArgument => match given(error, ContextKind::InvalidArg) {
            Some(word) if word.starts_with('-') => wrong_option(word, &path, &command, &lists),
            Some(word) if has(&command, "--interface") => format!("to name an interface: {path} -i {word}"),
            _ => lists,
        },
        ErrorKind::InvalidValue => {
            let Some(values) = line("[possible values: ") else { return lists };
            let values = values.trim_end_matches(']');
            let names: Vec<_> = values.split(", ").map(str::to_owned).collect();
            let word = given(error, ContextKind::InvalidValue).unwrap_or_default();
            did_you_mean(word, &names, &format!("one of {values}"))
        }
        ErrorKind::ArgumentConflict => "leave one of them out".to_owned(),
        _ => line("Usage: ").map_or(lists, str::to_owned),
    }
}

fn given(error: &Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind)? {
        ContextValue::String(word) => Some(word),
        _ => None,
    }
}

fn wrong_command(word: Option<&str>, command: &Command) -> String {
    let names: Vec<_> = command.get_subcommands().map(|one| one.get_name().to_owned()).collect();
    let all = format!("the commands are {}", names.join(", "));
    match word {
        Some("help") => format!("`mermin COMMAND --help`; {all}"),
        Some(word) => did_you_mean(word, &names, &all),
        None => all,
    }
}

fn wrong_option(word: &str, path: &str, command: &Command, lists: &str) -> String {
    let word = word.split('=').next().unwrap_or(word);
    let program = Cli::command();
    let owners: Vec<_> =
        program.get_subcommands().filter(|one| has(one, word)).map(|one| one.get_name()).collect();
    if !owners.is_empty() {
        let place = if path == program.get_name() { ": write it behind the command" } else { "" };
        return format!("`{word}` is an option of {}{place}; {lists}", owners.join(", "));
    }
    if word.starts_with("--") {
        return did_you_mean(word, &options(command), lists);
    }
    // One letter is like any other, but for its case.
    match options(command).iter().find(|name| name.eq_ignore_ascii_case(word)) {
        Some(name) => format!("did you mean `{name}`? {lists}"),
        None => lists.to_owned(),
    }
}

/// The options of a command as they are written.
fn options(command: &Command) -> Vec<String> {
    let long = command.get_arguments().filter_map(|one| one.get_long()).map(|name| format!("--{name}"));
    let short = command.get_arguments().filter_map(|one| one.get_short()).map(|name| format!("-{name}"));
    long.chain(short).chain(["--help", "-h"].map(str::to_owned)).collect()
}

fn has(command: &Command, option: &str) -> bool {
    options(command).iter().any(|name| name == option)
}

/// The command that the arguments lead to, and how it is written.
fn command_of(arguments: &[OsString]) -> (String, Command) {
    let mut command = Cli::command();
    let mut path = command.get_name().to_owned();
    for word in arguments.iter().skip(1) {
        let Some(inner) = command.find_subcommand(word).cloned() else { break };
        path = format!("{path} {}", inner.get_name());
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
