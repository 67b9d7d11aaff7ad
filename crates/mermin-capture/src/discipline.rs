//! What the kernel says of the wall clock's discipline (`adjtimex(2)`): how far NTP or PTP believe it to be off.
//!
//! The offset is what was left to be corrected at the discipline's last look, the error is the kernel's bound, which grows
//! by 500 µs a second until the next look. chrony and ntpd tell the kernel both; a PTP clock that is set by `phc2sys` may
//! tell nothing, and counts as not disciplined.

use std::mem::MaybeUninit;

/// Of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discipline {
    /// Nanoseconds that it is believed to be off.
    pub offset: i64,
    /// Nanoseconds that it may be off at most.
    pub error: u64,
}

/// At the moment; `None` while nobody disciplines it.
#[must_use]
pub fn discipline() -> Option<Discipline> {
    let mut timex = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: the struct is the kernel's own, has integers only, for which zeros are valid, and lives beyond the call. No
    // mode is set: nothing is changed, and no privilege is needed.
    let (state, timex) = unsafe { (libc::adjtimex(timex.as_mut_ptr()), timex.assume_init()) };
    if state < 0 {
        return None;
    }
    of(timex.status, timex.offset, timex.maxerror)
}

/// From the kernel's fields: the error is in microseconds, the offset too unless the status says otherwise.
fn of(status: libc::c_int, offset: i64, error: i64) -> Option<Discipline> {
    if status & libc::STA_UNSYNC != 0 {
        return None;
    }
    let offset = if status & libc::STA_NANO != 0 { offset } else { offset.saturating_mul(1_000) };
    Some(Discipline { offset, error: error.unsigned_abs().saturating_mul(1_000) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_that_the_status_says() {
        assert_eq!(of(libc::STA_UNSYNC | libc::STA_NANO, 5, 16_000_000), None);
        assert_eq!(of(libc::STA_PLL, -7, 250), Some(Discipline { offset: -7_000, error: 250_000 }));
        assert_eq!(of(libc::STA_NANO, -7, 250), Some(Discipline { offset: -7, error: 250_000 }));
    }

    #[test]
    fn the_kernel_answers() {
        // Whether this host's clock is disciplined is not known here.
        let _ = discipline();
    }
}
