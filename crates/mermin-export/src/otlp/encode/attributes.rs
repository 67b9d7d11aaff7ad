//! Attributes: `KeyValue` messages, one after the other.

use crate::attributes::ATTRIBUTES;
use crate::attributes::hops::{NamedHop, Said};
use crate::attributes::visit::{Key, Visitor};
use crate::json::FLAG_NAMES;
use crate::protobuf::sheet::{BLOCK, Sheet};
use crate::protobuf::wire::{
    length_field, push_bytes, push_message, push_varint, short_varint, varint_field, varint_len,
};

/// Fields of `KeyValue`, `AnyValue` and `ArrayValue`.
const KEY: u8 = 1;
const VALUE: u8 = 2;
const STRING: u8 = 1;
const BOOL: u8 = 2;
const INT: u8 = 3;
const ARRAY: u8 = 5;
const KEYS_AND_VALUES: u8 = 6;
const VALUES: u8 = 1;

/// Lengths below this take one byte.
const SHORT: usize = 128;

/// From here on a varint takes more than six bytes.
const VARINT_OF_SIX: u64 = 1 << 42;

/// What is the same in all records: keys, and lists of flags.
#[derive(Debug)]
pub(crate) struct AttributeKeys {
    /// The field that attributes are.
    field: u8,
    /// By line of the table.
    keys: Box<[Beginning]>,
    /// The whole `AnyValue`, by flags.
    flags: Box<[Box<[u8]>]>,
}

/// The beginning of an attribute, up to the length of its value: the field, a length that is filled in, the key, the
/// field `value`.
#[derive(Debug)]
struct Beginning {
    block: [u8; BLOCK],
    len: usize,
}

/// Where the length is filled in.
const LENGTH: usize = 1;

impl Beginning {
    fn new(field: u8, name: &str) -> Self {
        let mut bytes = vec![field, 0];
        push_bytes(&mut bytes, KEY, name.as_bytes());
        bytes.push(length_field(VALUE));
        let mut block = [0; BLOCK];
        block[..bytes.len()].copy_from_slice(&bytes);
        Self { block, len: bytes.len() }
    }

    /// The key and what is around it, without field and length.
    fn content(&self) -> &[u8] {
        &self.block[LENGTH + 1..self.len]
    }
}

impl AttributeKeys {
    /// Of attributes that are field `number` of a message.
    pub(crate) fn new(number: u8) -> Self {
        let field = length_field(number);
        Self {
            field,
            keys: ATTRIBUTES.iter().map(|attribute| Beginning::new(field, attribute.name)).collect(),
            flags: (0..=u8::MAX).map(flags).collect(),
        }
    }

    /// Writes attributes.
    pub(crate) fn writer<'a>(&'a self, sheet: &'a mut Sheet) -> Attributes<'a> {
        Attributes { keys: self, sheet }
    }
}

fn flags(flags: u8) -> Box<[u8]> {
    let mut out = Vec::new();
    push_message(&mut out, ARRAY, |out| {
        for bit in (0..8).filter(|bit| flags >> bit & 1 == 1) {
            push_message(out, VALUES, |out| push_bytes(out, STRING, FLAG_NAMES[bit].as_bytes()));
        }
    });
    out.into()
}

/// The `AnyValue` of a hop.
fn push_hop(out: &mut Vec<u8>, hop: &NamedHop) {
    push_message(out, KEYS_AND_VALUES, |out| {
        for (name, said) in hop.fields() {
            push_message(out, VALUES, |out| {
                push_bytes(out, KEY, name.as_bytes());
                push_message(out, VALUE, |out| match said {
                    Said::Text(text) => push_bytes(out, STRING, text.as_bytes()),
                    Said::Truth(truth) => out.extend([varint_field(BOOL), u8::from(truth)]),
                    Said::Count(count) => {
                        out.push(varint_field(INT));
                        push_varint(out, count.min(i64::MAX as u64));
                    }
                });
            });
        }
    });
}

/// Writes attributes.
#[derive(Debug)]
pub(crate) struct Attributes<'a> {
    keys: &'a AttributeKeys,
    sheet: &'a mut Sheet,
}

impl Attributes<'_> {
    /// What stands before a value of so many bytes, be it long. Then there is room for the value.
    #[inline(never)]
    fn open(&mut self, beginning: &Beginning, value_len: usize) {
        let key = beginning.content();
        self.sheet.reserve(BLOCK + key.len() + value_len);
        self.sheet.block(&[self.keys.field], 1);
        self.sheet.varint((key.len() + varint_len(value_len as u64) + value_len) as u64);
        self.sheet.bytes(key);
        self.sheet.varint(value_len as u64);
    }

    /// The same where the key is not in the table, but of two parts.
    fn open_other(&mut self, name: [&str; 2], value_len: usize) {
        let name_len = name[0].len() + name[1].len();
        let len = field_len(name_len) + field_len(value_len);
        self.sheet.reserve(2 * BLOCK + name_len + value_len);
        self.sheet.block(&[self.keys.field], 1);
        self.sheet.varint(len as u64);
        self.sheet.block(&[length_field(KEY)], 1);
        self.sheet.varint(name_len as u64);
        name.iter().for_each(|part| self.sheet.bytes(part.as_bytes()));
        self.sheet.block(&[length_field(VALUE)], 1);
        self.sheet.varint(value_len as u64);
    }

    /// The `AnyValue` of a text.
    #[inline(always)]
    fn string(&mut self, value: &[u8]) {
        self.sheet.block(&[length_field(STRING)], 1);
        self.sheet.varint(value.len() as u64);
        self.sheet.bytes(value);
    }

    /// A truth value that is not in the table.
    pub(crate) fn truth(&mut self, name: &str) {
        self.open_other([name, ""], 2);
        self.sheet.block(&[varint_field(BOOL), 1], 2);
    }
}

