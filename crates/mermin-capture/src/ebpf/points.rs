//! From the index in an event to the observation point of the interface that had it then.
//!
//! The kernel may give the index of a link that has gone to another one, and events of the first may still be unread
//! then. So what the thread tells of interfaces holds from a position in the ring on, and the reader stops there to learn
//! it.

use super::taps::News;
use crate::links::Numbers;
use mermin_abi::{EVENT_EGRESS, EVENT_TICKS, Event};
use mermin_flow::ObservationPoints;
use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::Receiver;

/// A link that has gone was last seen in the epoch whose sums come next, or in the one behind that, which may have begun by then.
const EPOCHS: u32 = 2;

/// Numbers of the observation points of each interface, by index.
#[derive(Default)]
pub(super) struct Points {
    numbers: HashMap<u32, Numbers>,
    /// Whether what was summed up of links comes after they have gone.
    sums: bool,
    /// Links that have gone, by index, and of how many epochs to come there may be sums of them.
    gone: VecDeque<(u32, Numbers, u32)>,
    /// Packets come in bursts of one interface.
    last: Option<(u32, Numbers)>,
    /// So do sums.
    last_summed: Option<(u32, Numbers)>,
    /// Told, and not true yet: the first is of an interface that has gone.
    news: VecDeque<News>,
}

impl Points {
    /// Takes what was told, as far as it is true for events from `position` on.
    pub(super) fn hear(&mut self, news: Option<&Receiver<News>>, position: u64) {
        self.news.extend(news.into_iter().flat_map(Receiver::try_iter));
        while let Some(news) = self.news.front() {
            match *news {
                News::Off { up_to, .. } if up_to > position => return,
                News::Off { index, .. } => {
                    if let Some(numbers) = self.numbers.remove(&index)
                        && self.sums
                    {
                        self.gone.push_back((index, numbers, EPOCHS));
                    }
                }
                News::On { index, numbers } => {
                    self.numbers.insert(index, numbers);
                }
            }
            (self.last, self.last_summed) = (None, None);
            self.news.pop_front();
        }
    }

    /// Up to which position in the ring it is known what indexes mean.
    pub(super) fn valid_up_to(&self) -> u64 {
        match self.news.front() {
            Some(News::Off { up_to, .. }) => *up_to,
            _ => u64::MAX,
        }
    }

    #[inline]
    pub(super) fn get(&mut self, index: u32, egress: bool) -> u16 {
        let numbers = match self.last {
            Some((last, numbers)) if last == index => numbers,
            _ => self.look_up(index),
        };
        numbers[usize::from(egress)]
    }

    /// Of an event: a delta may leave its slot after its link has gone.
    #[inline]
    pub(super) fn of(&mut self, event: &Event) -> u16 {
        let egress = event.flags & EVENT_EGRESS != 0;
        if event.flags & EVENT_TICKS != 0 {
            self.get_summed(event.ifindex, egress)
        } else {
            self.get(event.ifindex, egress)
        }
    }

    /// For a source whose programs sum up.
    pub(super) fn of_sums() -> Self {
        Self { sums: true, ..Self::default() }
    }

    /// What was summed up in an epoch was handed on.
    pub(super) fn epoch_is_over(&mut self) {
        self.gone.iter_mut().for_each(|(.., epochs)| *epochs -= 1);
        while self.gone.pop_front_if(|(.., epochs)| *epochs == 0).is_some() {
            self.last_summed = None;
        }
    }

    /// Of what was summed up. Where two links had the index in one epoch, all of it is the first one's.
    #[inline]
    pub(super) fn get_summed(&mut self, index: u32, egress: bool) -> u16 {
        let numbers = match self.last_summed {
            Some((last, numbers)) if last == index => numbers,
            _ => self.look_up_summed(index),
        };
        numbers[usize::from(egress)]
    }

    fn look_up_summed(&mut self, index: u32) -> Numbers {
        let gone = self.gone.iter().find(|(of, ..)| *of == index).map(|(_, numbers, _)| numbers);
        let numbers = gone.or_else(|| self.numbers.get(&index));
        let numbers = numbers.copied().unwrap_or([ObservationPoints::UNKNOWN; 2]);
        self.last_summed = Some((index, numbers));
        numbers
    }

    /// A link that has moved to another namespace may have another index there, for the moment before it is let go of.
    fn look_up(&mut self, index: u32) -> Numbers {
        let numbers = self.numbers.get(&index).copied().unwrap_or([ObservationPoints::UNKNOWN; 2]);
        self.last = Some((index, numbers));
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

    /// Whatever came by the ring meanwhile: nothing, where no delta leaves its slot.
    #[test]
    fn sums_of_a_link_that_has_gone_have_its_numbers_for_two_epochs() {
        let (tell, news) = sync_channel(8);
        let mut points = Points::of_sums();
        assert_eq!(points.get_summed(7, false), ObservationPoints::UNKNOWN);
        tell.send(News::On { index: 7, numbers: [0, 1] }).unwrap();
        points.hear(Some(&news), 0);
        assert_eq!([false, true].map(|egress| points.get_summed(7, egress)), [0, 1]);
        tell.send(News::Off { index: 7, up_to: 0 }).unwrap();
        points.hear(Some(&news), 0);
        for expected in [0, 0, ObservationPoints::UNKNOWN] {
            assert_eq!(points.get_summed(7, false), expected);
            points.epoch_is_over();
        }
    }

    #[test]
    fn an_index_means_the_link_that_had_it_when_the_event_was_written() {
        let (tell, news) = sync_channel(8);
        let mut points = Points::default();
        let at = |points: &mut Points, position| {
            points.hear(Some(&news), position);
            ([points.get(7, false), points.get(7, true), points.get(8, false)], points.valid_up_to())
        };
        let unknown = ObservationPoints::UNKNOWN;
        assert_eq!(at(&mut points, 0), ([unknown; 3], u64::MAX));
        tell.send(News::On { index: 7, numbers: [0, 1] }).unwrap();
        assert_eq!(at(&mut points, 10), ([0, 1, unknown], u64::MAX));
        tell.send(News::Off { index: 7, up_to: 300 }).unwrap();
        tell.send(News::On { index: 7, numbers: [2, 3] }).unwrap();
        tell.send(News::On { index: 8, numbers: [4, 5] }).unwrap();
        assert_eq!(at(&mut points, 299), ([0, 1, unknown], 300), "the first one's events are unread");
        assert_eq!(at(&mut points, 300), ([2, 3, 4], u64::MAX));
        tell.send(News::Off { index: 8, up_to: 300 }).unwrap();
        assert_eq!(at(&mut points, 300), ([2, 3, unknown], u64::MAX));
    }
}
