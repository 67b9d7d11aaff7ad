//! A reader of IPFIX (RFC 7011) and NetFlow version 9 (RFC 3954) of the tests' own, strict where collectors forgive.
//!
//! One reader is one transport session seen from its far end. It knows no element: a record is what its template says, and
//! who asks for a value says which. What is against the standard is an error that says where; a data set without a
//! template is none, for a collector may come late: these are counted.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Of reverse elements (RFC 5103).
pub const REVERSE: u32 = 29_305;
/// Mermin's own elements by default.
pub const OWN: u32 = 32_473;

const VARIABLE: u16 = u16::MAX;

/// A value's element: the enterprise, 0 for IANA's, and its number.
pub type Element = (u32, u16);

/// One data record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// In the order of the template.
    pub fields: Vec<(Element, Vec<u8>)>,
    /// Which message of the session it came in, from 0.
    pub message: usize,
}

/// What came in one session.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    /// Data records of flows.
    pub flows: Vec<Data>,
    /// Data records that options templates describe.
    pub options: Vec<Data>,
    /// Messages so far.
    pub messages: usize,
    /// Those of them that have templates of flows.
    pub with_templates: Vec<usize>,
    /// Data sets whose templates have not come.
    pub unknown_sets: usize,
    /// Observation domain, or source id.
    pub domain: u32,
    templates: HashMap<u16, Template>,
    next: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Template {
    fields: Vec<(Element, u16)>,
    options: bool,
}

impl Data {
    /// A value's octets.
    #[must_use]
    pub fn octets(&self, element: Element) -> Option<&[u8]> {
        self.fields.iter().find(|(other, _)| *other == element).map(|(_, value)| value.as_slice())
    }

    /// An unsigned value of any length up to eight octets.
    #[must_use]
    pub fn unsigned(&self, element: Element) -> Option<u64> {
        let octets = self.octets(element)?;
        (octets.len() <= 8).then(|| octets.iter().fold(0, |value, octet| value << 8 | u64::from(*octet)))
    }

    /// A text.
    #[must_use]
    pub fn text(&self, element: Element) -> Option<&str> {
        std::str::from_utf8(self.octets(element)?).ok()
    }

    /// An address: of version 4 under the one number, of version 6 under the other.
    #[must_use]
    pub fn address(&self, version4: u16, version6: u16) -> Option<IpAddr> {
        if let Some(octets) = self.octets((0, version4)) {
            return Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into());
        }
        Some(Ipv6Addr::from(<[u8; 16]>::try_from(self.octets((0, version6))?).ok()?).into())
    }
}

/// Takes octets off the front.
struct Octets<'a>(&'a [u8]);

impl<'a> Octets<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (front, rest) = self.0.split_at_checked(count).ok_or(format!("{count} octets are not there"))?;
        self.0 = rest;
        Ok(front)
    }

    fn u16(&mut self) -> Result<u16, String> {
        Ok(u16::from_be_bytes(self.take(2)?.try_into().expect("two octets")))
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into().expect("four octets")))
    }

    /// A value, whose length stands before it where it varies (RFC 7011 section 7).
    fn value(&mut self, length: u16) -> Result<&'a [u8], String> {
        if length != VARIABLE {
            return self.take(length.into());
        }
        let short = self.take(1)?[0];
        let length = if short == u8::MAX { self.u16()? } else { short.into() };
        self.take(length.into())
    }
}

