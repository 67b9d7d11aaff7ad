//! Programs that nobody reads: they stop counting, and the next run knows for how long.

use super::can_run;
use super::kept::{alone, books, end, open, options, received, sent};
use crate::config::{CaptureMode, RING_BYTES};
use crate::ebpf::EbpfOptions;
use mermin_flow::{Loss, Tally};
use std::thread::sleep;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(1);
/// Of a tick, and of what lies between a look at the clock and what it stands for.
const GRAIN: Duration = Duration::from_millis(50);

#[test]
fn programs_without_an_agent_stop_counting_and_the_next_one_says_for_how_long() {
    if !can_run("programs_without_an_agent_stop_counting_and_the_next_one_says_for_how_long") {
        return;
    }
    for mode in [CaptureMode::Packet, CaptureMode::Aggregate] {
        alone(|pair| {
            let mut settled = Tally::ZERO;
            let short = EbpfOptions { orphan_timeout: TIMEOUT, ..options(mode, RING_BYTES) };
            let source = open(&short);
            // Nobody reads, but the agent lives.
            sleep(TIMEOUT * 3 / 2);
            sent(pair, 100);
            let before = Instant::now();
            let (sightings, kept) = end(source, &mut settled);
            let after = Instant::now();
            assert_eq!((received(&kept), sightings.anomalies.get("uncounted_ms")), (100, None), "{mode:?}");
            sent(pair, 20);
            sleep(TIMEOUT * 3 / 2);
            sent(pair, 50);
            let at_least = after.elapsed() - TIMEOUT - GRAIN;
            let source = open(&short);
            let at_most = before.elapsed() - TIMEOUT + GRAIN;
            sent(pair, 30);
            let (sightings, kept) = end(source, &mut settled);
            assert_eq!(received(&kept), 20 + 30, "{mode:?}");
            assert_eq!(sightings.lost.get(&Loss::Crash), None);
            let uncounted = Duration::from_millis(sightings.anomalies["uncounted_ms"]);
            assert!((at_least..=at_most).contains(&uncounted), "{at_least:?} {uncounted:?} {at_most:?}");
            // It is told once.
            let books = books(mode, RING_BYTES, &mut settled);
            assert_eq!((books.due, books.lost), (settled, Tally::ZERO));
        });
    }
}
