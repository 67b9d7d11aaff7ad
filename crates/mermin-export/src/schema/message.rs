//! A record as a Protobuf message: by hand, in one pass over its attributes. `protoc` reads what comes of it in the tests.

use super::fields::{Form, HOP, field};
use super::proto::json_name;
use crate::attributes::hops::{NamedHop, Said};
use crate::attributes::visit::{Key, Visitor, Walk};
use crate::attributes::{ATTRIBUTES, Kind};
use crate::form::Clock;
use crate::protobuf::sheet::{BLOCK, Sheet};
use crate::protobuf::wire::{length_field, push_bytes, push_varint, varint_field, varint_len};
use mermin_flow::{FlowRecord, ObservationPoints};
use std::sync::Arc;

/// Fields of a map's entry.
const MAP_KEY: u8 = 1;
const MAP_VALUE: u8 = 2;

/// Writes records as messages of the schema.
#[derive(Debug)]
pub(crate) struct Messages {
    walk: Walk,
    fields: Fields,
    sheet: Sheet,
}

impl Messages {
    /// A writer for records whose points are among `points`.
    pub(crate) fn new(points: Arc<ObservationPoints>) -> Self {
        Self { walk: Walk::new(points), fields: Fields::new(), sheet: Sheet::default() }
    }

    /// Writes the record's message; of the one before nothing is left.
    pub(crate) fn write(&mut self, record: &FlowRecord) {
        self.sheet.clear();
        self.walk.over(record, &mut Writer { fields: &self.fields, sheet: &mut self.sheet });
    }

    /// What was written.
    pub(crate) fn written(&self) -> &[u8] {
        self.sheet.written()
    }
}

/// A field's number and wire type, as they are written.
#[derive(Clone, Copy, Debug)]
struct Tag {
    bytes: [u8; 4],
    len: usize,
}

impl Tag {
    fn new(number: u16, form: Form) -> Self {
        let wire_type = match form {
            Form::Uint32 | Form::Uint64 | Form::Sint64 => 0,
            Form::Time => 1,
            Form::Text | Form::Texts | Form::Family | Form::Hops => 2,
        };
        let mut out = Vec::new();
        push_varint(&mut out, u64::from(number) << 3 | wire_type);
        let mut bytes = [0; 4];
        bytes[..out.len()].copy_from_slice(&out);
        Self { bytes, len: out.len() }
    }
}

/// By flags; empty where the line has no list.
type Lists = Box<[Box<[u8]>]>;

/// What is the same in all records.
#[derive(Debug)]
struct Fields {
    /// By line of the attribute table.
    tags: Box<[Tag]>,
    /// Lists of flags, whole: by line, where it has one, and flags.
    flags: Box<[Lists]>,
    /// What the names of a family begin with, and its line.
    families: Box<[(&'static str, usize)]>,
}

impl Fields {
    fn new() -> Self {
        let tag = |line| {
            let field = field(line);
            Tag::new(field.number, field.form)
        };
        let tags: Box<[_]> = (0..ATTRIBUTES.len()).map(tag).collect();
        let lists = ATTRIBUTES.iter().zip(&tags).map(|(attribute, tag)| match attribute.kind {
            Kind::List(names) => (0..=u8::MAX).map(|flags| list(names, flags, *tag)).collect(),
            _ => Box::default(),
        });
        let families = ATTRIBUTES.iter().enumerate().filter(|(line, _)| field(*line).form == Form::Family);
        let families = families.map(|(line, attribute)| (json_name(attribute.name), line)).collect();
        Self { flags: lists.collect(), tags, families }
    }
}

/// A field for each name whose bit is set.
fn list(names: &[&str], flags: u8, tag: Tag) -> Box<[u8]> {
    let mut out = Vec::new();
    for (_, name) in names.iter().enumerate().filter(|(bit, _)| flags >> bit & 1 == 1) {
        out.extend_from_slice(&tag.bytes[..tag.len]);
        push_varint(&mut out, name.len() as u64);
        out.extend_from_slice(name.as_bytes());
    }
    out.into()
}

fn push_hop(out: &mut Vec<u8>, hop: &NamedHop) {
    for (name, said) in hop.fields() {
        let field = HOP.iter().find(|field| field.name == name).expect("a test has every name of a hop");
        match said {
            Said::Text(text) => push_bytes(out, field.number, text.as_bytes()),
            Said::Truth(truth) => out.extend([varint_field(field.number), u8::from(truth)]),
            Said::Count(count) => {
                out.push(varint_field(field.number));
                push_varint(out, count);
            }
        }
    }
}

struct Writer<'a> {
    fields: &'a Fields,
    sheet: &'a mut Sheet,
}

impl Writer<'_> {
    #[inline(always)]
    fn tag(&mut self, line: usize) {
        let tag = &self.fields.tags[line];
        self.sheet.block(&tag.bytes, tag.len);
    }

    /// What a length stands in front of.
    #[inline(always)]
    fn bytes(&mut self, line: usize, value: &[u8]) {
        self.sheet.reserve(BLOCK + value.len());
        self.tag(line);
        self.sheet.varint(value.len() as u64);
        self.sheet.bytes(value);
    }
}

impl Visitor for Writer<'_> {
    fn text(&mut self, key: Key, value: &[u8]) {
        self.bytes(key.index(), value);
    }

    fn time(&mut self, key: Key, time: u64, _: &mut Clock) {
        self.sheet.reserve(BLOCK);
        self.tag(key.index());
        self.sheet.block(&time.to_le_bytes(), 8);
    }

    fn count(&mut self, key: Key, value: u64) {
        self.sheet.reserve(BLOCK);
        self.tag(key.index());
        self.sheet.varint(value);
    }

    fn signed(&mut self, key: Key, value: i64) {
        // Zigzag: the sign in the lowest bit.
        let value = (value << 1 ^ value >> 63).cast_unsigned();
        self.count(key, value);
    }

    fn flags(&mut self, key: Key, flags: u8) {
        let list = &self.fields.flags[key.index()][usize::from(flags)];
        self.sheet.reserve(list.len());
        self.sheet.bytes(list);
    }

    fn hops(&mut self, key: Key, hops: &[NamedHop]) {
        let mut message = Vec::new();
        for hop in hops {
            message.clear();
            push_hop(&mut message, hop);
            self.bytes(key.index(), &message);
        }
    }

    /// An entry of a map.
    fn member(&mut self, end: &'static str, name: &str, value: &str) {
        let rest = |(family, line): &(&str, usize)| {
            let rest = family.strip_prefix(end).and_then(|family| name.strip_prefix(family));
            Some((rest?.strip_prefix('.')?, *line))
        };
        let Some((name, line)) = self.fields.families.iter().find_map(rest) else {
            debug_assert!(false, "{end}{name} is of no family");
            return;
        };
        let part = |text: &str| 1 + varint_len(text.len() as u64) + text.len();
        self.sheet.reserve(2 * BLOCK + name.len() + value.len());
        self.tag(line);
        self.sheet.varint((part(name) + part(value)) as u64);
        for (number, text) in [(MAP_KEY, name), (MAP_VALUE, value)] {
            self.sheet.block(&[length_field(number)], 1);
            self.sheet.varint(text.len() as u64);
            self.sheet.bytes(text.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
