//! The programs of one object on the hooks of interfaces.
//!
//! First at ingress and last at egress: Mermin sees packets as they are on the wire, before others drop or change them
//! on the way in and after they did on the way out.

use super::clsact::{Clsact, Filters};
use super::error::EbpfError;
use super::object::{self, Object};
use super::pins::Pins;
use super::ring::Produced;
use super::tcx::{self, Tcx};
use crate::AttachKind;
use crate::clock::Steady;
use crate::filters::Filtering;
use crate::interfaces::{Interface, discover};
use crate::links::{AGAIN, Links, Numbers, Taps, Technology};
use aya::maps::{HashMap, MapData};
use aya::util::KernelVersion;
use mermin_flow::Hook;
use mermin_wire::Link;
use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant};
use std::{io, mem, thread};

const TCX_SINCE: KernelVersion = KernelVersion::new(6, 6, 0);
/// Interfaces that get tcx of themselves: taking programs off so many takes a second.
const TCX_OF_ITSELF: usize = 32;

/// What the reader has to know of interfaces, in the order in which it came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Events with this index are of these points from now on.
    On { index: u32, numbers: Numbers },
    /// They were, up to this position in the ring.
    Off { index: u32, up_to: u64 },
}

/// A way to the reader. It has a bound: a reader that is held up holds up attaching too.
pub(super) struct Tell {
    pub(super) news: SyncSender<News>,
    pub(super) produced: Produced,
}

/// The programs of both hooks, by kind of link.
struct Programs {
    ethernet: [OwnedFd; 2],
    ip: [OwnedFd; 2],
}

impl Programs {
    fn new(object: &mut Object) -> Result<Self, EbpfError> {
        let mut of = |link| {
            let mut fd = |hook| object.descriptor(object::program(link, hook));
            Ok::<_, EbpfError>([fd(Hook::Ingress)?, fd(Hook::Egress)?])
        };
        Ok(Self { ethernet: of(Link::Ethernet)?, ip: of(Link::Ip)? })
    }

    fn of(&self, link: Link) -> [BorrowedFd<'_>; 2] {
        let [ingress, egress] = if link == Link::Ip { &self.ip } else { &self.ethernet };
        [ingress.as_fd(), egress.as_fd()]
    }
}

/// What the programs are told of filters that ask for interfaces.
struct InterfaceRules {
    by_index: HashMap<MapData, u32, u64>,
    filtering: Arc<Filtering>,
}

impl InterfaceRules {
    fn new(object: &mut Object, filtering: Arc<Filtering>) -> Result<Self, EbpfError> {
        Ok(Self { by_index: object.interface_rules()?, filtering })
    }

    /// Before a program sees its packets.
    fn know(&mut self, index: u32, name: &str) -> io::Result<()> {
        self.by_index.insert(index, self.filtering.rules_of(Some(name)), 0).map_err(io::Error::other)
    }

    /// The kernel may give the index to another one, which is told of then.
    fn forget(&mut self, index: u32) {
        let _ = self.by_index.remove(&index);
    }
}

/// The programs on one interface.
pub(super) enum Tap {
    Tcx(Tcx),
    /// And when tcx refused, where that should have been it.
    Clsact(Clsact, Option<Instant>),
}

pub(super) struct EbpfTaps {
    programs: Programs,
    filters: Filters,
    pins: Option<Arc<Pins>>,
    rules: Option<InterfaceRules>,
    /// Interfaces of the start that it is on.
    on: BTreeSet<u32>,
    kind: AttachKind,
    has_tcx: bool,
    /// How many more get tcx of themselves.
    tcx_left: usize,
    /// It was said that tcx refuses.
    said: bool,
    tell: Tell,
    clock: Steady,
    /// Known from the moment at which there is a thread.
    links: Option<Arc<Links>>,
}

