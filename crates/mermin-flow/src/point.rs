//! Observation points (RFC 7011 section 2): an interface and, live, a hook.

use crate::layer::{Apart, Layer, SOMEWHERE};
use crate::record::FlowRecord;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Which way a packet crosses an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// Into the host.
    Ingress,
    /// Out of the host.
    Egress,
}

impl Hook {
    /// The name in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// An interface and, where the source knows it, the hook.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct ObservationPoint {
    /// The interface's name; absent where a capture doesn't say.
    pub interface: Option<Arc<str>>,
    /// The kernel's interface index; absent in captures.
    pub index: Option<u32>,
    /// Absent in captures.
    pub hook: Option<Hook>,
}

/// All points of a run: sources add, outputs look up.
///
/// A number is two bytes in every observation and flow, and interfaces come and go for as long as the agent runs. So the
/// number of a point that has gone is given to another one, but only when all 65 535 have been given out, the longest gone
/// first. A flow may outlive that: [`ObservationPoints::of`] then says nothing of it, never a wrong name.
#[derive(Debug, Default)]
pub struct ObservationPoints {
    inner: RwLock<Interned>,
    changes: AtomicU64,
}

#[derive(Debug, Default)]
struct Interned {
    places: Vec<Place>,
    /// Of points that stay.
    numbers: HashMap<Arc<ObservationPoint>, u16>,
    /// Numbers of points that have gone, the longest gone first.
    retired: VecDeque<u16>,
}

#[derive(Clone, Debug)]
struct Place {
    point: Arc<ObservationPoint>,
    /// Of its link; `None` where nothing is known of that.
    layer: Option<Arc<Layer>>,
    /// Flows that began before are of a point that had this number earlier.
    since: u64,
}

impl Interned {
    fn push(&mut self, point: Arc<ObservationPoint>, since: u64) -> Option<u16> {
        let number = u16::try_from(self.places.len()).ok().filter(|number| *number < UNKNOWN)?;
        self.places.push(Place { point, layer: None, since });
        Some(number)
    }
}

/// The number of no point: packets of which nothing more is known than that they were seen.
const UNKNOWN: u16 = u16::MAX;

impl ObservationPoints {
    /// The number that no point has.
    pub const UNKNOWN: u16 = UNKNOWN;

    /// The number of a point that stays for the run: the same for equal points. Past 65 535 points further ones share
    /// [`ObservationPoints::UNKNOWN`].
    pub fn number(&self, point: ObservationPoint) -> u16 {
        let mut inner = self.write();
        if let Some(&number) = inner.numbers.get(&point) {
            return number;
        }
        let point = Arc::new(point);
        let Some(number) = inner.push(Arc::clone(&point), 0) else { return UNKNOWN };
        inner.numbers.insert(point, number);
        number
    }

    /// A number for a point that may go: one of its own, whatever other points are called. `now` is the present on the
    /// clock of the observations, in nanoseconds since 1970. `None`: 65 535 points are there already.
    pub fn register(&self, point: ObservationPoint, now: u64) -> Option<u16> {
        let mut inner = self.write();
        let point = Arc::new(point);
        if let Some(number) = inner.push(Arc::clone(&point), 0) {
            return Some(number);
        }
        let number = inner.retired.pop_front()?;
        inner.places[usize::from(number)] = Place { point, layer: None, since: now };
        self.changes.fetch_add(1, Ordering::Release);
        Some(number)
    }

    /// A registered point has gone. Its number still has its name, for flows that are in the tables.
    pub fn retire(&self, number: u16) {
        self.write().retired.push_back(number);
    }

    /// The interface of a registered point has got another name: it is that of all its flows from now on, so that a flow
    /// whose interface is renamed goes on.
    pub fn rename(&self, number: u16, name: &Arc<str>) {
        let mut inner = self.write();
        if let Some(place) = inner.places.get_mut(usize::from(number)) {
            let point = ObservationPoint { interface: Some(Arc::clone(name)), ..(*place.point).clone() };
            place.point = Arc::new(point);
            self.changes.fetch_add(1, Ordering::Release);
        }
    }

    /// Where the link of a point lies, from now on.
    pub fn lies(&self, number: u16, layer: &Arc<Layer>) {
        if let Some(place) = self.write().places.get_mut(usize::from(number)) {
            place.layer = Some(Arc::clone(layer));
        }
    }

    /// The place of a point on a packet's way through the host: lower ones come first.
    #[must_use]
    pub fn order(&self, number: u16) -> u8 {
        let inner = self.read();
        let place = inner.places.get(usize::from(number));
        place.and_then(|place| Some(place.layer.as_ref()?.order(place.point.hook?))).unwrap_or(SOMEWHERE)
    }

    /// Whether what two points see of a direction are different packets, unless some come back.
    pub(crate) fn are_apart(&self, one: u16, other: u16) -> Apart {
        let inner = self.read();
        let place = |number: u16| {
            let place = inner.places.get(usize::from(number))?;
            Some((place.layer.as_deref()?, place.point.index?, place.point.hook?))
        };
        match (place(one), place(other)) {
            (Some((layer, index, hook)), Some((other, other_index, other_hook)))
                if hook == other_hook && layer.is_apart_from(index, other, other_index) =>
            {
                if layer.is_bonded_with(other) { Apart::Ports } else { Apart::Links }
            }
            _ => Apart::No,
        }
    }

