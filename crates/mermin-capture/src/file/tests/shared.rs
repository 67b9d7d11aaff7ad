//! The captures in `../shared`, with capinfos as the witness.

use super::drain;
use crate::file::ReplaySource;
use mermin_wire::Unmetered;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

fn shared_captures() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/pcaps");
    let mut found: Vec<_> = ["ndpi", "tcpdump", "malformed", "wireshark"]
        .into_iter()
        .filter_map(|folder| std::fs::read_dir(root.join(folder)).ok())
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.to_string_lossy().into_owned();
            [".pcap", ".pcapng", ".pcap.gz"].iter().any(|end| name.ends_with(end))
        })
        .collect();
    found.sort();
    found
}

/// Every packet that tshark finds is seen, whatever else a capture does to parsers.
#[test]
fn shared_captures_have_as_many_packets_as_tshark_says() {
    let captures = shared_captures();
    if captures.is_empty() {
        eprintln!("SKIP shared_captures_have_as_many_packets_as_tshark_says: ../shared/pcaps");
        return;
    }
    if Command::new("capinfos").arg("-h").output().is_err() {
        eprintln!("SKIP shared_captures_have_as_many_packets_as_tshark_says: capinfos");
        return;
    }
    for path in captures {
        let mut source = ReplaySource::open(std::slice::from_ref(&path), Arc::default()).unwrap();
        let (_, sightings) = drain(&mut source, 1000);
        let output = Command::new("capinfos").args(["-M", "-c", "-T", "-r"]).arg(&path).output().unwrap();
        if String::from_utf8_lossy(&output.stderr).contains("unknown or unsupported") {
            // A link type that isn't known there either: nothing to compare with.
            assert_eq!(sightings.unmetered[Unmetered::LinkType as usize].buffers, sightings.seen.buffers);
            continue;
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let expected: u64 = text.trim().rsplit('\t').next().unwrap_or_default().parse().unwrap_or(0);
        assert_eq!(sightings.seen.buffers, expected, "{} {:?}", path.display(), source.damages());
        // Both call the same captures damaged.
        assert_eq!(!source.damages().is_empty(), !output.status.success(), "{}", path.display());
    }
}
