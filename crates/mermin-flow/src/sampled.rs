//! What flows had, as far as it is known from a sample.
//!
//! A packet that was kept by a draw of one in n stands for n (Horvitz and Thompson's estimate): in the mean over all draws
//! that comes to what there was, whatever a flow sends and whenever the rate changes. A buffer of p packets and b bytes
//! adds n (n − 1) p² to the variance of the packets and n (n − 1) b² to that of the bytes; these sums are right in the mean
//! too. Counts stay what was metered: an estimate is beside them.
//!
//! That holds where a direction is seen at one observation point, or its first packet isn't drawn (a SYN). Of several points
//! each sighting is drawn by itself, and the direction is counted where the first was kept: that one counts too much.
//!
//! Few flows are sampled, and those seldom, so a flow in the table has no room for it: what is known of those that were
//! stands in a table of its own, by what a flow is called for as long as it lives.

use crate::bytes::{Bytes, Put as _};
use crate::entry::Facts;
use crate::observation::Observation;
use crate::per_flow::{OfShard, PerFlow};
use crate::record::Counts;
use crate::sampling::Sampling;

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

    /// Appends it.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let Self { one_in, directions } = self;
        one_in.iter().for_each(|one_in| out.put(one_in.to_le_bytes()));
        for Estimate { excess, packets_variance, bytes_variance } in directions {
            excess.write(out);
            out.put(packets_variance.to_le_bytes());
            out.put(bytes_variance.to_le_bytes());
        }
    }

    /// Reads what [`Sampled::write`] has appended; `None`: it is cut short.
    pub(crate) fn read(bytes: &mut Bytes<'_>) -> Option<Self> {
        let one_in = [bytes.word()?, bytes.word()?];
        let mut directions = [Estimate::default(); 2];
        for Estimate { excess, packets_variance, bytes_variance } in &mut directions {
            *excess = Counts::read(bytes)?;
            [*packets_variance, *bytes_variance] = [bytes.wide()?, bytes.wide()?];
        }
        Some(Self { one_in, directions })
    }

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

/// Of a shard's flows that were sampled since their last record; directions are sides.
pub(crate) type ShardSamples = OfShard<Sampled>;

/// Of all flows in a table.
#[derive(Debug)]
pub(crate) struct Samples(PerFlow<Sampled>);

impl Samples {
    /// Of a table without flows.
    pub(crate) fn new() -> Self {
        Self(PerFlow::new())
    }

    /// An observation was added to this flow.
    #[inline(always)]
    pub(crate) fn add(&mut self, facts: &Facts, o: &Observation) {
        if o.sampling != Sampling::NONE {
            self.note(facts, o);
        }
    }

    #[inline(never)]
    fn note(&mut self, facts: &Facts, o: &Observation) {
        self.0.get_or(facts, || Sampled::NOTHING).add(o);
    }

    #[inline]
    pub(crate) fn of(&self, facts: &Facts) -> Option<&Sampled> {
        self.0.get(facts)
    }

    /// A record has told it, or the flow is no more.
    #[inline]
    pub(crate) fn forget(&mut self, facts: &Facts) {
        self.0.forget(facts);
    }

    /// Takes out what is known of a shard's flows.
    pub(crate) fn give(&mut self, shard: usize) -> ShardSamples {
        self.0.give(shard)
    }

    /// Takes in what another has given of a shard that has nothing here.
    pub(crate) fn take(&mut self, shard: usize, given: ShardSamples) {
        self.0.take(shard, given);
    }

    /// Takes in what was written down of a flow.
    pub(crate) fn restore(&mut self, facts: &Facts, sampled: Option<Sampled>) {
        if let Some(sampled) = sampled {
            self.0.insert(facts, sampled);
        }
    }

    /// Flows that there is room for.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FlowConfig;
    use crate::key::{HashSecret, SHARDS};
    use crate::meter::Meter;
    use crate::record::{FlowEvent, FlowRecord};
    use crate::tcp::{ACK, SYN};
    use crate::testing::{Records, SECOND, T0, tcp, udp};
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
        assert!(meter.samples.capacity() == 0, "what was told is forgotten");
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

    /// One packet of each of so many flows, each of them kept at 1:2 or 1:4.
    fn flows(count: u16) -> Vec<Observation> {
        let flow = |port| {
            let mut o = udp(&format!("10.0.0.2:{port}"), "10.0.0.1:53");
            (o.start, o.end, o.watermark) = (T0, T0, T0);
            o.orient(&HashSecret::new(1));
            sampled(1 + (port % 2) as u8, o)
        };
        (0..count).map(flow).collect()
    }

    #[test]
    fn what_is_known_goes_along_with_its_shard() {
        let (mut from, mut to) =
            (Meter::new(&FlowConfig::default(), ""), Meter::new(&FlowConfig::default(), ""));
        let mut records = Records::default();
        from.observe(&flows(200), &mut records);
        (0..SHARDS).for_each(|shard| to.take_shard(from.give_shard(shard)));
        assert_eq!(from.samples.capacity(), 0, "its memory goes along");
        to.finish(T0, &mut records);
        assert_eq!(records.0.len(), 200);
        for record in &records.0 {
            let n = 2_u32 << (record.source.port.unwrap() % 2);
            let told = record.sampled.as_deref().unwrap();
            assert_eq!((told.one_in, told.directions[1]), ([n; 2], Estimate::default()));
            let (forward, n) = (told.directions[0], u64::from(n));
            assert_eq!((forward.excess.packets, forward.excess.bytes), (n - 1, (n - 1) * 60));
            assert_eq!(forward.bytes_variance, u128::from(n * (n - 1)) * 3_600);
        }
    }