    /// The point that has this number now.
    #[must_use]
    pub fn get(&self, number: u16) -> Option<Arc<ObservationPoint>> {
        self.at(number, u64::MAX)
    }

    /// The point of a record's flow.
    #[must_use]
    pub fn of(&self, record: &FlowRecord) -> Option<Arc<ObservationPoint>> {
        self.at(record.point, record.start_time)
    }

    /// The point that had this number when a flow began, ns since 1970.
    #[must_use]
    pub fn at(&self, number: u16, start: u64) -> Option<Arc<ObservationPoint>> {
        let inner = self.read();
        let place = inner.places.get(usize::from(number)).filter(|place| place.since <= start)?;
        Some(Arc::clone(&place.point))
    }

    /// The point that has this number now, and the start of its first flow: flows that began earlier are not its own.
    #[must_use]
    pub fn with_since(&self, number: u16) -> Option<(Arc<ObservationPoint>, u64)> {
        let inner = self.read();
        inner.places.get(usize::from(number)).map(|place| (Arc::clone(&place.point), place.since))
    }

    /// Grows when a number's point is renamed or replaced: what was remembered of any is to be asked for again.
    #[inline]
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// How many numbers were given out.
    #[must_use]
    pub fn count(&self) -> usize {
        self.read().places.len()
    }

    /// All of them by number, as they are called now.
    pub(crate) fn all(&self) -> Vec<Arc<ObservationPoint>> {
        self.read().places.iter().map(|place| Arc::clone(&place.point)).collect()
    }

    /// The number that an earlier run's point has in this one: that of the latest point of the same interface and hook. One that is
    /// there no more gets a number that names it, and is as one that has gone.
    pub(crate) fn again(&self, point: &ObservationPoint) -> u16 {
        let is_same = |place: &Place| (place.point.index, place.point.hook) == (point.index, point.hook);
        if let Some(number) = self.read().places.iter().rposition(is_same) {
            return u16::try_from(number).unwrap_or(UNKNOWN);
        }
        let number = self.register(point.clone(), 0);
        if let Some(number) = number {
            self.retire(number);
        }
        number.unwrap_or(UNKNOWN)
    }

    fn read(&self) -> RwLockReadGuard<'_, Interned> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Interned> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_points_share_a_number_and_numbers_stay() {
        let points = ObservationPoints::default();
        let point = |interface: &str, hook| ObservationPoint {
            interface: Some(interface.into()),
            index: Some(3),
            hook: Some(hook),
        };
        let all = [
            point("eth0", Hook::Ingress),
            point("eth0", Hook::Egress),
            point("eth1", Hook::Ingress),
            ObservationPoint::default(),
        ];
        for _ in 0..2 {
            assert_eq!(all.clone().map(|point| points.number(point)), [0, 1, 2, 3]);
        }
        for (number, point) in all.iter().enumerate() {
            assert_eq!(points.get(number as u16).as_deref(), Some(point));
        }
        assert_eq!(points.get(4), None);
    }

    #[test]
    fn what_has_no_number_of_its_own_has_no_name() {
        let points = ObservationPoints::default();
        let number =
            |index| points.number(ObservationPoint { index: Some(index), ..ObservationPoint::default() });
        for index in 0..70_000 {
            assert_eq!(u32::from(number(index)), index.min(65_535));
        }
        assert_eq!(points.get(65_534).unwrap().index, Some(65_534));
        assert_eq!(points.get(65_535), None);
        assert_eq!(number(7), 7);
    }

    #[test]
    fn a_number_is_given_again_only_when_all_are_out_and_never_names_an_older_flow() {
        let points = ObservationPoints::default();
        let point = |index| ObservationPoint { index: Some(index), ..ObservationPoint::default() };
        // The same interface again is another point.
        assert_eq!([points.register(point(7), 1), points.register(point(7), 2)], [Some(0), Some(1)]);
        points.retire(1);
        points.retire(0);
        for number in 2..UNKNOWN {
            assert_eq!(points.register(point(u32::from(number)), 3), Some(number));
        }
        let before = points.changes();
        assert_eq!(points.get(1).unwrap().index, Some(7), "gone, and still named");
        assert_eq!([100, 200, 300].map(|now| points.register(point(9), now)), [Some(1), Some(0), None]);
        assert_eq!(points.changes(), before + 2);
        let named = |number, start| points.at(number, start).map(|point| point.index);
        assert_eq!([named(1, 99), named(1, 100), named(0, 199)], [None, Some(Some(9)), None]);
        assert_eq!((points.with_since(0).unwrap().1, named(2, 0)), (200, Some(Some(2))));
    }

    #[test]
    fn a_renamed_interface_keeps_its_number() {
        let points = ObservationPoints::default();
        let eth0 =
            ObservationPoint { interface: Some("eth0".into()), index: Some(2), hook: Some(Hook::Egress) };
        let number = points.register(eth0.clone(), 5).unwrap();
        points.rename(number, &"wan".into());
        points.rename(number + 1, &"none".into());
        let renamed = ObservationPoint { interface: Some("wan".into()), ..eth0 };
        assert_eq!((points.get(number).as_deref(), points.changes()), (Some(&renamed), 1));
    }

    #[test]
    fn hooks_are_named_as_the_kernel_names_them() {
        assert_eq!([Hook::Ingress, Hook::Egress].map(Hook::name), ["ingress", "egress"]);
    }
}
