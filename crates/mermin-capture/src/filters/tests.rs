//! What rules mean, said in another way; and what is no rule.

use super::{FilterRules, Filtering, FrameFilter};
use mermin_flow::{ObservationPoint, ObservationPoints, Tally};
use mermin_wire::{FILTERED, METERED, NO_RULE, Question};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;

fn rules(value: &Value) -> FilterRules {
    serde_json::from_value(value.clone()).unwrap()
}

/// A packet, or what is asked of it.
#[derive(Clone, Debug)]
struct Packet {
    source: IpAddr,
    destination: IpAddr,
    ports: Option<[u16; 2]>,
    protocol: u8,
    interface: Option<&'static str>,
}

impl Packet {
    fn of(source: &str, destination: &str, protocol: u8, ports: Option<[u16; 2]>) -> Self {
        let [source, destination] = [source, destination].map(|address| address.parse().unwrap());
        Self { source, destination, ports, protocol, interface: Some("eth0") }
    }

    fn question(&self, filtering: &Filtering) -> Question {
        let words = |address: IpAddr| match address {
            IpAddr::V4(address) => [u32::from_ne_bytes(address.octets()).into(), 0],
            IpAddr::V6(address) => {
                let octets = address.octets();
                [0, 8].map(|at| u64::from_ne_bytes(octets[at..at + 8].try_into().unwrap()))
            }
        };
        let [from, to] = self.ports.unwrap_or([53, 53]).map(u16::to_be);
        Question {
            source: words(self.source),
            destination: words(self.destination),
            ports: u32::from(to) << 16 | u32::from(from),
            has_ports: self.ports.is_some(),
            version: if self.source.is_ipv4() { 4 } else { 6 },
            protocol: self.protocol,
            rules: filtering.rules_of(self.interface),
        }
    }
}

fn verdict(rules: &FilterRules, packet: &Packet) -> u8 {
    let Some(filtering) = Filtering::of(rules) else { return METERED };
    filtering.tables.verdict(filtering.sizes, &packet.question(&filtering))
}

/// As the reference says it, rule by rule.
fn expected(rules: &Value, packet: &Packet) -> u8 {
    let rules = rules.as_array().unwrap();
    let matches = |rule: &Value| {
        let list = |key: &str| rule["match"][key].as_array().cloned().unwrap_or_default();
        let network = |key: &str, ends: &[IpAddr]| {
            let networks = list(key);
            networks.is_empty()
                || networks.iter().any(|network| {
                    let network: mermin_flow::Network = network.as_str().unwrap().parse().unwrap();
                    ends.iter().any(|address| network.0.contains(address))
                })
        };
        let port = |key: &str, ends: &[usize]| {
            let ranges = list(key);
            ranges.is_empty()
                || ranges.iter().any(|range| {
                    let (first, last) = match range.as_str().and_then(|text| text.split_once('-')) {
                        Some((first, last)) => (first.parse().unwrap(), last.parse().unwrap()),
                        None => (range.as_u64().unwrap(), range.as_u64().unwrap()),
                    };
                    packet.ports.is_some_and(|ports| {
                        ends.iter().any(|end| (first..=last).contains(&u64::from(ports[*end])))
                    })
                })
        };
        let (protocols, interfaces) = (list("protocols"), list("interfaces"));
        network("networks", &[packet.source, packet.destination])
            && network("source_networks", &[packet.source])
            && network("destination_networks", &[packet.destination])
            && port("ports", &[0, 1])
            && port("source_ports", &[0])
            && port("destination_ports", &[1])
            && (protocols.is_empty() || protocols.contains(&json!(packet.protocol)))
            && (interfaces.is_empty()
                || packet.interface.is_some_and(|name| {
                    interfaces
                        .iter()
                        .any(|pattern| pattern == name || pattern == "e*" && name.starts_with('e'))
                }))
    };
    match rules.iter().position(matches) {
        Some(at) if rules[at]["action"] == "include" => METERED,
        Some(at) => 1 + at as u8,
        None if rules.last().is_some_and(|rule| rule["action"] == "include") => NO_RULE,
        None => METERED,
    }
}

