//! A real Prometheus scrapes a live agent every second: the ledger's equation holds in one expression, and the number of
//! series doesn't depend on the traffic.

use mermin_tests::need;
use mermin_tests::need::namespaces;
use mermin_tests::netns::{Net, RIGHT};
use mermin_tests::program::Program;
use mermin_tests::servers::http::{Client, Request};
use mermin_tests::servers::place::Place;
use mermin_tests::servers::prometheus::{Prometheus, promtool};
use std::net::UdpSocket;

const FLOWS: u16 = 50_000;

/// How far all three books are from balance, in one number.
const LEDGER: &str = "
  abs(mermin_seen_buffers_total
    - sum without (verdict, reason) (mermin_verdict_buffers_total)
    - sum without (place) (mermin_in_flight_buffers))
  + abs(mermin_seen_buffer_bytes_total
    - sum without (verdict, reason) (mermin_verdict_buffer_bytes_total)
    - sum without (place) (mermin_in_flight_buffer_bytes))
  + abs(sum without (verdict, reason) (mermin_verdict_packets_total{verdict=\"metered\"})
    - mermin_released_packets_total
    - sum without (place) (mermin_resident_packets))
  + sum without (output) (abs(mermin_output_handed_packets_total
    + mermin_output_recovered_packets_total
    - sum without (outcome, reason) (mermin_output_settled_packets_total)
    - sum without (place) (mermin_output_waiting_packets)))";

/// Two datagrams to each of as many ports, from two sockets: 100 000 flows of one packet.
fn crowd(place: &Place) {
    place.inside(|| {
        for _ in 0..2 {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            for port in 1..=FLOWS {
                // Answers that nobody listens there come back as errors of later calls.
                while socket.send_to(&[7; 32], (RIGHT, port)).is_err() {}
            }
        }
    });
}

#[test]
fn the_ledger_holds_in_one_expression_and_series_are_bounded() {
    need!(namespaces(), Prometheus::installed());
    let net = Net::new("prom", false);
    let place = Place::Namespace(net.left.name.clone());
    let address = place.free_address();
    let mut program = Program::new("run")
        .args(["-i", "left"])
        .output("none")
        .inside(&net.left.name)
        .set(&format!("server.listen={address}"))
        .set("pipeline.enable_metrics=true")
        .set("pipeline.packet_channel_capacity=200000");
    for key in ["idle", "udp", "icmp", "active"] {
        program = program.set(&format!("flow.{key}_timeout=10m"));
    }
    let agent = program.start();
    let client = Client::plain(&place, address);
    let prometheus = Prometheus::scraping(&place, address);
    let one = |expression: &str| {
        let samples = prometheus.wait_for(expression, |samples| samples.len() == 1);
        samples[0].value
    };
    let series = one("scrape_samples_scraped{job=\"mermin\"} > 100");
    assert!((one(LEDGER)).abs() < 0.5);

    crowd(&place);
    let flows = f64::from(FLOWS) * 2.0;
    prometheus.wait_for(&format!("mermin_flows_active >= {flows}"), |samples| samples.len() == 1);
    // Prometheus evaluates over the samples of one scrape; a scrape that was no consistent cut says so.
    let consistent = format!("({LEDGER}) and on () (mermin_ledger_consistent == 1)");
    let off = one(&consistent);
    assert!(off.abs() < 0.5, "{off} from balance");
    assert!(one("mermin_resident_packets{place=\"flow_table\"}") >= flows);
    assert!(one("sum(mermin_channel_wait_seconds_count{channel=\"packet_channel\"})") >= 1.0);
    let later = one("scrape_samples_scraped{job=\"mermin\"}");
    assert!((series - later).abs() < 0.5, "{series} series became {later}");

    let page = client.send(Request::get("/metrics")).expect("it answers");
    let (code, said) = promtool(&["check", "metrics"], &page.text());
    assert_eq!((code, said.as_str()), (0, ""), "{said}");
    let _ = agent.interrupt().kept_books(0);
}
