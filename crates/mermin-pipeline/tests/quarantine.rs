//! Outputs that panic: what they panic at whatever one does is given up, all other records arrive once, and in order.
#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

#[path = "parts/bug.rs"]
mod bug;
#[path = "parts/many_records.rs"]
mod many_records;
mod parts;
#[path = "parts/touchy.rs"]
mod touchy;

use many_records::{chatty, sorted};
use mermin_flow::{Amount, ObservationPoints};
use mermin_pipeline::{DiskBuffer, Outcome, PipelineConfig, Stages, start};
use mermin_spool::{Fsync, Spool, SpoolSettings};
use parts::{Collected, Synthetic, assert_settled, config, in_reader, stages};
use proptest::prelude::*;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use touchy::Touchy;

const NAME: &str = "touchy";

/// 20 000 packets of ten flows, a record for every hundred.
fn run(
    config: PipelineConfig,
    touchy: &Touchy,
    disk: Option<&Path>,
) -> (Outcome<Synthetic<false>>, Collected) {
    let other = Collected::default();
    let buffers = disk.map(|folder| {
        let spool = Spool::open(folder, SpoolSettings { bytes: 1 << 24, fsync: Fsync::Never }).unwrap();
        let points = Arc::new(ObservationPoints::default());
        (NAME.to_owned(), DiskBuffer { spool, points })
    });
    let stages = Stages {
        exporters: vec![Box::new(touchy.clone()), Box::new(other.clone())],
        buffers: buffers.into_iter().collect::<HashMap<_, _>>(),
        ..stages(Synthetic::new(20_000, 10), &other)
    };
    let config = PipelineConfig { enrichment_channel_capacity: parts::count(64), ..config };
    (start(&config, &chatty(), stages).unwrap().wait(|| false), other)
}

fn touchy() -> impl Strategy<Value = Touchy> {
    // Not two calls in a row: what is tried again by itself would then look like poison.
    let moods = prop::collection::hash_set((0..48_usize).prop_map(|n| 2 * n), 0..4);
    let touchy = (prop::option::of(1..16_u32), moods, 0..20_usize);
    touchy.prop_map(|(poison, moods, holds)| Touchy {
        name: NAME.to_owned(),
        poison,
        moods,
        holds,
        ..Touchy::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn only_what_it_panics_at_by_itself_is_given_up(touchy in touchy(), on_disk in any::<bool>(), in_the_reader in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let config = if in_the_reader { in_reader() } else { config(1, 1) };
        let (outcome, other) = run(config, &touchy, on_disk.then(|| folder.path()));
        assert_settled(&outcome);
        let records = sorted(&other);
        let (poison, good): (Vec<_>, Vec<_>) = records.iter().partition(|record| touchy.is_poison(record));
        let good: Vec<_> = good.iter().map(|record| (record.id, record.sequence)).collect();
        let mut received = touchy.received.lock().unwrap().clone();
        // Two workers' batches come in any order, those of a flow in theirs.
        received.sort_by_key(|(flow, _)| flow.0);
        prop_assert_eq!(received, good, "each once, those of a flow in order");
        let (name, book) = &outcome.statistics.outputs[0];
        prop_assert_eq!(name, NAME);
        let mut given_up = Amount::default();
        poison.iter().for_each(|record| given_up += Amount::of(record));
        let dropped = book.dropped.get("quarantine").copied().unwrap_or_default();
        prop_assert_eq!((dropped, book.dropped.len()), (given_up, usize::from(!poison.is_empty())));
        let stages = outcome.statistics.to_json("")["stages"].clone();
        prop_assert_eq!(stages["output touchy"]["panics"].as_u64().unwrap(), *touchy.panics.lock().unwrap());
    }
}
