//! What flows had, as far as it is known from a sample.
//!
//! A packet that was kept by a draw of one in n stands for n (Horvitz and Thompson's estimate): in the mean over all draws
//! that comes to what there was, whatever a flow sends and whenever the rate changes. A buffer of p packets and b bytes
//! adds n (n − 1) p² to the variance of the packets and n (n − 1) b² to that of the bytes; these sums are right in the mean
//! too. Counts stay what was metered: an estimate is beside them.
//!
//! Few flows are sampled, and those seldom, so a flow in the table has no room for it: what is known of those that were
//! stands in a table of its own, by what a flow is called for as long as it lives.

use crate::entry::Facts;
use crate::observation::Observation;
use crate::record::Counts;
use crate::sampling::Sampling;
use std::collections::HashMap;

/// What one direction had beyond what was metered of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// To be added to the delta.
    pub excess: Counts,
    /// Of the packets: the square of their standard error.
    pub packets_variance: u128,
    /// Of the IP bytes.
    pub bytes_variance: u128,
}

impl Estimate {
    fn add(&mut self, o: &Observation) {
        let n = u64::from(o.sampling.one_in());
        let [packets, bytes] = o.squares();
        *self += Self {
            excess: Counts {
                packets: (n - 1) * u64::from(o.packets),
                bytes: (n - 1) * o.bytes,
                frame_bytes: (n - 1) * o.frame_bytes,
            },
            packets_variance: u128::from(n * (n - 1)) * packets,
            bytes_variance: u128::from(n * (n - 1)) * bytes,
        };
    }

    /// The standard error of the packets.
    #[must_use]
    pub fn packets_error(&self) -> u64 {
        root(self.packets_variance)
    }

    /// The standard error of the IP bytes.
    #[must_use]
    pub fn bytes_error(&self) -> u64 {
        root(self.bytes_variance)
    }
}

/// Rounded up: no error is called none.
fn root(variance: u128) -> u64 {
    (variance as f64).sqrt().ceil() as u64
}

impl std::ops::AddAssign for Estimate {
    fn add_assign(&mut self, other: Self) {
        self.excess += other.excess;
        // Far beyond what a flow can have; records that come from a disk may say anything.
        self.packets_variance = self.packets_variance.saturating_add(other.packets_variance);
        self.bytes_variance = self.bytes_variance.saturating_add(other.bytes_variance);
    }
}

/// What was sampled of a flow since its last record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampled {
    /// Of what was drawn one in so many was kept: at the least and at the most.
    pub one_in: [u32; 2],
    /// Of a record: source to destination, then the other way.
    pub directions: [Estimate; 2],
}

impl Sampled {
    const NOTHING: Self = Self {
        one_in: [u32::MAX, 1],
        directions: [Estimate {
            excess: Counts { packets: 0, bytes: 0, frame_bytes: 0 },
            packets_variance: 0,
            bytes_variance: 0,
        }; 2],
    };

    fn add(&mut self, o: &Observation) {
        self.draws(o.sampling.one_in());
        self.directions[usize::from(o.reversed)].add(o);
    }

    fn draws(&mut self, one_in: u32) {
        let [least, most] = self.one_in;
        self.one_in = [least.min(one_in), most.max(one_in)];
    }

    /// Takes in what was sampled of the same flow before.
    pub(crate) fn take_in(&mut self, earlier: &Self) {
        earlier.one_in.into_iter().for_each(|one_in| self.draws(one_in));
        for (own, earlier) in self.directions.iter_mut().zip(earlier.directions) {
            *own += earlier;
        }
    }

    /// With its source at this side of the flow's key.
    pub(crate) const fn seen_from(mut self, source: usize) -> Self {
        if source == 1 {
            let [first, second] = self.directions;
            self.directions = [second, first];
        }
        self
    }
}

/// Of all flows in a table that were sampled since their last record, by shard and ordinal; directions are sides.
#[derive(Debug, Default)]
pub(crate) struct Samples(HashMap<(u8, u64), Sampled>);

impl Samples {
    /// An observation was added to this flow.
    #[inline(always)]
    pub(crate) fn add(&mut self, facts: &Facts, o: &Observation) {
        if o.sampling != Sampling::NONE {
            self.note(facts, o);
        }
    }

    #[inline(never)]
    fn note(&mut self, facts: &Facts, o: &Observation) {
        self.0.entry((facts.shard, facts.ordinal)).or_insert(Sampled::NOTHING).add(o);
    }

    #[inline]
    pub(crate) fn of(&self, facts: &Facts) -> Option<&Sampled> {
        if self.0.is_empty() { None } else { self.0.get(&(facts.shard, facts.ordinal)) }
    }

