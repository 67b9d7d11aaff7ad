//! Flow keys: the Community ID's tuple, in its order, so that both directions of a conversation have one key.
//!
//! Everything that the Community ID does not cover (VLAN, interface, MACs, echo identifiers) is a fact of the flow's
//! first packet and not part of the key. The shard follows from the key alone, by fixed constants: equal Community
//! ID, same shard, on every run. The index hash is keyed with a secret, so that chosen keys can't be made to collide.

use crate::icmp;
use crate::observation::Observation;
use mermin_wire::PortForm;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Virtual shards; a flow lives on one.
pub const SHARDS: usize = 64;

/// What the ports of a key are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum KeyForm {
    /// There are none.
    Portless = 0,
    /// Ports of TCP, UDP or SCTP.
    Ports = 1,
    /// An ICMP request and its reply: type, and type of the counterpart.
    IcmpTwoWay = 2,
    /// ICMP without counterpart: type and code; the key keeps the packet's direction.
    IcmpOneWay = 3,
}

/// Addresses, ports, protocol. Words are in network byte order as in [`Observation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct FlowKey {
    addresses: [u64; 4],
    /// Ports (32 bits), protocol (8), form (8), IP version (8), from the low end; [`SUPERSEDED`].
    selector: u64,
}

/// In a key: of a flow whose ends another one has taken. No observation has such a key.
const SUPERSEDED: u64 = 1 << 56;

/// A random number per process that the index hash is keyed with.
#[derive(Clone, Copy, Debug)]
pub struct HashSecret([u64; 4]);

impl HashSecret {
    /// From any 64 random bits.
    #[must_use]
    pub fn new(random: u64) -> Self {
        let mut state = random;
        Self(std::array::from_fn(|_| {
            // splitmix64
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) | 1
        }))
    }
}

const SHARD_CONSTANTS: [u64; 4] =
    [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f, 0xd6e8_feb8_6659_fd93, 0xa076_1d64_78bd_642f];

#[inline(always)]
const fn fold(a: u64, b: u64) -> u64 {
    let product = (a as u128) * (b as u128);
    (product as u64) ^ ((product >> 64) as u64)
}

impl FlowKey {
    /// The key of an observation that was oriented.
    #[inline(always)]
    #[must_use]
    pub fn of(o: &Observation) -> Self {
        let (ports, form) = match o.port_form {
            PortForm::Absent => ([0, 0], KeyForm::Portless),
            PortForm::Ports => (o.ports, KeyForm::Ports),
            PortForm::IcmpTypeCode => match icmp::counterpart(o.protocol, o.icmp_type()) {
                Some(other) if o.reversed => ([be(other), o.ports[0]], KeyForm::IcmpTwoWay),
                Some(other) => ([o.ports[0], be(other)], KeyForm::IcmpTwoWay),
                None => (o.ports, KeyForm::IcmpOneWay),
            },
        };
        let selector = u64::from(ports[0])
            | u64::from(ports[1]) << 16
            | u64::from(o.protocol) << 32
            | (form as u64) << 40
            | u64::from(o.ip_version) << 48;
        Self { addresses: o.addresses, selector }
    }

    /// The key of a conversation between two ends with ports, whichever is first; both have addresses of one version.
    #[must_use]
    pub fn between(protocol: u8, ends: [(IpAddr, u16); 2]) -> Self {
        let [a, b] = if ends[0] <= ends[1] { ends } else { [ends[1], ends[0]] };
        let words = |address| match address {
            IpAddr::V4(v4) => [u64::from(u32::from_ne_bytes(v4.octets())), 0],
            IpAddr::V6(v6) => {
                let bits = u128::from(v6);
                [((bits >> 64) as u64).to_be(), (bits as u64).to_be()]
            }
        };
        let ([first, second], [third, fourth]) = (words(a.0), words(b.0));
        let selector = u64::from(a.1.to_be())
            | u64::from(b.1.to_be()) << 16
            | u64::from(protocol) << 32
            | (KeyForm::Ports as u64) << 40
            | (if a.0.is_ipv4() { 4 } else { 6 }) << 48;
        Self { addresses: [first, second, third, fourth], selector }
    }

