//! A cluster in simulated time, where the truth is known: pods take and free addresses at exact times, the API server
//! hears of it late and in whole seconds, clocks differ, the watch lags, stalls and breaks. Flows run at random times
//! while a pod has its address, and are asked for when an enrichment worker would ask. No answer may be wrong.

use crate::host::HostAddresses;
use crate::kubernetes::config::Scope;
use crate::kubernetes::directory::Directory;
use crate::kubernetes::evidence::{MILLISECOND, SECOND};
use crate::kubernetes::object::{Change, Kind, Meta, Object, Pod, Time};
use crate::kubernetes::resolve::{Question, resolve};
use crate::kubernetes::shared::Shared;
use crate::kubernetes::tenure::Span;
use mermin_flow::{KubernetesAttribute, Resolution};
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

const NOON: Time = 1_700_000_000 * SECOND;
/// How long an enrichment worker holds a record at most.
const WAIT: Time = 8 * SECOND;
/// Flows of each cluster; with optimisation, more than a million in all.
const FLOWS: usize = if cfg!(debug_assertions) { 10_000 } else { 120_000 };
/// The longest time from a flow's last packet to its record.
const RECORD: Time = 60 * SECOND;

/// How pods come to their end.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// Deleted; the address is free at that moment, as where a test plays the kubelet.
    AtOnce,
    /// Told to end, then finished, then deleted.
    Gracefully,
    /// As before version 1.27: nothing says that it has finished.
    GracefullyUntold,
    /// Of itself; deleted long after.
    OfItself,
    /// Deleted by force: the pod goes on for a while.
    ByForce,
    /// It lives on, and has another address from now on, which others have before and after it.
    Moved,
    /// Any of these.
    Mixed,
}

/// A cluster's habits; times in milliseconds.
#[derive(Clone)]
struct Habits {
    name: &'static str,
    /// How long a pod has an address.
    tenure: Range<u64>,
    /// From one pod's end to the next one's first packet.
    gap: Range<u64>,
    /// From a pod's creation to its first packet. May begin before the previous owner has ended.
    start: Range<u64>,
    /// From a pod's first packet to the time when the API server knows its address; from its end likewise.
    status: Range<u64>,
    ending: Ending,
    /// From an event to the time when the watch tells of it.
    latency: Range<u64>,
    /// Every 20 s or so the watch stands still for so long, and …
    stall: Range<u64>,
    /// … whether that is told.
    stalls_are_told: bool,
    /// The clocks of API server and nodes.
    skew: u64,
    scope: Scope,
}

impl Habits {
    /// With pods of one node alone.
    fn of_one_node(self) -> Self {
        Self { scope: Scope::Node, ..self }
    }
}

const TEST_BED: Habits = Habits {
    name: "moved at once",
    tenure: 100..10_000,
    gap: 1..10,
    start: 5..15,
    status: 0..10,
    ending: Ending::AtOnce,
    latency: 0..20,
    stall: 0..1,
    stalls_are_told: false,
    skew: 0,
    scope: Scope::Cluster,
};

