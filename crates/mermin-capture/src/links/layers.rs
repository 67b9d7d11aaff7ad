//! Which link lies on which: a bridge on its ports, a VLAN on its link.

use crate::interfaces::Device;
use mermin_flow::Layer;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Of every link of the network namespace, captured on or not.
#[derive(Debug, Default)]
pub(super) struct Layers {
    ties: BTreeMap<u32, Ties>,
    known: BTreeMap<u32, Arc<Layer>>,
    /// Something has changed since layers were told.
    is_stale: bool,
}

/// What a link says of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ties {
    lower: Option<u32>,
    upper: Option<u32>,
    is_bonded: bool,
    is_loopback: bool,
    is_open_vswitch: bool,
}

impl Layers {
    pub(super) fn is(&mut self, device: &Device) {
        let &Device { index, lower, upper, is_bonded, is_loopback, is_open_vswitch, .. } = device;
        let ties = Ties { lower, upper, is_bonded, is_loopback, is_open_vswitch };
        self.is_stale |= self.ties.insert(index, ties) != Some(ties);
    }

    pub(super) fn has_gone(&mut self, index: u32) {
        self.is_stale |= self.ties.remove(&index).is_some();
    }

    /// Links that are not among these have gone.
    pub(super) fn retain(&mut self, there: &BTreeSet<u32>) {
        let before = self.ties.len();
        self.ties.retain(|index, _| there.contains(index));
        self.is_stale |= self.ties.len() != before;
    }

    pub(super) fn of(&self, index: u32) -> Option<&Arc<Layer>> {
        self.known.get(&index)
    }

    /// Goes by all that was said; calls `tell` with each link whose layer is another one than before.
    pub(super) fn settle(&mut self, mut tell: impl FnMut(u32, &Arc<Layer>)) {
        if !std::mem::take(&mut self.is_stale) {
            return;
        }
        let mut lowers: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for (&index, ties) in &self.ties {
            lowers.entry(index).or_default().extend(ties.lower);
            if let Some(upper) = ties.upper {
                lowers.entry(upper).or_default().insert(index);
            }
        }
        let is_switch = |index: &u32| self.ties.get(index).is_some_and(|ties| ties.is_open_vswitch);
        let ports = self.ties.iter().filter(|(_, ties)| ties.upper.as_ref().is_some_and(is_switch));
        let ports: Vec<u32> = ports.map(|(index, _)| *index).collect();
        for index in self.ties.keys().filter(|index| is_switch(index)) {
            lowers.entry(*index).or_default().extend(&ports);
        }
        let mut known = BTreeMap::new();
        for (&index, ties) in &self.ties {
            let (depth, below) = below(index, &lowers);
            let bond = ties.upper.filter(|_| ties.is_bonded);
            let layer =
                Layer { depth, below: below.into_iter().collect(), bond, is_loopback: ties.is_loopback };
            let layer = match self.known.remove(&index) {
                Some(same) if *same == layer => same,
                _ => {
                    let layer = Arc::new(layer);
                    tell(index, &layer);
                    layer
                }
            };
            known.insert(index, layer);
        }
        self.known = known;
    }
}

/// How deep a link lies on others, and all below it. Where links lie on each other in a ring, which the kernel prevents, it is gone
/// through once.
fn below(index: u32, lowers: &BTreeMap<u32, BTreeSet<u32>>) -> (u8, BTreeSet<u32>) {
    let (mut depth, mut all) = (0, BTreeSet::new());
    let mut level = BTreeSet::from([index]);
    loop {
        let next = level.iter().filter_map(|index| lowers.get(index)).flatten().copied();
        // A link that was met on a shorter way is met again on a longer one: the depth is the longest's.
        level = next.filter(|lower| *lower != index).collect();
        if level.is_empty() || depth == u8::MAX || usize::from(depth) > lowers.len() {
            return (depth, all);
        }
        all.extend(&level);
        depth += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(index: u32, lower: Option<u32>, upper: Option<u32>) -> Device {
        Device {
            name: index.to_string().into(),
            index,
            link: None,
            up: true,
            lower,
            upper,
            is_bonded: false,
            is_open_vswitch: false,
            is_loopback: index == 1,
        }
    }

    fn told(layers: &mut Layers) -> Vec<(u32, u8, Vec<u32>)> {
        let mut told = Vec::new();
        layers.settle(|index, layer| told.push((index, layer.depth, layer.below.to_vec())));
        told
    }

    /// Two ports of a bond, a VLAN on it, a bridge that has the VLAN and a veth.
    #[test]
    fn layers_are_told_as_links_say_and_when_they_change() {
        let mut layers = Layers::default();
        let bonded = |index| Device { is_bonded: true, ..device(index, None, Some(4)) };
        let links = [
            device(1, None, None),
            bonded(2),
            bonded(3),
            device(4, None, None),
            device(5, Some(4), Some(7)),
            device(6, None, Some(7)),
            device(7, None, None),
        ];
        links.iter().for_each(|link| layers.is(link));
        let expected = [
            (1, 0, vec![]),
            (2, 0, vec![]),
            (3, 0, vec![]),
            (4, 1, vec![2, 3]),
            (5, 2, vec![2, 3, 4]),
            (6, 0, vec![]),
            (7, 3, vec![2, 3, 4, 5, 6]),
        ];
        assert_eq!(told(&mut layers), expected);
        assert_eq!([2, 6].map(|index| layers.of(index).unwrap().bond), [Some(4), None]);
        assert!(layers.of(1).unwrap().is_loopback);
        links.iter().for_each(|link| layers.is(link));
        assert_eq!(told(&mut layers), []);
        layers.is(&device(6, None, None));
        assert_eq!(told(&mut layers), [(7, 3, vec![2, 3, 4, 5])]);
        layers.has_gone(5);
        assert_eq!(told(&mut layers), [(7, 0, vec![])]);
        layers.retain(&BTreeSet::from([3, 4, 7]));
        assert_eq!(told(&mut layers), [(4, 1, vec![3])]);
    }

    /// `ovs-system`, an internal port beside it, and two ports.
    #[test]
    fn internal_ports_of_open_vswitch_lie_on_all_ports() {
        let mut layers = Layers::default();
        for index in [2, 3] {
            layers.is(&Device { is_open_vswitch: true, ..device(index, None, None) });
        }
        [4, 5].into_iter().for_each(|index| layers.is(&device(index, None, Some(2))));
        let expected = [(2, 1, vec![4, 5]), (3, 1, vec![4, 5]), (4, 0, vec![]), (5, 0, vec![])];
        assert_eq!(told(&mut layers), expected);
    }

    #[test]
    fn a_ring_of_links_is_gone_through_once() {
        let mut layers = Layers::default();
        for (index, lower) in [(2, 3), (3, 4), (4, 2)] {
            layers.is(&device(index, Some(lower), None));
        }
        assert_eq!(told(&mut layers).len(), 3);
    }
}
