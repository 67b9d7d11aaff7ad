//! Flows that give many records, and those in an order that two runs can be compared in.

use crate::parts::Collected;
use mermin_flow::{FlowConfig, FlowRecord, Interval};
use std::time::Duration;

/// Updates every 100 ms of capture time.
pub(crate) fn chatty() -> FlowConfig {
    FlowConfig { active_timeout: Interval(Duration::from_millis(100)), ..FlowConfig::default() }
}

/// All records, by flow and sequence; none are left.
pub(crate) fn sorted(collected: &Collected) -> Vec<FlowRecord> {
    let mut records = std::mem::take(&mut *collected.records.lock().unwrap());
    records.sort_by_key(|record| (record.id.0, record.sequence));
    records
}
