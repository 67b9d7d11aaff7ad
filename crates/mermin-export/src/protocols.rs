//! IANA's keywords of the protocol numbers (<https://www.iana.org/assignments/protocol-numbers>), in lower case.
//!
//! A space or slash of a keyword is written `-`. Numbers without a keyword (61, 63, 68, 99, 114 and those from 148 on)
//! have none here either.

/// Past the last assigned number.
const ASSIGNED: usize = 148;

#[rustfmt::skip]
const KEYWORDS: [&str; ASSIGNED] = [
    "hopopt", "icmp", "igmp", "ggp", "ipv4", "st", "tcp", "cbt", "egp", "igp",
    "bbn-rcc-mon", "nvp-ii", "pup", "argus", "emcon", "xnet", "chaos", "udp", "mux", "dcn-meas",
    "hmp", "prm", "xns-idp", "trunk-1", "trunk-2", "leaf-1", "leaf-2", "rdp", "irtp", "iso-tp4",
    "netblt", "mfe-nsp", "merit-inp", "dccp", "3pc", "idpr", "xtp", "ddp", "idpr-cmtp", "tp++",
    "il", "ipv6", "sdrp", "ipv6-route", "ipv6-frag", "idrp", "rsvp", "gre", "dsr", "bna",
    "esp", "ah", "i-nlsp", "swipe", "narp", "min-ipv4", "tlsp", "skip", "ipv6-icmp", "ipv6-nonxt",
    "ipv6-opts", "", "cftp", "", "sat-expak", "kryptolan", "rvd", "ippc", "", "sat-mon",
    "visa", "ipcv", "cpnx", "cphb", "wsn", "pvp", "br-sat-mon", "sun-nd", "wb-mon", "wb-expak",
    "iso-ip", "vmtp", "secure-vmtp", "vines", "iptm", "nsfnet-igp", "dgp", "tcf", "eigrp", "ospfigp",
    "sprite-rpc", "larp", "mtp", "ax.25", "ipip", "micp", "scc-sp", "etherip", "encap", "",
    "gmtp", "ifmp", "pnni", "pim", "aris", "scps", "qnx", "a-n", "ipcomp", "snp",
    "compaq-peer", "ipx-in-ip", "vrrp", "pgm", "", "l2tp", "ddx", "iatp", "stp", "srp",
    "uti", "smp", "sm", "ptp", "isis-over-ipv4", "fire", "crtp", "crudp", "sscopmce", "iplt",
    "sps", "pipe", "sctp", "fc", "rsvp-e2e-ignore", "mobility-header", "udplite", "mpls-in-ip", "manet", "hip",
    "shim6", "wesp", "rohc", "ethernet", "aggfrag", "nsh", "homa", "bit-emu",
];

/// The keyword of a protocol number, where it has one.
#[must_use]
pub fn keyword(protocol: u8) -> Option<&'static str> {
    KEYWORDS.get(usize::from(protocol)).copied().filter(|keyword| !keyword.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn well_known_numbers_have_their_keywords() {
        for (number, name) in [
            (0, "hopopt"),
            (1, "icmp"),
            (2, "igmp"),
            (4, "ipv4"),
            (6, "tcp"),
            (17, "udp"),
            (33, "dccp"),
            (41, "ipv6"),
            (46, "rsvp"),
            (47, "gre"),
            (50, "esp"),
            (51, "ah"),
            (58, "ipv6-icmp"),
            (59, "ipv6-nonxt"),
            (60, "ipv6-opts"),
            (62, "cftp"),
            (64, "sat-expak"),
            (69, "sat-mon"),
            (88, "eigrp"),
            (89, "ospfigp"),
            (94, "ipip"),
            (97, "etherip"),
            (98, "encap"),
            (100, "gmtp"),
            (103, "pim"),
            (108, "ipcomp"),
            (112, "vrrp"),
            (113, "pgm"),
            (115, "l2tp"),
            (123, "ptp"),
            (132, "sctp"),
            (135, "mobility-header"),
            (136, "udplite"),
            (137, "mpls-in-ip"),
            (139, "hip"),
            (140, "shim6"),
            (142, "rohc"),
            (143, "ethernet"),
            (147, "bit-emu"),
        ] {
            assert_eq!(keyword(number), Some(name), "{number}");
        }
        for number in [61, 63, 68, 99, 114, 148, 253, 255] {
            assert_eq!(keyword(number), None, "{number}");
        }
    }

    #[test]
    fn keywords_are_unique_and_plain() {
        let all: Vec<_> = (0..=255).filter_map(keyword).collect();
        assert_eq!(all.len(), ASSIGNED - 5);
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".+-".contains(c);
        assert!(all.iter().all(|keyword| keyword.chars().all(plain)));
    }
}
