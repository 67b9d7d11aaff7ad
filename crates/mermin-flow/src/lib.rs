//! The domain: observations, flow keys, the flow table, records.
//!
//! Pure: no I/O, no threads, no clock. Time is an argument, in nanoseconds since 1970.
#![deny(unsafe_code)]

mod book;
mod clock;
mod community_id;
mod config;
mod datagram;
mod delivery;
mod entry;
mod eviction;
mod flow_table;
mod icmp;
mod identity;
mod index;
mod initiator;
mod key;
mod large_pages;
mod lifecycle;
mod meter;
mod metric;
mod observation;
mod point;
mod prefetch;
mod record;
mod report;
mod settings;
mod shard;
mod sightings;
mod slab;
mod stage;
mod tally;
mod tcp;
#[cfg(test)]
mod testing;
mod top_flows;
mod units;
mod wheel;

pub use book::MeterBook;
pub use clock::{Lateness, Watermark};
pub use community_id::CommunityId;
pub use config::FlowConfig;
pub use datagram::{Datagrams, Orientation};
pub use delivery::{Delivery, DeliveryState};
pub use identity::{
    Enrichment, FlowDirection, Identity, KubernetesAttribute, KubernetesEnd, KubernetesObject, Resolution,
};
pub use key::{FlowKey, HashSecret, KeyForm, SHARDS};
pub use mermin_wire::{Fragment, NO_VLAN, PortForm};
pub use meter::{Meter, RecordSink};
pub use metric::{Family, Label, Metric, MetricKind, Sample, Value};
pub use observation::Observation;
pub use point::{Hook, ObservationPoint, ObservationPoints};
pub use prefetch::prefetch_to_write;
pub use record::{Counts, Direction, End, FlowEndReason, FlowEvent, FlowId, FlowRecord, Initiator, TcpState};
pub use sightings::{Loss, Sightings};
pub use stage::{Amount, Enricher, Exporter, Failure, Polled, Receipt, Sink, Source};
pub use tally::Tally;
pub use top_flows::{FlowOrder, TopFlows};
pub use units::{ByteSize, Interval, UnitError};
