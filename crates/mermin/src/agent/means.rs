//! What the agent has to work with and what it takes: its settings, cores and memory. Part of the statistics, so that who
//! reads them can say what to change.

use crate::config::Config;
use crate::metrics::Process;
use crate::resources::Limits;
use rustix::param::clock_ticks_per_second;
use serde_json::{Map, Value, json};
use std::fs;
use std::sync::{Mutex, PoisonError};

/// What a run goes by at present.
#[derive(Debug, Default)]
pub(crate) struct Present(Mutex<Means>);

impl Present {
    pub(crate) fn of(config: &Config, command: &'static str) -> Self {
        Self(Mutex::new(Means::of(config, command)))
    }

    /// From now on this.
    pub(crate) fn set(&self, config: &Config) {
        let mut means = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *means = Means::of(config, means.command);
    }

    pub(crate) fn means(&self) -> Means {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The settings that throughput, memory and loss depend on, by their keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Means {
    /// Flows that the tables hold at most.
    pub(crate) table_capacity: u64,
    /// `run`, `replay` or `demo`.
    command: &'static str,
    settings: Map<String, Value>,
    limits: Limits,
}

impl Means {
    pub(crate) fn of(config: &Config, command: &'static str) -> Self {
        let pipeline = serde_json::to_value(&config.pipeline).unwrap_or_default();
        let pipeline = pipeline.as_object().cloned().unwrap_or_default();
        let mut settings: Map<_, _> =
            pipeline.into_iter().map(|(key, value)| (format!("pipeline.{key}"), value)).collect();
        for (key, value) in [
            ("flow.table_capacity", json!(config.flow.table_capacity)),
            ("flow.active_timeout", json!(config.flow.active_timeout)),
            ("export.queue_capacity", json!(config.export.queue_capacity)),
            ("capture.ring_bytes", json!(config.capture.ring_bytes)),
            ("capture.mode", json!(config.capture.mode)),
            ("enrich.enabled", json!(config.enrich.enabled)),
            ("resources.cpu", json!(config.resources.cpu)),
            ("resources.sampling", json!(config.resources.sampling)),
            ("resources.memory", json!(config.resources.memory)),
        ] {
            settings.insert(key.to_owned(), value);
        }
        let (table_capacity, limits) = (config.flow.table_capacity.get() as u64, config.resources.limits());
        Self { table_capacity, command, settings, limits }
    }

    /// Adds `command`, `settings` and `process` to statistics.
    pub(crate) fn tell(&self, statistics: &mut Value) {
        statistics["command"] = json!(self.command);
        statistics["settings"] = json!(self.settings);
        statistics["process"] = process(&self.limits);
    }
}

fn process(limits: &Limits) -> Value {
    let this = Process::this();
    let told = [
        ("cpu_seconds", this.cpu_seconds.map(Value::from)),
        ("resident_bytes", this.resident_bytes.map(Value::from)),
        (
            "memory_limit_bytes",
            memory_limit(limits, &fs::read_to_string("/proc/meminfo").unwrap_or_default()).map(Value::from),
        ),
        ("cores", std::thread::available_parallelism().ok().map(|cores| cores.get().into())),
        ("idle_seconds", idle(&fs::read_to_string("/proc/stat").unwrap_or_default()).map(Value::from)),
        ("threads", Some(Value::Object(threads()))),
    ];
    let known = told.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(known.collect())
}

/// Memory of the machine, or less if the agent may have less.
fn memory_limit(limits: &Limits, meminfo: &str) -> Option<u64> {
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_ascii_whitespace().next()?.parse().ok());
    let total = total.map(|kibibytes: u64| kibibytes << 10);
    limits.memory.into_iter().chain(total).min()
}

/// Seconds that all cores together had nothing to do, of proc(5)'s `/proc/stat`.
fn idle(stat: &str) -> Option<f64> {
    let fields: Vec<u64> = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_ascii_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    // Waiting for a disk takes no processor either.
    Some((fields.get(3)? + fields.get(4)?) as f64 / clock_ticks_per_second() as f64)
}

/// Seconds of processor time, by the thread's name.
fn threads() -> Map<String, Value> {
    let ticks = clock_ticks_per_second() as f64;
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    let mut threads: Map<String, Value> = Map::new();
    for (name, seconds) in stats.filter_map(|stat| thread(&stat, ticks)) {
        let before = threads.get(&name).and_then(Value::as_f64).unwrap_or_default();
        threads.insert(name, json!(before + seconds));
    }
    threads
}

/// Of proc(5)'s `/proc/PID/task/TID/stat`.
fn thread(stat: &str, ticks: f64) -> Option<(String, f64)> {
    let (front, rest) = stat.rsplit_once(") ")?;
    let (_, name) = front.split_once('(')?;
    let field = |number: usize| rest.split(' ').nth(number - 3)?.parse::<u64>().ok();
    Some((name.to_owned(), (field(14)? + field(15)?) as f64 / ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_told_by_their_keys_with_their_present_values() {
        let config = crate::config::parse("pipeline: {flow_workers: 3}").unwrap();
        let mut statistics = json!({});
        Means::of(&config, "run").tell(&mut statistics);
        let settings = &statistics["settings"];
        assert_eq!(
            (&settings["pipeline.flow_workers"], &settings["capture.ring_bytes"]),
            (&json!(3), &json!("16MiB"))
        );
        assert_eq!(
            (&statistics["command"], &settings["flow.table_capacity"]),
            (&json!("run"), &json!(131_072))
        );
        let process = &statistics["process"];
        assert!(
            process["resident_bytes"].as_u64() > Some(0) && process["cores"].as_u64() > Some(0),
            "{process}"
        );
        assert!(process["idle_seconds"].as_f64() > Some(0.0), "{process}");
        assert!(process["memory_limit_bytes"].as_u64() > process["resident_bytes"].as_u64(), "{process}");
        assert!(process["threads"].as_object().is_some_and(|threads| !threads.is_empty()), "{process}");
    }

    #[test]
    fn the_least_limit_counts() {
        let meminfo = "MemTotal:       2048 kB\nMemFree: 1 kB\n";
        let limits = |memory| Limits { memory, ..Limits::default() };
        assert_eq!(memory_limit(&limits(None), ""), None);
        assert_eq!(memory_limit(&limits(None), meminfo), Some(2 << 20));
        assert_eq!(memory_limit(&limits(Some(4_096)), meminfo), Some(4_096));
        assert_eq!(memory_limit(&limits(Some(1 << 40)), meminfo), Some(2 << 20));
    }

    #[test]
    fn a_threads_time_stands_behind_its_name() {
        let stat = "42 (flow-0) S 1 42 42 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 7 0 12345\n";
        assert_eq!(thread(stat, 100.0), Some(("flow-0".to_owned(), 2.0)));
        assert_eq!(thread("", 100.0), None);
    }
}
