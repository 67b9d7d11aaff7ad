//! A window that slides over a byte stream: one reused buffer, from which records are borrowed without a copy.
//!
//! Plain reads, no memory map: both cost the same here, and a file that is cut while it is read must not raise SIGBUS.

use std::io::{self, ErrorKind, Read};
use std::mem;

/// Bytes asked of the input at once. Between 128 KiB and 1 MiB the size makes no measurable difference.
const READ: usize = 256 << 10;

/// A byte stream and the part of it that is in memory.
pub(super) struct Window {
    input: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    offset: u64,
    skipped: u64,
}

impl Window {
    pub(super) fn new(input: Box<dyn Read + Send>, mut buffer: Vec<u8>) -> Self {
        if buffer.len() != READ {
            buffer = vec![0; READ];
        }
        Self { input, buffer, start: 0, end: 0, offset: 0, skipped: 0 }
    }

    /// The buffer, for the next window.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }

    /// Where the stream was last consumed up to: the start of what is being read.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// What is in memory and not consumed.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Moves on by `count` bytes, which are in memory.
    #[inline]
    pub(super) fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.end - self.start);
        self.start += count;
        self.offset += count as u64 + mem::take(&mut self.skipped);
    }

    /// Moves on to `offset`, up to where all is in memory; whether it was before that.
    pub(super) fn consume_to(&mut self, offset: u64) -> bool {
        let ahead = usize::try_from(offset.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        self.consume(ahead.min(self.end - self.start));
        ahead > 0
    }

    /// The bytes from here on, at least `count` unless the stream ends before. The buffer grows if it must: callers
    /// bound `count`.
    #[inline]
    pub(super) fn at_least(&mut self, count: usize) -> io::Result<&[u8]> {
        if self.end - self.start < count {
            self.fill(count)?;
        }
        Ok(self.bytes())
    }

    #[cold]
    fn fill(&mut self, count: usize) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() < count {
            self.buffer.resize(count.next_multiple_of(READ), 0);
        }
        while self.end < count {
            match self.input.read(self.buffer.get_mut(self.end..).unwrap_or_default()) {
                Ok(0) => break,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Moves on by `count` bytes without keeping them; false if the stream ends before. They count as consumed with the
    /// next bytes that are.
    pub(super) fn skip(&mut self, mut count: u64) -> io::Result<bool> {
        while count > 0 {
            let held = self.at_least(1)?.len();
            if held == 0 {
                return Ok(false);
            }
            let step = usize::try_from(count).map_or(held, |count| count.min(held));
            self.start += step;
            self.skipped += step as u64;
            count -= step as u64;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time, so that every border is met.
    struct Drip(Vec<u8>, usize);
    impl Read for Drip {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let Some(&byte) = self.0.get(self.1) else { return Ok(0) };
            into[0] = byte;
            self.1 += 1;
            Ok(1)
        }
    }

    #[test]
    fn slides_and_keeps_count() {
        let bytes: Vec<u8> = (0..100).collect();
        let mut window = Window::new(Box::new(Drip(bytes, 0)), Vec::new());
        assert_eq!(window.at_least(3).unwrap(), [0, 1, 2]);
        window.consume(2);
        assert_eq!(window.at_least(1).unwrap(), [2]);
        assert_eq!(window.offset(), 2);
        assert!(window.skip(40).unwrap());
        assert_eq!(window.at_least(1).unwrap(), [42]);
        assert_eq!(window.offset(), 2);
        window.consume(1);
        assert_eq!(window.offset(), 43);
        assert_eq!(window.at_least(1000).unwrap().len(), 57);
        assert!(!window.skip(58).unwrap());
        assert_eq!(window.offset(), 43);
    }

    #[test]
    fn grows_when_a_record_is_longer_than_the_buffer() {
        let mut window = Window::new(Box::new(io::repeat(7).take(READ as u64 + 10)), Vec::new());
        window.at_least(1).unwrap();
        window.consume(4);
        assert_eq!(window.at_least(READ + 6).unwrap().len(), READ + 6);
        assert_eq!(window.at_least(READ + 7).unwrap().len(), READ + 6);
    }
}
