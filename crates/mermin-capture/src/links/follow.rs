//! The thread that keeps a source on the interfaces that are wanted.

use super::taps::{NotPut, Put, Taps};
use super::view::Links;
use super::watch::{Change, Heard, Listed, RECEIVE_BYTES, Watch};
use crate::interfaces::{Device, Interface, Selection};
use mermin_flow::ObservationPoints;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, mem, thread};

/// Between two looks at what others have done to the taps; also after an error of the socket.
const ROUND: Duration = Duration::from_secs(2);
/// An interface that has refused is asked again after that: what it lacked (memory, descriptors) may be there then.
pub(crate) const AGAIN: Duration = Duration::from_secs(60);

/// Which links are followed.
#[derive(Clone, Debug)]
pub struct Follow {
    selection: Selection,
    pub(crate) receive_bytes: usize,
}

impl Follow {
    /// Those that are wanted.
    #[must_use]
    pub const fn new(selection: Selection) -> Self {
        Self { selection, receive_bytes: RECEIVE_BYTES }
    }
}

/// A source that is on interfaces.
pub(crate) struct Following<E> {
    /// The view, and the way to end it.
    pub(crate) links: Arc<Links>,
    /// Interfaces of the start that are not captured on.
    pub(crate) skipped: Vec<(Arc<str>, Option<E>)>,
}

/// Puts `taps` on `interfaces`, then starts the thread that follows links as soon as the reader has begun. Without any to
/// follow the thread only takes them off in the end.
pub(crate) fn follow<T: Taps>(
    taps: T,
    interfaces: &[Interface],
    points: &Arc<ObservationPoints>,
    follow: Option<Follow>,
) -> io::Result<Following<T::Error>> {
    let links = Arc::new(Links::new()?);
    // Before the list that the thread begins with: nothing falls between.
    let watch =
        follow.map(|follow| Ok::<_, io::Error>((Watch::open(follow.receive_bytes)?, follow.selection)));
    let watch = watch.transpose()?;
    let mut put = Put::new(taps, Arc::clone(points), Arc::clone(&links));
    super::list()?.iter().for_each(|device| put.layers.is(device));
    put.settle_layers();
    let mut skipped = Vec::new();
    let mut refused = BTreeMap::new();
    for interface in interfaces {
        match put.put(interface.clone()) {
            Ok(_) => {}
            Err(NotPut::Gone(error)) => skipped.push((Arc::clone(&interface.name), Some(error))),
            Err(NotPut::Refused(error)) => {
                refused.insert(interface.index, Instant::now());
                skipped.push((Arc::clone(&interface.name), Some(error)));
            }
            Err(NotPut::NoNumber) => skipped.push((Arc::clone(&interface.name), None)),
        }
    }
    put.begin();
    // The first line says so then.
    let alone = put.is_empty();
    let thread = thread::Builder::new().name("mermin-links".to_owned()).spawn(move || match watch {
        Some((watch, selection)) => {
            Follower { refused, alone, ..Follower::new(watch, selection, put) }.run();
        }
        None => {
            let mut put = put;
            put.links.wait_for_stop();
            put.take_off_all();
        }
    })?;
    links.run_by(thread);
    Ok(Following { links, skipped })
}

pub(super) struct Follower<T: Taps> {
    watch: Watch,
    selection: Selection,
    pub(super) put: Put<T>,
    /// Interfaces that have refused, and when.
    pub(super) refused: BTreeMap<u32, Instant>,
    /// Up and wanted, by the order in which they came.
    waiting: BTreeMap<u64, Device>,
    arrivals: u64,
    /// Where filters were taken off since the last round.
    unfiltered: BTreeSet<u32>,
    /// The last list may lack links: the next round asks for another one.
    has_gaps: bool,
    /// It was said that there is no interface.
    alone: bool,
}

impl<T: Taps> Follower<T> {
    pub(super) const fn new(watch: Watch, selection: Selection, put: Put<T>) -> Self {
        Self {
            watch,
            selection,
            put,
            refused: BTreeMap::new(),
            waiting: BTreeMap::new(),
            arrivals: 0,
            unfiltered: BTreeSet::new(),
            has_gaps: false,
            alone: false,
        }
    }

    fn run(mut self) {
        self.put.links.wait_for_begin();
        let mut looked = Instant::now();
        let mut resync = true;
        while !self.put.links.is_stopping() {
            if let Some(selection) = self.put.links.newly_wanted() {
                self.selection = selection;
                // Of what was not wanted before nothing is known but from a list.
                resync = true;
            }
            if let Err(error) = self.look(resync) {
                tracing::warn!(%error, "the kernel does not tell of links; asking again");
                resync = true;
                self.pause(ROUND);
                continue;
            }
            resync = false;
            if looked.elapsed() >= ROUND {
                looked = Instant::now();
                resync = self.mend().is_err() || self.has_gaps || self.ask_again();
            }
            match self.waiting.pop_first() {
                Some((_, device)) => self.attach(&device),
                None => {
                    self.say_when_alone();
                    self.watch.wait(self.put.links.wake(), ROUND.saturating_sub(looked.elapsed()));
                    self.put.links.woken();
                }
            }
        }
        self.put.take_off_all();
    }

