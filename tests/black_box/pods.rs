//! Links that come, are used and go by the hundred, as on a node whose pods do.
//!
//! Each has a sender at its far end that begins before the link is up and sends datagrams of ever other lengths. The
//! kernel's counter of the near end says how many crossed: the last ones of those that were sent. The record says how
//! many of them were seen: again the last ones, and their lengths, added up, show that none is missing between.

use mermin_tests::need;
use mermin_tests::need::{namespaces, tool};
use mermin_tests::netns::Namespace;
use mermin_tests::program::{Outcome, Program, Running};
use mermin_tests::record::Record;
use mermin_tests::rtnetlink::Rtnetlink;
use std::collections::HashMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// IPv4 and UDP.
const HEADERS: u64 = 28;
const ETHERNET: u64 = 14;

/// How links come.
#[derive(Clone, Copy)]
struct Crowd {
    /// One after the other, this many, with this pause between.
    steady: usize,
    pause: Duration,
    /// Then this many at once.
    burst: usize,
}

impl Crowd {
    fn count(self) -> usize {
        self.steady + self.burst
    }
}

/// One link with its sender.
struct Pod {
    number: usize,
    socket: Option<UdpSocket>,
    /// Times of all datagrams, ns since 1970.
    sent: Vec<u64>,
    due: Instant,
}

/// What became of a link.
struct Gone {
    number: usize,
    /// Right before it was set up.
    up: u64,
    sent: Vec<u64>,
    /// Datagrams that crossed, by the kernel's counter.
    crossed: usize,
}

fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

fn near(number: usize) -> String {
    format!("pod{number}")
}

/// Both ends' addresses: a network of two for each link.
fn addresses(number: usize) -> [Ipv4Addr; 2] {
    let of = |end: usize| Ipv4Addr::from(0x0a40_0000 + u32::try_from(2 * number + end).unwrap());
    [of(0), of(1)]
}

/// Bytes of payload of a sender's datagram.
fn length(number: usize, datagram: usize) -> u64 {
    ((number * 131 + datagram * 7_919) % 997) as u64
}

/// IP bytes of a sender's datagrams.
fn ip_bytes(number: usize, datagrams: std::ops::Range<usize>) -> u64 {
    datagrams.map(|datagram| HEADERS + length(number, datagram)).sum()
}

impl Pod {
    /// Every millisecond for a while, then fifty times a second.
    fn send(&mut self) {
        const OFTEN: usize = 200;
        if Instant::now() < self.due {
            return;
        }
        let [own, other] = addresses(self.number);
        let number = self.number;
        let socket = self.socket.get_or_insert_with(|| {
            let socket = UdpSocket::bind((own, 7_000)).unwrap();
            socket.connect((other, 7_001)).unwrap();
            socket
        });
        let time = now();
        let datagram = [0_u8; 1_000];
        if socket.send(&datagram[..usize::try_from(length(number, self.sent.len())).unwrap()]).is_ok() {
            self.sent.push(time);
        }
        let pause = if self.sent.len() < OFTEN { 1 } else { 20 };
        self.due = Instant::now() + Duration::from_millis(pause);
    }
}

/// The links that are there, and those that were.
#[derive(Default)]
struct Node {
    pods: Mutex<Vec<Pod>>,
    done: AtomicBool,
}

impl Node {
    fn send(&self) {
        while !self.done.load(Ordering::Acquire) {
            self.pods.lock().unwrap_or_else(PoisonError::into_inner).iter_mut().for_each(Pod::send);
            std::thread::sleep(Duration::from_micros(300));
        }
    }

    /// A link, down at its near end, whose sender has begun.
    fn make(&self, number: usize, here: &Rtnetlink, there: &Rtnetlink, far: &Namespace) -> u32 {
        let (name, peer) = (near(number), format!("far{number}"));
        here.add_veth(&name, &peer, far.file().as_fd()).unwrap();
        let (index, _) = there.received(&peer).unwrap();
        there.set_up(index).unwrap();
        let [own, other] = addresses(number);
        there.add_address(index, own, other).unwrap();
        let pod = Pod { number, socket: None, sent: Vec::new(), due: Instant::now() };
        self.pods.lock().unwrap().push(pod);
        here.received(&name).unwrap().0
    }

