//! Everything that can go wrong in a pipeline, at once and at random: workers that panic, hang and loop, outputs that panic, hang,
//! loop and fail, disks that are small, channels of any size, flow storms, memory and time that are short, settings that change, workers
//! and outputs that come and go. Whatever happens, the run ends, its books balance to the packet, and no flow is split.
//!
//! For a minute; `CHAOS_SECONDS=600` for longer. A run is made from a number, which a failure names: `CHAOS_SEED=number`
//! does that one again. What happens when is bound to packets; threads are not.
#![cfg(feature = "hold")]
#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

#[path = "parts/bug.rs"]
mod bug;
#[path = "parts/many_records.rs"]
mod many_records;
mod parts;
#[path = "parts/touchy.rs"]
mod touchy;

use many_records::{chatty, sorted};
use mermin_flow::{Amount, FlowConfig, FlowEvent, FlowRecord, Interval, ObservationPoints};
use mermin_pipeline::{
    BreakerConfig, Budget, ChangeError, DiskBuffer, Hold, NewOutput, Observer, Outcome, PipelineConfig,
    Staffing, Stages, Tuning, Usage, Workers, start,
};
use mermin_spool::{Fsync, Spool, SpoolError, SpoolSettings};
use parts::{Collected, Synthetic, assert_settled, config, count, in_reader, stages};
use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use touchy::Touchy;

const GIB: u64 = 1 << 30;
/// More than any output stands still.
const PATIENCE: Interval = Interval(Duration::from_secs(100));

/// As many outputs misbehave.
const TOUCHY: usize = 3;

/// Numbers from a seed: splitmix64.
struct Dice(u64);

impl Dice {
    /// Below `n`.
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    fn chance(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// Flow workers stand still for so many milliseconds.
    Hold(u64),
    /// One of them does.
    HoldOne(u64),
    /// They loop for so many.
    Loop(u64),
    /// From now on they panic at every so-manieth moment; 0: no more.
    PanicEvery(u64),
    /// So many flow workers are wanted.
    Want(usize),
    WantEnrichment(usize),
    /// Books are looked at.
    Look,
    /// An output hangs for so many milliseconds.
    Hang(usize, u64),
    /// An output loops for so many.
    LoopOutput(usize, u64),
    /// An output's receiver is away for so many milliseconds.
    Away(usize, u64),
    /// Memory is short for so many milliseconds.
    Tight(u64),
    /// Processor time is: at last packets are sampled.
    Busy(u64),
    /// The active timeout becomes so many milliseconds.
    ActiveTimeout(u64),
    /// So many records may wait for an output.
    Room(usize),
    /// An output is let be after so many failures; never with 0.
    Breaker(u32),
    /// An output goes if it is there, and comes if it isn't.
    ComeOrGo(usize),
    /// Another one comes in an output's place, and begins behind it.
    Replace(usize),
}

/// One run, made from its seed.
#[derive(Debug)]
struct Plan {
    live: bool,
    pipeline: PipelineConfig,
    flow: FlowConfig,
    packets: u64,
    flows: u64,
    queue: usize,
    outputs: Vec<Touchy>,
    /// Bytes of their disk buffers.
    disks: Vec<Option<u64>>,
    events: VecDeque<(u64, Event)>,
}

impl Plan {
    fn of(seed: u64) -> Self {
        let dice = &mut Dice(seed);
        let live = dice.chance(2);
        let channel = dice.one_of(&[1, 64, 1_000, 10_000]);
        // Through a channel for a single one they go slowly.
        let packets = if channel == 1 { 3_000 } else { 10_000 + dice.below(40_000) };
        let breaker = BreakerConfig {
            failures: NonZeroU32::new(1 + dice.below(5) as u32).unwrap(),
            slow: Interval(Duration::from_millis(20 + dice.below(200))),
            pause: Interval(Duration::from_millis(10)),
            pause_max: Interval(Duration::from_millis(100)),
            ..BreakerConfig::default()
        };
        let (least, more) = (1 + dice.below(2), dice.below(3));
        let pipeline = PipelineConfig {
            packet_channel_capacity: count(channel),
            coalescing_capacity: count(dice.one_of(&[16, 1_000, 65_536])),
            enrichment_channel_capacity: count(dice.one_of(&[1, 64, 1_000])),
            flow_workers: Workers::Between(count(least as usize), count((least + more) as usize)),
            enable_backpressure: !dice.chance(4),
            shutdown_timeout: PATIENCE,
            enable_metrics: dice.chance(2),
            breaker,
            enrichment_workers: Workers::Between(count(1), count(1 + dice.below(3) as usize)),
            ..config(1, 1)
        };
        let flow = FlowConfig { table_capacity: count(dice.one_of(&[64, 1_000, 100_000])), ..chatty() };
        let flows = dice.one_of(&[1, 10, 1_000, packets / 2, packets]);
        let outputs = (0..TOUCHY).map(|n| Touchy {
            name: format!("touchy-{n}"),
            poison: dice.chance(3).then(|| dice.below(16) as u32),
            // Not two calls in a row.
            moods: (0..dice.below(4)).map(|_| 2 * dice.below(48) as usize).collect(),
            holds: dice.below(40) as usize,
            ..Touchy::default()
        });
        let outputs = outputs.collect();
        let disks = (0..TOUCHY).map(|_| dice.chance(2).then(|| dice.one_of(&[1 << 21, 1 << 26]))).collect();
        // What is to give the same records as without all that keeps its settings.
        let compared = !live && pipeline.enable_backpressure;
        let mut events: Vec<_> =
            (0..dice.below(30)).map(|_| (dice.below(packets), event(dice, !compared))).collect();
        events.sort_by_key(|(packet, _)| *packet);
        let queue = dice.one_of(&[16, 300, 10_000]);
        Self { live, pipeline, flow, packets, flows, queue, outputs, disks, events: events.into() }
    }

