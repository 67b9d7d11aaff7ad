//! An agent that takes more processor time than it may samples packets: what it left out stands in its books, and what its
//! records estimate is what was sent.

use crate::live::nothing_lost;
use mermin_tests::need;
use mermin_tests::need::namespaces;
use mermin_tests::netns::{Net, RIGHT};
use mermin_tests::program::Program;
use mermin_tests::servers::http::{Client, Request};
use mermin_tests::servers::place::Place;
use serde_json::Value;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

const PORT: u16 = 9_999;

/// Sends datagrams of two lengths, some ten thousand a second, until so long after there was `news`, which is asked for now and
/// then, or a minute; how many, and their IP bytes.
fn send(how_long: Duration, news: impl Fn() -> bool) -> (u64, u64) {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let (began, mut asked, mut told) = (Instant::now(), Instant::now(), None::<Instant>);
    let (mut packets, mut bytes) = (0, 0);
    while told.map_or(began.elapsed() < Duration::from_secs(60), |told| told.elapsed() < how_long) {
        if told.is_none() && asked.elapsed() > Duration::from_millis(500) {
            told = news().then(Instant::now);
            asked = Instant::now();
        }
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
    let place = Place::Namespace(net.left.name.clone());
    let address = place.free_address();
    // A thousandth of a core is less than it takes for anything: a step every two seconds or more, of which the third samples.
    let running = Program::new("run")
        .args(["-i", "left"])
        .inside(&net.left.name)
        // What the kernel sums up is never left out.
        .set("capture.mode=packet")
        .set("resources.cpu=0.001")
        .set("flow.active_timeout=2s")
        .set(&format!("server.listen={address}"))
        .start();
    let client = Client::plain(&place, address);
    let samples = || {
        let stats = client.send(Request::get("/stats")).expect("its server answers");
        let stats: Value = serde_json::from_slice(&stats.body).expect("statistics");
        stats.pointer("/ledger/sampled_out/packets").and_then(Value::as_u64) > Some(0)
    };
    let (packets, bytes) = net.left.within(|| send(Duration::from_secs(8), samples));
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
