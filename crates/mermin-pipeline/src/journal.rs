//! The journal of a run: opened before it, committed to by a thread of its own, and emptied when nothing of it is needed any more.

use crate::cut::{Cut, Held};
use crate::flow_worker::FlowWorker;
use crate::lock::lock;
use crate::packet_channel::worker_of;
use crate::pulse::JournalPulse;
use crate::random::random;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use mermin_flow::{FlowRecord, KeptFlows, Lease, ObservationPoints, SourceCut, Tally, Voider};
use mermin_journal::{Carried, Cut as Entry, Journal, JournalError, Opened, ReadLog, SourceJournal};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Bytes of records that are not settled, as they are encoded.
const UNSETTLED_MAX: usize = 64 << 20;
/// How often is looked whether records are settled.
const LOOK: Duration = Duration::from_millis(50);

/// What is said of a run in each cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    /// Of the index hash.
    secret: u64,
    /// What had come to an end, in all runs.
    settled: Tally,
    /// The source's own.
    source: Vec<u8>,
}

impl State {
    fn write(&self) -> Vec<u8> {
        let Tally { packets, bytes, buffers, buffer_bytes } = self.settled;
        let numbers = [self.secret, packets, bytes, buffers, buffer_bytes];
        numbers.into_iter().flat_map(u64::to_le_bytes).chain(self.source.iter().copied()).collect()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (numbers, source) = bytes.split_first_chunk::<40>()?;
        let (numbers, _) = numbers.as_chunks::<8>();
        let number = |at: usize| u64::from_le_bytes(numbers[at]);
        let settled =
            Tally { packets: number(1), bytes: number(2), buffers: number(3), buffer_bytes: number(4) };
        Some(Self { secret: number(0), settled, source: source.to_vec() })
    }
}

/// A journal, and what a run that was killed has left in it.
pub struct RunJournal {
    journal: Arc<Mutex<Journal>>,
    read_log: ReadLog,
    /// Of the index hash.
    pub(crate) secret: u64,
    goes_on: bool,
    pub(crate) flows: KeptFlows,
    pub(crate) records: Vec<FlowRecord>,
    /// Of the cuts that these are of.
    leases: Vec<(u64, Lease)>,
}

impl RunJournal {
    /// Opens the journal in `folder`, and gives the source its part. `whose`: what has to be the same for somebody to go on with it.
    /// Observation points of records get numbers among `points`.
    ///
    /// # Errors
    /// The folder is in use, or can't be used.
    pub fn open(
        folder: &Path,
        whose: &[u8],
        points: &Arc<ObservationPoints>,
    ) -> Result<(Self, SourceJournal), JournalError> {
        let Opened { journal, read_log, recovered } = Journal::open(folder, whose)?;
        if recovered.is_damaged {
            warn!(
                "The journal in {} is damaged: what an earlier run had in memory is lost (lost.crash)",
                folder.display()
            );
        }
        let mut this = Self {
            journal: Arc::new(Mutex::new(journal)),
            read_log: read_log.clone(),
            secret: random(),
            goes_on: false,
            flows: recovered.flows,
            records: Vec::new(),
            leases: Vec::new(),
        };
        let (own, secret) = (Arc::clone(&this.journal), this.secret);
        let begin = Arc::new(move |source| begin(&mut lock(&own), source, secret));
        let Some(state) = State::read(&recovered.state).filter(|_| recovered.cut > 0) else {
            this.starts_afresh();
            return Ok((this, SourceJournal { log: read_log, carried: None, begin }));
        };
        let (_, mut decoder) = mermin_spool::codec(Arc::clone(points));
        for (cut, batch) in &recovered.records {
            if this.leases.last().is_none_or(|(last, _)| last != cut) {
                this.leases.push((*cut, Lease::new()));
            }
            let lease = this.leases.last().map(|(_, lease)| lease.clone()).unwrap_or_default();
            match decoder.kept(batch) {
                Ok(mut records) => {
                    records.iter_mut().for_each(|record| record.lease = lease.clone());
                    this.records.append(&mut records);
                }
                Err(error) => warn!("The journal has records of cut {cut} that can't be read: {error}"),
            }
        }
        (this.secret, this.goes_on) = (state.secret, true);
        let told = this.records.iter().map(|record| record.tally).sum();
        let carried = Carried {
            source: state.source,
            settled: state.settled - told,
            held: this.flows.resident() + told,
            read: recovered.read,
        };
        Ok((this, SourceJournal { log: read_log, carried: Some(Arc::new(carried)), begin }))
    }

    /// The source can't go on with what was found: it is as if nothing was.
    pub fn starts_afresh(&mut self) {
        (self.goes_on, self.flows) = (false, KeptFlows::default());
        (self.records, self.leases) = (Vec::new(), Vec::new());
    }

    /// Number of the last cut.
    pub(crate) fn cut(&self) -> u64 {
        lock(&self.journal).cut()
    }

