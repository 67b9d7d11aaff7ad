//! A transport session (RFC 7011 section 2): which templates were sent in it, and what its messages are numbered by.
//!
//! A message is made, then either stands ([`Session::commit`]) or is taken back ([`Session::take_back`]): what of it was
//! announced waits to be announced again, and the next message has its number.

use super::options::{Options, own_elements, push_selector, push_type};
use super::shape::Shape;
use super::window::Window;
use super::wire::{push_u16, push_u32, put_u16};
use std::collections::{HashMap, HashSet, VecDeque};

/// The id of the first template of flows.
const FIRST_ID: u16 = 300;
/// Templates of flows that a session has at most; for the next one a session is begun.
pub(crate) const TEMPLATES_MAX: usize = 1_024;

/// What messages are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Ipfix,
    NetFlow9,
}

/// What does not change over sessions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) version: Version,
    pub(crate) domain: u32,
    pub(crate) enterprise: u32,
    /// When the system was started, milliseconds since 1970.
    pub(crate) booted: u64,
}

/// What is told beside flows.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Template(Shape),
    OptionsTemplate(Options),
    OptionsRecord(Options, Vec<u8>),
}

/// What a message takes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Made {
    /// Data records of flows, from the window's unsent ones.
    pub(crate) items: usize,
    /// Data records of flows that are in the message: fewer, where some are given up.
    pub(crate) records: u64,
    /// The next item asks for more templates than a session has.
    pub(crate) exhausted: bool,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Session {
    identity: Identity,
    /// IPFIX: data records sent; NetFlow version 9: messages.
    sequence: u32,
    /// The id of the first of `templates`.
    first_id: u16,
    /// Templates of flows by their shapes, in the order of their ids.
    templates: Vec<Shape>,
    ids: HashMap<Shape, u16>,
    last: Option<(Shape, u16)>,
    /// Those whose templates no message has room for.
    too_large: HashSet<Shape>,
    /// To be told before any more flows.
    pending: VecDeque<Piece>,
    /// What of it the present message has.
    told: Vec<Piece>,
    /// The open set of the present message: its id and where it begins.
    set: Option<(u16, usize)>,
    /// Records in the present message, and data records of these.
    records: (u16, u32),
    /// Draws that were told of.
    selectors: u8,
}

/// The room that a set's header takes.
const SET_HEADER: usize = 4;

impl Session {
    /// One in which nothing was sent.
    pub(crate) fn new(identity: Identity) -> Self {
        Self::begin(identity, 0, FIRST_ID)
    }

    /// The next one, of the same agent to a collector that may take both for one: many tell exporters apart by address and
    /// observation domain alone. An id gets no second meaning before all have had one; NetFlow version 9 numbers messages
    /// of an exporter, not of a session.
    pub(crate) fn successor(&self) -> Self {
        let sequence = match self.identity.version {
            Version::Ipfix => 0,
            Version::NetFlow9 => self.sequence,
        };
        let next = usize::from(self.first_id) + self.templates.len();
        let has_room = next + TEMPLATES_MAX <= usize::from(u16::MAX);
        Self::begin(self.identity, sequence, if has_room { next as u16 } else { FIRST_ID })
    }

    fn begin(identity: Identity, sequence: u32, first_id: u16) -> Self {
        let mut session = Self {
            identity,
            sequence,
            first_id,
            templates: Vec::new(),
            ids: HashMap::new(),
            last: None,
            too_large: HashSet::new(),
            pending: VecDeque::new(),
            told: Vec::new(),
            set: None,
            records: (0, 0),
            selectors: 0,
        };
        session.announce();
        session
    }

    /// All templates and type information are to be sent (again).
    pub(crate) fn announce(&mut self) {
        self.pending.clear();
        self.too_large.clear();
        let options = match self.identity.version {
            Version::Ipfix => &Options::ALL[..],
            Version::NetFlow9 => &[Options::Sent],
        };
        self.pending.extend(options.iter().map(|options| Piece::OptionsTemplate(*options)));
        self.pending.extend(self.templates.iter().map(|shape| Piece::Template(*shape)));
        if self.identity.version == Version::Ipfix {
            for field in own_elements() {
                self.tell(Options::Types, |enterprise, out| push_type(field, enterprise, out));
            }
        }
        let told = std::mem::take(&mut self.selectors);
        self.tell_of_draws(u32::from(told));
    }