    /// A record has told it, or the flow is no more.
    #[inline]
    pub(crate) fn forget(&mut self, facts: &Facts) {
        if !self.0.is_empty() {
            self.0.remove(&(facts.shard, facts.ordinal));
            if self.0.is_empty() {
                // Sampling may be over for long: memory that it took is given back.
                self.0 = HashMap::new();
            }
        }
    }

    /// Takes out what is known of a shard's flows.
    pub(crate) fn give(&mut self, shard: u8) -> Self {
        Self(self.0.extract_if(|(of, _), _| *of == shard).collect())
    }

    /// Takes in what another has given.
    pub(crate) fn take(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FlowConfig;
    use crate::key::{HashSecret, SHARDS};
    use crate::meter::Meter;
    use crate::record::{FlowEvent, FlowRecord};
    use crate::testing::{Records, SECOND, T0, udp};
    use proptest::prelude::*;

    /// splitmix64.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }
    }

    fn packet(packets: u32, bytes: u64, back: bool, seconds: u64) -> Observation {
        let mut o = if back { udp("10.0.0.1:53", "10.0.0.2:9") } else { udp("10.0.0.2:9", "10.0.0.1:53") };
        let at = T0 + seconds * SECOND;
        (o.start, o.end, o.watermark) = (at, at, at);
        (o.packets, o.bytes, o.frame_bytes) = (packets, bytes, bytes + 14 * u64::from(packets));
        o.orient(&HashSecret::new(1));
        o
    }

    fn sampled(exponent: u8, o: Observation) -> Observation {
        Observation { sampling: Sampling::kept(exponent, o.bytes), ..o }
    }

    fn metered(packets: &[Observation]) -> Vec<FlowRecord> {
        let (mut meter, mut records) = (Meter::new(&FlowConfig::default(), ""), Records::default());
        meter.observe(packets, &mut records);
        meter.finish(packets.last().map_or(T0, |o| o.watermark), &mut records);
        assert!(meter.samples.0.is_empty(), "what was told is forgotten");
        records.0
    }

    #[test]
    fn a_record_has_what_was_metered_and_beside_it_what_that_stands_for() {
        let records = metered(&[
            packet(1, 100, false, 0),
            sampled(2, packet(1, 200, false, 0)),
            sampled(3, packet(10, 3_000, false, 1)),
            sampled(2, packet(1, 50, true, 1)),
        ]);
        let record = &records[0];
        assert_eq!((record.forward.delta.packets, record.forward.delta.bytes), (12, 3_300));
        let told = record.sampled.as_deref().unwrap();
        assert_eq!(told.one_in, [4, 8]);
        let [forward, reverse] = told.directions;
        let excess = Counts { packets: 3 + 70, bytes: 600 + 21_000, frame_bytes: 642 + 7 * 3_140 };
        assert_eq!(forward.excess, excess);
        assert_eq!(forward.packets_variance, 12 + 56 * 100);
        assert_eq!(forward.bytes_variance, 12 * 40_000 + 56 * 9_000_000);
        assert_eq!((forward.packets_error(), forward.bytes_error()), (75, 22_461));
        assert_eq!((reverse.excess.packets, reverse.excess.bytes), (3, 150));
        assert_eq!((reverse.packets_error(), reverse.bytes_error()), (4, 174));
    }

    /// Directions are the record's, whichever end is the first of the key.
    #[test]
    fn directions_are_from_the_source() {
        for (from, to) in [("10.0.0.2:40000", "10.0.0.1:53"), ("10.0.0.1:40000", "10.0.0.2:53")] {
            let (mut ask, mut answer) = (udp(from, to), udp(to, from));
            for o in [&mut ask, &mut answer] {
                (o.start, o.end, o.watermark) = (T0, T0, T0);
                o.orient(&HashSecret::new(1));
            }
            let records = metered(&[sampled(1, ask), sampled(6, answer)]);
            let [forward, reverse] = records[0].sampled.as_deref().unwrap().directions;
            assert_eq!((forward.excess.packets, reverse.excess.packets), (1, 63));
        }
    }

