//! Outputs that are there no more: one that was removed delivers what it has for as long as the end of a run may take, and
//! what became of those that have gone stays in the books.
//!
//! Whoever hands a batch over may have taken the set of outputs a moment before one was removed from it. So an output hears
//! of its end only when nobody but this has it any more: what it was handed by then is ahead of that, in its queue.

use super::{Output, Predecessor, TOO_LATE};
use crate::snapshot::OutputBook;
use crate::threads::{LAST_WORDS, Threads};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
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
    /// From now on it is tried whatever it did before.
    pub(super) fn new(output: Arc<Output>, gates: Vec<Gate>, until: Instant) -> Self {
        output.wait_from_now();
        Self { output, gates, told: false, late: false, until }
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

/// See the module's text: those that have gone.
#[derive(Default)]
pub(super) struct Past(VecDeque<Memory>);

impl Past {
    /// An output has gone.
    pub(super) fn take_in(&mut self, gone: Leaving, progress: &Progress) {
        let output = &gone.output;
        let mut book = output.own_book();
        if *progress == Progress::LeftBehind {
            book.close();
        }
        let late = book.dropped.get(TOO_LATE).map_or(0, |late| late.records);
        match (progress, late) {
            (Progress::LeftBehind, _) => {
                warn!("Output {} does not end, {late} records were not delivered in time", output.name);
            }
            (_, 0) => info!("Output {} has delivered what it had, and has gone", output.name),
            (_, late) => warn!("Output {} has gone, {late} records were not delivered in time", output.name),
        }
        self.remember(Memory {
            name: output.name.clone(),
            book,
            panics: output.panics(),
            opened: output.opened(),
            counted: output.predecessor(),
        });
        // Whoever waits for it begins.
        drop(gone.gates);
    }

    fn remember(&mut self, memory: Memory) {
        if let Some(same) = self.0.iter_mut().find(|same| same.name == memory.name) {
            same.book += &memory.book;
            same.panics += memory.panics;
            same.opened += memory.opened;
            same.counted = memory.counted;
            return;
        }
        let sums = |memory: &Memory| memory.name == EARLIER;
        if self.0.iter().filter(|memory| !sums(memory)).count() == PAST_MAX
            && let Some(oldest) = self.0.iter().position(|memory| !sums(memory))
            && let Some(mut oldest) = self.0.remove(oldest)
        {
            EARLIER.clone_into(&mut oldest.name);
            oldest.counted = Predecessor::default();
            self.remember(oldest);
        }
        self.0.push_back(memory);
    }

    fn of(&self, name: &str) -> Option<&Memory> {
        self.0.iter().find(|memory| memory.name == name)
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
    use mermin_flow::Amount;

    fn memory(name: &str, records: u64) -> Memory {
        let amount = Amount { records, ..Amount::default() };
        let book = OutputBook { handed: amount, delivered: amount, ..OutputBook::default() };
        let counted = Predecessor::default();
        Memory { name: name.to_owned(), book, panics: 1, opened: 2, counted }
    }

    #[test]
    fn books_of_one_name_are_one_and_those_of_many_names_have_a_bound() {
        let mut past = Past::default();
        past.remember(memory("a", 1));
        past.remember(memory("a", 2));
        assert_eq!((past.opened("a"), past.panics()), (4, 2));
        for n in 0..PAST_MAX + 5 {
            past.remember(memory(&n.to_string(), 10));
        }
        let books: Vec<_> = past.books().map(|(name, book)| (name, book.handed.records)).collect();
        assert_eq!(books.len(), PAST_MAX + 1);
        let sum = books.iter().find(|(name, _)| *name == EARLIER).unwrap();
        assert_eq!(sum.1, 3 + 50, "the oldest six together");
        assert_eq!(books.iter().map(|(_, records)| records).sum::<u64>(), 3 + 10 * (PAST_MAX as u64 + 5));
        assert_eq!(past.panics(), PAST_MAX as u64 + 7);
    }
}