const KUBELET: Habits = Habits {
    name: "kubelet",
    gap: 0..500,
    start: 300..4_000,
    status: 10..2_000,
    ending: Ending::Mixed,
    latency: 1..100,
    skew: 400,
    ..TEST_BED
};

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// Within a range of milliseconds, in nanoseconds.
    fn within(&mut self, range: &Range<u64>) -> Time {
        range.start * MILLISECOND + self.below((range.end - range.start) * MILLISECOND)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Who really had an address.
struct Truth {
    address: IpAddr,
    pod: String,
    from: Time,
    until: Time,
}

/// An address that pods move to.
struct Second {
    address: IpAddr,
    free: Time,
}

/// A record that will be asked for.
struct Flow {
    truth: usize,
    span: Span,
}

struct Cluster {
    habits: Habits,
    random: Random,
    truths: Vec<Truth>,
    /// What the API server knows, by time.
    commits: Vec<(Time, Change)>,
    pods: usize,
    server_clock: i64,
}

const fn shifted(time: Time, by: i64) -> Time {
    (time as i64 + by) as Time
}

const fn whole(time: Time) -> Time {
    time / SECOND * SECOND
}

impl Cluster {
    fn new(habits: &Habits, seed: u64) -> Self {
        let mut random = Random(seed | 1);
        let server_clock = Self::skew(&mut random, habits.skew);
        let commits = vec![
            (NOON - 10 * SECOND, Change::ListBegins(Kind::Pod)),
            (NOON - 10 * SECOND, Change::ListEnds(Kind::Pod)),
        ];
        Self { habits: habits.clone(), random, truths: Vec::new(), commits, pods: 0, server_clock }
    }

    fn skew(random: &mut Random, most: u64) -> i64 {
        random.below(2 * most * MILLISECOND + 1) as i64 - (most * MILLISECOND) as i64
    }

    /// Pods that have `address` one after the other; some move on to `second`, where that is free.
    fn run(&mut self, address: IpAddr, second: IpAddr, until: Time) {
        let mut second = Second { address: second, free: NOON };
        let mut free = NOON + self.random.below(SECOND);
        let habits = self.habits.clone();
        while free < until {
            let from = free + self.random.within(&habits.gap);
            // A pod that waits for the address is made while another one has it.
            let mut created = from.saturating_sub(self.random.within(&habits.start));
            if matches!(habits.ending, Ending::AtOnce) {
                created = created.max(free + MILLISECOND / 10);
            }
            let from = from.max(created + habits.start.start * MILLISECOND);
            let end = from + self.random.within(&habits.tenure);
            free = self.pod(address, &mut second, created, (from, end));
        }
    }

    /// One pod: made at `created`, with packets from `from` to `end`. Returns when the address is free.
    fn pod(
        &mut self,
        address: IpAddr,
        second: &mut Second,
        created: Time,
        (from, end): (Time, Time),
    ) -> Time {
        let habits = self.habits.clone();
        let node_clock = Self::skew(&mut self.random, habits.skew);
        self.pods += 1;
        let name: Arc<str> = format!("pod-{}", self.pods).into();
        let server = |time| Some(whole(shifted(time, self.server_clock)));
        let node = |time| Some(whole(shifted(time, node_clock)));
        let meta = Meta {
            name: Arc::clone(&name),
            uid: Arc::clone(&name),
            created: server(created),
            ..Meta::default()
        };
        let mut pod = Pod { meta, ..Pod::default() };
        let mut told = Vec::new();
        let mut tell = |at: Time, pod: &Pod| told.push((at, Change::Applied(Object::Pod(pod.clone()))));
        tell(created, &pod);
        pod.node = Some("node".into());
        if !matches!(habits.ending, Ending::AtOnce) {
            let taken_on = created + (from - created) / 3;
            tell(taken_on, &pod);
            pod.started = node(taken_on);
            tell(created + (from - created) / 2, &pod);
        }
        pod.addresses = vec![address];
        let known = from + self.random.within(&habits.status);
        if self.random.chance(50) {
            pod.running = node(from);
        }
        // A pod may be gone before its address was told of: the status that says so tells it last.
        let known = known.min(end.saturating_sub(MILLISECOND).max(from));
        tell(known, &pod);
        self.truths.push(Truth { address, pod: name.to_string(), from, until: end });
        let ending = match habits.ending {
            Ending::Mixed => match self.random.below(10) {
                0..5 => Ending::Gracefully,
                5 => Ending::GracefullyUntold,
                6 | 7 => Ending::OfItself,
                8 => Ending::ByForce,
                _ => Ending::Moved,
            },
            ending => ending,
        };
        let late = self.random.within(&habits.status);
        let asked = end - self.random.below((end - known.min(end)).min(3 * SECOND) + 1);
        let free = match ending {
            Ending::AtOnce | Ending::Mixed => {
                // A moment after its last packet.
                let free = end + MILLISECOND / 10;
                told.push((free, Change::Deleted(Object::Pod(pod))));
                free
            }
            Ending::Gracefully => {
                pod.meta.deletion_asked = server(asked);
                tell(asked, &pod);
                (pod.is_finished, pod.finished) = (true, node(end));
                let free = end + self.random.below(200 * MILLISECOND);
                tell(free.max(end + late / 2), &pod);
                told.push((free.max(end + late), Change::Deleted(Object::Pod(pod))));
                free
            }
            Ending::GracefullyUntold => {
                pod.meta.deletion_asked = server(asked);
                tell(asked, &pod);
                told.push((end + late, Change::Deleted(Object::Pod(pod))));
                end
            }
            Ending::OfItself => {
                (pod.is_finished, pod.finished) = (true, node(end));
                tell(end + late, &pod);
                told.push((end + late + 20 * SECOND, Change::Deleted(Object::Pod(pod))));
                end
            }
            Ending::ByForce => {
                told.push((asked.max(known), Change::Deleted(Object::Pod(pod))));
                end
            }
            Ending::Moved => {
                // Into an address that nobody asks for, where the other one is not free.
                let nobodys = IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + self.pods as u32));
                let moves_on = second.free <= end;
                pod.addresses = vec![if moves_on { second.address } else { nobodys }];
                tell(end + late, &pod);
                let gone = end + late + self.random.within(&habits.tenure);
                if moves_on {
                    let address = second.address;
                    self.truths.push(Truth { address, pod: name.to_string(), from: end, until: gone });
                    second.free = gone + MILLISECOND;
                }
                (pod.is_finished, pod.finished) = (true, node(gone));
                let late = self.random.within(&habits.status);
                tell(gone + late, &pod);
                told.push((gone + late + 20 * SECOND, Change::Deleted(Object::Pod(pod))));
                end
            }
        };
        told.sort_by_key(|(at, _)| *at);
        // With one node's pods alone nothing is told of the others, which are half of them.
        if habits.scope == Scope::Cluster || self.random.chance(50) {
            self.commits.extend(told);
        }
        free
    }

    /// When the watch tells of each commit, in the order of commits; with what else it tells.
    fn told(&mut self, until: Time) -> Vec<(Time, Change)> {
        let habits = self.habits.clone();
        let mut stalls = Vec::new();
        let mut at = NOON;
        while habits.stall.end > 1 && at < until {
            at += self.random.within(&(5_000..35_000));
            let stall = at..at + self.random.within(&habits.stall);
            at = stall.end;
            stalls.push(stall);
        }
        let stalled = |time: Time| stalls.iter().find(|stall| stall.contains(&time)).map(|stall| stall.end);
        self.commits.sort_by_key(|(at, _)| *at);
        let mut told = Vec::with_capacity(self.commits.len() * 2);
        let mut last = 0;
        for (at, change) in std::mem::take(&mut self.commits) {
            let arrival = at + self.random.within(&habits.latency);
            last = last.max(stalled(arrival).unwrap_or(arrival));
            told.push((last, 1, change));
        }
        let mut heartbeat = NOON - 10 * SECOND;
        while heartbeat < until + 2 * RECORD {
            heartbeat += SECOND;
            // One that is told in a stall's time would be a lie.
            if stalled(heartbeat).is_none() {
                told.push((heartbeat, 2, Change::Heard(Kind::Pod)));
            }
        }
        if habits.stalls_are_told {
            // The break is noticed at once, before anything that comes after it.
            told.extend(stalls.iter().map(|stall| (stall.start, 0, Change::Interrupted(Kind::Pod))));
        }
        told.sort_by_key(|(at, order, _)| (*at, *order));
        told.into_iter().map(|(at, _, change)| (at, change)).collect()
    }

    /// Flows of a share of all tenures, each within one.
    fn flows(&mut self, number: usize) -> Vec<Flow> {
        let mut flows = Vec::with_capacity(number);
        while flows.len() < number {
            let truth = self.random.below(self.truths.len() as u64) as usize;
            let Truth { from, until, .. } = self.truths[truth];
            // Weighted by time, as flows are spread over it.
            if self.random.below(10 * SECOND) > until - from {
                continue;
            }
            let first = from + self.random.below(until - from + 1);
            let length = if self.random.chance(70) { 20 * MILLISECOND } else { 2 * SECOND };
            let last = first + self.random.below((until - first).min(length) + 1);
            flows.push(Flow { truth, span: Span { first, last } });
        }
        flows
    }
}

