//! Short TCP connections while the kernel sums packets up: each has a record of its own, with the right end.

use crate::live::nothing_lost;
use mermin_tests::need;
use mermin_tests::need::{namespaces, tool};
use mermin_tests::netns::{LEFT, Net, RIGHT};
use mermin_tests::program::{Outcome, Program, Running};
use mermin_tests::record::Record;
use mermin_tests::witness::interface;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrV4, SocketFlags, SocketType, bind, connect, socket_with, sockopt,
};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Connections of [`each_short_connection_has_a_record_with_the_right_end`], to so many ports.
const CONNECTIONS: u64 = 100_000;
const PORTS: u16 = 8;
const PORT: u16 = 8_100;
/// What client and server say.
const REQUEST: &[u8] = &[b'q'; 100];
const ANSWER: &[u8] = &[b'a'; 300];

/// Client and server on different CPUs, so that a flow's packets are counted by more than one.
fn pin(to: usize) {
    let mut cpus = CpuSet::new();
    cpus.set(to % thread::available_parallelism().map_or(1, Into::into));
    sched_setaffinity(None, &cpus).expect("a CPU of this machine");
}

/// Answers so many connections, each once its request is there; the client closes first. A word for each whose end the server
/// has seen.
fn serve(port: u16, connections: u64) -> Receiver<()> {
    let listener = TcpListener::bind((RIGHT, port)).expect("the port is free");
    let (ended, ends) = sync_channel(connections as usize);
    thread::spawn(move || {
        pin(1);
        for stream in listener.incoming().take(connections as usize) {
            let mut stream = stream.expect("a connection");
            let mut request = [0; REQUEST.len()];
            if stream.read_exact(&mut request).is_ok() && stream.write_all(ANSWER).is_ok() {
                let _ = stream.read(&mut request);
                let _ = ended.send(());
            }
        }
    });
    ends
}

fn exchange(stream: &mut TcpStream) {
    stream.write_all(REQUEST).expect("the server listens");
    stream.read_exact(&mut [0; ANSWER.len()]).expect("the server answers");
}

/// All ends to the ports of the test, by time; what is common to all of them is checked.
fn ends(outcome: &Outcome) -> Vec<Record> {
    let records = outcome.records().into_iter();
    let mut ends: Vec<_> = records
        .filter(|record| record.whole("destination.port").is_some_and(|port| port >= PORT.into()))
        .collect();
    ends.sort_by(|a, b| a.text("flow.start_time").cmp(b.text("flow.start_time")));
    for record in &ends {
        assert_eq!(record.text("flow.event"), "end", "no connection lasts for an interval");
        assert_eq!(record.text("flow.initiator"), "syn");
        assert_eq!((record.text("source.address"), record.text("destination.address")), (LEFT, RIGHT));
        assert_eq!(record.text("flow.end_reason"), "end of flow detected");
    }
    ends
}

/// Captures on the left end, and ends a flow a second after its connection.
fn capture(net: &Net) -> Running {
    let program = Program::new("run").args(["-i", "left", "--source", "ebpf"]).inside(&net.left.name);
    let program = program.set("capture.mode=aggregate").set("flow.tcp_fin_timeout=1s");
    // Their ends come in a burst, and each is to be written, also where the disk is slow.
    program.set("flow.tcp_rst_timeout=1s").set("export.queue_capacity=200000").start()
}

/// Stops it once it has written so many records: all that are expected. Where they don't come, what came is for the test to judge.
fn stop(running: Running, records: u64) -> Outcome {
    const AT_MOST: Duration = Duration::from_secs(30);
    let asked = Instant::now();
    while (running.stdout().lines().count() as u64) < records && asked.elapsed() < AT_MOST {
        thread::sleep(Duration::from_millis(200));
    }
    running.interrupt().kept(0)
}

/// What the interface counted while the agent ran.
fn equals_the_interface(outcome: &Outcome, frames: [u64; 2]) {
    assert_eq!(
        outcome.number("/packets_processed"),
        frames[1] - frames[0],
        "frames that the interface counted"
    );
    nothing_lost(outcome);
}

fn frames(net: &Net) -> u64 {
    let counted = interface(&net.left, "left");
    counted.received + counted.sent
}

