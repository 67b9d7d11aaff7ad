//! Closing packet sockets: the kernel waits for a grace period or two with each, tens of milliseconds. Side by side they
//! wait together, and never in the reader.

use super::taps::Tap;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

/// That many wait at once.
const SIDE_BY_SIDE: usize = 32;
/// Sockets that wait for the thread; the reader closes further ones itself.
const QUEUE: usize = 1_024;

/// Calls `each` with all of `things` on a few threads.
pub(super) fn side_by_side<T: Send>(things: Vec<T>, each: impl Fn(T) + Sync) {
    let share = things.len().div_ceil(SIDE_BY_SIDE).max(1);
    let mut things = things.into_iter();
    thread::scope(|scope| {
        loop {
            let part: Vec<T> = things.by_ref().take(share).collect();
            if part.is_empty() {
                break;
            }
            let each = &each;
            scope.spawn(move || part.into_iter().for_each(each));
        }
    });
}

/// The thread that closes sockets of interfaces that have gone.
pub(super) struct Closing {
    taps: Option<SyncSender<Box<Tap>>>,
    thread: Option<JoinHandle<()>>,
}

impl Closing {
    pub(super) fn start() -> io::Result<Self> {
        let (taps, closed) = sync_channel(QUEUE);
        let thread = thread::Builder::new().name("mermin-closing".to_owned()).spawn(move || run(&closed))?;
        Ok(Self { taps: Some(taps), thread: Some(thread) })
    }

    pub(super) fn close(&self, tap: Box<Tap>) {
        if let Some(Err(TrySendError::Full(tap))) = self.taps.as_ref().map(|taps| taps.try_send(tap)) {
            drop(tap);
        }
    }
}

fn run(closed: &Receiver<Box<Tap>>) {
    while let Ok(first) = closed.recv() {
        side_by_side(std::iter::once(first).chain(closed.try_iter()).collect(), drop);
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.taps = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
