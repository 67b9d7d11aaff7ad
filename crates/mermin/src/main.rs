//! The `mermin` program: everything is in the library.

use std::io::{stderr, stdout};
use std::process::ExitCode;

fn main() -> ExitCode {
    mermin_pipeline::contained_panics_go_to_the_log();
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut surroundings =
        mermin::Surroundings { environment: environment.collect(), out: &mut stdout(), err: &mut stderr() };
    mermin::run(std::env::args_os(), &mut surroundings).into()
}