    /// Tells of draws of one in so many, a set of powers of two.
    pub(crate) fn tell_of_draws(&mut self, rates: u32) {
        for exponent in 1..8 {
            let one_in = 1_u32 << exponent;
            if rates & one_in != 0 && self.selectors & one_in as u8 == 0 {
                self.selectors |= one_in as u8;
                self.tell(Options::Selector, |_, out| push_selector(one_in, out));
            }
        }
    }

    /// Adds an options record, where the version has such.
    pub(crate) fn tell(&mut self, options: Options, push: impl FnOnce(u32, &mut Vec<u8>)) {
        if self.identity.version == Version::NetFlow9 && options != Options::Sent {
            return;
        }
        if matches!(options, Options::Sent | Options::NotSent | Options::Ledger) {
            // The latest says all that those before it would.
            self.pending.retain(|piece| !matches!(piece, Piece::OptionsRecord(of, _) if *of == options));
        }
        let mut record = Vec::new();
        push(self.identity.enterprise, &mut record);
        self.pending.push_back(Piece::OptionsRecord(options, record));
    }

    /// Whether something is to be told that isn't about flows.
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    const fn header(&self) -> usize {
        match self.identity.version {
            Version::Ipfix => 16,
            Version::NetFlow9 => 20,
        }
    }

    const fn template_set(&self) -> u16 {
        match self.identity.version {
            Version::Ipfix => 2,
            Version::NetFlow9 => 0,
        }
    }

    const fn options_template_set(&self) -> u16 {
        match self.identity.version {
            Version::Ipfix => 3,
            Version::NetFlow9 => 1,
        }
    }

    /// Makes a message of at most `limit` octets: first what is to be told, then records of `window` that are not sent. `now`:
    /// what the wall clock shows, milliseconds since 1970. What is too large for a message by itself is given up as `too_large`.
    pub(crate) fn make(
        &mut self,
        window: &mut Window,
        limit: usize,
        now: u64,
        too_large: &'static str,
        out: &mut Vec<u8>,
    ) -> Made {
        out.clear();
        self.told.clear();
        self.set = None;
        self.records = (0, 0);
        self.push_header(now, out);
        let mut made = Made::default();
        // Type information goes without flows: nfcapd does not count its records, and would miss those behind it.
        let is_type = |piece: &Piece| matches!(piece, Piece::OptionsRecord(Options::Types, _));
        if self.push_pending(limit, out) && !self.told.iter().any(is_type) {
            self.push_flows(window, limit, too_large, &mut made, out);
        }
        self.close_set(out);
        let length = out.len();
        match self.identity.version {
            Version::Ipfix => put_u16(out, 2, u16::try_from(length).expect("no limit is above 65 535")),
            Version::NetFlow9 => put_u16(out, 2, self.records.0),
        }
        made
    }

    /// Whether the present message holds anything.
    pub(crate) const fn made_something(&self) -> bool {
        self.records.0 > 0
    }

    fn push_header(&self, now: u64, out: &mut Vec<u8>) {
        let seconds = (now / 1_000) as u32;
        match self.identity.version {
            Version::Ipfix => {
                push_u16(out, 10);
                push_u16(out, 0);
                push_u32(out, seconds);
            }
            Version::NetFlow9 => {
                push_u16(out, 9);
                push_u16(out, 0);
                push_u32(out, now.saturating_sub(self.identity.booted) as u32);
                push_u32(out, seconds);
            }
        }
        push_u32(out, self.sequence);
        push_u32(out, self.identity.domain);
    }

    /// Whether all of it found room.
    fn push_pending(&mut self, limit: usize, out: &mut Vec<u8>) -> bool {
        let (mut piece_octets, enterprise) = (Vec::new(), self.identity.enterprise);
        while let Some(piece) = self.pending.pop_front() {
            piece_octets.clear();
            let set = match &piece {
                Piece::Template(shape) => {
                    let id = self.ids[shape];
                    shape.push_template(id, self.enterprise(), &mut piece_octets);
                    self.template_set()
                }
                Piece::OptionsTemplate(options) => {
                    match self.identity.version {
                        Version::Ipfix => options.push_template(enterprise, &mut piece_octets),
                        Version::NetFlow9 => Options::push_template_9(&mut piece_octets),
                    }
                    self.options_template_set()
                }
                Piece::OptionsRecord(options, record) => {
                    piece_octets.extend_from_slice(record);
                    options.id()
                }
            };
            if self.push_record(set, &piece_octets, limit, out) {
                self.told.push(piece);
                continue;
            }
            if self.records.0 > 0 {
                self.pending.push_front(piece);
                return false;
            }
            // It is too large for a message by itself: flows of that shape can't be told.
            if let Piece::Template(shape) = piece {
                self.too_large.insert(shape);
            }
        }
        true
    }

