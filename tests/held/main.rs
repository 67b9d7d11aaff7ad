//! Workers that are held for ten seconds while a bounded sender overfills everything in front of them.
//!
//! The program itself has no such switch, so these tests put the pipeline together from the program's crates, with the
//! pipeline's feature `hold`. The sender and the interface are the witnesses, as everywhere.

#![expect(clippy::unwrap_used, reason = "what fails here is a failed test")]

use mermin_capture::CaptureMode;
use mermin_capture::af_packet::{AfPacketOptions, AfPacketSource};
use mermin_capture::ebpf::{EbpfOptions, EbpfSource};
use mermin_capture::interfaces::{Interface, Selection, discover};
use mermin_flow::{FlowConfig, Source, Tally};
use mermin_pipeline::{Hold, PipelineConfig, Stages, Statistics, start};
use mermin_tests::need;
use mermin_tests::need::{namespaces, root, tool};
use mermin_tests::netns::{Namespace, Net, RIGHT};
use mermin_tests::witness::{Interface as Counters, interface};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

const HELD: Duration = Duration::from_secs(10);
/// Between so many pairs of ports.
const FLOWS: usize = 1_000;
/// What the sender sends: far more than ring and packet channel hold together.
const DATAGRAMS: u64 = 60_000;
/// The least that a ring may have.
const SMALL_RING: u64 = 256 << 10;
/// Takes all that the sender sends.
const LARGE_RING: u64 = 64 << 20;

/// Runs `act` on a thread inside a namespace: what it opens stays there.
fn inside<T: Send>(namespace: &Namespace, act: impl FnOnce() -> T + Send) -> T {
    let file = File::open(format!("/run/netns/{}", namespace.name)).unwrap();
    std::thread::scope(|scope| {
        let work = || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            act()
        };
        scope.spawn(work).join().unwrap()
    })
}

/// The left end, in its own namespace.
fn left() -> Vec<Interface> {
    Selection::new(&["left".to_owned()], &[]).unwrap().choose(&discover().unwrap()).unwrap()
}

/// What a run with held workers left, and how many frames crossed the interface meanwhile.
struct Held {
    statistics: Statistics,
    frames: u64,
    frame_bytes: u64,
}

