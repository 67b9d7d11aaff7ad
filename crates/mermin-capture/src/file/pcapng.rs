//! pcapng: sections of blocks (<https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-03.html>).
//!
//! The walk over blocks is ours, so that a block which isn't needed is skipped without holding it, packets are read
//! without allocation, and damage is told by its place. Section headers and interface descriptions, which have options,
//! are read by `pcap-parser`; three things of it are not used: it leaves out resolutions that are powers of two, takes
//! the clock offset as little-endian in every section, and does not know the obsolete packet block.

use super::clock::{Clock, MICROSECONDS};
use super::damage::{Fault, Part};
use super::window::Window;
use super::{Captured, Step, Verdicts, captured_max};
use mermin_flow::{ObservationPoint, ObservationPoints, Sink};
use mermin_wire::Link;
use pcap_parser::pcapng::{
    InterfaceDescriptionBlock, OptionCode, parse_interfacedescriptionblock_be,
    parse_interfacedescriptionblock_le, parse_sectionheaderblock,
};
use pcap_parser::{BOM_MAGIC, EPB_MAGIC, IDB_MAGIC, SHB_MAGIC, SPB_MAGIC};
use std::sync::Arc;

/// The packet block of older files, which pcapng calls obsolete.
const PACKET_BLOCK: u32 = 2;
/// Type and length at the front, the length again at the end.
const FRAME: u32 = 12;
/// An enhanced packet block, or an obsolete packet block, without a packet.
const ENHANCED_LEAST: u32 = 32;
/// Longer blocks that would have to be held are damage.
const BLOCK_MAX: u32 = 16 << 20;
/// Interfaces kept per section; as many as there are numbers for observation points.
const INTERFACES_MAX: usize = 65_536;

#[derive(Clone, Copy)]
enum Order {
    Little,
    Big,
}

impl Order {
    /// The word at `at`; callers have checked the block's length.
    #[inline(always)]
    fn word(self, block: &[u8], at: usize) -> u32 {
        let bytes = block.get(at..at + 4).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }

    fn half(self, block: &[u8], at: usize) -> u16 {
        let bytes = block.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
        match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        }
    }
}

struct Interface {
    link: Option<Link>,
    point: u16,
    snap: u32,
    clock: Clock,
}

/// A file that begins with a section header.
pub(super) struct Pcapng {
    order: Order,
    interfaces: Vec<Interface>,
    points: Arc<ObservationPoints>,
    /// The time of the packet before, which a simple packet block takes.
    time: u64,
}

/// Whether a file that begins with `magic`, of four bytes, is of this format.
pub(super) fn recognise(magic: &[u8]) -> bool {
    magic == SHB_MAGIC.to_ne_bytes()
}

impl Pcapng {
    /// `time` is that of the last packet before this file.
    pub(super) fn new(points: Arc<ObservationPoints>, time: u64) -> Self {
        Self { order: Order::Little, interfaces: Vec::new(), points, time }
    }

    /// Reads at most `budget` blocks and gives the packets among them their verdicts.
    pub(super) fn read(
        &mut self,
        window: &mut Window,
        mut budget: usize,
        verdicts: &mut Verdicts<'_, impl Sink>,
    ) -> Result<Step, Fault> {
        loop {
            budget = self.packets(window, budget, verdicts);
            if budget == 0 {
                return Ok(Step::Budget);
            }
            budget -= 1;
            let front = window.at_least(FRAME as usize)?;
            if front.is_empty() {
                return Ok(Step::End);
            }
            if front.len() < FRAME as usize {
                return Err(Fault::Cut(Part::Block));
            }
            // The section header's type reads the same in both byte orders, and its third word tells which one it is.
            if Order::Little.word(front, 0) == SHB_MAGIC {
                self.order = byte_order(front)?;
            }
            let (kind, length) = (self.order.word(front, 0), self.order.word(front, 4));
            let end = window.offset() + u64::from(length);
            let packet = match kind {
                EPB_MAGIC => Some(self.enhanced(held(window, self.order, length, ENHANCED_LEAST)?)?),
                PACKET_BLOCK => Some(self.obsolete(held(window, self.order, length, ENHANCED_LEAST)?)?),
                SPB_MAGIC => Some(self.simple(held(window, self.order, length, 16)?)?),
                SHB_MAGIC => {
                    self.section(held(window, self.order, length, 28)?)?;
                    None
                }
                IDB_MAGIC => {
                    self.interface(held(window, self.order, length, 20)?)?;
                    None
                }
                _ => {
                    self.skip(window, length)?;
                    continue;
                }
            };
            if let Some(packet) = packet {
                verdicts.take(&packet, end);
            }
            window.consume(length as usize);
        }
    }

