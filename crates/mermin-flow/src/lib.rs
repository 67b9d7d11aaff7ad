//! The domain: observations, flow keys, the flow table, records.
//!
//! Pure: no I/O, no threads, no clock. Time is an argument, in nanoseconds since 1970 on a clock that knows no steps.
#![deny(unsafe_code)]

mod book;
mod bounds;
mod bytes;
mod change;
mod clock;
mod community_id;
mod config;
mod cut;
mod datagram;
mod delivery;
mod entry;
mod eviction;
mod fault;
mod flow_table;
mod hop_table;
mod hops;
mod icmp;
mod identity;
mod index;
mod initiator;
mod key;
mod large_pages;
mod layer;
mod lease;
mod lifecycle;
mod merge;
mod meter;
mod metric;
mod moving;
mod nat;
mod network;
mod observation;
mod per_flow;
mod point;
mod prefetch;
mod record;
mod recovery;
mod report;
mod reuse;
mod sampled;
mod sampling;
mod settings;
mod shard;
mod sightings;
mod slab;
mod spread;
mod stage;
mod tally;
mod tcp;
#[cfg(test)]
mod testing;
mod top_flows;
mod touch;
mod units;
mod wall;
mod wheel;

pub use book::MeterBook;
pub use clock::{Lateness, Watermark};
pub use community_id::CommunityId;
pub use config::FlowConfig;
pub use cut::{KeptFlows, KeptShard};
pub use datagram::{Datagrams, Orientation};
pub use delivery::{Delivery, DeliveryState};
pub use hops::{Hop, Hops};
pub use identity::{
    Enrichment, FlowDirection, Identity, KubernetesAttribute, KubernetesEnd, KubernetesObject, Resolution,
};
pub use key::{FlowKey, HashSecret, KeyForm, SHARDS};
pub use layer::Layer;
pub use lease::Lease;
pub use mermin_wire::{Fragment, NO_VLAN, PortForm};
pub use meter::{Meter, RecordSink};
pub use metric::{Family, Label, Metric, MetricKind, Sample, Value};
pub use moving::MovingShard;
pub use nat::{Nat, NatStage};
pub use network::{Network, NetworkError};
pub use observation::Observation;
pub use point::{Hook, ObservationPoint, ObservationPoints};
pub use prefetch::{prefetch, prefetch_to_write};
pub use record::{Counts, Direction, End, FlowEndReason, FlowEvent, FlowId, FlowRecord, Initiator, TcpState};
pub use recovery::{CountingSink, GivenUp, Incident, panic_message};
pub use sampled::{Estimate, Sampled};
pub use sampling::Sampling;
pub use sightings::{Loss, Sightings};
pub use stage::{
    Amount, Enricher, Exporter, Failure, Polled, QUARANTINE, Receipt, Settlement, Sink, Source, SourceCut,
    Voider,
};
pub use tally::Tally;
pub use top_flows::{FlowOrder, TopFlows};
pub use units::{ByteSize, Interval, UnitError};
pub use wall::WallClock;