impl Reader {
    /// Takes a session's next message.
    ///
    /// # Errors
    /// What is against the standard, a gap in the sequence numbers among it.
    pub fn take(&mut self, message: &[u8]) -> Result<(), String> {
        let mut octets = Octets(message);
        let (version, second) = (octets.u16()?, octets.u16()?);
        let ipfix = match version {
            10 if usize::from(second) == message.len() => true,
            10 => return Err(format!("a length of {second} in {} octets", message.len())),
            9 => false,
            _ => return Err(format!("version {version}")),
        };
        // The time since the system was started stands before the export time.
        let _times = octets.take(if ipfix { 4 } else { 8 })?;
        let (sequence, domain) = (octets.u32()?, octets.u32()?);
        if self.messages > 0 && domain != self.domain {
            return Err(format!("domain {domain} after {}", self.domain));
        }
        self.domain = domain;
        if let Some(next) = self.next.filter(|next| *next != sequence) {
            return Err(format!("message {}: number {sequence}, {next} was due", self.messages));
        }
        let before = [self.flows.len() + self.options.len(), self.unknown_sets];
        let mut records = 0;
        while !octets.0.is_empty() {
            let (id, length) = (octets.u16()?, usize::from(octets.u16()?));
            let body = length.checked_sub(4).ok_or(format!("a set of {length} octets"))?;
            if !ipfix && length % 4 != 0 {
                return Err(format!("a set of {length} octets is not padded"));
            }
            records += self.set(id, octets.take(body)?, ipfix)?;
        }
        if !ipfix && self.unknown_sets == before[1] && usize::from(second) != records {
            return Err(format!("{second} records announced, {records} there"));
        }
        let data = self.flows.len() + self.options.len() - before[0];
        let numbers = if ipfix { u32::try_from(data).expect("a message is small") } else { 1 };
        // How many records an unknown set has nobody can tell.
        self.next = (!ipfix || self.unknown_sets == before[1]).then(|| sequence.wrapping_add(numbers));
        self.messages += 1;
        Ok(())
    }

    /// Whether the session began with this message's number.
    #[must_use]
    pub fn number(message: &[u8]) -> Option<u32> {
        let at = if message.starts_with(&[0, 10]) { 8 } else { 12 };
        Some(u32::from_be_bytes(message.get(at..at + 4)?.try_into().ok()?))
    }

    /// Reads a set; how many records it has.
    fn set(&mut self, id: u16, body: &[u8], ipfix: bool) -> Result<usize, String> {
        let mut octets = Octets(body);
        let mut count = 0;
        let (templates, options) = if ipfix { (2, 3) } else { (0, 1) };
        if id == templates || id == options {
            // A record has four octets at least; what is less is padding.
            while octets.0.len() >= 4 {
                self.template(&mut octets, id == options, ipfix)?;
                count += 1;
            }
            if id == templates {
                self.with_templates.push(self.messages);
            }
        } else if id >= 256 {
            let Some(template) = self.templates.get(&id).cloned() else {
                self.unknown_sets += 1;
                return Ok(0);
            };
            let shortest = template.fields.iter();
            let shortest: usize =
                shortest.map(|(_, length)| if *length == VARIABLE { 1 } else { usize::from(*length) }).sum();
            while octets.0.len() >= shortest {
                let fields = template.fields.iter();
                let fields = fields.map(|(element, length)| Ok((*element, octets.value(*length)?.to_vec())));
                let data = Data { fields: fields.collect::<Result<_, String>>()?, message: self.messages };
                if template.options { &mut self.options } else { &mut self.flows }.push(data);
                count += 1;
            }
            if count == 0 {
                return Err(format!("set {id} has no record"));
            }
        } else {
            return Err(format!("set {id}"));
        }
        if octets.0.iter().any(|octet| *octet != 0) {
            return Err(format!("set {id} is padded with {:?}", octets.0));
        }
        Ok(count)
    }

    fn template(&mut self, octets: &mut Octets<'_>, options: bool, ipfix: bool) -> Result<(), String> {
        let id = octets.u16()?;
        let mut count = usize::from(octets.u16()?);
        if options && ipfix {
            let scope = usize::from(octets.u16()?);
            if scope == 0 || scope > count {
                return Err(format!("template {id} has {scope} scope fields of {count}"));
            }
        } else if options {
            // Lengths of the scope and of the others, in octets.
            count = (count + usize::from(octets.u16()?)) / 4;
        }
        if id < 256 || count == 0 {
            return Err(format!("template {id} of {count} fields"));
        }
        let mut fields = Vec::new();
        for _ in 0..count {
            let (number, length) = (octets.u16()?, octets.u16()?);
            let own = ipfix && number & 0x8000 != 0;
            let enterprise = if own { octets.u32()? } else { 0 };
            if !ipfix && length == VARIABLE {
                return Err(format!("template {id} has a length that varies"));
            }
            fields.push(((enterprise, if own { number & 0x7fff } else { number }), length));
        }
        let template = Template { fields, options };
        if let Some(other) = self.templates.insert(id, template.clone())
            && other != template
        {
            return Err(format!("template {id} changed its meaning"));
        }
        Ok(())
    }
}

