//! `export.ipfix` of the configuration.

use crate::buffer::BufferKind;
use mermin_flow::{ByteSize, Interval};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;
use std::path::PathBuf;

/// The number of RFC 5612, which is for documentation.
const DOCUMENTATION: u32 = 32_473;

/// Records to an IPFIX collector (RFC 7011), or to an old one that knows NetFlow version 9.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IpfixConfig {
    /// `false` switches this output off.
    pub enabled: bool,
    /// Where the collector listens: `host:port`, an IPv6 address in brackets. Without a port: 4739, with `tls` 4740. Without
    /// it: this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "collector.example:4739")]
    pub collector: Option<String>,
    /// How messages get there. `udp`: a record counts as delivered when it was handed to the network and was not refused
    /// within a second. `tcp`: when the collector's host has acknowledged it.
    pub transport: IpfixTransport,
    /// What messages are like. `netflow9` goes over UDP only, has a record for each direction, and nothing but what
    /// IANA has elements of a fixed length for.
    pub version: IpfixVersion,
    /// `both`: one data record has both directions of a flow (RFC 5103). `each`: one for each direction that has packets,
    /// for collectors that don't know reverse elements.
    pub directions: IpfixDirections,
    /// Tells this agent from others behind one address.
    pub observation_domain: u32,
    /// Under which number elements of Mermin's own stand. The default is the one for documentation (RFC 5612), for Mermin
    /// has none that is registered.
    pub enterprise_number: u32,
    /// How often templates are sent again over UDP, 1s or more. A collector that comes later, or that missed them, can
    /// decode records after this time.
    pub template_refresh: Interval,
    /// How often options records tell what this output has sent and what it has given up, and what the agent has seen: 1s or
    /// more.
    pub statistics_interval: Interval,
    /// The most bytes in a message, from 512B to 65535B. Without it: over UDP 1472B, over TCP 32KiB. Over UDP less, where
    /// the path to the collector takes less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_bytes: Option<ByteSize>,
    /// The most messages a second over UDP, so that a burst doesn't overrun the collector. What comes faster waits in the
    /// output's queue.
    #[schemars(range(min = 1))]
    pub message_rate: NonZeroU32,
    /// TLS over TCP: there when this is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<IpfixTls>,
    /// `disk`: records wait in `export.disk_buffer`, while the collector doesn't take them and over a restart.
    pub buffer: BufferKind,
}

impl Default for IpfixConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            collector: None,
            transport: IpfixTransport::Udp,
            version: IpfixVersion::Ipfix,
            directions: IpfixDirections::Both,
            observation_domain: 0,
            enterprise_number: DOCUMENTATION,
            template_refresh: Interval::seconds(60),
            statistics_interval: Interval::seconds(60),
            message_bytes: None,
            message_rate: NonZeroU32::new(2_000).expect("the default is not zero"),
            tls: None,
            buffer: BufferKind::default(),
        }
    }
}

/// How messages get to the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IpfixTransport {
    /// Without acknowledgement.
    Udp,
    /// With acknowledgement.
    Tcp,
}

/// What messages are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IpfixVersion {
    /// RFC 7011.
    Ipfix,
    /// RFC 3954.
    Netflow9,
}

/// How a flow's directions become data records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IpfixDirections {
    /// Both in one.
    Both,
    /// Each in one of its own.
    Each,
}

/// Certificates, PEM. The files are read again at each connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IpfixTls {
    /// Certificates of the authorities that the collector's certificate is checked against. Without it: the host's own
    /// (which `SSL_CERT_FILE` can name).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The certificate that Mermin shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}
