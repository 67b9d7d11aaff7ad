//! A source, an enricher and an exporter made for the tests of the whole pipeline.
//!
//! The source is synthetic because these tests want exact control over time and arrival; real sources have tests of
//! their own, and the black-box tests run both together.

use mermin_flow::{
    Amount, Enricher, Exporter, Failure, FlowRecord, Observation, Polled, PortForm, Receipt, Sightings, Sink,
    Source, Tally,
};
use mermin_pipeline::{Budget, Hold, Outcome, PipelineConfig, ReplayMetering, Stages};
use mermin_wire::Fragment;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) const T0: u64 = 1_700_000_000_000_000_000;

/// `packets` packets over `flows` flows in turn, 1 ms apart; live, it goes on until it is closed.
pub(crate) struct Synthetic<const LIVE: bool> {
    pub(crate) packets: u64,
    pub(crate) flows: u64,
    pub(crate) sent: u64,
    pub(crate) book: Sightings,
    pub(crate) closed: bool,
    /// Packets that arrive together, and wait in a ring for those before them to be read. With more than one, each
    /// thousandth is a fragment of a datagram whose start was never seen.
    pub(crate) burst: u64,
    /// The number of a packet that is late, and by how many nanoseconds.
    pub(crate) late: Option<(u64, u64)>,
    /// Done before each poll, with how many packets were handed over so far.
    pub(crate) before_poll: Option<Box<dyn FnMut(u64) + Send>>,
    /// While up, a poll hands over a single packet, a millisecond after the one before.
    pub(crate) trickles: Arc<AtomicBool>,
    /// How often it was asked for its book: once for each snapshot.
    pub(crate) asked: Arc<AtomicU64>,
}

impl<const LIVE: bool> Synthetic<LIVE> {
    pub(crate) fn new(packets: u64, flows: u64) -> Self {
        Self {
            packets,
            flows,
            sent: 0,
            book: Sightings::default(),
            closed: false,
            burst: 1,
            late: None,
            before_poll: None,
            trickles: Arc::default(),
            asked: Arc::default(),
        }
    }

    /// What has arrived and is not read yet.
    fn in_ring(&self) -> Tally {
        let arrived = self.sent.next_multiple_of(self.burst).min(self.packets);
        let waits = if self.closed { 0 } else { arrived - self.sent };
        Tally { packets: waits, bytes: 114 * waits, buffers: waits, buffer_bytes: 114 * waits }
    }

    fn packet(&self) -> Observation {
        let flow = self.sent % self.flows;
        let mut o = Observation {
            addresses: [u64::from((flow as u32).to_be()), 0, u64::from(0x0a00_0001_u32.to_be()), 0],
            ports: [40_000_u16.to_be(), 53_u16.to_be()],
            port_form: PortForm::Ports,
            protocol: 17,
            packets: 1,
            bytes: 100,
            frame_bytes: 114,
            buffers: 1,
            buffer_bytes: 114,
            start: T0 + self.sent * 1_000_000,
            ..Observation::EMPTY
        };
        if let Some((_, by)) = self.late.filter(|(number, _)| *number == self.sent) {
            o.start -= by;
        }
        o.end = o.start;
        if self.burst > 1 && self.sent.is_multiple_of(1_000) {
            o.fragment = Fragment::Later;
            (o.ports, o.port_form) = ([0; 2], PortForm::Absent);
        }
        o
    }
}

impl<const L: bool> Source for Synthetic<L> {
    const LIVE: bool = L;

    fn poll(&mut self, sink: &mut impl Sink, budget: usize) -> Polled {
        if let Some(before_poll) = &mut self.before_poll {
            before_poll(self.sent);
        }
        if self.closed || (!L && self.sent == self.packets) {
            return Polled::Ended;
        }
        let trickles = self.trickles.load(Ordering::Acquire);
        if trickles {
            std::thread::sleep(Duration::from_millis(1));
        }
        for _ in 0..if trickles { 1 } else { budget } {
            if self.sent == self.packets {
                return if L { Polled::Drained } else { Polled::Ended };
            }
            self.book.seen.buffers += 1;
            self.book.seen.buffer_bytes += 114;
            let packet = self.packet();
            // Before the sink can panic.
            self.sent += 1;
            sink.observe(packet);
        }
        Polled::More
    }

