//! The shipped object on the running kernel.

mod frames;
mod live;
pub(crate) mod net;
mod nonlinear;
mod parity;
mod prebuilt;

/// Whether kernel programs can be loaded and namespaces made; says what is missing where they can't.
fn can_run(test: &str) -> bool {
    // CAP_SYS_ADMIN, for namespaces.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or("0");
    let effective = u64::from_str_radix(effective.trim(), 16).unwrap_or(0);
    let mut missing = super::privilege::missing();
    if effective >> 21 & 1 == 0 {
        missing.push("CAP_SYS_ADMIN");
    }
    if !missing.is_empty() {
        eprintln!("SKIP {test}: {}", missing.join(", "));
    } else if std::process::Command::new("ip").arg("-V").output().is_err() {
        eprintln!("SKIP {test}: ip (iproute2)");
    } else {
        return true;
    }
    false
}
