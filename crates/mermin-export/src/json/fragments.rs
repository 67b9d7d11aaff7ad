//! Parts of a record that have few values, made once.

use crate::form::{Dialect, push_foreign, push_number};
use crate::protocols::keyword;
use mermin_flow::{KubernetesAttribute, ObservationPoint, ObservationPoints};
use std::fmt;
use std::sync::Arc;

/// In the order of the bits of the TCP header's flags, least first.
pub(crate) const FLAG_NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

pub(super) struct Fragments {
    /// `,"network.transport":"tcp","network.transport.number":6` by protocol number.
    protocols: Box<[Box<[u8]>]>,
    /// `["SYN","ACK"]` by flags.
    flags: Box<[Box<[u8]>]>,
    /// `,"source.k8s.pod.name":"` by side (source first) and attribute.
    kubernetes: [Box<[Box<[u8]>]>; 2],
    /// By point; filled as points come up, emptied when one of them changes.
    points: Vec<Option<Point>>,
    changes: u64,
    names: Arc<ObservationPoints>,
}

struct Point {
    /// `,"network.interface.name":"eth0",…`
    text: Box<[u8]>,
    /// Flows that began before are of another point.
    since: u64,
}

impl fmt::Debug for Fragments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fragments").finish_non_exhaustive()
    }
}

impl Fragments {
    pub(super) fn new(names: Arc<ObservationPoints>) -> Self {
        Self {
            protocols: (0..=u8::MAX).map(protocol).collect(),
            flags: (0..=u8::MAX).map(flags).collect(),
            kubernetes: ["source", "destination"].map(kubernetes),
            points: Vec::new(),
            changes: 0,
            names,
        }
    }

    /// All observation points.
    pub(super) fn points(&self) -> &ObservationPoints {
        &self.names
    }

    #[inline]
    pub(super) fn protocol(&self, number: u8) -> &[u8] {
        &self.protocols[usize::from(number)]
    }

    #[inline]
    pub(super) fn flags(&self, flags: u8) -> &[u8] {
        &self.flags[usize::from(flags)]
    }

    #[inline]
    pub(super) fn kubernetes(&self, side: usize, attribute: KubernetesAttribute) -> &[u8] {
        &self.kubernetes[side][attribute as usize]
    }

    /// Of a flow that began at `start`. A point that isn't known (yet, or any more) says nothing.
    #[inline]
    pub(super) fn point(&mut self, number: u16, start: u64) -> &[u8] {
        let place = usize::from(number);
        let changes = self.names.changes();
        if changes != self.changes {
            self.points.clear();
            self.changes = changes;
        }
        if self.points.get(place).is_none_or(Option::is_none) {
            self.learn(number);
        }
        let known = self.points.get(place).and_then(Option::as_ref);
        known.filter(|point| point.since <= start).map(|point| &*point.text).unwrap_or_default()
    }

    #[cold]
    fn learn(&mut self, number: u16) {
        let Some((known, since)) = self.names.with_since(number) else { return };
        let place = usize::from(number);
        if self.points.len() <= place {
            self.points.resize_with(place + 1, || None);
        }
        self.points[place] = Some(Point { text: point(&known), since });
    }
}

fn protocol(number: u8) -> Box<[u8]> {
    let number_only = format!(",\"network.transport.number\":{number}");
    match keyword(number) {
        Some(keyword) => format!(",\"network.transport\":\"{keyword}\"{number_only}"),
        None => number_only,
    }
    .into_bytes()
    .into()
}

fn kubernetes(side: &str) -> Box<[Box<[u8]>]> {
    let key = |attribute: &KubernetesAttribute| format!(",\"{side}.{}\":\"", attribute.name()).into_bytes();
    KubernetesAttribute::ALL.iter().map(|attribute| key(attribute).into()).collect()
}

fn flags(flags: u8) -> Box<[u8]> {
    let names: Vec<String> =
        (0..8).filter(|bit| flags >> bit & 1 == 1).map(|bit| format!("\"{}\"", FLAG_NAMES[bit])).collect();
    format!("[{}]", names.join(",")).into_bytes().into()
}

fn point(point: &ObservationPoint) -> Box<[u8]> {
    let mut out = Vec::new();
    if let Some(interface) = &point.interface {
        out.extend_from_slice(b",\"network.interface.name\":\"");
        push_foreign(&mut out, interface, Dialect::Json);
        out.push(b'"');
    }
    if let Some(index) = point.index {
        out.extend_from_slice(b",\"network.interface.index\":");
        push_number(&mut out, u64::from(index));
    }
    if let Some(hook) = point.hook {
        out.extend_from_slice(b",\"network.interface.hook\":\"");
        out.extend_from_slice(hook.name().as_bytes());
        out.push(b'"');
    }
    out.into()
}
