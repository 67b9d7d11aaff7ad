//! Services.

use super::meta::WireMeta;
use super::pod::protocol;
use super::text::{Text, list, section};
use super::{Stripped, Stripper, stripped};
use crate::kubernetes::object::{Object, Service, ServicePort};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(super) struct WireService<'a> {
    #[serde(borrow)]
    metadata: WireMeta<'a>,
    #[serde(borrow, default, deserialize_with = "section")]
    spec: WireSpec<'a>,
    #[serde(borrow, default, deserialize_with = "section")]
    status: WireStatus<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireSpec<'a> {
    #[serde(borrow, rename = "clusterIP")]
    cluster_ip: Text<'a>,
    #[serde(borrow, rename = "clusterIPs", deserialize_with = "list")]
    cluster_ips: Vec<Text<'a>>,
    #[serde(borrow, rename = "externalIPs", deserialize_with = "list")]
    external_ips: Vec<Text<'a>>,
    #[serde(borrow, deserialize_with = "list")]
    ports: Vec<WirePort<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePort<'a> {
    #[serde(borrow, default)]
    protocol: Text<'a>,
    port: u16,
    node_port: Option<u16>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireStatus<'a> {
    #[serde(borrow, deserialize_with = "section")]
    load_balancer: WireLoadBalancer<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireLoadBalancer<'a> {
    #[serde(borrow, deserialize_with = "list")]
    ingress: Vec<WireIngress<'a>>,
}

#[derive(Debug, Deserialize)]
struct WireIngress<'a> {
    /// Absent where the load balancer has a name instead.
    #[serde(borrow, default)]
    ip: Text<'a>,
}

impl Stripper {
    pub(super) fn service(&mut self, wire: WireService<'_>) -> Result<Stripped, serde_json::Error> {
        let WireService { metadata, spec, status } = wire;
        // `clusterIPs` came with Kubernetes 1.20 and repeats `clusterIP`; `None` is no address.
        let cluster =
            spec.cluster_ips.iter().chain(Some(&spec.cluster_ip).filter(|_| spec.cluster_ips.is_empty()));
        let ingress = status.load_balancer.ingress.iter().map(|ingress| &ingress.ip);
        let parse = |text: &Text<'_>| text.as_str().parse().ok();
        let port = |wire: &WirePort<'_>| ServicePort {
            protocol: protocol(&wire.protocol),
            port: wire.port,
            node_port: wire.node_port.filter(|port| *port != 0),
        };
        let service = Service {
            meta: self.meta(&metadata),
            cluster_addresses: cluster.filter_map(parse).collect(),
            external_addresses: spec.external_ips.iter().chain(ingress).filter_map(parse).collect(),
            ports: spec.ports.iter().map(port).collect(),
        };
        Ok(stripped(Object::Service(service), &metadata))
    }
}