#[test]
fn the_first_rule_that_matches_says_what_becomes_of_a_packet() {
    let list = json!([
        { "name": "no_dns", "action": "exclude", "match": { "ports": [53], "protocols": ["udp", "tcp"] } },
        { "name": "probes", "action": "exclude", "match": {
            "source_networks": ["10.0.0.7"], "destination_ports": ["8000-8079"] } },
        { "name": "ours", "action": "include", "match": { "networks": ["10.0.0.0/8", "2001:db8::/32"] } },
        { "name": "pings", "action": "exclude", "match": { "protocols": ["icmp", "ipv6-icmp"] } },
    ]);
    let rules = rules(&list);
    let tcp = |from, to, ports| Packet::of(from, to, 6, Some(ports));
    for (packet, verdict_of) in [
        (tcp("10.0.0.1", "10.0.0.2", [40_000, 53]), 1),
        (tcp("10.0.0.1", "10.0.0.2", [53, 40_000]), 1),
        (Packet::of("10.0.0.1", "10.0.0.2", 132, Some([53, 53])), METERED),
        (tcp("10.0.0.7", "10.0.0.2", [40_000, 8_079]), 2),
        (tcp("10.0.0.7", "10.0.0.2", [8_000, 8_080]), METERED),
        (tcp("10.0.0.2", "10.0.0.7", [40_000, 8_000]), METERED),
        (Packet::of("10.255.255.255", "192.0.2.1", 1, None), METERED),
        (Packet::of("11.0.0.0", "192.0.2.1", 1, None), 4),
        (Packet::of("2001:db9::", "2001:db8:ffff::", 58, None), METERED),
        (Packet::of("2001:db9::", "2001:db7::", 58, None), 4),
        (tcp("192.0.2.1", "192.0.2.2", [1, 2]), METERED),
    ] {
        assert_eq!(verdict(&rules, &packet), verdict_of, "{packet:?}");
        assert_eq!(expected(&numbers(&list), &packet), verdict_of, "{packet:?}");
    }
    assert_eq!(rules_by_interface(Some("eth1")), 2);
    assert_eq!(rules_by_interface(Some("wlan0")), NO_RULE);
    assert_eq!(rules_by_interface(None), NO_RULE);
}

/// With the numbers of protocols.
fn numbers(list: &Value) -> Value {
    let text = list.to_string();
    let names = [("\"udp\"", "17"), ("\"tcp\"", "6"), ("\"icmp\"", "1"), ("\"ipv6-icmp\"", "58")];
    serde_json::from_str(&names.iter().fold(text, |text, (name, number)| text.replace(name, number))).unwrap()
}

fn rules_by_interface(interface: Option<&'static str>) -> u8 {
    let rules = rules(&json!([
        { "name": "one", "action": "exclude", "match": { "interfaces": ["eth0"] } },
        { "name": "others", "action": "exclude", "match": { "interfaces": ["wg*", "eth?"] } },
        { "name": "lan", "action": "include", "match": { "interfaces": ["lan"] } },
    ]));
    verdict(&rules, &Packet { interface, ..Packet::of("10.0.0.1", "10.0.0.2", 6, Some([1, 2])) })
}