    #[test]
    fn memory_comes_back_as_flows_are_told() {
        let mut samples = Samples::new();
        let o = flows(1)[0];
        let facts = |ordinal| Facts::new(&o, ordinal);
        (0..10_000).for_each(|ordinal| samples.add(&facts(ordinal), &o));
        assert!(samples.capacity() >= 10_000);
        (100..10_000).for_each(|ordinal| samples.forget(&facts(ordinal)));
        assert!(samples.capacity() < 2_000, "{}", samples.capacity());
        assert!((0..100).all(|ordinal| samples.of(&facts(ordinal)).is_some()), "what isn't told stays");
        (0..100).for_each(|ordinal| samples.forget(&facts(ordinal)));
        assert_eq!(samples.capacity(), 0);
    }

    /// Flows of so many packets, each seen at two observation points and drawn at each by itself: the mean estimate, and by
    /// how many standard errors of the mean it is off `expected`.
    fn at_two_points(exponent: u8, packets: u32, syn: bool, expected: f64) -> (f64, f64) {
        const FLOWS: u16 = 4_000;
        let random = &mut Random(7);
        let (mut meter, mut records) = (Meter::new(&FlowConfig::default(), ""), Records::default());
        for port in 0..FLOWS {
            let mut o = tcp(&format!("10.0.0.2:{port}"), "10.0.0.1:53");
            (o.start, o.end, o.watermark, o.has_tcp_flags) = (T0, T0, T0, true);
            o.orient(&HashSecret::new(1));
            for number in 0..packets {
                o.tcp_flags = if syn && number == 0 { SYN } else { ACK };
                for point in [1, 2] {
                    let o = Observation { point, ..o };
                    if o.is_turn() {
                        meter.observe(&[o], &mut records);
                    } else if random.next() >> (64 - exponent) == 0 {
                        meter.observe(&[sampled(exponent, o)], &mut records);
                    }
                }
            }
        }
        meter.finish(T0, &mut records);
        let (mut sum, mut squares) = (0.0, 0.0);
        for record in &records.0 {
            let estimate: u64 = record.estimates().iter().map(|counts| counts.packets).sum();
            (sum, squares) = (sum + estimate as f64, squares + (estimate as f64).powi(2));
        }
        let (n, mean) = (f64::from(FLOWS), sum / f64::from(FLOWS));
        (mean, (mean - expected) / ((squares / n - mean * mean) / n).sqrt())
    }

    /// A limit, not a virtue: a direction is counted at the point of its first sighting that was kept, and each sighting has
    /// a chance to be that. So it is overestimated by half of n packets, a single one nearly twice.
    #[test]
    fn a_direction_at_two_points_whose_first_packet_was_drawn_is_overestimated() {
        for (exponent, packets) in [(6, 1), (3, 1), (3, 40)] {
            let n = f64::from(1 << exponent);
            let none = (1.0 - 1.0 / n).powi(2);
            // It begins with packet t, which stands for n; those behind it for themselves.
            let begins = |t: u32| none.powi(t as i32 - 1) * (1.0 - none) * (n + f64::from(packets - t));
            let expected: f64 = (1..=packets).map(begins).sum();
            let (mean, off) = at_two_points(exponent, packets, false, expected);
            assert!(off.abs() < 4.0, "1:{n}, {packets} packets: {mean} instead of {expected}");
            let (_, off) = at_two_points(exponent, packets, false, packets.into());
            assert!(off > 4.0, "1:{n}, {packets} packets: {mean}, by {off} standard errors");
        }
    }

    #[test]
    fn a_connection_whose_syn_is_seen_is_estimated_right_at_two_points() {
        for (exponent, packets) in [(6, 3), (3, 40)] {
            let (mean, off) = at_two_points(exponent, packets, true, packets.into());
            assert!(off.abs() < 4.0, "{packets} packets: {mean}");
        }
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
                    let sampling = Sampling::kept(exponent, *bytes);
                    let (packets, bytes) = (*packets, *bytes);
                    estimate.1.add(&Observation {
                        packets,
                        bytes,
                        buffers: 1,
                        sampling,
                        ..Observation::EMPTY
                    });
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

    /// The bound that the reference states, where a hundred buffers were kept or more, none of which had far more than others.
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

    /// Full buffers among acknowledgements, one in a hundred.
    fn skewed(buffers: usize) -> Vec<(u32, u64)> {
        (0..buffers).map(|at| if at % 100 == 0 { (44, 64_000) } else { (1, 52) }).collect()
    }

    /// Where nearly all is in few buffers, of which none may have been kept, the mean is right and the error too small. That
    /// it is a small part of the estimate tells where enough of them were kept.
    #[test]
    fn errors_of_skewed_counts_hold_where_they_are_small() {
        let random = &mut Random(7);
        let [_, (within, off)] = simulate(&skewed(6_400), 6, 2_000, random);
        assert!((0.60..0.70).contains(&within), "one of them kept in the mean: {within} within");
        assert!(off.abs() < 4.0, "{off} standard errors off");
        // A hundred of them kept in the mean: the error is 9 % of the estimate.
        for (within, off) in simulate(&skewed(40_000), 2, 1_000, random) {
            assert!(within >= 0.93 && off.abs() < 4.0, "{within} within, {off} standard errors off");
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
