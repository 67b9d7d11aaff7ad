//! A network as users write it in the configuration.

use ipnet::{IpNet, Ipv4Net};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::net::IpAddr;
use std::str::FromStr;

/// A network in prefix notation, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Network(pub IpNet);

/// A text that is not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Neither form.
    #[error(
        "`{given}` is not a network; write an address and a prefix length, for example 10.0.0.0/8 or 2001:db8::/32"
    )]
    Form {
        /// What was written.
        given: String,
    },
    /// The address goes on behind the prefix.
    #[error("`{given}` has bits set behind its prefix; the network is {network}")]
    HostBits {
        /// What was written.
        given: String,
        /// The network that holds it.
        network: IpNet,
    },
    /// IPv4 addresses in their IPv6 form, which no packet carries.
    #[error("`{given}` stands for IPv4 addresses, which packets carry as such; write {network}")]
    Mapped {
        /// What was written.
        given: String,
        /// The same as an IPv4 network.
        network: IpNet,
    },
}

/// The network of `::ffff:0:0/96` as the IPv4 network that it stands for.
fn unmapped(network: &IpNet) -> Option<IpNet> {
    const MAPPED: u8 = 96;
    let IpNet::V6(network) = network else { return None };
    let length = network.prefix_len().checked_sub(MAPPED)?;
    Some(Ipv4Net::new(network.network().to_ipv4_mapped()?, length).ok()?.into())
}

impl FromStr for Network {
    type Err = NetworkError;
    fn from_str(given: &str) -> Result<Self, NetworkError> {
        let network: IpNet = given
            .parse()
            .or_else(|_| given.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| NetworkError::Form { given: given.to_owned() })?;
        if network.trunc() != network {
            return Err(NetworkError::HostBits { given: given.to_owned(), network: network.trunc() });
        }
        match unmapped(&network) {
            Some(network) => Err(NetworkError::Mapped { given: given.to_owned(), network }),
            None => Ok(Self(network)),
        }
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;
    fn try_from(given: String) -> Result<Self, NetworkError> {
        given.parse()
    }
}

impl JsonSchema for Network {
    fn schema_name() -> Cow<'static, str> {
        "Network".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^[0-9a-fA-F.:]+(/[0-9]{1,3})?$",
            "examples": ["10.0.0.0/8"]
        })
    }
}