    /// What the senders of these have sent; they send no more.
    fn still(&self, numbers: &[usize]) -> HashMap<usize, Vec<u64>> {
        let mut pods = self.pods.lock().unwrap();
        pods.extract_if(.., |pod| numbers.contains(&pod.number)).map(|pod| (pod.number, pod.sent)).collect()
    }
}

/// A link on its way: its number, its index, when it was set up, and since when it is.
type Up = (usize, u32, u64, Instant);

/// Makes all links, has them used for a while, removes them.
fn come_and_go(node: &Node, crowd: Crowd, here: &Rtnetlink, far: &Namespace) -> Vec<Gone> {
    const LIFE: Duration = Duration::from_millis(600);
    let there = far.within(|| Rtnetlink::open().unwrap());
    let (mut up, mut gone): (Vec<Up>, Vec<Gone>) = (Vec::new(), Vec::new());
    let set_up = |number, index| {
        let at = (now(), Instant::now());
        here.set_up(index).unwrap();
        (number, index, at.0, at.1)
    };
    for number in 0..crowd.steady {
        let index = node.make(number, here, &there, far);
        up.push(set_up(number, index));
        std::thread::sleep(crowd.pause);
        let old: Vec<Up> = up.extract_if(.., |(.., since)| since.elapsed() >= LIFE).collect();
        remove(node, here, &old, &mut gone);
    }
    let made: Vec<(usize, u32)> =
        (crowd.steady..crowd.count()).map(|number| (number, node.make(number, here, &there, far))).collect();
    up.extend(made.into_iter().map(|(number, index)| set_up(number, index)));
    std::thread::sleep(2 * LIFE);
    remove(node, here, &up, &mut gone);
    gone
}

/// Waits until nothing waits on a CPU's backlog, nor is on its way from there. `softnet_stat` has a line a CPU, in hexadecimal; the
/// twelfth field is the backlog's length.
fn backlog_is_empty() {
    let waiting = || {
        let lines = std::fs::read_to_string("/proc/net/softnet_stat").unwrap();
        let length = |line: &str| u32::from_str_radix(line.split(' ').nth(11).unwrap(), 16).unwrap();
        lines.lines().map(length).sum::<u32>()
    };
    let began = Instant::now();
    while waiting() > 0 {
        assert!(began.elapsed() < Duration::from_secs(30), "the backlog never empties");
        std::thread::sleep(Duration::from_millis(1));
    }
    // The one that has just left it may be on its way still, on a CPU that is busy.
    std::thread::sleep(Duration::from_millis(20));
}

/// Removes links whose senders are still: what waits on a CPU's backlog when its link is removed is thrown away by the
/// kernel before anyone sees it.
fn remove(node: &Node, here: &Rtnetlink, old: &[Up], gone: &mut Vec<Gone>) {
    if old.is_empty() {
        return;
    }
    let numbers: Vec<usize> = old.iter().map(|(number, ..)| *number).collect();
    let mut sent = node.still(&numbers);
    backlog_is_empty();
    for &(number, index, up, _) in old {
        let (_, [frames, bytes]) = here.received(&near(number)).unwrap();
        here.remove(index).unwrap();
        let sent = sent.remove(&number).unwrap();
        let crossed = usize::try_from(frames).unwrap();
        let expected = ip_bytes(number, sent.len() - crossed..sent.len()) + ETHERNET * frames;
        assert_eq!(bytes, expected, "the last {crossed} of {} sent crossed {}", sent.len(), near(number));
        gone.push(Gone { number, up, sent, crossed });
    }
}

/// What a process holds open.
fn descriptors(process: u32) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}

