//! What a second flow worker brings, and what a panic a second costs: replays by turns.
//!
//! `cargo bench -p mermin-pipeline --features hold --bench workers`: a pipeline whose source makes packets up as it goes, so
//! that the reader costs little, and which has no output. Each packet is of any flow, at random.
#![expect(clippy::unwrap_used, reason = "a failure here fails the measurement")]

use mermin_flow::{FlowConfig, Interval, Observation, Polled, PortForm, Sightings, Sink, Source, Tally};
use mermin_pipeline::{
    Budget, Hold, PipelineConfig, ReplayMetering, Stages, contained_panics_go_to_the_log, start,
};
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const TURNS: usize = 9;

/// How packets are metered.
#[derive(Clone, Copy)]
struct Way {
    title: &'static str,
    packets: u64,
    flows: u64,
    workers: usize,
    /// A worker panics each second.
    disturbed: bool,
}

/// By turns; the second is compared with the first.
const PAIRS: [[Way; 2]; 3] = [
    [way("1 worker, 100 000 flows", MANY, 1), way("2 workers", MANY, 2)],
    [way("1 worker, 1 000 000 flows", STORM, 1), way("2 workers", STORM, 2)],
    [
        way("2 workers, 100 000 flows", LONG, 2),
        Way { disturbed: true, ..way("one of them panics each second", LONG, 2) },
    ],
];

/// Packets, and flows. The default table holds 131 072 of these.
type Load = (u64, u64);

const MANY: Load = (40_000_000, 100_000);
/// Seven of eight packets begin a flow and end another.
const STORM: Load = (10_000_000, 1_000_000);
const LONG: Load = (100_000_000, 100_000);

const fn way(title: &'static str, (packets, flows): Load, workers: usize) -> Way {
    Way { title, packets, flows, workers, disturbed: false }
}

/// Packets of so many flows, 1 µs apart.
struct Made {
    packets: u64,
    flows: u64,
    sent: u64,
    book: Sightings,
}

impl Source for Made {
    const LIVE: bool = false;

    fn poll(&mut self, sink: &mut impl Sink, budget: usize) -> Polled {
        for _ in 0..budget {
            if self.sent == self.packets {
                return Polled::Ended;
            }
            let flow = self.sent.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            let time = 1_700_000_000_000_000_000 + self.sent * 1_000;
            self.book.seen += Tally { buffers: 1, buffer_bytes: 114, ..Tally::ZERO };
            self.sent += 1;
            sink.observe(Observation {
                addresses: [flow % self.flows, 0, u64::MAX, 0],
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
        self.sent = self.packets;
    }

    fn after_panic(&mut self, observed: Tally) -> Tally {
        self.book.lose_in_panic(observed)
    }

    fn sightings(&mut self) -> Option<Sightings> {
        Some(self.book.clone())
    }
}

/// Packets a second, and how many panics there were.
fn run(way: Way) -> (f64, u64) {
    let pipeline = PipelineConfig {
        replay_metering: ReplayMetering::Workers,
        flow_workers: NonZeroUsize::new(way.workers).unwrap().into(),
        ..PipelineConfig::default()
    };
    let flow = FlowConfig { active_timeout: Interval::seconds(10), ..FlowConfig::default() };
    let hold = Hold::default();
    let stages = Stages {
        source: Made { packets: way.packets, flows: way.flows, sent: 0, book: Sightings::default() },
        enricher: None,
        exporters: Vec::new(),
        buffers: HashMap::new(),
        output_queue_capacity: 8_192,
        agent_id: String::new(),
        journal: None,
        budget: Budget::default(),
        hold: hold.clone(),
    };
    let (began, over) = (Instant::now(), AtomicBool::new(false));
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut next = Instant::now() + Duration::from_millis(500);
            while way.disturbed && !over.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(5));
                if Instant::now() >= next {
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
    assert!(ledger.balances() && ledger.released.packets == way.packets, "{ledger:#?}");
    let panics = outcome.statistics.to_json("")["stages"]["flow_workers"]["panics"].as_u64().unwrap();
    (way.packets as f64 / seconds, panics)
}

/// The value at this quarter.
fn at(values: &mut [f64], quarter: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) * quarter / 4]
}

fn main() {
    // Told to nobody.
    contained_panics_go_to_the_log();
    println!(
        "| | M packets/s (min–max) | of the line above, by turns (quartiles) | panics |\n|---|---|---|---|"
    );
    for pair in PAIRS {
        let (mut rates, mut ratios, mut panics) = ([Vec::new(), Vec::new()], Vec::new(), [0; 2]);
        for turn in 0..TURNS {
            let mut rate = [0.0; 2];
            for number in if turn % 2 == 0 { [0, 1] } else { [1, 0] } {
                let (packets, seen) = run(pair[number]);
                rate[number] = packets;
                rates[number].push(packets);
                panics[number] += seen;
            }
            ratios.push(rate[1] / rate[0]);
        }
        for number in 0..2 {
            let [least, median, most] = [0, 2, 4].map(|quarter| at(&mut rates[number], quarter) / 1e6);
            let [lower, middle, upper] = [1, 2, 3].map(|quarter| at(&mut ratios, quarter));
            let share =
                if number == 1 { format!("{middle:.3} ({lower:.3}–{upper:.3})") } else { String::new() };
            let title = pair[number].title;
            println!("| {title} | {median:.2} ({least:.2}–{most:.2}) | {share} | {} |", panics[number]);
        }
    }
}
