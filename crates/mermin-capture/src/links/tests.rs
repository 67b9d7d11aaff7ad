//! Links that come and go under a source: real ones, in namespaces of the tests' own.

use super::follow::Follower;
use super::taps::Put;
use super::watch::{Listed, RECEIVE_BYTES, Watch};
use super::{Follow, Links, Numbers, Taps, Technology};
use crate::af_packet::{AfPacketOptions, AfPacketSource};
use crate::ebpf::{EbpfOptions, EbpfSource, fill_tcx, hooks};
use crate::interfaces::{Interface, Selection};
use crate::testing::{self, Kept, PORT, Pair, finish, run};
use crate::{AttachKind, CaptureMode};
use mermin_flow::{ObservationPoints, Polled, Source};
use mermin_wire::Link;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn can_run(test: &str) -> bool {
    let needed = [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW")];
    let missing = needed.into_iter().filter(|(bit, _)| !testing::has_capability(*bit));
    testing::can_run(test, missing.map(|(_, name)| name).collect())
}

/// A source under test, and what it has said so far.
struct Under<S> {
    source: S,
    links: Arc<Links>,
    points: Arc<ObservationPoints>,
    kept: Kept,
}

fn follow(patterns: &[&str]) -> Follow {
    let include: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
    Follow::new(Selection::new(&include, &["v?".to_owned()]).unwrap())
}

fn ebpf(attach: AttachKind, follow: Follow) -> Under<EbpfSource> {
    let points = Arc::default();
    // Datagrams are counted as they come.
    let mode = CaptureMode::Packet;
    let options = EbpfOptions { attach, mode, follow: Some(follow), ..EbpfOptions::default() };
    let source = EbpfSource::open(&[], &points, &options).unwrap().source;
    Under { links: source.links(), source, points, kept: Kept::default() }
}

fn af_packet(follow: Follow) -> Under<AfPacketSource> {
    let points = Arc::default();
    let options =
        AfPacketOptions { ring_bytes: 4 << 20, filters: crate::FilterRules::default(), follow: Some(follow) };
    let source = AfPacketSource::open(&[], &points, &options).unwrap();
    Under { links: source.links(), source, points, kept: Kept::default() }
}

impl<S: Source> Under<S> {
    /// Reads until `done`.
    fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let began = Instant::now();
        while !done(self) {
            assert!(began.elapsed() < Duration::from_secs(30), "{what}: {:?}", self.links);
            if self.source.poll(&mut self.kept, 1_000) == Polled::Drained {
                self.source.wait(Duration::from_millis(2));
            }
        }
    }

    /// Reads until it is on exactly these.
    fn is_on(&mut self, names: &[&str]) {
        let on = |links: &Links| links.on().iter().map(|link| link.name.to_string()).collect::<Vec<_>>();
        self.until(&format!("is on {names:?}"), |under| on(&under.links) == names);
    }

    /// Reads until that many datagrams to the port were seen.
    fn has_seen(&mut self, datagrams: usize) {
        self.until(&format!("has seen {datagrams}"), |under| under.kept.to(PORT).len() >= datagrams);
    }

    /// Names and indexes of the points at which datagrams to the port were seen, with how many.
    fn seen_at(&self) -> Vec<(String, u32, usize)> {
        let mut seen: Vec<(u16, usize)> = Vec::new();
        for observation in self.kept.to(PORT) {
            match seen.iter_mut().find(|(point, _)| *point == observation.point) {
                Some((_, count)) => *count += 1,
                None => seen.push((observation.point, 1)),
            }
        }
        let named = |(number, count)| {
            let point = self.points.get(number).expect("a point that is known");
            (
                point.interface.as_deref().unwrap_or_default().to_owned(),
                point.index.unwrap_or_default(),
                count,
            )
        };
        seen.into_iter().map(named).collect()
    }
}

