//! One kind's watch: list, follow, and over again when it breaks.
//!
//! kube's own watcher isn't used: it keeps bookmarks to itself, and with them the news that nothing has happened, it
//! holds a whole page of a list as text and again as objects, and it can't tell a quiet connection from a dead one.
//!
//! What is known until when. `Heard` is told when the server says so (a bookmark, the end of a streamed list), and when
//! a watch is up, all that arrived has been handed on, and the server was alive a moment ago: it answered a ping or sent
//! something else ([`crate::kubernetes::pulse`]). That the server itself knows all is taken for granted: what is written
//! reaches watches within milliseconds, and a server that is cut off from etcd can neither take nor tell anything. After
//! a watch is taken up again, what was missed comes first; it is over when nothing has come for a moment (`events.rs`).

mod events;

use crate::clock::Clock;
use crate::kubernetes::client::{Answer, Client, SILENCE};
use crate::kubernetes::failure::{Backoff, Failure, watch_seconds};
use crate::kubernetes::object::{Change, Kind, Time};
use crate::kubernetes::pieces::{Malformed, Piece, Pieces};
use crate::kubernetes::report::Report;
use crate::kubernetes::request::Request;
use crate::kubernetes::sink::ChangeSink;
use crate::kubernetes::status::{KindStatus, KubernetesStatus, WatchState};
use crate::kubernetes::strip::Stripper;
use events::{Progress, WireVersion};
use futures::StreamExt;
use hyper::body::Bytes;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::Instant;

/// A watch that ends earlier failed.
const SHORTEST_WATCH: Duration = Duration::from_secs(1);

/// How long a server may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// A streamed list of which nothing comes for so long isn't one: servers that don't know it ignore the wish, tell
    /// what there is and never say that this was all.
    pub(crate) streamed_list_stall: Duration,
    /// The same for a list in pages.
    pub(crate) list_stall: Duration,
    /// A watch that tells nothing for so long is taken up anew: bookmarks are due every minute.
    pub(crate) watch_stall: Duration,
    /// Watches last between this and twice this, in seconds.
    pub(crate) watch_seconds: u32,
    /// How much longer than it was asked to a server may keep a watch.
    pub(crate) overtime: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streamed_list_stall: Duration::from_secs(10),
            list_stall: Duration::from_secs(30),
            watch_stall: Duration::from_secs(150),
            watch_seconds: 290,
            overtime: Duration::from_secs(10),
        }
    }
}

/// What the watches of all kinds have in common. All run on one thread.
pub(crate) struct Shared<S> {
    pub(crate) client: Client,
    pub(crate) clock: Clock,
    pub(crate) sink: RefCell<S>,
    pub(crate) stripper: RefCell<Stripper>,
    pub(crate) status: Arc<KubernetesStatus>,
    pub(crate) report: Report,
    pub(crate) limits: Limits,
    /// Whether the server streams lists, as far as it says.
    pub(crate) streams_lists: Cell<bool>,
}

/// The watch of one kind.
pub(crate) struct Watch<'s, S> {
    kind: Kind,
    request: Request,
    shared: &'s Shared<S>,
    /// Where to go on; `None`: list.
    version: Option<Box<str>>,
    /// Whether a list must not come from a cache that lags behind: every one but the first, for another is needed only
    /// when what comes after the one before was forgotten.
    fresh: bool,
    /// Whether a streamed list of this kind has stood still.
    stalled: bool,
    /// The time of the last thing told.
    told: Time,
    /// The time of the last `Heard`.
    heard: Time,
    /// Whether nothing was heard since it broke.
    interrupted: bool,
    backoff: Backoff,
}

/// What comes next.
enum Next {
    Part(Bytes),
    /// The server lived at this time, and all that had arrived has been handed on.
    Beat(Time),
    /// No part in time.
    Stalled,
    End,
}

impl From<Malformed> for Failure {
    fn from(error: Malformed) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl<'s, S: ChangeSink> Watch<'s, S> {
    pub(crate) fn new(kind: Kind, node: Option<&str>, shared: &'s Shared<S>) -> Self {
        Self {
            kind,
            request: Request::new(kind, node),
            shared,
            version: None,
            fresh: false,
            stalled: false,
            told: 0,
            heard: 0,
            interrupted: false,
            backoff: Backoff::default(),
        }
    }

    /// Watches for ever.
    pub(crate) async fn run(mut self) {
        loop {
            let began = Instant::now();
            let failure = match self.attempt().await {
                // Watches have an end, so that servers can spread them anew.
                Ok(()) if began.elapsed() >= SHORTEST_WATCH => continue,
                Ok(()) => Failure::Broken("the watch ended as soon as it had begun".to_owned()),
                Err(failure) => failure,
            };
            let wait = self.backoff.after(&failure);
            self.broken(&failure);
            tokio::time::sleep(wait).await;
        }
    }

    fn status(&self) -> &'s KindStatus {
        self.shared.status.kind(self.kind)
    }

    async fn attempt(&mut self) -> Result<(), Failure> {
        let seconds = watch_seconds(self.shared.limits.watch_seconds);
        let accept = self.request.accept_watch();
        let client = &self.shared.client;
        // Of many failures in a row some may be the streaming's.
        let streams = self.shared.streams_lists.get() && !self.stalled && self.backoff.failures % 4 != 3;
        if self.version.is_none() && streams {
            let answer = client.get(&self.request.streamed_list(self.fresh, seconds), accept, true).await?;
            self.list_begins();
            return self.follow(answer, true, seconds).await;
        }
        let version = match &self.version {
            Some(version) => version.clone(),
            None => self.list().await?,
        };
        let answer = client.get(&self.request.watch(&version, seconds), accept, false).await?;
        self.follow(answer, false, seconds).await
    }

