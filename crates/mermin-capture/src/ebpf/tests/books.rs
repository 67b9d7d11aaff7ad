//! Epochs that can't be closed as they should.

use super::can_run;
use super::frames::ethernet;
use crate::ebpf::book::{Books, Closer};
use crate::ebpf::grace::Grace;
use crate::ebpf::mapped::Mapped;
use crate::ebpf::object::{Mode, Object, page, program};
use crate::ebpf::pulse::Pulse;
use crate::ebpf::ring::Ring;
use aya::TestRunOptions;
use aya::programs::TestRun as _;
use mermin_flow::Hook;
use mermin_wire::Link;
use std::time::Duration;

/// While a flip is tried in vain the programs count in the next epoch. At the end that is in a book, too.
#[test]
fn what_was_counted_while_the_kernel_gave_no_grace_period_is_in_a_book() {
    if !can_run("what_was_counted_while_the_kernel_gave_no_grace_period_is_in_a_book") {
        return;
    }
    let mut object = Object::load(page(), Mode::Packet, None, None).unwrap();
    let control = Mapped::new(&object).unwrap();
    let ring = Ring::new(object.map("RING").unwrap(), object.ring_bytes).unwrap();
    let grace = Grace::refused().unwrap();
    let pulse = Pulse::new(&mut object, &control, Duration::from_secs(60)).unwrap();
    let closer = Closer::new(Mapped::new(&object).unwrap(), grace, pulse, None, ring.produced());
    let mut books = Books::start(closer).unwrap();
    let frame = &ethernet()[0];
    let count = |object: &mut Object| {
        let ingress = object.program(program(Link::Ethernet, Hook::Ingress)).unwrap();
        ingress.test_run(TestRunOptions { data_in: Some(frame), ..TestRunOptions::new() }).unwrap();
    };
    count(&mut object);
    assert!(matches!(&books.last()[..], [Err(_)]), "there is no grace period");
    // In the middle of another try.
    control.go_live(1);
    count(&mut object);
    count(&mut object);
    control.go_live(0);
    count(&mut object);
    let seen = books.after_the_programs().into_iter().map(|book| {
        let book = book.unwrap();
        assert!(book.balances());
        book.seen.buffers
    });
    assert_eq!(seen.collect::<Vec<_>>(), [2, 2]);
}
