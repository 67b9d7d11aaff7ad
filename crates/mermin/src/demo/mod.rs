//! `mermin demo`: two network namespaces, real traffic between them, the agent on one end, and what the kernel counted
//! beside what Mermin counted.
//!
//! Both sides have to count the same packets, from the first to the last, without waiting for luck. So nothing may be
//! sent before the source is attached, while the link can't carry it yet, or while the counters are read: the far end
//! comes up last, IPv6, which speaks unasked, is off until both ends are running, and goes off again after the traffic.

mod count;
mod namespace;
mod rtnetlink;
mod traffic;
mod witness;

use crate::Surroundings;
use crate::agent::Views;
use crate::cli::DemoArgs;
use crate::config::{Config, lower};
use crate::engine::{End, Finished, Plan, StatsFile, drive};
use crate::exit::{Exit, Stop};
use crate::host;
use crate::live::{fallback, in_full};
use crate::outputs::{Enriching, Outputs, Workshop};
use crate::signals::Asked;
use crate::summary::grouped;
use count::CountByProtocol;
use mermin_capture::af_packet::{AfPacketOptions, AfPacketSource};
use mermin_capture::ebpf::{EbpfOptions, EbpfSource};
use mermin_capture::interfaces::Interface;
use mermin_capture::{OnExit, SourceKind};
use mermin_flow::{ObservationPoints, Source};
use namespace::Namespace;
use rtnetlink::Rtnetlink;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use witness::{Crossed, Sent};

const NEAR: &str = "mermin-near";
const FAR: &str = "mermin-far";
/// Documentation and unique-local ranges: nobody's.
const NEAR_ADDRESSES: Addresses = [("192.0.2.1", 24), ("fd6d:6572:6d69::1", 64)];
const FAR_ADDRESSES: Addresses = [("192.0.2.2", 24), ("fd6d:6572:6d69::2", 64)];
/// Of one end: IPv4, then IPv6, each with its prefix length.
type Addresses = [(&'static str, u8); 2];
/// The traffic is over when no packet has crossed for this long.
const QUIET: Duration = Duration::from_millis(300);

/// Runs the command.
pub(crate) fn demo(
    args: &DemoArgs,
    config: &Config,
    surroundings: &mut Surroundings<'_>,
) -> Result<Exit, Stop> {
    let asked = Asked::listen()?;
    // On a thread of its own: the rest of the process stays in the host's namespace.
    let result = thread::scope(|scope| scope.spawn(|| on_stage(args, config, asked, surroundings)).join());
    result.unwrap_or_else(|_| Err(Stop::new(Exit::Software, "the demo panicked: a bug in mermin")))
}

/// The two ends of the wire.
struct Stage {
    near: Arc<Namespace>,
    far: Arc<Namespace>,
    near_index: u32,
}

impl Stage {
    /// Leaves the calling thread in the near namespace.
    fn build() -> io::Result<Self> {
        let (near, far) = (Namespace::new()?, Namespace::new()?);
        traffic::within(&far, quiet_defaults)?;
        near.enter()?;
        quiet_defaults()?;
        let kernel = Rtnetlink::open()?;
        kernel.add_veth(NEAR, FAR, std::os::fd::AsFd::as_fd(&far.0))?;
        let near_index = configure(NEAR, NEAR_ADDRESSES)?;
        kernel.set_up(near_index)?;
        traffic::within(&far, || configure(FAR, FAR_ADDRESSES).map(drop))?;
        Ok(Self { near: Arc::new(near), far: Arc::new(far), near_index })
    }
}

/// For interfaces that are made later in the calling thread's namespace. Without detection of duplicates, link-local
/// addresses are usable at once, and both ends' first multicast reports come from their own address instead of `::`,
/// where they would be the same direction of one flow, seen twice.
fn quiet_defaults() -> io::Result<()> {
    for (setting, value) in [("accept_dad", "0"), ("disable_ipv6", "1")] {
        std::fs::write(format!("/proc/sys/net/ipv6/conf/default/{setting}"), value)?;
    }
    Ok(())
}

/// Gives `name` its address of family IPv4; returns its index.
fn configure(name: &str, [(address, prefix), _]: Addresses) -> io::Result<u32> {
    let index = nix::net::if_::if_nametoindex(name)?;
    add_address(index, address, prefix)?;
    Ok(index)
}

fn add_address(index: u32, address: &str, prefix: u8) -> io::Result<()> {
    Rtnetlink::open()?.add_address(index, address.parse().map_err(io::Error::other)?, prefix)
}

/// Switches IPv6 on or off on an interface of the calling thread's namespace.
fn set_ipv6(name: &str, on: bool) -> io::Result<()> {
    let value = if on { "0" } else { "1" };
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), value)
}