    #[test]
    fn each_record_tells_of_its_own_packets_and_a_start_of_none() {
        let config = FlowConfig { start_records: true, ..FlowConfig::default() };
        let (mut meter, mut records) = (Meter::new(&config, ""), Records::default());
        for (at, exponent) in [(0, Some(1)), (20, None), (40, None), (61, None), (80, Some(4))] {
            let o = packet(1, 100, false, at);
            meter.observe(&[exponent.map_or(o, |exponent| sampled(exponent, o))], &mut records);
        }
        meter.finish(T0 + 81 * SECOND, &mut records);
        let told =
            |record: &FlowRecord| (record.event, record.sampled.as_ref().map(|sampled| sampled.one_in));
        let told: Vec<_> = records.0.iter().map(told).collect();
        assert_eq!(
            told,
            [(FlowEvent::Start, None), (FlowEvent::Update, Some([2; 2])), (FlowEvent::End, Some([16; 2]))]
        );
    }

    #[test]
    fn what_is_known_goes_along_with_its_shard() {
        let (mut from, mut to) =
            (Meter::new(&FlowConfig::default(), ""), Meter::new(&FlowConfig::default(), ""));
        let mut records = Records::default();
        let batch: Vec<_> = (0..200_u16)
            .map(|port| {
                let mut o = udp(&format!("10.0.0.2:{port}"), "10.0.0.1:53");
                (o.start, o.end, o.watermark) = (T0, T0, T0);
                o.orient(&HashSecret::new(1));
                sampled(1, o)
            })
            .collect();
        from.observe(&batch, &mut records);
        (0..SHARDS).for_each(|shard| to.take_shard(from.give_shard(shard)));
        assert!(from.samples.0.is_empty());
        to.finish(T0, &mut records);
        assert!(records.0.iter().all(|record| record.sampled.is_some()));
        assert_eq!(records.0.len(), 200);
    }

    /// Of many draws of one flow: how often its packets, and its bytes, are within 1.96 standard errors of the estimate, and
    /// by how many standard errors of the mean that is off.
    fn simulate(flow: &[(u32, u64)], exponent: u8, draws: u64, random: &mut Random) -> [(f64, f64); 2] {
        let truth = [
            flow.iter().map(|(packets, _)| f64::from(*packets)).sum::<f64>(),
            flow.iter().map(|(_, bytes)| *bytes as f64).sum(),
        ];
        let (mut within, mut sum, mut squares) = ([0.0; 2], [0.0; 2], [0.0; 2]);
        for _ in 0..draws {
            let mut estimate = (Counts::default(), Estimate::default());
            for (packets, bytes) in flow {
                if random.next() >> (64 - exponent) == 0 {
                    estimate.0 += Counts { packets: (*packets).into(), bytes: *bytes, frame_bytes: 0 };
                    estimate.1.add(&sampled(exponent, packet(*packets, *bytes, false, 0)));
                }
            }
            let (metered, more) = estimate;
            let found = [
                (metered.packets + more.excess.packets, more.packets_error()),
                (metered.bytes + more.excess.bytes, more.bytes_error()),
            ];
            for (at, (found, error)) in found.into_iter().enumerate() {
                let off = found as f64 - truth[at];
                within[at] += f64::from(u8::from(off.abs() <= 1.96 * error as f64));
                (sum[at], squares[at]) = (sum[at] + off, squares[at] + off * off);
            }
        }
        let n = draws as f64;
        std::array::from_fn(|at| (within[at] / n, sum[at] / n / (squares[at] / n / n).sqrt()))
    }

    /// The bound that the reference states: where a hundred buffers were kept, or more.
    #[test]
    fn estimates_are_right_in_the_mean_and_their_errors_are_what_they_say() {
        let random = &mut Random(7);
        for exponent in [1, 2, 4, 6] {
            for kind in 0..3 {
                let flow: Vec<_> = (0..100 << exponent)
                    .map(|_| match kind {
                        0 => (1, 100),
                        1 => (1, 40 + random.next() % 1_461),
                        _ => {
                            let packets = 1 + (random.next() % 44) as u32;
                            (packets, 1_500 * u64::from(packets))
                        }
                    })
                    .collect();
                for (within, off) in simulate(&flow, exponent, 1_000, random) {
                    assert!(within >= 0.93, "1:{} of kind {kind}: {within} within", 1 << exponent);
                    assert!(off.abs() < 4.0, "1:{} of kind {kind}: {off} standard errors off", 1 << exponent);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 32, ..ProptestConfig::default() })]

        /// Whatever a flow sends, also where too little is kept for the errors to mean anything.
        #[test]
        fn no_flow_is_over_or_underestimated(
            flow in prop::collection::vec((1_u32..45, 40_u64..65_000), 1..60), exponent in 1_u8..4, seed: u64,
        ) {
            for (_, off) in simulate(&flow, exponent, 2_000, &mut Random(seed)) {
                prop_assert!(off.abs() < 6.0, "{} standard errors off", off);
            }
        }
    }
}
