//! What goes on beside the packets, each on a thread of its own: statistics in the log, and workers that come and go.
//! A panic of theirs costs one turn.

use crate::enrichment::EnrichmentCrew;
use crate::incidents::Incidents;
use crate::observer::{Observer, Shared};
use crate::scaling::{LOOK, Scaling};
use crate::staff::Staff;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tracing::{error, info};

/// Between looks at nothing.
const LONG: Duration = Duration::from_secs(3_600);

pub(crate) const GOES_ON: &str = "it goes on with its next turn";

impl Shared {
    /// The statistics task.
    pub(crate) fn log_statistics(self: Arc<Self>) {
        let mut incidents = Incidents::new("The statistics task", Arc::clone(&self.panics.tasks));
        let observer = Observer(Arc::clone(&self));
        let mut last = Instant::now();
        loop {
            let interval = self.control.stats_interval.get();
            let rest = (last + interval).saturating_duration_since(Instant::now());
            if self.ends_within(rest, || self.control.stats_interval.get() != interval) {
                return;
            }
            let (now, next) = (Instant::now(), last + self.control.stats_interval.get());
            if now >= next {
                // One that comes late by a whole turn, or by another interval, begins anew.
                last = if now < next + interval { next } else { now };
                incidents.contain(|| self.tell(&observer, interval), GOES_ON);
            }
        }
    }

    /// One turn of the statistics task.
    fn tell(&self, observer: &Observer, interval: Duration) {
        // A stage that is held up doesn't hold up the statistics: then the counts are read where they are.
        let patience = Duration::from_secs(1).min(interval / 2);
        let statistics = observer.look(patience).unwrap_or_else(|reader| self.statistics_in_passing(*reader));
        if self.ends_within(Duration::ZERO, || false) {
            return;
        }
        self.created.say_suppressed();
        let hanging = if self.live { self.hanging() } else { Vec::new() };
        for (worker, at_work) in hanging {
            let seconds = at_work.as_secs();
            error!(
                "{worker} has been at one message for {seconds} s: a bug. What is its own stands still; the server's /livez asks for a restart"
            );
        }
        info!("{}", statistics.line());
        if self.enable_metrics {
            for (name, figures) in &statistics.stages {
                let figures: Vec<_> = figures.iter().map(|(name, value)| format!("{name}={value}")).collect();
                info!("Stage {name}: {}", figures.join(" "));
            }
        }
    }

    /// Waits for `at_most`, for the end, or until it is told of something new and `is_new` says so; whether the end has come.
    pub(crate) fn ends_within(&self, at_most: Duration, is_new: impl Fn() -> bool) -> bool {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let (ended, _) = self
            .end
            .wait_timeout_while(ended, at_most, |ended| !*ended && !is_new())
            .unwrap_or_else(PoisonError::into_inner);
        *ended
    }

    /// The task that has workers come and go with the load.
    pub(crate) fn scale(self: Arc<Self>) {
        let mut incidents = Incidents::new("The scaling of workers", Arc::clone(&self.panics.tasks));
        let stages = [Some(Stage::Flow), self.enrichment_crew.as_ref().map(Stage::Enrichment)];
        let mut loads: Vec<_> = stages.into_iter().flatten().map(|stage| self.load(stage)).collect();
        loop {
            // As many as are asked for, whatever the load, want no looks.
            let follows = |load: &Load<'_>| load.range.0 < load.range.1;
            let until = if loads.iter().any(follows) { LOOK } else { LONG };
            let is_told = |load: &Load<'_>| self.staff_of(load.stage).range() != load.range;
            if self.ends_within(until, || loads.iter().any(is_told)) {
                return;
            }
            for load in &mut loads {
                if is_told(load) {
                    *load = self.load(load.stage);
                } else if follows(load) && load.looked.elapsed() >= LOOK {
                    incidents.contain(|| self.follow(load), GOES_ON);
                }
            }
        }
    }

    fn load<'a>(&self, stage: Stage<'a>) -> Load<'a> {
        let range = self.staff_of(stage).range();
        let scaling = Scaling::new(range.0, range.1);
        Load { stage, range, scaling, idle: self.idle_of(stage), looked: Instant::now() }
    }

    fn staff_of<'a>(&'a self, stage: Stage<'a>) -> &'a Staff {
        match stage {
            Stage::Flow => &self.staff,
            Stage::Enrichment(crew) => crew.staff(),
        }
    }

    /// How long each worker has waited so far, ns.
    fn idle_of(&self, stage: Stage<'_>) -> Vec<u64> {
        match stage {
            Stage::Flow => self.meters.iter().map(|cells| cells.idle.total(self.started)).collect(),
            Stage::Enrichment(crew) => crew.idle(),
        }
    }

    /// How full the channel in front of the workers is, 0 to 1.
    fn fullness_of(&self, stage: Stage<'_>) -> f64 {
        match stage {
            Stage::Flow => self.room.credits.used() as f64 / self.room.credits.capacity as f64,
            Stage::Enrichment(_) => {
                let queues = self.enrichment.iter().map(|(queue, _)| queue.pulse());
                let (depth, capacity) = queues.fold((0, 0), |(depth, capacity), queue| {
                    (depth + queue.depth, capacity + queue.capacity)
                });
                depth as f64 / capacity as f64
            }
        }
    }

    /// Whether a worker doesn't come back from its message: its shards can't be had from it, and who is to take them would
    /// wait for it, and others behind that one.
    fn is_held_up(&self, stage: Stage<'_>) -> bool {
        matches!(stage, Stage::Flow) && self.longest(self.meters.iter().map(|cells| &cells.at_work)) >= LOOK
    }

    /// One turn of the scaling.
    fn follow(&self, load: &mut Load<'_>) {
        let (stage, staff) = (load.stage, self.staff_of(load.stage));
        let (idle, passed) = (self.idle_of(stage), load.looked.elapsed().as_nanos() as f64);
        load.looked = Instant::now();
        let working = staff.working();
        let before = std::mem::replace(&mut load.idle, idle);
        // A wait that ended just then may have been counted twice the time before.
        let waited = |(now, before): (&u64, &u64)| now.saturating_sub(*before) as f64;
        let waited: f64 = load.idle.iter().zip(&before).take(working).map(waited).sum();
        let busy = (1.0 - waited / (passed * working as f64)).clamp(0.0, 1.0);
        let advice = load.scaling.advise(working, busy, self.fullness_of(stage));
        if advice != working && !self.is_held_up(stage) {
            let (busy, workers) = ((busy * 100.0).round(), stage.workers());
            info!("{advice} {workers} instead of {working}: they were busy for {busy} % of their time");
            staff.want(advice);
            if let Stage::Enrichment(crew) = stage {
                crew.adjust();
            }
        }
    }
}

/// A stage whose workers come and go.
#[derive(Clone, Copy)]
enum Stage<'a> {
    /// The reader brings about what is wanted.
    Flow,
    Enrichment(&'a Arc<EnrichmentCrew>),
}

impl Stage<'_> {
    const fn workers(self) -> &'static str {
        match self {
            Self::Flow => "flow workers",
            Self::Enrichment(_) => "enrichment workers",
        }
    }
}

/// What the scaling knows of a stage's turn before.
struct Load<'a> {
    stage: Stage<'a>,
    range: (usize, usize),
    scaling: Scaling,
    idle: Vec<u64>,
    looked: Instant,
}
