//! Outputs whose records wait on disk: away for long, over restarts, with a disk that is full, damaged, gone. What was
//! written is delivered, and the rest stands in the book.
#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

mod parts;

use mermin_flow::{
    Amount, Exporter, Failure, FlowConfig, FlowId, FlowRecord, Interval, ObservationPoints, Receipt,
};
use mermin_pipeline::{
    BreakerConfig, DiskBuffer, NewOutput, Observer, Outcome, OutputBook, PipelineConfig, Stages, Tuning,
    start,
};
use mermin_spool::{Fsync, Spool, SpoolError, SpoolSettings};
use parts::{Collected, Synthetic, assert_settled, config, count, in_reader, stages};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const NAME: &str = "receiver";

/// Takes records, or gives them up while its receiver is away. It holds the last ones back until more come.
#[derive(Clone, Default)]
struct Receiver {
    away: Arc<AtomicBool>,
    /// Of its first calls, each fifth fails.
    fails_at_first: usize,
    /// Holds so many.
    holds: usize,
    /// Each call takes so long.
    takes: Duration,
    /// Panics at this call.
    panics_at: Option<usize>,
    calls: Arc<AtomicUsize>,
    held: Vec<FlowRecord>,
    received: Arc<Mutex<Vec<FlowRecord>>>,
}

impl Receiver {
    fn deliver(&mut self, keep: usize, receipt: &mut Receipt) -> Result<(), Failure> {
        if self.away.load(Ordering::Acquire) {
            let dropped = receipt.dropped.entry("write_failed").or_default();
            self.held.drain(..).for_each(|record| *dropped += Amount::of(&record));
            let error = std::io::Error::other("nobody answers");
            return Err(Failure { reason: "write_failed", closed: false, error });
        }
        let delivered = self.held.len().saturating_sub(keep);
        let mut received = self.received.lock().unwrap();
        for record in self.held.drain(..delivered) {
            receipt.delivered += Amount::of(&record);
            received.push(record);
        }
        Ok(())
    }

    /// What came, each once.
    fn different(&self) -> HashSet<(FlowId, u32)> {
        self.received.lock().unwrap().iter().map(|record| (record.id, record.sequence)).collect()
    }
}

impl Exporter for Receiver {
    fn name(&self) -> &str {
        NAME
    }

    fn export(&mut self, records: &[FlowRecord], receipt: &mut Receipt) -> Result<(), Failure> {
        let call = self.calls.fetch_add(1, Ordering::Release);
        assert!(self.panics_at != Some(call), "a bug");
        std::thread::sleep(self.takes);
        self.held.extend_from_slice(records);
        if call < self.fails_at_first {
            self.away.store(call % 5 == 3, Ordering::Release);
        }
        self.deliver(self.holds, receipt)
    }

    fn flush(&mut self, receipt: &mut Receipt) -> Result<(), Failure> {
        if self.held.is_empty() { Ok(()) } else { self.deliver(0, receipt) }
    }

    fn passing_reasons(&self) -> &'static [&'static str] {
        &["write_failed"]
    }
}

/// Tries a receiver that is away often, and ends soon.
fn impatient() -> PipelineConfig {
    let breaker = BreakerConfig {
        pause: Interval(Duration::from_millis(20)),
        pause_max: Interval(Duration::from_millis(50)),
        ..BreakerConfig::default()
    };
    PipelineConfig { breaker, shutdown_timeout: Interval::seconds(20), ..config(2, 1) }
}

/// A packet a flow, each of them released as the table holds 64.
fn short_lived() -> FlowConfig {
    FlowConfig { table_capacity: count(64), ..FlowConfig::default() }
}

fn buffer(folder: &Path, bytes: u64) -> HashMap<String, DiskBuffer> {
    let spool = Spool::open(folder, SpoolSettings { bytes, fsync: Fsync::Never }).unwrap();
    HashMap::from([(NAME.to_owned(), DiskBuffer { spool, points: Arc::new(ObservationPoints::default()) })])
}

/// One run, whose flows are told from those of others by `agent`.
struct Run<'a> {
    agent: &'a str,
    folder: &'a Path,
    bytes: u64,
    receiver: &'a Receiver,
    queue: usize,
    packets: u64,
}

