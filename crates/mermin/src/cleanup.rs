//! `mermin cleanup`: takes away what runs have left in the kernel.

use crate::Surroundings;
use crate::exit::{Exit, Stop};
use crate::host;
use crate::live::in_full;
use crate::output::print;
use mermin_capture::ebpf::{EbpfError, Removed, clean_up};
use std::fmt::Write as _;

/// Runs the command.
pub(crate) fn cleanup(surroundings: &mut Surroundings<'_>) -> Result<Exit, Stop> {
    match clean_up() {
        Ok(removed) => print(surroundings.out, &told(&removed)),
        Err(error) => Err(stop(&error)),
    }
}

/// Why it can't be done, or why `run` can't begin.
pub(crate) fn stop(error: &EbpfError) -> Stop {
    match error {
        EbpfError::Held { .. } => Stop::new(Exit::Unavailable, in_full(error))
            .help("end that agent first, or run this one with capture.on_exit: detach"),
        _ => Stop::new(Exit::NoPermission, in_full(error)).help(host::how_to_get_permission()),
    }
}

fn told(removed: &Removed) -> String {
    let Removed { links, filters, names, others } = removed;
    let mut text = String::new();
    for (what, of) in [("programs on tcx of", links), ("filters of clsact of", filters)] {
        if !of.is_empty() {
            let _ = writeln!(text, "removed {what} {}", of.join(", "));
        }
    }
    if *names > 0 {
        let _ = writeln!(text, "removed {names} names of maps and links, with what was counted there");
    }
    for other in others {
        let _ = writeln!(text, "removed what another version had left ({other})");
    }
    if text.is_empty() {
        text.push_str("there was nothing to remove\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_is_told() {
        assert_eq!(told(&Removed::default()), "there was nothing to remove\n");
        let removed = Removed {
            links: vec!["eth0".to_owned(), "veth1".to_owned()],
            filters: vec!["veth2".to_owned()],
            names: 14,
            others: vec!["abi2-0123".to_owned()],
        };
        assert_eq!(
            told(&removed),
            "removed programs on tcx of eth0, veth1\n\
             removed filters of clsact of veth2\n\
             removed 14 names of maps and links, with what was counted there\n\
             removed what another version had left (abi2-0123)\n"
        );
    }
}
