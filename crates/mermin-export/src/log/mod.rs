//! Structured log events: each record is a `tracing` event named `flow`, level INFO, target `mermin::flow`, whose fields
//! are the record's attributes.
//!
//! They go where the log goes, so a formatter of the log decides their form. Lists are written with commas, because
//! `tracing` has no lists; chosen labels of an end are one field, because its names can't come from outside. Delivered means handed to the subscriber. For a few hundred records a second; JSON lines are
//! ten times as fast.

#[cfg(test)]
mod tests;

use crate::attributes::hops::{self, NamedHop, Said};
use crate::attributes::{nat, sampling};
use crate::form::{Clock, Dialect, hex_id, push_end, push_foreign, push_ip, push_mac};
use crate::json::FLAG_NAMES;
use crate::protocols::keyword;
use mermin_flow::{
    Amount, End, Exporter, Failure, FlowDirection, FlowRecord, KubernetesAttribute as K, ObservationPoints,
    Receipt,
};
use std::net::IpAddr;
use std::sync::Arc;
use tracing::{Level, event};

/// Hands records to the log.
#[derive(Debug)]
pub struct LogEvents {
    name: String,
    points: Arc<ObservationPoints>,
    clock: Clock,
}

impl LogEvents {
    /// An output called `name`.
    #[must_use]
    pub const fn new(name: String, points: Arc<ObservationPoints>) -> Self {
        Self { name, points, clock: Clock::FIRST }
    }

