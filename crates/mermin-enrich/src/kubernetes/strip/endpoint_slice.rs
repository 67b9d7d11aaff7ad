//! Endpoint slices.

use super::meta::WireMeta;
use super::pod::protocol;
use super::text::{Text, list, section};
use super::{Stripped, Stripper, stripped};
use crate::kubernetes::object::{Backend, EndpointSlice, Object};
use serde::Deserialize;

/// The label that names a slice's service.
const SERVICE: &str = "kubernetes.io/service-name";

#[derive(Debug, Deserialize)]
pub(super) struct WireSlice<'a> {
    #[serde(borrow)]
    metadata: WireMeta<'a>,
    #[serde(borrow, default, deserialize_with = "list")]
    endpoints: Vec<WireEndpoint<'a>>,
    #[serde(borrow, default, deserialize_with = "list")]
    ports: Vec<WirePort<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireEndpoint<'a> {
    #[serde(borrow, default, deserialize_with = "list")]
    addresses: Vec<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "section")]
    target_ref: WireTarget<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireTarget<'a> {
    #[serde(borrow)]
    kind: Text<'a>,
    #[serde(borrow)]
    uid: Text<'a>,
}

#[derive(Debug, Deserialize)]
struct WirePort<'a> {
    #[serde(borrow, default)]
    protocol: Text<'a>,
    port: Option<u16>,
}

impl Stripper {
    pub(super) fn endpoint_slice(&mut self, wire: WireSlice<'_>) -> Result<Stripped, serde_json::Error> {
        let WireSlice { metadata, endpoints, ports } = wire;
        let service = metadata.labels.0.iter().find(|(name, _)| name.as_str() == SERVICE);
        let slice = EndpointSlice {
            meta: self.meta(&metadata),
            service: service.map(|(_, service)| self.texts.share(service.as_str())),
            ports: ports.iter().map(|port| (protocol(&port.protocol), port.port)).collect(),
            backends: endpoints.iter().filter_map(|endpoint| self.backend(endpoint)).collect(),
        };
        Ok(stripped(Object::EndpointSlice(slice), &metadata))
    }

    /// `None` where it has names instead of addresses.
    fn backend(&mut self, endpoint: &WireEndpoint<'_>) -> Option<Backend> {
        let addresses: Vec<_> =
            endpoint.addresses.iter().filter_map(|text| text.as_str().parse().ok()).collect();
        let target = &endpoint.target_ref;
        let pod = target.uid.some().filter(|_| target.kind.as_str() == "Pod");
        (!addresses.is_empty()).then(|| Backend { addresses, pod: pod.map(|uid| self.texts.share(uid)) })
    }
}
