//! `capture.filters` of the configuration.

use crate::interfaces::{SelectError, patterns};
use glob::Pattern;
use mermin_flow::Network;
use mermin_wire::{ADDRESS_RANGES, PORT_RANGES, RULES};
use schemars::JsonSchema;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

/// What stands for packets that no rule matches, where a name of a rule is wanted.
pub(crate) const NO_RULE: &str = "no_rule";
/// What stands for rules of an earlier run that are no more.
pub(crate) const EARLIER_RULES: &str = "earlier_rules";

/// Rules about packets that are not metered, in order: see [`FilterRule`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Vec<FilterRule>")]
pub struct FilterRules(Vec<FilterRule>);

/// A rule: the first that a packet matches says whether it is metered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilterRule {
    /// What the packets that it leaves out are counted under: lower-case letters, digits and `_`.
    pub name: RuleName,
    /// What becomes of packets that it matches.
    pub action: FilterAction,
    /// Which packets it is about: those that fit every list that isn't empty, by one value of each; without any, all.
    #[serde(rename = "match", default)]
    pub packets: FilterMatch,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FilterAction {
    /// It is metered.
    Include,
    /// It is counted under the rule's name (`filtered`), and is in no flow.
    Exclude,
}

/// The packets that a rule is about; see [`FilterRule::packets`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FilterMatch {
    /// Networks or addresses of which one holds the source's or the destination's address.
    pub networks: Vec<Network>,
    /// Those of the source.
    pub source_networks: Vec<Network>,
    /// Those of the destination.
    pub destination_networks: Vec<Network>,
    /// Ports, and ranges of them, of the source or the destination. Only TCP, UDP and SCTP have ports, and later fragments of a
    /// datagram have none.
    pub ports: Vec<PortRange>,
    /// Those of the source.
    pub source_ports: Vec<PortRange>,
    /// Those of the destination.
    pub destination_ports: Vec<PortRange>,
    /// Protocols behind the IP header, by IANA keyword or number.
    pub protocols: Vec<Protocol>,
    /// Patterns of names of interfaces that the packet is seen on, with `*`, `?` and `[…]`. A capture file may know no names:
    /// its packets are on none.
    pub interfaces: Vec<String>,
}

/// A rule's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(example = &"no_dns")]
pub struct RuleName(String);

/// What is wrong with rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Not a name.
    #[error(
        "`{0}` can't name a rule; write 1 to 63 lower-case letters, digits and _, a letter first, for example no_dns"
    )]
    Name(String),
    /// A name that has a meaning.
    #[error(
        "`{0}` is what packets are counted under that no rule of the configuration leaves out; write another name"
    )]
    Reserved(String),
    /// Two of one name.
    #[error("two rules are named `{0}`; give one of them another name, or put what they match into one")]
    SameName(String),
    /// Too many rules.
    #[error(
        "{0} rules are more than {RULES}; put networks, ports and protocols that are treated alike into one rule"
    )]
    Rules(usize),
    /// Not a pattern.
    #[error(
        "rule `{rule}`: `{pattern}` is not a pattern of interface names ({reason}); write for example eth*"
    )]
    Pattern {
        /// The rule's name.
        rule: String,
        /// As given.
        pattern: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Nothing could match it.
    #[error(
        "rule `{rule}` asks for ports of protocols that have none, so no packet matches it; leave its ports out, or write \
         protocols: [tcp, udp]"
    )]
    NoPorts {
        /// The rule's name.
        rule: String,
    },
    /// More than the tables hold.
    #[error(
        "the rules divide the {what} into {ranges} ranges, and {most} is the most; list fewer, or larger ones that hold them"
    )]
    Ranges {
        /// What is divided.
        what: &'static str,
        /// Into so many.
        ranges: usize,
        /// The most.
        most: usize,
    },
}

impl TryFrom<String> for RuleName {
    type Error = FilterError;
    fn try_from(name: String) -> Result<Self, FilterError> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if name == NO_RULE || name == EARLIER_RULES {
            return Err(FilterError::Reserved(name));
        }
        let begins = name.bytes().next().is_some_and(|first| first.is_ascii_lowercase());
        if begins && name.len() < 64 && name.bytes().all(fits) {
            Ok(Self(name))
        } else {
            Err(FilterError::Name(name))
        }
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FilterRule {
    /// Whether it asks for ports.
    pub(super) fn wants_ports(&self) -> bool {
        let of = &self.packets;
        [&of.ports, &of.source_ports, &of.destination_ports].iter().any(|ports| !ports.is_empty())
    }

    fn check(&self) -> Result<(), FilterError> {
        let rule = || self.name.0.clone();
        if let Err(SelectError::Pattern { pattern, reason }) = patterns(&self.packets.interfaces) {
            return Err(FilterError::Pattern { rule: rule(), pattern, reason });
        }
        let protocols = &self.packets.protocols;
        let have_ports = protocols.is_empty() || protocols.iter().any(|protocol| protocol.has_ports());
        if self.wants_ports() && !have_ports {
            return Err(FilterError::NoPorts { rule: rule() });
        }
        Ok(())
    }

    /// Its patterns of interfaces.
    pub(super) fn interfaces(&self) -> Vec<Pattern> {
        // They were checked.
        patterns(&self.packets.interfaces).unwrap_or_default()
    }
}

impl TryFrom<Vec<FilterRule>> for FilterRules {
    type Error = FilterError;
    fn try_from(rules: Vec<FilterRule>) -> Result<Self, FilterError> {
        if rules.len() > RULES {
            return Err(FilterError::Rules(rules.len()));
        }
        let mut names = BTreeSet::new();
        for rule in &rules {
            if !names.insert(&rule.name) {
                return Err(FilterError::SameName(rule.name.0.clone()));
            }
            rule.check()?;
        }
        let rules = Self(rules);
        let [v4, v6, ports] = super::tables::ranges(&rules);
        for (what, ranges, most) in [
            ("IPv4 addresses", v4, ADDRESS_RANGES),
            ("IPv6 addresses", v6, ADDRESS_RANGES),
            ("ports", ports, PORT_RANGES),
        ] {
            if ranges > most {
                return Err(FilterError::Ranges { what, ranges, most });
            }
        }
        Ok(rules)
    }
}

impl FilterRules {
    /// In order.
    #[must_use]
    pub fn rules(&self) -> &[FilterRule] {
        &self.0
    }

