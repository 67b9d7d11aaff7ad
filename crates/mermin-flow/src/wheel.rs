//! A lazy timer wheel: one slot per second of the watermark, lists of places in a side array.
//!
//! Lazy: a packet moves no timer. When a slot comes due the table looks at each of its flows and either ends it or
//! schedules it at its real deadline, so a timer costs per expiry and per 128 s, not per packet. A place lies in one
//! list at a time; lists are doubly linked because a deadline that moves nearer (FIN, RST) must be taken out. The links
//! of all wheels of a worker lie in one array, by place, as the flows do.

use crate::index::Place;

const TICK: u64 = 1_000_000_000;
const SLOTS: u64 = 128;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    previous: u32,
    next: u32,
    /// Slot that the place lies in; `NONE` when in none.
    slot: u32,
}

const UNLINKED: Link = Link { previous: NONE, next: NONE, slot: NONE };

/// By place, its neighbours in the list that it lies in.
#[derive(Debug, Default)]
pub(crate) struct Links(Vec<Link>);

#[derive(Debug)]
pub(crate) struct Wheel {
    heads: [u32; SLOTS as usize],
    /// The first tick that was not handled yet.
    tick: u64,
    held: usize,
}

impl Wheel {
    pub(crate) fn new() -> Self {
        Self { heads: [NONE; SLOTS as usize], tick: 0, held: 0 }
    }

    /// Without places, as far as this one has come.
    pub(crate) const fn without_places(&self) -> Self {
        Self { heads: [NONE; SLOTS as usize], tick: self.tick, held: 0 }
    }

    /// The first moment at which [`Wheel::due`] has something to do.
    #[inline(always)]
    pub(crate) const fn next(&self) -> u64 {
        (self.tick + 1).saturating_mul(TICK)
    }

    /// Puts `place` where it will be looked at in the second after `deadline`, or, if that is far, earlier.
    pub(crate) fn schedule(&mut self, links: &mut Links, place: Place, deadline: u64) {
        self.cancel(links, place);
        let tick = (deadline / TICK).clamp(self.tick, self.tick.saturating_add(SLOTS - 1));
        let slot = (tick % SLOTS) as u32;
        let Links(links) = links;
        if links.len() <= place as usize {
            links.resize(place as usize + 1, UNLINKED);
        }
        let head = std::mem::replace(&mut self.heads[slot as usize], place);
        links[place as usize] = Link { previous: NONE, next: head, slot };
        if head != NONE {
            links[head as usize].previous = place;
        }
        self.held += 1;
    }

    /// Takes `place` out of the list that it lies in, if any.
    pub(crate) fn cancel(&mut self, Links(links): &mut Links, place: Place) {
        let Some(link) = links.get_mut(place as usize) else { return };
        let Link { previous, next, slot } = std::mem::replace(link, UNLINKED);
        if slot == NONE {
            return;
        }
        if previous == NONE {
            self.heads[slot as usize] = next;
        } else {
            links[previous as usize].next = next;
        }
        if next != NONE {
            links[next as usize].previous = previous;
        }
        self.held -= 1;
    }

    /// Takes one place whose second has passed by `now`; `None` when there is none left and the wheel stands at `now`.
    pub(crate) fn due(&mut self, links: &mut Links, now: u64) -> Option<Place> {
        let until = now / TICK;
        // One turn passes every slot, so seconds before the last turn need no look; an empty wheel needs none at all.
        let turn = if self.held == 0 { 0 } else { SLOTS };
        self.tick = self.tick.max(until.saturating_sub(turn));
        while self.tick < until {
            let head = self.heads[(self.tick % SLOTS) as usize];
            if head != NONE {
                self.cancel(links, head);
                return Some(head);
            }
            self.tick += 1;
        }
        None
    }

    /// A place of the second that the wheel stands at. All deadlines up to a moment of that second, and later ones,
    /// are among its places.
    pub(crate) fn first_of_second(&self) -> Option<Place> {
        let head = self.heads[(self.tick % SLOTS) as usize];
        (head != NONE).then_some(head)
    }

    /// All places in its lists.
    pub(crate) fn places(&self, links: &Links) -> impl Iterator<Item = Place> {
        let heads = self.heads.iter().copied().filter(|head| *head != NONE);
        heads.flat_map(|head| std::iter::successors(Some(head), |place| links.behind(*place)))
    }
}

impl Links {
    /// Gives back what is there for places from `places` on, which lie in no list.
    pub(crate) fn shrink_to(&mut self, places: usize) {
        self.0.truncate(places);
        self.0.shrink_to_fit();
    }

    /// The place behind `place` in its list.
    pub(crate) fn behind(&self, place: Place) -> Option<Place> {
        self.0.get(place as usize).map(|link| link.next).filter(|next| *next != NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// In sevenths of a second: within one, over several, over more than a turn.
    fn step() -> impl Strategy<Value = u64> {
        prop_oneof![0_u64..20, 0_u64..400, 0_u64..3_000]
    }

    proptest! {
        /// Against a sorted map: nothing fires before its deadline's second is over, everything does within 128 s after it.
        #[test]
        fn fires_all_and_none_early(steps in prop::collection::vec((0_u32..30, 0_u64..300, any::<bool>(), step()), 1..200)) {
            let (mut wheel, mut links, mut model) = (Wheel::new(), Links::default(), BTreeMap::new());
            let mut now = 1_000 * TICK;
            while wheel.due(&mut links, now).is_some() {}
            for (place, ahead, cancel, step) in steps {
                if cancel {
                    wheel.cancel(&mut links, place);
                    model.remove(&place);
                } else {
                    let deadline = now + ahead * TICK + 5;
                    wheel.schedule(&mut links, place, deadline);
                    model.insert(place, deadline);
                }
                now += step * TICK / 7;
                while let Some(place) = wheel.due(&mut links, now) {
                    let deadline = model.remove(&place);
                    prop_assert!(deadline.is_some(), "fired twice or after being cancelled");
                    let deadline = deadline.unwrap_or_default();
                    if deadline / TICK >= now / TICK {
                        // A far deadline is looked at early and put back.
                        prop_assert!(ahead_of(deadline, now) <= 300);
                        wheel.schedule(&mut links, place, deadline);
                        model.insert(place, deadline);
                    }
                }
                for deadline in model.values() {
                    prop_assert!(deadline / TICK >= now / TICK, "missed {} at {}", deadline, now);
                }
                prop_assert_eq!(wheel.held, model.len());
                let mut places: Vec<_> = wheel.places(&links).collect();
                places.sort_unstable();
                prop_assert!(places.iter().eq(model.keys()));
            }
        }
    }

    fn ahead_of(deadline: u64, now: u64) -> u64 {
        deadline.saturating_sub(now) / TICK
    }
}
