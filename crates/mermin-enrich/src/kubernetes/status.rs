//! How the watches are, for readiness, metrics and `mermin status`. Written by the `kubernetes` thread, read by others.

use crate::clock::Clock;
use crate::kubernetes::object::{Kind, Time};
use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What a kind's watch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum WatchState {
    /// Left out by the configuration.
    Off,
    /// The first list is on its way: nothing of the kind is known for sure.
    Listing,
    /// All is known up to the time it was last heard of.
    Watching,
    /// The API server is gone or doesn't answer: what was known stays.
    Degraded,
    /// A right is missing.
    Forbidden,
}

impl WatchState {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Off, Self::Listing, Self::Watching, Self::Degraded, Self::Forbidden];

    /// As metrics and `mermin status` write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Listing => "listing",
            Self::Watching => "watching",
            Self::Degraded => "degraded",
            Self::Forbidden => "forbidden",
        }
    }
}

/// All watches together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WatchesState {
    /// Not every kind has been listed yet.
    Starting,
    /// Every kind is watched.
    Ready,
    /// Every kind was listed once, or has no right to be; at least one isn't watched now.
    Degraded,
}

/// How the watches are.
#[derive(Debug)]
pub struct KubernetesStatus {
    clock: Clock,
    server: Box<str>,
    kinds: [KindStatus; Kind::ALL.len()],
}

/// How one kind's watch is. Counts are since start.
#[derive(Debug)]
pub struct KindStatus {
    state: AtomicU8,
    /// When it came into this state.
    since: AtomicU64,
    /// When all that lies before it was known; 0: never.
    heard: AtomicU64,
    pub(crate) objects: AtomicU64,
    pub(crate) events: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) lists: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) unreadable: AtomicU64,
    failure: ArcSwapOption<String>,
}

/// A reading of a [`KindStatus`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindReading {
    /// Which kind.
    pub kind: Kind,
    /// What its watch does.
    pub state: WatchState,
    /// Since when, ns since 1970.
    pub since: u64,
    /// The time up to which all is known, ns since 1970; 0: never.
    pub heard: u64,
    /// Objects that exist, as far as is known.
    pub objects: u64,
    /// Objects received: listed, made, changed or deleted.
    pub events: u64,
    /// Bytes received, as JSON.
    pub bytes: u64,
    /// Lists begun: 1 at start, and each time a watch couldn't go on where it was.
    pub lists: u64,
    /// Requests and watches that failed.
    pub errors: u64,
    /// Objects that could not be read, and so are missing.
    pub unreadable: u64,
    /// The last failure, while it lasts.
    pub failure: Option<Arc<String>>,
}

impl KubernetesStatus {
    pub(crate) fn new(server: &str, watched: impl Fn(Kind) -> bool, (clock, now): (Clock, Time)) -> Self {
        let kind = |kind| {
            let state = if watched(kind) { WatchState::Listing } else { WatchState::Off };
            KindStatus {
                state: AtomicU8::new(state as u8),
                since: AtomicU64::new(now),
                heard: AtomicU64::new(0),
                objects: AtomicU64::new(0),
                events: AtomicU64::new(0),
                bytes: AtomicU64::new(0),
                lists: AtomicU64::new(0),
                errors: AtomicU64::new(0),
                unreadable: AtomicU64::new(0),
                failure: ArcSwapOption::empty(),
            }
        };
        Self { server: server.into(), clock, kinds: Kind::ALL.map(kind) }
    }

    /// The present on the clock of the readings.
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.clock.now())
    }

    /// The API server's address.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    pub(crate) fn kind(&self, kind: Kind) -> &KindStatus {
        &self.kinds[kind as usize]
    }

    /// All kinds, also those that are off, in the order of [`Kind::ALL`].
    pub fn readings(&self) -> impl Iterator<Item = KindReading> {
        Kind::ALL.into_iter().zip(&self.kinds).map(|(kind, status)| status.read(kind))
    }

    /// How they are together.
    #[must_use]
    pub fn state(&self) -> WatchesState {
        let on = || self.kinds.iter().filter(|kind| kind.state() != WatchState::Off);
        // A kind without a right never gets further.
        if on().any(|kind| kind.heard.load(Relaxed) == 0 && kind.state() != WatchState::Forbidden) {
            WatchesState::Starting
        } else if on().all(|kind| kind.state() == WatchState::Watching) {
            WatchesState::Ready
        } else {
            WatchesState::Degraded
        }
    }

    /// Since when at least one kind isn't watched, ns since 1970; `None` when all are.
    #[must_use]
    pub fn degraded_since(&self) -> Option<u64> {
        let ill =
            self.kinds.iter().filter(|kind| !matches!(kind.state(), WatchState::Off | WatchState::Watching));
        ill.map(|kind| kind.since.load(Relaxed)).min()
    }
}

impl KindStatus {
    pub(crate) fn state(&self) -> WatchState {
        let state = usize::from(self.state.load(Relaxed));
        *WatchState::ALL.get(state).expect("only states are stored")
    }

    /// Changes the state; staying in it is no change.
    pub(crate) fn set(&self, state: WatchState, now: Time) {
        if self.state() != state {
            self.since.store(now, Relaxed);
            self.state.store(state as u8, Relaxed);
        }
    }

    /// All up to `time` is known.
    pub(crate) fn heard(&self, time: Time) {
        self.heard.store(time, Relaxed);
    }

    /// The last failure, while it lasts.
    pub(crate) fn fail(&self, failure: Option<String>) {
        self.failure.store(failure.map(Arc::new));
    }

    fn read(&self, kind: Kind) -> KindReading {
        KindReading {
            kind,
            state: self.state(),
            since: self.since.load(Relaxed),
            heard: self.heard.load(Relaxed),
            objects: self.objects.load(Relaxed),
            events: self.events.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            lists: self.lists.load(Relaxed),
            errors: self.errors.load(Relaxed),
            unreadable: self.unreadable.load(Relaxed),
            failure: self.failure.load_full(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_stored_by_their_place() {
        for (place, state) in WatchState::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, place);
        }
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
        }
    }

    #[test]
    fn ready_means_that_every_kind_is_watched() {
        let status = KubernetesStatus::new("https://192.0.2.1", |kind| kind != Kind::Job, (Clock::new(), 7));
        assert_eq!((status.state(), status.degraded_since()), (WatchesState::Starting, Some(7)));
        let on = || Kind::ALL.into_iter().filter(|kind| *kind != Kind::Job).map(|kind| status.kind(kind));
        for kind in on().skip(1) {
            kind.heard(8);
            kind.set(WatchState::Watching, 8);
        }
        assert_eq!(status.state(), WatchesState::Starting);
        status.kind(Kind::Pod).set(WatchState::Forbidden, 9);
        assert_eq!((status.state(), status.degraded_since()), (WatchesState::Degraded, Some(9)));
        status.kind(Kind::Pod).heard(10);
        status.kind(Kind::Pod).set(WatchState::Watching, 10);
        assert_eq!((status.state(), status.degraded_since()), (WatchesState::Ready, None));
        status.kind(Kind::Node).set(WatchState::Degraded, 11);
        status.kind(Kind::Node).set(WatchState::Degraded, 12);
        assert_eq!((status.state(), status.degraded_since()), (WatchesState::Degraded, Some(11)));
    }
}
