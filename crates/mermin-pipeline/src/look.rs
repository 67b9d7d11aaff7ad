//! A look at the flows of a running pipeline.
//!
//! The question goes down the packet channel like a marker. Each flow worker goes through its table a part at a time,
//! between batches, and answers when it is through; while it looks, packets go on.

use crate::Hold;
use crate::observer::Observer;
use mermin_flow::{FlowOrder, FlowRecord, Meter, TopFlows};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Places of the table that a worker looks at between two batches: about as long as a batch takes.
const STEP: usize = 2_048;

/// Flows that one look may ask for.
const LIMIT_MAX: usize = 1_000;

/// Looks under way at once.
pub(crate) const LOOKS_MAX: usize = 4;

/// The flows that were asked for.
#[derive(Clone, Debug)]
pub struct FlowsSeen {
    /// First ones first, each as the update that it would give now, without what enrichment knows.
    pub flows: Vec<FlowRecord>,
    /// Whether every flow worker has answered.
    pub complete: bool,
}

/// A question on its way.
#[derive(Debug)]
pub(crate) struct Look {
    order: FlowOrder,
    limit: usize,
    answers: Mutex<Answers>,
    complete: Condvar,
}

#[derive(Debug)]
struct Answers {
    flows: Vec<FlowRecord>,
    missing: usize,
}

impl Look {
    fn new(order: FlowOrder, limit: usize, workers: usize) -> Arc<Self> {
        let answers = Answers { flows: Vec::new(), missing: workers };
        let limit = limit.min(LIMIT_MAX);
        Arc::new(Self { order, limit, answers: Mutex::new(answers), complete: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, flows: Vec<FlowRecord>) {
        let mut answers = self.lock();
        answers.flows.extend(flows);
        answers.missing = answers.missing.saturating_sub(1);
        if answers.missing == 0 {
            self.complete.notify_all();
        }
    }

    fn wait(&self, at_most: Duration) -> FlowsSeen {
        let (mut answers, _) = self
            .complete
            .wait_timeout_while(self.lock(), at_most, |answers| answers.missing > 0)
            .unwrap_or_else(PoisonError::into_inner);
        let mut flows = std::mem::take(&mut answers.flows);
        flows.sort_by_key(|flow| std::cmp::Reverse(self.order.rank_of(flow)));
        flows.truncate(self.limit);
        FlowsSeen { flows, complete: answers.missing == 0 }
    }
}

impl Observer {
    /// At most `limit` of the flows in the tables (1 000 at most), in this order. `None` when too many look already.
    /// What has not been answered after `at_most` is left out.
    #[must_use]
    pub fn flows(&self, order: FlowOrder, limit: usize, at_most: Duration) -> Option<FlowsSeen> {
        let look = Look::new(order, limit, self.0.meters.len());
        self.0.control.look(&look).then(|| look.wait(at_most))
    }
}

/// The looks that a flow worker is at.
#[derive(Debug, Default)]
pub(crate) struct Looks(VecDeque<(Arc<Look>, TopFlows)>);

impl Looks {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn begin(&mut self, look: Arc<Look>) {
        let top = TopFlows::new(look.order, look.limit);
        self.0.push_back((look, top));
    }

    /// Looks at a part of the table. A look that panics is over, and unanswered.
    pub(crate) fn go_on(&mut self, meter: &Meter, hold: &Hold) {
        let Some((look, mut top)) = self.0.pop_front() else { return };
        hold.panic_if_told();
        if meter.look(&mut top, STEP) {
            self.0.push_front((look, top));
        } else {
            look.answer(meter.found(top));
        }
    }
}
