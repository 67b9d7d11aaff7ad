//! Lines for people: one per record, in columns.
//!
//! The ends come last, because they are of such different length (IPv6, names) that they would push every column
//! behind them out of line. Counts are the flow's totals so far, as the duration is: the line of a flow's end tells
//! the whole flow. On a terminal there is a header now and then, which carries the date, and columns are left out as
//! the terminal is narrower; elsewhere a line has all columns and its full date, and nothing but records is written.

mod layout;
mod owner;
mod quantity;
#[cfg(test)]
mod tests;

pub use layout::Style;

use crate::form::{Clock, push_end, push_number};
use crate::format::Format;
use crate::json::FLAG_NAMES;
use crate::protocols::keyword;
use layout::{Columns, Paint, left, right};
use mermin_flow::{Direction, End, FlowEndReason, FlowEvent, FlowRecord};
use owner::push_owner;
use quantity::{push_bytes, push_duration, push_packets};

/// Lines between two headers on a terminal.
const HEADER_EVERY: usize = 50;

/// Writes records as lines for people.
#[derive(Debug)]
pub struct TextLines {
    style: Style,
    columns: Columns,
    clock: Clock,
    /// Of the last header, `2026-01-31`.
    day: [u8; 10],
    until_header: usize,
}

impl TextLines {
    /// Lines in `style`.
    #[must_use]
    pub fn new(style: Style) -> Self {
        let columns = Columns::fitting(style.columns);
        Self { style, columns, clock: Clock::FIRST, day: [0; 10], until_header: 0 }
    }

    fn header_if_due(&mut self, record: &FlowRecord, out: &mut Vec<u8>) {
        let mut day = [0; 10];
        day.copy_from_slice(&self.clock.moment(record.end_shown()).second[..10]);
        if self.until_header == 0 || day != self.day {
            self.columns.push_header(&day, self.style.color, out);
            self.day = day;
            self.until_header = HEADER_EVERY;
        }
        self.until_header -= 1;
    }

    fn push_time(&mut self, time: u64, out: &mut Vec<u8>) {
        let moment = self.clock.moment(time);
        if !self.style.header {
            out.extend_from_slice(&moment.second[..10]);
            out.push(b' ');
        }
        out.extend_from_slice(&moment.second[11..19]);
        if self.columns.millis {
            out.push(b'.');
            out.extend_from_slice(&moment.nanos[..3]);
        }
        out.push(b' ');
    }
}

impl Format for TextLines {
    fn push(&mut self, record: &FlowRecord, out: &mut Vec<u8>) {
        if self.style.header {
            self.header_if_due(record, out);
        }
        self.push_time(record.end_shown(), out);
        let color = self.style.color;
        let columns = self.columns;

        let (word, paint) = event(record);
        paint.on(color, out, |out| {
            left(out, columns.event, |out| {
                if columns.millis && record.event == FlowEvent::End {
                    out.extend_from_slice(b"end ");
                }
                out.extend_from_slice(word.as_bytes());
            });
        });
        left(out, columns.protocol, |out| match keyword(record.protocol) {
            Some(keyword) => out.extend_from_slice(keyword.as_bytes()),
            None => push_number(out, u64::from(record.protocol)),
        });
        let (forward, reverse) = (record.forward.total, record.reverse.total);
        right(out, layout::PACKETS, |out| push_packets(out, forward.packets));
        right(out, layout::PACKETS, |out| push_packets(out, reverse.packets));
        right(out, layout::BYTES, |out| push_bytes(out, forward.bytes));
        right(out, layout::BYTES, |out| push_bytes(out, reverse.bytes));
        if columns.duration {
            let duration = record.end_time.saturating_sub(record.start_time);
            right(out, layout::DURATION, |out| push_duration(out, duration));
        }
        if columns.state {
            left(out, layout::STATE, |out| push_state(record, out));
        }
        if columns.flags {
            left(out, layout::FLAGS, |out| push_flags(record, out));
        }
        push_named(&record.source, color, out);
        Paint::Dim.on(color, out, |out| out.extend_from_slice(" → ".as_bytes()));
        push_named(&record.destination, color, out);
        push_sampling(record, color, out);
        out.push(b'\n');
    }
}