/// Bytes of a field of so many bytes.
#[inline(always)]
const fn field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

impl Visitor for Attributes<'_> {
    #[inline(never)]
    fn text(&mut self, key: Key, value: &[u8]) {
        let beginning = &self.keys.keys[key.index()];
        let value_len = field_len(value.len());
        let len = beginning.len - LENGTH + value_len;
        if len < SHORT {
            self.sheet.reserve(BLOCK + SHORT);
            let tail = [value_len as u8, length_field(STRING), value.len() as u8, 0, 0, 0, 0, 0];
            self.sheet.opening(&beginning.block, beginning.len, (LENGTH, len as u8), tail, 3);
            self.sheet.bytes(value);
        } else {
            self.open(beginning, value_len);
            self.string(value);
        }
    }

    /// OpenTelemetry's numbers have a sign: more than 2^63 − 1, which no counter reaches, would be that.
    #[inline(never)]
    fn count(&mut self, key: Key, value: u64) {
        let beginning = &self.keys.keys[key.index()];
        let value = value.min(i64::MAX as u64);
        let value_len = 1 + varint_len(value);
        if value < VARINT_OF_SIX {
            self.sheet.reserve(BLOCK);
            let len = beginning.len - LENGTH + value_len;
            let tail = short_varint(value) << 16 | u64::from(varint_field(INT)) << 8 | value_len as u64;
            let length = (LENGTH, len as u8);
            self.sheet.opening(&beginning.block, beginning.len, length, tail.to_le_bytes(), 1 + value_len);
        } else {
            self.open(beginning, value_len);
            self.sheet.block(&[varint_field(INT)], 1);
            self.sheet.varint(value);
        }
    }

    fn signed(&mut self, key: Key, value: i64) {
        // Two's complement, as 64 bits.
        let value = value.cast_unsigned();
        self.open(&self.keys.keys[key.index()], 1 + varint_len(value));
        self.sheet.block(&[varint_field(INT)], 1);
        self.sheet.varint(value);
    }

    fn flags(&mut self, key: Key, flags: u8) {
        let list = &self.keys.flags[usize::from(flags)];
        self.open(&self.keys.keys[key.index()], list.len());
        self.sheet.bytes(list);
    }

    fn hops(&mut self, key: Key, hops: &[NamedHop]) {
        let mut list = Vec::new();
        push_message(&mut list, ARRAY, |out| {
            hops.iter().for_each(|hop| push_message(out, VALUES, |out| push_hop(out, hop)));
        });
        self.open(&self.keys.keys[key.index()], list.len());
        self.sheet.bytes(&list);
    }

    fn member(&mut self, end: &'static str, name: &str, value: &str) {
        self.open_other([end, name], field_len(value.len()));
        self.string(value.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::visit::key;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
    use prost::Message;

    /// What the official types write as field 9.
    fn official(key: &str, value: Value) -> Vec<u8> {
        let value = Some(AnyValue { value: Some(value) });
        let attribute = KeyValue { key: key.into(), value, ..KeyValue::default() };
        let mut out = Vec::new();
        push_bytes(&mut out, 9, &attribute.encode_to_vec());
        out
    }

    fn written(write: impl FnOnce(&mut Attributes<'_>)) -> Vec<u8> {
        let (keys, mut sheet) = (AttributeKeys::new(9), Sheet::default());
        write(&mut keys.writer(&mut sheet));
        sheet.written().to_vec()
    }

    /// On both sides of every length that takes another byte, with the shortest key and the longest.
    #[test]
    fn attributes_of_every_length_are_those_of_the_official_types() {
        let names = ATTRIBUTES.iter().map(|attribute| attribute.name);
        let shortest = names.clone().min_by_key(|name| name.len()).unwrap();
        for name in [shortest, names.max_by_key(|name| name.len()).unwrap()] {
            let key = key(name);
            for len in (0..300).chain(16_300..16_400) {
                let text = "x".repeat(len);
                let expected = official(name, Value::StringValue(text.clone()));
                assert!(written(|out| out.text(key, text.as_bytes())) == expected, "{name}: {len} bytes");
                let other = official("source.k8s.pod.label.app", Value::StringValue(text.clone()));
                let member = written(|out| out.member("source.", "k8s.pod.label.app", &text));
                assert!(member == other, "a label: {len} bytes");
            }
            for bit in 0..63 {
                for value in [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1] {
                    let expected = official(name, Value::IntValue(value as i64));
                    assert_eq!(written(|out| out.count(key, value)), expected, "{name}: {value}");
                }
            }
        }
    }
}
