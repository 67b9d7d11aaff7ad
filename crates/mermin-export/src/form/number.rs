//! Numbers: decimal, two digits, and the 32 hexadecimal digits of a flow id.

use mermin_flow::FlowId;

/// Decimal digits of each number below 100, side by side.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut n = 0;
    while n < 100 {
        pairs[n] = [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8];
        n += 1;
    }
    pairs
};

#[inline]
pub(crate) fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The two digits of a number below 100.
#[inline]
pub(crate) const fn two(number: u64) -> [u8; 2] {
    PAIRS[(number % 100) as usize]
}

#[inline]
pub(crate) fn push_two(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&two(number));
}

#[inline]
pub(crate) fn push_hex_id(out: &mut Vec<u8>, id: FlowId) {
    out.extend_from_slice(&hex_id(id));
}

pub(crate) fn hex_id(id: FlowId) -> [u8; 32] {
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(id.0.to_be_bytes()) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 0xf)];
    }
    text
}

const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_keep_their_leading_zeros() {
        let mut out = Vec::new();
        push_hex_id(&mut out, FlowId(0x00ff_1234));
        assert_eq!(out, b"00000000000000000000000000ff1234");
    }

    #[test]
    fn numbers() {
        let mut out = Vec::new();
        push_number(&mut out, u64::MAX);
        push_two(&mut out, 7);
        push_two(&mut out, 99);
        assert_eq!(out, b"184467440737095516150799");
    }
}
