//! The clock that live observations are timed by, and the wall clock beside it.
//!
//! Observations have the time since boot (`CLOCK_BOOTTIME`), moved once, when the source is opened, to where the wall
//! clock was then. Nobody sets that clock, and it goes on while the machine is suspended. What changes the wall clock's
//! rate (NTP's slewing) changes this clock's rate alike, so their distance is constant until somebody sets the wall clock
//! (`settimeofday`, `adjtimex` with an offset, a leap second): a distance that has changed is a step. The reader looks at
//! every drain, so a step is known a fraction of a second after it was made, while packets are read; it is told as made then.

use mermin_flow::WallClock;
use std::time::Duration;

/// Smaller steps are not told before they add up to this.
pub(crate) const STEP_MIN: u64 = 1_000_000;
/// Boot time goes on without the other for this: the machine was suspended.
const SUSPENDED_MIN: u64 = 10_000_000;
/// Readings that took longer are taken again.
const WIDTH: u64 = 20_000;
/// Between two lines in the log.
const SAY_AGAIN: u64 = 60_000_000_000;

/// The clocks at one moment. Nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Since boot, suspended time included.
    pub(crate) boot: u64,
    /// Since boot without it.
    pub(crate) awake: u64,
    /// Since 1970.
    pub(crate) wall: u64,
    /// From the first of them to the last: what they may be apart by for that.
    pub(crate) width: u64,
}

impl Reading {
    /// Of the kernel's clocks, from the vDSO.
    pub(crate) fn take() -> Self {
        let mut best = Self::take_once();
        for _ in 0..2 {
            if best.width <= WIDTH {
                break;
            }
            let again = Self::take_once();
            if again.width < best.width {
                best = again;
            }
        }
        best
    }

    fn take_once() -> Self {
        let before = read(libc::CLOCK_BOOTTIME);
        let awake = read(libc::CLOCK_MONOTONIC);
        let wall = read(libc::CLOCK_REALTIME);
        let width = read(libc::CLOCK_BOOTTIME) - before;
        Self { boot: before + width / 2, awake, wall, width }
    }
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable; the kernel fills it or leaves it alone.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}

/// From time since boot to the time of observations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steady {
    base: u64,
}

impl Steady {
    fn of(reading: Reading) -> Self {
        Self { base: reading.wall.wrapping_sub(reading.boot) }
    }

    /// A time since boot.
    #[inline(always)]
    pub(crate) const fn time(self, boot: u64) -> u64 {
        boot.wrapping_add(self.base)
    }

    /// The present.
    pub(crate) fn now(self) -> u64 {
        self.time(read(libc::CLOCK_BOOTTIME))
    }

    /// For times since boot as the kernel itself has them: a time namespace shows its processes others.
    pub(crate) fn of_the_kernel(self) -> Self {
        let offsets = std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
        Self { base: self.base.wrapping_add_signed(boot_offset(&offsets)) }
    }
}

/// What a process's time since boot is ahead of the kernel's, as `/proc/self/timens_offsets` tells it (Linux 5.5).
fn boot_offset(offsets: &str) -> i64 {
    let fields = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        (fields.next() == Some("boottime")).then_some(())?;
        let (seconds, nanos): (i64, i64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
    };
    offsets.lines().find_map(fields).unwrap_or_default()
}

/// What a look at the clocks has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Looked {
    /// The present on the observations' clock. Never goes back.
    pub(crate) now: u64,
    /// The wall clock was set: what it was ahead before.
    pub(crate) before: Option<i64>,
    /// The machine was suspended since the last look.
    pub(crate) woke: bool,
}

/// See the module's text.
pub(crate) struct Clocks {
    read: Box<dyn FnMut() -> Reading + Send>,
    steady: Steady,
    wall: WallClock,
    now: u64,
    /// What the wall clock is ahead of the observations' clock.
    ahead: i64,
    suspended: u64,
    steps: u64,
    suspends: u64,
    said: Option<u64>,
}

impl Clocks {
    /// The kernel's.
    pub(crate) fn new() -> Self {
        Self::read_by(Reading::take)
    }

    /// What `read` says they show.
    pub(crate) fn read_by(mut read: impl FnMut() -> Reading + Send + 'static) -> Self {
        let first = read();
        let steady = Steady::of(first);
        Self {
            read: Box::new(read),
            steady,
            wall: WallClock::ahead_of_boot(steady.base),
            now: steady.time(first.boot),
            ahead: 0,
            suspended: first.boot.saturating_sub(first.awake),
            steps: 0,
            suspends: 0,
            said: None,
        }
    }