/// A link `name` with this index in the current namespace, its other end in `there`; both up, and neighbours known.
fn make(there: &str, name: &str, index: u32) {
    run(&format!("ip link add {name} index {index} type veth peer name far netns {there}"));
    run(&format!("ip addr add 10.8.0.1/24 dev {name}"));
    run(&format!("ip link set {name} addrgenmode none"));
    run(&format!("ip link set {name} up"));
    run(&format!("ip -n {there} link set far address 02:00:00:00:00:02 addrgenmode none"));
    run(&format!("ip -n {there} addr add 10.8.0.2/24 dev far"));
    run(&format!("ip -n {there} link set far up"));
    neighbour(name);
}

/// The peer is known, and the link works: what is sent before the kernel has noticed that is dropped on the way.
fn neighbour(name: &str) {
    let began = Instant::now();
    while !run(&format!("ip link show dev {name}")).contains("state UP") {
        assert!(began.elapsed() < Duration::from_secs(30), "{name} does not come up");
        std::thread::sleep(Duration::from_millis(1));
    }
    run(&format!("ip neigh replace 10.8.0.2 lladdr 02:00:00:00:00:02 dev {name} nud permanent"));
}

/// Runs lines of `ip` in one go.
fn batch(lines: impl Iterator<Item = String>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines.collect::<String>()).unwrap();
    run(&format!("ip -batch {}", file.path().display()));
}

/// Sends datagrams out over the link.
fn send(datagrams: usize) {
    let socket = UdpSocket::bind("10.8.0.1:0").unwrap();
    for _ in 0..datagrams {
        socket.send_to(&[7; 40], ("10.8.0.2", PORT)).unwrap();
    }
}

/// Renamed, down and up, out of what is wanted and into it again: one observation point as long as it is wanted.
fn is_followed_by_its_names<S: Source>(open: impl FnOnce(Follow) -> Under<S> + Send) {
    let pair = Pair::new();
    Pair::inside(&pair.here, || {
        let mut under = open(follow(&["one", "two"]));
        under.is_on(&[]);
        make(&pair.there, "one", 700);
        under.is_on(&["one"]);
        send(3);
        under.has_seen(3);
        run("ip link set one down");
        run("ip link set one name two");
        run("ip link set two up");
        neighbour("two");
        under.is_on(&["two"]);
        under.until("is up", |under| under.links.on()[0].up);
        send(4);
        under.has_seen(7);
        assert_eq!(under.seen_at(), [("two".to_owned(), 700, 7)], "one point, under its present name");
        assert_eq!((under.links.counts().attached, under.links.counts().detached), (1, 0));
        run("ip link set two down");
        run("ip link set two name three");
        run("ip link set three up");
        neighbour("three");
        under.is_on(&[]);
        send(5);
        run("ip link set three down");
        run("ip link set three name one");
        run("ip link set one up");
        neighbour("one");
        under.is_on(&["one"]);
        send(6);
        under.has_seen(13);
        let Under { mut source, mut kept, points, links } = under;
        finish(&mut source, &mut kept);
        let under = Under { source, kept, points, links };
        assert_eq!(under.seen_at(), [("two".to_owned(), 700, 7), ("one".to_owned(), 700, 6)]);
        under.links.finish();
        assert_eq!(under.links.on(), []);
    });
}

#[test]
fn ebpf_follows_a_link_by_its_names() {
    if can_run("ebpf_follows_a_link_by_its_names") {
        is_followed_by_its_names(|follow| ebpf(AttachKind::Auto, follow));
        is_followed_by_its_names(|follow| ebpf(AttachKind::Tcx, follow));
    }
}

#[test]
fn af_packet_follows_a_link_by_its_names() {
    if can_run("af_packet_follows_a_link_by_its_names") {
        is_followed_by_its_names(af_packet);
    }
}

