//! What was read is written down before the kernel forgets it: a process that is killed has it from the journal's last cut on.
//!
//! An entry says up to where the ring was read with it, or of which epoch its sums are. The kernel's own word decides whether it
//! counts: what the kernel has not been told that it was read is there still, and is read again.

use super::words::Words;
use mermin_abi::Event;
use mermin_journal::{Carried, JournalError, ReadLog};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use zerocopy::{FromBytes as _, Immutable, IntoBytes, KnownLayout};

/// In front of an entry's events.
#[derive(Clone, Copy, Debug, zerocopy::FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Head {
    /// Of the maps: numbers of others mean nothing in these.
    shapes: u32,
    kind: u32,
    /// The ring's position behind it, or the epoch.
    up_to: u64,
}

const RING: u32 = 0;
const SUMS: u32 = 1;
/// Another process goes on from here. Instead of events it says what the kernel knew then ([`Kernel`]).
const GOES_ON: u32 = 2;

/// What the kernel knows of what was read.
#[derive(Clone, Copy, Debug, zerocopy::FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Kernel {
    shapes: u32,
    /// The last epoch that is committed.
    committed: u32,
    /// Up to where the ring was read.
    position: u64,
}

impl Kernel {
    /// Whether it has forgotten what an entry has.
    fn has_forgotten(&self, head: &Head) -> bool {
        match (head.shapes == self.shapes, head.kind) {
            // Maps that are no more have nothing.
            (false, _) => true,
            (true, SUMS) => self.committed.wrapping_sub(head.up_to as u32).cast_signed() >= 0,
            (true, _) => head.up_to <= self.position,
        }
    }
}

/// Where it is written down.
#[derive(Clone)]
pub(super) struct Log {
    log: ReadLog,
    words: Arc<Words>,
    said: Arc<AtomicBool>,
}

impl Log {
    pub(super) fn new(log: ReadLog, words: Arc<Words>) -> Self {
        Self { log, words, said: Arc::default() }
    }

    /// Read from the ring up to this position, which is not told yet.
    pub(super) fn ring(&self, up_to: u64, events: [&[Event]; 2]) {
        self.write(Head { shapes: self.words.shapes(), kind: RING, up_to }, events);
    }

    /// Summed up in an epoch that is not committed yet.
    pub(super) fn sums(&self, epoch: u32, events: &[Event]) {
        self.write(Head { shapes: self.words.shapes(), kind: SUMS, up_to: epoch.into() }, [events, &[]]);
    }

    /// Before anything else is read: what was written down before and the kernel had not forgotten by now is read again, and written
    /// down again.
    pub(super) fn goes_on(&self, position: u64) {
        let kernel = kernel(&self.words, position);
        let head = Head { shapes: kernel.shapes, kind: GOES_ON, up_to: position };
        self.append(&[head.as_bytes(), kernel.as_bytes()]);
    }

    fn write(&self, head: Head, [first, second]: [&[Event]; 2]) {
        if !first.is_empty() || !second.is_empty() {
            self.append(&[head.as_bytes(), first.as_bytes(), second.as_bytes()]);
        }
    }

    fn append(&self, parts: &[&[u8]]) {
        if let Err(error) = self.log.append(parts)
            && !self.said.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                %error,
                "what is read can't be written to the journal: if this process is killed, what it had then is lost (lost.crash)"
            );
        }
    }

    /// What follows is behind a cut.
    pub(super) fn cut(&self) -> Result<u64, JournalError> {
        self.log.cut()
    }
}

fn kernel(words: &Words, position: u64) -> Kernel {
    Kernel { shapes: words.shapes(), committed: words.committed().0, position }
}

/// Of what was read behind the last cut, what the kernel has forgotten: events of the ring, then sums. `position` is where the ring
/// of these maps is read on.
pub(super) fn forgotten(carried: &Carried, words: &Words, position: u64) -> Vec<Event> {
    sort(&carried.read, kernel(words, position))
}

fn sort(read: &[Vec<u8>], now: Kernel) -> Vec<Event> {
    let (mut events, mut sums) = (Vec::new(), Vec::new());
    let mut open = Vec::new();
    let mut judge = |open: &mut Vec<(Head, &[u8])>, kernel: Kernel| {
        for (head, rest) in open.drain(..).filter(|(head, _)| kernel.has_forgotten(head)) {
            let to = if head.kind == SUMS { &mut sums } else { &mut events };
            to.extend(
                rest.chunks_exact(size_of::<Event>()).filter_map(|event| Event::read_from_bytes(event).ok()),
            );
        }
    };
    for entry in read {
        let Ok((head, rest)) = Head::read_from_prefix(entry) else { continue };
        match (head.kind, Kernel::read_from_prefix(rest)) {
            (GOES_ON, Ok((kernel, _))) => judge(&mut open, kernel),
            (RING | SUMS, _) => open.push((head, rest)),
            _ => {}
        }
    }
    judge(&mut open, now);
    events.append(&mut sums);
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros as _;

    fn entry(kind: u32, shapes: u32, up_to: u64) -> Vec<u8> {
        let event = Event { packets: up_to as u32, ..Event::new_zeroed() };
        [Head { shapes, kind, up_to }.as_bytes(), event.as_bytes()].concat()
    }

    fn goes_on(kernel: Kernel) -> Vec<u8> {
        [Head { shapes: kernel.shapes, kind: GOES_ON, up_to: 0 }.as_bytes(), kernel.as_bytes()].concat()
    }

    fn found(read: &[Vec<u8>], now: Kernel) -> Vec<u32> {
        sort(read, now).iter().map(|event| event.packets).collect()
    }

    const fn knows(shapes: u32, committed: u32, position: u64) -> Kernel {
        Kernel { shapes, committed, position }
    }

    #[test]
    fn what_the_kernel_was_not_told_is_read_again_and_does_not_count() {
        let read = [entry(SUMS, 1, 3), entry(RING, 1, 100), entry(RING, 1, 200), entry(SUMS, 1, 4)];
        assert_eq!(found(&read, knows(1, 4, 200)), [100, 200, 3, 4]);
        assert_eq!(found(&read, knows(1, 3, 100)), [100, 3]);
        assert_eq!(found(&read, knows(1, 2, 0)), [0; 0]);
        assert_eq!(
            found(&read, knows(2, u32::MAX, 0)),
            [100, 200, 3, 4],
            "what those maps had is nowhere else"
        );
        let read = [entry(SUMS, 1, u32::MAX.into()), entry(SUMS, 1, 0)];
        assert_eq!(found(&read, knows(1, 0, 0)), [u32::MAX, 0], "numbers go on at zero");
        assert_eq!(found(&read, knows(1, u32::MAX, 0)), [u32::MAX]);
    }

    #[test]
    fn what_was_read_by_two_processes_counts_once() {
        // The first one was killed before it told of the second of each; the second one has read them again.
        let kernel = knows(1, 3, 100);
        let first = [entry(SUMS, 1, 3), entry(RING, 1, 100), entry(RING, 1, 200), entry(SUMS, 1, 4)];
        let second = [goes_on(kernel), entry(SUMS, 1, 4), entry(RING, 1, 250)];
        let read = [&first[..], &second].concat();
        assert_eq!(found(&read, knows(1, 4, 250)), [100, 250, 3, 4]);
        assert_eq!(found(&read, knows(1, 3, 100)), [100, 3]);
        assert_eq!(found(&read, knows(2, u32::MAX, 0)), [100, 250, 3, 4], "with other maps by now, too");
    }
}
