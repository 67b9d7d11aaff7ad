//! Kubernetes as an enricher: both ends of a record, and which way it runs.

use crate::clock::Clock;
use crate::direction::{Location as Side, direction};
use crate::kubernetes::object::Time;
use crate::kubernetes::resolve::{Answer, Known, Location, Question, resolve};
use crate::kubernetes::shared::{Shared, ThisNode};
use crate::kubernetes::tenure::Span;
use mermin_flow::{End, Enricher, FlowRecord};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Answers from the index that the `kubernetes` thread writes.
pub(crate) struct IdentityByAddress {
    shared: Arc<Shared>,
    clock: Clock,
    patience: Duration,
}

impl IdentityByAddress {
    /// Reads what is in `shared`; records may wait for `patience`.
    pub(crate) fn new(shared: Arc<Shared>, clock: Clock, patience: Duration) -> Self {
        Self { shared, clock, patience }
    }

    pub(crate) fn enrich_at(&self, record: &mut FlowRecord, now: impl Fn() -> Time) {
        let span = span(record);
        let horizon = self.shared.horizon();
        let mut known = horizon.known;
        if span.last > known.pods_until.min(known.nodes_until).min(known.services_until) {
            record.enrichment.degraded = self.shared.silence(&horizon, now()).map(Duration::from_nanos);
            known.last_known = record.enrichment.degraded.is_some();
        }
        let this = self.shared.this_node();
        let protocol = record.protocol;
        let identify = |end: &mut End| self.identify(end, (protocol, span), &known, &this);
        let (source, destination) = (identify(&mut record.source), identify(&mut record.destination));
        record.enrichment.direction = direction(source, destination, record.destination.address);
    }

    fn identify(&self, end: &mut End, (protocol, span): (u8, Span), known: &Known, this: &ThisNode) -> Side {
        let question = Question { address: end.address, protocol, port: end.port, span };
        let Answer { end: found, location } =
            resolve(&self.shared.index, &question, known, this.name.as_deref());
        end.identity.kubernetes = Some(found);
        match location {
            Location::Here => Side::Here,
            // Where this node isn't known, nobody is known to be on it.
            Location::Elsewhere if this.name.is_some() => Side::Elsewhere,
            // Some hosts have addresses of services, and a node's networks may be another's in truth: they tell of those
            // only whom nobody else tells of.
            _ if self.is_here(end.address, this) => Side::Here,
            Location::Elsewhere => Side::Elsewhere,
            // Before the first list, everybody is unknown.
            Location::Unknown if known.since != Time::MAX || !self.shared.lists_pods() => Side::Elsewhere,
            Location::Unknown | Location::Unclear => Side::Unclear,
        }
    }

    fn is_here(&self, address: IpAddr, this: &ThisNode) -> bool {
        self.shared.is_host(address) || this.pod_networks.iter().any(|network| network.contains(&address))
    }
}

/// When the packets came that `record` counts: who had the address earlier is a matter of earlier records.
fn span(record: &FlowRecord) -> Span {
    Span { first: record.counts_from.min(record.end_time), last: record.end_time }
}

impl Enricher for IdentityByAddress {
    fn enrich(&self, record: &mut FlowRecord) {
        self.enrich_at(record, || self.clock.now());
    }

    fn known_until(&self) -> u64 {
        self.shared.known_until(self.clock.now())
    }

    fn patience(&self) -> Duration {
        self.patience
    }
}
