//! Why a packet is not metered. The numbers index the counters of the kernel programs, so they are part of the ABI.

/// A packet that gives no observation, by reason. [`Unmetered::name`] is the key in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Unmetered {
    /// Ethertype 0x0806.
    Arp,
    /// Ethertype 0x88cc.
    Lldp,
    /// Ethertype 0x888e.
    Eapol,
    /// A length (below 0x0600) where Ethernet II has its type: IEEE 802.2 LLC.
    Llc,
    /// Ethertypes 0x8847 and 0x8848.
    Mpls,
    /// Ethertypes 0x8863 and 0x8864.
    Pppoe,
    /// Any other ethertype.
    OtherEthertype,
    /// A link type that has no parser here.
    LinkType,
    /// The flow key lies past the captured bytes, within the packet's length on the wire.
    Truncated,
    /// The frame ends inside its link header.
    MalformedEthernet,
    /// The frame ends inside a VLAN tag.
    MalformedVlan,
    /// Header length below 5, a version that is not the ethertype's, a total length below the header's, or an end inside the header.
    MalformedIpv4,
    /// A version that is not the ethertype's, or an end inside the header.
    MalformedIpv6,
    /// The packet ends inside an extension header or authentication header.
    MalformedExtension,
    /// The packet ends before the ports.
    MalformedTcp,
    /// The packet ends before the ports.
    MalformedUdp,
    /// The packet ends before the ports.
    MalformedSctp,
    /// The packet ends before type and code.
    MalformedIcmp,
    /// The packet ends before type and code.
    MalformedIcmpv6,
    /// More headers in a row than the parser follows ([`crate::STEPS`]).
    TooDeep,
    /// A timestamp that does not fit 64 bits of nanoseconds since 1970.
    BadTimestamp,
}

impl Unmetered {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 21] = [
        Self::Arp,
        Self::Lldp,
        Self::Eapol,
        Self::Llc,
        Self::Mpls,
        Self::Pppoe,
        Self::OtherEthertype,
        Self::LinkType,
        Self::Truncated,
        Self::MalformedEthernet,
        Self::MalformedVlan,
        Self::MalformedIpv4,
        Self::MalformedIpv6,
        Self::MalformedExtension,
        Self::MalformedTcp,
        Self::MalformedUdp,
        Self::MalformedSctp,
        Self::MalformedIcmp,
        Self::MalformedIcmpv6,
        Self::TooDeep,
        Self::BadTimestamp,
    ];

    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The key in the ledger's `unmetered`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arp => "arp",
            Self::Lldp => "lldp",
            Self::Eapol => "eapol",
            Self::Llc => "llc",
            Self::Mpls => "mpls",
            Self::Pppoe => "pppoe",
            Self::OtherEthertype => "other_ethertype",
            Self::LinkType => "link_type",
            Self::Truncated => "truncated",
            Self::MalformedEthernet => "malformed_ethernet",
            Self::MalformedVlan => "malformed_vlan",
            Self::MalformedIpv4 => "malformed_ipv4",
            Self::MalformedIpv6 => "malformed_ipv6",
            Self::MalformedExtension => "malformed_extension",
            Self::MalformedTcp => "malformed_tcp",
            Self::MalformedUdp => "malformed_udp",
            Self::MalformedSctp => "malformed_sctp",
            Self::MalformedIcmp => "malformed_icmp",
            Self::MalformedIcmpv6 => "malformed_icmpv6",
            Self::TooDeep => "too_deep",
            Self::BadTimestamp => "bad_timestamp",
        }
    }

    /// The reason of a number; numbers that have none give [`Unmetered::LinkType`].
    #[must_use]
    pub const fn of_number(number: u8) -> Self {
        if (number as usize) < Self::COUNT { Self::ALL[number as usize] } else { Self::LinkType }
    }

    /// The reason an ethertype that is neither IP nor a VLAN tag is not metered for.
    #[inline]
    #[must_use]
    pub const fn of_ethertype(ethertype: u16) -> Self {
        match ethertype {
            0x0806 => Self::Arp,
            0x88cc => Self::Lldp,
            0x888e => Self::Eapol,
            0x8847 | 0x8848 => Self::Mpls,
            0x8863 | 0x8864 => Self::Pppoe,
            0..0x0600 => Self::Llc,
            _ => Self::OtherEthertype,
        }
    }
}