/// Splits a connection's octets into messages; what is behind the last whole one stays.
///
/// # Errors
/// When what begins is no message of IPFIX.
pub fn messages(octets: &mut Vec<u8>) -> Result<Vec<Vec<u8>>, String> {
    let mut messages = Vec::new();
    while let Some(header) = octets.get(..4) {
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header[..2] != [0, 10] || length < 16 {
            return Err(format!("no message: {header:?}"));
        }
        if octets.len() < length {
            break;
        }
        let rest = octets.split_off(length);
        messages.push(std::mem::replace(octets, rest));
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::{Reader, messages};

    fn set(id: u16, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + body.len()).unwrap();
        [&id.to_be_bytes(), &length.to_be_bytes(), body].concat()
    }

    fn message(sequence: u32, sets: &[Vec<u8>]) -> Vec<u8> {
        let sets = sets.concat();
        let length = u16::try_from(16 + sets.len()).unwrap();
        let words = [1_700_000_000, sequence, 7].map(u32::to_be_bytes).concat();
        [[10_u16, length].map(u16::to_be_bytes).concat(), words, sets].concat()
    }

    /// `octetDeltaCount` in two octets, a text of an enterprise's.
    fn template() -> Vec<u8> {
        set(2, &[1, 0, 0, 2, 0, 1, 0, 2, 0x80, 5, 0xff, 0xff, 0, 0, 0, 9])
    }

    fn data() -> Vec<u8> {
        set(256, &[1, 2, 2, b'a', b'b', 0, 3, 0, 0, 0])
    }

    #[test]
    fn records_are_what_their_templates_say() {
        let mut reader = Reader::default();
        reader.take(&message(0, &[data()])).unwrap();
        assert_eq!((reader.unknown_sets, reader.flows.len()), (1, 0));
        reader.take(&message(2, &[template(), data()])).unwrap();
        let [first, second] = reader.flows.as_slice() else { panic!("{:?}", reader.flows) };
        assert_eq!((first.unsigned((0, 1)), first.text((9, 5))), (Some(258), Some("ab")));
        assert_eq!((second.unsigned((0, 1)), second.text((9, 5))), (Some(3), Some("")));
        assert_eq!((reader.messages, &reader.with_templates[..], reader.domain), (2, &[1][..], 7));
        reader.take(&message(4, &[data()])).unwrap();
        assert!(reader.take(&message(7, &[data()])).unwrap_err().contains("6 was due"));
    }

    #[test]
    fn what_is_against_the_standard_is_said() {
        let length = |mut message: Vec<u8>| {
            message[3] += 1;
            message
        };
        for (broken, said) in [
            (length(message(0, &[data()])), "a length of"),
            (message(0, &[set(4, &[])]), "set 4"),
            (message(0, &[template(), set(256, &[1, 2, 9, b'a'])]), "9 octets are not there"),
            (message(0, &[template(), set(256, &[1, 2, 0, 1])]), "is padded"),
            (message(0, &[template(), set(256, &[1])]), "no record"),
            (message(0, &[set(2, &[0, 255, 0, 1, 0, 1, 0, 2])]), "template 255"),
            (message(0, &[template(), set(2, &[1, 0, 0, 1, 0, 1, 0, 2])]), "changed its meaning"),
        ] {
            let error = Reader::default().take(&broken).unwrap_err();
            assert!(error.contains(said), "{error}, not {said}");
        }
    }

    #[test]
    fn a_connection_is_split_at_the_ends_of_messages() {
        let (one, two) = (message(0, &[template()]), message(0, &[data()]));
        let mut octets = [&one[..], &two[..], &one[..7]].concat();
        assert_eq!(messages(&mut octets).unwrap(), [one.clone(), two]);
        assert_eq!(octets, one[..7]);
        assert!(messages(&mut vec![0, 9, 0, 20]).is_err());
    }
}
