//! What a panic a second costs: a replay by turns without panics, and with flow workers of which one panics each second.
//!
//! `cargo bench -p mermin-pipeline --features hold --bench disturbed`: a pipeline whose source makes packets of 100 000 flows
//! up as it goes, two flow workers, no output.
#![expect(clippy::unwrap_used, reason = "a failure here fails the measurement")]

use mermin_flow::{FlowConfig, Interval, Observation, Polled, PortForm, Sightings, Sink, Source, Tally};
use mermin_pipeline::{
    Budget, Hold, PipelineConfig, ReplayMetering, Stages, contained_panics_go_to_the_log, start,
};
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PACKETS: u64 = 40_000_000;
const FLOWS: u64 = 100_000;
const TURNS: usize = 9;

/// Packets of many flows, 1 µs apart.
struct Made {
    sent: u64,
    book: Sightings,
}

impl Source for Made {
    const LIVE: bool = false;

    fn poll(&mut self, sink: &mut impl Sink, budget: usize) -> Polled {
        for _ in 0..budget {
            if self.sent == PACKETS {
                return Polled::Ended;
            }
            let flow = self.sent.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            let time = 1_700_000_000_000_000_000 + self.sent * 1_000;
            self.book.seen += Tally { buffers: 1, buffer_bytes: 114, ..Tally::ZERO };
            self.sent += 1;
            sink.observe(Observation {
                addresses: [flow % FLOWS, 0, u64::MAX, 0],
                ports: [40_000_u16.to_be(), 53_u16.to_be()],
                port_form: PortForm::Ports,
                protocol: 17,
                packets: 1,
                bytes: 100,
                frame_bytes: 114,
                buffers: 1,
                buffer_bytes: 114,
                start: time,
                end: time,
                ..Observation::EMPTY
            });
        }
        Polled::More
    }

    fn wait(&mut self, _: Duration) {}

    fn watermark(&self) -> u64 {
        1_700_000_000_000_000_000 + self.sent * 1_000
    }

    fn rejected(&self) -> u64 {
        0
    }

    fn close(&mut self) {
        self.sent = PACKETS;
    }

    fn after_panic(&mut self, observed: Tally) -> Tally {
        self.book.lose_in_panic(observed)
    }

    fn sightings(&mut self) -> Option<Sightings> {
        Some(self.book.clone())
    }
}

/// Packets a second, and how many panics there were.
fn run(disturbed: bool) -> (f64, u64) {
    let workers = NonZeroUsize::new(2).unwrap();
    let pipeline = PipelineConfig {
        replay_metering: ReplayMetering::Workers,
        flow_workers: workers.into(),
        ..PipelineConfig::default()
    };
    let flow = FlowConfig { active_timeout: Interval::seconds(10), ..FlowConfig::default() };
    let hold = Hold::default();
    let stages = Stages {
        source: Made { sent: 0, book: Sightings::default() },
        enricher: None,
        exporters: Vec::new(),
        buffers: HashMap::new(),
        output_queue_capacity: 8_192,
        agent_id: String::new(),
        budget: Budget::default(),
        hold: hold.clone(),
    };
    let (began, over) = (Instant::now(), AtomicBool::new(false));
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut next = Instant::now() + Duration::from_millis(500);
            while !over.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(5));
                if disturbed && Instant::now() >= next {
                    hold.panic_once();
                    next += Duration::from_secs(1);
                }
            }
        });
        let outcome = start(&pipeline, &flow, stages).unwrap().wait(|| false);
        over.store(true, Ordering::Release);
        outcome
    });
    let seconds = began.elapsed().as_secs_f64();
    let ledger = &outcome.statistics.ledger;
    assert!(ledger.balances() && ledger.released.packets == PACKETS, "{ledger:#?}");
    let panics = outcome.statistics.to_json("")["stages"]["flow_workers"]["panics"].as_u64().unwrap();
    (PACKETS as f64 / seconds, panics)
}

fn main() {
    // Told to nobody.
    contained_panics_go_to_the_log();
    let (mut ratios, mut panics, mut rates) = (Vec::new(), 0, [Vec::new(), Vec::new()]);
    for turn in 0..TURNS {
        let mut rate = [0.0; 2];
        for disturbed in if turn % 2 == 0 { [false, true] } else { [true, false] } {
            let (packets, seen) = run(disturbed);
            rate[usize::from(disturbed)] = packets;
            rates[usize::from(disturbed)].push(packets);
            panics += seen;
        }
        ratios.push(rate[1] / rate[0]);
    }
    let at = |values: &mut Vec<f64>, quarter: usize| {
        values.sort_by(f64::total_cmp);
        values[(values.len() - 1) * quarter / 4]
    };
    let [calm, disturbed] = &mut rates;
    println!("| | M packets/s (min–max) | of that without, by turns (quartiles) |\n|---|---|---|");
    for (title, rates) in [("without panics", calm), ("one a second", disturbed)] {
        let [least, median, most] = [0, 2, 4].map(|quarter| at(rates, quarter) / 1e6);
        let share = if title == "one a second" {
            let [lower, median, upper] = [1, 2, 3].map(|quarter| at(&mut ratios, quarter));
            format!("{median:.3} ({lower:.3}–{upper:.3})")
        } else {
            String::new()
        };
        println!("| {title} | {median:.2} ({least:.2}–{most:.2}) | {share} |");
    }
    println!("\n{panics} panics in {TURNS} runs");
}