    fn wait(&mut self, at_most: Duration) {
        std::thread::sleep(at_most.min(Duration::from_millis(1)));
    }

    fn watermark(&self) -> u64 {
        T0 + self.sent * 1_000_000
    }

    fn rejected(&self) -> u64 {
        0
    }

    fn close(&mut self) {
        self.closed = true;
    }

    fn after_panic(&mut self, observed: Tally) -> Tally {
        self.book.lose_in_panic(observed)
    }

    fn sightings(&mut self) -> Option<Sightings> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut book = self.book.clone();
        book.in_ring = self.in_ring();
        book.seen.buffers += book.in_ring.buffers;
        book.seen.buffer_bytes += book.in_ring.buffer_bytes;
        Some(book)
    }
}

#[derive(Clone, Default)]
pub(crate) struct Collected {
    /// `collected` where it is empty.
    pub(crate) name: &'static str,
    pub(crate) records: Arc<Mutex<Vec<FlowRecord>>>,
    pub(crate) stuck: Arc<AtomicBool>,
}

impl Exporter for Collected {
    fn name(&self) -> &str {
        if self.name.is_empty() { "collected" } else { self.name }
    }

    fn export(&mut self, records: &[FlowRecord], receipt: &mut Receipt) -> Result<(), Failure> {
        while self.stuck.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        for record in records {
            receipt.delivered += Amount::of(record);
        }
        self.records.lock().unwrap().extend_from_slice(records);
        Ok(())
    }

    fn flush(&mut self, _: &mut Receipt) -> Result<(), Failure> {
        Ok(())
    }
}

pub(crate) struct Names;

impl Enricher for Names {
    fn enrich(&self, record: &mut FlowRecord) {
        record.source.identity.name = Some("named".into());
    }
}

pub(crate) fn count(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

/// With workers in threads of their own, on however few cores.
pub(crate) fn config(flow_workers: usize, enrichment_workers: usize) -> PipelineConfig {
    PipelineConfig {
        replay_metering: ReplayMetering::Workers,
        flow_workers: count(flow_workers).into(),
        enrichment_workers: count(enrichment_workers).into(),
        ..PipelineConfig::default()
    }
}

/// With the flow table in the reader's thread.
pub(crate) fn in_reader() -> PipelineConfig {
    PipelineConfig { replay_metering: ReplayMetering::Reader, ..config(2, 2) }
}

pub(crate) fn stages<S>(source: S, collected: &Collected) -> Stages<S> {
    Stages {
        source,
        enricher: Some(Arc::new(Names)),
        exporters: vec![Box::new(collected.clone())],
        buffers: HashMap::new(),
        output_queue_capacity: 8_192,
        agent_id: String::new(),
        journal: None,
        budget: Budget::default(),
        hold: Hold::default(),
    }
}

pub(crate) fn assert_settled<S>(outcome: &Outcome<S>) {
    assert!(!outcome.timed_out && outcome.panicked.is_empty());
    let statistics = &outcome.statistics;
    assert!(statistics.ledger.balances() && statistics.ledger.is_settled(), "{:#?}", statistics.ledger);
    assert_eq!(statistics.flows_active, 0);
    assert_eq!(statistics.flows_created, statistics.flows_released);
    for (_, book) in &statistics.outputs {
        assert_eq!(book.queued, Amount::default());
        let dropped: u64 = book.dropped.values().map(|dropped| dropped.records).sum();
        assert_eq!(
            book.handed.records + book.recovered.records,
            book.delivered.records + book.merged + book.spooled.records + dropped
        );
        assert!(book.balances(), "{book:?}");
    }
}
