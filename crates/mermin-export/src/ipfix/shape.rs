//! What a data record consists of: which fields it has, and whether its counters take eight octets. A record has what is
//! known of its flow and nothing else; each shape that occurs gets a template of its own.

use super::elements::{FIELDS, Field, REVERSE_PEN, Registry};
use super::wire::{push_u16, push_u32};

/// A set of places in [`FIELDS`], and whether counters are wide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Shape(u128);

const WIDE: u128 = 1 << 127;

impl Shape {
    /// Counters take eight octets.
    pub(crate) const fn widen(&mut self) {
        self.0 |= WIDE;
    }

    pub(crate) const fn is_wide(self) -> bool {
        self.0 & WIDE != 0
    }

    /// Adds the field at this place, which is behind all that are in it.
    #[inline(always)]
    pub(crate) fn add(&mut self, place: u8) {
        debug_assert!((self.0 & !WIDE) >> place == 0, "fields are added in the table's order");
        self.0 |= 1 << place;
    }

    /// Its fields, in order.
    pub(crate) fn fields(self) -> impl Iterator<Item = &'static Field> {
        FIELDS.iter().enumerate().filter(move |(place, _)| self.0 >> place & 1 == 1).map(|(_, field)| field)
    }

    /// The template record (RFC 7011 section 3.4.1), without a set around it. `enterprise`: the number of our own elements;
    /// `None`: NetFlow version 9, which has none.
    pub(crate) fn push_template(self, id: u16, enterprise: Option<u32>, out: &mut Vec<u8>) {
        let count = u16::try_from(self.fields().count()).expect("there are fewer than 128 fields");
        push_u16(out, id);
        push_u16(out, count);
        for field in self.fields() {
            push_specifier(out, field, field.kind.length(self.is_wide()), enterprise);
        }
    }
}

/// A field specifier (RFC 7011 section 3.2).
pub(crate) fn push_specifier(out: &mut Vec<u8>, field: &Field, length: u16, enterprise: Option<u32>) {
    let number = match field.registry {
        Registry::Iana => None,
        Registry::Reverse => Some(REVERSE_PEN),
        Registry::Own => enterprise,
    };
    match number {
        None => {
            push_u16(out, field.number);
            push_u16(out, length);
        }
        Some(number) => {
            push_u16(out, field.number | 0x8000);
            push_u16(out, length);
            push_u32(out, number);
        }
    }
}