    /// IANA protocol number.
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        (self.selector >> 32) as u8
    }

    /// What the ports are.
    #[must_use]
    pub const fn form(&self) -> KeyForm {
        match (self.selector >> 40) as u8 {
            1 => KeyForm::Ports,
            2 => KeyForm::IcmpTwoWay,
            3 => KeyForm::IcmpOneWay,
            _ => KeyForm::Portless,
        }
    }

    /// Ports of the first and second end, in host byte order; 0 where there are none.
    #[must_use]
    pub const fn ports(&self) -> [u16; 2] {
        [u16::from_be(self.selector as u16), u16::from_be((self.selector >> 16) as u16)]
    }

    /// Whether both ends have IPv4 addresses.
    #[must_use]
    pub const fn is_ipv4(&self) -> bool {
        (self.selector >> 48) as u8 == 4
    }

    /// Addresses of the first and second end.
    #[must_use]
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.address(0), self.address(2)]
    }

    fn address(&self, at: usize) -> IpAddr {
        let first = self.addresses[at].to_ne_bytes();
        if self.is_ipv4() {
            return IpAddr::V4(Ipv4Addr::new(first[0], first[1], first[2], first[3]));
        }
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&first);
        octets[8..].copy_from_slice(&self.addresses[at + 1].to_ne_bytes());
        IpAddr::V6(Ipv6Addr::from(octets))
    }

    /// What has these words ([`FlowKey::words`]).
    pub(crate) const fn of_words([a, b, c, d, selector]: [u64; 5]) -> Self {
        Self { addresses: [a, b, c, d], selector }
    }

    /// The key's words, for hashing it into a flow id.
    #[must_use]
    pub(crate) const fn words(&self) -> [u64; 5] {
        let selector = self.selector & !SUPERSEDED;
        [self.addresses[0], self.addresses[1], self.addresses[2], self.addresses[3], selector]
    }

    /// The key of a flow whose ends another one has taken.
    #[must_use]
    pub(crate) const fn superseded(self) -> Self {
        Self { selector: self.selector | SUPERSEDED, ..self }
    }

    /// One comparison instead of five branches.
    #[inline(always)]
    pub(crate) const fn same(&self, other: &Self) -> bool {
        let mut difference = self.selector ^ other.selector;
        difference |= self.addresses[0] ^ other.addresses[0];
        difference |= self.addresses[1] ^ other.addresses[1];
        difference |= self.addresses[2] ^ other.addresses[2];
        difference |= self.addresses[3] ^ other.addresses[3];
        difference == 0
    }

    /// The shard: the same on every run. A multiply-add whose upper bits depend on every bit below them; addresses are
    /// taken in the order in which the parts that differ between neighbours are the low bits.
    #[inline(always)]
    #[must_use]
    pub const fn shard(&self) -> u8 {
        let k = &SHARD_CONSTANTS;
        let mut sum = self.selector.wrapping_mul(k[0]);
        sum = sum.wrapping_add(
            u64::from_be(self.addresses[0] ^ self.addresses[1].rotate_left(17)).wrapping_mul(k[1]),
        );
        sum = sum.wrapping_add(
            u64::from_be(self.addresses[2] ^ self.addresses[3].rotate_left(17)).wrapping_mul(k[2]),
        );
        (fold(sum, k[3]) >> 58) as u8
    }

    /// The index hash.
    #[inline(always)]
    #[must_use]
    pub fn hash(&self, secret: &HashSecret) -> u32 {
        let k = &secret.0;
        let a = fold(self.addresses[0] ^ k[0], self.addresses[2] ^ k[1]);
        // Nothing is in the second words of IPv4 addresses.
        let b = if self.is_ipv4() { 0 } else { fold(self.addresses[1] ^ k[2], self.addresses[3] ^ k[3]) };
        (fold(a ^ k[1] ^ self.selector, b ^ k[0]) >> 32) as u32
    }
}

const fn be(icmp_type: u8) -> u16 {
    (icmp_type as u16).to_be()
}

impl Observation {
    /// The ICMP type, where `port_form` says that there is one.
    #[inline(always)]
    #[must_use]
    pub const fn icmp_type(&self) -> u8 {
        u16::from_be(self.ports[0]) as u8
    }

    /// The ICMP code, where `port_form` says that there is one.
    #[inline(always)]
    #[must_use]
    pub const fn icmp_code(&self) -> u8 {
        u16::from_be(self.ports[1]) as u8
    }

