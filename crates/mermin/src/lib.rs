//! Network-flow observability: packets in, exact flow records out.
//!
//! The program as a library: the command line, the configuration, the wiring of the stages, and what users see of
//! them. `main.rs` only calls [`run`], so tests can drive everything in-process.
#![forbid(unsafe_code)]

mod agent;
mod check;
mod cleanup;
pub mod cli;
pub mod config;
mod demo;
mod diagnose;
mod engine;
pub mod exit;
mod host;
mod live;
mod logging;
mod manual;
mod metrics;
mod output;
mod outputs;
mod reload;
mod replay;
mod resources;
mod server;
mod signals;
mod status;
mod summary;
mod usage;

pub use metrics::metrics_page;
pub use reload::reload_page;
pub use server::{Listen, ListenError, ServerConfig, ServerTls};

use clap::{CommandFactory, Parser};
use cli::{Cli, Command, CommonArgs, ConfigCommand, ResultArgs};
use config::{Config, Inputs, Override};
use exit::{Exit, Stop};
use output::print;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};

/// What a run sees of the world outside.
pub struct Surroundings<'a> {
    /// The environment.
    pub environment: Vec<(String, String)>,
    /// Where generated texts go. Records go to file descriptor 1 themselves.
    pub out: &'a mut (dyn Write + Send),
    /// Where errors and summaries go. Log lines go to file descriptor 2 themselves.
    pub err: &'a mut (dyn Write + Send),
}

/// Runs the program with `arguments`, the first of which is its name.
pub fn run(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    surroundings: &mut Surroundings<'_>,
) -> Exit {
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let result = match Cli::try_parse_from(&arguments) {
        Ok(cli) => dispatch(cli, surroundings),
        Err(error) => usage::report(&error, &arguments, surroundings),
    };
    match result {
        Ok(exit) => exit,
        Err(stop) => {
            // Standard error is where failures to write are told; there is nowhere else.
            drop(writeln!(surroundings.err, "{stop}"));
            stop.exit()
        }
    }
}

fn dispatch(cli: Cli, surroundings: &mut Surroundings<'_>) -> Result<Exit, Stop> {
    match cli.command {
        Command::Run(args) => {
            // First of all: a service manager may ask for a reload as soon as there is a process.
            let hangups = reload::Hangups::listen()?;
            let inputs = inputs(&args.common, args.capture.overrides(), surroundings);
            let config = settle(&args.common, &inputs, Some(&args.results))?;
            live::run(&args, &config, (inputs, hangups), surroundings)
        }
        Command::Replay(args) => {
            let config =
                settle(&args.common, &inputs(&args.common, Vec::new(), surroundings), Some(&args.results))?;
            replay::replay(&args, &config, surroundings)
        }
        Command::Demo(args) => {
            let source = args.source.map(cli::SourceArg::setting);
            let config = settle(
                &args.common,
                &inputs(&args.common, source.into_iter().collect(), surroundings),
                Some(&args.results),
            )?;
            demo::demo(&args, &config, surroundings)
        }
        Command::Check(args) => {
            let config =
                settle(&args.common, &inputs(&args.common, args.capture.overrides(), surroundings), None)?;
            check::check(&args, &config, surroundings)
        }
        Command::Status(args) => {
            let config = settle(&args.common, &inputs(&args.common, Vec::new(), surroundings), None)?;
            status::status(&args, &config, surroundings)
        }
        Command::Reload(args) => {
            let config = settle(&args.common, &inputs(&args.common, Vec::new(), surroundings), None)?;
            reload::reload(&args, &config, surroundings)
        }
        Command::Diagnose(args) => {
            let config = settle(&args.common, &inputs(&args.common, Vec::new(), surroundings), None)?;
            diagnose::diagnose(&args, &config, surroundings)
        }
        Command::Cleanup => cleanup::cleanup(surroundings),
        Command::Config { what: ConfigCommand::Default } => print(surroundings.out, &config::default_file()),
        Command::Config { what: ConfigCommand::Schema } => {
            print(surroundings.out, &format!("{:#}\n", config::json_schema()))
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "mermin", &mut script);
            print(surroundings.out, &String::from_utf8_lossy(&script))
        }
        Command::Man => print(surroundings.out, &manual::page()),
    }
}

/// What the configuration is made of.
fn inputs(common: &CommonArgs, overrides: Vec<Override>, surroundings: &Surroundings<'_>) -> Inputs {
    let mut inputs = common.inputs(surroundings.environment.clone());
    inputs.overrides.extend(overrides);
    inputs
}

/// The configuration that all layers give, with the log started as it says.
fn settle(common: &CommonArgs, inputs: &Inputs, results: Option<&ResultArgs>) -> Result<Config, Stop> {
    let config = config::load(inputs)?;
    logging::start(logging::Style {
        level: config.log_level,
        format: common.log_format,
        color: common.color.wanted(std::io::stderr().is_terminal()),
        records: results.is_some_and(|results| outputs::to_log(results, &config)),
    });
    Ok(config)
}
