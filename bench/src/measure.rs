//! Runs a program and tells what it cost: CPU time of all its threads, wall time, peak anonymous memory; and where such
//! values lie.

use anyhow::{Context, Result, bail};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a run cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// User and system time, seconds.
    pub(crate) cpu: f64,
    /// Seconds.
    pub(crate) wall: f64,
    /// Greatest `RssAnon` seen, bytes; looked at every 10 ms.
    pub(crate) anonymous: u64,
}

/// Where values lie.
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) lower: f64,
    pub(crate) median: f64,
    pub(crate) upper: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Of at least one value.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |quarter: usize| values[(values.len() - 1) * quarter / 4];
        Self { least: at(0), lower: at(1), median: at(2), upper: at(3), most: at(4) }
    }
}

/// Runs to the end, output thrown away.
pub(crate) fn run(command: &mut Command) -> Result<Cost> {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("can't run {command:?}"))?;
    let id = child.id();
    let (mut anonymous, mut cpu) = (0, 0.0_f64);
    loop {
        // A process that has ended and was not waited for still tells its times.
        if let Some(times) = cpu_seconds(id) {
            cpu = times;
        }
        anonymous = anonymous.max(anonymous_bytes(id));
        if ended(id) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let wall = started.elapsed().as_secs_f64();
    let status = child.wait()?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(Cost { cpu, wall, anonymous })
}

fn stat(id: u32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name stands in brackets and may have spaces.
    Some(text.rsplit_once(") ")?.1.to_owned())
}

fn ended(id: u32) -> bool {
    stat(id).is_none_or(|fields| fields.starts_with('Z'))
}

/// User and system time, at the kernel's clock tick of 100 Hz.
pub(crate) fn cpu_seconds(id: u32) -> Option<f64> {
    let fields = stat(id)?;
    let mut fields = fields.split(' ').skip(11);
    let (user, system): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(f64::from(user + system) / 100.0)
}

/// User and system time of processes that this one has waited for, and of those that they have.
#[cfg(feature = "kafka")]
pub(crate) fn children_cpu_seconds() -> f64 {
    let ticks = |text: &str| text.parse::<u32>().unwrap_or_default();
    let fields = stat(std::process::id()).unwrap_or_default();
    f64::from(fields.split(' ').skip(13).take(2).map(ticks).sum::<u32>()) / 100.0
}

fn anonymous_bytes(id: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    value.and_then(|value| value.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or_default()
        * 1024
}
