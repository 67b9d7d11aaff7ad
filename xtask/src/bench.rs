//! `cargo xtask bench …`: builds program and benchmarks with optimisation and hands the arguments over.

use crate::run::{cargo, succeed, target_dir};
use anyhow::Result;

#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Bench {
    /// `capture OUT …`, `replay FILE …`, `ways FILE …`, `scrape FILE …`, `cluster …`, `otlp …`, `kafka …`, `fleet …`, `kernel …`, `headroom …`, `journal …`; `--help` tells more.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

impl Bench {
    pub(crate) fn run(self) -> Result<()> {
        if self.arguments.first().is_some_and(|first| {
            ["headroom", "journal", "replay", "scrape", "ways"].contains(&first.as_str())
        }) {
            succeed(&mut cargo(&["build", "--release", "--quiet", "--package", "mermin"]))?;
        }
        let mut command = cargo(&["run", "--release", "--quiet", "--package", "mermin-bench"]);
        if self.arguments.first().is_some_and(|first| ["fleet", "kafka"].contains(&first.as_str())) {
            command.args(["--features", "kafka"]);
        }
        command.arg("--");
        command.current_dir(std::env::current_dir()?).args(self.arguments);
        succeed(command.env("MERMIN_BIN", target_dir().join("release/mermin")))
    }
}
