//! Outputs that are there no more: one that was removed delivers what it has for as long as the end of a run may take, and
//! what became of those that have gone stays in the books.
//!
//! Whoever hands a batch over may have taken the set of outputs a moment before one was removed from it. So an output hears
//! of its end only when nobody but this has it any more: what it was handed by then is ahead of that, in its queue.
//!
//! One with a disk buffer leaves there what it has not delivered in time. The next one of its name finds it.

use super::book::minus;
use super::{Output, Predecessor};
use crate::snapshot::OutputBook;
use crate::threads::{LAST_WORDS, Threads};
use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::Instant;
use tracing::{info, warn};

/// Outputs that have gone and whose books are kept each by its name.
const PAST_MAX: usize = 64;
/// The name of the book of all that went before those.
const EARLIER: &str = "removed";

/// Held while an output is not to begin: nothing is sent, letting go of it says enough.
pub(super) type Gate = SyncSender<Infallible>;

/// An output that was removed and has not ended yet.
pub(super) struct Leaving {
    pub(super) output: Arc<Output>,
    /// Those that go to where this one goes begin when it has ended.
    pub(super) gates: Vec<Gate>,
    /// It was told that nothing more comes.
    told: bool,
    /// It was told that time is up.
    late: bool,
    until: Instant,
}

/// How an output is on its way out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    UnderWay,
    Ended,
    /// It has not ended though time was up: whatever it does from now on, its book is closed.
    LeftBehind,
}

impl Leaving {
    /// From now on it is tried whatever it did before, and what becomes of its threads is no matter of the run.
    pub(super) fn new(output: Arc<Output>, gates: Vec<Gate>, until: Instant) -> Self {
        output.wait_from_now();
        output.matters.store(false, Ordering::Release);
        Self { output, gates, told: false, late: false, until }
    }

    /// It has until then at most.
    pub(super) fn hurry(&mut self, by: Instant) {
        self.until = self.until.min(by);
    }

    pub(super) fn look(&mut self, now: Instant, threads: &Threads) -> Progress {
        if !self.told && Arc::get_mut(&mut self.output).is_some() {
            self.told = true;
            self.output.queue.end();
        }
        if threads.have_ended_of(&self.output.threads) {
            return Progress::Ended;
        }
        if !self.late && now >= self.until {
            self.late = true;
            self.output.give_up();
        }
        if now >= self.until + LAST_WORDS {
            // Of one with a disk buffer, whose disk hangs.
            self.output.drop_waiting();
            threads.let_go(&self.output.threads);
            return Progress::LeftBehind;
        }
        Progress::UnderWay
    }
}

/// What is left of an output, or of several that had its name one after the other.
struct Memory {
    name: String,
    book: OutputBook,
    panics: u64,
    opened: u64,
    counted: Predecessor,
}

/// What became of the records: `12 records delivered, 3 dropped (shutdown_timeout 1, write_failed 2)`.
fn account(book: &OutputBook) -> String {
    let mut delivered = format!("{} records delivered", book.delivered.records);
    if book.spooled.records > 0 {
        delivered = format!("{delivered}, {} stay on disk", book.spooled.records);
    }
    let dropped: u64 = book.dropped.values().map(|dropped| dropped.records).sum();
    if dropped == 0 {
        return delivered;
    }
    let by_reason = book.dropped.iter().map(|(reason, dropped)| format!("{reason} {}", dropped.records));
    let by_reason = by_reason.collect::<Vec<_>>().join(", ");
    format!("{delivered}, {dropped} dropped ({by_reason})")
}

/// See the module's text: those that have gone, the one that went last at the end.
#[derive(Default)]
pub(super) struct Past(Vec<Memory>);

impl Past {
    /// An output has gone. The books of those `in_use`, whose names others have by now, go on.
    pub(super) fn take_in(&mut self, gone: Leaving, progress: &Progress, in_use: &HashSet<String>) {
        let output = &gone.output;
        let mut book = output.own_book();
        if *progress == Progress::LeftBehind {
            book.close();
        }
        let account = account(&book);
        match (progress, book.dropped.is_empty()) {
            (Progress::LeftBehind, _) => {
                warn!("Output {} does not end and is left to itself: {account}", output.name);
            }
            (_, true) => info!("Output {} has gone: {account}", output.name),
            (_, false) => warn!("Output {} has gone: {account}", output.name),
        }
        let memory = Memory {
            name: output.name.clone(),
            book,
            panics: output.panics(),
            opened: output.opened(),
            counted: output.predecessor(),
        };
        self.remember(memory, in_use);
        // Whoever waits for it begins.
        drop(gone.gates);
    }

    fn remember(&mut self, mut memory: Memory, in_use: &HashSet<String>) {
        if let Some(at) = self.0.iter().position(|same| same.name == memory.name) {
            let same = self.0.remove(at);
            memory.book += &same.book;
            memory.panics += same.panics;
            memory.opened += same.opened;
            memory.counted.raise_to(same.counted);
        }
        self.0.push(memory);
        while self.0.iter().filter(|memory| !Self::sums(memory)).count() > PAST_MAX {
            // Figures of an output that there is don't fall: those that went last are, with these, few enough.
            let may_go = |memory: &Memory| !Self::sums(memory) && !in_use.contains(&memory.name);
            let Some(at) = self.0.iter().position(may_go) else { break };
            let mut oldest = self.0.remove(at);
            EARLIER.clone_into(&mut oldest.name);
            oldest.counted = Predecessor::default();
            self.remember(oldest, in_use);
        }
    }

