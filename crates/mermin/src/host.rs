//! What this host offers: kernel, capabilities, limits. Read from /proc and /sys; nothing is tried.

use mermin_flow::ByteSize;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

/// A capability and its bit in the process's sets (linux/capability.h).
const CAPABILITIES: [(&str, u32); 4] =
    [("CAP_BPF", 39), ("CAP_NET_ADMIN", 12), ("CAP_PERFMON", 38), ("CAP_NET_RAW", 13)];
const CAP_SYS_ADMIN: u32 = 21;

/// What has to be the same for a run to go on with what is in the memory of one before: program, boot, network namespace.
///
/// # Errors
/// The kernel doesn't say.
pub(crate) fn identity() -> io::Result<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let network = fs::metadata("/proc/thread-self/ns/net")?.ino();
    Ok(format!("mermin {}, boot {}, network namespace {network}", env!("CARGO_PKG_VERSION"), boot.trim()))
}

/// The capabilities of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capabilities(u64);

impl Capabilities {
    pub(crate) fn of_this_process() -> Self {
        Self::in_status(&fs::read_to_string("/proc/thread-self/status").unwrap_or_default())
    }

    pub(crate) fn in_status(status: &str) -> Self {
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        Self(effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0))
    }

    fn has(self, name: &str, bit: u32) -> bool {
        let implied = matches!(name, "CAP_BPF" | "CAP_PERFMON") && self.0 >> CAP_SYS_ADMIN & 1 == 1;
        self.0 >> bit & 1 == 1 || implied
    }

    /// Each that live capture can need, and whether it is there.
    pub(crate) fn all(self) -> [(&'static str, bool); 4] {
        CAPABILITIES.map(|(name, bit)| (name, self.has(name, bit)))
    }

    /// What eBPF lacks.
    pub(crate) fn missing_for_ebpf(self) -> Vec<&'static str> {
        let missing = self.all().into_iter().filter(|(name, there)| *name != "CAP_NET_RAW" && !there);
        missing.map(|(name, _)| name).collect()
    }

    /// Whether AF_PACKET sockets can be opened.
    pub(crate) fn allow_af_packet(self) -> bool {
        self.all().contains(&("CAP_NET_RAW", true))
    }
}

/// What to type so that live capture works.
pub(crate) fn how_to_get_permission() -> String {
    format!(
        "run it with sudo, or once: sudo setcap cap_bpf,cap_net_admin,cap_perfmon,cap_net_raw+ep {}",
        program()
    )
}

/// This program, as a shell finds it.
pub(crate) fn program() -> String {
    std::env::current_exe().map_or_else(|_| "mermin".to_owned(), |path| path.display().to_string())
}

/// The kernel's release, for example `6.6.30-amd64`.
pub(crate) fn kernel_release() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    text.trim().to_owned()
}

/// Major and minor number of a release.
pub(crate) fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether the kernel describes its types.
pub(crate) fn has_btf() -> bool {
    fs::metadata("/sys/kernel/btf/vmlinux").is_ok()
}

/// The soft limit of a resource, by its name in /proc/self/limits.
pub(crate) fn limit(name: &str) -> Option<String> {
    limit_in(&fs::read_to_string("/proc/self/limits").ok()?, name)
}

fn limit_in(limits: &str, name: &str) -> Option<String> {
    let mut columns = limits.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace();
    let (soft, unit) = (columns.next()?, columns.nth(1));
    match soft.parse() {
        Ok(bytes) if unit == Some("bytes") => Some(ByteSize(bytes).to_string()),
        _ => Some(soft.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capabilities(digits: &str) -> Capabilities {
        Capabilities::in_status(&format!("Name:\tx\nCapEff:\t{digits}\n"))
    }

    #[test]
    fn missing_capabilities_are_named() {
        let none = capabilities("0000000000000000");
        assert_eq!(none.missing_for_ebpf(), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
        assert!(!none.allow_af_packet());
        let raw = capabilities("0000000000002000");
        assert_eq!((raw.missing_for_ebpf().len(), raw.allow_af_packet()), (3, true));
        let admin = capabilities("0000000000201000");
        assert_eq!((admin.missing_for_ebpf().len(), admin.allow_af_packet()), (0, false));
        assert!(capabilities("000001ffffffffff").missing_for_ebpf().is_empty());
    }

    #[test]
    fn limits_have_units() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max locked memory         8388608              unlimited            bytes     \n\
                      Max open files            1024                 4096                 files     \n\
                      Max cpu time              unlimited            unlimited            seconds   \n";
        for (name, expected) in [
            ("Max locked memory", Some("8MiB")),
            ("Max open files", Some("1024")),
            ("Max cpu time", Some("unlimited")),
            ("Max nothing", None),
        ] {
            assert_eq!(limit_in(limits, name).as_deref(), expected);
        }
    }

    #[test]
    fn releases_have_versions() {
        assert_eq!(version("6.18.44-fc-v595"), Some((6, 18)));
        assert_eq!(version("5.15.0"), Some((5, 15)));
        assert_eq!(version(""), None);
    }
}