/// Waits until an interface can send, then lets it speak IPv6.
fn start_ipv6(name: &str, [_, (address, prefix)]: Addresses) -> io::Result<()> {
    let index = nix::net::if_::if_nametoindex(name)?;
    let kernel = Rtnetlink::open()?;
    traffic::soon(|| match kernel.works(index) {
        Ok(true) => Ok(()),
        Ok(false) => Err(io::Error::other(format!("{name} does not come up"))),
        Err(error) => Err(error),
    })?;
    set_ipv6(name, true)?;
    add_address(index, address, prefix)
}

/// What the kernel counted.
#[derive(Clone, Copy, Debug)]
struct Witness {
    sent: Sent,
    crossed: Crossed,
}

fn on_stage(
    args: &DemoArgs,
    config: &Config,
    asked: Asked,
    surroundings: &mut Surroundings<'_>,
) -> Result<Exit, Stop> {
    let stage = Stage::build().map_err(no_stage)?;
    let points = Arc::new(ObservationPoints::default());
    let interface = Interface {
        name: Arc::from(NEAR),
        index: stage.near_index,
        link: mermin_wire::Link::Ethernet,
        up: true,
    };
    let context = (args, config, asked, surroundings);
    let refused =
        |why: String| Stop::new(Exit::NoPermission, why).help(format!("sudo {} demo", host::program()));
    let ring_bytes = config.capture.ring_bytes.0;
    // Its namespaces go, and nobody would go on.
    let options = EbpfOptions { on_exit: OnExit::Detach, ..EbpfOptions::of(&config.capture) };
    let ebpf = || EbpfSource::open(std::slice::from_ref(&interface), &points, &options);
    let no_ebpf = match config.capture.source {
        SourceKind::AfPacket => String::new(),
        wanted => match (ebpf(), wanted) {
            (Ok(opened), _) => {
                let kind = format!("ebpf ({} mode)", config.capture.mode.name());
                return perform(opened.source, (&kind, Vec::new()), &stage, &points, context);
            }
            (Err(error), SourceKind::Ebpf) => return Err(refused(in_full(&error))),
            (Err(error), _) => in_full(&error),
        },
    };
    let options =
        AfPacketOptions { ring_bytes, filters: mermin_capture::FilterRules::default(), follow: None };
    let source = AfPacketSource::open(std::slice::from_ref(&interface), &points, &options)
        .map_err(|error| refused(in_full(&error)))?;
    let warnings = if no_ebpf.is_empty() { Vec::new() } else { vec![fallback(&no_ebpf)] };
    perform(source, ("af_packet", warnings), &stage, &points, context)
}

type Context<'c, 'w> = (&'c DemoArgs, &'c Config, Asked, &'c mut Surroundings<'w>);

