//! When the reader of sums looks at the ring again: not before it is worth it.
//!
//! The programs wake it once the ring is half full. Until then it sleeps as long as it takes for some thousand events to come, as
//! fast as they came lately: few events cost few system calls, and many come in pieces that the channels behind have room for.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

/// Events that are worth a look.
const WORTH: u64 = 4_096;
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(100);

/// Sleeps until the programs say that the ring is half full.
pub(super) struct Pace {
    /// Tells of each time that somebody is woken, and not of what is there: that is always something.
    edges: OwnedFd,
    since: Instant,
    read: u64,
}

impl Pace {
    pub(super) fn new(ring: BorrowedFd<'_>) -> io::Result<Self> {
        // SAFETY: takes no pointers.
        let edges = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if edges < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that the kernel has just made for us.
        let edges = unsafe { OwnedFd::from_raw_fd(edges) };
        let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 0 };
        // SAFETY: both descriptors are open, and `event` outlives the call.
        let added = unsafe {
            libc::epoll_ctl(edges.as_raw_fd(), libc::EPOLL_CTL_ADD, ring.as_raw_fd(), &raw mut event)
        };
        if added < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { edges, since: Instant::now(), read: 0 })
    }

    /// So many events were read.
    pub(super) fn read(&mut self, events: u64) {
        self.read += events;
    }

    /// Until it is worth a look, `at_most` has passed or a signal comes.
    pub(super) fn sleep(&mut self, at_most: Duration) {
        let nap = nap(self.since.elapsed(), self.read).min(at_most);
        (self.since, self.read) = (Instant::now(), 0);
        // Less than a millisecond would be no sleep at all.
        let milliseconds = i32::try_from(nap.as_millis()).unwrap_or(i32::MAX).max(1);
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: room for one event, as said.
        unsafe { libc::epoll_wait(self.edges.as_raw_fd(), &raw mut event, 1, milliseconds) };
    }
}

/// After so many events in that time.
fn nap(time: Duration, events: u64) -> Duration {
    let worth = time.as_nanos().saturating_mul(WORTH.into()) / u128::from(events.max(1));
    let worth = Duration::from_nanos(u64::try_from(worth).unwrap_or(u64::MAX));
    if events == 0 { LONGEST } else { worth.clamp(SHORTEST, LONGEST) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sleeps_until_some_thousand_events_will_have_come() {
        let after = |milliseconds, events| nap(Duration::from_millis(milliseconds), events).as_micros();
        assert_eq!(after(10, 0), 100_000);
        assert_eq!(after(100, 10), 100_000);
        assert_eq!(after(10, 4_096), 10_000);
        assert_eq!(after(10, 10_240), 4_000);
        assert_eq!(after(10, 1_000_000), 1_000);
        assert_eq!(after(0, 5), 1_000);
    }
}
