//! The agent's budget: cores and memory that it may take, and what it does without when it takes more.
//!
//! A task looks once a second. Processor time over its budget takes steps up a ladder (`shedding.rs`), each of which gives
//! up some resolution and no truth: periodic reports are put off, records go without names, and at last packets are sampled
//! (`sampler.rs`). Memory near its budget puts reports off and makes the bounds smaller. The steps are flags that the stages
//! look at between batches, so nothing waits for anything.
//!
//! A replay takes the time that it needs: it has no budget of processor time.

use crate::observer::Shared;
use crate::shed::{Shed, Step};
use crate::shedding::{Ladder, OVER};
use mermin_flow::Sampling;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Looks over the budget before a step. Memory that is short doesn't wait.
const LOOKS_UP: [u32; 2] = [2, 1];
/// Of the memory budget: beyond it the kernel may end the process, so the steps come before.
const MEMORY_SHARE: f64 = 0.9;
/// A control group has ten periods a second as a rule; kept from running in so many of them, it wants more than it has.
const THROTTLED_OFTEN: u64 = 5;
/// How often the bounds can be halved.
pub(crate) const HALVINGS: u8 = 3;
/// Of packets that are sampled, at least one in so many is metered; rates are 1:2, 1:4 and so on down to it. Below that
/// little is seen of most flows, and less would hardly be saved: reading is what remains.
pub const LOWEST_RATE: u32 = 64;
const _: () = assert!(
    LOWEST_RATE.is_power_of_two() && LOWEST_RATE.ilog2() <= Sampling::EXPONENT_MAX as u32,
    "an observation has room for the rate",
);

/// What a flow takes in the tables, its place in index, timers and order of eviction included; an observation that waits in
/// the reader; a record that waits for an output. Bytes, rounded up.
const FLOW: u64 = 384;
const WAITING: u64 = 192;
const RECORD: u64 = 640;

/// What the process takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time so far, all threads together.
    pub cpu: Duration,
    /// Bytes at the moment.
    pub memory: u64,
    /// Periods so far in which its control group was kept from running.
    pub throttled: u64,
}

/// What the agent may take, and how to find out what it takes.
pub struct Budget {
    /// Cores.
    pub cpu: Option<f64>,
    /// Bytes.
    pub memory: Option<u64>,
    /// One packet in so many is metered at the lowest rate: a power of two up to [`LOWEST_RATE`]; with 1 all are.
    pub sampling: u32,
    /// Tells what the process takes.
    pub usage: Box<dyn FnMut() -> Usage + Send>,
    /// Between two looks.
    pub interval: Duration,
}

/// No limits.
impl Default for Budget {
    fn default() -> Self {
        Self {
            cpu: None,
            memory: None,
            sampling: LOWEST_RATE,
            usage: Box::new(Usage::default),
            interval: Duration::from_secs(1),
        }
    }
}

/// What is known of a budget.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BudgetPulse {
    /// Cores or bytes that may be taken; absent where nothing limits them.
    pub budget: Option<f64>,
    /// Cores or bytes that were taken at the last look; absent where nobody looks.
    pub taken: Option<f64>,
    /// Steps taken at the moment.
    pub step: u64,
    /// Steps that there are.
    pub steps: u64,
    /// Steps taken so far, in whichever direction.
    pub changes: u64,
    /// What the agent does without, in words.
    pub without: Vec<String>,
}

/// Both budgets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BudgetsPulse {
    /// Processor time.
    pub cpu: BudgetPulse,
    /// Memory.
    pub memory: BudgetPulse,
    /// How often bounds on what traffic makes are halved, from the start or by steps.
    pub halvings: u8,
}

impl BudgetsPulse {
    /// What is left of a bound on flows, for example `flow.table_capacity`.
    #[must_use]
    pub fn left_of(&self, configured: u64) -> u64 {
        (configured >> self.halvings).max(1)
    }

    /// As in the statistics.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let one = |unit: &str, of: &BudgetPulse, number: fn(f64) -> Value| {
            json!({
                format!("budget_{unit}"): of.budget.map(number),
                format!("taken_{unit}"): of.taken.map(number),
                "step": of.step,
                "steps": of.steps,
                "changes": of.changes,
                "without": of.without,
            })
        };
        json!({
            "cpu": one("cores", &self.cpu, |cores| json!((cores * 1_000.0).round() / 1_000.0)),
            "memory": one("bytes", &self.memory, |bytes| json!(bytes as u64)),
        })
    }
}

/// One budget and its ladder.
struct Line {
    what: &'static str,
    setting: &'static str,
    budget: f64,
    steps: Vec<Step>,
    ladder: Ladder,
    taken: f64,
    changes: u64,
}