/// Answers of one kind of tenure: exact, ambiguous, unknown, wrong.
#[derive(Clone, Copy, Default)]
struct Tally {
    exact: u64,
    ambiguous: u64,
    unknown: u64,
    wrong: u64,
}

impl Tally {
    fn all(self) -> u64 {
        self.exact + self.ambiguous + self.unknown + self.wrong
    }

    fn share_ambiguous(self) -> f64 {
        self.ambiguous as f64 * 100.0 / self.all().max(1) as f64
    }
}

/// Runs a cluster; answers by the least length of a tenure, in seconds.
fn simulate(habits: &Habits, seed: u64, flows: usize) -> BTreeMap<u64, Tally> {
    let mut cluster = Cluster::new(habits, seed);
    // As many as give each tenure a few flows.
    let until = NOON + 600 * SECOND;
    for n in 0..40 {
        let address = |network: u32| IpAddr::V4(Ipv4Addr::from_bits(network + n));
        cluster.run(address(0x0a00_0001), address(0x0a01_0001), until);
    }
    let flows = cluster.flows(flows);
    let told = cluster.told(until);
    let host = HostAddresses::fixed([]);
    let shared = Arc::new(Shared::new((vec![Kind::Pod], habits.scope), None, host, NOON - 10 * SECOND));
    let mut directory = Directory::new(Arc::clone(&shared), Duration::from_secs(150));
    // When each flow is asked for: when its record comes, then while it may wait.
    let mut questions: BinaryHeap<_> = flows
        .iter()
        .enumerate()
        .map(|(n, flow)| {
            let record = if cluster.random.chance(30) { 0 } else { cluster.random.below(RECORD) };
            let at = flow.span.last + MILLISECOND + record;
            std::cmp::Reverse((at, at + WAIT, n))
        })
        .collect();
    let mut tallies = BTreeMap::new();
    let mut changes = told.into_iter().peekable();
    while let Some(std::cmp::Reverse((at, give_up, n))) = questions.pop() {
        while let Some((told, change)) = changes.next_if(|(told, _)| *told <= at) {
            directory.apply(change, told);
        }
        let Flow { truth, span } = flows[n];
        if shared.known_until(at) < span.last && at < give_up {
            questions.push(std::cmp::Reverse((at + 100 * MILLISECOND, give_up, n)));
            continue;
        }
        let truth = &cluster.truths[truth];
        let question = Question { address: truth.address, protocol: 17, port: Some(53), span };
        let end = resolve(&shared.index, &question, &shared.horizon().known, None).end;
        let name = end.object.as_ref().and_then(|object| object.get(KubernetesAttribute::PodName));
        let bucket = [10, 5, 2, 1, 0].into_iter().find(|least| (truth.until - truth.from) >= least * SECOND);
        let tally: &mut Tally = tallies.entry(bucket.unwrap_or_default()).or_default();
        let is_wrong = name.is_some_and(|name| **name != *truth.pod);
        *(match end.resolution {
            _ if is_wrong => &mut tally.wrong,
            Resolution::Exact => &mut tally.exact,
            Resolution::Ambiguous => &mut tally.ambiguous,
            Resolution::Unknown => &mut tally.unknown,
        }) += 1;
    }
    tallies
}

