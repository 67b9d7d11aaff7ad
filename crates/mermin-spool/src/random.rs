//! Numbers that nobody else has.

/// 64 random bits, from the kernel.
pub(crate) fn number() -> u64 {
    let mut bytes = [0; 8];
    let flags = rustix::rand::GetRandomFlags::empty();
    let got = rustix::rand::getrandom(&mut bytes, flags);
    assert_eq!(got, Ok(bytes.len()), "up to 256 bytes the kernel gives all or waits (getrandom(2))");
    u64::from_ne_bytes(bytes)
}
