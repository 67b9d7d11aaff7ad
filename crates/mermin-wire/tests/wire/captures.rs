//! Every frame of every capture at hand goes through the parser.

use mermin_wire::{Headers, Link, parse};
use std::fs;
use std::path::{Path, PathBuf};

/// Link type, captured bytes and wire length of the records of a classic capture or of the packets of a pcapng file,
/// as far as they make sense: the readers proper are tested elsewhere.
fn frames(file: &[u8]) -> Vec<(u16, &[u8], u32)> {
    let word = |at: usize, big: bool| -> Option<u32> {
        let bytes = file.get(at..at + 4)?.try_into().ok()?;
        Some(if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    };
    let mut found = Vec::new();
    let magic = word(0, false).unwrap_or(0);
    let mut at;
    if magic == 0x0a0d_0d0a {
        let big = word(8, false) == Some(0x4d3c_2b1a);
        let mut links = Vec::new();
        at = 0;
        while let (Some(kind), Some(size)) = (word(at, big), word(at + 4, big)) {
            if kind == 1 {
                links.push(word(at + 8, big).unwrap_or(0).swap_bytes().to_be() as u16);
            } else if kind == 6
                && let (Some(interface), Some(captured), Some(wire)) =
                    (word(at + 8, big), word(at + 20, big), word(at + 24, big))
                && let Some(bytes) = file.get(at + 28..at + 28 + captured as usize)
            {
                found.push((links.get(interface as usize).copied().unwrap_or(0), bytes, wire));
            }
            if size < 12 {
                break;
            }
            at += size as usize;
        }
        return found;
    }
    let big = match magic {
        0xa1b2_c3d4 | 0xa1b2_3c4d => false,
        0xd4c3_b2a1 | 0x4d3c_b2a1 => true,
        _ => return found,
    };
    let link = word(20, big).unwrap_or(0) as u16;
    at = 24;
    while let (Some(captured), Some(wire)) = (word(at + 8, big), word(at + 12, big))
        && let Some(bytes) = file.get(at + 16..at + 16 + captured as usize)
    {
        found.push((link, bytes, wire));
        at += 16 + captured as usize;
    }
    found
}

fn captures(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { captures(&path, found) } else { found.push(path) }
    }
}

#[test]
fn every_capture_is_walked() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/pcaps");
    let mut paths = Vec::new();
    captures(&folder, &mut paths);
    if paths.is_empty() {
        eprintln!("SKIP every_capture_is_walked: ../shared/pcaps");
        return;
    }
    let (mut metered, mut unmetered) = (0, 0);
    for path in paths {
        let file = fs::read(&path).unwrap();
        for (linktype, bytes, wire) in frames(&file) {
            let Some(link) = Link::from_linktype(linktype) else { continue };
            let mut headers = Headers::new(wire.max(bytes.len() as u32), None);
            match parse(link, bytes, &mut headers) {
                Ok(()) => metered += 1,
                Err(_) => unmetered += 1,
            }
        }
    }
    assert!(metered > 10_000 && unmetered > 100, "{metered} metered, {unmetered} not");
}
