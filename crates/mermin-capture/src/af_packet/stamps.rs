//! From frames' stamps, which the kernel takes from the wall clock, to the clock that observations are timed by.
//!
//! A stamp tells which moment only together with what the wall clock was ahead then. For a moment after it was set, frames
//! from before and after are in the rings, and it may have been set since the last look: so a time that is not of the last
//! second is thought about. Of what a stamp can mean, the latest that is not in the future is right: a clock set forward
//! makes a new stamp read the old way one of the future, and set back it makes an old stamp read the new way one; the
//! other reading is as far in the past. Steps that are shorter than frames lie in the rings may be taken wrong, by no more
//! than the step. No frame is ever later than now, so no step hurries time.

use crate::clock::{Clocks, STEP_MIN};

/// Times that are believed without thought lie so little before the last look.
const TRUSTED: u64 = 1_000_000_000;
/// Steps whose frames may still be in the rings: no more are thought about.
const BEFORE_MAX: usize = 8;

pub(super) struct Stamps {
    pub(super) clocks: Clocks,
    /// How old a frame may be that is not handed over yet.
    lag: u64,
    now: u64,
    ahead: i64,
    /// Times from here on, for so long, need no thought.
    floor: u64,
    span: u64,
    /// What the wall clock was ahead earlier, and when that was seen to have ended.
    before: Vec<(i64, u64)>,
    woke: Option<u64>,
}

impl Stamps {
    pub(super) fn new(clocks: Clocks, lag: u64) -> Self {
        let mut stamps =
            Self { clocks, lag, now: 0, ahead: 0, floor: 0, span: 0, before: Vec::new(), woke: None };
        stamps.look();
        stamps
    }

    /// Looks at the clocks; the present.
    pub(super) fn look(&mut self) -> u64 {
        let looked = self.clocks.look();
        self.now = looked.now;
        self.ahead = self.clocks.ahead();
        if let Some(before) = looked.before {
            if self.before.len() == BEFORE_MAX {
                self.before.remove(0);
            }
            self.before.push((before, looked.now));
        }
        if looked.woke {
            self.woke = Some(looked.now);
        }
        if self.before.is_empty() {
            self.floor = self.now.saturating_sub(TRUSTED);
            self.span = self.now - self.floor;
        } else {
            (self.floor, self.span) = (u64::MAX, 0);
        }
        self.now
    }

    /// The time of a frame.
    #[inline(always)]
    pub(super) fn time(&mut self, stamp: u64) -> u64 {
        let time = stamp.wrapping_sub(self.ahead.cast_unsigned());
        if time.wrapping_sub(self.floor) <= self.span { time } else { self.think(stamp) }
    }

    #[cold]
    fn think(&mut self, stamp: u64) -> u64 {
        // While an earlier reading is remembered, most frames come here: those of the last second need no other look, if
        // none of their readings is of a moment that may have come since.
        let since = self.readings(stamp).any(|time| time > self.now && time - self.now <= TRUSTED);
        let known = self.readings(stamp).filter(|time| *time <= self.now).max();
        if let Some(time) =
            known.filter(|time| !since && self.now - time <= TRUSTED && !self.before.is_empty())
        {
            return time;
        }
        let now = self.look();
        let time = self.readings(stamp).filter(|time| *time <= now + STEP_MIN).max().unwrap_or(now).min(now);
        if self.before.is_empty() && time < self.floor {
            // The reader is late: the frames behind this one are as old.
            (self.floor, self.span) = (time, now - time);
        }
        time
    }

    /// What a stamp can mean.
    fn readings(&self, stamp: u64) -> impl Iterator<Item = u64> {
        let aheads = self.before.iter().map(|&(ahead, _)| ahead).chain([self.ahead]);
        aheads.map(move |ahead| stamp.saturating_add_signed(ahead.saturating_neg()))
    }

