//! The log lines that the founding document shows, word for word.

use crate::captures;
use mermin_tests::capture_file::{EPOCH, pcap};
use mermin_tests::frame::{Ends, Segment, ethernet, flag, tcp};
use mermin_tests::program::{Outcome, Program};

/// The message of each line of the log, without its time and level.
fn messages(outcome: &Outcome) -> Vec<&str> {
    outcome.stderr.lines().filter_map(|line| line.split_once(" INFO  ").map(|(_, message)| message)).collect()
}

fn replay(frames: &[(u64, Vec<u8>)]) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("capture.pcap");
    std::fs::write(&file, pcap(frames)).unwrap();
    Program::replay(&[&file]).run().kept(0)
}

#[test]
fn the_example_id_belongs_to_its_flow() {
    let ends = Ends::new("1.2.3.4:1122", "5.6.7.8:3344");
    let syn = Segment { flags: flag::SYN, ..Segment::default() };
    for ends in [ends, ends.back()] {
        let outcome = replay(&[(EPOCH, ethernet(&tcp(ends, syn, &[])))]);
        let messages = messages(&outcome);
        for expected in [
            "Flow processing pipeline initialized",
            "Packet reader task started",
            "New flow created: 1:wCb3OG7yAFWelaUydu0D+125CLM=",
        ] {
            assert_eq!(
                messages.iter().filter(|line| **line == expected).count(),
                1,
                "{expected}: {messages:?}"
            );
        }
    }
}

#[test]
fn a_thousand_packets_are_said_once() {
    let ends = Ends::new("10.0.0.1:1122", "10.0.0.2:3344");
    let frame = ethernet(&tcp(ends, Segment { flags: flag::ACK, ..Segment::default() }, b"data"));
    let frames: Vec<_> = (0..1000).map(|index| (EPOCH + index, frame.clone())).collect();
    let of = |outcome: &Outcome| -> Vec<String> {
        messages(outcome)
            .iter()
            .filter(|line| line.starts_with("Processed "))
            .map(|line| (*line).to_owned())
            .collect()
    };
    assert_eq!(of(&replay(&frames)), ["Processed 1000 packets"]);
    assert_eq!(of(&replay(&frames[..999])), Vec::<String>::new());
}

#[test]
fn active_is_created_less_released_in_every_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("capture.pcap");
    std::fs::write(&file, captures::short_flows(60_000)).unwrap();
    let outcome = Program::replay(&[&file]).set("pipeline.stats_interval=20ms").run().kept(0);
    let mut lines = 0;
    for line in messages(&outcome) {
        let Some(rest) = line.strip_prefix("Flow Pipeline Stats: ") else { continue };
        let numbers: Vec<u64> =
            rest.split(", ").filter_map(|part| part.split(' ').next()?.parse().ok()).collect();
        let words: Vec<&str> = rest.split(", ").filter_map(|part| Some(part.split_once(' ')?.1)).collect();
        assert_eq!(words, ["active flows", "total created", "total released", "packets processed"], "{line}");
        assert_eq!(numbers[0] + numbers[2], numbers[1], "{line}");
        lines += 1;
    }
    assert!(lines >= 1, "no statistics line: {}", outcome.stderr);
}