fn run(all: &[(Habits, u64)]) -> BTreeMap<(usize, u64), Tally> {
    let mut sums = BTreeMap::new();
    for (n, (habits, seed)) in all.iter().enumerate() {
        println!("{}:", habits.name);
        for (least, tally) in simulate(habits, *seed, FLOWS) {
            println!(
                "  tenures of {least:>2} s and more: {:>7} flows, {:>6.3} % ambiguous, {} unknown, {} wrong",
                tally.all(),
                tally.share_ambiguous(),
                tally.unknown,
                tally.wrong
            );
            sums.insert((n, least), tally);
        }
    }
    let wrong: u64 = sums.values().map(|tally| tally.wrong).sum();
    assert_eq!(wrong, 0, "a wrong name");
    sums
}

/// An address that moves from pod to pod at random intervals of 0.1 to 10 s.
#[test]
fn an_address_that_moves_is_never_given_a_wrong_name() {
    let sums = run(&[(TEST_BED, 7)]);
    assert!(sums.values().all(|tally| tally.unknown == 0));
    let long = sums.iter().filter(|((_, least), _)| *least >= 2).map(|(_, tally)| *tally);
    let (ambiguous, all) = long.fold((0, 0), |sum, tally| (sum.0 + tally.ambiguous, sum.1 + tally.all()));
    println!("  of 2 s and more: {ambiguous} of {all} ambiguous");
    assert!(ambiguous * 100 < all);
}

#[test]
fn kubelets_that_tell_late_give_no_wrong_name() {
    let every = |ending, name| Habits { ending, name, ..KUBELET };
    let all = [
        (every(Ending::Gracefully, "gracefully"), 1),
        (every(Ending::GracefullyUntold, "gracefully, untold"), 2),
        (every(Ending::OfItself, "of itself"), 3),
        (every(Ending::ByForce, "by force"), 4),
        (every(Ending::Moved, "moved while it lives"), 5),
        (every(Ending::Mixed, "all of these"), 6),
    ];
    let sums = run(&all);
    // These addresses are taken again within half a second: what can't be known is much, but not all.
    let long = sums.iter().filter(|((_, least), _)| *least >= 5);
    assert!(long.clone().count() > 0 && long.clone().all(|(_, tally)| tally.exact > tally.all() / 2));
}

#[test]
fn a_watch_that_stalls_or_breaks_gives_no_wrong_name() {
    let long = 2_000..9_000;
    let all = [
        (Habits { name: "breaks", stall: long.clone(), stalls_are_told: true, ..KUBELET }, 11),
        (Habits { name: "stalls", stall: long.clone(), ..KUBELET }, 12),
        (Habits { name: "breaks, moved at once", stall: long, stalls_are_told: true, ..TEST_BED }, 13),
    ];
    run(&all);
}

#[test]
fn pods_of_other_nodes_that_nobody_tells_of_are_given_no_wrong_name() {
    let breaks = Habits { name: "one node, breaks", stall: 2_000..9_000, stalls_are_told: true, ..KUBELET };
    let stalls = Habits { name: "one node, stalls", stall: 2_000..9_000, ..KUBELET };
    let all = [
        (Habits { name: "one node", ..KUBELET }.of_one_node(), 21),
        (Habits { name: "one node, moved at once", ..TEST_BED }.of_one_node(), 22),
        (breaks.of_one_node(), 23),
        (stalls.of_one_node(), 24),
    ];
    let sums = run(&all);
    let long = sums.iter().filter(|((_, least), _)| *least >= 5);
    assert!(long.clone().count() > 0 && long.clone().all(|(_, tally)| tally.exact > 0));
}
