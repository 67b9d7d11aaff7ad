//! Which ICMP types answer which (Community ID specification, version 1).

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// The type that answers `icmp_type` or that it answers; `None` for a one-way type.
#[inline]
#[must_use]
pub(crate) const fn counterpart(protocol: u8, icmp_type: u8) -> Option<u8> {
    Some(match (protocol, icmp_type) {
        (ICMP, 0) => 8,
        (ICMP, 8) => 0,
        (ICMP, 9) => 10,
        (ICMP, 10) => 9,
        (ICMP, 13) => 14,
        (ICMP, 14) => 13,
        (ICMP, 15) => 16,
        (ICMP, 16) => 15,
        (ICMP, 17) => 18,
        (ICMP, 18) => 17,
        (ICMPV6, 128) => 129,
        (ICMPV6, 129) => 128,
        (ICMPV6, 130) => 131,
        (ICMPV6, 131) => 130,
        (ICMPV6, 133) => 134,
        (ICMPV6, 134) => 133,
        (ICMPV6, 135) => 136,
        (ICMPV6, 136) => 135,
        (ICMPV6, 139) => 140,
        (ICMPV6, 140) => 139,
        (ICMPV6, 144) => 145,
        (ICMPV6, 145) => 144,
        _ => return None,
    })
}

/// Whether the type asks for something that its counterpart answers.
#[must_use]
pub(crate) const fn is_request(protocol: u8, icmp_type: u8) -> bool {
    matches!(
        (protocol, icmp_type),
        (ICMP, 8 | 10 | 13 | 15 | 17) | (ICMPV6, 128 | 130 | 133 | 135 | 139 | 144)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_counterparts_one_is_the_request() {
        for protocol in [ICMP, ICMPV6] {
            for icmp_type in 0..=255 {
                match counterpart(protocol, icmp_type) {
                    Some(other) => {
                        assert_eq!(counterpart(protocol, other), Some(icmp_type));
                        assert_ne!(
                            is_request(protocol, other),
                            is_request(protocol, icmp_type),
                            "{icmp_type}"
                        );
                    }
                    None => assert!(!is_request(protocol, icmp_type)),
                }
            }
        }
    }
}
