//! A CPU whose flows push each other out uses fewer of its sets; where what is counted lies then makes no difference to what it comes to.

use super::can_run;
use crate::ebpf::mapped::Mapped;
use crate::ebpf::object::{Mode, Object, program};
use crate::ebpf::ring::Ring;
use crate::ebpf::slots::Slots;
use crate::filters::Filtered;
use aya::TestRunOptions;
use aya::programs::TestRun as _;
use mermin_abi::{EVENT_TICKS, Event, FEWER_SET_BITS};
use mermin_flow::Hook;
use mermin_wire::Link;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::collections::BTreeMap;
use zerocopy::FromBytes as _;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u8 = 0x02;
const FIN: u8 = 0x11;
const ACK: u8 = 0x10;

/// Ethernet, IPv4 and TCP or UDP without payload, from a port that tells the flow.
fn frame(protocol: u8, port: u16, tcp_flags: u8) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend(port.to_be_bytes());
    frame.extend([0, 80, 0, if protocol == UDP { 20 } else { 0 }, 0, 0, 0, 0, 0, 0, 0x50, tcp_flags]);
    frame.resize(54, 0);
    frame
}

/// The programs with 256 slots a CPU, run on one.
struct Kernel {
    object: Object,
    ring: Ring,
    mapped: Mapped,
    slots: Slots,
    deltas: Vec<Event>,
}

impl Kernel {
    fn new() -> Self {
        let (mut one, allowed) = (CpuSet::new(), sched_getaffinity(None).unwrap());
        one.set((0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).unwrap());
        sched_setaffinity(None, &one).unwrap();
        let object = Object::load(1 << 24, Mode::Slots { set_bits: 7, seed: 3 }, None, None).unwrap();
        let ring = Ring::new(object.map("RING").unwrap(), object.ring_bytes).unwrap();
        let mapped = Mapped::new(&object).unwrap();
        let slots = Slots::new(&object, 16).unwrap();
        Self { object, ring, mapped, slots, deltas: Vec::new() }
    }

    fn send(&mut self, frame: &[u8]) {
        let program = self.object.program(program(Link::Ethernet, Hook::Ingress)).unwrap();
        program.test_run(TestRunOptions { data_in: Some(frame), ..TestRunOptions::new() }).unwrap();
    }

    /// So many datagrams of so many flows by turns.
    fn flood(&mut self, flows: u16, count: usize) {
        for number in 0..count {
            self.send(&frame(UDP, 1_000 + (number % usize::from(flows)) as u16, 0));
            if number % 10_000 == 0 {
                self.read_ring();
            }
        }
    }

    fn read_ring(&mut self) {
        let written = self.ring.produced().position();
        self.ring.read(size_of::<Event>(), usize::MAX, written, |record| {
            self.deltas.push(Event::read_from_bytes(record).unwrap());
        });
    }

    fn is_crowded(&mut self) -> bool {
        let mut fewer = 0;
        self.mapped.read(0, |counters| fewer += counters.crowd.fewer);
        assert!(fewer == 0 || fewer == FEWER_SET_BITS, "{fewer}");
        fewer > 0
    }

    /// All that was counted, as at an epoch's end.
    fn take(&mut self) -> Vec<Event> {
        self.read_ring();
        self.slots.read_staged(0, &mut self.deltas);
        self.slots.read_slots(0, &mut self.deltas, &mut Filtered::default());
        self.slots.clear(0).unwrap();
        self.mapped.clear(0);
        std::mem::take(&mut self.deltas)
    }
}

/// Packets by source port.
fn by_port(deltas: &[Event]) -> BTreeMap<u16, u32> {
    let mut sums = BTreeMap::new();
    for delta in deltas {
        *sums.entry(u16::from_be(delta.ports as u16)).or_default() += delta.packets;
    }
    sums
}

#[test]
fn a_crowd_uses_fewer_sets_until_it_is_gone() {
    if !can_run("a_crowd_uses_fewer_sets_until_it_is_gone") {
        return;
    }
    let mut kernel = Kernel::new();
    kernel.flood(64, 20_000);
    assert!(!kernel.is_crowded(), "64 flows have room in 256 slots");
    kernel.flood(4_096, 16_384);
    assert!(kernel.is_crowded());
    let deltas = kernel.take();
    let mut sums = by_port(&deltas);
    assert_eq!(sums.len(), 4_096);
    assert!(sums.iter().all(|(port, packets)| match port - 1_000 {
        flow @ ..64 => *packets == 4 + 20_000 / 64 + u32::from(flow < 20_000 % 64),
        _ => *packets == 4,
    }));
    // The next epoch of the same half: as crowded as it was, until all sets were tried again.
    assert!(kernel.is_crowded());
    let mut sent = 0;
    while kernel.is_crowded() {
        kernel.flood(64, 6_400);
        sent += 100;
        assert!(sent < 10_000, "still crowded after {sent} packets of each of 64 flows");
    }
    assert!(sent > 3_000, "all sets were tried again after {sent} packets of each of 64 flows");
    kernel.flood(64, 64_000);
    assert!(!kernel.is_crowded(), "64 flows have room again");
    sums = by_port(&kernel.take());
    assert!(sums.len() == 64 && sums.values().all(|packets| *packets == sent + 1_000), "{sums:?}");
}

/// What is left of a connection in a set that isn't in use now may be in use again when another with its addresses and ports has begun.
#[test]
fn connections_are_told_apart_in_a_crowd() {
    if !can_run("connections_are_told_apart_in_a_crowd") {
        return;
    }
    let mut kernel = Kernel::new();
    let connections: Vec<u16> = (1..=8).collect();
    let of_each = |kernel: &mut Kernel, flags| {
        connections.iter().for_each(|port| kernel.send(&frame(TCP, *port, flags)));
    };
    let sums_of = |deltas: &[Event], port: u16| -> Vec<u32> {
        let of = |delta: &&Event| {
            delta.protocol == TCP && delta.ports as u16 == port.to_be() && delta.flags & EVENT_TICKS != 0
        };
        let mut packets: Vec<u32> = deltas.iter().filter(of).map(|delta| delta.packets).collect();
        packets.sort_unstable();
        packets
    };
    for crowded in [false, true] {
        if crowded {
            kernel.flood(4_096, 16_384);
        }
        assert_eq!(kernel.is_crowded(), crowded);
        kernel.take();
        of_each(&mut kernel, ACK);
        of_each(&mut kernel, FIN);
        of_each(&mut kernel, SYN);
        of_each(&mut kernel, ACK);
        of_each(&mut kernel, ACK);
        let deltas = kernel.take();
        for port in 1..=8 {
            assert_eq!(sums_of(&deltas, port), [1, 2], "port {port}, crowded: {crowded}");
        }
    }
}
