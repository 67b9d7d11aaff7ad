//! Which datagram a later fragment belongs to. One map per source, in the packet reader, ahead of the shard hash:
//! fragments of one datagram must meet, and only the first has the ports that decide the shard.

use crate::clock::{Lateness, Watermark};
use crate::key::HashSecret;
use crate::observation::Observation;
use mermin_wire::{Fragment, PortForm};
use std::collections::{HashMap, VecDeque};

/// A first fragment is remembered for this long.
const LIFETIME: u64 = 30_000_000_000;

/// Datagrams remembered at once; beyond it the oldest is forgotten, and its later fragments count in the port-less flow.
const CAPACITY: usize = 8_192;

/// The protocol is not among it: what the fragment's own header names is part of the id (IPv4), and behind extension
/// headers only the first fragment knows the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Datagram {
    addresses: [u64; 4],
    id: u32,
    vlan: u16,
    ip_version: u8,
}

impl Datagram {
    fn of(o: &Observation) -> Self {
        Self { addresses: o.addresses, id: o.fragment_id, vlan: o.vlan, ip_version: o.ip_version }
    }
}

#[derive(Clone, Copy, Debug)]
struct Transport {
    seen: u64,
    ports: [u16; 2],
    port_form: PortForm,
    protocol: u8,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Datagrams {
    known: HashMap<Datagram, Transport>,
    by_age: VecDeque<(u64, Datagram)>,
    unresolved: u64,
}

impl Datagrams {
    /// Gives a later fragment the transport of its first, where that was seen before. To be called with the wire's
    /// order of ends and the watermark set, ahead of [`Observation::orient`].
    #[inline(always)]
    pub fn resolve(&mut self, o: &mut Observation) {
        if o.fragment != Fragment::Whole {
            *o = self.resolve_fragment(*o);
        }
    }

    /// By value: whole packets shall not have their address taken.
    #[cold]
    #[inline(never)]
    fn resolve_fragment(&mut self, mut o: Observation) -> Observation {
        self.forget(o.watermark);
        let datagram = Datagram::of(&o);
        if o.fragment == Fragment::First {
            let transport =
                Transport { seen: o.watermark, ports: o.ports, port_form: o.port_form, protocol: o.protocol };
            self.known.insert(datagram, transport);
            self.by_age.push_back((o.watermark, datagram));
        } else if let Some(transport) = self.known.get(&datagram) {
            o.ports = transport.ports;
            o.port_form = transport.port_form;
            o.protocol = transport.protocol;
        } else {
            self.unresolved += u64::from(o.packets);
        }
        o
    }

    fn forget(&mut self, now: u64) {
        while let Some(&(seen, datagram)) = self.by_age.front() {
            if now.saturating_sub(seen) < LIFETIME && self.by_age.len() <= CAPACITY {
                return;
            }
            self.by_age.pop_front();
            // The same id may have been used again since.
            if self.known.get(&datagram).is_some_and(|transport| transport.seen == seen) {
                self.known.remove(&datagram);
            }
        }
    }

    /// Packets of later fragments whose first was not seen before them.
    #[must_use]
    pub const fn unresolved(&self) -> u64 {
        self.unresolved
    }
}

/// Prepares observations for the shards: watermark, datagram, orientation.
#[derive(Debug)]
pub struct Orientation {
    secret: HashSecret,
    watermark: Watermark,
    /// How far time may go.
    until: u64,
    datagrams: Datagrams,
}

impl Orientation {
    /// With the secret that the index hash is keyed with.
    #[must_use]
    pub fn new(secret: HashSecret) -> Self {
        Self { secret, watermark: Watermark::default(), until: u64::MAX, datagrams: Datagrams::default() }
    }

    /// Sets everything that the source left to the reader.
    #[inline(always)]
    pub fn prepare(&mut self, o: &mut Observation) {
        self.place(o);
        self.orient(o);
    }

    /// The first half: watermark and datagram, which later observations depend on, also if this one goes no further.
    #[inline(always)]
    pub fn place(&mut self, o: &mut Observation) {
        o.watermark = self.watermark.stamp(o.end.min(self.until));
        self.datagrams.resolve(o);
    }

    /// The second half: order of the ends, shard and hash.
    #[inline(always)]
    pub fn orient(&self, o: &mut Observation) {
        o.orient(&self.secret);
    }

    /// See [`crate::Sink::hold_back`].
    pub const fn hold_back(&mut self, until: u64) {
        self.until = until;
    }

    /// The source says that everything up to `time` has been read; the watermark after that.
    pub fn advance(&mut self, time: u64) -> u64 {
        self.watermark.advance(time)
    }