impl Line {
    /// Another look, at which so much was taken; `load` is the part of the budget that this comes to.
    fn look(&mut self, taken: f64, load: f64, show: fn(f64) -> String) -> bool {
        let before = self.ladder.step();
        let step = self.ladder.look(load);
        self.taken = taken;
        if step == before {
            return false;
        }
        self.changes += 1;
        let (taken, budget) = (show(taken), show(self.budget));
        let (what, setting) = (self.what, self.setting);
        if step > before {
            let now = self.word(step);
            warn!("{what} short: {taken} taken, {budget} allowed ({setting}): {now} from now on");
        } else {
            let back = self.word(before);
            info!("{what} enough again: {taken} taken, {budget} allowed ({setting}): no longer {back}");
        }
        true
    }

    fn taken_steps(&self) -> &[Step] {
        &self.steps[..self.ladder.step()]
    }

    /// What step `step`, counted from 1, does without.
    fn word(&self, step: usize) -> String {
        let steps = &self.steps[..step];
        let times = |what: Step| steps.iter().filter(|step| **step == what).count();
        match steps.last() {
            None => "nothing".to_owned(),
            Some(Step::Postpone) => "periodic reports are put off".to_owned(),
            Some(Step::Nameless) => "records go without names".to_owned(),
            Some(Step::Sample) => format!("one packet in {} is metered", 1 << times(Step::Sample)),
            Some(Step::Halve) => {
                format!("bounds are 1/{} of what is configured", 1 << times(Step::Halve))
            }
        }
    }

    /// What the agent does without after so many steps; of those of a kind, the last says it all.
    fn words(&self, steps: usize) -> Vec<String> {
        let is_last = |at: &usize| !self.steps[*at..steps].contains(&self.steps[*at - 1]);
        (1..=steps).filter(is_last).map(|step| self.word(step)).collect()
    }

    fn pulse(&self) -> BudgetPulse {
        BudgetPulse {
            budget: Some(self.budget),
            taken: Some(self.taken),
            step: self.ladder.step() as u64,
            steps: self.steps.len() as u64,
            changes: self.changes,
            without: self.words(self.ladder.step()),
        }
    }
}

/// What takes memory as traffic has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Flows in the tables. Fewer of them means that they are reported sooner.
    pub(crate) flows: usize,
    /// Observations in the reader. Fewer of them means that the kernel keeps packets for longer.
    pub(crate) waiting: usize,
    /// Records on their way. These bounds stay: with fewer of them some would be lost.
    pub(crate) records: usize,
}

impl Bounds {
    /// What they come to in memory when all is full, halved so often.
    fn bytes(self, halvings: u8) -> u64 {
        let halved = self.flows as u64 * FLOW + self.waiting as u64 * WAITING;
        (halved >> halvings) + self.records as u64 * RECORD
    }

    /// How often they have to be halved so that they fit into so much.
    fn halvings(self, room: u64) -> u8 {
        (0..HALVINGS).find(|halvings| self.bytes(*halvings) <= room).unwrap_or(HALVINGS)
    }
}

/// The budgets at work.
pub(crate) struct Budgets {
    lines: Mutex<Lines>,
    pub(crate) shed: Arc<Shed>,
}

struct Lines {
    cpu: Option<Line>,
    memory: Option<Line>,
}

impl Budgets {
    /// Of a live run or a replay, whose records get names or don't.
    pub(crate) fn new(budget: &mut Budget, (live, enriches): (bool, bool), bounds: Bounds) -> Self {
        let mut steps = vec![Step::Postpone];
        steps.extend(enriches.then_some(Step::Nameless));
        let rates = budget.sampling.clamp(1, LOWEST_RATE).ilog2();
        steps.extend(vec![Step::Sample; rates as usize]);
        let cpu = budget.cpu.filter(|_| live).map(|cores| Line {
            what: "Processor time is",
            setting: "resources.cpu",
            budget: cores,
            ladder: Ladder::new(0, steps.len(), LOOKS_UP[0]),
            steps,
            taken: 0.0,
            changes: 0,
        });
        let memory = budget.memory.map(|bytes| {
            let taken = (budget.usage)().memory;
            let room = (bytes as f64 * MEMORY_SHARE) as u64;
            let halvings = bounds.halvings(room.saturating_sub(taken));
            if halvings > 0 {
                warn!(
                    "The bounds don't fit into the memory that the agent may have ({bytes} bytes, resources.memory): they are 1/{} of what is configured (flow.table_capacity, pipeline.coalescing_capacity)",
                    1 << halvings
                );
            }
            // Those that have to be taken come first.
            let mut steps = vec![Step::Halve; halvings.into()];
            steps.push(Step::Postpone);
            steps.extend(vec![Step::Halve; (HALVINGS - halvings).into()]);
            Line {
                what: "Memory is",
                setting: "resources.memory",
                budget: bytes as f64,
                ladder: Ladder::new(halvings.into(), steps.len(), LOOKS_UP[1]),
                steps,
                taken: taken as f64,
                changes: 0,
            }
        });
        let budgets = Self { lines: Mutex::new(Lines { cpu, memory }), shed: Arc::default() };
        budgets.apply(&budgets.lines());
        budgets
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, lines: &Lines) {
        let taken =
            |line: &Option<Line>| line.as_ref().map_or(Vec::new(), |line| line.taken_steps().to_vec());
        self.shed.take(&taken(&lines.cpu), &taken(&lines.memory));
    }

