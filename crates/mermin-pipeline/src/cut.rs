//! A cut: a marker that goes down the packet channel behind the data, at which each flow worker writes down what has changed in its
//! flows, and the records that it has made since the cut before.
//!
//! Records go on when their cut is committed, and not before: what anybody may have seen then stands in the journal as it was sent.
//! The journal's own thread commits (`journal.rs`), so no worker waits for the disk.

use crate::journal::{Progress, ToJournal};
use crate::lock::lock;
use crossbeam_channel::Sender;
use mermin_flow::{FlowRecord, Lease, Meter, ObservationPoints, SourceCut, Tally};
use mermin_spool::Encoder;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Between two cuts at least: as the kernel is drained. Four a second would write most flows down four times as often.
const INTERVAL: Duration = Duration::from_secs(1);
/// After a disk has failed.
const RETRY: Duration = Duration::from_secs(10);
/// A cut that could not be made for so long keeps the reader from reading: what is in its way then goes.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the end waits for the last cut.
const LAST: Duration = Duration::from_secs(10);
/// A cut that takes longer is let be: a worker hangs, or the disk.
const TOO_LONG: Duration = Duration::from_secs(30);

/// What the flow workers say in a cut.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) changes: Vec<Vec<u8>>,
    /// As they are encoded.
    pub(crate) records: Vec<Vec<u8>>,
    /// What is settled, of all that the source has handed over.
    pub(crate) settled: Tally,
    /// Goes with the records.
    pub(crate) lease: Lease,
    missing: usize,
}

/// See the module's text.
pub(crate) struct Cut {
    pub(crate) number: u64,
    pub(crate) is_whole: bool,
    pub(crate) source: SourceCut,
    said: Mutex<Said>,
    to: Sender<ToJournal>,
}

impl Cut {
    /// A worker's part. The last one sends the cut to whoever commits.
    pub(crate) fn passes(self: &Arc<Self>, meter: &mut Meter, held: Option<&mut Held>) {
        let lease = lock(&self.said).lease.clone();
        let mut changes = Vec::new();
        if self.is_whole {
            meter.cut_whole(&mut changes);
        } else {
            meter.cut(&mut changes);
        }
        let records = held.map(|held| held.cut(self.number, &lease)).unwrap_or_default();
        drop(lease);
        let book = meter.book();
        let mut said = lock(&self.said);
        said.changes.push(changes);
        said.records.extend(records);
        said.settled += book.secondary + book.reported + book.quarantined;
        said.missing -= 1;
        if said.missing == 0 {
            drop(said);
            // Refused only where nobody commits any more: then nothing waits for it.
            let _ = self.to.send(ToJournal::Cut(Arc::clone(self)));
        }
    }

    /// What all have said.
    pub(crate) fn said(&self) -> Said {
        let nothing = Said {
            changes: Vec::new(),
            records: Vec::new(),
            settled: Tally::ZERO,
            lease: Lease::default(),
            missing: 0,
        };
        std::mem::replace(&mut *lock(&self.said), nothing)
    }
}

/// The reader's part: when a cut is made.
pub(crate) struct Cuts {
    progress: Arc<Progress>,
    to: Sender<ToJournal>,
    /// The last one's.
    number: u64,
    made: Instant,
    workers: usize,
    points: Arc<ObservationPoints>,
    /// How many points there were, and how often they had changed, when they were written down.
    points_at: (usize, u64),
    /// The last one of all was made, or there is none; or nothing was read yet.
    is_over: bool,
}

impl Cuts {
    pub(crate) fn new(
        progress: Arc<Progress>,
        to: Sender<ToJournal>,
        number: u64,
        workers: usize,
        points: Arc<ObservationPoints>,
    ) -> Self {
        let made = Instant::now();
        Self { progress, to, number, made, workers, points, points_at: (0, 0), is_over: true }
    }

    /// Whether the last one is committed, or not going to be.
    fn is_answered(&self) -> bool {
        self.progress.answered() >= self.number
    }

    pub(crate) fn is_due(&mut self) -> bool {
        if !self.is_answered() && self.made.elapsed() >= TOO_LONG {
            self.progress.go_on_without(self.number, "a cut takes too long");
            self.made = Instant::now();
        }
        let after = if self.progress.is_off() { RETRY } else { INTERVAL };
        self.made.elapsed() >= after && self.is_answered()
    }

    /// Whether nothing must be read until one can be made.
    pub(crate) fn is_overdue(&self) -> bool {
        self.made.elapsed() >= PATIENCE && self.is_answered() && !self.progress.is_off()
    }

