//! The same outcome in the kernel and in user space: the programs through `BPF_PROG_TEST_RUN` against `parse`.

use super::can_run;
use super::frames::{Random, damaged, datagrams, ethernet};
use crate::ebpf::book::tally;
use crate::ebpf::mapped::Mapped;
use crate::ebpf::object::{Mode, Object, page, program};
use crate::ebpf::ring::Ring;
use crate::ebpf::slots::Slots;
use crate::filters::{FilterRules, Filtered, Filtering};
use aya::TestRunOptions;
use aya::programs::TestRun as _;
use mermin_abi::{Counters, EVENT_HAS_TCP_FLAGS, EVENT_TICKS, Event};
use mermin_flow::{Hook, Tally};
use mermin_wire::{
    Buffer, Fragment, Headers, Link, METERED, PortForm, Question, Unmetered, count, macs, parse,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use zerocopy::FromBytes as _;

/// What a frame came to.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Metered(Event),
    Unmetered(Unmetered, u64),
    /// By this verdict, so much.
    Filtered(u8, Tally),
}

fn event(link: Link, frame: &[u8], headers: &Headers, buffer: &Buffer) -> Event {
    let counts = count(headers, buffer);
    let macs = macs(link, frame).unwrap_or_default();
    Event {
        source: headers.source,
        destination: headers.destination,
        first: 0,
        last: 0,
        epoch: 0,
        packets: counts.packets,
        ip_bytes: counts.ip_bytes,
        frame_bytes: counts.frame_bytes,
        buffers: 1,
        buffer_bytes: buffer.length,
        ifindex: 0,
        ports: headers.ports,
        fragment_id: headers.fragment_id,
        macs: [0, 4, 8].map(|at| u32::from_ne_bytes(macs[at..at + 4].try_into().unwrap())),
        vlan: headers.vlan,
        inner_vlan: headers.inner_vlan,
        protocol: headers.protocol,
        version: headers.version,
        traffic_class: headers.traffic_class,
        ttl: headers.ttl,
        tcp_flags: headers.tcp_flags,
        port_form: headers.port_form as u8,
        fragment: headers.fragment as u8,
        flags: if headers.has_tcp_flags { EVENT_HAS_TCP_FLAGS } else { 0 },
        pad: [0; 4],
    }
}

fn in_user_space(
    link: Link,
    frame: &[u8],
    segment_size: u32,
    filtering: Option<&Filtering>,
) -> (Outcome, u64) {
    let buffer = Buffer { segment_size, ..Buffer::packet(frame.len() as u32) };
    let mut headers = Headers::new(buffer.length, None);
    match parse(link, frame, &mut headers) {
        Ok(()) => {
            let counts = count(&headers, &buffer);
            let over = counts.length_over_frame;
            let verdict = filtering.map_or(METERED, |filtering| {
                let about = Question::of(&headers, filtering.rules_of(Some("lo")));
                filtering.tables.verdict(filtering.sizes, &about)
            });
            if verdict != METERED {
                let tally = Tally {
                    packets: counts.packets.into(),
                    bytes: counts.frame_bytes,
                    buffers: 1,
                    buffer_bytes: buffer.length.into(),
                };
                return (Outcome::Filtered(verdict, tally), u64::from(over));
            }
            (Outcome::Metered(event(link, frame, &headers, &buffer)), u64::from(over))
        }
        Err(reason) => (Outcome::Unmetered(reason, u64::from(headers.ethertype)), 0),
    }
}

struct Kernel {
    object: Object,
    ring: Ring,
    mapped: Mapped,
    slots: Slots,
}

impl Kernel {
    fn new(mode: Mode) -> Self {
        Self::with(mode, None)
    }

    /// The kernel runs programs over buffers of the loopback interface, whose index is 1 everywhere.
    fn with(mode: Mode, filtering: Option<&Filtering>) -> Self {
        let mut object = Object::load(page(), mode, filtering, None).unwrap();
        if let Some(filtering) = filtering {
            object.interface_rules().unwrap().insert(1, filtering.rules_of(Some("lo")), 0).unwrap();
        }
        let ring = Ring::new(object.map("RING").unwrap(), object.ring_bytes).unwrap();
        let mapped = Mapped::new(&object).unwrap();
        let slots = Slots::new(&object, 16).unwrap();
        Self { object, ring, mapped, slots }
    }

