//! Who had an address while a record's packets came.
//!
//! All who may have had it are candidates. One candidate is the answer; of several, only what they agree on is said.
//! What has not been heard of counts too: beyond the time up to which the cluster is known, and before the time from
//! which it is, somebody unknown may have had the address, so a candidate must have been certain there to be the answer.

use crate::kubernetes::config::Scope;
use crate::kubernetes::index::{Entry, Index, Place};
use crate::kubernetes::object::Time;
use crate::kubernetes::owner::{Owner, Role};
use crate::kubernetes::tenure::Span;
use mermin_flow::{KubernetesEnd, KubernetesObject, Resolution};
use std::net::IpAddr;
use std::sync::Arc;

/// One end of a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) address: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) port: Option<u16>,
    pub(crate) span: Span,
}

/// What of the cluster's history is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// Before this, owners may be missing.
    pub(crate) since: Time,
    /// Up to this, no pod is missing: see [`crate::kubernetes::evidence::SETTLE`].
    pub(crate) pods_until: Time,
    /// Up to this, no node is missing.
    pub(crate) nodes_until: Time,
    /// Up to this, no service is missing.
    pub(crate) services_until: Time,
    /// Which pods are known at all.
    pub(crate) scope: Scope,
    /// Whether what was known last is said where nothing is known yet.
    pub(crate) last_known: bool,
}

impl Known {
    fn until(&self, role: Role) -> Time {
        match role {
            Role::Pod => self.pods_until,
            Role::Node => self.nodes_until,
            Role::Service => self.services_until,
        }
    }

    /// Whether somebody who is not in the index may have had the address of `entry` at some time of `span`.
    fn may_be_another(&self, entry: &Entry, span: Span) -> bool {
        let early = self.since.checked_sub(1).and_then(|until| span.within(0, until));
        span.last > self.until(entry.owner.role)
            || early.is_some_and(|part| !entry.tenure.is_certain(part))
            || self.may_be_elsewhere(entry) && !entry.tenure.is_certain(span)
    }

    /// Whether a pod of another node, of which nothing is told, can have the place of `entry` before or after it. The
    /// networks that nodes are given don't tell: not everybody who hands out addresses keeps to them.
    fn may_be_elsewhere(&self, entry: &Entry) -> bool {
        self.scope == Scope::Node && entry.owner.role == Role::Pod && entry.place.is_whole()
    }
}

/// Where an end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    Here,
    Elsewhere,
    /// It has several candidates, here and elsewhere.
    Unclear,
    /// Nobody is known to have the address.
    Unknown,
}

/// What a lookup finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) end: KubernetesEnd,
    pub(crate) location: Location,
}

impl Answer {
    const UNKNOWN: Self = Self { end: KubernetesEnd::UNKNOWN, location: Location::Unknown };
}

/// Answers `question`; `here` is this node's name.
pub(crate) fn resolve(index: &Index, question: &Question, known: &Known, here: Option<&str>) -> Answer {
    let place = Place::address(question.address);
    if !place.is_routable() {
        return Answer::UNKNOWN;
    }
    index.read(place, |entries| match entries {
        [] => Answer::UNKNOWN,
        [entry] if entry.place == place => match entry.tenure.possible(question.span) {
            Some(_) => one(index, entry, question, known, here),
            None => Answer::UNKNOWN,
        },
        entries => {
            let candidates = candidates(entries, place, question, known);
            match candidates.as_slice() {
                [] => Answer::UNKNOWN,
                [entry] => one(index, entry, question, known, here),
                several => ambiguous(several, question, known, here),
            }
        }
    })
}

/// Those who may have had the port: a pod before a service, and where nobody surely had it, who may have had the whole
/// address.
fn candidates<'a>(
    entries: &'a [Entry],
    address: Place,
    question: &Question,
    known: &Known,
) -> Vec<&'a Entry> {
    let (whole, ports) = entries.split_at(entries.partition_point(|entry| entry.place <= address));
    let port = question.port.map(|port| Place::port(question.address, question.protocol, port));
    let mut found = Vec::new();
    let has_port = |entry: &&Entry, role| Some(entry.place) == port && entry.owner.role == role;
    for role in [Role::Pod, Role::Service] {
        add_possible(ports.iter().filter(|entry| has_port(entry, role)), question.span, known, &mut found);
        if found.iter().any(|entry| entry.tenure.is_certain(question.span)) {
            return found;
        }
    }
    add_possible(whole.iter(), question.span, known, &mut found);
    found
}