    /// The first `working` workers go on with what was found; how much that is.
    pub(crate) fn restore(
        &mut self,
        workers: &mut [FlowWorker],
        working: usize,
        points: &Arc<ObservationPoints>,
        progress: &Arc<Progress>,
    ) -> Tally {
        let (mut flows, records) = (std::mem::take(&mut self.flows), std::mem::take(&mut self.records));
        if self.goes_on {
            info!(
                "An earlier run was killed: goes on with {} flows, and sends {} records again that may not have come to their end",
                flows.flows(),
                records.len()
            );
        }
        flows.renumber(points);
        let mut shares: Vec<_> = workers.iter().map(|_| Vec::new()).collect();
        for record in records {
            shares[worker_of(record.shard.into(), working)].push(record);
        }
        let restored = flows.resident() + shares.iter().flatten().map(|record| record.tally).sum();
        for (number, shard) in flows.into_shards().into_iter().enumerate() {
            workers[worker_of(number, working)].meter.restore(number, shard);
        }
        for (worker, records) in workers.iter_mut().zip(shares) {
            worker.meter.keep_track();
            worker.meter.takes_over_records(records.iter().map(|record| record.tally).sum());
            let mut held = Held::new(Arc::clone(progress), mermin_spool::codec(Arc::clone(points)).0);
            if !records.is_empty() {
                held.begin_with(records);
            }
            worker.outlet.hold_for_cuts(held);
            worker.cells.set(&worker.meter.book());
        }
        restored
    }

    /// The thread's part.
    pub(crate) fn committer(self, secret: u64, progress: Arc<Progress>) -> Committer {
        let Self { journal, read_log, leases, .. } = self;
        Committer { journal, read_log, secret, progress, leases, forgets: false }
    }

    /// There is nobody whose state it could be: what is in it is removed.
    ///
    /// # Errors
    /// A file can't be removed.
    pub fn remove(self) -> Result<(), JournalError> {
        lock(&self.journal).close()
    }
}

/// The first cut, of a source that has read nothing yet.
fn begin(journal: &mut Journal, source: SourceCut, secret: u64) {
    journal.forget();
    let state = State { secret, settled: source.settled, source: source.state };
    let entry = Entry {
        number: journal.cut() + 1,
        is_whole: true,
        state: &state.write(),
        read_from: source.read_from,
        changes: &[],
        records: &[],
    };
    if let Err(error) = journal.commit(&entry) {
        warn!("The journal can't be written: {}", error.in_full());
    }
}

/// How far cuts have come: what reader and workers go by.
pub(crate) struct Progress {
    /// The last that is committed; `u64::MAX` while nothing waits for any.
    committed: AtomicU64,
    /// The last that is committed or not going to be.
    answered: AtomicU64,
    wants_whole: AtomicBool,
    bytes: AtomicU64,
    trouble: Mutex<Option<String>>,
    /// Cuts up to this one are void.
    void: AtomicU64,
    voider: Option<Voider>,
    /// All outputs have ended.
    nobody_is_left: AtomicBool,
}

impl Progress {
    /// Of a run whose cuts go on behind this one.
    pub(crate) const fn new(cut: u64, voider: Option<Voider>) -> Self {
        Self {
            committed: AtomicU64::new(cut),
            answered: AtomicU64::new(cut),
            wants_whole: AtomicBool::new(true),
            bytes: AtomicU64::new(0),
            trouble: Mutex::new(None),
            void: AtomicU64::new(0),
            voider,
            nobody_is_left: AtomicBool::new(false),
        }
    }

    pub(crate) fn pulse(&self) -> JournalPulse {
        let bytes = self.bytes.load(Ordering::Relaxed);
        JournalPulse { cuts: self.answered(), bytes, trouble: lock(&self.trouble).clone() }
    }

    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Acquire)
    }

    /// Whether nothing is committed, as the disk has failed.
    pub(crate) fn is_off(&self) -> bool {
        self.committed() == u64::MAX
    }

    pub(crate) fn wants_whole(&self) -> bool {
        self.wants_whole.load(Ordering::Acquire)
    }

    /// Behind this cut comes another: from now on records wait for it.
    pub(crate) fn begin(&self, cut: u64) {
        self.committed.store(cut, Ordering::Release);
    }

    /// Until a cut is committed, or nothing waits any more; but not longer than this. Whether it is so.
    pub(crate) fn wait_for(&self, cut: u64, at_most: Duration) -> bool {
        let began = Instant::now();
        while self.committed() < cut && began.elapsed() < at_most {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.committed() >= cut
    }

    /// From here on records don't wait. First of all, what was written down is void: nobody may go on from there. What is in memory
    /// is lost if the process is killed, until there is a cut behind `cut`.
    pub(crate) fn go_on_without(&self, cut: u64, why: &str) {
        self.void.fetch_max(cut, Ordering::AcqRel);
        self.voider.iter().for_each(|voider| voider());
        if lock(&self.trouble).replace(why.to_owned()).is_none() {
            warn!(
                "The journal can't be written: {why}; until it can, what is in memory is lost if this process is killed (lost.crash)"
            );
        }
        self.wants_whole.store(true, Ordering::Release);
        self.committed.store(u64::MAX, Ordering::Release);
        self.answered.fetch_max(cut, Ordering::AcqRel);
    }

    /// All outputs have ended: what they were told of records is the last word.
    pub(crate) fn nobody_is_left(&self) {
        self.nobody_is_left.store(true, Ordering::Release);
    }
}