    /// `None`: the kernel makes no such buffer.
    fn start(&mut self, link: Link, frame: &[u8], segment_size: u32) -> Option<()> {
        // `gso_segs` and `gso_size` of `struct __sk_buff`.
        let mut context = [0_u8; 192];
        context[176..180].copy_from_slice(&segment_size.to_ne_bytes());
        let program = self.object.program(program(link, Hook::Ingress)).unwrap();
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: (segment_size > 0).then_some(&context[..]),
            ..TestRunOptions::new()
        };
        let result = program.test_run(options).ok()?;
        assert_eq!(result.return_value, u32::MAX, "TC_ACT_UNSPEC");
        Some(())
    }

    /// The same, and what it came to.
    fn run(&mut self, link: Link, frame: &[u8], segment_size: u32) -> Option<(Outcome, u64)> {
        self.start(link, frame, segment_size)?;
        let mut events = Vec::new();
        let written = self.ring.produced().position();
        self.ring.read(size_of::<Event>(), usize::MAX, written, |record| {
            events.push(Event::read_from_bytes(record).unwrap());
        });
        let in_ring = events.len() as u64;
        let mut filtered = Filtered::default();
        let in_slots = self.slots.read_slots(0, &mut events, &mut filtered);
        self.slots.read_hash(0, &mut events).unwrap();
        self.slots.clear(0).unwrap();
        let mut outcomes = Vec::new();
        let (mut seen, mut submitted, mut overflowed, mut over) = (0, 0, 0, 0);
        let length = frame.len() as u64;
        self.mapped.read(0, |counters: &Counters| {
            seen += counters.seen_buffers;
            submitted += counters.submitted.buffers;
            overflowed += counters.overflowed.buffers;
            over += counters.ip_length_over_frame;
            for (number, verdict) in counters.unmetered.iter().enumerate().filter(|(_, v)| v.buffers > 0) {
                assert_eq!(
                    (verdict.packets, verdict.bytes, verdict.buffers, verdict.buffer_bytes),
                    (1, length, 1, length)
                );
                let ethertypes: Vec<u64> = counters
                    .ethertypes
                    .iter()
                    .filter(|slot| slot.packets == 1)
                    .map(|slot| slot.ethertype)
                    .collect();
                assert_eq!(counters.ethertypes_other, 0);
                let ethertype = ethertypes.first().copied().unwrap_or(0);
                outcomes.push(Outcome::Unmetered(Unmetered::of_number(number as u8), ethertype));
            }
            filtered.add_all(counters.filtered.iter().map(tally));
        });
        self.mapped.clear(0);
        let filtered = (1..).zip(filtered.tallies()).filter(|(_, tally)| *tally != Tally::ZERO);
        outcomes.extend(filtered.map(|(verdict, tally)| Outcome::Filtered(verdict, tally)));
        assert_eq!((seen, submitted), (1, in_ring));
        assert_eq!(in_slots.buffers + overflowed, events.len() as u64 - in_ring);
        outcomes.extend(events.into_iter().map(|event| {
            if event.flags & EVENT_TICKS == 0 {
                assert!(event.first > 0 && event.last == event.first);
            } else {
                assert!(event.first >> 32 > 0 && event.last == event.first & 0xffff_ffff);
            }
            let flags = event.flags & !EVENT_TICKS;
            Outcome::Metered(Event { first: 0, last: 0, ifindex: 0, flags, ..event })
        }));
        assert_eq!(outcomes.len(), 1, "one verdict: {outcomes:?}");
        outcomes.pop().map(|outcome| (outcome, over))
    }
}

const MODES: [Mode; 3] = [Mode::Packet, Mode::Slots { set_bits: 2, seed: 7 }, Mode::Hash];

/// Runs every frame in user space and in all modes of the kernel's programs; how many the kernel took.
fn compare(link: Link, frames: impl Iterator<Item = Vec<u8>>) -> usize {
    compare_filtered(link, frames, None, &mut BTreeSet::new())
}