    fn sums(memory: &Memory) -> bool {
        memory.name == EARLIER
    }

    fn of(&self, name: &str) -> Option<&Memory> {
        self.0.iter().find(|memory| memory.name == name)
    }

    /// An output has come. What others that had its name have left on disk is with it now, and in its book.
    pub(super) fn hand_on(&mut self, output: &Output) {
        if let Some(memory) = self.0.iter_mut().find(|memory| memory.name == output.name) {
            let inherited = output.inherit(memory.book.spooled);
            memory.book.spooled = minus(memory.book.spooled, inherited);
        }
    }

    /// What an output of this name that has gone has counted besides its book.
    pub(super) fn predecessor(&self, name: &str) -> Option<Predecessor> {
        self.of(name).map(|memory| memory.counted.clone())
    }

    pub(super) fn books(&self) -> impl Iterator<Item = (&str, &OutputBook)> {
        self.0.iter().map(|memory| (&*memory.name, &memory.book))
    }

    /// How often outputs of this name were let be.
    pub(super) fn opened(&self, name: &str) -> u64 {
        self.of(name).map_or(0, |memory| memory.opened)
    }

    /// Panics of all.
    pub(super) fn panics(&self) -> u64 {
        self.0.iter().map(|memory| memory.panics).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mermin_flow::{Amount, Delivery};

    fn memory(name: &str, records: u64) -> Memory {
        let amount = Amount { records, ..Amount::default() };
        let book = OutputBook { handed: amount, delivered: amount, ..OutputBook::default() };
        let counted = Predecessor::default();
        Memory { name: name.to_owned(), book, panics: 1, opened: 2, counted }
    }

    fn records(past: &Past, name: &str) -> Option<u64> {
        past.books().find(|(one, _)| *one == name).map(|(_, book)| book.handed.records)
    }

    #[test]
    fn books_of_one_name_are_one_and_those_of_many_names_have_a_bound() {
        let (mut past, in_use) = (Past::default(), HashSet::new());
        past.remember(memory("a", 1), &in_use);
        past.remember(memory("a", 2), &in_use);
        assert_eq!((past.opened("a"), past.panics()), (4, 2));
        for n in 0..PAST_MAX + 5 {
            past.remember(memory(&n.to_string(), 10), &in_use);
        }
        assert_eq!(past.books().count(), PAST_MAX + 1);
        assert_eq!(records(&past, EARLIER), Some(3 + 50), "the oldest six together");
        let sum: u64 = past.books().map(|(_, book)| book.handed.records).sum();
        assert_eq!(sum, 3 + 10 * (PAST_MAX as u64 + 5));
        assert_eq!(past.panics(), PAST_MAX as u64 + 7);
    }

    #[test]
    fn books_of_names_that_are_there_and_of_those_that_went_last_are_kept() {
        let (mut past, in_use) = (Past::default(), HashSet::from(["present".to_owned()]));
        past.remember(memory("present", 1), &in_use);
        past.remember(memory("again", 2), &in_use);
        past.remember(memory("once", 4), &in_use);
        past.remember(memory("again", 8), &in_use);
        for n in 0..PAST_MAX - 2 {
            past.remember(memory(&n.to_string(), 16), &in_use);
        }
        let kept = ["present", "again", "once", EARLIER].map(|name| records(&past, name));
        assert_eq!(kept, [Some(1), Some(10), None, Some(4)]);
    }

    #[test]
    fn counts_of_one_that_was_removed_earlier_and_ends_later_do_not_count() {
        let (mut past, in_use) = (Past::default(), HashSet::new());
        for requests in [7, 5] {
            let delivery = Arc::new(Delivery::default());
            delivery.requests.store(requests, Ordering::Relaxed);
            let counted = Predecessor { delivery: Some(delivery), ..Predecessor::default() };
            past.remember(Memory { counted, ..memory("a", 1) }, &in_use);
        }
        let delivery = past.predecessor("a").unwrap().delivery.unwrap();
        assert_eq!(delivery.requests.load(Ordering::Relaxed), 7);
    }

    #[test]
    fn what_one_has_delivered_and_what_not_is_told_with_figures() {
        let mut book = memory("a", 12).book;
        assert_eq!(account(&book), "12 records delivered");
        let left = OutputBook { spooled: Amount { records: 5, ..Amount::default() }, ..book.clone() };
        assert_eq!(account(&left), "12 records delivered, 5 stay on disk");
        for (reason, records) in [("write_failed", 2), ("closed", 1)] {
            book.dropped.insert(reason, Amount { records, ..Amount::default() });
        }
        assert_eq!(account(&book), "12 records delivered, 3 dropped (closed 1, write_failed 2)");
    }
}
