//! Programs on and off the hooks of an interface.
//!
//! First at ingress and last at egress: Mermin sees packets as they are on the wire, before others drop or change them
//! on the way in and after they did on the way out.

use super::error::EbpfError;
use super::object::{self, Object};
use crate::interfaces::Interface;
use aya::programs::links::LinkOrder;
use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use aya::util::KernelVersion;
use mermin_flow::Hook;
use std::io;

const HOOKS: [Hook; 2] = [Hook::Ingress, Hook::Egress];

const TCX_SINCE: KernelVersion = KernelVersion::new(6, 6, 0);

/// How programs get on a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Links of the multi-program interface (Linux 6.6): they go with the process, whatever ends it.
    Tcx,
    /// Filters of a clsact qdisc: they stay after `kill -9`.
    Clsact,
}

impl Way {
    pub(super) fn of_this_kernel() -> Self {
        if KernelVersion::current().is_ok_and(|version| version < TCX_SINCE) {
            Self::Clsact
        } else {
            Self::Tcx
        }
    }
}

const fn attach_type(hook: Hook) -> TcAttachType {
    match hook {
        Hook::Ingress => TcAttachType::Ingress,
        Hook::Egress => TcAttachType::Egress,
    }
}

/// Puts the programs on both hooks of `interface`, or on none. Dropping the links takes them off.
pub(super) fn attach(
    object: &mut Object,
    interface: &Interface,
    way: Way,
) -> Result<Vec<SchedClassifierLink>, EbpfError> {
    let error = |source: ProgramError| EbpfError::Attach {
        interface: interface.name.clone(),
        source: Box::new(source),
    };
    if way == Way::Clsact {
        match tc::qdisc_add_clsact(&interface.name) {
            Err(problem) if !exists(&problem) => return Err(error(problem.into())),
            _ => {}
        }
    }
    let mut links = Vec::with_capacity(HOOKS.len());
    for hook in HOOKS {
        let program = object.program(object::program(interface.link, hook))?;
        let id = program
            .attach_with_options(&interface.name, attach_type(hook), options(way, hook))
            .map_err(error)?;
        links.push(program.take_link(id).map_err(error)?);
    }
    Ok(links)
}

fn options(way: Way, hook: Hook) -> TcAttachOptions {
    match (way, hook) {
        (Way::Tcx, Hook::Ingress) => TcAttachOptions::TcxOrder(LinkOrder::first()),
        (Way::Tcx, Hook::Egress) => TcAttachOptions::TcxOrder(LinkOrder::last()),
        // The kernel orders filters by priority.
        (Way::Clsact, Hook::Ingress) => {
            TcAttachOptions::Netlink(NlOptions { priority: 1, ..NlOptions::default() })
        }
        (Way::Clsact, Hook::Egress) => {
            TcAttachOptions::Netlink(NlOptions { priority: u16::MAX, ..NlOptions::default() })
        }
    }
}

/// Whether the qdisc was there already.
fn exists(problem: &TcError) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(problem);
    while let Some(cause) = source {
        if cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::AlreadyExists)
        {
            return true;
        }
        source = cause.source();
    }
    matches!(problem, TcError::AlreadyAttached)
}

/// A program on a tcx hook of an interface, anybody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Where it hangs.
    pub hook: Hook,
    /// The kernel's number.
    pub id: u32,
    /// Its name, as far as the kernel keeps it (15 bytes).
    pub name: String,
}

/// The programs on the tcx hooks of an interface, in the order in which they run: what may hide packets from Mermin or
/// change them before it sees them.
///
/// # Errors
/// No permission, no such interface, or a kernel before Linux 6.6.
pub fn hooks(ifname: &str) -> Result<Vec<Attached>, EbpfError> {
    let mut attached = Vec::new();
    for hook in HOOKS {
        let (_, programs) = SchedClassifier::query_tcx(ifname, attach_type(hook))
            .map_err(|source| EbpfError::Attach { interface: ifname.into(), source: Box::new(source) })?;
        attached.extend(programs.iter().map(|program| Attached {
            hook,
            id: program.id(),
            name: String::from_utf8_lossy(program.name()).into_owned(),
        }));
    }
    Ok(attached)
}
