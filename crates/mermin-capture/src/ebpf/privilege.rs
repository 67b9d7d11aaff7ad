//! Which capabilities are missing, asked before the kernel answers with a bare "operation not permitted".

use std::fs;

const CAP_NET_ADMIN: (u32, &str) = (12, "CAP_NET_ADMIN");
const CAP_SYS_ADMIN: u32 = 21;
/// Variable offsets into packets are for the privileged only.
const CAP_PERFMON: (u32, &str) = (38, "CAP_PERFMON");
const CAP_BPF: (u32, &str) = (39, "CAP_BPF");

/// Names of capabilities that the programs need and this thread lacks.
pub(super) fn missing() -> Vec<&'static str> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    missing_in(&status)
}

fn missing_in(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    // Without /proc nothing is known: the kernel will say.
    let Some(effective) = effective else { return Vec::new() };
    let has = |bit: u32| effective >> bit & 1 == 1;
    let mut missing = Vec::new();
    if !has(CAP_NET_ADMIN.0) {
        missing.push(CAP_NET_ADMIN.1);
    }
    for (bit, name) in [CAP_BPF, CAP_PERFMON] {
        if !has(bit) && !has(CAP_SYS_ADMIN) {
            missing.push(name);
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_named() {
        for (effective, expected) in [
            ("000001ffffffffff", &[][..]),
            ("0000000000000000", &["CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON"]),
            ("0000000000201000", &[]),
            ("000000c000000000", &["CAP_NET_ADMIN"]),
            ("0000008000001000", &["CAP_PERFMON"]),
            ("0000004000001000", &["CAP_BPF"]),
        ] {
            let status = format!("Name:\tx\nCapEff:\t{effective}\nCapBnd:\t000001ffffffffff\n");
            assert_eq!(missing_in(&status), expected, "{effective}");
        }
        assert_eq!(missing_in(""), [""; 0]);
    }
}
