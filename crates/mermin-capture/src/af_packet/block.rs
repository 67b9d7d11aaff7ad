//! What the kernel writes into a block of the ring (linux/if_packet.h, Linux 3.2): a descriptor, then frames, each
//! behind its header, the socket address and the virtio header. All words are in the machine's byte order.

use libc::{PACKET_OUTGOING, TP_STATUS_VLAN_VALID};

/// Of a block's descriptor: where the status is that says whose the block is.
pub(super) const STATUS: usize = 8;
const PACKETS: usize = 12;
const FIRST: usize = 16;

/// `struct tpacket3_hdr`.
const NEXT: usize = 0;
const SECONDS: usize = 4;
const NANOS: usize = 8;
const CAPTURED: usize = 12;
const LENGTH: usize = 16;
const FRAME_STATUS: usize = 20;
const MAC: usize = 24;
const TAG: usize = 32;
/// The socket address behind it: how the frame crosses the interface.
const PACKET_TYPE: usize = 48 + 10;
/// `struct virtio_net_hdr`, right before the frame: the size of a segment.
const VIRTIO: usize = 10;
const SEGMENT_SIZE: usize = 4;

/// A place in a block whose turn is at `offset`, with `left` frames to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    offset: usize,
    pub(super) left: u32,
}

/// A frame in a block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) length: u32,
    pub(super) segment_size: u32,
    pub(super) time: u64,
    pub(super) tag: Option<u16>,
    pub(super) outgoing: bool,
}

#[inline]
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default())
}

#[inline]
fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(bytes.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default())
}

impl Cursor {
    /// At the first frame of a block that the kernel has handed over.
    pub(super) fn first(block: &[u8]) -> Self {
        Self { offset: word(block, FIRST) as usize, left: word(block, PACKETS) }
    }

    /// The frame here; moves on to the next.
    #[inline]
    pub(super) fn take<'a>(&mut self, block: &'a [u8]) -> Taken<'a> {
        let header = block.get(self.offset..).unwrap_or_default();
        let mac = usize::from(half(header, MAC));
        let captured = word(header, CAPTURED) as usize;
        let tagged = word(header, FRAME_STATUS) & TP_STATUS_VLAN_VALID != 0;
        let taken = Taken {
            bytes: header.get(mac..mac + captured).unwrap_or_default(),
            length: word(header, LENGTH),
            segment_size: u32::from(half(header, mac.wrapping_sub(VIRTIO).wrapping_add(SEGMENT_SIZE))),
            time: u64::from(word(header, SECONDS)) * 1_000_000_000 + u64::from(word(header, NANOS)),
            tag: tagged.then_some(word(header, TAG) as u16),
            outgoing: header.get(PACKET_TYPE) == Some(&PACKET_OUTGOING),
        };
        self.offset += word(header, NEXT) as usize;
        self.left -= 1;
        taken
    }
}