/// Adds those of `rivals`, who can't have the place at the same time, that may have had it in some part of `span`: a
/// part in which another one surely had it doesn't count, unless both did, for all that is known.
fn add_possible<'a>(
    rivals: impl Iterator<Item = &'a Entry> + Clone,
    span: Span,
    known: &Known,
    found: &mut Vec<&'a Entry>,
) {
    for entry in rivals.clone() {
        let Some(part) = entry.tenure.possible(span) else { continue };
        if entry.tenure.is_certain(part) {
            found.push(entry);
            continue;
        }
        let others = rivals.clone().filter(|other| other.id != entry.id).map(|other| &other.tenure);
        let known = known.until(entry.owner.role);
        let beside = |part, other| entry.tenure.possible_beside(other, part, known);
        let part = others.clone().try_fold(part, beside);
        if part.is_some_and(|part| !others.clone().any(|other| other.is_certain(part))) {
            found.push(entry);
        }
    }
}

fn one(index: &Index, entry: &Entry, question: &Question, known: &Known, here: Option<&str>) -> Answer {
    if known.may_be_another(entry, question.span) {
        return ambiguous(&[entry], question, known, here);
    }
    let owner = &entry.owner;
    let service = match owner.role {
        Role::Pod => owner.service(question.protocol, question.port, question.span).cloned(),
        Role::Node => node_port(index, question, known),
        Role::Service => None,
    };
    let end = KubernetesEnd {
        resolution: Resolution::Exact,
        object: Some(Arc::clone(&owner.object)),
        container: owner.containers.at(question.protocol, question.port).cloned(),
        service,
    };
    let location = match owner.role {
        Role::Service => location_of_service(index, entry, question, here),
        _ => location(owner, here),
    };
    Answer { end, location }
}

/// A service is nowhere, but a port of a node's address is where the node is.
fn location_of_service(index: &Index, entry: &Entry, question: &Question, here: Option<&str>) -> Location {
    let address = Place::address(question.address);
    if entry.place == address {
        return Location::Elsewhere;
    }
    let is_here = index.read(address, |entries| {
        let whole = entries.iter().filter(|entry| entry.place == address);
        let mut nodes = whole.filter(|entry| entry.tenure.possible(question.span).is_some());
        nodes.any(|entry| location(&entry.owner, here) == Location::Here)
    });
    if is_here { Location::Here } else { Location::Elsewhere }
}

/// The service that all nodes forward a port to.
fn node_port(index: &Index, question: &Question, known: &Known) -> Option<Arc<KubernetesObject>> {
    let place = Place::node_port(question.protocol, question.port?);
    index.read(place, |entries| {
        let mut found = Vec::new();
        add_possible(entries.iter(), question.span, known, &mut found);
        match found.as_slice() {
            [entry] => Some(Arc::clone(&entry.owner.object)),
            _ => None,
        }
    })
}

fn ambiguous(candidates: &[&Entry], question: &Question, known: &Known, here: Option<&str>) -> Answer {
    let mut locations = candidates.iter().map(|entry| location(&entry.owner, here));
    let first = locations.next().unwrap_or(Location::Unknown);
    let location = if locations.all(|other| other == first) { first } else { Location::Unclear };
    let may_be_another = candidates.iter().any(|entry| known.may_be_another(entry, question.span));
    let said = !may_be_another || known.last_known;
    let object = if said { common(candidates.iter().map(|entry| &*entry.owner)) } else { None };
    let end = KubernetesEnd { resolution: Resolution::Ambiguous, object, container: None, service: None };
    Answer { end, location }
}

fn location(owner: &Owner, here: Option<&str>) -> Location {
    match (owner.node.as_deref(), here) {
        (Some(node), Some(here)) if node == here => Location::Here,
        _ => Location::Elsewhere,
    }
}

/// What all owners agree on.
fn common<'a>(mut owners: impl Iterator<Item = &'a Owner>) -> Option<Arc<KubernetesObject>> {
    let mut common = Arc::clone(&owners.next()?.object);
    for owner in owners {
        let other = &owner.object;
        let attributes = common.attributes.iter().filter(|pair| other.attributes.contains(pair));
        let labels = common.labels.iter().filter(|pair| other.labels.contains(pair));
        common = Arc::new(KubernetesObject {
            attributes: attributes.cloned().collect(),
            labels: labels.cloned().collect(),
        });
    }
    let says_something = !common.attributes.is_empty() || !common.labels.is_empty();
    says_something.then_some(common)
}
