//! Protobuf's wire format, as far as the encoders here need it (<https://protobuf.dev/programming-guides/encoding/>).

/// The key of a field: number and wire type.
pub(crate) const fn varint_field(number: u8) -> u8 {
    number << 3
}

/// The key of a field of eight bytes.
pub(crate) const fn fixed64_field(number: u8) -> u8 {
    number << 3 | 1
}

/// The key of a field with a length in front: text, bytes, message.
pub(crate) const fn length_field(number: u8) -> u8 {
    assert!(number < 16, "keys of larger numbers take two bytes");
    number << 3 | 2
}

/// Bytes that a varint takes.
#[inline]
pub(crate) const fn varint_len(value: u64) -> usize {
    // Seven bits a byte, and one byte for zero. Nine sixty-fourths are near enough to a seventh, and cheaper.
    (((value | 1).ilog2() * 9 + 73) / 64) as usize
}

/// Below this a varint takes at most eight bytes.
pub(crate) const SHORT_VARINTS: u64 = 1 << 56;

/// The bytes of a varint, the first one lowest, and zeros behind it. Of values below [`SHORT_VARINTS`].
#[inline(always)]
pub(crate) const fn short_varint(value: u64) -> u64 {
    debug_assert!(value < SHORT_VARINTS);
    // Eight groups of seven bits go to bytes of their own: two groups of 28, of 14, of 7.
    let spread = value & 0x0fff_ffff | (value & 0x00ff_ffff_f000_0000) << 4;
    let spread = spread & 0x0000_3fff_0000_3fff | (spread & 0x0fff_c000_0fff_c000) << 2;
    let spread = spread & 0x007f_007f_007f_007f | (spread & 0x3f80_3f80_3f80_3f80) << 1;
    // All but the last say that there is more.
    spread | 0x8080_8080_8080_8080 & ((1 << (8 * (varint_len(value) - 1))) - 1)
}

/// Appends a varint.
#[inline]
pub(crate) fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a field of eight bytes.
#[inline]
pub(crate) fn push_fixed64(out: &mut Vec<u8>, number: u8, value: u64) {
    let mut field = [fixed64_field(number); 9];
    field[1..].copy_from_slice(&value.to_le_bytes());
    out.extend_from_slice(&field);
}

/// Appends a field of text or bytes.
#[inline]
pub(crate) fn push_bytes(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(length_field(number));
    push_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a field that `content` writes, with its length in front.
///
/// Two bytes are left for the length, which is enough for 16 383; more is made room for. A shorter length is not padded:
/// the content moves, so that the bytes are those that every other encoder writes.
#[inline]
pub(crate) fn push_message(out: &mut Vec<u8>, number: u8, content: impl FnOnce(&mut Vec<u8>)) {
    const RESERVED: usize = 2;
    out.push(length_field(number));
    let start = out.len();
    out.extend_from_slice(&[0; RESERVED]);
    content(out);
    let len = out.len() - start - RESERVED;
    let needed = varint_len(len as u64);
    if needed == RESERVED {
        out[start] = len as u8 | 0x80;
        out[start + 1] = (len >> 7) as u8;
        return;
    }
    let mut length = Vec::with_capacity(10);
    push_varint(&mut length, len as u64);
    out.splice(start..start + RESERVED, length);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_of_every_length_have_the_shortest_length_in_front() {
        for len in [0, 1, 127, 128, 16_383, 16_384, 70_000] {
            let mut out = vec![9];
            push_message(&mut out, 4, |out| out.extend(vec![7; len]));
            let mut expected = vec![9, 0x22];
            prost::encoding::encode_varint(len as u64, &mut expected);
            expected.extend(vec![7; len]);
            assert!(out == expected, "{len}");
        }
    }

    proptest! {
        #[test]
        fn varints_are_those_of_the_official_crate(shift in 0_u32..64, bits: u64) {
            let value = bits >> shift;
            let (mut own, mut official) = (Vec::new(), Vec::new());
            push_varint(&mut own, value);
            prost::encoding::encode_varint(value, &mut official);
            prop_assert_eq!(&own, &official);
            prop_assert_eq!(varint_len(value), official.len());
        }
    }
}
