//! The thread that follows the kernel's table: events as they come, and a look at all connections once a minute.
//!
//! Events alone don't do: there are none of connections from before the subscription (in the kernel's default mode, since
//! 5.19, not even of their end), and some get lost when more come than are read. Looks alone don't do either: most
//! connections live for less than a minute. First the subscription, then the first look: nothing falls between.

use crate::clock::{Clock, Time};
use crate::conntrack::ConntrackError;
use crate::conntrack::message::{Told, read};
use crate::conntrack::shared::Shared;
use crate::conntrack::socket::{DATAGRAM, Heard, Look, hear, messages, subscribe};
use crate::conntrack::status::add;
use crate::conntrack::table::Window;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Weak;
use std::time::Duration;

const SECOND: Time = 1_000_000_000;
/// How often all connections are looked at, and how often at most where events were lost.
const LOOK_EVERY: Time = 60 * SECOND;
const LOOK_AGAIN: Time = 2 * SECOND;
/// A packet is captured before netfilter sees it and ends or begins a connection, and where the kernel sums packets up, it is timed by
/// the tick before: 10 ms ago with HZ=100.
const AHEAD: Time = 10_000_000;
/// Events that are written into the table at once: readers wait meanwhile.
const TOGETHER: usize = 64;
/// Such batches before a look at anything else.
const BATCHES: usize = 256;
/// Events that wait here while an answer comes in; more wait in the kernel.
const PENDING_MAX: usize = 65_536;
/// Places of the table that are swept at once.
const SWEPT: usize = 4_096;

/// What the thread has.
pub(super) struct Follower {
    events: OwnedFd,
    clock: Clock,
    buffer: Vec<u8>,
    /// Heard and not in the table yet, with the times at which they may have been made.
    pending: Vec<(Told, Window)>,
    /// When the queue of events was last found empty.
    drained: Time,
    /// Connections that are not known have begun since then: since ever, or since events were lost.
    blind_since: Time,
    overrun: bool,
    looked: Time,
}

impl Follower {
    /// Subscribes and looks at all there is.
    pub(super) fn start(clock: Clock, shared: &Shared) -> Result<Self, ConntrackError> {
        let events = subscribe()?;
        let now = clock.now();
        let mut follower = Self {
            events,
            clock,
            buffer: vec![0; DATAGRAM],
            pending: Vec::new(),
            drained: now,
            blind_since: 0,
            overrun: false,
            looked: 0,
        };
        follower.look(shared)?;
        Ok(follower)
    }

    /// Goes on as long as somebody has `shared`.
    pub(super) fn run(mut self, shared: &Weak<Shared>) {
        loop {
            let heard = hear(&self.events, &mut self.buffer, true);
            let Some(shared) = shared.upgrade() else { return };
            if let Err(error) = self.turn(&shared, heard) {
                shared.give_up();
                tracing::warn!("Translated addresses are not known any more: {error}");
                return;
            }
        }
    }

    fn turn(&mut self, shared: &Shared, heard: io::Result<Heard>) -> io::Result<()> {
        shared.busy_since(self.drained);
        self.take(shared, heard?);
        let mut is_empty = false;
        for _ in 0..BATCHES {
            is_empty = self.drain(shared)?;
            self.write(shared);
            if is_empty {
                break;
            }
        }
        let now = self.clock.now();
        let since = now.saturating_sub(self.looked);
        if since >= LOOK_EVERY || self.overrun && since >= LOOK_AGAIN {
            // Events go on. What they say of unknown connections stays as vague until a look succeeds.
            if let Err(error) = self.look(shared) {
                tracing::warn!("All translated connections can't be looked at just now: {error}");
            }
        }
        if is_empty {
            shared.idle();
        }
        Ok(())
    }

    /// Reads events until there are none, or some are to be written first. Whether there are none.
    fn drain(&mut self, shared: &Shared) -> io::Result<bool> {
        while self.pending.len() < TOGETHER {
            if !self.hear_one(shared)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// `false`: there was nothing.
    fn hear_one(&mut self, shared: &Shared) -> io::Result<bool> {
        let before = self.clock.now();
        let heard = hear(&self.events, &mut self.buffer, false)?;
        if heard == Heard::Nothing {
            self.drained = before;
            return Ok(false);
        }
        self.take(shared, heard);
        Ok(true)
    }

    fn take(&mut self, shared: &Shared, heard: Heard) {
        let now = self.clock.now();
        match heard {
            Heard::Nothing => {}
            Heard::Overrun => {
                add(&shared.status.overruns, 1);
                // What is not known has begun since the last look without loss.
                if !self.overrun {
                    (self.overrun, self.blind_since) = (true, self.drained);
                }
            }
            Heard::Datagram(length) => {
                // Made since the queue was empty, however long the thread waited for a processor.
                let at = Window { from: self.drained.saturating_sub(AHEAD), until: now };
                let mut events = 0;
                for message in messages(&self.buffer[..length]) {
                    events += 1;
                    self.pending.extend(read(message.kind, message.body).map(|told| (told, at)));
                }
                add(&shared.status.events, events);
            }
        }
    }

    /// Writes what was heard into the table.
    fn write(&mut self, shared: &Shared) {
        let since = |at: Window| Window {
            from: self.blind_since,
            until: if self.blind_since == 0 { 0 } else { self.blind_since.max(at.from) },
        };
        let forget = self.clock.now().saturating_sub(shared.retention());
        shared.with_table(|table| table.expire(forget));
        for some in self.pending.chunks(TOGETHER) {
            shared.with_table(|table| {
                table.expire(forget);
                for (told, at) in some {
                    match told {
                        Told::Is(connection) => table.begin(*connection, *at),
                        Told::Ended(connection) => table.end(*connection, since(*at), *at),
                    }
                }
            });
        }
        self.pending.clear();
    }

    /// Looks at all connections. Events that come meanwhile wait: they say more than an answer that was made before them.
    fn look(&mut self, shared: &Shared) -> Result<(), ConntrackError> {
        let begun = self.clock.now();
        let since = Window { from: self.blind_since, until: if self.blind_since == 0 { 0 } else { begun } };
        (self.looked, self.overrun) = (begun, false);
        add(&shared.status.looks, 1);
        let (mut look, mut found) = (Look::begin()?, Vec::new());
        let mut buffer = vec![0; DATAGRAM];
        while look.next(&mut buffer, |kind, body| {
            if let Some(Told::Is(connection)) = read(kind, body) {
                found.push(connection);
            }
        })? {
            let now = self.clock.now();
            shared.with_table(|table| {
                found.drain(..).for_each(|connection| table.found(connection, since, now));
            });
            while self.pending.len() < PENDING_MAX && self.hear_one(shared)? {}
        }
        self.write(shared);
        if look.is_whole {
            let (mut first, now) = (0, self.clock.now());
            while shared.with_table(|table| table.sweep(first, SWEPT, begun, now)) {
                first += SWEPT;
            }
            if !self.overrun {
                // From here on all is known.
                self.blind_since = begun;
            }
        }
        Ok(())
    }
}

/// How long a record may wait for the event of its connection's begin.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);