    /// What becomes of packets that no rule matches: the opposite of what becomes of those that the last one does, so that a
    /// list says all that it has to say.
    #[must_use]
    pub fn otherwise(&self) -> FilterAction {
        match self.0.last().map(|rule| rule.action) {
            Some(FilterAction::Include) => FilterAction::Exclude,
            Some(FilterAction::Exclude) | None => FilterAction::Include,
        }
    }
}

/// A port, or ports from a first to a last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last, at least the first.
    pub last: u16,
}

const PORTS: &str = "a port, or a first and a last one, for example 53 or 6000-6063";

impl PortRange {
    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.trim().parse().ok();
        let range = Self { first: port(first)?, last: port(last)? };
        (range.first <= range.last).then_some(range)
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.first == self.last {
            serializer.serialize_u16(self.first)
        } else {
            serializer.collect_str(&format_args!("{}-{}", self.first, self.last))
        }
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ports;
        impl Visitor<'_> for Ports {
            type Value = PortRange;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(PORTS)
            }
            fn visit_u64<E: de::Error>(self, port: u64) -> Result<PortRange, E> {
                let port = u16::try_from(port).map_err(|_| wrong(&port))?;
                Ok(PortRange { first: port, last: port })
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<PortRange, E> {
                PortRange::parse(text).ok_or_else(|| wrong(&text))
            }
        }
        fn wrong<E: de::Error>(given: &dyn fmt::Display) -> E {
            E::custom(format_args!("`{given}` is no range of ports; write {PORTS}"))
        }
        deserializer.deserialize_any(Ports)
    }
}

impl JsonSchema for PortRange {
    fn schema_name() -> Cow<'static, str> {
        "PortRange".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [
                { "type": "integer", "minimum": 0, "maximum": u16::MAX },
                { "type": "string", "pattern": "^[0-9]{1,5}(-[0-9]{1,5})?$", "examples": ["6000-6063"] },
            ]
        })
    }
}

/// A protocol behind the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Protocol(pub u8);

/// Those that have a name here (IANA, in small letters).
const PROTOCOLS: [(&str, u8); 14] = [
    ("icmp", 1),
    ("igmp", 2),
    ("ipv4", 4),
    ("tcp", 6),
    ("udp", 17),
    ("ipv6", 41),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("ipv6-icmp", 58),
    ("ospfigp", 89),
    ("pim", 103),
    ("vrrp", 112),
    ("sctp", 132),
];

impl Protocol {
    fn name(self) -> Option<&'static str> {
        PROTOCOLS.iter().find(|(_, number)| *number == self.0).map(|(name, _)| *name)
    }

    const fn has_ports(self) -> bool {
        matches!(self.0, 6 | 17 | 132)
    }

    fn parse(text: &str) -> Option<Self> {
        let named = PROTOCOLS.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
        named.or_else(|| text.parse().ok()).map(Self)
    }
}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.name() {
            Some(name) => serializer.serialize_str(name),
            None => serializer.serialize_u8(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrNumber;
        impl Visitor<'_> for NameOrNumber {
            type Value = Protocol;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a protocol's name or number, for example tcp or 6")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Protocol, E> {
                u8::try_from(number).map(Protocol).map_err(|_| wrong(&number))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Protocol, E> {
                Protocol::parse(text).ok_or_else(|| wrong(&text))
            }
        }
        fn wrong<E: de::Error>(given: &dyn fmt::Display) -> E {
            let names = PROTOCOLS.map(|(name, _)| name).join(", ");
            E::custom(format_args!(
                "`{given}` is no protocol; write one of {names}, or a number from 0 to 255"
            ))
        }
        deserializer.deserialize_any(NameOrNumber)
    }
}

impl JsonSchema for Protocol {
    fn schema_name() -> Cow<'static, str> {
        "Protocol".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [
                { "enum": PROTOCOLS.map(|(name, _)| name) },
                { "type": "integer", "minimum": 0, "maximum": u8::MAX },
            ]
        })
    }
}

impl fmt::Display for FilterRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = if self.action == FilterAction::Include { "include" } else { "exclude" };
        f.write_str(action)?;
        let of = &self.packets;
        let mut all = true;
        let mut list = |name: &str, values: Vec<String>| {
            if values.is_empty() {
                return Ok(());
            }
            all = false;
            write!(f, " {name} {}", values.join(", "))
        };
        let networks = |networks: &[Network]| networks.iter().map(|network| network.0.to_string()).collect();
        let ports = |ports: &[PortRange]| ports.iter().map(PortRange::to_string).collect();
        list("networks", networks(&of.networks))?;
        list("source_networks", networks(&of.source_networks))?;
        list("destination_networks", networks(&of.destination_networks))?;
        list("ports", ports(&of.ports))?;
        list("source_ports", ports(&of.source_ports))?;
        list("destination_ports", ports(&of.destination_ports))?;
        list("protocols", of.protocols.iter().map(Protocol::to_string).collect())?;
        list("interfaces", of.interfaces.clone())?;
        if all { f.write_str(" all") } else { Ok(()) }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}
