//! From rules to the tables that packets are looked up in.
//!
//! All networks of an IP version divide its addresses into ranges; within one, every address is right for the same rules.

use super::rule::{FilterAction, FilterMatch, FilterRules, PortRange};
use mermin_flow::Network;
use mermin_wire::{Filters, METERED, NO_RULE, Number, Ranges, Sets, Sizes};
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// Values that a list names. An empty list names all.
type Named = Vec<RangeInclusive<u128>>;
/// What a rule asks of both, of the source, and of the destination.
type Asked = [Named; 3];

/// How many ranges there are: of IPv4 addresses, of IPv6 addresses, of ports.
pub(super) fn ranges(rules: &FilterRules) -> [usize; 3] {
    [addresses(rules, true), addresses(rules, false), ports(rules)].map(|asked| firsts(&asked).len())
}

/// The tables of rules that were checked, and their sizes.
pub(super) fn tables(rules: &FilterRules) -> (Box<Filters>, Sizes) {
    let bits = |is: &dyn Fn(&FilterMatch) -> bool| {
        let all = rules.rules().iter().enumerate();
        all.fold(0, |bits, (at, rule)| bits | u64::from(is(&rule.packets)) << at)
    };
    let by_protocol = |number: usize| {
        bits(&|of| of.protocols.is_empty() || of.protocols.iter().any(|one| usize::from(one.0) == number))
    };
    let all = rules.rules().iter().enumerate();
    let (mut include, mut without_ports) = (0, 0);
    for (at, rule) in all {
        include |= u64::from(rule.action == FilterAction::Include) << at;
        without_ports |= u64::from(!rule.wants_ports()) << at;
    }
    let mut filters = Box::new(Filters {
        v4: Ranges { first: [u64::MAX; _], rules: [Sets::default(); _] },
        v6: Ranges { first: [[u64::MAX; 2]; _], rules: [Sets::default(); _] },
        ports: Ranges { first: [u64::MAX; _], rules: [Sets::default(); _] },
        protocols: std::array::from_fn(by_protocol),
        without_ports,
        any_interface: bits(&|of| of.interfaces.is_empty()),
        include,
        otherwise: u64::from(if rules.otherwise() == FilterAction::Include { METERED } else { NO_RULE }),
    });
    let sizes = Sizes {
        v4: fill(&mut filters.v4, &addresses(rules, true), |first| first as u64),
        v6: fill(&mut filters.v6, &addresses(rules, false), |first| [(first >> 64) as u64, first as u64]),
        ports: fill(&mut filters.ports, &ports(rules), |first| first as u64),
    };
    (filters, sizes)
}

/// What each rule asks of addresses of a version. A rule that names networks of the other version alone asks for none of these.
fn addresses(rules: &FilterRules, v4: bool) -> Vec<Asked> {
    let range = |network: &Network| match (network.0.network(), network.0.broadcast()) {
        (IpAddr::V4(first), IpAddr::V4(last)) if v4 => Some(number(first.into())..=number(last.into())),
        (IpAddr::V6(first), IpAddr::V6(last)) if !v4 => Some(u128::from(first)..=u128::from(last)),
        _ => None,
    };
    let named = |networks: &[Network]| -> Named {
        let ranges: Named = networks.iter().filter_map(range).collect();
        if ranges.is_empty() && !networks.is_empty() { vec![NONE] } else { ranges }
    };
    let of = |of: &FilterMatch| {
        [&of.networks, &of.source_networks, &of.destination_networks].map(|list| named(list))
    };
    rules.rules().iter().map(|rule| of(&rule.packets)).collect()
}

/// No value at all.
#[expect(clippy::reversed_empty_ranges, reason = "that is what it is")]
const NONE: RangeInclusive<u128> = 1..=0;

const fn number(address: u32) -> u128 {
    address as u128
}

fn ports(rules: &FilterRules) -> Vec<Asked> {
    let named =
        |ports: &Vec<PortRange>| ports.iter().map(|range| range.first.into()..=range.last.into()).collect();
    let of = |of: &FilterMatch| [&of.ports, &of.source_ports, &of.destination_ports].map(named);
    rules.rules().iter().map(|rule| of(&rule.packets)).collect()
}

/// The first values of all ranges, in order. That behind the last value of all may be among them.
fn firsts(asked: &[Asked]) -> Vec<u128> {
    let mut firsts = vec![0];
    for range in asked.iter().flatten().flatten().filter(|range| !range.is_empty()) {
        firsts.push(*range.start());
        firsts.extend(range.end().checked_add(1));
    }
    firsts.sort_unstable();
    firsts.dedup();
    firsts
}

/// The size, as a power of two.
fn fill<N: Number, const RANGES: usize>(
    table: &mut Ranges<N, RANGES>,
    asked: &[Asked],
    number: impl Fn(u128) -> N,
) -> u32 {
    let firsts = firsts(asked);
    let names = |list: &Named, value| list.is_empty() || list.iter().any(|range| range.contains(&value));
    let bits = |which: usize, value: u128| {
        let rules = asked.iter().enumerate();
        rules.fold(0, |bits, (at, asked)| bits | u64::from(names(&asked[which], value)) << at)
    };
    let mut last = Sets::default();
    for (at, (first, rules)) in table.first.iter_mut().zip(&mut table.rules).enumerate() {
        if let Some(value) = firsts.get(at) {
            *first = number(*value);
            last = Sets { either: bits(0, *value), source: bits(1, *value), destination: bits(2, *value) };
        }
        *rules = last;
    }
    firsts.len().next_power_of_two().ilog2()
}
