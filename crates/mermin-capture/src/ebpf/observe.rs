//! From an event to an observation.

use super::ticks::Ticks;
use crate::clock::Steady;
use mermin_abi::{EVENT_HAS_TCP_FLAGS, EVENT_TICKS, Event};
use mermin_flow::{Fragment, Observation, PortForm};

const TCP: u8 = 6;

/// Of the first packet and of the last, since boot.
#[inline]
fn times(event: &Event, ticks: Option<&Ticks>) -> [u64; 2] {
    match ticks {
        Some(ticks) if event.flags & EVENT_TICKS != 0 => {
            let mut first = ticks.first(event.first);
            // Where a connection with such a key was closed lately, a first packet has its exact time. So this one came after the
            // SYN that may have been in the same tick.
            if event.protocol == TCP && event.first >> 32 == 0 {
                first += ticks.length() - 1;
            }
            [first, first.max(ticks.time(event.last as u32))]
        }
        _ => [event.first, event.last],
    }
}

/// Seen at this observation point.
#[inline]
pub(super) fn observe(event: &Event, point: u16, ticks: Option<&Ticks>, clock: &Steady) -> Observation {
    let [start, end] = times(event, ticks).map(|time| clock.time(time));
    let mut macs = [0; 12];
    for (bytes, word) in macs.chunks_exact_mut(4).zip(event.macs) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    Observation {
        addresses: [event.source[0], event.source[1], event.destination[0], event.destination[1]],
        start,
        end,
        bytes: event.ip_bytes,
        frame_bytes: event.frame_bytes,
        ports: [event.ports as u16, (event.ports >> 16) as u16],
        packets: event.packets,
        buffer_bytes: event.buffer_bytes,
        buffers: event.buffers,
        fragment_id: event.fragment_id,
        macs,
        vlan: event.vlan,
        inner_vlan: event.inner_vlan,
        point,
        protocol: event.protocol,
        ip_version: event.version,
        port_form: match event.port_form {
            1 => PortForm::Ports,
            2 => PortForm::IcmpTypeCode,
            _ => PortForm::Absent,
        },
        has_tcp_flags: event.flags & EVENT_HAS_TCP_FLAGS != 0,
        tcp_flags: event.tcp_flags,
        traffic_class: event.traffic_class,
        ttl: event.ttl,
        fragment: match event.fragment {
            1 => Fragment::First,
            2 => Fragment::Later,
            _ => Fragment::Whole,
        },
        ..Observation::EMPTY
    }
}
