//! Which packets are metered: rules in order, and the first that a packet matches has the verdict.
//!
//! A rule is a bit. For each thing that rules ask for (addresses, ports, protocol, interface) a table has, by value, the
//! bits of the rules that the value is right for; all that a packet finds there, by `and`, are the rules that it matches. So
//! it costs the same for one rule and for all, and next to no more where they list many networks. Nothing branches where a
//! table is searched: the kernel's verifier would walk every way through it.
//!
//! The verdict depends on nothing but what a flow's key holds: whoever sums up packets by key may keep it with the sums.

use crate::headers::{Headers, PortForm};

/// Rules at most: one bit of a word for each.
pub const RULES: usize = 64;
/// Verdicts other than [`METERED`]: by each rule, and [`NO_RULE`]. They are numbered from 1 on.
pub const FILTERED: usize = RULES + 1;
/// The packet is metered.
pub const METERED: u8 = 0;
/// It is not, because no rule matches it.
pub const NO_RULE: u8 = FILTERED as u8;
/// Ranges of addresses of an IP version at most; a power of two.
pub const ADDRESS_RANGES: usize = 1_024;
/// Ranges of ports at most; a power of two.
pub const PORT_RANGES: usize = 256;

/// The rules that a value is right for, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Sets {
    /// As the source's.
    pub source: u64,
    /// As the destination's.
    pub destination: u64,
    /// As that of one of both, whichever.
    pub either: u64,
}

impl Sets {
    #[inline(always)]
    const fn of_both(source: &Self, destination: &Self) -> u64 {
        source.source & destination.destination & (source.either | destination.either)
    }
}

/// All values in ranges, in order: the first value of each, and the rules that its values are right for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Ranges<N, const RANGES: usize> {
    /// Of the first range it is 0. Behind the last one it is the largest value.
    pub first: [N; RANGES],
    /// Behind the last one as there.
    pub rules: [Sets; RANGES],
}

impl<N: Number, const RANGES: usize> Ranges<N, RANGES> {
    /// The rules of the range that holds `value`, of the first `1 << bits`.
    #[inline(always)]
    fn of(&self, bits: u32, value: N) -> &Sets {
        let (mut at, mut bit) = (0, bits);
        while bit > 0 {
            bit -= 1;
            let half = (at | 1 << bit) & (RANGES - 1);
            at |= (value.reaches(self.first[half]) >> 63 << bit) as usize;
        }
        &self.rules[at & (RANGES - 1)]
    }
}

/// What ranges are made of.
pub trait Number: Copy {
    /// In its highest bit, whether it is `other` or more; the other bits say nothing.
    fn reaches(self, other: Self) -> u64;
}

/// In its highest bit, what `a - b - borrow` borrows.
#[inline(always)]
const fn borrow(a: u64, b: u64, borrow: u64) -> u64 {
    (!a & b) | (!a | b) & a.wrapping_sub(b).wrapping_sub(borrow)
}

impl Number for u64 {
    #[inline(always)]
    fn reaches(self, other: Self) -> u64 {
        !borrow(self, other, 0)
    }
}

/// The high half first.
impl Number for [u64; 2] {
    #[inline(always)]
    fn reaches(self, other: Self) -> u64 {
        !borrow(self[0], other[0], borrow(self[1], other[1], 0) >> 63)
    }
}

/// How many ranges there are of each kind, as powers of two. Apart from the tables: the kernel's verifier has to know them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Of IPv4 addresses.
    pub v4: u32,
    /// Of IPv6 addresses.
    pub v6: u32,
    /// Of ports.
    pub ports: u32,
}

/// All rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Filters {
    /// By IPv4 address, as a number.
    pub v4: Ranges<u64, ADDRESS_RANGES>,
    /// By IPv6 address, likewise.
    pub v6: Ranges<[u64; 2], ADDRESS_RANGES>,
    /// By port.
    pub ports: Ranges<u64, PORT_RANGES>,
    /// By protocol.
    pub protocols: [u64; 256],
    /// Rules that packets without ports are right for: that ask for none.
    pub without_ports: u64,
    /// Rules for interfaces that nobody has told of: that ask for none.
    pub any_interface: u64,
    /// Rules that meter what they match.
    pub include: u64,
    /// The verdict on what no rule matches.
    pub otherwise: u64,
}

/// What rules are asked about: of a packet, or of all packets with its flow key.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Source address, as in [`Headers`].
    pub source: [u64; 2],
    /// Destination address, likewise.
    pub destination: [u64; 2],
    /// Both ports, likewise.
    pub ports: u32,
    /// Whether it has any: not type and code of ICMP, and no later fragment.
    pub has_ports: bool,
    /// 4 or 6.
    pub version: u8,
    /// IANA protocol number.
    pub protocol: u8,
    /// Rules that its interface is right for.
    pub rules: u64,
}

impl Question {
    /// About a packet with complete headers, on an interface that is right for these rules.
    #[inline(always)]
    #[must_use]
    pub const fn of(h: &Headers, rules: u64) -> Self {
        Self {
            source: h.source,
            destination: h.destination,
            ports: h.ports,
            has_ports: h.port_form as u8 == PortForm::Ports as u8,
            version: h.version,
            protocol: h.protocol,
            rules,
        }
    }
}

impl Filters {
    /// [`METERED`], [`NO_RULE`], or one more than the number of the rule that the packet is filtered by.
    #[inline(always)]
    #[must_use]
    pub fn verdict(&self, sizes: Sizes, about: &Question) -> u8 {
        let Question { source, destination, .. } = *about;
        let mut rules = about.rules & self.protocols[about.protocol as usize];
        rules &= if about.version == 4 {
            let of = |[address, _]: [u64; 2]| self.v4.of(sizes.v4, u64::from(u32::from_be(address as u32)));
            Sets::of_both(of(source), of(destination))
        } else {
            let of = |address: [u64; 2]| self.v6.of(sizes.v6, address.map(u64::from_be));
            Sets::of_both(of(source), of(destination))
        };
        if rules == 0 {
            return self.otherwise as u8;
        }
        rules &= if about.has_ports {
            let of = |port: u32| self.ports.of(sizes.ports, u64::from(u16::from_be(port as u16)));
            Sets::of_both(of(about.ports), of(about.ports >> 16))
        } else {
            self.without_ports
        };
        if rules == 0 {
            return self.otherwise as u8;
        }
        let first = rules & rules.wrapping_neg();
        if first & self.include != 0 {
            return METERED;
        }
        // Where a target has no instruction for it, the number of trailing zeros comes from a table in the program's data.
        1 + (first - 1).count_ones() as u8
    }
}