#[test]
fn each_short_connection_has_a_record_with_the_right_end() {
    need!(namespaces(), tool("ethtool"));
    let net = Net::new("short", false);
    let _ends: Vec<_> = net.right.within(|| {
        let each = CONNECTIONS / u64::from(PORTS);
        (PORT..PORT + PORTS).map(|port| serve(port, each)).collect()
    });
    let before = frames(&net);
    let running = capture(&net);
    net.left.within(|| {
        pin(0);
        for connection in 0..CONNECTIONS {
            let port = PORT + (connection % u64::from(PORTS)) as u16;
            exchange(&mut TcpStream::connect((RIGHT, port)).expect("the server listens"));
        }
    });
    let outcome = stop(running, CONNECTIONS);
    equals_the_interface(&outcome, [before, frames(&net)]);
    let ends = ends(&outcome);
    assert_eq!(ends.len() as u64, CONNECTIONS);
    for record in &ends {
        let (forward, reverse) = (record.deltas(false), record.deltas(true));
        // SYN, ACK, request, FIN and at most two more ACKs; SYN+ACK, answer, FIN and at most two ACKs.
        assert!((4..=6).contains(&forward.packets) && (3..=5).contains(&reverse.packets), "{record:?}");
        assert!(record.0["flow.tcp.flags"].to_string().contains("FIN"), "{record:?}");
        assert_eq!(record.text("flow.tcp.state"), "time_wait", "{record:?}");
    }
}

/// A connection from a port of the client's choice, that the client resets.
fn reset(from: u16, to: u16) {
    // Not for children that other tests start meanwhile: a connection lasts as long as anybody has it.
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).expect("a socket");
    sockopt::set_socket_reuseaddr(&socket, true).expect("an option");
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).expect("an option");
    let address = |ip: &str, port| SocketAddrV4::new(ip.parse::<Ipv4Addr>().expect("an address"), port);
    bind(&socket, &address(LEFT, from)).expect("the port is free");
    let began = Instant::now();
    // One that is just being started has it until it runs its program.
    while let Err(error) = connect(&socket, &address(RIGHT, to)) {
        assert!(error == Errno::ADDRNOTAVAIL && began.elapsed() < Duration::from_secs(5), "{error}");
        thread::sleep(Duration::from_micros(200));
    }
    exchange(&mut TcpStream::from(socket));
}

/// Many connections with the same addresses and ports within one epoch, the server's data counted by another CPU than what opens
/// and resets them.
#[test]
fn connections_that_use_the_same_ports_again_within_an_epoch_are_told_apart() {
    const TUPLES: u16 = 8;
    const EACH: u16 = 250;
    need!(namespaces(), tool("ethtool"));
    let net = Net::new("reuse", false);
    let reset_seen = net.right.within(|| serve(PORT, u64::from(TUPLES * EACH)));
    let before = frames(&net);
    let running = capture(&net);
    net.left.within(move || {
        pin(0);
        for connection in 0..TUPLES * EACH {
            reset(40_000 + connection / EACH, PORT);
            // While the server is in a system call its kernel puts the reset off, and takes the next SYN for the old
            // connection's: it is lost, or answered with what is to be reset.
            reset_seen.recv_timeout(Duration::from_secs(5)).expect("the server sees the reset");
        }
    });
    let outcome = stop(running, u64::from(TUPLES * EACH));
    equals_the_interface(&outcome, [before, frames(&net)]);
    let mut tuples = BTreeMap::<_, u64>::new();
    for record in ends(&outcome) {
        *tuples.entry(record.whole("source.port")).or_default() += 1;
        let (forward, reverse) = (record.deltas(false), record.deltas(true));
        // SYN, ACK, request, RST and at most two ACKs; SYN+ACK, answer and at most two ACKs.
        assert!((4..=6).contains(&forward.packets) && (2..=4).contains(&reverse.packets), "{record:?}");
        let payload = |counts: mermin_tests::tuple::Counts| counts.bytes - 40 * counts.packets;
        // Options: 20 bytes with SYN, 12 or none with what follows.
        let (asked, answered) = (payload(forward), payload(reverse));
        let said = |payload: u64, packets: u64, all: u64| {
            (all + 20..=all + 20 + 12 * (packets - 1)).contains(&payload)
        };
        assert!(said(asked, forward.packets, REQUEST.len() as u64), "{record:?}");
        assert!(said(answered, reverse.packets, ANSWER.len() as u64), "{record:?}");
    }
    let expected = (0..TUPLES).map(|tuple| (Some(u64::from(40_000 + tuple)), u64::from(EACH)));
    assert_eq!(tuples, expected.collect());
}
