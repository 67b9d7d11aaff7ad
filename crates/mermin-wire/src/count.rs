//! How a buffer counts: packets, IP bytes and frame bytes as they were on the wire.
//!
//! With segmentation offload one buffer is many packets, each with a copy of the headers. Only the size of a segment
//! is sure to be there, so the count is made from it.

use crate::headers::Headers;

/// Segmented by its list of fragments, not by size (SCTP).
const BY_FRAGMENTS: u32 = 0xffff;
/// A VLAN tag.
const TAG: u64 = 4;

/// What the source knows about a frame besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Its length, captured or not, without a tag beside it.
    pub length: u32,
    /// Payload bytes of each segment; 0: the buffer is one packet.
    pub segment_size: u32,
    /// The number of segments where it is known; only asked where the size doesn't tell.
    pub segments: u32,
    /// Whether the source holds a VLAN tag beside the frame.
    pub tag_beside: bool,
}

impl Buffer {
    /// One packet, nothing beside it.
    #[inline(always)]
    #[must_use]
    pub const fn packet(length: u32) -> Self {
        Self { length, segment_size: 0, segments: 0, tag_beside: false }
    }

    /// Packets and frame bytes of a buffer that is not metered. Its headers' length isn't known, so segments can't be
    /// told: it is one packet.
    #[inline(always)]
    #[must_use]
    pub const fn unmetered(&self) -> (u32, u64) {
        (1, self.length as u64 + if self.tag_beside { TAG } else { 0 })
    }

    /// Packets and frame bytes of a buffer whose headers end at `payload`.
    #[inline(always)]
    #[must_use]
    pub const fn on_the_wire(&self, payload: u32) -> (u32, u64) {
        let tag = if self.tag_beside { TAG } else { 0 };
        let length = self.length as u64 + tag;
        if self.segment_size == 0 {
            return (1, length);
        }
        let packets = if self.segment_size == BY_FRAGMENTS {
            self.segments
        } else {
            self.length.saturating_sub(payload).div_ceil(self.segment_size)
        };
        let packets = if packets == 0 { 1 } else { packets };
        (packets, length + (packets as u64 - 1) * (payload as u64 + tag))
    }
}

/// Counts of a buffer that is metered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Packets on the wire.
    pub packets: u32,
    /// IP bytes: the datagram's own length, but no more than the frame holds.
    pub ip_bytes: u64,
    /// Frame bytes.
    pub frame_bytes: u64,
    /// The datagram claims more bytes than the frame has.
    pub length_over_frame: bool,
}

/// Counts a buffer with a plain packet, whose datagram has a length and lies within the frame: as [`count`], in fewer steps for most.
#[inline(always)]
#[must_use]
pub const fn count_plain(h: &Headers, buffer: &Buffer) -> Counts {
    if buffer.segment_size != 0 {
        return count(h, buffer);
    }
    let (_, frame_bytes) = buffer.unmetered();
    Counts { packets: 1, ip_bytes: h.ip_length as u64, frame_bytes, length_over_frame: false }
}

/// Counts a buffer whose headers were walked to the end.
#[inline(always)]
#[must_use]
pub const fn count(h: &Headers, buffer: &Buffer) -> Counts {
    let (packets, frame_bytes) = buffer.on_the_wire(h.offset);
    let link = h.network as u64 + if buffer.tag_beside { TAG } else { 0 };
    let room = frame_bytes.saturating_sub(packets as u64 * link);
    let claimed = h.ip_length as u64;
    let by_room = claimed == 0 || buffer.segment_size != 0;
    Counts {
        packets,
        ip_bytes: if by_room || claimed > room { room } else { claimed },
        frame_bytes,
        length_over_frame: !by_room && claimed > room,
    }
}