    /// How late packets are, for those who meter them.
    #[must_use]
    pub fn lateness(&self) -> Lateness {
        self.watermark.lateness()
    }

    /// Packets of later fragments whose first was not seen before them.
    #[must_use]
    pub const fn unresolved_fragments(&self) -> u64 {
        self.datagrams.unresolved()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{SECOND, T0, udp};

    fn fragment(position: Fragment, id: u32, at: u64) -> Observation {
        let mut o = Observation { fragment: position, fragment_id: id, ..udp("10.0.0.1:53", "10.0.0.2:9") };
        if position == Fragment::Later {
            o.ports = [0; 2];
            o.port_form = PortForm::Absent;
        }
        o.watermark = T0 + at;
        o
    }

    fn resolved(datagrams: &mut Datagrams, mut o: Observation) -> bool {
        datagrams.resolve(&mut o);
        o.port_form == PortForm::Ports && o.ports == [53_u16.to_be(), 9_u16.to_be()]
    }

    #[test]
    fn later_fragments_take_the_first_ones_ports_for_thirty_seconds() {
        use Fragment::{First, Later};
        let mut datagrams = Datagrams::default();
        assert!(!resolved(&mut datagrams, fragment(Later, 7, 0)));
        assert_eq!(datagrams.unresolved(), 1);
        assert!(resolved(&mut datagrams, fragment(First, 7, 0)));
        assert!(resolved(&mut datagrams, fragment(Later, 7, 1)));
        assert!(!resolved(&mut datagrams, fragment(Later, 8, 1)));
        assert!(resolved(&mut datagrams, fragment(Later, 7, 30 * SECOND - 1)));
        assert!(!resolved(&mut datagrams, fragment(Later, 7, 30 * SECOND)));
    }

    #[test]
    fn an_id_used_again_counts_from_its_second_use() {
        use Fragment::{First, Later};
        let mut datagrams = Datagrams::default();
        resolved(&mut datagrams, fragment(First, 7, 0));
        resolved(&mut datagrams, fragment(First, 7, 20 * SECOND));
        assert!(resolved(&mut datagrams, fragment(Later, 7, 40 * SECOND)));
        assert!(!resolved(&mut datagrams, fragment(Later, 7, 50 * SECOND)));
    }

    #[test]
    fn vlan_and_addresses_are_part_of_a_datagram() {
        let mut datagrams = Datagrams::default();
        resolved(&mut datagrams, fragment(Fragment::First, 7, 0));
        let later = fragment(Fragment::Later, 7, 0);
        for other in [
            Observation { vlan: 5, ..later },
            Observation { addresses: [1, 2, 3, 4], ..later },
            Observation { ip_version: 6, ..later },
        ] {
            assert!(!resolved(&mut datagrams, other));
        }
    }

    #[test]
    fn the_reader_is_told_of_unresolved_fragments() {
        let mut orientation = Orientation::new(HashSecret::new(1));
        for (position, packets, unresolved) in
            [(Fragment::Later, 2, 2), (Fragment::First, 1, 2), (Fragment::Later, 3, 2)]
        {
            let mut o = fragment(position, 7, 0);
            (o.packets, o.end) = (packets, T0);
            orientation.prepare(&mut o);
            assert_eq!(orientation.unresolved_fragments(), unresolved);
        }
    }

    #[test]
    fn a_source_that_repeats_its_greatest_time_does_not_hurry_the_watermark() {
        let mut orientation = Orientation::new(HashSecret::new(1));
        let at = |orientation: &mut Orientation, seconds: u64| {
            let mut o = udp("10.0.0.1:53", "10.0.0.2:9");
            o.end = T0 + seconds * SECOND;
            orientation.prepare(&mut o);
            (o.watermark - T0) / SECOND
        };
        let stamps = [1_000, 100, 105, 106].map(|seconds| at(&mut orientation, seconds));
        assert_eq!(stamps, [1_000, 1_000, 1_005, 1_006]);
        assert_eq!(orientation.advance(T0 + 1_000 * SECOND), T0 + 1_006 * SECOND);
        assert_eq!(orientation.advance(T0 + 1_001 * SECOND), T0 + 1_901 * SECOND, "the clock went on");
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let mut datagrams = Datagrams::default();
        for id in 0..20_000 {
            resolved(&mut datagrams, fragment(Fragment::First, id, 0));
        }
        assert!(datagrams.known.len() <= CAPACITY + 1 && datagrams.by_age.len() <= CAPACITY + 1);
        assert!(!resolved(&mut datagrams, fragment(Fragment::Later, 0, 0)));
        assert!(resolved(&mut datagrams, fragment(Fragment::Later, 19_999, 0)));
    }
}