#[test]
fn a_point_goes_by_the_name_that_it_has() {
    let list = json!([{ "name": "new", "action": "exclude", "match": { "interfaces": ["new*"] } }]);
    let points = Arc::new(ObservationPoints::default());
    let old = ObservationPoint { interface: Some("old".into()), ..ObservationPoint::default() };
    let number = points.register(old, 0).unwrap();
    let mut filter = FrameFilter::new(Filtering::of(&rules(&list)).unwrap(), Arc::clone(&points));
    let packet = Packet::of("10.0.0.1", "10.0.0.2", 1, None);
    let about = || packet.question(&Filtering::of(&rules(&list)).unwrap());
    assert!(!filter.filter(about(), number, Tally::frame(60)));
    points.rename(number, &"new0".into());
    assert!(filter.filter(about(), number, Tally::frame(60)));
    assert!(!filter.filter(about(), ObservationPoints::UNKNOWN, Tally::frame(60)), "a point without a name");
    assert_eq!(filter.book()["new"], Tally::frame(60));
}

#[test]
fn what_is_counted_is_named_by_the_rules_alone() {
    let names = |list: Value| {
        let filtering = Filtering::of(&rules(&list)).unwrap();
        let book = filtering.book(&super::Filtered::default());
        book.keys().map(|name| name.to_string()).collect::<Vec<_>>()
    };
    let rule = |name: &str, action: &str| json!({ "name": name, "action": action });
    assert_eq!(names(json!([rule("b", "exclude"), rule("c", "include"), rule("a", "exclude")])), ["a", "b"]);
    assert_eq!(names(json!([rule("b", "exclude"), rule("c", "include")])), ["b", "no_rule"]);
    assert!(Filtering::of(&FilterRules::default()).is_none());
    const { assert!(FILTERED == NO_RULE as usize) };
}

