//! Attributes: `KeyValue` messages, one after the other.

use crate::attributes::ATTRIBUTES;
use crate::attributes::visit::{Key, Visitor};
use crate::json::FLAG_NAMES;
use crate::otlp::wire::{length_field, push_bytes, push_message, push_varint, varint_field, varint_len};

/// Fields of `KeyValue`, `AnyValue` and `ArrayValue`.
const KEY: u8 = 1;
const VALUE: u8 = 2;
const STRING: u8 = 1;
const INT: u8 = 3;
const ARRAY: u8 = 5;
const VALUES: u8 = 1;

/// What is the same in all records: keys, and lists of flags.
#[derive(Debug)]
pub(crate) struct AttributeKeys {
    /// The field `key`, by line of the table.
    keys: Box<[Box<[u8]>]>,
    /// The whole `AnyValue`, by flags.
    flags: Box<[Box<[u8]>]>,
}

impl AttributeKeys {
    pub(crate) fn new() -> Self {
        let key = |name: &str| {
            let mut out = Vec::new();
            push_bytes(&mut out, KEY, name.as_bytes());
            out.into_boxed_slice()
        };
        Self {
            keys: ATTRIBUTES.iter().map(|attribute| key(attribute.name)).collect(),
            flags: (0..=u8::MAX).map(flags).collect(),
        }
    }

    /// Writes attributes to `out` as field `number` of the message that is being written there.
    pub(crate) fn writer<'a>(&'a self, number: u8, out: &'a mut Vec<u8>) -> Attributes<'a> {
        Attributes { keys: self, field: length_field(number), out }
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

/// Writes attributes.
#[derive(Debug)]
pub(crate) struct Attributes<'a> {
    keys: &'a AttributeKeys,
    field: u8,
    out: &'a mut Vec<u8>,
}

/// Lengths below this take one byte.
const SHORT: usize = 128;

impl Attributes<'_> {
    /// The beginning: field, length, key, and `value` with its length.
    #[inline(always)]
    fn open(&mut self, key: &[u8], value_len: usize) {
        let len = key.len() + 1 + varint_len(value_len as u64) + value_len;
        if len < SHORT {
            self.out.extend_from_slice(&[self.field, len as u8]);
            self.out.extend_from_slice(key);
            self.out.extend_from_slice(&[length_field(VALUE), value_len as u8]);
        } else {
            self.out.push(self.field);
            push_varint(self.out, len as u64);
            self.out.extend_from_slice(key);
            self.out.push(length_field(VALUE));
            push_varint(self.out, value_len as u64);
        }
    }

    #[inline(always)]
    fn string(&mut self, key: &[u8], value: &[u8]) {
        self.open(key, 1 + varint_len(value.len() as u64) + value.len());
        push_bytes(self.out, STRING, value);
    }

    /// An attribute that is not in the table.
    pub(crate) fn other(&mut self, name: &str, value: &str) {
        let mut key = Vec::with_capacity(name.len() + 3);
        push_bytes(&mut key, KEY, name.as_bytes());
        self.string(&key, value.as_bytes());
    }

    /// A truth value that is not in the table.
    pub(crate) fn truth(&mut self, name: &str) {
        const BOOL: u8 = 2;
        let mut key = Vec::with_capacity(name.len() + 3);
        push_bytes(&mut key, KEY, name.as_bytes());
        self.open(&key, 2);
        self.out.extend_from_slice(&[varint_field(BOOL), 1]);
    }
}

impl Visitor for Attributes<'_> {
    #[inline(always)]
    fn text(&mut self, key: Key, value: &[u8]) {
        let keys = self.keys;
        self.string(&keys.keys[key.index()], value);
    }

    /// OpenTelemetry's numbers have a sign: more than 2^63 − 1, which no counter reaches, would be that.
    #[inline(always)]
    fn count(&mut self, key: Key, value: u64) {
        let (keys, value) = (self.keys, value.min(i64::MAX as u64));
        self.open(&keys.keys[key.index()], 1 + varint_len(value));
        self.out.push(varint_field(INT));
        push_varint(self.out, value);
    }

    #[inline(always)]
    fn flags(&mut self, key: Key, flags: u8) {
        let keys = self.keys;
        let list = &keys.flags[usize::from(flags)];
        self.open(&keys.keys[key.index()], list.len());
        self.out.extend_from_slice(list);
    }

    fn member(&mut self, end: &'static str, name: &str, value: &str) {
        self.other(&[end, name].concat(), value);
    }
}
