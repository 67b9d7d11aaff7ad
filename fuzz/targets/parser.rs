//! Any bytes as a frame of any link: the walk ends, each way of walking says the same, and the counts add up.
//!
//! Input: link kind, what the source knows beside the bytes, where the kernel's linear part ends, two bytes of wire
//! length beyond (or short of) the captured bytes, then the frame.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mermin_wire::{Buffer, Headers, Link, Next, Unmetered, count, parse, step, straight, walk};

const LINKS: [Link; 6] =
    [Link::Ethernet, Link::Ip, Link::LinuxSll, Link::LinuxSll2, Link::BsdNull, Link::BsdLoop];

fuzz_target!(|data: &[u8]| {
    let Some((&[link, beside, linear, high, low], frame)) = data.split_first_chunk::<5>() else { return };
    let link = LINKS[usize::from(link) % LINKS.len()];
    let difference = i16::from_be_bytes([high, low]);
    let captured = u32::try_from(frame.len()).expect("inputs are short");
    let wire_length = captured.saturating_add_signed(i32::from(difference));
    let outer_tag = (beside & 1 != 0).then_some(u16::from(beside) << 4 | 7);
    let start = Headers::new(wire_length, outer_tag);

    let mut headers = start;
    let outcome = parse(link, frame, &mut headers);
    assert_eq!((headers, outcome), by_steps(link, frame, start), "the straight line is a short cut");
    let linear = &frame[..frame.len().min(usize::from(linear))];
    assert_eq!((headers, outcome), first_linear(link, linear, frame, start), "what is cut can be read again");

    assert!(headers.network <= wire_length.max(captured), "the IP header begins within the frame");
    let buffer = Buffer {
        length: wire_length,
        segment_size: if beside & 2 != 0 { u32::from(beside) << 3 } else { 0 },
        segments: u32::from(beside >> 4),
        tag_beside: outer_tag.is_some(),
    };
    match outcome {
        Ok(()) => check_counts(&headers, &buffer),
        Err(reason) => assert_eq!(reason, headers.unmetered()),
    }
});

fn by_steps(link: Link, frame: &[u8], mut headers: Headers) -> (Headers, Result<(), Unmetered>) {
    let mut next = link.first();
    while !next.is_end() {
        next = step(frame, &mut headers, next);
    }
    (headers, if next == Next::Done { Ok(()) } else { Err(headers.unmetered()) })
}

/// As in the kernel: the straight line sees the linear part only, what is left goes over all bytes.
fn first_linear(
    link: Link,
    linear: &[u8],
    frame: &[u8],
    mut headers: Headers,
) -> (Headers, Result<(), Unmetered>) {
    let untouched = headers.reason;
    let next = straight(linear, link, &mut headers);
    let outcome = walk(frame, &mut headers, next);
    // A read in vain leaves its reason, which says nothing once the walk is completed.
    if outcome.is_ok() {
        headers.reason = untouched;
    }
    (headers, outcome)
}

fn check_counts(headers: &Headers, buffer: &Buffer) {
    let counts = count(headers, buffer);
    assert!(counts.packets >= 1);
    assert!(counts.ip_bytes <= counts.frame_bytes, "{counts:?}");
    assert!(counts.frame_bytes >= u64::from(buffer.length), "{counts:?}");
    if buffer.segment_size == 0 {
        assert_eq!(counts.packets, 1);
    } else {
        assert!(!counts.length_over_frame);
    }
}