impl<'a> Run<'a> {
    /// Of records for which there is room wherever they wait.
    fn roomy(folder: &'a Path, receiver: &'a Receiver) -> Self {
        Self { agent: "", folder, bytes: 64 * MIB, receiver, queue: 100_000, packets: 20_000 }
    }

    fn stages<const LIVE: bool>(&self) -> Stages<Synthetic<LIVE>> {
        Stages {
            exporters: vec![Box::new(self.receiver.clone())],
            buffers: buffer(self.folder, self.bytes),
            output_queue_capacity: self.queue,
            agent_id: self.agent.to_owned(),
            journal: None,
            ..stages(Synthetic::new(self.packets, u64::MAX), &Collected::default())
        }
    }

    /// Live, until `done`, which is asked with the book of the moment.
    fn live(&self, done: impl Fn(&OutputBook) -> bool + Send + 'static) -> OutputBook {
        let running = start(&impatient(), &short_lived(), self.stages::<true>()).unwrap();
        let observer = running.observer();
        let test = std::thread::spawn(move || until(&observer, done));
        let outcome = running.wait(|| test.is_finished());
        test.join().unwrap();
        book(&outcome)
    }
}

fn until(observer: &Observer, done: impl Fn(&OutputBook) -> bool) {
    let began = Instant::now();
    loop {
        let statistics = observer.snapshot(Duration::from_secs(60)).unwrap();
        let book = &statistics.outputs[0].1;
        assert!(book.balances(), "{book:?}");
        if done(book) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{book:#?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn book<S>(outcome: &Outcome<S>) -> OutputBook {
    assert!(outcome.failures.is_empty() && !outcome.timed_out, "{:?}", outcome.failures);
    assert!(outcome.statistics.ledger.balances(), "{:#?}", outcome.statistics.ledger);
    let book = outcome.statistics.outputs[0].1.clone();
    assert!(book.balances() && book.queued == Amount::default(), "{book:#?}");
    book
}

fn dropped(book: &OutputBook) -> u64 {
    book.dropped.values().map(|dropped| dropped.records).sum()
}

/// Where packets come faster than the disk takes records, the queue may be full before that is.
fn no_room(book: &OutputBook, why: &str) {
    assert!(book.dropped.keys().all(|reason| [why, "queue_full"].contains(reason)), "{book:?}");
    assert!(book.dropped[why].records > 10_000, "{book:?}");
}

const MIB: u64 = 1 << 20;

#[test]
fn a_receiver_that_is_away_over_a_restart_gets_everything() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver { holds: 100, ..Receiver::default() };
    receiver.away.store(true, Ordering::Release);
    let run = |agent, packets| Run {
        agent,
        folder: folder.path(),
        bytes: 64 * MIB,
        receiver: &receiver,
        queue: 100_000,
        packets,
    };
    let first = run("first", 20_000).live(|book| book.spooled.records >= 15_000);
    assert_eq!((first.delivered.records, first.recovered.records), (0, 0));
    assert_eq!((first.spooled, first.handed.records), (first.handed, 20_000), "{first:?}");

    // It comes back while the next one runs.
    let back = receiver.away.clone();
    let second = run("second", 5_000).live(move |book| {
        if book.spooled.records > 23_000 {
            back.store(false, Ordering::Release);
        }
        book.delivered.records > 24_000
    });
    assert_eq!((second.recovered, second.handed.records), (first.spooled, 5_000));
    assert_eq!((second.delivered.records, second.spooled.records), (25_000, 0), "{second:?}");
    assert!(second.dropped.is_empty());
    assert_eq!(receiver.different().len(), 25_000);
}

/// All records of a flow come in order while nothing goes wrong, each once.
#[test]
fn records_come_in_order_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver { holds: 100, ..Receiver::default() };
    let run =
        Run { agent: "", folder: folder.path(), bytes: MIB, receiver: &receiver, queue: 500, packets: 0 };
    let flow = FlowConfig { active_timeout: Interval::seconds(1), ..FlowConfig::default() };
    let stages = Stages { source: Synthetic::<false>::new(100_000, 10), ..run.stages() };
    let book = book(&start(&config(2, 1), &flow, stages).unwrap().wait(|| false));
    assert_eq!((book.delivered, book.spooled.records, dropped(&book)), (book.handed, 0, 0));
    let mut next = HashMap::new();
    let received = receiver.received.lock().unwrap();
    for record in &*received {
        let sequence = next.entry(record.id).or_insert(0);
        assert_eq!(record.sequence, *sequence);
        *sequence += 1;
    }
    assert!(received.len() as u64 == book.handed.records && received.len() > 900, "{}", received.len());
}

