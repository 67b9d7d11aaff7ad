//! What lists and watch events say, told as changes.

use super::Watch;
use crate::kubernetes::failure::{Failure, WireStatus};
use crate::kubernetes::object::{Change, Object, Time};
use crate::kubernetes::pieces::{Piece, Pieces};
use crate::kubernetes::sink::ChangeSink;
use crate::kubernetes::status::WatchState;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::Instant;

/// How long it must be quiet before all that was missed has come.
const QUIET: Duration = Duration::from_millis(300);
/// Where it is never quiet: after so long all that was missed has come. The server sends that at once.
const SETTLING_MAX: Duration = Duration::from_secs(3);
/// `Heard` isn't told more often, in nanoseconds.
const HEARD_INTERVAL: Time = 200_000_000;
/// The annotation of the bookmark behind a streamed list.
const LIST_END: &str = "k8s.io/initial-events-end";

/// How far the answer to a watch has got.
pub(super) struct Progress {
    pieces: Pieces,
    /// The type of the event whose object comes next.
    event: Option<Event>,
    /// In a streamed list, before its end.
    pub(super) listing: bool,
    /// Objects listed so far.
    listed: u64,
    /// When all that was missed is thought to have come; `None`: it has.
    settling: Option<Settling>,
}

/// What was missed is on its way.
#[derive(Clone, Copy, Debug)]
struct Settling {
    /// It has come if nothing comes before this.
    quiet: Instant,
    /// It has come by now.
    latest: Instant,
}

impl Settling {
    fn new(now: Instant) -> Self {
        Self { quiet: now + QUIET, latest: now + SETTLING_MAX }
    }

    /// Something came.
    fn part(&mut self, now: Instant) {
        self.quiet = now + QUIET;
    }

    fn is_over(self, now: Instant) -> bool {
        now >= self.quiet.min(self.latest)
    }
}

impl Progress {
    pub(super) fn new(listing: bool) -> Self {
        let settling = Some(Settling::new(Instant::now()));
        Self { pieces: Pieces::default(), event: None, listing, listed: 0, settling }
    }

    /// Whether a sign of life means that all is known: nothing is missing, and no event has come by half.
    pub(super) fn is_settled(&mut self) -> bool {
        let now = Instant::now();
        self.settling.take_if(|settling| settling.is_over(now));
        !self.listing && self.settling.is_none() && self.pieces.are_whole()
    }
}

/// The `type` of a watch event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Event {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

/// The metadata of a list, or of a bookmark.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireVersion {
    #[serde(default)]
    pub(super) resource_version: Box<str>,
    /// Where the next page begins.
    #[serde(default, rename = "continue")]
    pub(super) token: Box<str>,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

#[derive(Deserialize)]
struct WireBookmark {
    metadata: WireVersion,
}

