//! Programs on tcx (Linux 6.6): links that go with their descriptors.
//!
//! Each attachment and each removal waits for a grace period under the kernel's one lock for network devices, 10 to
//! 20 ms, so threads side by side gain nothing.

use super::bpf;
use super::pins::Pins;
use mermin_flow::Hook;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
const BPF_F_BEFORE: u32 = 1 << 3;
const BPF_F_AFTER: u32 = 1 << 4;

const fn of(hook: Hook) -> u32 {
    match hook {
        Hook::Ingress => BPF_TCX_INGRESS,
        Hook::Egress => BPF_TCX_EGRESS,
    }
}

/// Both hooks of one interface. Dropping it takes the programs off.
pub(super) struct Tcx([OwnedFd; 2]);

impl Tcx {
    /// `programs`: for ingress and for egress. First at ingress and last at egress.
    pub(super) fn put(programs: [BorrowedFd<'_>; 2], index: u32) -> io::Result<Self> {
        let ingress = bpf::link(programs[0], index, of(Hook::Ingress), BPF_F_BEFORE)?;
        let egress = bpf::link(programs[1], index, of(Hook::Egress), BPF_F_AFTER)?;
        Ok(Self([ingress, egress]))
    }

    /// The links that an earlier run has left, with these programs from now on. `None`: there are none on this interface.
    pub(super) fn adopt(pins: &Pins, programs: [BorrowedFd<'_>; 2], index: u32) -> Option<Self> {
        let links = [pins.link(index, Hook::Ingress), pins.link(index, Hook::Egress)];
        let [Some(ingress), Some(egress)] = links else {
            pins.forget_links(index);
            return None;
        };
        let links = [ingress, egress];
        let is_updated =
            links.iter().zip(programs).all(|(link, program)| bpf::update_link(link.as_fd(), program).is_ok());
        if !is_updated {
            pins.forget_links(index);
            return None;
        }
        Some(Self(links))
    }

    /// Gives the links names, to outlast the process.
    pub(super) fn pin(&self, pins: &Pins, index: u32) -> io::Result<()> {
        let [ingress, egress] = &self.0;
        pins.pin_link(index, Hook::Ingress, ingress.as_fd())?;
        pins.pin_link(index, Hook::Egress, egress.as_fd())
    }

    /// Whether it is on the interface with this index: it follows one that moves to another namespace.
    pub(super) fn is_on(&self, index: u32) -> bool {
        self.0.iter().all(|link| bpf::index_of(link.as_fd()).is_ok_and(|on| on == index))
    }
}

/// Programs of somebody else, as many as the kernel takes on an interface.
#[cfg(test)]
pub(crate) fn fill(index: u32) -> Vec<impl Sized> {
    const MOST: usize = 63;
    (0..MOST)
        .map(|_| {
            let programs = [bpf::passer().unwrap(), bpf::passer().unwrap()];
            Tcx::put([programs[0].as_fd(), programs[1].as_fd()], index).unwrap()
        })
        .collect()
}

/// Whether any program is on tcx of an interface.
pub(super) fn is_used(index: u32) -> bool {
    [Hook::Ingress, Hook::Egress]
        .iter()
        .any(|hook| bpf::programs_on(index, of(*hook)).is_ok_and(|count| count > 0))
}
