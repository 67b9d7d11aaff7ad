//! From a frame to an observation, or to a reason against one: the one place for all user-space sources.
//!
//! What a frame says is `mermin-wire`'s to tell; here its answer takes the form of the domain, and what is not metered
//! is counted. Ethertypes are counted in a map, which only frames that aren't IP touch.

use crate::filters::{Filtering, FrameFilter};
use mermin_flow::{Observation, ObservationPoints, Sightings, Sink, Tally};
use mermin_wire::{Buffer, Counts, Headers, Link, Next, Question, Unmetered};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A frame as a source holds it.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) link: Link,
    /// From the link header on, as far as captured.
    pub(crate) bytes: &'a [u8],
    pub(crate) buffer: Buffer,
    /// Control information of a VLAN tag that the source holds beside the frame.
    pub(crate) outer_tag: Option<u16>,
    /// Nanoseconds since 1970.
    pub(crate) time: u64,
    pub(crate) point: u16,
}

/// Verdicts on the frames of one source.
#[derive(Default)]
pub(crate) struct Frames {
    sightings: Sightings,
    length_over_frame: u64,
    rejected: u64,
    filter: Option<FrameFilter>,
}

impl Frames {
    /// Of a source that goes by these filters.
    pub(crate) fn new(filtering: Option<Arc<Filtering>>, points: &Arc<ObservationPoints>) -> Self {
        let filter = filtering.map(|filtering| FrameFilter::new(filtering, Arc::clone(points)));
        Self { filter, ..Self::default() }
    }

    /// Counts a frame at the source's entry, where the source itself is the first to know of it.
    #[inline]
    pub(crate) fn saw(&mut self, buffer: &Buffer) {
        self.sightings.seen += Tally { buffers: 1, buffer_bytes: u64::from(buffer.length), ..Tally::ZERO };
    }

    /// Counts a frame that gives no observation. `time` is its time, where it has one.
    #[cold]
    pub(crate) fn reject(&mut self, reason: Unmetered, buffer: Buffer, time: Option<u64>) {
        let (packets, bytes) = buffer.unmetered();
        let tally =
            Tally { packets: u64::from(packets), bytes, buffers: 1, buffer_bytes: u64::from(buffer.length) };
        self.sightings.reject(reason, tally);
        if let Some(time) = time {
            self.sightings.rejected_at(time);
        }
        self.rejected += tally.packets;
    }

    /// Gives the frame's verdict: an observation to `sink`, or a reason.
    ///
    /// A plain packet's headers never have their address taken, so that headers and observation are put together in
    /// registers; and what follows is compiled for each IP version by itself.
    #[inline(always)]
    pub(crate) fn deliver(&mut self, frame: &Frame<'_>, sink: &mut impl Sink) {
        let mut headers = Headers::new(frame.buffer.length, frame.outer_tag);
        match mermin_wire::link_header(frame.bytes, frame.link, &mut headers) {
            Next::Ipv4 if mermin_wire::plain_ipv4(frame.bytes, &mut headers) => {
                self.meter(frame, &headers, sink);
            }
            Next::Ipv6 if mermin_wire::plain_ipv6(frame.bytes, &mut headers) => {
                self.meter(frame, &headers, sink);
            }
            _ => self.deliver_walked(*frame, sink),
        }
    }

    /// By value: a plain packet's frame shall not have its address taken.
    #[cold]
    #[inline(never)]
    fn deliver_walked(&mut self, frame: Frame<'_>, sink: &mut impl Sink) {
        let mut headers = Headers::new(frame.buffer.length, frame.outer_tag);
        match mermin_wire::parse(frame.link, frame.bytes, &mut headers) {
            Ok(()) => self.meter(&frame, &headers, sink),
            Err(reason) => {
                if headers.ethertype != 0 {
                    *self.sightings.ethertypes.entry(headers.ethertype).or_default() += 1;
                }
                self.reject(reason, frame.buffer, Some(frame.time));
            }
        }
    }

    #[inline(always)]
    fn meter(&mut self, frame: &Frame<'_>, headers: &Headers, sink: &mut impl Sink) {
        let counts = mermin_wire::count(headers, &frame.buffer);
        self.length_over_frame += u64::from(counts.length_over_frame);
        if self.filter.is_some() && self.filters(Question::of(headers, 0), *frame, counts) {
            return;
        }
        sink.observe(observation(frame, headers, &counts));
    }