    /// Gives those packets their verdicts that are next and held whole, at most `budget`; what is left of it. What is
    /// held is gone through by itself: the window moves on once, not once a packet.
    fn packets(
        &mut self,
        window: &mut Window,
        mut budget: usize,
        verdicts: &mut Verdicts<'_, impl Sink>,
    ) -> usize {
        let held = window.bytes();
        let mut rest = held;
        while budget > 0
            && let Some(packet) = self.packet(&mut rest)
        {
            let read = held.len() - rest.len();
            verdicts.take(&packet, window.offset() + read as u64);
            budget -= 1;
        }
        let done = held.len() - rest.len();
        window.consume(done);
        budget
    }

    /// Takes an enhanced packet block off the front of `held`. Anything else stays, damage too: what it is the walk over
    /// blocks finds out.
    #[inline(always)]
    fn packet<'a>(&mut self, held: &mut &'a [u8]) -> Option<Captured<'a>> {
        let front = held.get(..ENHANCED_LEAST as usize)?;
        let (kind, length) = (self.order.word(front, 0), self.order.word(front, 4));
        if kind != EPB_MAGIC || length < ENHANCED_LEAST || !length.is_multiple_of(4) {
            return None;
        }
        let (block, rest) = held.split_at_checked(length as usize)?;
        if self.order.word(block, block.len() - 4) != length {
            return None;
        }
        let packet = self.enhanced(block).ok()?;
        *held = rest;
        Some(packet)
    }

    /// A new section forgets the interfaces of the one before.
    fn section(&mut self, block: &[u8]) -> Result<(), Fault> {
        let (_, header) = parse_sectionheaderblock(block).map_err(|_| Fault::BlockContent)?;
        if header.major_version != 1 {
            return Err(Fault::Version { major: header.major_version });
        }
        self.interfaces.clear();
        Ok(())
    }

    fn interface(&mut self, block: &[u8]) -> Result<(), Fault> {
        if self.interfaces.len() == INTERFACES_MAX {
            return Err(Fault::Interfaces { limit: INTERFACES_MAX });
        }
        let (_, description) = match self.order {
            Order::Little => parse_interfacedescriptionblock_le(block),
            Order::Big => parse_interfacedescriptionblock_be(block),
        }
        .map_err(|_| Fault::BlockContent)?;
        let option = |code| option(&description, code);
        let resolution = option(OptionCode::IfTsresol).and_then(|value| value.first().copied());
        let offset = option(OptionCode::IfTsoffset).and_then(|value| value.first_chunk().copied());
        let name = option(OptionCode::IfName)
            .map(|name| String::from_utf8_lossy(name).trim_end_matches('\0').to_owned())
            .filter(|name| !name.is_empty());
        let number = self.interfaces.len() as u32;
        self.interfaces.push(Interface {
            link: Link::from_linktype(description.linktype.0 as u16),
            point: self.points.number(point(name, number)),
            snap: description.snaplen,
            clock: Clock::new(
                resolution.unwrap_or(MICROSECONDS),
                offset.map_or(0, |bytes| match self.order {
                    Order::Little => i64::from_le_bytes(bytes),
                    Order::Big => i64::from_be_bytes(bytes),
                }),
            ),
        });
        Ok(())
    }

    #[inline(always)]
    fn enhanced<'a>(&mut self, block: &'a [u8]) -> Result<Captured<'a>, Fault> {
        self.timed(block, self.order.word(block, 8))
    }

    fn obsolete<'a>(&mut self, block: &'a [u8]) -> Result<Captured<'a>, Fault> {
        self.timed(block, u32::from(self.order.half(block, 8)))
    }

    /// The two blocks with a time differ in the interface's number only.
    #[inline(always)]
    fn timed<'a>(&mut self, block: &'a [u8], number: u32) -> Result<Captured<'a>, Fault> {
        let interface = described(&self.interfaces, number)?;
        let word = |at| self.order.word(block, at);
        let ticks = u64::from(word(12)) << 32 | u64::from(word(16));
        let time = interface.clock.nanos(ticks);
        let captured = captured(&block[28..block.len() - 4], word(20), interface, word(24), time)?;
        self.time = time.unwrap_or(self.time);
        Ok(captured)
    }

    /// Always of the section's first interface; its captured length is not written down.
    fn simple<'a>(&mut self, block: &'a [u8]) -> Result<Captured<'a>, Fault> {
        let interface = described(&self.interfaces, 0)?;
        let wire_length = self.order.word(block, 8);
        let data = &block[12..block.len() - 4];
        let snap = if interface.snap == 0 { u32::MAX } else { interface.snap };
        captured(data, wire_length.min(snap).min(data.len() as u32), interface, wire_length, Some(self.time))
    }

    /// A block of another type: its length at the end is looked at, its content isn't.
    fn skip(&self, window: &mut Window, length: u32) -> Result<(), Fault> {
        if length < FRAME || !length.is_multiple_of(4) {
            return Err(Fault::BlockLength { length });
        }
        let whole = window.skip(u64::from(length - 4))?;
        let end = window.at_least(4)?;
        if !whole || end.len() < 4 {
            return Err(Fault::Cut(Part::Block));
        }
        if self.order.word(end, 0) != length {
            return Err(Fault::BlockLength { length });
        }
        window.consume(4);
        Ok(())
    }
}

