//! Programs as filters of a clsact queueing discipline (Linux 4.5): by far the faster way on and off, and it goes with
//! the interface, also when that moves to another network namespace.
//!
//! Nothing takes a filter off when its process is killed. So each carries the name of its agent, and while it lives the
//! agent holds an abstract socket of that name in the same network namespace: who finds a filter of a name that nobody
//! holds takes it off.
//!
//! Programs on tcx run before; one that ends the chain there hides packets from filters. The discipline is shared: it is
//! left to others who have filters on it.

use crate::links::netlink::{Body, CREATE, EXCLUSIVE, Requests, attributes, text, word};
use mermin_flow::Hook;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
const TC_H_CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const TC_H_INGRESS: u32 = 0xffff_fff2;
const TC_H_EGRESS: u32 = 0xffff_fff3;
/// `struct tcmsg`.
const HEADER: usize = 20;

/// What names of agents begin with.
const NAME: &str = "mermin-";
const HOOKS: [Hook; 2] = [Hook::Ingress, Hook::Egress];

const fn parent(hook: Hook) -> u32 {
    match hook {
        Hook::Ingress => TC_H_INGRESS,
        Hook::Egress => TC_H_EGRESS,
    }
}

/// The kernel orders filters by priority: first at ingress and last at egress. The protocol is "all", in network order.
const fn place(hook: Hook) -> u32 {
    let priority: u32 = match hook {
        Hook::Ingress => 1,
        Hook::Egress => 0xffff,
    };
    priority << 16 | (libc::ETH_P_ALL as u16).to_be() as u32
}

fn header(index: u32, handle: u32, parent: u32, info: u32) -> Body {
    let words = [0, index, handle, parent, info];
    Body::new(&words.map(u32::to_ne_bytes).concat())
}

/// Both hooks of one interface.
pub(super) struct Clsact {
    /// The discipline was not there before, or an agent of this name had made it.
    ours: bool,
}

/// A filter as the kernel lists it.
#[derive(Debug, PartialEq, Eq)]
struct Filter {
    handle: u32,
    info: u32,
    /// Of its program.
    name: String,
}

/// An agent's filters in one network namespace.
pub(super) struct Filters {
    requests: Requests,
    name: String,
    handle: u32,
    /// Says that the agent lives.
    _alive: UnixDatagram,
}

impl Filters {
    /// For the network namespace of the calling thread.
    pub(super) fn new() -> io::Result<Self> {
        let id = RandomState::new().build_hasher().finish();
        let name = format!("{NAME}{id:016x}");
        let alive = hold(&name)?;
        // Any number will do; one of its own lets two agents be on one interface.
        let handle = id as u32 >> 1 | 1;
        Ok(Self { requests: Requests::open()?, name, handle, _alive: alive })
    }

    /// `programs`: for ingress and for egress. On both hooks or on none.
    pub(super) fn put(&mut self, programs: [BorrowedFd<'_>; 2], index: u32) -> io::Result<Clsact> {
        let qdisc = header(index, CLSACT_HANDLE, TC_H_CLSACT, 0).text(TCA_KIND, "clsact");
        let ours = match self.requests.request(RTM_NEWQDISC, CREATE | EXCLUSIVE, &qdisc) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.is_of_agents(index),
            Err(error) => return Err(error),
        };
        for (hook, program) in HOOKS.into_iter().zip(programs) {
            let options = Body::default()
                .number(TCA_BPF_FD, program.as_raw_fd() as u32)
                .text(TCA_BPF_NAME, &self.name)
                .number(TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT);
            let filter = header(index, self.handle, parent(hook), place(hook))
                .text(TCA_KIND, "bpf")
                .nested(TCA_OPTIONS, &options);
            if let Err(error) = self.requests.request(RTM_NEWTFILTER, CREATE | EXCLUSIVE, &filter) {
                self.delete_own(index);
                if ours {
                    self.leave(index);
                }
                return Err(error);
            }
        }
        Ok(Clsact { ours })
    }

