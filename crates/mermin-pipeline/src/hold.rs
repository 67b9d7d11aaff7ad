//! Lets tests stop the flow workers and let them go again, slows them down, or has them loop or panic. In a build without the
//! feature `hold` there is nothing to hold them with.

#[cfg(feature = "hold")]
mod switch {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
    use std::time::Duration;

    const NOBODY: u8 = 0;
    const WANTED: u8 = 1;
    const FOUND: u8 = 2;

    /// While on, flow workers stop before their next message.
    #[derive(Clone, Debug, Default)]
    pub struct Hold {
        on: Arc<AtomicBool>,
        loops: Arc<AtomicBool>,
        one: Arc<AtomicU8>,
        /// Nanoseconds.
        delay: Arc<AtomicU64>,
        /// Moments at which a flow worker may panic, so far; and which of them do.
        moments: Arc<AtomicU64>,
        every: Arc<AtomicU64>,
        once: Arc<AtomicBool>,
    }

    impl Hold {
        /// Holds the workers, or lets them go.
        pub fn set(&self, on: bool) {
            self.on.store(on, Ordering::Release);
        }

        /// While on, flow workers loop before their next message, as with a bug: each takes all of a core that it can get.
        pub fn loop_on(&self, on: bool) {
            self.loops.store(on, Ordering::Release);
        }

        /// While on, whichever flow worker comes to its next message first stops there, and the others don't.
        pub fn one(&self, on: bool) {
            self.one.store(if on { WANTED } else { NOBODY }, Ordering::Release);
        }

        /// From now on flow workers sleep for so long before each batch: however few cores there are, two of them
        /// handle twice as much as one.
        pub fn delay(&self, by: Duration) {
            self.delay.store(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::Release);
        }

        /// From now on flow workers panic at every `n`th moment at which they create a flow, are about to hand over a
        /// record, or just have, or look at flows for somebody; 0: at none.
        pub fn panic_every(&self, n: u64) {
            self.every.store(n, Ordering::Release);
        }

        /// The next flow worker to come to such a moment panics.
        pub fn panic_once(&self) {
            self.once.store(true, Ordering::Release);
        }

        pub(crate) fn panic_if_told(&self) {
            let every = self.every.load(Ordering::Relaxed);
            let moment = if every == 0 { 1 } else { self.moments.fetch_add(1, Ordering::Relaxed) + 1 };
            let once = self.once.load(Ordering::Relaxed) && self.once.swap(false, Ordering::AcqRel);
            if once || (every != 0 && moment.is_multiple_of(every)) {
                // Without the hook's words on standard error: tests ask for hundreds.
                std::panic::resume_unwind(Box::new("this panic was asked for"));
            }
        }

        pub(crate) fn lag(&self) {
            let delay = self.delay.load(Ordering::Acquire);
            if delay > 0 {
                std::thread::sleep(Duration::from_nanos(delay));
            }
        }

        pub(crate) fn wait(&self) {
            while self.loops.load(Ordering::Acquire) {
                std::hint::spin_loop();
            }
            let took = self.one.compare_exchange(WANTED, FOUND, Ordering::AcqRel, Ordering::Relaxed);
            while took.is_ok() && self.one.load(Ordering::Acquire) == FOUND {
                std::thread::sleep(Duration::from_millis(1));
            }
            while self.on.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

#[cfg(not(feature = "hold"))]
mod switch {
    /// Holds nothing: the build is without the feature `hold`.
    #[derive(Clone, Debug, Default)]
    pub struct Hold(());

    impl Hold {
        #[inline(always)]
        pub(crate) fn wait(&self) {}

        #[inline(always)]
        pub(crate) fn lag(&self) {}

        #[inline(always)]
        pub(crate) fn panic_if_told(&self) {}
    }
}

pub use switch::Hold;