fn byte_order(front: &[u8]) -> Result<Order, Fault> {
    [Order::Little, Order::Big]
        .into_iter()
        .find(|order| order.word(front, 8) == BOM_MAGIC)
        .ok_or(Fault::ByteOrder)
}

/// The whole block, once both its lengths are right.
#[inline(always)]
fn held(window: &mut Window, order: Order, length: u32, least: u32) -> Result<&[u8], Fault> {
    if !(least..=BLOCK_MAX).contains(&length) || !length.is_multiple_of(4) {
        return Err(Fault::BlockLength { length });
    }
    let size = length as usize;
    let block = window.at_least(size)?.get(..size).ok_or(Fault::Cut(Part::Block))?;
    if order.word(block, size - 4) != length {
        return Err(Fault::BlockLength { length });
    }
    Ok(block)
}

/// The first value of an option, without padding.
fn option<'a>(description: &'a InterfaceDescriptionBlock<'_>, code: OptionCode) -> Option<&'a [u8]> {
    description.options.iter().find(|option| option.code == code)?.as_bytes().ok()
}

/// By name, or by number within the section; the first interface without a name is the one that a classic pcap has.
fn point(name: Option<String>, number: u32) -> ObservationPoint {
    let index = if name.is_some() || number == 0 { None } else { Some(number) };
    ObservationPoint { interface: name.map(Arc::from), index, hook: None }
}

fn described(interfaces: &[Interface], number: u32) -> Result<&Interface, Fault> {
    interfaces.get(number as usize).ok_or(Fault::Interface { number })
}

/// `data` may hold padding and options behind the captured bytes.
#[inline(always)]
fn captured<'a>(
    data: &'a [u8],
    length: u32,
    interface: &Interface,
    wire_length: u32,
    time: Option<u64>,
) -> Result<Captured<'a>, Fault> {
    let limit = captured_max(interface.snap);
    if length > limit {
        return Err(Fault::CapturedLength { length: u64::from(length), limit: u64::from(limit) });
    }
    let bytes = data.get(..length as usize).ok_or(Fault::BlockContent)?;
    Ok(Captured {
        link: interface.link,
        point: interface.point,
        time,
        wire_length: wire_length.max(length),
        bytes,
    })
}
