//! A storm of flows into channels that are far too small: a million new ones a second by the capture's own clock, one packet
//! each, and as fast as the program reads them. It waits and loses nothing, or it drops and says exactly what; either way
//! within its budget of memory.

use mermin_tests::crowd;
use mermin_tests::memory::peak;
use mermin_tests::program::{Outcome, Program};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::atomic::AtomicU64;

/// Three seconds' worth of the capture.
const FLOWS: u64 = 3_000_000;
/// The agent without flows takes 10 MiB, and a table for all of these would be a gigabyte. At half the shipped size (the
/// budget halves it, as it would not fit) the table takes 25 MiB.
const BUDGET: u64 = 64 << 20;
/// Observations: a thousandth of what comes in a quarter of a second.
const CHANNEL: u64 = 256;
const HEADER: usize = 24;
const PACKET_HEADER: u64 = 16;

/// What came of it.
struct Storm {
    outcome: Outcome,
    /// Records that the JSON output wrote, and packets in them.
    written: (u64, u64),
}

/// Adds up what JSON lines say.
fn count(lines: impl Read) -> io::Result<(u64, u64)> {
    let (mut lines, mut line, mut sum) = (BufReader::with_capacity(1 << 20, lines), String::new(), (0, 0));
    while lines.read_line(&mut line)? > 0 {
        for counter in [r#","flow.packets.delta":"#, r#","flow.reverse.packets.delta":"#] {
            let (_, from) = line.split_once(counter).expect("all counters are in every record");
            let digits = from.split(|sign: char| !sign.is_ascii_digit()).next().unwrap_or_default();
            sum.1 += digits.parse::<u64>().expect("a number");
        }
        sum.0 += 1;
        line.clear();
    }
    Ok(sum)
}

impl Storm {
    /// With an output that counts and one that costs nothing.
    fn new(capture: &[u8], enable_backpressure: bool) -> Self {
        let program = Program::new("replay")
            .args(["-o", "none", "-"])
            .set("pipeline.replay_metering=workers")
            .set(&format!("pipeline.packet_channel_capacity={CHANNEL}"))
            .set("pipeline.enrichment_channel_capacity=16")
            .set("enrich.names.10.0.0.0/8=crowd")
            .set(&format!("pipeline.enable_backpressure={enable_backpressure}"))
            .set("pipeline.enable_metrics=true")
            .set("pipeline.shutdown_timeout=60s")
            .set(&format!("resources.memory={}MiB", BUDGET >> 20));
        let (mut written, mut high) = ((0, 0), 0);
        let outcome = program.run_watched(
            |mut stdin| stdin.write_all(capture),
            |stdout| count(stdout).map(|sum| written = sum),
            |id| high = high.max(peak(id).unwrap_or_default()),
        );
        let outcome = outcome.kept_books(0);
        let storm = Self { outcome, written };
        let (seen, lost) = (storm.number("/ledger/seen/packets"), storm.lost("packets"));
        eprintln!(
            "backpressure {enable_backpressure}: {:.2} M new flows/s offered, {lost} of {seen} lost; at most {} MiB",
            seen as f64 / storm.outcome.statistics()["duration_seconds"].as_f64().unwrap() / 1e6,
            high >> 20
        );
        // All kinds of memory, which is what the budget is of.
        assert!(high > 0 && high <= BUDGET, "{high} bytes");
        storm
    }

    fn number(&self, pointer: &str) -> u64 {
        self.outcome.number(pointer)
    }

    fn lost(&self, unit: &str) -> u64 {
        self.number(&format!("/ledger/lost/packet_channel_full/{unit}"))
    }

    /// What holds whatever was lost: by the capture's own count, the ledger, and the records that were written.
    fn adds_up(&self, frame: u64) {
        let ledger = &self.outcome.statistics()["ledger"];
        let terms = [
            ("packets", FLOWS),
            ("buffers", FLOWS),
            ("bytes", FLOWS * frame),
            ("buffer_bytes", FLOWS * frame),
        ];
        for (unit, offered) in terms {
            assert_eq!(self.number(&format!("/ledger/seen/{unit}")), offered, "{unit}: {ledger}");
            let metered = self.number(&format!("/ledger/metered/{unit}"));
            assert_eq!(metered + self.lost(unit), offered, "{unit}: {ledger}");
        }
        let metered = self.number("/ledger/metered/packets");
        assert_eq!((self.number("/flows/created"), self.number("/flows/released")), (metered, metered));
        for output in ["json", "none"] {
            let handed = self.number(&format!("/outputs/{output}/handed/packets"));
            assert_eq!(handed, metered, "{output}");
        }
        let delivered =
            ["records", "packets"].map(|unit| self.number(&format!("/outputs/json/delivered/{unit}")));
        assert_eq!([self.written.0, self.written.1], delivered);
    }
}

#[test]
fn a_storm_of_flows_costs_nothing_or_an_exact_loss_and_bounded_memory() {
    let mut capture = Vec::new();
    crowd::write(&mut capture, FLOWS, &AtomicU64::new(0)).unwrap();
    let frame = (capture.len() - HEADER) as u64 / FLOWS - PACKET_HEADER;
    let waits = Storm::new(&capture, true);
    waits.adds_up(frame);
    assert_eq!(waits.outcome.statistics()["ledger"]["lost"], serde_json::json!({}));
    assert_eq!(waits.written, (FLOWS, FLOWS), "every flow has its record, and every packet is in one");
    assert!(waits.number("/stages/packet_reader/waits") > 1_000, "the channel had room");
    // What is left where most is dropped may fit into the table.
    assert!(waits.number("/flows/evicted") > 0, "the table was never full");
    let drops = Storm::new(&capture, false);
    drops.adds_up(frame);
    assert!(drops.lost("packets") > 0, "the channel had room");
    for storm in [waits, drops] {
        let high = storm.number("/stages/packet_channel/high_water");
        assert!(high > CHANNEL / 2 && high <= CHANNEL, "{high}");
    }
}