impl<S: ChangeSink> Watch<'_, S> {
    /// Times what has come, and counts it.
    pub(super) fn received(&self, part: &[u8]) -> Time {
        self.status().bytes.fetch_add(part.len() as u64, Relaxed);
        self.shared.clock.now()
    }

    pub(super) fn tell(&mut self, change: Change, at: Time) {
        self.told = self.told.max(at);
        self.shared.sink.borrow_mut().change(change, self.told);
    }

    pub(super) fn list_begins(&mut self) {
        self.status().lists.fetch_add(1, Relaxed);
        let now = self.shared.clock.now();
        self.tell(Change::ListBegins(self.kind), now);
    }

    /// An object of a list; whether it could be read.
    pub(super) fn listed(&mut self, json: &[u8], now: Time) -> bool {
        let object = self.strip(json).map(|(object, _)| object);
        let is_read = object.is_some();
        if let Some(object) = object {
            self.tell(Change::Listed(object), now);
        }
        is_read
    }

    /// The list is complete: what comes next follows `version`.
    pub(super) fn list_ends(&mut self, version: Box<str>, listed: u64) {
        self.version = Some(version);
        self.status().objects.store(listed, Relaxed);
        let now = self.shared.clock.now();
        self.tell(Change::ListEnds(self.kind), now);
        self.shared.sink.borrow_mut().settle();
    }

    /// All up to `time` is known.
    pub(super) fn heard(&mut self, time: Time) {
        if !self.interrupted && time < self.heard + HEARD_INTERVAL {
            return;
        }
        self.heard = time;
        self.tell(Change::Heard(self.kind), time);
        self.shared.sink.borrow_mut().settle();
        self.backoff.reset();
        let status = self.status();
        status.heard(time);
        if status.state() != WatchState::Watching {
            status.fail(None);
            status.set(WatchState::Watching, self.shared.clock.now());
            self.shared.report.back(&self.shared.status, self.kind);
        }
        self.interrupted = false;
    }

    /// The next part of the answer to a watch.
    pub(super) fn take(&mut self, part: &[u8], progress: &mut Progress) -> Result<(), Failure> {
        let now = self.received(part);
        let Progress { pieces, event, listing, listed, settling } = progress;
        if let Some(settling) = settling {
            settling.part(Instant::now());
        }
        pieces.feed(part, |piece| match piece {
            Piece::Member(b"type", text) => {
                *event = Some(serde_json::from_slice(text)?);
                Ok(())
            }
            Piece::Member(b"object", text) => match event.take() {
                Some(Event::Bookmark) => {
                    let version = serde_json::from_slice::<WireBookmark>(text)?.metadata;
                    if *listing && !version.annotations.contains_key(LIST_END) {
                        return Ok(());
                    }
                    if std::mem::take(listing) {
                        self.list_ends(version.resource_version, *listed);
                        // What happened since the list was made comes now.
                        *settling = Some(Settling::new(Instant::now()));
                        return Ok(());
                    }
                    self.version = Some(version.resource_version);
                    *settling = None;
                    self.heard(now);
                    Ok(())
                }
                Some(Event::Error) => {
                    let status: WireStatus = serde_json::from_slice(text)?;
                    // An API server over an etcd that is too old for it says so here, as an internal error.
                    let is_refusal = *listing && *listed == 0 && status.code == 500;
                    Err(if is_refusal { Failure::NoStreaming } else { status.failure(*listing) })
                }
                Some(Event::Added) if *listing => {
                    *listed += u64::from(self.listed(text, now));
                    Ok(())
                }
                // What has happened since the list was made may come before its end.
                Some(Event::Modified) if *listing => {
                    self.listed(text, now);
                    Ok(())
                }
                Some(Event::Deleted) if *listing => {
                    if let Some((object, _)) = self.strip(text) {
                        *listed = listed.saturating_sub(1);
                        self.tell(Change::Deleted(object), now);
                    }
                    Ok(())
                }
                Some(event) => {
                    self.changed(event, text, now);
                    Ok(())
                }
                None => Err(Failure::Unreadable("an object of no event".to_owned())),
            },
            Piece::Member(..) | Piece::Item(_) | Piece::End => Ok(()),
        })
    }

    fn changed(&mut self, event: Event, json: &[u8], now: Time) {
        let Some((object, version)) = self.strip(json) else { return };
        let objects = &self.status().objects;
        match event {
            Event::Added => objects.fetch_add(1, Relaxed),
            Event::Deleted => objects.fetch_sub(1, Relaxed),
            Event::Modified | Event::Bookmark | Event::Error => 0,
        };
        self.version = Some(version);
        let change = if event == Event::Deleted { Change::Deleted(object) } else { Change::Applied(object) };
        self.tell(change, now);
    }

    /// `None` when it can't be read: that one object is left out.
    fn strip(&self, json: &[u8]) -> Option<(Object, Box<str>)> {
        let status = self.status();
        status.events.fetch_add(1, Relaxed);
        match self.shared.stripper.borrow_mut().strip(self.kind, json) {
            Ok(stripped) => Some((stripped.object, stripped.version)),
            Err(error) => {
                status.unreadable.fetch_add(1, Relaxed);
                self.shared.report.unreadable(self.kind, &error);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_has_come_when_it_is_quiet_or_late() {
        let begin = Instant::now();
        let after = |millis| begin + Duration::from_millis(millis);
        let mut settling = Settling::new(begin);
        assert!(!settling.is_over(after(299)) && settling.is_over(after(300)));
        // A cluster in which something happens all the time.
        for millis in (100..=3_000).step_by(100) {
            settling.part(after(millis));
            assert_eq!(settling.is_over(after(millis + 50)), millis + 50 >= 3_000, "{millis}");
        }
    }
}
