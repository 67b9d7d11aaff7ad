//! What the programs of an earlier process have counted, and go on counting, is gone on with (`capture.on_exit: keep`).
//!
//! Whenever that process ended, each packet stands in exactly one place: a half of the maps, the ring, or, as committed,
//! the process's memory. What was in memory and has not come to an end there is lost by the crash, and its amount is a
//! difference: what was due, less what was settled, less what still lies in maps and ring.
//!
//! Maps of another shape can't be gone on with: the programs are taken off, what they have counted is taken into memory,
//! and new maps are made.

use super::book::{Book, Closer, Request};
use super::clsact::Filters;
use super::error::EbpfError;
use super::grace::Grace;
use super::logged::{Log, forgotten};
use super::mapped::Mapped;
use super::object::{Mode, Object};
use super::other::{self, Past};
use super::pins::Pins;
use super::pulse::Pulse;
use super::ring::Ring;
use super::slots::{Slots, tally};
use super::words::{Shape, Words};
use crate::interfaces::discover;
use mermin_abi::{EVENT_TICKS, Event};
use mermin_flow::{SourceCut, Tally};
use mermin_journal::{Carried, SourceJournal};
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;
use zerocopy::FromBytes as _;

/// The name of the map of counts. It gets it last.
pub(super) const WORDS: &str = "WORDS";

/// The state of this network namespace, locked.
pub(super) struct Kept {
    pub(super) pins: Arc<Pins>,
    pub(super) words: Arc<Words>,
    /// What the maps are made for.
    pub(super) shape: Shape,
    /// What earlier lives have settled, or lost, ahead of the books that were committed: of an epoch that was open, it may be
    /// more than was due. A difference, which may be below zero.
    ahead: Tally,
    drained: Drained,
    /// What other versions have left.
    past: Past,
    /// Where what is read is written down.
    pub(super) log: Option<Log>,
    /// What was written down by a run that counted here, too.
    pub(super) carried: Option<Arc<Carried>>,
}

/// What was taken out of maps that can't be gone on with.
#[derive(Default)]
struct Drained {
    books: Vec<Book>,
    events: Vec<Event>,
    /// What was filtered has the numbers of rules that are still there.
    has_our_rules: bool,
    /// What the kernel had forgotten before it was drained.
    forgotten: Option<Vec<Event>>,
}

/// What a source begins with.
#[derive(Default)]
pub(super) struct TakenOver {
    /// Of what the open books say, settled by earlier lives; less what those had left of earlier books. A difference, which
    /// may be below zero.
    pub(super) ahead: Tally,
    /// Of what was due, what was in an earlier life's memory.
    pub(super) crashed: Tally,
    /// What lay in maps of another version.
    pub(super) unread: Tally,
    /// Of what was due, what a journal has of an earlier life's memory: it is in flows and records again.
    pub(super) held: Tally,
    /// Books that were open.
    pub(super) books: Vec<Book>,
    /// Books of maps that are no more, without sums.
    pub(super) drained: Vec<Book>,
    /// Whether what these say of filters is of rules that are still there.
    pub(super) has_our_rules: bool,
    /// What those maps held, and what a journal has of what was read, by the time since boot.
    pub(super) events: Vec<Event>,
    /// The time since boot of the first packet of all that is still to be handed on.
    pub(super) earliest: Option<u64>,
}

