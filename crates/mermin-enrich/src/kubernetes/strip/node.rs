//! Nodes.

use super::meta::WireMeta;
use super::text::{Text, list, section};
use super::{Stripped, Stripper, stripped};
use crate::kubernetes::object::{Node, Object};
use ipnet::IpNet;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(super) struct WireNode<'a> {
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
    #[serde(borrow, rename = "podCIDR")]
    pod_cidr: Text<'a>,
    #[serde(borrow, rename = "podCIDRs", deserialize_with = "list")]
    pod_cidrs: Vec<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireStatus<'a> {
    #[serde(borrow, deserialize_with = "list")]
    addresses: Vec<WireAddress<'a>>,
}

#[derive(Debug, Deserialize)]
struct WireAddress<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Text<'a>,
    #[serde(borrow, default)]
    address: Text<'a>,
}

impl Stripper {
    pub(super) fn node(&mut self, wire: WireNode<'_>) -> Result<Stripped, serde_json::Error> {
        let WireNode { metadata, spec, status } = wire;
        let addresses = status.addresses.iter();
        let networks =
            spec.pod_cidrs.iter().chain(Some(&spec.pod_cidr).filter(|_| spec.pod_cidrs.is_empty()));
        let node = Node {
            meta: self.meta(&metadata),
            // The others are names.
            addresses: addresses
                .filter(|address| matches!(address.kind.as_str(), "InternalIP" | "ExternalIP"))
                .filter_map(|address| address.address.as_str().parse().ok())
                .collect(),
            pod_networks: networks
                .filter_map(|text| text.as_str().parse::<IpNet>().ok())
                .map(|network| (network.network(), network.prefix_len()))
                .collect(),
        };
        Ok(stripped(Object::Node(node), &metadata))
    }
}
