//! What a source does to be on an interface and off it again, and the book of where it is.

use super::layers::Layers;
use super::view::{LinkOn, Links, Technology};
use crate::interfaces::{Device, Interface};
use mermin_flow::{Hook, ObservationPoint, ObservationPoints};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::Arc;
use std::time::SystemTime;

/// Numbers of an interface's observation points: ingress, egress.
pub(crate) type Numbers = [u16; 2];

/// A source's way to be on interfaces.
pub(crate) trait Taps: Send + 'static {
    /// What is on one interface.
    type Tap: Send;
    /// Why there can be none.
    type Error: Error + Send + 'static;

    /// Goes on an interface, on both hooks or on none. The reader knows `numbers` before the first packet can come.
    fn put(&mut self, interface: &Interface, numbers: Numbers) -> Result<Self::Tap, Self::Error>;

    /// Goes off. With `gone` the interface isn't there any more. What was seen before is still delivered.
    fn take_off(&mut self, index: u32, tap: Self::Tap, gone: bool);

    /// The interface has got another name.
    fn renamed(&mut self, _: &Interface) {}

    /// Whether a tap is on the interface that has this index now. An interface that can't be asked counts as yes.
    fn is_on(&mut self, tap: &Self::Tap, index: u32) -> bool;

    /// Whether others have come that may hide packets from the tap, and another one would not mind.
    fn is_hidden(&mut self, tap: &Self::Tap, index: u32) -> bool;

    /// How a tap is on.
    fn technology(&self, tap: &Self::Tap) -> Technology;

    /// Whether an error says that the interface has gone.
    fn has_gone(error: &Self::Error) -> bool;

    /// The present on the clock of the observations, ns since 1970.
    fn now(&self) -> u64;

    /// The interfaces of the start are done: from now on a thread puts those that come.
    fn begin(&mut self, links: &Arc<Links>);
}

/// Where a source is.
pub(crate) struct Put<T: Taps> {
    taps: T,
    points: Arc<ObservationPoints>,
    on: BTreeMap<u32, On<T::Tap>>,
    pub(super) links: Arc<Links>,
    pub(super) layers: Layers,
}

struct On<T> {
    interface: Interface,
    numbers: Numbers,
    tap: T,
}

/// Why an interface is not captured on.
#[derive(Debug)]
pub(crate) enum NotPut<E> {
    /// It has gone meanwhile.
    Gone(E),
    /// It refuses.
    Refused(E),
    /// All observation points are in use.
    NoNumber,
}

impl<T: Taps> Put<T> {
    pub(super) fn new(taps: T, points: Arc<ObservationPoints>, links: Arc<Links>) -> Self {
        Self { taps, points, on: BTreeMap::new(), links, layers: Layers::default() }
    }

    /// Goes on an interface.
    pub(super) fn put(&mut self, interface: Interface) -> Result<Technology, NotPut<T::Error>> {
        let Some(numbers) = self.register(&interface) else {
            self.links.view().counts.without_number += 1;
            return Err(NotPut::NoNumber);
        };
        match self.taps.put(&interface, numbers) {
            Ok(tap) => Ok(self.is_now_on(interface, numbers, tap)),
            Err(error) => Err(self.not_put(numbers, error)),
        }
    }

    fn not_put(&self, numbers: Numbers, error: T::Error) -> NotPut<T::Error> {
        numbers.iter().for_each(|number| self.points.retire(*number));
        if T::has_gone(&error) {
            return NotPut::Gone(error);
        }
        self.links.view().counts.failed += 1;
        NotPut::Refused(error)
    }

    fn is_now_on(&mut self, interface: Interface, numbers: Numbers, tap: T::Tap) -> Technology {
        let technology = self.taps.technology(&tap);
        let mut view = self.links.view();
        view.counts.attached += 1;
        let shown = LinkOn {
            name: Arc::clone(&interface.name),
            index: interface.index,
            technology,
            since: SystemTime::now(),
            up: interface.up,
        };
        view.on.insert(interface.index, shown);
        drop(view);
        self.on.insert(interface.index, On { interface, numbers, tap });
        technology
    }

    fn register(&self, interface: &Interface) -> Option<Numbers> {
        let now = self.taps.now();
        let number = |hook| {
            let point = ObservationPoint {
                interface: Some(Arc::clone(&interface.name)),
                index: Some(interface.index),
                hook: Some(hook),
            };
            self.points.register(point, now)
        };
        let ingress = number(Hook::Ingress)?;
        let egress = number(Hook::Egress);
        if egress.is_none() {
            self.points.retire(ingress);
        }
        let numbers = [ingress, egress?];
        if let Some(layer) = self.layers.of(interface.index) {
            numbers.iter().for_each(|number| self.points.lies(*number, layer));
        }
        Some(numbers)
    }

