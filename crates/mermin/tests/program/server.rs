//! The HTTP server and `mermin status`, asked by a client that writes its requests by hand.

use super::live::{has_privileges, signal};
use super::{Ran, mermin, run};
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

/// Something that must come to be does so within this time.
pub(super) const LONG: Duration = Duration::from_secs(20);
const SERVING: &str = "Serving metrics, health and status on ";

/// A running agent. Ended when the test lets go of it.
pub(super) struct Agent {
    pub(super) child: Child,
    err: BufReader<ChildStderr>,
    /// What it had said when it began to answer.
    said: String,
    url: String,
    pub(super) address: SocketAddr,
}

impl Agent {
    pub(super) fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut err = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let url = loop {
            let mut line = String::new();
            assert_ne!(err.read_line(&mut line).unwrap(), 0, "it ended: {said}");
            said.push_str(&line);
            if let Some((_, url)) = line.trim_end().split_once(SERVING) {
                break url.to_owned();
            }
        };
        let address = url.split_once("://").unwrap().1.parse().unwrap();
        Self { child, err, said, url, address }
    }

    /// A replay that waits for its input, and needs no privilege.
    pub(super) fn replay(arguments: &[&str]) -> Self {
        let mut agent = Self::start(&mut mermin(&[&["replay", "-", "-o", "none"], arguments].concat()));
        agent.child.stdin.as_mut().unwrap().write_all(&super::capture(3)).unwrap();
        agent
    }

    fn ask(&self, request: &str) -> Answer {
        ask(self.address, request)
    }

    pub(super) fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    }

    /// Ends it and returns the rest of what it says.
    pub(super) fn end(mut self) -> String {
        signal(&self.child, "-INT");
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.err.read_to_string(&mut rest).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{rest}");
        rest
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
pub(super) struct Answer {
    status: u16,
    head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

fn ask(address: SocketAddr, request: &str) -> Answer {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).unwrap();
    answer(&mut stream)
}

/// What comes until the other side closes.
fn answer(stream: &mut TcpStream) -> Answer {
    let mut text = Vec::new();
    // A server that closes while bytes are under way resets the connection: what came before counts.
    let _ = stream.read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

pub(super) fn metric(page: &str, series: &str) -> f64 {
    let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {series} in {page}")).parse().unwrap()
}

#[test]
fn a_replay_answers_what_it_is_asked_and_nothing_else() {
    let agent = Agent::replay(&["--set", "server.listen=127.0.0.1:0"]);
    let metrics = agent.get("/metrics");
    assert_eq!(metrics.status, 200);
    assert!(
        metrics.head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
        "{}",
        metrics.head
    );
    assert!(!metrics.body.contains("mermin_channel_depth"), "details are told only where they are wanted");
    assert!((metric(&metrics.body, "mermin_flow_table_capacity_flows") - 131_072.0).abs() < 0.1);
    let open = agent.ask(
        "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text\r\nConnection: close\r\n\r\n",
    );
    assert!(open.head.contains("application/openmetrics-text") && open.body.ends_with("# EOF\n"), "{open:?}");
    assert_eq!(
        (agent.get("/livez").status, agent.get("/readyz").json()["ready"].clone()),
        (200, true.into())
    );
    let stats = agent.get("/stats").json();
    assert!(stats["ledger"]["metered"]["packets"].is_u64() && stats["consistent"].is_boolean(), "{stats}");
    let status = agent.get("/status").json();
    assert_eq!((&status["command"], &status["kubernetes"]["state"]), (&"replay".into(), &"off".into()));
    assert!(agent.get("/").body.contains("/flows"));
    for (path, code, sentence) in [
        ("/nothing", 404, "there is no /nothing here; there are /metrics, /livez,"),
        ("/metrics?x=1", 400, "/metrics has no parameter x; there are: none"),
        ("/flows?limit=1001", 400, "limit is a whole number from 0 to 1000"),
        ("/flows?order=size", 400, "order is bytes, packets or recent"),
        ("/status?format=xml", 400, "format is json or text"),
    ] {
        let answer = agent.get(path);
        assert!(answer.status == code && answer.body.contains(sentence), "{path}: {answer:?}");
    }
    let post = agent.ask("POST /stats HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert!(post.status == 405 && post.head.contains("allow: get, head"), "{post:?}");
    let body = agent.ask("GET /stats HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
    assert!(body.status == 413 && body.head.contains("connection: close"), "{body:?}");
    let long = format!("GET /stats HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(20_000));
    assert_eq!(agent.ask(&long).status, 431);
    let head = agent.ask("HEAD /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(
        head.status == 200 && head.body.is_empty() && !head.head.contains("content-length: 0"),
        "{head:?}"
    );
    let address = agent.address;
    assert!(agent.end().contains("All books balance"));
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[test]
fn idle_and_slow_clients_take_places_but_never_all_for_long() {
    let agent = Agent::replay(&["--set", "server.listen='[::]:0'"]);
    let at = |host: IpAddr| SocketAddr::new(host, agent.address.port());
    let (here, elsewhere) = (at(Ipv6Addr::LOCALHOST.into()), at(Ipv4Addr::LOCALHOST.into()));
    // Half a request each.
    let mut slow: Vec<_> = (0..16).map(|_| connect(here)).collect();
    slow.iter_mut().for_each(|stream| stream.write_all(b"GET /livez HT").unwrap());
    // Connections are taken in order, so the next one finds no place.
    let refused = answer(&mut connect(here));
    assert!(refused.status == 503 && refused.body.contains("too many connections"), "{refused:?}");
    let health = "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(ask(elsewhere, health).status, 200, "others have places of their own");
    slow.pop();
    let began = Instant::now();
    let served = loop {
        let answer = ask(here, health);
        if answer.status == 200 || began.elapsed() > LONG {
            break answer;
        }
    };
    assert_eq!(served.status, 200, "a place that was given up is free again");
    // Who does not finish its request is not waited for.
    let mut end = Vec::new();
    let _ = slow[0].read_to_end(&mut end);
    assert!(!String::from_utf8_lossy(&end).contains("200 OK"));
}

#[test]
fn a_token_opens_all_but_health_and_can_be_renewed() {
    let folder = tempfile::tempdir().unwrap();
    let path = super::written(folder.path(), "token", b"first\n");
    let file = format!("server.token_file={}", path.display());
    let agent = Agent::replay(&["--set", "server.listen=127.0.0.1:0", "--set", &file]);
    let with = |token: &str, path: &str| {
        agent.ask(&format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        ))
    };
    let bare = agent.get("/metrics");
    assert!(bare.status == 401 && bare.head.contains("www-authenticate: bearer"), "{bare:?}");
    assert_eq!(with("second", "/stats").status, 401);
    assert_eq!(with("first", "/stats").status, 200);
    let ready = agent.get("/readyz");
    assert!(ready.status == 200 && ready.json().get("checks").is_none(), "{ready:?}");
    assert!(with("first", "/readyz").json()["checks"].is_array());
    let address = agent.address.to_string();
    let Ran { code, err, .. } = run(&["status", "--address", &address]);
    assert!(
        code == 77 && err.contains("wants a token") && err.contains("help: mermin status --token-file"),
        "{err}"
    );
    let token = path.to_str().unwrap();
    let Ran { code, out, err } = run(&["status", "--address", &address, "--token-file", token]);
    assert!(code == 0 && out.contains("  = metered"), "{out}{err}");
    std::fs::write(&path, "the second one\n").unwrap();
    let began = Instant::now();
    while with("the second one", "/stats").status != 200 {
        assert!(began.elapsed() < LONG);
    }
    assert_eq!(with("first", "/stats").status, 401);
}

fn certificate(folder: &Path, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let file = |kind: &str, text: String| {
        super::written(folder, &format!("{name}.{kind}"), text.as_bytes()).to_str().unwrap().to_owned()
    };
    (file("crt", certificate.pem()), file("key", key.serialize_pem()))
}

#[test]
fn with_a_certificate_only_https_is_spoken() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(folder.path(), "own");
    let (other, other_key) = certificate(folder.path(), "other");
    let config = |listen: &str, cert: &str| {
        let text = format!("server:\n  listen: '{listen}'\n  tls: {{cert: {cert}, key: {key}}}\n");
        super::written(folder.path(), "config.yaml", text.as_bytes()).to_str().unwrap().to_owned()
    };
    let agent = Agent::replay(&["-c", &config("127.0.0.1:0", &cert)]);
    assert!(agent.url.starts_with("https://"));
    let mut plain = connect(agent.address);
    plain.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP/1.1"), "{answer:?}");
    let address = agent.address.to_string();
    // The agent's own configuration says which certificate it has.
    let Ran { code, out, err } = run(&["status", "-c", &config(&address, &cert)]);
    assert!(code == 0 && out.contains("  = metered"), "{out}{err}");
    let https = ["status", "--address", &agent.url, "--ca"];
    let Ran { code, err, .. } = run(&[&https[..], &[&cert]].concat());
    assert_eq!(code, 0, "{err}");
    let Ran { code, err, .. } = run(&[&https[..], &[&other]].concat());
    assert!(code == 69 && err.contains("can't be trusted"), "{code} {err}");
    let Ran { code, err, .. } = run(&["status", "-c", &config(&address, &other)]);
    assert!(code == 69 && err.contains("another certificate than server.tls.cert"), "{code} {err}");
    let Ran { code, err, .. } = run(&["status", "--address", &address]);
    assert!(code == 69 && err.contains("no agent answers at"), "{code} {err}");
    // A renewed certificate counts from then on.
    std::fs::copy(&other_key, &key).unwrap();
    std::fs::copy(&other, &cert).unwrap();
    let began = Instant::now();
    while run(&[&https[..], &[&other]].concat()).code != 0 {
        assert!(began.elapsed() < LONG);
    }
}

#[test]
fn a_port_that_is_taken_ends_a_run_before_it_begins() {
    let agent = Agent::replay(&["--set", "server.listen=127.0.0.1:0"]);
    let taken = format!("server.listen={}", agent.address);
    let folder = tempfile::tempdir().unwrap();
    let capture = super::written(folder.path(), "a.pcap", &super::capture(3));
    let Ran { code, out, err } = run(&["replay", capture.to_str().unwrap(), "-o", "json", "--set", &taken]);
    assert_eq!((code, out.as_str()), (69, ""));
    let expected = format!(
        "error: can't listen on {}: address already in use\n  --> server.listen\nhelp: ",
        agent.address
    );
    assert!(err.starts_with(&expected), "{err}");
}

#[test]
fn where_no_agent_answers_status_says_what_to_type() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let Ran { code, out, err } = run(&["status", "--address", &port.to_string()]);
    assert_eq!((code, out.as_str()), (69, ""));
    let expected =
        format!("error: no agent answers at {port}: connection refused\nhelp: an agent answers when it has");
    assert!(err.starts_with(&expected), "{err}");
}

#[test]
fn ipv6_is_listened_on_and_strangers_are_warned_of_once() {
    let agent = Agent::replay(&["--set", "server.listen='[::1]:0'"]);
    assert_eq!(agent.get("/livez").status, 200);
    assert!(agent.address.is_ipv6() && agent.end().matches("server.token_file").count() == 0);
    let agent = Agent::replay(&["--set", "server.listen=0.0.0.0:0"]);
    let port = agent.address.port();
    assert_eq!(ask(([127, 0, 0, 1], port).into(), "GET /livez HTTP/1.0\r\n\r\n").status, 200);
    let said = format!("{}{}", agent.said.clone(), agent.end());
    assert_eq!(said.matches("server.token_file asks for a token").count(), 1, "{said}");
}

/// Sends itself datagrams of `flows` flows over the loopback interface.
fn datagrams(flows: usize) -> Vec<u16> {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = receiver.local_addr().unwrap();
    let send = |bytes: usize| {
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.send_to(&vec![7; bytes], to).unwrap();
        sender.local_addr().unwrap().port()
    };
    (0..flows).map(|flow| send(1_000 + 100 * flow)).collect()
}

#[test]
fn a_live_run_tells_flows_and_a_ledger_that_balances() {
    if !has_privileges("a_live_run_tells_flows_and_a_ledger_that_balances") {
        return;
    }
    let arguments =
        ["run", "-i", "lo", "--source", "af_packet", "-o", "none", "--set", "server.listen=127.0.0.1:0"];
    let agent =
        Agent::start(&mut mermin(&[&arguments[..], &["--set", "pipeline.enable_metrics=true"]].concat()));
    let ports = datagrams(5);
    let address = agent.address.to_string();
    let began = Instant::now();
    let listed = loop {
        let flows = agent.get("/flows?limit=1000&order=packets").json();
        let of_ours = |flow: &&Value| ports.iter().any(|port| flow["source.port"] == *port);
        let ours: Vec<_> = flows["flows"].as_array().unwrap().iter().filter(of_ours).cloned().collect();
        if ours.len() == ports.len() {
            assert_eq!(flows["complete"], true);
            break ours;
        }
        assert!(began.elapsed() < LONG, "{flows}");
    };
    for flow in &listed {
        assert_eq!((&flow["flow.event"], &flow["network.interface.name"]), (&"update".into(), &"lo".into()));
        assert_eq!(flow["flow.packets.total"], 1);
    }
    // The ledger balances in one answer, while packets flow (these requests are packets too).
    let page = agent.get("/metrics").body;
    let sum = |prefix: &str| -> f64 {
        let lines = page.lines().filter(|line| line.starts_with(prefix));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
    };
    assert!((metric(&page, "mermin_ledger_consistent") - 1.0).abs() < 0.1, "{page}");
    let seen = metric(&page, "mermin_seen_buffers_total");
    let accounted = sum("mermin_verdict_buffers_total{") + sum("mermin_in_flight_buffers{");
    assert!(seen >= 5.0 && (seen - accounted).abs() < 0.1, "{seen} {accounted}");
    let metered = metric(&page, "mermin_verdict_packets_total{verdict=\"metered\"}");
    let held = metric(&page, "mermin_released_packets_total") + sum("mermin_resident_packets{");
    assert!((metered - held).abs() < 0.1, "{metered} {held}");
    assert!((metric(&page, "mermin_interfaces_attached") - 1.0).abs() < 0.1);
    assert!(
        page.contains("mermin_channel_wait_seconds_bucket{channel=\"packet_channel\",le=\"+Inf\"}"),
        "{page}"
    );
    let ready = agent.get("/readyz");
    assert!(ready.status == 200 && ready.body.contains("on lo"), "{ready:?}");
    let Ran { code, out, err } = run(&["status", "--address", &address, "--color", "always"]);
    assert_eq!(code, 0, "{err}");
    for part in [
        "run, process ",
        ": \u{1b}[32mready",
        "interfaces                1: lo",
        "packet channel",
        "output none",
        "  = metered",
        "All books balance",
    ] {
        assert!(out.contains(part), "{part} in {out}");
    }
    let Ran { out, .. } = run(&["status", "--address", &address, "--flows", "3"]);
    assert!(
        out.lines().count() <= 3 && out.lines().all(|line| line.contains(" live ") && line.contains(" → ")),
        "{out}"
    );
    let Ran { out, .. } = run(&["status", "--address", &address, "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["capture"]["source"], "af_packet");
    assert!(agent.end().contains("All books balance"));
}
