//! Observation points (RFC 7011 section 2): an interface and, live, a hook.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

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

/// All points of a run: sources add, outputs look up. Points are never removed, so a number stays valid.
#[derive(Debug, Default)]
pub struct ObservationPoints {
    inner: RwLock<Interned>,
}

#[derive(Debug, Default)]
struct Interned {
    points: Vec<Arc<ObservationPoint>>,
    numbers: HashMap<Arc<ObservationPoint>, u16>,
}

impl ObservationPoints {
    /// The number of a point: the same for equal points. Past 65 535 points, which no host has, further ones share
    /// the last number, of which nothing is known.
    pub fn number(&self, point: ObservationPoint) -> u16 {
        let mut inner = self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(&number) = inner.numbers.get(&point) {
            return number;
        }
        let Some(number) = u16::try_from(inner.points.len()).ok().filter(|number| *number < u16::MAX) else {
            return u16::MAX;
        };
        let point = Arc::new(point);
        inner.points.push(Arc::clone(&point));
        inner.numbers.insert(point, number);
        number
    }

    /// The point of a number.
    #[must_use]
    pub fn get(&self, number: u16) -> Option<Arc<ObservationPoint>> {
        let inner = self.inner.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        inner.points.get(usize::from(number)).map(Arc::clone)
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
    fn hooks_are_named_as_the_kernel_names_them() {
        assert_eq!([Hook::Ingress, Hook::Egress].map(Hook::name), ["ingress", "egress"]);
    }
}
