//! What the programs sum up themselves: slots, and the hash that takes what has no room elsewhere. Read, after the epoch's
//! grace period, as records of the ring would be.

use super::bpf::{Batch, Create, create_map, put_map, read_batch, take_batch};
use super::error::EbpfError;
use super::mapped::map;
use super::object::Object;
use crate::filters::Filtered;
use memmap2::MmapRaw;
use mermin_abi::{
    Closed, EVENT_EGRESS, EVENT_HAS_TCP_FLAGS, EVENT_TICKS, Event, First, META_EGRESS, META_FORM_SHIFT,
    META_IFINDEX_SHIFT, META_V6, Overflow, OverflowKey, SLOT_BYTES_MAX, STAGED, Set, Slot, Stage, WORDS_V4,
    WORDS_V6,
};
use mermin_flow::Tally;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

const BPF_MAP_TYPE_HASH: u32 = 1;
/// Entries taken out of the hash at once.
const BATCH: usize = 256;
const FORM: u32 = 3;
/// Names of the hashes where they outlast the process.
const HASHES: [&str; 2] = ["HASH0", "HASH1"];

/// Both halves of slots and hash.
pub(super) struct Slots {
    v4: MmapRaw,
    v6: MmapRaw,
    stages: MmapRaw,
    closed: MmapRaw,
    cpus: usize,
    /// Sets in each half.
    sets: usize,
    hashes: [OwnedFd; 2],
    /// What is read of them stays until it is committed, for whoever comes after a process that was killed in between. Otherwise it
    /// is read and deleted at once: it can't be read twice.
    keeps: bool,
    batch: Batch<OverflowKey, Overflow>,
}

impl Slots {
    /// Maps the slots and gives each half a hash of so many entries.
    pub(super) fn new(object: &Object, entries: u32) -> Result<Self, EbpfError> {
        let sets = (object.cpus as usize) << object.set_bits;
        let kernel = |what| move |source: io::Error| EbpfError::Kernel { what, source };
        let hash = Create {
            map_type: BPF_MAP_TYPE_HASH,
            key_size: size_of::<OverflowKey>() as u32,
            value_size: size_of::<Overflow>() as u32,
            max_entries: entries.max(1),
            ..Create::default()
        };
        let outer = object.map("OVERFLOW")?;
        let hash = |parity: u32| {
            let inner = object.kept(HASHES[parity as usize], || create_map(&hash));
            let inner = inner.map_err(kernel("a hash of flows"))?;
            put_map(outer, parity, inner.as_fd()).map_err(kernel("a hash of flows"))?;
            Ok::<_, EbpfError>(inner)
        };
        Ok(Self {
            v4: map(object.map("SLOTS4")?, 2 * sets * size_of::<Set<WORDS_V4>>())?,
            v6: map(object.map("SLOTS6")?, 2 * sets * size_of::<Set<WORDS_V6>>())?,
            stages: map(object.map("STAGES")?, 2 * object.cpus as usize * size_of::<Stage>())?,
            closed: map(object.map("CLOSED")?, 2 * size_of::<Closed>())?,
            cpus: object.cpus as usize,
            sets,
            hashes: [hash(0)?, hash(1)?],
            keeps: object.keeps(),
            batch: Batch::new(BATCH),
        })
    }

    /// Forgets which connections were closed two epochs before `epoch`, which is about to begin.
    pub(super) fn forget_closed(&mut self, epoch: u32) {
        let half = (epoch & 1) as usize;
        // SAFETY: the mapping holds two elements of bytes; programs may read there at any time, and write nothing as long as
        // the half isn't live.
        unsafe { std::ptr::write_bytes(self.closed.as_mut_ptr().cast::<Closed>().add(half), 0, 1) };
    }

    /// All that waits for the ring in the half of `epoch`. Only after a grace period.
    pub(super) fn read_staged(&mut self, epoch: u32, deltas: &mut Vec<Event>) {
        for stage in self.stages(epoch) {
            deltas.extend(&stage.events[..(stage.count as usize).min(STAGED)]);
        }
    }