    pub(crate) const fn steady(&self) -> Steady {
        self.steady
    }

    /// To where steps are told.
    pub(crate) fn wall(&self) -> WallClock {
        self.wall.clone()
    }

    /// What the wall clock was ahead of the observations' clock at the last look.
    pub(crate) const fn ahead(&self) -> i64 {
        self.ahead
    }

    pub(crate) fn look(&mut self) -> Looked {
        let reading = (self.read)();
        let now = self.steady.time(reading.boot);
        self.now = self.now.max(now);
        let ahead = reading.wall.wrapping_sub(now).cast_signed();
        let stepped = ahead.abs_diff(self.ahead) >= STEP_MIN.max(reading.width);
        let before = stepped.then(|| self.stepped(ahead));
        let suspended = reading.boot.saturating_sub(reading.awake);
        let woke = suspended.saturating_sub(self.suspended) >= SUSPENDED_MIN.max(reading.width);
        if woke {
            self.woke(suspended);
        }
        Looked { now: self.now, before, woke }
    }

    /// It is told as made now: no packet that came later was handed on yet, so what was told of a time stays true.
    #[cold]
    fn stepped(&mut self, ahead: i64) -> i64 {
        self.wall.stepped(self.now, ahead);
        self.steps += 1;
        let before = std::mem::replace(&mut self.ahead, ahead);
        let by = ahead.saturating_sub(before);
        let seconds = Duration::from_nanos(by.unsigned_abs()).as_secs_f64();
        let way = if by < 0 { "back" } else { "forward" };
        if self.said.is_none_or(|said| self.now.saturating_sub(said) >= SAY_AGAIN) {
            self.said = Some(self.now);
            tracing::warn!(
                "The wall clock was set {way} by {seconds:.3} s: flows go on as before, times in records are the new ones from now on"
            );
        }
        before
    }

    #[cold]
    fn woke(&mut self, suspended: u64) {
        let asleep = suspended - std::mem::replace(&mut self.suspended, suspended);
        self.suspends += 1;
        let seconds = Duration::from_nanos(asleep).as_secs_f64();
        tracing::info!("This machine was suspended for {seconds:.3} s: flows have grown older by that");
    }

    /// What stands among the oddities.
    pub(crate) fn anomalies(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [("clock_steps", self.steps), ("suspends", self.suspends)].into_iter().filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::{Arc, Mutex, MutexGuard};
    use std::time::{SystemTime, UNIX_EPOCH};

    pub(crate) const SECOND: u64 = 1_000_000_000;

    /// A machine's clocks, in a test's hands.
    #[derive(Clone)]
    pub(crate) struct Machine(Arc<Mutex<Reading>>);

    impl Machine {
        pub(crate) fn new() -> Self {
            let reading = Reading {
                boot: 5_000 * SECOND,
                awake: 4_000 * SECOND,
                wall: 1_767_225_600 * SECOND,
                width: 50,
            };
            Self(Arc::new(Mutex::new(reading)))
        }

        fn reading(&self) -> MutexGuard<'_, Reading> {
            self.0.lock().unwrap()
        }

        pub(crate) fn clocks(&self) -> Clocks {
            let machine = self.clone();
            Clocks::read_by(move || *machine.reading())
        }

        pub(crate) fn wall(&self) -> u64 {
            self.reading().wall
        }

        pub(crate) fn run(&self, nanos: u64) {
            let mut reading = self.reading();
            reading.boot += nanos;
            reading.awake += nanos;
            reading.wall += nanos;
        }

        pub(crate) fn suspend(&self, nanos: u64) {
            let mut reading = self.reading();
            reading.boot += nanos;
            reading.wall += nanos;
        }

        pub(crate) fn set(&self, by: i64) {
            let mut reading = self.reading();
            reading.wall = reading.wall.wrapping_add_signed(by);
        }
    }

    const HOUR: i64 = 3_600 * SECOND as i64;

    #[test]
    fn observations_begin_with_the_wall_clocks_time() {
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i128;
        let mut clocks = Clocks::new();
        for now in [clocks.steady().now(), clocks.look().now] {
            assert!((i128::from(now) - before).abs() < 1_000_000_000, "{now} is not near {before}");
        }
    }

