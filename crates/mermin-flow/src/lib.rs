//! The domain: observations, flow keys, the flow table, records.
//!
//! Pure: no I/O, no threads, no clock. Time is an argument, in nanoseconds since 1970.

mod community_id;
mod config;
mod icmp;
mod key;
mod observation;
mod point;
mod record;
mod sightings;
mod stage;
mod tally;
#[cfg(test)]
mod testing;
mod units;

pub use community_id::CommunityId;
pub use config::FlowConfig;
pub use key::{FlowKey, HashSecret, KeyForm, SHARDS};
pub use observation::{FragmentPosition, NO_VLAN, Observation, PortForm};
pub use point::{Hook, ObservationPoint, ObservationPoints};
pub use record::{
    Counts, Direction, End, FlowEndReason, FlowEvent, FlowId, FlowRecord, Identity, Initiator, TcpState,
};
pub use sightings::{Loss, Sightings};
pub use stage::{Amount, Enricher, Exporter, Failure, Polled, Receipt, Sink, Source};
pub use tally::Tally;
pub use units::{ByteSize, Interval, UnitError};