fn perform<S: Source + 'static>(
    source: S,
    (kind, warnings): (&str, Vec<String>),
    stage: &Stage,
    points: &Arc<ObservationPoints>,
    (args, config, asked, surroundings): Context<'_, '_>,
) -> Result<Exit, Stop> {
    let stats = StatsFile::open(&args.results, config)?;
    let outputs = Outputs::build(&Workshop::new(&args.results, &args.common, points, surroundings), config)?;
    let counted = CountByProtocol::default();
    let mut exporters = outputs.exporters;
    exporters.push(Box::new(counted.clone()));
    let over = Arc::new(AtomicBool::new(false));
    let witnessed = Arc::new(Mutex::new(None));
    let (near, far) = (Arc::clone(&stage.near), Arc::clone(&stage.far));
    let (tell, put) = (Arc::clone(&over), Arc::clone(&witnessed));
    let interrupted = asked.clone();
    thread::spawn(move || {
        let result = play(&near, &far);
        *put.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        tell.store(true, Ordering::Release);
    });
    let plan = Plan {
        command: "demo",
        source,
        // Its addresses are those of two namespaces: no host or cluster knows them.
        enricher: Enriching::start(config, None)?.enricher(),
        exporters,
        buffers: outputs.buffers,
        stats,
        agent_id: "demo".to_owned(),
        journal: None,
        beside_resident: 0,
        headline: format!(
            "{kind} on {NEAR}, which leads to {FAR} in another namespace; records: {}; Ctrl-C ends",
            outputs.description
        ),
        warnings: warnings.into_iter().chain(outputs.warnings).collect(),
        listens_on: None,
        end: End { asked, after: None, when: Box::new(move || over.load(Ordering::Acquire)) },
        points: Arc::clone(points),
        // What happens here is over before anybody could ask.
        server: None,
        views: Views::default(),
        agent_metrics: outputs.agent_metrics,
        ledger: outputs.ledger,
        reload: None,
    };
    let finished = drive(config, plan, surroundings)?;
    // Then traffic was still going on, or may have been: there is nothing to compare.
    if interrupted.now() {
        return Ok(finished.exit);
    }
    let witness = witnessed.lock().unwrap_or_else(PoisonError::into_inner).take();
    match witness {
        Some(Ok(witness)) => Ok(compare(&finished, witness, counted.sums(), surroundings)),
        Some(Err(error)) => {
            Err(Stop::new(Exit::Unavailable, format!("the traffic failed: {}", lower(&error))))
        }
        None => Ok(finished.exit),
    }
}

/// Traffic from the first packet to the last, then the kernel's counters.
fn play(near: &Namespace, far: &Namespace) -> io::Result<Witness> {
    near.enter()?;
    traffic::within(far, || {
        Rtnetlink::open()?.set_up(nix::net::if_::if_nametoindex(FAR)?)?;
        start_ipv6(FAR, FAR_ADDRESSES)
    })?;
    start_ipv6(NEAR, NEAR_ADDRESSES)?;
    let addresses: Result<Vec<IpAddr>, _> =
        FAR_ADDRESSES.iter().map(|(address, _)| address.parse()).collect();
    traffic::make(far, &addresses.map_err(io::Error::other)?)?;
    traffic::within(far, || set_ipv6(FAR, false))?;
    set_ipv6(NEAR, false)?;
    let mut crossed = Crossed::on(NEAR)?;
    let mut since = Instant::now();
    while since.elapsed() < QUIET {
        thread::sleep(Duration::from_millis(10));
        let now = Crossed::on(NEAR)?;
        if now != crossed {
            (crossed, since) = (now, Instant::now());
        }
    }
    Ok(Witness { sent: traffic::within(far, Sent::here)? + Sent::here()?, crossed })
}

/// Prints both sides; a difference is a bug and ends the demo as one.
fn compare<S>(
    finished: &Finished<S>,
    witness: Witness,
    counted: Sent,
    surroundings: &mut Surroundings<'_>,
) -> Exit {
    let seen = finished.statistics.ledger.seen;
    let rows = [
        ("TCP segments", witness.sent.tcp, counted.tcp),
        ("UDP datagrams", witness.sent.udp, counted.udp),
        ("ICMP messages", witness.sent.icmp, counted.icmp),
        ("ICMPv6 messages", witness.sent.icmpv6, counted.icmpv6),
        ("buffers on the interface", witness.crossed.buffers, seen.buffers),
        ("their bytes", witness.crossed.bytes, seen.buffer_bytes),
    ];
    let mut text = format!("\n{:<26}{:>16}{:>16}\n", "", "kernel counted", "mermin counted");
    for (what, kernel, mermin) in rows {
        let mark = if kernel == mermin { "" } else { "   DIFFERS" };
        text.push_str(&format!("{what:<26}{:>16}{:>16}{mark}\n", grouped(kernel), grouped(mermin)));
    }
    drop(surroundings.err.write_all(text.as_bytes()));
    let equal = rows.iter().all(|(_, kernel, mermin)| kernel == mermin);
    if equal { finished.exit } else { finished.exit.worse(Exit::Software) }
}

fn no_stage(error: io::Error) -> Stop {
    let denied = matches!(error.kind(), io::ErrorKind::PermissionDenied);
    let what = format!("can't make network namespaces: {}", lower(&error));
    if denied {
        Stop::new(Exit::NoPermission, what).help(format!("sudo {} demo", host::program()))
    } else {
        Stop::new(Exit::Unavailable, what)
            .help("the kernel needs namespaces and veth (CONFIG_NET_NS, CONFIG_VETH)")
    }
}