/// A replay waits for room on the disk as it does for room in memory, whichever thread waits.
#[test]
fn a_replay_that_waits_loses_nothing_in_a_small_buffer() {
    for config in [config(2, 1), in_reader()] {
        let folder = tempfile::tempdir().unwrap();
        let receiver = Receiver::default();
        let run = Run {
            agent: "",
            folder: folder.path(),
            bytes: 1 << 17,
            receiver: &receiver,
            queue: 300,
            packets: 30_000,
        };
        let outcome = start(&config, &short_lived(), run.stages::<false>()).unwrap().wait(|| false);
        assert_settled(&outcome);
        let book = book(&outcome);
        assert_eq!((book.delivered.records, dropped(&book), book.spooled.records), (30_000, 0, 0));
        assert_eq!(receiver.different().len(), 30_000);
    }
}

#[test]
fn what_has_no_room_at_the_bound_is_counted_and_the_rest_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::default();
    receiver.away.store(true, Ordering::Release);
    let run = Run {
        agent: "",
        folder: folder.path(),
        bytes: 1 << 17,
        receiver: &receiver,
        queue: 500,
        packets: 50_000,
    };
    let back = receiver.away.clone();
    let book = run.live(move |book| {
        if book.dropped.get("buffer_full").is_some_and(|dropped| dropped.records > 10_000) {
            back.store(false, Ordering::Release);
        }
        book.delivered.records > 500 && book.spooled.records + book.queued.records == 0
    });
    no_room(&book, "buffer_full");
    assert_eq!(receiver.different().len() as u64, book.delivered.records, "what is delivered has come");
}

/// Until it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        use rustix::mount::{MountFlags, mount};
        let folder = tempfile::tempdir().unwrap();
        mount("tmpfs", folder.path(), "tmpfs", MountFlags::empty(), Some(c"size=256k")).ok()?;
        Some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_is_counted_and_used_again_when_it_is_not() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!(
            "SKIP a_full_disk_is_counted_and_used_again_when_it_is_not: the privilege to mount a tmpfs"
        );
        return;
    };
    let folder = disk.0.path().join("buffer");
    let receiver = Receiver::default();
    receiver.away.store(true, Ordering::Release);
    let run =
        Run { agent: "", folder: &folder, bytes: 64 * MIB, receiver: &receiver, queue: 500, packets: 50_000 };
    let back = receiver.away.clone();
    let book = run.live(move |book| {
        if book.dropped.get("buffer_write_failed").is_some_and(|dropped| dropped.records > 10_000) {
            back.store(false, Ordering::Release);
        }
        book.delivered.records > 500 && book.spooled.records + book.queued.records == 0
    });
    no_room(&book, "buffer_write_failed");
    assert_eq!(receiver.different().len() as u64, book.delivered.records);
}

/// A disk that can't be written costs the buffer, not the records.
#[test]
fn an_output_without_a_disk_gets_its_records_from_memory() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("buffer");
    let receiver = Receiver { holds: 10, fails_at_first: 50, ..Receiver::default() };
    let run =
        Run { agent: "", folder: &folder, bytes: 64 * MIB, receiver: &receiver, queue: 500, packets: 30_000 };
    let stages = run.stages::<false>();
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "in the way").unwrap();
    let book = book(&start(&config(2, 1), &short_lived(), stages).unwrap().wait(|| false));
    assert_eq!((book.delivered.records, dropped(&book), book.spooled.records), (30_000, 0, 0));
    assert_eq!(receiver.different().len(), 30_000);
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "segment"));
    files.sort();
    files
}