/// The same with filters; which verdicts there were.
fn compare_filtered(
    link: Link,
    frames: impl Iterator<Item = Vec<u8>>,
    filtering: Option<&Filtering>,
    verdicts: &mut BTreeSet<u8>,
) -> usize {
    let mut kernels = MODES.map(|mode| Kernel::with(mode, filtering));
    let mut compared = 0;
    for frame in frames {
        let expected = in_user_space(link, &frame, 0, filtering);
        if let Outcome::Filtered(verdict, _) = expected.0 {
            verdicts.insert(verdict);
        }
        for kernel in &mut kernels {
            if let Some(outcome) = kernel.run(link, &frame, 0) {
                assert_eq!(outcome, expected, "{link:?} {frame:02x?}");
                compared += 1;
            }
        }
    }
    compared
}

#[test]
fn kernel_and_user_space_agree_on_ethernet() {
    if !can_run("kernel_and_user_space_agree_on_ethernet") {
        return;
    }
    let whole = ethernet();
    assert_eq!(compare(Link::Ethernet, whole.iter().cloned()), MODES.len() * whole.len());
    let mut random = Random(1);
    let damaged = (0..40_000).map(|n| damaged(&whole[n % whole.len()], &mut random));
    let compared = compare(Link::Ethernet, damaged);
    assert!(compared > 90_000, "only {compared} compared");
}

#[test]
fn kernel_and_user_space_agree_on_bare_ip() {
    if !can_run("kernel_and_user_space_agree_on_bare_ip") {
        return;
    }
    let whole: Vec<Vec<u8>> = datagrams().into_iter().map(|(_, datagram)| datagram).collect();
    let mut random = Random(2);
    let damaged = (0..20_000).map(|n| damaged(&whole[n % whole.len()], &mut random));
    let compared = compare(Link::Ip, damaged);
    assert!(compared > 45_000, "only {compared} compared");
}

