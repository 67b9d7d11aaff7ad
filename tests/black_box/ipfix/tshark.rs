//! tshark as a witness of messages: what it adds up, and what it complains of.

use super::sighting::Count;
use mermin_tests::servers::ipfix_tap::capture;
use std::path::Path;
use std::process::Command;

/// What tshark says.
#[derive(Debug, Default)]
pub(super) struct Testimony {
    pub(super) messages: usize,
    /// Packets and IP bytes over all data records.
    pub(super) forward: Count,
    /// The same of reverse elements.
    pub(super) reverse: Count,
    /// What is malformed or against its expectation, a gap in the sequence numbers among it.
    pub(super) complaints: Vec<String>,
}

/// Asks about messages, each with a port that tells its session from others.
pub(super) fn witness<'a>(messages: impl IntoIterator<Item = (u16, &'a [u8])>) -> Testimony {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("messages.pcap");
    std::fs::write(&file, capture(messages)).unwrap();
    let mut testimony = Testimony::default();
    for line in tshark(&file, &["-O", "cflow"]).lines().map(str::trim) {
        let Some((name, value)) = line.split_once(": ") else { continue };
        let of_what = match name {
            "Version" => {
                testimony.messages += usize::from(["9", "10"].contains(&value));
                continue;
            }
            "Packets" => 0,
            "Octets" => 1,
            _ => continue,
        };
        let direction =
            if value.contains("(Reverse ") { &mut testimony.reverse } else { &mut testimony.forward };
        let number = value.split(' ').next().unwrap();
        direction[of_what] += number.parse::<u64>().unwrap_or_else(|_| panic!("{line}"));
    }
    let fields = ["frame.number", "_ws.expert.message", "_ws.malformed"].map(|field| ["-e", field]).concat();
    let questions = ["-Y", "_ws.expert || _ws.malformed || !cflow", "-T", "fields"];
    let complaints = tshark(&file, &[&questions[..], &fields[..]].concat());
    testimony.complaints = complaints.lines().map(str::to_owned).collect();
    testimony
}

fn tshark(file: &Path, words: &[&str]) -> String {
    let output = Command::new("tshark").arg("-n").arg("-r").arg(file).args(words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
