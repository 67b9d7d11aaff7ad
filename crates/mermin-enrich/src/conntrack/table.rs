//! Translated connections and when there were.
//!
//! A tuple is used again: by a client that runs out of ports, by a load balancer that gives the next connection another
//! backend. So a tuple may have had several connections, each with a span of life, and a record belongs to the one that
//! lived when its packets came. Nobody tells when exactly a connection began or ended: the kernel's messages bear no
//! time. They were made since the queue of them was last found empty, so a span has two edges at each end. Where several
//! connections may be meant that say different things, none is said.
//!
//! Bounds: so many connections in all, and [`TUPLE_MAX`] with one tuple.

use crate::clock::Time;
use crate::conntrack::message::{Connection, End};
use hashbrown::HashTable;
use mermin_flow::{FlowKey, HashSecret, NatStage};
use std::collections::VecDeque;

/// Connections that are remembered of one tuple; beyond it the one that ended first is forgotten. Whoever looks one up
/// goes through all.
const TUPLE_MAX: usize = 64;
/// Ended connections that are forgotten at once, at the most: readers wait meanwhile.
const EXPIRE_MAX: usize = 1_024;

/// Where the list of ended connections is first looked through for those that are no more.
const ENDED_MAX: usize = 1_024;

/// From when to when something can have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) from: Time,
    pub(crate) until: Time,
}

/// From a connection's first possible packet to its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    began: Window,
    /// The last time at which a record of it may begin is the later edge. [`Time::MAX`] while it lives.
    ended: Window,
}

impl Span {
    const ALIVE: Window = Window { from: Time::MAX, until: Time::MAX };

    fn is_possible(&self, packets: Window) -> bool {
        self.began.from <= packets.until && packets.from <= self.ended.until
    }
}

#[derive(Clone, Debug)]
struct Slot {
    connection: Connection,
    span: Span,
    /// When it was last known to live.
    seen: Time,
    /// That it has ended is known from its absence only.
    is_swept: bool,
    /// Of this place: another one for each connection that has it.
    generation: u32,
}

impl Slot {
    const fn is_alive(&self) -> bool {
        self.span.ended.until == Time::MAX
    }
}

/// A connection's other tuple, in the order of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Other {
    pub(crate) stage: NatStage,
    pub(crate) ends: [End; 2],
}

/// What is known of a tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing: not translated, as far as is known.
    Nothing,
    One(Other),
    /// Different ones.
    Several,
}

impl Found {
    fn and(self, other: Other) -> Self {
        match self {
            Self::Nothing => Self::One(other),
            Self::One(known) if known == other => self,
            Self::One(_) | Self::Several => Self::Several,
        }
    }
}

/// What was given up at the bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GivenUp {
    /// Connections that were not taken.
    pub(crate) refused: u64,
    /// Ended ones that records may still have asked for.
    pub(crate) forgotten: u64,
}

/// All translated connections that are known.
pub(crate) struct Table {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    generation: u32,
    /// Each connection is there twice: under its tuple before translation (twice its slot), and the one behind it (one more).
    index: HashTable<u32>,
    secret: HashSecret,
    /// Slots and their generations, in the order of their ends.
    ended: VecDeque<(u32, u32)>,
    max: usize,
    given_up: GivenUp,
}

