//! Waiting until every program run that may have read the old epoch has ended.
//!
//! Writing into an array of maps returns after the kernel's grace period (`synchronize_rcu`), because programs may
//! still use the inner map that was replaced. Nothing else is wanted of these two maps. `membarrier` would wait alike,
//! but is refused on kernels with `nohz_full`.

use super::bpf::{Create, create_map, put_map};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;

pub(super) struct Grace {
    outer: OwnedFd,
    inner: OwnedFd,
}

impl Grace {
    pub(super) fn new() -> io::Result<Self> {
        let array = Create {
            map_type: BPF_MAP_TYPE_ARRAY,
            key_size: 4,
            value_size: 4,
            max_entries: 1,
            ..Create::default()
        };
        let inner = create_map(&array)?;
        let outer = create_map(&Create {
            map_type: BPF_MAP_TYPE_ARRAY_OF_MAPS,
            inner_map_fd: inner.as_raw_fd() as u32,
            ..array
        })?;
        Ok(Self { outer, inner })
    }

    /// One that the kernel never grants.
    #[cfg(test)]
    pub(super) fn refused() -> io::Result<Self> {
        let nothing = || std::fs::File::open("/dev/null").map(OwnedFd::from);
        Ok(Self { outer: nothing()?, inner: nothing()? })
    }

    /// Returns when no program runs that ran at the call. Milliseconds; up to a hundred on a busy machine.
    pub(super) fn wait(&self) -> io::Result<()> {
        put_map(self.outer.as_fd(), 0, self.inner.as_fd())
    }
}