/// What the thread is told.
pub(crate) enum ToJournal {
    /// All have said what they have.
    Cut(Arc<Cut>),
    /// What is read can't be written down.
    Failed(String),
}

/// See the module's text.
pub(crate) struct Committer {
    journal: Arc<Mutex<Journal>>,
    secret: u64,
    progress: Arc<Progress>,
    read_log: ReadLog,
    /// Of cuts that are not settled.
    leases: Vec<(u64, Lease)>,
    /// It has more records that are not settled than it holds, and that is told.
    forgets: bool,
}

impl Committer {
    /// The thread's work: until nobody makes cuts any more, and all records have come to their end.
    pub(crate) fn run(mut self, told: &Receiver<ToJournal>) {
        loop {
            match told.recv_timeout(LOOK) {
                Ok(ToJournal::Cut(cut)) => self.commit(&cut),
                Ok(ToJournal::Failed(why)) => {
                    self.progress.go_on_without(0, &why);
                    self.remove();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.settle();
        }
        while !self.leases.is_empty() && !self.progress.nobody_is_left.load(Ordering::Acquire) {
            std::thread::sleep(LOOK / 10);
            self.settle();
        }
        if let Err(error) = lock(&self.journal).close() {
            warn!(
                "The journal can't be removed, and the next run may send records again: {}",
                error.in_full()
            );
        }
    }

    fn commit(&mut self, cut: &Cut) {
        let said = cut.said();
        let state = State { secret: self.secret, settled: said.settled, source: cut.source.state.clone() };
        let entry = Entry {
            number: cut.number,
            is_whole: cut.is_whole,
            state: &state.write(),
            read_from: cut.source.read_from,
            changes: &said.changes,
            records: &said.records,
        };
        let is_void = cut.number <= self.progress.void.load(Ordering::Acquire);
        // Whatever becomes of it: its records go with the next one then.
        let committed = lock(&self.journal).commit(&entry);
        if !said.records.is_empty() {
            self.leases.push((cut.number, said.lease));
        }
        match committed {
            Ok(()) if !is_void => {
                self.progress.wants_whole.store(lock(&self.journal).wants_whole(), Ordering::Release);
                self.progress.bytes.store(lock(&self.journal).bytes(), Ordering::Relaxed);
                if lock(&self.progress.trouble).take().is_some() {
                    info!("The journal is written again");
                }
                self.progress.committed.store(cut.number, Ordering::Release);
            }
            Ok(()) => self.remove(),
            Err(error) => {
                self.progress.go_on_without(cut.number, &error.in_full());
                self.remove();
            }
        }
        self.progress.answered.fetch_max(cut.number, Ordering::AcqRel);
        self.forget();
    }

    /// What was written down is void.
    fn remove(&mut self) {
        let read_from = self.read_log.pause();
        if let Err(error) = lock(&self.journal).abandon(read_from) {
            warn!("The journal can't be removed: {}", error.in_full());
        }
    }

    /// An output that doesn't come to an end with its records must not make the journal grow without end.
    fn forget(&mut self) {
        let forgotten = lock(&self.journal).too_many(UNSETTLED_MAX);
        if forgotten.is_empty() {
            return;
        }
        if !std::mem::replace(&mut self.forgets, true) {
            warn!(
                "The journal has more than {} MiB of records that outputs have not come to an end with, and forgets the oldest: if this \
                 process is killed, they are not sent again",
                UNSETTLED_MAX >> 20
            );
        }
        self.leases.retain(|(cut, _)| !forgotten.contains(cut));
        self.note_settled(&forgotten);
    }

    /// Records of a cut are settled when nobody has any of them.
    fn settle(&mut self) {
        let settled: Vec<_> =
            self.leases.extract_if(.., |(_, lease)| lease.is_last()).map(|(cut, _)| cut).collect();
        self.note_settled(&settled);
    }

    fn note_settled(&mut self, cuts: &[u64]) {
        if let Err(error) = lock(&self.journal).settle(cuts) {
            self.progress.wants_whole.store(true, Ordering::Release);
            warn!("The journal can't be written: {}", error.in_full());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_says_of_itself_is_read_again() {
        let settled = Tally { packets: 1, bytes: 2, buffers: 3, buffer_bytes: 4 };
        let state = State { secret: 7, settled, source: vec![5, 6] };
        assert_eq!(State::read(&state.write()), Some(state.clone()));
        assert_eq!(State::read(&state.write()[..39]), None);
    }
}