    /// Makes good what others have done to taps. Not at once: who takes a discipline off to make it anew would find one
    /// there.
    pub(super) fn mend(&mut self) -> io::Result<()> {
        let disturbed = self.put.disturbed(&mem::take(&mut self.unfiltered));
        if disturbed.is_empty() {
            return Ok(());
        }
        // A tap may be off because its interface has gone: then that was said before.
        self.look(false)?;
        for index in disturbed {
            if let Err((name, NotPut::Refused(error))) = self.put.renew(index) {
                self.refused(&name, index, &crate::links::in_full(&error));
            }
        }
        Ok(())
    }

    /// Whether there are interfaces that refused long ago: a list of all brings them up again.
    fn ask_again(&self) -> bool {
        self.refused.values().any(|since| since.elapsed() >= AGAIN)
    }

    fn pause(&self, at_most: Duration) {
        let began = Instant::now();
        while !self.put.links.is_stopping() && began.elapsed() < at_most {
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Brings itself up to date, from what was heard or, with `resync` or after a loss, from a list.
    fn look(&mut self, resync: bool) -> io::Result<()> {
        let mut changes = Vec::new();
        let heard = self.watch.hear(|change| changes.push(change))?;
        if heard == Heard::Lost {
            self.put.links.view().counts.resyncs += 1;
            tracing::debug!("the kernel dropped messages about links: listing all");
        }
        let done = if resync || heard == Heard::Lost {
            self.watch.list().and_then(|listed| self.compare(listed))
        } else {
            changes.into_iter().try_for_each(|change| self.take(change))
        };
        self.put.settle_layers();
        done
    }

    /// Compares with a list of all links. One with gaps says of none that it has gone.
    pub(super) fn compare(&mut self, listed: Listed) -> io::Result<()> {
        let Listed { mut devices, has_gaps } = listed;
        let there: BTreeSet<u32> = devices.iter().map(|device| device.index).collect();
        for index in self.put.indexes() {
            let is_listed = there.contains(&index);
            let unlisted = if is_listed { None } else { self.watch.ask(index)? };
            // Its index may be another link's by now.
            if !is_listed && unlisted.is_none() || !self.put.is_really_on(index) {
                self.put.take_off(index, true);
            }
            devices.extend(unlisted);
        }
        if !has_gaps {
            self.put.layers.retain(&there);
            self.refused.retain(|index, _| there.contains(index));
            self.waiting.retain(|_, device| there.contains(&device.index));
        }
        self.has_gaps = has_gaps;
        devices.into_iter().for_each(|device| self.is(device));
        Ok(())
    }

    fn take(&mut self, change: Change) -> io::Result<()> {
        match change {
            Change::Is(device) => self.is(device),
            Change::Unfiltered(index) => drop(self.unfiltered.insert(index)),
            Change::Gone(index) => {
                self.waiting.retain(|_, device| device.index != index);
                self.refused.remove(&index);
                self.put.layers.has_gone(index);
                if self.put.is_on(index) {
                    // The message may be older than a list that was taken since.
                    let now = self.watch.ask(index)?;
                    if now.is_none() || !self.put.is_really_on(index) {
                        self.put.take_off(index, true);
                    }
                    now.into_iter().for_each(|device| self.is(device));
                }
            }
        }
        Ok(())
    }

    fn is(&mut self, device: Device) {
        self.put.layers.is(&device);
        let wanted = device.link.is_some() && self.selection.wants(&device.name);
        let index = device.index;
        if self.put.is_on(index) {
            if wanted {
                self.put.note(&device);
            } else {
                tracing::debug!(interface = &*device.name, index, "no longer wanted by this name");
                self.put.take_off(index, false);
            }
            return;
        }
        if !wanted || !device.up {
            self.refused.remove(&index);
        }
        let waits = self.waiting.iter().find(|(_, waiting)| waiting.index == index).map(|(at, _)| *at);
        if !wanted || !device.up || self.refused.get(&index).is_some_and(|since| since.elapsed() < AGAIN) {
            waits.and_then(|at| self.waiting.remove(&at));
            return;
        }
        let at = waits.unwrap_or_else(|| {
            self.arrivals += 1;
            self.arrivals
        });
        self.waiting.insert(at, device);
    }

    fn attach(&mut self, device: &Device) {
        let Some(link) = device.link else { return };
        let (name, index) = (Arc::clone(&device.name), device.index);
        match self.put.put(Interface { name: Arc::clone(&name), index, link, up: device.up }) {
            Ok(technology) => {
                tracing::debug!(interface = &*name, index, by = technology.name(), "captures");
                self.refused.remove(&index);
                self.alone = false;
            }
            // It will be heard of, too.
            Err(NotPut::Gone(_)) => {}
            Err(NotPut::Refused(error)) => self.refused(&name, index, &crate::links::in_full(&error)),
            Err(NotPut::NoNumber) => self.refused(&name, index, "there are 32 767 interfaces already"),
        }
    }

    /// Said once of an interface, however often it is asked.
    fn refused(&mut self, name: &str, index: u32, why: &str) {
        if self.refused.insert(index, Instant::now()).is_none() {
            tracing::warn!("{name} is not captured on: {why}");
        }
    }

    fn say_when_alone(&mut self) {
        if self.put.is_empty() && !self.alone {
            self.alone = true;
            tracing::warn!("There is no interface to capture on now; waiting for one that fits");
        }
    }
}