    /// The next one. `settled`: of what was observed, what came to no worker.
    pub(crate) fn next(&mut self, source: SourceCut, settled: Tally) -> Arc<Cut> {
        self.progress.begin(self.number);
        self.number += 1;
        self.made = Instant::now();
        let is_whole = self.progress.wants_whole();
        let points_at = (self.points.count(), self.points.changes());
        let mut points = Vec::new();
        if is_whole || points_at != self.points_at {
            self.points.cut(&mut points);
            self.points_at = points_at;
        }
        let said = Said {
            changes: if points.is_empty() { Vec::new() } else { vec![points] },
            records: Vec::new(),
            settled: settled + source.settled,
            lease: Lease::new(),
            missing: self.workers,
        };
        let (number, to) = (self.number, self.to.clone());
        Arc::new(Cut { number, is_whole, source, said: Mutex::new(said), to })
    }

    /// What the source reads can't be written down any more.
    pub(crate) fn fails(&mut self, why: String) {
        self.made = Instant::now();
        let _ = self.to.send(ToJournal::Failed(why));
    }

    /// The end has come: waits for the cut that is under way. Whether there can be a last one.
    pub(crate) fn is_ready_for_the_last(&self) -> bool {
        let began = Instant::now();
        while !self.is_answered() && began.elapsed() < LAST {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.is_answered()
    }

    /// The one behind the end of all flows.
    pub(crate) fn last(&mut self, source: SourceCut, settled: Tally) -> Arc<Cut> {
        self.is_over = true;
        self.next(source, settled)
    }

    /// There is no last cut: what the journal has is no longer true.
    pub(crate) fn give_up(&mut self) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.progress.go_on_without(self.number, "the run ends without a last cut");
        }
    }

    /// The reader reads: from now on the journal has to keep up.
    pub(crate) const fn begin(&mut self) {
        self.is_over = false;
    }
}

/// Of a reader that has panicked, too.
impl Drop for Cuts {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Records of a batch in the journal.
const BATCH: usize = 256;
/// From so many on that wait, no more periodic ones are made.
const MANY: usize = 65_536;

/// A worker's records that wait for their cut.
pub(crate) struct Held {
    /// Made since the last cut.
    open: Vec<FlowRecord>,
    cut: VecDeque<(u64, Vec<FlowRecord>)>,
    records: usize,
    tally: Tally,
    progress: Arc<Progress>,
    encoder: Encoder,
}

impl Held {
    pub(crate) const fn new(progress: Arc<Progress>, encoder: Encoder) -> Self {
        Self { open: Vec::new(), cut: VecDeque::new(), records: 0, tally: Tally::ZERO, progress, encoder }
    }

    pub(crate) fn push(&mut self, record: FlowRecord) {
        self.tally += record.tally;
        self.records += 1;
        self.open.push(record);
    }

    /// Records of an earlier run, whose cuts are committed.
    pub(crate) fn begin_with(&mut self, records: Vec<FlowRecord>) {
        self.tally += records.iter().map(|record| record.tally).sum();
        self.records += records.len();
        self.cut.push_back((0, records));
    }

    /// What waits here.
    pub(crate) const fn tally(&self) -> Tally {
        self.tally
    }

    pub(crate) const fn are_many(&self) -> bool {
        self.records > MANY
    }

    /// What was made up to now belongs to this cut; its records, encoded.
    fn cut(&mut self, number: u64, lease: &Lease) -> Vec<Vec<u8>> {
        let mut records = std::mem::take(&mut self.open);
        let encoded = records.chunks(BATCH).map(|batch| self.encoder.encode(batch).into_payload()).collect();
        records.iter_mut().for_each(|record| record.lease = lease.clone());
        if !records.is_empty() {
            self.cut.push_back((number, records));
        }
        encoded
    }

    /// Records that need not wait any longer, in their order.
    pub(crate) fn let_go(&mut self) -> Vec<FlowRecord> {
        if self.records == 0 {
            return Vec::new();
        }
        let committed = self.progress.committed();
        let mut free = Vec::new();
        while let Some((_, mut records)) = self.cut.pop_front_if(|(number, _)| *number <= committed) {
            free.append(&mut records);
        }
        if committed == u64::MAX {
            free.append(&mut self.open);
        }
        self.records -= free.len();
        self.tally = self.tally - free.iter().map(|record| record.tally).sum();
        free
    }

    /// After the last cut, or without one: waits until all may go.
    pub(crate) fn let_all_go(&mut self) -> Vec<FlowRecord> {
        let last =
            if self.open.is_empty() { self.cut.back().map_or(0, |(number, _)| *number) } else { u64::MAX };
        if !self.progress.wait_for(last, LAST) {
            self.progress.go_on_without(last, "the last cut takes too long");
        }
        let mut free = self.let_go();
        free.extend(self.cut.drain(..).flat_map(|(_, records)| records));
        free.append(&mut self.open);
        (self.records, self.tally) = (0, Tally::ZERO);
        free
    }
}
