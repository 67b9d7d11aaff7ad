//! Panics at chosen moments, for tests of what comes after one. In any other build there are none.

#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn point() {}

#[cfg(test)]
pub(crate) use switched::{arm, point};

#[cfg(test)]
mod switched {
    use std::cell::Cell;

    thread_local! {
        /// Points to pass before the one that panics.
        static COUNTDOWN: Cell<Option<u32>> = const { Cell::new(None) };
    }

    /// The `n`th point from here on panics, the first being 0; `None`: none does. What was left of the countdown before.
    pub(crate) fn arm(n: Option<u32>) -> Option<u32> {
        COUNTDOWN.replace(n)
    }

    /// Where something may go wrong.
    pub(crate) fn point() {
        match COUNTDOWN.get() {
            Some(0) => {
                COUNTDOWN.set(None);
                // Without the hook's words on stderr.
                std::panic::resume_unwind(Box::new("a fault that was asked for"));
            }
            left => COUNTDOWN.set(left.map(|left| left - 1)),
        }
    }
}
