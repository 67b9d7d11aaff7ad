//! Other settings for a meter at work.
//!
//! A change stands between two observations, at a time. What was due by then is handled as the settings before say, whether
//! its second has passed or not; from then on every flow lives by the new ones. The active interval that a flow is in keeps
//! its begin and gets a new end; where that has passed already, the next report is due at once. So records depend on where
//! the change stands alone: not on batches, ticks or the number of workers.

use crate::config::FlowConfig;
use crate::index::Place;
use crate::meter::{Meter, RecordSink};
use crate::recovery::{CountingSink, Incident};

impl Meter {
    /// From now on goes by other settings; time has come to `watermark`. The seed of Community IDs stays: a flow has one. Of
    /// a table that has become too small, flows go as others come. Contains panics; each is told.
    pub fn change(
        &mut self,
        config: &FlowConfig,
        watermark: u64,
        sink: &mut impl CountingSink,
        tell: impl FnMut(Incident),
    ) {
        self.contained(sink, |meter, sink| meter.settle_all(watermark, sink), tell);
        self.set(config);
    }

    /// Handles everything that is due up to `watermark`.
    fn settle_all(&mut self, watermark: u64, sink: &mut impl RecordSink) {
        self.advance(watermark, sink);
        for place in 0..self.table.places() as Place {
            if self.table.entry(place).is_some() {
                self.settle(place, watermark, sink);
            }
        }
    }

    fn set(&mut self, config: &FlowConfig) {
        let before = self.settings.active;
        self.settings.change(config);
        let active = self.settings.active;
        for place in 0..self.table.places() as Place {
            self.changed(place);
            let Some((entry, facts)) = self.table.get_mut(place) else { continue };
            entry.active_deadline = entry.active_deadline.saturating_sub(before).saturating_add(active);
            if active < before && entry.delta.iter().any(|side| side.packets > 0) {
                facts.spread.shorten(before, active);
            }
            let deadline = self.settings.deadline(entry);
            self.shards[usize::from(facts.shard)].wheel.schedule(&mut self.links, place, deadline);
        }
    }
}
