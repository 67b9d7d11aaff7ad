//! Settings that change while the pipeline runs.
//!
//! What stages look up they find changed. What decides about flows goes down the packet channel like a marker, so that all
//! flow workers change at one place between two observations: records are those of a run whose settings have been so from
//! there on, however many workers there are. Only observations that wait in the reader for room, live, come behind the
//! change though they came before it.

use crate::config::PipelineConfig;
use crate::observer::Shared;
use crate::output::{ChangeError, NewOutput};
use crate::workers::Workers;
use mermin_flow::FlowConfig;
use std::num::NonZeroUsize;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// What goes down the packet channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) flow: Arc<FlowConfig>,
    /// Observations that may wait in the reader.
    pub(crate) coalescing_capacity: usize,
}

impl Change {
    pub(crate) fn to(pipeline: &PipelineConfig, flow: &FlowConfig) -> Self {
        Self { flow: Arc::new(flow.clone()), coalescing_capacity: pipeline.coalescing_capacity.get() }
    }
}

/// Changes a running pipeline's settings.
#[derive(Clone)]
pub struct Tuning(pub(crate) Arc<Shared>);

impl Tuning {
    /// From now on the pipeline goes by these, as far as they can be changed; what else they say is left out of account: the
    /// seed of Community IDs, and of `pipeline` all but `coalescing_capacity`, `flow_workers` and `enrichment_workers` (as far
    /// as there is room for them), `stats_interval`, `priority`, `breaker` and `shutdown_timeout`.
    pub fn change(&self, pipeline: &PipelineConfig, flow: &FlowConfig) {
        let shared = &self.0;
        shared.shutdown_timeout.set(pipeline.shutdown_timeout.0);
        // Held while these change, so that nobody misses the word to look again.
        let ended = shared.ended.lock().unwrap_or_else(PoisonError::into_inner);
        shared.control.stats_interval.set(pipeline.stats_interval.0);
        shared.staff.set_range(pipeline.flow_workers.range());
        if let Some(crew) = &shared.enrichment_crew {
            crew.staff().set_range(pipeline.enrichment_workers.range());
        }
        drop(ended);
        shared.end.notify_all();
        if let Some(crew) = &shared.enrichment_crew {
            crew.adjust();
        }
        shared.fan_out.treat(|treatment| {
            treatment.rules = pipeline.priority.iter().cloned().collect();
            treatment.breaker.clone_from(&pipeline.breaker);
        });
        shared.control.change(Change::to(pipeline, flow));
    }

    /// From now on so many records may wait for one output. Where fewer may than do, none is dropped at once; see
    /// `output/queue.rs`.
    pub fn set_output_queue_capacity(&self, records: NonZeroUsize) {
        self.0.fan_out.treat(|treatment| treatment.capacity = records.get());
    }

    /// From now on records don't go to the outputs with these names, and to others they do. What the former have they deliver
    /// within `patience`; what they haven't by then stays in their disk buffers, and the folders of these are free; without such a
    /// buffer it is dropped, and counted so (`shutdown_timeout`).
    /// Nobody waits for that. Their books stay; one that comes and has the name of one that was there goes on with its book.
    ///
    /// # Errors
    /// [`ChangeError`]: then nothing has changed.
    pub fn change_outputs(
        &self,
        leave: &[String],
        come: Vec<NewOutput>,
        patience: Duration,
    ) -> Result<(), ChangeError> {
        self.0.fan_out.change(leave, come, patience)
    }

    /// Names of outputs that were removed and have not ended yet.
    #[must_use]
    pub fn leaving_outputs(&self) -> Vec<String> {
        self.0.fan_out.leaving()
    }

    /// Whether there may be more flows, and more that waits in the reader or for outputs, than the bounds of the start allow: with a budget of
    /// memory these were made to fit into it.
    #[must_use]
    pub fn may_raise_bounds(&self) -> bool {
        !self.0.budgets.bounds_memory()
    }

    /// Whether there is room for so many flow workers: for no more than there could be at the start.
    #[must_use]
    pub fn has_room_for(&self, workers: Workers) -> bool {
        workers.most() <= self.0.staff.most()
    }

    /// As [`Tuning::has_room_for`], of enrichment workers. Where nothing is added to records, any number is as good.
    #[must_use]
    pub fn has_room_for_enrichment(&self, workers: Workers) -> bool {
        self.0.enrichment_crew.as_ref().is_none_or(|crew| workers.most() <= crew.staff().most())
    }
}