#[test]
fn what_is_damaged_or_gone_is_counted_to_the_record() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::default();
    receiver.away.store(true, Ordering::Release);
    let run = |agent, packets| Run {
        agent,
        folder: folder.path(),
        bytes: MIB,
        receiver: &receiver,
        queue: 100_000,
        packets,
    };
    let first = run("first", 6_000).live(|book| book.spooled.records >= 5_900);
    let files = segments(folder.path());
    assert!(files.len() > 2, "{}", files.len());
    // A segment is gone, of another an entry is damaged, and the last entry of all is torn.
    fs::remove_file(&files[1]).unwrap();
    let last = fs::File::options().write(true).open(files.last().unwrap()).unwrap();
    last.set_len(last.metadata().unwrap().len() - 10).unwrap();
    let mut bytes = fs::read(&files[0]).unwrap();
    bytes[72 + 80 + 10] ^= 1;
    fs::write(&files[0], bytes).unwrap();
    receiver.away.store(false, Ordering::Release);
    let second = run("second", 100).live(|book| book.spooled.records + book.queued.records == 0);
    assert_eq!(second.recovered, first.spooled);
    assert_eq!(second.dropped.keys().collect::<Vec<_>>(), [&"buffer_damaged"]);
    let damaged = second.dropped["buffer_damaged"].records;
    assert!(damaged > 100 && damaged < 5_900, "{damaged}");
    assert_eq!(second.delivered.records + damaged, 6_000 + second.handed.records);
    assert_eq!(receiver.different().len() as u64, second.delivered.records);
}

/// What is on disk when an output's thread dies is delivered by the next run.
#[test]
fn an_output_that_panics_loses_nothing_that_is_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver { panics_at: Some(3), ..Receiver::default() };
    let run = |agent, receiver| Run {
        agent,
        folder: folder.path(),
        bytes: 64 * MIB,
        receiver,
        queue: 100_000,
        packets: 10_000,
    };
    let stages = run("first", &receiver).stages::<false>();
    let outcome = start(&config(2, 1), &short_lived(), stages).unwrap().wait(|| false);
    assert_eq!(outcome.panicked, ["out-receiver"]);
    let first = &outcome.statistics.outputs[0].1;
    assert!(first.balances() && first.spooled.records > 0 && first.dropped.is_empty(), "{first:?}");
    let after = Receiver { received: Arc::clone(&receiver.received), ..Receiver::default() };
    let stages = run("second", &after).stages::<false>();
    let second = book(&start(&config(2, 1), &short_lived(), stages).unwrap().wait(|| false));
    assert_eq!((second.recovered, second.spooled.records), (first.spooled, 0));
    let handed = first.handed.records + second.handed.records;
    assert_eq!(receiver.different().len() as u64, handed);
}

/// More than a test lasts.
const LONG: Duration = Duration::from_secs(60);

/// A live run with outputs that come and go: one that delivers, and at first the one with the disk buffer.
fn changing(
    run: &Run<'_>,
    exporter: Option<Box<dyn Exporter>>,
    test: impl FnOnce(&Observer, &Tuning) + Send + 'static,
) -> Outcome<Synthetic<true>> {
    let mut stages = run.stages::<true>();
    if exporter.is_none() {
        stages.buffers = HashMap::new();
    }
    stages.exporters = vec![Box::new(Collected::default())];
    stages.exporters.extend(exporter);
    let running = start(&impatient(), &short_lived(), stages).unwrap();
    let (observer, tuning) = (running.observer(), running.tuning());
    let test = std::thread::spawn(move || test(&observer, &tuning));
    let outcome = running.wait(|| test.is_finished());
    test.join().unwrap();
    assert_settled(&outcome);
    outcome
}