    /// Puts the ends into the key's order (the lesser address first, then the lesser port) and sets `reversed`,
    /// `shard` and `hash`. One-way ICMP stays as it is.
    #[inline(always)]
    pub fn orient(&mut self, secret: &HashSecret) {
        let [a, b, c, d] = self.addresses;
        let wide = |high: u64, low: u64| u128::from(u64::from_be(high)) << 64 | u128::from(u64::from_be(low));
        // Which end is the lesser is a coin's toss: neither the comparison nor the exchange may be a branch.
        let greater = wide(a, b) > wide(c, d);
        let equal = (a ^ c) | (b ^ d) == 0;
        self.reversed = match self.port_form {
            PortForm::Ports if !equal => greater,
            PortForm::Ports => u16::from_be(self.ports[0]) > u16::from_be(self.ports[1]),
            PortForm::Absent => greater,
            PortForm::IcmpTypeCode => match icmp::counterpart(self.protocol, self.icmp_type()) {
                Some(other) => greater || (equal && self.icmp_type() > other),
                None => false,
            },
        };
        let mask = u64::from(self.reversed).wrapping_neg();
        let (high, low) = ((a ^ c) & mask, (b ^ d) & mask);
        self.addresses = [a ^ high, b ^ low, c ^ high, d ^ low];
        if self.port_form == PortForm::Ports {
            let pair = u32::from(self.ports[0]) | u32::from(self.ports[1]) << 16;
            let pair = pair.rotate_left(16 * u32::from(self.reversed));
            self.ports = [pair as u16, (pair >> 16) as u16];
        }
        let key = FlowKey::of(self);
        self.shard = key.shard();
        self.hash = key.hash(secret);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{icmp, tcp, udp};

    const SECRET: HashSecret = HashSecret([1, 3, 5, 7]);

    fn oriented(mut o: Observation) -> Observation {
        o.orient(&SECRET);
        o
    }

    #[test]
    fn both_directions_have_one_key() {
        let there = oriented(tcp("10.0.0.2:40000", "10.0.0.1:80"));
        let back = oriented(tcp("10.0.0.1:80", "10.0.0.2:40000"));
        assert_eq!(FlowKey::of(&there), FlowKey::of(&back));
        assert!(there.reversed && !back.reversed);
        assert_eq!((there.shard, there.hash), (back.shard, back.hash));
        assert_eq!(FlowKey::of(&there).ports(), [80, 40_000]);
    }

    #[test]
    fn the_key_between_two_ends_is_that_of_their_packets() {
        for (from, to) in [
            ("10.0.0.2:40000", "10.0.0.1:80"),
            ("192.0.2.1:80", "192.0.2.1:70"),
            ("[2001:db8::1]:9", "[2001:db8:0:1::]:7"),
            ("[::1]:9", "[::1]:10"),
        ] {
            let key = FlowKey::of(&oriented(tcp(from, to)));
            let ends = [from, to].map(|end| end.parse::<std::net::SocketAddr>().unwrap());
            let [from, to] = ends.map(|end| (end.ip(), end.port()));
            assert_eq!(FlowKey::between(6, [from, to]), key);
            assert_eq!(FlowKey::between(6, [to, from]), key);
            assert_ne!(FlowKey::between(17, [from, to]), key);
        }
    }

    #[test]
    fn equal_addresses_are_ordered_by_port() {
        let there = oriented(udp("[::1]:9", "[::1]:7"));
        assert!(there.reversed);
        assert_eq!(FlowKey::of(&there).ports(), [7, 9]);
        assert!(!oriented(udp("[::1]:7", "[::1]:7")).reversed);
    }

    #[test]
    fn the_lesser_address_comes_first_whatever_the_ports() {
        for [low, high] in [[40_000, 80], [80, 40_000], [123, 123]] {
            let (low_end, high_end) = (format!("10.0.0.1:{low}"), format!("10.0.0.2:{high}"));
            let (there, back) = (oriented(udp(&low_end, &high_end)), oriented(udp(&high_end, &low_end)));
            assert!(!there.reversed && back.reversed);
            assert_eq!((FlowKey::of(&there), there.hash), (FlowKey::of(&back), back.hash));
            assert_eq!(FlowKey::of(&there).ports(), [low, high]);
        }
    }

    /// Both halves of the addresses differ by the same bits.
    #[test]
    fn addresses_that_differ_alike_in_both_halves_differ() {
        let (low, high) = ("[0:0:0:1::1]:123", "[0:0:0:2::2]:123");
        assert!(!oriented(udp(low, high)).reversed && oriented(udp(high, low)).reversed);
    }

    #[test]
    fn a_host_that_asks_itself_has_the_lesser_type_first() {
        let (request, reply) =
            (oriented(icmp("10.0.0.1", "10.0.0.1", 8, 0)), oriented(icmp("10.0.0.1", "10.0.0.1", 0, 0)));
        assert!(request.reversed && !reply.reversed);
        assert_eq!(FlowKey::of(&request), FlowKey::of(&reply));
        assert_eq!(FlowKey::of(&request).ports(), [0, 8]);
    }

    #[test]
    fn echo_and_reply_have_one_key_whatever_the_code() {
        let request = oriented(icmp("10.0.0.9", "10.0.0.1", 8, 0));
        let reply = oriented(icmp("10.0.0.1", "10.0.0.9", 0, 3));
        assert_eq!(FlowKey::of(&request), FlowKey::of(&reply));
        assert_eq!(FlowKey::of(&request).form(), KeyForm::IcmpTwoWay);
        assert_ne!(request.reversed, reply.reversed);
    }

    #[test]
    fn one_way_icmp_keeps_its_direction() {
        let there = oriented(icmp("10.0.0.9", "10.0.0.1", 3, 1));
        let back = oriented(icmp("10.0.0.1", "10.0.0.9", 3, 1));
        assert!(!there.reversed && !back.reversed);
        assert_ne!(FlowKey::of(&there), FlowKey::of(&back));
    }

    #[test]
    fn ports_of_zero_are_not_the_absence_of_ports() {
        let zero = oriented(udp("10.0.0.1:0", "10.0.0.2:0"));
        let mut none = udp("10.0.0.1:0", "10.0.0.2:0");
        none.port_form = PortForm::Absent;
        assert_ne!(FlowKey::of(&zero), FlowKey::of(&oriented(none)));
    }

    #[test]
    fn an_ipv4_address_is_not_the_ipv6_address_of_the_same_bits() {
        let four = oriented(udp("1.2.3.4:1", "5.6.7.8:2"));
        let mut six = four;
        six.ip_version = 6;
        assert_ne!(FlowKey::of(&four), FlowKey::of(&six));
    }

    #[test]
    fn shards_are_even() {
        let mut held = [0_u32; SHARDS];
        for port in 0..64_000_u16 {
            let o =
                oriented(tcp(&format!("10.1.{}.{}:80", port >> 8, port & 255), &format!("10.0.0.1:{port}")));
            held[usize::from(o.shard)] += 1;
        }
        let (least, most) = (held.iter().min().unwrap(), held.iter().max().unwrap());
        assert!(*least > 850 && *most < 1150, "{least}..{most} of 1000 expected");
    }

    /// Linear hashes have patterns in their inputs that they don't spread.
    #[test]
    fn shards_and_index_spread_whatever_part_of_the_key_varies() {
        type Family = (&'static str, fn(u32) -> Observation);
        const KEYS: u32 = 16_384;
        let families: [Family; 7] = [
            ("a port", |n| udp(&format!("10.0.0.9:{}", n + 1_024), "10.0.0.1:53")),
            ("both ports", |n| {
                udp(&format!("10.0.0.9:{}", 1_024 + n / 128), &format!("10.0.0.1:{}", n % 128))
            }),
            ("last octets", |n| udp(&format!("10.0.{}.{}:9", n / 256, n % 256), "10.255.0.1:53")),
            ("two networks", |n| udp(&format!("10.1.0.{}:9", n / 128), &format!("10.2.{}.0:9", n % 128))),
            ("interface ids", |n| udp(&format!("[fe80::{n:x}]:9"), "[fe80::ffff:1]:53")),
            ("prefixes", |n| udp(&format!("[2001:db8:{n:x}::1]:9"), "[fe80::1]:53")),
            ("echo", |n| icmp(&format!("10.0.{}.{}", n / 256, n % 256), "10.255.0.1", 8, 0)),
        ];
        for (family, key) in families {
            let (mut shards, mut homes) = ([0_u32; SHARDS], [0_u32; 64]);
            let mut hashes = std::collections::HashSet::new();
            for o in (0..KEYS).map(key) {
                let mut o = o;
                o.orient(&HashSecret::new(0x5eed));
                shards[usize::from(o.shard)] += 1;
                homes[(o.hash >> 26) as usize] += 1;
                hashes.insert(o.hash);
            }
            // Of a random spread six standard deviations are 96.
            for (what, held) in [("shards", shards), ("index", homes)] {
                let (least, most) = (held.iter().min().unwrap(), held.iter().max().unwrap());
                assert!(*least > 160 && *most < 352, "{family}, {what}: {least}..{most} of 256 expected");
            }
            assert!(hashes.len() as u32 > KEYS - 8, "{family}: {} of {KEYS} hashes", hashes.len());
        }
    }
}