impl Held {
    /// Starts a pipeline on `source`, holds its workers for ten seconds while the sender sends, lets them go.
    fn run<S: Source + 'static>(net: &Net, source: S, config: &PipelineConfig) -> Self {
        let hold = Hold::default();
        hold.set(true);
        let stages = Stages {
            source,
            enricher: None,
            exporters: Vec::new(),
            buffers: std::collections::HashMap::new(),
            output_queue_capacity: 1,
            agent_id: String::new(),
            journal: None,
            budget: mermin_pipeline::Budget::default(),
            hold: hold.clone(),
        };
        let config = PipelineConfig { enable_metrics: true, ..config.clone() };
        let before = interface(&net.left, "left");
        let began = Instant::now();
        let running = start(&config, &FlowConfig::default(), stages).unwrap();
        let script = root().join("tests/traffic.py");
        let line = format!("python3 {} datagrams {RIGHT} 9999 {DATAGRAMS} {FLOWS}", script.display());
        let mut sender = net.left.start(&line);
        let mut sent = false;
        let outcome = running.wait(|| {
            if !sent && let Some(status) = sender.0.try_wait().unwrap() {
                assert!(status.success() && began.elapsed() < HELD, "the sender took {:?}", began.elapsed());
                sent = true;
            }
            let over = sent && began.elapsed() >= HELD;
            if over {
                hold.set(false);
            }
            over
        });
        let after = interface(&net.left, "left");
        assert!(outcome.panicked.is_empty() && !outcome.timed_out, "{:?}", outcome.panicked);
        let crossed = |counters: Counters| {
            (counters.received + counters.sent, counters.received_bytes + counters.sent_bytes)
        };
        let (first, last) = (crossed(before), crossed(after));
        let held =
            Self { statistics: outcome.statistics, frames: last.0 - first.0, frame_bytes: last.1 - first.1 };
        held.check();
        held
    }

    /// What holds in any case: every frame stands in the books once, and the reader never waited.
    fn check(&self) {
        let ledger = &self.statistics.ledger;
        assert!(ledger.balances() && ledger.is_settled(), "{ledger:#?}");
        assert!(self.frames >= DATAGRAMS, "{} frames crossed", self.frames);
        assert_eq!(ledger.seen.packets, self.frames, "by the interface: {ledger:#?}");
        let unmetered: u64 = ledger.unmetered.values().map(|tally| tally.packets).sum();
        let lost: u64 = ledger.lost.values().map(|tally| tally.packets).sum();
        let out = ledger.metered.packets + ledger.secondary.packets + unmetered + lost;
        assert_eq!(self.frames, out, "{ledger:#?}");
        assert!(ledger.metered.packets > 0);
        let gap = self.figure("packet_reader", "longest_gap_seconds");
        assert!(gap < HELD.as_secs_f64() / 2.0, "the reader waited for a worker for {gap} s");
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        eprintln!(
            "{test}: {} frames, metered {}, lost {:?}, longest gap of the reader {:.4} s",
            self.frames,
            ledger.metered.packets,
            self.losses(),
            self.figure("packet_reader", "longest_gap_seconds"),
        );
    }

    fn figure(&self, stage: &str, name: &str) -> f64 {
        let (_, figures) = self.statistics.stages.iter().find(|(known, _)| known == stage).unwrap();
        figures.iter().find(|(figure, _)| *figure == name).unwrap().1.as_f64().unwrap()
    }

    /// Reasons for which something was lost.
    fn losses(&self) -> Vec<(&'static str, u64)> {
        let lost = self.statistics.ledger.lost.iter().filter(|(_, tally)| **tally != Tally::ZERO);
        lost.map(|(reason, tally)| (*reason, tally.packets)).collect()
    }

    /// Asserts that packets were lost for this reason alone, and gives them.
    fn lost_only(&self, reason: &str) -> Tally {
        let losses = self.losses();
        assert!(losses.len() == 1 && losses[0].0 == reason, "{losses:?}");
        self.statistics.ledger.lost[reason]
    }
}

fn ebpf(net: &Net, ring_bytes: u64) -> EbpfSource {
    inside(&net.left, || {
        // One event a packet: sums of so few flows would have room anywhere.
        let options = EbpfOptions { ring_bytes, mode: CaptureMode::Packet, ..EbpfOptions::default() };
        let opened = EbpfSource::open(&left(), &Arc::default(), &options).unwrap();
        assert!(opened.skipped.is_empty());
        opened.source
    })
}

fn af_packet(net: &Net, ring_bytes: u64) -> AfPacketSource {
    inside(&net.left, || {
        let source = AfPacketSource::open(
            &left(),
            &Arc::default(),
            &AfPacketOptions { ring_bytes, filters: mermin_capture::FilterRules::default(), follow: None },
        )
        .unwrap();
        assert!(source.skipped().is_empty());
        source
    })
}

/// With backpressure, where as many flows may wait as `capacity` says.
fn merging(capacity: usize) -> PipelineConfig {
    let coalescing_capacity = NonZeroUsize::new(capacity).unwrap();
    PipelineConfig { enable_backpressure: true, coalescing_capacity, ..PipelineConfig::default() }
}

fn all_flows_fit(net: &Net, source: impl Source + 'static) {
    let held = Held::run(net, source, &merging(2 * FLOWS));
    assert!(held.losses().is_empty(), "{:?}", held.losses());
    let ledger = &held.statistics.ledger;
    assert!(ledger.metered.packets >= DATAGRAMS, "{ledger:#?}");
    assert_eq!(ledger.seen.bytes, held.frame_bytes, "by the interface: {ledger:#?}");
    assert!(ledger.inexact.is_empty(), "{:?}", ledger.inexact);
    let (merges, high_water) = (held.figure("coalescing", "merges"), held.figure("coalescing", "high_water"));
    assert!(merges > DATAGRAMS as f64 / 2.0, "{merges}");
    assert!(high_water >= FLOWS as f64 && high_water < 2.0 * FLOWS as f64, "{high_water}");
}