    fn log(&mut self, record: &FlowRecord) {
        let point = self.points.of(record);
        let point = point.as_deref();
        let (forward, reverse) = (&record.forward, &record.reverse);
        let interface = point.and_then(|point| point.interface.as_deref()).map(plain);
        let hops = hops::values(record, &self.points);
        let nat = nat::values(record);
        let translated = |end: usize| nat.and_then(|nat| nat.ends[end]);
        let flags = |flags: Option<u8>| flags.map(flag_list);
        let [source, destination] = [Kubernetes(&record.source), Kubernetes(&record.destination)];
        event!(
            name: "flow",
            target: "mermin::flow",
            Level::INFO,
            {
            "flow.id" = text(&hex_id(record.id)),
            "flow.sequence" = record.sequence,
            "flow.community_id" = text(&record.community_id.text()),
            "flow.event" = record.event.name(),
            "flow.end_reason" = record.end_reason.map(mermin_flow::FlowEndReason::name),
            "flow.start_time" = text(&self.clock.moment(record.start_shown()).rfc3339()),
            "flow.end_time" = text(&self.clock.moment(record.end_shown()).rfc3339()),
            "network.type" = if record.source.address.is_ipv4() { "ipv4" } else { "ipv6" },
            "network.transport" = keyword(record.protocol),
            "network.transport.number" = record.protocol,
            "source.address" = address(record.source.address),
            "source.port" = record.source.port,
            "source.mac" = record.source.mac.map(mac),
            "source.name" = record.source.identity.name.as_deref().map(plain),
            "source.k8s.resolution" = source.resolution(),
            "source.k8s.namespace.name" = source.text(K::NamespaceName),
            "source.k8s.pod.name" = source.text(K::PodName),
            "source.k8s.pod.uid" = source.text(K::PodUid),
            "source.k8s.container.name" = source.text(K::ContainerName),
            "source.k8s.node.name" = source.text(K::NodeName),
            "source.k8s.node.uid" = source.text(K::NodeUid),
            "source.k8s.deployment.name" = source.text(K::DeploymentName),
            "source.k8s.deployment.uid" = source.text(K::DeploymentUid),
            "source.k8s.replicaset.name" = source.text(K::ReplicaSetName),
            "source.k8s.replicaset.uid" = source.text(K::ReplicaSetUid),
            "source.k8s.statefulset.name" = source.text(K::StatefulSetName),
            "source.k8s.statefulset.uid" = source.text(K::StatefulSetUid),
            "source.k8s.daemonset.name" = source.text(K::DaemonSetName),
            "source.k8s.daemonset.uid" = source.text(K::DaemonSetUid),
            "source.k8s.job.name" = source.text(K::JobName),
            "source.k8s.job.uid" = source.text(K::JobUid),
            "source.k8s.cronjob.name" = source.text(K::CronJobName),
            "source.k8s.cronjob.uid" = source.text(K::CronJobUid),
            "source.k8s.service.name" = source.text(K::ServiceName),
            "source.k8s.service.uid" = source.text(K::ServiceUid),
            "source.k8s.labels" = source.labels(),
            "destination.address" = address(record.destination.address),
            "destination.port" = record.destination.port,
            "destination.mac" = record.destination.mac.map(mac),
            "destination.name" = record.destination.identity.name.as_deref().map(plain),
            "destination.k8s.resolution" = destination.resolution(),
            "destination.k8s.namespace.name" = destination.text(K::NamespaceName),
            "destination.k8s.pod.name" = destination.text(K::PodName),
            "destination.k8s.pod.uid" = destination.text(K::PodUid),
            "destination.k8s.container.name" = destination.text(K::ContainerName),
            "destination.k8s.node.name" = destination.text(K::NodeName),
            "destination.k8s.node.uid" = destination.text(K::NodeUid),
            "destination.k8s.deployment.name" = destination.text(K::DeploymentName),
            "destination.k8s.deployment.uid" = destination.text(K::DeploymentUid),
            "destination.k8s.replicaset.name" = destination.text(K::ReplicaSetName),
            "destination.k8s.replicaset.uid" = destination.text(K::ReplicaSetUid),
            "destination.k8s.statefulset.name" = destination.text(K::StatefulSetName),
            "destination.k8s.statefulset.uid" = destination.text(K::StatefulSetUid),
            "destination.k8s.daemonset.name" = destination.text(K::DaemonSetName),
            "destination.k8s.daemonset.uid" = destination.text(K::DaemonSetUid),
            "destination.k8s.job.name" = destination.text(K::JobName),
            "destination.k8s.job.uid" = destination.text(K::JobUid),
            "destination.k8s.cronjob.name" = destination.text(K::CronJobName),
            "destination.k8s.cronjob.uid" = destination.text(K::CronJobUid),
            "destination.k8s.service.name" = destination.text(K::ServiceName),
            "destination.k8s.service.uid" = destination.text(K::ServiceUid),
            "destination.k8s.labels" = destination.labels(),
            "icmp.type" = record.icmp.map(|icmp| icmp.0),
            "icmp.code" = record.icmp.map(|icmp| icmp.1),
            "flow.initiator" = record.initiator.name(),
            "flow.direction" = record.enrichment.direction.map(FlowDirection::name),
            "network.io.direction" = record.enrichment.direction.and_then(FlowDirection::network_io),
            "flow.packets.delta" = forward.delta.packets,
            "flow.packets.total" = forward.total.packets,
            "flow.bytes.delta" = forward.delta.bytes,
            "flow.bytes.total" = forward.total.bytes,
            "flow.frame_bytes.delta" = forward.delta.frame_bytes,
            "flow.frame_bytes.total" = forward.total.frame_bytes,
            "flow.dscp" = forward.traffic_class.map(|class| class >> 2),
            "flow.ecn" = forward.traffic_class.map(|class| class & 3),
            "flow.ttl.min" = forward.ttl.map(|ttl| ttl.0),
            "flow.ttl.max" = forward.ttl.map(|ttl| ttl.1),
            "flow.reverse.packets.delta" = reverse.delta.packets,
            "flow.reverse.packets.total" = reverse.total.packets,
            "flow.reverse.bytes.delta" = reverse.delta.bytes,
            "flow.reverse.bytes.total" = reverse.total.bytes,
            "flow.reverse.frame_bytes.delta" = reverse.delta.frame_bytes,
            "flow.reverse.frame_bytes.total" = reverse.total.frame_bytes,
            "flow.reverse.dscp" = reverse.traffic_class.map(|class| class >> 2),
            "flow.reverse.ecn" = reverse.traffic_class.map(|class| class & 3),
            "flow.reverse.ttl.min" = reverse.ttl.map(|ttl| ttl.0),
            "flow.reverse.ttl.max" = reverse.ttl.map(|ttl| ttl.1),
            "flow.tcp.flags" = flags(forward.tcp_flags),
            "flow.reverse.tcp.flags" = flags(reverse.tcp_flags),
            "flow.tcp.state" = record.tcp_state.name(),
            "network.vlan.id" = record.vlan,
            "network.inner.vlan.id" = record.inner_vlan,
            "network.interface.name" = interface,
            "network.interface.index" = point.and_then(|point| point.index),
            "network.interface.hook" = point.and_then(|point| point.hook).map(mermin_flow::Hook::name),
            "flow.nat.stage" = nat.map(|nat| nat.nat.stage.name()),
            "source.nat.ip" = translated(0).map(|(ip, _)| address(ip)),
            "source.nat.port" = translated(0).map(|(_, port)| port),
            "destination.nat.ip" = translated(1).map(|(ip, _)| address(ip)),
            "destination.nat.port" = translated(1).map(|(_, port)| port),
            "flow.nat.community_id" = nat.map(|nat| nat.nat.community_id.to_string()),
            "flow.hops" = way(&hops[0]),
            "flow.reverse.hops" = way(&hops[1]),
            "flow.clock_step" = (record.clock_step() != 0).then(|| record.clock_step()),
            "flow.sampling.rate.min" = sampling(record, 0),
            "flow.sampling.rate.max" = sampling(record, 1),
            "flow.packets.estimate" = sampling(record, 2),
            "flow.packets.estimate_error" = sampling(record, 3),
            "flow.bytes.estimate" = sampling(record, 4),
            "flow.bytes.estimate_error" = sampling(record, 5),
            "flow.frame_bytes.estimate" = sampling(record, 6),
            "flow.reverse.packets.estimate" = sampling(record, 7),
            "flow.reverse.packets.estimate_error" = sampling(record, 8),
            "flow.reverse.bytes.estimate" = sampling(record, 9),
            "flow.reverse.bytes.estimate_error" = sampling(record, 10),
            "flow.reverse.frame_bytes.estimate" = sampling(record, 11),
            "enrichment" = record.enrichment.note(),
            "enrichment_age" = record.enrichment.degraded.map(|age| age.as_secs()),
            },
            "flow {}: {} {} → {}",
            record.event.name(),
            keyword(record.protocol).unwrap_or("ip"),
            end(&record.source),
            end(&record.destination),
        );
    }
}

