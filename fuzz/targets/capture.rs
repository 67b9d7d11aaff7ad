//! Any bytes as a capture: reading ends, every buffer has one verdict, and neither the size of reads nor the budget
//! of a poll changes what is said.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mermin_capture::file::ReplaySource;
use mermin_flow::{Observation, ObservationPoints, Polled, Sightings, Sink, Source, Tally};
use std::io::{Cursor, Read, Result};
use std::sync::Arc;

#[derive(Default)]
struct Observed {
    tally: Tally,
    latest: u64,
}

impl Sink for Observed {
    fn observe(&mut self, o: Observation) {
        assert!(o.packets >= 1 && o.start <= o.end && o.bytes <= o.frame_bytes, "{o:?}");
        assert!(o.ip_version == 4 || o.ip_version == 6, "{o:?}");
        self.tally += o.tally();
        self.latest = self.latest.max(o.end);
    }
}

/// Gives a few bytes at a time, as a slow pipe does.
struct Trickle(Cursor<Vec<u8>>);

impl Read for Trickle {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        let few = into.len().min(1 + self.0.position() as usize % 7);
        self.0.read(&mut into[..few])
    }
}

/// What a run over a capture says.
#[derive(Debug, PartialEq)]
struct Said {
    sightings: Sightings,
    observed: Tally,
    watermark: u64,
    damage: Vec<String>,
}

fuzz_target!(|data: &[u8]| {
    let (whole, compressed) = replay(Box::new(Cursor::new(data.to_vec())), 512);
    // A decompressor loses what it wrote in the call that met damage, and calls fall differently here. And it looks more closely
    // at a frame that comes in parts than at one that it has as a whole.
    if !compressed {
        let (trickled, compressed) = replay(Box::new(Trickle(Cursor::new(data.to_vec()))), 1);
        assert!(compressed || whole == trickled, "a slow pipe says the same: {whole:?} {trickled:?}");
    }
});

fn replay(input: Box<dyn Read + Send>, budget: usize) -> (Said, bool) {
    let mut source = ReplaySource::from_reader("fuzz", input, Arc::new(ObservationPoints::default()));
    let mut observed = Observed::default();
    while source.poll(&mut observed, budget) != Polled::Ended {}
    let sightings = source.sightings().expect("a replay always has its book");
    let verdicts: Tally = sightings.unmetered.into_iter().sum::<Tally>()
        + sightings.lost.values().copied().sum::<Tally>()
        + observed.tally;
    assert_eq!(
        (sightings.seen.buffers, sightings.seen.buffer_bytes),
        (verdicts.buffers, verdicts.buffer_bytes),
        "every buffer has one verdict"
    );
    assert_eq!(source.rejected(), sightings.unmetered.iter().map(|tally| tally.packets).sum::<u64>());
    assert!(source.watermark() >= observed.latest);
    assert!(source.damages().len() <= 1, "one file has one damage");
    let said = Said {
        sightings,
        observed: observed.tally,
        watermark: source.watermark(),
        damage: source.damages().iter().map(ToString::to_string).collect(),
    };
    let compressed = source.damages().iter().any(|damage| damage.compressed);
    (said, compressed)
}