impl Kept {
    /// Locks the state of the calling thread's network namespace. If it is of another shape than `wanted`, what it holds is
    /// taken out; if it is of another version, added up.
    ///
    /// # Errors
    /// Another agent has it, or the kernel refuses.
    pub(super) fn open(wanted: Shape, journal: Option<&SourceJournal>) -> Result<Self, EbpfError> {
        let pins = Arc::new(Pins::open()?);
        let words = pins.get(WORDS).ok().map(Words::of).transpose()?;
        let Some((words, shape)) = words.and_then(|words| words.shape().map(|shape| (words, shape))) else {
            // Whoever began with it did not come to put programs on.
            pins.clear();
            pins.make().map_err(refused)?;
            let past = other::add_up(&pins)?;
            let words = Arc::new(Words::make()?);
            words.begin(&wanted, &past);
            let (ahead, drained) = (Tally::ZERO, Drained::default());
            let log = journal.map(|journal| Log::new(journal.log.clone(), Arc::clone(&words)));
            begin(journal, &words);
            return Ok(Self { pins, words, shape: wanted, ahead, drained, past, log, carried: None });
        };
        // What is of another version beside it was added up before.
        pins.clear_others();
        let (words, past) = (Arc::new(words), Past::default());
        let log = journal.map(|journal| Log::new(journal.log.clone(), Arc::clone(&words)));
        let carried = journal.and_then(|journal| journal.carried.clone());
        let carried = carried.filter(|carried| carried.source == words.identity().to_le_bytes());
        match &carried {
            Some(carried) => words.set_settled(carried.settled),
            None => {
                // What another journal says is of the past from here on.
                words.rename();
                begin(journal, &words);
            }
        }
        let ahead = words.settled() + words.crashed() - words.committed().1;
        if shape.fits(&wanted) {
            tracing::info!("goes on with what the programs of an earlier run have counted");
            return Ok(Self { pins, words, shape, ahead, drained: Drained::default(), past, log, carried });
        }
        let mut drained = drain(&pins, &words, &shape, (log.clone(), carried.as_deref()))?;
        drained.has_our_rules = shape.filters == wanted.filters;
        tracing::info!(
            "an earlier run's programs counted with other sizes or filters: they are off, what they have counted is taken \
             over, and the maps are made anew"
        );
        words.reshape(&wanted);
        Ok(Self { pins, words, shape: wanted, ahead, drained, past, log, carried })
    }

    /// Gives the counts their name: all maps have theirs, and what other versions have left is in them. Without a sign of life
    /// since theirs the programs counted nothing.
    pub(super) fn complete(&self, mapped: &Mapped) -> Result<(), EbpfError> {
        if self.pins.get(WORDS).is_err() {
            mapped.set_deadline(self.past.deadline);
            self.pins.pin(WORDS, self.words.map().as_fd()).map_err(refused)?;
            self.pins.clear_others();
        }
        Ok(())
    }

    /// Closes what was open, and says what became of all that was due. From here on `closer` commits what it closes.
    pub(super) fn take_over(
        &mut self,
        closer: Closer,
        ring: &Ring,
    ) -> Result<(Closer, TakenOver), EbpfError> {
        let Drained { books: drained, mut events, has_our_rules, forgotten: before } =
            std::mem::take(&mut self.drained);
        let carried = self.carried.as_deref();
        let forgotten = before.or_else(|| {
            let forgotten = carried.map(|carried| forgotten(carried, &self.words, ring.position()));
            self.log.iter().for_each(|log| log.goes_on(ring.position()));
            forgotten
        });
        let (closer, mut books) =
            closer.go_on(Arc::clone(&self.words), self.log.clone()).map_err(no_grace)?;
        if let Some(last) = books.last() {
            events.extend(forgotten.into_iter().flatten().map(|event| by_boot(event, last)));
            events.sort_by_key(|event| event.first);
        }
        let due: Tally = drained.iter().chain(&books).map(Book::metered).sum();
        let held = carried.map_or(Tally::ZERO, |carried| carried.held);
        let mut left: Tally = held + events.iter().map(tally).sum();
        let mut earliest = events.iter().map(|event| event.first).min();
        let mut first = |time| earliest = Some(earliest.map_or(time, |first: u64| first.min(time)));
        for book in &books {
            left += book.deltas.iter().map(tally).sum();
            let times = book.deltas.iter().filter_map(|delta| Some(book.ticks?.first(delta.first)));
            times.for_each(&mut first);
        }
        if let Some(last) = books.last() {
            for event in waiting(ring, last.up_to) {
                first(time(&event, last));
                // Of the epoch that has begun no book tells yet.
                if event.epoch.wrapping_sub(last.epoch).cast_signed() <= 0 {
                    left += tally(&event);
                }
            }
        }
        // What came before the last one's end is not known better.
        let began = earliest.or(books.last().map(|book| book.next_began)).unwrap_or_default();
        books.iter_mut().rev().skip(1).for_each(|book| book.next_began = began);
        let crashed = due - self.ahead - left;
        if crashed != Tally::ZERO {
            tracing::warn!(
                "an earlier run was killed: {} packets that were in its memory are lost (lost.crash)",
                crashed.packets
            );
            self.words.set_crashed(self.words.crashed() + crashed);
        }
        let (ahead, unread) = (self.ahead, self.past.unread());
        Ok((
            closer,
            TakenOver { ahead, crashed, unread, held, books, drained, has_our_rules, events, earliest },
        ))
    }
}