#[test]
fn segmented_buffers_count_as_on_the_wire() {
    if !can_run("segmented_buffers_count_as_on_the_wire") {
        return;
    }
    let mut kernels = MODES.map(Kernel::new);
    let mut compared = 0;
    for mut frame in ethernet() {
        frame.resize(2_000, 7);
        for size in [1, 100, 1_448, 1_940, 1_946, 1_947, 5_000] {
            let expected = in_user_space(Link::Ethernet, &frame, size, None);
            for kernel in &mut kernels {
                if let Some(outcome) = kernel.run(Link::Ethernet, &frame, size) {
                    assert_eq!(outcome, expected, "{size} {frame:02x?}");
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 900, "only {compared} compared");
}

/// Packets of a flow, one after the other, with other flags and in segments: what its slot holds in the end is what they add up to.
#[test]
fn packets_of_a_flow_add_up_in_its_slot() {
    if !can_run("packets_of_a_flow_add_up_in_its_slot") {
        return;
    }
    const ACK_PSH_URG_ECE: [u8; 4] = [0x10, 0x08, 0x20, 0x40];
    let mut kernel = Kernel::new(MODES[1]);
    let (mut flows, mut with_flags) = (0, 0);
    for frame in ethernet() {
        let mut h = Headers::new(frame.len() as u32, None);
        if parse(Link::Ethernet, &frame, &mut h).is_err() || h.fragment != Fragment::Whole {
            continue;
        }
        let mut expected: Option<Event> = None;
        for (flag, segment_size) in ACK_PSH_URG_ECE.into_iter().zip([0, 0, 1, 0]) {
            let mut frame = frame.clone();
            if h.has_tcp_flags {
                frame[h.offset as usize - 20 + 13] = flag;
            }
            if kernel.start(Link::Ethernet, &frame, segment_size).is_none() {
                continue;
            }
            let (Outcome::Metered(event), _) = in_user_space(Link::Ethernet, &frame, segment_size, None)
            else {
                panic!("not metered: {frame:02x?}");
            };
            let Some(sum) = &mut expected else {
                expected = Some(event);
                continue;
            };
            sum.packets += event.packets;
            sum.ip_bytes += event.ip_bytes;
            sum.frame_bytes += event.frame_bytes;
            sum.buffers += 1;
            sum.buffer_bytes += event.buffer_bytes;
            sum.tcp_flags |= event.tcp_flags;
        }
        let mut events = Vec::new();
        kernel.slots.read_slots(0, &mut events, &mut Filtered::default());
        kernel.slots.clear(0).unwrap();
        let sums: Vec<Event> = events
            .into_iter()
            .map(|event| Event {
                first: 0,
                last: 0,
                ifindex: 0,
                flags: event.flags & EVENT_HAS_TCP_FLAGS,
                ..event
            })
            .collect();
        assert_eq!(sums, Vec::from_iter(expected), "{frame:02x?}");
        flows += 1;
        with_flags += usize::from(sums[0].tcp_flags == 0x78);
    }
    assert!(flows > 20 && with_flags > 5, "{flows} flows, {with_flags} of them with flags");
}

/// Rules about what such packets hold, so that they match often.
fn random_rules(packets: &[Headers], random: &mut Random) -> FilterRules {
    let address = |words: [u64; 2], version| match version {
        4 => IpAddr::from(Ipv4Addr::from((words[0] as u32).to_ne_bytes())),
        _ => IpAddr::from(Ipv6Addr::from_bits(
            u128::from(u64::from_be(words[0])) << 64 | u128::from(u64::from_be(words[1])),
        )),
    };
    let mut rule = |at: usize| {
        let mut some = |what: &mut dyn FnMut(&Headers, &mut Random) -> Value| {
            let few = random.below(8).saturating_sub(5);
            (0..few).map(|_| what(&packets[random.below(packets.len())], random)).collect::<Vec<_>>()
        };
        let mut networks = |h: &Headers, random: &mut Random| {
            let address = address(if random.below(2) == 0 { h.source } else { h.destination }, h.version);
            let length = random.below(if h.version == 4 { 33 } else { 129 });
            json!(format!("{address}/{length}").parse::<mermin_flow::Network>().map_or_else(
                // The network that it should have been.
                |error| error.to_string().rsplit(' ').next().unwrap_or_default().to_owned(),
                |network| network.0.to_string(),
            ))
        };
        let mut ports = |h: &Headers, random: &mut Random| {
            let port = u16::from_be(h.port_pair()[random.below(2)]);
            match random.below(3) {
                0 => json!(format!("{port}-{}", port.saturating_add(3))),
                1 => json!(format!("0-{port}")),
                _ => json!(port),
            }
        };
        let lists = json!({
            "networks": some(&mut networks),
            "source_networks": some(&mut networks),
            "destination_networks": some(&mut networks),
            "ports": some(&mut ports),
            "source_ports": some(&mut ports),
            "destination_ports": some(&mut ports),
            "protocols": some(&mut |h, _| json!(h.protocol)),
            "interfaces": some(&mut |_, random| json!(["lo", "eth*", "*"][random.below(3)])),
        });
        let action = if random.below(3) == 0 { "include" } else { "exclude" };
        json!([{ "name": format!("r{at}"), "action": action, "match": lists }])
    };
    // One that nothing could match is none.
    let rules =
        (0..64).map(&mut rule).filter(|rule| serde_json::from_value::<FilterRules>(rule.clone()).is_ok());
    let rules: Vec<Value> = rules.map(|rule| rule[0].clone()).collect();
    serde_json::from_value(Value::Array(rules)).unwrap()
}

#[test]
fn kernel_and_user_space_filter_alike() {
    if !can_run("kernel_and_user_space_filter_alike") {
        return;
    }
    let mut random = Random(5);
    for (link, whole) in [
        (Link::Ethernet, ethernet()),
        (Link::Ip, datagrams().into_iter().map(|(_, datagram)| datagram).collect()),
    ] {
        let headers = whole.iter().filter_map(|frame| {
            let mut headers = Headers::new(frame.len() as u32, None);
            parse(link, frame, &mut headers).ok().map(|()| headers)
        });
        let headers: Vec<_> = headers.collect();
        assert!(
            headers.iter().any(|h| h.port_form == PortForm::Ports) && headers.iter().any(|h| h.version == 6)
        );
        let (mut compared, mut verdicts) = (0, BTreeSet::new());
        for _ in 0..8 {
            let rules = random_rules(&headers, &mut random);
            let filtering = Filtering::of(&rules).unwrap();
            let damaged: Vec<_> = (0..1_000).map(|n| damaged(&whole[n % whole.len()], &mut random)).collect();
            let frames = whole.iter().cloned().chain(damaged);
            compared += compare_filtered(link, frames, Some(&filtering), &mut verdicts);
        }
        assert!(compared > 18_000, "only {compared} compared");
        assert!(verdicts.len() > 8, "only these verdicts: {verdicts:?}");
    }
}