    /// All that stands in slots of the half of `epoch` and is metered, and its sum; what is filtered is counted. Only after a
    /// grace period: nobody may write there.
    pub(super) fn read_slots(
        &mut self,
        epoch: u32,
        deltas: &mut Vec<Event>,
        filtered: &mut Filtered,
    ) -> Tally {
        let before = deltas.len();
        for set in half::<WORDS_V4>(&mut self.v4, self.sets, epoch) {
            read_set(set, epoch, deltas, filtered);
        }
        for set in half::<WORDS_V6>(&mut self.v6, self.sets, epoch) {
            read_set(set, epoch, deltas, filtered);
        }
        deltas[before..].iter().map(tally).sum()
    }

    /// All that stands in the half's hash.
    ///
    /// # Errors
    /// It can't be read. What was read is in `deltas`.
    pub(super) fn read_hash(&mut self, epoch: u32, deltas: &mut Vec<Event>) -> io::Result<()> {
        let hash = self.hashes[(epoch & 1) as usize].as_fd();
        let take = |key: &OverflowKey, value: &Overflow| of_hash(epoch, key, value, deltas);
        if self.keeps {
            read_batch(hash, &mut self.batch, take)
        } else {
            take_batch(hash, &mut self.batch, take)
        }
    }

    /// Empties the half of `epoch`, as cautiously.
    ///
    /// # Errors
    /// The hash can't be emptied.
    pub(super) fn clear(&mut self, epoch: u32) -> io::Result<()> {
        for stage in self.stages(epoch) {
            stage.count = 0;
        }
        half::<WORDS_V4>(&mut self.v4, self.sets, epoch).iter_mut().for_each(clear_set);
        half::<WORDS_V6>(&mut self.v6, self.sets, epoch).iter_mut().for_each(clear_set);
        if !self.keeps {
            return Ok(());
        }
        take_batch(self.hashes[(epoch & 1) as usize].as_fd(), &mut self.batch, |_, _| {})
    }

    fn stages(&mut self, epoch: u32) -> &mut [Stage] {
        let first = if epoch & 1 == 0 { 0 } else { self.cpus };
        // SAFETY: as in `half`.
        unsafe {
            std::slice::from_raw_parts_mut(self.stages.as_mut_ptr().cast::<Stage>().add(first), self.cpus)
        }
    }
}

/// What an event counts.
pub(super) fn tally(event: &Event) -> Tally {
    Tally {
        packets: event.packets.into(),
        bytes: event.frame_bytes,
        buffers: event.buffers.into(),
        buffer_bytes: event.buffer_bytes.into(),
    }
}

/// What two hashes of so many entries take: each element has its header, key and value, each bucket its head (linux/kernel/bpf/hashtab.c).
pub(super) fn hash_bytes(entries: u32) -> u64 {
    const ELEMENT: u64 = 48;
    const BUCKET: u64 = 16;
    let entries = u64::from(entries);
    let element = ELEMENT + (size_of::<OverflowKey>() + size_of::<Overflow>()) as u64;
    2 * (entries * element + entries.next_power_of_two() * BUCKET)
}

fn half<const W: usize>(mapped: &mut MmapRaw, sets: usize, epoch: u32) -> &mut [Set<W>] {
    let first = if epoch & 1 == 0 { 0 } else { sets };
    // SAFETY: the mapping holds 2 · sets elements, aligned to a page at its start and of a size that is a multiple of their
    // alignment; every bit pattern is valid. The caller has `&mut` of the only user here, and sees to it that no program runs
    // in this half.
    unsafe { std::slice::from_raw_parts_mut(mapped.as_mut_ptr().cast::<Set<W>>().add(first), sets) }
}