/// A journal's first cut: ahead of all that is read.
fn begin(journal: Option<&SourceJournal>, words: &Words) {
    let Some(journal) = journal else { return };
    match journal.log.cut() {
        Ok(read_from) => {
            let state = words.identity().to_le_bytes().to_vec();
            (journal.begin)(SourceCut { state, read_from, settled: words.settled() });
        }
        Err(error) => tracing::warn!("The journal can't be written: {}", error.in_full()),
    }
}

/// Takes programs off that count in maps of this shape, takes all out that they hold, and their names away.
fn drain(
    pins: &Arc<Pins>,
    words: &Arc<Words>,
    shape: &Shape,
    (log, carried): (Option<Log>, Option<&Carried>),
) -> Result<Drained, EbpfError> {
    pins.linked().into_iter().for_each(|index| pins.forget_links(index));
    take_filters_off()?;
    let mut object = Object::load(shape.ring_bytes, shape.mode, None, Some(Arc::clone(pins)))?;
    let ring = Ring::new(object.map("RING")?, object.ring_bytes)?;
    let mapped = Mapped::new(&object)?;
    let grace = Grace::new().map_err(no_grace)?;
    // Of programs that are off nobody waits for a sign.
    let pulse = Pulse::new(&mut object, &mapped, Duration::MAX)?;
    let slots = match shape.mode {
        Mode::Packet => None,
        Mode::Slots { .. } | Mode::Hash => Some(Slots::new(&object, shape.hash_flows)?),
    };
    let closer = Closer::new(mapped, grace, pulse, slots, ring.produced());
    let forgotten = Some(carried.map_or_else(Vec::new, |carried| forgotten(carried, words, ring.position())));
    log.iter().for_each(|log| log.goes_on(ring.position()));
    let (mut closer, mut books) = closer.go_on(Arc::clone(words), log.clone()).map_err(no_grace)?;
    // A run of a program that was just being taken off may have come into the next epoch.
    books.push(closer.close(&Request::Flip).map_err(no_grace)?);
    let mut events = Vec::new();
    if let Some(last) = books.last() {
        let waiting = waiting(&ring, last.up_to);
        if let Some(log) = &log {
            // It goes with the ring.
            log.ring(last.up_to, [&waiting, &[]]);
        }
        events.extend(waiting.into_iter().map(|event| by_boot(event, last)));
    }
    for book in &mut books {
        let deltas = std::mem::take(&mut book.deltas);
        events.extend(deltas.into_iter().map(|event| by_boot(event, book)));
    }
    events.sort_by_key(|event| event.first);
    pins.clear_maps(WORDS);
    Ok(Drained { books, events, has_our_rules: false, forgotten })
}

/// Takes the filters of earlier runs off all interfaces: they would go on counting in maps without a name.
pub(super) fn take_filters_off() -> Result<(), EbpfError> {
    let failed = |source| EbpfError::Kernel { what: "the filters of an earlier run", source };
    let mut filters = Filters::new().map_err(failed)?;
    for device in discover().map_err(failed)? {
        filters.clear_leftovers(device.index);
    }
    Ok(())
}

/// Events in the ring that nobody has read, up to a position that is known to be written.
fn waiting(ring: &Ring, up_to: u64) -> Vec<Event> {
    let mut events = Vec::new();
    ring.look(size_of::<Event>(), up_to, |record| {
        events.extend(Event::read_from_prefix(record).ok().map(|(event, _)| event));
    });
    events
}

/// When it was first seen, since boot.
fn time(event: &Event, book: &Book) -> u64 {
    match book.ticks {
        Some(ticks) if event.flags & EVENT_TICKS != 0 => ticks.first(event.first),
        _ => event.first,
    }
}

/// The event with its times since boot.
fn by_boot(mut event: Event, book: &Book) -> Event {
    if let Some(ticks) = book.ticks.filter(|_| event.flags & EVENT_TICKS != 0) {
        event.first = ticks.first(event.first);
        event.last = event.first.max(ticks.time(event.last as u32));
        event.flags &= !EVENT_TICKS;
    }
    event
}

fn refused(source: io::Error) -> EbpfError {
    EbpfError::Kernel { what: "a name for what outlasts the process", source }
}

fn no_grace(source: io::Error) -> EbpfError {
    EbpfError::Kernel { what: "the end of an epoch", source }
}