/// Hops and the packets that they saw: `eth0 ingress 10,br0 ingress 9`.
fn way(hops: &[NamedHop]) -> Option<String> {
    let hop = |hop: &NamedHop| {
        let said = hop.fields().filter_map(|(name, said)| match said {
            Said::Text(text) => Some(plain(text)),
            Said::Count(packets) if name == "packets" => Some(packets.to_string()),
            Said::Count(_) | Said::Truth(_) => None,
        });
        said.collect::<Vec<_>>().join(" ")
    };
    (!hops.is_empty()).then(|| hops.iter().map(hop).collect::<Vec<_>>().join(","))
}

/// A value of a record of sampled packets.
fn sampling(record: &FlowRecord, place: usize) -> Option<u64> {
    sampling::values(record).map(|values| values[place])
}

/// The Kubernetes attributes of an end.
struct Kubernetes<'a>(&'a End);

impl Kubernetes<'_> {
    fn resolution(&self) -> Option<&'static str> {
        self.0.identity.kubernetes.as_ref().map(|end| end.resolution.name())
    }

    fn text(&self, attribute: K) -> Option<String> {
        let end = self.0.identity.kubernetes.as_ref()?;
        end.attributes().find(|(known, _)| *known == attribute).map(|(_, value)| plain(value))
    }

    /// All of them in one field, because a field's name can't come from outside: `k8s.pod.label.app=cart,…`.
    fn labels(&self) -> Option<String> {
        let end = self.0.identity.kubernetes.as_ref()?;
        let labels: Vec<_> =
            end.labels().map(|(name, value)| format!("{}={}", plain(name), plain(value))).collect();
        (!labels.is_empty()).then(|| labels.join(","))
    }
}

impl Exporter for LogEvents {
    fn name(&self) -> &str {
        &self.name
    }

    fn export(&mut self, records: &[FlowRecord], receipt: &mut Receipt) -> Result<(), Failure> {
        for record in records {
            self.log(record);
            receipt.delivered += Amount::of(record);
        }
        Ok(())
    }

    fn flush(&mut self, _receipt: &mut Receipt) -> Result<(), Failure> {
        Ok(())
    }

    fn after_panic(&mut self) -> Option<u64> {
        Some(0)
    }
}

fn text(ascii: &[u8]) -> &str {
    std::str::from_utf8(ascii).unwrap_or_default()
}

fn formed(push: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::with_capacity(64);
    push(&mut out);
    String::from_utf8(out).unwrap_or_default()
}

fn address(address: IpAddr) -> String {
    formed(|out| push_ip(out, address))
}

fn mac(mac: [u8; 6]) -> String {
    formed(|out| push_mac(out, mac))
}

fn plain(foreign: &str) -> String {
    formed(|out| push_foreign(out, foreign, Dialect::Plain))
}

fn end(end: &End) -> String {
    formed(|out| push_end(out, end.address, end.port))
}

fn flag_list(flags: u8) -> String {
    let set: Vec<_> = (0..8).filter(|bit| flags >> bit & 1 == 1).map(|bit| FLAG_NAMES[bit]).collect();
    set.join(",")
}
