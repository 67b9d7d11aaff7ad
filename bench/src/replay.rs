//! Replay by turns with softflowd, so that both meet the same machine, and a table of medians and spread.

use crate::measure::{Cost, run};
use anyhow::{Result, bail};
use mermin_tests::program::plain;
use std::path::PathBuf;
use std::process::Command;

/// Replays a capture by turns through the program and a peer.
#[derive(clap::Args)]
pub(crate) struct Replay {
    /// The capture.
    capture: PathBuf,
    /// Packets in it.
    #[arg(long, default_value_t = 4_000_000)]
    packets: u32,
    /// Runs of each.
    #[arg(long, default_value_t = 7)]
    runs: usize,
    /// The program; by default the release build.
    #[arg(long)]
    program: Option<PathBuf>,
    /// More arguments for the program, for example `--set pipeline.flow_workers=1`.
    #[arg(long, allow_hyphen_values = true, num_args = 1.., value_terminator = ";")]
    with: Vec<String>,
    /// The program's output.
    #[arg(long, default_value = "json")]
    output: String,
    /// Leave the peer out.
    #[arg(long)]
    alone: bool,
}

impl Replay {
    pub(crate) fn run(self) -> Result<()> {
        if !self.capture.is_file() {
            bail!("no capture at {}: `cargo xtask bench capture` makes one", self.capture.display());
        }
        let program = self.program.clone().unwrap_or_else(mermin_tests::program::binary);
        let folder = tempfile::tempdir()?;
        let (mut own, mut peer) = (Vec::new(), Vec::new());
        for _ in 0..self.runs {
            own.push(run(plain(&program)
                .arg("replay")
                .arg(&self.capture)
                .args(["-o", &self.output])
                .args(&self.with))?);
            if !self.alone {
                // Its flows go to a port of this machine where nobody listens; the table is as large as ours.
                let mut softflowd = Command::new("softflowd");
                softflowd
                    .args(["-d", "-m", "131072", "-v", "9", "-n", "127.0.0.1:9", "-p"])
                    .arg(folder.path().join("pid"));
                softflowd.arg("-c").arg(folder.path().join("control")).arg("-r").arg(&self.capture);
                peer.push(run(&mut softflowd)?);
            }
        }
        println!(
            "| {} | ns per packet, CPU (min–max) | M packets per CPU-second | wall s | peak anonymous MiB |",
            self.capture.file_name().unwrap_or_default().display()
        );
        println!("|---|---|---|---|---|");
        let ours = self.row("mermin", &own);
        if !self.alone {
            let theirs = self.row("softflowd", &peer);
            println!("\nratio, packets per CPU-second: {:.1}", theirs / ours);
        }
        Ok(())
    }

    /// Prints a row; gives the median CPU time.
    fn row(&self, name: &str, costs: &[Cost]) -> f64 {
        let sorted = |part: fn(&Cost) -> f64| {
            let mut values: Vec<f64> = costs.iter().map(part).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let (cpu, wall) = (sorted(|cost| cost.cpu), sorted(|cost| cost.wall));
        let median = |values: &[f64]| values[values.len() / 2];
        let packets = f64::from(self.packets);
        let each = |seconds: f64| seconds / packets * 1e9;
        let anonymous = costs.iter().map(|cost| cost.anonymous).max().unwrap_or_default() >> 10;
        println!(
            "| {name} | {:.1} ({:.1}–{:.1}) | {:.2} | {:.2} | {:.1} |",
            each(median(&cpu)),
            each(cpu[0]),
            each(cpu[cpu.len() - 1]),
            packets / median(&cpu) / 1e6,
            median(&wall),
            f64::from(u32::try_from(anonymous).unwrap_or(u32::MAX)) / 1024.0
        );
        median(&cpu)
    }
}