    #[test]
    fn steps_are_found_and_counted_and_time_goes_on() {
        for by in [HOUR, -HOUR, STEP_MIN as i64, -(STEP_MIN as i64)] {
            let machine = Machine::new();
            let mut clocks = machine.clocks();
            let began = clocks.look().now;
            machine.run(SECOND);
            machine.set(by);
            assert_eq!(clocks.look(), Looked { now: began + SECOND, before: Some(0), woke: false });
            machine.run(SECOND);
            assert_eq!(clocks.look(), Looked { now: began + 2 * SECOND, before: None, woke: false });
            assert_eq!(clocks.anomalies().collect::<Vec<_>>(), [("clock_steps", 1)]);
            assert_eq!(clocks.ahead(), by);
        }
    }

    #[test]
    fn small_steps_are_told_when_they_add_up() {
        let machine = Machine::new();
        let mut clocks = machine.clocks();
        let found: Vec<_> = (0..7)
            .map(|_| {
                machine.set(300_000);
                clocks.look().before
            })
            .collect();
        assert_eq!(found, [None, None, None, Some(0), None, None, None]);
        assert_eq!(clocks.ahead(), 1_200_000);
    }

    #[test]
    fn what_a_slow_reading_may_have_made_is_no_step() {
        let machine = Machine::new();
        let mut clocks = machine.clocks();
        machine.set(HOUR);
        machine.reading().width = 2 * HOUR as u64;
        assert_eq!(clocks.look().before, None);
        machine.reading().width = 50;
        assert_eq!(clocks.look().before, Some(0));
    }

    #[test]
    fn suspended_time_passes_and_is_no_step() {
        let machine = Machine::new();
        let mut clocks = machine.clocks();
        let began = clocks.look().now;
        machine.suspend(8 * HOUR as u64);
        machine.run(SECOND);
        assert_eq!(clocks.look(), Looked { now: began + 8 * HOUR as u64 + SECOND, before: None, woke: true });
        assert!(!clocks.look().woke);
        assert_eq!(clocks.anomalies().collect::<Vec<_>>(), [("suspends", 1)]);
    }

    /// A clock that stands before boot: no battery, no network yet.
    #[test]
    fn a_wall_clock_that_began_with_1970_is_followed() {
        let machine = Machine::new();
        machine.reading().wall = 3 * SECOND;
        let mut clocks = machine.clocks();
        assert_eq!(clocks.look().now, 3 * SECOND);
        machine.run(SECOND);
        machine.set(1_767_225_600 * SECOND as i64);
        assert_eq!(clocks.look().now, 4 * SECOND);
        assert_eq!(clocks.ahead(), 1_767_225_600 * SECOND as i64);
    }

    #[test]
    fn a_time_namespace_is_taken_off() {
        assert_eq!(
            boot_offset("monotonic           0         0\nboottime        86400         5\n"),
            86_400_000_000_005
        );
        assert_eq!(
            boot_offset("monotonic           7         0\nboottime       -10 500000000\n"),
            -9_500_000_000
        );
        for nothing in ["", "boottime", "boottime x 0", "boottime 9999999999999 0"] {
            assert_eq!(boot_offset(nothing), 0, "{nothing}");
        }
    }

    proptest! {
        /// Whatever is done to the wall clock: observations' time is the time that has passed, and with what the wall
        /// clock is ahead it is what that shows, to within what isn't told.
        #[test]
        fn whatever_is_done_to_the_wall_clock(
            doings in prop::collection::vec((0_u8..4, 0..7_200 * SECOND as i64, any::<bool>()), 1..60)
        ) {
            let machine = Machine::new();
            let mut clocks = machine.clocks();
            let (began, mut passed, mut steps, mut suspends) = (clocks.look().now, 0, 0, 0);
            for (what, much, back) in doings {
                match what {
                    0 => {
                        let by = if back { -much } else { much };
                        machine.set(by);
                        let told = clocks.ahead();
                        steps += u64::from(told.abs_diff(machine.wall().wrapping_sub(began + passed).cast_signed()) >= STEP_MIN);
                    }
                    1 => {
                        machine.suspend(much as u64);
                        passed += much as u64;
                        suspends += u64::from(much as u64 >= SUSPENDED_MIN);
                    }
                    _ => {
                        machine.run(much as u64);
                        passed += much as u64;
                    }
                }
                let looked = clocks.look();
                prop_assert_eq!(looked.now, began + passed);
                prop_assert!(looked.now.wrapping_add_signed(clocks.ahead()).abs_diff(machine.wall()) < STEP_MIN);
            }
            prop_assert_eq!(clocks.steps, steps);
            prop_assert!(clocks.suspends >= suspends);
        }
    }
}
