//! What waits in the reader while the packet channel is full: in order, and merged, so that it grows with the directions
//! of flows that have packets and not with packets.
//!
//! Merged is what the meter can't tell from single packets ([`Observation::absorb`]). Where a connection begins or ends
//! nothing of it passes, in either direction.

use hashbrown::HashTable;
use mermin_flow::{Observation, Tally};
use std::collections::VecDeque;

/// Directions and observation points of one flow that are looked for: both directions at four points, as where a pod's packets pass
/// a bridge.
const WAYS: usize = 8;

/// The number of no observation. One that has it nevertheless takes nothing in.
const NONE: u32 = u32::MAX;

/// A flow that waits.
struct Flow {
    /// Its newest observation. They are numbered as they came, on from 0 behind the last number.
    newest: u32,
    /// Of each way, the one that takes further packets in.
    open: [u32; WAYS],
}

/// See the module's text.
pub(crate) struct Waiting {
    observations: VecDeque<Observation>,
    /// The number of the first of them.
    first: u32,
    flows: HashTable<Flow>,
    /// Between packets that may be merged, ns.
    gap: u64,
}

/// The reader's hash of the key, for a table that looks at the topmost bits too.
fn hash(o: &Observation) -> u64 {
    u64::from(o.hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Waiting {
    /// Nothing. Packets that are `gap` ns apart or more are not merged.
    pub(crate) fn new(gap: u64) -> Self {
        Self { observations: VecDeque::new(), first: 0, flows: HashTable::new(), gap }
    }

    /// From now on packets that are `gap` ns apart or more are not merged.
    pub(crate) const fn merge_within(&mut self, gap: u64) {
        self.gap = gap;
    }

    pub(crate) fn len(&self) -> usize {
        self.observations.len()
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.observations.is_empty()
    }

    /// Takes an oriented observation in; whether it became part of one that was there.
    pub(crate) fn push(&mut self, o: &Observation) -> bool {
        let Self { observations, first, flows, gap } = self;
        let first = *first;
        let number = first.wrapping_add(observations.len() as u32);
        let newest = |flow: &Flow| &observations[flow.newest.wrapping_sub(first) as usize];
        let Some(flow) = flows.find_mut(hash(o), |flow| newest(flow).is_of_flow_of(o)) else {
            let mut open = [NONE; WAYS];
            if !o.is_turn() {
                open[0] = number;
            }
            flows.insert_unique(hash(o), Flow { newest: number, open }, |flow| hash(newest(flow)));
            observations.push_back(*o);
            return false;
        };
        if o.is_turn() {
            flow.open = [NONE; WAYS];
        } else {
            // Its own way, or one that nobody has taken, or the one that was opened first.
            let way = |open: &u32| match observations.get(open.wrapping_sub(first) as usize) {
                Some(known) if *open != NONE => (!known.is_beside(o), open.wrapping_sub(first) + 1),
                _ => (true, 0),
            };
            let open = flow.open.iter_mut().min_by_key(|open| way(open)).expect("there are ways");
            if *open != NONE
                && let Some(known) = observations.get_mut(open.wrapping_sub(first) as usize)
                && known.is_beside(o)
                && known.absorb(o, *gap)
            {
                return true;
            }
            *open = number;
        }
        flow.newest = number;
        observations.push_back(*o);
        false
    }

    /// Moves the `n` that came first, or as many as there are, to `to`.
    pub(crate) fn take(&mut self, n: usize, to: &mut Vec<Observation>) {
        for _ in 0..n.min(self.observations.len()) {
            let Self { observations, first, flows, .. } = self;
            let o = observations[0];
            let newest = |flow: &Flow| &observations[flow.newest.wrapping_sub(*first) as usize];
            if let Ok(mut flow) = flows.find_entry(hash(&o), |flow| newest(flow).is_of_flow_of(&o)) {
                if flow.get().newest == *first {
                    flow.remove();
                } else {
                    flow.get_mut()
                        .open
                        .iter_mut()
                        .filter(|open| **open == *first)
                        .for_each(|open| *open = NONE);
                }
            }
            to.push(o);
            observations.pop_front();
            *first = first.wrapping_add(1);
        }
        if self.observations.is_empty() {
            // Pressure is over: memory that it took is given back.
            *self = Self { first: self.first, ..Self::new(self.gap) };
        }
    }

    pub(crate) fn tally(&self) -> Tally {
        self.observations.iter().map(Observation::tally).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mermin_flow::{HashSecret, PortForm, Sampling};
    use proptest::prelude::*;

    const ACK: u8 = 0x10;
    const SYN: u8 = 0x02;

    fn packet(flow: u8, back: bool, point: u16, flags: u8, at: u64) -> Observation {
        let mut o = Observation {
            addresses: [u64::from(flow) + 1, 0, 200, 0],
            ports: [1, 2],
            port_form: PortForm::Ports,
            protocol: 6,
            packets: 1,
            buffers: 1,
            bytes: 40,
            frame_bytes: 54,
            buffer_bytes: 54,
            start: at,
            end: at,
            watermark: at,
            has_tcp_flags: true,
            tcp_flags: flags,
            point,
            ..Observation::EMPTY
        };
        if back {
            o.addresses.rotate_left(2);
            o.ports.swap(0, 1);
        }
        o.orient(&HashSecret::new(1));
        // Many flows with one hash.
        o.hash &= 3;
        o
    }

    /// The same without an index: back to a turn or to the newest of the same way.
    #[derive(Default)]
    struct Naive(Vec<Observation>);

    impl Naive {
        fn push(&mut self, o: &Observation, gap: u64) -> bool {
            for known in self.0.iter_mut().rev().filter(|known| known.is_of_flow_of(o)) {
                if known.is_turn() || o.is_turn() {
                    break;
                }
                if known.is_beside(o) {
                    if known.absorb(o, gap) {
                        return true;
                    }
                    break;
                }
            }
            self.0.push(*o);
            false
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push { flow: u8, back: bool, point: u16, flags: u8, later: u64 },
        Take(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let push =
            (0_u8..12, any::<bool>(), 0_u16..2, prop::sample::select(vec![ACK, ACK, ACK, SYN]), 0_u64..40);
        prop_oneof![
            6 => push.prop_map(|(flow, back, point, flags, later)| Step::Push { flow, back, point, flags, later }),
            1 => (0_usize..20).prop_map(Step::Take),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn merges_as_one_without_an_index_does(steps in prop::collection::vec(step(), 0..300)) {
            const GAP: u64 = 100;
            let (mut waiting, mut naive, mut at) = (Waiting::new(GAP), Naive::default(), 1_000);
            for step in steps {
                match step {
                    Step::Push { flow, back, point, flags, later } => {
                        at += later;
                        let o = packet(flow, back, point, flags, at);
                        prop_assert_eq!(waiting.push(&o), naive.push(&o, GAP));
                    }
                    Step::Take(n) => {
                        let mut taken = Vec::new();
                        waiting.take(n, &mut taken);
                        let expected: Vec<_> = naive.0.drain(..n.min(naive.0.len())).collect();
                        prop_assert_eq!(taken, expected);
                    }
                }
                prop_assert_eq!(waiting.len(), naive.0.len());
                prop_assert_eq!(waiting.tally(), naive.0.iter().map(Observation::tally).sum());
                let flows: std::collections::BTreeSet<_> = naive.0.iter().map(|o| o.addresses).collect();
                prop_assert_eq!(waiting.flows.len(), flows.len());
            }
        }
    }

    #[test]
    fn grows_with_flows_and_not_with_packets() {
        let mut waiting = Waiting::new(1_000);
        for n in 0..100_000_u64 {
            waiting.push(&packet((n % 50) as u8, n % 100 >= 50, 0, ACK, n));
        }
        assert_eq!((waiting.len(), waiting.flows.len()), (100, 50));
        assert_eq!(waiting.tally().packets, 100_000);
        let mut taken = Vec::new();
        waiting.take(usize::MAX, &mut taken);
        assert_eq!(taken.iter().map(|o| o.packets).collect::<Vec<_>>(), [1_000; 100]);
        assert_eq!((waiting.observations.capacity(), waiting.flows.capacity()), (0, 0));
    }

    /// At each rate for itself.
    #[test]
    fn what_was_sampled_is_merged_too() {
        let mut waiting = Waiting::new(1_000);
        for n in 0..10_000_u64 {
            let mut o = packet((n % 50) as u8, false, 0, ACK, n);
            o.sampling = Sampling::kept(if n < 5_000 { 3 } else { 4 }, o.bytes);
            waiting.push(&o);
        }
        assert_eq!((waiting.len(), waiting.tally().packets), (100, 10_000));
    }

    /// After four thousand million observations without a pause.
    #[test]
    fn numbers_begin_again() {
        let mut waiting = Waiting { first: NONE - 3, ..Waiting::new(1_000) };
        for n in 0..20_u64 {
            waiting.push(&packet((n % 10) as u8, false, 0, ACK, n));
        }
        // One has the number of none.
        assert_eq!((waiting.len(), waiting.flows.len(), waiting.tally().packets), (11, 10, 20));
        let mut taken = Vec::new();
        waiting.take(5, &mut taken);
        waiting.take(usize::MAX, &mut taken);
        assert_eq!(taken.iter().map(|o| o.packets).collect::<Vec<_>>(), [2, 2, 2, 1, 2, 2, 2, 2, 2, 2, 1]);
        assert_eq!((waiting.first, waiting.flows.len()), (7, 0));
    }

    /// One way more takes the place of the one that was opened first.
    #[test]
    fn more_points_than_ways_cost_room_and_nothing_else() {
        let mut waiting = Waiting::new(1_000);
        for n in 0..600_u64 {
            waiting.push(&packet(0, false, (n % 10) as u16, ACK, n));
        }
        assert_eq!((waiting.tally().packets, waiting.len()), (600, 600));
        for n in 600..1_000 {
            waiting.push(&packet(0, false, (n % 8) as u16, ACK, n));
        }
        assert_eq!((waiting.tally().packets, waiting.len()), (1_000, 608));
    }
}
