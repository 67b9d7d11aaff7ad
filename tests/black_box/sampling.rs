//! An agent that takes more processor time than it may samples packets: what it left out stands in its books, and what its
//! records estimate is what was sent.

use crate::live::nothing_lost;
use mermin_tests::need;
use mermin_tests::need::namespaces;
use mermin_tests::netns::{Net, RIGHT};
use mermin_tests::program::Program;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

const PORT: u16 = 9_999;

/// Sends datagrams of two lengths for so long, some ten thousand a second; how many, and their IP bytes.
fn send(how_long: Duration) -> (u64, u64) {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let (began, mut packets, mut bytes) = (Instant::now(), 0, 0);
    while began.elapsed() < how_long {
        for length in [100, 1_000].into_iter().cycle().take(200) {
            // Answers that nobody listens there come back as errors of later calls.
            while socket.send_to(&vec![7; length], (RIGHT, PORT)).is_err() {}
            packets += 1;
            bytes += length as u64 + 28;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    (packets, bytes)
}

#[test]
fn what_is_estimated_is_what_was_sent() {
    need!(namespaces());
    let net = Net::new("sample", false);
    // A thousandth of a core is less than it takes for anything: a step every two seconds, of which the third samples.
    let running = Program::new("run")
        .args(["-i", "left"])
        .inside(&net.left.name)
        // What the kernel sums up is never left out.
        .set("capture.mode=packet")
        .set("resources.cpu=0.001")
        .set("flow.active_timeout=2s")
        .start();
    let (packets, bytes) = net.left.within(|| send(Duration::from_secs(14)));
    let outcome = running.interrupt().kept(0);
    nothing_lost(&outcome);
    assert!(outcome.number("/ledger/sampled_out/packets") > 0, "{}", outcome.stderr);

    let (mut metered, mut found, mut variances) = (0, [0, 0], [0.0, 0.0]);
    for record in outcome.records() {
        if record.whole("destination.port") != Some(PORT.into()) {
            continue;
        }
        metered += record.count("flow.packets.delta");
        for (at, what) in ["packets", "bytes"].into_iter().enumerate() {
            let estimate = record.whole(&format!("flow.{what}.estimate"));
            found[at] += estimate.unwrap_or_else(|| record.count(&format!("flow.{what}.delta")));
            let error = record.whole(&format!("flow.{what}.estimate_error")).unwrap_or_default();
            variances[at] += (error as f64).powi(2);
        }
        if let Some(most) = record.whole("flow.sampling.rate.max") {
            let least = record.count("flow.sampling.rate.min");
            assert!(2 <= least && least <= most && most <= 64, "{record:?}");
        }
    }
    assert!(metered < packets, "{metered} of {packets} were metered");
    for ((sent, found), variance) in [packets, bytes].into_iter().zip(found).zip(variances) {
        let off = found as f64 - sent as f64;
        assert!(off.abs() < 5.0 * variance.sqrt(), "{found} of {sent}, give or take {}", variance.sqrt());
    }
}
