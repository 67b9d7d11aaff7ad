//! Whose records go first when an output lags behind: rules of the configuration, and the class that they give.
//!
//! A rule is a list of conditions that all have to hold, each of them on one fact of a record. The first rule that fits
//! decides; there is no arithmetic of weights that one would have to do in one's head. Rules are asked only about records
//! that meet a backlog: an output that keeps up costs nothing.

use mermin_flow::{FlowEvent, FlowRecord, Identity, KubernetesAttribute, Network};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How important records are. The first goes first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Ahead of all others; merged and dropped last.
    High,
    /// What no rule speaks of.
    #[default]
    Normal,
    /// Behind all others; merged and dropped first.
    Low,
}

/// A transport protocol, by its IANA keyword.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// 1
    Icmp,
    /// 6
    Tcp,
    /// 17
    Udp,
    /// 47
    Gre,
    /// 50
    Esp,
    /// 51
    Ah,
    /// 58
    Ipv6Icmp,
    /// 132
    Sctp,
}

impl Transport {
    const fn number(self) -> u8 {
        match self {
            Self::Icmp => 1,
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Gre => 47,
            Self::Esp => 50,
            Self::Ah => 51,
            Self::Ipv6Icmp => 58,
            Self::Sctp => 132,
        }
    }
}

/// The records that a rule is about; see [`PriorityRule::records`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// Networks or addresses of which one holds the address of either end.
    pub networks: Vec<Network>,
    /// Ports of either end.
    pub ports: Vec<u16>,
    /// Transport protocols; others than these can't be named.
    pub transports: Vec<Transport>,
    /// Values of `flow.event`.
    pub events: Vec<FlowEvent>,
    /// Kubernetes namespaces of either end, or of the service that it stands behind.
    pub namespaces: Vec<String>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PriorityRule {
    /// Which records it is about: those that fit every list below that isn't empty, by one value of each; without any,
    /// all.
    #[serde(rename = "match")]
    pub records: Match,
    /// The class that they get.
    pub class: Class,
}

impl Match {
    /// Whether every condition holds. The cheap ones are asked first.
    fn fits(&self, record: &FlowRecord) -> bool {
        let ends = [&record.source, &record.destination];
        holds(&self.events, |event| *event == record.event)
            && holds(&self.transports, |transport| transport.number() == record.protocol)
            && holds(&self.ports, |port| ends.iter().any(|end| end.port == Some(*port)))
            && holds(&self.networks, |network| ends.iter().any(|end| network.0.contains(&end.address)))
            && holds(&self.namespaces, |name| ends.iter().any(|end| is_in(&end.identity, name)))
    }
}

