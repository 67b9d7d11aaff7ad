//! The captures that tests read: the shared ones, and some of the tests' own making with what the shared ones lack.

use mermin_tests::capture_file::{EPOCH, SECOND, link, pcap, pcapng};
use mermin_tests::capture_file::{Pcap, Resolution};
use mermin_tests::frame::number::{DOT1AD, DOT1Q, ESP, GRE};
use mermin_tests::frame::{
    Ends, Segment, ethernet, ethernet_of, flag, fragments, icmp, ip, sctp, tagged, tcp, udp,
};
use mermin_tests::frame::{with_ah, with_extension};
use mermin_tests::need;
use std::path::{Path, PathBuf};

/// All shared captures, sorted.
pub(crate) fn shared() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![need::captures().expect("asked for before")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if [".pcap", ".pcapng", ".pcap.gz"].iter().any(|end| name.ends_with(end)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Frames with every header that is decoded, in odd combinations.
pub(crate) fn oddities() -> Vec<(u64, Vec<u8>)> {
    let ends4 = Ends::new("10.1.0.1:40000", "10.1.0.2:443");
    let ends6 = Ends::new("[fd01::1]:40000", "[fd01::2]:443");
    let mut frames = Vec::new();
    for ends in [ends4, ends6] {
        let plain = udp(ends, b"plain");
        let long = udp(ends.back(), &[7; 4000]);
        let (from, to) = (ends.source.ip(), ends.destination.ip());
        let echo = icmp(ends, if from.is_ipv4() { 8 } else { 128 }, 0, 1, &[0; 3000]);
        frames.push(ethernet(&plain));
        frames.push(tagged(&ethernet(&plain), &[(DOT1Q, 7)]));
        frames.push(tagged(&ethernet(&plain), &[(DOT1AD, 8), (DOT1Q, 9)]));
        frames.push(ethernet(&sctp(ends, b"chunk")));
        frames.push(ethernet(&tcp(ends, Segment { flags: flag::SYN, ..Segment::default() }, &[])));
        frames.push(ethernet(&with_ah(&plain)));
        frames.push(ethernet(&ip(from, to, ESP, &[0; 40])));
        frames.push(ethernet(&ip(from, to, GRE, &[&[0, 0, 8, 0][..], &udp(ends4, b"inner")].concat())));
        frames.push(ethernet(&ip(from, to, 4, &udp(ends4, b"inner"))));
        frames.push(ethernet(&ip(from, to, 41, &udp(ends6, b"inner"))));
        frames.push(ethernet(&ip(from, to, 253, &[1, 2, 3])));
        frames.extend(fragments(&long, 77, 1400).iter().map(|part| ethernet(part)));
        frames.extend(fragments(&echo, 78, 1400).iter().map(|part| ethernet(part)));
        // Out of order: the second comes before the first and has no ports yet.
        let parts = fragments(&long, 79, 1400);
        frames.extend([1, 0, 2].map(|index: usize| ethernet(&parts[index])));
        let mut padded = ethernet(&udp(ends, b"x"));
        padded.resize(padded.len() + 9, 0);
        frames.push(padded);
    }
    for kind in [0, 43, 60] {
        frames.push(ethernet(&with_extension(&udp(ends6, b"behind an extension"), kind)));
    }
    let chain = with_extension(&with_extension(&with_extension(&udp(ends6, b"three"), 60), 43), 0);
    frames.push(ethernet(&chain));
    frames.extend(
        fragments(&with_extension(&udp(ends6, &[3; 3000]), 60), 80, 1400).iter().map(|part| ethernet(part)),
    );
    frames.push(ethernet_of(0x0806, &[0; 28]));
    frames.push(ethernet_of(0x88cc, &[0; 50]));
    frames.push(ethernet_of(0x9000, &[0; 46]));
    frames.into_iter().zip(0..).map(|(frame, index)| (EPOCH + index * 1_000_000, frame)).collect()
}

/// Captures of the tests' own making, written into `folder`.
pub(crate) fn own(folder: &Path) -> Vec<PathBuf> {
    let frames = oddities();
    let short = {
        let write = || {
            let mut capture = Pcap::new(Vec::new(), link::ETHERNET, Resolution::Microseconds, 64)?;
            for (time, frame) in &frames {
                capture.frame(*time, frame)?;
            }
            capture.finish()
        };
        write().map_err(|error: std::io::Error| error).expect("memory")
    };
    let raw = {
        let write = || {
            let mut capture = Pcap::new(Vec::new(), link::RAW, Resolution::Nanoseconds, 65535)?;
            for (time, frame) in
                frames.iter().filter(|(_, frame)| matches!(frame[12..14], [8, 0] | [0x86, 0xdd]))
            {
                capture.frame(*time, &frame[14..])?;
            }
            capture.finish()
        };
        write().map_err(|error: std::io::Error| error).expect("memory")
    };
    let web = mermin_tests::example::web();
    let files = [
        ("oddities.pcap", pcap(&frames)),
        ("oddities.pcapng", pcapng(&frames)),
        ("oddities-64.pcap", short),
        ("oddities-raw.pcap", raw),
        ("web.pcap", web),
    ];
    let write = |(name, bytes): (&str, Vec<u8>)| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).expect("the folder takes a file");
        path
    };
    files.into_iter().map(write).collect()
}

/// Many short flows over ten minutes of capture time: timeouts, FIN and RST, both directions.
pub(crate) fn short_flows(flows: u32) -> Vec<u8> {
    let mut frames = Vec::new();
    for index in 0..flows {
        let start = EPOCH + u64::from(index) * (600 * SECOND / u64::from(flows));
        let client = format!("10.2.{}.{}:{}", index / 200 % 250, index % 200 + 1, 20_000 + index % 40_000);
        let ends = Ends::new(&client, if index % 3 == 0 { "10.3.0.1:53" } else { "10.3.0.2:80" });
        if index % 3 == 0 {
            frames.push((start, ethernet(&udp(ends, b"query"))));
            frames.push((start + 40 * SECOND * u64::from(index % 2), ethernet(&udp(ends.back(), b"answer"))));
        } else {
            let last = if index % 3 == 1 { flag::FIN | flag::ACK } else { flag::RST };
            for (step, (ends, flags)) in [
                (ends, flag::SYN),
                (ends.back(), flag::SYN | flag::ACK),
                (ends, flag::ACK),
                (ends, last),
                (ends.back(), last),
            ]
            .into_iter()
            .enumerate()
            {
                let segment = Segment { flags, ..Segment::default() };
                frames.push((start + step as u64 * 1_000_000, ethernet(&tcp(ends, segment, &[]))));
            }
        }
    }
    frames.sort_by_key(|(time, _)| *time);
    pcap(&frames)
}