    fn source<const LIVE: bool>(&self) -> Synthetic<LIVE> {
        Synthetic::new(self.packets, self.flows)
    }
}

fn event(dice: &mut Dice, changes_records: bool) -> Event {
    let output = dice.below(TOUCHY as u64) as usize;
    match dice.below(if changes_records { 17 } else { 14 }) {
        0 => Event::Hold(dice.below(100)),
        1 => Event::PanicEvery(dice.one_of(&[0, 5_003, 20_011])),
        2 => Event::Want(1 + dice.below(5) as usize),
        3 => Event::Look,
        4 => Event::Hang(output, dice.below(300)),
        5 => Event::Away(output, dice.below(300)),
        6 => Event::Room(dice.one_of(&[1, 16, 300, 10_000])),
        7 => Event::Breaker(dice.below(4) as u32),
        8 => Event::ComeOrGo(output),
        9 => Event::Replace(output),
        10 => Event::WantEnrichment(1 + dice.below(4) as usize),
        11 => Event::Loop(dice.below(60)),
        12 => Event::LoopOutput(output, dice.below(150)),
        13 => Event::HoldOne(dice.below(100)),
        14 => Event::Tight(dice.below(300)),
        15 => Event::Busy(dice.below(600)),
        _ => Event::ActiveTimeout(dice.one_of(&[10, 100, 10_000])),
    }
}

/// Has what is due happen; ends with the source.
struct Fate {
    hold: Hold,
    staffing: Staffing,
    tuning: Tuning,
    settings: (PipelineConfig, FlowConfig),
    is_tight: Arc<AtomicBool>,
    is_busy: Arc<AtomicBool>,
    observer: Observer,
    switches: Vec<[Arc<AtomicBool>; 3]>,
    /// Those that misbehave, and whether their records wait on disk: then they stay.
    outputs: Vec<(Touchy, Option<u64>)>,
    /// Where their records wait, each in a folder of its name.
    folder: PathBuf,
    /// What is to be let go, and when.
    until: Vec<(Instant, Arc<AtomicBool>)>,
    held_until: Option<Instant>,
    looping_until: Option<Instant>,
}

impl Fate {
    fn run(mut self, due: &mpsc::Receiver<Event>) {
        loop {
            match due.recv_timeout(Duration::from_millis(1)) {
                Ok(event) => self.act(event),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            let now = Instant::now();
            self.held_until.take_if(|until| *until <= now).into_iter().for_each(|_| self.let_go());
            self.looping_until
                .take_if(|until| *until <= now)
                .into_iter()
                .for_each(|_| self.hold.loop_on(false));
            self.until
                .extract_if(.., |(until, _)| *until <= now)
                .for_each(|(_, up)| up.store(false, Ordering::Release));
        }
        self.let_go();
        self.hold.loop_on(false);
        self.hold.panic_every(0);
        self.switches.iter().flatten().for_each(|up| up.store(false, Ordering::Release));
    }

    fn let_go(&self) {
        self.hold.set(false);
        self.hold.one(false);
    }

    fn act(&mut self, event: Event) {
        let after = |millis| Instant::now() + Duration::from_millis(millis);
        match event {
            Event::Hold(millis) => {
                self.hold.set(true);
                self.held_until = Some(after(millis));
            }
            Event::HoldOne(millis) => {
                self.hold.one(true);
                self.held_until = Some(after(millis));
            }
            Event::Loop(millis) => {
                self.hold.loop_on(true);
                self.looping_until = Some(after(millis));
            }
            Event::PanicEvery(n) => self.hold.panic_every(n),
            Event::Want(workers) => self.staffing.want(workers),
            Event::WantEnrichment(workers) => self.staffing.want_enrichment(workers),
            Event::Look => {
                // While all stands still there is no answer; what there is must balance.
                if let Some(statistics) = self.observer.snapshot(Duration::from_millis(200)) {
                    assert!(statistics.ledger.balances(), "{:#?}", statistics.ledger);
                    for (name, book) in &statistics.outputs {
                        assert!(book.balances(), "{name}: {book:?}");
                    }
                }
            }
            Event::Hang(output, millis) => self.raise(output, 0, after(millis)),
            Event::Away(output, millis) => self.raise(output, 1, after(millis)),
            Event::LoopOutput(output, millis) => self.raise(output, 2, after(millis)),
            Event::Tight(millis) => {
                self.is_tight.store(true, Ordering::Release);
                self.until.push((after(millis), Arc::clone(&self.is_tight)));
            }
            Event::Busy(millis) => {
                self.is_busy.store(true, Ordering::Release);
                self.until.push((after(millis), Arc::clone(&self.is_busy)));
            }
            Event::ComeOrGo(output) | Event::Replace(output) => {
                self.change(output, matches!(event, Event::Replace(_)));
            }
            Event::Room(records) => self.tuning.set_output_queue_capacity(count(records)),
            Event::Breaker(failures) => {
                let (pipeline, flow) = &mut self.settings;
                let breaker = &mut pipeline.breaker;
                breaker.enabled = failures > 0;
                breaker.failures = NonZeroU32::new(failures).unwrap_or(breaker.failures);
                self.tuning.change(pipeline, flow);
            }
            Event::ActiveTimeout(millis) => {
                let (pipeline, flow) = &mut self.settings;
                flow.active_timeout = Interval(Duration::from_millis(millis));
                self.tuning.change(pipeline, flow);
            }
        }
    }

    fn change(&mut self, output: usize, replaces: bool) {
        let (output, disk) = &self.outputs[output];
        let disk = *disk;
        let is_there = self.observer.pulse().outputs.iter().any(|one| one.name == output.name);
        let name = vec![output.name.clone()];
        let leave = if is_there { name.clone() } else { Vec::new() };
        let buffer = disk.map(|bytes| try_open(&self.folder, &output.name, bytes));
        // Its folder is that of one which is there, or on its way out.
        let is_taken = matches!(buffer, Some(None));
        let exporter = Box::new(output.clone());
        let come = ((!is_there || replaces) && !is_taken).then(|| NewOutput {
            exporter,
            after: name,
            buffer: buffer.flatten(),
        });
        match self.tuning.change_outputs(&leave, come.into_iter().collect(), PATIENCE.0) {
            Ok(()) => {}
            // It comes to that before whoever wants this knows.
            Err(error) => assert!(matches!(error, ChangeError::Ending), "{error}"),
        }
    }

    fn raise(&mut self, output: usize, which: usize, until: Instant) {
        let up = &self.switches[output][which];
        up.store(true, Ordering::Release);
        self.until.push((until, Arc::clone(up)));
    }
}

/// Nothing where somebody has it.
fn try_open(folder: &Path, name: &str, bytes: u64) -> Option<DiskBuffer> {
    match Spool::open(&folder.join(name), SpoolSettings { bytes, fsync: Fsync::Never }) {
        Ok(spool) => Some(DiskBuffer { spool, points: Arc::new(ObservationPoints::default()) }),
        Err(SpoolError::InUse { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Runs it and checks what doesn't depend on how it went.
fn run<const LIVE: bool>(plan: &Plan, folder: &Path) -> (Outcome<Synthetic<LIVE>>, Vec<FlowRecord>) {
    let (healthy, hold) = (Collected::default(), Hold::default());
    let (due, events) = mpsc::sync_channel(plan.events.len() + 1);
    // Events are due by packets.
    let mut events_left = plan.events.clone();
    let tell = move |sent| {
        while events_left.front().is_some_and(|(packet, _)| *packet <= sent)
            && let Some((_, event)) = events_left.pop_front()
        {
            // Whoever acts on it may have ended.
            let _ = due.send(event);
        }
    };
    let source = Synthetic { before_poll: Some(Box::new(tell)), ..plan.source::<LIVE>() };
    let mut exporters: Vec<Box<dyn mermin_flow::Exporter>> = vec![Box::new(healthy.clone())];
    exporters.extend(plan.outputs.iter().map(|output| Box::new(output.clone()) as _));
    let buffers = plan.outputs.iter().zip(&plan.disks).filter_map(|(output, bytes)| {
        bytes.map(|bytes| (output.name.clone(), try_open(folder, &output.name, bytes).unwrap()))
    });
    let (is_tight, is_busy) = <(Arc<AtomicBool>, Arc<AtomicBool>)>::default();
    let budget = Budget {
        cpu: Some(1.0),
        memory: Some(GIB),
        sampling: mermin_pipeline::LOWEST_RATE,
        usage: {
            let (is_tight, is_busy) = (Arc::clone(&is_tight), Arc::clone(&is_busy));
            let memory = move || if is_tight.load(Ordering::Acquire) { 2 * GIB } else { GIB / 8 };
            let (mut cpu, mut looked) = (Duration::ZERO, Instant::now());
            Box::new(move || {
                let passed = looked.elapsed();
                looked += passed;
                cpu += if is_busy.load(Ordering::Acquire) { 2 * passed } else { passed / 8 };
                Usage { cpu, memory: memory(), ..Usage::default() }
            })
        },
        interval: Duration::from_millis(2),
    };
    let stages = Stages {
        exporters,
        buffers: buffers.collect::<HashMap<_, _>>(),
        output_queue_capacity: plan.queue,
        budget,
        hold: hold.clone(),
        ..stages(source, &healthy)
    };
    let running = start(&plan.pipeline, &plan.flow, stages).unwrap();
    let switches =
        plan.outputs.iter().map(|output| [&output.hangs, &output.away, &output.loops].map(Arc::clone));
    let fate = Fate {
        hold,
        staffing: running.staffing(),
        tuning: running.tuning(),
        settings: (plan.pipeline.clone(), plan.flow.clone()),
        is_tight,
        is_busy,
        observer: running.observer(),
        switches: switches.collect(),
        outputs: plan.outputs.iter().cloned().zip(plan.disks.iter().copied()).collect(),
        folder: folder.to_owned(),
        until: Vec::new(),
        held_until: None,
        looping_until: None,
    };
    let observer = running.observer();
    let fate = thread::spawn(move || fate.run(&events));
    let (began, mut ends) = (Instant::now(), false);
    let mut outcome = running.wait(|| {
        let pulse = observer.pulse();
        assert!(began.elapsed() < Duration::from_secs(100), "it does not end: {pulse:?}");
        ends |= LIVE && pulse.reader.packets == plan.packets;
        ends
    });
    // With the source goes what fate listens to.
    outcome.source.iter_mut().for_each(|source| source.before_poll = None);
    fate.join().unwrap();
    (outcome, sorted(&healthy))
}

/// What holds whatever happened.
fn check<S>(plan: &Plan, outcome: &Outcome<S>, records: &[FlowRecord]) {
    assert_settled(outcome);
    let ledger = &outcome.statistics.ledger;
    assert_eq!(ledger.seen.packets, plan.packets);
    let lost: u64 = ledger.lost.values().map(|lost| lost.packets).sum();
    assert_eq!(ledger.metered.packets + ledger.sampled_out.packets + lost, plan.packets);
    if !plan.live {
        assert_eq!(ledger.sampled_out.packets, 0);
    }
    let reasons: HashSet<_> = ledger.lost.keys().copied().collect();
    let allowed: &[&str] = if plan.pipeline.enable_backpressure { &[] } else { &["packet_channel_full"] };
    assert!(reasons.iter().all(|reason| allowed.contains(reason)), "{reasons:?}");
    for (name, book) in &outcome.statistics.outputs {
        let changes = |event: &(u64, Event)| match event.1 {
            Event::ComeOrGo(output) => plan.outputs[output].name == *name,
            // Nothing comes in its place: the folder is its own.
            Event::Replace(output) => plan.outputs[output].name == *name && plan.disks[output].is_some(),
            _ => false,
        };
        let is_there_always = !plan.events.iter().any(changes);
        let handed = book.handed.packets;
        assert!(book.balances() && handed <= ledger.released.packets, "{name}: {book:?}");
        assert!(handed == ledger.released.packets || !is_there_always, "{name}: {book:?}");
    }
    // Each flow's records follow each other, carry what its totals say, and end once.
    let mut flows = HashMap::<_, (Option<u32>, u64, bool)>::new();
    let healthy = &outcome.statistics.outputs[0].1;
    for record in records {
        let (sequence, packets, ended) = flows.entry(record.id).or_default();
        assert!(!*ended && sequence.is_none_or(|before| before < record.sequence), "{record:?}");
        *packets += record.forward.delta.packets + record.reverse.delta.packets;
        if healthy.dropped.is_empty() {
            assert_eq!(*packets, record.forward.total.packets + record.reverse.total.packets);
        }
        (*sequence, *ended) = (Some(record.sequence), record.event == FlowEvent::End);
    }
    for output in &plan.outputs {
        let received = output.received.lock().unwrap();
        let different: HashSet<_> = received.iter().collect();
        let (_, book) = outcome.statistics.outputs.iter().find(|(name, _)| *name == output.name).unwrap();
        assert!(different.len() as u64 <= book.handed.records);
        assert_eq!(book.recovered, Amount::default(), "no earlier run has left anything");
        if !plan.disks.iter().any(Option::is_some) {
            assert_eq!(received.len(), different.len(), "{}: none comes twice", output.name);
        }
    }
}

/// As one thread that nothing happens to would have it.
fn undisturbed(plan: &Plan) -> Vec<FlowRecord> {
    let collected = Collected::default();
    let running = start(&in_reader(), &plan.flow, stages(plan.source::<false>(), &collected)).unwrap();
    assert_settled(&running.wait(|| false));
    sorted(&collected)
}

/// Packets that were sampled out.
fn one(seed: u64) -> u64 {
    let (plan, folder) = (Plan::of(seed), tempfile::tempdir().unwrap());
    if plan.live {
        let (outcome, records) = run::<true>(&plan, folder.path());
        check(&plan, &outcome, &records);
        outcome.statistics.ledger.sampled_out.packets
    } else {
        let (outcome, records) = run::<false>(&plan, folder.path());
        check(&plan, &outcome, &records);
        if plan.pipeline.enable_backpressure {
            assert!(records == undisturbed(&plan), "not the same records as without all that");
        }
        0
    }
}

#[test]
fn whatever_happens_books_balance_and_flows_are_whole() {
    // A page for each panic would hide what fails.
    mermin_pipeline::contained_panics_go_to_the_log();
    let variable = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    if let Some(seed) = variable("CHAOS_SEED") {
        one(seed);
        return;
    }
    let seconds = variable("CHAOS_SECONDS").unwrap_or(60);
    let first = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let (began, mut runs, mut sampled) = (Instant::now(), 0, 0);
    while began.elapsed() < Duration::from_secs(seconds) {
        let seed = first.wrapping_add(runs);
        match std::panic::catch_unwind(|| one(seed)) {
            Ok(left_out) => sampled += u64::from(left_out > 0),
            Err(payload) => {
                eprintln!("after {runs} runs: CHAOS_SEED={seed} does this again, as far as threads allow");
                std::panic::resume_unwind(payload);
            }
        }
        runs += 1;
    }
    println!("{runs} runs in {:.0?}, {sampled} of them with packets sampled out", began.elapsed());
    assert!(runs > 3, "too few to tell anything");
    // A short time may have no run that does.
    assert!(seconds < 60 || sampled > 0, "nothing was sampled");
}