#[test]
fn with_backpressure_ebpf_loses_nothing_while_flows_fit() {
    need!(namespaces(), tool("python3"), tool("ethtool"));
    let net = Net::new("fit", false);
    all_flows_fit(&net, ebpf(&net, LARGE_RING));
}

#[test]
fn with_backpressure_af_packet_loses_nothing_while_flows_fit() {
    need!(namespaces(), tool("python3"), tool("ethtool"));
    let net = Net::new("fit", false);
    all_flows_fit(&net, af_packet(&net, LARGE_RING));
}

/// Frames a call of the source may read before the reader looks at anything else.
const BUDGET: f64 = 512.0;

fn half_of_the_flows_fit(net: &Net, source: impl Source + 'static) -> Held {
    let held = Held::run(net, source, &merging(FLOWS / 2));
    let high_water = held.figure("coalescing", "high_water");
    assert!(high_water <= FLOWS as f64 / 2.0 + BUDGET, "{high_water}");
    held
}

#[test]
fn with_backpressure_ebpf_leaves_packets_in_the_ring_once_flows_do_not_fit() {
    need!(namespaces(), tool("python3"), tool("ethtool"));
    let net = Net::new("ring", false);
    let held = half_of_the_flows_fit(&net, ebpf(&net, SMALL_RING));
    let lost = held.lost_only("ring_full");
    assert!(lost.packets > DATAGRAMS / 2, "{lost:?}");
    let ledger = &held.statistics.ledger;
    assert_eq!(ledger.seen.bytes, held.frame_bytes, "by the interface: {ledger:#?}");
    assert!(ledger.inexact.is_empty(), "{:?}", ledger.inexact);
}

#[test]
fn with_backpressure_af_packet_leaves_packets_in_the_socket_once_flows_do_not_fit() {
    need!(namespaces(), tool("python3"), tool("ethtool"));
    let net = Net::new("sock", false);
    let held = half_of_the_flows_fit(&net, af_packet(&net, SMALL_RING));
    let lost = held.lost_only("socket_drop");
    assert!(lost.packets > DATAGRAMS / 2, "{lost:?}");
    let inexact = &held.statistics.ledger.inexact;
    assert!(inexact.contains(&"lost.socket_drop.bytes"), "{inexact:?}");
}

/// The packet channel's capacity, and the most that batches outside of it hold: one on its way to it, and one that each of
/// the two workers has taken before it was held.
const CHANNEL: u64 = 10_000 + 3 * 1_024;

fn the_channel_drops_exactly(net: &Net, source: impl Source + 'static) {
    let config = PipelineConfig { enable_backpressure: false, ..PipelineConfig::default() };
    let held = Held::run(net, source, &config);
    let lost = held.lost_only("packet_channel_full");
    assert!(lost.packets >= DATAGRAMS - CHANNEL, "{lost:?}");
    let ledger = &held.statistics.ledger;
    assert_eq!(ledger.seen.bytes, held.frame_bytes, "by the interface: {ledger:#?}");
    assert!(ledger.inexact.is_empty(), "{:?}", ledger.inexact);
}

#[test]
fn without_backpressure_the_channel_drops_what_ebpf_saw() {
    need!(namespaces(), tool("python3"), tool("ethtool"));
    let net = Net::new("drop", false);
    the_channel_drops_exactly(&net, ebpf(&net, LARGE_RING));
}

#[test]
fn without_backpressure_the_channel_drops_what_af_packet_saw() {
    need!(namespaces(), tool("python3"), tool("ethtool"));
    let net = Net::new("drop", false);
    the_channel_drops_exactly(&net, af_packet(&net, LARGE_RING));
}
