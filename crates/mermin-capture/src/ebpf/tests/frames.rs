//! Frames of every shape that the parser knows, and damage to them.

/// A generator whose numbers are the same on every machine (SplitMix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

const TCP: [u8; 24] =
    [0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0, b'd', b'a', b't', b'a'];
const UDP: [u8; 12] = [0, 53, 0x30, 0x39, 0, 12, 0, 0, 1, 2, 3, 4];
const SCTP: [u8; 16] = [0x0b, 0x59, 0x0b, 0x5a, 0, 0, 0, 1, 0, 0, 0, 0, 0, 3, 0, 4];
const ECHO: [u8; 8] = [8, 0, 0, 0, 0, 1, 0, 1];

fn ipv4(protocol: u8, options: usize, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let header = 20 + 4 * options;
    let total = (header + payload.len()) as u16;
    let mut ip = vec![0x40 | (header / 4) as u8, 0x2e];
    ip.extend(total.to_be_bytes());
    ip.extend([0x12, 0x34]);
    ip.extend(fragment.to_be_bytes());
    ip.extend([64, protocol, 0, 0, 10, 0, 0, 1, 192, 168, 1, 2]);
    ip.resize(header, 1);
    ip.extend(payload);
    ip
}

fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x6a, 0xb0, 0, 0];
    ip.extend((payload.len() as u16).to_be_bytes());
    ip.extend([next, 61]);
    ip.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    ip.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    ip.extend(payload);
    ip
}

/// An extension header of 8 bytes before `payload`.
fn before(next: u8, body: [u8; 7], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![next];
    bytes.extend(body);
    bytes.extend(payload);
    bytes
}

/// A jumbogram with its length in an option behind a pad.
fn jumbo() -> Vec<u8> {
    let mut options = vec![17, 1, 0, 0, 0, 0, 0, 0, 0xc2, 4, 0, 0, 0, 28, 1, 0];
    options.extend(UDP);
    let mut ip = ipv6(0, &options);
    ip[4..6].fill(0);
    ip
}

/// IP datagrams, each with its ethertype.
pub(super) fn datagrams() -> Vec<(u16, Vec<u8>)> {
    let destination = [0, 1, 4, 0, 0, 0, 0];
    let deep = (0..22)
        .fold(UDP.to_vec(), |payload, depth| before(if depth == 0 { 17 } else { 60 }, destination, &payload));
    let v4 = [
        ipv4(6, 0, 0x4000, &TCP),
        ipv4(6, 3, 0, &TCP),
        ipv4(17, 0, 0, &UDP),
        ipv4(132, 0, 0, &SCTP),
        ipv4(1, 0, 0, &ECHO),
        ipv4(17, 0, 0x2000, &UDP),
        ipv4(17, 0, 0x00b9, &UDP),
        ipv4(47, 0, 0, &[0; 8]),
        ipv4(50, 0, 0, &[7; 16]),
        ipv4(51, 0, 0, &[&[6, 4, 0, 0][..], &[0; 20], &TCP].concat()),
        ipv4(2, 1, 0, &[0x11, 0, 0, 0, 0, 0, 0, 0]),
    ];
    let v6 = [
        ipv6(6, &TCP),
        ipv6(17, &UDP),
        ipv6(58, &ECHO),
        ipv6(59, &[]),
        ipv6(0, &before(60, destination, &before(17, destination, &UDP))),
        ipv6(43, &before(6, [0, 0, 0, 0, 0, 0, 0], &TCP)),
        ipv6(44, &before(17, [0, 0, 1, 0, 0, 0, 9], &UDP)),
        ipv6(44, &before(17, [0, 0, 0xb9, 0, 0, 0, 9], &UDP)),
        ipv6(44, &before(17, [0, 0, 0, 0, 0, 0, 9], &UDP)),
        ipv6(51, &[&[6, 4, 0, 0][..], &[0; 20], &TCP].concat()),
        ipv6(60, &deep),
        jumbo(),
    ];
    v4.into_iter().map(|ip| (0x0800, ip)).chain(v6.into_iter().map(|ip| (0x86dd, ip))).collect()
}

/// Ethernet frames with none to three tags, and some that are not IP.
pub(super) fn ethernet() -> Vec<Vec<u8>> {
    let macs = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let mut frames = Vec::new();
    for tags in 0..4_u16 {
        for (ethertype, datagram) in datagrams() {
            let mut frame = macs.to_vec();
            for tag in 0..tags {
                frame.extend(if tag == 0 { [0x88, 0xa8] } else { [0x81, 0x00] });
                frame.extend((0x2064 + tag).to_be_bytes());
            }
            frame.extend(ethertype.to_be_bytes());
            frame.extend(datagram);
            frames.push(frame);
        }
    }
    for ethertype in [0x0806_u16, 0x88cc, 0x888e, 0x8847, 0x8864, 0x1234, 0x0026] {
        let mut frame = macs.to_vec();
        frame.extend(ethertype.to_be_bytes());
        frame.resize(60, 0);
        frames.push(frame);
    }
    frames
}

/// Bytes changed, the end cut off, something behind it: one of them, several, or none.
pub(super) fn damaged(frame: &[u8], random: &mut Random) -> Vec<u8> {
    let mut frame = frame.to_vec();
    for _ in 0..random.below(4) {
        let at = random.below(frame.len());
        // Headers rather than payloads, and lengths rather than anything.
        let at = if random.below(2) == 0 { at } else { at.min(60) };
        frame[at] = match random.below(3) {
            0 => 0,
            1 => frame[at] ^ 1 << random.below(8),
            _ => random.next() as u8,
        };
    }
    match random.below(4) {
        0 => frame.truncate(random.below(frame.len() + 1)),
        1 => frame.resize(frame.len() + random.below(40), 0x55),
        _ => {}
    }
    frame
}
