//! The search in tables of filters, and which rule has the verdict; what rules mean is tested where tables are made of them.

use crate::build::{TCP, UDP, ip, ipv4, ipv6, tcp, udp};
use mermin_wire::{
    ADDRESS_RANGES, Filters, Headers, METERED, NO_RULE, Number, PORT_RANGES, Question, RULES, Ranges, Sets,
    Sizes,
};
use proptest::prelude::*;

const ALL: Sets = Sets { source: u64::MAX, destination: u64::MAX, either: u64::MAX };

/// Every packet is right for every rule.
fn all() -> Box<Filters> {
    Box::new(Filters {
        v4: Ranges { first: [u64::MAX; ADDRESS_RANGES], rules: [ALL; ADDRESS_RANGES] },
        v6: Ranges { first: [[u64::MAX; 2]; ADDRESS_RANGES], rules: [ALL; ADDRESS_RANGES] },
        ports: Ranges { first: [u64::MAX; PORT_RANGES], rules: [ALL; PORT_RANGES] },
        protocols: [u64::MAX; 256],
        without_ports: u64::MAX,
        any_interface: u64::MAX,
        include: 0,
        otherwise: METERED.into(),
    })
}

fn tcp4() -> Headers {
    ip(&ipv4(TCP, &tcp())).expect("whole")
}

fn udp6() -> Headers {
    ip(&ipv6(UDP, &udp())).expect("whole")
}

fn verdict(filters: &Filters, sizes: Sizes, headers: &Headers) -> u8 {
    filters.verdict(sizes, &Question::of(headers, u64::MAX))
}

#[test]
fn the_first_rule_that_matches_has_the_verdict() {
    let mut filters = all();
    let (tcp, sizes) = (tcp4(), Sizes::default());
    for rule in 0..RULES {
        filters.protocols[usize::from(TCP)] = u64::MAX << rule;
        assert_eq!(usize::from(verdict(&filters, sizes, &tcp)), 1 + rule);
        filters.include = 1 << rule;
        assert_eq!(verdict(&filters, sizes, &tcp), METERED);
        filters.include = !filters.include;
        assert_eq!(usize::from(verdict(&filters, sizes, &tcp)), 1 + rule);
        filters.include = 0;
    }
    filters.protocols[usize::from(TCP)] = 0;
    assert_eq!(verdict(&filters, sizes, &tcp), METERED);
    filters.otherwise = NO_RULE.into();
    assert_eq!(verdict(&filters, sizes, &tcp), NO_RULE);
    assert_eq!(filters.verdict(sizes, &Question::of(&udp6(), 0)), NO_RULE, "not its interface");
    assert_eq!(filters.verdict(sizes, &Question::of(&udp6(), 0b1000)), 4);
}

/// From 10.0.0.1 port 12345 to 192.168.1.2 port 80.
#[test]
fn a_rule_wants_source_and_destination_and_either_of_both() {
    let mut filters = all();
    filters.otherwise = NO_RULE.into();
    let sizes = Sizes { v4: 2, ports: 1, ..Sizes::default() };
    filters.v4.first[..4].copy_from_slice(&[0, 0x0a00_0001, 0xc0a8_0102, 0xc0a8_0103]);
    let bits = |source, destination, either| Sets { source, destination, either };
    let none = bits(0, 0, 0);
    for (at_source, at_destination, expected) in [
        (bits(1, 0, 1), bits(0, 1, 0), 1),
        (bits(1, 0, 0), bits(0, 1, 1), 1),
        (bits(1, 0, 1), bits(0, 1, 1), 1),
        (bits(1, 0, 0), bits(0, 1, 0), NO_RULE),
        (bits(0, 1, 1), bits(1, 0, 1), NO_RULE),
        (bits(1, 1, 1), none, NO_RULE),
        (none, bits(1, 1, 1), NO_RULE),
    ] {
        filters.v4.rules[..4].copy_from_slice(&[none, at_source, at_destination, none]);
        assert_eq!(verdict(&filters, sizes, &tcp4()), expected, "{at_source:?} {at_destination:?}");
    }
    filters.v4.rules[..4].fill(ALL);
    filters.ports.first[..2].copy_from_slice(&[0, 12_345]);
    filters.ports.rules[..2].copy_from_slice(&[bits(0, 1, 0), bits(1, 0, 1)]);
    assert_eq!(verdict(&filters, sizes, &tcp4()), 1);
    filters.ports.first[1] = 12_346;
    assert_eq!(verdict(&filters, sizes, &tcp4()), NO_RULE);
}

#[test]
fn what_has_no_ports_is_not_looked_up_by_them() {
    let mut later = ipv4(UDP, &udp());
    later[7] = 1;
    let mut echo = udp();
    echo[0] = 8;
    let mut filters = all();
    filters.ports.rules.fill(Sets::default());
    filters.otherwise = NO_RULE.into();
    for headers in [ip(&later).unwrap(), ip(&ipv4(1, &echo)).unwrap()] {
        assert_eq!(verdict(&filters, Sizes::default(), &headers), 1);
    }
    assert_eq!(verdict(&filters, Sizes::default(), &tcp4()), NO_RULE);
}

proptest! {
    #[test]
    fn numbers_are_compared_without_branches(a: [u64; 2], b: [u64; 2], near in 0..3_u64, what in 0..4) {
        let b = match what {
            0 => b,
            1 => [a[0], b[1]],
            2 => [a[0].wrapping_add(near).wrapping_sub(1), b[1]],
            _ => [a[0], a[1].wrapping_add(near).wrapping_sub(1)],
        };
        prop_assert_eq!(a[0].reaches(b[0]) >> 63 == 1, a[0] >= b[0]);
        prop_assert_eq!(a.reaches(b) >> 63 == 1, a >= b);
    }

    /// The source's range, of as many as there are.
    #[test]
    fn the_range_that_holds_an_address_is_found(
        mut firsts in prop::collection::btree_set(any::<u32>(), 1..300),
        address in any::<u32>(),
        place in any::<prop::sample::Index>(),
        exact: bool,
    ) {
        firsts.insert(0);
        let firsts: Vec<_> = firsts.into_iter().collect();
        let address = if exact { firsts[place.index(firsts.len())] } else { address };
        let mut filters = all();
        for (at, first) in firsts.iter().enumerate() {
            filters.v4.first[at] = (*first).into();
            filters.v4.rules[at] = Sets { source: 1 << (at % RULES), ..ALL };
        }
        let last = filters.v4.rules[firsts.len() - 1];
        filters.v4.rules[firsts.len()..].fill(last);
        let sizes = Sizes { v4: firsts.len().next_power_of_two().ilog2(), ..Sizes::default() };
        let headers = Headers { source: [address.to_be().into(), 0], ..tcp4() };
        let expected = firsts.partition_point(|first| *first <= address) - 1;
        prop_assert_eq!(usize::from(verdict(&filters, sizes, &headers)), 1 + expected % RULES);
    }
}