/// Others are wanted from now on: off those that no longer are, on those that are, and packets of both have been seen.
fn others_are_wanted<S: Source>(open: impl FnOnce(Follow) -> Under<S> + Send) {
    let pair = Pair::new();
    Pair::inside(&pair.here, || {
        let mut under = open(follow(&["a*"]));
        make(&pair.there, "aa", 700);
        under.is_on(&["aa"]);
        send(3);
        under.has_seen(3);
        under.links.select(Selection::new(&["b*".to_owned()], &[]).unwrap());
        under.is_on(&[]);
        send(5);
        run("ip link set aa down");
        run("ip link set aa name bb");
        run("ip link set bb up");
        neighbour("bb");
        under.is_on(&["bb"]);
        send(4);
        under.has_seen(7);
        // There, and up, and not wanted until now: no message tells of it.
        under.links.select(Selection::new(&["none".to_owned()], &[]).unwrap());
        under.is_on(&[]);
        under.links.select(Selection::new(&["*".to_owned()], &["lo".to_owned(), "v?".to_owned()]).unwrap());
        under.is_on(&["bb"]);
        send(2);
        under.has_seen(9);
        under.links.finish();
        assert_eq!((under.links.counts().attached, under.links.counts().detached), (3, 3));
    });
}

#[test]
fn interfaces_are_selected_anew() {
    if can_run("interfaces_are_selected_anew") {
        others_are_wanted(|follow| ebpf(AttachKind::Auto, follow));
        others_are_wanted(af_packet);
    }
}

/// What the first link's packets left unread is of the first link, though another one has its index and name by now.
fn an_index_is_used_again<S: Source>(open: impl FnOnce(Follow) -> Under<S> + Send) {
    let pair = Pair::new();
    Pair::inside(&pair.here, || {
        let mut under = open(follow(&["w*"]));
        under.is_on(&[]);
        for round in 0..5 {
            make(&pair.there, "was", 700);
            under.is_on(&["was"]);
            send(3);
            under.has_seen(8 * round + 3);
            // Nobody reads meanwhile.
            send(4);
            run("ip link del was");
            make(&pair.there, "will", 700);
            let began = Instant::now();
            let on = |links: &Links| links.on().iter().any(|link| &*link.name == "will");
            while !on(&under.links) && began.elapsed() < Duration::from_secs(30) {
                std::thread::sleep(Duration::from_millis(1));
            }
            send(1);
            under.has_seen(8 * round + 8);
            run("ip link del will");
            under.is_on(&[]);
        }
        let expected: Vec<_> =
            (0..5).flat_map(|_| [("was".to_owned(), 700, 7), ("will".to_owned(), 700, 1)]).collect();
        assert_eq!(under.seen_at(), expected);
        let Under { mut source, mut kept, .. } = under;
        finish(&mut source, &mut kept);
        assert_eq!(kept.to(PORT).len(), 40);
    });
}

#[test]
fn ebpf_tells_links_of_one_index_apart() {
    if can_run("ebpf_tells_links_of_one_index_apart") {
        an_index_is_used_again(|follow| ebpf(AttachKind::Auto, follow));
        an_index_is_used_again(|follow| ebpf(AttachKind::Tcx, follow));
    }
}

#[test]
fn af_packet_tells_links_of_one_index_apart() {
    if can_run("af_packet_tells_links_of_one_index_apart") {
        an_index_is_used_again(af_packet);
    }
}

/// Programs on a device in another namespace.
fn programs(namespace: &str, device: &str) -> usize {
    Pair::inside(namespace, || hooks(device).unwrap().len())
}

/// Whether there is a clsact discipline on a device.
fn has_clsact(namespace: &str, device: &str) -> bool {
    run(&format!("tc -n {namespace} qdisc show dev {device}")).contains("clsact")
}