impl EbpfTaps {
    /// `pins`: where links have names, to outlast the process.
    pub(super) fn new(
        object: &mut Object,
        kind: AttachKind,
        tell: Tell,
        clock: Steady,
        pins: Option<Arc<Pins>>,
        filtering: Option<Arc<Filtering>>,
    ) -> Result<Self, EbpfError> {
        let filtering = filtering.filter(|filtering| filtering.is_by_interface());
        let rules = filtering.map(|filtering| InterfaceRules::new(object, filtering)).transpose()?;
        let filters =
            Filters::new().map_err(|source| EbpfError::Kernel { what: "a netlink socket", source })?;
        Ok(Self {
            programs: Programs::new(object)?,
            filters,
            pins,
            rules,
            on: BTreeSet::new(),
            kind,
            has_tcx: !KernelVersion::current().is_ok_and(|version| version < TCX_SINCE),
            tcx_left: TCX_OF_ITSELF,
            said: false,
            tell,
            clock,
            links: None,
        })
    }

    fn choose(&self, index: u32) -> Technology {
        let tcx = match self.kind {
            AttachKind::Tcx => true,
            AttachKind::Clsact => false,
            // Only a link changes programs without a gap.
            AttachKind::Auto if self.pins.is_some() => self.has_tcx,
            AttachKind::Auto => self.has_tcx && (self.tcx_left > 0 || tcx::is_used(index)),
        };
        if tcx { Technology::Tcx } else { Technology::Clsact }
    }

    fn put_by(&mut self, technology: Technology, interface: &Interface) -> io::Result<Tap> {
        let programs = self.programs.of(interface.link);
        match technology {
            Technology::Clsact => {
                self.filters.put(programs, interface.index).map(|clsact| Tap::Clsact(clsact, None))
            }
            _ => {
                let index = interface.index;
                if let Some(tcx) = self.pins.as_ref().and_then(|pins| Tcx::adopt(pins, programs, index)) {
                    return Ok(Tap::Tcx(tcx));
                }
                let tcx = Tcx::put(programs, index)?;
                if let Some(pins) = &self.pins {
                    tcx.pin(pins, index)?;
                }
                Ok(Tap::Tcx(tcx))
            }
        }
    }

    /// Takes programs off that an earlier run has left where this one is not.
    fn clear_others(&mut self) {
        let Some(pins) = &self.pins else { return };
        for index in pins.linked().into_iter().filter(|index| !self.on.contains(index)) {
            pins.forget_links(index);
        }
        for device in discover().unwrap_or_default() {
            if !self.on.contains(&device.index) {
                self.filters.clear_leftovers(device.index);
            }
        }
    }

    /// Whether what is on interfaces stays there: the process ends, and somebody will go on.
    fn stays(&self) -> bool {
        self.pins.is_some() && self.links.as_ref().is_some_and(|links| links.is_stopping())
    }

    /// By the other technology than the one that has refused.
    fn put_otherwise(
        &mut self,
        refused: Technology,
        interface: &Interface,
        error: &io::Error,
    ) -> io::Result<Tap> {
        if refused == Technology::Clsact {
            // Something else may have the place of the discipline (an ingress qdisc), and lets no filter on egress.
            return self.put_by(Technology::Tcx, interface);
        }
        // No descriptors, or no place in the row. Others may hide packets from filters, but most will be seen.
        let tap = self.put_by(Technology::Clsact, interface)?;
        let name = &interface.name;
        if mem::replace(&mut self.said, true) {
            tracing::debug!("{name} takes no program on tcx ({error}): it is captured on by clsact");
        } else {
            tracing::warn!(
                "{name} takes no program on tcx ({error}): it is captured on by clsact, and so are others that refuse"
            );
        }
        Ok(match tap {
            Tap::Clsact(clsact, _) => Tap::Clsact(clsact, Some(Instant::now())),
            tcx => tcx,
        })
    }