/// One word for what the record reports. All but `start` and `update` are ends.
const fn event(record: &FlowRecord) -> (&'static str, Paint) {
    match (record.event, record.end_reason) {
        (FlowEvent::Start, _) => ("start", Paint::Green),
        // A look at a flow that goes on.
        (FlowEvent::Update, None) => ("live", Paint::Green),
        (FlowEvent::Update, Some(_)) => ("update", Paint::Cyan),
        (FlowEvent::End, Some(FlowEndReason::IdleTimeout)) => ("idle", Paint::Dim),
        (FlowEvent::End, Some(FlowEndReason::ActiveTimeout)) => ("active", Paint::Plain),
        (FlowEvent::End, Some(FlowEndReason::EndOfFlowDetected)) => ("closed", Paint::Plain),
        (FlowEvent::End, Some(FlowEndReason::ForcedEnd)) => ("forced", Paint::Yellow),
        (FlowEvent::End, Some(FlowEndReason::LackOfResources)) => ("full", Paint::Red),
        (FlowEvent::End, None) => ("ended", Paint::Plain),
    }
}

/// The TCP state, or ICMP's type and code.
fn push_state(record: &FlowRecord, out: &mut Vec<u8>) {
    if let Some((kind, code)) = record.icmp {
        out.extend_from_slice(b"type ");
        push_number(out, u64::from(kind));
        out.push(b'/');
        push_number(out, u64::from(code));
    } else {
        out.extend_from_slice(record.tcp_state.name().unwrap_or("-").as_bytes());
    }
}

/// First letters of the flags of both directions: `FSPA/SA`.
fn push_flags(record: &FlowRecord, out: &mut Vec<u8>) {
    if record.forward.tcp_flags.is_none() && record.reverse.tcp_flags.is_none() {
        return out.push(b'-');
    }
    push_letters(&record.forward, out);
    out.push(b'/');
    push_letters(&record.reverse, out);
}

fn push_letters(direction: &Direction, out: &mut Vec<u8>) {
    let Some(flags) = direction.tcp_flags else { return out.push(b'-') };
    let set = FLAG_NAMES.iter().enumerate().filter(|(bit, _)| flags >> bit & 1 == 1);
    out.extend(set.map(|(_, name)| name.as_bytes()[0]));
}

/// The line's counts are those of a part: ` sampled 1:4–1:8, since the record before ~402 → ~3600 ← packets`. What there
/// was can't be had from the rate, which changes and which not all packets were drawn at, so the estimates are told.
fn push_sampling(record: &FlowRecord, color: bool, out: &mut Vec<u8>) {
    let Some(sampled) = &record.sampled else { return };
    Paint::Yellow.on(color, out, |out| {
        let [least, most] = sampled.one_in;
        out.extend_from_slice(b" sampled 1:");
        push_number(out, least.into());
        if least != most {
            out.extend_from_slice("–1:".as_bytes());
            push_number(out, most.into());
        }
        let [forward, reverse] = record.estimates();
        out.extend_from_slice(b", since the record before ~");
        push_packets(out, forward.packets);
        out.extend_from_slice(" → ~".as_bytes());
        push_packets(out, reverse.packets);
        out.extend_from_slice(" ← packets, ~".as_bytes());
        push_bytes(out, forward.bytes);
        out.extend_from_slice(" → ~".as_bytes());
        push_bytes(out, reverse.bytes);
        out.extend_from_slice(" ← bytes".as_bytes());
    });
}

fn push_named(end: &End, color: bool, out: &mut Vec<u8>) {
    push_end(out, end.address, end.port);
    let (bare, mut named) = (out.len(), false);
    Paint::Cyan.on(color, out, |out| {
        out.extend_from_slice(b" (");
        let before = out.len();
        push_owner(&end.identity, out);
        named = out.len() > before;
        out.push(b')');
    });
    if !named {
        out.truncate(bare);
    }
}
