//! Prometheus and promtool.

use crate::ends_with;
use mermin_tests::need;
use mermin_tests::servers::place::Place;
use mermin_tests::servers::prometheus::{Prometheus, promtool};
use std::io::{Read, Write};
use std::net::TcpListener;

/// Answers every request with this page, for as long as the test program runs.
fn serve(page: &'static str) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let length = page.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {length}\r\n\
                 Connection: close\r\n\r\n{page}"
            );
        }
    });
    address
}

#[test]
fn scrapes_and_answers() {
    need!(Prometheus::installed());
    let address =
        serve("# TYPE packets_total counter\npackets_total{way=\"in\"} 40\npackets_total{way=\"out\"} 2\n");
    let prometheus = Prometheus::scraping(&Place::Here, address);
    let sum = prometheus.wait_for("sum(packets_total)", |samples| !samples.is_empty());
    assert!(sum.len() == 1 && (sum[0].value - 42.0).abs() < 1e-9, "{sum:?}");
    let one = prometheus.query(r#"packets_total{way="in"}"#);
    assert_eq!((one[0].labels["way"].as_str(), one[0].value as u64), (Some("in"), 40));
    assert_eq!(prometheus.query("scalar(sum(packets_total)) == bool 42")[0].value as u64, 1);
    assert!(prometheus.query("no_such_metric").is_empty());
    assert!(ends_with(prometheus, Prometheus::process));
}

#[test]
fn promtool_judges() {
    need!(Prometheus::installed());
    let clean = "# HELP packets_total Packets.\n# TYPE packets_total counter\npackets_total 1\n";
    assert_eq!(promtool(&["check", "metrics"], clean).0, 0);
    assert_eq!(promtool(&["check", "metrics"], &clean.replace("_total", "")).0, 3);
    assert_eq!(promtool(&["check", "metrics"], "packets_total is one\n").0, 1);
}