    /// Unless the reader has ended.
    fn tell(&self, mut news: News) {
        while let Err(TrySendError::Full(again)) = self.tell.news.try_send(news) {
            if self.links.as_ref().is_some_and(|links| links.is_stopping()) {
                return;
            }
            news = again;
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn forget_rules(&mut self, index: u32) {
        if let Some(rules) = &mut self.rules {
            rules.forget(index);
        }
    }

    fn say_off(&self, index: u32) {
        self.tell(News::Off { index, up_to: self.tell.produced.position() });
    }
}

impl Taps for EbpfTaps {
    type Tap = Tap;
    type Error = EbpfError;

    fn put(&mut self, interface: &Interface, numbers: Numbers) -> Result<Tap, EbpfError> {
        let index = interface.index;
        self.filters.clear_leftovers(index);
        if let Some(rules) = &mut self.rules {
            rules
                .know(index, &interface.name)
                .map_err(|source| EbpfError::Attach { interface: Arc::clone(&interface.name), source })?;
        }
        self.tell(News::On { index, numbers });
        let chosen = self.choose(index);
        let result = self.put_by(chosen, interface).or_else(|error| {
            let has_choice = self.kind == AttachKind::Auto && self.has_tcx;
            if has_choice { self.put_otherwise(chosen, interface, &error) } else { Err(error) }
        });
        match result {
            Ok(tap) => {
                if matches!(tap, Tap::Tcx(_)) {
                    self.tcx_left = self.tcx_left.saturating_sub(1);
                }
                if self.links.is_none() {
                    self.on.insert(index);
                }
                Ok(tap)
            }
            Err(source) => {
                self.say_off(index);
                Err(EbpfError::Attach { interface: Arc::clone(&interface.name), source })
            }
        }
    }

    fn take_off(&mut self, index: u32, tap: Tap, gone: bool) {
        if self.stays() {
            return;
        }
        match tap {
            Tap::Tcx(tcx) => {
                if let Some(pins) = &self.pins {
                    pins.forget_links(index);
                }
                drop(tcx);
            }
            // It has gone with the interface.
            Tap::Clsact(..) if gone => {}
            Tap::Clsact(clsact, _) => {
                self.filters.take_off(index, &clsact);
                self.forget_rules(index);
                // No grace period was waited for: a program may still be running. The index remains the interface's.
                return;
            }
        }
        self.forget_rules(index);
        self.say_off(index);
    }

    fn renamed(&mut self, interface: &Interface) {
        if let Some(rules) = &mut self.rules
            && let Err(error) = rules.know(interface.index, &interface.name)
        {
            tracing::warn!(%error, "filters go by the old name of {}", interface.name);
        }
    }

    fn is_on(&mut self, tap: &Tap, index: u32) -> bool {
        match tap {
            Tap::Tcx(tcx) => tcx.is_on(index),
            Tap::Clsact(..) => self.filters.is_on(index),
        }
    }

    fn is_hidden(&mut self, tap: &Tap, index: u32) -> bool {
        let Tap::Clsact(_, refused) = tap else { return false };
        let could_move = self.kind == AttachKind::Auto && self.has_tcx;
        could_move && refused.is_none_or(|since| since.elapsed() >= AGAIN) && tcx::is_used(index)
    }

    fn technology(&self, tap: &Tap) -> Technology {
        match tap {
            Tap::Tcx(_) => Technology::Tcx,
            Tap::Clsact(..) => Technology::Clsact,
        }
    }

    fn has_gone(error: &EbpfError) -> bool {
        matches!(error, EbpfError::Attach { source, .. }
            if matches!(source.raw_os_error(), Some(libc::ENODEV | libc::ENXIO)))
    }

    fn now(&self) -> u64 {
        self.clock.now()
    }

    fn begin(&mut self, links: &Arc<Links>) {
        self.tcx_left = 0;
        self.clear_others();
        self.links = Some(Arc::clone(links));
    }
}