    const fn enterprise(&self) -> Option<u32> {
        match self.identity.version {
            Version::Ipfix => Some(self.identity.enterprise),
            Version::NetFlow9 => None,
        }
    }

    fn push_flows(
        &mut self,
        window: &mut Window,
        limit: usize,
        too_large: &'static str,
        made: &mut Made,
        out: &mut Vec<u8>,
    ) {
        let mut octets = Vec::new();
        while let Some(item) = window.unsent(made.items) {
            if item.is_given_up() {
                made.items += 1;
                continue;
            }
            if self.header() + SET_HEADER + item.length + self.padding(item.length) > limit {
                window.give_up(made.items, too_large);
                made.items += 1;
                continue;
            }
            let Some(id) = self.id(item.shape) else {
                made.exhausted = true;
                return;
            };
            // The template of a new shape.
            if !self.push_pending(limit, out) {
                return;
            }
            if self.too_large.contains(&item.shape) {
                window.give_up(made.items, too_large);
                made.items += 1;
                continue;
            }
            octets.clear();
            window.copy(&item, &mut octets);
            if !self.push_record(id, &octets, limit, out) {
                return;
            }
            made.items += 1;
            made.records += 1;
        }
    }

    /// The id of a shape's template, which is given to it when it has none.
    fn id(&mut self, shape: Shape) -> Option<u16> {
        if let Some((last, id)) = self.last
            && last == shape
        {
            return Some(id);
        }
        let id = match self.ids.get(&shape) {
            Some(id) => *id,
            None if self.templates.len() == TEMPLATES_MAX => return None,
            None => {
                let id = self.first_id + self.templates.len() as u16;
                self.templates.push(shape);
                self.ids.insert(shape, id);
                self.pending.push_back(Piece::Template(shape));
                id
            }
        };
        self.last = Some((shape, id));
        Some(id)
    }

    const fn padding(&self, length: usize) -> usize {
        match self.identity.version {
            Version::Ipfix => 0,
            Version::NetFlow9 => length.next_multiple_of(4) - length,
        }
    }

    /// Appends a record to the set with this id, which is opened where another one is. Whether there was room.
    fn push_record(&mut self, set: u16, record: &[u8], limit: usize, out: &mut Vec<u8>) -> bool {
        let open = self.set.filter(|(id, _)| *id == set);
        let in_set = open.map_or(0, |(_, start)| out.len() - start);
        let before = match (open, self.set) {
            (Some(_), _) | (None, None) => out.len(),
            // The set before is padded when it is closed.
            (None, Some((_, start))) => out.len() + self.padding(out.len() - start),
        };
        let header = if open.is_some() { 0 } else { SET_HEADER };
        let padding = self.padding(in_set + header + record.len());
        if before + header + record.len() + padding > limit {
            return false;
        }
        if open.is_none() {
            self.close_set(out);
            self.set = Some((set, out.len()));
            push_u16(out, set);
            push_u16(out, 0);
        }
        out.extend_from_slice(record);
        self.records.0 += 1;
        self.records.1 += u32::from(set >= 256);
        true
    }

    fn close_set(&mut self, out: &mut Vec<u8>) {
        let Some((_, start)) = self.set.take() else { return };
        let padded = out.len() + self.padding(out.len() - start);
        out.resize(padded, 0);
        put_u16(out, start + 2, (padded - start) as u16);
    }

    /// The message that was made is sent.
    pub(crate) fn commit(&mut self) {
        self.told.clear();
        let numbers = match self.identity.version {
            Version::Ipfix => self.records.1,
            Version::NetFlow9 => 1,
        };
        self.sequence = self.sequence.wrapping_add(numbers);
    }

    /// The message that was made is not sent: what it told is told by a later one.
    pub(crate) fn take_back(&mut self) {
        while let Some(piece) = self.told.pop() {
            self.pending.push_front(piece);
        }
    }

    /// The number of the next message.
    #[cfg(test)]
    pub(crate) const fn sequence(&self) -> u32 {
        self.sequence
    }

    /// As if so many were sent.
    #[cfg(test)]
    pub(crate) const fn set_sequence(&mut self, sequence: u32) {
        self.sequence = sequence;
    }
}