fn a_link_moves_away<S: Source>(open: impl FnOnce(Follow) -> Under<S> + Send) {
    let (pair, elsewhere) = (Pair::new(), Pair::new());
    Pair::inside(&pair.here, || {
        let mut under = open(follow(&["moves"]));
        make(&pair.there, "moves", 700);
        under.is_on(&["moves"]);
        send(3);
        under.has_seen(3);
        let away = &elsewhere.here;
        run(&format!("ip link set moves netns {away}"));
        under.is_on(&[]);
        under.until("nothing left", |_| programs(away, "moves") == 0 && !has_clsact(away, "moves"));
        // What crosses it there is none of ours.
        run(&format!("ip -n {away} addr add 10.8.0.1/24 dev moves"));
        run(&format!("ip -n {away} link set moves up"));
        Pair::inside(away, || {
            neighbour("moves");
            send(4);
        });
        // And it comes back.
        run(&format!("ip -n {away} link set moves netns {}", pair.here));
        run("ip addr add 10.8.0.1/24 dev moves");
        run("ip link set moves up");
        neighbour("moves");
        under.is_on(&["moves"]);
        send(5);
        under.has_seen(8);
        assert_eq!(under.seen_at().iter().map(|(_, _, count)| *count).collect::<Vec<_>>(), [3, 5]);
        let Under { mut source, mut kept, .. } = under;
        finish(&mut source, &mut kept);
        assert_eq!(kept.to(PORT).len(), 8);
    });
}

#[test]
fn a_link_that_moves_to_another_namespace_is_let_go_of() {
    if can_run("a_link_that_moves_to_another_namespace_is_let_go_of") {
        a_link_moves_away(|follow| ebpf(AttachKind::Auto, follow));
        a_link_moves_away(|follow| ebpf(AttachKind::Tcx, follow));
        a_link_moves_away(af_packet);
    }
}

#[test]
fn members_of_a_bridge_come_and_go() {
    if !can_run("members_of_a_bridge_come_and_go") {
        return;
    }
    let pair = Pair::new();
    Pair::inside(&pair.here, || {
        run("ip link add bridge type bridge");
        run("ip link set bridge up");
        let mut under = ebpf(AttachKind::Auto, follow(&["port*", "bridge"]));
        for (name, index) in [("port1", 701), ("port2", 702)] {
            run(&format!(
                "ip link add {name} index {index} type veth peer name far{index} netns {}",
                pair.there
            ));
            run(&format!("ip link set {name} master bridge"));
            run(&format!("ip link set {name} up"));
        }
        under.is_on(&["bridge", "port1", "port2"]);
        run("ip link set port1 nomaster");
        run("ip link set port2 nomaster");
        run("ip link del port2");
        under.is_on(&["bridge", "port1"]);
        assert_eq!(under.links.counts().attached, 3, "leaving a bridge is no reason to let go");
        run("ip link del bridge");
        under.is_on(&["port1"]);
    });
}

