//! Nothing is allocated per packet, nor per flow, once the table has its size.

use mermin_flow::{
    FlowConfig, FlowRecord, Fragment, HashSecret, Meter, Observation, Orientation, PortForm, RecordSink,
};
use std::num::NonZeroUsize;

const T0: u64 = 1_700_000_000_000_000_000;
const FLOWS: u64 = 20_000;

#[derive(Default)]
struct Count(u64);

impl RecordSink for Count {
    fn record(&mut self, _: FlowRecord) {
        self.0 += 1;
    }
}

/// Packet `n` of a stream in which flows come and go: a flood of new ones, in between some that last.
fn packet(n: u64) -> Observation {
    let flow = if n.is_multiple_of(3) { n % 64 } else { n % FLOWS };
    let at = T0 + n * 5_000_000;
    let fragment = match n % 50 {
        0 => Fragment::First,
        1 => Fragment::Later,
        _ => Fragment::Whole,
    };
    let fragments = fragment != Fragment::Whole;
    Observation {
        addresses: [
            u64::from(if fragments { 7 } else { flow as u32 }),
            0,
            u64::from(0x0a00_0001_u32.to_be()),
            0,
        ],
        ports: if fragment == Fragment::Later { [0; 2] } else { [40_000_u16.to_be(), 53_u16.to_be()] },
        port_form: if fragment == Fragment::Later { PortForm::Absent } else { PortForm::Ports },
        fragment,
        fragment_id: (n / 50) as u32,
        protocol: 17,
        packets: 1,
        bytes: 100,
        frame_bytes: 114,
        buffers: 1,
        buffer_bytes: 114,
        start: at,
        end: at,
        ..Observation::EMPTY
    }
}

#[test]
fn nothing_is_allocated_after_warm_up() {
    // Room for few: evictions; room for all: timeouts.
    for capacity in [1_000, 100_000] {
        let config =
            FlowConfig { table_capacity: NonZeroUsize::new(capacity).unwrap(), ..FlowConfig::default() };
        let mut meter = Meter::new(&config, "");
        let mut orientation = Orientation::new(HashSecret::new(1));
        let (mut records, mut batch, mut n) = (Count::default(), Vec::with_capacity(100), 0);
        let mut go = |packets: u64| {
            for _ in 0..packets / 100 {
                batch.clear();
                for _ in 0..100 {
                    let mut o = packet(n);
                    orientation.prepare(&mut o);
                    batch.push(o);
                    n += 1;
                }
                meter.observe(&batch, &mut records);
                meter.advance(batch[99].watermark, &mut records);
            }
        };
        go(200_000);
        let during = allocation_counter::measure(|| go(200_000));
        assert_eq!(during.count_total, 0, "capacity {capacity}: {during:?}");
        assert!(records.0 > 100_000, "flows come and go: {} records", records.0);
    }
}