    /// Tells the points of all interfaces where their links lie, as far as that has changed.
    pub(super) fn settle_layers(&mut self) {
        let Self { layers, on, points, .. } = self;
        layers.settle(|index, layer| {
            let numbers = on.get(&index).map(|on| on.numbers);
            numbers.into_iter().flatten().for_each(|number| points.lies(number, layer));
        });
    }

    /// Goes off an interface, if it is on it.
    pub(super) fn take_off(&mut self, index: u32, gone: bool) {
        let Some(on) = self.on.remove(&index) else { return };
        self.taps.take_off(index, on.tap, gone);
        on.numbers.iter().for_each(|number| self.points.retire(*number));
        let mut view = self.links.view();
        view.on.remove(&index);
        view.counts.detached += 1;
    }

    /// Goes off all.
    pub(super) fn take_off_all(&mut self) {
        for index in self.indexes() {
            self.take_off(index, false);
        }
    }

    /// What has become of an interface that it is on: another name, up or down.
    pub(super) fn note(&mut self, device: &Device) {
        let Some(on) = self.on.get_mut(&device.index) else { return };
        if on.interface.name != device.name {
            on.interface.name = Arc::clone(&device.name);
            on.numbers.iter().for_each(|number| self.points.rename(*number, &device.name));
            self.taps.renamed(&on.interface);
        }
        if let Some(shown) = self.links.view().on.get_mut(&device.index) {
            shown.name = Arc::clone(&device.name);
            shown.up = device.up;
        }
    }

    /// Interfaces where others have taken the tap off or may hide packets from it. The kernel tells of filters that are
    /// taken off (`unfiltered`), and asking for them takes 15 µs a hook; the rest is asked each time.
    pub(super) fn disturbed(&mut self, unfiltered: &BTreeSet<u32>) -> Vec<u32> {
        let taps = &mut self.taps;
        let disturbed = |(index, on): (&u32, &On<T::Tap>)| {
            let asked = taps.technology(&on.tap) != Technology::Clsact || unfiltered.contains(index);
            (asked && !taps.is_on(&on.tap, *index) || taps.is_hidden(&on.tap, *index)).then_some(*index)
        };
        self.on.iter().filter_map(disturbed).collect()
    }

    /// Goes on an interface anew, if it is on it. The interface keeps its observation points, so flows go on. First off,
    /// then on: for a moment nothing is seen, but nothing is ever counted twice. The error comes with the interface's
    /// name.
    pub(super) fn renew(&mut self, index: u32) -> Result<(), (Arc<str>, NotPut<T::Error>)> {
        let Some(On { interface, numbers, tap }) = self.on.remove(&index) else { return Ok(()) };
        let (was_on, before) = (self.taps.is_on(&tap, index), self.taps.technology(&tap));
        self.taps.take_off(index, tap, false);
        match self.taps.put(&interface, numbers) {
            Ok(tap) => {
                let technology = self.taps.technology(&tap);
                let mut view = self.links.view();
                let counts = &mut view.counts;
                match was_on {
                    false => counts.restored += 1,
                    true if technology == before => counts.failed += 1,
                    true => counts.moved += 1,
                }
                if let Some(shown) = view.on.get_mut(&index) {
                    shown.technology = technology;
                }
                drop(view);
                if !was_on {
                    tracing::warn!(
                        "somebody else had taken the programs off {}: they are on again, and what crossed it meanwhile \
                         was not seen",
                        interface.name
                    );
                }
                self.on.insert(index, On { interface, numbers, tap });
                Ok(())
            }
            Err(error) => {
                let mut view = self.links.view();
                view.on.remove(&index);
                view.counts.detached += 1;
                drop(view);
                Err((Arc::clone(&interface.name), self.not_put(numbers, error)))
            }
        }
    }

    pub(super) fn is_on(&self, index: u32) -> bool {
        self.on.contains_key(&index)
    }

    /// Whether it is on the interface that has this index now, not on an earlier one.
    pub(super) fn is_really_on(&mut self, index: u32) -> bool {
        self.on.get(&index).is_some_and(|on| self.taps.is_on(&on.tap, index))
    }

    pub(super) fn indexes(&self) -> Vec<u32> {
        self.on.keys().copied().collect()
    }

    pub(super) fn begin(&mut self) {
        self.taps.begin(&self.links);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.on.is_empty()
    }
}
