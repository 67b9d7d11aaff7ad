//! An output of lines: records are formatted into one buffer of 256 KiB, which is written when it is full and when no
//! record is waiting.
//!
//! A record is delivered when write(2) has returned for its last byte. When a write fails, those before the failure are
//! delivered, all others that are held are dropped, and the beginning of a line that got out is taken back; where that
//! can't be done (a pipe), the next write begins with a line feed, so that it stays the only broken line.

#[cfg(test)]
mod tests;

use crate::destination::Destination;
use crate::format::Format;
use mermin_flow::{Amount, Exporter, Failure, FlowRecord, QUARANTINE, Receipt};
use std::io;

/// Bytes gathered before they are written.
const BUFFER: usize = 256 * 1024;

/// More than any record takes: two names and an interface's of 255 bytes, each byte escaped as six, and 2 KiB of the
/// rest.
const RECORD_MAX: usize = 8 * 1024;

/// Why records were dropped.
const CLOSED: &str = "closed";
const WRITE_FAILED: &str = "write_failed";

/// Records as lines to a destination.
pub(crate) struct Lines<F, D> {
    name: String,
    format: F,
    destination: D,
    buffer: Vec<u8>,
    held: Vec<Held>,
    /// The destination ends within a line.
    torn: bool,
}

/// A record in the buffer.
#[derive(Clone, Copy)]
struct Held {
    /// Bytes of the buffer up to and including the record's line.
    end: usize,
    amount: Amount,
}

impl<F: Format, D: Destination> Lines<F, D> {
    pub(crate) fn new(name: String, format: F, destination: D) -> Self {
        Self { name, format, destination, buffer: Vec::with_capacity(BUFFER), held: Vec::new(), torn: false }
    }

    /// Writes the buffer. Afterwards nothing is held.
    fn write_out(&mut self, receipt: &mut Receipt) -> Result<(), Failure> {
        let (written, result) = self.write_buffer();
        let delivered = self.held.partition_point(|held| held.end <= written);
        for held in &self.held[..delivered] {
            receipt.delivered += held.amount;
        }
        let result = result.map_err(|error| {
            let whole = delivered.checked_sub(1).map_or(0, |last| self.held[last].end);
            let beginning = written - whole;
            if beginning > 0 {
                self.torn = !self.destination.take_back(beginning as u64);
            }
            let failure = failure(error);
            drop_all(&self.held[delivered..], failure.reason, receipt);
            failure
        });
        self.buffer.clear();
        self.held.clear();
        result
    }

    /// How many bytes of the buffer got out, and what stopped the rest.
    fn write_buffer(&mut self) -> (usize, io::Result<()>) {
        let _whole_lines = self.destination.lock();
        if self.torn {
            match self.destination.write(b"\n") {
                Ok(_) => self.torn = false,
                Err(error) => return (0, Err(error)),
            }
        }
        let mut written = 0;
        while written < self.buffer.len() {
            match self.destination.write(&self.buffer[written..]) {
                Ok(more) => written += more,
                Err(error) => return (written, Err(error)),
            }
        }
        (written, Ok(()))
    }
}

fn drop_all(held: &[Held], reason: &'static str, receipt: &mut Receipt) {
    if !held.is_empty() {
        let dropped = receipt.dropped.entry(reason).or_default();
        held.iter().for_each(|held| *dropped += held.amount);
    }
}

fn failure(error: io::Error) -> Failure {
    let closed = error.kind() == io::ErrorKind::BrokenPipe;
    Failure { reason: if closed { CLOSED } else { WRITE_FAILED }, closed, error }
}

impl<F: Format, D: Destination> Exporter for Lines<F, D> {
    fn name(&self) -> &str {
        &self.name
    }

    fn drop_reasons(&self) -> &'static [&'static str] {
        &[CLOSED, WRITE_FAILED]
    }

    fn passing_reasons(&self) -> &'static [&'static str] {
        &[WRITE_FAILED]
    }

    fn export(&mut self, records: &[FlowRecord], receipt: &mut Receipt) -> Result<(), Failure> {
        for (place, record) in records.iter().enumerate() {
            self.format.push(record, &mut self.buffer);
            self.held.push(Held { end: self.buffer.len(), amount: Amount::of(record) });
            if self.buffer.len() > BUFFER - RECORD_MAX
                && let Err(failure) = self.write_out(receipt)
            {
                if let rest @ [_, ..] = &records[place + 1..] {
                    let dropped = receipt.dropped.entry(failure.reason).or_default();
                    rest.iter().for_each(|record| *dropped += Amount::of(record));
                }
                return Err(failure);
            }
        }
        Ok(())
    }

    fn flush(&mut self, receipt: &mut Receipt) -> Result<(), Failure> {
        if self.buffer.is_empty() { Ok(()) } else { self.write_out(receipt) }
    }

    fn after_panic(&mut self) -> Option<u64> {
        // The beginning of a line that came to no end.
        self.buffer.truncate(self.held.last().map_or(0, |held| held.end));
        Some(self.held.len() as u64)
    }

    fn quarantine(&mut self, record: &FlowRecord, receipt: &mut Receipt) -> Result<(), Failure> {
        let earlier = self.flush(receipt);
        *receipt.dropped.entry(QUARANTINE).or_default() += Amount::of(record);
        earlier
    }
}
