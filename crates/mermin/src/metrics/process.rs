//! Figures of this process, as the kernel tells them in `/proc/self`.

use rustix::param::clock_ticks_per_second;
use rustix::process::{Resource, getrlimit};
use std::fs;

/// What could be read; the rest is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Process {
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) resident_bytes: Option<u64>,
    pub(super) virtual_bytes: Option<u64>,
    pub(super) threads: Option<u64>,
    /// Seconds since 1970.
    pub(super) started: Option<f64>,
    pub(super) open_files: Option<u64>,
    pub(super) max_files: Option<u64>,
}

impl Process {
    pub(crate) fn this() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let ticks = clock_ticks_per_second() as f64;
        let page = rustix::param::page_size() as u64;
        let mut process = Self::in_stat(&read("/proc/self/stat"), &read("/proc/stat"), ticks, page);
        // One of them is the folder that is being read.
        process.open_files = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64 - 1);
        process.max_files = getrlimit(Resource::Nofile).current;
        process
    }

    /// Seconds of processor time, and resident bytes.
    pub(crate) fn taken() -> (Option<f64>, Option<u64>) {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let (ticks, page) = (clock_ticks_per_second() as f64, rustix::param::page_size() as u64);
        let this = Self::in_stat(&stat, "", ticks, page);
        (this.cpu_seconds, this.resident_bytes)
    }

    /// `own` is proc(5)'s /proc/PID/stat, `system` its /proc/stat.
    fn in_stat(own: &str, system: &str, ticks: f64, page: u64) -> Self {
        // The name is in parentheses and may hold anything: fields are counted behind it, from the third.
        let Some((_, rest)) = own.rsplit_once(") ") else { return Self::default() };
        let field = |number: usize| rest.split(' ').nth(number - 3)?.trim().parse::<u64>().ok();
        let booted = system.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
        Self {
            cpu_seconds: field(14).zip(field(15)).map(|(user, system)| (user + system) as f64 / ticks),
            threads: field(20),
            started: booted.zip(field(22)).map(|(booted, after)| booted + after as f64 / ticks),
            virtual_bytes: field(23),
            resident_bytes: field(24).map(|pages| pages * page),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_the_name() {
        let own = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 7 0 12345 1048576 25 18446744073709551615 1\n";
        let process = Process::in_stat(own, "cpu 1 2\nbtime 1700000000\n", 100.0, 4_096);
        let expected = Process {
            cpu_seconds: Some(2.0),
            resident_bytes: Some(102_400),
            virtual_bytes: Some(1_048_576),
            threads: Some(7),
            started: Some(1_700_000_123.45),
            open_files: None,
            max_files: None,
        };
        assert_eq!(process, expected);
        assert_eq!(Process::in_stat("", "", 100.0, 4_096), Process::default());
    }

    #[test]
    fn this_process_is_known_in_full() {
        let process = Process::this();
        assert!(process.resident_bytes > Some(100_000) && process.virtual_bytes > process.resident_bytes);
        assert!(process.threads >= Some(1) && process.open_files >= Some(3));
        assert!(process.max_files >= process.open_files && process.cpu_seconds >= Some(0.0));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((0.0..86_400.0).contains(&(now - process.started.unwrap())), "{process:?} at {now}");
    }
}