#[test]
fn lost_messages_are_made_up_for_by_a_list() {
    if !can_run("lost_messages_are_made_up_for_by_a_list") {
        return;
    }
    let pair = Pair::new();
    Pair::inside(&pair.here, || {
        // Room for a message or two.
        let mut follow = follow(&["many*"]);
        follow.receive_bytes = 1;
        let mut under = ebpf(AttachKind::Auto, follow);
        under.is_on(&[]);
        let names: Vec<String> = (0..20).map(|number| format!("many{number}")).collect();
        // The thread can't go on while we look at what it shows.
        let (links, before) = (Arc::clone(&under.links), under.links.counts());
        let view = links.view();
        batch(names.iter().map(|name| format!("link add {name} type bridge\nlink set {name} up\n")));
        drop(view);
        under.is_on(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let view = links.view();
        batch(names[1..].iter().map(|name| format!("link del {name}\n")));
        // And half of what is on the last one.
        run("tc filter del dev many0 egress");
        drop(view);
        under.is_on(&["many0"]);
        under.until("is on both hooks", |_| {
            ["ingress", "egress"].iter().all(|hook| {
                run(&format!("tc filter show dev many0 {hook}")).matches("direct-action").count() == 1
            })
        });
        assert!(links.counts().resyncs >= before.resyncs + 2, "{:?}", links.counts());
        assert_eq!((links.counts().failed, links.on().len()), (0, 1));
        assert!(has_clsact(&pair.here, "many0"));
    });
}

#[test]
fn a_program_of_others_on_tcx_does_not_hide_packets_for_long() {
    if !can_run("a_program_of_others_on_tcx_does_not_hide_packets_for_long") {
        return;
    }
    let pair = Pair::new();
    Pair::inside(&pair.here, || {
        let mut under = ebpf(AttachKind::Auto, follow(&["shared"]));
        make(&pair.there, "shared", 700);
        under.is_on(&["shared"]);
        assert_eq!(under.links.on()[0].technology, Technology::Clsact);
        send(1);
        under.has_seen(1);
        let mut other = ebpf(AttachKind::Tcx, follow(&["shared"]));
        other.is_on(&["shared"]);
        under.until("moves to tcx", |under| under.links.on()[0].technology == Technology::Tcx);
        assert_eq!((hooks("shared").unwrap().len(), has_clsact(&pair.here, "shared")), (4, false));
        send(2);
        under.has_seen(3);
        assert_eq!(under.seen_at(), [("shared".to_owned(), 700, 3)], "still one point");
        assert_eq!((under.links.counts().moved, under.links.counts().detached), (1, 0));
        // One that comes where others are takes tcx at once.
        let mut third = ebpf(AttachKind::Auto, follow(&["shared"]));
        third.is_on(&["shared"]);
        assert_eq!(third.links.on()[0].technology, Technology::Tcx);
    });
}

#[test]
fn filters_that_others_take_off_are_put_on_again() {
    if !can_run("filters_that_others_take_off_are_put_on_again") {
        return;
    }
    let pair = Pair::new();
    Pair::inside(&pair.here, || {
        let mut under = ebpf(AttachKind::Auto, follow(&["shared"]));
        make(&pair.there, "shared", 700);
        under.is_on(&["shared"]);
        send(1);
        under.has_seen(1);
        let takers = [
            "tc qdisc del dev shared clsact",
            "tc filter del dev shared egress",
            "tc filter del dev shared ingress",
        ];
        for (taken, command) in (1..).zip(takers) {
            run(command);
            under.until(command, |under| under.links.counts().restored == taken);
            send(1);
            under.has_seen(1 + taken as usize);
        }
        assert_eq!(under.seen_at(), [("shared".to_owned(), 700, 4)], "one point, nothing twice");
        assert_eq!((under.links.counts().attached, under.links.counts().detached), (1, 0));
        under.links.finish();
        assert!(!has_clsact(&pair.here, "shared"));
        // A discipline that somebody else has made meanwhile is left to him.
        let mut under = ebpf(AttachKind::Auto, follow(&["shared"]));
        under.is_on(&["shared"]);
        run("tc qdisc del dev shared clsact");
        run("tc qdisc add dev shared clsact");
        under.until("is on again", |under| under.links.counts().restored == 1);
        under.links.finish();
        assert!(has_clsact(&pair.here, "shared"));
    });
}

#[test]
fn where_tcx_is_full_filters_do() {
    if !can_run("where_tcx_is_full_filters_do") {
        return;
    }
    let pair = Pair::new();
    Pair::inside(&pair.here, || {
        make(&pair.there, "full", 700);
        let others = fill_tcx(700);
        let mut under = ebpf(AttachKind::Auto, follow(&["full"]));
        under.is_on(&["full"]);
        send(3);
        under.has_seen(3);
        run("tc qdisc del dev full clsact");
        under.until("is on again", |under| under.links.counts().restored == 1);
        send(4);
        under.has_seen(7);
        assert_eq!(under.seen_at(), [("full".to_owned(), 700, 7)]);
        assert_eq!(under.links.on()[0].technology, Technology::Clsact);
        assert_eq!((under.links.counts().moved, under.links.counts().failed), (0, 0));
        drop(others);
    });
}

#[test]
fn a_wake_up_wakes_once() {
    if !can_run("a_wake_up_wakes_once") {
        return;
    }
    let pair = Pair::new();
    Pair::inside(&pair.here, || {
        let mut under = ebpf(AttachKind::Auto, follow(&["one"]));
        run("ip link add one type bridge");
        run("ip link set one up");
        under.is_on(&["one"]);
        // As when the thread sees that it may begin before the reader has woken it.
        under.links.wake_up();
        under.until("sleeps again", |under| {
            let at_once = Timespec::try_from(Duration::ZERO).ok();
            let wake = &mut [PollFd::from_borrowed_fd(under.links.wake(), PollFlags::IN)];
            poll(wake, at_once.as_ref()) == Ok(0)
        });
    });
}

/// What a kernel does to [`Told`].
#[derive(Default)]
struct Kernel {
    /// Takes taps off and refuses others.
    refuses: AtomicBool,
    /// Others are in front, wherever a tap is put.
    hides: AtomicBool,
}

/// Taps that do as the test says: a kernel that refuses everything at will is not to be had.
struct Told(Arc<Kernel>);

impl Taps for Told {
    type Tap = ();
    type Error = io::Error;

    fn put(&mut self, _: &Interface, _: Numbers) -> io::Result<()> {
        if self.0.refuses.load(Ordering::Relaxed) { Err(io::ErrorKind::OutOfMemory.into()) } else { Ok(()) }
    }

    fn take_off(&mut self, _: u32, (): (), _: bool) {}

    fn is_on(&mut self, (): &(), _: u32) -> bool {
        !self.0.refuses.load(Ordering::Relaxed)
    }

    fn is_hidden(&mut self, (): &(), _: u32) -> bool {
        self.0.hides.load(Ordering::Relaxed)
    }

    fn technology(&self, (): &()) -> Technology {
        Technology::Tcx
    }

    fn has_gone(_: &io::Error) -> bool {
        false
    }

    fn now(&self) -> u64 {
        0
    }

    fn begin(&mut self, _: &Arc<Links>) {}
}

/// On `indexes`, of which the host has 1.
fn told(indexes: &[u32]) -> (Follower<Told>, Arc<Kernel>) {
    let kernel = Arc::<Kernel>::default();
    let mut put = Put::new(Told(Arc::clone(&kernel)), Arc::default(), Arc::new(Links::new().unwrap()));
    for &index in indexes {
        put.put(Interface { name: "lo".into(), index, link: Link::Ethernet, up: true }).unwrap();
    }
    let selection = Selection::new(&["lo".to_owned()], &[]).unwrap();
    (Follower::new(Watch::open(RECEIVE_BYTES).unwrap(), selection, put), kernel)
}

#[test]
fn a_list_with_gaps_says_of_none_that_it_has_gone() {
    let (mut follower, _) = told(&[1, 999_999]);
    follower.refused.insert(1_000_000, Instant::now());
    follower.compare(Listed { devices: Vec::new(), has_gaps: true }).unwrap();
    assert_eq!(follower.put.indexes(), [1], "the kernel was asked about both");
    assert!(follower.refused.contains_key(&1_000_000));
}

#[test]
fn an_interface_that_was_lost_is_asked_again() {
    let (mut follower, kernel) = told(&[1]);
    let mut mended = || {
        follower.mend().unwrap();
        let counts = follower.put.links.counts();
        let shown = follower.put.links.on().len();
        assert_eq!(follower.put.indexes().len(), shown);
        (shown, follower.refused.contains_key(&1), [counts.failed, counts.detached, counts.restored])
    };
    assert_eq!(mended(), (1, false, [0, 0, 0]));
    kernel.hides.store(true, Ordering::Relaxed);
    assert_eq!(mended(), (1, false, [1, 0, 0]), "it stays behind the others");
    kernel.hides.store(false, Ordering::Relaxed);
    kernel.refuses.store(true, Ordering::Relaxed);
    assert_eq!(mended(), (0, true, [2, 1, 0]));
}