fn read_set<const W: usize>(set: &Set<W>, epoch: u32, deltas: &mut Vec<Event>, filtered: &mut Filtered) {
    for (slot, first) in set.ways.iter().zip(&set.first).filter(|(slot, _)| slot.sums.packets > 0) {
        let delta = of_slot(epoch, slot, first);
        if !filtered.add(slot.sums.verdict, tally(&delta)) {
            deltas.push(delta);
        }
    }
}

fn clear_set<const W: usize>(set: &mut Set<W>) {
    for slot in set.ways.iter_mut().filter(|slot| slot.sums.packets > 0) {
        slot.key = [0; W];
        slot.sums = Default::default();
    }
}

fn of_slot<const W: usize>(epoch: u32, slot: &Slot<W>, first: &First) -> Event {
    let Slot { key, sums } = slot;
    let addresses = match key[..] {
        [both, _] => [both >> 32, 0, both & 0xffff_ffff, 0],
        [a, b, c, d, _] => [a, b, c, d],
        _ => [0; 4],
    };
    Event {
        first: u64::from(first.nanos) << 32 | u64::from(sums.first),
        last: sums.last.into(),
        ip_bytes: sums.ip_bytes,
        frame_bytes: sums.frame_bytes,
        epoch,
        packets: sums.packets,
        buffers: sums.buffers,
        buffer_bytes: sums.buffer_bytes,
        macs: first.macs,
        vlan: sums.vlan,
        inner_vlan: sums.inner_vlan,
        traffic_class: sums.traffic_class,
        ttl: sums.ttl,
        tcp_flags: sums.tcp_flags,
        ..of_key(addresses, key[W - 1], sums.has_tcp_flags != 0)
    }
}

/// The hash counts in 64 bits; what is more than an observation holds comes in several.
fn of_hash(epoch: u32, key: &OverflowKey, value: &Overflow, deltas: &mut Vec<Event>) {
    let parts = value.buffer_bytes.max(value.packets).div_ceil(u64::from(SLOT_BYTES_MAX)).max(1);
    let share = |all: u64, part: u64| all / parts + u64::from(part < all % parts);
    let addresses = [key[0], key[1], key[2], key[3]];
    deltas.extend((0..parts).map(|part| Event {
        first: u64::from(value.nanos) << 32 | u64::from(value.first),
        last: value.last.into(),
        ip_bytes: share(value.ip_bytes, part),
        frame_bytes: share(value.frame_bytes, part),
        epoch,
        packets: share(value.packets, part) as u32,
        buffers: share(value.buffers, part) as u32,
        buffer_bytes: share(value.buffer_bytes, part) as u32,
        macs: value.macs,
        vlan: value.vlan,
        inner_vlan: value.inner_vlan,
        traffic_class: value.traffic_class,
        ttl: (key[5] >> 16) as u8,
        tcp_flags: key[5] as u8,
        ..of_key(addresses, key[4], key[5] >> 8 & 1 != 0)
    }));
}

/// What a key says; all else zero.
fn of_key([a, b, c, d]: [u64; 4], word: u64, has_tcp_flags: bool) -> Event {
    let meta = word as u32;
    Event {
        source: [a, b],
        destination: [c, d],
        first: 0,
        last: 0,
        ip_bytes: 0,
        frame_bytes: 0,
        epoch: 0,
        packets: 0,
        buffers: 0,
        buffer_bytes: 0,
        ifindex: meta >> META_IFINDEX_SHIFT,
        ports: (word >> 32) as u32,
        fragment_id: 0,
        macs: [0; 3],
        vlan: 0,
        inner_vlan: 0,
        protocol: meta as u8,
        version: if meta & META_V6 == 0 { 4 } else { 6 },
        traffic_class: 0,
        ttl: 0,
        tcp_flags: 0,
        port_form: (meta >> META_FORM_SHIFT & FORM) as u8,
        fragment: 0,
        flags: EVENT_TICKS
            | if meta & META_EGRESS != 0 { EVENT_EGRESS } else { 0 }
            | if has_tcp_flags { EVENT_HAS_TCP_FLAGS } else { 0 },
        pad: [0; 4],
    }
}