    pub(super) fn take_off(&mut self, index: u32, clsact: &Clsact) {
        // Where none was on any more, neither is the discipline that we made: if there is one, somebody else has made it.
        if self.delete_own(index) && clsact.ours {
            self.leave(index);
        }
    }

    /// Whether there were any: the interface or the discipline may have gone meanwhile, and the filters with it.
    fn delete_own(&mut self, index: u32) -> bool {
        let handle = self.handle;
        let own = |hook| Filter { handle, info: place(hook), name: String::new() };
        HOOKS.map(|hook| self.delete(index, hook, &own(hook)).is_ok()).contains(&true)
    }

    /// Takes the discipline off, unless others use it.
    fn leave(&mut self, index: u32) {
        let used = HOOKS.iter().any(|hook| self.list(index, *hook).is_ok_and(|filters| !filters.is_empty()));
        if !used {
            let qdisc = header(index, CLSACT_HANDLE, TC_H_CLSACT, 0).text(TCA_KIND, "clsact");
            let _ = self.requests.request(RTM_DELQDISC, 0, &qdisc);
        }
    }

    /// Whether nobody but agents has filters on it: one of them has made it, and the last one takes it off.
    fn is_of_agents(&mut self, index: u32) -> bool {
        let lists = HOOKS.map(|hook| self.list(index, hook).unwrap_or_default());
        let mut filters = lists.iter().flatten().peekable();
        filters.peek().is_some() && filters.all(|filter| filter.name.starts_with(NAME))
    }

    fn delete(&mut self, index: u32, hook: Hook, filter: &Filter) -> io::Result<()> {
        let body = header(index, filter.handle, parent(hook), filter.info).text(TCA_KIND, "bpf");
        self.requests.request(RTM_DELTFILTER, 0, &body)
    }

    /// Whether this agent's filters are on the interface. Also where the kernel does not tell.
    pub(super) fn is_on(&mut self, index: u32) -> bool {
        HOOKS.iter().all(|hook| {
            self.list(index, *hook)
                .map_or(true, |filters| filters.iter().any(|filter| filter.name == self.name))
        })
    }

    /// Takes filters off that an agent has left which is no more, and what others have left of this agent's. Whether there
    /// were any of the former.
    pub(super) fn clear_leftovers(&mut self, index: u32) -> bool {
        let (mut orphans, mut own) = (false, false);
        for hook in HOOKS {
            for filter in self.list(index, hook).unwrap_or_default() {
                if filter.name == self.name {
                    own |= self.delete(index, hook, &filter).is_ok();
                // Who can take the name was not alive, and neither is the agent that had it.
                } else if filter.name.starts_with(NAME) && hold(&filter.name).is_ok() {
                    orphans |= self.delete(index, hook, &filter).is_ok();
                }
            }
        }
        if orphans {
            tracing::info!(index, "took off filters that a run had left");
        }
        if orphans || own {
            self.leave(index);
        }
        orphans
    }

    /// All filters with a program on a hook.
    fn list(&mut self, index: u32, hook: Hook) -> io::Result<Vec<Filter>> {
        let mut filters = Vec::new();
        self.requests.dump(RTM_GETTFILTER, &header(index, 0, parent(hook), 0), |message| {
            if let Some(filter) = filter(message.body) {
                filters.push(filter);
            }
        })?;
        Ok(filters)
    }
}

/// `None` also for the chain's own line, which has no handle.
fn filter(body: &[u8]) -> Option<Filter> {
    let (handle, info) = (word(body, 8)?, word(body, 16)?);
    let mut name = String::new();
    for (kind, value) in attributes(body.get(HEADER..)?) {
        if kind == TCA_OPTIONS {
            let named = attributes(value).find(|(kind, _)| *kind == TCA_BPF_NAME);
            name = named.map(|(_, name)| text(name)).unwrap_or_default();
        }
    }
    (handle != 0).then_some(Filter { handle, info, name })
}

/// Takes the abstract socket of a name; that fails while somebody has it.
fn hold(name: &str) -> io::Result<UnixDatagram> {
    UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)
}
