//! The `server` section of the configuration.

use schemars::JsonSchema;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// That of OpenTelemetry's Prometheus exporters.
const PORT: u16 = 9464;

/// An HTTP server that tells metrics, health, statistics and live flows. Without this section nothing listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// `false` switches the server off.
    pub enabled: bool,
    /// The address and port to listen on. Any address but a loopback one lets other hosts ask, and then `token_file` and
    /// `tls` are for you. Port 0 is any free port; the log says which.
    pub listen: Listen,
    /// A file with a token that who asks has to show (`Authorization: Bearer …`), for all but the answers of `/livez` and
    /// `/readyz`, which are then without reasons. Read again when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The server's certificate: then it speaks HTTPS alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTls>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self { enabled: true, listen: Listen::default(), token_file: None, tls: None }
    }
}

/// The server's certificate and key. Read again when they change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// The certificate, and behind it those that lead to the authority's, in PEM.
    pub cert: PathBuf,
    /// The certificate's private key, in PEM.
    pub key: PathBuf,
}

/// An address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub SocketAddr);

impl Default for Listen {
    fn default() -> Self {
        Self(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT))
    }
}

/// A text that is not an address with a port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an address to listen on; write an IP address and a port, for example 127.0.0.1:9464 or [::1]:9464"
)]
pub struct ListenError(String);

impl FromStr for Listen {
    type Err = ListenError;
    fn from_str(text: &str) -> Result<Self, ListenError> {
        text.parse().map(Self).map_err(|_| ListenError(text.to_owned()))
    }
}

impl Listen {
    /// Where this host reaches a server that listens here.
    pub(crate) fn reached_at(self) -> SocketAddr {
        let address = match self.0.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
            address => address,
        };
        SocketAddr::new(address, self.0.port())
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Listen {
    fn schema_name() -> Cow<'static, str> {
        "Listen".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "examples": ["127.0.0.1:9464"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_reads_and_prints() {
        let text = r#"{"enabled":true,"listen":"[::1]:1","token_file":"t","tls":{"cert":"c","key":"k"}}"#;
        let config: ServerConfig = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&config).unwrap(), text);
        let default = serde_json::to_string(&ServerConfig::default()).unwrap();
        assert_eq!(default, r#"{"enabled":true,"listen":"127.0.0.1:9464"}"#);
        for wrong in [r#"{"listen":"9464"}"#, r#"{"listen":"localhost:9464"}"#, r#"{"listen":"::1:9464"}"#] {
            let error = serde_json::from_str::<ServerConfig>(wrong).unwrap_err().to_string();
            assert!(error.contains("is not an address to listen on; write an IP address"), "{error}");
        }
    }

    #[test]
    fn a_server_on_all_addresses_is_reached_on_loopback() {
        for (listen, reached) in
            [("0.0.0.0:9", "127.0.0.1:9"), ("[::]:9", "[::1]:9"), ("192.0.2.1:9", "192.0.2.1:9")]
        {
            assert_eq!(listen.parse::<Listen>().unwrap().reached_at().to_string(), reached);
        }
    }
}
