//! Panics in the middle of a capture: what was panicked at is lost, what follows is read.

use super::Order::{Big, Little};
use super::made::{enhanced, frame, gzip, interface, obsolete, plain, section, simple};
use super::reader;
use crate::file::{Fault, ReplaySource};
use crate::testing::{Kept, Touchy};
use mermin_flow::{Polled, Source, Tally};
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Reads a capture of packets to the ports 0, 1, 2, …: all but every seventh.
fn read(bytes: Vec<u8>, packets: u16, budget: usize) {
    let (mut source, _) = reader(bytes);
    let mut touchy = Touchy::default();
    while touchy.poll(&mut source, budget) != Polled::Ended {}
    touchy.finish(&mut source);
    let taken: Vec<_> = (0..packets).filter(|port| port % 7 != 6).collect();
    assert_eq!(touchy.kept.ports(), taken);
    assert_eq!(touchy.panics, u64::from(packets) / 7);
    assert!(source.damages().is_empty());
}

#[test]
fn a_panic_costs_the_packet_that_it_was_at() {
    for budget in [1, 3, 512] {
        read(plain(100), 100, budget);
        read(gzip(&plain(100)), 100, budget);
        for order in [Little, Big] {
            let mut capture = [section(order), interface(order, 1, 0, &[])].concat();
            for port in 0..100 {
                let frame = frame(port, 10);
                let wire = frame.len() as u32;
                // The last goes by the fast way; what lies before it is read block by block.
                capture.extend(match port % 3 {
                    0 => obsolete(order, 0, 9, &frame),
                    1 => simple(order, &frame, wire),
                    _ => enhanced(order, 0, 9, &frame, wire),
                });
            }
            read(capture, 100, budget);
        }
    }
}

/// Reads some bytes, then panics at every call.
struct Broken(io::Cursor<Vec<u8>>);

impl Read for Broken {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(into)?;
        assert!(read > 0, "this panic is the test's");
        Ok(read)
    }
}

#[test]
fn a_panic_that_is_no_packets_ends_the_file() {
    // In the middle of a record, and before the format is known.
    for (bytes, packets) in [(plain(9)[..400].to_vec(), 5), (Vec::new(), 0)] {
        let input = Broken(io::Cursor::new(bytes));
        let mut source = ReplaySource::from_reader("broken", Box::new(input), Default::default());
        let (mut kept, mut panics) = (Kept::default(), 0);
        loop {
            match catch_unwind(AssertUnwindSafe(|| source.poll(&mut kept, 3))) {
                Ok(Polled::Ended) => break,
                Ok(_) => {}
                Err(_) => {
                    panics += 1;
                    assert_eq!(source.after_panic(kept.tally()), Tally::ZERO);
                }
            }
        }
        assert_eq!((kept.0.len(), panics), (packets, 1));
        let [damage] = source.damages() else { panic!("{:?}", source.damages()) };
        assert!(damage.file == "broken" && matches!(damage.fault, Fault::Panic), "{damage}");
    }
}
