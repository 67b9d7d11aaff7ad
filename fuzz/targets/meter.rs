//! Any sequence of packets, times and ticks through the flow table: at every moment what was metered is in a record
//! or still in the table, and every flow ends exactly once with totals that its deltas add up to.
//!
//! Input: four bytes of settings, then six bytes for each step. Ends, ports and protocols are few, so that packets
//! meet flows; times go on mostly, and jump now and then.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mermin_flow::{
    Counts, FlowConfig, FlowEvent, FlowId, FlowRecord, Fragment, HashSecret, Interval, Meter, Observation,
    Orientation, PortForm, RecordSink, Tally,
};
use std::collections::HashMap;
use std::num::NonZeroUsize;

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_700_000_000 * SECOND;
/// Steps taken of an input: what a flow can go through is long over.
const STEPS_MAX: usize = 1_024;
/// Looking at every flow is dear, so it is done once in a while and at the end.
const STEPS_PER_LOOK: usize = 32;

/// What records have said of one flow so far.
#[derive(Default)]
struct Flow {
    records: u32,
    ended: bool,
    sums: [Counts; 2],
}

#[derive(Default)]
struct Ledger {
    flows: HashMap<FlowId, Flow>,
    ended: u64,
    reported: Tally,
}

impl RecordSink for Ledger {
    fn record(&mut self, record: FlowRecord) {
        let flow = self.flows.entry(record.id).or_default();
        assert!(!flow.ended, "a record after the end: {record:?}");
        assert_eq!(record.sequence, flow.records, "{record:?}");
        flow.records += 1;
        for (sum, side) in flow.sums.iter_mut().zip([&record.forward, &record.reverse]) {
            *sum += side.delta;
            assert_eq!(*sum, side.total, "deltas add up to the total: {record:?}");
        }
        if record.event == FlowEvent::End {
            flow.ended = true;
            self.ended += 1;
        }
        let deltas = [record.forward.delta, record.reverse.delta];
        assert_eq!(record.tally.packets, deltas.iter().map(|delta| delta.packets).sum::<u64>());
        assert_eq!(record.tally.bytes, deltas.iter().map(|delta| delta.frame_bytes).sum::<u64>());
        self.reported += record.tally;
    }
}

struct Run {
    meter: Meter,
    orientation: Orientation,
    ledger: Ledger,
    observed: Tally,
    time: u64,
}

fuzz_target!(|data: &[u8]| {
    let Some((settings, steps)) = data.split_first_chunk::<4>() else { return };
    let mut run = Run {
        meter: Meter::new(&config(settings), ""),
        orientation: Orientation::new(HashSecret::new(7)),
        ledger: Ledger::default(),
        observed: Tally::ZERO,
        time: START,
    };
    let mut watermark = 0;
    for (number, step) in steps.as_chunks::<6>().0.iter().take(STEPS_MAX).enumerate() {
        watermark = run.take(step);
        if number % STEPS_PER_LOOK == 0 {
            run.check();
        }
    }
    run.check();
    run.meter.finish(watermark, &mut run.ledger);
    run.check();
    assert_eq!((run.meter.active(), run.meter.resident()), (0, Tally::ZERO));
    let book = run.meter.book();
    assert_eq!((book.created, book.released), (run.ledger.ended, run.ledger.ended), "every flow ends once");
    assert_eq!(run.ledger.flows.len() as u64, book.created, "every flow has an id of its own");
});

fn config(&[timeouts, closing, capacity, other]: &[u8; 4]) -> FlowConfig {
    let seconds = |nibble: u8| Interval::seconds(1 + u64::from(nibble & 15));
    FlowConfig {
        // One to four flows a shard: the bound is met early.
        table_capacity: NonZeroUsize::new(64 * (1 + usize::from(capacity & 3))).expect("not zero"),
        active_timeout: seconds(timeouts),
        idle_timeout: seconds(timeouts >> 4),
        udp_timeout: seconds(other >> 4),
        icmp_timeout: seconds(capacity >> 4),
        tcp_fin_timeout: seconds(closing),
        tcp_rst_timeout: seconds(closing >> 4),
        community_id_seed: 0,
        start_records: other & 1 != 0,
    }
}