/// Its book, once it is so; at each look all balance.
fn once(observer: &Observer, is_so: impl Fn(&OutputBook) -> bool) -> OutputBook {
    let began = Instant::now();
    loop {
        let statistics = observer.snapshot(LONG).unwrap();
        assert!(statistics.outputs.iter().all(|(_, book)| book.balances()), "{:?}", statistics.outputs);
        let book = statistics.outputs.into_iter().find_map(|(name, book)| (name == NAME).then_some(book));
        let book = book.unwrap_or_default();
        if is_so(&book) {
            return book;
        }
        assert!(began.elapsed() < LONG, "{book:#?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// With this folder, once it is free: on a busy machine one that has gone may have been left to itself, and end a moment later.
fn come(exporter: impl Exporter + 'static, folder: &Path) -> Vec<NewOutput> {
    let began = Instant::now();
    let settings = SpoolSettings { bytes: 64 * MIB, fsync: Fsync::Never };
    let spool = loop {
        match Spool::open(folder, settings) {
            Ok(spool) => break spool,
            Err(error) => assert!(began.elapsed() < LONG, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let buffer = Some(DiskBuffer { spool, points: Arc::default() });
    vec![NewOutput { exporter: Box::new(exporter), after: Vec::new(), buffer }]
}

fn leave(tuning: &Tuning, patience: Duration) {
    tuning.change_outputs(&[NAME.to_owned()], Vec::new(), patience).unwrap();
}

fn until_gone(tuning: &Tuning) {
    let began = Instant::now();
    while !tuning.leaving_outputs().is_empty() {
        assert!(began.elapsed() < LONG, "it does not go");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn last_book<S>(outcome: &Outcome<S>) -> OutputBook {
    outcome.statistics.outputs.iter().find(|(name, _)| name == NAME).unwrap().1.clone()
}

/// What it can't deliver in time stays in its folder, which is free, and is the next one's: once in the books.
#[test]
fn a_removed_output_leaves_on_disk_what_it_has_and_the_next_one_delivers_it() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver { holds: 100, ..Receiver::default() };
    receiver.away.store(true, Ordering::Release);
    let run = Run::roomy(folder.path(), &receiver);
    let (path, theirs) = (folder.path().to_owned(), receiver.clone());
    let outcome = changing(&run, Some(Box::new(receiver.clone())), move |observer, tuning| {
        once(observer, |book| book.spooled.records >= 10_000);
        leave(tuning, Duration::from_millis(300));
        until_gone(tuning);
        let left = once(observer, |_| true);
        assert_eq!((left.spooled, left.delivered.records, dropped(&left)), (left.handed, 0, 0), "{left:?}");
        // Another, which can't deliver it either, and one that can.
        tuning.change_outputs(&[], come(theirs.clone(), &path), LONG).unwrap();
        let again = once(observer, |_| true);
        assert!(again.spooled.records >= left.spooled.records && again.recovered == Amount::default());
        leave(tuning, Duration::ZERO);
        until_gone(tuning);
        theirs.away.store(false, Ordering::Release);
        tuning.change_outputs(&[], come(theirs.clone(), &path), LONG).unwrap();
        let delivered = once(observer, |book| book.spooled.records + book.queued.records == 0);
        assert!(delivered.delivered.records >= left.spooled.records, "{delivered:?}");
    });
    let book = last_book(&outcome);
    assert_eq!((book.delivered, book.spooled, book.recovered), (book.handed, <_>::default(), <_>::default()));
    assert_eq!(receiver.different().len() as u64, book.handed.records);
}

/// One that can deliver in time leaves nothing behind.
#[test]
fn a_removed_output_delivers_what_is_on_disk_in_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Collected { name: NAME, ..Collected::default() };
    slow.stuck.store(true, Ordering::Release);
    let receiver = Receiver::default();
    let run = Run::roomy(folder.path(), &receiver);
    let (stuck, path) = (slow.stuck.clone(), folder.path().to_owned());
    let outcome = changing(&run, Some(Box::new(slow.clone())), move |observer, tuning| {
        once(observer, |book| book.spooled.records >= 10_000);
        leave(tuning, LONG);
        let settings = SpoolSettings { bytes: MIB, fsync: Fsync::Never };
        assert!(matches!(Spool::open(&path, settings), Err(SpoolError::InUse { .. })), "it is still its own");
        stuck.store(false, Ordering::Release);
        until_gone(tuning);
    });
    let book = last_book(&outcome);
    assert_eq!((book.delivered, book.spooled), (book.handed, Amount::default()));
    assert_eq!(slow.records.lock().unwrap().len() as u64, book.handed.records);
    let settings = SpoolSettings { bytes: MIB, fsync: Fsync::Never };
    assert_eq!(Spool::open(folder.path(), settings).unwrap().spooled(), Amount::default());
}

/// One that is too slow for its time leaves the rest.
#[test]
fn a_removed_output_that_is_slow_ends_in_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver { takes: Duration::from_millis(50), ..Receiver::default() };
    let run = Run::roomy(folder.path(), &receiver);
    let (path, theirs) = (folder.path().to_owned(), receiver.clone());
    let outcome = changing(&run, Some(Box::new(receiver.clone())), move |observer, tuning| {
        once(observer, |book| book.spooled.records >= 10_000);
        leave(tuning, Duration::from_millis(100));
        until_gone(tuning);
        let fast = Receiver { takes: Duration::ZERO, ..theirs };
        let next = come(fast, &path);
        let left = next[0].buffer.as_ref().unwrap().spool.spooled();
        assert!(left.records > 5_000, "it went on: {left:?}");
        tuning.change_outputs(&[], next, LONG).unwrap();
        once(observer, |book| book.spooled.records + book.queued.records == 0);
    });
    let book = last_book(&outcome);
    assert_eq!((book.delivered, book.recovered), (book.handed, Amount::default()));
    assert_eq!(receiver.different().len() as u64, book.handed.records);
}

/// One that hangs is left to itself: its records are on disk, also those that had waited in its queue.
#[test]
fn a_removed_output_that_hangs_has_its_records_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let stuck = Collected { name: NAME, ..Collected::default() };
    stuck.stuck.store(true, Ordering::Release);
    let receiver = Receiver::default();
    let run = Run::roomy(folder.path(), &receiver);
    let (lets_go, path) = (stuck.stuck.clone(), folder.path().to_owned());
    let outcome = changing(&run, Some(Box::new(stuck)), move |observer, tuning| {
        once(observer, |book| book.spooled.records >= 10_000);
        let (began, patience) = (Instant::now(), Duration::from_millis(300));
        leave(tuning, patience);
        until_gone(tuning);
        assert!(began.elapsed() >= patience, "it has its time");
        let left = once(observer, |_| true);
        assert_eq!((left.spooled, left.delivered.records, dropped(&left)), (left.handed, 0, 0), "{left:?}");
        let settings = SpoolSettings { bytes: MIB, fsync: Fsync::Never };
        assert!(matches!(Spool::open(&path, settings), Err(SpoolError::InUse { .. })), "it has its folder");
        lets_go.store(false, Ordering::Release);
    });
    let book = last_book(&outcome);
    assert_eq!((book.spooled, book.delivered.records), (book.handed, 0), "what it does then counts nowhere");
}

/// One that comes while records flow delivers what an earlier run has left.
#[test]
fn an_output_that_comes_delivers_what_an_earlier_run_has_left() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver { holds: 100, ..Receiver::default() };
    receiver.away.store(true, Ordering::Release);
    let run = |agent, packets| Run { agent, packets, ..Run::roomy(folder.path(), &receiver) };
    let first = run("first", 10_000).live(|book| book.spooled.records >= 5_000);
    receiver.away.store(false, Ordering::Release);
    let (path, theirs) = (folder.path().to_owned(), receiver.clone());
    // Its stages open a folder: another.
    let elsewhere = tempfile::tempdir().unwrap();
    let second = Run { folder: elsewhere.path(), ..run("second", 10_000) };
    let outcome = changing(&second, None, move |observer, tuning| {
        tuning.change_outputs(&[], come(theirs, &path), LONG).unwrap();
        once(observer, |book| book.recovered.records > 0 && book.spooled.records + book.queued.records == 0);
    });
    let book = last_book(&outcome);
    let mut came = book.handed;
    came += book.recovered;
    assert_eq!((book.recovered, book.delivered), (first.spooled, came));
    assert_eq!(receiver.different().len() as u64, came.records);
}
