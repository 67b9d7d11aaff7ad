//! A collector's half of RFC 7011 and RFC 3954, written from the standards alone: messages in, records out.

use std::collections::{BTreeMap, HashMap};

/// An element: its enterprise (0: IANA's) and its number.
pub(super) type Element = (u32, u16);

/// A data record: the id of its template, and values by element.
#[derive(Clone, Debug)]
pub(super) struct Decoded {
    pub(super) template: u16,
    pub(super) scope: usize,
    pub(super) values: BTreeMap<Element, Vec<u8>>,
}

#[derive(Clone, Debug, Default)]
struct Template {
    scope: usize,
    fields: Vec<(Element, u16)>,
}

/// Remembers templates and numbers of one session.
#[derive(Debug, Default)]
pub(super) struct Collector {
    templates: HashMap<u16, Template>,
    /// The number that the next message should have.
    pub(super) expected: Option<u32>,
    pub(super) gaps: u32,
    pub(super) unknown: u32,
    pub(super) messages: u32,
}

struct Reader<'m>(&'m [u8]);

impl<'m> Reader<'m> {
    fn take(&mut self, length: usize) -> &'m [u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }
    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }
    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }
}

impl Collector {
    pub(super) fn take(&mut self, message: &[u8]) -> Vec<Decoded> {
        let mut reader = Reader(message);
        let version = reader.u16();
        let length = reader.u16();
        let mut decoded = Vec::new();
        let (mut records, sequence) = (
            0,
            match version {
                10 => {
                    assert_eq!(usize::from(length), message.len());
                    let _time = reader.u32();
                    reader.u32()
                }
                9 => {
                    let (_uptime, _seconds) = (reader.u32(), reader.u32());
                    reader.u32()
                }
                other => panic!("version {other}"),
            },
        );
        let _domain = reader.u32();
        self.messages += 1;
        self.gaps += u32::from(self.expected.is_some_and(|expected| expected != sequence));
        while !reader.0.is_empty() {
            let (id, length) = (reader.u16(), reader.u16());
            let mut set = Reader(reader.take(usize::from(length) - 4));
            match (version, id) {
                (10, 2) | (9, 0) => records += self.templates(&mut set),
                (10, 3) => records += self.options_templates(&mut set),
                (9, 1) => records += self.options_templates_9(&mut set),
                (_, 256..) => {
                    let before = decoded.len();
                    self.data(id, &mut set, &mut decoded);
                    records += (decoded.len() - before) as u16;
                }
                other => panic!("set {other:?}"),
            }
        }
        let next = if version == 10 { decoded.len() as u32 } else { 1 };
        if version == 9 {
            assert_eq!(records, length, "the count of a version 9 message");
        }
        self.expected = Some(sequence.wrapping_add(next));
        decoded
    }

    fn specifier(set: &mut Reader<'_>) -> (Element, u16) {
        let (number, length) = (set.u16(), set.u16());
        let enterprise = if number & 0x8000 == 0 { 0 } else { set.u32() };
        ((enterprise, number & 0x7fff), length)
    }

    fn templates(&mut self, set: &mut Reader<'_>) -> u16 {
        let mut count = 0;
        while set.0.len() >= 4 {
            let (id, fields) = (set.u16(), set.u16());
            let fields = (0..fields).map(|_| Self::specifier(set)).collect();
            self.templates.insert(id, Template { scope: 0, fields });
            count += 1;
        }
        count
    }

    fn options_templates(&mut self, set: &mut Reader<'_>) -> u16 {
        let mut count = 0;
        while set.0.len() >= 6 {
            let (id, fields, scope) = (set.u16(), set.u16(), set.u16());
            let fields = (0..fields).map(|_| Self::specifier(set)).collect();
            self.templates.insert(id, Template { scope: scope.into(), fields });
            count += 1;
        }
        count
    }

    fn options_templates_9(&mut self, set: &mut Reader<'_>) -> u16 {
        let (id, scope, options) = (set.u16(), set.u16() / 4, set.u16() / 4);
        let fields = (0..scope + options).map(|_| Self::specifier(set)).collect();
        self.templates.insert(id, Template { scope: scope.into(), fields });
        1
    }

    fn data(&mut self, id: u16, set: &mut Reader<'_>, decoded: &mut Vec<Decoded>) {
        let Some(template) = self.templates.get(&id).cloned() else {
            self.unknown += 1;
            return;
        };
        // What is shorter than a record is padding.
        let least: usize = template
            .fields
            .iter()
            .map(|(_, length)| if *length == u16::MAX { 1 } else { usize::from(*length) })
            .sum();
        while set.0.len() >= least {
            let mut values = BTreeMap::new();
            for (element, length) in &template.fields {
                let length = match length {
                    &u16::MAX => match set.take(1)[0] {
                        255 => usize::from(set.u16()),
                        short => short.into(),
                    },
                    fixed => usize::from(*fixed),
                };
                assert!(values.insert(*element, set.take(length).to_vec()).is_none(), "{element:?} twice");
            }
            decoded.push(Decoded { template: id, scope: template.scope, values });
        }
        assert!(set.0.iter().all(|octet| *octet == 0), "padding");
    }
}