    /// Whether there is a budget of memory, into which the bounds had to fit at the start.
    pub(crate) fn bounds_memory(&self) -> bool {
        self.lines().memory.is_some()
    }

    pub(crate) fn is_none(&self) -> bool {
        let lines = self.lines();
        lines.cpu.is_none() && lines.memory.is_none()
    }

    /// What was taken at the look before and now, so far apart.
    fn look(&self, before: Usage, now: Usage, passed: Duration) {
        let mut lines = self.lines();
        let mut changed = false;
        if let Some(cpu) = &mut lines.cpu {
            let cores = now.cpu.saturating_sub(before.cpu).as_secs_f64() / passed.as_secs_f64().max(1e-9);
            let load = cores / cpu.budget;
            // A group that is kept from running shows less than it wants. It may be others in it that take the time.
            let throttled = now.throttled - before.throttled.min(now.throttled) >= THROTTLED_OFTEN;
            let load = if throttled && load > 0.5 { load.max(1.0) } else { load };
            changed |= cpu.look(cores, load, |cores| format!("{cores:.2} cores"));
        }
        if let Some(memory) = &mut lines.memory {
            let bytes = now.memory as f64;
            // Too much is what is above its share.
            let load = bytes * OVER / (memory.budget * MEMORY_SHARE);
            changed |= memory.look(bytes, load, |bytes| format!("{:.1} MiB", bytes / f64::from(1 << 20)));
        }
        if changed {
            self.apply(&lines);
        }
    }

    pub(crate) fn pulse(&self) -> BudgetsPulse {
        let lines = self.lines();
        let pulse = |line: &Option<Line>| line.as_ref().map(Line::pulse).unwrap_or_default();
        BudgetsPulse { cpu: pulse(&lines.cpu), memory: pulse(&lines.memory), halvings: self.shed.halvings() }
    }
}

impl Shared {
    /// The task that keeps the agent within its budget.
    pub(crate) fn keep_within(self: Arc<Self>, mut budget: Budget) {
        let mut incidents =
            crate::incidents::Incidents::new("The budget task", Arc::clone(&self.panics.tasks));
        let mut before = (Instant::now(), (budget.usage)());
        while !self.ends_within(budget.interval, || false) {
            incidents.contain(
                || {
                    let now = (Instant::now(), (budget.usage)());
                    let (since, taken) = std::mem::replace(&mut before, now);
                    self.budgets.look(taken, now.1, now.0.duration_since(since));
                },
                crate::tasks::GOES_ON,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is done without at the top of the ladder, and the exponent of the rate.
    fn at_the_top(sampling: u32) -> (Vec<String>, u8) {
        let mut budget = Budget { cpu: Some(1.0), sampling, ..Budget::default() };
        let budgets = Budgets::new(&mut budget, (true, true), Bounds { flows: 1, waiting: 1, records: 1 });
        let (second, mut before) = (Duration::from_secs(1), Usage::default());
        for _ in 0..100 {
            let now = Usage { cpu: before.cpu + 2 * second, ..before };
            budgets.look(before, now, second);
            before = now;
        }
        (budgets.pulse().cpu.without, budgets.shed.sampling())
    }

    #[test]
    fn packets_are_sampled_as_far_as_is_allowed() {
        let others = ["periodic reports are put off", "records go without names"];
        assert_eq!(at_the_top(1), (others.map(str::to_owned).to_vec(), 0));
        for (sampling, exponent) in [(2, 1), (8, 3), (64, 6)] {
            let (without, found) = at_the_top(sampling);
            assert_eq!((found, without.len()), (exponent, 3));
            assert_eq!(without[2], format!("one packet in {sampling} is metered"));
        }
    }
}
