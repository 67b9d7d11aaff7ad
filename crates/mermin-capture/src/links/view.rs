//! What others may know of the interfaces that a source is on.

use crate::interfaces::Selection;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::SystemTime;

/// How a source hangs on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Technology {
    /// eBPF programs on links of the multi-program interface (Linux 6.6): they go with the process, whatever ends it.
    Tcx,
    /// eBPF programs as filters of a clsact qdisc.
    Clsact,
    /// A packet socket.
    AfPacket,
}

impl Technology {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::AfPacket => "af_packet",
        }
    }
}

/// An interface that a source is on: at ingress and egress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkOn {
    /// Its present name.
    pub name: Arc<str>,
    /// The kernel's index.
    pub index: u32,
    /// How.
    pub technology: Technology,
    /// Since when.
    pub since: SystemTime,
    /// Whether the link is up; a source stays on a link that goes down.
    pub up: bool,
}

/// What has happened to links since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Times that the source went on an interface.
    pub attached: u64,
    /// Times that it went off, or the interface went.
    pub detached: u64,
    /// Times that an interface refused.
    pub failed: u64,
    /// Interfaces left out because 32 767 are captured on already.
    pub without_number: u64,
    /// Times that the kernel had to drop messages and all links were listed anew.
    pub resyncs: u64,
    /// Times that a program of somebody else came before and ours was put in front of it.
    pub moved: u64,
    /// Times that somebody else had taken ours off and it was put on again.
    pub restored: u64,
}

impl LinkCounts {
    /// What is out of the ordinary, by its name in the statistics' `anomalies`.
    pub(crate) fn anomalies(self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = [
            ("link_attach_failures", self.failed),
            ("link_resyncs", self.resyncs),
            ("link_restores", self.restored),
            ("links_without_number", self.without_number),
        ];
        all.into_iter().filter(|(_, count)| *count > 0)
    }
}

#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) on: BTreeMap<u32, LinkOn>,
    pub(super) counts: LinkCounts,
}

/// The interfaces that a source is on, and the end of that.
#[derive(Debug)]
pub struct Links {
    view: Mutex<View>,
    begun: AtomicBool,
    stop: AtomicBool,
    wake: OwnedFd,
    /// What is wanted from now on, if the thread has not taken it yet.
    wanted: Mutex<Option<Selection>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Links {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            view: Mutex::default(),
            begun: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            wanted: Mutex::default(),
            thread: Mutex::default(),
        })
    }

    /// Those that it is on, by index.
    #[must_use]
    pub fn on(&self) -> Vec<LinkOn> {
        self.view().on.values().cloned().collect()
    }

    /// What has happened so far.
    #[must_use]
    pub fn counts(&self) -> LinkCounts {
        self.view().counts
    }

    /// From now on these are wanted: the thread takes the source off those that are not, and puts it on those that are.
    /// Nothing changes where links are not followed.
    pub fn select(&self, selection: Selection) {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(selection);
        self.wake_up();
    }

    /// What is wanted from now on, where that has changed.
    pub(super) fn newly_wanted(&self) -> Option<Selection> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Takes the source off all interfaces and returns when that is done: some tenths of a millisecond for each that
    /// hangs on clsact, tens of milliseconds on tcx. What it saw before can still be read.
    pub fn finish(&self) {
        self.ask_to_stop();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic there has been told by its own message.
            let _ = thread.join();
        }
    }

    /// The reader has begun: the thread may, too.
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        self.wake_up();
    }

    /// Has the thread take everything off and end.
    pub(crate) fn ask_to_stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake_up();
    }

    pub(super) fn wake_up(&self) {
        // It fails only when it has been written to very often and never read.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Returns when it may begin or was asked to stop.
    pub(super) fn wait_for_begin(&self) {
        while !self.begun.load(Ordering::Acquire) && !self.is_stopping() {
            let _ = poll(&mut [PollFd::new(&self.wake, PollFlags::IN)], None);
            self.woken();
        }
    }

    /// Returns when it was asked to stop.
    pub(super) fn wait_for_stop(&self) {
        while !self.is_stopping() {
            let _ = poll(&mut [PollFd::new(&self.wake, PollFlags::IN)], None);
            self.woken();
        }
    }

    /// Takes what woke it, before it looks at what it was woken for. After each wait: who wakes it tells why first, so it
    /// may have looked already, and a wake-up that nobody takes ends every wait to come at once.
    pub(super) fn woken(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0_u8; 8]);
    }

    pub(super) fn run_by(&self, thread: JoinHandle<()>) {
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
    }
}