impl Run {
    /// One step; the watermark after it.
    fn take(&mut self, step: &[u8; 6]) -> u64 {
        let &[kind, ends, ports, flags, point, delay] = step;
        self.pass(delay);
        if kind & 15 == 15 {
            self.meter.postpone_updates(flags & 1 != 0);
            let watermark = self.orientation.advance(self.time);
            self.meter.advance(watermark, &mut self.ledger);
            return watermark;
        }
        let mut o = observation(kind, ends, ports, flags, point);
        (o.start, o.end) = (self.time.saturating_sub(u64::from(point >> 4)), self.time);
        self.observed += o.tally();
        self.orientation.prepare(&mut o);
        self.meter.observe(&[o], &mut self.ledger);
        o.watermark
    }

    /// A nanosecond, some milliseconds, some seconds, or a clock that is set anew.
    fn pass(&mut self, delay: u8) {
        let amount = u64::from(delay & 31);
        self.time = match delay >> 5 {
            0..4 => self.time.saturating_add(amount),
            4 => self.time.saturating_add(amount * SECOND / 10),
            5 => self.time.saturating_add(amount * SECOND),
            6 => self.time.saturating_sub(amount * SECOND),
            _ => match amount {
                0 => 0,
                1 => u64::MAX,
                2 => u64::MAX - 60 * SECOND,
                3..16 => self.time.saturating_add(SECOND << amount),
                _ => START.saturating_add(SECOND << (amount - 16)),
            },
        };
    }

    fn check(&self) {
        let (book, resident) = (self.meter.book(), self.meter.resident());
        assert_eq!(book.metered + book.secondary, self.observed, "every observation is counted");
        assert_eq!(book.reported + resident, book.metered, "what was metered is reported or in the table");
        assert_eq!(book.reported, self.ledger.reported, "records carry what the book says");
        assert_eq!(book.created - book.released, self.meter.active() as u64);
    }
}

fn observation(kind: u8, ends: u8, ports: u8, flags: u8, point: u8) -> Observation {
    let ip_version = if ends & 0x80 != 0 { 6 } else { 4 };
    let protocol = match (kind & 7, ip_version) {
        (0..4, _) => 6,
        (4 | 5, _) => 17,
        (6, 4) => 1,
        (6, _) => 58,
        _ => 47,
    };
    let [source, destination] = [ends, ends >> 3].map(|end| address(end & 7, ip_version));
    let (port_form, ports) = match protocol {
        6 | 17 => (PortForm::Ports, [port(ports & 15), port(ports >> 4)]),
        1 | 58 => (PortForm::IcmpTypeCode, [u16::from(ports).to_be(), u16::from(point & 1).to_be()]),
        _ => (PortForm::Absent, [0; 2]),
    };
    let fragment = match kind >> 4 {
        0 => Fragment::First,
        1 => Fragment::Later,
        _ => Fragment::Whole,
    };
    let later = fragment == Fragment::Later;
    let packets = 1 + u32::from(kind >> 6);
    let bytes = u64::from(packets) * (40 + u64::from(ports[0] & 0xff));
    Observation {
        addresses: [source[0], source[1], destination[0], destination[1]],
        bytes,
        frame_bytes: bytes + 14 * u64::from(packets),
        ports: if later { [0; 2] } else { ports },
        packets,
        buffer_bytes: (bytes + 14) as u32,
        buffers: 1,
        fragment_id: u32::from(point >> 2 & 3),
        point: u16::from(point & 3),
        protocol,
        ip_version,
        port_form: if later { PortForm::Absent } else { port_form },
        has_tcp_flags: protocol == 6 && !later,
        tcp_flags: if protocol == 6 && !later { flags } else { 0 },
        ttl: flags,
        fragment,
        ..Observation::EMPTY
    }
}

/// Eight ends, of which one is a multicast group.
fn address(end: u8, ip_version: u8) -> [u64; 2] {
    let first = if end == 7 { [224, 0xff][usize::from(ip_version == 6)] } else { 10 };
    if ip_version == 4 {
        return [u64::from(u32::from_ne_bytes([first, 0, 0, end])), 0];
    }
    [u64::from_ne_bytes([first, 2, 0, 0, 0, 0, 0, 0]), u64::from_ne_bytes([0, 0, 0, 0, 0, 0, 0, end])]
}

/// Services, registered and ephemeral ports.
fn port(number: u8) -> u16 {
    let number = u16::from(number);
    [53_u16, 443, 8_080, 40_000][usize::from(number & 3)].wrapping_add(number >> 2).to_be()
}
