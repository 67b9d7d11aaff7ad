//! Numbers and texts in network byte order, appended to a buffer.

#[inline(always)]
pub(crate) fn push_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

#[inline(always)]
pub(crate) fn push_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

#[inline(always)]
pub(crate) fn push_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Writes over two octets that were left for a length.
pub(crate) fn put_u16(out: &mut [u8], at: usize, value: u16) {
    out[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// A value of variable length (RFC 7011 section 7), UTF-8, cut before the character that ends behind 65 535 octets.
pub(crate) fn push_variable(out: &mut Vec<u8>, value: &[u8]) {
    let mut length = value.len().min(usize::from(u16::MAX));
    while length < value.len() && value[length] & 0xc0 == 0x80 {
        length -= 1;
    }
    let value = &value[..length];
    match u8::try_from(value.len()) {
        Ok(length) if length < u8::MAX => out.push(length),
        _ => {
            out.push(u8::MAX);
            push_u16(out, value.len() as u16);
        }
    }
    out.extend_from_slice(value);
}

/// In nanoseconds.
pub(crate) const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
/// From 1900, where NTP's time begins, to 1970, in seconds (RFC 5905 section 6).
const TO_1970: u64 = 2_208_988_800;

/// dateTimeNanoseconds (RFC 7011 section 6.1.10): seconds and 2^32nds, rounded up, so that cutting gives the nanosecond again.
#[inline(always)]
pub(crate) fn ntp(nanos: u64) -> u64 {
    let fraction = ((nanos % SECOND) << 32).div_ceil(SECOND);
    (nanos / SECOND + TO_1970) << 32 | fraction
}

/// Whether this time is in the first era of NTP, of 136 years: from 2036-02-07T06:28:16Z on its seconds begin again.
#[inline(always)]
pub(crate) const fn has_ntp(nanos: u64) -> bool {
    nanos / SECOND + TO_1970 <= u32::MAX as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_nanosecond_outlasts_ntps_form() {
        for nanos in [0, 1, 2, 499_999_999, 500_000_000, 999_999_999, 123_456_789] {
            let time = ntp(1_767_225_599 * SECOND + nanos);
            assert_eq!(time >> 32, 1_767_225_599 + TO_1970);
            assert_eq!(((time & 0xffff_ffff) * SECOND) >> 32, nanos);
        }
    }

    #[test]
    fn the_first_era_ends_in_2036() {
        const BEGIN: u64 = 2_085_978_496 * SECOND;
        assert!(has_ntp(BEGIN - 1) && !has_ntp(BEGIN));
        assert_eq!(ntp(BEGIN - SECOND) >> 32, u64::from(u32::MAX));
    }

    #[test]
    fn a_character_is_not_cut() {
        let text = format!("{}\u{20ac}", "a".repeat(65_533));
        let mut out = Vec::new();
        push_variable(&mut out, text.as_bytes());
        assert_eq!((out.len(), &out[..3]), (3 + 65_533, &[255, 255, 253][..]));
    }

    #[test]
    fn lengths_take_one_octet_or_three() {
        for (length, head) in
            [(0, vec![0]), (254, vec![254]), (255, vec![255, 0, 255]), (70_000, vec![255, 255, 255])]
        {
            let mut out = Vec::new();
            push_variable(&mut out, &vec![7; length]);
            assert_eq!(out[..head.len()], head);
            assert_eq!(out.len(), head.len() + length.min(65_535));
        }
    }
}
