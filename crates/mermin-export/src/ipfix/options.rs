//! What is told beside flows, in options records (RFC 7011 section 4): what the elements of our own are (RFC 5610), what this
//! output has sent and what not, what the agent has seen, by what draws packets were sampled.

use super::elements::{FIELDS, Field, LEDGER, Registry};
use super::shape::push_specifier;
use super::wire::{push_u16, push_u32, push_u64, push_variable};
use mermin_flow::Amount;

/// An options template of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Options {
    /// Type information of an element.
    Types,
    /// Metering process statistics (section 4.1).
    Sent,
    /// Exporting process reliability (section 4.3).
    NotSent,
    /// Metering process reliability (section 4.2), and the agent's ledger.
    Ledger,
    /// A draw of packets (RFC 5477).
    Selector,
}

/// An element in an options template: its number of IANA's, its length.
type Iana = (u16, u16);

const VARIABLE: u16 = super::elements::VARIABLE;

impl Options {
    pub(crate) const ALL: [Self; 5] = [Self::Types, Self::Sent, Self::NotSent, Self::Ledger, Self::Selector];

    /// The template's id: below those of flows.
    pub(crate) const fn id(self) -> u16 {
        match self {
            Self::Types => 256,
            Self::Sent => 257,
            Self::NotSent => 258,
            Self::Ledger => 259,
            Self::Selector => 260,
        }
    }

    /// What it is about, and what it says of that.
    const fn elements(self) -> (&'static [Iana], &'static [Iana]) {
        match self {
            // privateEnterpriseNumber, informationElementId; DataType, Semantics, Units, RangeBegin, RangeEnd, Name
            Self::Types => {
                (&[(346, 4), (303, 2)], &[(339, 1), (344, 1), (345, 2), (342, 8), (343, 8), (341, VARIABLE)])
            }
            // observationDomainId; exported messages, flow records, octets
            Self::Sent => (&[(149, 4)], &[(41, 8), (42, 8), (40, 8)]),
            // exportingProcessId; flows, packets and octets that were not sent
            Self::NotSent => (&[(144, 4)], &[(166, 8), (167, 8), (168, 8)]),
            // meteringProcessId; packets and octets that were ignored
            Self::Ledger => (&[(143, 4)], &[(164, 8), (165, 8)]),
            // selectorId; selectorAlgorithm, samplingProbability
            Self::Selector => (&[(302, 8)], &[(304, 2), (311, 8)]),
        }
    }

    /// Elements of our own that follow.
    const fn own(self) -> &'static [Field] {
        if matches!(self, Self::Ledger) { LEDGER } else { &[] }
    }

    /// The options template record (section 3.4.2.2).
    pub(crate) fn push_template(self, enterprise: u32, out: &mut Vec<u8>) {
        let (scope, others) = self.elements();
        push_u16(out, self.id());
        push_u16(out, (scope.len() + others.len() + self.own().len()) as u16);
        push_u16(out, scope.len() as u16);
        for (number, length) in scope.iter().chain(others) {
            push_u16(out, *number);
            push_u16(out, *length);
        }
        for field in self.own() {
            push_specifier(out, field, field.kind.length(true), Some(enterprise));
        }
    }

    /// The same in NetFlow version 9 (RFC 3954 section 6.1), which has one of them: about the system as a whole.
    pub(crate) fn push_template_9(out: &mut Vec<u8>) {
        const SYSTEM: u16 = 1;
        let (_, others) = Self::Sent.elements();
        push_u16(out, Self::Sent.id());
        push_u16(out, 4);
        push_u16(out, 4 * others.len() as u16);
        push_u16(out, SYSTEM);
        push_u16(out, 4);
        for (number, length) in others {
            push_u16(out, *number);
            push_u16(out, *length);
        }
    }
}

/// All elements of our own.
pub(crate) fn own_elements() -> impl Iterator<Item = &'static Field> {
    FIELDS.iter().filter(|field| field.registry == Registry::Own).chain(LEDGER)
}

/// What an element of our own is.
pub(crate) fn push_type(field: &Field, enterprise: u32, out: &mut Vec<u8>) {
    push_u32(out, enterprise);
    push_u16(out, field.number);
    out.push(field.kind.code());
    out.push(field.semantics as u8);
    push_u16(out, field.units as u16);
    // Without a closed set both are 0: the range is that of the type.
    push_u64(out, u64::from(field.greatest > 0));
    push_u64(out, field.greatest.into());
    push_variable(out, field.name.as_bytes());
}

/// What this output has done, since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) messages: u64,
    /// Data records of flows.
    pub(crate) records: u64,
    /// Octets of messages.
    pub(crate) octets: u64,
    /// What was given up.
    pub(crate) dropped: Amount,
}

impl Done {
    pub(crate) fn push_sent(&self, domain: u32, out: &mut Vec<u8>) {
        push_u32(out, domain);
        [self.messages, self.records, self.octets].iter().for_each(|count| push_u64(out, *count));
    }

    pub(crate) fn push_not_sent(&self, process: u32, out: &mut Vec<u8>) {
        push_u32(out, process);
        let Amount { records, packets, bytes } = self.dropped;
        [records, packets, bytes].iter().for_each(|count| push_u64(out, *count));
    }
}

/// A draw that keeps one packet in `one_in`, whose id is that number: uniform probabilistic sampling (RFC 5477 section 8.2.1).
pub(crate) fn push_selector(one_in: u32, out: &mut Vec<u8>) {
    const UNIFORM_PROBABILISTIC: u16 = 4;
    push_u64(out, one_in.into());
    push_u16(out, UNIFORM_PROBABILISTIC);
    out.extend_from_slice(&(1.0 / f64::from(one_in)).to_be_bytes());
}