    fn broken(&mut self, failure: &Failure) {
        let (status, now) = (self.status(), self.shared.clock.now());
        match failure {
            Failure::Expired => (self.version, self.fresh) = (None, true),
            Failure::NoStreaming => self.shared.streams_lists.set(false),
            _ => {}
        }
        status.errors.fetch_add(1, Relaxed);
        status.fail(Some(failure.to_string()));
        let state = match failure {
            Failure::Forbidden { .. } | Failure::Absent => WatchState::Forbidden,
            _ if self.heard == 0 && !self.interrupted => WatchState::Listing,
            _ => WatchState::Degraded,
        };
        let was_forbidden = status.state() == WatchState::Forbidden;
        status.set(state, now);
        let was_interrupted = std::mem::replace(&mut self.interrupted, true);
        if state == WatchState::Forbidden && !was_forbidden {
            self.tell(Change::Forbidden(self.kind), now);
        } else if !was_interrupted {
            self.tell(Change::Interrupted(self.kind), now);
        }
        self.shared.sink.borrow_mut().settle();
        self.shared.report.failed(&self.shared.status, self.kind, failure, self.backoff.failures);
    }

    /// All objects, in pages. Where a watch goes on behind them.
    async fn list(&mut self) -> Result<Box<str>, Failure> {
        let (mut token, mut listed) = (None::<Box<str>>, 0);
        let limit = self.shared.limits.list_stall;
        loop {
            let path = self.request.list(self.fresh, token.as_deref());
            let mut answer = self.shared.client.get(&path, self.request.accept_list(), false).await?;
            let _unpinged = answer.probed.then(|| self.shared.client.unpinged());
            if token.is_none() {
                self.list_begins();
            }
            let (mut pieces, mut head, mut complete) = (Pieces::default(), None, false);
            let mut stalled = Instant::now() + limit;
            while !complete {
                let part = match self.next(&mut answer, Some(stalled)).await? {
                    Next::Part(part) => part,
                    Next::Beat(_) => continue,
                    Next::Stalled => return Err(Failure::Silent(limit)),
                    Next::End => return Err(Failure::Broken("the list broke off".to_owned())),
                };
                stalled = Instant::now() + limit;
                let now = self.received(&part);
                pieces.feed(&part, |piece| {
                    match piece {
                        Piece::Item(item) => listed += u64::from(self.listed(item, now)),
                        Piece::Member(b"metadata", text) => {
                            head = Some(serde_json::from_slice::<WireVersion>(text)?);
                        }
                        Piece::Member(..) => {}
                        Piece::End => complete = true,
                    }
                    Ok::<_, Failure>(())
                })?;
            }
            let head = head.ok_or_else(|| Failure::Unreadable("a list without metadata".to_owned()))?;
            if head.token.is_empty() {
                self.list_ends(head.resource_version.clone(), listed);
                return Ok(head.resource_version);
            }
            token = Some(head.token);
        }
    }

    /// What a watch tells, to its end. `listing`: all objects come first.
    async fn follow(&mut self, mut answer: Answer, listing: bool, seconds: u32) -> Result<(), Failure> {
        let _unpinged = answer.probed.then(|| self.shared.client.unpinged());
        let mut progress = Progress::new(listing);
        let limits = self.shared.limits;
        let began = Instant::now();
        let latest = began + Duration::from_secs(seconds.into()) + limits.overtime;
        let mut last = began;
        loop {
            let stalled = if progress.listing {
                last + limits.streamed_list_stall
            } else {
                latest.min(last + limits.watch_stall)
            };
            match self.next(&mut answer, Some(stalled)).await? {
                Next::Part(part) => {
                    last = Instant::now();
                    self.take(&part, &mut progress)?;
                    if !progress.listing {
                        self.shared.sink.borrow_mut().settle();
                    }
                }
                Next::Beat(time) if progress.is_settled() => self.heard(time),
                Next::Beat(_) => {}
                Next::Stalled if progress.listing => {
                    self.stalled = true;
                    return Err(Failure::Silent(limits.streamed_list_stall));
                }
                Next::Stalled => {
                    // It may have been dead for long, with a server that lives.
                    self.interrupted = true;
                    self.tell(Change::Interrupted(self.kind), self.shared.clock.now());
                    return Ok(());
                }
                Next::End if progress.listing => {
                    return Err(Failure::Broken("the list broke off".to_owned()));
                }
                Next::End => return Ok(()),
            }
        }
    }

    /// The next part of an answer, or a sign of life. `stalled`: when a part must have come.
    async fn next(&self, answer: &mut Answer, stalled: Option<Instant>) -> Result<Next, Failure> {
        let quiet = Duration::from_nanos(self.shared.clock.now().saturating_sub(answer.pulse.last()));
        let silent = Instant::now() + SILENCE.saturating_sub(quiet);
        let deadline = stalled.map_or(silent, |stalled| stalled.min(silent));
        tokio::select! {
            // What has arrived comes before the sign of life that came with it.
            biased;
            part = answer.body.next() => match part {
                Some(Ok(part)) => Ok(Next::Part(part)),
                Some(Err(error)) => Err(Failure::broken(&error)),
                None => Ok(Next::End),
            },
            beat = answer.pulse.after(answer.seen) => {
                answer.seen = beat;
                Ok(Next::Beat(beat))
            }
            () = tokio::time::sleep_until(deadline) => match stalled {
                Some(stalled) if stalled <= silent => Ok(Next::Stalled),
                _ => Err(Failure::Silent(SILENCE)),
            },
        }
    }
}
