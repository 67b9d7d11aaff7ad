//! Pods.

use super::meta::WireMeta;
use super::text::{Text, list, section};
use super::time::WireTime;
use super::{Stripped, Stripper, pick, stripped};
use crate::kubernetes::object::{Container, ContainerPort, Meta, Object, Pod, Time};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::net::IpAddr;

#[derive(Debug, Deserialize)]
pub(super) struct WirePod<'a> {
    #[serde(borrow)]
    metadata: WireMeta<'a>,
    #[serde(borrow, default, deserialize_with = "section")]
    spec: WireSpec<'a>,
    #[serde(borrow, default, deserialize_with = "section")]
    status: WireStatus<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireSpec<'a> {
    #[serde(borrow)]
    node_name: Text<'a>,
    host_network: Option<bool>,
    #[serde(borrow, deserialize_with = "list")]
    containers: Vec<WireContainer<'a>>,
    #[serde(borrow, deserialize_with = "list")]
    init_containers: Vec<WireContainer<'a>>,
    #[serde(deserialize_with = "list")]
    ephemeral_containers: Vec<IgnoredAny>,
}

impl WireSpec<'_> {
    /// Whether there are containers that [`Stripper::containers`] leaves out.
    fn has_other_containers(&self) -> bool {
        !self.ephemeral_containers.is_empty() || self.init_containers.iter().any(|init| !init.is_sidecar())
    }
}

impl WireContainer<'_> {
    /// Of an init container: whether it goes on beside the others.
    fn is_sidecar(&self) -> bool {
        self.restart_policy.as_str() == "Always"
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireContainer<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow, default)]
    restart_policy: Text<'a>,
    #[serde(borrow, default, deserialize_with = "list")]
    ports: Vec<WirePort<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePort<'a> {
    container_port: u16,
    host_port: Option<u16>,
    #[serde(borrow, default, rename = "hostIP")]
    host_ip: Text<'a>,
    #[serde(borrow, default)]
    protocol: Text<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireStatus<'a> {
    #[serde(borrow)]
    phase: Text<'a>,
    #[serde(borrow, rename = "podIP")]
    pod_ip: Text<'a>,
    #[serde(borrow, rename = "podIPs", deserialize_with = "list")]
    pod_ips: Vec<WireAddress<'a>>,
    start_time: Option<WireTime>,
    #[serde(deserialize_with = "list")]
    container_statuses: Vec<WireContainerStatus>,
    #[serde(deserialize_with = "list")]
    init_container_statuses: Vec<WireContainerStatus>,
}

#[derive(Debug, Deserialize)]
struct WireAddress<'a> {
    #[serde(borrow, default)]
    ip: Text<'a>,
}

#[derive(Debug, Deserialize)]
struct WireContainerStatus {
    #[serde(default, deserialize_with = "section")]
    state: WireState,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireState {
    running: Option<WireRunning>,
    terminated: Option<WireTerminated>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireRunning {
    started_at: Option<WireTime>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireTerminated {
    finished_at: Option<WireTime>,
}

/// The IANA number of a protocol as Kubernetes writes it; TCP where it is left out.
pub(super) fn protocol(name: &Text<'_>) -> u8 {
    match name.as_str() {
        "UDP" => 17,
        "SCTP" => 132,
        _ => 6,
    }
}

impl Stripper {
    pub(super) fn pod(&mut self, wire: WirePod<'_>) -> Result<Stripped, serde_json::Error> {
        let WirePod { metadata, spec, status } = wire;
        let mut labels = pick(&self.chosen.pod_labels, &metadata.labels.0, &mut self.texts);
        labels.extend(pick(&self.chosen.pod_annotations, &metadata.annotations.0, &mut self.texts));
        labels.sort_unstable();
        let is_finished = matches!(status.phase.as_str(), "Succeeded" | "Failed");
        let pod = Pod {
            meta: Meta { labels: labels.into(), ..self.meta(&metadata) },
            node: spec.node_name.some().map(|name| self.texts.share(name)),
            addresses: status.addresses(),
            host_network: spec.host_network == Some(true),
            started: status.start_time.and_then(|time| time.0),
            running: status.running(),
            finished: status.finished().filter(|_| is_finished),
            is_finished,
            containers: self.containers(&spec),
            has_other_containers: spec.has_other_containers(),
        };
        Ok(stripped(Object::Pod(pod), &metadata))
    }

    /// Those that run beside each other: init containers only where they go on (sidecars).
    fn containers(&mut self, spec: &WireSpec<'_>) -> Vec<Container> {
        let sidecars = spec.init_containers.iter().filter(|init| init.is_sidecar());
        let container = |wire: &WireContainer<'_>| Container {
            name: self.texts.share(wire.name.as_str()),
            ports: wire.ports.iter().map(WirePort::port).collect(),
        };
        spec.containers.iter().chain(sidecars).map(container).collect()
    }
}

impl WirePort<'_> {
    fn port(&self) -> ContainerPort {
        ContainerPort {
            protocol: protocol(&self.protocol),
            port: self.container_port,
            host_port: self.host_port.filter(|port| *port != 0),
            host_address: self
                .host_ip
                .as_str()
                .parse()
                .ok()
                .filter(|address: &IpAddr| !address.is_unspecified()),
        }
    }
}

impl WireStatus<'_> {
    fn addresses(&self) -> Vec<IpAddr> {
        let all = self.pod_ips.iter().map(|address| &address.ip);
        // `podIPs` came with Kubernetes 1.16 and repeats `podIP`.
        let first = Some(&self.pod_ip).filter(|_| self.pod_ips.is_empty());
        all.chain(first).filter_map(|text| text.as_str().parse().ok()).collect()
    }

    fn states(&self) -> impl Iterator<Item = &WireState> {
        self.container_statuses.iter().chain(&self.init_container_statuses).map(|status| &status.state)
    }

    fn running(&self) -> Option<Time> {
        self.states().filter_map(|state| state.running.as_ref()?.started_at?.0).min()
    }

    fn finished(&self) -> Option<Time> {
        self.states().filter_map(|state| state.terminated.as_ref()?.finished_at?.0).max()
    }
}
