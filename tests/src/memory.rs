//! What a process holds in memory, by its `/proc/PID/status`.

/// A process's anonymous memory at this moment, bytes; `None` when it has ended.
#[must_use]
pub fn anonymous(process: u32) -> Option<u64> {
    kibibytes(process, "RssAnon:")
}

/// The most memory of all kinds that it has held so far, bytes; `None` when it has ended.
#[must_use]
pub fn peak(process: u32) -> Option<u64> {
    kibibytes(process, "VmHWM:")
}

fn kibibytes(process: u32, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_has_memory_and_none_has_id_0() {
        let id = std::process::id();
        let (anonymous, peak) = (super::anonymous(id).unwrap(), super::peak(id).unwrap());
        assert!(anonymous > 0 && anonymous < peak, "{anonymous} of {peak}");
        assert_eq!(super::anonymous(0), None);
    }
}