#[test]
fn what_is_wrong_is_said_with_what_to_write() {
    let error = |value: Value| serde_json::from_value::<FilterRules>(value).unwrap_err().to_string();
    let one = |matches: Value| error(json!([{ "name": "x", "action": "exclude", "match": matches }]));
    let named = |name: &str| error(json!([{ "name": name, "action": "exclude" }]));
    for (error, expected) in [
        (named("No DNS"), "`No DNS` can't name a rule; write 1 to 63 lower-case letters"),
        (named(""), "`` can't name a rule"),
        (named("no_rule"), "write another name"),
        (error(json!([{ "name": "x", "action": "drop" }])), "expected `include` or `exclude`"),
        (error(json!([{ "name": "x" }])), "missing field `action`"),
        (
            error(json!([{ "name": "x", "action": "exclude" }, { "name": "x", "action": "include" }])),
            "two rules are named `x`",
        ),
        (one(json!({ "networks": ["10.0.0.1/8"] })), "the network is 10.0.0.0/8"),
        (one(json!({ "ports": ["80-22"] })), "`80-22` is no range of ports; write a port, or a first"),
        (one(json!({ "ports": [65_536] })), "`65536` is no range of ports"),
        (one(json!({ "protocols": ["http"] })), "`http` is no protocol; write one of icmp, igmp"),
        (one(json!({ "protocols": [256] })), "`256` is no protocol"),
        (one(json!({ "interfaces": ["[e"] })), "rule `x`: `[e` is not a pattern of interface names ("),
        (
            one(json!({ "ports": [1], "protocols": ["icmp"] })),
            "rule `x` asks for ports of protocols that have none",
        ),
        (one(json!({ "port": [1] })), "unknown field `port`"),
        (
            error((0..65).map(|n| json!({ "name": format!("r{n}"), "action": "exclude" })).collect()),
            "65 rules are more than 64",
        ),
        (
            one(
                json!({ "networks": (0..512).map(|n| format!("10.{}.{}.1", n / 256, n % 256)).collect::<Vec<_>>() }),
            ),
            "divide the IPv4 addresses into 1025 ranges, and 1024 is the most",
        ),
        (
            one(json!({ "ports": (0..128).map(|n| 2 * n + 1).collect::<Vec<_>>() })),
            "divide the ports into 257 ranges, and 256 is the most",
        ),
    ] {
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn rules_are_written_as_they_are_read() {
    let list = json!([
        { "name": "x", "action": "exclude", "match": {
            "networks": ["10.0.0.0/8"], "source_networks": [], "destination_networks": ["2001:db8::1/128"],
            "ports": [53, "6000-6063"], "source_ports": [], "destination_ports": [0],
            "protocols": ["tcp", 99], "interfaces": ["eth*"] } },
    ]);
    assert_eq!(serde_json::to_value(rules(&list)).unwrap(), list);
}

fn address() -> impl Strategy<Value = IpAddr> {
    let near = prop::sample::select(vec!["10.0.0.1", "10.0.0.2", "255.255.255.255", "0.0.0.0"]);
    let near6 = prop::sample::select(vec![
        "2001:db8::1",
        "2001:db8:0:1::",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "::",
    ]);
    prop_oneof![near, near6].prop_map(|text| text.parse().unwrap())
}

fn network() -> impl Strategy<Value = String> {
    (address(), 0..=128_u8).prop_map(|(address, length)| {
        let network = mermin_flow::Network(
            match address {
                IpAddr::V4(_) => format!("{address}/{}", length % 33),
                IpAddr::V6(_) => format!("{address}/{length}"),
            }
            .parse()
            .unwrap(),
        );
        network.0.trunc().to_string()
    })
}

fn port_range() -> impl Strategy<Value = Value> {
    let port = prop::sample::select(vec![0_u16, 52, 53, 54, 80, 40_000, 65_534, u16::MAX]);
    (port.clone(), port).prop_map(
        |(a, b)| {
            if a == b { json!(a) } else { json!(format!("{}-{}", a.min(b), a.max(b))) }
        },
    )
}

fn any_rule() -> impl Strategy<Value = Value> {
    let networks = || vec(network(), 0..3);
    let ports = || vec(port_range(), 0..3);
    let protocols = vec(prop::sample::select(vec![6_u8, 17, 132, 1]), 0..3);
    let interfaces = vec(prop::sample::select(vec!["e*", "eth0", "wg0"]), 0..2);
    let matches = ((networks(), networks(), networks()), (ports(), ports(), ports()), protocols, interfaces);
    (matches, any::<bool>()).prop_map(|(((n, sn, dn), (p, sp, dp), mut protocols, interfaces), include)| {
        // Ports of ICMP alone are refused.
        if !protocols.is_empty() && protocols.iter().all(|protocol| *protocol == 1) {
            protocols.push(17);
        }
        json!({ "action": if include { "include" } else { "exclude" }, "match": {
            "networks": n, "source_networks": sn, "destination_networks": dn,
            "ports": p, "source_ports": sp, "destination_ports": dp,
            "protocols": protocols, "interfaces": interfaces,
        } })
    })
}

fn any_rules() -> impl Strategy<Value = Value> {
    vec(any_rule(), 1..12).prop_map(|mut rules| {
        for (at, rule) in rules.iter_mut().enumerate() {
            rule["name"] = json!(format!("r{at}"));
        }
        Value::Array(rules)
    })
}

fn packet() -> impl Strategy<Value = Packet> {
    let port = || prop::sample::select(vec![0_u16, 52, 53, 54, 80, 40_000, 65_534, u16::MAX]);
    let protocol = prop::sample::select(vec![6_u8, 17, 132, 1]);
    let interface = prop::sample::select(vec![Some("eth0"), Some("wg0"), Some("lan"), None]);
    let ends = (address(), address()).prop_filter("one version", |(a, b)| a.is_ipv4() == b.is_ipv4());
    (ends, (port(), port()), any::<bool>(), protocol, interface).prop_map(
        |((source, destination), (from, to), has_ports, protocol, interface)| {
            let ports = (has_ports && protocol != 1).then_some([from, to]);
            Packet { source, destination, ports, protocol, interface }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn tables_say_what_the_rules_say(list in any_rules(), packets in vec(packet(), 30)) {
        let rules = rules(&list);
        for packet in &packets {
            prop_assert_eq!(verdict(&rules, packet), expected(&list, packet), "{:?}", packet);
        }
    }
}