impl Table {
    /// For so many connections. `random`: what the index is keyed with, for tuples are chosen by others.
    pub(crate) fn new(max: usize, random: u64) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            generation: 0,
            index: HashTable::new(),
            secret: HashSecret::new(random),
            ended: VecDeque::new(),
            max,
            given_up: GivenUp::default(),
        }
    }

    /// How many connections are remembered.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) const fn given_up(&self) -> GivenUp {
        self.given_up
    }

    /// A connection is new; the message of it was made in `at`.
    pub(crate) fn begin(&mut self, connection: Connection, at: Window) {
        // One and the same, if its message came behind a look at all.
        if self.alive(&connection).is_some() {
            return;
        }
        // No two connections of a zone have a tuple at once: that one's end got lost.
        if let Some(before) = self.with_tuple(&connection) {
            let from = self.slots[before].as_ref().map_or(at.from, |slot| slot.seen).min(at.until);
            self.close(before, Window { from, until: at.until }, false);
        }
        self.insert(connection, Span { began: at, ended: Span::ALIVE }, at.until);
    }

    /// A look at all has found a connection; one that was not known has begun in `since`.
    pub(crate) fn found(&mut self, connection: Connection, since: Window, now: Time) {
        let known = self.alive(&connection).or_else(|| self.swept(&connection));
        match known.and_then(|place| self.slots[place].as_mut()) {
            Some(slot) => {
                (slot.seen, slot.is_swept, slot.span.ended) = (now, false, Span::ALIVE);
            }
            None => self.insert(connection, Span { began: since, ended: Span::ALIVE }, now),
        }
    }

    /// A connection has ended in `at`; one that was not known had begun in `since`.
    pub(crate) fn end(&mut self, connection: Connection, since: Window, at: Window) {
        if self.alive(&connection).is_none() {
            self.insert(connection, Span { began: since, ended: Span::ALIVE }, at.from);
        }
        if let Some(place) = self.alive(&connection) {
            // A record begins with its flow, or long before its last packet. So one that begins when this may have been
            // over already is of what has the tuple next, translated or not; but for a connection that hardly lived.
            let began = self.slots[place].as_ref().map_or(0, |slot| slot.span.began.until);
            self.close(place, Window { from: at.from, until: at.from.max(began) }, false);
        }
    }

    /// Of `count` places from `first` on: connections that a look at all, begun at `look`, has not found have ended by
    /// `now`. Whether there are more places.
    pub(crate) fn sweep(&mut self, first: usize, count: usize, look: Time, now: Time) -> bool {
        let end = self.slots.len().min(first.saturating_add(count));
        for place in first..end {
            match &self.slots[place] {
                Some(slot) if slot.is_alive() && slot.seen < look => {
                    self.close(place, Window { from: slot.seen, until: now }, true);
                }
                _ => {}
            }
        }
        end < self.slots.len()
    }

    /// Forgets what ended before `time`.
    pub(crate) fn expire(&mut self, time: Time) {
        for _ in 0..EXPIRE_MAX {
            let Some((place, generation)) = self.ended.front().copied() else { return };
            match &self.slots[place as usize] {
                Some(slot) if slot.generation == generation && !slot.is_alive() => {
                    if slot.span.ended.until >= time {
                        return;
                    }
                    self.remove(place as usize);
                }
                // Forgotten already, or found again.
                _ => {}
            }
            self.ended.pop_front();
        }
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.free.clear();
        self.index.clear();
        self.ended.clear();
    }

    /// What the ends of a record are called in its other tuple, if its packets came in `packets`.
    pub(crate) fn find(&self, protocol: u8, ends: [End; 2], packets: Window) -> Found {
        let mut found = Found::Nothing;
        let key = FlowKey::between(protocol, ends);
        for entry in self.index.iter_hash(self.hash(&key)) {
            let Some(slot) = &self.slots[(entry >> 1) as usize] else { continue };
            let Connection { before, behind, .. } = slot.connection;
            let (own, other, stage) = match entry & 1 {
                0 => (before, behind, NatStage::Before),
                _ => (behind, before, NatStage::Behind),
            };
            let ends = match own {
                _ if slot.connection.protocol != protocol => continue,
                _ if own == ends => other,
                [a, b] if [b, a] == ends => [other[1], other[0]],
                _ => continue,
            };
            let other = Other { stage, ends };
            if slot.span.is_possible(packets) {
                found = found.and(other);
            }
        }
        found
    }

    fn hash(&self, key: &FlowKey) -> u64 {
        hash(&self.secret, key)
    }

    /// Places of the connections that have one of its tuples, with a repetition where they have both.
    fn neighbours(&self, connection: &Connection, side: usize) -> impl Iterator<Item = (usize, &Slot)> {
        let key = keys(connection)[side];
        self.index.iter_hash(self.hash(&key)).filter_map(move |entry| {
            let place = (entry >> 1) as usize;
            let slot = self.slots[place].as_ref()?;
            (keys(&slot.connection)[(entry & 1) as usize] == key).then_some((place, slot))
        })
    }

    fn alive(&self, connection: &Connection) -> Option<usize> {
        let mut all = self.neighbours(connection, 0);
        all.find(|(_, slot)| slot.is_alive() && slot.connection == *connection).map(|(place, _)| place)
    }

    fn swept(&self, connection: &Connection) -> Option<usize> {
        let mut all = self.neighbours(connection, 0);
        all.find(|(_, slot)| slot.is_swept && slot.connection == *connection).map(|(place, _)| place)
    }

    /// A living connection that this one can't be beside.
    fn with_tuple(&self, connection: &Connection) -> Option<usize> {
        let mut all = self.neighbours(connection, 0);
        let is = |slot: &Slot| {
            slot.is_alive()
                && slot.connection.zone == connection.zone
                && slot.connection.before == connection.before
        };
        all.find(|(_, slot)| is(slot)).map(|(place, _)| place)
    }

    fn close(&mut self, place: usize, at: Window, is_swept: bool) {
        let Some(slot) = &mut self.slots[place] else { return };
        (slot.span.ended, slot.is_swept) = (at, is_swept);
        self.ended.push_back((place as u32, slot.generation));
        // Those that were forgotten out of their turn, or found again, are still among them.
        if self.ended.len() > ENDED_MAX.max(2 * self.max) {
            let slots = &self.slots;
            self.ended.retain(|(place, generation)| {
                let slot = slots[*place as usize].as_ref();
                slot.is_some_and(|slot| slot.generation == *generation && !slot.is_alive())
            });
        }
    }

    fn insert(&mut self, connection: Connection, span: Span, seen: Time) {
        for side in [0, 1] {
            if self.neighbours(&connection, side).count() < TUPLE_MAX {
                continue;
            }
            let ended = self.neighbours(&connection, side).filter(|(_, slot)| !slot.is_alive());
            let first = ended.min_by_key(|(_, slot)| slot.span.ended.until).map(|(place, _)| place);
            if !self.forget(first) {
                return;
            }
        }
        if self.len() >= self.max {
            let first = self.first_ended();
            if !self.forget(first) {
                return;
            }
        }
        self.generation = self.generation.wrapping_add(1);
        let slot = Slot { connection, span, seen, is_swept: false, generation: self.generation };
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.slots.push(None);
                (self.slots.len() - 1) as u32
            }
        };
        self.slots[place as usize] = Some(slot);
        for (side, key) in (0..).zip(keys(&connection)) {
            let hash = self.hash(&key);
            let (slots, secret) = (&self.slots, &self.secret);
            let again = |entry: &u32| {
                let slot = slots[(entry >> 1) as usize].as_ref();
                slot.map_or(0, |slot| self::hash(secret, &keys(&slot.connection)[(entry & 1) as usize]))
            };
            self.index.insert_unique(hash, place << 1 | side, again);
        }
    }

    /// Makes room; without anything to forget the new one is refused.
    fn forget(&mut self, place: Option<usize>) -> bool {
        match place {
            Some(place) => {
                self.given_up.forgotten += 1;
                self.remove(place);
            }
            None => self.given_up.refused += 1,
        }
        place.is_some()
    }

    fn first_ended(&mut self) -> Option<usize> {
        while let Some((place, generation)) = self.ended.pop_front() {
            match &self.slots[place as usize] {
                Some(slot) if slot.generation == generation && !slot.is_alive() => {
                    return Some(place as usize);
                }
                _ => {}
            }
        }
        None
    }

    fn remove(&mut self, place: usize) {
        let Some(slot) = &self.slots[place] else { return };
        for (side, key) in (0_u32..).zip(keys(&slot.connection)) {
            let entry = (place as u32) << 1 | side;
            if let Ok(found) = self.index.find_entry(self.hash(&key), |known| *known == entry) {
                found.remove();
            }
        }
        self.slots[place] = None;
        self.free.push(place as u32);
    }
}

fn keys(connection: &Connection) -> [FlowKey; 2] {
    [connection.before, connection.behind].map(|ends| FlowKey::between(connection.protocol, ends))
}

fn hash(secret: &HashSecret, key: &FlowKey) -> u64 {
    // The index takes places from the lower bits and tells neighbours apart by the upper ones.
    u64::from(key.hash(secret)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests;