    /// Whether the packet is filtered; then it is counted. By value, as above.
    #[inline(never)]
    fn filters(&mut self, about: Question, frame: Frame<'_>, counts: Counts) -> bool {
        let tally = Tally {
            packets: counts.packets.into(),
            bytes: counts.frame_bytes,
            buffers: 1,
            buffer_bytes: frame.buffer.length.into(),
        };
        let is = self.filter.as_mut().is_some_and(|filter| filter.filter(about, frame.point, tally));
        if is {
            self.sightings.rejected_at(frame.time);
            self.rejected += tally.packets;
        }
        is
    }

    /// A panic of a source that has handed over `observed` in all: the frame at hand, if there was one, is lost.
    pub(crate) fn after_panic(&mut self, observed: Tally) -> Tally {
        self.sightings.filtered = self.filtered();
        self.sightings.lose_in_panic(observed)
    }

    fn filtered(&self) -> BTreeMap<Arc<str>, Tally> {
        self.filter.as_ref().map(FrameFilter::book).unwrap_or_default()
    }

    /// Packets that got a reason so far, or were filtered.
    pub(crate) fn rejected(&self) -> u64 {
        self.rejected
    }

    /// What was counted so far.
    pub(crate) fn sightings(&self) -> Sightings {
        let mut sightings = Sightings { filtered: self.filtered(), ..self.sightings.clone() };
        if self.length_over_frame > 0 {
            sightings.anomalies.insert("ip_length_over_frame", self.length_over_frame);
        }
        sightings
    }
}

/// [`mermin_wire::macs`], but lent: so they are copied once.
#[inline(always)]
fn macs<'a>(frame: &Frame<'a>) -> &'a [u8; 12] {
    let macs = if frame.link == Link::Ethernet { frame.bytes.first_chunk() } else { None };
    macs.unwrap_or(&[0; 12])
}

#[inline(always)]
fn observation(frame: &Frame<'_>, headers: &Headers, counts: &Counts) -> Observation {
    Observation {
        addresses: [headers.source[0], headers.source[1], headers.destination[0], headers.destination[1]],
        end: frame.time,
        bytes: counts.ip_bytes,
        frame_bytes: counts.frame_bytes,
        ports: headers.port_pair(),
        packets: counts.packets,
        start: frame.time,
        buffer_bytes: frame.buffer.length,
        buffers: 1,
        fragment_id: headers.fragment_id,
        macs: *macs(frame),
        vlan: headers.vlan,
        inner_vlan: headers.inner_vlan,
        point: frame.point,
        protocol: headers.protocol,
        ip_version: headers.version,
        port_form: headers.port_form,
        has_tcp_flags: headers.has_tcp_flags,
        tcp_flags: headers.tcp_flags,
        traffic_class: headers.traffic_class,
        ttl: headers.ttl,
        fragment: headers.fragment,
        ..Observation::EMPTY
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Kept;

    const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

    /// An IP datagram of UDP: of version 4 from 10.0.0.1, or of version 6.
    fn datagram(version: u8) -> Vec<u8> {
        let udp = [0, 7, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4];
        let mut datagram = match version {
            4 => vec![0x45, 0xb8, 0, 32, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2],
            _ => [&[0x6b, 0x80, 0, 0, 0, 12, 17, 64][..], &[0x20; 16], &[0xfe; 16]].concat(),
        };
        datagram.extend(udp);
        datagram
    }

    #[test]
    fn a_plain_packet_gives_the_observation_of_the_walk() {
        for (version, ethertype) in [(4, [8, 0]), (6, [0x86, 0xdd])] {
            let ip = datagram(version);
            let ethernet = [&MACS[..], &ethertype, &ip].concat();
            for (link, bytes, macs) in [(Link::Ethernet, &ethernet, MACS), (Link::Ip, &ip, [0; 12])] {
                for outer_tag in [None, Some(0x2005)] {
                    let length = bytes.len() as u32;
                    let buffer = Buffer { tag_beside: outer_tag.is_some(), ..Buffer::packet(length) };
                    let frame = Frame { link, bytes, buffer, outer_tag, time: 9, point: 3 };
                    let (mut frames, mut kept) = (Frames::default(), Kept::default());
                    frames.deliver(&frame, &mut kept);
                    frames.deliver_walked(frame, &mut kept);
                    let [plain, walked] = kept.0[..] else { panic!("{:?}", kept.0) };
                    assert_eq!(plain, walked, "{link:?}");
                    assert_eq!((plain.macs, plain.ip_version, plain.traffic_class), (macs, version, 0xb8));
                    assert_eq!((plain.bytes, plain.vlan == 5), (ip.len() as u64, outer_tag.is_some()));
                }
            }
        }
    }
}