    /// All frames are read that had been handed over at `began`. The time up to which there are no others; `None`: it
    /// can't be told yet.
    pub(super) fn drained(&mut self, began: u64) -> Option<u64> {
        let reached = began.saturating_sub(self.lag);
        // The kernel hands frames over after a time that doesn't pass while the machine is suspended.
        if self.woke.is_some_and(|woke| woke > reached) {
            return None;
        }
        self.woke = None;
        self.before.retain(|&(_, seen)| seen > reached);
        Some(reached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::tests::{Machine, SECOND};
    use mermin_flow::{
        FlowConfig, FlowRecord, HashSecret, Meter, Observation, Orientation, PortForm, RecordSink,
    };
    use proptest::prelude::*;

    const LAG: u64 = SECOND / 20;
    const HOUR: i64 = 3_600 * SECOND as i64;

    /// A machine, its frames by true time and stamp, and how much time has passed.
    struct Wire {
        machine: Machine,
        stamps: Stamps,
        began: u64,
        passed: u64,
        ring: Vec<(u64, u64)>,
    }

    impl Wire {
        fn new() -> Self {
            let machine = Machine::new();
            let mut stamps = Stamps::new(machine.clocks(), LAG);
            let began = stamps.look();
            Self { machine, stamps, began, passed: 0, ring: Vec::new() }
        }

        fn run(&mut self, nanos: u64) {
            self.machine.run(nanos);
            self.passed += nanos;
        }

        fn frame(&mut self) {
            self.ring.push((self.began + self.passed, self.machine.wall()));
        }

        /// The times of all frames in the ring, less what they are in truth.
        fn read(&mut self) -> Vec<i64> {
            let stamps = &mut self.stamps;
            self.ring
                .drain(..)
                .map(|(truth, stamp)| stamps.time(stamp).wrapping_sub(truth).cast_signed())
                .collect()
        }

        fn drain(&mut self) -> (Vec<i64>, Option<u64>) {
            let began = self.stamps.look();
            (self.read(), self.stamps.drained(began))
        }
    }

    #[test]
    fn frames_from_before_and_after_a_step_have_their_time() {
        for by in [HOUR, -HOUR, 10 * SECOND as i64, -10 * SECOND as i64] {
            let mut wire = Wire::new();
            wire.frame();
            wire.run(SECOND / 100);
            wire.machine.set(by);
            wire.frame();
            wire.run(SECOND / 100);
            wire.frame();
            assert_eq!(wire.drain().0, [0, 0, 0], "{by}");
            for _ in 0..20 {
                wire.run(SECOND / 100);
                wire.frame();
                assert_eq!(wire.drain().0, [0], "{by}");
            }
            assert!(wire.stamps.before.is_empty() && wire.stamps.span == TRUSTED, "thinking has an end");
        }
    }

    /// After the drain has begun: the look at its beginning doesn't know.
    #[test]
    fn a_step_in_the_middle_of_a_drain_is_seen() {
        for by in [HOUR, -HOUR] {
            let mut wire = Wire::new();
            wire.stamps.look();
            wire.run(1_000);
            wire.frame();
            wire.machine.set(by);
            wire.run(1_000);
            wire.frame();
            assert_eq!(wire.read(), [0, 0], "{by}");
        }
    }

    /// One of the present, read the old way, would be one of a moment ago.
    #[test]
    fn a_frame_from_after_the_last_look_is_not_taken_for_one_from_before_a_short_step() {
        let mut wire = Wire::new();
        wire.run(2 * SECOND);
        wire.machine.set(-(SECOND as i64) / 3);
        wire.stamps.look();
        for _ in 0..3 {
            wire.run(SECOND / 100);
            wire.frame();
            assert_eq!(wire.read(), [0]);
        }
    }

    #[derive(Default)]
    struct Records(Vec<FlowRecord>);

    impl RecordSink for Records {
        fn record(&mut self, record: FlowRecord) {
            self.0.push(record);
        }
    }

    /// One flow with a packet every second for a minute, the clock set in the middle of it, and one that has ended before:
    /// the flows' records, and what the clock showed at the first's first and last packet.
    fn flows_over(by: i64) -> (Vec<FlowRecord>, [u64; 2]) {
        let mut wire = Wire::new();
        let mut orientation = Orientation::new(HashSecret::new(1));
        let (mut meter, mut records) = (Meter::new(&FlowConfig::default(), ""), Records::default());
        meter.tell_times_of(wire.stamps.clocks.wall());
        let mut shown = Vec::new();
        for second in 0..120_u64 {
            if second == 30 {
                wire.machine.set(by);
            }
            if second < 60 {
                wire.frame();
                shown.push(wire.machine.wall());
            }
            let began = wire.stamps.look();
            for (_, stamp) in std::mem::take(&mut wire.ring) {
                let time = wire.stamps.time(stamp);
                for port in [1, 2].into_iter().filter(|port| *port == 1 || second < 20) {
                    let mut o = Observation {
                        addresses: [1, 2, 3, 4],
                        ports: [port, 53],
                        port_form: PortForm::Ports,
                        protocol: 17,
                        ip_version: 4,
                        packets: 1,
                        start: time,
                        end: time,
                        ..Observation::EMPTY
                    };
                    orientation.prepare(&mut o);
                    meter.observe(&[o], &mut records);
                }
            }
            let reached = wire.stamps.drained(began).unwrap();
            meter.advance(orientation.advance(reached), &mut records);
            wire.run(SECOND);
        }
        (records.0, [shown[0], shown[59]])
    }

    #[test]
    fn a_step_splits_no_flow_ends_none_early_and_keeps_none() {
        let told = |records: &[FlowRecord]| {
            let told = |r: &FlowRecord| (r.id, r.sequence, r.end_reason, r.start_time, r.end_time, r.tally);
            records.iter().map(told).collect::<Vec<_>>()
        };
        let (undisturbed, _) = flows_over(0);
        assert_eq!(undisturbed.len(), 3, "an interval's report, and two ends");
        for by in [HOUR, -HOUR, 20 * SECOND as i64, -20 * SECOND as i64] {
            let (records, shown) = flows_over(by);
            assert_eq!(told(&records), told(&undisturbed), "{by}");
            let long =
                records.iter().find(|r| r.forward.total.packets + r.reverse.total.packets == 60).unwrap();
            assert_eq!([long.start_shown(), long.end_shown()], shown, "as the clock showed");
            assert_eq!(long.clock_step(), by);
        }
    }

    #[test]
    fn a_late_reader_thinks_once() {
        let mut wire = Wire::new();
        for _ in 0..100 {
            wire.frame();
            wire.run(1_000);
        }
        wire.run(30 * SECOND);
        wire.stamps.look();
        let first = wire.ring[0].0;
        assert!(wire.read().iter().all(|off| *off == 0));
        assert_eq!(wire.stamps.floor, first);
    }

    #[test]
    fn a_stamp_of_the_future_is_of_now() {
        let mut wire = Wire::new();
        let stamp = wire.machine.wall() + HOUR as u64;
        assert_eq!(wire.stamps.time(stamp), wire.began);
    }

    #[test]
    fn time_stands_still_until_frames_from_before_a_suspend_are_handed_over() {
        let mut wire = Wire::new();
        wire.run(SECOND);
        assert_eq!(wire.drain().1, Some(wire.began + SECOND - LAG));
        wire.machine.suspend(8 * HOUR as u64);
        wire.passed += 8 * HOUR as u64;
        assert_eq!(wire.drain().1, None);
        wire.run(LAG - 1);
        assert_eq!(wire.drain().1, None);
        wire.run(1);
        assert_eq!(wire.drain().1, Some(wire.began + wire.passed - LAG));
    }

    proptest! {
        /// Frames that are read within the lag have their time to within the steps that are shorter than it, however the
        /// clock is set, and none is of the future.
        #[test]
        fn frames_have_their_time_however_the_clock_is_set(
            doings in prop::collection::vec((0_u8..8, 0..LAG / 2, -2 * HOUR..2 * HOUR), 1..200)
        ) {
            let mut wire = Wire::new();
            let (mut last, mut drained) = (None, 0);
            for (what, nanos, by) in doings {
                match what {
                    // One at a time, as far as frames of two can be in the ring.
                    0 if last.is_none_or(|last: u64| wire.passed - last > 2 * LAG) && by.unsigned_abs() > LAG => {
                        wire.machine.set(by);
                        last = Some(wire.passed);
                    }
                    1 | 2 => wire.frame(),
                    3 => {
                        prop_assert!(wire.drain().0.iter().all(|off| *off == 0));
                        drained = wire.passed;
                    }
                    _ => {
                        wire.run(nanos);
                        // Nothing lies there for longer than the lag.
                        if wire.passed - drained > LAG / 2 {
                            prop_assert!(wire.drain().0.iter().all(|off| *off == 0));
                            drained = wire.passed;
                        }
                    }
                }
            }
        }
    }
}