/// A program that captures on `pod*` in a quiet namespace.
fn start(namespace: &Namespace, source: &str, settings: &[&str]) -> Running {
    let mut program = Program::new("run")
        .args(["-i", "pod*", "--source", source])
        .set("capture.interfaces.wait=true")
        .inside(&namespace.name);
    for key in ["idle", "udp", "active"] {
        program = program.set(&format!("flow.{key}_timeout=10m"));
    }
    settings.iter().fold(program, |program, setting| program.set(setting)).start()
}

fn quiet(prefix: &str) -> Namespace {
    let namespace = Namespace::new(prefix);
    for which in ["all", "default"] {
        let _ = namespace.run(&format!("sysctl -q -w net.ipv6.conf.{which}.disable_ipv6=1"));
    }
    namespace
}

/// Waits until the process holds as much as it did: sockets and links of those that went are closed a moment later.
fn settled(process: u32, before: usize) {
    let began = Instant::now();
    while descriptors(process) > before {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{} descriptors, {before} before",
            descriptors(process)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a crowd under a program; everything that was seen of each link is in its record.
fn is_recorded(source: &str, settings: &[&str], crowd: Crowd) -> Outcome {
    let (here, far) = (quiet("node"), quiet("pods"));
    let running = start(&here, source, settings);
    let before = descriptors(running.id());
    let node = Node::default();
    let gone = std::thread::scope(|scope| {
        scope.spawn(|| far.within(|| node.send()));
        let gone = here.within(|| come_and_go(&node, crowd, &Rtnetlink::open().unwrap(), &far));
        node.done.store(true, Ordering::Release);
        gone
    });
    settled(running.id(), before);
    // One that stays, to be found clean.
    let kernel = here.within(|| Rtnetlink::open().unwrap());
    let there = far.within(|| Rtnetlink::open().unwrap());
    let stays = node.make(crowd.count(), &kernel, &there, &far);
    kernel.set_up(stays).unwrap();
    let taken = || descriptors(running.id()) > before || here.run("tc qdisc show").contains("clsact");
    let began = Instant::now();
    while !taken() {
        assert!(began.elapsed() < Duration::from_secs(30), "the last link is not taken up");
        std::thread::sleep(Duration::from_millis(5));
    }
    running.signal(rustix::process::Signal::INT);
    let outcome = running.wait(Duration::from_secs(60)).kept(0);
    assert!(!here.run("tc qdisc show").contains("clsact"), "a discipline is left behind");
    let net = here.run("bpftool net");
    assert!(!net.contains("mermin"), "programs are left behind: {net}");
    compare(&outcome, &gone, crowd);
    outcome
}

fn compare(outcome: &Outcome, gone: &[Gone], crowd: Crowd) {
    assert_eq!(gone.len(), crowd.count());
    let records = outcome.records();
    let of: HashMap<&str, &Record> =
        records.iter().map(|record| (record.text("source.address"), record)).collect();
    assert_eq!((records.len(), of.len()), (crowd.count(), crowd.count()), "a record for each link");
    let (mut seen, mut delays) = (0, Vec::new());
    for Gone { number, up, sent, crossed } in gone {
        let record = of[addresses(*number)[0].to_string().as_str()];
        assert_eq!(record.text("network.interface.name"), near(*number));
        assert_eq!(record.text("network.interface.hook"), "ingress");
        let packets = usize::try_from(record.count("flow.packets.total")).unwrap();
        assert!(packets > 0 && packets <= *crossed, "{packets} of {crossed} on {}", near(*number));
        let last = sent.len() - packets..sent.len();
        let first = sent[last.start];
        assert_eq!(
            record.count("flow.bytes.total"),
            ip_bytes(*number, last),
            "the last {packets} of {crossed} on {}",
            near(*number)
        );
        seen += packets as u64;
        delays.push((first.saturating_sub(*up), crossed - packets));
    }
    assert_eq!(outcome.number("/ledger/seen/buffers"), seen, "nothing else crossed");
    assert_eq!(outcome.number("/ledger/metered/packets"), seen);
    assert_eq!(outcome.number("/anomalies/link_attach_failures"), 0);
    for (what, delays) in [("one by one", &delays[..crowd.steady]), ("at once", &delays[crowd.steady..])] {
        tell(what, delays);
    }
}

/// Milliseconds from setting a link up to its first recorded packet, and how many packets crossed it before.
fn tell(what: &str, delays: &[(u64, usize)]) {
    let mut sorted: Vec<u64> = delays.iter().map(|(delay, _)| *delay).collect();
    sorted.sort_unstable();
    let milliseconds = |at: usize| sorted.get(at).copied().unwrap_or_default() as f64 / 1e6;
    eprintln!(
        "{what}: {} links, first recorded packet after {:.1} ms (median), {:.1} (95 %), {:.1} (worst); {} packets before on {} links",
        sorted.len(),
        milliseconds(sorted.len() / 2),
        milliseconds(sorted.len() * 95 / 100),
        milliseconds(sorted.len().saturating_sub(1)),
        delays.iter().map(|(_, before)| before).sum::<usize>(),
        delays.iter().filter(|(_, before)| *before > 0).count(),
    );
}

const CROWD: Crowd = Crowd { steady: 400, pause: Duration::from_millis(15), burst: 100 };

#[test]
fn ebpf_records_five_hundred_pods_that_come_and_go() {
    need!(namespaces(), tool("tc"), tool("bpftool"), tool("sysctl"));
    let _ = is_recorded("ebpf", &[], CROWD);
}

#[test]
fn af_packet_records_pods_that_come_and_go() {
    need!(namespaces(), tool("tc"), tool("bpftool"), tool("sysctl"));
    let _ = is_recorded("af_packet", &[], Crowd { steady: 60, burst: 30, ..CROWD });
}

/// A node with many interfaces at the end: taking programs off them takes longer than `shutdown_timeout`.
#[test]
fn many_interfaces_do_not_hold_up_the_end() {
    need!(namespaces(), tool("bpftool"), tool("sysctl"));
    let (here, far) = (quiet("node"), quiet("pods"));
    let node = Node::default();
    let kernel = here.within(|| Rtnetlink::open().unwrap());
    let there = far.within(|| Rtnetlink::open().unwrap());
    for number in 0..100 {
        let index = node.make(number, &kernel, &there, &far);
        kernel.set_up(index).unwrap();
    }
    let settings = ["capture.attach=tcx", "pipeline.shutdown_timeout=1s"];
    let running = start(&here, "ebpf", &settings);
    running.signal(rustix::process::Signal::INT);
    let outcome = running.wait(Duration::from_secs(60)).kept(0);
    assert!(!here.run("bpftool net").contains("mermin"), "programs are left behind: {}", outcome.stderr);
}

/// Filters outlive a killed process; the next one takes them off.
#[test]
fn what_a_killed_run_left_is_taken_off_by_the_next() {
    need!(namespaces(), tool("tc"), tool("sysctl"));
    let (here, far) = (quiet("node"), quiet("pods"));
    let node = Node::default();
    let kernel = here.within(|| Rtnetlink::open().unwrap());
    let there = far.within(|| Rtnetlink::open().unwrap());
    let index = node.make(0, &kernel, &there, &far);
    kernel.set_up(index).unwrap();
    let filters = || {
        let count =
            |hook| here.run(&format!("tc filter show dev pod0 {hook}")).matches("direct-action").count();
        [count("ingress"), count("egress")]
    };
    let settings = ["capture.attach=clsact"];
    let killed = start(&here, "ebpf", &settings);
    let other = start(&here, "ebpf", &settings);
    assert_eq!(filters(), [2, 2]);
    killed.signal(rustix::process::Signal::KILL);
    let _ = killed.wait(Duration::from_secs(10));
    assert_eq!(filters(), [2, 2], "nobody takes them off");
    let next = start(&here, "ebpf", &settings);
    assert_eq!(filters(), [2, 2], "those of the killed one have gone, those of the other have not");
    let _ = other.interrupt().kept(0);
    assert_eq!(filters(), [1, 1]);
    let _ = next.interrupt().kept(0);
    assert_eq!(filters(), [0, 0]);
    assert!(!here.run("tc qdisc show dev pod0").contains("clsact"), "a discipline is left behind");
}
