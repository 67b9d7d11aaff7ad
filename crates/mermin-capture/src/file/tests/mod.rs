//! Hand-made captures: each feature of the formats, each kind of damage, any bytes, and the captures in `../shared`.

mod any;
mod damaged;
mod formats;
mod made;
mod panics;
mod shared;
mod stream;

use super::{Damage, ReplaySource};
use crate::testing::Kept;
use mermin_flow::{ObservationPoints, Polled, Sightings, Source, Tally};
use std::io::Cursor;
use std::sync::Arc;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Order {
    Little,
    Big,
}

impl Kept {
    fn times(&self) -> Vec<u64> {
        self.0.iter().map(|seen| seen.start).collect()
    }
    fn ports(&self) -> Vec<u16> {
        self.0.iter().map(|seen| u16::from_be(seen.ports[0])).collect()
    }
}

/// Reads to the end; the book has to balance.
fn drain(source: &mut ReplaySource, budget: usize) -> (Kept, Sightings) {
    let mut kept = Kept::default();
    let mut watermark = 0;
    while source.poll(&mut kept, budget) != Polled::Ended {
        assert!(source.watermark() >= watermark);
        watermark = source.watermark();
    }
    let sightings = source.sightings().unwrap();
    let unmetered: Tally = sightings.unmetered.iter().copied().sum();
    let left = kept.tally() + unmetered;
    assert_eq!((sightings.seen.buffers, sightings.seen.buffer_bytes), (left.buffers, left.buffer_bytes));
    assert_eq!(source.rejected(), unmetered.packets);
    (kept, sightings)
}

fn reader(bytes: Vec<u8>) -> (ReplaySource, Arc<ObservationPoints>) {
    let points = Arc::new(ObservationPoints::default());
    (ReplaySource::from_reader("made", Box::new(Cursor::new(bytes)), Arc::clone(&points)), points)
}

fn read(bytes: Vec<u8>) -> (Kept, Sightings, Vec<String>) {
    let (mut source, _) = reader(bytes);
    let (kept, sightings) = drain(&mut source, 3);
    (kept, sightings, source.damages().iter().map(Damage::to_string).collect())
}