/// Whether a condition holds: no list is no condition.
fn holds<T>(list: &[T], is: impl FnMut(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(is)
}

/// Whether an end, or the service whose backend it is, is in this namespace.
fn is_in(identity: &Identity, namespace: &str) -> bool {
    let Some(end) = &identity.kubernetes else { return false };
    [&end.object, &end.service]
        .into_iter()
        .flatten()
        .any(|object| object.get(KubernetesAttribute::NamespaceName).is_some_and(|name| **name == *namespace))
}

/// The class of a record.
pub(crate) fn class_of(rules: &[PriorityRule], record: &FlowRecord) -> Class {
    rules.iter().find(|rule| rule.records.fits(record)).map_or(Class::default(), |rule| rule.class)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::record;
    use mermin_flow::{KubernetesEnd, KubernetesObject, Resolution};
    use std::sync::Arc;

    fn rules(json: &str) -> Vec<PriorityRule> {
        serde_json::from_str(json).unwrap()
    }

    /// A record of a TCP flow from 192.0.2.1, port 40000, to 198.51.100.2, port 443.
    fn https(event: FlowEvent) -> FlowRecord {
        let mut record = record(1, event);
        record.protocol = 6;
        record.source.address = [192, 0, 2, 1].into();
        record.destination.address = [198, 51, 100, 2].into();
        (record.source.port, record.destination.port) = (Some(40_000), Some(443));
        record
    }

    fn in_namespace(name: &str) -> Option<Arc<KubernetesObject>> {
        let attributes = Box::new([(KubernetesAttribute::NamespaceName, name.into())]);
        Some(Arc::new(KubernetesObject { attributes, labels: Box::default() }))
    }

    #[test]
    fn every_condition_has_to_hold_and_one_value_of_each_suffices() {
        let record = https(FlowEvent::End);
        for (rule, fits) in [
            ("{}", true),
            (r#"{"networks": ["192.0.2.0/24"]}"#, true),
            (r#"{"networks": ["198.51.100.2"]}"#, true),
            (r#"{"networks": ["10.0.0.0/8", "2001:db8::/32"]}"#, false),
            (r#"{"ports": [443]}"#, true),
            (r#"{"ports": [40000]}"#, true),
            (r#"{"ports": [80, 8080]}"#, false),
            (r#"{"transports": ["udp", "tcp"]}"#, true),
            (r#"{"transports": ["udp"]}"#, false),
            (r#"{"events": ["end"]}"#, true),
            (r#"{"events": ["start", "update"]}"#, false),
            (r#"{"namespaces": ["shop"]}"#, false),
            (
                r#"{"networks": ["192.0.2.0/24"], "ports": [443], "transports": ["tcp"], "events": ["end"]}"#,
                true,
            ),
            (r#"{"networks": ["192.0.2.0/24"], "ports": [80]}"#, false),
        ] {
            let rule = rules(&format!(r#"[{{"match": {rule}, "class": "high"}}]"#));
            let expected = if fits { Class::High } else { Class::Normal };
            assert_eq!(class_of(&rule, &record), expected, "{rule:?}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rules = rules(
            r#"[{"match": {"ports": [443], "events": ["update"]}, "class": "normal"},
                {"match": {"ports": [443]}, "class": "high"},
                {"match": {}, "class": "low"}]"#,
        );
        let mut other = https(FlowEvent::End);
        other.destination.port = Some(53);
        assert_eq!(class_of(&rules, &https(FlowEvent::Update)), Class::Normal);
        assert_eq!(class_of(&rules, &https(FlowEvent::End)), Class::High);
        assert_eq!(class_of(&rules, &other), Class::Low);
        assert_eq!(class_of(&[], &other), Class::Normal);
    }

    #[test]
    fn a_namespace_is_that_of_either_end_or_of_its_service() {
        let rules = rules(r#"[{"match": {"namespaces": ["shop"]}, "class": "high"}]"#);
        let end = |object: &str, service: &str| {
            Some(KubernetesEnd {
                object: in_namespace(object),
                service: in_namespace(service),
                resolution: Resolution::Exact,
                container: None,
            })
        };
        for (source, destination, class) in [
            (end("shop", "other"), None, Class::High),
            (None, end("other", "shop"), Class::High),
            (end("shops", "other"), end("other", "sho"), Class::Normal),
            (Some(KubernetesEnd::UNKNOWN), None, Class::Normal),
        ] {
            let mut record = https(FlowEvent::Update);
            record.source.identity.kubernetes = source;
            record.destination.identity.kubernetes = destination;
            assert_eq!(class_of(&rules, &record), class);
        }
    }

    #[test]
    fn transports_have_their_numbers() {
        for (word, number) in [
            ("icmp", 1),
            ("tcp", 6),
            ("udp", 17),
            ("gre", 47),
            ("esp", 50),
            ("ah", 51),
            ("ipv6-icmp", 58),
            ("sctp", 132),
        ] {
            let rules = rules(&format!(r#"[{{"match": {{"transports": ["{word}"]}}, "class": "low"}}]"#));
            let mut record = https(FlowEvent::End);
            record.protocol = number;
            assert_eq!(class_of(&rules, &record), Class::Low, "{word}");
        }
    }

    #[test]
    fn what_is_unknown_or_missing_is_an_error() {
        for bad in [
            r#"[{"match": {}}]"#,
            r#"[{"class": "low"}]"#,
            r#"[{"match": {}, "class": "urgent"}]"#,
            r#"[{"match": {"port": [1]}, "class": "low"}]"#,
            r#"[{"match": {"ports": [65536]}, "class": "low"}]"#,
            r#"[{"match": {"networks": ["10.0.0.1/8"]}, "class": "low"}]"#,
            r#"[{"match": {"transports": ["TCP"]}, "class": "low"}]"#,
            r#"[{"match": {"events": ["stop"]}, "class": "low"}]"#,
            r#"[{"match": {}, "class": "low", "name": "x"}]"#,
        ] {
            assert!(serde_json::from_str::<Vec<PriorityRule>>(bad).is_err(), "{bad}");
        }
    }
}
